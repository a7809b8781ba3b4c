package storetest

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
)

// chain makes one writer's rows as the audit room does.
type chain struct {
	writer string
	seq    int64
}

func (c *chain) row(k audit.Kind, call audit.CallID) audit.Row {
	c.seq++
	id := position(audit.Row{Writer: c.writer, Seq: c.seq})
	if k == audit.KindIntent {
		call = id
	}
	return audit.Row{Writer: c.writer, Seq: c.seq, Tenant: ours, User: "alice", Kind: k, Call: call, Time: day.Add(time.Duration(c.seq) * time.Millisecond),
		Record: []byte(`{"id":"` + id + "\"}"), Hash: []byte("hash of " + id)}
}

func position(r audit.Row) audit.CallID { return audit.CallID(fmt.Sprintf("%s.%x", r.Writer, r.Seq)) }

func writer(n int) *chain { return &chain{writer: fmt.Sprintf("%016x", n)} }

// log reads the whole log.
func log(t *testing.T, db *store.DB) []audit.Row {
	t.Helper()
	var all []audit.Row
	ok(t, db.Chain(t.Context(), nil, func(r audit.Row) error {
		all = append(all, r)
		return nil
	}))
	return all
}

func auditAppend(t *testing.T, a, b *store.DB) {
	ctx := t.Context()
	late, early := writer(0xf00), writer(0x1)
	rows := []audit.Row{late.row(audit.KindEvent, ""), late.row(audit.KindIntent, "")}
	ok(t, a.Append(ctx, nil))
	ok(t, a.Append(ctx, rows[:1]))
	ok(t, a.Append(ctx, rows[1:]))
	var long []audit.Row
	for range 300 {
		long = append(long, early.row(audit.KindIntent, ""))
	}
	long = append(long, early.row(audit.KindOutcome, rows[1].Call))
	ok(t, a.Append(ctx, long))
	same(t, log(t, b), append(long, rows...)) // by writer, then by number

	same(t, must(b.Intent(ctx, rows[1].Call))(t), rows[1])
	for _, id := range []audit.CallID{"", "x", ".", "0000000000000f00.", "0000000000000f00.1", "0000000000000f00.3", "0000000000000f00.02", "0000000000000f00.+2", "0000000000000F00.2", "0000000000000f00.-2"} {
		_, err := b.Intent(ctx, id)
		wantKind(t, err, fault.NotFound)
	}
	stop := fmt.Errorf("enough")
	n := 0
	if err := b.Chain(ctx, nil, func(audit.Row) error { n++; return stop }); err != stop || n != 1 {
		t.Errorf("a look that was broken off went on for %d rows, and ended with %v", n, err)
	}
}

func auditConflicts(t *testing.T, a, b *store.DB) {
	ctx := t.Context()
	c := writer(7)
	first := []audit.Row{c.row(audit.KindIntent, ""), c.row(audit.KindIntent, "")}
	ok(t, a.Append(ctx, first))
	second := []audit.Row{c.row(audit.KindOutcome, first[0].Call), c.row(audit.KindOutcome, first[0].Call), c.row(audit.KindIntent, "")}
	ok(t, b.Append(ctx, append(slices.Clone(first), second[:2]...))) // an answer was lost, so all goes again, and more
	ok(t, a.Append(ctx, second))
	second[1].Kind = audit.KindLate
	want := append(slices.Clone(first), second...)
	same(t, log(t, a), want)

	foreign := second[2]
	foreign.Hash = []byte("another")
	next := c.row(audit.KindIntent, "")
	wantKind(t, a.Append(ctx, []audit.Row{next, foreign}), fault.Conflict)
	same(t, log(t, b), want) // nothing of a batch that fails

	next.Kind, next.Call = audit.KindOutcome, ""
	if err := a.Append(ctx, []audit.Row{next}); err == nil {
		t.Error("an outcome of nothing was taken")
	}
	odd := writer(8).row(audit.KindEvent, "")
	odd.User = "service:\x00\xff"
	ok(t, a.Append(ctx, []audit.Row{odd})) // one odd caller must not stop the log for all
}

