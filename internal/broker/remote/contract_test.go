package remote_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/internal/broker"
	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/connect"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/policy/content"
)

// sides is the broker's side as faces get it.
type sides struct {
	door   broker.Door
	flows  broker.Flows
	notary broker.Notary
	verify func(server, token string) (*identity.Caller, error)
}

// TestContract runs one contract over both forms of the interfaces at which the process can be cut: called directly, and by mutual TLS
// over sockets.
func TestContract(t *testing.T) {
	for name, form := range map[string]func(*testing.T, *room) sides{"direct": direct, "mutual TLS": overTLS} {
		t.Run(name, func(t *testing.T) {
			for what, f := range map[string]func(t *testing.T, r *room, s sides){
				"sign-in, token, caller": signsIn, "a call to its end": calls, "arguments": arguments, "an API request": apiRequest, "bodies stream both ways": streams,
				"who reads slowly holds back": holdsBack, "an upgrade": upgrades, "trailers": trailers, "cancel": cancels, "faults": faults, "an answer that breaks off": breaksOff, "content": contents,
			} {
				t.Run(what, func(t *testing.T) {
					r := newRoom(t)
					f(t, r, form(t, r))
				})
			}
		})
	}
}

func direct(_ *testing.T, r *room) sides {
	return sides{r.broker, r.desk, r.desk, func(server, token string) (*identity.Caller, error) {
		return r.verifier.Verify(context.Background(), tenant, r.mcp(server), token)
	}}
}

// signIn is alice with an agent, and her token at the server issues.
func signIn(t *testing.T, r *room, s sides) *identity.Caller { return r.token(t, s, "alice") }

// token is somebody's with an agent, at the server issues or another one.
func (r *room) token(t *testing.T, s sides, subject string, server ...string) *identity.Caller {
	t.Helper()
	at := append(server, "issues")[0]
	res, err := s.flows.Complete(t.Context(), connect.Visitor{Tenant: tenant, Binding: browser}, connect.Answer{IDP: "login", Params: url.Values{"code": {subject}}})
	if err != nil {
		t.Fatal(err)
	}
	v := connect.Visitor{Tenant: tenant, User: res.User.ID, Binding: browser, Proof: res.Session.Proof}
	standing, err := s.notary.Admit(t.Context(), v, broker.Admission{Client: "agent", Server: r.catalog.Server(tenant, catalog.ServerName(at)), Family: "family"})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	token, err := s.notary.Sign(t.Context(), tenant, standing, identity.AccessClaims{Issuer: issuer, Audience: r.mcp(at), Subject: res.User.ID, Client: "agent", ID: "1",
		IssuedAt: now.Unix(), Expires: now.Add(4 * time.Minute).Unix(), Family: "family", Micros: now.UnixMicro()})
	if err != nil {
		t.Fatal(err)
	}
	c, err := s.verify(at, token)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func signsIn(t *testing.T, r *room, s sides) {
	c := signIn(t, r, s)
	if c.Subject != "alice" || c.Client != "agent" || c.Tenant != tenant || !slices.Equal(c.Groups, []string{"engineering"}) || c.Raw().IsZero() || c.Proof() == "" {
		t.Errorf("%+v", c)
	}
	if _, err := s.verify("issues", strings.TrimSuffix(c.Raw().Expose(), "A")+"B"); fault.KindOf(err) != fault.Unauthenticated {
		t.Error("a token that was altered is taken:", err)
	}
	if n, err := s.flows.Begin(t.Context(), connect.Visitor{Tenant: tenant, Binding: browser}, connect.Start{Kind: connect.FlowSignIn}); err != nil || n.URL != "https://idp.example/authorize" {
		t.Error(n, err)
	}
	if _, err := s.flows.End(t.Context(), connect.Visitor{Tenant: tenant, User: c.User, Binding: browser, Proof: "made up"}, "c"); fault.KindOf(err) != fault.Denied {
		t.Error("a visitor without proof ends connections:", err)
	}
	if err := s.notary.Record(t.Context(), audit.Record{Kind: audit.KindEvent, Time: time.Now(), Tenant: tenant, Action: "sign_in.ended"}); err != nil {
		t.Error(err)
	}
}

// call is a tool's call of the caller's.
func (r *room) call(name, args string) (broker.Act, string) {
	body := `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"` + name + `","arguments":` + args + `}}`
	return broker.Act{Kind: broker.KindCall, Server: r.catalog.Server(tenant, "issues"), Method: "tools/call", Name: name, Arguments: func(names []string) (map[string][]byte, error) {
		out := map[string][]byte{}
		for _, n := range names {
			if _, after, ok := strings.Cut(args, `"`+n+`":`); ok {
				v, _, _ := strings.Cut(strings.TrimSuffix(after, "}"), ",")
				out[n] = []byte(v)
			}
		}
		return out, nil
	}}, body
}

func post(ctx context.Context, u *url.URL, body string) *http.Request {
	return (&http.Request{Method: http.MethodPost, URL: u, Host: u.Host, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body))}).WithContext(ctx)
}

