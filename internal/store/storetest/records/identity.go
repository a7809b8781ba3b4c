package records

import (
	"context"
	"testing"

	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/store"
	"frontdesk.dev/frontdesk/internal/store/storetest/check"
)

func users(t *testing.T, a, b *store.DB) {
	ctx := t.Context()
	alice := identity.User{Tenant: check.Ours, IDP: "corp", Subject: "alice", Name: "Alice", Email: "alice@example.com", Groups: []string{"eng", "ops"}}
	first := check.Must(a.EnsureUser(ctx, alice))(t)
	if len(first.ID) != 32 {
		t.Errorf("the id %q is no 128 bits in hex", first.ID)
	}
	alice.ID = first.ID
	check.Same(t, first, alice)
	check.Same(t, check.Must(b.User(ctx, check.Ours, first.ID))(t), alice)

	for _, c := range []struct {
		name      string
		said, now identity.User
	}{
		{"nothing new is said", identity.User{}, identity.User{Name: "Alice", Email: "alice@example.com", Groups: []string{"eng", "ops"}}},
		{"a name", identity.User{Name: "Alice B."}, identity.User{Name: "Alice B.", Email: "alice@example.com", Groups: []string{"eng", "ops"}}},
		{"no groups any more", identity.User{Groups: []string{}}, identity.User{Name: "Alice B.", Email: "alice@example.com"}},
		{"a group and an address", identity.User{Email: "a@b.c", Groups: []string{"x"}}, identity.User{Name: "Alice B.", Email: "a@b.c", Groups: []string{"x"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, u := range []*identity.User{&c.said, &c.now} {
				u.Tenant, u.IDP, u.Subject = check.Ours, "corp", "alice"
			}
			c.now.ID = first.ID
			check.Same(t, check.Must(a.EnsureUser(ctx, c.said))(t), c.now)
			check.Same(t, check.Must(b.User(ctx, check.Ours, first.ID))(t), c.now)
		})
	}

	seen := map[identity.UserID]string{first.ID: "alice"}
	for _, other := range []identity.User{
		{Tenant: check.Ours, IDP: "corp", Subject: "Alice"},
		{Tenant: check.Ours, IDP: "partner", Subject: "alice"},
		{Tenant: check.Theirs, IDP: "corp", Subject: "alice"},
	} {
		u := check.Must(a.EnsureUser(ctx, other))(t)
		if who, taken := seen[u.ID]; taken {
			t.Errorf("%+v got the id of %s", other, who)
		}
		seen[u.ID] = other.Subject
	}
	for who, found := range map[string]int{string(first.ID): 1, "alice": 2, "ALICE B.": 1, "A@B.C": 1, "ali": 0, "%": 0, "": 0} {
		if l := check.Must(b.FindUsers(ctx, check.Ours, who))(t); len(l) != found {
			t.Errorf("%q finds %d people, want %d", who, len(l), found)
		}
	}
	_, err := a.User(ctx, check.Ours, "ffff")
	check.WantKind(t, err, fault.NotFound)
}

func usersRaced(t *testing.T, a, b *store.DB) {
	var ids check.Tally[identity.UserID]
	check.Race(a, b, func(_ int, db *store.DB) {
		u, err := db.EnsureUser(t.Context(), identity.User{Tenant: check.Ours, IDP: "corp", Subject: "new", Name: "New"})
		if err != nil {
			t.Error(err)
		}
		ids.Add(u.ID)
	})
	if len(ids.N) != 1 {
		t.Errorf("one person got %d ids", len(ids.N))
	}
}

func epochs(t *testing.T, a, b *store.DB) {
	ctx := t.Context()
	var last int64
	for _, k := range []identity.EpochKind{identity.EpochUser, identity.EpochClient, identity.EpochFamily, identity.EpochSession, identity.EpochAccess} {
		e := identity.Epoch{Tenant: check.Ours, Kind: k, ID: "x", NotBefore: check.Day}
		got := check.Must(a.Advance(ctx, e))(t)
		if got.Seq <= last {
			t.Errorf("the number went from %d to %d", last, got.Seq)
		}
		e.Seq = got.Seq
		check.Same(t, got, e)
		check.Same(t, check.Must(b.EpochsSince(ctx, last))(t), []identity.Epoch{e})
		last = got.Seq
	}
	check.Same(t, check.Must(b.EpochsSince(ctx, last))(t), nil)
}

// epochsInOrder: whoever reads on from the last number that he saw misses none.
func epochsInOrder(t *testing.T, a, b *store.DB) {
	const each = 5
	done := make(chan struct{})
	go func() {
		defer close(done)
		check.Race(a, b, func(_ int, db *store.DB) {
			for range each {
				if _, err := db.Advance(t.Context(), identity.Epoch{Tenant: check.Ours, Kind: identity.EpochUser, ID: "x", NotBefore: check.Day}); err != nil {
					t.Error(err)
				}
			}
		})
	}()
	var last int64
	seen := 0
	for running := true; running; {
		select {
		case <-done:
			running = false // and one more look
		default:
		}
		l, err := b.EpochsSince(t.Context(), last)
		check.OK(t, err)
		for _, e := range l {
			if e.Seq <= last {
				t.Fatalf("number %d came after %d", e.Seq, last)
			}
			last = e.Seq
			seen++
		}
	}
	if seen != check.Many*each {
		t.Errorf("%d of %d epochs were seen by who reads on from the last one", seen, check.Many*each)
	}
}

// watch: what one replica changes wakes the other one.
func watch(t *testing.T, a, b *store.DB) {
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	ran := make(chan error, 1)
	go func() { ran <- b.Run(ctx) }()
	wakes := b.Watch(ctx)
	check.Eventually(t, "the other replica is woken", func() bool {
		_, err := a.Advance(ctx, identity.Epoch{Tenant: check.Ours, Kind: identity.EpochUser, ID: "x", NotBefore: check.Day})
		check.OK(t, err)
		select {
		case <-wakes:
			return true
		default:
			return false
		}
	})
	stop()
	check.OK(t, <-ran)
}
