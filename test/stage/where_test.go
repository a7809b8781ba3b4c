package stage_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"frontdesk.dev/frontdesk/test/stage"
	"frontdesk.dev/frontdesk/test/world"
)

// company is one company's site of a vendor that has nothing in common for all of them: authorization server and API in one.
type company struct {
	*httptest.Server
	mu  sync.Mutex
	got map[string]int
}

func (c *company) count(what string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.got[what]
}

func newCompany(t *testing.T, name string) *company {
	c := &company{got: map[string]int{}}
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.got[r.URL.Path]++
		w.Header().Set("Content-Type", "application/json")
		say := func(doc map[string]any) { _ = json.NewEncoder(w).Encode(doc) }
		q := r.URL.Query()
		switch r.URL.Path {
		case "/authorize":
			http.Redirect(w, r, q.Get("redirect_uri")+"?"+url.Values{"code": {"code-" + name}, "state": {q.Get("state")}}.Encode(), http.StatusFound)
		case "/token":
			if err := r.ParseForm(); err != nil || r.PostForm.Get("grant_type") == "authorization_code" && r.PostForm.Get("code") != "code-"+name {
				c.got["foreign code"]++
				w.WriteHeader(http.StatusBadRequest)
				return
			}
			c.got[r.PostForm.Get("grant_type")]++
			life := 3600
			if r.PostForm.Get("grant_type") == "authorization_code" { // over at once: the first call has to renew it
				life = 1
			}
			say(map[string]any{"access_token": "access_" + name + "_0123456789", "refresh_token": "renew_" + name + "_0123456789", "token_type": "Bearer", "expires_in": life, "scope": "read"})
		case "/device":
			say(map[string]any{"device_code": "device-" + name, "user_code": "CODE-" + strings.ToUpper(name), "verification_uri": c.URL + "/activate", "expires_in": 600, "interval": 1})
		case "/revoke":
			if _ = r.ParseForm(); strings.Contains(r.PostForm.Get("token"), name) {
				c.got["ended"]++
			}
		default:
			if !strings.Contains(r.Header.Get("Authorization"), name) {
				c.got["without its token"]++
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			say(map[string]any{"id": 7, "login": "alice-at-" + name})
		}
	}))
	t.Cleanup(c.Close)
	return c
}

