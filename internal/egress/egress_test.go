package egress_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/internal/broker"
	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/egress"
	"frontdesk.dev/frontdesk/internal/exchange"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/kit/outbound"
	"frontdesk.dev/frontdesk/internal/kit/redact"
	"frontdesk.dev/frontdesk/internal/kit/secret"
	"frontdesk.dev/frontdesk/internal/vault"
	"frontdesk.dev/frontdesk/internal/vault/keyring"
	"frontdesk.dev/frontdesk/internal/vault/kms"
)

const (
	keycard     = "eyJhbGciOiJIUzI1NiJ9.eyJ0eG4iOiIxLjEifQ.c2lnbmF0dXJlLW9mLWFsaWNl"
	otherCard   = "eyJhbGciOiJIUzI1NiJ9.eyJ0eG4iOiIxLjIifQ.c2lnbmF0dXJlLW9mLWJvYnM_"
	processCard = "eyJhbGciOiJIUzI1NiJ9.eyJ0eG4iOiIxLjcifQ.c2lnbmF0dXJlLW9mLXByb2M"
	credential  = "trk_CNRYaliceCNRYalice0123456789abcdefGHIJ"
)

// stage is egress on a socket, between servers and two APIs: one on http, one on https with HTTP/2.
type stage struct {
	*egress.Proxy
	t             *testing.T
	addr          string // of egress
	roots         *x509.CertPool
	caFile        string
	vendorFile    string // the authority of the APIs
	plain, secure *api
	door          *door
	saw           string // by a test's API
	ups           map[catalog.UpstreamName]*catalog.Upstream
}

// api is a vendor that remembers what it got.
type api struct {
	url  string
	host string
	mux  *http.ServeMux

	mu  sync.Mutex
	got []*http.Request
}

func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	a.got = append(a.got, r.Clone(context.Background()))
	a.mu.Unlock()
	a.mux.ServeHTTP(w, r)
}

func (a *api) seen() []*http.Request {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.got)
}

func (a *api) forget() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.got = nil
}

// door stands for the broker: it knows keycards, and its leases place the credential and take it out of answers.
type door struct {
	out broker.Sender

	mu     sync.Mutex
	acts   []broker.Act
	ended  []broker.Outcome
	refuse error
	more   string        // one more keycard of alice's
	left   chan struct{} // closed when her access has ended
}

func (d *door) Ready(context.Context, *identity.Caller, broker.Act) (broker.Answer, error) {
	return broker.Answer{}, errors.New("egress asks for nothing beforehand")
}

func (d *door) Visible(context.Context, *identity.Caller, *catalog.Server, string, []string) ([]bool, error) {
	return nil, errors.New("egress lists nothing")
}

func (d *door) Holder(_ context.Context, t identity.Tenant, ticket string) (*broker.Holding, error) {
	h := &broker.Holding{Ticket: identity.Ticket{Tenant: "default", Kind: identity.TicketCall, Txn: "1.1", Expires: time.Now().Add(time.Hour)}, Caller: &identity.Caller{Tenant: "default", User: "alice"}, Call: "1.1",
		Server: &catalog.Server{Tenant: "default", Name: "issues", Needs: []catalog.Need{{Upstream: "plain"}, {Upstream: "secure"}, {Upstream: "second"}}}}
	switch {
	case t != "" && t != "default":
	case ticket == keycard || d.more != "" && ticket == d.more:
		return h, nil
	case ticket == processCard:
		h.Ticket.Kind, h.Ticket.Txn = identity.TicketProcess, "1.7"
		return h, nil
	case ticket == otherCard:
		h.Server = &catalog.Server{Tenant: "default", Name: "chat", Needs: []catalog.Need{{Upstream: "secure"}}}
		return h, nil
	}
	return nil, fault.New(fault.Unauthenticated, "not a keycard", nil)
}

