package credentials

import (
	"fmt"
	"testing"
	"time"

	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/connect"
	"frontdesk.dev/frontdesk/internal/ending"
	"frontdesk.dev/frontdesk/internal/exchange/refresh"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/issuer"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/store"
	"frontdesk.dev/frontdesk/internal/store/storetest/check"
	"frontdesk.dev/frontdesk/internal/vault"
)

// endsOfAccounts: of a person's several accounts those end that a grant of the client names, and the other clients' stay.
func endsOfAccounts(t *testing.T, a, b *store.DB) {
	ctx := t.Context()
	for _, id := range []string{"a1", "a2", "a3"} {
		c := check.Connection(id)
		c.Account = id
		check.OK(t, a.Connect(ctx, c, 0))
	}
	for client, id := range map[identity.ClientID]vault.ConnectionID{"cursor": "a1", "claude": "a2"} {
		check.OK(t, a.PutGrant(ctx, connect.Grant{Tenant: check.Ours, User: "alice", Client: client, Server: "issues", Upstream: "tracker", Connection: id, Created: check.Day, Expires: check.Day.Add(time.Hour)}))
	}
	if n := check.Must(b.MarkRevoking(ctx, check.Ours, ending.Whose{Client: "cursor"}, "why", 10))(t); n != 1 {
		t.Errorf("%d connections were marked, want one", n)
	}
	var left []vault.ConnectionID
	for _, c := range check.Must(a.Connections(ctx, check.Ours, "alice", "tracker"))(t) {
		left = append(left, c.ID)
	}
	check.Same(t, left, []vault.ConnectionID{"a2", "a3"})
	if l := check.Must(a.Grants(ctx, check.Ours, "alice"))(t); len(l) != 1 || l[0].Client != "claude" {
		t.Errorf("grants left: %v", l)
	}
}

// endsOfMany: of each kind exactly those are marked, bit by bit, their grants with them; home credentials and other tenants stay.
func endsOfMany(t *testing.T, a, b *store.DB) {
	ctx := t.Context()
	put := func(tenant identity.Tenant, id string, u identity.UserID, up catalog.UpstreamName) {
		c := check.Connection(id)
		c.Tenant, c.ID, c.User, c.Upstream = tenant, vault.ConnectionID(id), u, up
		check.OK(t, a.Connect(ctx, c, 0))
	}
	grant := func(tenant identity.Tenant, u identity.UserID, client identity.ClientID, s catalog.ServerName, up catalog.UpstreamName) {
		check.OK(t, a.PutGrant(ctx, connect.Grant{Tenant: tenant, User: u, Client: client, Server: s, Upstream: up, Created: check.Day, Expires: check.Day.Add(time.Hour)}))
	}
	for _, c := range []struct {
		name   string
		whose  ending.Whose
		marked int
		alice  int // her grants that stay, of three
	}{
		{"user", ending.Whose{User: "alice"}, 2, 0},
		{"client", ending.Whose{Client: "cursor"}, 2, 1},
		{"server", ending.Whose{Server: "wiki"}, 1, 2},
		{"upstream", ending.Whose{Upstream: "tracker"}, 2, 1},
		{"all", ending.Whose{All: true}, 3, 0},
		{"nobody", ending.Whose{}, 0, 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			tenant, other := identity.Tenant("t-"+c.name), identity.Tenant("o-"+c.name)
			for _, x := range []identity.Tenant{tenant, other} {
				put(x, "a1", "alice", "tracker")
				put(x, "a2", "alice", "wiki")
				put(x, "a3", "alice", "idp:login")
				put(x, "b1", "bob", "tracker")
				grant(x, "alice", "cursor", "issues", "tracker")
				grant(x, "alice", "claude", "issues", "tracker")
				grant(x, "alice", "claude", "wiki", "wiki")
				grant(x, "bob", "cursor", "issues", "tracker")
			}
			n := 0
			for range 10 {
				m := check.Must(b.MarkRevoking(ctx, tenant, c.whose, "why", 1))(t)
				if n += m; m == 0 {
					break
				}
			}
			if c.name == "client" {
				c.alice = 1 // the other client's grant leads to a connection that has ended
			}
			if grants := check.Must(a.Grants(ctx, tenant, "alice"))(t); n != c.marked || len(grants) != c.alice {
				t.Errorf("%d marked and %d grants left, want %d and %d", n, len(grants), c.marked, c.alice)
			}
			if p := check.Must(a.EndingCounts(ctx, tenant))(t); p.Marked != c.marked {
				t.Errorf("the count says %+v", p)
			}
			if l := check.Must(a.Connections(ctx, tenant, "alice", "idp:login"))(t); len(l) != 1 {
				t.Error("the home credential ended with the connections")
			}
			if l, g := check.Must(a.Connections(ctx, other, "alice", ""))(t), check.Must(a.Grants(ctx, other, "alice"))(t); len(l) != 3 || len(g) != 3 {
				t.Error("another tenant's ended too")
			}
		})
	}
}

