package storetest

import (
	"fmt"
	"testing"
	"time"

	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/catalog/live"
	"frontdesk.dev/frontdesk/internal/connect"
	"frontdesk.dev/frontdesk/internal/connect/discovery"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/store"
)

func ask(id string) connect.Request {
	r := filled[connect.Request]()
	r.ID, r.User, r.State, r.Created, r.Expires = connect.RequestID(id), "alice", connect.Open, day, day.Add(time.Hour)
	r.Missing = []catalog.Missing{{Upstream: "tracker", Scopes: []string{"read", "write"}, Why: catalog.WhyScope, Reason: "r"}, {Upstream: "wiki", Why: catalog.WhyGrant}}
	return r
}

func requests(t *testing.T, a, b *store.DB) {
	ctx := t.Context()
	first := ask("r1")
	same(t, must(a.OpenRequest(ctx, first))(t), first)
	same(t, must(b.Request(ctx, ours, "r1"))(t), first)

	again := ask("r2")
	again.Created, again.Expires = day.Add(time.Minute), day.Add(2*time.Hour)
	again.Missing = []catalog.Missing{{Upstream: "wiki", Why: catalog.WhyNotConnected}, {Upstream: "tracker", Scopes: []string{"write", "read"}}}
	first.Expires = again.Expires
	same(t, must(b.OpenRequest(ctx, again))(t), first) // the same question, for longer
	same(t, must(a.Requests(ctx, ours, "alice", connect.Open))(t), []connect.Request{first})

	for i, change := range []func(*connect.Request){
		func(r *connect.Request) { r.User = "bob" },
		func(r *connect.Request) { r.Client = "another" },
		func(r *connect.Request) { r.Server = "another" },
		func(r *connect.Request) { r.Missing = r.Missing[:1] },
		func(r *connect.Request) { r.Missing[0].Scopes = []string{"read"} },
		func(r *connect.Request) { r.Created = first.Expires }, // the first one is over by then
	} {
		r := ask(fmt.Sprint("other", i))
		change(&r)
		same(t, must(a.OpenRequest(ctx, r))(t), r)
	}

	first.Missing = first.Missing[1:]
	ok(t, b.SetState(ctx, first)) // one of two is answered
	same(t, must(a.Request(ctx, ours, "r1"))(t), first)
	less := ask("r3")
	less.Missing = less.Missing[1:]
	same(t, must(a.OpenRequest(ctx, less))(t).ID, first.ID)
	first.State, first.Missing = connect.Done, nil
	ok(t, a.SetState(ctx, first))
	first.State = connect.Refused
	wantKind(t, b.SetState(ctx, first), fault.Conflict)
	if got := must(b.Request(ctx, ours, "r1"))(t); got.State != connect.Done {
		t.Errorf("an answered request is %s", got.State)
	}
	first.ID = "none"
	wantKind(t, b.SetState(ctx, first), fault.NotFound)
	_, err := b.Request(ctx, ours, "none")
	wantKind(t, err, fault.NotFound)
}

func requestsRaced(t *testing.T, a, b *store.DB) {
	ctx := t.Context()
	var ids tally[connect.RequestID]
	race(a, b, func(i int, db *store.DB) {
		r, err := db.OpenRequest(ctx, ask(fmt.Sprint("r", i)))
		if err != nil {
			t.Error(err)
		}
		ids.add(r.ID)
	})
	open := must(a.Requests(ctx, ours, "alice", connect.Open))(t)
	if len(ids.n) != 1 || len(open) != 1 {
		t.Fatalf("one question became %d, of which %d are open", len(ids.n), len(open))
	}
	var answers tally[bool]
	race(a, b, func(i int, db *store.DB) {
		r := open[0]
		if r.State = connect.Done; i%3 == 0 {
			r.State = connect.Refused
		}
		err := db.SetState(ctx, r)
		if err != nil && fault.KindOf(err) != fault.Conflict {
			t.Error(err)
		}
		answers.add(err == nil)
	})
	if answers.n[true] != 1 {
		t.Errorf("one question was answered %d times", answers.n[true])
	}
}

