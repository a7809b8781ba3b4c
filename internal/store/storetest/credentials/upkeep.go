package credentials

import (
	"sync/atomic"
	"testing"
	"time"

	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/ending"
	"frontdesk.dev/frontdesk/internal/exchange/refresh"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/store"
	"frontdesk.dev/frontdesk/internal/store/storetest/check"
	"frontdesk.dev/frontdesk/internal/vault"
)

// at is a connection of a user at an upstream.
func at(id string, user identity.UserID, up catalog.UpstreamName) vault.Connection {
	c := check.Connection(id)
	c.User, c.Upstream = user, up
	return c
}

// machineSiblings: of all that a person has through one OAuth client, one is renewed at a time, whoever asks where.
func machineSiblings(t *testing.T, a, b *store.DB) {
	ctx := t.Context()
	all := []vault.Connection{at("c1", "alice", "mail"), at("c2", "alice", "drive"), at("c3", "bob", "mail"), at("c4", "alice", "wiki")}
	for _, c := range all {
		check.OK(t, a.Connect(ctx, c, 0))
	}
	shared := refresh.Lease{Attempt: "try", Owner: "me", Time: leaseTime, Siblings: []catalog.UpstreamName{"drive", "mail"}}
	for round := range 5 {
		var won atomic.Int64
		var winner atomic.Pointer[vault.Connection]
		check.Race(a, b, func(i int, db *store.DB) {
			if held, got, err := db.Claim(ctx, all[i/2%2], shared); step(t, got, err) {
				won.Add(1)
				winner.Store(&held)
			}
		})
		if won.Load() != 1 {
			t.Fatalf("round %d: %d siblings are renewed at once", round, won.Load())
		}
		if _, got, err := b.Claim(ctx, all[2], shared); step(t, got, err) != (round == 0) {
			t.Error("another person's connection is no sibling")
		}
		if got, err := a.Fail(ctx, *winner.Load()); !step(t, got, err) {
			t.Fatal("the lease could not be given back")
		}
	}
	alone := refresh.Lease{Attempt: "try", Owner: "me", Time: leaseTime}
	for _, c := range []vault.Connection{all[0], all[3]} {
		if _, got, err := a.Claim(ctx, c, alone); !step(t, got, err) {
			t.Errorf("%s waits for others, which are no siblings", c.Upstream)
		}
	}
}

func idsOf(l []vault.Connection) []vault.ConnectionID {
	var ids []vault.ConnectionID
	for _, c := range l {
		ids = append(ids, c.ID)
	}
	return ids
}

