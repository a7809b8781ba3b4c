package storetest

import (
	"fmt"
	"testing"
	"time"

	"frontdesk.dev/frontdesk/internal/exchange/refresh"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/store"
	"frontdesk.dev/frontdesk/internal/vault"
	"frontdesk.dev/frontdesk/internal/vault/keyring"
)

// fresh is a connection with something in every field, as it stands after a connect.
func fresh(id string) vault.Connection {
	c := filled[vault.Connection]()
	c.ID, c.User, c.Upstream, c.Status, c.Generation, c.Version = vault.ConnectionID(id), "alice", "tracker", vault.Active, 1, 1
	c.Machine = vault.Machine{Generation: 1, Version: 1, Phase: vault.Idle, NotBefore: c.NotBefore, Failures: 3, Recoveries: 2}
	return c
}

func connections(t *testing.T, a, b *store.DB) {
	ctx := t.Context()
	c := fresh("c1")
	ok(t, a.Connect(ctx, c, 0))
	same(t, must(b.Connection(ctx, ours, "c1"))(t), c)
	bare := vault.Connection{Tenant: ours, ID: "c2", User: "alice", Upstream: "wiki", Status: vault.Active, Created: day.Add(-1), Machine: vault.Machine{Generation: 1, Version: 1, Phase: vault.Idle}}
	ok(t, a.Connect(ctx, bare, 0))
	bare.Created = bare.Created.Truncate(1000)
	other := fresh("c3")
	other.User = "bob"
	ok(t, a.Connect(ctx, other, 0))
	same(t, must(b.Connections(ctx, ours, "alice", ""))(t), []vault.Connection{c, bare})
	same(t, must(b.Connections(ctx, ours, "alice", "tracker"))(t), []vault.Connection{c})
	same(t, must(b.Connections(ctx, ours, "alice", "nothing"))(t), nil)

	twin := fresh("c4")
	wantKind(t, b.Connect(ctx, twin, 0), fault.Conflict) // this account is connected there already
	second := fresh("c5")
	second.Account, second.Preferred = "another", time.Time{}
	ok(t, b.Connect(ctx, second, 0))
	same(t, must(a.Connections(ctx, ours, "alice", "tracker"))(t), []vault.Connection{c, second})
	ok(t, a.Prefer(ctx, second, c.Preferred.Add(time.Second)))
	second.Preferred = c.Preferred.Add(time.Second)
	same(t, must(b.Connections(ctx, ours, "alice", "tracker"))(t), []vault.Connection{second, c})
	for _, wrong := range []vault.Connection{{Tenant: ours, ID: "c5", User: "bob"}, {Tenant: theirs, ID: "c5", User: "alice"}, {Tenant: ours, ID: "none", User: "alice"}} {
		wantKind(t, a.Prefer(ctx, wrong, day.Add(time.Hour)), fault.NotFound)
	}
	second.Status = vault.Revoked
	ok(t, a.Update(ctx, second))
	wantKind(t, a.Prefer(ctx, second, day.Add(time.Hour)), fault.NotFound)

	u := c
	u.Status, u.Reason, u.Label, u.Scopes, u.LastUsed = vault.Suspect, "why", "other", []string{"x"}, day
	changed := u
	u.Account, u.Access, u.Phase, u.Failures = "not", []byte("for"), vault.Sent, 9 // Update
	ok(t, b.Update(ctx, u))
	same(t, must(a.Connection(ctx, ours, "c1"))(t), changed)
	for _, stale := range []vault.Machine{{Generation: 2, Version: 1}, {Generation: 1, Version: 2}} {
		u.Machine = stale
		wantKind(t, a.Update(ctx, u), fault.Conflict)
	}
	u.ID = "none"
	wantKind(t, a.Update(ctx, u), fault.NotFound)

	changed.Status = vault.Revoked
	ok(t, a.Update(ctx, changed))
	same(t, must(b.Connections(ctx, ours, "alice", "tracker"))(t), nil)
	same(t, must(b.Connection(ctx, ours, "c1"))(t), changed)
	ok(t, b.Connect(ctx, twin, 0))
}

func connectionsReplaced(t *testing.T, a, b *store.DB) {
	ctx := t.Context()
	c := fresh("c1")
	ok(t, a.Connect(ctx, c, 0))
	held, _, err := a.Claim(ctx, c, refresh.Lease{Attempt: "try", Owner: "me", Time: leaseTime})
	ok(t, err)
	next := fresh("c1")
	next.Generation, next.Account, next.Access = 2, "another", []byte("new")
	ok(t, b.Connect(ctx, next, 1))
	next.LeaseEpoch = held.LeaseEpoch + 1
	same(t, must(a.Connection(ctx, ours, "c1"))(t), next)
	for what, step := range map[string]func() (bool, error){
		"sent":   func() (bool, error) { return a.Sent(ctx, held) },
		"settle": func() (bool, error) { return a.Settle(ctx, held, held.Version) },
		"fail":   func() (bool, error) { return a.Fail(ctx, held) },
	} {
		if done, err := step(); done || err != nil {
			t.Errorf("%s on a connection that was replaced: %v, %v", what, done, err)
		}
	}
	same(t, must(a.Connection(ctx, ours, "c1"))(t), next)
	wantKind(t, a.Connect(ctx, next, 1), fault.Conflict)
	next.ID = "none"
	wantKind(t, a.Connect(ctx, next, 1), fault.NotFound)
	next.ID, next.User, next.Generation = "c1", "mallory", 3
	wantKind(t, a.Connect(ctx, next, 2), fault.Conflict) // a row stays its user's
}

