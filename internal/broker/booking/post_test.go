package booking_test

import (
	"context"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/internal/broker/booking"
	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/store"
)

// pair is two processes over one store, and how an intent of alice's is begun in either. What the second refuses is taken by the first.
type pair struct {
	t           *testing.T
	db          *store.DB
	here, there *audit.Log
	open, other booking.Book
}

var alice = &identity.Caller{Tenant: "default", User: "alice"}

func newPair(t *testing.T) *pair {
	t.Helper()
	db, err := store.Open(t.Context(), store.Config{Path: filepath.Join(t.TempDir(), "f.db"), Log: slog.New(slog.DiscardHandler), Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	p := &pair{t: t, db: db, here: replica(t, db), there: replica(t, db)}
	p.open.Post = &booking.Post{Notes: db, Acts: db, Own: p.here.Writers, Log: slog.New(slog.DiscardHandler)}
	p.other.Post = &booking.Post{Notes: db, Acts: db, Own: p.there.Writers, Log: slog.New(slog.DiscardHandler)}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); _ = p.open.Run(ctx, db.Watch(ctx)) }()
	t.Cleanup(func() { stop(); <-ended })
	return p
}

func (p *pair) begin(l *audit.Log, r audit.Record) audit.CallID {
	p.t.Helper()
	r.Tenant, r.User, r.Server = "default", "alice", "issues"
	if r.Time.IsZero() {
		r.Time = time.Now()
	}
	id, err := l.Begin(p.t.Context(), r)
	if err != nil {
		p.t.Fatal(err)
	}
	return id
}

// asked is an API request that came to an end at the second.
func (p *pair) asked(of audit.CallID, at time.Time, came audit.Result) {
	p.t.Helper()
	r := audit.Record{Action: "api", Parent: of, Tenant: "default", User: "alice", Time: at, Result: came}
	p.there.End(p.t.Context(), p.begin(p.there, r), r)
}

var missing = []catalog.Missing{{Upstream: "github", Why: catalog.WhyNotConnected}}

// TestRefusedElsewhere: what a replica refuses for a call that is open at another is known there when the refusal returns; whether a
// request of the call succeeded anywhere is read in the log.
func TestRefusedElsewhere(t *testing.T) {
	p := newPair(t)
	of := func(id audit.CallID) booking.Booked { return booking.Booked{Call: id, Caller: alice} }
	for name, came := range map[string]audit.Result{"nothing else": "", "another failed": audit.ResultFailed, "another succeeded": audit.ResultOK} {
		e := &booking.Entry{Call: p.begin(p.here, audit.Record{Action: "call"}), Acts: true, Caller: alice}
		p.open.Add(e)
		if came != "" {
			p.asked(e.Call, time.Now(), came)
		}
		p.other.Refused(of(e.Call), missing)
		p.other.Tell(of(e.Call), "do this")
		got := e.Report()
		if len(got.Missing) != 1 || len(got.Hints) != 1 || (got.Successes > 0) != (came == audit.ResultOK) {
			t.Errorf("%s: %+v", name, got)
		}
		p.open.Remove(e)
		p.other.Refused(of(e.Call), missing) // over: nobody is left to ask
	}
	ours := p.begin(p.there, audit.Record{Action: "call"})
	p.other.Refused(of(ours), missing)
	if l, err := p.db.NotesFor(t.Context(), p.there.Writers()[0]); err != nil || len(l) != 0 {
		t.Errorf("a call of its own that is over: %v, %v", l, err)
	}
}

// TestSucceededElsewhere: a request that was refused here becomes no question where another one of the call succeeded at another replica.
func TestSucceededElsewhere(t *testing.T) {
	p := newPair(t)
	e := &booking.Entry{Call: p.begin(p.here, audit.Record{Action: "call"}), Acts: true, Caller: alice}
	p.open.Add(e)
	p.open.Refused(booking.Booked{Call: e.Call, Caller: alice}, missing)
	if got := e.Report(); got.Successes != 0 || len(got.Missing) != 1 {
		t.Errorf("nothing succeeded: %+v", got)
	}
	p.asked(e.Call, time.Now(), audit.ResultOK)
	if got := e.Report(); got.Successes == 0 {
		t.Errorf("one succeeded elsewhere: %+v", got)
	}
}

// TestSessionRefusedElsewhere: a keycard of a session does not say where its call is open: that is found in the log, even where the session
// itself was begun by the replica that refuses.
func TestSessionRefusedElsewhere(t *testing.T) {
	p := newPair(t)
	session := &booking.Entry{Call: p.begin(p.there, audit.Record{Action: "session"}), Caller: alice}
	p.other.Add(session)
	of := booking.Booked{Call: session.Call, Caller: alice, Since: time.Now().Add(-time.Minute)}
	call := func() *booking.Entry {
		e := &booking.Entry{Call: p.begin(p.here, audit.Record{Action: "call", Session: string(session.Call)}), Session: session.Call, Acts: true, Caller: alice}
		p.open.Add(e)
		return e
	}
	end := func(e *booking.Entry) {
		p.open.Remove(e)
		p.here.End(t.Context(), e.Call, audit.Record{Action: "call", Tenant: "default", User: "alice", Time: time.Now(), Result: audit.ResultOK})
	}
	p.asked(session.Call, time.Now(), audit.ResultOK) // of a call before
	for range 3 {                                     // one after the other: that one ended is in the log a moment later
		e := call()
		p.other.Refused(of, missing)
		p.other.Tell(of, "do this")
		if got := e.Report(); len(got.Missing) != 1 || len(got.Hints) != 1 || got.Successes != 0 {
			t.Errorf("the only open call: %+v", got)
		}
		p.asked(session.Call, time.Now(), audit.ResultOK)
		if got := e.Report(); got.Successes == 0 {
			t.Errorf("a request of the session that succeeded while the call was open: %+v", got)
		}
		end(e)
	}
	slow := call()
	p.other.Refused(of, missing)
	second := call()
	p.other.Refused(of, missing)
	if a, b := slow.Report(), second.Report(); len(a.Missing) != 1 || len(b.Missing) != 0 {
		t.Errorf("of two calls nobody knows whose request it was: %+v %+v", a, b)
	}
	end(slow)
	end(second)
	p.other.Refused(of, missing)
	if l, err := p.db.NotesFor(t.Context(), p.here.Writers()[0]); err != nil || len(l) != 0 {
		t.Errorf("notes without a call: %v, %v", l, err)
	}
}