func read(t *testing.T, resp *http.Response, err error) string {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(resp.Body)
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// calls: one from its decision to its outcome, with the keycard that its server gets to hold.
func calls(t *testing.T, r *room, s sides) {
	c := signIn(t, r, s)
	a, body := r.call("list", `{}`)
	if see, err := s.door.Visible(t.Context(), c, a.Server, "tools/call", []string{"list", "forbidden"}); err != nil || !slices.Equal(see, []bool{true, false}) {
		t.Error(see, err)
	}
	if ready, err := s.door.Ready(t.Context(), c, a); err != nil || !ready.Decision.Allow {
		t.Error(ready, err)
	}
	l, err := s.door.Open(t.Context(), c, a)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Valid(t.Context()); err != nil {
		t.Error(err)
	}
	resp, err := l.Do(post(t.Context(), a.Server.URL, body))
	if got := read(t, resp, err); got != body || resp.StatusCode != http.StatusOK || resp.Header.Get("X-Server") != "issues" {
		t.Error(got, resp)
	}
	keycard := strings.TrimPrefix(r.seen(r.server).Header.Get("Authorization"), "Bearer ")
	h, err := s.door.Holder(t.Context(), tenant, keycard)
	if err != nil || h.Call != l.State().Call || h.Server != a.Server || h.Caller.User != c.User || h.Ticket.Kind != identity.TicketCall {
		t.Error(h, err)
	}
	h.Tell("ask for less")
	if got := l.State(); !slices.Equal(got.Hints, []string{"ask for less"}) {
		t.Error(got)
	}
	l.Close(t.Context(), broker.Outcome{Result: audit.ResultOK})
	l.Close(t.Context(), broker.Outcome{Result: audit.ResultFailed})
	if _, err := s.door.Holder(t.Context(), tenant, keycard); fault.KindOf(err) != fault.Unauthenticated {
		t.Error("a keycard outlives its call:", err)
	}
	r.outcome(t, "call", audit.ResultOK)
	no, _ := r.call("forbidden", `{}`)
	if _, err := s.door.Open(t.Context(), c, no); fault.KindOf(err) != fault.Denied {
		t.Error(err)
	}
}

func arguments(t *testing.T, r *room, s sides) {
	c := signIn(t, r, s)
	for args, want := range map[string]fault.Kind{`{"repo":"website","x":1}`: fault.Internal, `{"repo":"payroll"}`: fault.Denied, `{}`: fault.Denied} {
		a, body := r.call("write", args)
		l, err := s.door.Open(t.Context(), c, a)
		if want != fault.Internal {
			if fault.KindOf(err) != want {
				t.Errorf("%s: %v", args, err)
			}
			continue
		}
		if err != nil {
			t.Fatal(args, err)
		}
		resp, err := l.Do(post(t.Context(), a.Server.URL, body))
		if got := read(t, resp, err); got != body {
			t.Error(got)
		}
		l.Close(t.Context(), broker.Outcome{Result: audit.ResultOK})
	}
	broken, _ := r.call("write", `{}`)
	broken.Arguments = func([]string) (map[string][]byte, error) { return nil, fault.New(fault.Invalid, "twice", nil) }
	if _, err := s.door.Open(t.Context(), c, broken); fault.KindOf(err) != fault.Invalid || fault.Message(err) != "twice" {
		t.Error(err)
	}
}

// atAPI opens a call, and with its keycard an API request.
func atAPI(t *testing.T, r *room, s sides, method, path string, r2 *http.Request) (call, api broker.Lease, target *url.URL) {
	t.Helper()
	c := signIn(t, r, s)
	a, body := r.call("list", `{}`)
	call, err := s.door.Open(t.Context(), c, a)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := call.Do(post(t.Context(), a.Server.URL, body))
	read(t, resp, err)
	r.keycard = strings.TrimPrefix(r.seen(r.server).Header.Get("Authorization"), "Bearer ")
	h, err := s.door.Holder(t.Context(), tenant, r.keycard)
	if err != nil {
		t.Fatal(err)
	}
	up := r.catalog.Upstream(tenant, "tracker")
	target = &url.URL{Scheme: "http", Host: up.Origins[0].Host, Path: path}
	act := broker.Act{Kind: broker.KindAPI, Server: h.Server, Method: method, Upstream: up, Host: target.Host, Path: target.EscapedPath(), Holding: h}
	if r2 != nil {
		act.Content = content.Of(r2, target, up, false)
	}
	api, err = s.door.Open(t.Context(), h.Caller, act)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		api.Close(context.Background(), broker.Outcome{Result: audit.ResultOK})
		call.Close(context.Background(), broker.Outcome{Result: audit.ResultOK})
	})
	return call, api, target
}

