package world_test

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/oauth2"

	"frontdesk.dev/frontdesk/test/world"
	"frontdesk.dev/frontdesk/test/world/authserver"
)

var idpScopes = []string{"openid", "profile", "email", "offline_access"}

func TestIdPSignsIn(t *testing.T) {
	idp := newIdP(t, world.IdPConfig{})
	s := newSite(t, idp, idpScopes...)
	alice := atIdP(idp, "alice")
	back := s.visit(t, alice, oauth2.SetAuthURLParam("nonce", "n-1"))
	if back.Get("state") != "the-state" || back.Get("iss") != idp.URL() {
		t.Errorf("came back with %v, want our state and iss=%s", back, idp.URL())
	}
	tok, err := s.redeem(t, back.Get("code"))
	if err != nil {
		t.Fatal(err)
	}
	raw, _ := tok.Extra("id_token").(string)
	claims := idToken(t, idp, raw)
	for _, k := range []string{"iss", "aud", "exp", "iat", "auth_time", "at_hash", "azp", "amr", "client_id", "email_verified", "c_hash", "name"} {
		delete(claims, k)
	}
	want := map[string]any{
		"sub": "emp-alice", "nonce": "n-1", "preferred_username": "alice", "email": "alice@acme.example",
		"groups": []any{"engineering", "everyone"},
	}
	if d := cmp.Diff(want, claims); d != "" {
		t.Errorf("ID token (-want +got):\n%s", d)
	}
	if info := getJSON(t, idp.URL()+"/userinfo", tok.AccessToken); info["sub"] != "emp-alice" || !cmp.Equal(info["groups"], want["groups"]) {
		t.Errorf("userinfo says %v", info)
	}
	// The browser is known now: no second form, and prompt=login asks all the same.
	s.visit(t, alice)
	if n := countPosts(alice, idp.URL()+"/login"); n != 1 {
		t.Errorf("signed in %d times, want once", n)
	}
	s.visit(t, alice, oauth2.SetAuthURLParam("prompt", "login"))
	if n := countPosts(alice, idp.URL()+"/login"); n != 2 {
		t.Errorf("prompt=login: signed in %d times, want twice", n)
	}
}

func countPosts(p *world.Person, address string) int {
	n := 0
	for _, v := range p.History() {
		if v.Method == http.MethodPost && v.URL == address {
			n++
		}
	}
	return n
}

func TestWrongPasswordAsksAgain(t *testing.T) {
	idp := newIdP(t, world.IdPConfig{})
	s := newSite(t, idp, "openid")
	b := world.NewBrowser()
	p := must[*world.Shown](t)(b.Open(within(t), s.start()))
	for label, value := range map[string]string{"User name": "alice", "Password": "wrong"} {
		if err := p.Fill(label, value); err != nil {
			t.Fatal(err)
		}
	}
	p = must[*world.Shown](t)(b.Click(within(t), "Sign in"))
	if p.Status != http.StatusUnauthorized || !strings.Contains(p.Text(), "do not belong together") {
		t.Fatalf("got %d %q", p.Status, p.Text())
	}
	if err := p.Fill("Password", world.Password); err != nil {
		t.Fatal(err)
	}
	if p = must[*world.Shown](t)(b.Click(within(t), "Sign in")); !strings.HasPrefix(p.URL.String(), s.URL) {
		t.Errorf("ended at %s", p.URL)
	}
}

// inFragment is an error that only the browser sees; what counts is that no code came.
const inFragment = "in the fragment"

