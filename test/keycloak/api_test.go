//go:build keycloak

package keycloak_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/coreos/go-oidc/v3/oidc"

	"frontdesk.dev/frontdesk/test/stage"
	"frontdesk.dev/frontdesk/test/world"
)

// api is somebody's API that takes access tokens of a realm: signed by it, and made for this API.
type api struct {
	*httptest.Server
	mu      sync.Mutex
	refused []string // why
	tokens  []string
}

func newAPI(t *testing.T, k *realm, audience string) *api {
	t.Helper()
	p, err := oidc.NewProvider(t.Context(), k.URL)
	if err != nil {
		t.Fatal(err)
	}
	a, verifier := &api{}, p.Verifier(&oidc.Config{ClientID: audience})
	a.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		raw := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
		token, err := verifier.Verify(r.Context(), raw)
		var c struct {
			Name string `json:"preferred_username"`
			Type string `json:"typ"`
		}
		if err == nil {
			err = token.Claims(&c)
		}
		if err == nil && c.Type != "Bearer" { // Keycloak's word for access tokens
			err = fmt.Errorf("it is of type %q", c.Type)
		}
		a.mu.Lock()
		defer a.mu.Unlock()
		if err != nil {
			a.refused = append(a.refused, err.Error())
			w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
			http.Error(w, err.Error(), http.StatusUnauthorized)
			return
		}
		a.tokens = append(a.tokens, raw)
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]string{"login": c.Name, "id": token.Subject})
	}))
	t.Cleanup(a.Close)
	return a
}

// options make it an upstream of this name: how its vendor opens it, and the rest of its entry.
func (a *api) options(name, vendor, entry string) stage.Options {
	return stage.Options{
		Providers: func(string) string {
			return fmt.Sprintf("  %s:\n    name: %[1]s\n    hosts: [%q]\n%s    account: {url: /user, pointer: /login, id_pointer: /id}\n", name, strings.TrimPrefix(a.URL, "http://"), vendor)
		},
		Upstream: fmt.Sprintf("  %s:\n    provider: %[1]s\n    url: %s\n%s", name, a.URL, entry),
	}
}

// behind puts an MCP server between agents and an upstream, of which it knows nothing but its base URL at egress. Its tool whoami
// says whom the API takes its caller for.
func behind(t *testing.T, s *stage.Stage, upstream string) {
	t.Helper()
	srv, err := world.NewIssuesServer(world.IssuesConfig{API: s.Desk().Egress + "/egress/" + upstream, Stateless: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = srv.Close() })
	reconfigure(t, s, "servers:\n", fmt.Sprintf("servers:\n  %s: {url: %s, upstreams: [%[1]s], allow: [group:engineering]}\n", upstream, srv.MCP()))
}

// asked are the pages of Frontdesk's on which a person pressed a button, but for letting an agent in.
func asked(s *stage.Stage, p *world.Person) (l []string) {
	for _, v := range p.History() {
		if strings.HasPrefix(v.URL, s.Desk().Public+"/connect/") {
			l = append(l, v.Method+" "+v.URL)
		}
	}
	return l
}

// opened lets two people's agents call twice each: the API must see the right person, nobody be asked anything, and explain name the
// method. It returns how often a token was obtained.
func opened(t *testing.T, s *stage.Stage, a *api, upstream, method string, signIn func(who string) *world.Person, subject func(who string) string) int {
	t.Helper()
	for _, who := range []string{"alice", "bob"} {
		p := signIn(who)
		ag := agent(t, s, upstream, p)
		for range 2 {
			if r := call(t, ag, "whoami", nil); r.IsError || !strings.Contains(world.Text(r), `"login":"`+who+`"`) {
				t.Fatalf("%s's agent is told: %s", who, world.Text(r))
			}
		}
		if l := asked(s, p); len(l) > 0 {
			t.Errorf("%s was asked: %v", who, l)
		}
		if out, err := s.Desk().Run("explain", "--user", subject(who), "--server", upstream, "--tool", "whoami"); err != nil || !strings.Contains(out, method) {
			t.Errorf("explain: %v %s", err, out)
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.refused) > 0 {
		t.Errorf("the API refused: %s", a.refused)
	}
	different := map[string]bool{}
	for _, token := range a.tokens {
		different[token] = true
		if strings.Contains(s.Desk().Log(), token) {
			t.Error("a token stands in the log")
		}
	}
	return len(different)
}