// auditOneOutcome: of many replicas that end one call at once, one counts, and no chain has a gap.
func auditOneOutcome(t *testing.T, a, b *store.DB) {
	ctx := t.Context()
	opener := writer(0)
	var calls []audit.CallID
	for range 5 {
		r := opener.row(audit.KindIntent, "")
		ok(t, a.Append(ctx, []audit.Row{r}))
		calls = append(calls, r.Call)
	}
	race(a, b, func(i int, db *store.DB) {
		c := writer(i + 1)
		var rows []audit.Row
		for n := range calls {
			rows = append(rows, c.row(audit.KindOutcome, calls[(i+n)%len(calls)]), c.row(audit.KindIntent, ""))
		}
		if err := db.Append(ctx, rows); err != nil {
			t.Error(err)
		}
	})
	counted, last := map[audit.CallID]int{}, map[string]int64{}
	total := 0
	for _, r := range log(t, b) {
		if last[r.Writer]++; r.Seq != last[r.Writer] {
			t.Fatalf("the chain of %s has %d after %d", r.Writer, r.Seq, last[r.Writer]-1)
		}
		if total++; r.Kind == audit.KindOutcome {
			counted[r.Call]++
		}
	}
	if want := len(calls) + many*2*len(calls); total != want {
		t.Errorf("%d rows are in the log, want %d", total, want)
	}
	for _, c := range calls {
		if counted[c] != 1 {
			t.Errorf("%d outcomes count for one call", counted[c])
		}
		if !must(b.Ended(ctx, c))(t) {
			t.Error("a call with an outcome has not ended")
		}
	}
}

func auditRows(t *testing.T, a, b *store.DB) {
	ctx := t.Context()
	c, d := writer(0xc), writer(0xd)
	var rows []audit.Row
	add := func(w *chain, k audit.Kind, call audit.CallID, user identity.UserID, tenant identity.Tenant) audit.Row {
		r := w.row(k, call)
		r.User, r.Tenant, r.Time = user, tenant, day.Add(time.Duration(len(rows))*time.Minute)
		rows = append(rows, r)
		ok(t, a.Append(ctx, []audit.Row{r}))
		return r
	}
	r0 := add(c, audit.KindIntent, "", "alice", ours)
	r1 := add(d, audit.KindEvent, "", "alice", ours)
	add(d, audit.KindIntent, "", "alice", theirs)
	r3 := add(d, audit.KindIntent, "", "bob", ours)
	r4 := add(d, audit.KindOutcome, r0.Call, "alice", ours)
	add(c, audit.KindOutcome, r0.Call, "alice", ours) // late
	r6 := add(c, audit.KindIntent, "", "alice", ours)
	cases := []struct {
		name string
		q    audit.Query
		want []audit.Row
	}{
		{"of one", audit.Query{User: "alice"}, []audit.Row{r6, r1, r0, r4}},
		{"of all", audit.Query{}, []audit.Row{r6, r3, r1, r0, r4}},
		{"the newest", audit.Query{Limit: 2}, []audit.Row{r6, r3}},
		{"the next page", audit.Query{Limit: 2, Before: position(r3)}, []audit.Row{r1, r0, r4}},
		{"before an outcome", audit.Query{Before: position(r4)}, nil},
		{"before an event", audit.Query{User: "alice", Before: position(r1)}, []audit.Row{r0, r4}},
		{"since", audit.Query{Since: r1.Time}, []audit.Row{r6, r3, r1}},
		{"of nobody", audit.Query{User: "carol"}, nil},
	}
	look := func(t *testing.T) {
		for _, k := range cases {
			k.q.Tenant = ours
			t.Run(k.name, func(t *testing.T) { same(t, must(b.Rows(ctx, k.q))(t), k.want) })
		}
	}
	t.Run("before they are indexed", look)
	ok(t, a.IndexActs(ctx))
	ok(t, b.IndexActs(ctx))
	t.Run("after", look)
	r7 := add(d, audit.KindEvent, "", "alice", ours)
	same(t, must(b.Rows(ctx, audit.Query{Tenant: ours, Limit: 2}))(t), []audit.Row{r7, r6})
	race(a, b, func(_ int, db *store.DB) {
		if err := db.IndexActs(ctx); err != nil {
			t.Error(err)
		}
	})
	same(t, must(b.Rows(ctx, audit.Query{Tenant: ours, User: "alice"}))(t), []audit.Row{r7, r6, r1, r0, r4})
	_, err := b.Rows(ctx, audit.Query{Tenant: theirs, Before: position(r6)})
	wantKind(t, err, fault.NotFound)
}

