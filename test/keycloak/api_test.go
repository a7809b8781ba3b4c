//go:build keycloak

package keycloak_test

import (
	"crypto"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"

	"frontdesk.dev/frontdesk/test/stage"
	"frontdesk.dev/frontdesk/test/world"
)

// api is somebody's API that takes access tokens of a realm: signed by it, and made for this API.
type api struct {
	*httptest.Server
	bound   bool // takes tokens that are bound to a key alone, with a proof of it (RFC 9449 section 7)
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
		if strings.HasPrefix(r.URL.Path, "/.well-known/") { // it says nothing of itself
			http.NotFound(w, r)
			return
		}
		scheme := "Bearer"
		if a.bound {
			scheme = "DPoP"
		}
		raw, ok := strings.CutPrefix(r.Header.Get("Authorization"), scheme+" ")
		if !ok {
			raw = ""
		}
		token, err := verifier.Verify(r.Context(), raw)
		var c struct {
			Name string `json:"preferred_username"`
			Type string `json:"typ"`
			Key  struct {
				Print string `json:"jkt"`
			} `json:"cnf"`
		}
		if err == nil {
			err = token.Claims(&c)
		}
		if err == nil && c.Type != scheme { // Keycloak's word for access tokens
			err = fmt.Errorf("it is of type %q", c.Type)
		}
		if err == nil && a.bound {
			err = proven(r, a.URL, raw, c.Key.Print)
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

// proven holds a request's proof against the token's key and the request (RFC 9449 section 4.3).
func proven(r *http.Request, base, token, print string) error {
	proofs := r.Header.Values("DPoP")
	if len(proofs) != 1 {
		return fmt.Errorf("%d proofs", len(proofs))
	}
	jws, err := jose.ParseSignedCompact(proofs[0], []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		return err
	}
	head := jws.Signatures[0].Protected
	if head.JSONWebKey == nil || head.ExtraHeaders[jose.HeaderType] != "dpop+jwt" {
		return fmt.Errorf("no key, or of type %v", head.ExtraHeaders[jose.HeaderType])
	}
	payload, err := jws.Verify(head.JSONWebKey)
	if err != nil {
		return err
	}
	thumb, err := head.JSONWebKey.Thumbprint(crypto.SHA256)
	if err != nil {
		return err
	}
	var c struct {
		Method string `json:"htm"`
		URL    string `json:"htu"`
		Token  string `json:"ath"`
		ID     string `json:"jti"`
	}
	sum := sha256.Sum256([]byte(token))
	switch err := json.Unmarshal(payload, &c); {
	case err != nil:
		return err
	case base64.RawURLEncoding.EncodeToString(thumb) != print:
		return fmt.Errorf("the proof is by another key than the token's (%q)", print)
	case c.Method != r.Method || c.URL != base+r.URL.Path || c.ID == "" || c.Token != base64.RawURLEncoding.EncodeToString(sum[:]):
		return fmt.Errorf("the proof is for something else: %+v", c)
	}
	return nil
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