// TestSitesThatPeopleName: where each company has a vendor's site of its own, and even its page of consent, the person says which
// before he goes there. Whatever he writes, nothing is sent to a place that the vendor's entry, or the operator's list, does not allow.
func TestSitesThatPeopleName(t *testing.T) {
	acme, globex, spy := newCompany(t, "acme"), newCompany(t, "globex"), newCompany(t, "spy")
	vendor := `  many:
    name: Many
    hosts: ["http://127.0.0.1:{port}"]
    inputs: {port: {pattern: "^[0-9]{4,5}$", default: "8080"}}
    oauth: {authorization_endpoint: "http://127.0.0.1:{port}/authorize", token_endpoint: "http://127.0.0.1:{port}/token", revocation_endpoint: "http://127.0.0.1:{port}/revoke",
      token_auth: none, device: {authorization_endpoint: "http://127.0.0.1:{port}/device"}}
    account: {url: "http://127.0.0.1:{port}/me", pointer: /login, id_pointer: /id}
    api_key: {where: there}
`
	listed := fmt.Sprintf("[%q, %q]", port0(acme.Server), port0(globex.Server))
	up := "  many: {provider: many, client_id: frontdesk, scopes: [read], site: person, sites: " + listed + ", methods: [authorization_code, device_code, api_key]}\n"
	s := start(t, stage.Options{
		Providers: func(string) string { return vendor },
		Upstream:  up + "  free: {provider: many, title: Free, client_id: frontdesk, site: person}\n",
		Servers:   "  many: {url: \"http://127.0.0.1:1/mcp\", upstreams: [many], allow: [group:engineering]}\n",
	})
	api, err := world.NewIssuesServer(world.IssuesConfig{API: s.Desk().Egress + "/egress/many", Stateless: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = api.Close() })
	rewrite(t, s.Desk(), "http://127.0.0.1:1/mcp", api.MCP())
	if out, err := s.Desk().Run("reload"); err != nil {
		t.Fatal(out)
	}
	portal := s.Desk().Public + "/portal/"

	t.Run("whatever is written, nothing leaves", func(t *testing.T) {
		bob := s.Person("bob")
		reads(t, bob, portal)
		for _, written := range []string{"evil.test", "localhost:" + port0(spy.Server), "http://localhost:" + port0(spy.Server), port0(acme.Server) + "@localhost:" + port0(spy.Server), port0(acme.Server) + "/../x",
			port0(acme.Server) + "#x", "169.254.169.254", "[::1]:" + port0(spy.Server), "\"><script>", strings.Repeat("9", 400), "http://127.0.0.1:" + port0(acme.Server) + "@localhost", "\u0661\u0662\u0663\u0664"} {
			for _, upstream := range []string{"many", "free"} {
				got := submits(t, s, bob, "/portal/connect/"+upstream, url.Values{"site": {written}})
				if !strings.Contains(got, "no such name") && !strings.Contains(got, "none of them") {
					t.Errorf("%s, %q: %s", upstream, written, got)
				}
				if strings.Contains(got, "<script>") {
					t.Errorf("%q stands in the page as it is", written)
				}
			}
		}
		if got := submits(t, s, bob, "/portal/connect/many", url.Values{"site": {port0(spy.Server)}}); !strings.Contains(got, "none of them") {
			t.Errorf("a site that the pattern allows and the list does not: %s", got)
		}
		if got := submits(t, s, bob, "/portal/connect/many?site="+port0(acme.Server), nil); !strings.Contains(got, "Where is your Many?") {
			t.Errorf("a link chose the site: %s", got)
		}
		// Of a site that is reached only as what was found, and is no public one, nothing can be asked.
		if got := submits(t, s, bob, "/portal/connect/free", url.Values{"site": {port0(spy.Server)}}); strings.Contains(got, "no such name") {
			t.Errorf("a name by the pattern: %s", got)
		}
		if n := spy.count("/token") + spy.count("/me"); n > 0 {
			t.Errorf("the spy was asked %d times", n)
		}
	})

	alice := s.Person("alice", "Continue to Many", "Use "+port0(globex.Server))
	a := agent(t, world.AgentConfig{URL: s.Desk().MCP("many"), Name: "a", Era: world.Era2026July, Browser: s.Person("alice", later), Elicit: alice})
	if got := whoami(t, a); !strings.Contains(got, "alice-at-globex") {
		t.Fatalf("after the question: %s\n%s\n%s", got, alice.Page().Text(), s.Desk().Log())
	}
	if page := alice.Page().Text(); !strings.Contains(page, "alice-at-globex ("+port0(globex.Server)+")") {
		t.Errorf("the site is not shown: %s", page)
	}
	for ctx := within(t); globex.count("refresh_token") == 0 && ctx.Err() == nil; { // as soon as the token is over
		if got := whoami(t, a); !strings.Contains(got, "alice-at-globex") {
			t.Fatal(got)
		}
		time.Sleep(50 * time.Millisecond)
	}
	if globex.count("refresh_token") != 1 || globex.count("foreign code") != 0 {
		t.Errorf("the renewal went elsewhere: %v", globex.got)
	}
	if len(acme.got) != 0 {
		t.Errorf("acme was asked: %v", acme.got)
	}

	// A second account at the other site, by a pasted key and by a code; the first one stays.
	person := s.Person("alice")
	reads(t, person, portal)
	if got := submits(t, s, person, "/portal/connect/many", url.Values{"another": {"1"}, "site": {port0(acme.Server)}, "method": {"device_code"}}); !strings.Contains(got, "CODE-ACME") {
		t.Errorf("no code of acme: %s", got)
	}
	got := submits(t, s, person, "/portal/connect/many", url.Values{"another": {"1"}, "site": {"http://127.0.0.1:" + port0(acme.Server) + "/inbox"}, "method": {"api_key"}})
	_, rest, _ := strings.Cut(got, `name="state" value="`)
	state, _, found := strings.Cut(rest, `"`)
	if !found {
		t.Fatalf("no form for a key: %s", got)
	}
	if got := submits(t, s, person, "/portal/key", url.Values{"state": {state}, "key": {"access_acme_0123456789"}}); !strings.Contains(got, "alice-at-acme ("+port0(acme.Server)+")") {
		t.Fatalf("the key of the other site: %s", got)
	}
	if globex.count("without its token")+acme.count("without its token") != 0 {
		t.Errorf("a credential came to the other site: %v, %v", globex.got, acme.got)
	}
	if got := whoami(t, a); !strings.Contains(got, "alice-at-globex") {
		t.Errorf("the agent was moved to another site: %s", got)
	}

	// What the operator takes off the list is not asked any more, and its person is told.
	rewrite(t, s.Desk(), "sites: "+listed, fmt.Sprintf("sites: [%q]", port0(acme.Server)))
	if out, err := s.Desk().Run("reload"); err != nil {
		t.Fatal(out)
	}
	before := globex.count("/user")
	b := agent(t, world.AgentConfig{URL: s.Desk().MCP("many"), Name: "b", Era: world.Era2025November, Browser: s.Person("alice", later)})
	if r, err := b.Call(within(t), "whoami", nil); err != nil || !r.IsError || globex.count("/user") != before {
		t.Errorf("a site that is off the list: %v, %v, %d requests more", r, err, globex.count("/user")-before)
	}
	rewrite(t, s.Desk(), fmt.Sprintf("sites: [%q]", port0(acme.Server)), "sites: "+listed)
	if out, err := s.Desk().Run("reload"); err != nil {
		t.Fatal(out)
	}

	// Each ends at its own site.
	out, err := s.Desk().Run("connections", "list", "--user", "emp-alice", "--json")
	if err != nil {
		t.Fatal(out)
	}
	var l []struct{ ID, Account string }
	if err := json.Unmarshal([]byte(out), &l); err != nil {
		t.Fatal(err, out)
	}
	i := slices.IndexFunc(l, func(c struct{ ID, Account string }) bool { return strings.Contains(c.Account, "globex") })
	if i < 0 {
		t.Fatalf("connections: %s", out)
	}
	if got := submits(t, s, person, "/portal/end/"+l[i].ID, nil); !strings.Contains(got, "confirmed that it ended there") || globex.count("ended") != 1 || acme.count("/revoke") != 0 {
		t.Errorf("the end: %s, %v, %v", got, globex.got, acme.got)
	}
}

// posted is a form of ours as the person's browser sends it.
func posted(t *testing.T, s *stage.Stage, p *world.Person, path string, form url.Values) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(within(t), http.MethodPost, s.Desk().Public+path, strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range p.Cookies(r.URL.String()) {
		r.AddCookie(c)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Origin", s.Desk().Public)
	r.Header.Set("Sec-Fetch-Site", "same-origin")
	return r
}

// submits sends a form of ours as the person's browser would, and follows it within the desk.
func submits(t *testing.T, s *stage.Stage, p *world.Person, path string, form url.Values) string {
	t.Helper()
	client := &http.Client{Transport: http.DefaultTransport, CheckRedirect: func(r *http.Request, _ []*http.Request) error {
		for _, c := range p.Cookies(r.URL.String()) {
			r.AddCookie(c)
		}
		return nil
	}}
	resp, err := client.Do(posted(t, s, p, path, form))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
