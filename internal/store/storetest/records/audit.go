package records

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/store"
	"frontdesk.dev/frontdesk/internal/store/storetest/check"
)

func auditAppend(t *testing.T, a, b *store.DB) {
	ctx := t.Context()
	late, early := check.Writer(0xf00), check.Writer(0x1)
	rows := []audit.Row{late.Row(audit.KindEvent, ""), late.Row(audit.KindIntent, "")}
	check.OK(t, a.Append(ctx, nil))
	check.OK(t, a.Append(ctx, rows[:1]))
	check.OK(t, a.Append(ctx, rows[1:]))
	var long []audit.Row
	for range 300 {
		long = append(long, early.Row(audit.KindIntent, ""))
	}
	long = append(long, early.Row(audit.KindOutcome, rows[1].Call))
	check.OK(t, a.Append(ctx, long))
	check.Same(t, check.Log(t, b), append(long, rows...)) // by writer, then by number

	check.Same(t, check.Must(b.Intent(ctx, rows[1].Call))(t), rows[1])
	for _, id := range []audit.CallID{"", "x", ".", "0000000000000f00.", "0000000000000f00.1", "0000000000000f00.3", "0000000000000f00.02", "0000000000000f00.+2", "0000000000000F00.2", "0000000000000f00.-2"} {
		_, err := b.Intent(ctx, id)
		check.WantKind(t, err, fault.NotFound)
	}
	stop := fmt.Errorf("enough")
	n := 0
	if err := b.Chain(ctx, nil, func(audit.Row) error { n++; return stop }); err != stop || n != 1 {
		t.Errorf("a look that was broken off went on for %d rows, and ended with %v", n, err)
	}
}

func auditConflicts(t *testing.T, a, b *store.DB) {
	ctx := t.Context()
	c := check.Writer(7)
	first := []audit.Row{c.Row(audit.KindIntent, ""), c.Row(audit.KindIntent, "")}
	check.OK(t, a.Append(ctx, first))
	second := []audit.Row{c.Row(audit.KindOutcome, first[0].Call), c.Row(audit.KindOutcome, first[0].Call), c.Row(audit.KindIntent, "")}
	check.OK(t, b.Append(ctx, append(slices.Clone(first), second[:2]...))) // an answer was lost, so all goes again, and more
	check.OK(t, a.Append(ctx, second))
	second[1].Kind = audit.KindLate
	want := append(slices.Clone(first), second...)
	check.Same(t, check.Log(t, a), want)

	foreign := second[2]
	foreign.Hash = []byte("another")
	next := c.Row(audit.KindIntent, "")
	check.WantKind(t, a.Append(ctx, []audit.Row{next, foreign}), fault.Conflict)
	check.Same(t, check.Log(t, b), want) // nothing of a batch that fails

	next.Kind, next.Call = audit.KindOutcome, ""
	if err := a.Append(ctx, []audit.Row{next}); err == nil {
		t.Error("an outcome of nothing was taken")
	}
	odd := check.Writer(8).Row(audit.KindEvent, "")
	odd.User = "service:\x00\xff"
	check.OK(t, a.Append(ctx, []audit.Row{odd})) // one odd caller must not stop the log for all
}

// auditOneOutcome: of many replicas that end one call at once, one counts, and no chain has a gap.
func auditOneOutcome(t *testing.T, a, b *store.DB) {
	ctx := t.Context()
	opener := check.Writer(0)
	var calls []audit.CallID
	for range 5 {
		r := opener.Row(audit.KindIntent, "")
		check.OK(t, a.Append(ctx, []audit.Row{r}))
		calls = append(calls, r.Call)
	}
	check.Race(a, b, func(i int, db *store.DB) {
		c := check.Writer(i + 1)
		var rows []audit.Row
		for n := range calls {
			rows = append(rows, c.Row(audit.KindOutcome, calls[(i+n)%len(calls)]), c.Row(audit.KindIntent, ""))
		}
		if err := db.Append(ctx, rows); err != nil {
			t.Error(err)
		}
	})
	counted, last := map[audit.CallID]int{}, map[string]int64{}
	total := 0
	for _, r := range check.Log(t, b) {
		if last[r.Writer]++; r.Seq != last[r.Writer] {
			t.Fatalf("the chain of %s has %d after %d", r.Writer, r.Seq, last[r.Writer]-1)
		}
		if total++; r.Kind == audit.KindOutcome {
			counted[r.Call]++
		}
	}
	if want := len(calls) + check.Many*2*len(calls); total != want {
		t.Errorf("%d rows are in the log, want %d", total, want)
	}
	for _, c := range calls {
		if counted[c] != 1 {
			t.Errorf("%d outcomes count for one call", counted[c])
		}
		if !check.Must(b.Ended(ctx, c))(t) {
			t.Error("a call with an outcome has not ended")
		}
	}
}