func (d *door) Open(_ context.Context, _ *identity.Caller, a broker.Act) (broker.Lease, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.refuse != nil {
		return nil, d.refuse
	}
	d.acts = append(d.acts, a)
	cred := &exchange.Credential{Fill: vault.Fill(secret.New(credential))}
	cred.Place, cred.Marks = vault.Place(a.Upstream.Provider.Injection, secret.New(credential))
	return &lease{d, cred.At(a.Swap)}, nil
}

func (d *door) opened() []broker.Act {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.acts)
}

type lease struct {
	door *door
	*exchange.Credential
}

func (l *lease) Do(r *http.Request) (*http.Response, error) {
	resp, marks, err := l.Send(l.door.out, r)
	if err != nil {
		return nil, err
	}
	if err := redact.New(marks).Response(resp); err != nil {
		return nil, fault.New(fault.Unavailable, "not cleanable", err)
	}
	return resp, nil
}

func (l *lease) Valid(context.Context) error {
	select {
	case <-l.door.left:
		return fault.New(fault.Unauthenticated, "access has ended", nil)
	default:
		return nil // a nil channel says nothing
	}
}

func (l *lease) State() broker.State { return broker.State{} }
func (l *lease) Close(_ context.Context, o broker.Outcome) {
	l.door.mu.Lock()
	defer l.door.mu.Unlock()
	l.door.ended = append(l.door.ended, o)
}

// keyStore is a keyring.Store for one process.
type keyStore struct {
	mu sync.Mutex
	l  []keyring.Key
}

func (k *keyStore) Keys(_ context.Context, t identity.Tenant, purpose string) ([]keyring.Key, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(k.l), func(x keyring.Key) bool { return x.Tenant != t || x.Purpose != purpose }), nil
}

func (k *keyStore) AddKey(_ context.Context, n keyring.Key) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.l = append(k.l, n)
	return nil
}

func (k *keyStore) UpdateKey(context.Context, keyring.Key) error { return nil }
func (k *keyStore) NameID(context.Context, identity.Tenant, string, string) (id [16]byte, err error) {
	return id, nil
}

// authority makes a certification authority for names, and writes its certificate into a file.
func authority(t *testing.T, names ...string) (a *keyring.Authority, file string) {
	t.Helper()
	dir := t.TempDir()
	wrap, err := kms.OpenKeyFile(filepath.Join(dir, "vault.key"), true)
	if err != nil {
		t.Fatal(err)
	}
	a = &keyring.Authority{Keys: &keyStore{}, Wrap: wrap, Now: time.Now}
	if err := a.Use(t.Context(), names); err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(dir, "ca.pem")
	if err := os.WriteFile(file, a.PEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	return a, file
}

func newAPI(t *testing.T, certs *keyring.Authority) *api {
	t.Helper()
	a := &api{mux: http.NewServeMux()}
	srv := httptest.NewUnstartedServer(a)
	if certs == nil {
		srv.Start()
		a.url = srv.URL
	} else {
		srv.EnableHTTP2 = true
		srv.TLS = &tls.Config{GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) { return certs.Leaf(h.Context(), "localhost") }}
		srv.StartTLS()
		_, port, _ := net.SplitHostPort(srv.Listener.Addr().String())
		a.url = "https://localhost:" + port
	}
	t.Cleanup(srv.Close)
	a.host = a.url[strings.Index(a.url, "//")+2:]
	a.mux.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Protocol", r.Proto)
		b, err := io.ReadAll(r.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		fmt.Fprintf(w, "%s %s %s\n%v\n%s", r.Method, r.URL, r.Host, r.Header, b)
	})
	return a
}