func apiRequest(t *testing.T, r *room, s sides) {
	call, api, target := atAPI(t, r, s, http.MethodGet, "/echo", nil)
	resp, err := api.Do((&http.Request{Method: http.MethodGet, URL: target, Host: target.Host, Header: http.Header{}}).WithContext(t.Context()))
	got := read(t, resp, err)
	if r.seen(r.api).Header.Get("Authorization") != "Bearer "+canary {
		t.Error("the API got", r.seen(r.api).Header)
	}
	if strings.Contains(got, canary) || !strings.Contains(got, "Authorization") {
		t.Error("the credential came back:", got)
	}
	if st := call.State(); st.Successes != 1 {
		t.Error(st)
	}
}

// streams sends a line at a time, and reads its echo before it sends the next.
func streams(t *testing.T, r *room, s sides) {
	_, api, target := atAPI(t, r, s, http.MethodPost, "/talk", nil)
	ours, theirs := io.Pipe()
	req := (&http.Request{Method: http.MethodPost, URL: target, Host: target.Host, Header: http.Header{}, Body: ours, ContentLength: -1}).WithContext(t.Context())
	answered := make(chan *http.Response, 1)
	go func() {
		resp, err := api.Do(req)
		if err != nil {
			t.Error(err)
		}
		answered <- resp
	}()
	_, _ = io.WriteString(theirs, "one\n")
	resp := <-answered
	if resp == nil {
		return
	}
	for i := range 20 {
		line := make([]byte, 4)
		if _, err := io.ReadFull(resp.Body, line); err != nil || string(line) != "one\n" {
			t.Fatal(i, string(line), err)
		}
		if _, err := io.WriteString(theirs, "one\n"); err != nil {
			t.Fatal(err)
		}
	}
	_ = theirs.Close()
	if rest := read(t, resp, nil); rest != "one\n" {
		t.Errorf("%q", rest)
	}
}

// holdsBack: an answer that nobody reads stops its sender, and nobody else.
func holdsBack(t *testing.T, r *room, s sides) {
	_, api, target := atAPI(t, r, s, http.MethodGet, "/flood", nil)
	get := func() *http.Request {
		return (&http.Request{Method: http.MethodGet, URL: target, Host: target.Host, Header: http.Header{}}).WithContext(t.Context())
	}
	flood, err := api.Do(get())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = flood.Body.Close() }()
	sent := r.settled(t)
	if sent > flooded/2 {
		t.Errorf("%d MB were taken of an answer that nobody reads", sent>>20)
	}
	a, body := r.call("list", `{}`)
	other, err := s.door.Open(t.Context(), signIn(t, r, s), a)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := other.Do(post(t.Context(), a.Server.URL, body))
	if got := read(t, resp, err); got != body {
		t.Error("beside it, nothing passes:", got)
	}
	other.Close(t.Context(), broker.Outcome{Result: audit.ResultOK})
	n, err := io.Copy(io.Discard, flood.Body)
	if err != nil || n != flooded {
		t.Error(n, err)
	}
}

