package traffic

import (
	"maps"
	"net/http"
	"strings"
	"sync"
	"time"

	"frontdesk.dev/frontdesk/internal/broker"
	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/identity"
)

// window is what a vendor counts together, as far as that can be seen from outside: a person's requests to one part of the API, or
// everybody's. Vendors count searches apart, and GraphQL; both have a first segment of their own.
type window struct {
	tenant    identity.Tenant
	up        catalog.UpstreamName
	who, part string
}

// all is the same of everybody.
func (w window) all() window {
	w.who = everybody
	return w
}

func windowOf(c *identity.Caller, a broker.Act) window {
	part, _, _ := strings.Cut(strings.TrimPrefix(a.Path, "/"), "/")
	return window{a.Server.Tenant, a.Upstream.Name, c.Principal(), a.Host + "/" + part}
}

// waiting knows whom vendors told to wait, and how much of what a vendor gives to all each person has taken.
type waiting struct {
	mu     sync.Mutex
	closed map[window]time.Time // guarded by mu, as is what follows: until when a vendor wants no more
	shared map[window]quota     // of everybody
	taken  map[window]*taken    // of it, by each person
	news   map[window]bool      // what other replicas have not been told
}

// taken is how often a person has asked since a quota was renewed.
type taken struct {
	until     time.Time
	here      int64
	elsewhere map[string]int64 // by replica
}

func (t *taken) total() int64 {
	n := t.here
	for _, m := range t.elsewhere {
		n += m
	}
	return n
}

// halfOfIt is a person's share where the config names none.
const halfOfIt = 0.5

// wait says how long a person has to wait, and why; 0: not at all, and then this request is counted.
func (w *waiting) wait(at window, share float64, now time.Time) (time.Duration, string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, one := range []window{at, at.all()} {
		if until, ok := w.closed[one]; ok && now.Before(until) {
			whom := "this person"
			if one.who == everybody {
				whom = "anybody here"
			}
			return until.Sub(now), "has no more requests for " + whom
		}
	}
	q, ok := w.shared[at.all()]
	if !ok || !now.Before(q.until) {
		return 0, ""
	}
	t := w.of(at, q.until, now)
	if used := t.total(); used > 0 && float64(used) >= share*float64(q.left+used) {
		return q.until.Sub(now), "gives a quota to all, and this person has had his share of it"
	}
	t.here++
	q.left = max(q.left-1, 0) // until an answer says it better
	w.shared[at.all()] = q
	w.told(at)
	return 0, ""
}

// of is what a person has taken of a quota; when it was renewed, nothing. w.mu is held.
func (w *waiting) of(at window, until, now time.Time) *taken {
	t := w.taken[at]
	if t == nil || !now.Before(t.until) {
		t = &taken{until: until, elsewhere: map[string]int64{}}
		w.taken = put(w.taken, at, t, func(t *taken) bool { return !now.Before(t.until) })
	}
	return t
}

// told notes that other replicas have to hear of it. w.mu is held.
func (w *waiting) told(at window) {
	if w.news != nil && len(w.news) < maxKept {
		w.news[at] = true
	}
}

// learn reads an answer.
func (w *waiting) learn(p *catalog.Provider, at window, resp *http.Response, now time.Time) {
	all, until := quotas(p, resp, now), toldToWait(resp, now)
	if len(all) == 0 && until.IsZero() {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	gives := false // to all
	for _, q := range all {
		one := at
		if q.per == catalog.PerAll {
			one, gives = at.all(), true
			w.shared = put(w.shared, one, q, func(q quota) bool { return !now.Before(q.until) })
		}
		if q.left == 0 {
			w.close(one, q.until, now)
		}
	}
	if gives {
		at = at.all()
	}
	if !until.IsZero() {
		w.close(at, until, now)
	}
}

// close lets nobody through until then. w.mu is held.
func (w *waiting) close(at window, until, now time.Time) {
	if !until.After(w.closed[at]) {
		return
	}
	w.closed = put(w.closed, at, until, func(t time.Time) bool { return !now.Before(t) })
	w.told(at)
}

// openIn reports whether a vendor takes requests again when the time has passed.
func (w *waiting) openIn(at window, then time.Time) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return !w.closed[at].After(then) && !w.closed[at.all()].After(then)
}

// put keeps a value, in a map that does not grow beyond maxKept: what is past is forgotten first, and what is new if that is not enough.
func put[V any](m map[window]V, at window, v V, past func(V) bool) map[window]V {
	if m == nil {
		m = map[window]V{}
	}
	if _, known := m[at]; !known && len(m) >= maxKept {
		maps.DeleteFunc(m, func(_ window, v V) bool { return past(v) })
		if len(m) >= maxKept {
			return m
		}
	}
	m[at] = v
	return m
}
