// Package egress serves API calls out: what an MCP server sends with its transaction token (the keycard) arrives here, and
// leaves with the credential.
//
// One listener has three doors: a base URL (/egress/<upstream>/<path>), an HTTP proxy (absolute-form requests), and CONNECT,
// whose TLS is ended here with certificates of the deployment's own authority. Behind the doors there is one way. It reads
// host, method and path, refuses what two readers could understand differently, and passes every request through the
// broker. It trusts a transaction token and nothing else about its sender. It holds no credential, and no key of the
// authority.
package egress

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/internal/broker"
	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/kit/web"
)

// Proxy is egress. All fields but Tunnel and Trace are required. It serves any number of listeners (Serve) until Shutdown or Close.
type Proxy struct {
	Door    broker.Door
	Catalog *catalog.Catalog
	Certs   Certifier
	Log     *slog.Logger
	// Hop marks requests that passed this deployment, so that a loop ends at its second turn.
	Hop string
	// Tunnel opens a connection to a host that no upstream lists, to be passed on blindly; nil: such hosts are refused.
	Tunnel func(ctx context.Context, authority string) (net.Conn, error)
	// Trace reads the trace that a request carries; nil where nothing is traced.
	Trace func(r *http.Request) context.Context

	// Refused counts, by the code of the answer, what did not get as far as the broker's record or was refused there; may be nil.
	Refused func(code string)

	start  sync.Once
	server *http.Server
	in     *intake
	rounds web.Rounds    // whose access has ended
	blind  chan struct{} // one place for each tunnel that is passed on blindly
}

// Certifier makes certificates for the names in the config, and refuses all others (keyring.Authority).
type Certifier interface {
	Leaf(ctx context.Context, name string) (*tls.Certificate, error)
}

// ServeHTTP implements http.Handler.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	err := p.serve(w, r)
	if errors.Is(err, errBroken) {
		panic(http.ErrAbortHandler) // net/http's own way to drop a connection in the middle of an answer
	}
	if err != nil {
		drain(w, r)
		p.answer(w, r, err)
	}
}

func (p *Proxy) serve(w http.ResponseWriter, r *http.Request) error {
	// The whole body may take as long as its call lasts, once it is known which call: a keycard in the body has to come soon.
	c := http.NewResponseController(w)
	_, _, _ = c.SetReadDeadline(time.Now().Add(keycardTime)), c.SetWriteDeadline(time.Time{}), c.EnableFullDuplex()
	if r.Method == http.MethodConnect {
		return p.connect(w, r)
	}
	if p.Trace != nil {
		r = r.WithContext(p.Trace(r))
	}
	if err := p.checkRequest(r); err != nil {
		return err
	}
	rt, err := p.route(r)
	if err != nil {
		return err
	}
	k, err := takeTicket(r, &rt)
	if err != nil {
		return err
	}
	if k.text == "" {
		return p.await(w, r, rt)
	}
	g, err := p.open(r, rt, k, func(t time.Time) { _, _ = c.SetReadDeadline(t), c.SetWriteDeadline(t) })
	if err != nil {
		return err
	}
	defer g.end()
	resp, err := g.send()
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode == http.StatusSwitchingProtocols {
		g.outcome, err = p.switchOver(g.ctx, w, resp, k.text)
		return err
	}
	rt.last = isUpgrade(r) // nobody knows what the client sends next on a connection that it thought to upgrade
	g.outcome, err = p.relay(w, resp, g.up, rt)
	return err
}

// passage is a request that may go on: decided, on record, and with the lease that sends it.
type passage struct {
	ctx     context.Context // ends with the keycard, and with its person's access
	lease   broker.Lease
	up      *catalog.Upstream
	out     *http.Request
	outcome broker.Outcome
	end     func() // records the outcome
}

// open takes a request with its keycard through the broker. bound is told when the keycard ends, before anything of the body is read:
// what it opened ends with it, a body that never comes and an answer that nobody reads among it.
func (p *Proxy) open(r *http.Request, rt route, k keycard, bound func(time.Time)) (*passage, error) {
	holding, err := p.Door.Holder(r.Context(), rt.tenant, k.text)
	if err != nil {
		return nil, err
	}
	if err := p.atHome(r, holding.Ticket); err != nil {
		return nil, err
	}
	bound(holding.Ticket.Expires)
	ctx, cancel := context.WithDeadline(r.Context(), holding.Ticket.Expires)
	r = r.WithContext(ctx)
	act, target, err := rt.act(r, holding)
	if err != nil {
		cancel()
		return nil, err
	}
	act.Swap = k.swap
	if err := guarded(r, k.text); err != nil {
		cancel()
		return nil, err
	}
	lease, err := p.Door.Open(ctx, holding.Caller, act)
	if err != nil {
		cancel()
		return nil, err
	}
	g := &passage{lease: lease, up: act.Upstream, outcome: broker.Outcome{Result: audit.ResultUnknown, Detail: "the request was broken off"}}
	valid, stop := p.whileValid(ctx, lease)
	g.ctx, g.out = valid, p.outgoing(r, act.Upstream, target).WithContext(valid)
	g.end = func() { stop(); lease.Close(ctx, g.outcome); cancel() }
	return g, nil
}

