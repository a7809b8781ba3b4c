// Package interop_test lets clients and servers that are not ours meet Frontdesk: mcp-remote, the official TypeScript clients of
// both lines, and an unmodified MCP server from npm that reads its token once a session.
package interop_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
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
	"syscall"
	"testing"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"frontdesk.dev/frontdesk/test/stage"
	"frontdesk.dev/frontdesk/test/world"
)

const (
	modules = "../tools/node_modules"
	node    = modules + "/.bin/node"
	later   = "Later: a tool that needs it will ask then"

	// browserEnv makes this test binary the browser of a client that starts one: it tells the test which address to open.
	browserEnv = "FRONTDESK_TEST_BROWSER"
)

func TestMain(m *testing.M) {
	if to := os.Getenv(browserEnv); to != "" && len(os.Args) == 2 && strings.HasPrefix(os.Args[1], "http") {
		resp, err := http.PostForm(to, url.Values{"open": {os.Args[1]}})
		if err != nil {
			os.Exit(1)
		}
		_ = resp.Body.Close()
		os.Exit(0)
	}
	slog.SetDefault(slog.New(slog.DiscardHandler)) // the world's parties talk to themselves
	var err error
	if built, err = os.MkdirTemp("", "frontdesk-interop-"); err != nil {
		panic(err)
	}
	code := m.Run()
	_ = os.RemoveAll(built)
	os.Exit(code)
}

// binary is built once for all stages.
var binary = sync.OnceValues(func() (string, error) { return stage.Build(context.Background(), built) })

// built is where it lies.
var built string

func start(t *testing.T, o stage.Options) *stage.Stage {
	t.Helper()
	if _, err := os.Stat(node); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("needs Node and what it runs: `make tools` fetches them")
		}
		t.Skip("needs Node and what it runs: `make tools` fetches them")
	}
	var err error
	if o.Binary, err = binary(); err != nil {
		t.Fatal(err)
	}
	return stage.Start(t, o)
}

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// program starts a program of others with its own pipes; it ends with the test.
func program(t *testing.T, env []string, args ...string) (io.Writer, *bufio.Scanner) {
	t.Helper()
	var said strings.Builder
	c := exec.CommandContext(t.Context(), node, args...)
	c.Env = append(os.Environ(), env...)
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	c.Stderr = &said
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Process.Kill()
		if _ = c.Wait(); t.Failed() {
			t.Log(said.String())
		}
	})
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	return in, lines
}

// told is one line of client.mjs.
type told struct {
	Open, Elicit, Text, Failed string
	Tools                      []string
	Code                       int
	Completed                  *bool
	IsError                    bool
}

// play runs a TypeScript client, does what it asks of a person, and returns all that it told.
func play(t *testing.T, s *stage.Stage, user string, args ...string) []told {
	t.Helper()
	ctx := within(t)
	in, lines := program(t, nil, append([]string{"client.mjs"}, args...)...)
	signs, connects := s.Person(user, later), s.Person(user, "Continue to Tracker")
	var all []told
	for lines.Scan() {
		var l told
		if err := json.Unmarshal(lines.Bytes(), &l); err != nil {
			t.Fatalf("%s: %v", lines.Text(), err)
		}
		all = append(all, l)
		switch {
		case l.Failed != "":
			t.Fatal(l.Failed)
		case l.Open != "":
			if err := signs.Open(ctx, l.Open); err != nil {
				t.Fatal(err)
			}
		case l.Elicit != "":
			if err := connects.Open(ctx, l.Elicit); err != nil {
				t.Fatal(err)
			}
		case l.IsError:
			i := strings.Index(l.Text, s.Desk().Public+"/connect/")
			if i < 0 {
				t.Fatalf("the tool failed, and its answer shows no link: %s", l.Text)
			}
			if err := connects.Open(ctx, strings.Fields(l.Text[i:])[0]); err != nil {
				t.Fatal(err)
			}
			if _, err := io.WriteString(in, "again\n"); err != nil {
				t.Fatal(err)
			}
		}
	}
	return all
}

