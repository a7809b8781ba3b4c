package audit_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/internal/kit/fault"
)

// memory is a Store and Sweeps that can be told to fail: before a batch is kept, or after, which the writer cannot tell apart.
type memory struct {
	mu    sync.Mutex
	rows  []audit.Row
	beats map[string]time.Time
	fail  func(n int) (keep bool, err error) // by number of the append, from 1
	n     int
}

func (m *memory) Append(_ context.Context, rows []audit.Row) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.n++
	if m.fail != nil {
		keep, err := m.fail(m.n)
		if err != nil {
			if keep {
				m.rows = append(m.rows, rows...)
			}
			return err
		}
	}
	if first := rows[0]; first.Seq > 1 && !m.has(first.Writer, first.Seq-1) {
		return audit.ErrCut
	}
	m.rows = append(m.rows, rows...)
	return nil
}

func (m *memory) Intent(_ context.Context, id audit.CallID) (audit.Row, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range m.rows {
		if r.Kind == audit.KindIntent && r.Call == id {
			return r, nil
		}
	}
	return audit.Row{}, fault.New(fault.NotFound, "no such call", nil)
}

func (m *memory) Ended(_ context.Context, id audit.CallID) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.ContainsFunc(m.rows, func(r audit.Row) bool { return r.Kind == audit.KindOutcome && r.Call == id }), nil
}

func (m *memory) Rows(context.Context, audit.Query) ([]audit.Row, error) { return nil, nil }

func (m *memory) Chain(_ context.Context, after map[string]int64, f func(audit.Row) error) error {
	m.mu.Lock()
	rows := slices.Clone(m.rows)
	m.mu.Unlock()
	slices.SortStableFunc(rows, func(a, b audit.Row) int {
		if c := bytes.Compare([]byte(a.Writer), []byte(b.Writer)); c != 0 {
			return c
		}
		return int(a.Seq - b.Seq)
	})
	for _, r := range rows {
		if r.Seq <= after[r.Writer] {
			continue
		}
		if err := f(r); err != nil {
			return err
		}
	}
	return nil
}

func (m *memory) Beat(_ context.Context, w string, now time.Time) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.beats == nil {
		m.beats = map[string]time.Time{}
	}
	m.beats[w] = now
	return nil
}

func (m *memory) There(_ context.Context, id audit.CallID) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	writer, seq, _ := strings.Cut(string(id), ".")
	n, err := strconv.ParseInt(seq, 16, 64)
	return m.has(writer, n), err
}

// has is called with mu held.
func (m *memory) has(writer string, seq int64) bool {
	return slices.ContainsFunc(m.rows, func(r audit.Row) bool { return r.Writer == writer && r.Seq == seq })
}

func (m *memory) Unfinished(_ context.Context, deadBefore time.Time, among []string, limit int) ([]audit.Row, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	ended := map[audit.CallID]bool{}
	for _, r := range m.rows {
		if r.Kind == audit.KindOutcome {
			ended[r.Call] = true
		}
	}
	var l []audit.Row
	for _, r := range m.rows {
		if r.Kind == audit.KindIntent && !ended[r.Call] && (m.beats[r.Writer].Before(deadBefore) || slices.Contains(among, r.Writer)) && len(l) < limit {
			l = append(l, r)
		}
	}
	return l, nil
}

var quiet = slog.New(slog.DiscardHandler)

// start runs a log until the test ends; stop ends it earlier and waits.
func start(t testing.TB, m *memory) (l *audit.Log, stop func()) {
	t.Helper()
	l, err := audit.New(m, m, time.Now, quiet)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- l.Run(ctx) }()
	stop = sync.OnceFunc(func() { cancel(); <-ended })
	t.Cleanup(stop)
	return l, stop
}

func intent(n int) audit.Record {
	return audit.Record{Time: time.Now(), Tenant: "default", User: "u", Action: "call", Server: "issues", Method: "tools/call", Tool: fmt.Sprint("tool-", n), Decision: "allow", Policies: []string{"a", "b"}}
}

func TestEveryIntentGetsOneOutcomeInAWholeChain(t *testing.T) {
	m := &memory{}
	l, stop := start(t, m)
	var wg sync.WaitGroup
	for i := range 256 {
		wg.Go(func() {
			id, err := l.Begin(t.Context(), intent(i))
			if err != nil {
				t.Error(err)
				return
			}
			o := intent(i)
			o.Result = audit.ResultOK
			l.End(t.Context(), id, o)
		})
	}
	wg.Wait()
	stop()
	if r := audit.Verify(t.Context(), m, audit.Against{Now: time.Now()}); r.Verdict != audit.Whole || r.Rows != 512 || r.Open != 0 {
		t.Errorf("got %+v", r)
	}
}

func TestAppendFailures(t *testing.T) {
	// The n-th append fails, with its rows on the disk or not: what was acknowledged is there, what was refused has no
	// effect, and the chains verify.
	for n := 1; n <= 8; n++ {
		for _, keep := range []bool{false, true} {
			m := &memory{fail: func(i int) (bool, error) {
				if i == n {
					return keep, errors.New("disk")
				}
				return false, nil
			}}
			l, stop := start(t, m)
			var acknowledged []audit.CallID
			for i := range 10 {
				id, err := l.Begin(t.Context(), intent(i))
				if err != nil {
					continue
				}
				acknowledged = append(acknowledged, id)
				l.End(t.Context(), id, intent(i))
			}
			stop()
			if len(acknowledged) < 8 {
				t.Errorf("n %d: one failure refused %d intents", n, 10-len(acknowledged))
			}
			for _, id := range acknowledged {
				if ended, _ := m.Ended(t.Context(), id); !ended {
					t.Errorf("n %d keep %v: intent %s has no outcome", n, keep, id)
				}
			}
			if r := audit.Verify(t.Context(), m, audit.Against{Now: time.Now()}); r.Verdict != audit.Whole {
				t.Errorf("n %d keep %v: %+v", n, keep, r)
			}
		}
	}
}

