//go:build keycloak

package keycloak_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"frontdesk.dev/frontdesk/test/stage"
	"frontdesk.dev/frontdesk/test/world"
)

// TestSignIn: people sign in on Keycloak's own pages; their groups are those of its ID tokens, and what it gave for when they are
// away is kept. A key that was changed at Keycloak locks nobody out.
func TestSignIn(t *testing.T) {
	t.Parallel()
	k := newRealm(t, nil)
	s := atKeycloak(t, k, plain, "", stage.Options{})
	for _, who := range []string{"alice", "bob"} {
		a := agent(t, s, "modern", person(s, k, who, "Connect Tracker", "Done"))
		if text := world.Text(call(t, a, "whoami", nil)); !strings.Contains(text, "octo-"+who) {
			t.Errorf("%s's agent is told: %s", who, text)
		}
		out, err := s.Desk().Run("connections", "list", "--user", k.users[who], "--json")
		if err != nil || !strings.Contains(out, "idp:login") {
			t.Errorf("%s has no home credential: %v %s", who, err, out)
		}
	}
	// Carol is in another group.
	if l, err := agent(t, s, "modern", person(s, k, "carol", later)).Tools(within(t)); err == nil && len(l) > 0 {
		t.Errorf("carol sees %v", l)
	}
	if l := s.Desk().LogLines(`"WARN"`); len(l) > 0 { // Keycloak is set up as it comes: there is nothing to warn of
		t.Errorf("the operator is warned: %s", l)
	}
	k.must("POST", "/components", object{"name": "fresh", "providerId": "rsa-generated", "providerType": "org.keycloak.keys.KeyProvider",
		"config": object{"priority": []string{"200"}, "enabled": []string{"true"}, "active": []string{"true"}, "algorithm": []string{"RS256"}, "keySize": []string{"2048"}}})
	begun := time.Now()
	for { // keys are read every 30 seconds at most
		l, err := agent(t, s, "modern", person(s, k, "dora", later)).Tools(within(t))
		if err == nil && len(l) > 0 {
			break
		}
		if time.Since(begun) > 60*time.Second {
			t.Fatalf("nobody signs in with the new key: %v", err)
		}
		time.Sleep(3 * time.Second)
	}
}

// TestSignInWithoutOfflineAccess: people whom Keycloak's policy allows nothing for when they are away sign in once the config does not ask
// for it. What Keycloak gives then lives as long as their session there.
func TestSignInWithoutOfflineAccess(t *testing.T) {
	t.Parallel()
	k := newRealm(t, nil)
	s := atKeycloak(t, k, plain, "", stage.Options{})
	var role object
	k.get("/roles/offline_access", &role)
	k.must("DELETE", "/roles/default-roles-"+k.name+"/composites", []object{role})
	alice := person(s, k, "alice", later)
	if _, err := agent(t, s, "modern", alice).Tools(within(t)); err == nil || !strings.Contains(err.Error(), "idp.offline_access: false") {
		t.Errorf("refused: %v", err)
	}
	reconfigure(t, s, "client_secret: file:idp.secret}", "client_secret: file:idp.secret, offline_access: false}")
	if l, err := agent(t, s, "modern", alice).Tools(within(t)); err != nil || len(l) == 0 {
		t.Errorf("%v %v", l, err)
	}
	var sessions []object
	k.get("/users/"+k.users["alice"]+"/sessions", &sessions)
	out, err := s.Desk().Run("connections", "list", "--user", k.users["alice"], "--json")
	if err != nil || !strings.Contains(out, "idp:login") || len(sessions) != 1 {
		t.Errorf("%v %s, sessions %v", err, out, sessions)
	}
}

// once lets a person sign in, and not again.
func once(p *world.Person) world.Opener {
	used := false
	return world.OpenerFunc(func(ctx context.Context, address string) error {
		if used {
			return world.ErrDeclined
		}
		used = true
		return p.Open(ctx, address)
	})
}

