package world_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/modelcontextprotocol/go-sdk/jsonrpc"
	"github.com/modelcontextprotocol/go-sdk/mcp"

	"frontdesk.dev/frontdesk/test/world"
	"frontdesk.dev/frontdesk/test/world/authserver"
	"frontdesk.dev/frontdesk/test/world/capture"
)

func newIssues(t *testing.T, cfg world.IssuesConfig) *world.IssuesServer {
	t.Helper()
	s := must[*world.IssuesServer](t)(world.NewIssuesServer(cfg))
	closing(t, s)
	return s
}

func newAgent(t *testing.T, cfg world.AgentConfig) *world.Agent {
	t.Helper()
	a := must[*world.Agent](t)(world.NewAgent(cfg))
	closing(t, a)
	return a
}

// call gives what a tool says.
func call(t *testing.T, a *world.Agent, tool string, args map[string]any) (string, bool) {
	t.Helper()
	res, err := a.Call(within(t), tool, args)
	if err != nil {
		t.Fatalf("%s: %v", tool, err)
	}
	return world.Text(res), res.IsError
}

var issuesTools = []string{"create_issue", "delete_issue", "echo", "fetch", "list_issues", "slow", "whoami"}

func TestIssuesServerInEveryEra(t *testing.T) {
	tr := newTracker(t, world.TrackerConfig{})
	for _, stateless := range []bool{false, true} {
		srv := newIssues(t, world.IssuesConfig{API: tr.API(), Stateless: stateless})
		for _, era := range []string{world.Era2025March, world.Era2025June, world.Era2025November, world.Era2026July} {
			t.Run(fmt.Sprintf("stateless=%v/%s", stateless, era), func(t *testing.T) {
				key := tr.NewAPIKey("octo-alice", world.ScopeRead, world.ScopeWrite)
				a := newAgent(t, world.AgentConfig{URL: srv.MCP(), Era: era, Token: key})
				s, err := a.Session(within(t))
				if err != nil {
					t.Fatal(err)
				}
				want := era
				if era == world.Era2026July && !stateless {
					want = world.Era2025November // a server with sessions is legacy
				}
				if got := s.InitializeResult().ProtocolVersion; got != want {
					t.Errorf("agreed on %s, want %s", got, want)
				}
				tools, err := a.Tools(within(t))
				if err != nil || !slices.Equal(tools, issuesTools) {
					t.Errorf("tools %v, %v", tools, err)
				}
				if text, bad := call(t, a, "whoami", nil); bad || !strings.Contains(text, "octo-alice") {
					t.Errorf("whoami: %s", text)
				}
			})
		}
	}
}

func TestIssuesTools(t *testing.T) {
	tr := newTracker(t, world.TrackerConfig{})
	srv := newIssues(t, world.IssuesConfig{API: tr.API(), Stateless: true})
	key := tr.NewAPIKey("octo-bob", world.ScopeRead, world.ScopeWrite)
	a := newAgent(t, world.AgentConfig{URL: srv.MCP(), Token: key, Progress: true})

	text, _ := call(t, a, "create_issue", map[string]any{"title": "No tea", "body": "at all"})
	var made world.Issue
	if err := json.Unmarshal([]byte(text), &made); err != nil || made.Author != "octo-bob" {
		t.Fatalf("created %s", text)
	}
	if text, _ := call(t, a, "list_issues", nil); !strings.Contains(text, "No tea") {
		t.Errorf("the list is %s", text)
	}
	if text, _ := call(t, a, "fetch", map[string]any{"path": "/echo?q=1"}); !strings.Contains(text, "/api/echo?q=1") {
		t.Errorf("fetched %s", text)
	}
	if _, bad := call(t, a, "delete_issue", map[string]any{"number": made.Number}); bad || len(tr.Issues("octo-bob")) != 2 {
		t.Errorf("not deleted")
	}
	if text, bad := call(t, a, "delete_issue", map[string]any{"number": made.Number}); !bad || !strings.Contains(text, "404") {
		t.Errorf("deleted twice: %s", text)
	}
	if text, _ := call(t, a, "slow", map[string]any{"steps": 4, "every_ms": 1}); text != "4 steps done" {
		t.Errorf("slow: %s", text)
	}
	if _, err := a.AwaitNotice(within(t), "notifications/progress"); err != nil {
		t.Error(err)
	}
	if text, _ := call(t, a, "echo", map[string]any{"text": "hello"}); !strings.Contains(text, key) || !strings.Contains(text, "hello") {
		t.Errorf("echo hides something: %s", text)
	}

	s, err := a.Session(within(t))
	if err != nil {
		t.Fatal(err)
	}
	res, err := s.ReadResource(within(t), &mcp.ReadResourceParams{URI: "issues://all"})
	if err != nil || !strings.Contains(res.Contents[0].Text, "octo-bob") {
		t.Errorf("resource: %v %v", res, err)
	}
	one := fmt.Sprintf("issues://%d", tr.Issues("octo-bob")[0].Number)
	if res, err = s.ReadResource(within(t), &mcp.ReadResourceParams{URI: one}); err != nil || !strings.Contains(res.Contents[0].Text, "Printer") {
		t.Errorf("resource template: %v %v", res, err)
	}
	p, err := s.GetPrompt(within(t), &mcp.GetPromptParams{Name: "triage", Arguments: map[string]string{"topic": "tea"}})
	if err != nil || !strings.Contains(p.Messages[0].Content.(*mcp.TextContent).Text, "about tea") {
		t.Errorf("prompt: %v %v", p, err)
	}
}

