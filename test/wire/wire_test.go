// Package wire_test plays conversations in bytes: a raw client on one side, a server that says what a test wants on the other,
// and Frontdesk between them. What docs/eras.md promises of each era is tried here.
package wire_test

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"frontdesk.dev/frontdesk/internal/kit/mcp"
	"frontdesk.dev/frontdesk/test/stage"
	"frontdesk.dev/frontdesk/test/world"
)

// scene is one Frontdesk for all tests, and alice's agent. The servers behind it say what the test at hand has set.
type scene struct {
	*stage.Stage
	agents map[string]*world.Agent // by server: whoever needs a token takes it there

	mu      sync.Mutex
	handler http.Handler // guarded by mu
	got     []received   // guarded by mu
}

type received struct {
	Method string
	Header http.Header
	Body   string
}

var (
	once  sync.Once
	the   *scene
	begun error
	ended []func()
)

func TestMain(m *testing.M) {
	slog.SetDefault(slog.New(slog.DiscardHandler)) // the world's parties talk to themselves
	code := m.Run()
	for _, end := range ended {
		end()
	}
	os.Exit(code)
}

func (s *scene) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	r.Body = io.NopCloser(strings.NewReader(string(body)))
	s.mu.Lock()
	h := s.handler
	s.got = append(s.got, received{r.Method, r.Header.Clone(), string(body)})
	s.mu.Unlock()
	h.ServeHTTP(w, r)
}

// polite is a server of the legacy era that does what it must.
func polite(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	m, scanErr := mcp.Scan(body)
	switch {
	case r.Method != http.MethodPost:
		w.WriteHeader(http.StatusMethodNotAllowed)
	case err != nil || scanErr != nil || m.Kind != mcp.Request:
		w.WriteHeader(http.StatusAccepted)
	case m.Method == "initialize":
		w.Header().Set("Mcp-Session-Id", upstreamSession)
		say(w, `{"jsonrpc":"2.0","id":`+string(m.IDBytes())+`,"result":{"protocolVersion":"2025-11-25","capabilities":{"tools":{}},"serverInfo":{"name":"wire","version":"1"}}}`)
	case m.Method == "tools/list":
		say(w, `{"jsonrpc":"2.0","id":`+string(m.IDBytes())+`,"result":{"tools":[{"name":"seen","inputSchema":{"type":"object"}},{"name":"hidden","inputSchema":{"type":"object"}}]}}`)
	default:
		say(w, `{"jsonrpc":"2.0","id":`+string(m.IDBytes())+`,"result":{}}`)
	}
}

const upstreamSession = "the-servers-own-session"

func say(w http.ResponseWriter, body string) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = io.WriteString(w, body)
}

// stream sends events, each as it stands, and returns what flushes one more.
func stream(w http.ResponseWriter, events ...string) (more func(string)) {
	w.Header().Set("Content-Type", "text/event-stream")
	more = func(e string) {
		_, _ = io.WriteString(w, e)
		_ = http.NewResponseController(w).Flush()
	}
	more("")
	for _, e := range events {
		more(e)
	}
	return more
}

func event(data string) string { return "event: message\ndata: " + data + "\n\n" }

func begin() (*scene, error) {
	s := &scene{}
	server := httptest.NewServer(s)
	ended = append(ended, server.Close)
	dir, err := os.MkdirTemp("", "frontdesk-wire-")
	if err != nil {
		return nil, err
	}
	ended = append(ended, func() { _ = os.RemoveAll(dir) })
	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
	defer cancel()
	s.Stage, err = stage.New(ctx, dir, stage.Options{
		Servers: "  wire: {url: " + server.URL + "/mcp, allow: [group:engineering]}\n" +
			"  asks: {url: " + server.URL + "/mcp, upstreams: [tracker], allow: [group:engineering]}\n" +
			"  lasting: {url: " + server.URL + "/mcp, placeholder: session, allow: [group:engineering]}\n" +
			"  late: {url: " + server.URL + "/mcp, upstreams: [tracker: {optional: true}], allow: [group:engineering]}\n" +
			"  asks-bob: {url: " + server.URL + "/mcp, upstreams: [tracker], allow: [group:engineering]}\n",
		Config: "policies: [wire.cedar]\n",
		Files: map[string]string{"wire.cedar": `forbid(principal, action == Action::"call", resource == Tool::"wire/hidden");
forbid(principal, action == Action::"call", resource == Resource::"wire/file:///hidden");
forbid(principal, action == Action::"call", resource == Prompt::"wire/hidden");`},
	})
	if err != nil {
		return nil, err
	}
	ended = append([]func(){func() { _ = s.Close() }}, ended...)
	s.handler, s.agents = http.HandlerFunc(polite), map[string]*world.Agent{}
	for server, user := range map[string]string{"wire": "alice", "asks": "alice", "late": "alice", "lasting": "alice", "asks-bob": "bob"} {
		a, err := world.NewAgent(world.AgentConfig{URL: s.Desk().MCP(server), Name: "wire", Era: world.Era2025November, Browser: s.Person(user, "Later: a tool that needs it will ask then", "Done")})
		if err != nil {
			return nil, err
		}
		ended = append([]func(){func() { _ = a.Close() }}, ended...)
		if _, err := a.Tools(ctx); err != nil {
			return nil, err
		}
		s.agents[server] = a
	}
	return s, nil
}