func auditRows(t *testing.T, a, b *store.DB) {
	ctx := t.Context()
	c, d := check.Writer(0xc), check.Writer(0xd)
	var rows []audit.Row
	add := func(w *check.Chain, k audit.Kind, call audit.CallID, user identity.UserID, tenant identity.Tenant) audit.Row {
		r := w.Row(k, call)
		r.User, r.Tenant, r.Time = user, tenant, check.Day.Add(time.Duration(len(rows))*time.Minute)
		rows = append(rows, r)
		check.OK(t, a.Append(ctx, []audit.Row{r}))
		return r
	}
	r0 := add(c, audit.KindIntent, "", "alice", check.Ours)
	r1 := add(d, audit.KindEvent, "", "alice", check.Ours)
	add(d, audit.KindIntent, "", "alice", check.Theirs)
	r3 := add(d, audit.KindIntent, "", "bob", check.Ours)
	r4 := add(d, audit.KindOutcome, r0.Call, "alice", check.Ours)
	add(c, audit.KindOutcome, r0.Call, "alice", check.Ours) // late
	r6 := add(c, audit.KindIntent, "", "alice", check.Ours)
	cases := []struct {
		name string
		q    audit.Query
		want []audit.Row
	}{
		{"of one", audit.Query{User: "alice"}, []audit.Row{r6, r1, r0, r4}},
		{"of all", audit.Query{}, []audit.Row{r6, r3, r1, r0, r4}},
		{"the newest", audit.Query{Limit: 2}, []audit.Row{r6, r3}},
		{"the next page", audit.Query{Limit: 2, Before: check.Position(r3)}, []audit.Row{r1, r0, r4}},
		{"before an outcome", audit.Query{Before: check.Position(r4)}, nil},
		{"before an event", audit.Query{User: "alice", Before: check.Position(r1)}, []audit.Row{r0, r4}},
		{"since", audit.Query{Since: r1.Time}, []audit.Row{r6, r3, r1}},
		{"of nobody", audit.Query{User: "carol"}, nil},
	}
	look := func(t *testing.T) {
		for _, k := range cases {
			k.q.Tenant = check.Ours
			t.Run(k.name, func(t *testing.T) { check.Same(t, check.Must(b.Rows(ctx, k.q))(t), k.want) })
		}
	}
	t.Run("before they are indexed", look)
	check.OK(t, a.IndexActs(ctx))
	check.OK(t, b.IndexActs(ctx))
	t.Run("after", look)
	r7 := add(d, audit.KindEvent, "", "alice", check.Ours)
	check.Same(t, check.Must(b.Rows(ctx, audit.Query{Tenant: check.Ours, Limit: 2}))(t), []audit.Row{r7, r6})
	check.Race(a, b, func(_ int, db *store.DB) {
		if err := db.IndexActs(ctx); err != nil {
			t.Error(err)
		}
	})
	check.Same(t, check.Must(b.Rows(ctx, audit.Query{Tenant: check.Ours, User: "alice"}))(t), []audit.Row{r7, r6, r1, r0, r4})
	_, err := b.Rows(ctx, audit.Query{Tenant: check.Theirs, Before: check.Position(r6)})
	check.WantKind(t, err, fault.NotFound)
}