func upgrades(t *testing.T, r *room, s sides) {
	_, api, target := atAPI(t, r, s, http.MethodGet, "/switch", nil)
	req := (&http.Request{Method: http.MethodGet, URL: target, Host: target.Host, Header: http.Header{"Connection": {"Upgrade"}, "Upgrade": {"lines"}}}).WithContext(t.Context())
	resp, err := api.Do(req)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols || resp.Header.Get("Upgrade") != "lines" {
		t.Fatal(resp, err)
	}
	conn, ok := resp.Body.(io.ReadWriteCloser)
	if !ok {
		t.Fatalf("the body of a connection that was switched is a %T", resp.Body)
	}
	for range 3 {
		if _, err := io.WriteString(conn, "hello\n"); err != nil {
			t.Fatal(err)
		}
		line := make([]byte, 6)
		if _, err := io.ReadFull(conn, line); err != nil || string(line) != "HELLO\n" {
			t.Fatal(string(line), err)
		}
	}
	if err := conn.Close(); err != nil {
		t.Error(err)
	}
	r.ended(t, "/switch")
}

func trailers(t *testing.T, r *room, s sides) {
	_, api, target := atAPI(t, r, s, http.MethodPost, "/trailers", nil)
	req := post(t.Context(), target, "body")
	req.ContentLength, req.Trailer = -1, http.Header{"X-Sum": nil}
	req.Body = io.NopCloser(io.MultiReader(strings.NewReader("body"), atEnd(func() { req.Trailer.Set("X-Sum", "abc") })))
	resp, err := api.Do(req)
	if got := read(t, resp, err); got != "body abc" || resp.Trailer.Get("X-Sum") != "xyz" {
		t.Errorf("%q, trailer %v", got, resp.Trailer)
	}
}

type atEnd func()

func (f atEnd) Read([]byte) (int, error) {
	f()
	return 0, io.EOF
}

// cancels: whoever goes away ends what runs for him, at the other side too; and so does the end of a caller's access.
func cancels(t *testing.T, r *room, s sides) {
	_, api, target := atAPI(t, r, s, http.MethodGet, "/hang", nil)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		r.begun(t, "/hang")
		cancel()
	}()
	if _, err := api.Do((&http.Request{Method: http.MethodGet, URL: target, Host: target.Host, Header: http.Header{}}).WithContext(ctx)); err == nil {
		t.Error("it was not given up")
	}
	r.ended(t, "/hang")
}

