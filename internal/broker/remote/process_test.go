package remote_test

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/internal/broker"
	"frontdesk.dev/frontdesk/internal/broker/remote"
	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/hosted"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
)

// hosts answer as a program would, and keep what they were asked with.
type hosts struct{ asked []hosted.Ask }

func (h *hosts) RoundTrip(a hosted.Ask) (*http.Response, error) {
	h.asked = append(h.asked, a)
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: a.Request.Body, Request: a.Request}, nil
}

// own is a call to a server that runs at the gateway, as far as its program.
func (r *room) own(t *testing.T, s sides, h *hosts, subject string, server catalog.ServerName) (broker.Lease, hosted.Ask) {
	t.Helper()
	c := r.token(t, s, subject, string(server))
	a, body := r.call("list", `{}`)
	a.Server = r.catalog.Server(tenant, server)
	l, err := s.door.Open(t.Context(), c, a)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := l.Do(post(t.Context(), a.Server.URL, body))
	if got := read(t, resp, err); got != body {
		t.Fatal("the program was told", got)
	}
	return l, h.asked[len(h.asked)-1]
}

// atAPIOf opens an API request with a keycard.
func (r *room) atAPIOf(t *testing.T, s sides, keycard string) (broker.Lease, *broker.Holding, error) {
	t.Helper()
	h, err := s.door.Holder(t.Context(), tenant, keycard)
	if err != nil {
		return nil, nil, err
	}
	up := r.catalog.Upstream(tenant, "tracker")
	l, err := s.door.Open(t.Context(), h.Caller, broker.Act{Kind: broker.KindAPI, Server: h.Server, Method: http.MethodGet, Upstream: up, Host: up.Origins[0].Host, Path: "/echo", Holding: h})
	return l, h, err
}

// TestAProcessAtTheGateway runs under an act of its own at the broker, is its caller's alone, and opens nothing once that has ended.
func TestAProcessAtTheGateway(t *testing.T) {
	r := newRoom(t)
	s := overTLS(t, r)
	h := &hosts{}
	s.door.(*remote.Client).Hosts = h
	call, ask := r.own(t, s, h, "alice", "own")
	card, err := ask.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(s.door.(*remote.Client).Authority()) == 0 {
		t.Error("the sandbox is not told whom to trust")
	}
	// Before a call is booked on it, what it asks for is asked for by nobody's call.
	l, holding, err := r.atAPIOf(t, s, card.Keycard.Expose())
	if err != nil || holding.Call != card.Act || holding.Ticket.Kind != identity.TicketProcess {
		t.Fatal(err, holding)
	}
	l.Close(t.Context(), broker.Outcome{Result: audit.ResultOK})
	if err := ask.Join(card.Act); err != nil {
		t.Fatal(err)
	}
	if _, holding, err = r.atAPIOf(t, s, card.Keycard.Expose()); err != nil || holding.Call != call.State().Call {
		t.Error("what it asks for is not asked for by its open call:", err, holding)
	}
	// Neither bob's call nor one of alice's at another server is booked on it: its requests would go by their leave.
	for who, server := range map[string]catalog.ServerName{"bob": "own", "alice": "second"} {
		_, other := r.own(t, s, h, who, server)
		if err := other.Join(card.Act); fault.KindOf(err) != fault.Denied {
			t.Errorf("a call of %s at %s is booked on it: %v", who, server, err)
		}
	}
	if !card.Valid() {
		t.Error("who tried ended it")
	}
	card.Close(audit.ResultOK, "idle")
	r.outcome(t, "process", audit.ResultOK)
	if _, _, err := r.atAPIOf(t, s, card.Keycard.Expose()); fault.KindOf(err) != fault.Unauthenticated {
		t.Error("its keycard works after its end:", err)
	}
	if err := ask.Join(card.Act); fault.KindOf(err) != fault.NotFound {
		t.Error("a call is booked on what has ended:", err)
	}
}

