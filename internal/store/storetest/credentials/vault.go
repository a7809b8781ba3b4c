package credentials

import (
	"fmt"
	"testing"
	"time"

	"frontdesk.dev/frontdesk/internal/exchange/refresh"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/store"
	"frontdesk.dev/frontdesk/internal/store/storetest/check"
	"frontdesk.dev/frontdesk/internal/vault"
	"frontdesk.dev/frontdesk/internal/vault/keyring"
)

// fresh is a connection with something in every field, as it stands after a connect.
func connections(t *testing.T, a, b *store.DB) {
	ctx := t.Context()
	c := check.Connection("c1")
	check.OK(t, a.Connect(ctx, c, 0))
	check.Same(t, check.Must(b.Connection(ctx, check.Ours, "c1"))(t), c)
	bare := vault.Connection{Tenant: check.Ours, ID: "c2", User: "alice", Upstream: "wiki", Status: vault.Active, Created: check.Day.Add(-1), Machine: vault.Machine{Generation: 1, Version: 1, Phase: vault.Idle}}
	check.OK(t, a.Connect(ctx, bare, 0))
	bare.Created = bare.Created.Truncate(1000)
	other := check.Connection("c3")
	other.User = "bob"
	check.OK(t, a.Connect(ctx, other, 0))
	check.Same(t, check.Must(b.Connections(ctx, check.Ours, "alice", ""))(t), []vault.Connection{c, bare})
	check.Same(t, check.Must(b.Connections(ctx, check.Ours, "alice", "tracker"))(t), []vault.Connection{c})
	check.Same(t, check.Must(b.Connections(ctx, check.Ours, "alice", "nothing"))(t), nil)

	twin := check.Connection("c4")
	check.WantKind(t, b.Connect(ctx, twin, 0), fault.Conflict) // this account is connected there already
	second := check.Connection("c5")
	second.Account, second.Preferred = "another", time.Time{}
	check.OK(t, b.Connect(ctx, second, 0))
	check.Same(t, check.Must(a.Connections(ctx, check.Ours, "alice", "tracker"))(t), []vault.Connection{c, second})
	check.OK(t, a.Prefer(ctx, second, c.Preferred.Add(time.Second)))
	second.Preferred = c.Preferred.Add(time.Second)
	check.Same(t, check.Must(b.Connections(ctx, check.Ours, "alice", "tracker"))(t), []vault.Connection{second, c})
	for _, wrong := range []vault.Connection{{Tenant: check.Ours, ID: "c5", User: "bob"}, {Tenant: check.Theirs, ID: "c5", User: "alice"}, {Tenant: check.Ours, ID: "none", User: "alice"}} {
		check.WantKind(t, a.Prefer(ctx, wrong, check.Day.Add(time.Hour)), fault.NotFound)
	}
	second.Status = vault.Revoked
	check.OK(t, a.Update(ctx, second))
	check.WantKind(t, a.Prefer(ctx, second, check.Day.Add(time.Hour)), fault.NotFound)

	u := c
	u.Status, u.Reason, u.Label, u.Scopes, u.LastUsed = vault.Suspect, "why", "other", []string{"x"}, check.Day
	changed := u
	u.Account, u.Access, u.Phase, u.Failures = "not", []byte("for"), vault.Sent, 9 // Update
	check.OK(t, b.Update(ctx, u))
	check.Same(t, check.Must(a.Connection(ctx, check.Ours, "c1"))(t), changed)
	for _, stale := range []vault.Machine{{Generation: 2, Version: 1}, {Generation: 1, Version: 2}} {
		u.Machine = stale
		check.WantKind(t, a.Update(ctx, u), fault.Conflict)
	}
	u.ID = "none"
	check.WantKind(t, a.Update(ctx, u), fault.NotFound)

	changed.Status = vault.Revoked
	check.OK(t, a.Update(ctx, changed))
	check.Same(t, check.Must(b.Connections(ctx, check.Ours, "alice", "tracker"))(t), nil)
	check.Same(t, check.Must(b.Connection(ctx, check.Ours, "c1"))(t), changed)
	check.OK(t, b.Connect(ctx, twin, 0))
}

