package credentials

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
	"frontdesk.dev/frontdesk/internal/store/storetest/check"
)

func requests(t *testing.T, a, b *store.DB) {
	ctx := t.Context()
	first := check.Request("r1")
	check.Same(t, check.Must(a.OpenRequest(ctx, first))(t), first)
	check.Same(t, check.Must(b.Request(ctx, check.Ours, "r1"))(t), first)

	again := check.Request("r2")
	again.Created, again.Expires = check.Day.Add(time.Minute), check.Day.Add(2*time.Hour)
	again.Missing = []catalog.Missing{{Upstream: "wiki", Why: catalog.WhyNotConnected}, {Upstream: "tracker", Scopes: []string{"write", "read"}}}
	first.Expires = again.Expires
	check.Same(t, check.Must(b.OpenRequest(ctx, again))(t), first) // the same question, for longer
	check.Same(t, check.Must(a.Requests(ctx, check.Ours, "alice", connect.Open))(t), []connect.Request{first})

	for i, change := range []func(*connect.Request){
		func(r *connect.Request) { r.User = "bob" },
		func(r *connect.Request) { r.Client = "another" },
		func(r *connect.Request) { r.Server = "another" },
		func(r *connect.Request) { r.Missing = r.Missing[:1] },
		func(r *connect.Request) { r.Missing[0].Scopes = []string{"read"} },
		func(r *connect.Request) { r.Created = first.Expires }, // the first one is over by then
	} {
		r := check.Request(fmt.Sprint("other", i))
		change(&r)
		check.Same(t, check.Must(a.OpenRequest(ctx, r))(t), r)
	}

	first.Missing = first.Missing[1:]
	check.OK(t, b.SetState(ctx, first)) // one of two is answered
	check.Same(t, check.Must(a.Request(ctx, check.Ours, "r1"))(t), first)
	less := check.Request("r3")
	less.Missing = less.Missing[1:]
	check.Same(t, check.Must(a.OpenRequest(ctx, less))(t).ID, first.ID)
	first.State, first.Missing = connect.Done, nil
	check.OK(t, a.SetState(ctx, first))
	first.State = connect.Refused
	check.WantKind(t, b.SetState(ctx, first), fault.Conflict)
	if got := check.Must(b.Request(ctx, check.Ours, "r1"))(t); got.State != connect.Done {
		t.Errorf("an answered request is %s", got.State)
	}
	first.ID = "none"
	check.WantKind(t, b.SetState(ctx, first), fault.NotFound)
	_, err := b.Request(ctx, check.Ours, "none")
	check.WantKind(t, err, fault.NotFound)
}

func requestsRaced(t *testing.T, a, b *store.DB) {
	ctx := t.Context()
	var ids check.Tally[connect.RequestID]
	check.Race(a, b, func(i int, db *store.DB) {
		r, err := db.OpenRequest(ctx, check.Request(fmt.Sprint("r", i)))
		if err != nil {
			t.Error(err)
		}
		ids.Add(r.ID)
	})
	open := check.Must(a.Requests(ctx, check.Ours, "alice", connect.Open))(t)
	if len(ids.N) != 1 || len(open) != 1 {
		t.Fatalf("one question became %d, of which %d are open", len(ids.N), len(open))
	}
	var answers check.Tally[bool]
	check.Race(a, b, func(i int, db *store.DB) {
		r := open[0]
		if r.State = connect.Done; i%3 == 0 {
			r.State = connect.Refused
		}
		err := db.SetState(ctx, r)
		if err != nil && fault.KindOf(err) != fault.Conflict {
			t.Error(err)
		}
		answers.Add(err == nil)
	})
	if answers.N[true] != 1 {
		t.Errorf("one question was answered %d times", answers.N[true])
	}
}

