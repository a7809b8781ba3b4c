package records

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
	"frontdesk.dev/frontdesk/internal/store/storetest/check"
)

func clients(t *testing.T, a, b *store.DB) {
	ctx := t.Context()
	c := check.Filled[issuer.Client]()
	check.OK(t, a.PutClient(ctx, c))
	check.Same(t, check.Must(b.Client(ctx, check.Ours, c.ID))(t), c)
	again := c
	again.Name, again.RedirectURIs, again.Created, again.LastUsed = "renamed", []string{"https://x"}, check.Day.Add(time.Hour), time.Time{}
	check.OK(t, b.PutClient(ctx, again))
	again.Created, again.LastUsed = c.Created, c.LastUsed // that it was used is not forgotten
	check.Same(t, check.Must(a.Client(ctx, check.Ours, c.ID))(t), again)
	again.LastUsed = check.Day.Add(time.Hour)
	check.OK(t, a.TouchClient(ctx, check.Ours, c.ID, again.LastUsed))
	check.Same(t, check.Must(b.Client(ctx, check.Ours, c.ID))(t), again)
	check.WantKind(t, a.TouchClient(ctx, check.Ours, "none", check.Day), fault.NotFound)

	for id, c := range map[identity.ClientID]issuer.Client{
		"unused":       {How: issuer.RegisteredDynamic, Created: check.Day},
		"used":         {How: issuer.RegisteredDynamic, Created: check.Day, LastUsed: check.Day},
		"young":        {How: issuer.RegisteredDynamic, Created: check.Day.Add(time.Hour)},
		"not by a DCR": {How: issuer.RegisteredDocument, Created: check.Day},
	} {
		c.Tenant, c.ID = check.Ours, id
		check.OK(t, a.PutClient(ctx, c))
	}
	if n := check.Must(b.DropUnused(ctx, check.Day.Add(time.Minute)))(t); n != 1 {
		t.Errorf("%d clients were dropped as unused, want 1", n)
	}
	_, err := a.Client(ctx, check.Ours, "unused")
	check.WantKind(t, err, fault.NotFound)
}

func codes(t *testing.T, a, b *store.DB) {
	ctx := t.Context()
	c := check.Filled[issuer.Code]()
	c.Used = time.Time{}
	check.OK(t, a.PutCode(ctx, c))
	var firsts check.Tally[bool]
	check.Race(a, b, func(i int, db *store.DB) {
		got, err := db.UseCode(ctx, check.Ours, c.Hash, check.Day.Add(time.Duration(i)*time.Second))
		if err != nil {
			t.Error(err)
		}
		firsts.Add(got.Used.IsZero())
		got.Used = time.Time{}
		check.Same(t, got, c)
	})
	if firsts.N[true] != 1 {
		t.Errorf("one code was good %d times", firsts.N[true])
	}
	one := check.Must(a.UseCode(ctx, check.Ours, c.Hash, check.Day.Add(time.Hour)))(t).Used
	if two := check.Must(b.UseCode(ctx, check.Ours, c.Hash, check.Day.Add(2*time.Hour)))(t).Used; !one.Equal(two) || !one.Before(check.Day.Add(time.Hour)) {
		t.Errorf("the first use is said to be at %v, then at %v", one, two)
	}
	_, err := a.UseCode(ctx, check.Ours, []byte("none"), check.Day)
	check.WantKind(t, err, fault.NotFound)
}

func consents(t *testing.T, a, b *store.DB) {
	ctx := t.Context()
	c := check.Filled[issuer.Consented]()
	check.OK(t, a.PutConsent(ctx, c))
	check.Same(t, check.Must(b.Consented(ctx, check.Ours, c.User, c.Client, c.Resource))(t), c)
	c.Name, c.RedirectHost, c.RedirectURIs, c.Scopes, c.Given = "renamed", "elsewhere", []string{"https://z"}, nil, check.Day.Add(time.Hour)
	check.OK(t, b.PutConsent(ctx, c))
	check.Same(t, check.Must(a.Consented(ctx, check.Ours, c.User, c.Client, c.Resource))(t), c)
	for _, k := range []issuer.Consented{{Tenant: "another", User: c.User, Client: c.Client, Resource: c.Resource}, {Tenant: check.Ours, User: "another", Client: c.Client, Resource: c.Resource},
		{Tenant: check.Ours, User: c.User, Client: "another", Resource: c.Resource}, {Tenant: check.Ours, User: c.User, Client: c.Client, Resource: "another"}} {
		_, err := a.Consented(ctx, k.Tenant, k.User, k.Client, k.Resource)
		check.WantKind(t, err, fault.NotFound)
	}
}

