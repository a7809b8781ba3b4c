package remote_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"io"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/internal/broker"
	"frontdesk.dev/frontdesk/internal/broker/remote"
	"frontdesk.dev/frontdesk/internal/broker/visits"
	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/connect"
	"frontdesk.dev/frontdesk/internal/exchange"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/outbound"
	"frontdesk.dev/frontdesk/internal/policy"
	"frontdesk.dev/frontdesk/internal/store"
	"frontdesk.dev/frontdesk/internal/vault"
	"frontdesk.dev/frontdesk/internal/vault/keyring"
	"frontdesk.dev/frontdesk/internal/vault/kms"
)

const (
	tenant  = identity.DefaultTenant
	issuer  = "https://desk.example.com"
	canary  = "canary-of-the-tracker-0001"
	flooded = 64 << 20
)

var browser = []byte("the digest of a cookie")

// room is a broker's side over a real store, real keys, policies and sockets. What obtains credentials and what people have to do first
// are the test's.
type room struct {
	broker   *broker.Broker
	desk     *visits.Desk
	server   *httptest.Server // an MCP server, which echoes
	api      *httptest.Server
	catalog  *catalog.Catalog
	epochs   *identity.Epochs
	verifier *identity.Verifier
	signer   *keyring.Signer
	ca       *keyring.Authority
	db       *store.DB
	log      *audit.Log
	people   *people
	remote   *remote.Server // of the last overTLS
	address  string         // where it listens
	broke    outbound.Pins  // the broker's end
	gate     outbound.Pins  // the gateway's
	keycard  string         // of the last call
	clock    atomic.Pointer[time.Time]

	mu   sync.Mutex
	last map[*httptest.Server]*http.Request
	runs map[string]int
	told chan struct{}
	sent atomic.Int64
}

func (r *room) mcp(server string) string { return issuer + "/mcp/" + server }

func at(_ identity.Tenant, path string) string { return issuer + path }

func newRoom(t *testing.T) *room {
	t.Helper()
	dir := t.TempDir()
	r := &room{last: map[*httptest.Server]*http.Request{}, runs: map[string]int{}, told: make(chan struct{}, 1000), people: &people{}, catalog: &catalog.Catalog{}}
	r.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		r.saw(r.server, q)
		w.Header().Set("X-Server", "issues")
		_, _ = io.Copy(w, q.Body)
	}))
	t.Cleanup(r.server.Close)
	r.api = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		r.saw(r.api, q)
		r.serveAPI(w, q)
	}))
	t.Cleanup(r.api.Close)
	var err error
	if r.db, err = store.Open(t.Context(), store.Config{Path: filepath.Join(dir, "f.db")}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.db.Close() })
	key, err := kms.OpenKeyFile(filepath.Join(dir, "vault.key"), true)
	if err != nil {
		t.Fatal(err)
	}
	quiet := slog.New(slog.DiscardHandler)
	r.signer = &keyring.Signer{Keys: r.db, Wrap: key, Now: time.Now}
	r.ca = &keyring.Authority{Keys: r.db, Wrap: key, Now: time.Now}
	if err := r.ca.Use(t.Context(), []string{"api.example.com"}); err != nil {
		t.Fatal(err)
	}
	r.epochs = &identity.Epochs{Store: r.db, Now: time.Now, Log: quiet}
	r.verifier = &identity.Verifier{Users: r.db, Epochs: r.epochs, Now: time.Now}
	r.verifier.UseIssuers([]identity.Issuer{{Tenant: tenant, URL: issuer, Keys: r.signer.OfTenant(tenant)}})
	if r.log, err = audit.New(r.db, r.db, time.Now, quiet); err != nil {
		t.Fatal(err)
	}
	r.runs["log"] = 0
	background(t, r.log.Run)
	r.stock(t)
	door, err := outbound.New(outbound.Config{Named: []string{r.server.URL, r.api.URL}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(door.Close)
	tickets := &exchange.TicketMint{MAC: r.signer, Issuer: issuer, Audience: issuer + "/egress", Opaque: r.db}
	r.broker = &broker.Broker{Policies: r.policies(t), Log: r.log, Exchange: obtains{tickets}, People: r.people, Access: r.epochs, Users: r.db,
		Tickets: &identity.Tickets{MAC: r.signer, Opaque: r.db, Audience: issuer + "/egress", Now: time.Now}, Catalog: r.catalog, Out: door.Named(), Now: time.Now,
		Observe: func(broker.Kind, audit.Result, time.Duration) {}, Leaked: func(audit.Record, int) {}}
	r.desk = &visits.Desk{Flows: flows{r}, People: r.people, Shelf: r.db, Tools: r.broker, Signer: r.signer, Log: r.log, MAC: r.signer, Epochs: r.epochs, URL: at, Now: time.Now}
	return r
}

// background runs a room's chores until the test ends.
func background(t *testing.T, run func(context.Context) error) {
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); _ = run(ctx) }()
	t.Cleanup(func() { stop(); <-ended })
}