func TestAuthorizeRefusals(t *testing.T) {
	idp := newIdP(t, world.IdPConfig{})
	s := newSite(t, idp, "openid")
	set := oauth2.SetAuthURLParam
	for name, tc := range map[string]struct {
		with  []oauth2.AuthCodeOption
		error string // sent back to the client; "" means a page and no redirect
	}{
		"no PKCE":            {[]oauth2.AuthCodeOption{set("code_challenge", "")}, "invalid_request"},
		"plain PKCE":         {[]oauth2.AuthCodeOption{set("code_challenge", verifier), set("code_challenge_method", "plain")}, "invalid_request"},
		"PKCE, no method":    {[]oauth2.AuthCodeOption{set("code_challenge_method", "")}, "invalid_request"},
		"implicit":           {[]oauth2.AuthCodeOption{set("response_type", "id_token token")}, inFragment},
		"prompt=none":        {[]oauth2.AuthCodeOption{set("prompt", "none")}, "login_required"},
		"longer redirect":    {[]oauth2.AuthCodeOption{set("redirect_uri", s.cfg.RedirectURL+"/x")}, ""},
		"redirect + slash":   {[]oauth2.AuthCodeOption{set("redirect_uri", s.cfg.RedirectURL+"/")}, ""},
		"redirect + query":   {[]oauth2.AuthCodeOption{set("redirect_uri", s.cfg.RedirectURL+"?a=b")}, ""},
		"other port":         {[]oauth2.AuthCodeOption{set("redirect_uri", "http://127.0.0.1:1/callback")}, ""},
		"no redirect":        {[]oauth2.AuthCodeOption{set("redirect_uri", "")}, ""},
		"unknown client":     {[]oauth2.AuthCodeOption{set("client_id", "nobody")}, ""},
		"another's redirect": {[]oauth2.AuthCodeOption{set("client_id", "workload")}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			p := must[*world.Shown](t)(world.NewBrowser().Open(within(t), s.start(tc.with...)))
			select {
			case back := <-s.back:
				if tc.error == "" {
					t.Fatalf("sent back with %v, want a page", back)
				}
				if (tc.error != inFragment && back.Get("error") != tc.error) || back.Get("iss") != idp.URL() || back.Get("code") != "" {
					t.Errorf("sent back with %v, want error %s and iss", back, tc.error)
				}
			default:
				if tc.error != "" || p.Status != http.StatusBadRequest {
					t.Errorf("got page %d %q, want error %q", p.Status, p.Text(), tc.error)
				}
			}
		})
	}
}

