package stage_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"frontdesk.dev/frontdesk/test/stage"
	"frontdesk.dev/frontdesk/test/world"
)

// forgetful is a vendor's own MCP server with its authorization server, which registers clients by itself, and forgets them when a test
// says so: as far as new consents go, or altogether.
type forgetful struct {
	*httptest.Server

	mu         sync.Mutex
	says       bool // sends browsers of unknown clients back with an error; else they see a page of its own
	registered int
	known      map[string]bool // to new consents
	honoured   map[string]bool // their tokens are renewed
	given      int
	of         map[string]string // client of a code or a refresh token
	renewed    map[string]int    // by client
	asked      int               // with codes that nobody has
}

func newForgetful(t *testing.T) *forgetful {
	v := &forgetful{known: map[string]bool{}, honoured: map[string]bool{}, of: map[string]string{}, renewed: map[string]int{}}
	say := func(w http.ResponseWriter, status int, doc any) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(doc)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/oauth-protected-resource/mcp", func(w http.ResponseWriter, _ *http.Request) {
		say(w, http.StatusOK, map[string]any{"resource": v.URL + "/mcp", "authorization_servers": []string{v.URL}})
	})
	mux.HandleFunc("GET /.well-known/oauth-authorization-server", func(w http.ResponseWriter, _ *http.Request) {
		say(w, http.StatusOK, map[string]any{"issuer": v.URL, "authorization_endpoint": v.URL + "/authorize", "token_endpoint": v.URL + "/token", "registration_endpoint": v.URL + "/register",
			"code_challenge_methods_supported": []string{"S256"}})
	})
	mux.HandleFunc("POST /register", func(w http.ResponseWriter, _ *http.Request) {
		v.mu.Lock()
		defer v.mu.Unlock()
		v.registered++
		id := fmt.Sprintf("client-%d", v.registered)
		v.known[id], v.honoured[id] = true, true
		say(w, http.StatusCreated, map[string]any{"client_id": id})
	})
	mux.HandleFunc("GET /authorize", func(w http.ResponseWriter, r *http.Request) {
		v.mu.Lock()
		defer v.mu.Unlock()
		q := r.URL.Query()
		back := url.Values{"state": {q.Get("state")}}
		switch id := q.Get("client_id"); {
		case v.known[id]:
			v.given++
			code := fmt.Sprintf("code-%d", v.given)
			v.of[code] = id
			back.Set("code", code)
		case v.says:
			back.Set("error", "unauthorized_client")
		default:
			http.Error(w, "who is "+id+"?", http.StatusBadRequest)
			return
		}
		http.Redirect(w, r, q.Get("redirect_uri")+"?"+back.Encode(), http.StatusFound)
	})
	mux.HandleFunc("POST /token", func(w http.ResponseWriter, r *http.Request) {
		v.mu.Lock()
		defer v.mu.Unlock()
		id, renews := r.PostFormValue("client_id"), r.PostFormValue("grant_type") == "refresh_token"
		held := r.PostFormValue("code") + r.PostFormValue("refresh_token")
		switch {
		case renews && !v.honoured[id] || !renews && !v.known[id]:
			say(w, http.StatusUnauthorized, map[string]any{"error": "invalid_client"})
			return
		case v.of[held] != id:
			v.asked++
			say(w, http.StatusBadRequest, map[string]any{"error": "invalid_grant"})
			return
		case renews:
			v.renewed[id]++
		}
		delete(v.of, held)
		v.given++
		refresh := fmt.Sprintf("refresh-%d", v.given)
		v.of[refresh] = id
		say(w, http.StatusOK, map[string]any{"access_token": fmt.Sprintf("access-%d-of-%s", v.given, id), "refresh_token": refresh, "token_type": "Bearer", "expires_in": 2})
	})
	srv := mcp.NewServer(&mcp.Implementation{Name: "forgetful", Version: "1"}, nil)
	mcp.AddTool(srv, &mcp.Tool{Name: "whoami", Annotations: &mcp.ToolAnnotations{ReadOnlyHint: true}}, func(_ context.Context, r *mcp.CallToolRequest, _ struct{}) (*mcp.CallToolResult, any, error) {
		_, client, _ := strings.Cut(r.Extra.Header.Get("Authorization"), "-of-")
		return &mcp.CallToolResult{Content: []mcp.Content{&mcp.TextContent{Text: "through " + client}}}, nil, nil
	})
	h := mcp.NewStreamableHTTPHandler(func(*http.Request) *mcp.Server { return srv }, &mcp.StreamableHTTPOptions{Stateless: true})
	mux.HandleFunc("/mcp", func(w http.ResponseWriter, r *http.Request) {
		if !strings.Contains(r.Header.Get("Authorization"), "-of-") {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		h.ServeHTTP(w, r)
	})
	v.Server = httptest.NewServer(mux)
	t.Cleanup(v.Close)
	return v
}

