package remote_test

import (
	"context"
	"net/http"
	"sync"
	"testing"
	"time"

	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/internal/broker"
	"frontdesk.dev/frontdesk/internal/broker/remote"
	"frontdesk.dev/frontdesk/internal/kit/fault"
)

// TestDrain: a broker that stops lets the calls that run end, with their API requests and their outcome, and begins none.
func TestDrain(t *testing.T) {
	r := newRoom(t)
	s := overTLS(t, r)
	call, api, target := atAPI(t, r, s, http.MethodGet, "/echo", nil)
	drained := make(chan struct{})
	go func() { defer close(drained); r.remote.Drain(t.Context()) }()
	a, _ := r.call("list", `{}`)
	alice := signIn(t, r, s)
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		l, err := s.door.Open(t.Context(), alice, a)
		if fault.KindOf(err) == fault.Unavailable && fault.RetryAfter(err) > 0 {
			break
		}
		if err != nil || time.Now().After(end) {
			t.Fatal("calls begin on and on:", err)
		}
		l.Close(t.Context(), broker.Outcome{Result: audit.ResultOK})
	}
	resp, err := api.Do((&http.Request{Method: http.MethodGet, URL: target, Host: target.Host, Header: http.Header{}}).WithContext(t.Context()))
	read(t, resp, err)
	api.Close(t.Context(), broker.Outcome{Result: audit.ResultOK})
	if l, _, err := r.atAPIOf(t, s, r.keycard); err != nil {
		t.Error("a further API request of the call that runs:", err)
	} else {
		l.Close(t.Context(), broker.Outcome{Result: audit.ResultOK})
	}
	select {
	case <-drained:
		t.Error("it is over before the call")
	default:
	}
	call.Close(t.Context(), broker.Outcome{Result: audit.ResultOK})
	select {
	case <-drained:
	case <-time.After(20 * time.Second):
		t.Error("it goes on when nothing runs")
	}
	r.outcome(t, "call", audit.ResultOK)
}

// TestWhereTo: a gateway goes to the first broker that can be reached, with whatever it has to say, goes back to none that is away, and leaves
// one that is stopping for one that is not.
func TestWhereTo(t *testing.T) {
	r := newRoom(t)
	s := overTLS(t, r)
	alice := signIn(t, r, s)
	var mu sync.Mutex
	asked := map[string]int{} // guarded by mu
	at := func(name, address string) remote.Broker {
		to := r.gate.To(address)
		return remote.Broker{Address: name, Wire: wire(func(q *http.Request) (*http.Response, error) {
			mu.Lock()
			asked[name]++
			mu.Unlock()
			return to.RoundTrip(q)
		})}
	}
	nobody := r.address[:len(r.address)-1] + "0" // refuses, or is somebody who shows another certificate
	c := remote.NewClient([]remote.Broker{at("away", "127.0.0.1:1"), at("other", nobody), at("here", r.address)}, r.catalog, r.epochs.Alive, quiet)
	a, body := r.call("list", `{}`)
	for range 3 {
		l, err := c.Open(t.Context(), alice, a)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := l.Do(post(t.Context(), a.Server.URL, body))
		if got := read(t, resp, err); got != body {
			t.Error(got)
		}
		l.Close(t.Context(), broker.Outcome{Result: audit.ResultOK})
	}
	if asked["away"] != 1 || asked["here"] != 9 {
		t.Error("asked:", asked)
	}
	standing := c.Standing(t.Context())
	if standing["away"].Err == nil || standing["here"].Err != nil || standing["here"].Version != "1" {
		t.Errorf("%+v", standing)
	}
	if err := c.Ping(t.Context()); err != nil {
		t.Error("one answers:", err)
	}
	// Where none does, it says so, and that it can be tried again.
	alone := remote.NewClient([]remote.Broker{at("away", "127.0.0.1:1")}, r.catalog, r.epochs.Alive, quiet)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if _, err := alone.Open(ctx, alice, a); fault.KindOf(err) != fault.Unavailable || fault.Message(err) != "the broker's process does not answer; try again later" {
		t.Error(err)
	}
	if err := alone.Ping(ctx); err == nil {
		t.Error("it answers")
	}
}

// TestAnOlderBroker refuses what it does not know with a sentence that says what to do.
func TestAnOlderBroker(t *testing.T) {
	r := newRoom(t)
	s := overTLS(t, r)
	alice := signIn(t, r, s)
	newer := remote.NewClient(one(wire(func(q *http.Request) (*http.Response, error) {
		q.URL.Path = "/v2/open"
		return r.gate.To(r.address).RoundTrip(q)
	})), r.catalog, r.epochs.Alive, quiet)
	a, _ := r.call("list", `{}`)
	if _, err := newer.Open(t.Context(), alice, a); fault.KindOf(err) != fault.Unavailable || fault.Message(err) != "the broker's process does not know what this gateway asks for: it is of an earlier version; brokers are upgraded first" {
		t.Error(err)
	}
}
