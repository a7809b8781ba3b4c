package traffic

import (
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sony/gobreaker/v2"

	"frontdesk.dev/frontdesk/internal/broker"
	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/kit/outbound"
)

// Circuits know which upstreams are down, as this process sees it: nothing is sent there for a while, and then one request first, to
// see. The zero Circuits are all closed.
//
// A failure is no connection, no answer in time, or a status of 500 or more. Whoever sends what makes a vendor fail must not close it
// to others: answers that fail count against everybody only where they fail for two people, else against him alone.
type Circuits struct {
	Log *slog.Logger // nil: nothing is logged

	mu sync.Mutex
	of map[line]*circuit // guarded by mu
}

// line is a host of an upstream, for everybody or for one person.
type line struct {
	tenant    identity.Tenant
	up        catalog.UpstreamName
	host, who string
}

// circuit is what is known of a line.
type circuit struct {
	*gobreaker.TwoStepCircuitBreaker[struct{}]

	mu     sync.Mutex
	people map[string]int // guarded by mu: for whom requests that were sent have failed since one did not, and how often
	away   int            // guarded by mu: how often since then there was no connection
	until  time.Time      // guarded by mu: when it is tried again, where it is open
}

const (
	inARow    = 5                // failures that open a circuit
	ofOne     = 3                // of them that one person may contribute
	atLeast   = 20               // or half of so many
	within    = time.Minute      // that long
	openFor   = 30 * time.Second // until one request may see
	probeTime = 10 * time.Second // for that one; a longer wait counts as no
)

var (
	errFailed  = errors.New("failed")
	errAway    = errors.New("no connection")
	errTooSlow = errors.New("no answer in time")
	errNothing = errors.New("says nothing") // of the upstream: refused here, or given up
)

const everybody = "" // as the person that something is about

// enter lets a request go out, and takes what came of it; or says that the upstream is down.
func (c *Circuits) enter(who *identity.Caller, a broker.Act) (answered func(*http.Response, error), err error) {
	all := line{a.Upstream.Tenant, a.Upstream.Name, a.Host, everybody}
	his := all
	his.who = who.Principal()
	var dones []func(error)
	for _, k := range c.known(all, his) {
		done, err := k.Allow()
		if err != nil {
			for _, d := range dones {
				d(errNothing)
			}
			return nil, k.refusal(a.Upstream.Title)
		}
		dones = append(dones, k.watched(done))
	}
	return func(resp *http.Response, err error) {
		how := outcome(resp, err)
		if len(dones) == 0 && how != nil && how != errNothing { // from the first failure on it is counted
			dones = c.begin(all, his)
		}
		for _, k := range c.known(all, his) {
			k.note(his.who, how)
		}
		for _, done := range dones {
			done(how)
		}
	}, nil
}

// outcome is what an answer says of the upstream.
func outcome(resp *http.Response, err error) error {
	switch {
	case err == nil && resp.StatusCode < http.StatusInternalServerError:
		return nil
	case err == nil:
		return errFailed
	case outbound.Unsent(err):
		return errAway
	case outbound.Down(err):
		return errFailed
	}
	return errNothing
}

// known are the circuits of lines on which something has failed.
func (c *Circuits) known(lines ...line) (l []*circuit) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, at := range lines {
		if k := c.of[at]; k != nil {
			l = append(l, k)
		}
	}
	return l
}

// begin makes circuits for lines that have none. One that nobody has failed on for a while is forgotten.
func (c *Circuits) begin(lines ...line) (dones []func(error)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.of == nil {
		c.of = map[line]*circuit{}
	}
	if len(c.of) >= maxKept {
		for l, k := range c.of {
			if k.State() == gobreaker.StateClosed && k.Counts().TotalFailures == 0 {
				delete(c.of, l)
			}
		}
	}
	for _, l := range lines {
		k := c.of[l]
		if k == nil && len(c.of) < maxKept {
			k = c.circuit(l)
			c.of[l] = k
		}
		if k == nil {
			continue
		}
		if done, err := k.Allow(); err == nil {
			dones = append(dones, done)
		}
	}
	return dones
}

func (c *Circuits) circuit(l line) *circuit {
	k := &circuit{people: map[string]int{}}
	k.TwoStepCircuitBreaker = gobreaker.NewTwoStepCircuitBreaker[struct{}](gobreaker.Settings{Interval: within, BucketPeriod: within / 6, Timeout: openFor, IsExcluded: func(err error) bool { return err == errNothing },
		ReadyToTrip: func(n gobreaker.Counts) bool { return k.fails(n, l.who != everybody) },
		OnStateChange: func(_ string, _, to gobreaker.State) {
			k.mu.Lock()
			k.until = time.Now().Add(openFor)
			k.mu.Unlock()
			if c.Log == nil || l.who != everybody {
				return
			}
			switch to {
			case gobreaker.StateOpen:
				c.Log.Warn("an upstream is down: for a while nothing is sent there, then one request to see", "tenant", l.tenant, "upstream", l.up, "host", l.host, "for", openFor.String())
			case gobreaker.StateClosed:
				c.Log.Info("an upstream answers again", "tenant", l.tenant, "upstream", l.up, "host", l.host)
			}
		}})
	return k
}

// fails reports whether that is enough to send nothing any more.
func (k *circuit) fails(n gobreaker.Counts, one bool) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	often := n.Requests >= atLeast && 2*n.TotalFailures >= n.Requests
	if one {
		return often || n.ConsecutiveFailures >= inARow
	}
	all := k.away
	for _, failed := range k.people {
		all += min(failed, ofOne)
	}
	return all >= inARow || often && len(k.people) > 1
}

// note keeps for whom requests fail.
func (k *circuit) note(who string, how error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch how {
	case nil:
		clear(k.people)
		k.away = 0
	case errAway:
		k.away++
	case errFailed:
		if k.people[who] > 0 || len(k.people) < inARow {
			k.people[who]++
		}
	}
}

// watched counts the one request that sees whether an upstream is back as a no, if it takes long: others wait for it.
func (k *circuit) watched(done func(error)) func(error) {
	if k.State() != gobreaker.StateHalfOpen {
		return done
	}
	var once sync.Once
	slow := time.AfterFunc(probeTime, func() { once.Do(func() { done(errTooSlow) }) })
	return func(err error) {
		slow.Stop()
		once.Do(func() { done(err) })
	}
}

// refusal says what is down, and when it is worth trying.
func (k *circuit) refusal(title string) error {
	wait := probeTime // of the request that sees
	if k.State() == gobreaker.StateOpen {
		wait = max(time.Until(k.opens()), time.Second)
	}
	return fault.Later(title+" is failing, so this was not sent; do something else, and try again in "+wait.Round(time.Second).String(), wait, nil)
}

func (k *circuit) opens() time.Time {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.until
}

// Down is an upstream's host to which nothing is sent at the moment.
type Down struct {
	Tenant   identity.Tenant
	Upstream catalog.UpstreamName
	Host     string
	Until    time.Time // when one request is sent, to see
}

// Down lists them, of this process.
func (c *Circuits) Down() (l []Down) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for at, k := range c.of {
		if at.who == everybody && k.State() != gobreaker.StateClosed {
			l = append(l, Down{at.tenant, at.up, at.host, k.opens()})
		}
	}
	slices.SortFunc(l, func(a, b Down) int {
		return strings.Compare(string(a.Tenant)+" "+string(a.Upstream)+a.Host, string(b.Tenant)+" "+string(b.Upstream)+b.Host)
	})
	return l
}
