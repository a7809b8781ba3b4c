// Package pending answers: which calls have begun here whose end is still to come?
//
// A legacy call can be cancelled by a later request of its session; the answer of one can come on another stream; and a task goes on
// after the call that began it was answered. Whoever finds such a call by its key has been asked before who he is: keys begin with
// what only its caller has, the session's id, or are of a task that is his.
package pending

import (
	"context"
	"sync"
	"time"

	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/internal/broker"
	"frontdesk.dev/frontdesk/internal/kit/web"
)

// Key is how a call is found.
type Key string

// InSession is the key of a call of a legacy session: by the session's id, and the request's as it stands in the message.
func InSession(session string, request []byte) Key { return Key(session + "\x00" + string(request)) }

// Calls are those of this process. The zero Calls are none. Safe for concurrent use.
type Calls struct {
	mu      sync.Mutex
	running map[Key]*context.CancelCauseFunc // guarded by mu, as is what follows
	parked  map[Key]*parked
	late    web.Crowd // those with parked calls
}

type parked struct {
	lease broker.Lease
	limit *time.Timer
	leave func() // the crowd
}

// maxParked bounds the calls of one caller that wait for their end.
const maxParked = 1000

// Run lets a call be cancelled until done is called.
func (c *Calls) Run(k Key, cancel context.CancelCauseFunc) (done func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.running == nil {
		c.running = map[Key]*context.CancelCauseFunc{}
	}
	own := &cancel
	c.running[k] = own
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.running[k] == own { // a client that gives two calls one id cancels the later one
			delete(c.running, k)
		}
	}
}

// Cancel ends the call, where it runs here.
func (c *Calls) Cancel(k Key, cause error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if cancel := c.running[k]; cancel != nil {
		(*cancel)(cause)
	}
}

// Park keeps the lease of a call whose end is still to come, until End, or the call's time is over: another replica may have seen
// its end. What stood under the key is over then. Too many of one caller (who) are closed at once.
func (c *Calls) Park(k Key, who string, life time.Duration, l broker.Lease) {
	unseen := broker.Outcome{Result: audit.ResultUnknown, Detail: "the end of the call was not seen here"}
	leave, ok := c.late.Enter(who, maxParked)
	if !ok {
		l.Close(context.Background(), broker.Outcome{Result: audit.ResultUnknown, Detail: "too many calls of this caller wait for their end"})
		return
	}
	p := &parked{lease: l, leave: leave}
	c.mu.Lock()
	old := c.parked[k]
	if c.parked == nil {
		c.parked = map[Key]*parked{}
	}
	c.parked[k], p.limit = p, time.AfterFunc(life, func() { c.expire(k, p, unseen) })
	c.mu.Unlock()
	if old != nil {
		old.end(unseen)
	}
}

// expire ends a parked call, if it is still the one under its key.
func (c *Calls) expire(k Key, p *parked, o broker.Outcome) {
	c.mu.Lock()
	still := c.parked[k] == p
	if still {
		delete(c.parked, k)
	}
	c.mu.Unlock()
	if still {
		p.end(o)
	}
}

// End closes a parked call, if it is here, and returns what is known of it.
func (c *Calls) End(k Key, o broker.Outcome) broker.State {
	c.mu.Lock()
	p := c.parked[k]
	delete(c.parked, k)
	c.mu.Unlock()
	if p == nil {
		return broker.State{}
	}
	return p.end(o)
}

// end is called once, by whoever took it out of the map.
func (p *parked) end(o broker.Outcome) broker.State {
	p.limit.Stop()
	p.leave()
	s := p.lease.State()
	p.lease.Close(context.Background(), o)
	return s
}