// send sends it. On an error the outcome says already how it ended.
func (g *passage) send() (*http.Response, error) {
	resp, err := g.lease.Do(g.out)
	if err == nil {
		return resp, nil
	}
	g.outcome = broker.Outcome{Result: audit.ResultFailed, Detail: "the upstream could not be reached, or broke off"}
	if needed, ok := errors.AsType[*catalog.Needed](err); ok {
		g.outcome = broker.Outcome{Result: audit.ResultNeeds, Detail: needed.Error()}
		return nil, needed
	}
	switch fault.KindOf(err) {
	case fault.Denied: // by the credential, before anything left
		g.outcome = broker.Outcome{Result: audit.ResultDenied, Detail: fault.Message(err)}
	case fault.Internal:
		err = fault.New(fault.Unavailable, g.up.Title+" could not be reached, or broke off; nothing is known of what it did", err)
	}
	return nil, err
}

// whileValid is a context that ends when the lease's access does.
func (p *Proxy) whileValid(ctx context.Context, l broker.Lease) (context.Context, func()) {
	ctx, cancel := context.WithCancel(ctx)
	stop := p.rounds.Visit(func() bool { return l.Valid(ctx) == nil }, cancel)
	return ctx, func() { stop(); cancel() }
}

// answer says a refusal. Bodies are JSON that a server's author can read; an MCP server that passes the message on passes on a
// sentence that an agent can act on.
func (p *Proxy) answer(w http.ResponseWriter, r *http.Request, err error) {
	n := p.refusal(r, err)
	if n.last || isUpgrade(r) || r.Method == http.MethodConnect { // what was sent behind it already is no request
		w.Header().Set("Connection", "close")
	}
	if n.status == http.StatusProxyAuthRequired {
		w.Header().Set("Proxy-Authenticate", `Basic realm="frontdesk"`)
	}
	if n.after > 0 {
		w.Header().Set("Retry-After", seconds(n.after))
	}
	writeJSON(w, n.status, n.code, n.msg)
}

// refusal is the one switch from kinds to egress's wire.
func (p *Proxy) refusal(r *http.Request, err error) refusal {
	if _, ok := errors.AsType[*catalog.Needed](err); ok {
		return refusal{status: http.StatusForbidden, code: "connection_needed", msg: "the user has to connect first; Frontdesk asks for it when this tool call ends"}
	}
	n := refusal{status: http.StatusInternalServerError, code: "internal", msg: fault.Message(err)}
	if k, ok := errors.AsType[*statusError](err); ok {
		n = refusal{status: k.status, code: k.code, msg: k.msg, last: true}
		p.refused(n.code)
		return n
	}
	switch fault.KindOf(err) {
	case fault.Invalid:
		n.status, n.code, n.last = http.StatusBadRequest, "invalid_request", true
	case fault.Unauthenticated:
		n.status, n.code = http.StatusUnauthorized, "invalid_token"
		if asProxy(r) { // who speaks to a proxy is answered as by a proxy (RFC 9110 section 15.5.8)
			n.status = http.StatusProxyAuthRequired
		}
	case fault.Denied, fault.NotFound:
		n.status, n.code = http.StatusForbidden, "denied"
	case fault.RateLimited:
		n.status, n.code, n.after = http.StatusTooManyRequests, "rate_limited", fault.RetryAfter(err)
	case fault.Unavailable:
		n.status, n.code, n.after = http.StatusBadGateway, "unavailable", fault.RetryAfter(err)
		if n.after > 0 {
			n.status = http.StatusServiceUnavailable
		}
	default:
		p.Log.Error("egress", "method", r.Method, "error", err)
	}
	p.refused(n.code)
	return n
}

func (p *Proxy) refused(code string) {
	if p.Refused != nil {
		p.Refused(code)
	}
}