// auditPages reads a log of many writers page by page, for each user and for all, in every state of the index, against the
// same log sorted here.
func auditPages(t *testing.T, a, b *store.DB) {
	ctx := t.Context()
	rnd := rand.New(rand.NewPCG(1, 2))
	chains := []*check.Chain{check.Writer(1), check.Writer(2), check.Writer(3)}
	users := []identity.UserID{"alice", "bob", "carol", ""}
	var acts []audit.Row
	grow := func(n int) {
		for range n {
			var rows []audit.Row
			c := chains[rnd.IntN(len(chains))]
			for range 1 + rnd.IntN(40) {
				r := c.Row([]audit.Kind{audit.KindIntent, audit.KindEvent}[rnd.IntN(2)], "")
				r.User, r.Time = users[rnd.IntN(len(users))], check.Day.Add(time.Duration(rnd.IntN(5*3600))*time.Second)
				rows = append(rows, r)
			}
			check.OK(t, a.Append(ctx, rows))
			acts = append(acts, rows...)
		}
		slices.SortFunc(acts, func(x, y audit.Row) int {
			return cmp.Or(y.Time.Compare(x.Time), cmp.Compare(y.Writer, x.Writer), cmp.Compare(y.Seq, x.Seq))
		})
	}
	look := func(user identity.UserID) {
		since := check.Day.Add(time.Duration(rnd.IntN(3600)) * time.Second)
		var want, got []audit.CallID
		for _, r := range acts {
			if (user == "" || r.User == user) && !r.Time.Before(since) {
				want = append(want, check.Position(r))
			}
		}
		q := audit.Query{Tenant: check.Ours, User: user, Since: since, Limit: 200 + rnd.IntN(500)}
		for len(got) <= len(want) {
			page := check.Must(b.Rows(ctx, q))(t)
			for _, r := range page {
				got = append(got, check.Position(r))
			}
			if len(page) < q.Limit {
				break
			}
			q.Before = got[len(got)-1]
		}
		check.Same(t, got, want)
	}
	for range 2 {
		grow(60)
		for _, u := range users {
			look(u)
		}
		check.OK(t, b.IndexActs(ctx))
		for _, u := range users {
			look(u)
		}
	}
}