func parsed(t *testing.T, s string) *url.URL {
	t.Helper()
	u, err := url.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func upstreamAt(t *testing.T, name catalog.UpstreamName, at string) *catalog.Upstream {
	t.Helper()
	return &catalog.Upstream{Tenant: "default", Name: name, Title: string(name), Provider: &catalog.Provider{Name: "Vendor"}, WebSocket: true, Origins: []*url.URL{parsed(t, at)}}
}

func newStage(t *testing.T, change ...func(*stage)) *stage {
	t.Helper()
	vendors, vendorFile := authority(t, "localhost")
	s := &stage{t: t, vendorFile: vendorFile, plain: newAPI(t, nil), secure: newAPI(t, vendors), roots: x509.NewCertPool()}
	out, err := outbound.New(outbound.Config{Named: []string{s.plain.url, s.secure.url}, CAFile: vendorFile})
	if err != nil {
		t.Fatal(err)
	}
	s.door = &door{out: out.Named()}
	provider := &catalog.Provider{Name: "Vendor"}
	s.ups = map[catalog.UpstreamName]*catalog.Upstream{
		"plain":  {Tenant: "default", Name: "plain", Title: "Plain", Provider: provider, WebSocket: true, Origins: []*url.URL{parsed(t, s.plain.url)}},
		"secure": {Tenant: "default", Name: "secure", Title: "Secure", Provider: provider, WebSocket: true, Origins: []*url.URL{parsed(t, s.secure.url)}},
	}
	certs, caFile := authority(t, "localhost", "127.0.0.1")
	s.caFile = caFile
	s.roots.AppendCertsFromPEM(certs.PEM())
	cat := &catalog.Catalog{}
	s.Proxy = &egress.Proxy{Door: s.door, Catalog: cat, Certs: certs, Log: slog.New(slog.DiscardHandler), Hop: "frontdesk-test"}
	for _, f := range change {
		f(s)
	}
	cat.Set(&catalog.Snapshot{Upstreams: map[identity.Tenant]map[catalog.UpstreamName]*catalog.Upstream{"default": s.ups}})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.addr = l.Addr().String()
	served := make(chan error, 1)
	go func() { served <- s.Proxy.Serve(l) }()
	t.Cleanup(func() {
		_ = s.Proxy.Close()
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			t.Error("egress ended with", err)
		}
	})
	return s
}

// through is a client that uses egress as its proxy, as a server with HTTPS_PROXY does.
func (s *stage) through() *http.Client {
	t := &http.Transport{Proxy: http.ProxyURL(&url.URL{Scheme: "http", Host: s.addr}), TLSClientConfig: &tls.Config{RootCAs: s.roots}, ForceAttemptHTTP2: true, DisableCompression: true}
	s.t.Cleanup(t.CloseIdleConnections)
	return &http.Client{Transport: t, Timeout: 20 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

func request(t *testing.T, method, url string, body io.Reader, headers ...string) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	return r
}

// answer is a whole answer.
type answer struct {
	*http.Response
	body string
}

func do(t *testing.T, c *http.Client, r *http.Request) answer {
	t.Helper()
	resp, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{resp, string(b)}
}

// raw sends bytes to egress, and returns what comes back until egress hangs up, or has said enough.
func (s *stage) raw(t *testing.T, text string, enough func(string) bool) string {
	t.Helper()
	c, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	return converse(t, c, text, enough)
}

func converse(t *testing.T, c net.Conn, text string, enough func(string) bool) string {
	t.Helper()
	if err := c.SetDeadline(time.Now().Add(15 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	buf := make([]byte, 4096)
	for {
		n, err := c.Read(buf)
		got.Write(buf[:n])
		if err != nil || enough != nil && enough(got.String()) {
			return got.String()
		}
	}
}

// tunnel opens a tunnel by hand and speaks TLS in it.
func (s *stage) tunnel(t *testing.T, authority, serverName string) (*tls.Conn, error) {
	t.Helper()
	c, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	fmt.Fprintf(c, "CONNECT %s HTTP/1.1\r\nHost: %[1]s\r\n\r\n", authority)
	resp, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: http.MethodConnect})
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("CONNECT: %s", resp.Status)
	}
	// A client that sends no name, or another, still checks the certificate for itself.
	tc := tls.Client(c, &tls.Config{ServerName: serverName, InsecureSkipVerify: serverName == "", RootCAs: s.roots})
	return tc, tc.Handshake()
}