// TestTypeScriptClients: the official clients, each for a person who has connected nothing yet, sign in at our issuer, are asked in the form that each can show, and call.
func TestTypeScriptClients(t *testing.T) {
	s := start(t, stage.Options{})
	for _, tt := range []struct{ name, sdk, era, shows, server, user, form string }{
		{"1.x", "1", "legacy", "no", "issues", "alice", "result"},
		{"1.x that shows links", "1", "legacy", "yes", "issues", "bob", "-32042"},
		{"2.x legacy", "2", "legacy", "no", "issues", "dora", "result"},
		{"2.x legacy that shows links", "2", "legacy", "yes", "issues", "emil", "-32042"},
		{"2.x modern", "2", "modern", "no", "modern", "fay", "result"},
		{"2.x modern that shows links", "2", "modern", "yes", "modern", "gus", "InputRequiredResult"},
		{"2.x that finds out, modern server", "2", "auto", "no", "modern", "hana", "result"},
		{"2.x that finds out, legacy server", "2", "auto", "no", "issues", "ivo", "result"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			all := play(t, s, tt.user, tt.sdk, tt.era, tt.shows, s.Desk().MCP(tt.server), "whoami")
			form := ""
			for _, l := range all {
				switch {
				case l.Elicit != "" && l.Code == -32042:
					form += "-32042"
				case l.Elicit != "":
					form += "InputRequiredResult"
				case l.IsError:
					form += "result"
				case l.Completed != nil && !*l.Completed:
					t.Error("the notice that the person has answered names another question")
				}
			}
			if form != tt.form {
				t.Errorf("asked by %q, want %q: %+v", form, tt.form, all)
			}
			if len(all) == 0 || !strings.Contains(all[len(all)-1].Text, "octo-"+tt.user) {
				t.Errorf("not called as the right user: %+v", all)
			}
			if i := slices.IndexFunc(all, func(l told) bool { return l.Open != "" }); i != 0 {
				t.Errorf("signing in did not come first: %+v", all)
			}
		})
	}
}

// TestMCPRemote: the bridge that brings remote servers to clients that only know stdio.
func TestMCPRemote(t *testing.T) {
	s, ctx := start(t, stage.Options{}), within(t)
	person := s.Person("alice", later)
	opened := make(chan error, 4)
	desktop := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		address := r.FormValue("open")
		go func() { opened <- person.Open(ctx, address) }()
		w.WriteHeader(http.StatusNoContent)
	}))
	defer desktop.Close()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	bridge := exec.CommandContext(ctx, node, filepath.Join(modules, "mcp-remote/dist/proxy.js"), s.Desk().MCP("issues"), "--allow-http")
	bridge.Env = append(os.Environ(), "BROWSER="+self, browserEnv+"="+desktop.URL, "MCP_REMOTE_CONFIG_DIR="+t.TempDir())
	var said strings.Builder
	bridge.Stderr = &said
	client := mcp.NewClient(&mcp.Implementation{Name: "a client that knows stdio alone", Version: "1"}, nil)
	session, err := client.Connect(ctx, &mcp.CommandTransport{Command: bridge}, &mcp.ClientSessionOptions{ProtocolVersion: world.Era2025November})
	if err != nil {
		t.Fatalf("%v\n%s", err, said.String())
	}
	defer func() { _ = session.Close() }()
	if err := <-opened; err != nil {
		t.Fatal(err)
	}
	call := func() (string, bool) {
		r, err := session.CallTool(ctx, &mcp.CallToolParams{Name: "whoami"})
		if err != nil {
			t.Fatal(err)
		}
		return world.Text(r), r.IsError
	}
	text, isError := call()
	i := strings.Index(text, s.Desk().Public+"/connect/")
	if !isError || i < 0 {
		t.Fatalf("not connected, but the client was told: %s", text)
	}
	if err := s.Person("alice", "Continue to Tracker").Open(ctx, strings.Fields(text[i:])[0]); err != nil {
		t.Fatal(err)
	}
	if text, isError = call(); isError || !strings.Contains(text, "octo-alice") {
		t.Errorf("connected, but the client was told: %s", text)
	}
}

// forge is a vendor's API that knows its users by the tracker's tokens.
type forge struct {
	*httptest.Server

	mu      sync.Mutex
	tracker *world.Tracker
	seen    map[string]int // requests by whose token they carried; "" for anything else
}

func newForge(t *testing.T) *forge {
	f := &forge{seen: map[string]int{}}
	f.Server = httptest.NewServer(f)
	t.Cleanup(f.Close)
	return f
}

func (f *forge) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	who := ""
	for _, token := range f.tracker.Tokens() {
		if r.Header.Get("Authorization") == "Bearer "+token.Value {
			who = token.User
		}
	}
	f.seen[who]++
	f.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	if who == "" || r.URL.Path != "/api/v4/user" {
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = io.WriteString(w, `{"message":"401 Unauthorized"}`)
		return
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"id": 7, "username": who, "name": who, "state": "active", "avatar_url": nil, "web_url": "http://forge.example/" + who,
		"email": who + "@example.com", "public_email": nil, "bio": "", "location": "", "website_url": "", "organization": "", "job_title": "", "is_admin": false, "bot": false,
		"created_at": "2026-01-01T00:00:00Z", "last_sign_in_at": "2026-01-01T00:00:00Z", "confirmed_at": "2026-01-01T00:00:00Z", "last_activity_on": "2026-01-01"})
}

func (f *forge) requests() map[string]int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return maps.Clone(f.seen)
}

func (f *forge) know(tracker *world.Tracker) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.tracker = tracker
}