// auditVerified: two replicas' logs end each call both, so one of the two comes late; the log verifies all the same.
func auditVerified(t *testing.T, a, b *store.DB) {
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var logs []*audit.Log
	var running sync.WaitGroup
	for _, db := range []*store.DB{a, b} {
		l := check.Must(audit.New(db, db, time.Now, slog.New(slog.DiscardHandler)))(t)
		logs = append(logs, l)
		running.Go(func() {
			if err := l.Run(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	check.Race(a, b, func(i int, _ *store.DB) {
		r := audit.Record{Time: time.Now(), Tenant: check.Ours, User: "alice", Action: "call"}
		id, err := logs[i%2].Begin(ctx, r)
		if err != nil {
			t.Error(err)
			return
		}
		for _, l := range logs {
			l.End(ctx, id, r)
		}
	})
	stop()
	running.Wait()
	kinds := map[audit.Kind]int{}
	for _, r := range check.Log(t, b) {
		kinds[r.Kind]++
	}
	check.Same(t, kinds, map[audit.Kind]int{audit.KindIntent: check.Many, audit.KindOutcome: check.Many, audit.KindLate: check.Many})
	if r := audit.Verify(t.Context(), a, audit.Against{Now: time.Now()}); r.Verdict != audit.Whole || r.Open != 0 || r.Rows != 3*check.Many {
		t.Errorf("a whole log is said to be %+v", r)
	}
}

func auditUnfinished(t *testing.T, a, b *store.DB) {
	ctx := t.Context()
	dead, alive, silent := check.Writer(1), check.Writer(2), check.Writer(3)
	open := dead.Row(audit.KindIntent, "")
	done := dead.Row(audit.KindIntent, "")
	running := alive.Row(audit.KindIntent, "")
	unsaid := silent.Row(audit.KindIntent, "") // died before its first beat
	check.OK(t, a.Beat(ctx, dead.Writer, check.Day))
	check.OK(t, a.Beat(ctx, alive.Writer, check.Day))
	for _, rows := range [][]audit.Row{{open, done, dead.Row(audit.KindEvent, "")}, {running, alive.Row(audit.KindOutcome, done.Call)}, {unsaid}} {
		check.OK(t, a.Append(ctx, rows))
	}
	now := check.Day.Add(time.Hour)
	check.OK(t, b.Beat(ctx, alive.Writer, now))
	find := func(limit int) []audit.Row {
		return check.Must(b.Unfinished(ctx, now.Add(-time.Minute), nil, limit))(t)
	}
	byID := func(l []audit.Row) []audit.Row {
		slices.SortFunc(l, func(x, y audit.Row) int { return strings.Compare(string(x.Call), string(y.Call)) })
		return l
	}
	check.Same(t, byID(find(10)), []audit.Row{open, unsaid})
	if l := find(1); len(l) != 1 {
		t.Errorf("a limit of 1 gave %d", len(l))
	}
	if check.Must(a.Ended(ctx, open.Call))(t) {
		t.Error("a call without outcome has ended")
	}
	check.OK(t, a.Append(ctx, []audit.Row{alive.Row(audit.KindOutcome, open.Call), alive.Row(audit.KindOutcome, unsaid.Call)}))
	check.Same(t, find(10), nil)
	again := dead.Row(audit.KindIntent, "") // it was only asleep
	check.OK(t, a.Append(ctx, []audit.Row{again}))
	check.Same(t, find(10), []audit.Row{again})
}

// auditLongChain: what a long-lived writer left at either end is found at once, what it left in between in the end.
func auditLongChain(t *testing.T, a, b *store.DB) {
	ctx := t.Context()
	c, sweeper := check.Writer(1), check.Writer(2)
	var left []audit.Row
	for i := range 3 {
		var next []audit.Row
		if i > 0 {
			next = append(next, c.Row(audit.KindEvent, ""))
			c.Seq += 80_000 // long is what the numbers say
		}
		open, done := c.Row(audit.KindIntent, ""), c.Row(audit.KindIntent, "")
		check.OK(t, a.Append(ctx, append(next, open, done, c.Row(audit.KindOutcome, done.Call))))
		left = append(left, open)
	}
	left[1], left[2] = left[2], left[1]
	var found []audit.Row
	for n := range 10 {
		l := check.Must(b.Unfinished(ctx, check.Day.Add(time.Hour), nil, 100))(t)
		if n == 0 && len(l) != 2 {
			t.Errorf("%d were found at once, want the first and the last", len(l))
		}
		for _, r := range l {
			found = append(found, r)
			check.OK(t, a.Append(ctx, []audit.Row{sweeper.Row(audit.KindOutcome, r.Call)}))
		}
		check.OK(t, a.Beat(ctx, sweeper.Writer, check.Day.Add(2*time.Hour)))
	}
	check.Same(t, found, left)
}

// checkpoints: of many that are added under one number one counts, and they come back in order, as they were.
func checkpoints(t *testing.T, a, b *store.DB) {
	ctx := t.Context()
	_, err := a.LastCheckpoint(ctx)
	check.WantKind(t, err, fault.NotFound)
	made := func(n int64) audit.StoredCheckpoint {
		return audit.StoredCheckpoint{Number: n, Time: check.Day.Add(time.Duration(n) * time.Second), Signed: fmt.Appendf(nil, "note %d\n", n), Edge: []byte{byte(n), 0}}
	}
	var want []audit.StoredCheckpoint
	for n := range int64(3) {
		var won atomic.Int64
		check.Race(a, b, func(_ int, db *store.DB) {
			switch err := db.AddCheckpoint(ctx, made(n+1)); fault.KindOf(err) {
			case fault.Conflict:
			default:
				check.OK(t, err)
				won.Add(1)
			}
		})
		if won.Load() != 1 {
			t.Errorf("%d were added under the number %d", won.Load(), n+1)
		}
		want = append(want, made(n+1))
		check.Same(t, check.Must(b.LastCheckpoint(ctx))(t), made(n+1))
	}
	for beyond := range int64(4) {
		var got []audit.StoredCheckpoint
		check.OK(t, b.Checkpoints(ctx, beyond, func(c audit.StoredCheckpoint) error { got = append(got, c); return nil }))
		check.Same(t, got, append([]audit.StoredCheckpoint(nil), want[beyond:]...))
	}
	enough := fmt.Errorf("enough")
	if err := a.Checkpoints(ctx, 0, func(audit.StoredCheckpoint) error { return enough }); err != enough {
		t.Errorf("broken off with %v", err)
	}
}

// auditFrom: a look that begins after a position finds what is beyond it, of chains that it does not name all.
func auditFrom(t *testing.T, a, b *store.DB) {
	one, two := check.Writer(1), check.Writer(2)
	var rows []audit.Row
	for range 3 {
		rows = append(rows, one.Row(audit.KindEvent, ""))
	}
	rows = append(rows, two.Row(audit.KindEvent, ""))
	check.OK(t, a.Append(t.Context(), rows))
	for after, want := range [][]audit.Row{rows, rows[1:], rows[2:], rows[3:], rows[3:]} {
		var got []audit.Row
		check.OK(t, b.Chain(t.Context(), map[string]int64{one.Writer: int64(after)}, func(r audit.Row) error { got = append(got, r); return nil }))
		check.Same(t, got, want)
	}
}
