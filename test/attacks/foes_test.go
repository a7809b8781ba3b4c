package attacks_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"frontdesk.dev/frontdesk/test/stage"
	"frontdesk.dev/frontdesk/test/world"
)

// hostile is the stage of the attacks that come from servers and APIs: `evil` is an MCP server that the attacker runs, and api a
// second host of the tracker's that answers as a test tells it. bob is the bystander. Policy hides modern/delete_issue.
type hostile struct {
	*scene
	evil, api *stranger
	bob       *world.Agent
}

var (
	hostileOnce  sync.Once
	hostileShown *hostile
	hostileDir   string
	hostileBegun error
)

func foes(t *testing.T) *hostile {
	t.Helper()
	hostileOnce.Do(func() { hostileShown, hostileBegun = beginHostile() })
	if hostileBegun != nil {
		t.Fatal(hostileBegun)
	}
	h := *hostileShown
	h.token = h.fresh(t)
	h.evil.answer(nil)
	h.api.answer(nil)
	return &h
}

// closeHostile is for TestMain.
func closeHostile() {
	if hostileShown != nil {
		_ = hostileShown.Close()
		hostileShown.evil.Close()
		hostileShown.api.Close()
	}
	if hostileDir != "" {
		_ = os.RemoveAll(hostileDir)
	}
}

func beginHostile() (*hostile, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
	defer cancel()
	var err error
	if hostileDir, err = os.MkdirTemp("", "frontdesk-attacks-"); err != nil {
		return nil, err
	}
	home := filepath.Join(hostileDir, "desk0")
	if err := os.MkdirAll(home, 0o700); err != nil {
		return nil, err
	}
	hide := `@reason("nobody deletes") forbid(principal, action == Action::"call", resource == Tool::"modern/delete_issue");
@reason("not that one") forbid(principal, action == Action::"call", resource in Server::"evil") when { context.args has repo && context.args.repo == "secret" };
@reason("not there") forbid(principal, action == Action::"api", resource) when { context.path like "*forbidden*" };
` + rules
	if err := os.WriteFile(filepath.Join(home, "hide.cedar"), []byte(hide), 0o600); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(home, "tracker.openapi.yaml"), []byte(trackerAPI), 0o600); err != nil {
		return nil, err
	}
	evil, api := newStranger(), newStranger()
	binary, err := built()
	if err != nil {
		return nil, err
	}
	s, err := stage.New(ctx, hostileDir, stage.Options{
		Binary: binary,
		Servers: "  evil: {url: " + evil.URL + "/mcp, upstreams: [tracker], allow: [group:engineering]}\n" +
			"  slow: {url: " + evil.URL + "/mcp, upstreams: [tracker], allow: [group:engineering], call_limit: 2s}\n" +
			"  ruled: {url: " + evil.URL + "/mcp, upstreams: [tracker], allow: [group:engineering]}\n" +
			"  reader: {url: " + evil.URL + "/mcp, upstreams: [tracker], allow: [group:engineering], read_only: true}\n" +
			"  tried: {url: " + evil.URL + "/mcp, upstreams: [tracker], allow: [group:engineering], read_only: true, observe: true}\n",
		Upstream: "    hosts: [\"" + api.URL + "\"]\n    openapi: tracker.openapi.yaml\n",
		Config:   "policies: [hide.cedar]\ntrusted_proxies: [127.0.0.0/8]\n",
	})
	if err != nil {
		return nil, err
	}
	h := &hostile{scene: &scene{Stage: s}, evil: evil, api: api}
	for name, into := range map[string]**world.Agent{"alice": &h.alice, "bob": &h.bob} {
		a, err := world.NewAgent(world.AgentConfig{URL: s.Desk().MCP("modern"), Name: "good-agent", Era: world.Era2026July, Browser: s.Person(name, "Connect Tracker", "Done")})
		if err != nil {
			return nil, err
		}
		if r, err := a.Call(ctx, "whoami", nil); err != nil || r.IsError {
			return nil, fmt.Errorf("%s is not connected: %v, %w", name, r, err)
		}
		*into = a
		for _, server := range []string{"evil", "slow", "ruled", "reader", "tried", "modern", "issues"} {
			if err := h.grant(ctx, name, server); err != nil {
				return nil, err
			}
		}
	}
	return h, nil
}

