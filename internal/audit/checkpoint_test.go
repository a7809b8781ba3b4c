package audit_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/internal/kit/fault"
)

// shelf is a CheckpointStore and CheckpointKeys in memory.
type shelf struct {
	mu   sync.Mutex
	l    []audit.StoredCheckpoint
	keys []audit.CheckpointKey
}

func newShelf(t testing.TB) *shelf {
	s := &shelf{}
	s.rotate(t)
	return s
}

func (s *shelf) rotate(t testing.TB) {
	t.Helper()
	secret, public, err := note.GenerateKey(rand.Reader, "desk.example.com/audit")
	if err != nil {
		t.Fatal(err)
	}
	signer, err := note.NewSigner(secret)
	if err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keys = append(s.keys, audit.CheckpointKey{Signer: signer, Public: public})
}

func (s *shelf) CheckpointKeys(context.Context) ([]audit.CheckpointKey, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.keys), nil
}

func (s *shelf) AddCheckpoint(_ context.Context, c audit.StoredCheckpoint) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if slices.ContainsFunc(s.l, func(o audit.StoredCheckpoint) bool { return o.Number == c.Number }) {
		return fault.New(fault.Conflict, "there is one", nil)
	}
	s.l = append(s.l, c)
	return nil
}

func (s *shelf) LastCheckpoint(context.Context) (audit.StoredCheckpoint, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.l) == 0 {
		return audit.StoredCheckpoint{}, fault.New(fault.NotFound, "none", nil)
	}
	return s.l[len(s.l)-1], nil
}

