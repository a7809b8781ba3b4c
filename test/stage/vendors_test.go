package stage_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/test/stage"
	"frontdesk.dev/frontdesk/test/world"
)

// oddVendor is a vendor with the habits that are tried here; what it finds wrong with a request it refuses.
type oddVendor struct {
	*httptest.Server
	mu   sync.Mutex
	wire []string // requests of the API that it took
}

func newOddVendor(t *testing.T, take func(v *oddVendor, w http.ResponseWriter, r *http.Request)) *oddVendor {
	v := &oddVendor{}
	v.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		v.mu.Lock()
		defer v.mu.Unlock()
		take(v, w, r)
	}))
	t.Cleanup(v.Close)
	return v
}

func (v *oddVendor) took() []string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return append([]string{}, v.wire...)
}

func says(w http.ResponseWriter, status int, doc any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(doc)
}

// oddStage serves the vendor's entry, with the world's server before it.
func oddStage(t *testing.T, entry, upstream string) *stage.Stage {
	s := start(t, stage.Options{
		Providers: func(string) string { return entry },
		Upstream:  upstream,
		Servers:   "  odd: {url: \"http://127.0.0.1:1/mcp\", upstreams: [odd], allow: [group:engineering]}\n",
	})
	api, err := world.NewIssuesServer(world.IssuesConfig{API: s.Desk().Egress + "/egress/odd", Stateless: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = api.Close() })
	rewrite(t, s.Desk(), "http://127.0.0.1:1/mcp", api.MCP())
	if out, err := s.Desk().Run("reload"); err != nil {
		t.Fatal(out)
	}
	return s
}

// TestKeysOfTwoParts: a person writes his e-mail address and his key into two fields, both are tried, and they go onto requests as the
// vendor wants them. The key comes back in no answer, the address does: it is no secret.
func TestKeysOfTwoParts(t *testing.T) {
	const key = "two-part-key-0123456789"
	line := "Basic " + base64.StdEncoding.EncodeToString([]byte("alice@acme.example/token:"+key))
	v := newOddVendor(t, func(v *oddVendor, w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != line {
			says(w, http.StatusUnauthorized, map[string]any{"error": "Couldn't authenticate you"})
			return
		}
		v.wire = append(v.wire, r.URL.Path)
		says(w, http.StatusOK, map[string]any{"id": 7, "login": "alice@acme.example", "echo": key, "line": r.Header.Get("Authorization")})
	})
	s := oddStage(t, fmt.Sprintf(`  odd:
    name: Odd
    hosts: ["%[1]s"]
    api_key: {where: "your settings", first: {name: "E-mail address", pattern: '^[^\s:/]+@[^\s:/]+$'}, injection: {kind: basic, format: "{first}/token:{token}"}}
    account: {url: /me, pointer: /login, id_pointer: /id}
`, v.URL), "  odd: {provider: odd}\n")
	a := agent(t, world.AgentConfig{URL: s.Desk().MCP("odd"), Name: "a", Era: world.Era2026July, Browser: s.Person("alice", later)})
	link := asksFor(t, a)
	alice := s.Person("alice", "Paste a key")
	paste := func(first, key string) string {
		t.Helper()
		reads(t, alice, link)
		for field, value := range map[string]string{"E-mail address": first, "Key": key} {
			if err := alice.Fill(field, value); err != nil {
				t.Fatalf("%v: %s", err, alice.Page().Text())
			}
		}
		page, err := alice.Click(within(t), "Test and save")
		if err != nil {
			t.Fatal(err)
		}
		return page.Text()
	}
	for name, wrong := range map[string][2]string{"no address": {"alice", key}, "a colon": {"alice:x@acme.example", key}, "too short": {"alice@acme.example", "short"}} {
		if page := paste(wrong[0], wrong[1]); !strings.Contains(page, "E-mail address, and the key; nothing was saved") {
			t.Errorf("%s: %s", name, page)
		}
	}
	if page := paste("bob@acme.example", key); !strings.Contains(page, "does not accept this credential") {
		t.Errorf("another one's address: %s", page)
	}
	if len(v.took()) > 0 {
		t.Errorf("the vendor took %v", v.took())
	}
	if page := paste(" alice@acme.example ", key); !strings.Contains(page, "alice@acme.example") {
		t.Fatalf("after the key: %s\n%s", page, s.Desk().Log())
	}
	got := whoami(t, a)
	if !strings.Contains(got, "alice@acme.example") || strings.Contains(got, key) || strings.Contains(got, strings.TrimPrefix(line, "Basic ")) {
		t.Errorf("the agent reads %s", got)
	}
	if l := v.took(); len(l) != 2 || l[0] != "/me" || l[1] != "/user" {
		t.Errorf("the vendor took %v", l)
	}
}