func TestTokenRefusals(t *testing.T) {
	idp := newIdP(t, world.IdPConfig{})
	idp.AddClient(authserver.Client{ID: "other", Secret: "other-secret", RedirectURIs: []string{"http://127.0.0.1:1/"}})
	s := newSite(t, idp, idpScopes...)
	for name, tc := range map[string]struct {
		change func(*oauth2.Config)
		opts   []oauth2.AuthCodeOption
		want   string
	}{
		"wrong verifier":     {opts: []oauth2.AuthCodeOption{oauth2.VerifierOption(strings.Repeat("x", 50))}, want: "invalid_grant"},
		"no verifier":        {want: "invalid_request"},
		"wrong secret":       {change: func(c *oauth2.Config) { c.ClientSecret = "guess" }, opts: []oauth2.AuthCodeOption{oauth2.VerifierOption(verifier)}, want: "invalid_client"},
		"no secret":          {change: func(c *oauth2.Config) { c.ClientSecret = "" }, opts: []oauth2.AuthCodeOption{oauth2.VerifierOption(verifier)}, want: "invalid_client"},
		"another client":     {change: func(c *oauth2.Config) { c.ClientID, c.ClientSecret = "other", "other-secret" }, opts: []oauth2.AuthCodeOption{oauth2.VerifierOption(verifier)}, want: "invalid_grant"},
		"another redirect":   {change: func(c *oauth2.Config) { c.RedirectURL += "x" }, opts: []oauth2.AuthCodeOption{oauth2.VerifierOption(verifier)}, want: "invalid_grant"},
		"as it should be":    {opts: []oauth2.AuthCodeOption{oauth2.VerifierOption(verifier)}},
		"secret in the form": {change: func(c *oauth2.Config) { c.Endpoint.AuthStyle = oauth2.AuthStyleInParams }, opts: []oauth2.AuthCodeOption{oauth2.VerifierOption(verifier)}},
	} {
		t.Run(name, func(t *testing.T) {
			code := s.visit(t, atIdP(idp, "alice")).Get("code")
			cfg := s.cfg
			if tc.change != nil {
				tc.change(&cfg)
			}
			_, err := cfg.Exchange(within(t), code, tc.opts...)
			if got := oauthError(t, err); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

func TestCodeIsGoodOnce(t *testing.T) {
	idp := newIdP(t, world.IdPConfig{})
	s := newSite(t, idp, idpScopes...)
	code := s.visit(t, atIdP(idp, "alice")).Get("code")
	tok, err := s.redeem(t, code)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.redeem(t, code); oauthError(t, err) != "invalid_grant" {
		t.Errorf("second redemption: %v", err)
	}
	// RFC 6749 section 4.1.2: what the first one got ends with it.
	if _, err := s.refresh(t, tok.RefreshToken); oauthError(t, err) != "invalid_grant" {
		t.Errorf("refresh after a replayed code: %v", err)
	}
	if status, _ := get(t, idp.URL()+"/userinfo", tok.AccessToken); status == http.StatusOK {
		t.Error("the access token outlived the replay of its code")
	}
}

func TestCodeInParallel(t *testing.T) {
	idp := newIdP(t, world.IdPConfig{})
	s := newSite(t, idp, idpScopes...)
	code := s.visit(t, atIdP(idp, "alice")).Get("code")
	if n := parallel(20, func() error { _, err := s.redeem(t, code); return err }); n > 1 {
		t.Errorf("%d redemptions of one code succeeded", n)
	}
}

// parallel runs n calls at once and says how many gave no error.
func parallel(n int, f func() error) int {
	var wg sync.WaitGroup
	var mu sync.Mutex
	good := 0
	for range n {
		wg.Go(func() {
			if f() == nil {
				mu.Lock()
				defer mu.Unlock()
				good++
			}
		})
	}
	wg.Wait()
	return good
}

func TestDismissal(t *testing.T) {
	idp := newIdP(t, world.IdPConfig{})
	s := newSite(t, idp, idpScopes...)
	mallory := atIdP(idp, "mallory")
	tok := s.signIn(t, mallory)
	pending := s.visit(t, mallory).Get("code")
	if err := idp.Dismiss("mallory"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.refresh(t, tok.RefreshToken); oauthError(t, err) != "invalid_grant" {
		t.Errorf("refresh of a dismissed user: %v", err)
	}
	if _, err := s.redeem(t, pending); oauthError(t, err) != "invalid_grant" {
		t.Errorf("code of a dismissed user: %v", err)
	}
	if status, _ := get(t, idp.URL()+"/userinfo", tok.AccessToken); status == http.StatusOK {
		t.Error("userinfo of a dismissed user")
	}
	for who, p := range map[string]*world.Person{"the browser that was signed in": mallory, "a fresh one": atIdP(idp, "mallory")} {
		if err := p.Open(within(t), s.start()); err == nil || !strings.Contains(err.Error(), "account was closed") {
			t.Errorf("%s: %v", who, err)
		}
	}
	if err := idp.Reinstate("mallory"); err != nil {
		t.Fatal(err)
	}
	s.signIn(t, atIdP(idp, "mallory"))
	if err := idp.Dismiss("nobody"); err == nil {
		t.Error("dismissed somebody who is not there")
	}
}

func TestGroupsAreReadAgain(t *testing.T) {
	idp := newIdP(t, world.IdPConfig{})
	s := newSite(t, idp, idpScopes...)
	tok := s.signIn(t, atIdP(idp, "bob"))
	if err := idp.SetGroups("bob", "sales"); err != nil {
		t.Fatal(err)
	}
	tok, err := s.refresh(t, tok.RefreshToken)
	if err != nil {
		t.Fatal(err)
	}
	raw, _ := tok.Extra("id_token").(string)
	if got := idToken(t, idp, raw)["groups"]; !cmp.Equal(got, []any{"sales"}) {
		t.Errorf("groups after the refresh: %v", got)
	}
}

func TestMintedAccessTokens(t *testing.T) {
	idp := newIdP(t, world.IdPConfig{WorkloadAudiences: []string{"https://desk.example/mcp/issues"}})
	p, err := oidc.NewProvider(within(t), idp.URL())
	if err != nil {
		t.Fatal(err)
	}
	check := func(raw, sub string) {
		t.Helper()
		tok, err := p.Verifier(&oidc.Config{ClientID: "https://desk.example/mcp/issues"}).Verify(within(t), raw)
		if err != nil {
			t.Fatal(err)
		}
		j, err := jwt.ParseSigned(raw, []jose.SignatureAlgorithm{jose.RS256})
		if err != nil {
			t.Fatal(err)
		}
		if typ := j.Headers[0].ExtraHeaders[jose.HeaderType]; tok.Subject != sub || typ != "at+jwt" {
			t.Errorf("sub %q typ %v, want %q at+jwt", tok.Subject, typ, sub)
		}
	}
	minted, err := idp.MintAccessToken("alice", "https://desk.example/mcp/issues", map[string]any{"scope": "x", "email": nil})
	if err != nil {
		t.Fatal(err)
	}
	check(minted, "emp-alice")

	grant := func(form url.Values) (string, string) {
		form.Set("grant_type", "client_credentials")
		resp, err := http.PostForm(idp.URL()+"/oauth/token", form)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		var out struct {
			AccessToken string `json:"access_token"`
			Error       string `json:"error"`
		}
		decode(t, resp.Body, &out)
		return out.AccessToken, out.Error
	}
	workload := func(more ...string) url.Values {
		v := url.Values{"client_id": {"workload"}, "client_secret": {world.Password}}
		for i := 0; i < len(more); i += 2 {
			v.Set(more[i], more[i+1])
		}
		return v
	}
	token, _ := grant(workload("resource", "https://desk.example/mcp/issues"))
	check(token, "workload")
	for name, tc := range map[string]struct {
		form url.Values
		want string
	}{
		"another audience": {workload("audience", "https://elsewhere.example"), "invalid_target"},
		"wrong secret":     {workload("client_secret", "guess"), "invalid_client"},
		"a client for people": {
			url.Values{"client_id": {world.FrontdeskClient}, "client_secret": {world.FrontdeskSecret}}, "unauthorized_client",
		},
	} {
		if token, got := grant(tc.form); token != "" || got != tc.want {
			t.Errorf("%s: got token %q error %q, want %s", name, token, got, tc.want)
		}
	}
}

func TestKeyRotation(t *testing.T) {
	idp := newIdP(t, world.IdPConfig{})
	verify := func(raw string) error {
		p, err := oidc.NewProvider(within(t), idp.URL())
		if err != nil {
			t.Fatal(err)
		}
		_, err = p.Verifier(&oidc.Config{ClientID: "aud"}).Verify(within(t), raw)
		return err
	}
	mint := func() string { return must[string](t)(idp.MintAccessToken("alice", "aud", nil)) }
	old := mint()
	if err := idp.RotateKey(); err != nil {
		t.Fatal(err)
	}
	if err := verify(old); err != nil {
		t.Errorf("the old key is gone: %v", err)
	}
	idp.ForgetOldKeys()
	if verify(old) == nil {
		t.Error("the old key is still published")
	}
	if err := verify(mint()); err != nil {
		t.Error(err)
	}
}

func TestFaults(t *testing.T) {
	idp := newIdP(t, world.IdPConfig{})
	s := newSite(t, idp, idpScopes...)
	metadata := idp.URL() + "/.well-known/openid-configuration"

	idp.SetFaults(authserver.Faults{Status: 503, Times: 2})
	for i, want := range []int{503, 503, 200} {
		if status, _ := get(t, metadata, ""); status != want {
			t.Errorf("request %d: %d, want %d", i, status, want)
		}
	}
	idp.SetFaults(authserver.Faults{Down: true, Path: "/oauth/token"})
	if _, err := http.Post(idp.URL()+"/oauth/token", "", nil); err == nil {
		t.Error("down, and answered")
	}
	if status, _ := get(t, metadata, ""); status != 200 {
		t.Errorf("a fault of one path met another: %d", status)
	}
	idp.SetFaults(authserver.Faults{DiscoveryIssuer: "https://evil.example"})
	if got := getJSON(t, metadata, "")["issuer"]; got != "https://evil.example" {
		t.Errorf("issuer %v", got)
	}
	idp.SetFaults(authserver.Faults{ResponseIssuer: "https://evil.example"})
	if got := s.visit(t, atIdP(idp, "alice")).Get("iss"); got != "https://evil.example" {
		t.Errorf("iss %q", got)
	}
	idp.SetFaults(authserver.Faults{NoIssuer: true, TokenIssuer: "https://evil.example"})
	back := s.visit(t, atIdP(idp, "alice"))
	if back.Has("iss") {
		t.Errorf("iss is there: %v", back)
	}
	tok, err := s.redeem(t, back.Get("code"))
	if err != nil {
		t.Fatal(err)
	}
	raw, _ := tok.Extra("id_token").(string)
	j, err := jwt.ParseSigned(raw, []jose.SignatureAlgorithm{jose.RS256})
	if err != nil {
		t.Fatal(err)
	}
	var claims jwt.Claims
	if err := j.UnsafeClaimsWithoutVerification(&claims); err != nil || claims.Issuer != "https://evil.example" {
		t.Errorf("token of %q, %v", claims.Issuer, err)
	}
	idp.SetFaults(authserver.Faults{NoRefresh: true, EditToken: func(b map[string]any) { b["token_type"] = "mac" }})
	tok = s.signIn(t, atIdP(idp, "alice"))
	if tok.RefreshToken != "" || tok.TokenType != "mac" {
		t.Errorf("edited answer: %+v", tok)
	}
	idp.SetFaults(authserver.Faults{})
	tok = s.signIn(t, atIdP(idp, "alice"))
	idp.SetFaults(authserver.Faults{LoseAnswer: true, Path: "/oauth/token", Times: 1})
	if _, err := s.refresh(t, tok.RefreshToken); err == nil {
		t.Error("the answer was not lost")
	}
	if got := outcomes(idp.Redemptions()); !slices.Equal(got, []authserver.Outcome{authserver.Renewed}) {
		t.Errorf("after a lost answer: %v, want one renewal that happened all the same", got)
	}
}

func TestIdPClock(t *testing.T) {
	var clock world.Clock
	idp := newIdP(t, world.IdPConfig{Now: clock.Now, AccessLifetime: 5 * time.Minute})
	s := newSite(t, idp, idpScopes...)
	tok := s.signIn(t, atIdP(idp, "alice"))
	clock.Advance(6 * time.Minute)
	if status, _ := get(t, idp.URL()+"/userinfo", tok.AccessToken); status == http.StatusOK {
		t.Error("the access token outlived its time")
	}
	tok, err := s.refresh(t, tok.RefreshToken)
	if err != nil {
		t.Fatal(err)
	}
	if left := time.Until(tok.Expiry); left < 4*time.Minute || left > 6*time.Minute {
		t.Errorf("expires_in is %s after the clock moved", left)
	}
	raw, _ := tok.Extra("id_token").(string)
	exp, _ := idToken(t, idp, raw)["exp"].(float64)
	if left := time.Unix(int64(exp), 0).Sub(clock.Now()); left < 4*time.Minute || left > 6*time.Minute {
		t.Errorf("the ID token lives %s by the moved clock", left)
	}
	clock.Advance(13 * time.Hour)
	if _, err := s.refresh(t, tok.RefreshToken); oauthError(t, err) != "invalid_grant" {
		t.Errorf("a refresh token 13 hours old: %v", err)
	}
}
