package records

import (
	"sync/atomic"
	"testing"
	"time"

	"frontdesk.dev/frontdesk/internal/broker/booking"
	"frontdesk.dev/frontdesk/internal/broker/traffic"
	"frontdesk.dev/frontdesk/internal/store"
	"frontdesk.dev/frontdesk/internal/store/storetest/check"
)

// allowances: a bucket that nobody drew from is full; what is owed is taken in any case, and what is wanted as far as it goes; it fills by
// the database's clock, each for its own name and tenant.
func allowances(t *testing.T, a, b *store.DB) {
	const slow = 60 // one a second
	draw := func(db *store.DB, w traffic.Draw) (int64, time.Duration) {
		t.Helper()
		got, wait, err := db.Draw(t.Context(), w)
		check.OK(t, err)
		return got, wait
	}
	if got, wait := draw(a, traffic.Draw{Tenant: check.Ours, Name: "x", PerMinute: slow, Want: 50}); got != 50 || wait != 0 {
		t.Errorf("of a full one: %d, %s", got, wait)
	}
	if got, _ := draw(b, traffic.Draw{Tenant: check.Ours, Name: "x", PerMinute: slow, Want: 50}); got < 10 || got > 40 {
		t.Errorf("of what is left: %d", got)
	}
	if got, wait := draw(a, traffic.Draw{Tenant: check.Ours, Name: "x", PerMinute: slow, Want: 5, Owed: 600}); got != 0 || wait < 9*time.Minute || wait > 11*time.Minute {
		t.Errorf("with what is owed: %d, %s", got, wait)
	}
	for _, other := range []traffic.Draw{{Tenant: check.Theirs, Name: "x", PerMinute: slow, Want: 60}, {Tenant: check.Ours, Name: "y", PerMinute: slow, Want: 60}} {
		if got, _ := draw(b, other); got != 60 {
			t.Errorf("another one: %d of %+v", got, other)
		}
	}
	if got, _ := draw(a, traffic.Draw{Tenant: check.Ours, Name: "fast", PerMinute: 60_000_000, Want: 60_000_000}); got != 60_000_000 {
		t.Errorf("of a large one: %d", got)
	}
	check.Eventually(t, "it fills", func() bool {
		got, _ := draw(b, traffic.Draw{Tenant: check.Ours, Name: "fast", PerMinute: 60_000_000, Want: 1000})
		return got == 1000
	})
	if got, wait := draw(a, traffic.Draw{Tenant: check.Ours, Name: "none", PerMinute: 0, Want: 5}); got != 0 || wait != 0 {
		t.Errorf("of no limit at all: %d, %s", got, wait)
	}
}

// allowancesRaced: however many draw at once, they get no more than there is.
func allowancesRaced(t *testing.T, a, b *store.DB) {
	var sum atomic.Int64
	check.Race(a, b, func(_ int, db *store.DB) {
		for range 3 {
			got, _, err := db.Draw(t.Context(), traffic.Draw{Tenant: check.Ours, Name: "raced", PerMinute: 100, Want: 7})
			if err != nil {
				t.Error(err)
			}
			sum.Add(got)
		}
	})
	if n := sum.Load(); n < 100 || n > 200 { // what fills in the meantime comes on top
		t.Errorf("%d were drawn from a bucket of 100", n)
	}
}

// words: what one replica says the others hear, once, in order; of two about the same the one that holds longer counts.
func words(t *testing.T, a, b *store.DB) {
	now := time.Now().UTC().Truncate(time.Microsecond)
	closed := traffic.Word{Tenant: check.Ours, Upstream: "github", Who: "alice", Part: "api.github.com/repos", Until: now.Add(time.Hour)}
	used := traffic.Word{Tenant: check.Ours, Upstream: "github", Who: "alice", Part: "api.github.com/repos", Replica: "r1", Used: 5, Until: now.Add(time.Hour)}
	past := traffic.Word{Tenant: check.Theirs, Upstream: "slack", Part: "slack.com/api", Until: now.Add(-time.Minute)}
	check.OK(t, a.Say(t.Context(), []traffic.Word{closed, used, past}))
	l := check.Must(b.Said(t.Context(), 0))(t)
	if len(l) != 2 || l[0].Seq == 0 || l[0].Seq != l[1].Seq {
		t.Fatalf("heard was %+v", l)
	}
	closed.Seq, used.Seq = l[0].Seq, l[0].Seq
	check.Same(t, l, []traffic.Word{closed, used})
	if l := check.Must(b.Said(t.Context(), closed.Seq))(t); len(l) != 0 {
		t.Errorf("heard twice: %+v", l)
	}
	shorter, more, less := closed, used, used
	shorter.Until, more.Used, less.Used = now.Add(time.Minute), 9, 7
	check.OK(t, b.Say(t.Context(), []traffic.Word{shorter, more}))
	check.OK(t, b.Say(t.Context(), []traffic.Word{less}))
	l = check.Must(a.Said(t.Context(), closed.Seq))(t)
	if len(l) != 1 || l[0].Used != 9 || l[0].Seq <= closed.Seq {
		t.Errorf("heard was %+v", l)
	}
	check.OK(t, a.Say(t.Context(), nil))
}

// notes: each waits for the process that it is for until that has taken it, and its sender sees that.
func notes(t *testing.T, a, b *store.DB) {
	n, later, other := check.Filled[booking.Note](), check.Filled[booking.Note](), check.Filled[booking.Note]()
	n.Writer, later.Writer, other.Writer = "w1", "w1", "w2"
	n.ID, later.ID, other.ID = "n1", "n2", "n3"
	later.Sent = n.Sent.Add(time.Second)
	for _, x := range []booking.Note{later, n, other} {
		check.OK(t, a.PutNote(t.Context(), x))
	}
	check.Same(t, check.Must(b.NotesFor(t.Context(), "w1"))(t), []booking.Note{n, later})
	check.OK(t, b.DropNote(t.Context(), n.ID))
	check.OK(t, b.DropNote(t.Context(), n.ID))
	if check.Must(a.NoteWaits(t.Context(), n.ID))(t) || !check.Must(a.NoteWaits(t.Context(), later.ID))(t) {
		t.Error("the sender does not see which note was taken")
	}
	check.Same(t, check.Must(b.NotesFor(t.Context(), "w1"))(t), []booking.Note{later})
}