func faults(t *testing.T, r *room, s sides) {
	_, api, target := atAPI(t, r, s, http.MethodPost, "/echo", nil)
	// What is wrong with a request's own body stays what it is.
	mine := fault.New(fault.Unauthenticated, "the keycard stands in the body", nil)
	req := post(t.Context(), target, "")
	req.Body, req.ContentLength = io.NopCloser(io.MultiReader(strings.NewReader("beginning"), failing{mine})), -1
	if _, err := api.Do(req); fault.KindOf(err) != fault.Unauthenticated || fault.Message(err) != fault.Message(mine) {
		t.Error(err)
	}
	c := signIn(t, r, s)
	a, _ := r.call("list", `{}`)
	r.people.missing = []catalog.Missing{{Upstream: "tracker", Scopes: []string{"read"}, Why: catalog.WhyScope, Reason: "more"}}
	_, err := s.door.Open(t.Context(), c, a)
	needed, ok := errors.AsType[*catalog.Needed](err)
	if !ok || len(needed.Missing) != 1 || needed.Missing[0].Reason != "more" || needed.Missing[0].Why != catalog.WhyScope {
		t.Error(err)
	}
	r.people.missing, r.people.err = nil, &fault.Error{Kind: fault.RateLimited, Msg: "slowly", RetryAfter: 7 * time.Second}
	if _, err := s.door.Open(t.Context(), c, a); fault.KindOf(err) != fault.RateLimited || fault.RetryAfter(err) != 7*time.Second || fault.Message(err) != "slowly" {
		t.Error(err)
	}
	r.people.err = errors.New("the password of the database is 1234")
	if _, err := s.door.Open(t.Context(), c, a); fault.KindOf(err) != fault.Internal || strings.Contains(fault.Message(err), "1234") {
		t.Error(err)
	}
	r.people.err = nil
	if err := r.epochs.End(t.Context(), tenant, identity.EpochUser, string(c.User)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.door.Open(t.Context(), c, a); fault.KindOf(err) != fault.Unauthenticated {
		t.Error(err)
	}
	if err := api.Valid(t.Context()); fault.KindOf(err) != fault.Unauthenticated {
		t.Error("a lease outlives its caller's access:", err)
	}
}

type failing struct{ error }

func (f failing) Read([]byte) (int, error) { return 0, f.error }

// breaksOff: nobody takes a part of an answer for the whole.
func breaksOff(t *testing.T, r *room, s sides) {
	_, api, target := atAPI(t, r, s, http.MethodGet, "/broken", nil)
	resp, err := api.Do((&http.Request{Method: http.MethodGet, URL: target, Host: target.Host, Header: http.Header{}}).WithContext(t.Context()))
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(resp.Body)
	if err == nil || string(b) != "half" || fault.KindOf(err) != fault.Unavailable {
		t.Errorf("%q, %v", b, err)
	}
}

// contents: policy reads what is in a body, which is then sent as it was.
func contents(t *testing.T, r *room, s sides) {
	body := `{"title":"ok"}`
	in := httptest.NewRequest(http.MethodPost, "/talk", strings.NewReader(body))
	in.Header.Set("Content-Type", "application/json")
	_, api, target := atAPI(t, r, s, http.MethodPost, "/issues", in)
	req := (&http.Request{Method: http.MethodPost, URL: target, Host: target.Host, Header: in.Header, Body: in.Body, ContentLength: int64(len(body))}).WithContext(t.Context())
	resp, err := api.Do(req)
	if got := read(t, resp, err); got != body {
		t.Error(got)
	}
}

// handler of the tracker's API.
func (r *room) serveAPI(w http.ResponseWriter, q *http.Request) {
	c := http.NewResponseController(w)
	_ = c.EnableFullDuplex()
	r.note(q.URL.Path, +1)
	defer r.note(q.URL.Path, -1)
	switch q.URL.Path {
	case "/echo":
		b, _ := io.ReadAll(q.Body)
		fmt.Fprintf(w, "%v\n%s", q.Header, b)
	case "/issues":
		_, _ = io.Copy(w, q.Body)
	case "/talk":
		buf := make([]byte, 4)
		for {
			n, err := io.ReadFull(q.Body, buf)
			_, _ = w.Write(buf[:n])
			_ = c.Flush()
			if err != nil {
				return
			}
		}
	case "/flood":
		block := bytes.Repeat([]byte("x"), 64<<10)
		for range flooded / len(block) {
			n, err := w.Write(block)
			r.sent.Add(int64(n))
			if err != nil {
				return
			}
		}
	case "/switch":
		conn, buffered, err := c.Hijack()
		if err != nil {
			return
		}
		defer func() { _ = conn.Close() }()
		_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: lines\r\n\r\n")
		for {
			line, err := buffered.ReadString('\n')
			if err != nil {
				return
			}
			_, _ = io.WriteString(conn, strings.ToUpper(line))
		}
	case "/trailers":
		w.Header().Set("Trailer", "X-Sum")
		b, _ := io.ReadAll(q.Body)
		fmt.Fprintf(w, "%s %s", b, q.Trailer.Get("X-Sum"))
		w.Header().Set("X-Sum", "xyz")
	case "/hang":
		<-q.Context().Done()
	case "/broken":
		w.Header().Set("Content-Length", "8")
		_, _ = io.WriteString(w, "half")
		_ = c.Flush()
		panic(http.ErrAbortHandler)
	}
}