// grant lets good-agent, as it comes with the IdP's own tokens, use a person's connection at a server.
func (h *hostile) grant(ctx context.Context, user, server string) error {
	token, err := h.IdP.MintAccessToken(user, "api://frontdesk", map[string]any{"client_id": "good-agent"})
	if err != nil {
		return err
	}
	a, err := world.NewAgent(world.AgentConfig{URL: h.Desk().MCP(server), Era: world.Era2026July, Token: token})
	if server == "issues" {
		a, err = world.NewAgent(world.AgentConfig{URL: h.Desk().MCP(server), Era: world.Era2025November, Token: token})
	}
	if err != nil {
		return err
	}
	defer func() { _ = a.Close() }()
	if server != "modern" && server != "issues" {
		body := callBody("whoami", "{}")
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, h.Desk().MCP(server), strings.NewReader(body))
		if err != nil {
			return err
		}
		for k, v := range map[string]string{"Content-Type": "application/json", "MCP-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/call", "Mcp-Name": "whoami", "Authorization": "Bearer " + token} {
			r.Header.Set(k, v)
		}
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			return err
		}
		defer func() { _ = resp.Body.Close() }()
		said, err := io.ReadAll(resp.Body)
		if err != nil {
			return err
		}
		return h.open(ctx, user, string(said))
	}
	res, err := a.Call(ctx, "whoami", nil)
	if err != nil {
		return err
	}
	return h.open(ctx, user, world.Text(res))
}

var linkIn = regexp.MustCompile(`http://[^"\\\s]*/connect/[A-Za-z0-9_-]+`)

// open lets a person say yes at the link within a text.
func (h *hostile) open(ctx context.Context, user, text string) error {
	link := linkIn.FindString(text)
	if link == "" {
		return fmt.Errorf("no link in %s", text)
	}
	return h.Person(user).Open(ctx, link)
}

// fresh is alice's access token at /mcp/modern with some life left: they live four minutes.
func (h *hostile) fresh(t *testing.T) string {
	t.Helper()
	if _, err := h.alice.Call(t.Context(), "whoami", nil); err != nil {
		t.Fatal(err)
	}
	return h.alice.AccessToken()
}

