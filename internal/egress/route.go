package egress

import (
	"net/http"
	"net/url"
	"strings"

	"frontdesk.dev/frontdesk/internal/broker"
	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/kit/outbound"
)

// route is where a request wants to go, as its line says; nothing of it is trusted to exist.
type route struct {
	tenant    identity.Tenant     // "" where a proxy is spoken to: the keycard names it
	upstreams []*catalog.Upstream // that can be meant
	origin    string              // of a proxy's request; "" at the base URL
	host      string              // at the base URL: what stands after @; "" = the upstream's first origin
	path      string              // canonical, with its leading slash
	query     string
	site      *url.URL // where the request went in the place of the first origin; nil: there
	last      bool     // the connection ends with this answer
	prefix    string   // of the egress path, for rewriting Location; "" at a proxy, whose client knows the API's own addresses
}

var errMisdirected = &statusError{http.StatusMisdirectedRequest, "misdirected", "the request names another host than the one that its connection was opened for"}

// asProxy reports whether the sender knows that it speaks to a proxy: inside of a tunnel it believes to speak to the API.
func asProxy(r *http.Request) bool { return r.Method == http.MethodConnect || r.URL.Host != "" }

// route finds the door: a tunnel's requests belong to its authority, a line in absolute form names its own, and what is left
// is the base URL's.
func (p *Proxy) route(r *http.Request) (route, error) {
	if _, twice := r.Header["Host"]; twice {
		return route{}, errMisdirected // HTTP/2 with both :authority and Host
	}
	scheme, line, absolute := cutScheme(r.RequestURI)
	d := doorOf(r)
	if !absolute && d.authority == "" {
		rt, err := parseRoute(line)
		if up := p.Catalog.Upstream(rt.tenant, rt.base); up != nil {
			rt.upstreams = []*catalog.Upstream{up}
		}
		return rt.route, err
	}
	authority := r.Host
	if absolute {
		end := strings.IndexAny(line, "/?#")
		if end < 0 {
			line, end = line+"/", len(line)
		}
		authority, line = line[:end], line[end:]
		if line[0] == '?' {
			line = "/" + line
		}
	} else {
		scheme = d.scheme
	}
	origin, err := originOf(scheme, authority)
	if err != nil {
		return route{}, err
	}
	if d.authority != "" && origin != d.scheme+"://"+d.authority {
		return route{}, errMisdirected
	}
	rt := route{origin: origin, upstreams: p.Catalog.Snapshot().At(origin)}
	if len(rt.upstreams) == 0 {
		return rt, notListed(origin)
	}
	path, query, _ := strings.Cut(line, "?")
	rt.query = query
	if err := checkQuery(query); err != nil {
		return rt, err
	}
	rt.path, err = catalog.CanonicalPath(path)
	return rt, err
}

func notListed(origin string) error {
	return &statusError{http.StatusForbidden, "host_not_listed", "egress lets nothing through to " + origin + ": no upstream of the config lists it"}
}

// cutScheme splits a request target in absolute form (RFC 9112 section 3.2.2).
func cutScheme(target string) (scheme, rest string, absolute bool) {
	scheme, rest, ok := strings.Cut(target, "://")
	if !ok || strings.ContainsAny(scheme, "/?#") {
		return "", target, false
	}
	return strings.ToLower(scheme), rest, true
}

// originOf gives an authority (RFC 9110 section 7.2) its one spelling, with its port. Everything that two readers could
// understand differently is refused: user info, lists, empty ports, escapes, other scripts, odd numbers for addresses.
// A final dot and capitals mean nothing and are folded.
func originOf(scheme, authority string) (string, error) {
	for _, c := range []byte(authority) {
		if !catalog.Unreserved(c) && c != ':' && c != '[' && c != ']' || c == '~' {
			return "", badRequest("the host is not written as a plain name or address, with or without a port")
		}
	}
	host, port := authority, ""
	if i := strings.LastIndexByte(authority, ':'); i > strings.LastIndexByte(authority, ']') {
		if host, port = authority[:i], authority[i:]; port == ":" {
			return "", badRequest("the port of the host is empty")
		}
	}
	origin, err := outbound.Origin(scheme + "://" + strings.TrimSuffix(host, ".") + port)
	if err != nil {
		return "", badRequest("the host is not written as a plain name or address, with or without a port")
	}
	return origin, nil
}

