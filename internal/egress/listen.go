package egress

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
)

const (
	headerTimeout = 10 * time.Second // for a handshake, and for a request's head
	keycardTime   = 30 * time.Second // until a keycard that stands in a body is there
	idleTimeout   = 2 * time.Minute
	maxHeader     = 64 << 10
)

// door says what a connection was opened for. It stands as the connection's local address, which is what it is: the place
// that the client believes to speak to.
type door struct {
	net.Addr
	authority string // of a tunnel: host and port in canonical form; "" = egress itself
	scheme    string // of a tunnel, as its first byte told
	process   string // of a listener in a sandbox: the act of the process that runs there
	direct    bool   // of one to which the API's own name led: the handshake says whose
}

func doorOf(r *http.Request) *door {
	if d, ok := r.Context().Value(http.LocalAddrContextKey).(*door); ok {
		return d
	}
	return &door{}
}

// doored is a connection of which some bytes have been read already.
type doored struct {
	net.Conn
	door  *door
	early []byte
}

func (c *doored) LocalAddr() net.Addr { return c.door }

func (c *doored) Read(p []byte) (int, error) {
	if len(c.early) > 0 {
		n := copy(p, c.early)
		c.early = c.early[n:]
		return n, nil
	}
	return c.Conn.Read(p)
}

// CloseWrite ends one direction, where the connection can.
func (c *doored) CloseWrite() error { return closeWrite(c.Conn) }

func closeWrite(c net.Conn) error {
	if half, ok := c.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

// intake is the listener of the one HTTP server behind all doors.
type intake struct {
	conns chan net.Conn
	done  chan struct{}

	mu        sync.Mutex
	closed    bool                  // guarded by mu
	listeners map[net.Listener]bool // guarded by mu
	waiting   map[net.Conn]bool     // not yet with the HTTP server, or no longer; guarded by mu
}

func (i *intake) Accept() (net.Conn, error) {
	select {
	case c := <-i.conns:
		return c, nil
	case <-i.done:
		return nil, net.ErrClosed
	}
}

// Close ends all listeners; connections stay.
func (i *intake) Close() error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.closed {
		return nil
	}
	i.closed = true
	close(i.done)
	var errs []error
	for l := range i.listeners {
		errs = append(errs, l.Close())
	}
	return errors.Join(errs...)
}

func (i *intake) Addr() net.Addr { return &net.TCPAddr{} }

// hold keeps a connection that the HTTP server does not know of, so that Close ends it. False: it is too late for it.
func (i *intake) hold(c net.Conn) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	if !i.closed {
		i.waiting[c] = true
	}
	return !i.closed
}

func (i *intake) release(c net.Conn) {
	i.mu.Lock()
	defer i.mu.Unlock()
	delete(i.waiting, c)
}

func (i *intake) cut() {
	i.mu.Lock()
	defer i.mu.Unlock()
	for c := range i.waiting {
		_ = c.Close() // it is over for it, whatever it says
	}
}

func (p *Proxy) begin() {
	p.start.Do(func() {
		p.in = &intake{conns: make(chan net.Conn), done: make(chan struct{}), listeners: map[net.Listener]bool{}, waiting: map[net.Conn]bool{}}
		p.blind = make(chan struct{}, maxBlind)
		protocols := new(http.Protocols)
		protocols.SetHTTP1(true)
		protocols.SetHTTP2(true)
		protocols.SetUnencryptedHTTP2(true) // gRPC without TLS, on loopback
		p.server = &http.Server{Handler: p, ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader, Protocols: protocols, DisableGeneralOptionsHandler: true,
			ErrorLog: slog.NewLogLogger(p.Log.Handler(), slog.LevelDebug)}
		go func() { _ = p.server.Serve(p.in) }() // ends with the intake
	})
}

// Serve takes connections from a listener, which it closes in the end, as http.Server.Serve does. Many listeners may be
// served at once.
func (p *Proxy) Serve(l net.Listener) error { return p.serveAt(l, door{}) }

// ServeProcess is Serve for the listener in a hosted server's sandbox. The keycard of the process is good there and nowhere
// else, and no other one is good there: whoever gets to see it outside holds nothing.
func (p *Proxy) ServeProcess(l net.Listener, act audit.CallID) error {
	return p.serveAt(l, door{process: string(act)})
}

// ServeDirect is ServeProcess for the listener to which the names of the API's hosts lead, in a sandbox: whoever comes there believes to
// speak with the host itself, by TLS. It is served as in a tunnel to the host that the handshake names (RFC 6066 section 3).
func (p *Proxy) ServeDirect(l net.Listener, act audit.CallID) error {
	return p.serveAt(l, door{process: string(act), direct: true})
}

