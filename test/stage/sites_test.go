package stage_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"

	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/test/stage"
	"frontdesk.dev/frontdesk/test/world"
)

// manySites is a vendor whose accounts are at several sites, each on a port of its own: what it says of them is up to the test.
type manySites struct {
	*httptest.Server
	sites [2]*httptest.Server

	mu      sync.Mutex
	says    func() any
	ended   int
	reached map[string]int // requests with the credential, by site
}

func newManySites(t *testing.T) *manySites {
	v := &manySites{reached: map[string]int{}}
	mux := http.NewServeMux()
	say := func(w http.ResponseWriter, doc any) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(doc)
	}
	mux.HandleFunc("GET /authorize", func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		http.Redirect(w, r, q.Get("redirect_uri")+"?"+url.Values{"code": {"c"}, "state": {q.Get("state")}}.Encode(), http.StatusFound)
	})
	mux.HandleFunc("POST /token", func(w http.ResponseWriter, _ *http.Request) {
		say(w, map[string]any{"access_token": "site_0123456789abcdef", "token_type": "Bearer", "expires_in": 3600, "scope": "read"})
	})
	mux.HandleFunc("POST /revoke", func(http.ResponseWriter, *http.Request) {
		v.mu.Lock()
		defer v.mu.Unlock()
		v.ended++
	})
	mux.HandleFunc("GET /sites", func(w http.ResponseWriter, _ *http.Request) {
		v.mu.Lock()
		defer v.mu.Unlock()
		say(w, v.says())
	})
	mux.HandleFunc("GET /me", func(w http.ResponseWriter, _ *http.Request) { say(w, map[string]any{"id": 7, "login": "many-alice"}) })
	v.Server = httptest.NewServer(mux)
	t.Cleanup(v.Close)
	for i, name := range []string{"alpha", "beta"} {
		v.sites[i] = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			v.mu.Lock()
			defer v.mu.Unlock()
			if r.Header.Get("Authorization") == "Bearer site_0123456789abcdef" && r.Header.Get("X-Site") == port0(v.sites[i]) {
				v.reached[name]++
			}
			w.Header().Set("Location", v.sites[i].URL+"/api/next%20one?x=1")
			say(w, map[string]any{"login": "many-alice at " + name, "path": r.URL.Path})
		}))
		t.Cleanup(v.sites[i].Close)
	}
	v.says = func() any {
		return []any{map[string]any{"id": port0(v.sites[0]), "name": "Alpha Inc"}, map[string]any{"id": port0(v.sites[1]), "name": "Beta Ltd"}, map[string]any{"id": "../../evil", "name": "Evil"}}
	}
	return v
}

func port0(s *httptest.Server) string { return s.URL[strings.LastIndex(s.URL, ":")+1:] }

