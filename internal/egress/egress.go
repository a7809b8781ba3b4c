// Package egress serves API calls out: what an MCP server sends with its transaction token arrives here, and leaves
// with the credential.
//
// It reads host, method and path, refuses what two readers could understand differently, and passes every request
// through the broker. It trusts a transaction token and nothing else about its sender. It holds no credential.
package egress

import (
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/internal/broker"
	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
)

// Proxy is the base-URL door: /egress/<upstream>/<path> is the upstream's first origin, /egress/<upstream>/@<host>/<path>
// another one of its list; both under /t/<tenant> for other tenants than the default. All fields are required.
type Proxy struct {
	Door    broker.Door
	Catalog *catalog.Catalog
	Log     *slog.Logger
	// Hop marks requests that passed this deployment, so that a loop ends at its second turn.
	Hop string
}

// ServeHTTP implements http.Handler.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	err := p.serve(w, r)
	if errors.Is(err, errBroken) {
		panic(http.ErrAbortHandler) // net/http's own way to drop a connection in the middle of an answer
	}
	if err != nil {
		p.answer(w, r, err)
	}
}

func (p *Proxy) serve(w http.ResponseWriter, r *http.Request) error {
	// The whole body may take as long as its call lasts; the listener's own limits are for headers.
	c := http.NewResponseController(w)
	_, _ = c.SetReadDeadline(time.Time{}), c.SetWriteDeadline(time.Time{})
	if err := p.checkRequest(r); err != nil {
		return err
	}
	route, err := parseRoute(r.RequestURI)
	if err != nil {
		return err
	}
	ticket, err := takeTicket(r, p.Catalog.Upstream(route.tenant, route.upstream))
	if err != nil {
		return err
	}
	holding, err := p.Door.Holder(r.Context(), route.tenant, ticket)
	if err != nil {
		return err
	}
	up := p.Catalog.Upstream(route.tenant, route.upstream)
	if up == nil {
		return fault.New(fault.Denied, "there is no upstream "+string(route.upstream)+" for this server", nil)
	}
	target, err := route.target(up)
	if err != nil {
		return err
	}
	lease, err := p.Door.Open(r.Context(), holding.Caller, broker.Act{Kind: broker.KindAPI, Server: holding.Server, Method: r.Method, Upstream: up,
		Host: target.Host, Path: target.EscapedPath(), Session: session(holding), Holding: holding})
	if err != nil {
		return err
	}
	outcome := broker.Outcome{Result: audit.ResultUnknown, Detail: "the request was broken off"}
	defer func() { lease.Close(r.Context(), outcome) }()
	resp, err := lease.Do(p.outgoing(r, up, target))
	if err != nil {
		outcome = broker.Outcome{Result: audit.ResultFailed, Detail: "the upstream could not be reached, or broke off"}
		if fault.KindOf(err) == fault.Internal {
			err = fault.New(fault.Unavailable, up.Title+" could not be reached, or broke off; nothing is known of what it did", err)
		}
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	outcome, err = p.relay(w, resp, up, route)
	return err
}

func session(h *broker.Holding) audit.CallID {
	if h.Ticket.Kind == identity.TicketSession {
		return audit.CallID(h.Ticket.Txn)
	}
	return ""
}

// answer is the one switch from kinds to egress's wire. Bodies are JSON that a server's author can read; an MCP server that
// passes the message on passes on a sentence that an agent can act on.
func (p *Proxy) answer(w http.ResponseWriter, r *http.Request, err error) {
	status, code := http.StatusInternalServerError, "internal"
	if _, ok := errors.AsType[*catalog.Needed](err); ok {
		writeJSON(w, http.StatusForbidden, "connection_needed", "the user has to connect first; Frontdesk asks for it when this tool call ends")
		return
	}
	if k, ok := errors.AsType[*statusError](err); ok {
		w.Header().Set("Connection", "close")
		writeJSON(w, k.status, k.code, k.msg)
		return
	}
	switch fault.KindOf(err) {
	case fault.Invalid:
		status, code = http.StatusBadRequest, "invalid_request"
		w.Header().Set("Connection", "close")
	case fault.Unauthenticated:
		status, code = http.StatusUnauthorized, "invalid_token"
	case fault.Denied, fault.NotFound:
		status, code = http.StatusForbidden, "denied"
	case fault.RateLimited:
		status, code = http.StatusTooManyRequests, "rate_limited"
	case fault.Unavailable:
		status, code = http.StatusBadGateway, "unavailable"
		if fault.RetryAfter(err) > 0 {
			status = http.StatusServiceUnavailable
			w.Header().Set("Retry-After", seconds(fault.RetryAfter(err)))
		}
	default:
		p.Log.Error("egress", "method", r.Method, "error", err)
	}
	writeJSON(w, status, code, fault.Message(err))
}

// route is where a request wants to go, as its line says; nothing of it is trusted to exist.
type route struct {
	tenant   identity.Tenant
	upstream catalog.UpstreamName
	host     string // "" = the upstream's first origin
	path     string // canonical, with its leading slash
	query    string
	prefix   string // of the egress path, for rewriting Location
}

// parseRoute reads the request line itself: what the HTTP library made of it has been decoded already.
func parseRoute(line string) (route, error) {
	path, query, _ := strings.Cut(line, "?")
	rt := route{tenant: identity.DefaultTenant, query: query}
	if rest, ok := strings.CutPrefix(path, "/t/"); ok {
		tenant, rest, _ := strings.Cut(rest, "/")
		rt.tenant, rt.prefix, path = identity.Tenant(tenant), "/t/"+tenant, "/"+rest
	}
	rest, ok := strings.CutPrefix(path, "/egress/")
	if !ok {
		return rt, &statusError{http.StatusNotFound, "not_found", "this is the egress of Frontdesk: use /egress/<upstream>/<path>"}
	}
	name, rest, _ := strings.Cut(rest, "/")
	rt.upstream, rt.prefix = catalog.UpstreamName(name), rt.prefix+"/egress/"+name
	if host, ok := strings.CutPrefix(rest, "@"); ok {
		rt.host, rest, _ = strings.Cut(host, "/")
		if rt.host == "" {
			return rt, badRequest("the host after @ is empty")
		}
	}
	if _, err := url.ParseQuery(query); err != nil || strings.Contains(query, ";") {
		return rt, badRequest("the query can be read in more than one way")
	}
	var err error
	rt.path, err = canonicalPath("/" + rest)
	return rt, err
}

// target is the URL that is called: one authority, exactly as the config lists it, drives policy, credential, dial and Host.
func (rt route) target(up *catalog.Upstream) (*url.URL, error) {
	if strings.Contains(strings.ToLower(rt.path), "%2f") && !up.Provider.EncodedSlash {
		return nil, badRequest("the path holds an encoded slash")
	}
	for i, o := range up.Origins {
		if rt.host != o.Host && (rt.host != "" || i > 0) {
			continue
		}
		u := *o
		raw := strings.TrimSuffix(u.EscapedPath(), "/") + rt.path
		decoded, err := url.PathUnescape(raw)
		if err != nil {
			return nil, badRequest("the path is not well formed")
		}
		u.Path, u.RawPath, u.RawQuery = decoded, raw, rt.query
		return &u, nil
	}
	return nil, fault.New(fault.Denied, "this host is not one of the upstream's", nil)
}
