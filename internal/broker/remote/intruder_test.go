package remote_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/internal/broker"
	"frontdesk.dev/frontdesk/internal/broker/remote"
	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/connect"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/kit/outbound"
	"frontdesk.dev/frontdesk/internal/kit/secret"
	"frontdesk.dev/frontdesk/internal/vault"
)

// TestWhoIsNoGateway: without a pinned certificate nobody is heard, and the gateway speaks to nobody else than the broker it knows.
func TestWhoIsNoGateway(t *testing.T) {
	r := newRoom(t)
	r.listen(t)
	stranger := end(t, "gateway")
	for what, p := range map[string]outbound.Pins{
		"a certificate that nobody pinned": {Own: stranger, Peers: r.gate.Peers, Now: time.Now},
		"no certificate":                   {Peers: r.gate.Peers, Now: time.Now},
		"another broker than it knows":     {Own: r.gate.Own, Peers: [][sha256.Size]byte{pin(stranger)}, Now: time.Now},
		"a broker that it does not know":   {Own: r.gate.Own, Now: time.Now},
		"a certificate that has ended":     {Own: r.gate.Own, Peers: r.gate.Peers, Now: func() time.Time { return time.Now().Add(2 * time.Hour) }},
	} {
		if err := r.gateway(p).Ping(t.Context()); fault.KindOf(err) != fault.Unavailable {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := r.gateway(r.gate).Ping(t.Context()); err != nil {
		t.Error("the gateway itself:", err)
	}
	// One that shows the right certificate, and does not say which process it is.
	nameless := wire(func(q *http.Request) (*http.Response, error) {
		q.Header.Del("Frontdesk-Process")
		return r.gate.To(r.address).RoundTrip(q)
	})
	if err := remote.NewClient(one(nameless), r.catalog, r.epochs.Alive, quiet).Ping(t.Context()); fault.KindOf(err) != fault.Denied {
		t.Error("a process without a name:", err)
	}
}

var quiet = slog.New(slog.DiscardHandler)

type wire func(*http.Request) (*http.Response, error)

func (w wire) RoundTrip(q *http.Request) (*http.Response, error) { return w(q) }

// as is whoever a gateway says that presents a token, without anybody having looked.
func as(t *testing.T, token string) *identity.Caller {
	t.Helper()
	v := &identity.Verifier{Epochs: &identity.Epochs{Now: time.Now}, Now: time.Now, Elsewhere: func(context.Context, identity.Tenant, string, string) (*identity.Caller, error) {
		return &identity.Caller{Tenant: tenant, User: "bob", Groups: []string{"engineering"}, Client: "agent", Issued: time.Now(), Expires: time.Now().Add(time.Hour)}, nil
	}}
	c, err := v.Verify(t.Context(), tenant, "anywhere", token)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestAForgedCaller: who asks is who his token says, at the server that it is for, whatever the gateway says.
func TestAForgedCaller(t *testing.T) {
	r := newRoom(t)
	s := overTLS(t, r)
	alice := signIn(t, r, s)
	good := alice.Raw().Expose()
	parts := strings.Split(good, ".")
	a, _ := r.call("list", `{}`)
	for what, token := range map[string]string{"no token": " ", "a made-up one": "eyJhbGciOiJub25lIn0.e30.", "another signature": parts[0] + "." + parts[1] + "." + strings.Repeat("A", len(parts[2])), "a digest of one": alice.Proof()} {
		if _, err := s.door.Open(t.Context(), as(t, token), a); fault.KindOf(err) != fault.Unauthenticated {
			t.Errorf("%s: %v", what, err)
		}
	}
	// Alice's own, with somebody else's name on it, is still alice's.
	l, err := s.door.Open(t.Context(), as(t, good), a)
	if err != nil {
		t.Fatal(err)
	}
	l.Close(t.Context(), broker.Outcome{Result: audit.ResultOK})
	if rows, err := r.db.Rows(t.Context(), audit.Query{Tenant: tenant, User: "bob"}); err != nil || len(rows) > 0 {
		t.Error("what the gateway said of the caller is on record", rows, err)
	}
	// It is for one server.
	a.Server = r.catalog.Server(tenant, "payroll")
	if _, err := s.door.Open(t.Context(), alice, a); fault.KindOf(err) != fault.Unauthenticated {
		t.Error("a token for one server opens another:", err)
	}
	// An API request is whose keycard it is.
	h := &broker.Holding{Caller: alice, Server: r.catalog.Server(tenant, "issues"), Call: "1.1", Keycard: secret.New(good), Ticket: identity.Ticket{Tenant: tenant, Kind: identity.TicketCall, Expires: time.Now().Add(time.Hour)}}
	up := r.catalog.Upstream(tenant, "tracker")
	if _, err := s.door.Open(t.Context(), alice, broker.Act{Kind: broker.KindAPI, Server: h.Server, Method: "GET", Upstream: up, Host: up.Origins[0].Host, Path: "/echo", Holding: h}); fault.KindOf(err) != fault.Unauthenticated {
		t.Error("an access token in a keycard's place:", err)
	}
	for _, kind := range []broker.Kind{broker.KindProcess, "", "admin"} {
		a, _ := r.call("list", `{}`)
		a.Kind = kind
		if _, err := s.door.Open(t.Context(), alice, a); fault.KindOf(err) != fault.Denied {
			t.Errorf("an act of kind %q: %v", kind, err)
		}
	}
}

// TestALeaseIsOneProcesss: with a lease's id alone nobody does anything, not with the same certificate either; nor when it has ended.
func TestALeaseIsOneProcesss(t *testing.T) {
	r := newRoom(t)
	s := overTLS(t, r)
	alice := signIn(t, r, s)
	a, body := r.call("list", `{}`)
	name := ""
	through := wire(func(q *http.Request) (*http.Response, error) {
		if name != "" {
			q.Header.Set("Frontdesk-Process", name)
		}
		return r.gate.To(r.address).RoundTrip(q)
	})
	l, err := remote.NewClient(one(through), r.catalog, r.epochs.Alive, quiet).Open(t.Context(), alice, a)
	if err != nil {
		t.Fatal(err)
	}
	name = strings.Repeat("another process ", 3)
	if _, err := l.Do(post(t.Context(), a.Server.URL, body)); fault.KindOf(err) != fault.NotFound {
		t.Error("another process uses it:", err)
	}
	l.Close(t.Context(), broker.Outcome{Result: audit.ResultFailed}) // another process ends it
	name = ""
	resp, err := l.Do(post(t.Context(), a.Server.URL, body))
	if got := read(t, resp, err); got != body {
		t.Error("its own process uses it no more:", got)
	}
	// Of another gateway, whose certificate is pinned too.
	other := end(t, "second gateway")
	r.broke.Peers = append(r.broke.Peers, pin(other))
	var seen []byte
	spied := wire(func(q *http.Request) (*http.Response, error) {
		if strings.HasSuffix(q.URL.Path, "/lease/close") {
			seen, _ = io.ReadAll(q.Body)
			q.Body = io.NopCloser(bytes.NewReader(seen))
		}
		return r.gate.To(r.address).RoundTrip(q)
	})
	mine, err := remote.NewClient(one(spied), r.catalog, r.epochs.Alive, quiet).Open(t.Context(), alice, a)
	if err != nil {
		t.Fatal(err)
	}
	mine.Close(t.Context(), broker.Outcome{Result: audit.ResultOK})
	if len(seen) == 0 {
		t.Fatal("nothing was seen")
	}
	q, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://broker/v1/lease/state", bytes.NewReader(seen))
	if err != nil {
		t.Fatal(err)
	}
	q.Header.Set("Frontdesk-Process", strings.Repeat("x", 40))
	resp, err = r.gate.To(r.address).RoundTrip(q)
	if got := read(t, resp, err); resp.StatusCode == http.StatusOK || !strings.Contains(got, "no such lease") {
		t.Error("a lease that has ended is there:", got)
	}
}

// TestWhatIsDoneIsWhatWasDecided: a gateway that asks for one thing and sends another gets nowhere, and nothing arrives.
func TestWhatIsDoneIsWhatWasDecided(t *testing.T) {
	r := newRoom(t)
	s := overTLS(t, r)
	alice := signIn(t, r, s)
	try := func(what string, l broker.Lease, q *http.Request) {
		t.Helper()
		r.saw(r.server, nil)
		r.saw(r.api, nil)
		resp, err := l.Do(q.WithContext(t.Context()))
		if fault.KindOf(err) != fault.Denied || r.seen(r.server) != nil || r.seen(r.api) != nil {
			t.Errorf("%s: %v, %v", what, resp, err)
		}
	}
	a, _ := r.call("write", `{"repo":"website"}`)
	l, err := s.door.Open(t.Context(), alice, a)
	if err != nil {
		t.Fatal(err)
	}
	message := func(method, name, args string) string {
		return `{"jsonrpc":"2.0","id":1,"method":"` + method + `","params":{"name":"` + name + `","arguments":` + args + `}}`
	}
	for what, body := range map[string]string{"another argument": message("tools/call", "write", `{"repo":"payroll"}`), "no argument": message("tools/call", "write", `{}`),
		"an argument twice": message("tools/call", "write", `{"repo":"website","repo":"payroll"}`), "another tool": message("tools/call", "forbidden", `{"repo":"website"}`),
		"another method": message("prompts/get", "write", `{"repo":"website"}`), "two messages": "[" + message("tools/call", "write", `{}`) + "]", "no message": "repo=payroll",
		"a name twice": `{"jsonrpc":"2.0","id":1,"method":"tools/call","method":"tools/list","params":{}}`} {
		try(what, l, post(t.Context(), a.Server.URL, body))
	}
	get := func(u *url.URL) *http.Request {
		return &http.Request{Method: http.MethodGet, URL: u, Header: http.Header{}}
	}
	try("a stream in a call's place", l, get(a.Server.URL))
	try("an odd method", l, &http.Request{Method: "PUT", URL: a.Server.URL, Header: http.Header{}})
	// Wherever it wants to send it, it goes to the server.
	resp, err := l.Do(post(t.Context(), &url.URL{Scheme: "http", Host: strings.TrimPrefix(r.api.URL, "http://"), Path: "/echo"}, message("tools/call", "write", `{"repo":"website"}`)))
	if read(t, resp, err); r.seen(r.api) != nil || r.seen(r.server) == nil || r.seen(r.server).URL.Path != "/mcp" {
		t.Error("a call went elsewhere than to its server")
	}
	list := broker.Act{Kind: broker.KindCatalogue, Server: a.Server, Method: "tools/list"}
	if l, err = s.door.Open(t.Context(), alice, list); err != nil {
		t.Fatal(err)
	}
	try("a call under a list's name", l, post(t.Context(), a.Server.URL, message("tools/call", "list", `{}`)))
	list.Method = "tools/call"
	if _, err := s.door.Open(t.Context(), alice, list); fault.KindOf(err) != fault.Denied {
		t.Error("a call as a list:", err)
	}
	r.apiTries(t, s, try)
}

// TestOneRecordOneRequest: under one record a gateway sends what was decided once, a call as an API request.
func TestOneRecordOneRequest(t *testing.T) {
	r := newRoom(t)
	s := overTLS(t, r)
	_, api, target := atAPI(t, r, s, http.MethodGet, "/echo", nil)
	get := func() *http.Request {
		return (&http.Request{Method: http.MethodGet, URL: target, Host: target.Host, Header: http.Header{}}).WithContext(t.Context())
	}
	resp, err := api.Do(get())
	read(t, resp, err)
	a, body := r.call("list", `{}`)
	l, err := s.door.Open(t.Context(), signIn(t, r, s), a)
	if err != nil {
		t.Fatal(err)
	}
	resp, err = l.Do(post(t.Context(), a.Server.URL, body))
	read(t, resp, err)
	r.saw(r.api, nil)
	r.saw(r.server, nil)
	if _, err := api.Do(get()); fault.KindOf(err) != fault.Denied || r.seen(r.api) != nil {
		t.Error("an API request goes twice:", err)
	}
	if _, err := l.Do(post(t.Context(), a.Server.URL, body)); fault.KindOf(err) != fault.Denied || r.seen(r.server) != nil {
		t.Error("a call goes twice:", err)
	}
	// What acts not, may: the answer to a question of the server's.
	resp, err = l.Do(post(t.Context(), a.Server.URL, `{"jsonrpc":"2.0","id":7,"result":{}}`))
	read(t, resp, err)
}

func (r *room) apiTries(t *testing.T, s sides, try func(what string, l broker.Lease, q *http.Request)) {
	t.Helper()
	body := `{"title":"ok"}`
	in, err := http.NewRequest(http.MethodPost, "http://x/issues", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	in.Header.Set("Content-Type", "application/json")
	_, api, target := atAPI(t, r, s, http.MethodPost, "/issues", in)
	send := func(change func(q *http.Request)) *http.Request {
		u := *target
		q := post(t.Context(), &u, body)
		change(q)
		return q
	}
	for what, change := range map[string]func(q *http.Request){
		"another body": func(q *http.Request) {
			q.Body, q.ContentLength = io.NopCloser(strings.NewReader(`{"title":"bad"}`)), -1
		},
		"another coding": func(q *http.Request) { q.Header.Set("Content-Type", "text/plain") },
		"another method": func(q *http.Request) { q.Method = http.MethodDelete },
		"another path":   func(q *http.Request) { q.URL.Path = "/echo" },
		"another host":   func(q *http.Request) { q.URL.Host = strings.TrimPrefix(r.server.URL, "http://") },
		"another scheme": func(q *http.Request) { q.URL.Scheme = "https" },
		"a user":         func(q *http.Request) { q.URL.User = url.User("x") },
	} {
		try(what, api, send(change))
	}
	h, err := s.door.Holder(t.Context(), tenant, r.keycard)
	if err != nil {
		t.Fatal(err)
	}
	up := r.catalog.Upstream(tenant, "tracker")
	for what, change := range map[string]func(a *broker.Act){
		"a path with dots":        func(a *broker.Act) { a.Path = "/public/../issues" },
		"dots in a coding":        func(a *broker.Act) { a.Path = "/public/%2e%2e/issues" },
		"no path":                 func(a *broker.Act) { a.Path = "" },
		"a host of nobody's":      func(a *broker.Act) { a.Host = "169.254.169.254" },
		"a server as an API":      func(a *broker.Act) { a.Host = strings.TrimPrefix(r.server.URL, "http://") },
		"an upstream of nobody's": func(a *broker.Act) { a.Upstream = &catalog.Upstream{Name: "other"} },
		"a method in small":       func(a *broker.Act) { a.Method = "get" },
	} {
		act := broker.Act{Kind: broker.KindAPI, Server: h.Server, Method: "GET", Upstream: up, Host: up.Origins[0].Host, Path: "/issues", Holding: h}
		change(&act)
		if l, err := s.door.Open(t.Context(), h.Caller, act); err == nil || fault.KindOf(err) == fault.Internal {
			t.Errorf("%s: %v, %v", what, l, err)
		}
	}
}

// TestSomebodyElsesSession: a call is booked on a session of its own caller's; its keycard would stand for the other one otherwise.
func TestSomebodyElsesSession(t *testing.T) {
	r := newRoom(t)
	s := overTLS(t, r)
	alice := signIn(t, r, s)
	begin := broker.Act{Kind: broker.KindSession, Server: r.catalog.Server(tenant, "issues"), Method: "initialize"}
	session, err := s.door.Open(t.Context(), alice, begin)
	if err != nil {
		t.Fatal(err)
	}
	a, _ := r.call("list", `{}`)
	a.Session = session.State().Call
	l, err := s.door.Open(t.Context(), alice, a)
	if err != nil {
		t.Fatal("alice in her own session:", err)
	}
	l.Close(t.Context(), broker.Outcome{Result: audit.ResultOK})
	bob := r.token(t, s, "bob")
	for id, want := range map[audit.CallID]fault.Kind{session.State().Call: fault.Denied, "0000000000000001.1": fault.Conflict, "x": fault.Conflict} {
		a.Session = id
		if _, err := s.door.Open(t.Context(), bob, a); fault.KindOf(err) != want {
			t.Errorf("bob in the session %q: %v", id, err)
		}
	}
	session.Close(t.Context(), broker.Outcome{Result: audit.ResultOK})
}

// TestReleasesAreBounded: however many valid tokens pass by a gateway, credentials leave at a rate.
func TestReleasesAreBounded(t *testing.T) {
	r := newRoom(t)
	s := overTLS(t, r)
	r.remote.Releases.User, r.remote.Releases.All = 3, 5
	told := map[remote.Release]int{}
	r.remote.Releases.Told = func(said remote.Release) { told[said]++ }
	now := time.Now().Truncate(time.Minute)
	r.remote.Now = func() time.Time { return now }
	alice := r.token(t, s, "alice", "vendor")
	bob := r.token(t, s, "bob", "vendor")
	take := func(c *identity.Caller) error {
		l, err := s.door.Open(t.Context(), c, broker.Act{Kind: broker.KindCall, Server: r.catalog.Server(tenant, "vendor"), Method: "tools/call", Name: "x"})
		if err == nil {
			l.Close(t.Context(), broker.Outcome{Result: audit.ResultOK})
		}
		return err
	}
	for i, want := range []fault.Kind{fault.Internal, fault.Internal, fault.Internal, fault.Unavailable} {
		if err := take(alice); (err == nil) != (want == fault.Internal) || err != nil && (fault.KindOf(err) != want || fault.RetryAfter(err) == 0) {
			t.Errorf("alice's %d: %v", i, err)
		}
	}
	for i, ok := range []bool{true, true, false} {
		if err := take(bob); (err == nil) != ok {
			t.Errorf("bob's %d: %v", i, err)
		}
	}
	if err := take(alice); err == nil {
		t.Error("alice's fifth goes")
	}
	// Each bound that bites is counted each time, and stands on record once a minute for whom it bit.
	rows, err := r.db.Rows(t.Context(), audit.Query{Tenant: tenant, Limit: 50})
	if err != nil {
		t.Fatal(err)
	}
	var bounded []identity.UserID
	for _, row := range rows {
		var k audit.Record
		if json.Unmarshal(row.Record, &k) == nil && k.Action == "releases.bounded" {
			bounded = append(bounded, k.User)
		}
	}
	if n, last := r.remote.Releases.Refused(); n != 3 || !last.Equal(now) || !slices.Equal(bounded, []identity.UserID{bob.User, alice.User}) || told[remote.Released] != 5 || told[remote.OverPerson] != 2 || told[remote.OverAll] != 1 {
		t.Error("refused", n, last, "on record", bounded, "counted", told)
	}
	now = now.Add(time.Minute)
	if err := take(alice); err != nil {
		t.Error("a minute later:", err)
	}
	// A keycard is no credential.
	a, _ := r.call("list", `{}`)
	for range 10 {
		l, err := s.door.Open(t.Context(), r.token(t, s, "alice"), a)
		if err != nil {
			t.Fatal(err)
		}
		l.Close(t.Context(), broker.Outcome{Result: audit.ResultOK})
	}
}

// TestAGatewayThatIsGone leaves nothing open, and the log says that nobody knows what came of it.
func TestAGatewayThatIsGone(t *testing.T) {
	r := newRoom(t)
	s := overTLS(t, r)
	a, body := r.call("list", `{}`)
	l, err := s.door.Open(t.Context(), signIn(t, r, s), a)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := l.Do(post(t.Context(), a.Server.URL, body))
	read(t, resp, err)
	keycard := strings.TrimPrefix(r.seen(r.server).Header.Get("Authorization"), "Bearer ")
	later := time.Now().Add(45 * time.Second)
	if _, err := r.broker.Holder(t.Context(), tenant, keycard); err != nil {
		t.Fatal(err)
	}
	r.clock.Store(&later)
	r.outcome(t, "call", audit.ResultUnknown)
	if _, err := r.broker.Holder(t.Context(), tenant, keycard); fault.KindOf(err) != fault.Unauthenticated {
		t.Error("its keycard works on:", err)
	}
}

// TestAccessEndsWhatRuns at the broker's side by itself: a gateway that goes on reading gets no more.
func TestAccessEndsWhatRuns(t *testing.T) {
	r := newRoom(t)
	s := overTLS(t, r)
	_, api, target := atAPI(t, r, s, http.MethodGet, "/hang", nil)
	done := make(chan error, 1)
	go func() {
		_, err := api.Do((&http.Request{Method: http.MethodGet, URL: target, Host: target.Host, Header: http.Header{}}).WithContext(t.Context()))
		done <- err
	}()
	r.begun(t, "/hang")
	if err := r.epochs.End(t.Context(), tenant, identity.EpochUser, identity.Everybody); err != nil {
		t.Fatal(err)
	}
	r.ended(t, "/hang")
	select {
	case err := <-done:
		if err == nil {
			t.Error("it was answered")
		}
	case <-time.After(20 * time.Second):
		t.Error("the gateway waits on")
	}
}

// TestWhatFacesMayEnd, and certify, and hear of others' connections.
func TestWhatFacesMayEnd(t *testing.T) {
	r := newRoom(t)
	s := overTLS(t, r)
	c := s.door.(*remote.Client)
	alice := signIn(t, r, s)
	for _, e := range []identity.Epoch{{Tenant: tenant, Kind: identity.EpochUser, ID: string(alice.User)}, {Tenant: tenant, Kind: identity.EpochClient, ID: "agent"}, {Tenant: tenant, Kind: identity.EpochSession}} {
		if _, err := c.Advance(t.Context(), e); fault.KindOf(err) != fault.Denied {
			t.Errorf("%+v: %v", e, err)
		}
	}
	if _, err := c.Advance(t.Context(), identity.Epoch{Seq: 1 << 62, Tenant: tenant, Kind: identity.EpochFamily, ID: "family", NotBefore: time.Now().Add(time.Hour)}); err != nil {
		t.Error(err)
	}
	if l, err := r.db.EpochsSince(t.Context(), 0); err != nil || len(l) != 1 || l[0].Seq > 1000 || l[0].NotBefore.After(time.Now().Add(time.Minute)) {
		t.Error("the gateway says when and in which order things ended:", l, err)
	}
	certs := &remote.Certifier{Client: c, Now: time.Now}
	if _, err := certs.Leaf(t.Context(), "bank.example.com"); fault.KindOf(err) != fault.Denied {
		t.Error("a certificate for a name that is not in the config:", err)
	}
	leaf, err := certs.Leaf(t.Context(), "api.example.com")
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(r.ca.PEM())
	root, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(root)
	if _, err := leaf.Leaf.Verify(x509.VerifyOptions{DNSName: "api.example.com", Roots: pool}); err != nil {
		t.Error(err)
	}
	if again, err := certs.Leaf(t.Context(), "api.example.com"); err != nil || again != leaf {
		t.Error("a certificate is asked for each time", err)
	}
	// Whatever is kept of alice is shown to her visit alone, and never sealed.
	conn := vault.Connection{Tenant: tenant, ID: "c1", User: alice.User, Upstream: "tracker", Method: catalog.APIKey, Status: vault.Active, Created: time.Now()}
	conn.Generation, conn.Version, conn.Sealed = 1, 1, vault.Sealed{Access: []byte("sealed"), Refresh: []byte("sealed")}
	if err := r.db.Connect(t.Context(), conn, 0); err != nil {
		t.Fatal(err)
	}
	res, err := s.flows.Complete(t.Context(), connect.Visitor{Tenant: tenant, Binding: browser}, connect.Answer{IDP: "login", Params: url.Values{"code": {"alice"}}})
	if err != nil {
		t.Fatal(err)
	}
	v := connect.Visitor{Tenant: tenant, User: alice.User, Binding: browser, Proof: res.Session.Proof}
	l, err := c.Connections(t.Context(), v, "")
	if err != nil || len(l) != 1 || len(l[0].Access)+len(l[0].Refresh) > 0 {
		t.Error(l, err)
	}
	v.User = "somebody"
	if l, err := c.Connections(t.Context(), v, ""); fault.KindOf(err) != fault.Denied || len(l) > 0 {
		t.Error(l, err)
	}
}