func TestDoorsOfHTTP(t *testing.T) {
	s := newStage(t)
	direct := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: s.roots}, ForceAttemptHTTP2: true}, Timeout: 20 * time.Second}
	h2c := &http.Transport{Protocols: new(http.Protocols)}
	h2c.Protocols.SetUnencryptedHTTP2(true)
	for _, tc := range []struct {
		name   string
		client *http.Client
		url    string
		host   string // that the API must see
		proto  string // that the client must see
	}{
		{"base URL", direct, "http://" + s.addr + "/egress/plain/echo?a=1", s.plain.host, "HTTP/1.1"},
		{"base URL to HTTP/2", direct, "http://" + s.addr + "/egress/secure/echo?a=1", s.secure.host, "HTTP/1.1"},
		{"base URL over TLS, by address", direct, "https://" + s.addr + "/egress/plain/echo?a=1", s.plain.host, "HTTP/2.0"},
		{"base URL over TLS, localhost", direct, "https://localhost:" + s.addr[strings.LastIndex(s.addr, ":")+1:] + "/egress/plain/echo?a=1", s.plain.host, "HTTP/2.0"},
		{"base URL, HTTP/2 without TLS", &http.Client{Transport: h2c, Timeout: 20 * time.Second}, "http://" + s.addr + "/egress/secure/echo?a=1", s.secure.host, "HTTP/2.0"},
		{"absolute form", s.through(), s.plain.url + "/echo?a=1", s.plain.host, "HTTP/1.1"},
		{"CONNECT", s.through(), s.secure.url + "/echo?a=1", s.secure.host, "HTTP/2.0"},
	} {
		got := do(t, tc.client, request(t, http.MethodPost, tc.url, strings.NewReader("some body"), "Authorization", "Bearer "+keycard, "Proxy-Authorization", "Basic eDp5"))
		if got.StatusCode != http.StatusOK || !strings.HasPrefix(got.body, "POST /echo?a=1 "+tc.host+"\n") || !strings.HasSuffix(got.body, "some body") || got.Proto != tc.proto {
			t.Errorf("%s: %s %s\n%s", tc.name, got.Proto, got.Status, got.body)
		}
		if strings.Contains(got.body, keycard) || strings.Contains(got.body, credential) || !strings.Contains(got.body, "Authorization:[Bearer ****") || strings.Contains(got.body, "Proxy") {
			t.Errorf("%s: %s", tc.name, got.body)
		}
		want := "HTTP/1.1"
		if tc.host == s.secure.host {
			want = "HTTP/2.0"
		}
		if got.Header.Get("X-Protocol") != want {
			t.Errorf("%s: the API was spoken to in %s", tc.name, got.Header.Get("X-Protocol"))
		}
	}
	for i, a := range s.door.opened() {
		if a.Kind != broker.KindAPI || a.Path != "/echo" || a.Server.Name != "issues" || a.Method != "POST" || a.Host != s.plain.host && a.Host != s.secure.host {
			t.Errorf("act %d: %+v", i, a)
		}
	}
	for _, a := range []*api{s.plain, s.secure} {
		for _, r := range a.seen() {
			if r.Header.Get("Authorization") != "Bearer "+credential {
				t.Errorf("the API got %q", r.Header.Get("Authorization"))
			}
		}
	}
}

