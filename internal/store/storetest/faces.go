package storetest

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"frontdesk.dev/frontdesk/internal/gateway"
	"frontdesk.dev/frontdesk/internal/gateway/sessions"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/issuer"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/store"
)

func clients(t *testing.T, a, b *store.DB) {
	ctx := t.Context()
	c := filled[issuer.Client]()
	ok(t, a.PutClient(ctx, c))
	same(t, must(b.Client(ctx, ours, c.ID))(t), c)
	again := c
	again.Name, again.RedirectURIs, again.Created, again.LastUsed = "renamed", []string{"https://x"}, day.Add(time.Hour), time.Time{}
	ok(t, b.PutClient(ctx, again))
	again.Created, again.LastUsed = c.Created, c.LastUsed // that it was used is not forgotten
	same(t, must(a.Client(ctx, ours, c.ID))(t), again)
	again.LastUsed = day.Add(time.Hour)
	ok(t, a.TouchClient(ctx, ours, c.ID, again.LastUsed))
	same(t, must(b.Client(ctx, ours, c.ID))(t), again)
	wantKind(t, a.TouchClient(ctx, ours, "none", day), fault.NotFound)

	for id, c := range map[identity.ClientID]issuer.Client{
		"unused":       {How: issuer.RegisteredDynamic, Created: day},
		"used":         {How: issuer.RegisteredDynamic, Created: day, LastUsed: day},
		"young":        {How: issuer.RegisteredDynamic, Created: day.Add(time.Hour)},
		"not by a DCR": {How: issuer.RegisteredDocument, Created: day},
	} {
		c.Tenant, c.ID = ours, id
		ok(t, a.PutClient(ctx, c))
	}
	if n := must(b.DropUnused(ctx, day.Add(time.Minute)))(t); n != 1 {
		t.Errorf("%d clients were dropped as unused, want 1", n)
	}
	_, err := a.Client(ctx, ours, "unused")
	wantKind(t, err, fault.NotFound)
}

func codes(t *testing.T, a, b *store.DB) {
	ctx := t.Context()
	c := filled[issuer.Code]()
	c.Used = time.Time{}
	ok(t, a.PutCode(ctx, c))
	var firsts tally[bool]
	race(a, b, func(i int, db *store.DB) {
		got, err := db.UseCode(ctx, ours, c.Hash, day.Add(time.Duration(i)*time.Second))
		if err != nil {
			t.Error(err)
		}
		firsts.add(got.Used.IsZero())
		got.Used = time.Time{}
		same(t, got, c)
	})
	if firsts.n[true] != 1 {
		t.Errorf("one code was good %d times", firsts.n[true])
	}
	one := must(a.UseCode(ctx, ours, c.Hash, day.Add(time.Hour)))(t).Used
	if two := must(b.UseCode(ctx, ours, c.Hash, day.Add(2*time.Hour)))(t).Used; !one.Equal(two) || !one.Before(day.Add(time.Hour)) {
		t.Errorf("the first use is said to be at %v, then at %v", one, two)
	}
	_, err := a.UseCode(ctx, ours, []byte("none"), day)
	wantKind(t, err, fault.NotFound)
}

func consents(t *testing.T, a, b *store.DB) {
	ctx := t.Context()
	c := filled[issuer.Consented]()
	ok(t, a.PutConsent(ctx, c))
	same(t, must(b.Consented(ctx, ours, c.User, c.Client, c.Resource))(t), c)
	c.Name, c.RedirectHost, c.RedirectURIs, c.Scopes, c.Given = "renamed", "elsewhere", []string{"https://z"}, nil, day.Add(time.Hour)
	ok(t, b.PutConsent(ctx, c))
	same(t, must(a.Consented(ctx, ours, c.User, c.Client, c.Resource))(t), c)
	for _, k := range []issuer.Consented{{Tenant: "another", User: c.User, Client: c.Client, Resource: c.Resource}, {Tenant: ours, User: "another", Client: c.Client, Resource: c.Resource},
		{Tenant: ours, User: c.User, Client: "another", Resource: c.Resource}, {Tenant: ours, User: c.User, Client: c.Client, Resource: "another"}} {
		_, err := a.Consented(ctx, k.Tenant, k.User, k.Client, k.Resource)
		wantKind(t, err, fault.NotFound)
	}
}