// forgets ends what the vendor knows of a client: for new consents, or for good.
func (v *forgetful) forgets(client string, altogether bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.known[client] = false
	v.honoured[client] = v.honoured[client] && !altogether
}

func (v *forgetful) tells(says bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.says = says
}

func (v *forgetful) registrations() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.registered
}

// aged makes what was found an hour older, as time would.
func aged(t *testing.T, s *stage.Stage) {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+filepath.Join(s.Desk().Dir, "frontdesk.db")+"?_pragma=busy_timeout(5000)")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	if _, err := db.ExecContext(t.Context(), "UPDATE found SET created = created - ?", time.Hour.Microseconds()); err != nil {
		t.Fatal(err)
	}
}

// TestForgottenRegistration: a server that registered Frontdesk by itself forgets it. Whoever connects from then on does so through another
// registration, which is made once, and not again and again where the server takes no client at all; who was connected before goes on for
// as long as the server renews his tokens, and is asked to connect again when it does not.
func TestForgottenRegistration(t *testing.T) {
	v := newForgetful(t)
	s := start(t, stage.Options{
		Upstream: "  own: {url: \"" + v.URL + "/mcp\", title: Own}\n",
		Servers:  "  own: {url: \"" + v.URL + "/mcp\", upstreams: [own], deliver: header, allow: [group:engineering]}\n",
	})
	alice, bob := s.Person("alice"), s.Person("bob")
	connects := func(p *world.Person) string {
		t.Helper()
		reads(t, p, s.Desk().Public+"/portal/")
		if err := p.Open(within(t), leaves(t, s, p, "own")); err != nil {
			return err.Error()
		}
		return p.Page().Text()
	}
	works := func(a *world.Agent, client string) {
		t.Helper()
		if got := whoami(t, a); got != "through "+client {
			t.Fatalf("%s, want %s\n%s", got, client, s.Desk().Log())
		}
	}
	connects(alice)
	hers := agent(t, world.AgentConfig{URL: s.Desk().MCP("own"), Name: "hers", Era: world.Era2026July, Browser: s.Person("alice", later)})
	works(hers, "client-1")

	// Refused as soon as it is registered: another registration would be refused too.
	v.forgets("client-1", false)
	v.tells(true)
	for range 3 {
		if page := connects(bob); !strings.Contains(page, "ask an operator") {
			t.Errorf("he is told: %s", page)
		}
	}
	if n := v.registrations(); n != 1 {
		t.Fatalf("%d registrations, want 1", n)
	}

	// Later it is believed. The page of its own that the server would show is never reached.
	v.tells(false)
	aged(t, s)
	if page := connects(bob); !strings.Contains(page, "Own") || strings.Contains(page, "who is") {
		t.Fatalf("he is shown: %s\n%s", page, s.Desk().Log())
	}
	his := agent(t, world.AgentConfig{URL: s.Desk().MCP("own"), Name: "his", Era: world.Era2026July, Browser: s.Person("bob", later)})
	works(his, "client-2")
	for ctx := within(t); ctx.Err() == nil; { // until her token has been renewed, through the registration that it was given to
		works(hers, "client-1")
		v.mu.Lock()
		n := v.renewed["client-1"]
		v.mu.Unlock()
		if n > 0 {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}

	// Altogether: hers cannot be renewed any more, and she is asked; his goes on meanwhile.
	asked := func() {
		t.Helper()
		for ctx := within(t); ; time.Sleep(50 * time.Millisecond) {
			r, err := hers.Call(ctx, "whoami", nil)
			if err != nil {
				t.Fatalf("%v\n%s", err, s.Desk().Log())
			}
			works(his, "client-2")
			if text := world.Text(r); r.IsError && strings.Contains(text, "/connect/") {
				return
			}
		}
	}
	v.forgets("client-1", true)
	asked()
	if out, err := s.Desk().Run("connections", "list", "--user", "emp-alice"); err != nil || !strings.Contains(out, "forgotten the registration") {
		t.Errorf("operators read: %s", out)
	}
	if n := v.registrations(); n != 2 {
		t.Errorf("%d registrations, want 2", n)
	}
	connects(alice)
	works(hers, "client-2")

	// Between her leaving and her coming back.
	aged(t, s)
	at := leaves(t, s, alice, "own")
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Get(at)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	v.forgets("client-2", false)
	if err := alice.Open(within(t), resp.Header.Get("Location")); err == nil || !strings.Contains(err.Error(), "introduced itself again") {
		t.Errorf("she is told: %v", err)
	}
	connects(alice)
	works(hers, "client-3")
	works(his, "client-2")

	// The newest one, and nobody leaves for the vendor: a renewal finds it out.
	aged(t, s)
	v.forgets("client-3", true)
	asked()
	if n := v.registrations(); n != 4 {
		t.Errorf("%d registrations, want 4", n)
	}
	connects(alice)
	works(hers, "client-4")
	works(his, "client-2")
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.asked == 0 {
		t.Error("nobody was asked before a person left")
	}
}
