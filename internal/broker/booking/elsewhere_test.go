package booking_test

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/internal/broker/booking"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/store"
)

// replica is the log of one process over the common store.
func replica(t *testing.T, db *store.DB) *audit.Log {
	t.Helper()
	l, err := audit.New(db, db, time.Now, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); _ = l.Run(ctx) }()
	t.Cleanup(func() { stop(); <-ended })
	return l
}

// TestASignInEndsElsewhereToo: a keycard of an act that another replica opened ends with the sign-in of its client, as it does there.
func TestASignInEndsElsewhereToo(t *testing.T) {
	ctx := t.Context()
	db, err := store.Open(ctx, store.Config{Path: filepath.Join(t.TempDir(), "f.db"), Log: slog.New(slog.DiscardHandler), Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	u, err := db.EnsureUser(ctx, identity.User{Tenant: "default", IDP: "login", Subject: "alice"})
	if err != nil {
		t.Fatal(err)
	}
	here, there := replica(t, db), replica(t, db)
	c := &identity.Caller{Tenant: "default", User: u.ID, Client: "agent", Family: "sign-in-1", Issued: time.Now(), Local: true}
	r := audit.Record{Kind: audit.KindIntent, Time: time.Now(), Tenant: "default", Action: "session", Server: "issues"}
	r.By(c)
	id, err := here.Begin(ctx, r)
	if err != nil {
		t.Fatal(err)
	}
	ticket := identity.Ticket{Tenant: "default", Kind: identity.TicketSession, Txn: string(id), Server: "issues", Expires: time.Now().Add(12 * time.Hour)}
	found, err := booking.Elsewhere(ctx, there, db, ticket)
	if err != nil {
		t.Fatal(err)
	}
	epochs := &identity.Epochs{Store: db, Now: time.Now, Log: slog.New(slog.DiscardHandler)}
	if !epochs.Alive(found) || found.User != u.ID || found.Client != "agent" {
		t.Fatalf("the act's caller is %+v", found)
	}
	if err := epochs.End(ctx, "default", identity.EpochFamily, c.Family); err != nil {
		t.Fatal(err)
	}
	if epochs.Alive(found) {
		t.Error("the sign-in has ended, and its keycard opens APIs at another replica")
	}
	ticket.Server = "other"
	if _, err := booking.Elsewhere(ctx, there, db, ticket); !errors.Is(err, booking.ErrEnded) {
		t.Errorf("a ticket for another server: %v", err)
	}
	var book booking.Book
	if err := errors.Join(book.GoesOn(ctx, there, ""), book.GoesOn(ctx, there, id)); err != nil {
		t.Error("a session that goes on elsewhere:", err)
	}
	if err := book.GoesOn(ctx, here, id); fault.KindOf(err) != fault.Conflict {
		t.Error("one of ours that is not open:", err)
	}
	r.Time, r.Result = time.Now(), audit.ResultOK
	here.End(ctx, id, r)
	for fault.KindOf(book.GoesOn(ctx, there, id)) != fault.Conflict && t.Context().Err() == nil {
		time.Sleep(time.Millisecond) // its outcome reaches the log a moment later
	}
}
