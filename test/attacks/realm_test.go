package attacks_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"frontdesk.dev/frontdesk/test/stage"
	"frontdesk.dev/frontdesk/test/world"
)

// realm is a stage with several organisations in one Frontdesk: the default tenant, acme with an IdP of the same users under
// the same subjects, globex and initech, whose IdPs do what a test wants; and beside the tracker a hostile vendor.
// Addresses come from X-Forwarded-For, so that tests do not use up each other's rates.
type realm struct {
	*stage.Stage
	acme            *world.IdP
	globex, initech *provider // IdPs
	evil            *provider // a vendor: authorization server and API
	acmeServer      *world.IssuesServer
	docs            *documents
	back            *catcher
	config          string // as it is without a test's changes
}

var (
	realmOnce  sync.Once
	realmShown *realm
	realmErr   error
)

func theRealm(t *testing.T) *realm {
	t.Helper()
	realmOnce.Do(func() { realmShown, realmErr = beginRealm() })
	if realmErr != nil {
		t.Fatal(realmErr)
	}
	return realmShown
}

func beginRealm() (*realm, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
	defer cancel()
	dir, err := os.MkdirTemp("", "frontdesk-realm-")
	if err != nil {
		return nil, err
	}
	closing = append(closing, func() { _ = os.RemoveAll(dir) })
	r := &realm{back: newCatcher()}
	closing = append(closing, r.back.Close)
	for _, p := range []**provider{&r.globex, &r.initech, &r.evil} {
		if *p, err = newProvider(); err != nil {
			return nil, err
		}
		closing = append(closing, (*p).Close)
	}
	if r.docs, err = newDocuments(dir); err != nil {
		return nil, err
	}
	closing = append(closing, r.docs.close)
	if r.acme, err = world.NewIdP(world.IdPConfig{WorkloadAudiences: []string{"api://frontdesk"}}); err != nil {
		return nil, err
	}
	closing = append(closing, func() { _ = r.acme.Close() })
	binary, err := built()
	if err != nil {
		return nil, err
	}
	start := "outbound: {ca_file: " + r.docs.ca + "}\n"
	if r.Stage, err = stage.New(ctx, dir, stage.Options{Config: start, Binary: binary}); err != nil {
		return nil, err
	}
	closing = append(closing, func() { _ = r.Stage.Close() })
	public := r.Desk().Public
	r.acme.Register(public + "/t/acme/callback/idp:login")
	var callbacks []string
	for _, at := range []string{"", "/t/acme", "/t/globex"} {
		callbacks = append(callbacks, public+at+"/callback/tracker")
	}
	r.Tracker.Register(callbacks...)
	if r.acmeServer, err = world.NewIssuesServer(world.IssuesConfig{API: r.Desk().Egress + "/t/acme/egress/tracker", Stateless: true}); err != nil {
		return nil, err
	}
	closing = append(closing, func() { _ = r.acmeServer.Close() })
	r.config = r.Config(r.Desk(), r.options(start))
	if err := os.WriteFile(r.Desk().ConfigPath, []byte(r.config), 0o600); err != nil {
		return nil, err
	}
	if out, err := r.Desk().Run("reload"); err != nil {
		return nil, fmt.Errorf("%w: %s", err, out)
	}
	return r, nil
}

