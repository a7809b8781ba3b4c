// Package storetest says what every database behind package store must do, as tests that run on each of them.
//
// It trusts nothing that the store says of itself: what was written is read back by another handle, and what may happen
// once is tried by 64 at a time.
package storetest

import (
	"context"
	"fmt"
	"reflect"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/store"
)

// Open opens a fresh database twice, as two replicas do; where only one may have it open, a and b are the same.
type Open func(t *testing.T) (a, b *store.DB)

// Run tries the whole contract.
func Run(t *testing.T, open Open) {
	for _, c := range []struct {
		name string
		try  func(*testing.T, *store.DB, *store.DB)
	}{
		{"users", users}, {"users raced", usersRaced}, {"epochs", epochs}, {"epochs in order", epochsInOrder}, {"watch", watch},
		{"audit", auditAppend}, {"audit conflicts", auditConflicts}, {"audit one outcome", auditOneOutcome}, {"audit for people", auditRows}, {"audit page by page", auditPages}, {"audit verified", auditVerified}, {"audit from a position", auditFrom}, {"checkpoints", checkpoints}, {"every connection", everyConnection},
		{"audit unfinished", auditUnfinished}, {"audit unfinished in a long chain", auditLongChain},
		{"connections", connections}, {"connections replaced", connectionsReplaced}, {"connections raced", connectionsRaced}, {"keys", keys}, {"names", names}, {"data keys rotated", dataKeysRotated}, {"keys by the calendar", keysByCalendar}, {"turns", turns}, {"keys wrapped anew", keysWrappedAnew},
		{"machine", machine}, {"machine raced", machineRaced}, {"machine stopped in the middle", machineStopped}, {"vault sampled", sampled}, {"machine marked", machineMarked}, {"machine lost", machineLost}, {"machine overtaken", machineOvertaken}, {"machine too late", machineTooLate},
		{"machine among siblings", machineSiblings}, {"machine upkeep", machineUpkeep}, {"machine after a restore", machineRestored}, {"endings", endings}, {"ends of many", endsOfMany}, {"ends of accounts", endsOfAccounts}, {"late steps", lateSteps}, {"retired raced", retiredRaced}, {"access dropped", accessDropped}, {"messages", messages}, {"gone", gone}, {"use", use},
		{"requests", requests}, {"requests raced", requestsRaced}, {"flows", flows}, {"devices", devices}, {"grants", grants}, {"found servers", foundServers}, {"sightings", sightings},
		{"clients", clients}, {"consents", consents}, {"codes", codes}, {"families", families}, {"sessions", legacySessions}, {"tasks", tasks}, {"tickets", tickets},
		{"tenants", tenants}, {"odd texts", oddTexts}, {"allowances", allowances}, {"allowances raced", allowancesRaced}, {"words", words}, {"notes", notes}, {"callers who left", callersWhoLeft},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, b := open(t)
			c.try(t, a, b)
		})
	}
}

const (
	ours   identity.Tenant = "default"
	theirs identity.Tenant = "globex"
	many                   = 64
)

// day is a moment that every test knows.
var day = time.Date(2026, 3, 14, 15, 9, 26, 535_897_000, time.UTC)

// race runs f many times at once, by turns on both handles.
func race(a, b *store.DB, f func(i int, db *store.DB)) {
	var ready, done sync.WaitGroup
	ready.Add(many)
	for i := range many {
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

// tally counts what came out of a race.
type tally[K comparable] struct {
	mu sync.Mutex
	n  map[K]int
}

func (c *tally[K]) add(k K) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n == nil {
		c.n = map[K]int{}
	}
	c.n[k]++
}

func must[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantKind(t *testing.T, err error, k fault.Kind) {
	t.Helper()
	if err == nil || fault.KindOf(err) != k {
		t.Errorf("got %v, want a fault of kind %v", err, k)
	}
}

func same[T any](t *testing.T, got, want T, opts ...cmp.Option) {
	t.Helper()
	if diff := cmp.Diff(want, got, append(opts, cmpopts.EquateEmpty())...); diff != "" {
		t.Errorf("want -, got +\n%s", diff)
	}
}

func eventually(t *testing.T, what string, cond func() bool) {
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

// filled returns a T with something else in every field, so that a column that is forgotten is seen. Tenants are ours.
func filled[T any]() T {
	var v T
	n := 0
	fill(reflect.ValueOf(&v).Elem(), "", &n)
	return v
}

func fill(v reflect.Value, name string, n *int) {
	*n++
	switch {
	case v.Type() == reflect.TypeFor[identity.Tenant]():
		v.SetString(string(ours))
	case v.Type() == reflect.TypeFor[time.Time]():
		v.Set(reflect.ValueOf(day.Add(time.Duration(*n) * time.Second)))
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
		panic("storetest: cannot fill a " + v.Type().String())
	}
}