// TestRenewalAsksKeycloak: our refresh tokens live only while Keycloak renews: who was disabled, signed out or struck off there is
// out at the next renewal, and whose groups changed has the new ones. Keycloak's refresh tokens rotate here.
func TestRenewalAsksKeycloak(t *testing.T) {
	t.Parallel()
	k := newRealm(t, object{"revokeRefreshToken": true, "refreshTokenMaxReuse": 0})
	s := atKeycloak(t, k, plain, "", stage.Options{})
	agents := map[string]*world.Agent{}
	for who := range people {
		agents[who] = agent(t, s, "modern", once(person(s, k, who, later)))
		if l, err := agents[who].Tools(within(t)); (err != nil || len(l) == 0) && who != "carol" {
			t.Fatalf("%s: %v %v", who, l, err)
		}
	}
	time.Sleep(1100 * time.Millisecond) // Keycloak counts in seconds: it would spare what began in the one in which it ends all
	begun := time.Now()
	var groups []struct{ ID, Name string }
	k.get("/users/"+k.users["dora"]+"/groups", &groups)
	k.must("POST", "/users/"+k.users["alice"]+"/logout", nil)
	k.must("PUT", "/users/"+k.users["bob"], object{"enabled": false})
	k.must("DELETE", "/users/"+k.users["dora"]+"/groups/"+groups[0].ID, nil)
	k.must("DELETE", "/users/"+k.users["fay"]+"/consents/frontdesk", nil)
	works := func(who string) bool {
		agents[who].ExpireToken()
		l, err := agents[who].Tools(within(t))
		return err == nil && len(l) > 0
	}
	for _, who := range []string{"alice", "bob", "dora", "fay"} {
		for works(who) { // Keycloak's last yes counts for a minute
			if time.Since(begun) > 90*time.Second {
				t.Fatalf("%s is let in after %s", who, time.Since(begun))
			}
			time.Sleep(2 * time.Second)
		}
		t.Logf("%s is out after %s", who, time.Since(begun).Round(time.Second))
	}
	asked := func() int {
		n := 0
		for _, e := range k.events("REFRESH_TOKEN") {
			if e.ClientID == "frontdesk" && e.UserID == k.users["emil"] && e.Error == "" {
				n++
			}
		}
		return n
	}
	if in := works("emil"); !in || asked() != 1 {
		t.Errorf("emil is let in: %v; Keycloak was asked about him %d times", in, asked())
	}
	if l := k.events("REFRESH_TOKEN_ERROR"); len(l) < 3 {
		t.Errorf("Keycloak refused %v, and three people should be out by its word", l)
	}
}

// works asks whether a token lets in.
func works(t *testing.T, s *stage.Stage, token string) bool {
	t.Helper()
	r, err := http.NewRequestWithContext(within(t), "POST", s.Desk().MCP("modern"), strings.NewReader(`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","arguments":{},"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{"name":"x","version":"1"},"io.modelcontextprotocol/clientCapabilities":{}}}}`))
	if err != nil {
		t.Fatal(err)
	}
	r.Header = http.Header{"Content-Type": {"application/json"}, "Accept": {"application/json, text/event-stream"}, "Authorization": {"Bearer " + token},
		"Mcp-Protocol-Version": {"2026-07-28"}, "Mcp-Method": {"tools/call"}, "Mcp-Name": {"echo"}}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if b, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusUnauthorized {
		t.Fatal(resp.Status, string(b), err)
	}
	return resp.StatusCode == http.StatusOK
}

// running is a call that goes on until somebody ends it, and the sign that it has ended.
func running(t *testing.T, s *stage.Stage, a *world.Agent) <-chan struct{} {
	t.Helper()
	before, ended := s.Modern.Running(), make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = a.Call(within(t), "slow", map[string]any{"steps": 1200, "every_ms": 100})
	}()
	until(t, "the call runs", 20*time.Second, func() bool { return s.Modern.Running() > before })
	return ended
}