func TestEachCallActsAsItsOwnUser(t *testing.T) {
	tr := newTracker(t, world.TrackerConfig{})
	for _, stateless := range []bool{false, true} {
		srv := newIssues(t, world.IssuesConfig{API: tr.API(), Stateless: stateless})
		var wg sync.WaitGroup
		for _, user := range []string{"octo-alice", "octo-bob", "octo-carol"} {
			a := newAgent(t, world.AgentConfig{URL: srv.MCP(), Token: tr.NewAPIKey(user, world.ScopeRead)})
			wg.Go(func() {
				for range 10 {
					res, err := a.Call(within(t), "whoami", nil)
					if err != nil || !strings.Contains(world.Text(res), user) {
						t.Errorf("%s: %v %v", user, res, err)
					}
				}
			})
		}
		wg.Wait()
	}
}

func TestTokenAtStart(t *testing.T) {
	tr := newTracker(t, world.TrackerConfig{})
	srv := newIssues(t, world.IssuesConfig{API: tr.API(), TokenAtStart: true, TokenHeader: "X-Api-Key"})
	keys := []string{tr.NewAPIKey("octo-alice"), tr.NewAPIKey("octo-bob")}
	var n atomic.Int32
	changing := &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
		r = r.Clone(r.Context())
		r.Header.Set("X-Api-Key", keys[min(int(n.Add(1))-1, 1)])
		return http.DefaultTransport.RoundTrip(r)
	})}
	c := mcp.NewClient(&mcp.Implementation{Name: "c", Version: "1"}, nil)
	s, err := c.Connect(within(t), &mcp.StreamableClientTransport{Endpoint: srv.MCP(), HTTPClient: changing, DisableStandaloneSSE: true},
		&mcp.ClientSessionOptions{ProtocolVersion: world.Era2025November})
	if err != nil {
		t.Fatal(err)
	}
	closing(t, s)
	res, err := s.CallTool(within(t), &mcp.CallToolParams{Name: "whoami"})
	if err != nil || !strings.Contains(world.Text(res), "octo-alice") {
		t.Errorf("acts as %v (%v), want the token of the session's start", res, err)
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestListChanged(t *testing.T) {
	srv := newIssues(t, world.IssuesConfig{API: "http://127.0.0.1:1"})
	a := newAgent(t, world.AgentConfig{URL: srv.MCP(), Token: "any", Watch: true})
	if _, err := a.Tools(within(t)); err != nil {
		t.Fatal(err)
	}
	if err := srv.AddTool("extra"); err != nil {
		t.Fatal(err)
	}
	if _, err := a.AwaitNotice(within(t), "notifications/tools/list_changed"); err != nil {
		t.Error(err)
	}
	if tools, err := a.Tools(within(t)); err != nil || !slices.Contains(tools, "extra") {
		t.Errorf("tools %v, %v", tools, err)
	}
}

func TestCancelledCallStops(t *testing.T) {
	for _, stateless := range []bool{false, true} {
		srv := newIssues(t, world.IssuesConfig{API: "http://127.0.0.1:1", Stateless: stateless})
		a := newAgent(t, world.AgentConfig{URL: srv.MCP(), Token: "any", Progress: true})
		ctx, cancel := context.WithCancel(within(t))
		done := make(chan error, 1)
		go func() {
			_, err := a.Call(ctx, "slow", map[string]any{"steps": 1_000_000, "every_ms": 1})
			done <- err
		}()
		if _, err := a.AwaitNotice(within(t), "notifications/progress"); err != nil {
			t.Fatal(err)
		}
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("stateless=%v: %v", stateless, err)
		}
		until(t, "the tool stops", func() bool { return srv.Running() == 0 })
	}
}