func flows(t *testing.T, a, b *store.DB) {
	ctx := t.Context()
	f := filled[connect.Flow]()
	ok(t, a.PutFlow(ctx, f))
	if err := b.PutFlow(ctx, f); err == nil {
		t.Error("a state was used for two flows")
	}
	same(t, must(b.TakeFlow(ctx, ours, f.State))(t), f)
	_, err := a.TakeFlow(ctx, ours, f.State)
	wantKind(t, err, fault.NotFound)

	ok(t, a.PutFlow(ctx, f))
	var n tally[string]
	race(a, b, func(_ int, db *store.DB) {
		_, err := db.TakeFlow(ctx, ours, f.State)
		switch {
		case err == nil:
			n.add("took")
		case fault.KindOf(err) == fault.NotFound:
			n.add("missed")
		default:
			t.Error(err)
		}
	})
	same(t, n.n, map[string]int{"took": 1, "missed": many - 1})
}

func devices(t *testing.T, a, b *store.DB) {
	ctx := t.Context()
	d := filled[connect.Device]()
	d.User, d.Upstream, d.Status, d.Next, d.Tries = "alice", "tracker", connect.Open, day, 0
	ok(t, a.PutDevice(ctx, d))
	same(t, must(b.Device(ctx, ours, d.State))(t), d)
	_, err := b.Device(ctx, ours, "none")
	wantKind(t, err, fault.NotFound)
	same(t, must(b.DueDevices(ctx, day, 10))(t), []connect.Device{d})
	same(t, must(b.DueDevices(ctx, day.Add(-time.Second), 10))(t), nil)

	var n tally[bool]
	next := d
	next.Next, next.Code.Interval, next.Verifier = day.Add(time.Minute), 10, []byte("still")
	race(a, b, func(_ int, db *store.DB) {
		mine, err := db.SetDevice(ctx, next)
		if err != nil {
			t.Error(err)
		}
		n.add(mine)
	})
	if n.n[true] != 1 {
		t.Errorf("%d processes asked at once", n.n[true])
	}
	next.Tries++
	same(t, must(a.Device(ctx, ours, d.State))(t), next)
	same(t, must(b.DueDevices(ctx, day, 10))(t), nil)

	others := []connect.Device{next, next, next} // of another person, of another upstream, and newer
	for i := range others {
		others[i].State = fmt.Sprint("other", i)
	}
	others[0].User, others[1].Upstream = "bob", "wiki"
	for _, o := range others {
		ok(t, a.PutDevice(ctx, o))
	}
	if got := must(b.Device(ctx, ours, d.State))(t); got.Status != connect.Expired || len(got.Verifier) != 0 || got.End.Why == "" {
		t.Errorf("an older code of the same person at the same upstream is %s, with %q", got.Status, got.Verifier)
	}
	if l := must(b.DueDevices(ctx, day.Add(time.Hour), 10))(t); len(l) != 3 {
		t.Errorf("%d are open, want the three others", len(l))
	}
	end := others[2]
	end.Status, end.Verifier, end.End = connect.Done, nil, connect.DeviceEnd{Connection: "c1"}
	if mine := must(b.SetDevice(ctx, end))(t); !mine {
		t.Error("it does not end")
	}
	end.Tries++
	if mine := must(b.SetDevice(ctx, end))(t); mine {
		t.Error("what had ended was changed")
	}
	same(t, must(a.Device(ctx, ours, end.State))(t), end)
}

