//go:build keycloak

package keycloak_test

import (
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"frontdesk.dev/frontdesk/test/stage"
	"frontdesk.dev/frontdesk/test/world"
)

// vendorLife is how long access tokens live at a vendor.
const vendorLife = 15 * time.Second

// vendor is an API whose authorization server is a Keycloak that makes each refresh token good for once, and Frontdesk with it as an
// upstream: more is its entry beside the usual, attribute what Keycloak demands of our client.
func vendor(t *testing.T, name, more, attribute string) (*realm, *stage.Stage, *api, string) {
	t.Helper()
	k := newRealm(t, object{"revokeRefreshToken": true, "refreshTokenMaxReuse": 0, "accessTokenLifespan": int(vendorLife.Seconds())})
	a := newAPI(t, k, name+"-api")
	a.bound = attribute == "dpop.bound.access.tokens"
	at := k.URL + "/protocol/openid-connect"
	s := start(t, a.options(name, `    oauth:
      issuer: `+k.URL+`
      iss_promised: true
      authorization_endpoint: `+at+`/auth
      token_endpoint: `+at+`/token
      par_endpoint: `+at+`/ext/par/request
      revocation_endpoint: `+at+`/revoke
      token_auth: private_key_jwt
      refresh: {rotation: strict, scope_needed: offline_access}
`+more, "    client_id: desk-there\n    scopes: [email]\n"))
	c := grants(s, name+"-api")
	c["standardFlowEnabled"], c["consentRequired"], c["redirectUris"] = true, true, []string{s.Desk().Public + "/callback/" + name}
	c["attributes"].(object)[attribute] = "true"
	desk := k.client("desk-there", c)
	behind(t, s, name)
	return k, s, a, desk
}

// TestVendor: people connect their accounts at an API whose authorization server is Keycloak. It takes pushed requests alone, says
// who it is in each answer (iss), shows its consent page, knows Frontdesk by its key, and makes each refresh token good for once.
func TestVendor(t *testing.T) {
	t.Parallel()
	k, s, _, desk := vendor(t, "orders", "", "require.pushed.authorization.requests")

	agents := map[string]*world.Agent{}
	for _, who := range []string{"alice", "bob"} {
		p := s.Person(who, "Connect orders", "Done", "Yes").HasAccount(k.URL, who)
		agents[who] = agent(t, s, "orders", p)
		if r := call(t, agents[who], "whoami", nil); r.IsError || !strings.Contains(world.Text(r), `"login":"`+who+`"`) {
			t.Fatalf("%s's agent is told: %s", who, world.Text(r))
		}
		pushed := false
		for _, v := range p.History() {
			pushed = pushed || strings.Contains(v.URL, "request_uri=")
			if strings.Contains(v.URL, "/auth?") && strings.Contains(v.URL, "scope=") {
				t.Errorf("the request went by the browser: %s", v.URL)
			}
		}
		if !pushed {
			t.Errorf("nothing was pushed: %v", p.History())
		}
	}
	time.Sleep(vendorLife)
	var wg sync.WaitGroup
	for who, a := range agents {
		for range 5 { // at once, and so as if by several agents of one person
			wg.Go(func() {
				if r, err := a.Call(within(t), "whoami", nil); err != nil || r.IsError || !strings.Contains(world.Text(r), `"login":"`+who+`"`) {
					t.Errorf("%s, once the token is old: %v %v", who, r, err)
				}
			})
		}
	}
	wg.Wait()
	if n := len(k.events("REFRESH_TOKEN")); n != 2 {
		t.Errorf("two tokens were renewed by %d requests", n)
	}
	if l := k.events("REFRESH_TOKEN_ERROR"); len(l) > 0 {
		t.Errorf("Keycloak refused: %v", l)
	}
	sessions := func(who string) (l []object) {
		k.get("/users/"+k.users[who]+"/offline-sessions/"+desk, &l)
		return l
	}
	if len(sessions("alice")) != 1 || len(sessions("bob")) != 1 {
		t.Fatalf("sessions at the vendor before: %v %v", sessions("alice"), sessions("bob"))
	}
	if out, err := s.Desk().Run("connections", "revoke", "--user", "emp-alice", "--wait"); err != nil || !strings.Contains(out, "all confirmed") {
		t.Fatalf("%v %s", err, out)
	}
	if len(sessions("alice")) != 0 || len(sessions("bob")) != 1 {
		t.Errorf("sessions at the vendor afterwards: %v %v", sessions("alice"), sessions("bob"))
	}
	if r := call(t, agents["bob"], "whoami", nil); r.IsError {
		t.Errorf("bob's is gone too: %s", world.Text(r))
	}
	if r, err := agents["alice"].Call(within(t), "whoami", nil); err == nil && !r.IsError {
		t.Errorf("alice's goes on: %s", world.Text(r))
	}
}

// TestVendorBound: an upstream whose Keycloak gives out bound tokens alone (DPoP, RFC 9449). Consent, renewals with strict rotation and the API
// see proofs by the connection's own key; a token without its key opens nothing, a refresh token without it neither; and what a person
// ends has ended at Keycloak.
func TestVendorBound(t *testing.T) {
	t.Parallel()
	k, s, ledger, desk := vendor(t, "ledger", "      dpop: always\n", "dpop.bound.access.tokens")
	agents := map[string]*world.Agent{}
	serves := func(when string) {
		t.Helper()
		for who, a := range agents {
			if r := call(t, a, "whoami", nil); r.IsError || !strings.Contains(world.Text(r), `"login":"`+who+`"`) {
				t.Fatalf("%s, %s's agent is told: %s", when, who, world.Text(r))
			}
		}
	}
	for _, who := range []string{"alice", "bob"} {
		agents[who] = agent(t, s, "ledger", s.Person(who, "Connect ledger", "Done", "Yes").HasAccount(k.URL, who))
	}
	serves("at first")
	ledger.mu.Lock()
	stolen := ledger.tokens[0]
	ledger.mu.Unlock()
	for _, scheme := range []string{"Bearer", "DPoP"} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, ledger.URL+"/user", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", scheme+" "+stolen)
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusUnauthorized {
			t.Errorf("a token without its key, as %s: %s", scheme, resp.Status)
		}
	}
	began := time.Now()
	for renewals := 0; renewals < 4; renewals = len(k.events("REFRESH_TOKEN")) { // each of both at least once, most likely twice
		if l := k.events("REFRESH_TOKEN_ERROR"); len(l) > 0 {
			t.Fatalf("Keycloak refused: %v", l)
		}
		if time.Since(began) > 3*time.Minute {
			t.Fatal("not enough is renewed")
		}
		time.Sleep(time.Second)
		serves("while tokens are renewed")
	}
	sessions := func(who string) (l []object) {
		k.get("/users/"+k.users[who]+"/offline-sessions/"+desk, &l)
		return l
	}
	if out, err := s.Desk().Run("connections", "revoke", "--user", "emp-alice", "--wait"); err != nil || !strings.Contains(out, "all confirmed") {
		t.Fatalf("%v %s", err, out)
	}
	if len(sessions("alice")) != 0 || len(sessions("bob")) != 1 {
		t.Errorf("sessions at the vendor afterwards: %v %v", sessions("alice"), sessions("bob"))
	}
	delete(agents, "alice")
	serves("afterwards")
	ledger.mu.Lock()
	defer ledger.mu.Unlock()
	if len(ledger.refused) != 2 { // the thief's
		t.Errorf("the API refused: %v", ledger.refused)
	}
}