// machineUpkeep: what is due, what a new run takes over, and which old tokens are forgotten.
func machineUpkeep(t *testing.T, a, b *store.DB) {
	ctx := t.Context()
	due := func(before time.Time, limit int) []vault.ConnectionID {
		t.Helper()
		return idsOf(check.Must(b.Due(ctx, check.Ours, "tracker", before, limit))(t))
	}
	rows := map[string]vault.Connection{}
	for i, id := range []string{"c1", "c2", "c3", "c4", "c5"} {
		c := at(id, identity.UserID("user of "+id), "tracker")
		c.Renewed = check.Day.Add(time.Duration(i) * time.Hour)
		rows[id] = c
	}
	for id, change := range map[string]func(*vault.Connection){
		"c2": func(c *vault.Connection) { c.Refreshes = false }, "c3": func(c *vault.Connection) { c.Status = vault.NeedsReconnect },
		"c5": func(c *vault.Connection) { c.Status = vault.Uncertain },
	} {
		c := rows[id]
		change(&c)
		rows[id] = c
	}
	for _, c := range rows {
		check.OK(t, a.Connect(ctx, c, 0))
	}
	elsewhere := at("c6", "alice", "wiki")
	check.OK(t, a.Connect(ctx, elsewhere, 0))
	nobody := time.Unix(0, 0)
	check.Same(t, due(nobody, 10), []vault.ConnectionID{"c5"})
	check.Same(t, due(check.Day.Add(time.Minute), 10), []vault.ConnectionID{"c5", "c1"})
	check.Same(t, due(check.Day.Add(24*time.Hour), 10), []vault.ConnectionID{"c5", "c1", "c4"})
	check.Same(t, due(check.Day.Add(24*time.Hour), 2), []vault.ConnectionID{"c5", "c1"})

	// An interrupted one is due once its lease is over, or its place is taken over.
	old := refresh.Lease{Attempt: "try", Owner: refresh.Owner{Place: "here", Run: "1"}.String(), Time: leaseTime}
	held, won, err := a.Claim(ctx, rows["c4"], old)
	if !step(t, won, err) {
		t.Fatal("it could not be claimed")
	}
	if won, err := a.Sent(ctx, held); !step(t, won, err) {
		t.Fatal("it could not be sent")
	}
	check.Same(t, due(nobody, 10), []vault.ConnectionID{"c5"})
	for o, want := range map[refresh.Owner]int64{{Place: "here", Run: "1"}: 0, {Place: "there", Run: "2"}: 0, {Place: "her", Run: "e-2"}: 0} {
		if n := check.Must(b.Inherit(ctx, o))(t); n != want {
			t.Errorf("%v took over %d leases, want %d", o, n, want)
		}
	}
	if n := check.Must(b.Inherit(ctx, refresh.Owner{Place: "here", Run: "2"}))(t); n != 1 {
		t.Errorf("the next run here took over %d leases, want 1", n)
	}
	check.Same(t, due(nobody, 10), []vault.ConnectionID{"c4", "c5"})
	if _, won, err := b.Claim(ctx, rows["c4"], old); !step(t, won, err) {
		t.Error("what was taken over cannot be claimed")
	}

	if n := check.Must(a.Proved(ctx, check.Ours, "tracker", check.Day.Add(time.Minute)))(t); n != 1 {
		t.Errorf("%d old tokens were forgotten, want 1", n)
	}
	if c := check.Must(b.Connection(ctx, check.Ours, "c1"))(t); len(c.Previous) != 0 || len(c.Sealed.Refresh) == 0 {
		t.Error("the wrong token was forgotten")
	}
}

// machineRestored: after a restore every connection that can be renewed is uncertain, and nothing else changes.
func machineRestored(t *testing.T, a, b *store.DB) {
	ctx := t.Context()
	renewed, fixed, dead := at("c1", "alice", "tracker"), at("c2", "bob", "tracker"), at("c3", "carol", "tracker")
	fixed.Refreshes = false
	dead.Status = vault.NeedsReconnect
	for _, c := range []vault.Connection{renewed, fixed, dead} {
		check.OK(t, a.Connect(ctx, c, 0))
	}
	if n := check.Must(a.Restored(ctx, "restored"))(t); n != 1 {
		t.Errorf("%d connections are uncertain, want 1", n)
	}
	renewed.Status, renewed.Reason, renewed.NotBefore = vault.Uncertain, "restored", time.Time{}
	for _, c := range []vault.Connection{renewed, fixed, dead} {
		check.Same(t, check.Must(b.Connection(ctx, check.Ours, c.ID))(t), c)
	}
}