func TestADeadProcessLeavesUnknown(t *testing.T) {
	m := &memory{}
	l, stop := start(t, m)
	id, err := l.Begin(t.Context(), intent(1))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Unfinished(t.Context(), id); fault.KindOf(err) != fault.NotFound {
		t.Errorf("a process asks the log about its own call: %v", err)
	}
	other, _ := start(t, m)
	if r, err := other.Unfinished(t.Context(), id); err != nil || r.Tool != "tool-1" {
		t.Errorf("got %+v, %v", r, err)
	}
	stop() // without an outcome
	m.mu.Lock()
	for w := range m.beats {
		m.beats[w] = time.Now().Add(-time.Hour)
	}
	m.mu.Unlock()
	l2, stop2 := start(t, m)
	if err := l2.Event(t.Context(), intent(2)); err != nil {
		t.Fatal(err)
	}
	for i := 0; ; i++ {
		if ended, _ := m.Ended(t.Context(), id); ended {
			break
		}
		if i > 1e6 {
			t.Fatal("the call stays open")
		}
		if err := l2.Event(t.Context(), intent(3)); err != nil {
			t.Fatal(err)
		}
	}
	stop2()
	if _, err := l2.Unfinished(t.Context(), id); fault.KindOf(err) != fault.NotFound {
		t.Errorf("got %v", err)
	}
	if r := audit.Verify(t.Context(), m, audit.Against{Now: time.Now()}); r.Verdict != audit.Whole {
		t.Errorf("got %+v", r)
	}
}

func TestVerifyFindsEveryChange(t *testing.T) {
	m := &memory{}
	l, stop := start(t, m)
	for i := range 5 {
		id, err := l.Begin(t.Context(), intent(i))
		if err != nil {
			t.Fatal(err)
		}
		l.End(t.Context(), id, intent(i))
	}
	stop()
	whole := slices.Clone(m.rows)
	check := func(name string, want audit.Verdict, rows []audit.Row) {
		t.Helper()
		if r := audit.Verify(t.Context(), &memory{rows: rows}, audit.Against{Now: time.Now()}); r.Verdict != want || want != audit.Whole && (r.Where == "" || r.What == "") {
			t.Errorf("%s: got %+v, want %d", name, r, want)
		}
	}
	check("untouched", audit.Whole, whole)
	for i := range whole {
		for b := range whole[i].Record {
			rows := slices.Clone(whole)
			rows[i].Record = slices.Clone(rows[i].Record)
			rows[i].Record[b] ^= 1
			check(fmt.Sprintf("row %d byte %d", i, b), audit.Altered, rows)
		}
		rows := slices.Clone(whole)
		rows[i].User = "somebody"
		check("another user in the column", audit.Altered, rows)
		rows = slices.Clone(whole)
		rows[i].Hash = bytes.Repeat([]byte{1}, 32)
		check("another hash", audit.Altered, rows)
		if i < len(whole)-1 {
			check("a row less", audit.Altered, slices.Delete(slices.Clone(whole), i, i+1))
		}
		check("a row twice", audit.Forked, append(slices.Clone(whole), whole[i]))
	}
	if r := audit.Verify(t.Context(), &memory{rows: whole[:1]}, audit.Against{Now: time.Now().Add(24 * time.Hour)}); r.Verdict != audit.Unmatched {
		t.Errorf("an intent without outcome for a day: got %+v", r)
	}
}

func FuzzRecord(f *testing.F) {
	f.Add("tool", "detail", "client")
	f.Add("\x00\x80", "\a\xff\U0001f600", "") // no UTF-8, and what Go escapes as JSON does not
	f.Fuzz(func(t *testing.T, tool, detail, client string) {
		m := &memory{}
		l, stop := start(t, m)
		r := intent(0)
		r.Tool, r.Detail = tool, detail
		if err := l.Event(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		stop()
		var back audit.Record
		if err := json.Unmarshal(m.rows[0].Record, &back); err != nil {
			t.Fatalf("%v: %q", err, m.rows[0].Record)
		}
		if utf8.ValidString(tool) && json.Valid([]byte(`"`+tool+`"`)) && back.Tool != tool {
			t.Errorf("got %q, want %q", back.Tool, tool)
		}
		std, err := json.Marshal(back)
		if err != nil {
			t.Fatal(err)
		}
		var a, b map[string]any
		if json.Unmarshal(std, &a) != nil || json.Unmarshal(m.rows[0].Record, &b) != nil || !cmp.Equal(a, b) {
			t.Errorf("the record has another form than encoding/json gives it: %s", cmp.Diff(a, b))
		}
	})
}

func BenchmarkBegin(b *testing.B) {
	for _, n := range []int{1, 32, 256} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			l, stop := start(b, &memory{})
			b.SetParallelism(n)
			b.ReportAllocs()
			b.RunParallel(func(p *testing.PB) {
				for p.Next() {
					id, err := l.Begin(context.Background(), intent(1))
					if err != nil {
						b.Error(err)
					}
					l.End(context.Background(), id, intent(1))
				}
			})
			b.StopTimer()
			stop()
		})
	}
}