func flows(t *testing.T, a, b *store.DB) {
	ctx := t.Context()
	f := check.Filled[connect.Flow]()
	check.OK(t, a.PutFlow(ctx, f))
	if err := b.PutFlow(ctx, f); err == nil {
		t.Error("a state was used for two flows")
	}
	check.Same(t, check.Must(b.TakeFlow(ctx, check.Ours, f.State))(t), f)
	_, err := a.TakeFlow(ctx, check.Ours, f.State)
	check.WantKind(t, err, fault.NotFound)

	check.OK(t, a.PutFlow(ctx, f))
	var n check.Tally[string]
	check.Race(a, b, func(_ int, db *store.DB) {
		_, err := db.TakeFlow(ctx, check.Ours, f.State)
		switch {
		case err == nil:
			n.Add("took")
		case fault.KindOf(err) == fault.NotFound:
			n.Add("missed")
		default:
			t.Error(err)
		}
	})
	check.Same(t, n.N, map[string]int{"took": 1, "missed": check.Many - 1})
}

func devices(t *testing.T, a, b *store.DB) {
	ctx := t.Context()
	d := check.Filled[connect.Device]()
	d.User, d.Upstream, d.Status, d.Next, d.Tries = "alice", "tracker", connect.Open, check.Day, 0
	check.OK(t, a.PutDevice(ctx, d))
	check.Same(t, check.Must(b.Device(ctx, check.Ours, d.State))(t), d)
	_, err := b.Device(ctx, check.Ours, "none")
	check.WantKind(t, err, fault.NotFound)
	check.Same(t, check.Must(b.DueDevices(ctx, check.Day, 10))(t), []connect.Device{d})
	check.Same(t, check.Must(b.DueDevices(ctx, check.Day.Add(-time.Second), 10))(t), nil)

	var n check.Tally[bool]
	next := d
	next.Next, next.Code.Interval, next.Verifier = check.Day.Add(time.Minute), 10, []byte("still")
	check.Race(a, b, func(_ int, db *store.DB) {
		mine, err := db.SetDevice(ctx, next)
		if err != nil {
			t.Error(err)
		}
		n.Add(mine)
	})
	if n.N[true] != 1 {
		t.Errorf("%d processes asked at once", n.N[true])
	}
	next.Tries++
	check.Same(t, check.Must(a.Device(ctx, check.Ours, d.State))(t), next)
	check.Same(t, check.Must(b.DueDevices(ctx, check.Day, 10))(t), nil)

	others := []connect.Device{next, next, next} // of another person, of another upstream, and newer
	for i := range others {
		others[i].State = fmt.Sprint("other", i)
	}
	others[0].User, others[1].Upstream = "bob", "wiki"
	for _, o := range others {
		check.OK(t, a.PutDevice(ctx, o))
	}
	if got := check.Must(b.Device(ctx, check.Ours, d.State))(t); got.Status != connect.Expired || len(got.Verifier) != 0 || got.End.Why == "" {
		t.Errorf("an older code of the same person at the same upstream is %s, with %q", got.Status, got.Verifier)
	}
	if l := check.Must(b.DueDevices(ctx, check.Day.Add(time.Hour), 10))(t); len(l) != 3 {
		t.Errorf("%d are open, want the three others", len(l))
	}
	end := others[2]
	end.Status, end.Verifier, end.End = connect.Done, nil, connect.DeviceEnd{Connection: "c1"}
	if mine := check.Must(b.SetDevice(ctx, end))(t); !mine {
		t.Error("it does not end")
	}
	end.Tries++
	if mine := check.Must(b.SetDevice(ctx, end))(t); mine {
		t.Error("what had ended was changed")
	}
	check.Same(t, check.Must(a.Device(ctx, check.Ours, end.State))(t), end)
}

func grants(t *testing.T, a, b *store.DB) {
	ctx := t.Context()
	g := check.Filled[connect.Grant]()
	g.User, g.Client, g.Server, g.Upstream, g.Connection = "alice", "agent", "issues", "tracker", "c1"
	check.Race(a, b, func(_ int, db *store.DB) {
		if err := db.PutGrant(ctx, g); err != nil {
			t.Error(err)
		}
	})
	g.Scopes, g.Created, g.Expires, g.LastUsed = []string{"less"}, check.Day, check.Day, check.Day
	check.OK(t, b.PutGrant(ctx, g))
	check.Same(t, check.Must(a.Grants(ctx, check.Ours, "alice"))(t), []connect.Grant{g})
	put := func(change func(*connect.Grant)) {
		o := g
		change(&o)
		check.OK(t, a.PutGrant(ctx, o))
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
		c.which.Tenant, c.which.User = check.Ours, "alice"
		if n := check.Must(b.DeleteGrants(ctx, c.which))(t); n != c.gone || len(check.Must(a.Grants(ctx, check.Ours, "alice"))(t)) != 4-n {
			t.Errorf("%+v took %d, want %d", c.which, n, c.gone)
		}
		if len(check.Must(a.Grants(ctx, check.Ours, "bob"))(t)) != 1 {
			t.Errorf("%+v took another user's", c.which)
		}
	}
	for _, wide := range []connect.Grant{{Tenant: check.Ours}, {User: "alice"}} {
		if _, err := a.DeleteGrants(ctx, wide); err == nil {
			t.Errorf("%+v was taken as a wish to delete", wide)
		}
	}
}