func connectionsReplaced(t *testing.T, a, b *store.DB) {
	ctx := t.Context()
	c := check.Connection("c1")
	check.OK(t, a.Connect(ctx, c, 0))
	held, _, err := a.Claim(ctx, c, refresh.Lease{Attempt: "try", Owner: "me", Time: leaseTime})
	check.OK(t, err)
	next := check.Connection("c1")
	next.Generation, next.Account, next.Access = 2, "another", []byte("new")
	check.OK(t, b.Connect(ctx, next, 1))
	next.LeaseEpoch = held.LeaseEpoch + 1
	check.Same(t, check.Must(a.Connection(ctx, check.Ours, "c1"))(t), next)
	for what, step := range map[string]func() (bool, error){
		"sent":   func() (bool, error) { return a.Sent(ctx, held) },
		"settle": func() (bool, error) { return a.Settle(ctx, held, held.Version) },
		"fail":   func() (bool, error) { return a.Fail(ctx, held) },
	} {
		if done, err := step(); done || err != nil {
			t.Errorf("%s on a connection that was replaced: %v, %v", what, done, err)
		}
	}
	check.Same(t, check.Must(a.Connection(ctx, check.Ours, "c1"))(t), next)
	check.WantKind(t, a.Connect(ctx, next, 1), fault.Conflict)
	next.ID = "none"
	check.WantKind(t, a.Connect(ctx, next, 1), fault.NotFound)
	next.ID, next.User, next.Generation = "c1", "mallory", 3
	check.WantKind(t, a.Connect(ctx, next, 2), fault.Conflict) // a row stays its user's
}

func connectionsRaced(t *testing.T, a, b *store.DB) {
	ctx := t.Context()
	outcome := func(n *check.Tally[string], err error) {
		switch {
		case err == nil:
			n.Add("won")
		case fault.KindOf(err) == fault.Conflict:
			n.Add("lost")
		default:
			t.Error(err)
		}
	}
	var first, replaced, updated check.Tally[string]
	check.Race(a, b, func(i int, db *store.DB) { outcome(&first, db.Connect(ctx, check.Connection(fmt.Sprint("c", i)), 0)) })
	c := check.Must(a.Connections(ctx, check.Ours, "alice", "tracker"))(t)[0]
	check.Race(a, b, func(i int, db *store.DB) {
		n := c
		n.Generation, n.Label = 2, fmt.Sprint(i)
		outcome(&replaced, db.Connect(ctx, n, 1))
	})
	c = check.Must(a.Connection(ctx, check.Ours, c.ID))(t)
	check.Race(a, b, func(i int, db *store.DB) { // a refresh comes between those who only look
		u := c
		if u.LastUsed = check.Day; i == check.Many/2 {
			if won, err := db.Settle(ctx, u, 1); !won || err != nil {
				t.Errorf("the new credential was not stored: %v, %v", won, err)
			}
			return
		}
		u.Status = vault.NeedsReconnect
		outcome(&updated, db.Update(ctx, u))
	})
	for what, n := range map[string]map[string]int{"connected": first.N, "replaced": replaced.N} {
		if n["won"] != 1 || n["lost"] != check.Many-1 {
			t.Errorf("%s at once: %v", what, n)
		}
	}
	if end := check.Must(b.Connection(ctx, check.Ours, c.ID))(t); end.Status != vault.Active || end.Version != 2 {
		t.Errorf("a late mark overwrote a new credential: %s, version %d", end.Status, end.Version)
	}
}