// TestLogoutByKeycloak: what Keycloak itself sends when a session ends there ends that sign-in here, and nobody else's.
func TestLogoutByKeycloak(t *testing.T) {
	t.Parallel()
	k := newRealm(t, nil)
	s := atKeycloak(t, k, func(public string) object {
		return object{"attributes": object{"backchannel.logout.url": public + "/backchannel-logout/login", "backchannel.logout.session.required": "true"}}
	}, "", stage.Options{})
	portal := newPortal(t, k)
	alice, bob, dora := person(s, k, "alice", "Connect Tracker", "Done"), person(s, k, "bob", "Connect Tracker", "Done"), person(s, k, "dora", later)
	// Bob was at the company's portal before: he is not asked for his password again, and both sign-ins are one session of Keycloak's.
	portal.visit(t, bob)
	bystander := agent(t, s, "modern", dora)
	if _, err := bystander.Tools(within(t)); err != nil {
		t.Fatal(err)
	}
	for who, end := range map[string]func(){
		"alice": func() { // an administrator ends the session that stands for her sign-in
			var registered []struct{ ID string }
			k.get("/clients?clientId=frontdesk", &registered)
			var sessions []struct{ ID string }
			k.get("/users/"+k.users["alice"]+"/offline-sessions/"+registered[0].ID, &sessions)
			k.must("DELETE", "/sessions/"+sessions[0].ID+"?isOffline=true", nil)
		},
		"bob": func() { portal.leave(t, bob) },
	} {
		a := agent(t, s, "modern", once(map[string]*world.Person{"alice": alice, "bob": bob}[who]))
		if _, err := a.Tools(within(t)); err != nil {
			t.Fatal(who, err)
		}
		token, slow := a.AccessToken(), running(t, s, a)
		if !works(t, s, token) {
			t.Fatalf("%s: it does not work to begin with", who)
		}
		end()
		until(t, who+"'s token is good for nothing", 5*time.Second, func() bool { return !works(t, s, token) })
		select {
		case <-slow:
		case <-time.After(5 * time.Second):
			t.Errorf("%s's call goes on", who)
		}
	}
	if n := strings.Count(strings.Join(historyOf(bob), "\n"), "/login-actions/authenticate"); n != 1 {
		t.Errorf("bob typed his password %d times", n)
	}
	if !works(t, s, bystander.AccessToken()) {
		t.Error("dora's access ended too")
	}
	if l := s.Desk().LogLines("was not acted on"); len(l) > 0 {
		t.Errorf("Keycloak was refused: %s", l)
	}
}

// portal is another site of the company's, where people sign in at the same realm.
type portal struct {
	*httptest.Server
	k *realm
}

func newPortal(t *testing.T, k *realm) *portal {
	t.Helper()
	p := &portal{httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "the company's portal") })), k}
	t.Cleanup(p.Close)
	k.client("portal", object{"standardFlowEnabled": true, "redirectUris": []string{p.URL + "/*"}, "attributes": object{"post.logout.redirect.uris": "+"}})
	return p
}

// visit makes Keycloak keep a session of the person's browser.
func (p *portal) visit(t *testing.T, who *world.Person) {
	t.Helper()
	q := url.Values{"client_id": {"portal"}, "response_type": {"code"}, "scope": {"openid"}, "redirect_uri": {p.URL + "/"}}
	if err := who.Open(within(t), p.k.URL+"/protocol/openid-connect/auth?"+q.Encode()); err != nil {
		t.Fatal(err)
	}
}

// leave ends that session, with all that stands on it.
func (p *portal) leave(t *testing.T, who *world.Person) {
	t.Helper()
	q := url.Values{"client_id": {"portal"}, "post_logout_redirect_uri": {p.URL + "/"}}
	if _, err := who.Browser.Open(within(t), p.k.URL+"/protocol/openid-connect/logout?"+q.Encode()); err != nil {
		t.Fatal(err)
	}
	if shown, err := who.Click(within(t), "Logout"); err != nil || !strings.Contains(shown.Text(), "the company's portal") {
		t.Fatal(shown, err)
	}
}

func historyOf(p *world.Person) (l []string) {
	for _, v := range p.History() {
		if v.Method == http.MethodPost {
			l = append(l, v.URL)
		}
	}
	return l
}