// endings: what vendors have yet to end is kept, in the order in which it is due, and tried by one.
func endings(t *testing.T, a, b *store.DB) {
	ctx := t.Context()
	first, second := check.Filled[vault.Ending](), check.Filled[vault.Ending]()
	first.ID, first.Next, second.ID, second.Next = "e1", check.Day, "e2", check.Day.Add(time.Hour)
	first.GivenUp, second.GivenUp = time.Time{}, time.Time{}
	check.OK(t, a.AddEnding(ctx, second))
	check.OK(t, a.AddEnding(ctx, first))
	check.Same(t, check.Must(b.DueEndings(ctx, check.Day.Add(-time.Second), 10))(t), nil)
	check.Same(t, check.Must(b.DueEndings(ctx, check.Day, 10))(t), []vault.Ending{first})
	check.Same(t, check.Must(b.DueEndings(ctx, check.Day.Add(time.Hour), 10))(t), []vault.Ending{first, second})
	check.Same(t, check.Must(b.DueEndings(ctx, check.Day.Add(time.Hour), 1))(t), []vault.Ending{first})
	check.Same(t, check.Must(b.EndingsOf(ctx, check.Ours, first.User))(t), []vault.Ending{first, second})
	check.Same(t, check.Must(b.EndingsOf(ctx, check.Ours, "somebody else"))(t), nil)
	var won atomic.Int64
	check.Race(a, b, func(_ int, db *store.DB) {
		if got, err := db.TryEnding(ctx, first, check.Day.Add(2*time.Hour)); step(t, got, err) {
			won.Add(1)
		}
	})
	if won.Load() != 1 {
		t.Errorf("%d ask the vendor at once", won.Load())
	}
	first.Tries, first.Next = first.Tries+1, check.Day.Add(2*time.Hour)
	check.Same(t, check.Must(b.DueEndings(ctx, check.Day.Add(2*time.Hour), 10))(t), []vault.Ending{second, first})
	check.OK(t, b.RemoveEnding(ctx, check.Theirs, "e1"))
	check.OK(t, b.RemoveEnding(ctx, check.Ours, "e2"))
	check.OK(t, b.RemoveEnding(ctx, check.Ours, "e2"))
	check.Same(t, check.Must(a.DueEndings(ctx, check.Day.Add(2*time.Hour), 10))(t), []vault.Ending{first})

	first.Why = "it is away"
	check.OK(t, b.FailEnding(ctx, first))
	check.Same(t, check.Must(a.DueEndings(ctx, check.Day.Add(2*time.Hour), 10))(t), []vault.Ending{first})
	first.GivenUp, first.Why = check.Day, "it never answered"
	check.OK(t, b.FailEnding(ctx, first))
	first.Sealed = nil // with the hope goes the token
	check.Same(t, check.Must(a.DueEndings(ctx, check.Day.Add(2*time.Hour), 10))(t), nil)
	check.Same(t, check.Must(a.Endings(ctx, check.Ours, 10))(t), []vault.Ending{first})
	check.Same(t, check.Must(a.EndingCounts(ctx, check.Ours))(t), ending.Progress{GivenUp: 1})
}

// use: the last use only moves on, and who has not been used since is found.
func use(t *testing.T, a, b *store.DB) {
	ctx := t.Context()
	unused := func(since time.Time) []vault.ConnectionID {
		t.Helper()
		return idsOf(check.Must(b.Unused(ctx, check.Ours, since, 10))(t))
	}
	for id, change := range map[string]func(*vault.Connection){
		"c1": func(c *vault.Connection) {}, "c2": func(c *vault.Connection) { c.LastUsed = check.Day.Add(time.Hour) },
		"c3": func(c *vault.Connection) { c.Created = check.Day.Add(time.Hour) }, "c4": func(c *vault.Connection) { c.Upstream = "idp:login" },
		"c5": func(c *vault.Connection) { c.Status = vault.Revoked },
	} {
		c := at(id, identity.UserID("user of "+id), "tracker")
		c.Created, c.LastUsed = check.Day, time.Time{}
		change(&c)
		check.OK(t, a.Connect(ctx, c, 0))
	}
	check.Same(t, unused(check.Day), nil)
	check.Same(t, unused(check.Day.Add(time.Minute)), []vault.ConnectionID{"c1"})
	check.OK(t, a.Used(ctx, check.Ours, "c1", check.Day.Add(2*time.Hour)))
	check.OK(t, b.Used(ctx, check.Ours, "c1", check.Day.Add(time.Hour)))
	check.OK(t, b.Used(ctx, check.Theirs, "c1", check.Day.Add(9*time.Hour)))
	check.Same(t, unused(check.Day.Add(90*time.Minute)), []vault.ConnectionID{"c3", "c2"})
	check.Same(t, unused(check.Day.Add(3*time.Hour)), []vault.ConnectionID{"c3", "c2", "c1"})
}