func (s *shelf) Checkpoints(_ context.Context, beyond int64, f func(audit.StoredCheckpoint) error) error {
	s.mu.Lock()
	l := slices.Clone(s.l)
	s.mu.Unlock()
	for _, c := range l {
		if c.Number > beyond {
			if err := f(c); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *shelf) public() (l []string) {
	for _, k := range s.keys {
		l = append(l, k.Public)
	}
	return l
}

// run lets a process write n acts, with checkpoints at its start and stop, and ends it.
func run(t testing.TB, m *memory, s *shelf, n int, change func(*audit.Checkpoints)) {
	t.Helper()
	l, stop := start(t, m)
	k := &audit.Checkpoints{Log: l, Store: s, Keys: s, Slog: quiet, Now: time.Now}
	if change != nil {
		change(k)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- k.Run(ctx) }()
	for i := range n {
		id, err := l.Begin(t.Context(), intent(i))
		if err != nil {
			t.Fatal(err)
		}
		l.End(t.Context(), id, intent(i))
	}
	for begun := false; !begun; begun = at(k) > 0 {
		time.Sleep(time.Millisecond)
		if t.Context().Err() != nil {
			t.Fatal("no checkpoint was signed")
		}
	}
	cancel()
	stop()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
}

func at(k *audit.Checkpoints) int64 { c, _ := k.Stands(); return c.Number }

func (s *shelf) signed() (l [][]byte) {
	for _, c := range s.l {
		l = append(l, c.Signed)
	}
	return l
}

func against(s *shelf, outside ...[]byte) audit.Against {
	return audit.Against{Now: time.Now(), Checkpoints: s, Key: s.keys[0].Public, Keys: s.public(), Outside: outside}
}

func TestVerifyAgainstCheckpoints(t *testing.T) {
	m, s := &memory{}, newShelf(t)
	for range 4 {
		run(t, m, s, 5, nil)
	}
	kept := s.signed()
	whole := slices.Clone(m.rows)
	shelved := slices.Clone(s.l)
	last := func(rows []audit.Row) []audit.Row { // without the newest rows of the newest chain
		return rows[:len(rows)-3]
	}
	for name, c := range map[string]struct {
		want    audit.Verdict
		rows    func([]audit.Row) []audit.Row
		shelf   func([]audit.StoredCheckpoint) []audit.StoredCheckpoint
		outside [][]byte
		says    string
	}{
		"untouched":                         {want: audit.Whole, outside: kept},
		"untouched, nothing kept elsewhere": {want: audit.Whole},
		"a tail cut off":                    {want: audit.Shorter, rows: last, says: "are missing"},
		"a chain dropped":                   {want: audit.Shorter, rows: func(r []audit.Row) []audit.Row { return without(r, r[0].Writer) }, says: "are missing"},
		"cut off with its checkpoint":       {want: audit.Whole, rows: last, shelf: func(l []audit.StoredCheckpoint) []audit.StoredCheckpoint { return l[:len(l)-1] }},
		"cut off with its checkpoint, kept": {want: audit.Shorter, rows: last, shelf: func(l []audit.StoredCheckpoint) []audit.StoredCheckpoint { return l[:len(l)-1] }, outside: kept, says: "are missing"},
		"only checkpoints cut off, kept":    {want: audit.Shorter, shelf: func(l []audit.StoredCheckpoint) []audit.StoredCheckpoint { return l[:2] }, outside: kept, says: "kept elsewhere"},
		"all checkpoints dropped, kept":     {want: audit.Shorter, shelf: func([]audit.StoredCheckpoint) []audit.StoredCheckpoint { return nil }, outside: kept},
		"a checkpoint taken out":            {want: audit.Shorter, shelf: func(l []audit.StoredCheckpoint) []audit.StoredCheckpoint { return slices.Delete(l, 2, 3) }, says: "are missing"},
		"a checkpoint altered": {want: audit.Altered, shelf: func(l []audit.StoredCheckpoint) []audit.StoredCheckpoint {
			l[1].Signed = []byte(strings.Replace(string(l[1].Signed), "head ", "head x", 1))
			return l
		}},
		"a checkpoint moved": {want: audit.Altered, shelf: func(l []audit.StoredCheckpoint) []audit.StoredCheckpoint {
			l[1].Signed, l[2].Signed = l[2].Signed, l[1].Signed
			return l
		}},
		"the last chain hashed anew": {want: audit.Forked, rows: func(r []audit.Row) []audit.Row { return anew(t, r) }, says: "written anew"},
		"another key":                {want: audit.Altered, shelf: func(l []audit.StoredCheckpoint) []audit.StoredCheckpoint { return forge(t, m.rows) }},
		"the last one signed anew": {want: audit.Altered, shelf: func(l []audit.StoredCheckpoint) []audit.StoredCheckpoint {
			l[len(l)-1].Signed = resigned(t, l[len(l)-1].Signed)
			return l
		}, says: "not signed by the key"},
		"one of another branch":              {want: audit.Forked, shelf: func(l []audit.StoredCheckpoint) []audit.StoredCheckpoint { return append(l[:2], branch(t, s, l[:1])) }, says: "names another checkpoint before it"},
		"another key, and its checkpoint":    {want: audit.Unchecked, outside: [][]byte{forge(t, m.rows)[0].Signed}},
		"what is kept elsewhere is not here": {want: audit.Shorter, outside: [][]byte{other(t, s)}, says: "are missing"},
	} {
		rows, l := slices.Clone(whole), slices.Clone(shelved)
		if c.rows != nil {
			rows = c.rows(rows)
		}
		if c.shelf != nil {
			l = c.shelf(l)
		}
		r := audit.Verify(t.Context(), &memory{rows: rows}, against(&shelf{l: l, keys: s.keys}, c.outside...))
		if r.Verdict != c.want || !strings.Contains(r.What, c.says) {
			t.Errorf("%s: got %+v, want %d", name, r, c.want)
		}
	}
}

func without(rows []audit.Row, writer string) []audit.Row {
	return slices.DeleteFunc(rows, func(r audit.Row) bool { return r.Writer == writer })
}

// anew gives the newest chain other records with right hashes, as who can write to the database can do.
func anew(t *testing.T, rows []audit.Row) []audit.Row {
	t.Helper()
	writer := rows[len(rows)-1].Writer
	m := &memory{}
	l, stop := start(t, m)
	for i := range 5 {
		r := intent(i)
		r.Tool = "forged"
		id, err := l.Begin(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		l.End(t.Context(), id, r)
	}
	stop()
	forged := audit.Rehash(m.rows, writer)
	return append(without(rows, writer), forged...)
}

// forge makes checkpoints of the same rows with a key of its own.
func forge(t *testing.T, rows []audit.Row) []audit.StoredCheckpoint {
	t.Helper()
	s := newShelf(t)
	run(t, &memory{}, s, 1, nil)
	return s.l
}

// resigned is the same checkpoint under a key of somebody else.
func resigned(t *testing.T, signed []byte) []byte {
	t.Helper()
	text, _, _ := strings.Cut(string(signed), "\n\n")
	again, err := note.Sign(&note.Note{Text: text + "\n"}, newShelf(t).keys[0].Signer)
	if err != nil {
		t.Fatal(err)
	}
	return again
}

// branch is the third checkpoint of a log that went on another way after the first: our key has signed it too.
func branch(t *testing.T, s *shelf, from []audit.StoredCheckpoint) audit.StoredCheckpoint {
	t.Helper()
	o := &shelf{keys: s.keys, l: slices.Clone(from)}
	run(t, &memory{}, o, 1, nil)
	return o.l[2]
}

// other is a checkpoint of the right key that nobody has seen here.
func other(t *testing.T, s *shelf) []byte {
	t.Helper()
	o := &shelf{keys: s.keys}
	run(t, &memory{}, o, 1, nil)
	return o.l[len(o.l)-1].Signed
}

// TestRestored: what an operator says to be restored is no fault; a database that is put back without a word is found at the start.
func TestRestored(t *testing.T) {
	m, s := &memory{}, newShelf(t)
	run(t, m, s, 5, nil)
	backup, shelved := slices.Clone(m.rows), slices.Clone(s.l)
	run(t, m, s, 5, nil)
	kept := s.signed()

	said := &shelf{l: slices.Clone(shelved), keys: s.keys}
	back := &memory{rows: slices.Clone(backup)}
	if err := audit.SignRestored(t.Context(), said, said, time.Now().Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	run(t, back, said, 5, nil)
	if r := audit.Verify(t.Context(), back, against(said, kept...)); r.Verdict != audit.Whole || !strings.Contains(strings.Join(r.Reminders, " "), "lost with a restore") {
		t.Errorf("restored with a word: %+v", r)
	}
	cut := slices.Clone(said.l[:len(said.l)-1]) // later truncation is found all the same
	if r := audit.Verify(t.Context(), back, against(&shelf{l: cut, keys: s.keys}, append(kept, said.signed()...)...)); r.Verdict != audit.Shorter {
		t.Errorf("cut off after a restore: %+v", r)
	}

	path := filepath.Join(t.TempDir(), "checkpoints")
	for _, c := range kept {
		parsed, err := audit.ParseCheckpoint(c)
		if err != nil {
			t.Fatal(err)
		}
		if err := (audit.File{Path: path}).Keep(t.Context(), parsed); err != nil {
			t.Fatal(err)
		}
	}
	silent, lost := &shelf{l: slices.Clone(shelved), keys: s.keys}, 0
	quietly := &memory{rows: slices.Clone(backup)}
	run(t, quietly, silent, 5, func(k *audit.Checkpoints) {
		k.Outside, k.Lost = []audit.Outside{audit.File{Path: path}}, func(context.Context) error { lost++; return nil }
	})
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if r := audit.Verify(t.Context(), quietly, against(silent, audit.Split(file)...)); r.Verdict != audit.Shorter || lost != 1 {
		t.Errorf("put back without a word: %+v, told %d times", r, lost)
	}
	if !slices.ContainsFunc(quietly.rows, func(r audit.Row) bool { return strings.Contains(string(r.Record), "log.shorter") }) {
		t.Error("the log does not say that it is shorter")
	}
}

// signing is a log that does something (act), and is signed for when a test says so.
func signing(t *testing.T, l *audit.Log, s *shelf) (act, sign func()) {
	k := &audit.Checkpoints{Log: l, Store: s, Keys: s, Slog: quiet, Now: time.Now}
	act = func() {
		t.Helper()
		id, err := l.Begin(t.Context(), intent(1))
		if err != nil {
			t.Fatal(err)
		}
		l.End(t.Context(), id, intent(1))
	}
	sign = func() {
		t.Helper()
		if err := k.Round(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	return act, sign
}

// TestFailover: a database that loses what it had acknowledged while processes write to it: they go on in new chains, nobody's
// intent fails, and the log says what is missing until an operator signs that he knows. It says so whether or not anything is kept
// outside, and what is cut off later is found all the same.
func TestFailover(t *testing.T) {
	m, s := &memory{}, newShelf(t)
	l, stop := start(t, m)
	act, sign := signing(t, l, s)
	act()
	sign()
	ended, err := l.Begin(t.Context(), intent(3)) // its outcome is what is lost
	if err != nil {
		t.Fatal(err)
	}
	signed, written := len(s.l), len(m.rows)
	l.End(t.Context(), ended, intent(3))
	open, err := l.Begin(t.Context(), intent(2)) // its outcome comes when it is gone
	if err != nil {
		t.Fatal(err)
	}
	act()
	sign()
	kept := s.signed()
	m.mu.Lock()
	m.rows = m.rows[:written]
	m.mu.Unlock()
	s.mu.Lock()
	s.l = s.l[:signed]
	s.mu.Unlock()
	l.End(t.Context(), open, intent(2))
	act()
	sign()
	act()
	sign()
	if err := l.Sweep(t.Context()); err != nil { // closes what lost its outcome
		t.Fatal(err)
	}
	stop()
	for what, o := range map[string]audit.Against{"by the database alone": against(s), "by what was kept": against(s, kept...)} {
		if r := audit.Verify(t.Context(), m, o); r.Verdict != audit.Shorter || r.Open != 0 {
			t.Errorf("%s: %+v, want shorter", what, r)
		}
	}
	if err := audit.SignRestored(t.Context(), s, s, time.Now().Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	for what, o := range map[string]audit.Against{"by the database alone": against(s), "by what was kept": against(s, append(kept, s.signed()...)...)} {
		if r := audit.Verify(t.Context(), m, o); r.Verdict != audit.Whole || !strings.Contains(strings.Join(r.Reminders, " "), "lost with a failover") {
			t.Errorf("known to be lost, %s: %+v", what, r)
		}
	}
	forged := &memory{rows: slices.Clone(m.rows)} // by who can write to the database, in a chain of his own, to hide what he cuts off
	forger, done := start(t, forged)
	first := slices.IndexFunc(forged.rows, func(r audit.Row) bool { return r.Kind == audit.KindIntent })
	writer := forged.rows[first].Writer
	if err := forger.Event(t.Context(), audit.Record{Time: time.Now().Add(-time.Hour), Tenant: "default", Action: "log.shorter", Call: audit.CallID(writer + ".ff"), Result: audit.ResultFailed}); err != nil {
		t.Fatal(err)
	}
	done()
	forged.rows = slices.DeleteFunc(forged.rows, func(r audit.Row) bool { return r.Writer == writer && r.Seq > 1 })
	if r := audit.Verify(t.Context(), forged, against(s)); r.Verdict != audit.Shorter {
		t.Errorf("cut off, with a record of his own that says so: %+v", r)
	}
	later := slices.Clone(s.l[:len(s.l)-1])
	if r := audit.Verify(t.Context(), m, against(&shelf{l: later, keys: s.keys}, append(kept, s.signed()...)...)); r.Verdict != audit.Shorter {
		t.Errorf("cut off afterwards: %+v", r)
	}
}

// TestFailoverTwice: a second failover loses the checkpoint that vouched for the record of the first loss, whose chain was left since. It is
// named once more, so that an operator can sign that he knows.
func TestFailoverTwice(t *testing.T) {
	m, s := &memory{}, newShelf(t)
	l, stop := start(t, m)
	act, sign := signing(t, l, s)
	loses := func(rows, checkpoints int) {
		m.mu.Lock()
		m.rows = m.rows[:rows]
		m.mu.Unlock()
		s.mu.Lock()
		s.l = s.l[:checkpoints]
		s.mu.Unlock()
	}
	act()
	sign()
	written, signed := len(m.rows), len(s.l)
	act()
	loses(written, signed)
	act() // in another chain, behind a record of the loss
	sign()
	m.mu.Lock()
	m.n, m.fail = 0, func(n int) (bool, error) {
		return false, map[bool]error{true: fault.New(fault.Unavailable, "the server dies", nil)}[n == 1]
	}
	m.mu.Unlock()
	if _, err := l.Begin(t.Context(), intent(2)); err == nil {
		t.Error("an append that failed is told as done")
	}
	loses(len(m.rows), signed)
	act() // in a third one
	sign()
	sign()
	stop()
	if r := audit.Verify(t.Context(), m, against(s)); r.Verdict != audit.Shorter {
		t.Errorf("%+v, want shorter", r)
	}
	if err := audit.SignRestored(t.Context(), s, s, time.Now().Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	if r := audit.Verify(t.Context(), m, against(s)); r.Verdict != audit.Whole {
		t.Errorf("known to be lost: %+v", r)
	}
}

// TestLeftChainsAreLookedAt: a chain that was left because an append failed may have lost its end as well.
func TestLeftChainsAreLookedAt(t *testing.T) {
	for _, lost := range []bool{true, false} {
		m := &memory{}
		l, stop := start(t, m)
		for i := range 3 {
			if _, err := l.Begin(t.Context(), intent(i)); err != nil {
				t.Fatal(err)
			}
		}
		m.mu.Lock()
		m.fail = func(n int) (bool, error) {
			return false, map[bool]error{true: fault.New(fault.Unavailable, "the server dies", nil)}[n == 4]
		}
		if lost {
			m.rows = m.rows[:2]
		}
		m.n = 3
		left := m.rows[0].Writer
		m.mu.Unlock()
		if _, err := l.Begin(t.Context(), intent(4)); err == nil {
			t.Error("an append that failed is told as done")
		}
		if err := l.Sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := l.Begin(t.Context(), intent(5)); err != nil { // comes after what the sweep has said
			t.Fatal(err)
		}
		stop()
		said := slices.ContainsFunc(m.rows, func(r audit.Row) bool {
			return strings.Contains(string(r.Record), `"call":"`+left+`.3"`) && strings.Contains(string(r.Record), "log.shorter")
		})
		if said != lost {
			t.Errorf("the log says that the end of the chain it left is gone: %v, want %v", said, lost)
		}
	}
}

// TestCheckpointKeyRotates: the old key announces the new one; who holds the old one believes it, and nobody else's.
func TestCheckpointKeyRotates(t *testing.T) {
	m, s := &memory{}, newShelf(t)
	run(t, m, s, 3, nil)
	s.rotate(t)
	run(t, m, s, 3, nil)
	run(t, m, s, 3, nil)
	if r := audit.Verify(t.Context(), m, against(s)); r.Verdict != audit.Whole {
		t.Errorf("by the first key: %+v", r)
	}
	second := against(s)
	second.Key = s.keys[1].Public
	if r := audit.Verify(t.Context(), m, second); r.Verdict != audit.Whole {
		t.Errorf("by the second key: %+v", r)
	}
	s.rotate(t)
	third := against(s)
	third.Key = s.keys[2].Public
	if r := audit.Verify(t.Context(), m, third); r.Verdict != audit.Altered {
		t.Errorf("by a key that signed none: %+v", r)
	}
}

// TestReplicasTakeTurns: processes that sign at once make one series, which verifies.
func TestReplicasTakeTurns(t *testing.T) {
	m, s := &memory{}, newShelf(t)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() { run(t, m, s, 10, nil) })
	}
	wg.Wait()
	if r := audit.Verify(t.Context(), m, against(s)); r.Verdict != audit.Whole || r.Writers != 4 || r.Checkpoints < 4 {
		t.Errorf("got %+v", r)
	}
}

// TestSince: rows before the checkpoint are taken for read, those after it are looked at.
func TestSince(t *testing.T) {
	m, s := &memory{}, newShelf(t)
	early := func(k *audit.Checkpoints) { k.Now = func() time.Time { return time.Now().Add(-time.Hour) } }
	run(t, m, s, 5, early)
	old := len(m.rows)
	run(t, m, s, 5, nil)
	o := against(s)
	o.Since = time.Now().Add(-30 * time.Minute)
	if r := audit.Verify(t.Context(), m, o); r.Verdict != audit.Whole || r.Rows != len(m.rows)-old {
		t.Errorf("got %+v, want %d rows", r, len(m.rows)-old)
	}
	m.rows = m.rows[:len(m.rows)-1]
	if r := audit.Verify(t.Context(), m, o); r.Verdict != audit.Shorter {
		t.Errorf("cut off: %+v", r)
	}
}

// TestTheTreeIsThatOfTheStandard: roots agree with those of another implementation of RFC 6962.
func TestTheTreeIsThatOfTheStandard(t *testing.T) {
	m, s := &memory{}, newShelf(t)
	for range 20 {
		run(t, m, s, 1, nil)
	}
	var stored []tlog.Hash
	read := tlog.HashReaderFunc(func(at []int64) (l []tlog.Hash, err error) {
		for _, i := range at {
			l = append(l, stored[i])
		}
		return l, nil
	})
	n := int64(0)
	for _, signed := range s.signed() {
		c, err := audit.ParseCheckpoint(signed)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(signed)) {
			if !strings.HasPrefix(line, "head ") {
				continue
			}
			hashes, err := tlog.StoredHashes(n, []byte(strings.TrimSuffix(line, "\n")), read)
			if err != nil {
				t.Fatal(err)
			}
			stored = append(stored, hashes...)
			n++
		}
		root, err := tlog.TreeHash(n, read)
		if err != nil {
			t.Fatal(err)
		}
		if n > 0 && root != c.Root || n != c.Size {
			t.Fatalf("checkpoint %d: size %d and root %s, want %d and %s", c.Number, c.Size, c.Root, n, root)
		}
	}
}

// TestFileOutlivesAPowerLoss: a write that was cut short spoils nothing before or after it.
func TestFileOutlivesAPowerLoss(t *testing.T) {
	s := newShelf(t)
	run(t, &memory{}, s, 3, nil)
	c, err := audit.ParseCheckpoint(s.l[0].Signed)
	if err != nil {
		t.Fatal(err)
	}
	for cut := range len(c.Signed) - 1 {
		f := audit.File{Path: filepath.Join(t.TempDir(), "f")}
		if err := f.Keep(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		half, err := os.OpenFile(f.Path, os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := half.Write(c.Signed[:cut]); err != nil || half.Close() != nil {
			t.Fatal(err)
		}
		if last, err := f.Last(t.Context()); err != nil || string(last) != string(c.Signed) {
			t.Fatalf("cut at %d: got %q, %v", cut, last, err)
		}
		if err := f.Keep(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(f.Path)
		if err != nil {
			t.Fatal(err)
		}
		good := 0
		for _, one := range audit.Split(text) {
			if string(one) == string(c.Signed) {
				good++
			}
		}
		if good != 2 {
			t.Fatalf("cut at %d: %d of 2 are whole:\n%s", cut, good, text)
		}
	}
}

// TestWebKeeps: each goes to its place, with the token, and again where the answer was no.
func TestWebKeeps(t *testing.T) {
	got, refuse := map[string]string{}, true
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if r.Header.Get("Authorization") != "Bearer token" || r.Method != http.MethodPut {
			t.Errorf("got %s with %q", r.Method, r.Header.Get("Authorization"))
		}
		if refuse {
			refuse = false
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		got[r.URL.Path] = string(body)
	}))
	t.Cleanup(server.Close)
	s := newShelf(t)
	run(t, &memory{}, s, 3, func(k *audit.Checkpoints) {
		k.Outside = []audit.Outside{audit.Web{URL: server.URL + "/log", Method: http.MethodPut, Token: func() (string, error) { return "token", nil }, HTTP: http.DefaultTransport}}
	})
	for _, c := range s.l {
		if kept := got[fmt.Sprintf("/log/%d", c.Number)]; kept != string(c.Signed) {
			t.Errorf("checkpoint %d: kept %q, want %q", c.Number, kept, c.Signed)
		}
	}
}

func FuzzParseCheckpoint(f *testing.F) {
	f.Add([]byte("desk.example.com/audit\n0\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\nnumber 1\nprevious AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\ntime 2026-03-14T15:09:26Z\n\n— x y\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := audit.ParseCheckpoint(text)
		if err != nil {
			return
		}
		again, err := audit.ParseCheckpoint(c.Signed)
		if err != nil || again.Number != c.Number || again.Root != c.Root || len(again.Heads) != len(c.Heads) {
			t.Errorf("read again: %+v, %v", again, errors.Join(err))
		}
	})
}