func families(t *testing.T, a, b *store.DB) {
	ctx := t.Context()
	f := check.Filled[issuer.Family]()
	check.OK(t, a.PutFamily(ctx, f))
	check.Same(t, check.Must(b.Family(ctx, check.Ours, f.ID))(t), f)
	var n check.Tally[string]
	check.Race(a, b, func(i int, db *store.DB) {
		next := f
		next.Previous, next.Current, next.Next, next.Rotated, next.HomeAt, next.Scopes = f.Current, fmt.Append(nil, "token ", i), []byte("n"), check.Day, check.Day, []string{"s"}
		switch err := db.RotateFamily(ctx, next, f.Current); {
		case err == nil:
			n.Add("won")
			check.Same(t, check.Must(b.Family(ctx, check.Ours, f.ID))(t), next)
		case fault.KindOf(err) == fault.Conflict:
			n.Add("lost")
		default:
			t.Error(err)
		}
	})
	check.Same(t, n.N, map[string]int{"won": 1, "lost": check.Many - 1})
	none := f
	none.ID = "none"
	check.WantKind(t, a.RotateFamily(ctx, none, f.Current), fault.NotFound)

	put := func(id string, u identity.UserID, c identity.ClientID) {
		check.OK(t, a.PutFamily(ctx, issuer.Family{Tenant: check.Ours, ID: id, User: u, Client: c, Ends: check.Day}))
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
		gone := check.Must(b.DropFamilies(ctx, check.Ours, c.user, c.client, c.id))(t)
		slices.Sort(gone)
		check.Same(t, gone, c.gone)
		for _, u := range []identity.UserID{"u", "v"} {
			_, err := a.DropFamilies(ctx, check.Ours, u, "", "")
			check.OK(t, err)
		}
	}
	if _, err := a.DropFamilies(ctx, check.Ours, "", "", ""); err == nil {
		t.Error("all sign-ins of a tenant were ended at once")
	}
}

func legacySessions(t *testing.T, a, b *store.DB) {
	ctx := t.Context()
	s := check.Filled[sessions.Session]()
	check.OK(t, check.Err(a.PutSession(ctx, s, check.Most)))
	check.Same(t, check.Must(b.Session(ctx, check.Ours, s.ID, s.Seen.Add(time.Minute)))(t), s)
	s.Seen = s.Seen.Add(2 * time.Minute)
	check.Same(t, check.Must(b.Session(ctx, check.Ours, s.ID, s.Seen))(t), s)
	check.Same(t, check.Must(a.Session(ctx, check.Ours, s.ID, time.Time{}))(t), s)
	check.WantKind(t, check.Err(b.PutSession(ctx, s, check.Most)), fault.Conflict)
	check.OK(t, a.DropSession(ctx, check.Ours, s.ID))
	check.OK(t, b.DropSession(ctx, check.Ours, s.ID))
	_, err := b.Session(ctx, check.Ours, s.ID, s.Seen.Add(time.Hour))
	check.WantKind(t, err, fault.NotFound)

	for i := range 3 * check.Many {
		check.OK(t, check.Err(a.PutSession(ctx, sessions.Session{Tenant: check.Ours, ID: fmt.Append(nil, i), Seen: check.Day.Add(time.Duration(i) * time.Minute)}, check.Most)))
	}
	idle := check.Day.Add(2 * check.Many * time.Minute)
	if l := check.Must(a.IdleSessions(ctx, idle, 5))(t); len(l) != 5 {
		t.Errorf("a limit of 5 gave %d", len(l))
	}
	var taken check.Tally[string]
	check.Race(a, b, func(_ int, db *store.DB) {
		for {
			l, err := db.IdleSessions(ctx, idle, 3)
			if err != nil {
				t.Error(err)
			}
			for _, s := range l {
				taken.Add(string(s.ID))
			}
			if len(l) == 0 {
				return
			}
		}
	})
	for id, n := range taken.N {
		if n != 1 {
			t.Errorf("session %s was ended %d times", id, n)
		}
	}
	if len(taken.N) != 2*check.Many-5 {
		t.Errorf("%d sessions were idle, want %d", len(taken.N), 2*check.Many-5)
	}
}