// auditPages reads a log of many writers page by page, for each user and for all, in every state of the index, against the
// same log sorted here.
func auditPages(t *testing.T, a, b *store.DB) {
	ctx := t.Context()
	rnd := rand.New(rand.NewPCG(1, 2))
	chains := []*chain{writer(1), writer(2), writer(3)}
	users := []identity.UserID{"alice", "bob", "carol", ""}
	var acts []audit.Row
	grow := func(n int) {
		for range n {
			var rows []audit.Row
			c := chains[rnd.IntN(len(chains))]
			for range 1 + rnd.IntN(40) {
				r := c.row([]audit.Kind{audit.KindIntent, audit.KindEvent}[rnd.IntN(2)], "")
				r.User, r.Time = users[rnd.IntN(len(users))], day.Add(time.Duration(rnd.IntN(5*3600))*time.Second)
				rows = append(rows, r)
			}
			ok(t, a.Append(ctx, rows))
			acts = append(acts, rows...)
		}
		slices.SortFunc(acts, func(x, y audit.Row) int {
			return cmp.Or(y.Time.Compare(x.Time), cmp.Compare(y.Writer, x.Writer), cmp.Compare(y.Seq, x.Seq))
		})
	}
	look := func(user identity.UserID) {
		since := day.Add(time.Duration(rnd.IntN(3600)) * time.Second)
		var want, got []audit.CallID
		for _, r := range acts {
			if (user == "" || r.User == user) && !r.Time.Before(since) {
				want = append(want, position(r))
			}
		}
		q := audit.Query{Tenant: ours, User: user, Since: since, Limit: 200 + rnd.IntN(500)}
		for len(got) <= len(want) {
			page := must(b.Rows(ctx, q))(t)
			for _, r := range page {
				got = append(got, position(r))
			}
			if len(page) < q.Limit {
				break
			}
			q.Before = got[len(got)-1]
		}
		same(t, got, want)
	}
	for range 2 {
		grow(60)
		for _, u := range users {
			look(u)
		}
		ok(t, b.IndexActs(ctx))
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
		l := must(audit.New(db, db, time.Now, slog.New(slog.DiscardHandler)))(t)
		logs = append(logs, l)
		running.Go(func() {
			if err := l.Run(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	race(a, b, func(i int, _ *store.DB) {
		r := audit.Record{Time: time.Now(), Tenant: ours, User: "alice", Action: "call"}
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
	for _, r := range log(t, b) {
		kinds[r.Kind]++
	}
	same(t, kinds, map[audit.Kind]int{audit.KindIntent: many, audit.KindOutcome: many, audit.KindLate: many})
	if r := audit.Verify(t.Context(), a, audit.Against{Now: time.Now()}); r.Verdict != audit.Whole || r.Open != 0 || r.Rows != 3*many {
		t.Errorf("a whole log is said to be %+v", r)
	}
}

func auditUnfinished(t *testing.T, a, b *store.DB) {
	ctx := t.Context()
	dead, alive, silent := writer(1), writer(2), writer(3)
	open := dead.row(audit.KindIntent, "")
	done := dead.row(audit.KindIntent, "")
	running := alive.row(audit.KindIntent, "")
	unsaid := silent.row(audit.KindIntent, "") // died before its first beat
	ok(t, a.Beat(ctx, dead.writer, day))
	ok(t, a.Beat(ctx, alive.writer, day))
	for _, rows := range [][]audit.Row{{open, done, dead.row(audit.KindEvent, "")}, {running, alive.row(audit.KindOutcome, done.Call)}, {unsaid}} {
		ok(t, a.Append(ctx, rows))
	}
	now := day.Add(time.Hour)
	ok(t, b.Beat(ctx, alive.writer, now))
	find := func(limit int) []audit.Row {
		return must(b.Unfinished(ctx, now.Add(-time.Minute), nil, limit))(t)
	}
	byID := func(l []audit.Row) []audit.Row {
		slices.SortFunc(l, func(x, y audit.Row) int { return strings.Compare(string(x.Call), string(y.Call)) })
		return l
	}
	same(t, byID(find(10)), []audit.Row{open, unsaid})
	if l := find(1); len(l) != 1 {
		t.Errorf("a limit of 1 gave %d", len(l))
	}
	if must(a.Ended(ctx, open.Call))(t) {
		t.Error("a call without outcome has ended")
	}
	ok(t, a.Append(ctx, []audit.Row{alive.row(audit.KindOutcome, open.Call), alive.row(audit.KindOutcome, unsaid.Call)}))
	same(t, find(10), nil)
	again := dead.row(audit.KindIntent, "") // it was only asleep
	ok(t, a.Append(ctx, []audit.Row{again}))
	same(t, find(10), []audit.Row{again})
}

// auditLongChain: what a long-lived writer left at either end is found at once, what it left in between in the end.
func auditLongChain(t *testing.T, a, b *store.DB) {
	ctx := t.Context()
	c, sweeper := writer(1), writer(2)
	var left []audit.Row
	for i := range 3 {
		var next []audit.Row
		if i > 0 {
			next = append(next, c.row(audit.KindEvent, ""))
			c.seq += 80_000 // long is what the numbers say
		}
		open, done := c.row(audit.KindIntent, ""), c.row(audit.KindIntent, "")
		ok(t, a.Append(ctx, append(next, open, done, c.row(audit.KindOutcome, done.Call))))
		left = append(left, open)
	}
	left[1], left[2] = left[2], left[1]
	var found []audit.Row
	for n := range 10 {
		l := must(b.Unfinished(ctx, day.Add(time.Hour), nil, 100))(t)
		if n == 0 && len(l) != 2 {
			t.Errorf("%d were found at once, want the first and the last", len(l))
		}
		for _, r := range l {
			found = append(found, r)
			ok(t, a.Append(ctx, []audit.Row{sweeper.row(audit.KindOutcome, r.Call)}))
		}
		ok(t, a.Beat(ctx, sweeper.writer, day.Add(2*time.Hour)))
	}
	same(t, found, left)
}

// checkpoints: of many that are added under one number one counts, and they come back in order, as they were.
func checkpoints(t *testing.T, a, b *store.DB) {
	ctx := t.Context()
	_, err := a.LastCheckpoint(ctx)
	wantKind(t, err, fault.NotFound)
	made := func(n int64) audit.StoredCheckpoint {
		return audit.StoredCheckpoint{Number: n, Time: day.Add(time.Duration(n) * time.Second), Signed: fmt.Appendf(nil, "note %d\n", n), Edge: []byte{byte(n), 0}}
	}
	var want []audit.StoredCheckpoint
	for n := range int64(3) {
		var won atomic.Int64
		race(a, b, func(_ int, db *store.DB) {
			switch err := db.AddCheckpoint(ctx, made(n+1)); fault.KindOf(err) {
			case fault.Conflict:
			default:
				ok(t, err)
				won.Add(1)
			}
		})
		if won.Load() != 1 {
			t.Errorf("%d were added under the number %d", won.Load(), n+1)
		}
		want = append(want, made(n+1))
		same(t, must(b.LastCheckpoint(ctx))(t), made(n+1))
	}
	for beyond := range int64(4) {
		var got []audit.StoredCheckpoint
		ok(t, b.Checkpoints(ctx, beyond, func(c audit.StoredCheckpoint) error { got = append(got, c); return nil }))
		same(t, got, append([]audit.StoredCheckpoint(nil), want[beyond:]...))
	}
	enough := fmt.Errorf("enough")
	if err := a.Checkpoints(ctx, 0, func(audit.StoredCheckpoint) error { return enough }); err != enough {
		t.Errorf("broken off with %v", err)
	}
}

// auditFrom: a look that begins after a position finds what is beyond it, of chains that it does not name all.
func auditFrom(t *testing.T, a, b *store.DB) {
	one, two := writer(1), writer(2)
	var rows []audit.Row
	for range 3 {
		rows = append(rows, one.row(audit.KindEvent, ""))
	}
	rows = append(rows, two.row(audit.KindEvent, ""))
	ok(t, a.Append(t.Context(), rows))
	for after, want := range [][]audit.Row{rows, rows[1:], rows[2:], rows[3:], rows[3:]} {
		var got []audit.Row
		ok(t, b.Chain(t.Context(), map[string]int64{one.writer: int64(after)}, func(r audit.Row) error { got = append(got, r); return nil }))
		same(t, got, want)
	}
}
