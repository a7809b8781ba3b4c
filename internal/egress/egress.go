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

// Certifier makes certificates for the names in the config, and refuses all others (vault.Authority).
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
	// The whole body may take as long as its call lasts; the listener's own limits are for headers.
	c := http.NewResponseController(w)
	_, _, _ = c.SetReadDeadline(time.Time{}), c.SetWriteDeadline(time.Time{}), c.EnableFullDuplex()
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
	ticket, err := takeTicket(r, &rt)
	if err != nil {
		return err
	}
	holding, err := p.Door.Holder(r.Context(), rt.tenant, ticket)
	if err != nil {
		return err
	}
	if err := p.atHome(r, holding.Ticket); err != nil {
		return err
	}
	// What the keycard opened ends with it, a body that never comes and an answer that nobody reads among it.
	_, _ = c.SetReadDeadline(holding.Ticket.Expires), c.SetWriteDeadline(holding.Ticket.Expires)
	ctx, cancel := context.WithDeadline(r.Context(), holding.Ticket.Expires)
	defer cancel()
	r = r.WithContext(ctx)
	act, target, err := rt.act(r, holding)
	if err != nil {
		return err
	}
	up := act.Upstream
	r.Body = guarded(r, ticket)
	lease, err := p.Door.Open(r.Context(), holding.Caller, act)
	if err != nil {
		return err
	}
	outcome := broker.Outcome{Result: audit.ResultUnknown, Detail: "the request was broken off"}
	defer func() { lease.Close(r.Context(), outcome) }()
	ctx, end := p.whileValid(r.Context(), lease)
	defer end()
	resp, err := lease.Do(p.outgoing(r, up, target).WithContext(ctx))
	if err != nil {
		outcome = broker.Outcome{Result: audit.ResultFailed, Detail: "the upstream could not be reached, or broke off"}
		if needed, ok := errors.AsType[*catalog.Needed](err); ok {
			outcome = broker.Outcome{Result: audit.ResultNeeds, Detail: needed.Error()}
			return needed
		}
		if fault.KindOf(err) == fault.Internal {
			err = fault.New(fault.Unavailable, up.Title+" could not be reached, or broke off; nothing is known of what it did", err)
		}
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode == http.StatusSwitchingProtocols {
		outcome, err = p.switchOver(ctx, w, resp, ticket)
		return err
	}
	rt.last = isUpgrade(r) // nobody knows what the client sends next on a connection that it thought to upgrade
	outcome, err = p.relay(w, resp, up, rt)
	return err
}

// whileValid is a context that ends when the lease's access does.
func (p *Proxy) whileValid(ctx context.Context, l broker.Lease) (context.Context, func()) {
	ctx, cancel := context.WithCancel(ctx)
	stop := p.rounds.Visit(func() bool { return l.Valid(ctx) == nil }, cancel)
	return ctx, func() { stop(); cancel() }
}

// answer is the one switch from kinds to egress's wire. Bodies are JSON that a server's author can read; an MCP server that
// passes the message on passes on a sentence that an agent can act on.
func (p *Proxy) answer(w http.ResponseWriter, r *http.Request, err error) {
	status, code := http.StatusInternalServerError, "internal"
	if isUpgrade(r) || r.Method == http.MethodConnect { // what was sent behind it already is no request
		w.Header().Set("Connection", "close")
	}
	if _, ok := errors.AsType[*catalog.Needed](err); ok {
		writeJSON(w, http.StatusForbidden, "connection_needed", "the user has to connect first; Frontdesk asks for it when this tool call ends")
		return
	}
	if k, ok := errors.AsType[*statusError](err); ok {
		w.Header().Set("Connection", "close")
		p.refused(k.code)
		writeJSON(w, k.status, k.code, k.msg)
		return
	}
	switch fault.KindOf(err) {
	case fault.Invalid:
		status, code = http.StatusBadRequest, "invalid_request"
		w.Header().Set("Connection", "close")
	case fault.Unauthenticated:
		status, code = http.StatusUnauthorized, "invalid_token"
		if asProxy(r) { // who speaks to a proxy is answered as by a proxy (RFC 9110 section 15.5.8)
			status = http.StatusProxyAuthRequired
			w.Header().Set("Proxy-Authenticate", `Basic realm="frontdesk"`)
		}
	case fault.Denied, fault.NotFound:
		status, code = http.StatusForbidden, "denied"
	case fault.RateLimited:
		status, code = http.StatusTooManyRequests, "rate_limited"
		if after := fault.RetryAfter(err); after > 0 {
			w.Header().Set("Retry-After", seconds(after))
		}
	case fault.Unavailable:
		status, code = http.StatusBadGateway, "unavailable"
		if fault.RetryAfter(err) > 0 {
			status = http.StatusServiceUnavailable
			w.Header().Set("Retry-After", seconds(fault.RetryAfter(err)))
		}
	default:
		p.Log.Error("egress", "method", r.Method, "error", err)
	}
	p.refused(code)
	writeJSON(w, status, code, fault.Message(err))
}

func (p *Proxy) refused(code string) {
	if p.Refused != nil {
		p.Refused(code)
	}
}
