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

// TestRefusedElsewhere: what a replica refuses for a call that is open at another is known there when the refusal returns; whether a
// request of the call succeeded anywhere is read in the log.
func TestRefusedElsewhere(t *testing.T) {
	db, err := store.Open(t.Context(), store.Config{Path: filepath.Join(t.TempDir(), "f.db"), Log: slog.New(slog.DiscardHandler), Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	here, there := replica(t, db), replica(t, db)
	var open, other booking.Book
	open.Post = &booking.Post{Notes: db, Acts: db, Own: here.Writers, Log: slog.New(slog.DiscardHandler)}
	other.Post = &booking.Post{Notes: db, Acts: db, Own: there.Writers, Log: slog.New(slog.DiscardHandler)}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); _ = open.Run(ctx, db.Watch(ctx)) }()
	t.Cleanup(func() { stop(); <-ended })

	alice := &identity.Caller{Tenant: "default", User: "alice"}
	begin := func(l *audit.Log, r audit.Record) audit.CallID {
		t.Helper()
		r.Tenant, r.User, r.Server, r.Time = "default", "alice", "issues", time.Now()
		id, err := l.Begin(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	missing := []catalog.Missing{{Upstream: "github", Why: catalog.WhyNotConnected}}
	for name, came := range map[string]audit.Result{"nothing else": "", "another failed": audit.ResultFailed, "another succeeded": audit.ResultOK} {
		e := &booking.Entry{Call: begin(here, audit.Record{Action: "call"}), Acts: true, Caller: alice}
		open.Add(e)
		if came != "" {
			r := audit.Record{Action: "api", Parent: e.Call, Tenant: "default", User: "alice", Time: time.Now(), Result: came}
			there.End(t.Context(), begin(there, audit.Record{Action: "api", Parent: e.Call}), r)
		}
		other.Refused(e.Call, missing)
		other.Tell(e.Call, "do this")
		got := e.Report()
		if len(got.Missing) != 1 || len(got.Hints) != 1 || (got.Successes > 0) != (came == audit.ResultOK) {
			t.Errorf("%s: %+v", name, got)
		}
		open.Remove(e)
		other.Refused(e.Call, missing) // over: nobody is left to ask
	}
	ours := begin(there, audit.Record{Action: "call"})
	other.Refused(ours, missing)
	if l, err := db.NotesFor(t.Context(), there.Writers()[0]); err != nil || len(l) != 0 {
		t.Errorf("a call of its own that is over: %v, %v", l, err)
	}
}