// at is the workload-like token of a person's own IdP, good at every server of the stage.
func (h *hostile) at(t *testing.T, user string) string {
	t.Helper()
	v, err := h.IdP.MintAccessToken(user, "api://frontdesk", map[string]any{"client_id": "good-agent", "groups": []string{"engineering"}})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// heard is one request that a stranger got.
type heard struct {
	Line   string
	Host   string
	Header http.Header
	Body   []byte
}

// stranger is a server that answers as the test says, and keeps what it heard.
type stranger struct {
	*httptest.Server
	mu      sync.Mutex
	handler http.HandlerFunc
	got     []heard
}

func newStranger() *stranger {
	s := &stranger{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		r.Body = io.NopCloser(bytes.NewReader(body))
		s.mu.Lock()
		s.got = append(s.got, heard{r.Method + " " + r.RequestURI, r.Host, r.Header.Clone(), body})
		h := s.handler
		s.mu.Unlock()
		if h != nil {
			h(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{}`)
	}))
	return s
}

func (s *stranger) answer(h http.HandlerFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.handler = h
	s.got = nil
}

func (s *stranger) heard() []heard {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]heard(nil), s.got...)
}

// raw answers with these bytes, framing and all, and closes.
func raw(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		c, b, err := w.(http.Hijacker).Hijack()
		if err != nil {
			return
		}
		_, _ = b.WriteString(text)
		_ = b.Flush()
		_ = c.Close()
	}
}

// events answers a tools/call with an event stream whose body is given; $ID is the id of the request.
func events(body string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, strings.ReplaceAll(body, "$ID", idOf(r)))
	}
}

func idOf(r *http.Request) string {
	var m struct {
		ID json.RawMessage `json:"id"`
	}
	_ = json.NewDecoder(r.Body).Decode(&m)
	return string(m.ID)
}

// result answers with one JSON message; $ID is the id of the request.
func result(body string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, strings.ReplaceAll(body, "$ID", idOf(r)))
	}
}

// call sends a modern tools/call to `evil` as alice.
func (h *hostile) call(t *testing.T, tool, args string, more ...string) answer {
	t.Helper()
	return h.post(t, "evil", h.at(t, "alice"), tool, callBody(tool, args), more...)
}

func (h *hostile) post(t *testing.T, server, token, tool, body string, more ...string) answer {
	t.Helper()
	headers := append([]string{"Content-Type", "application/json", "Accept", "application/json, text/event-stream", "MCP-Protocol-Version", "2026-07-28", "Mcp-Method", "tools/call", "Mcp-Name", tool,
		"Authorization", "Bearer " + token}, more...)
	return send(t, http.MethodPost, h.Desk().MCP(server), body, headers...)
}

// legacy sends a message of the legacy era.
func (h *hostile) legacy(t *testing.T, server, token, session, body string, more ...string) answer {
	t.Helper()
	headers := append([]string{"Content-Type", "application/json", "Accept", "application/json, text/event-stream", "Authorization", "Bearer " + token}, more...)
	if session != "" {
		headers = append(headers, "Mcp-Session-Id", session)
	}
	return send(t, http.MethodPost, h.Desk().MCP(server), body, headers...)
}

const initialize = `{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"x","version":"1"}}}`

// session begins a legacy session and gives its id.
func (h *hostile) session(t *testing.T, server, token string) string {
	t.Helper()
	got := h.legacy(t, server, token, "", initialize)
	id := got.Header.Get("Mcp-Session-Id")
	if got.Status != http.StatusOK || id == "" {
		t.Fatalf("initialize: %d %s", got.Status, got.Body)
	}
	return id
}

// keycard, at evil, is that of a call which stays open until the test ends, as `evil` got it.
func (h *hostile) keycard(t *testing.T, user string) string { return h.keycardAt(t, "evil", user) }

func (h *hostile) keycardAt(t *testing.T, server, user string) string {
	t.Helper()
	card, done := make(chan string, 1), make(chan struct{})
	h.evil.answer(func(w http.ResponseWriter, r *http.Request) {
		id := idOf(r)
		card <- strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
		<-done
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"jsonrpc":"2.0","id":`+id+`,"result":{"content":[]}}`)
	})
	var over sync.WaitGroup
	token := h.at(t, user)
	over.Go(func() {
		r, err := http.NewRequest(http.MethodPost, h.Desk().MCP(server), strings.NewReader(callBody("hold", "{}")))
		if err != nil {
			return
		}
		for k, v := range map[string]string{"Content-Type": "application/json", "MCP-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/call", "Mcp-Name": "hold", "Authorization": "Bearer " + token} {
			r.Header.Set(k, v)
		}
		if resp, err := http.DefaultClient.Do(r); err == nil {
			_ = resp.Body.Close()
		}
	})
	t.Cleanup(func() { close(done); over.Wait() })
	select {
	case c := <-card:
		h.evil.mu.Lock()
		h.evil.handler = nil
		h.evil.mu.Unlock()
		return c
	case <-time.After(10 * time.Second):
		t.Fatal("the server never got a keycard")
	}
	return ""
}

// gauge reads one metric of the process.
func (h *hostile) gauge(t *testing.T, name string) float64 {
	t.Helper()
	resp, err := http.Get(h.Desk().Ops + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, name+" "); ok {
			f, err := strconv.ParseFloat(strings.TrimSpace(v), 64)
			if err != nil {
				t.Fatal(err)
			}
			return f
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}

// oracles are checked when the test ends: nothing of the vendor's tokens is where it does not belong (O1), the log is whole (O2),
// goroutines and descriptors come back (O3), and somebody else is served (O4).
func (h *hostile) oracles(t *testing.T) {
	t.Helper()
	quiet := func() (float64, float64) {
		return h.gauge(t, "go_goroutines"), h.gauge(t, "process_open_fds")
	}
	goroutines, files := quiet()
	t.Cleanup(func() {
		if r, err := h.bob.Call(context.Background(), "whoami", nil); err != nil || !strings.Contains(world.Text(r), "octo-bob") {
			t.Errorf("O4: bob is not served: %v %v", r, err)
		}
		h.noLeak(t)
		for _, token := range h.Tracker.Tokens() {
			for _, got := range h.evil.heard() {
				if strings.Contains(fmt.Sprint(got.Header)+string(got.Body), token.Value) {
					t.Errorf("O1: a %s of the tracker reached the hostile server", token.Kind)
				}
			}
		}
		if out, err := h.Desk().Run("audit", "verify"); err != nil {
			t.Errorf("O2: %v\n%s", err, out)
		}
		const slack = 40 // idle connections of others
		var g, f float64
		for end := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
			if g, f = quiet(); g <= goroutines+slack && f <= files+slack || time.Now().After(end) {
				break
			}
		}
		if g > goroutines+slack || f > files+slack {
			t.Errorf("O3: %v goroutines and %v descriptors before, %v and %v after", goroutines, files, g, f)
		}
	})
}