func families(t *testing.T, a, b *store.DB) {
	ctx := t.Context()
	f := filled[issuer.Family]()
	ok(t, a.PutFamily(ctx, f))
	same(t, must(b.Family(ctx, ours, f.ID))(t), f)
	var n tally[string]
	race(a, b, func(i int, db *store.DB) {
		next := f
		next.Previous, next.Current, next.Next, next.Rotated, next.HomeAt, next.Scopes = f.Current, fmt.Append(nil, "token ", i), []byte("n"), day, day, []string{"s"}
		switch err := db.RotateFamily(ctx, next, f.Current); {
		case err == nil:
			n.add("won")
			same(t, must(b.Family(ctx, ours, f.ID))(t), next)
		case fault.KindOf(err) == fault.Conflict:
			n.add("lost")
		default:
			t.Error(err)
		}
	})
	same(t, n.n, map[string]int{"won": 1, "lost": many - 1})
	none := f
	none.ID = "none"
	wantKind(t, a.RotateFamily(ctx, none, f.Current), fault.NotFound)

	put := func(id string, u identity.UserID, c identity.ClientID) {
		ok(t, a.PutFamily(ctx, issuer.Family{Tenant: ours, ID: id, User: u, Client: c, Ends: day}))
	}
	for _, c := range []struct {
		user   identity.UserID
		client identity.ClientID
		id     string
		gone   []string
	}{
		{"u", "", "", []string{"1", "2", "3"}},
		{"u", "c", "", []string{"1", "2"}},
		{"u", "c", "2", []string{"2"}},
		{"u", "whoever presented it", "3", []string{"3"}},
		{"", "", "4", []string{"4"}},
		{"u", "", "4", nil}, // another user's
		{"nobody", "", "", nil},
	} {
		put("1", "u", "c")
		put("2", "u", "c")
		put("3", "u", "d")
		put("4", "v", "c")
		gone := must(b.DropFamilies(ctx, ours, c.user, c.client, c.id))(t)
		slices.Sort(gone)
		same(t, gone, c.gone)
		for _, u := range []identity.UserID{"u", "v"} {
			_, err := a.DropFamilies(ctx, ours, u, "", "")
			ok(t, err)
		}
	}
	if _, err := a.DropFamilies(ctx, ours, "", "", ""); err == nil {
		t.Error("all sign-ins of a tenant were ended at once")
	}
}

// most is more than any test puts, alone the error beside something that a test has no use for.
var most = sessions.Most{Client: 10 * many, Principal: 10 * many}

func alone[T any](_ T, err error) error { return err }

func legacySessions(t *testing.T, a, b *store.DB) {
	ctx := t.Context()
	s := filled[sessions.Session]()
	ok(t, alone(a.PutSession(ctx, s, most)))
	same(t, must(b.Session(ctx, ours, s.ID, s.Seen.Add(time.Minute)))(t), s)
	s.Seen = s.Seen.Add(2 * time.Minute)
	same(t, must(b.Session(ctx, ours, s.ID, s.Seen))(t), s)
	same(t, must(a.Session(ctx, ours, s.ID, time.Time{}))(t), s)
	wantKind(t, alone(b.PutSession(ctx, s, most)), fault.Conflict)
	ok(t, a.DropSession(ctx, ours, s.ID))
	ok(t, b.DropSession(ctx, ours, s.ID))
	_, err := b.Session(ctx, ours, s.ID, s.Seen.Add(time.Hour))
	wantKind(t, err, fault.NotFound)

	for i := range 3 * many {
		ok(t, alone(a.PutSession(ctx, sessions.Session{Tenant: ours, ID: fmt.Append(nil, i), Seen: day.Add(time.Duration(i) * time.Minute)}, most)))
	}
	idle := day.Add(2 * many * time.Minute)
	if l := must(a.IdleSessions(ctx, idle, 5))(t); len(l) != 5 {
		t.Errorf("a limit of 5 gave %d", len(l))
	}
	var taken tally[string]
	race(a, b, func(_ int, db *store.DB) {
		for {
			l, err := db.IdleSessions(ctx, idle, 3)
			if err != nil {
				t.Error(err)
			}
			for _, s := range l {
				taken.add(string(s.ID))
			}
			if len(l) == 0 {
				return
			}
		}
	})
	for id, n := range taken.n {
		if n != 1 {
			t.Errorf("session %s was ended %d times", id, n)
		}
	}
	if len(taken.n) != 2*many-5 {
		t.Errorf("%d sessions were idle, want %d", len(taken.n), 2*many-5)
	}
}

