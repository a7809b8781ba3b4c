// Package check is what the contract of the databases is tried with: moments, tenants and rows that every test knows, a race over two
// handles, and what must come of it.
package check

import (
	"context"
	"fmt"
	"reflect"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/connect"
	"frontdesk.dev/frontdesk/internal/gateway/sessions"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/store"
	"frontdesk.dev/frontdesk/internal/vault"
)

// Cases are promises of the contract by their names. Each is tried at a fresh database that is open twice, as two replicas have it.
type Cases map[string]func(t *testing.T, a, b *store.DB)

// Two tenants, and how many run a race.
const (
	Ours   identity.Tenant = "default"
	Theirs identity.Tenant = "globex"
	Many                   = 64
)

// Day is a moment that every test knows.
var Day = time.Date(2026, 3, 14, 15, 9, 26, 535_897_000, time.UTC)

// Most is more sessions than any test puts.
var Most = sessions.Most{Client: 10 * Many, Principal: 10 * Many}

// Race runs f many times at once, by turns on both handles.
func Race(a, b *store.DB, f func(i int, db *store.DB)) {
	var ready, done sync.WaitGroup
	ready.Add(Many)
	for i := range Many {
		db := a
		if i%2 == 1 {
			db = b
		}
		done.Go(func() {
			ready.Done()
			ready.Wait()
			f(i, db)
		})
	}
	done.Wait()
}

// Tally counts what came out of a race.
type Tally[K comparable] struct {
	mu sync.Mutex
	N  map[K]int // guarded by mu while the race is on
}

// Add counts one k.
func (c *Tally[K]) Add(k K) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.N == nil {
		c.N = map[K]int{}
	}
	c.N[k]++
}

// Must is what a call came to that has to succeed.
func Must[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// Err is the error beside something that a test has no use for.
func Err[T any](_ T, err error) error { return err }

// OK ends the test where what has to succeed did not.
func OK(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// WantKind fails the test where the store refused otherwise than it says, or not at all.
func WantKind(t *testing.T, err error, k fault.Kind) {
	t.Helper()
	if err == nil || fault.KindOf(err) != k {
		t.Errorf("got %v, want a fault of kind %v", err, k)
	}
}

// Same compares what was read with what was written; no entries and a nil list are alike to a database.
func Same[T any](t *testing.T, got, want T, opts ...cmp.Option) {
	t.Helper()
	if diff := cmp.Diff(want, got, append(opts, cmpopts.EquateEmpty())...); diff != "" {
		t.Errorf("want -, got +\n%s", diff)
	}
}

// Eventually waits until what is meant has come true.
func Eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-ctx.Done():
			t.Fatalf("it never came true that %s", what)
		case <-tick.C:
		}
	}
}

// Filled returns a T with something else in every field, so that a column that is forgotten is seen. Tenants are ours.
func Filled[T any]() T {
	var v T
	n := 0
	fill(reflect.ValueOf(&v).Elem(), "", &n)
	return v
}

func fill(v reflect.Value, name string, n *int) {
	*n++
	switch {
	case v.Type() == reflect.TypeFor[identity.Tenant]():
		v.SetString(string(Ours))
	case v.Type() == reflect.TypeFor[time.Time]():
		v.Set(reflect.ValueOf(Day.Add(time.Duration(*n) * time.Second)))
	case v.Type() == reflect.TypeFor[[]byte]():
		v.SetBytes([]byte{0, 0xff, byte(*n)})
	case v.Kind() == reflect.String:
		v.SetString(fmt.Sprintf("%s 'ü\"%d", name, *n))
	case v.CanInt():
		v.SetInt(int64(*n))
	case v.Kind() == reflect.Bool:
		v.SetBool(true)
	case v.Kind() == reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		fill(v.Index(0), name, n)
		fill(v.Index(1), name, n)
	case v.Kind() == reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i), v.Type().Field(i).Name, n)
		}
	default:
		panic("check: cannot fill a " + v.Type().String())
	}
}

// Chain makes one writer's rows as the audit room does.
type Chain struct {
	Writer string
	Seq    int64
}

// Row is the next of this writer.
func (c *Chain) Row(k audit.Kind, call audit.CallID) audit.Row {
	c.Seq++
	id := Position(audit.Row{Writer: c.Writer, Seq: c.Seq})
	if k == audit.KindIntent {
		call = id
	}
	return audit.Row{Writer: c.Writer, Seq: c.Seq, Tenant: Ours, User: "alice", Kind: k, Call: call, Time: Day.Add(time.Duration(c.Seq) * time.Millisecond),
		Record: []byte(`{"id":"` + id + "\"}"), Hash: []byte("hash of " + id)}
}

// Position is the id of an intent: where it stands in the log.
func Position(r audit.Row) audit.CallID { return audit.CallID(fmt.Sprintf("%s.%x", r.Writer, r.Seq)) }

// Writer is a process that writes the log.
func Writer(n int) *Chain { return &Chain{Writer: fmt.Sprintf("%016x", n)} }

// Log reads the whole log.
func Log(t *testing.T, db *store.DB) []audit.Row {
	t.Helper()
	var all []audit.Row
	OK(t, db.Chain(t.Context(), nil, func(r audit.Row) error {
		all = append(all, r)
		return nil
	}))
	return all
}

// Connection is one that has just been made.
func Connection(id string) vault.Connection {
	c := Filled[vault.Connection]()
	c.ID, c.User, c.Upstream, c.Status, c.Generation, c.Version = vault.ConnectionID(id), "alice", "tracker", vault.Active, 1, 1
	c.Machine = vault.Machine{Generation: 1, Version: 1, Phase: vault.Idle, NotBefore: c.NotBefore, Failures: 3, Recoveries: 2}
	return c
}

// Request is one that waits for its person.
func Request(id string) connect.Request {
	r := Filled[connect.Request]()
	r.ID, r.User, r.State, r.Created, r.Expires = connect.RequestID(id), "alice", connect.Open, Day, Day.Add(time.Hour)
	r.Missing = []catalog.Missing{{Upstream: "tracker", Scopes: []string{"read", "write"}, Why: catalog.WhyScope, Reason: "r"}, {Upstream: "wiki", Why: catalog.WhyGrant}}
	return r
}