// startGitLab runs the server of npm; it is ready when its port answers.
func startGitLab(t *testing.T, port, api string) {
	t.Helper()
	ctx := within(t)
	program(t, []string{"STREAMABLE_HTTP=true", "REMOTE_AUTHORIZATION=true", "HOST=127.0.0.1", "PORT=" + port, "GITLAB_API_URL=" + api + "/api/v4", "MAX_REQUESTS_PER_MINUTE=1000"},
		filepath.Join(modules, "@zereight/mcp-gitlab/build/index.js"))
	for {
		c, err := (&net.Dialer{}).DialContext(ctx, "tcp", "127.0.0.1:"+port)
		if err == nil {
			_ = c.Close()
			return
		}
		select {
		case <-ctx.Done():
			t.Fatal("the server does not listen")
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func freePort(t *testing.T) string {
	t.Helper()
	at, err := world.Port()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimPrefix(at, "127.0.0.1:")
}

// TestUnmodifiedServer: @zereight/mcp-gitlab, as npm has it, reads a token when a session starts and asks the API at once
// whether it is good. It gets a keycard for that; two users at the same time are each themselves at the API.
func TestUnmodifiedServer(t *testing.T) {
	api, port := newForge(t), freePort(t)
	s := start(t, stage.Options{
		Providers: func(tracker string) string {
			return fmt.Sprintf(`  forge:
    name: Forge
    hosts: [%q]
    oauth: {issuer: %[2]s, iss_promised: true, authorization_endpoint: %[2]s/authorize, token_endpoint: %[2]s/oauth/token, token_auth: basic, refresh: {rotation: strict, scope_needed: offline_access}}
    account: {url: /api/v4/user, pointer: /username, id_pointer: /username}
    scopes: {"issues:read": "read your issues", offline_access: "stay connected while you are away"}
`, strings.TrimPrefix(api.URL, "http://"), tracker)
		},
		Upstream: "  forge: {provider: forge, url: " + api.URL + ", client_id: frontdesk, client_secret: file:tracker.secret, scopes: [\"issues:read\"]}\n",
		Servers:  "  forge: {url: \"http://127.0.0.1:" + port + "/mcp\", upstreams: [forge], placeholder: session, allow: [group:engineering]}\n",
	})
	api.know(s.Tracker)
	s.Tracker.Register(s.Desk().Public+"/callback/tracker", s.Desk().Public+"/callback/forge")
	startGitLab(t, port, s.Desk().Egress+"/egress/forge")

	ctx := within(t)
	const calls = 10
	var all sync.WaitGroup
	for _, user := range []string{"alice", "bob"} {
		all.Go(func() {
			a, err := world.NewAgent(world.AgentConfig{URL: s.Desk().MCP("forge"), Name: "agent of " + user, Era: world.Era2025November, Browser: s.Person(user, "Connect Forge", "Done")})
			if err != nil {
				t.Error(err)
				return
			}
			defer func() { _ = a.Close() }()
			for range calls {
				r, err := a.Call(ctx, "whoami", nil)
				if err != nil || r.IsError || !strings.Contains(world.Text(r), `"octo-`+user+`"`) {
					t.Errorf("%s: got %v, %v", user, r, err)
					return
				}
			}
			for _, token := range s.Tracker.Tokens() {
				if len(a.Recorder.Search(token.Value)) > 0 {
					t.Errorf("a token of the vendor reached the agent of %s", user)
				}
			}
		})
	}
	all.Wait()
	seen := api.requests()
	if seen["octo-alice"] <= calls || seen["octo-bob"] <= calls || len(seen) != 2 {
		t.Errorf("the API saw %v: want both users, more than %d times each, and nobody else", seen, calls)
	}
	beforeConnecting(t, s)
}

// beforeConnecting: a server that tries its token when a session starts refuses the session of whoever has not connected. The agent
// is told what to do, not that a token was bad.
func beforeConnecting(t *testing.T, s *stage.Stage) {
	ctx := within(t)
	a, err := world.NewAgent(world.AgentConfig{URL: s.Desk().MCP("forge"), Name: "agent of dora", Era: world.Era2025November, Browser: s.Person("dora", later)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = a.Close() }()
	_, err = a.Call(ctx, "whoami", nil)
	if err == nil || !strings.Contains(err.Error(), s.Desk().Public+"/connect/") {
		t.Fatalf("not connected, but the agent was told: %v", err)
	}
	link := err.Error()[strings.Index(err.Error(), s.Desk().Public+"/connect/"):]
	if err := s.Person("dora", "Continue to Forge").Open(ctx, strings.Fields(link)[0]); err != nil {
		t.Fatal(err)
	}
	if r, err := a.Call(ctx, "whoami", nil); err != nil || r.IsError || !strings.Contains(world.Text(r), `"octo-dora"`) {
		t.Errorf("connected, but the agent was told: %v, %v", r, err)
	}
}