// until waits for a condition.
func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for ctx := within(t); !holds(); {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("%s: %v", what, ctx.Err())
		}
	}
}

func TestVendorMCP(t *testing.T) {
	tr := newTracker(t, world.TrackerConfig{})
	for _, stateless := range []bool{false, true} {
		v := must[*world.VendorMCP](t)(world.NewVendorMCP(world.VendorMCPConfig{Tracker: tr.URL(), Stateless: stateless}))
		closing(t, v)
		for token, want := range map[string]string{"": "resource_metadata=", "wrong": `error="invalid_token"`} {
			req := httptest.NewRequestWithContext(within(t), "POST", v.MCP(), strings.NewReader("{}"))
			req.RequestURI = ""
			if token != "" {
				req.Header.Set("Authorization", "Bearer "+token)
			}
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if got := resp.Header.Get("WWW-Authenticate"); resp.StatusCode != 401 || !strings.Contains(got, want) || (token == "" && strings.Contains(got, "error=")) {
				t.Errorf("token %q: %d %s", token, resp.StatusCode, got)
			}
		}
		a := newAgent(t, world.AgentConfig{URL: v.MCP(), Token: trackerToken(t, tr, "octo-carol").AccessToken})
		if text, _ := call(t, a, "whoami", nil); !strings.Contains(text, "octo-carol") {
			t.Errorf("whoami: %s", text)
		}
		if text, _ := call(t, a, "list_issues", nil); !strings.Contains(text, "Carol Costa") {
			t.Errorf("list_issues: %s", text)
		}
	}
}

// The whole of MCP authorization with no Frontdesk between: the vendor's server names its authorization server, the
// agent finds it, a person signs in and consents, the browser comes back to the agent's loopback address.
func TestAgentSignsIn(t *testing.T) {
	tr := newTracker(t, world.TrackerConfig{})
	for _, era := range []string{world.Era2025June, world.Era2025November, world.Era2026July} {
		t.Run(era, func(t *testing.T) {
			v := must[*world.VendorMCP](t)(world.NewVendorMCP(world.VendorMCPConfig{Tracker: tr.URL(), Stateless: true}))
			closing(t, v)
			alice := atTracker(tr, "octo-alice")
			a := newAgent(t, world.AgentConfig{URL: v.MCP(), Era: era, Browser: alice, ClientID: "agent"})
			tr.AddClient(authserver.Client{ID: "agent", Name: "The agent", RedirectURIs: []string{a.URL() + "/callback"}})
			if text, _ := call(t, a, "whoami", nil); !strings.Contains(text, "octo-alice") {
				t.Fatalf("whoami: %s", text)
			}
			if !alice.Visited(a.URL() + "/callback?") {
				t.Errorf("the browser did not come back: %v", alice.History())
			}
			old := a.AccessToken()
			a.ExpireToken()
			if text, _ := call(t, a, "whoami", nil); !strings.Contains(text, "octo-alice") || a.Refreshes() != 1 || a.AccessToken() == old {
				t.Errorf("after the token expired: %s, %d refreshes", text, a.Refreshes())
			}
			// The vendor takes everything back: the refresh fails, and the agent asks its person again.
			if err := tr.Withdraw("octo-alice"); err != nil {
				t.Fatal(err)
			}
			a.ExpireToken()
			visits := len(alice.History())
			if text, _ := call(t, a, "whoami", nil); !strings.Contains(text, "octo-alice") || len(alice.History()) == visits {
				t.Errorf("after withdrawal: %s, the person saw nothing", text)
			}
		})
	}
}

