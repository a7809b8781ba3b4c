package store_test

import (
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/internal/gateway/sessions"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/store"
	"frontdesk.dev/frontdesk/test/pg"
)

// TestManySessions: what one client keeps, and all of one principal, is bounded, though many begin at once at two replicas. What goes was
// unused for longest, and is nobody else's.
func TestManySessions(t *testing.T) {
	t.Run("SQLite", func(t *testing.T) {
		db := open(t, store.Config{Path: filepath.Join(t.TempDir(), "frontdesk.db")})
		manySessions(t, db, db)
	})
	t.Run("PostgreSQL", func(t *testing.T) {
		cfg := store.Config{DSN: pg.Start(t)}
		manySessions(t, open(t, cfg), open(t, cfg))
	})
}

func manySessions(t *testing.T, a, b *store.DB) {
	const ours, many = "acme", 64
	ctx, day := t.Context(), time.Date(2026, 3, 14, 15, 9, 26, 0, time.UTC)
	few := sessions.Most{Client: 5, Principal: 8}
	begun := func(db *store.DB, who string, client identity.ClientID, id string, seen int) (dropped []string) {
		l, err := db.PutSession(ctx, sessions.Session{Tenant: ours, Principal: who, Client: client, ID: []byte(id), Act: audit.CallID("of " + id), Seen: day.Add(time.Duration(seen) * time.Minute)}, few)
		if err != nil {
			t.Error(err)
		}
		for _, s := range l {
			if s.Act != audit.CallID("of "+string(s.ID)) {
				t.Errorf("%s was dropped as that of the act %q", s.ID, s.Act)
			}
			dropped = append(dropped, string(s.ID))
		}
		return dropped
	}
	there := func(id string) bool {
		_, err := b.Session(ctx, ours, []byte(id), time.Time{})
		return err == nil
	}
	begun(a, "alice", "good", "bystander", 0)
	begun(a, "mallory", "good", "working", 0)
	var all sync.WaitGroup
	var dropped atomic.Int32
	for i := range many {
		all.Go(func() {
			dropped.Add(int32(len(begun([]*store.DB{a, b}[i%2], "mallory", "evil", fmt.Sprint("flood ", i), 1))))
		})
	}
	all.Wait()
	kept := 0
	for i := range many {
		if there(fmt.Sprint("flood ", i)) {
			kept++
		}
	}
	if kept != few.Client || dropped.Load() != many-int32(few.Client) || !there("working") || !there("bystander") {
		t.Errorf("%d are kept and %d were dropped of %d; mallory's other client has its own: %v, alice hers: %v", kept, dropped.Load(), many, there("working"), there("bystander"))
	}
	// One that is in use stays, and a replica whose clock is behind does not drop what it has begun in this moment.
	for i := range few.Client {
		begun(a, "bob", "good", fmt.Sprint("his ", i), i)
	}
	if _, err := b.Session(ctx, ours, []byte("his 0"), day.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if l := begun(b, "bob", "good", "behind", -60); !slices.Equal(l, []string{"his 1"}) || !there("behind") || !there("his 0") {
		t.Errorf("in favour of a new one %q went", l)
	}
	for i := range few.Client { // two clients of one person
		begun(a, "bob", "other", fmt.Sprint("more ", i), 100+i)
	}
	if there("behind") || there("his 2") || !there("his 3") || !there("his 0") || !there("more 0") {
		t.Error("of one person's sessions others were dropped than those unused for longest")
	}
}