// atHome checks that a process's keycard came from its own sandbox, and any other from outside of all.
func (p *Proxy) atHome(r *http.Request, t identity.Ticket) error {
	home := ""
	if t.Kind == identity.TicketProcess {
		home = t.Txn
	}
	if from := doorOf(r).process; from != home {
		p.Log.Warn("egress: a keycard came from elsewhere than where it was given; whoever sent it should not have it", "tenant", t.Tenant, "server", t.Server, "of_process", home, "from_process", from)
		return errTicket
	}
	return nil
}

func (p *Proxy) serveAt(l net.Listener, d door) error {
	p.begin()
	defer func() { _ = l.Close() }()
	p.in.mu.Lock()
	if p.in.closed {
		p.in.mu.Unlock()
		return http.ErrServerClosed
	}
	p.in.listeners[l] = true
	p.in.mu.Unlock()
	for {
		c, err := l.Accept()
		if err == nil {
			at := d
			at.Addr = c.LocalAddr()
			go p.meet(&doored{Conn: c, door: &at})
			continue
		}
		p.in.mu.Lock()
		closed := p.in.closed
		delete(p.in.listeners, l)
		p.in.mu.Unlock()
		if closed {
			return http.ErrServerClosed
		}
		return err
	}
}

// Shutdown takes no more connections and waits for requests that run, and then for ctx alone; blind tunnels end at once.
func (p *Proxy) Shutdown(ctx context.Context) error {
	p.begin()
	err := p.in.Close()
	p.in.cut()
	return errors.Join(err, p.server.Shutdown(ctx))
}

// Close ends everything.
func (p *Proxy) Close() error {
	p.begin()
	err := p.in.Close()
	p.in.cut()
	return errors.Join(err, p.server.Close())
}

// meet looks at a connection's first byte: TLS is ended here, with a certificate for whoever the client believes to speak to.
func (p *Proxy) meet(c *doored) {
	if !p.in.hold(c.Conn) {
		_ = c.Close()
		return
	}
	served, err := p.greet(c)
	p.in.release(c.Conn)
	if err != nil {
		p.Log.Debug("egress: a connection was refused", "door", c.door.authority, "error", err)
		p.refused("handshake")
		_ = c.Close() // there is nobody to tell
		return
	}
	select {
	case p.in.conns <- served:
	case <-p.in.done:
		_ = c.Close()
	}
}

func (p *Proxy) greet(c *doored) (net.Conn, error) {
	if err := c.SetDeadline(time.Now().Add(headerTimeout)); err != nil {
		return nil, err
	}
	if len(c.early) == 0 {
		first := make([]byte, 1)
		if _, err := c.Conn.Read(first); err != nil {
			return nil, err
		}
		c.early = first
	}
	var served net.Conn = c
	const handshake = 22 // TLS's record type of a ClientHello (RFC 8446 section 5.1)
	secure := c.early[0] == handshake
	if c.door.direct && !secure {
		return nil, fault.New(fault.Invalid, "a host's own port is spoken to by TLS", nil)
	}
	if c.door.authority != "" {
		c.door.scheme = "http"
		if secure {
			c.door.scheme = "https"
		}
	}
	if secure {
		t := tls.Server(c, &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"},
			SessionTicketsDisabled: true, // a ticket is good for this config alone, which is this connection's
			GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
				return p.certificate(hello, c)
			}})
		if err := t.Handshake(); err != nil {
			return nil, err
		}
		if served = t; t.ConnectionState().NegotiatedProtocol == "h2" {
			return served, c.SetDeadline(time.Time{})
		}
	}
	served = &gate{Conn: served}
	return served, c.SetDeadline(time.Time{})
}

// certificate is for the host of the tunnel, or for the name or address under which egress itself was reached. In a tunnel
// the server name has to be the tunnel's host; only of an address it may be missing, since addresses have none there
// (RFC 6066 section 3).
func (p *Proxy) certificate(hello *tls.ClientHelloInfo, c *doored) (*tls.Certificate, error) {
	name := strings.ToLower(strings.TrimSuffix(hello.ServerName, "."))
	if c.door.direct {
		c.door.authority, c.door.scheme = net.JoinHostPort(name, "443"), "https"
	}
	if c.door.authority == "" {
		if name == "" {
			host, _, err := net.SplitHostPort(c.door.Addr.String())
			if err != nil {
				return nil, err
			}
			name = host
		}
		return p.Certs.Leaf(hello.Context(), name)
	}
	host, _, err := net.SplitHostPort(c.door.authority)
	if err != nil {
		return nil, err
	}
	if name != host && (name != "" || net.ParseIP(host) == nil) {
		return nil, fault.New(fault.Denied, "the handshake names another host than CONNECT did", nil)
	}
	if len(p.Catalog.Snapshot().At("https://"+c.door.authority)) == 0 {
		return nil, notListed("https://" + c.door.authority)
	}
	return p.Certs.Leaf(hello.Context(), host)
}