// options is what the realm has beside the stage's own.
func (r *realm) options(start string) stage.Options {
	tenant := func(name, issuer, server string) string {
		return fmt.Sprintf(`  %s:
    idp: {issuer: %s, client_id: frontdesk, client_secret: file:idp.secret, audiences: ["api://frontdesk"]}
    upstreams:
      tracker: {provider: tracker, url: %s, client_id: frontdesk, client_secret: file:tracker.secret, scopes: ["issues:read", "issues:write"]}
    servers:
      modern: {url: %s, upstreams: [tracker], allow: [group:engineering]}
`, name, issuer, r.Tracker.API(), server)
	}
	return stage.Options{
		Providers: func(string) string {
			return fmt.Sprintf(`  evil:
    name: Evil
    hosts: ["%[1]s"]
    oauth:
      issuer: %[1]s
      iss_promised: true
      authorization_endpoint: %[1]s/authorize
      token_endpoint: %[1]s/token
      token_auth: basic
    account: {url: /user, pointer: /login, id_pointer: /id}
    token_shapes: ['\bevl_[0-9A-Za-z]{16,}\b']
`, r.evil.URL)
		},
		Upstream: fmt.Sprintf(`  evil: {provider: evil, url: %s/api, client_id: frontdesk, client_secret: file:tracker.secret, scopes: [read]}
  keyed: {provider: tracker, title: Keyed, url: %s, methods: [api_key]}
`, r.evil.URL, r.Tracker.API()),
		Servers: fmt.Sprintf(`  checked: {url: %[1]s, upstreams: [tracker], allow: [group:engineering], check_arguments: true}
  evil: {url: %[1]s, upstreams: [evil], allow: [group:engineering]}
  keyed: {url: %[1]s, upstreams: [keyed], allow: [group:engineering]}
`, r.Modern.MCP()),
		Config: start + "trusted_proxies: [127.0.0.1/32]\nclients: {documents: [\"" + strings.Join(r.docs.origins, "\", \"") + "\"]}\ntenants:\n" +
			tenant("acme", r.acme.URL(), r.acmeServer.MCP()) + tenant("globex", r.globex.URL, r.Modern.MCP()) + tenant("initech", r.initech.URL, r.Modern.MCP()),
	}
}