func TestAgentTakesNo(t *testing.T) {
	tr := newTracker(t, world.TrackerConfig{})
	v := must[*world.VendorMCP](t)(world.NewVendorMCP(world.VendorMCPConfig{Tracker: tr.URL()}))
	closing(t, v)
	alice := world.NewPerson("Cancel").HasAccount(tr.URL(), "octo-alice")
	a := newAgent(t, world.AgentConfig{URL: v.MCP(), Browser: alice, ClientID: "agent"})
	tr.AddClient(authserver.Client{ID: "agent", RedirectURIs: []string{a.URL() + "/callback"}})
	if _, err := a.Call(within(t), "whoami", nil); err == nil || !strings.Contains(err.Error(), "access_denied") {
		t.Errorf("the person said no, the agent says %v", err)
	}
	if p := alice.Page(); p.Title != "Not signed in" {
		t.Errorf("the person sees %q", p.Title)
	}
	if err := alice.Open(within(t), a.URL()+"/callback?state=forged&code=x"); err == nil {
		t.Error("the agent took a code that it did not ask for")
	}
}

// A client that keeps its registration is the same client at its next sign-in.
func TestAgentRegistersOnce(t *testing.T) {
	var registered atomic.Int32
	var base string
	known := map[string]bool{}
	mux := http.NewServeMux()
	reply := func(w http.ResponseWriter, status int, v any) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(v)
	}
	mux.HandleFunc("/mcp", func(w http.ResponseWriter, _ *http.Request) { // nothing opens this door
		w.Header().Set("WWW-Authenticate", "Bearer")
		w.WriteHeader(http.StatusUnauthorized)
	})
	mux.HandleFunc("/.well-known/oauth-protected-resource/mcp", func(w http.ResponseWriter, _ *http.Request) {
		reply(w, 200, map[string]any{"resource": base + "/mcp", "authorization_servers": []string{base}})
	})
	mux.HandleFunc("/.well-known/oauth-authorization-server", func(w http.ResponseWriter, _ *http.Request) {
		reply(w, 200, map[string]any{
			"issuer": base, "authorization_endpoint": base + "/authorize", "token_endpoint": base + "/token",
			"registration_endpoint": base + "/register", "response_types_supported": []string{"code"}, "code_challenge_methods_supported": []string{"S256"},
		})
	})
	mux.HandleFunc("/register", func(w http.ResponseWriter, r *http.Request) {
		var in map[string]any
		decode(t, r.Body, &in)
		in["client_id"] = fmt.Sprintf("client-%d", registered.Add(1))
		reply(w, 201, in)
	})
	mux.HandleFunc("/authorize", func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		known[q.Get("client_id")] = true
		if q.Get("resource") != base+"/mcp" || q.Get("code_challenge_method") != "S256" {
			t.Errorf("authorization request %v", q)
		}
		http.Redirect(w, r, q.Get("redirect_uri")+"?code=c&state="+q.Get("state"), http.StatusFound)
	})
	mux.HandleFunc("/token", func(w http.ResponseWriter, r *http.Request) {
		if r.FormValue("resource") != base+"/mcp" || r.FormValue("code_verifier") == "" {
			t.Errorf("token request %v", r.Form)
		}
		reply(w, 200, map[string]any{"access_token": "never-good-enough", "token_type": "Bearer"})
	})
	ts := httptest.NewServer(mux)
	defer ts.Close()
	base = ts.URL
	a := newAgent(t, world.AgentConfig{URL: base + "/mcp", Browser: world.NewPerson()})
	for range 2 {
		if _, err := a.Call(within(t), "x", nil); err == nil {
			t.Fatal("the door opened")
		}
	}
	if registered.Load() != 1 || len(known) != 1 {
		t.Errorf("registered %d times and came as %v", registered.Load(), known)
	}
}

