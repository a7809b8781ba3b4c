package pending_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/internal/broker"
	"frontdesk.dev/frontdesk/internal/gateway/pending"
)

// lease notes how it was closed. Nothing is sent by it.
type lease struct {
	call   string
	mu     sync.Mutex
	closed []audit.Result
	over   *sync.WaitGroup // done with the first Close, where a test waits for that
}

func (l *lease) Do(*http.Request) (*http.Response, error) { return nil, errors.New("nothing is sent") }
func (l *lease) Valid(context.Context) error              { return nil }
func (l *lease) State() broker.State                      { return broker.State{Call: audit.CallID(l.call)} }
func (l *lease) Close(_ context.Context, o broker.Outcome) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = append(l.closed, o.Result)
	if l.over != nil && len(l.closed) == 1 {
		l.over.Done()
	}
}

func (l *lease) ended() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return fmt.Sprint(l.closed)
}

var (
	fine   = broker.Outcome{Result: audit.ResultOK}
	unseen = fmt.Sprint([]audit.Result{audit.ResultUnknown})
	seen   = fmt.Sprint([]audit.Result{audit.ResultOK})
	open   = "[]"
)

func TestCancel(t *testing.T) {
	var c pending.Calls
	cause := errors.New("cancelled")
	run := func(k pending.Key) (context.Context, func()) {
		ctx, cancel := context.WithCancelCause(t.Context())
		return ctx, c.Run(k, cancel)
	}
	one, done := run(pending.InSession("s", []byte("1")))
	text, _ := run(pending.InSession("s", []byte(`"1"`)))
	other, _ := run(pending.InSession("r", []byte("1")))
	c.Cancel(pending.InSession("s", []byte("2")), cause)
	c.Cancel(pending.InSession("s", nil), cause)
	c.Cancel(pending.InSession("s", []byte("1")), cause)
	if context.Cause(one) != cause || text.Err() != nil || other.Err() != nil {
		t.Errorf("cancelled are %v, %v, %v; want the first alone", one.Err(), text.Err(), other.Err())
	}
	again, doneAgain := run(pending.InSession("s", []byte("1"))) // a client that uses an id twice
	done()
	c.Cancel(pending.InSession("s", []byte("1")), cause)
	if again.Err() == nil {
		t.Error("the end of an earlier call took the later one's place")
	}
	doneAgain()
	c.Cancel(pending.InSession("s", []byte("1")), cause)
}

// TestPark: a call ends once: as was seen, when its time is over, or when another takes its key.
func TestPark(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c pending.Calls
		const k pending.Key = "k"
		a, b := &lease{call: "a"}, &lease{call: "b"}
		if s := c.End(k, fine); s.Call != "" {
			t.Errorf("there is the call %q", s.Call)
		}
		c.Park(k, "alice", time.Minute, a)
		if s := c.End(k, fine); s.Call != "a" || a.ended() != seen {
			t.Errorf("the call %q ended %s", s.Call, a.ended())
		}
		time.Sleep(2 * time.Minute)
		if c.End(k, fine); a.ended() != seen {
			t.Errorf("it ended %s, want once", a.ended())
		}

		a = &lease{call: "a"}
		c.Park(k, "alice", time.Minute, a)
		time.Sleep(59 * time.Second)
		c.Park(k, "alice", time.Minute, b)
		if a.ended() != unseen || b.ended() != open {
			t.Errorf("whose key was taken ended %s, and whose it is now %s", a.ended(), b.ended())
		}
		time.Sleep(59 * time.Second) // the first one's time is over, and is not the second one's
		if synctest.Wait(); b.ended() != open {
			t.Errorf("ended %s before its time", b.ended())
		}
		time.Sleep(time.Second)
		if synctest.Wait(); b.ended() != unseen || a.ended() != unseen {
			t.Errorf("after its time it ended %s, and the first %s", b.ended(), a.ended())
		}
		if s := c.End(k, fine); s.Call != "" || b.ended() != unseen {
			t.Errorf("the call %q ended %s", s.Call, b.ended())
		}
	})
}

// TestParkBounded: one caller keeps so many waiting, and no more; what ends makes room, and nobody else is in his way.
func TestParkBounded(t *testing.T) {
	var c pending.Calls
	var all []*lease
	park := func(who string) *lease {
		l := &lease{}
		c.Park(pending.Key(fmt.Sprint(len(all))), who, time.Hour, l)
		all = append(all, l)
		return l
	}
	for range 1000 {
		park("alice")
	}
	if l := park("alice"); l.ended() != unseen {
		t.Errorf("one too many ended %s", l.ended())
	}
	if l := park("bob"); l.ended() != open {
		t.Errorf("another's ended %s", l.ended())
	}
	c.End("0", fine)
	if l := park("alice"); l.ended() != open {
		t.Errorf("after one has ended, the next ended %s", l.ended())
	}
	for i := range all {
		c.End(pending.Key(fmt.Sprint(i)), fine)
	}
	for i, l := range all {
		if n := len(l.closed); n != 1 {
			t.Errorf("%d was closed %d times", i, n)
		}
	}
}

// TestParkRaced: whoever comes first under one key, every lease is closed once.
func TestParkRaced(t *testing.T) {
	var c pending.Calls
	leases := make([]*lease, 500)
	var all, over sync.WaitGroup
	over.Add(len(leases))
	for i := range leases {
		leases[i] = &lease{over: &over}
		all.Go(func() {
			c.Park("k", "alice", time.Duration(i)*10*time.Microsecond, leases[i])
			if i%3 == 0 {
				c.End("k", fine)
			}
		})
	}
	all.Wait()
	c.End("k", fine)
	over.Wait()
	for i, l := range leases {
		if n := l.ended(); n != seen && n != unseen {
			t.Errorf("%d ended %s", i, n)
		}
	}
}