// reconfigured applies a changed config, with policy files beside it, until the test ends.
func (r *realm) reconfigured(t *testing.T, config string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(filepath.Dir(r.Desk().ConfigPath), name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	apply := func(text string) {
		t.Helper()
		if err := os.WriteFile(r.Desk().ConfigPath, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := r.Desk().Run("reload"); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	apply(config)
	t.Cleanup(func() { apply(r.config) })
}

// from is the header by which a request comes from an address of its own.
func from(address string) []string { return []string{"X-Forwarded-For", address} }

// call makes a modern tools/call at a server of a tenant ("" or "/t/acme").
func (r *realm) call(t *testing.T, tenant, server, token, body string, more ...string) answer {
	t.Helper()
	h := append([]string{"Content-Type", "application/json", "Accept", "application/json, text/event-stream", "MCP-Protocol-Version", "2026-07-28", "Mcp-Method", "tools/call", "Mcp-Name", "whoami"}, more...)
	if token != "" {
		h = append(h, "Authorization", "Bearer "+token)
	}
	return send(t, http.MethodPost, r.Desk().Public+tenant+"/mcp/"+server, body, h...)
}

// oracles are looked at when a test ends: nothing of the vendors' tokens is where it does not belong, and the log verifies.
func (r *realm) oracles(t *testing.T) {
	t.Helper()
	t.Cleanup(func() {
		log := r.Desk().Log()
		for _, token := range r.Tracker.Tokens() {
			if len(r.Modern.Recorder.Search(token.Value)) > 0 || strings.Contains(log, token.Value) {
				t.Errorf("O1: a %s of the tracker reached a server or the log", token.Kind)
			}
		}
		if strings.Contains(log, world.FrontdeskSecret) {
			t.Error("O1: a client secret stands in the log")
		}
		if strings.Contains(log, "ended in a panic") {
			t.Error("a request ended in a panic")
		}
		if out, err := r.Desk().Run("audit", "verify"); err != nil {
			t.Errorf("O2: %v\n%s", err, out)
		}
	})
}

// tail is the end of a tenant's audit log.
func (r *realm) tail(t *testing.T, tenant string) string {
	t.Helper()
	out, err := r.Desk().Run("audit", "tail", "--tenant", tenant)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return out
}

// person has accounts at the default tenant's IdP, at acme's, and at the tracker.
func (r *realm) person(name string, yes ...string) *world.Person {
	return r.Stage.Person(name, yes...).HasAccount(r.acme.URL(), name)
}

// stops signs in, and presses no other button.
func (r *realm) stops(name string) *world.Person {
	return world.NewPerson().HasAccount(r.IdP.URL(), name).HasAccount(r.acme.URL(), name)
}

// open goes to a path and gives what is shown, whatever its status.
func open(t *testing.T, p *world.Person, address string) *world.Shown {
	t.Helper()
	_ = p.Open(t.Context(), address) // an error page is shown too
	if p.Page() == nil {
		t.Fatalf("nothing is shown of %s", address)
	}
	return p.Page()
}

// cookies of a browser, as a header.
func cookies(p *world.Person, address string) string {
	var l []string
	for _, c := range p.Cookies(address) {
		l = append(l, c.Name+"="+c.Value)
	}
	return strings.Join(l, "; ")
}

// form posts as a browser at our own page does, or as the headers say.
func (r *realm) form(t *testing.T, p *world.Person, path string, fields url.Values, headers ...string) answer {
	t.Helper()
	if len(headers) == 0 {
		headers = []string{"Content-Type", "application/x-www-form-urlencoded", "Origin", r.Desk().Public, "Sec-Fetch-Site", "same-origin"}
	}
	return send(t, http.MethodPost, r.Desk().Public+path, fields.Encode(), append(headers, "Cookie", cookies(p, r.Desk().Public+path))...)
}

// app is an OAuth client of ours in a test's hands.
type app struct {
	r                                     *realm
	prefix, id, redirect, resource, check string
	verifier                              string
}

var appCount int

// app registers one dynamically, from an address of its own.
func (r *realm) app(t *testing.T, tenant, name string) *app {
	t.Helper()
	appCount++
	a := &app{r: r, prefix: tenant, redirect: r.back.URL + "/cb", resource: r.Desk().Public + tenant + "/mcp/modern", verifier: b64([]byte(rand.Text() + rand.Text()))[:64]}
	sum := sha256.Sum256([]byte(a.verifier))
	a.check = b64(sum[:])
	body, err := json.Marshal(map[string]any{"client_name": name, "redirect_uris": []string{a.redirect}})
	if err != nil {
		t.Fatal(err)
	}
	got := send(t, http.MethodPost, r.Desk().Public+tenant+"/register", string(body), append(from(fmt.Sprintf("198.51.100.%d", appCount)), "Content-Type", "application/json")...)
	var c struct {
		ID string `json:"client_id"`
	}
	if err := json.Unmarshal([]byte(got.Body), &c); err != nil || c.ID == "" {
		t.Fatalf("%d %s", got.Status, got.Body)
	}
	a.id = c.ID
	return a
}

// authorizeURL is the app's request, changed; an empty value takes a parameter away.
func (a *app) authorizeURL(change map[string]string) string {
	q := url.Values{"client_id": {a.id}, "redirect_uri": {a.redirect}, "response_type": {"code"}, "state": {"st-" + rand.Text()}, "code_challenge": {a.check}, "code_challenge_method": {"S256"}, "resource": {a.resource}}
	for k, v := range change {
		if v == "" {
			q.Del(k)
		} else {
			q.Set(k, v)
		}
	}
	return a.r.Desk().Public + a.prefix + "/authorize?" + q.Encode()
}

const later = "Later: a tool that needs it will ask then"

// code lets a person say yes, and gives what came back to the app.
func (a *app) code(t *testing.T, p *world.Person) string {
	t.Helper()
	a.r.back.take()
	if err := p.Open(t.Context(), a.authorizeURL(nil)); err != nil {
		t.Fatal(err)
	}
	q := a.r.back.take()
	if q.Get("code") == "" {
		t.Fatalf("no code came back: %v; shown is %s", q, p.Page().Text())
	}
	if q.Get("iss") != a.r.Desk().Public+a.prefix {
		t.Errorf("iss is %q", q.Get("iss"))
	}
	return q.Get("code")
}

// tokens is an answer of the token endpoint.
type tokens struct {
	Status  int    `json:"-"`
	Access  string `json:"access_token"`
	Refresh string `json:"refresh_token"`
	Error   string `json:"error"`
}

func (a *app) ask(t *testing.T, f url.Values) tokens {
	t.Helper()
	got := send(t, http.MethodPost, a.r.Desk().Public+a.prefix+"/token", f.Encode(), "Content-Type", "application/x-www-form-urlencoded")
	k := tokens{Status: got.Status}
	if err := json.Unmarshal([]byte(got.Body), &k); err != nil {
		t.Fatalf("%d %s", got.Status, got.Body)
	}
	return k
}

func (a *app) redeem(t *testing.T, code string, change map[string]string) tokens {
	t.Helper()
	f := url.Values{"grant_type": {"authorization_code"}, "client_id": {a.id}, "redirect_uri": {a.redirect}, "code": {code}, "code_verifier": {a.verifier}, "resource": {a.resource}}
	for k, v := range change {
		f.Set(k, v)
	}
	return a.ask(t, f)
}

func (a *app) refresh(t *testing.T, token string) tokens {
	t.Helper()
	return a.ask(t, url.Values{"grant_type": {"refresh_token"}, "client_id": {a.id}, "refresh_token": {token}})
}

// signedIn runs the whole way, and gives a fresh access token.
func (a *app) signedIn(t *testing.T, p *world.Person) tokens {
	t.Helper()
	k := a.redeem(t, a.code(t, p), nil)
	if k.Access == "" {
		t.Fatalf("no token: %+v", k)
	}
	return k
}

var linkOf = regexp.MustCompile(`https?://[^\s"\\]+/connect/[A-Za-z0-9_-]+`)

// link asks a tool for what is not connected, and gives the link that it names.
func (a *app) link(t *testing.T, server, access string) string {
	t.Helper()
	got := a.r.call(t, a.prefix, server, access, callBody("whoami", "{}"))
	l := linkOf.FindString(got.Body)
	if l == "" {
		t.Fatalf("no link: %d %s", got.Status, got.Body)
	}
	return l
}

// at makes the app one for another server.
func (a *app) at(server string) *app {
	b := *a
	b.resource = a.r.Desk().Public + a.prefix + "/mcp/" + server
	return &b
}

// catcher is where an app's browser comes back to.
type catcher struct {
	*httptest.Server
	mu   sync.Mutex
	last url.Values
}

func newCatcher() *catcher {
	c := &catcher{}
	c.Server = httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		c.mu.Lock()
		defer c.mu.Unlock()
		if r.URL.Path == "/cb" {
			c.last = r.URL.Query()
		}
	}))
	return c
}