// TestSitesOfAConnection: after the vendor's page the person chooses among the sites that his account has; requests go to that one and
// to no other, the log says to which, and what the vendor says is never followed to a place that its entry does not allow.
func TestSitesOfAConnection(t *testing.T) {
	v := newManySites(t)
	options := stage.Options{
		Providers: func(string) string {
			return fmt.Sprintf(`  many:
    name: Many
    hosts: ["%[1]s"]
    oauth: {authorization_endpoint: "%[1]s/authorize", token_endpoint: "%[1]s/token", revocation_endpoint: "%[1]s/revoke", token_auth: none}
    account: {url: "%[1]s/me", pointer: /login, id_pointer: /id}
    sites: {host: many.test, base: "http://127.0.0.1:{site}/api", pattern: "^[0-9]{4,5}$", call: {url: "%[1]s/sites", value: /id, label: /name}, headers: {X-Site: "{site}"}}
`, v.URL)
		},
		Upstream: fmt.Sprintf("  many: {provider: many, client_id: frontdesk, scopes: [read], site: connection, hosts: [\"%s\", \"%s\"]}\n", v.sites[0].URL, v.sites[1].URL),
		Servers:  "  many: {url: \"http://127.0.0.1:1/mcp\", upstreams: [many], allow: [group:engineering]}\n",
	}
	s := start(t, options)
	api, err := world.NewIssuesServer(world.IssuesConfig{API: s.Desk().Egress + "/egress/many", Stateless: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = api.Close() })
	rewrite(t, s.Desk(), "http://127.0.0.1:1/mcp", api.MCP())
	if out, err := s.Desk().Run("reload"); err != nil {
		t.Fatal(out)
	}

	alice := s.Person("alice")
	portal := s.Desk().Public + "/portal/"
	connects := func(button string) string {
		t.Helper()
		reads(t, alice, portal)
		got := leaves(t, s, alice, "many")
		if err := alice.Open(within(t), got); err != nil && button != "" {
			t.Fatal(err)
		}
		if button != "" {
			if _, err := alice.Click(within(t), button); err != nil {
				t.Fatal(err)
			}
		}
		return alice.Page().Text()
	}

	// Hostile answers first: nothing is saved, the token is ended, and nothing is sent anywhere.
	for name, doc := range map[string]any{"a path": []any{map[string]any{"id": "../../x"}}, "a URL": []any{map[string]any{"id": "https://evil.test"}}, "another host": []any{map[string]any{"id": "80@evil.test"}}, "nothing": []any{}, "no list": "x",
		"a nest": map[string]any{"id": map[string]any{"id": "8080"}}} {
		honest := v.says
		v.says = func() any { return doc }
		if page := connects(""); !strings.Contains(page, "no site of this service") {
			t.Errorf("%s: %s", name, page)
		}
		v.says = honest
	}
	if out, err := s.Desk().Run("connections", "list", "--user", "emp-alice", "--json"); err != nil || strings.Contains(out, `"many"`) || v.ended != 6 {
		t.Errorf("saved: %s; %d tokens were ended, want 6", out, v.ended)
	}

	if page := connects(""); !strings.Contains(page, "Which site of Many") || strings.Contains(page, "Evil") {
		t.Fatalf("he is asked: %s", page)
	}
	if page := connects("None of them: nothing is saved"); !strings.Contains(page, "No site was chosen") {
		t.Errorf("after none: %s", page)
	}
	if page := connects("Use Beta Ltd"); !strings.Contains(page, "many-alice (Beta Ltd)") {
		t.Fatalf("after the choice: %s", page)
	}
	a := agent(t, world.AgentConfig{URL: s.Desk().MCP("many"), Name: "a", Era: world.Era2026July, Browser: s.Person("alice", later)})
	if got := whoami(t, a); !strings.Contains(got, "many-alice at beta") || !strings.Contains(got, "/api/user") {
		t.Fatalf("the request went elsewhere: %s\n%s", got, s.Desk().Log())
	}
	if v.reached["beta"] != 1 || v.reached["alpha"] != 0 {
		t.Errorf("reached: %v", v.reached)
	}
	if page := connects("Use Alpha Inc"); !strings.Contains(page, "many-alice (Alpha Inc)") && !strings.Contains(page, "another account") {
		t.Errorf("the second site: %s", page)
	}
	sites := map[string]bool{}
	for _, k := range records(t, s) {
		if k.Action == "api" && k.Kind == audit.KindOutcome {
			sites[k.Site] = true
		}
	}
	if !sites[port0(v.sites[1])] || len(sites) != 1 {
		t.Errorf("the log says that requests went to %v", sites)
	}
	if seen := api.Recorder.Search("/egress/many/next"); len(seen) == 0 {
		t.Error("an address at the site was not turned into the way through egress")
	}
}

// leaves begins to connect in the portal, and gives the vendor's address.
func leaves(t *testing.T, s *stage.Stage, p *world.Person, upstream string) string {
	t.Helper()
	resp, err := http.DefaultClient.Do(posted(t, s, p, "/portal/connect/"+upstream, url.Values{"another": {"1"}}))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(body), `content="0; url=`)
	at, _, found := strings.Cut(rest, `"`)
	if !found {
		t.Fatalf("%d %s", resp.StatusCode, body)
	}
	return strings.ReplaceAll(at, "&amp;", "&")
}