// A question is answered by the agent in each form that the protocol has for it.
func TestAgentAnswersQuestions(t *testing.T) {
	const link = "http://desk.example/connect/1"
	var connected atomic.Bool
	form := map[string]func() (*mcp.CallToolResult, any, error){
		"-32042": func() (*mcp.CallToolResult, any, error) {
			return nil, nil, mcp.URLElicitationRequiredError([]*mcp.ElicitParams{{Mode: "url", URL: link, ElicitationID: "1", Message: "connect"}})
		},
		"input required": func() (*mcp.CallToolResult, any, error) {
			return &mcp.CallToolResult{RequestState: "s", InputRequests: mcp.InputRequestMap{
				"c": &mcp.ElicitParams{Mode: "url", URL: link, ElicitationID: "1", Message: "connect"},
			}}, nil, nil
		},
	}
	for _, tc := range []struct {
		form, era string
		stateless bool
	}{{"-32042", world.Era2025November, false}, {"input required", world.Era2026July, true}} {
		srv := mcp.NewServer(&mcp.Implementation{Name: "asks", Version: "1"}, nil)
		mcp.AddTool(srv, &mcp.Tool{Name: "go"}, func(context.Context, *mcp.CallToolRequest, struct{}) (*mcp.CallToolResult, any, error) {
			if !connected.Load() {
				return form[tc.form]()
			}
			return &mcp.CallToolResult{Content: []mcp.Content{&mcp.TextContent{Text: "done"}}}, nil, nil
		})
		ts := httptest.NewServer(mcp.NewStreamableHTTPHandler(func(*http.Request) *mcp.Server { return srv }, &mcp.StreamableHTTPOptions{Stateless: tc.stateless}))
		t.Cleanup(ts.Close)
		for name, person := range map[string]struct {
			open world.OpenerFunc
			want string
		}{
			"accepts":         {func(_ context.Context, got string) error { connected.Store(got == link); return nil }, "done"},
			"declines":        {func(context.Context, string) error { return world.ErrDeclined }, ""},
			"cannot be asked": {nil, ""},
		} {
			t.Run(tc.form+" "+name, func(t *testing.T) {
				connected.Store(false)
				cfg := world.AgentConfig{URL: ts.URL, Era: tc.era, Token: "any"}
				if person.open != nil {
					cfg.Elicit = person.open
				}
				a := newAgent(t, cfg)
				ctx, cancel := context.WithTimeout(within(t), 5*time.Second)
				defer cancel()
				res, err := a.Call(ctx, "go", nil)
				got := ""
				if err == nil {
					got = world.Text(res)
				}
				if got != person.want {
					t.Errorf("got %q %v, want %q", got, err, person.want)
				}
				var rpc *jsonrpc.Error
				if tc.form == "-32042" && name != "accepts" && (!errors.As(err, &rpc) || rpc.Code != mcp.CodeURLElicitationRequired) {
					t.Errorf("the question was lost: %v", err)
				}
			})
		}
	}
}

func TestCapturesHoldWhatWasSeen(t *testing.T) {
	tr := newTracker(t, world.TrackerConfig{})
	srv := newIssues(t, world.IssuesConfig{API: tr.API()})
	key := tr.NewAPIKey("octo-alice", world.ScopeRead)
	a := newAgent(t, world.AgentConfig{URL: srv.MCP(), Token: key})
	canary := "canary-0123456789-in-an-argument"
	call(t, a, "echo", map[string]any{"text": canary})
	call(t, a, "fetch", map[string]any{"path": "/echo"})
	for name, tc := range map[string]struct {
		rec  *capture.Recorder
		want []string // where the key is to be found: what the entry begins with
	}{
		"agent":  {&a.Recorder, []string{"200 from POST " + srv.MCP()}},
		"server": {&srv.Recorder, []string{"POST /mcp", "200 to POST /mcp", "GET " + tr.API() + "/echo", "200 from GET " + tr.API() + "/echo"}},
	} {
		if len(tc.rec.Search(canary)) == 0 {
			t.Errorf("%s: the canary is not found", name)
		}
		var found []string
		for _, h := range tc.rec.Search(key) {
			if !slices.Contains(found, h.Entry.What) {
				found = append(found, h.Entry.What)
			}
		}
		for _, want := range tc.want {
			if !slices.Contains(found, want) {
				t.Errorf("%s: nothing found in %q, only in %q", name, want, found)
			}
		}
		if hits := tc.rec.Search("a-secret-that-nobody-ever-sent"); len(hits) > 0 {
			t.Errorf("%s: found what is not there: %v", name, hits)
		}
	}
	if d := cmp.Diff([]world.APICall{{Method: "GET", Path: "/api/echo", User: "octo-alice", Status: 200}}, tr.Calls()); d != "" {
		t.Errorf("the tracker saw (-want +got):\n%s", d)
	}
}