func tasks(t *testing.T, a, b *store.DB) {
	ctx := t.Context()
	k := gateway.Task{Tenant: check.Ours, Server: "issues", ID: []byte("1"), Principal: "u", Client: "c", Tool: "export", Created: check.Day, Expires: check.Day.Add(time.Hour)}
	_, err := b.Task(ctx, check.Ours, k.Server, k.ID)
	check.WantKind(t, err, fault.NotFound)
	check.OK(t, a.PutTask(ctx, k))
	check.Same(t, check.Must(b.Task(ctx, check.Ours, k.Server, k.ID))(t), k)

	again := k
	again.Tool, again.Expires = "import", check.Day.Add(2*time.Hour)
	check.OK(t, b.PutTask(ctx, again))
	for _, other := range []gateway.Task{{Principal: "v", Client: "c"}, {Principal: "u", Client: "d"}} {
		other.Tenant, other.Server, other.ID, other.Created, other.Expires = check.Ours, k.Server, k.ID, check.Day.Add(time.Minute), check.Day.Add(3*time.Hour)
		check.WantKind(t, a.PutTask(ctx, other), fault.Conflict)
		check.Same(t, check.Must(a.Task(ctx, check.Ours, k.Server, k.ID))(t), again)
		other.Created = again.Expires // it has expired by then
		check.OK(t, a.PutTask(ctx, other))
		check.OK(t, a.DropTasks(ctx, other.Expires))
		check.OK(t, a.PutTask(ctx, again))
	}
	elsewhere := k
	elsewhere.Server, elsewhere.Principal = "modern", "v" // a server's ids are its own
	check.OK(t, a.PutTask(ctx, elsewhere))
	check.OK(t, b.DropTasks(ctx, elsewhere.Expires))
	_, err = a.Task(ctx, check.Ours, elsewhere.Server, k.ID)
	check.WantKind(t, err, fault.NotFound)
	check.Same(t, check.Must(a.Task(ctx, check.Ours, k.Server, k.ID))(t), again)

	var won check.Tally[identity.ClientID]
	check.Race(a, b, func(i int, db *store.DB) {
		k := k
		k.ID, k.Client = []byte("raced"), identity.ClientID(fmt.Sprint(i))
		switch err := db.PutTask(ctx, k); {
		case err == nil:
			won.Add(k.Client)
		case fault.KindOf(err) != fault.Conflict:
			t.Error(err)
		}
	})
	if len(won.N) != 1 {
		t.Errorf("a task has %d owners", len(won.N))
	}
}

func tickets(t *testing.T, a, b *store.DB) {
	ctx := t.Context()
	k := identity.Ticket{Tenant: check.Ours, Kind: identity.TicketSession, Txn: "0000000000000001.7", Server: "issues", Expires: check.Day}
	hash := [32]byte{1, 2, 0xff}
	_, err := a.OpaqueTicket(ctx, hash)
	check.WantKind(t, err, fault.NotFound)
	check.OK(t, a.PutTicket(ctx, hash, k))
	check.Same(t, check.Must(b.OpaqueTicket(ctx, hash))(t), k)
	later, earlier := k, k
	later.Expires, earlier.Expires = check.Day.Add(time.Hour), check.Day.Add(-time.Hour)
	check.OK(t, b.PutTicket(ctx, hash, later))
	check.OK(t, a.PutTicket(ctx, hash, earlier)) // it is good for as long as it was ever said to be
	check.Same(t, check.Must(a.OpaqueTicket(ctx, hash))(t), later)
	check.Race(a, b, func(i int, db *store.DB) { check.OK(t, db.PutTicket(ctx, [32]byte{byte(i % 4)}, k)) })
}