func tasks(t *testing.T, a, b *store.DB) {
	ctx := t.Context()
	k := gateway.Task{Tenant: ours, Server: "issues", ID: []byte("1"), Principal: "u", Client: "c", Tool: "export", Created: day, Expires: day.Add(time.Hour)}
	_, err := b.Task(ctx, ours, k.Server, k.ID)
	wantKind(t, err, fault.NotFound)
	ok(t, a.PutTask(ctx, k))
	same(t, must(b.Task(ctx, ours, k.Server, k.ID))(t), k)

	again := k
	again.Tool, again.Expires = "import", day.Add(2*time.Hour)
	ok(t, b.PutTask(ctx, again))
	for _, other := range []gateway.Task{{Principal: "v", Client: "c"}, {Principal: "u", Client: "d"}} {
		other.Tenant, other.Server, other.ID, other.Created, other.Expires = ours, k.Server, k.ID, day.Add(time.Minute), day.Add(3*time.Hour)
		wantKind(t, a.PutTask(ctx, other), fault.Conflict)
		same(t, must(a.Task(ctx, ours, k.Server, k.ID))(t), again)
		other.Created = again.Expires // it has expired by then
		ok(t, a.PutTask(ctx, other))
		ok(t, a.DropTasks(ctx, other.Expires))
		ok(t, a.PutTask(ctx, again))
	}
	elsewhere := k
	elsewhere.Server, elsewhere.Principal = "modern", "v" // a server's ids are its own
	ok(t, a.PutTask(ctx, elsewhere))
	ok(t, b.DropTasks(ctx, elsewhere.Expires))
	_, err = a.Task(ctx, ours, elsewhere.Server, k.ID)
	wantKind(t, err, fault.NotFound)
	same(t, must(a.Task(ctx, ours, k.Server, k.ID))(t), again)

	var won tally[identity.ClientID]
	race(a, b, func(i int, db *store.DB) {
		k := k
		k.ID, k.Client = []byte("raced"), identity.ClientID(fmt.Sprint(i))
		switch err := db.PutTask(ctx, k); {
		case err == nil:
			won.add(k.Client)
		case fault.KindOf(err) != fault.Conflict:
			t.Error(err)
		}
	})
	if len(won.n) != 1 {
		t.Errorf("a task has %d owners", len(won.n))
	}
}

func tickets(t *testing.T, a, b *store.DB) {
	ctx := t.Context()
	k := identity.Ticket{Tenant: ours, Kind: identity.TicketSession, Txn: "0000000000000001.7", Server: "issues", Expires: day}
	hash := [32]byte{1, 2, 0xff}
	_, err := a.OpaqueTicket(ctx, hash)
	wantKind(t, err, fault.NotFound)
	ok(t, a.PutTicket(ctx, hash, k))
	same(t, must(b.OpaqueTicket(ctx, hash))(t), k)
	later, earlier := k, k
	later.Expires, earlier.Expires = day.Add(time.Hour), day.Add(-time.Hour)
	ok(t, b.PutTicket(ctx, hash, later))
	ok(t, a.PutTicket(ctx, hash, earlier)) // it is good for as long as it was ever said to be
	same(t, must(a.OpaqueTicket(ctx, hash))(t), later)
	race(a, b, func(i int, db *store.DB) { ok(t, db.PutTicket(ctx, [32]byte{byte(i % 4)}, k)) })
}