// TestPlainHTTPInATunnel: Node tunnels plain http too.
func TestPlainHTTPInATunnel(t *testing.T) {
	s := newStage(t)
	got := s.raw(t, "CONNECT "+s.plain.host+" HTTP/1.1\r\nHost: "+s.plain.host+"\r\n\r\nGET /echo HTTP/1.1\r\nHost: "+s.plain.host+"\r\nAuthorization: token "+keycard+"\r\nConnection: close\r\n\r\n", nil)
	if !strings.HasPrefix(got, "HTTP/1.1 200 Connection established\r\n\r\nHTTP/1.1 200 OK\r\n") || !strings.Contains(got, "GET /echo "+s.plain.host) {
		t.Error(got)
	}
	// The host is listed for https alone.
	got = s.raw(t, "CONNECT "+s.secure.host+" HTTP/1.1\r\nHost: "+s.secure.host+"\r\n\r\nGET /echo HTTP/1.1\r\nHost: "+s.secure.host+"\r\nAuthorization: token "+keycard+"\r\nConnection: close\r\n\r\n", nil)
	if !strings.Contains(got, "403 Forbidden") || len(s.secure.seen()) > 0 {
		t.Error(got)
	}
}

func TestProxyRefuses(t *testing.T) {
	var counted atomic.Int64
	s := newStage(t, func(s *stage) { s.Refused = func(string) { counted.Add(1) } })
	elsewhere := newAPI(t, nil)
	for _, tc := range []struct{ name, line, want string }{
		{"A-098 a stranger's host", "GET " + elsewhere.url + "/echo HTTP/1.1\r\nHost: " + elsewhere.host, "403 "},
		{"A-098 CONNECT to a stranger", "CONNECT " + elsewhere.host + " HTTP/1.1\r\nHost: " + elsewhere.host, "403 "},
		{"CONNECT without a port", "CONNECT localhost HTTP/1.1\r\nHost: localhost", "400 "},
		{"CONNECT to the metadata service", "CONNECT 169.254.169.254:80 HTTP/1.1\r\nHost: 169.254.169.254:80", "403 "},
		{"A-100 user info", "CONNECT " + s.secure.host + "@evil.test:443 HTTP/1.1\r\nHost: x", "400 "},
		{"A-100 user info in absolute form", "GET http://x@" + s.plain.host + "/echo HTTP/1.1\r\nHost: " + s.plain.host, "400 "},
		{"another scheme", "GET ftp://" + s.plain.host + "/echo HTTP/1.1\r\nHost: " + s.plain.host, "400 "},
		{"a path that is none", "OPTIONS * HTTP/1.1\r\nHost: " + s.plain.host, "40"},
	} {
		got := s.raw(t, tc.line+"\r\nAuthorization: Bearer "+keycard+"\r\nConnection: close\r\n\r\n", nil)
		if !strings.HasPrefix(got, "HTTP/1.1 "+tc.want) || strings.Contains(got, keycard) {
			t.Errorf("%s: %s", tc.name, got)
		}
	}
	// A listed host, and a token that is not ours: in a proxy's own way where a proxy is spoken to.
	got := do(t, s.through(), request(t, http.MethodGet, s.plain.url+"/echo", nil, "Authorization", "Bearer ghp_somebodysOwnToken"))
	if got.StatusCode != http.StatusProxyAuthRequired || got.Header.Get("Proxy-Authenticate") == "" {
		t.Errorf("absolute form, a token of somebody's own: %s %s", got.Status, got.body)
	}
	got = do(t, s.through(), request(t, http.MethodGet, s.secure.url+"/echo", nil, "Authorization", "Bearer ghp_somebodysOwnToken"))
	if got.StatusCode != http.StatusUnauthorized {
		t.Errorf("in a tunnel, a token of somebody's own: %s %s", got.Status, got.body)
	}
	// A server that does not use the upstream.
	if got := do(t, s.through(), request(t, http.MethodGet, s.plain.url+"/echo", nil, "Authorization", "Bearer "+otherCard)); got.StatusCode != http.StatusForbidden {
		t.Errorf("another server's keycard: %s %s", got.Status, got.body)
	}
	if n := len(s.plain.seen()) + len(s.secure.seen()) + len(elsewhere.seen()); n > 0 || len(s.door.opened()) > 0 {
		t.Errorf("%d requests went out", n)
	}
	if counted.Load() < 11 {
		t.Errorf("%d refusals were counted, want one for each", counted.Load())
	}
}