func connectionsRaced(t *testing.T, a, b *store.DB) {
	ctx := t.Context()
	outcome := func(n *tally[string], err error) {
		switch {
		case err == nil:
			n.add("won")
		case fault.KindOf(err) == fault.Conflict:
			n.add("lost")
		default:
			t.Error(err)
		}
	}
	var first, replaced, updated tally[string]
	race(a, b, func(i int, db *store.DB) { outcome(&first, db.Connect(ctx, fresh(fmt.Sprint("c", i)), 0)) })
	c := must(a.Connections(ctx, ours, "alice", "tracker"))(t)[0]
	race(a, b, func(i int, db *store.DB) {
		n := c
		n.Generation, n.Label = 2, fmt.Sprint(i)
		outcome(&replaced, db.Connect(ctx, n, 1))
	})
	c = must(a.Connection(ctx, ours, c.ID))(t)
	race(a, b, func(i int, db *store.DB) { // a refresh comes between those who only look
		u := c
		if u.LastUsed = day; i == many/2 {
			if won, err := db.Settle(ctx, u, 1); !won || err != nil {
				t.Errorf("the new credential was not stored: %v, %v", won, err)
			}
			return
		}
		u.Status = vault.NeedsReconnect
		outcome(&updated, db.Update(ctx, u))
	})
	for what, n := range map[string]map[string]int{"connected": first.n, "replaced": replaced.n} {
		if n["won"] != 1 || n["lost"] != many-1 {
			t.Errorf("%s at once: %v", what, n)
		}
	}
	if end := must(b.Connection(ctx, ours, c.ID))(t); end.Status != vault.Active || end.Version != 2 {
		t.Errorf("a late mark overwrote a new credential: %s, version %d", end.Status, end.Version)
	}
}

func keys(t *testing.T, a, b *store.DB) {
	ctx := t.Context()
	k := filled[keyring.Key]()
	k.Purpose, k.Generation, k.ID = "issuer", 2, "k2"
	older, system := k, k
	older.Generation, older.ID = 1, "k1"
	system.Tenant = ""
	for _, k := range []keyring.Key{k, older, system} {
		ok(t, a.AddKey(ctx, k))
	}
	same(t, must(b.Keys(ctx, ours, "issuer"))(t), []keyring.Key{older, k})
	same(t, must(b.Keys(ctx, "", "issuer"))(t), []keyring.Key{system})
	same(t, must(b.Keys(ctx, ours, "ticket"))(t), nil)

	k.NotBefore, k.NotAfter, k.Sealed, k.Public = day, day, []byte("new"), nil
	ok(t, b.UpdateKey(ctx, k))
	same(t, must(a.Keys(ctx, ours, "issuer"))(t), []keyring.Key{older, k})
	k.ID = "k1"
	wantKind(t, a.UpdateKey(ctx, k), fault.NotFound)

	var n tally[fault.Kind]
	won := 0
	race(a, b, func(i int, db *store.DB) {
		fresh := keyring.Key{Tenant: ours, Purpose: "tenant", ID: fmt.Sprint(i), Generation: 1, Created: day, Sealed: []byte{byte(i)}}
		if err := db.AddKey(ctx, fresh); err != nil {
			n.add(fault.KindOf(err))
		}
	})
	if won = len(must(b.Keys(ctx, ours, "tenant"))(t)); won != 1 || n.n[fault.Conflict] != many-1 {
		t.Errorf("%d keys of one generation; losers got %v", won, n.n)
	}
}

func names(t *testing.T, a, b *store.DB) {
	ctx := t.Context()
	ids := map[[16]byte]string{}
	for _, n := range [][2]string{{"upstream", "tracker"}, {"upstream", "wiki"}, {"user", "tracker"}} {
		id := must(a.NameID(ctx, ours, n[0], n[1]))(t)
		ids[id] = n[1]
		if again := must(b.NameID(ctx, ours, n[0], n[1]))(t); again != id {
			t.Errorf("%v changed its id", n)
		}
		ids[must(a.NameID(ctx, theirs, n[0], n[1]))(t)] = "theirs"
	}
	if len(ids) != 6 {
		t.Errorf("6 names have %d ids", len(ids))
	}
	var n tally[[16]byte]
	race(a, b, func(_ int, db *store.DB) {
		id, err := db.NameID(ctx, ours, "user", "new")
		if err != nil {
			t.Error(err)
		}
		n.add(id)
	})
	if len(n.n) != 1 {
		t.Errorf("one name got %d ids", len(n.n))
	}
}

// everyConnection: all tenants' come, ended ones too, each once, and a look can be broken off.
func everyConnection(t *testing.T, a, b *store.DB) {
	ctx := t.Context()
	want := map[vault.ConnectionID]bool{}
	for i := range 2050 {
		c := vault.Connection{Tenant: []identity.Tenant{ours, theirs}[i%2], ID: vault.ConnectionID(fmt.Sprintf("%032x", i)), User: identity.UserID(fmt.Sprint("u", i)), Upstream: "tracker", Status: vault.Active, Created: day}
		if i%3 == 0 {
			c.Status = vault.Revoked
		}
		ok(t, a.Connect(ctx, c, 0))
		want[c.ID] = true
	}
	ok(t, b.EachConnection(ctx, func(c vault.Connection) error {
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