// lateSteps: what was begun before a connection was marked changes nothing of it afterwards.
func lateSteps(t *testing.T, a, b *store.DB) {
	ctx := t.Context()
	c := check.Connection("c1")
	c.Upstream = "tracker"
	check.OK(t, a.Connect(ctx, c, 0))
	held, won, err := a.Claim(ctx, c, refresh.Lease{Attempt: "try", Owner: "me", Time: leaseTime})
	if !won || err != nil {
		t.Fatal(won, err)
	}
	if n := check.Must(b.MarkRevoking(ctx, check.Ours, ending.Whose{All: true}, "why", 10))(t); n != 1 {
		t.Fatalf("%d marked", n)
	}
	next := held
	next.Version, next.Status = held.Version+1, vault.Active
	for what, moved := range map[string]bool{"sent": step(t, check.Must(a.Sent(ctx, held))(t), nil), "fail": check.Must(a.Fail(ctx, held))(t), "settle": check.Must(a.Settle(ctx, next, held.Version))(t)} {
		if moved {
			t.Errorf("%s moved a connection that has ended", what)
		}
	}
	if _, won, err := a.Claim(ctx, c, refresh.Lease{Attempt: "again", Owner: "me", Time: leaseTime}); won || err != nil {
		t.Error("a connection that has ended was claimed", err)
	}
	if err := a.Update(ctx, held); err == nil {
		t.Error("a late mark brought a connection back")
	}
	l := check.Must(b.Revoking(ctx, 10))(t)
	if len(l) != 1 || l[0].Status != vault.Revoking || string(l[0].Access) != string(c.Access) {
		t.Errorf("marked are %+v", l)
	}
}

// retiredRaced: each marked connection is retired once, with its ending, and then holds nothing.
func retiredRaced(t *testing.T, a, b *store.DB) {
	ctx := t.Context()
	var l []ending.Retired
	for i := range 8 {
		c := check.Connection(fmt.Sprint("c", i))
		c.User = identity.UserID(fmt.Sprint("u", i))
		check.OK(t, a.Connect(ctx, c, 0))
		l = append(l, ending.Retired{Connection: c})
	}
	check.Must(a.MarkRevoking(ctx, check.Ours, ending.Whose{All: true}, "why", 100))(t)
	var n check.Tally[vault.ConnectionID]
	check.Race(a, b, func(i int, db *store.DB) {
		mine := make([]ending.Retired, len(l))
		for j, r := range l {
			e := check.Filled[vault.Ending]()
			e.ID, e.Connection, e.GivenUp = fmt.Sprint(i, "/", j), r.ID, time.Time{}
			mine[j] = ending.Retired{Connection: r.Connection, Ending: &e}
		}
		won, err := db.Retire(ctx, mine)
		if err != nil {
			t.Error(err)
		}
		for _, r := range won {
			n.Add(r.ID)
		}
	})
	for _, r := range l {
		c := check.Must(b.Connection(ctx, check.Ours, r.ID))(t)
		if n.N[r.ID] != 1 || c.Status != vault.Revoked || c.Refreshes || len(c.Access)+len(c.Refresh)+len(c.Previous)+len(c.Identity)+len(c.Proof) != 0 {
			t.Errorf("%s was retired %d times, and is %+v", r.ID, n.N[r.ID], c)
		}
	}
	check.Same(t, check.Must(a.EndingCounts(ctx, check.Ours))(t), ending.Progress{Waiting: len(l)})
}