// baseRoute is a route of the base-URL door, which names its upstream.
type baseRoute struct {
	route
	base catalog.UpstreamName
}

// parseRoute reads the request line itself: what the HTTP library made of it has been decoded already.
func parseRoute(line string) (baseRoute, error) {
	path, query, _ := strings.Cut(line, "?")
	rt := baseRoute{route: route{tenant: identity.DefaultTenant, query: query}}
	if rest, ok := strings.CutPrefix(path, "/t/"); ok {
		tenant, rest, _ := strings.Cut(rest, "/")
		rt.tenant, rt.prefix, path = identity.Tenant(tenant), "/t/"+tenant, "/"+rest
	}
	rest, ok := strings.CutPrefix(path, "/egress/")
	if !ok {
		return rt, &statusError{http.StatusNotFound, "not_found", "this is the egress of Frontdesk: use /egress/<upstream>/<path>, or set it as HTTPS_PROXY"}
	}
	name, rest, _ := strings.Cut(rest, "/")
	rt.base, rt.prefix = catalog.UpstreamName(name), rt.prefix+"/egress/"+name
	if host, ok := strings.CutPrefix(rest, "@"); ok {
		rt.host, rest, _ = strings.Cut(host, "/")
		if rt.host == "" {
			return rt, badRequest("the host after @ is empty")
		}
	}
	if err := checkQuery(query); err != nil {
		return rt, err
	}
	var err error
	rt.path, err = catalog.CanonicalPath("/" + rest)
	return rt, err
}

func checkQuery(query string) error {
	if _, err := url.ParseQuery(query); err != nil || strings.ContainsAny(query, ";#") {
		return badRequest("the query can be read in more than one way")
	}
	return nil
}

// upstream is the one that is meant: at a proxy, of those that list the host, the first that the keycard's server uses.
func (rt route) upstream(h *broker.Holding) (*catalog.Upstream, error) {
	if rt.origin == "" {
		if len(rt.upstreams) == 0 {
			return nil, fault.New(fault.Denied, "there is no such upstream for this server", nil)
		}
		return rt.upstreams[0], nil
	}
	for _, n := range h.Server.Needs {
		for _, up := range rt.upstreams {
			if up.Tenant == h.Ticket.Tenant && up.Name == n.Upstream {
				return up, nil
			}
		}
	}
	return nil, fault.New(fault.Denied, "server "+string(h.Server.Name)+" uses no upstream that lists this host", nil)
}

// target is the URL that is called: one authority, exactly as the config lists it, drives policy, credential, dial and Host.
func (rt route) target(up *catalog.Upstream) (*url.URL, error) {
	if strings.Contains(strings.ToLower(rt.path), "%2f") && !up.Provider.EncodedSlash {
		return nil, badRequest("the path holds an encoded slash")
	}
	for _, a := range up.Aliases {
		if rt.origin == catalog.Canonical(a.From) || rt.origin == "" && rt.host == a.From.Host {
			return rt.at(a.To, strings.TrimSuffix(a.To.EscapedPath(), "/")+rt.path)
		}
	}
	for i, o := range up.Origins {
		raw, ok := rt.under(o, i == 0)
		if !ok {
			continue
		}
		return rt.at(o, raw)
	}
	if rt.origin != "" {
		return nil, fault.New(fault.Denied, "this path does not lie under the upstream's base URL", nil)
	}
	return nil, fault.New(fault.Denied, "this host is not one of the upstream's", nil)
}

func (rt route) at(o *url.URL, path string) (*url.URL, error) {
	decoded, err := url.PathUnescape(path)
	if err != nil {
		return nil, badRequest("the path is not well formed")
	}
	return &url.URL{Scheme: o.Scheme, Host: o.Host, Path: decoded, RawPath: path, RawQuery: rt.query}, nil
}

// under returns the path at an origin of the upstream, if the route leads there. At the base URL the origin's own path goes
// before; at a proxy the client has written it already.
func (rt route) under(o *url.URL, first bool) (string, bool) {
	base := strings.TrimSuffix(o.EscapedPath(), "/")
	if rt.origin == "" {
		return base + rt.path, rt.host == o.Host || rt.host == "" && first
	}
	rest, ok := strings.CutPrefix(rt.path, base)
	return rt.path, ok && (rest == "" || rest[0] == '/') && catalog.Canonical(o) == rt.origin
}
