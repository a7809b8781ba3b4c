package sessions_test

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/internal/gateway/sessions"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/kit/web"
)

// rows is a store in memory, which counts what is asked of it. The contract of the real one is storetest's.
type rows struct {
	mu        sync.Mutex
	of        map[string]sessions.Session
	read, put int
	down      error
	surplus   []sessions.Session // what the next one to be put is too much for
}

func key(t identity.Tenant, id []byte) string { return string(t) + "\x00" + string(id) }

func (r *rows) PutSession(_ context.Context, s sessions.Session, _ sessions.Most) ([]sessions.Session, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.down != nil {
		return nil, r.down
	}
	r.put++
	r.of[key(s.Tenant, s.ID)] = s
	surplus := r.surplus
	r.surplus = nil
	return surplus, nil
}

func (r *rows) Session(_ context.Context, t identity.Tenant, id []byte, at time.Time) (sessions.Session, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.read++
	s, ok := r.of[key(t, id)]
	if !ok {
		return s, fault.New(fault.NotFound, "there is no such session", nil)
	}
	if at.Sub(s.Seen) > time.Minute && r.down == nil {
		r.put++
		s.Seen = at
		r.of[key(t, id)] = s
	}
	return s, r.down
}

func (r *rows) DropSession(_ context.Context, t identity.Tenant, id []byte) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.of, key(t, id))
	return r.down
}

func (r *rows) IdleSessions(_ context.Context, since time.Time, limit int) (l []sessions.Session, _ error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for k, s := range maps.Clone(r.of) {
		if s.Seen.Before(since) && len(l) < limit {
			l = append(l, s)
			delete(r.of, k)
		}
	}
	return l, r.down
}

type desk struct {
	*sessions.Sessions
	rows *rows
	now  time.Time
}

func open(t *testing.T) *desk {
	t.Helper()
	keys, err := web.OpenKeys(filepath.Join(t.TempDir(), "faces.json"))
	if err != nil {
		t.Fatal(err)
	}
	d := &desk{rows: &rows{of: map[string]sessions.Session{}}, now: time.Date(2026, 3, 14, 15, 9, 26, 0, time.UTC)}
	d.Sessions = &sessions.Sessions{Store: d.rows, Keys: keys, Log: slog.New(slog.DiscardHandler), Now: func() time.Time { return d.now }}
	return d
}

// replica is another process with the same rows and keys.
func (d *desk) replica() *sessions.Sessions {
	return &sessions.Sessions{Store: d.rows, Keys: d.Keys, Log: d.Log, Now: d.Now}
}

var alice = &identity.Caller{Tenant: "default", User: "u-alice", Client: "editor"}

func (d *desk) begin(t *testing.T, c *identity.Caller, act, upstream string) (string, sessions.Session) {
	t.Helper()
	id, s, err := d.Begin(t.Context(), sessions.Session{Tenant: c.Tenant, Principal: c.Principal(), Client: c.Client, Server: "issues", Act: audit.CallID(act)}, upstream)
	if err != nil {
		t.Fatal(err)
	}
	return id, s
}