// TestOneAuthority is A-099: CONNECT target, server name and Host are one, or nothing is sent.
func TestOneAuthority(t *testing.T) {
	s := newStage(t)
	if _, err := s.tunnel(t, s.secure.host, "evil.test"); err == nil {
		t.Error("another server name was served")
	}
	if _, err := s.tunnel(t, s.secure.host, ""); err == nil {
		t.Error("a name's tunnel was served without a server name")
	}
	for name, head := range map[string]string{
		"another Host":            "GET /echo HTTP/1.1\r\nHost: evil.test",
		"another port":            "GET /echo HTTP/1.1\r\nHost: localhost:1",
		"no port":                 "GET /echo HTTP/1.1\r\nHost: localhost",
		"absolute form elsewhere": "GET https://evil.test/echo HTTP/1.1\r\nHost: " + s.secure.host,
		"absolute form, http":     "GET http://" + s.secure.host + "/echo HTTP/1.1\r\nHost: " + s.secure.host,
		"a tunnel in a tunnel":    "CONNECT " + s.secure.host + " HTTP/1.1\r\nHost: " + s.secure.host,
	} {
		c, err := s.tunnel(t, s.secure.host, "localhost")
		if err != nil {
			t.Fatal(err)
		}
		got := converse(t, c, head+"\r\nAuthorization: Bearer "+keycard+"\r\nConnection: close\r\n\r\n", nil)
		if !strings.HasPrefix(got, "HTTP/1.1 421 ") && !strings.HasPrefix(got, "HTTP/1.1 400 ") {
			t.Errorf("%s: %s", name, got)
		}
	}
	for name, host := range map[string]string{"capitals": strings.ToUpper(s.secure.host), "a final dot": strings.Replace(s.secure.host, ":", ".:", 1)} {
		c, err := s.tunnel(t, host, "LOCALHOST")
		if err != nil {
			t.Fatal(name, err)
		}
		got := converse(t, c, "GET /echo HTTP/1.1\r\nHost: "+host+"\r\nAuthorization: Bearer "+keycard+"\r\nConnection: close\r\n\r\n", nil)
		if !strings.HasPrefix(got, "HTTP/1.1 200 ") || !strings.Contains(got, "GET /echo "+s.secure.host) {
			t.Errorf("%s: the API has to see the canonical form: %s", name, got)
		}
	}
	if n := len(s.secure.seen()); n != 2 {
		t.Errorf("%d requests reached the API, want the 2 that agree with themselves", n)
	}
}

// TestOthers: hosts that no upstream lists are passed on unseen where the config says so.
func TestOthers(t *testing.T) {
	far, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = far.Close() })
	go func() {
		for {
			c, err := far.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(c, c); _ = c.(*net.TCPConn).CloseWrite() }()
		}
	}()
	asked := make(chan string, 1)
	s := newStage(t, func(s *stage) {
		s.Tunnel = func(ctx context.Context, authority string) (net.Conn, error) {
			asked <- authority
			var d net.Dialer
			return d.DialContext(ctx, "tcp", far.Addr().String())
		}
	})
	got := s.raw(t, "CONNECT Registry.example.com:443 HTTP/1.1\r\nHost: registry.example.com\r\n\r\nwhatever it says", func(got string) bool { return strings.HasSuffix(got, "it says") })
	if got != "HTTP/1.1 200 Connection established\r\n\r\nwhatever it says" || <-asked != "registry.example.com:443" {
		t.Errorf("%q", got)
	}
}

