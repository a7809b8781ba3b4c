// Package outbound is the one guarded door to the network.
//
// Two guards stand at it. Named lets through exactly the origins (scheme, host, port) of the config file, private and
// loopback addresses among them. Found is for URLs that somebody else wrote (metadata, JWKS, client documents, what an
// API set): https on port 443 to public addresses, and what is named besides. Link-local, metadata, multicast and
// unspecified addresses open for neither. A request is judged by its URL before anything is resolved, and every
// connection again by the address it is about to be made to, so a name that changes its mind gains nothing. Redirects
// are handed back, never followed; there are no cookies, no proxy but the configured one, no way to turn certificate
// checks off; between two processes of one deployment pinned certificates stand in their place (Pins). The package trusts the config file and the resolver's transport, not its answers. It does not know what
// a credential is, and its errors hold nothing that a peer sent.
package outbound

import (
	"context"
	"net"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"

	"golang.org/x/oauth2"

	"frontdesk.dev/frontdesk/internal/kit/fault"
)

// Config is what the operator's file says about the network. The zero Config names nothing: only public https opens.
type Config struct {
	// Named are origins as the file has them: scheme://host or scheme://host:port. With h2c as its scheme it is one of http, to which
	// HTTP/2 is spoken from the first byte (RFC 9113 section 3.3); through a proxy such a one is not reached.
	Named []string
	// Proxy is http://host:port or https://host:port; empty for none. What the environment says is ignored (httpoxy).
	// Through a proxy the name is checked and the proxy dials. Named loopback hosts are dialled directly all the same:
	// the proxy's loopback is another machine's.
	Proxy string
	// CAFile holds PEM certificates that are trusted beside the system's.
	CAFile string
	// DialTimeout bounds resolving and connecting, and then the TLS handshake. 0 means 10 s.
	DialTimeout time.Duration
	// HeaderTimeout bounds the wait for an answer's header. 0 means 5 min, which is the default limit of a call.
	HeaderTimeout time.Duration
	// FetchTimeout bounds a Do from its start to the last byte of the body. 0 means 30 s.
	FetchTimeout time.Duration
	// Resolver resolves names; nil is the system's.
	Resolver *net.Resolver
}

// Door is the process's way out. It is safe for concurrent use.
type Door struct {
	named, prior, found http.Transport                  // prior is for named origins of h2c
	origins             atomic.Pointer[map[origin]bool] // true: of h2c
	open                atomic.Pointer[map[origin]bool] // of these, those to which strangers may lead us; nil: none
	fetch               time.Duration
	proxied             bool
}

// New checks the config and returns a door. Its errors are fault.Invalid and say which line to change.
func New(c Config) (*Door, error) {
	proxy, err := parseProxy(c.Proxy)
	if err != nil {
		return nil, err
	}
	d := &Door{fetch: orDefault(c.FetchTimeout, 30*time.Second), proxied: proxy != nil}
	if err := d.SetNamed(c.Named); err != nil {
		return nil, err
	}
	roots, err := roots(c.CAFile)
	if err != nil {
		return nil, err
	}
	equip(&d.prior, c, roots, neverReached)
	d.prior.Protocols = new(http.Protocols)
	d.prior.Protocols.SetUnencryptedHTTP2(true)
	if proxy == nil {
		equip(&d.named, c, roots, neverReached)
		equip(&d.found, c, roots, notPublic)
		return d, nil
	}
	// All that the other two dial are the proxy and named loopback hosts, which the operator wrote down himself.
	equip(&d.named, c, roots, neverReached)
	equip(&d.found, c, roots, neverReached)
	d.named.OnProxyConnectResponse, d.found.OnProxyConnectResponse = proxyAnswered, proxyAnswered
	d.found.Proxy = http.ProxyURL(proxy)
	d.named.Proxy = func(r *http.Request) (*url.URL, error) {
		if isLoopback(r.URL.Hostname()) {
			return nil, nil
		}
		return proxy, nil
	}
	return d, nil
}

// SetNamed replaces the named origins, for requests that start from now on. On an error the old ones stay.
func (d *Door) SetNamed(origins []string) error { return d.set(&d.origins, origins) }

// SetOpen says which of the named origins strangers may lead us to, beside the public internet.
func (d *Door) SetOpen(origins []string) error { return d.set(&d.open, origins) }

func (d *Door) set(to *atomic.Pointer[map[origin]bool], origins []string) error {
	set := make(map[origin]bool, 2*len(origins))
	for _, o := range origins {
		if err := d.addOrigin(set, o); err != nil {
			return err
		}
	}
	to.Store(&set)
	return nil
}

// Named returns the client for what the config file names.
func (d *Door) Named() *Client { return &Client{door: d} }

// Found returns the client for URLs that came from elsewhere.
func (d *Door) Found() *Client { return &Client{door: d, found: true} }

// Chosen returns the client for URLs that somebody chose whom nobody knows. That the config names a place for another purpose opens it to
// nobody: only those of SetOpen count as named.
func (d *Door) Chosen() *Client { return &Client{door: d, found: true, chosen: true} }