// TestRequestsProveTheirClient: where an app wants to see with each request that it is the app's own (Facebook's appsecret_proof), the
// proof is on the account's call, on requests of servers, and on the one that ends the grant; a server's own word for it is put away.
// The account is had by introspection, whose client proves itself.
func TestRequestsProveTheirClient(t *testing.T) {
	const secret, token = "the-app-secret-0123", "odd_0123456789abcdef"
	mac := hmac.New(sha256.New, []byte(secret))
	_, _ = mac.Write([]byte(token))
	proof := hex.EncodeToString(mac.Sum(nil))
	v := newOddVendor(t, func(v *oddVendor, w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		switch r.URL.Path {
		case "/authorize":
			http.Redirect(w, r, q.Get("redirect_uri")+"?"+url.Values{"code": {"c"}, "state": {q.Get("state")}}.Encode(), http.StatusFound)
		case "/token":
			says(w, http.StatusOK, map[string]any{"access_token": token, "token_type": "Bearer", "expires_in": 3600, "scope": "read"})
		case "/introspect":
			if _ = r.ParseForm(); r.PostForm.Get("token") != token || r.PostForm.Get("client_id") != "frontdesk" || r.PostForm.Get("client_secret") != secret || r.Header.Get("Authorization") != "" {
				says(w, http.StatusOK, map[string]any{"active": false})
				return
			}
			says(w, http.StatusOK, map[string]any{"active": true, "user": "alice@acme.example", "user_id": 7, "hub_id": 42})
		default:
			if l := q["appsecret_proof"]; len(l) != 1 || l[0] != proof || r.Header.Get("Authorization") != "Bearer "+token {
				says(w, http.StatusBadRequest, map[string]any{"error": map[string]any{"message": "API calls from the server require an appsecret_proof argument", "code": 100}})
				return
			}
			v.wire = append(v.wire, r.Method+" "+r.URL.Path+" "+q.Get("fields"))
			says(w, http.StatusOK, map[string]any{"login": "alice", "next": "https://graph.example/me?appsecret_proof=" + proof})
		}
	})
	t.Setenv("ODD_SECRET", secret)
	s := oddStage(t, fmt.Sprintf(`  odd:
    name: Odd
    hosts: ["%[1]s"]
    oauth: {authorization_endpoint: "%[1]s/authorize", token_endpoint: "%[1]s/token", token_auth: post, revocation_endpoint: "%[1]s/me/permissions", revocation: {method: DELETE, auth: bearer, body: none, token: access}}
    account: {url: "%[1]s/introspect", method: POST, form: {token: "{token}", client_id: "{client_id}", client_secret: "{client_secret}"}, pointer: /user, id_pointer: /user_id, within_pointer: /hub_id, within_id_pointer: /hub_id}
    injection: {proof: appsecret_proof}
`, v.URL), "  odd: {provider: odd, client_id: frontdesk, client_secret: env:ODD_SECRET, scopes: [read]}\n")
	alice := s.Person("alice", "Continue to Odd")
	a := agent(t, world.AgentConfig{URL: s.Desk().MCP("odd"), Name: "a", Era: world.Era2026July, Browser: s.Person("alice", later), Elicit: alice})
	got := whoami(t, a)
	if !strings.Contains(got, "alice") || strings.Contains(got, proof) {
		t.Fatalf("the agent reads %s\n%s\n%s", got, alice.Page().Text(), s.Desk().Log())
	}
	if page := alice.Page().Text(); !strings.Contains(page, "alice@acme.example (42)") {
		t.Errorf("whose account it is: %s", page)
	}
	got = world.Text(call(t, a, "fetch", map[string]any{"path": "/me?fields=id&appsecret_proof=forged&%61ppsecret_proof=again"}))
	if strings.Contains(got, proof) {
		t.Errorf("the agent reads the proof: %s", got)
	}
	if out, err := s.Desk().Run("connections", "revoke", "--upstream", "odd", "--wait"); err != nil {
		t.Fatal(out)
	}
	if l := strings.Join(v.took(), ", "); l != "GET /user , GET /me id, DELETE /me/permissions " {
		t.Errorf("the vendor took %s", l)
	}
	if strings.Contains(s.Desk().Log(), secret) || strings.Contains(s.Desk().Log(), proof) {
		t.Error("the log holds the app's secret, or a proof by it")
	}
}

