package federation

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"frontdesk.dev/frontdesk/internal/exchange"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
)

// owner is whose steps they are.
type owner struct {
	tenant    identity.Tenant
	principal string
}

// step is what one exchange gave: a token, or keys. It lives until the first of what it was made of ends.
type step struct {
	value any
	until time.Time
}

// steps remembers what exchanges gave, by owner, in two generations: when the younger is full, the older is forgotten whole.
type steps struct {
	mu         sync.Mutex
	young, old map[owner]map[[32]byte]step
	turns      map[owner]int // how often an owner was forgotten lately: what was asked for before that is not kept
	cleared    int           // the same, of everybody
	flights    singleflight.Group
}

const (
	maxOwners = 10_000
	// early is how long before its end a step is made anew, so that what it gave still lives for the call.
	early = 30 * time.Second
	// flightTime bounds one step, of which whoever needs it waits: it belongs to none of them.
	flightTime = 30 * time.Second
)

// keyOf is everything that a step depends on, each part with its length: joined text is how two become equal.
func keyOf(parts ...string) [32]byte {
	h := sha256.New()
	for _, p := range parts {
		var n [8]byte
		binary.BigEndian.PutUint64(n[:], uint64(len(p)))
		h.Write(n[:])
		h.Write([]byte(p))
	}
	return [32]byte(h.Sum(nil))
}

// entry is the method as the config has it now: after a reload nothing is used that another entry got, a wider one above all.
func entry(r exchange.Request) string {
	b, err := json.Marshal(r.Method)
	if err != nil {
		panic(err) // settings that are no JSON: a slip in the catalogue
	}
	return string(b)
}

// do returns the step's value, obtaining it if there is none that lives. obtain returns until when it lives; the zero time means
// that nobody knows, and it is kept for a minute.
func do[T any](ctx context.Context, f *Federation, r exchange.Request, key [32]byte, obtain func(context.Context) (T, time.Time, error)) (T, time.Time, error) {
	o, now := owner{r.Caller.Tenant, r.Caller.Principal()}, f.Now()
	lives := func(k step) bool { _, ok := k.value.(T); return ok && now.Add(early).Before(k.until) }
	known, turn := f.steps.look(o, key)
	if lives(known) {
		return known.value.(T), known.until, nil
	}
	ch := f.steps.flights.DoChan(string(o.tenant)+"\x00"+o.principal+"\x00"+string(key[:])+strconv.Itoa(turn), func() (any, error) { // who comes after a change of access joins no flight from before it
		if k, still := f.steps.look(o, key); still == turn && lives(k) { // a flight has ended since we looked
			return k, nil
		}
		own, cancel := context.WithTimeout(context.WithoutCancel(ctx), flightTime)
		defer cancel()
		v, until, err := obtain(own)
		if err != nil {
			return nil, err
		}
		if until.IsZero() {
			until = f.Now().Add(time.Minute)
		}
		s := step{v, until}
		f.steps.keep(o, key, s, turn)
		return s, nil
	})
	var zero T
	select {
	case <-ctx.Done():
		return zero, time.Time{}, fault.New(fault.Unavailable, r.Upstream.Title+" took too long to open; try again", ctx.Err())
	case res := <-ch:
		s, ok := res.Val.(step)
		if res.Err != nil || !ok {
			return zero, time.Time{}, res.Err
		}
		return s.value.(T), s.until, nil
	}
}

func (s *steps) look(o owner, key [32]byte) (step, int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if k, ok := s.young[o][key]; ok {
		return k, s.turns[o] + s.cleared
	}
	return s.old[o][key], s.turns[o] + s.cleared
}

func (s *steps) keep(o owner, key [32]byte, k step, turn int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.turns[o]+s.cleared != turn {
		return
	}
	if s.young == nil || len(s.young) >= maxOwners {
		s.young, s.old, s.turns = map[owner]map[[32]byte]step{}, s.young, map[owner]int{}
	}
	if s.young[o] == nil {
		s.young[o] = map[[32]byte]step{}
	}
	if len(s.young[o]) >= maxSteps {
		clear(s.young[o])
	}
	s.young[o][key] = k
}

// maxSteps bounds what one owner keeps: subject tokens change, and with them the keys.
const maxSteps = 256

func (s *steps) forget(t identity.Tenant, principal string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if principal == identity.Everybody {
		s.cleared++
		s.young, s.old = nil, nil
		return
	}
	o := owner{t, principal}
	delete(s.young, o)
	delete(s.old, o)
	if s.turns == nil {
		s.turns = map[owner]int{}
	}
	s.turns[o]++
}

// first is the earlier of two ends; zero is none.
func first(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