// foundServers: what was found of an upstream is one a (tenant, upstream, issuer), and the first stays, until one replica renews it.
func foundServers(t *testing.T, a, b *store.DB) {
	ctx := t.Context()
	f := check.Filled[discovery.Found]()
	check.OK(t, a.PutFound(ctx, f))
	late := f
	late.Created, late.Facts = f.Created.Add(time.Hour), []byte("of another replica")
	check.OK(t, b.PutFound(ctx, late))
	other := late
	other.Issuer = "https://other.example"
	check.OK(t, b.PutFound(ctx, other))
	check.Same(t, check.Must(a.Found(ctx, f.Tenant, f.Upstream))(t), []discovery.Found{other, f})
	check.Same(t, len(check.Must(a.Found(ctx, f.Tenant, "else"))(t)), 0)

	renewed := f
	renewed.Created, renewed.Facts = other.Created.Add(time.Hour), []byte("another client")
	check.Same(t, check.Must(a.RenewFound(ctx, f, renewed))(t), true)
	check.Same(t, check.Must(b.RenewFound(ctx, f, late))(t), false) // another replica was first
	check.Same(t, check.Must(b.Found(ctx, f.Tenant, f.Upstream))(t), []discovery.Found{renewed, other})
	foreign := renewed
	foreign.Tenant = "else"
	check.Same(t, check.Must(b.RenewFound(ctx, foreign, late))(t), false)
}

// sightings: of each fact the newest that fits and the newest that differs, of one tenant, and none from before a month.
func sightings(t *testing.T, a, b *store.DB) {
	ctx := t.Context()
	long := check.Day.Add(-1000 * time.Hour)
	saw := func(db *store.DB, s live.Sighting) live.Sighting {
		t.Helper()
		check.OK(t, db.Saw(ctx, s, long))
		return s
	}
	fits := saw(a, live.Sighting{Tenant: check.Ours, Upstream: "mail", Fact: "errors", Fits: true, Said: "one", At: check.Day})
	saw(b, live.Sighting{Tenant: check.Ours, Upstream: "mail", Fact: "errors", Fits: true, Said: "before", At: check.Day.Add(-time.Hour)}) // another replica's, which came late
	differs := saw(b, live.Sighting{Tenant: check.Ours, Upstream: "mail", Fact: "errors", Said: "two", At: check.Day.Add(time.Hour)})
	other := saw(a, live.Sighting{Tenant: check.Ours, Upstream: "drive", Fact: "refresh", Fits: true, Said: "three", At: check.Day})
	foreign := saw(b, live.Sighting{Tenant: check.Theirs, Upstream: "mail", Fact: "errors", Fits: true, Said: "four", At: check.Day})
	check.Same(t, check.Must(b.Sightings(ctx, check.Ours))(t), []live.Sighting{other, differs, fits})
	fits.At, fits.Said = check.Day.Add(2*time.Hour), "newer"
	saw(b, fits)
	check.Same(t, check.Must(a.Sightings(ctx, check.Ours))(t), []live.Sighting{other, differs, fits})
	long = check.Day.Add(90 * time.Minute)
	saw(a, fits)
	check.Same(t, check.Must(b.Sightings(ctx, check.Ours))(t), []live.Sighting{fits})
	check.Same(t, check.Must(b.Sightings(ctx, check.Theirs))(t), []live.Sighting{foreign})
}