// begun is a room with a process of alice's at the gateway.
func begun(t *testing.T) (r *room, s sides, h *hosts, ask hosted.Ask, card *hosted.Card) {
	t.Helper()
	r = newRoom(t)
	s, h = overTLS(t, r), &hosts{}
	s.door.(*remote.Client).Hosts = h
	_, ask = r.own(t, s, h, "alice", "own")
	var err error
	if card, err = ask.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	return r, s, h, ask, card
}

// TestAProcessOfAnEndedSignIn opens nothing, even where its gateway lets it run on.
func TestAProcessOfAnEndedSignIn(t *testing.T) {
	r, s, _, ask, card := begun(t)
	if err := r.epochs.End(t.Context(), tenant, identity.EpochUser, identity.Everybody); err != nil {
		t.Fatal(err)
	}
	if card.Valid() {
		t.Error("the gateway does not hear of it")
	}
	if _, _, err := r.atAPIOf(t, s, card.Keycard.Expose()); fault.KindOf(err) != fault.Unauthenticated {
		t.Error("its keycard works on:", err)
	}
	if _, err := ask.Open(t.Context()); fault.KindOf(err) != fault.Unauthenticated {
		t.Error("another is begun:", err)
	}
}

// TestAProcessThatTheBrokerForgot: after the broker's process was started anew, calls get another process, not one that opens nothing.
func TestAProcessThatTheBrokerForgot(t *testing.T) {
	r, s, h, _, card := begun(t)
	later := time.Now().Add(45 * time.Second)
	r.clock.Store(&later)
	r.outcome(t, "process", audit.ResultUnknown)
	r.clock.Store(nil)
	_, ask := r.own(t, s, h, "alice", "own")
	if err := ask.Join(card.Act); fault.KindOf(err) != fault.NotFound || card.Valid() {
		t.Error("a call is booked on it, or it is thought to serve:", err, card.Valid())
	}
}

// TestWhatIsNoProcess: a gateway gets a keycard for a process only at a server that we run, and sends the broker's process nothing to it.
func TestWhatIsNoProcess(t *testing.T) {
	r := newRoom(t)
	s := overTLS(t, r)
	process, lease := strings.Repeat("p", 40), []byte(nil)
	spied := remote.NewClient(one(wire(func(q *http.Request) (*http.Response, error) {
		q.Header.Set("Frontdesk-Process", process)
		if strings.HasSuffix(q.URL.Path, "/lease/state") {
			lease, _ = io.ReadAll(q.Body)
			q.Body = io.NopCloser(bytes.NewReader(lease))
		}
		return r.gate.To(r.address).RoundTrip(q)
	})), r.catalog, r.epochs.Alive, quiet)
	ask := func(op string) string {
		q, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://broker/v1/"+op, bytes.NewReader(lease))
		if err != nil {
			t.Fatal(err)
		}
		q.Header.Set("Frontdesk-Process", process)
		resp, err := r.gate.To(r.address).RoundTrip(q)
		return read(t, resp, err)
	}
	a, _ := r.call("list", `{}`)
	l, err := spied.Open(t.Context(), signIn(t, r, s), a)
	if err != nil {
		t.Fatal(err)
	}
	l.State()
	if got := ask("lease/process"); !strings.Contains(got, "no act that a gateway begins") || strings.Contains(got, "keycard") {
		t.Error("a process of a server that runs elsewhere:", got)
	}
	// A message to a server that runs at the gateway goes nowhere from here.
	h := &hosts{}
	spied.Hosts = h
	mine := sides{spied, s.flows, s.notary, s.verify}
	l, _ = r.own(t, mine, h, "alice", "own")
	l.State()
	head := append([]byte{0, 0, 0, byte(len(lease))}, lease...)
	q, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://broker/v1/lease/do", bytes.NewReader(head))
	if err != nil {
		t.Fatal(err)
	}
	q.Header.Set("Frontdesk-Process", process)
	resp, err := r.gate.To(r.address).RoundTrip(q)
	if got := read(t, resp, err); !strings.Contains(got, "no act that a gateway begins") {
		t.Error("it is sent:", got)
	}
	if got := ask("lease/process"); !strings.Contains(got, "keycard") {
		t.Error("where it may:", got)
	}
}