// TestFind: a session is found by its owner alone, with the client and at the server that it was begun with, on every replica.
func TestFind(t *testing.T) {
	d := open(t)
	id, want := d.begin(t, alice, "act", "their-own-id")
	for name, r := range map[string]*sessions.Sessions{"here": d.Sessions, "elsewhere": d.replica()} {
		got, err := r.Find(t.Context(), alice, "issues", id)
		if err != nil || string(got.ID) != string(want.ID) {
			t.Errorf("%s: %v %v", name, got, err)
		}
		if up := r.Upstream(&got); up != "their-own-id" {
			t.Errorf("%s: the server's own id is %q", name, up)
		}
	}
	other := func(change func(*identity.Caller)) *identity.Caller {
		c := *alice
		change(&c)
		return &c
	}
	for name, c := range map[string]*identity.Caller{
		"another user":                  other(func(c *identity.Caller) { c.User = "u-bob" }),
		"another client":                other(func(c *identity.Caller) { c.Client = "shell" }),
		"another tenant":                other(func(c *identity.Caller) { c.Tenant = "globex" }),
		"a service by the user's id":    other(func(c *identity.Caller) { c.User, c.Service = "", "u-alice" }),
		"nobody":                        {Tenant: "default", Client: "editor"},
		"nobody, whose client has none": {Tenant: "default"},
	} {
		if _, err := d.Find(t.Context(), c, "issues", id); fault.KindOf(err) != fault.NotFound {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := d.Find(t.Context(), alice, "wiki", id); fault.KindOf(err) != fault.NotFound {
		t.Errorf("at another server: %v", err)
	}
	for _, made := range []string{"", id[:len(id)-1], id + "=", strings.ToUpper(id), string(want.ID), hex.EncodeToString(want.ID)} {
		if _, err := d.Find(t.Context(), alice, "issues", made); fault.KindOf(err) != fault.NotFound {
			t.Errorf("%q: %v", made, err)
		}
	}
}

// TestKeptAsDigests: neither the client's id nor the server's stands in what is stored, and what is sealed is of its own row.
func TestKeptAsDigests(t *testing.T) {
	d := open(t)
	id, s := d.begin(t, alice, "", "their-own-id")
	if row := fmt.Sprint(d.rows.of) + string(s.Upstream); strings.Contains(row, id) || strings.Contains(row, "their-own-id") {
		t.Errorf("an id stands in the row: %s", row)
	}
	_, other := d.begin(t, alice, "", "")
	if up := d.Upstream(&other); up != "" {
		t.Errorf("a server without sessions has the id %q", up)
	}
	if other.Upstream = s.Upstream; d.Upstream(&other) != "" {
		t.Error("what was sealed for one session opens in another")
	}
}

// TestCache: rows are read twice a minute, and the last use is written once a minute; what another replica has dropped ends here
// within half a minute.
func TestCache(t *testing.T) {
	d := open(t)
	id, s := d.begin(t, alice, "", "")
	for range 120 { // an hour
		for range 10 {
			if _, err := d.Find(t.Context(), alice, "issues", id); err != nil {
				t.Fatal(err)
			}
		}
		d.now = d.now.Add(30 * time.Second)
	}
	if d.rows.read > 120 || d.rows.put > 61 {
		t.Errorf("%d reads and %d writes in an hour", d.rows.read, d.rows.put)
	}
	if seen := d.rows.of[key(s.Tenant, s.ID)].Seen; d.now.Sub(seen) > 2*time.Minute {
		t.Errorf("last seen %v ago", d.now.Sub(seen))
	}
	d.replica().Forget(t.Context(), &s)
	d.now = d.now.Add(30 * time.Second)
	if _, err := d.Find(t.Context(), alice, "issues", id); fault.KindOf(err) != fault.NotFound {
		t.Errorf("it has ended: %v", err)
	}
}

// TestStoreDown: what cannot be kept does not begin, and a store that is away is not a session that is gone.
func TestStoreDown(t *testing.T) {
	d := open(t)
	id, _ := d.begin(t, alice, "", "")
	d.rows.down = errors.New("the database is away")
	if _, _, err := d.Begin(t.Context(), sessions.Session{Tenant: "default"}, ""); err == nil {
		t.Error("a session began that nobody keeps")
	}
	if _, err := d.replica().Find(t.Context(), alice, "issues", id); err == nil || fault.KindOf(err) == fault.NotFound {
		t.Errorf("it is said to be gone: %v", err)
	}
}

// ends counts whose acts have ended.
type ends struct {
	mu sync.Mutex
	n  map[audit.CallID]int
}

func (e *ends) of(s *sessions.Session) func(context.Context) {
	return func(context.Context) {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.n[s.Act]++
	}
}

// TestHold: an act ends once, with its session; one caller holds a hundred, and the one that he began first makes room.
func TestHold(t *testing.T) {
	d := open(t)
	e := &ends{n: map[audit.CallID]int{}}
	var first string
	var all []sessions.Session
	for i := range 103 {
		d.now = d.now.Add(time.Second)
		id, s := d.begin(t, alice, fmt.Sprint("a", i), "")
		if i == 0 {
			first = id
		}
		d.Hold(t.Context(), &s, e.of(&s))
		all = append(all, s)
	}
	bob := &identity.Caller{Tenant: "default", User: "u-bob", Client: "editor"}
	_, bobs := d.begin(t, bob, "b", "")
	d.Hold(t.Context(), &bobs, e.of(&bobs))
	if want := (map[audit.CallID]int{"a0": 1, "a1": 1, "a2": 1}); !maps.Equal(e.n, want) {
		t.Errorf("ended are %v, want %v", e.n, want)
	}
	if _, err := d.Find(t.Context(), alice, "issues", first); fault.KindOf(err) != fault.NotFound {
		t.Errorf("the oldest session goes on without its act: %v", err)
	}
	d.Forget(t.Context(), &all[50])
	d.Forget(t.Context(), &all[50])
	d.Drain()
	d.Drain()
	if len(e.n) != 104 {
		t.Errorf("%d have ended, want all 104", len(e.n))
	}
	for act, n := range e.n {
		if n != 1 {
			t.Errorf("%s ended %d times", act, n)
		}
	}
	if len(d.rows.of) != 100 {
		t.Errorf("%d rows are left, want those of 99 sessions of one and 1 of the other: what is drained is no session that ended", len(d.rows.of))
	}
}

// TestHoldRaced: under many at once nobody's act is lost or ended twice.
func TestHoldRaced(t *testing.T) {
	d := open(t)
	e := &ends{n: map[audit.CallID]int{}}
	var all sync.WaitGroup
	for i := range 300 {
		all.Go(func() {
			_, s, err := d.Begin(t.Context(), sessions.Session{Tenant: "default", Principal: "u-alice", Act: audit.CallID(fmt.Sprint(i))}, "")
			if err != nil {
				t.Error(err)
				return
			}
			d.Hold(t.Context(), &s, e.of(&s))
		})
	}
	all.Wait()
	if len(e.n) != 200 {
		t.Errorf("%d have ended, want 200", len(e.n))
	}
	d.Drain()
	if len(e.n) != 300 {
		t.Errorf("%d have ended, want all", len(e.n))
	}
	for act, n := range e.n {
		if n != 1 {
			t.Errorf("%s ended %d times", act, n)
		}
	}
}

// TestDropIdle: a week without a message ends a session and its act; one that is used stays.
func TestDropIdle(t *testing.T) {
	d := open(t)
	e := &ends{n: map[audit.CallID]int{}}
	_, idle := d.begin(t, alice, "idle", "")
	id, used := d.begin(t, alice, "used", "")
	d.Hold(t.Context(), &idle, e.of(&idle))
	d.Hold(t.Context(), &used, e.of(&used))
	for range 8 {
		d.now = d.now.Add(24 * time.Hour)
		if _, err := d.Find(t.Context(), alice, "issues", id); err != nil {
			t.Fatal(err)
		}
		if err := d.DropIdle(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if want := (map[audit.CallID]int{"idle": 1}); !maps.Equal(e.n, want) || len(d.rows.of) != 1 {
		t.Errorf("ended are %v of %d rows, want %v", e.n, len(d.rows.of), want)
	}
}

// TestDroppedActs: the act of a session ends with it, whether it was too much for a new one here, or dropped through another replica.
func TestDroppedActs(t *testing.T) {
	d := open(t)
	e := &ends{n: map[audit.CallID]int{}}
	var all []sessions.Session
	for _, act := range []string{"surplus", "elsewhere", "kept"} {
		_, s := d.begin(t, alice, act, "")
		d.Hold(t.Context(), &s, e.of(&s))
		all = append(all, s)
	}
	d.rows.surplus = all[:1]
	d.begin(t, alice, "new", "")
	if err := d.rows.DropSession(t.Context(), all[1].Tenant, all[1].ID); err != nil {
		t.Fatal(err)
	}
	if err := d.DropIdle(t.Context()); err != nil {
		t.Fatal(err)
	}
	if want := (map[audit.CallID]int{"surplus": 1, "elsewhere": 1}); !maps.Equal(e.n, want) {
		t.Errorf("ended are %v, want %v", e.n, want)
	}
}