// Tunnel connects to host:port by the guard for what is found, for bytes that are not ours to look into. Where a proxy is
// configured it is refused: the guard's judgement of addresses would not hold behind it.
func (d *Door) Tunnel(ctx context.Context, hostport string) (net.Conn, error) {
	at, err := parseAuthority("https", hostport)
	if err != nil {
		return nil, err
	}
	if why := at.notFindable(); why != "" {
		return nil, at.refuse(why)
	}
	if d.found.Proxy != nil {
		return nil, at.refuse("tunnels do not go through outbound.proxy")
	}
	c, err := d.found.DialContext(ctx, "tcp", at.origin().authority)
	if err != nil {
		return nil, explain(hostport, err)
	}
	return c, nil
}

// Close gives idle connections back. Requests under way are not touched.
func (d *Door) Close() {
	d.named.CloseIdleConnections()
	d.prior.CloseIdleConnections()
	d.found.CloseIdleConnections()
}

// Client sends requests through one of the guards. It is safe for concurrent use.
//
// Every error, those of reading a body included, is a fault: Invalid for a request that may not be sent like this,
// Denied where the guard refuses (nothing was resolved, or no connection was made), Unavailable where the other side is
// away, too slow, or breaks the protocol. Causes stay visible to errors.Is, context.Canceled among them.
type Client struct {
	door   *Door
	found  bool
	chosen bool
}

var _ http.RoundTripper = (*Client)(nil)

// RoundTrip sends one request and returns its answer, whatever its status; the request's context is the only bound on
// the body, which streams in both directions. After `101 Switching Protocols` the body is an io.ReadWriteCloser.
func (c *Client) RoundTrip(r *http.Request) (*http.Response, error) {
	transport, err := c.admit(r)
	if err != nil {
		if r.Body != nil {
			_ = r.Body.Close() // http.RoundTripper promises it
		}
		return nil, err
	}
	resp, err := transport.RoundTrip(r)
	if err != nil {
		return nil, explain(r.URL.Host, err)
	}
	if resp.StatusCode == http.StatusSwitchingProtocols {
		if len(r.Header["Upgrade"]) == 0 {
			_ = resp.Body.Close()
			return nil, fault.New(fault.Unavailable, r.URL.Host+" switched protocols without being asked to", nil)
		}
		return resp, nil
	}
	if resp.Body != http.NoBody {
		resp.Body = &body{ReadCloser: resp.Body, host: r.URL.Host}
	}
	return resp, nil
}

// Do is RoundTrip for a fetch of Frontdesk's own: the whole of it, reading the body included, must end within
// FetchTimeout, and it cannot switch protocols. The caller closes the body, or hands the response to ReadLimited.
func (c *Client) Do(r *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithTimeout(r.Context(), c.door.fetch)
	resp, err := c.RoundTrip(r.WithContext(ctx))
	if err != nil {
		cancel()
		return nil, err
	}
	b, ok := resp.Body.(*body)
	if !ok {
		b = &body{ReadCloser: resp.Body, host: r.URL.Host}
		resp.Body = b
	}
	b.done = cancel
	return resp, nil
}

// Library wraps the client for a library that insists on the standard one. Nothing is followed, as everywhere here.
func (c *Client) Library() *http.Client {
	return &http.Client{Transport: c, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// Into lets a library that takes its HTTP client from a context (golang.org/x/oauth2) use this one.
func (c *Client) Into(ctx context.Context) context.Context {
	return context.WithValue(ctx, oauth2.HTTPClient, c.Library())
}

// admit judges a request by what it says of itself, and returns the transport whose dialer judges addresses.
// For a named origin it is one look into a map.
func (c *Client) admit(r *http.Request) (*http.Transport, error) {
	u := r.URL
	switch {
	case u == nil || u.User != nil || u.Opaque != "" || r.Method == http.MethodConnect:
		return nil, fault.New(fault.Invalid, "outbound: a request needs a plain URL without user or password, and a method other than CONNECT", nil)
	case r.Host != "" && r.Host != u.Host:
		// One authority drives name, dial, SNI and Host: with a second one a request reaches a neighbour behind the same
		// front end.
		return nil, fault.New(fault.Invalid, "outbound: the Host header differs from the URL's host", nil)
	}
	if prior, ok := c.named(origin{u.Scheme, u.Host}); ok {
		return c.door.speaking(prior), nil
	}
	return c.admitOther(u)
}

func (c *Client) named(o origin) (prior, ok bool) {
	if prior, ok = (*c.door.origins.Load())[o]; ok && c.chosen {
		open := c.door.open.Load()
		if ok = open != nil; ok {
			_, ok = (*open)[o]
		}
	}
	return prior, ok
}

// speaking is the transport for what is named.
func (d *Door) speaking(prior bool) *http.Transport {
	if prior {
		return &d.prior
	}
	return &d.named
}

func (c *Client) admitOther(u *url.URL) (*http.Transport, error) {
	at, err := parseAuthority(u.Scheme, u.Host)
	if err != nil {
		return nil, err
	}
	if prior, ok := c.named(at.origin()); ok {
		return c.door.speaking(prior), nil
	}
	if !c.found {
		return nil, at.refuse("not in the config")
	}
	if why := at.notFindable(); why != "" {
		return nil, at.refuse(why)
	}
	return &c.door.found, nil
}

func orDefault(d, def time.Duration) time.Duration {
	if d > 0 {
		return d
	}
	return def
}