func (c *catcher) take() url.Values {
	c.mu.Lock()
	defer c.mu.Unlock()
	q := c.last
	c.last = nil
	return q
}

// documents is an https host of client metadata documents, under several loopback addresses, since rates count by host.
type documents struct {
	ca      string
	origins []string
	server  *http.Server

	mu     sync.Mutex
	pages  map[string]http.HandlerFunc // by path
	visits map[string]int
}

func newDocuments(dir string) (*documents, error) {
	d := &documents{pages: map[string]http.HandlerFunc{}, visits: map[string]int{}, ca: filepath.Join(dir, "documents.pem")}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	cert := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	var addresses []string
	for i := range 9 {
		addresses = append(addresses, fmt.Sprintf("127.0.0.%d", i+1))
		cert.IPAddresses = append(cert.IPAddresses, net.IPv4(127, 0, 0, byte(i+1)))
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, cert, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(d.ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		return nil, err
	}
	d.server = &http.Server{Handler: http.HandlerFunc(d.serve), TLSConfig: &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}}
	port := "0"
	for _, a := range addresses {
		l, err := net.Listen("tcp", net.JoinHostPort(a, port))
		if err != nil {
			return nil, errors.Join(err, d.server.Close())
		}
		_, port, _ = net.SplitHostPort(l.Addr().String())
		d.origins = append(d.origins, "https://"+l.Addr().String())
		go func() { _ = d.server.ServeTLS(l, "", "") }() // ends with close
	}
	return d, nil
}

func (d *documents) close() { _ = d.server.Close() }

func (d *documents) serve(w http.ResponseWriter, r *http.Request) {
	d.mu.Lock()
	d.visits[r.URL.Path]++
	h := d.pages[r.URL.Path]
	d.mu.Unlock()
	if h == nil {
		http.NotFound(w, r)
		return
	}
	h(w, r)
}

// put publishes a document under the nth address, and returns its URL.
func (d *documents) put(n int, path string, h http.HandlerFunc) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.pages[path] = h
	return d.origins[n%len(d.origins)] + path
}

func (d *documents) visited(path string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.visits[path]
}

// document publishes an honest one, changed.
func (d *documents) document(n int, path string, change map[string]any) string {
	m := map[string]any{"client_name": "Document", "redirect_uris": []string{"https://app.test/cb"}, "token_endpoint_auth_method": "none"}
	id := d.put(n, path, func(w http.ResponseWriter, _ *http.Request) { reply(w, m) })
	m["client_id"] = id
	for k, v := range change {
		m[k] = v
	}
	return id
}