// TestAnAccountThatMoves: a renewal names another site, as Salesforce's after a migration. Requests go there from then on, and the log has
// it; where it names a place that is no site of the vendor's, nothing goes anywhere, and the person reads why.
func TestAnAccountThatMoves(t *testing.T) {
	const token = "moving_0123456789abcdef"
	reached := map[string]int{} // guarded by the vendor's mutex
	var v *oddVendor
	var sites [2]*httptest.Server
	for i, name := range []string{"old", "new"} {
		sites[i] = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			v.mu.Lock()
			defer v.mu.Unlock()
			if strings.HasPrefix(r.Header.Get("Authorization"), "Bearer "+token) {
				reached[name]++
			}
			says(w, http.StatusOK, map[string]any{"id": 7, "login": "alice at " + name})
		}))
		t.Cleanup(sites[i].Close)
	}
	at := port0(sites[0])
	renewals := 0
	v = newOddVendor(t, func(_ *oddVendor, w http.ResponseWriter, r *http.Request) {
		if q := r.URL.Query(); r.URL.Path == "/authorize" {
			http.Redirect(w, r, q.Get("redirect_uri")+"?"+url.Values{"code": {"c"}, "state": {q.Get("state")}}.Encode(), http.StatusFound)
			return
		}
		_ = r.ParseForm()
		if r.PostForm.Get("grant_type") == "refresh_token" {
			renewals++
		}
		says(w, http.StatusOK, map[string]any{"access_token": fmt.Sprint(token, renewals), "refresh_token": fmt.Sprint("renews_0123456789", renewals), "token_type": "Bearer", "expires_in": 3, "scope": "read", "site": at})
	})
	s := oddStage(t, fmt.Sprintf(`  odd:
    name: Odd
    hosts: ["%[1]s"]
    oauth: {authorization_endpoint: "%[1]s/authorize", token_endpoint: "%[1]s/token", token_auth: none, refresh: {rotation: strict}}
    account: {url: /me, pointer: /login, id_pointer: /id}
    sites: {host: odd.test, base: "http://127.0.0.1:{site}", pattern: "^[0-9]{4,5}$", pointer: /site}
`, v.URL), fmt.Sprintf("  odd: {provider: odd, client_id: frontdesk, scopes: [read], site: connection, hosts: [\"%s\", \"%s\"]}\n", sites[0].URL, sites[1].URL))
	alice := s.Person("alice", "Continue to Odd")
	a := agent(t, world.AgentConfig{URL: s.Desk().MCP("odd"), Name: "a", Era: world.Era2026July, Browser: s.Person("alice", later)})
	reads(t, alice, asksFor(t, a))
	until := func(want string) {
		t.Helper()
		got := ""
		for ctx := within(t); !strings.Contains(got, want); time.Sleep(50 * time.Millisecond) {
			if got = world.Text(call(t, a, "whoami", nil)); ctx.Err() != nil {
				t.Fatalf("%s, want %s\n%s", got, want, s.Desk().Log())
			}
		}
	}
	until("alice at old")
	v.mu.Lock()
	at = port0(sites[1])
	v.mu.Unlock()
	until("alice at new")
	v.mu.Lock()
	before := reached["old"]
	v.mu.Unlock()
	until("alice at new")
	v.mu.Lock()
	if reached["old"] != before {
		t.Error("a request went to the old site after the move")
	}
	at = "80@evil.test"
	v.mu.Unlock()
	until("/connect/")
	if page := reads(t, s.Person("alice"), s.Desk().Public+"/portal/"); !strings.Contains(page, "to which its credential may not go") || !strings.Contains(page, "("+port0(sites[1])+")") {
		t.Errorf("the portal says %s", page)
	}
	moved := 0
	for _, k := range records(t, s) {
		if k.Action == "refresh" && strings.Contains(k.Detail, "has moved from the site "+port0(sites[0])+" to "+port0(sites[1])) {
			moved++
		}
	}
	if moved != 1 {
		t.Errorf("the log says %d times that the account moved", moved)
	}
}