// accessDropped: what began later stays.
func accessDropped(t *testing.T, a, b *store.DB) {
	ctx := t.Context()
	family := func(id string, u identity.UserID, c identity.ClientID, sid string, at time.Time) {
		f := check.Filled[issuer.Family]()
		f.ID, f.User, f.Client, f.Created, f.IDP, f.Auth.SID = id, u, c, at, "login", sid
		check.OK(t, a.PutFamily(ctx, f))
	}
	later := check.Day.Add(time.Minute)
	family("f1", "alice", "cursor", "s1", check.Day)
	family("f2", "alice", "claude", "s2", later)
	family("f3", "bob", "cursor", "s3", check.Day)
	family("f4", "bob", "claude", "s4", check.Day)
	home := check.Connection("home")
	home.User, home.Upstream, home.Created = "alice", "idp:login", check.Day
	check.OK(t, a.Connect(ctx, home, 0))
	check.Same(t, check.Must(b.DropAccess(ctx, check.Ours, ending.Whose{User: "alice"}, check.Day))(t), []string{"f1"})
	if l := check.Must(a.Connections(ctx, check.Ours, "alice", ""))(t); len(l) != 0 {
		t.Error("the home credential goes on")
	}
	check.Same(t, check.Must(b.DropAccess(ctx, check.Ours, ending.Whose{Client: "cursor"}, later))(t), []string{"f3"})
	check.Same(t, check.Must(b.DropSignIn(ctx, check.Ours, "other", "s4"))(t), nil)
	check.Same(t, check.Must(b.DropSignIn(ctx, check.Ours, "login", "s4"))(t), []string{"f4"})
	check.Same(t, check.Must(b.DropAccess(ctx, check.Ours, ending.Whose{All: true}, later))(t), []string{"f2"})
	for _, w := range []ending.Whose{{}, {Server: "issues"}, {Upstream: "tracker"}} {
		if _, err := b.DropAccess(ctx, check.Ours, w, later); err == nil {
			t.Errorf("access %+v was dropped", w)
		}
	}
}

// messages: one counts once, whoever asks.
func messages(t *testing.T, a, b *store.DB) {
	ctx := t.Context()
	var n check.Tally[bool]
	check.Race(a, b, func(_ int, db *store.DB) {
		first, err := db.PutMessage(ctx, check.Ours, []byte("m"), check.Day)
		if err != nil {
			t.Error(err)
		}
		n.Add(first)
	})
	if n.N[true] != 1 {
		t.Errorf("one message was the first %d times", n.N[true])
	}
	check.Same(t, check.Must(b.KnownMessage(ctx, check.Ours, []byte("m")))(t), true)
	check.Same(t, check.Must(b.KnownMessage(ctx, check.Theirs, []byte("m")))(t), false)
	check.Same(t, check.Must(b.PutMessage(ctx, check.Theirs, []byte("m"), check.Day))(t), true)
}

// gone: a mark stays, whatever a later sign-in says of the person.
func gone(t *testing.T, a, b *store.DB) {
	ctx := t.Context()
	u := check.Must(a.EnsureUser(ctx, identity.User{Tenant: check.Ours, IDP: "login", Subject: "s", Email: "Alice@acme.test"}))(t)
	check.OK(t, b.SetGone(ctx, check.Ours, u.ID, identity.Disabled, check.Day))
	check.WantKind(t, a.SetGone(ctx, check.Ours, u.ID, "", check.Day.Add(-time.Second)), fault.Conflict) // it came late
	check.WantKind(t, a.SetGone(ctx, check.Ours, u.ID, "", check.Day), fault.Conflict)
	check.OK(t, a.SetGone(ctx, check.Ours, u.ID, identity.Disabled, check.Day.Add(-time.Hour))) // an older no is one, and makes the newer one no older
	check.WantKind(t, a.SetGone(ctx, check.Ours, u.ID, "", check.Day.Add(-time.Second)), fault.Conflict)
	check.OK(t, b.SetGone(ctx, check.Ours, u.ID, "", check.Day.Add(time.Second)))
	check.Same(t, check.Must(a.User(ctx, check.Ours, u.ID))(t), u)
	check.OK(t, b.SetGone(ctx, check.Ours, u.ID, identity.Deleted, check.Day.Add(time.Hour)))
	check.OK(t, b.SetGone(ctx, check.Ours, u.ID, "", time.Time{})) // whoever need not look
	check.OK(t, b.SetGone(ctx, check.Ours, u.ID, identity.Disabled, check.Day))
	u.Gone = identity.Disabled
	check.Same(t, check.Must(a.EnsureUser(ctx, identity.User{Tenant: check.Ours, IDP: "login", Subject: "s"}))(t), u)
	u.Name = "Alice"
	check.Same(t, check.Must(a.EnsureUser(ctx, identity.User{Tenant: check.Ours, IDP: "login", Subject: "s", Name: "Alice"}))(t), u)
	check.Same(t, check.Must(b.UserBySubject(ctx, check.Ours, "login", "s"))(t), u)
	check.Same(t, check.Must(b.UsersByEmail(ctx, check.Ours, "login", "alice@ACME.test"))(t), []identity.User{u})
	check.Same(t, check.Must(b.UsersByEmail(ctx, check.Ours, "other", "alice@acme.test"))(t), nil)
	for skip, want := range [][]identity.User{{u}, nil} {
		l, n, err := b.UsersOf(ctx, check.Ours, "login", skip, 10)
		check.OK(t, err)
		check.Same(t, l, want)
		check.Same(t, n, 1)
	}
	check.Same(t, check.Must(b.UsersByEmail(ctx, check.Ours, "login", ""))(t), nil)
}
