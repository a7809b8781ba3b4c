package remote

import (
	"context"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/internal/broker"
	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/hosted"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/kit/secret"
)

// Servers that we run are run by gateways: a foreign program that breaks out of its sandbox finds no key there. What is said to one does
// not come by the broker's process, so nothing compares it with what was decided; what it does is API requests, each decided there.

// Processes are those that run at gateways (broker.Broker).
type Processes interface {
	// Process opens the act of a new one, of a server that we run; errors as of broker.Door.Open.
	Process(ctx context.Context, c *identity.Caller, s *catalog.Server) (*hosted.Card, error)
}

// begun is the act of a process, with what it runs on.
type begun struct {
	Lease     string       `json:"lease"`
	Act       audit.CallID `json:"act"`
	Keycard   string       `json:"keycard"`
	Expires   time.Time    `json:"expires"`
	Authority []byte       `json:"authority"` // PEM of the one that opens HTTPS at egress
}

// joining books a call on a process, by the leases of both.
type joining struct {
	Lease   string `json:"lease"`
	Process string `json:"process"`
}

// processes are the operations for servers that gateways run.
func (s *Server) processes(mux *http.ServeMux) {
	on(s, mux, opProcess, func(ctx context.Context, p peer, in closing) (begun, error) {
		h, err := s.table.of(p, in.Lease)
		if err != nil {
			return begun{}, err
		}
		if !h.act.Hosted() {
			return begun{}, errAct
		}
		card, err := s.Processes.Process(ctx, h.act.caller, h.act.Server)
		if err != nil {
			return begun{}, err
		}
		a := decided{Act: broker.Act{Kind: broker.KindProcess, Server: h.act.Server}, caller: h.act.caller}
		r, err := s.register(p, running{card}, a, card.Expires.Add(grace))
		if err != nil {
			return begun{}, err
		}
		return begun{r.id, card.Act, card.Keycard.Expose(), card.Expires, s.Keys.PEM()}, nil
	})
	on(s, mux, opJoin, func(_ context.Context, p peer, in joining) (struct{}, error) {
		h, err := s.table.of(p, in.Lease)
		if err != nil {
			return struct{}{}, err
		}
		r, err := s.table.of(p, in.Process)
		if err != nil {
			return struct{}{}, err
		}
		if r.act.Kind != broker.KindProcess || !h.act.Hosted() || !sameOwner(h, r) {
			return struct{}{}, errAct // what the process asks for would be asked for by somebody else's call
		}
		s.Calls.Join(h.lease.State().Call, r.lease.State().Call)
		return struct{}{}, nil
	})
}

// sameOwner reports whether two acts are one caller's, through one client, at one server.
func sameOwner(a, b *held) bool {
	x, y := a.act.caller, b.act.caller
	return x.Tenant == y.Tenant && x.Principal() == y.Principal() && x.Client == y.Client && a.act.Server.Name == b.act.Server.Name
}

// running is a process's own act among the leases. It sends nothing.
type running struct{ card *hosted.Card }

func (r running) Do(*http.Request) (*http.Response, error) { return nil, errAct }

func (r running) Valid(context.Context) error {
	if !r.card.Valid() {
		return errNoLease
	}
	return nil
}

func (r running) State() broker.State { return broker.State{Call: r.card.Act} }

func (r running) Close(_ context.Context, o broker.Outcome) { r.card.Close(o.Result, o.Detail) }

// cards are what the processes of a gateway run on. The zero cards is empty.
type cards struct {
	mu        sync.Mutex
	of        map[audit.CallID]*card // guarded by mu, as is what follows
	authority []byte
}

// card is what one process runs on.
type card struct {
	lease  string
	to     http.RoundTripper               // the process that has it
	caller atomic.Pointer[identity.Caller] // by his newest token
	lost   atomic.Bool                     // the broker's process does not know it any more
}

// Authority is the PEM of egress's authority, as of the last process that was begun: sandboxes are told whom to trust.
func (c *Client) Authority() []byte {
	c.cards.mu.Lock()
	defer c.cards.mu.Unlock()
	return c.cards.authority
}

// host has a server that we run answer, here.
func (l *lease) host(r *http.Request) (*http.Response, error) {
	if err := l.Valid(r.Context()); err != nil {
		return nil, err
	}
	return l.client.Hosts.RoundTrip(hosted.Ask{Caller: l.caller, Server: l.hosted, Request: r, Open: l.process, Join: l.join})
}

// process begins one for this lease's caller.
func (l *lease) process(ctx context.Context) (*hosted.Card, error) {
	c := l.client
	b, err := sayTo[begun](ctx, c, l.to, opProcess, closing{Lease: l.id})
	if err != nil {
		return nil, err
	}
	k := &card{lease: b.Lease, to: l.to}
	k.caller.Store(l.caller)
	c.cards.mu.Lock()
	defer c.cards.mu.Unlock()
	if c.cards.of == nil {
		c.cards.of = map[audit.CallID]*card{}
	}
	c.cards.of[b.Act], c.cards.authority = k, b.Authority
	return &hosted.Card{Act: b.Act, Keycard: secret.New(b.Keycard), Expires: b.Expires, Valid: func() bool { return !k.lost.Load() && c.alive(k.caller.Load()) },
		Close: func(r audit.Result, detail string) { c.over(k, b.Act, r, detail) }}, nil
}

// over records how a process ended. Where that is not heard, the broker's side ends it when it hears nothing else either.
func (c *Client) over(k *card, act audit.CallID, r audit.Result, detail string) {
	c.cards.mu.Lock()
	delete(c.cards.of, act)
	c.cards.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), shortTime)
	defer cancel()
	if _, err := sayTo[struct{}](ctx, c, k.to, opClose, closing{k.lease, r, detail}); err != nil {
		c.log.Warn("how a hosted server's process ended could not be told to the broker's process, which will write that it is unknown", "process", act, "error", err)
	}
}

// join books this call on a process.
func (l *lease) join(process audit.CallID) error {
	l.client.cards.mu.Lock()
	k := l.client.cards.of[process]
	l.client.cards.mu.Unlock()
	if k == nil {
		return errNoLease
	}
	if k.to != l.to { // the broker's process that has it is not asked any more
		k.lost.Store(true)
		return errNoLease
	}
	ctx, cancel := context.WithTimeout(context.Background(), shortTime)
	defer cancel()
	_, err := sayTo[struct{}](ctx, l.client, l.to, opJoin, joining{l.id, k.lease})
	if fault.KindOf(err) == fault.NotFound { // the broker's process was started anew, or thought this one gone
		k.lost.Store(true)
	}
	if err == nil {
		k.caller.Store(l.caller)
	}
	return err
}