// TestAccountsBehindOneSite: where a person has several accounts behind one host, as at Docusign, he is shown each by its name. His connection
// is for the one that he chose: a request about another one goes nowhere, and who sent it reads which account it is.
func TestAccountsBehindOneSite(t *testing.T) {
	var v *oddVendor
	v = newOddVendor(t, func(_ *oddVendor, w http.ResponseWriter, r *http.Request) {
		switch q := r.URL.Query(); r.URL.Path {
		case "/authorize":
			http.Redirect(w, r, q.Get("redirect_uri")+"?"+url.Values{"code": {"c"}, "state": {q.Get("state")}}.Encode(), http.StatusFound)
		case "/token":
			says(w, http.StatusOK, map[string]any{"access_token": "accounts_0123456789abcdef", "token_type": "Bearer", "expires_in": 3600, "scope": "read"})
		case "/userinfo":
			var l []any
			for id, name := range map[string]string{"a-1": "Acme", "a-2": "Acme Labs"} {
				l = append(l, map[string]any{"account_id": id, "account_name": name, "base_uri": port0(v.Server)})
			}
			says(w, http.StatusOK, map[string]any{"sub": "7", "email": "alice@acme.example", "accounts": l})
		default:
			v.wire = append(v.wire, r.URL.Path)
			says(w, http.StatusOK, map[string]any{"login": "alice at " + r.URL.Path})
		}
	})
	s := oddStage(t, fmt.Sprintf(`  odd:
    name: Odd
    hosts: ["%[1]s"]
    oauth: {authorization_endpoint: "%[1]s/authorize", token_endpoint: "%[1]s/token", token_auth: none}
    account: {url: "%[1]s/userinfo", pointer: /email, id_pointer: /sub}
    sites: {host: odd.test, base: "http://127.0.0.1:{site}", pattern: "^[0-9]{4,5}$", accounts: "/accounts/+([^/;]+)", call: {url: "%[1]s/userinfo", list: /accounts, value: /base_uri, label: /account_name, account: /account_id}}
`, v.URL), fmt.Sprintf("  odd: {provider: odd, client_id: frontdesk, scopes: [read], site: connection, hosts: [\"%s\"]}\n", v.URL))
	alice := s.Person("alice", "Continue to Odd")
	a := agent(t, world.AgentConfig{URL: s.Desk().MCP("odd"), Name: "a", Era: world.Era2026July, Browser: s.Person("alice", later)})
	if page := reads(t, alice, asksFor(t, a)); !strings.Contains(page, "Acme Labs") {
		t.Fatalf("he is asked: %s", page)
	}
	if _, err := alice.Click(within(t), "Use Acme Labs"); err != nil {
		t.Fatal(err)
	}
	if page := alice.Page().Text(); !strings.Contains(page, "alice@acme.example (Acme Labs)") {
		t.Errorf("after the choice: %s", page)
	}
	fetch := func(path string) string {
		return world.Text(call(t, a, "fetch", map[string]any{"path": path}))
	}
	if got := fetch("/restapi/accounts/a-2/envelopes"); !strings.Contains(got, "alice at /restapi/accounts/a-2/envelopes") {
		t.Errorf("his account: %s\n%s", got, s.Desk().Log())
	}
	for _, path := range []string{"/restapi/accounts/a-1/envelopes", "/restapi/accounts/%61-1/envelopes", "/clickapi/accounts/a-1"} {
		if got := fetch(path); !strings.Contains(got, "Acme Labs") || !strings.Contains(got, "another one (a-1)") {
			t.Errorf("%s: %s", path, got)
		}
	}
	if l := v.took(); len(l) != 1 {
		t.Errorf("the vendor took %v", l)
	}
	denied := 0
	for _, k := range records(t, s) {
		if k.Action == "api" && k.Kind == audit.KindOutcome && k.Result == audit.ResultDenied && k.Site == port0(v.Server)+"/a-2" {
			denied++
		}
	}
	if denied != 3 {
		t.Errorf("%d requests are on record as refused, want 3", denied)
	}
}