func keys(t *testing.T, a, b *store.DB) {
	ctx := t.Context()
	k := check.Filled[keyring.Key]()
	k.Purpose, k.Generation, k.ID = "issuer", 2, "k2"
	older, system := k, k
	older.Generation, older.ID = 1, "k1"
	system.Tenant = ""
	for _, k := range []keyring.Key{k, older, system} {
		check.OK(t, a.AddKey(ctx, k))
	}
	check.Same(t, check.Must(b.Keys(ctx, check.Ours, "issuer"))(t), []keyring.Key{older, k})
	check.Same(t, check.Must(b.Keys(ctx, "", "issuer"))(t), []keyring.Key{system})
	check.Same(t, check.Must(b.Keys(ctx, check.Ours, "ticket"))(t), nil)

	k.NotBefore, k.NotAfter, k.Sealed, k.Public = check.Day, check.Day, []byte("new"), nil
	check.OK(t, b.UpdateKey(ctx, k))
	check.Same(t, check.Must(a.Keys(ctx, check.Ours, "issuer"))(t), []keyring.Key{older, k})
	k.ID = "k1"
	check.WantKind(t, a.UpdateKey(ctx, k), fault.NotFound)

	var n check.Tally[fault.Kind]
	won := 0
	check.Race(a, b, func(i int, db *store.DB) {
		fresh := keyring.Key{Tenant: check.Ours, Purpose: "tenant", ID: fmt.Sprint(i), Generation: 1, Created: check.Day, Sealed: []byte{byte(i)}}
		if err := db.AddKey(ctx, fresh); err != nil {
			n.Add(fault.KindOf(err))
		}
	})
	if won = len(check.Must(b.Keys(ctx, check.Ours, "tenant"))(t)); won != 1 || n.N[fault.Conflict] != check.Many-1 {
		t.Errorf("%d keys of one generation; losers got %v", won, n.N)
	}
}

func names(t *testing.T, a, b *store.DB) {
	ctx := t.Context()
	ids := map[[16]byte]string{}
	for _, n := range [][2]string{{"upstream", "tracker"}, {"upstream", "wiki"}, {"user", "tracker"}} {
		id := check.Must(a.NameID(ctx, check.Ours, n[0], n[1]))(t)
		ids[id] = n[1]
		if again := check.Must(b.NameID(ctx, check.Ours, n[0], n[1]))(t); again != id {
			t.Errorf("%v changed its id", n)
		}
		ids[check.Must(a.NameID(ctx, check.Theirs, n[0], n[1]))(t)] = "theirs"
	}
	if len(ids) != 6 {
		t.Errorf("6 names have %d ids", len(ids))
	}
	var n check.Tally[[16]byte]
	check.Race(a, b, func(_ int, db *store.DB) {
		id, err := db.NameID(ctx, check.Ours, "user", "new")
		if err != nil {
			t.Error(err)
		}
		n.Add(id)
	})
	if len(n.N) != 1 {
		t.Errorf("one name got %d ids", len(n.N))
	}
}

// everyConnection: all tenants' come, ended ones too, each once, and a look can be broken off.
func everyConnection(t *testing.T, a, b *store.DB) {
	ctx := t.Context()
	want := map[vault.ConnectionID]bool{}
	for i := range 2050 {
		c := vault.Connection{Tenant: []identity.Tenant{check.Ours, check.Theirs}[i%2], ID: vault.ConnectionID(fmt.Sprintf("%032x", i)), User: identity.UserID(fmt.Sprint("u", i)), Upstream: "tracker", Status: vault.Active, Created: check.Day}
		if i%3 == 0 {
			c.Status = vault.Revoked
		}
		check.OK(t, a.Connect(ctx, c, 0))
		want[c.ID] = true
	}
	check.OK(t, b.EachConnection(ctx, func(c vault.Connection) error {
		if !want[c.ID] {
			t.Errorf("%s came twice, or was never stored", c.ID)
		}
		delete(want, c.ID)
		return nil
	}))
	if len(want) > 0 {
		t.Errorf("%d did not come", len(want))
	}
	enough := fmt.Errorf("enough")
	if err := b.EachConnection(ctx, func(vault.Connection) error { return enough }); err != enough {
		t.Errorf("broken off with %v", err)
	}
}
