package stage_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"database/sql"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	_ "modernc.org/sqlite"

	"frontdesk.dev/frontdesk/test/pg"

	"frontdesk.dev/frontdesk/test/stage"
	"frontdesk.dev/frontdesk/test/world"
)

// until waits for a condition, at most as long as t's own contexts do.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for ctx := within(t); ; {
		if ok() {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatal("never: " + what)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// status of a GET, 0 where nobody answers.
func status(url string) int {
	resp, err := http.Get(url)
	if err != nil {
		return 0
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}

// rewrite changes the config file of a running server.
func rewrite(t *testing.T, d *stage.Desk, pairs ...string) {
	t.Helper()
	text, err := os.ReadFile(d.ConfigPath)
	if err != nil {
		t.Fatal(err)
	}
	changed := strings.NewReplacer(pairs...).Replace(string(text))
	if changed == string(text) {
		t.Fatalf("nothing changed: %q is not in\n%s", pairs[0], text)
	}
	if err := os.WriteFile(d.ConfigPath, []byte(changed), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestReloadDropsNothing: a call and a stream that run over a SIGHUP go on, whether the new file is good or bad.
func TestReloadDropsNothing(t *testing.T) {
	s := start(t, stage.Options{})
	ctx := within(t)
	a := agent(t, world.AgentConfig{URL: s.Desk().MCP("issues"), Name: "a", Era: world.Era2025November, Watch: true, Progress: true, Browser: s.Person("alice", "Connect Tracker", "Done")})
	if _, err := a.Tools(ctx); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		r, err := a.Call(ctx, "slow", map[string]any{"steps": 60, "every_ms": 50})
		if err == nil && (r.IsError || !strings.Contains(world.Text(r), "60 steps done")) {
			err = io.ErrUnexpectedEOF
		}
		done <- err
	}()
	until(t, "the call runs", func() bool { return s.Legacy.Running() > 0 })
	rewrite(t, s.Desk(), "log_level", "log_levels", "servers:\n", "servers:\n  more: {url: "+s.Legacy.MCP()+", allow: [everyone]}\n")
	if err := s.Desk().Hangup(); err != nil {
		t.Fatal(err)
	}
	until(t, "the new config is applied", func() bool { return len(s.Desk().LogLines("config reloaded")) == 1 })
	rewrite(t, s.Desk(), "servers:\n", "servrs:\n")
	if err := s.Desk().Hangup(); err != nil {
		t.Fatal(err)
	}
	until(t, "the bad config is refused", func() bool { return len(s.Desk().LogLines("the old one goes on")) == 1 })
	if s.Legacy.Running() == 0 {
		t.Error("the call was over before the reloads")
	}
	if err := <-done; err != nil {
		t.Errorf("the call that ran over two reloads: %v", err)
	}
	// The stream that was open before brings what happens now.
	if err := s.Legacy.AddTool("brand_new"); err != nil {
		t.Fatal(err)
	}
	if _, err := a.AwaitNotice(ctx, "notifications/tools/list_changed"); err != nil {
		t.Errorf("the stream was dropped: %v", err)
	}
	if got := status(s.Desk().Public + "/.well-known/oauth-protected-resource/mcp/more"); got != http.StatusOK {
		t.Errorf("the server that the good file added: status %d", got)
	}
}

// TestGracefulStop: SIGTERM lets what runs finish, refuses what is new, says so to probes, and leaves a log that is whole.
func TestGracefulStop(t *testing.T) {
	s := start(t, stage.Options{})
	ctx := within(t)
	a := agent(t, world.AgentConfig{URL: s.Desk().MCP("issues"), Name: "a", Era: world.Era2025November, Watch: true, Browser: s.Person("alice", "Connect Tracker", "Done")})
	if r, err := a.Call(ctx, "whoami", nil); err != nil || r.IsError {
		t.Fatal(r, err)
	}
	type outcome struct {
		text string
		err  error
	}
	done := make(chan outcome, 1)
	go func() {
		r, err := a.Call(ctx, "slow", map[string]any{"steps": 40, "every_ms": 50})
		if err != nil {
			done <- outcome{"", err}
			return
		}
		done <- outcome{world.Text(r), nil}
	}()
	until(t, "the call runs", func() bool { return s.Legacy.Running() > 0 })
	stopped := make(chan error, 1)
	go func() { stopped <- s.Desk().Stop() }()
	until(t, "it says that it is stopping", func() bool { return status(s.Desk().Ops+"/readyz") != http.StatusOK })
	if got := <-done; got.err != nil || !strings.Contains(got.text, "40 steps done") {
		t.Errorf("the call that ran: %q, %v", got.text, got.err)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	if got := status(s.Desk().Public + "/portal/"); got != 0 {
		t.Errorf("after the stop somebody answers: %d", got)
	}
	if out, err := s.Desk().Run("audit", "verify"); err != nil || !strings.Contains(out, ", 0 still open") {
		t.Errorf("%v\n%s", err, out)
	}
}

// away is a way to a database that can be cut.
type away struct {
	path, to string
	mu       sync.Mutex
	l        net.Listener
	conns    []net.Conn
}

func (a *away) open(t *testing.T) {
	t.Helper()
	l, err := net.Listen("unix", a.path)
	if err != nil {
		t.Fatal(err)
	}
	a.mu.Lock()
	a.l = l
	a.mu.Unlock()
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("unix", a.to)
			if err != nil {
				_ = in.Close()
				continue
			}
			a.mu.Lock()
			a.conns = append(a.conns, in, out)
			a.mu.Unlock()
			go func() { _, _ = io.Copy(out, in); _ = out.Close() }()
			go func() { _, _ = io.Copy(in, out); _ = in.Close() }()
		}
	}()
}

func (a *away) cut() {
	a.mu.Lock()
	defer a.mu.Unlock()
	_ = a.l.Close()
	for _, c := range a.conns {
		_ = c.Close()
	}
	a.conns = nil
}

// TestDatabaseAway: readiness goes, health stays, a call is refused with a word within its deadline, nothing reaches the server;
// and all of it comes back by itself.
func TestDatabaseAway(t *testing.T) {
	dsn, err := url.Parse(pg.Start(t))
	if err != nil {
		t.Fatal(err)
	}
	q := dsn.Query()
	dir := t.TempDir()
	way := &away{path: filepath.Join(dir, ".s.PGSQL.5432"), to: filepath.Join(q.Get("host"), ".s.PGSQL.5432")}
	way.open(t)
	t.Cleanup(way.cut)
	q.Set("host", dir)
	dsn.RawQuery = q.Encode()
	s := start(t, stage.Options{Database: dsn.String()})
	ctx := within(t)
	a := agent(t, world.AgentConfig{URL: s.Desk().MCP("modern"), Name: "a", Era: world.Era2026July, Browser: s.Person("alice", "Connect Tracker", "Done")})
	if r, err := a.Call(ctx, "whoami", nil); err != nil || r.IsError {
		t.Fatal(r, err)
	}
	way.cut()
	until(t, "readiness says no", func() bool { return status(s.Desk().Ops+"/readyz") == http.StatusServiceUnavailable })
	if got := status(s.Desk().Ops + "/healthz"); got != http.StatusOK {
		t.Errorf("health: %d; a restart would help nobody", got)
	}
	before := s.Modern.Count("/mcp")
	began := time.Now()
	said := ""
	r, err := a.Call(ctx, "whoami", nil)
	if err != nil {
		said = err.Error()
	} else {
		said = world.Text(r)
	}
	if (err == nil && !r.IsError) || !strings.Contains(said, "try again") {
		t.Errorf("without its database: %q", said)
	}
	if took := time.Since(began); took > 30*time.Second {
		t.Errorf("the refusal took %s", took)
	}
	if after := s.Modern.Count("/mcp"); after != before {
		t.Errorf("the server got %d requests whose intent nobody recorded", after-before)
	}
	way.open(t)
	until(t, "readiness says yes", func() bool { return status(s.Desk().Ops+"/readyz") == http.StatusOK })
	if r, err := a.Call(ctx, "whoami", nil); err != nil || r.IsError || !strings.Contains(world.Text(r), "octo-alice") {
		t.Errorf("afterwards: %v, %v", r, err)
	}
}

// certificate makes a self-signed one for 127.0.0.1, and writes it.
func certificate(t *testing.T, dir string, serial int64) *x509.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "127.0.0.1"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string]*pem.Block{"tls.crt": {Type: "CERTIFICATE", Bytes: der}, "tls.key": {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(b), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if c, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return c
}

// trust lets every client of this process that is made from now on believe a certificate, until the test ends.
func trust(t *testing.T, c *x509.Certificate) {
	t.Helper()
	pool := x509.NewCertPool()
	pool.AddCert(c)
	d := http.DefaultTransport.(*http.Transport)
	before := d.TLSClientConfig
	d.TLSClientConfig = &tls.Config{RootCAs: pool}
	t.Cleanup(func() { d.TLSClientConfig = before })
}

// TestReadmeConfig runs the README's config as it stands, but for addresses: TLS ends at a proxy in front, the vendor is GitHub
// with the tracker's endpoints, and the whole way works, from sign-in to the API.
func TestReadmeConfig(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile("(?s)```yaml\n(public_url.*?)```").FindSubmatch(readme)
	if m == nil {
		t.Fatal("the README shows no config")
	}
	s := start(t, stage.Options{})
	d := s.Desk()
	if err := d.Stop(); err != nil {
		t.Fatal(err)
	}
	to, err := url.Parse(d.Public)
	if err != nil {
		t.Fatal(err)
	}
	front := httptest.NewTLSServer(&httputil.ReverseProxy{FlushInterval: -1, Rewrite: func(q *httputil.ProxyRequest) {
		q.Out.URL.Scheme, q.Out.URL.Host, q.Out.Host = "http", to.Host, q.In.Host
		q.SetXForwarded()
	}})
	t.Cleanup(front.Close)
	trust(t, front.Certificate())
	s.IdP.Register(front.URL + "/callback/idp:login")
	s.Tracker.Register(front.URL + "/callback/github")
	bare := func(u string) string { return strings.TrimPrefix(u, "http://") }
	config := strings.NewReplacer("https://desk.example.com", front.URL, "10.0.0.0/8", "127.0.0.0/8", ":8081", bare(d.Egress), "https://login.example.com", s.IdP.URL(), "http://issues:8080/mcp", s.Legacy.MCP(),
		"Ov23x", "frontdesk").Replace(string(m[1]))
	config += "listen: \"" + to.Host + "\"\nops: {listen: \"" + bare(d.Ops) + "\"}\ndata_dir: " + d.Dir + "\n" +
		"providers:\n  github: {name: GitHub, hosts: [\"" + s.Tracker.URL() + "\"], oauth: {issuer: " + s.Tracker.URL() + ", iss_promised: true, authorization_endpoint: " + s.Tracker.URL() + "/authorize, token_endpoint: " + s.Tracker.URL() + "/oauth/token, token_auth: basic, refresh: {scope_needed: \"issues:read\"}}, account: {url: /api/user, pointer: /login, id_pointer: /id}}\n"
	if err := os.WriteFile(d.ConfigPath, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("GITHUB_SECRET", world.FrontdeskSecret)
	if out, err := d.Run("check", d.ConfigPath, "--online"); err != nil || !strings.Contains(out, "callback  "+front.URL+"/callback/github  (register at GitHub, for the OAuth app frontdesk)") || !strings.Contains(out, "online    server issues: ok") {
		t.Fatalf("check: %v\n%s", err, out)
	}
	ctx := within(t)
	if err := d.Start(ctx); err != nil {
		t.Fatal(err)
	}
	legacy, err := world.NewIssuesServer(world.IssuesConfig{API: d.Egress + "/egress/github/api"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = legacy.Close() })
	rewrite(t, d, s.Legacy.MCP(), legacy.MCP())
	if out, err := d.Run("reload"); err != nil {
		t.Fatal(out)
	}
	a := agent(t, world.AgentConfig{URL: front.URL + "/mcp/issues", Name: "a", Era: world.Era2025November, Browser: s.Person("alice", "Connect GitHub", "Done")})
	r, err := a.Call(ctx, "whoami", nil)
	if err != nil || r.IsError || !strings.Contains(world.Text(r), "octo-alice") {
		t.Fatalf("got %v, %v", r, err)
	}
}

// TestOwnCertificate: TLS ends here, in HTTP/2 for who speaks it, and a renewed certificate is taken up without a restart.
func TestOwnCertificate(t *testing.T) {
	s := start(t, stage.Options{})
	d := s.Desk()
	if err := d.Stop(); err != nil {
		t.Fatal(err)
	}
	home := filepath.Dir(d.ConfigPath)
	first := certificate(t, home, 1)
	trust(t, first)
	secure := strings.Replace(d.Public, "http://", "https://", 1)
	rewrite(t, d, "public_url: "+d.Public, "public_url: "+secure+"\ntls: {cert: file:tls.crt, key: file:tls.key}")
	s.IdP.Register(secure + "/callback/idp:login")
	s.Tracker.Register(secure + "/callback/tracker")
	ctx := within(t)
	if err := d.Start(ctx); err != nil {
		t.Fatal(err)
	}
	a := agent(t, world.AgentConfig{URL: secure + "/mcp/issues", Name: "a", Era: world.Era2025November, Watch: true, Browser: s.Person("alice", "Connect Tracker", "Done")})
	if r, err := a.Call(ctx, "whoami", nil); err != nil || r.IsError || !strings.Contains(world.Text(r), "octo-alice") {
		t.Fatalf("got %v, %v", r, err)
	}
	both := http.DefaultTransport.(*http.Transport).Clone()
	both.ForceAttemptHTTP2 = true
	resp, err := (&http.Client{Transport: both}).Get(secure + "/.well-known/oauth-authorization-server")
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.ProtoMajor != 2 || resp.Header.Get("Strict-Transport-Security") == "" {
		t.Errorf("spoke %s, with Strict-Transport-Security %q", resp.Proto, resp.Header.Get("Strict-Transport-Security"))
	}
	certificate(t, home, 2)
	until(t, "the renewed certificate is shown", func() bool {
		c, err := tls.Dial("tcp", strings.TrimPrefix(secure, "https://"), &tls.Config{InsecureSkipVerify: true}) // to see which one it is
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		return c.ConnectionState().PeerCertificates[0].SerialNumber.Int64() == 2
	})
}

// TestOnlyWhatTheToolNeeds: an upstream for some tools, or one that is optional, is asked for only then.
func TestOnlyWhatTheToolNeeds(t *testing.T) {
	s := start(t, stage.Options{})
	ctx := within(t)
	a := agent(t, world.AgentConfig{URL: s.Desk().MCP("issues"), Name: "a", Era: world.Era2025November, Browser: s.Person("alice", later)})
	asked := func(tool string) (question, reached bool) {
		t.Helper()
		before := len(s.Legacy.Recorder.Search(`"name":"` + tool + `"`))
		r, err := a.Call(ctx, tool, map[string]map[string]any{"echo": {"text": "x"}, "create_issue": {"title": "x"}}[tool])
		if err != nil {
			t.Fatal(err)
		}
		return r.IsError && strings.Contains(world.Text(r), "/connect/"), len(s.Legacy.Recorder.Search(`"name":"`+tool+`"`)) > before
	}
	want := func(when, tool string, question, reached bool) {
		t.Helper()
		if q, r := asked(tool); q != question || r != reached {
			t.Errorf("%s, %s: asked %v and reached the server %v, want %v and %v", when, tool, q, r, question, reached)
		}
	}
	entry := "issues: {url: " + s.Legacy.MCP() + ", upstreams: [tracker]"
	want("needed by all", "echo", true, false)
	rewrite(t, s.Desk(), entry, strings.Replace(entry, "[tracker]", `[tracker: {tools: ["create_*", whoami]}]`, 1))
	if out, err := s.Desk().Run("reload"); err != nil {
		t.Fatal(out)
	}
	want("needed by some", "echo", false, true)
	want("needed by some", "create_issue", true, false)
	want("needed by some", "whoami", true, false)
	rewrite(t, s.Desk(), `[tracker: {tools: ["create_*", whoami]}]`, `[tracker: {optional: true}]`)
	if out, err := s.Desk().Run("reload"); err != nil {
		t.Fatal(out)
	}
	want("optional", "echo", false, true)
	// The server tried, egress said no, and no other request of this call came through: the question replaces its answer.
	want("optional", "whoami", true, true)
}

// TestSamePersonByEitherDoor: who brings a token of the company's IdP is who signed in with a browser, connections and all; and
// a workload with a token of its own is served without any person.
func TestSamePersonByEitherDoor(t *testing.T) {
	s := start(t, stage.Options{Allow: "[group:engineering, service:workload]"})
	ctx := within(t)
	a := agent(t, world.AgentConfig{URL: s.Desk().MCP("modern"), Name: "a", Era: world.Era2026July, Browser: s.Person("alice", "Connect Tracker", "Done")})
	if r, err := a.Call(ctx, "whoami", nil); err != nil || r.IsError {
		t.Fatal(r, err)
	}
	token, err := s.IdP.MintAccessToken("alice", "api://frontdesk", map[string]any{"groups": []string{"engineering"}})
	if err != nil {
		t.Fatal(err)
	}
	direct := agent(t, world.AgentConfig{URL: s.Desk().MCP("modern"), Name: "direct", Era: world.Era2026July, Token: token})
	r, err := direct.Call(ctx, "whoami", nil)
	if err != nil {
		t.Fatal(err)
	}
	if !r.IsError || !strings.Contains(world.Text(r), "is connected, but the user has not allowed this agent") {
		t.Fatalf("the connection of the browser's alice is hers by the other door too, and a new agent asks: %q", world.Text(r))
	}
	link := world.Text(r)[strings.LastIndex(world.Text(r), "\n")+1:]
	if err := s.Person("alice", "Allow").Open(ctx, link); err != nil {
		t.Fatal(err)
	}
	if r, err = direct.Call(ctx, "whoami", nil); err != nil || r.IsError || !strings.Contains(world.Text(r), "octo-alice") {
		t.Fatalf("got %v, %v", r, err)
	}
	out, err := s.Desk().Run("connections", "list", "--user", "emp-alice", "--json")
	var l []struct{ User, Upstream string }
	if err != nil || json.Unmarshal([]byte(out), &l) != nil || len(l) != 2 || l[0].User != l[1].User || l[0].Upstream == l[1].Upstream {
		t.Errorf("one person has one connection, and one home credential: %v\n%s", err, out)
	}
	resp, err := http.PostForm(s.IdP.URL()+"/oauth/token", url.Values{"grant_type": {"client_credentials"}, "client_id": {"workload"}, "client_secret": {world.Password}, "audience": {"api://frontdesk"}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	var got struct {
		Access string `json:"access_token"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&got); err != nil || got.Access == "" {
		t.Fatal(resp.Status, err)
	}
	work := agent(t, world.AgentConfig{URL: s.Desk().MCP("modern"), Name: "work", Era: world.Era2026July, Token: got.Access})
	if tools, err := work.Tools(ctx); err != nil || len(tools) == 0 {
		t.Errorf("a workload without a browser: %v, %v", tools, err)
	}
}

// TestDismissed: whom the IdP has dismissed is out within five minutes: his refresh is refused a minute later at the latest, and
// an access token lives four.
func TestDismissed(t *testing.T) {
	t.Parallel() // it waits for a minute to pass
	s := start(t, stage.Options{})
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	a := agent(t, world.AgentConfig{URL: s.Desk().MCP("modern"), Name: "a", Era: world.Era2026July, Browser: s.Person("alice", "Connect Tracker", "Done")})
	if r, err := a.Call(ctx, "whoami", nil); err != nil || r.IsError {
		t.Fatal(r, err)
	}
	var claims struct{ Iat, Exp int64 }
	body, err := base64.RawURLEncoding.DecodeString(strings.Split(a.AccessToken(), ".")[1])
	if err != nil || json.Unmarshal(body, &claims) != nil || claims.Exp-claims.Iat > 240 {
		t.Fatalf("an access token lives %d seconds, want at most 240: %v", claims.Exp-claims.Iat, err)
	}
	if ends := signInLasts(t, s.Desk()); ends < 89*24*time.Hour {
		t.Errorf("an agent that the IdP is asked about at each token has to sign in again after %s", ends)
	}
	if err := s.IdP.Dismiss("alice"); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	for {
		a.ExpireToken()
		if _, err := a.Call(ctx, "whoami", nil); err != nil {
			break
		}
		select {
		case <-ctx.Done():
			t.Fatal("she still works")
		case <-time.After(2 * time.Second):
		}
	}
	if took := time.Since(began); took > 75*time.Second {
		t.Errorf("her refresh was refused only after %s", took)
	}
}

// signInLasts is how long the one agent that has signed in may go on, as the database has it.
func signInLasts(t *testing.T, d *stage.Desk) time.Duration {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+filepath.Join(d.Dir, "frontdesk.db")+"?mode=ro&_pragma=busy_timeout(5000)")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	var micros int64
	if err := db.QueryRowContext(t.Context(), "SELECT ends - created FROM families").Scan(&micros); err != nil {
		t.Fatal(err)
	}
	return time.Duration(micros) * time.Microsecond
}