func TestPathsUnderABaseURL(t *testing.T) {
	s := newStage(t, func(s *stage) { s.ups["plain"].Origins[0].Path = "/api/v4" })
	s.plain.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.URL.Path) })
	for url, want := range map[string]string{
		"http://" + s.addr + "/egress/plain/user": "/api/v4/user", s.plain.url + "/api/v4/user": "/api/v4/user", s.plain.url + "/api/v4x/user": "", s.plain.url + "/user": "", s.plain.url: "",
	} {
		c := s.through()
		if strings.Contains(url, "/egress/") {
			c = http.DefaultClient
		}
		got := do(t, c, request(t, http.MethodGet, url, nil, "Authorization", "Bearer "+keycard))
		if want == "" && got.StatusCode != http.StatusForbidden || want != "" && got.body != want {
			t.Errorf("%s: %s %s", url, got.Status, got.body)
		}
	}
}

// TestNode is an unmodified program: Node's own fetch and https, told of the proxy and the authority by its environment.
func TestNode(t *testing.T) {
	node := os.Getenv("FRONTDESK_NODE")
	if node == "" {
		t.Skip("FRONTDESK_NODE names no Node 22; test/tools/install.sh fetches one")
	}
	s := newStage(t)
	script := `
const get = u => new Promise((ok, no) => require(u.split(':')[0]).get(u, {headers: {authorization: 'Bearer ' + process.env.TOKEN}}, r => {
  let b = ''; r.on('data', d => b += d); r.on('end', () => ok(r.statusCode + ' ' + b)) }).on('error', no));
(async () => {
  for (const u of process.argv.slice(1)) {
    const r = await fetch(u, {method: 'POST', body: 'from fetch', headers: {authorization: 'Bearer ' + process.env.TOKEN}});
    console.log(r.status, await r.text());
    console.log(await get(u));
  }
})()`
	c := exec.CommandContext(t.Context(), node, "-e", script, s.plain.url+"/echo", s.secure.url+"/echo")
	c.Env = append(os.Environ(), "TOKEN="+keycard, "NODE_USE_ENV_PROXY=1", "HTTP_PROXY=http://"+s.addr, "HTTPS_PROXY=http://"+s.addr, "NO_PROXY=", "no_proxy=", "NODE_EXTRA_CA_CERTS="+s.caFile)
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if strings.Count(string(out), "from fetch") != 2 || strings.Count(string(out), "200 POST /echo") != 2 || strings.Count(string(out), "200 GET /echo") != 2 || strings.Contains(string(out), credential) {
		t.Errorf("%s", out)
	}
	if len(s.plain.seen()) != 2 || len(s.secure.seen()) != 2 {
		t.Error("not all requests arrived")
	}
}

func TestOutcomes(t *testing.T) {
	s := newStage(t)
	s.plain.mux.HandleFunc("/missing", http.NotFound)
	s.plain.mux.HandleFunc("/breaks", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100")
		_, _ = io.WriteString(w, "half of")
	})
	base := "http://" + s.addr + "/egress/plain"
	do(t, http.DefaultClient, request(t, http.MethodGet, base+"/echo", nil, "Authorization", "Bearer "+keycard))
	do(t, http.DefaultClient, request(t, http.MethodGet, base+"/missing", nil, "Authorization", "Bearer "+keycard))
	resp, err := http.DefaultClient.Do(request(t, http.MethodGet, base+"/breaks", nil, "Authorization", "Bearer "+keycard))
	if err == nil {
		_, err = io.ReadAll(resp.Body)
		_ = resp.Body.Close()
	}
	if err == nil {
		t.Error("a part was taken for the whole")
	}
	s.door.mu.Lock()
	defer s.door.mu.Unlock()
	var l []audit.Result
	for _, o := range s.door.ended {
		l = append(l, o.Result)
	}
	if !slices.Equal(l, []audit.Result{audit.ResultOK, audit.ResultFailed, audit.ResultUnknown}) {
		t.Errorf("outcomes: %v", s.door.ended)
	}
}