func (r *room) stock(t *testing.T) {
	t.Helper()
	parse := func(s string) *url.URL {
		u, err := url.Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	up := &catalog.Upstream{Tenant: tenant, Name: "tracker", Title: "Tracker", Provider: &catalog.Provider{ID: "tracker", Name: "Tracker"}, Origins: []*url.URL{parse(r.api.URL)}, WebSocket: true,
		Methods: []catalog.Method{{Kind: catalog.APIKey}}}
	issues := &catalog.Server{Tenant: tenant, Name: "issues", Title: "Issues", URL: parse(r.server.URL + "/mcp"), Deliver: catalog.DeliverEgress, CallLimit: time.Minute, Placeholder: identity.TicketCall,
		Needs: []catalog.Need{{Upstream: "tracker"}}}
	other := &catalog.Server{Tenant: tenant, Name: "payroll", Title: "Payroll", URL: issues.URL, Deliver: catalog.DeliverEgress, CallLimit: time.Minute, Placeholder: identity.TicketSession}
	vendor := &catalog.Server{Tenant: tenant, Name: "vendor", Title: "Vendor", URL: issues.URL, Deliver: catalog.DeliverHeader, CallLimit: time.Minute, Needs: issues.Needs}
	own := &catalog.Server{Tenant: tenant, Name: "own", Title: "Own", URL: parse("http://hosted.invalid/own"), Deliver: catalog.DeliverEgress, CallLimit: time.Minute, Placeholder: identity.TicketCall, Needs: issues.Needs, Program: &catalog.Program{Argv: []string{"/bin/own"}}}
	second := *own
	second.Name = "second"
	r.catalog.Set(&catalog.Snapshot{Servers: map[identity.Tenant]map[catalog.ServerName]*catalog.Server{tenant: {"issues": issues, "payroll": other, "vendor": vendor, "own": own, "second": &second}},
		Upstreams: map[identity.Tenant]map[catalog.UpstreamName]*catalog.Upstream{tenant: {"tracker": up}}})
}

// policies let engineers do all but what is forbidden, by name, argument, and what stands in a body.
func (r *room) policies(t *testing.T) *policy.Policies {
	t.Helper()
	set, problems := policy.Load([]policy.Source{{Name: "p.cedar", Text: []byte(`
@id("hidden") forbid (principal, action == Action::"call", resource in Server::"issues") when { resource.name == "forbidden" };
@id("args") forbid (principal, action == Action::"call", resource == Tool::"issues/write") unless { context.args has repo && context.args.repo == "website" };
@id("body") forbid (principal, action == Action::"api", resource in Upstream::"tracker") when { context.path == "/issues" && context.body has title && context.body.title == "bad" };
`)}}, []policy.Allow{{Server: "issues", Who: "group:engineering", From: "a"}, {Server: "payroll", Who: "group:engineering", From: "b"}, {Server: "vendor", Who: "group:engineering", From: "c"},
		{Server: "own", Who: "group:engineering", From: "d"}, {Server: "second", Who: "group:engineering", From: "e"}})
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	p := &policy.Policies{}
	p.Use(map[identity.Tenant]*policy.Set{tenant: set})
	return p
}

// obtains gives everybody the canary at every upstream, and real keycards.
type obtains struct{ mint *exchange.TicketMint }

func (o obtains) Obtain(context.Context, *identity.Caller, *catalog.Upstream, []string, vault.ConnectionID) (*exchange.Credential, error) {
	return &exchange.Credential{Method: catalog.APIKey, Marks: [][]byte{[]byte(canary)}, Place: func(q *http.Request) error {
		q.Header.Set("Authorization", "Bearer "+canary)
		return nil
	}}, nil
}

func (o obtains) Ticket(ctx context.Context, s *catalog.Server, t identity.Ticket) (*exchange.Credential, error) {
	return o.mint.Mint(ctx, s, t)
}

// people have done everything, or what the test says.
type people struct {
	visits.People
	missing []catalog.Missing
	err     error
}

func (p *people) Missing(context.Context, *identity.Caller, *catalog.Server, []catalog.Need) ([]catalog.Missing, error) {
	return p.missing, p.err
}

func (p *people) Granted(context.Context, *identity.Caller, *catalog.Server, *catalog.Upstream, []string) (connect.Yes, error) {
	return connect.Yes{Given: true}, nil
}

func (p *people) Consent(context.Context, connect.Visitor, identity.ClientID, *catalog.Server) error {
	return nil
}

// flows sign in whoever the code names.
type flows struct{ r *room }

func (f flows) Begin(context.Context, connect.Visitor, connect.Start) (connect.Next, error) {
	return connect.Next{URL: "https://idp.example/authorize"}, nil
}

func (f flows) Complete(ctx context.Context, _ connect.Visitor, a connect.Answer) (connect.Result, error) {
	u, err := f.r.db.EnsureUser(ctx, identity.User{Tenant: tenant, IDP: "login", Subject: a.Params.Get("code"), Groups: []string{"engineering"}})
	return connect.Result{Kind: connect.FlowSignIn, User: u, Session: connect.SignedIn{IDP: "login", At: time.Now()}}, err
}

func (f flows) End(context.Context, connect.Visitor, vault.ConnectionID) (connect.Ending, error) {
	return connect.EndedHere, nil
}

func (f flows) Renew(context.Context, identity.Tenant, identity.UserID, string) error { return nil }

func (r *room) saw(s *httptest.Server, q *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last[s] = q
}

func (r *room) seen(s *httptest.Server) *http.Request {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.last[s]
}

func (r *room) note(path string, n int) {
	r.mu.Lock()
	r.runs[path] += n
	r.mu.Unlock()
	r.told <- struct{}{}
}

// begun waits until the API works on a request, ended until it does not.
func (r *room) begun(t *testing.T, path string) { r.until(t, func() bool { return r.runs[path] > 0 }) }
func (r *room) ended(t *testing.T, path string) {
	t.Helper()
	r.until(t, func() bool { return r.runs[path] == 0 })
}

func (r *room) until(t *testing.T, is func() bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for {
		r.mu.Lock()
		done := is()
		r.mu.Unlock()
		if done {
			return
		}
		select {
		case <-r.told:
		case <-deadline:
			t.Error("it did not come to that")
			return
		}
	}
}

// settled is how much the API has sent when it sends no more.
func (r *room) settled(t *testing.T) int64 {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for was := int64(-1); time.Now().Before(deadline); time.Sleep(200 * time.Millisecond) {
		now := r.sent.Load()
		if now == was && now > 0 {
			return now
		}
		was = now
	}
	t.Fatal("the API sends on and on")
	return 0
}

// outcome waits for the newest outcome of an action in the log.
func (r *room) outcome(t *testing.T, action string, want audit.Result) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		got := r.lastOutcome(t, action)
		if got == want {
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("the outcome on record is %q, want %q", got, want)
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// end makes a self-signed certificate.
func end(t *testing.T, name string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func pin(c tls.Certificate) [sha256.Size]byte { return sha256.Sum256(c.Certificate[0]) }

// listen puts the broker's side behind a socket.
func (r *room) listen(t *testing.T) {
	t.Helper()
	b, g := end(t, "broker"), end(t, "gateway")
	r.broke = outbound.Pins{Own: b, Peers: [][sha256.Size]byte{pin(g)}, Now: time.Now}
	r.gate = outbound.Pins{Own: g, Peers: [][sha256.Size]byte{pin(b)}, Now: time.Now}
	r.remote = &remote.Server{Acts: remote.Acts{Door: r.broker, Processes: r.broker, Calls: &r.broker.Calls, Intents: r.log}, Desk: r.desk, Verifier: r.verifier, Epochs: r.epochs, Keys: keys{r.signer, r.ca}, Catalog: r.catalog, URL: at,
		Heard: http.NotFoundHandler(), Releases: &remote.Releases{}, Version: "1", Log: slog.New(slog.DiscardHandler), Now: func() time.Time {
			if now := r.clock.Load(); now != nil {
				return *now
			}
			return time.Now()
		}}
	s := httptest.NewUnstartedServer(r.remote.Handler())
	s.EnableHTTP2, s.TLS, s.Config.HTTP2 = true, r.broke.Listening(), outbound.PinnedHTTP2()
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)
	s.StartTLS()
	t.Cleanup(s.Close)
	r.address = s.Listener.Addr().String()
	background(t, r.remote.Run)
}

type keys struct {
	*keyring.Signer
	*keyring.Authority
}

// gateway is a gateway's process with these pins.
func (r *room) gateway(p outbound.Pins) *remote.Client {
	return remote.NewClient(one(p.To(r.address)), r.catalog, r.epochs.Alive, slog.New(slog.DiscardHandler))
}

func one(w http.RoundTripper) []remote.Broker { return []remote.Broker{{Address: "broker", Wire: w}} }

func overTLS(t *testing.T, r *room) sides {
	t.Helper()
	r.listen(t)
	c := r.gateway(r.gate)
	v := &identity.Verifier{Epochs: r.epochs, Now: time.Now, Elsewhere: c.Verify}
	return sides{c, c, c, func(server, token string) (*identity.Caller, error) {
		return v.Verify(context.Background(), tenant, r.mcp(server), token)
	}}
}

func (r *room) lastOutcome(t *testing.T, action string) audit.Result {
	t.Helper()
	rows, err := r.db.Rows(t.Context(), audit.Query{Tenant: tenant, Limit: 50})
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range rows {
		var k audit.Record
		if row.Kind == audit.KindOutcome && json.Unmarshal(row.Record, &k) == nil && k.Action == action {
			return k.Result
		}
	}
	return ""
}