func grants(t *testing.T, a, b *store.DB) {
	ctx := t.Context()
	g := filled[connect.Grant]()
	g.User, g.Client, g.Server, g.Upstream, g.Connection = "alice", "agent", "issues", "tracker", "c1"
	race(a, b, func(_ int, db *store.DB) {
		if err := db.PutGrant(ctx, g); err != nil {
			t.Error(err)
		}
	})
	g.Scopes, g.Created, g.Expires, g.LastUsed = []string{"less"}, day, day, day
	ok(t, b.PutGrant(ctx, g))
	same(t, must(a.Grants(ctx, ours, "alice"))(t), []connect.Grant{g})
	put := func(change func(*connect.Grant)) {
		o := g
		change(&o)
		ok(t, a.PutGrant(ctx, o))
	}
	refill := func() {
		put(func(*connect.Grant) {})
		put(func(o *connect.Grant) { o.Client = "other" })
		put(func(o *connect.Grant) { o.Server = "other" })
		put(func(o *connect.Grant) { o.Upstream, o.Connection = "other", "c2" })
		put(func(o *connect.Grant) { o.User = "bob" })
	}
	for _, c := range []struct {
		which connect.Grant
		gone  int
	}{
		{connect.Grant{}, 4},
		{connect.Grant{Client: "agent"}, 3},
		{connect.Grant{Server: "issues", Upstream: "tracker"}, 2},
		{connect.Grant{Client: "agent", Server: "issues", Upstream: "tracker"}, 1},
		{connect.Grant{Client: "nobody"}, 0},
		{connect.Grant{Connection: "c2"}, 1},
		{connect.Grant{Upstream: "other", Connection: "c1"}, 0},
	} {
		refill()
		c.which.Tenant, c.which.User = ours, "alice"
		if n := must(b.DeleteGrants(ctx, c.which))(t); n != c.gone || len(must(a.Grants(ctx, ours, "alice"))(t)) != 4-n {
			t.Errorf("%+v took %d, want %d", c.which, n, c.gone)
		}
		if len(must(a.Grants(ctx, ours, "bob"))(t)) != 1 {
			t.Errorf("%+v took another user's", c.which)
		}
	}
	for _, wide := range []connect.Grant{{Tenant: ours}, {User: "alice"}} {
		if _, err := a.DeleteGrants(ctx, wide); err == nil {
			t.Errorf("%+v was taken as a wish to delete", wide)
		}
	}
}

// foundServers: what was found of an upstream is one a (tenant, upstream, issuer), and the first stays, until one replica renews it.
func foundServers(t *testing.T, a, b *store.DB) {
	ctx := t.Context()
	f := filled[discovery.Found]()
	ok(t, a.PutFound(ctx, f))
	late := f
	late.Created, late.Facts = f.Created.Add(time.Hour), []byte("of another replica")
	ok(t, b.PutFound(ctx, late))
	other := late
	other.Issuer = "https://other.example"
	ok(t, b.PutFound(ctx, other))
	same(t, must(a.Found(ctx, f.Tenant, f.Upstream))(t), []discovery.Found{other, f})
	same(t, len(must(a.Found(ctx, f.Tenant, "else"))(t)), 0)

	renewed := f
	renewed.Created, renewed.Facts = other.Created.Add(time.Hour), []byte("another client")
	same(t, must(a.RenewFound(ctx, f, renewed))(t), true)
	same(t, must(b.RenewFound(ctx, f, late))(t), false) // another replica was first
	same(t, must(b.Found(ctx, f.Tenant, f.Upstream))(t), []discovery.Found{renewed, other})
	foreign := renewed
	foreign.Tenant = "else"
	same(t, must(b.RenewFound(ctx, foreign, late))(t), false)
}

// sightings: of each fact the newest that fits and the newest that differs, of one tenant, and none from before a month.
func sightings(t *testing.T, a, b *store.DB) {
	ctx := t.Context()
	long := day.Add(-1000 * time.Hour)
	saw := func(db *store.DB, s live.Sighting) live.Sighting {
		t.Helper()
		ok(t, db.Saw(ctx, s, long))
		return s
	}
	fits := saw(a, live.Sighting{Tenant: ours, Upstream: "mail", Fact: "errors", Fits: true, Said: "one", At: day})
	saw(b, live.Sighting{Tenant: ours, Upstream: "mail", Fact: "errors", Fits: true, Said: "before", At: day.Add(-time.Hour)}) // another replica's, which came late
	differs := saw(b, live.Sighting{Tenant: ours, Upstream: "mail", Fact: "errors", Said: "two", At: day.Add(time.Hour)})
	other := saw(a, live.Sighting{Tenant: ours, Upstream: "drive", Fact: "refresh", Fits: true, Said: "three", At: day})
	foreign := saw(b, live.Sighting{Tenant: theirs, Upstream: "mail", Fact: "errors", Fits: true, Said: "four", At: day})
	same(t, must(b.Sightings(ctx, ours))(t), []live.Sighting{other, differs, fits})
	fits.At, fits.Said = day.Add(2*time.Hour), "newer"
	saw(b, fits)
	same(t, must(a.Sightings(ctx, ours))(t), []live.Sighting{other, differs, fits})
	long = day.Add(90 * time.Minute)
	saw(a, fits)
	same(t, must(b.Sightings(ctx, ours))(t), []live.Sighting{fits})
	same(t, must(b.Sightings(ctx, theirs))(t), []live.Sighting{foreign})
}
