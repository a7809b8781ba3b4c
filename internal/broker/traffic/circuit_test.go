package traffic_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"frontdesk.dev/frontdesk/internal/broker"
	"frontdesk.dev/frontdesk/internal/broker/traffic"
	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
)

// site is a vendor that answers as it was told, behind the broker.
type site struct {
	broker.Door
	mu   sync.Mutex
	sent int
	says func() (int, error)
}

func (s *site) Open(context.Context, *identity.Caller, broker.Act) (broker.Lease, error) {
	return &visit{s: s}, nil
}

type visit struct {
	broker.Lease
	s *site
}

func (v *visit) Do(*http.Request) (*http.Response, error) {
	v.s.mu.Lock()
	v.s.sent++
	says := v.s.says
	v.s.mu.Unlock()
	status, err := says()
	if err != nil {
		return nil, err
	}
	return &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(""))}, nil
}

func (v *visit) Close(context.Context, broker.Outcome) {}

func (s *site) say(status int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.says = func() (int, error) { return status, err }
}

// ask sends one request there and says whether it was refused here.
func ask(t *testing.T, d *traffic.Door, who, up string) (refused error) {
	t.Helper()
	a := broker.Act{Kind: broker.KindAPI, Server: &catalog.Server{Tenant: "default", Name: "issues"}, Holding: &broker.Holding{}, Host: up + ".example.com",
		Upstream: &catalog.Upstream{Tenant: "default", Name: catalog.UpstreamName(up), Title: up, Provider: &catalog.Provider{}}}
	l, err := d.Open(t.Context(), &identity.Caller{Tenant: "default", User: identity.UserID(who)}, a)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close(t.Context(), broker.Outcome{})
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://"+a.Host+"/x", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := l.Do(r)
	if err == nil {
		_ = resp.Body.Close()
		return nil
	}
	if fault.KindOf(err) == fault.Unavailable && fault.RetryAfter(err) > 0 {
		if !strings.Contains(fault.Message(err), up) {
			t.Errorf("it does not say what is down: %v", err)
		}
		return err
	}
	return nil
}

var (
	dead = fault.New(fault.Unavailable, "cannot be reached", &net.OpError{Op: "dial", Err: context.DeadlineExceeded})
	mute = fault.New(fault.Unavailable, "did not answer in time", context.DeadlineExceeded)
	ours = fault.New(fault.Unavailable, "the answer was refused", nil)
	left = fault.New(fault.Unavailable, "given up", context.Canceled)
)

// TestCircuit: what fails in a row for everybody is asked no more, then by one request, and is open to all when that succeeds.
func TestCircuit(t *testing.T) {
	for name, c := range map[string]struct {
		status int
		err    error
		people []string // in turn
		opens  bool
	}{
		"no connection":              {err: dead, people: []string{"alice"}, opens: true},
		"no answer, for two":         {err: mute, people: []string{"alice", "bob"}, opens: true},
		"502 for two":                {status: 502, people: []string{"alice", "bob"}, opens: true},
		"404 for two":                {status: 404, people: []string{"alice", "bob"}},
		"429 for two":                {status: 429, people: []string{"alice", "bob"}},
		"refused by ourselves":       {err: ours, people: []string{"alice", "bob"}},
		"given up by who asked":      {err: left, people: []string{"alice", "bob"}},
		"500 that one person causes": {status: 500, people: []string{"mallory"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &site{}
				d := &traffic.Door{Door: s, Now: time.Now}
				s.say(c.status, c.err)
				for i := range 10 {
					_ = ask(t, d, c.people[i%len(c.people)], "github")
				}
				if got := ask(t, d, "carol", "github") != nil; got != c.opens || (len(d.Circuits.Down()) > 0) != c.opens {
					t.Fatalf("carol is refused: %v; down is %v", got, d.Circuits.Down())
				}
				if s.say(200, nil); ask(t, d, "carol", "slack") != nil {
					t.Error("another upstream is not down")
				}
				if !c.opens {
					return
				}
				if s.sent != 5+1 {
					t.Errorf("%d requests were sent to an upstream that is down", s.sent-1)
				}
				time.Sleep(31 * time.Second)
				s.say(503, nil)
				if ask(t, d, "carol", "github") != nil {
					t.Error("nobody looks whether it is back")
				}
				if ask(t, d, "dave", "github") == nil {
					t.Error("it is still down, and all are let through")
				}
				time.Sleep(31 * time.Second)
				s.say(200, nil)
				for range 3 {
					if err := ask(t, d, "carol", "github"); err != nil {
						t.Errorf("it is back: %v", err)
					}
				}
			})
		})
	}
}

// TestWhoMakesItFail: somebody for whom a vendor fails is kept back alone.
func TestWhoMakesItFail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &site{}
		d := &traffic.Door{Door: s, Now: time.Now}
		s.say(500, nil)
		for range 50 {
			_ = ask(t, d, "mallory", "github")
		}
		if s.sent != 5 {
			t.Errorf("%d of mallory's requests were sent", s.sent)
		}
		s.say(200, nil)
		if ask(t, d, "mallory", "github") == nil {
			t.Error("mallory may go on")
		}
		if err := ask(t, d, "alice", "github"); err != nil {
			t.Errorf("alice pays for mallory: %v", err)
		}
	})
}

// TestOneLooks: while one request sees whether the upstream is back, others wait for it, for a bounded time.
func TestOneLooks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &site{}
		d := &traffic.Door{Door: s, Now: time.Now}
		s.say(0, dead)
		for range 5 {
			_ = ask(t, d, "alice", "github")
		}
		time.Sleep(31 * time.Second)
		hang := make(chan struct{})
		s.mu.Lock()
		s.says = func() (int, error) { <-hang; return 200, nil }
		s.mu.Unlock()
		var looking sync.WaitGroup
		looking.Go(func() { _ = ask(t, d, "alice", "github") })
		synctest.Wait()
		if ask(t, d, "bob", "github") == nil {
			t.Error("two look at once")
		}
		time.Sleep(11 * time.Second) // it took too long: that is a no
		if ask(t, d, "bob", "github") == nil {
			t.Error("an upstream that hangs is taken for one that is back")
		}
		time.Sleep(31 * time.Second)
		s.say(200, nil)
		if err := ask(t, d, "bob", "github"); err != nil {
			t.Errorf("the next one may look: %v", err)
		}
		close(hang)
		looking.Wait()
	})
}

// TestFlapping: an upstream that fails every other time is down as well.
func TestFlapping(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &site{}
		d := &traffic.Door{Door: s, Now: time.Now}
		for i := range 60 {
			s.say([]int{500, 500, 200}[i%3], nil)
			_ = ask(t, d, []string{"alice", "bob"}[i%2], "github")
			time.Sleep(100 * time.Millisecond)
		}
		if len(d.Circuits.Down()) != 1 {
			t.Errorf("%d requests were sent, and it is not down", s.sent)
		}
	})
}