// play sets what the server behind Frontdesk says.
func play(t *testing.T, h http.HandlerFunc) *scene {
	t.Helper()
	once.Do(func() { the, begun = begin() })
	if begun != nil {
		t.Fatal(begun)
	}
	the.mu.Lock()
	the.handler, the.got = h, nil
	the.mu.Unlock()
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(the.Desk().Log())
		}
	})
	return the
}

func (s *scene) received() []received {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]received(nil), s.got...)
}

// forget drops what was received so far.
func (s *scene) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.got = nil
}

type answer struct {
	Status int
	Header http.Header
	Body   string
}

// open sends a request that no library makes more polite, and leaves the answer's body to the test.
func (s *scene) open(t *testing.T, ctx context.Context, method, server, body string, headers ...string) *http.Response {
	t.Helper()
	r, err := http.NewRequestWithContext(ctx, method, s.Desk().MCP(server), strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+s.agents[server].AccessToken())
	r.Header.Set("Accept", "application/json, text/event-stream")
	if method == http.MethodPost {
		r.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = resp.Body.Close() })
	return resp
}

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func (s *scene) send(t *testing.T, method, server, body string, headers ...string) answer {
	t.Helper()
	resp := s.open(t, within(t), method, server, body, headers...)
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, string(b)}
}

const meta = `"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}`

// modernHeaders are those of one request.
func modernHeaders(method, name string) []string {
	h := []string{"MCP-Protocol-Version", "2026-07-28", "Mcp-Method", method}
	if name != "" {
		h = append(h, "Mcp-Name", name)
	}
	return h
}

// modern sends one request of the modern era; params are JSON members.
func (s *scene) modern(t *testing.T, method, name, params string) answer {
	t.Helper()
	if params != "" {
		params = "," + params
	}
	return s.send(t, http.MethodPost, "wire", `{"jsonrpc":"2.0","id":7,"method":"`+method+`","params":{`+meta+params+`}}`, modernHeaders(method, name)...)
}

// initialize begins a legacy session and returns the headers of what follows in it. The handler must know how.
func (s *scene) initialize(t *testing.T, server, capabilities string) []string {
	t.Helper()
	a := s.send(t, http.MethodPost, server, `{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":`+capabilities+`,"clientInfo":{"name":"wire","version":"1"}}}`)
	id := a.Header.Get("Mcp-Session-Id")
	if a.Status != http.StatusOK || id == "" {
		t.Fatalf("no session: %d %s", a.Status, a.Body)
	}
	return []string{"Mcp-Session-Id", id, "MCP-Protocol-Version", "2025-11-25"}
}

// legacy sends one request within a session.
func (s *scene) legacy(t *testing.T, session []string, method, params string) answer {
	t.Helper()
	return s.send(t, http.MethodPost, "wire", `{"jsonrpc":"2.0","id":7,"method":"`+method+`","params":{`+params+`}}`, session...)
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	ctx := within(t)
	for !ok() {
		select {
		case <-ctx.Done():
			t.Fatal("it never came to this: " + what)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// messages reads a stream's messages as they come.
func messages(body io.Reader) <-chan string {
	c := make(chan string, 100)
	go func() {
		defer close(c)
		events := mcp.NewEvents(body)
		for {
			e, err := events.Next()
			if err != nil {
				return
			}
			if e.Message() {
				c <- string(e.Data)
			}
		}
	}()
	return c
}

func next(t *testing.T, c <-chan string) string {
	t.Helper()
	select {
	case m, ok := <-c:
		if !ok {
			t.Fatal("the stream has ended")
		}
		return m
	case <-within(t).Done():
		t.Fatal("no message came")
	}
	return ""
}
