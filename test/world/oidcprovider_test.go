package world_test

import (
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"golang.org/x/oauth2"

	"frontdesk.dev/frontdesk/test/world"
	"frontdesk.dev/frontdesk/test/world/authserver"
)

// stern starts the stricter upstream with a site that is registered at it.
func stern(t *testing.T, cfg world.OIDCProviderConfig) (*world.OIDCProvider, *site) {
	t.Helper()
	s := newSite(t, nowhere{}, "openid", "offline_access", world.ScopeRead)
	cfg.RedirectURIs = []string{s.cfg.RedirectURL}
	o, err := world.NewOIDCProvider(within(t), cfg)
	if errors.Is(err, world.ErrNoNode) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	closing(t, o)
	meta := getJSON(t, o.URL()+"/.well-known/openid-configuration", "")
	s.cfg.Endpoint.AuthURL, _ = meta["authorization_endpoint"].(string)
	s.cfg.Endpoint.TokenURL, _ = meta["token_endpoint"].(string)
	return o, s
}

type nowhere struct{}

func (nowhere) URL() string        { return "http://127.0.0.1:1" }
func (nowhere) Register(...string) {}

func TestOIDCProvider(t *testing.T) {
	o, s := stern(t, world.OIDCProviderConfig{})
	alice := world.NewPerson("Authorize").HasAccount(o.URL(), "stern-alice")
	consent := oauth2.SetAuthURLParam("prompt", "consent") // oidc-provider gives no refresh token without
	back := s.visit(t, alice, consent, oauth2.SetAuthURLParam("resource", o.API()))
	if back.Get("iss") != o.URL() {
		t.Errorf("came back with %v", back)
	}
	first, err := s.redeem(t, back.Get("code"))
	if err != nil {
		t.Fatal(err)
	}
	if got := getJSON(t, o.API()+"/user", first.AccessToken)["login"]; got != "stern-alice" {
		t.Errorf("the API knows %v", got)
	}
	second, err := s.refresh(t, first.RefreshToken)
	if err != nil || second.RefreshToken == first.RefreshToken {
		t.Fatalf("refresh: %v, rotated %v", err, second.RefreshToken != first.RefreshToken)
	}
	if _, err := s.refresh(t, first.RefreshToken); oauthError(t, err) != "invalid_grant" {
		t.Errorf("reuse: %v", err)
	}
	if _, err := s.refresh(t, second.RefreshToken); oauthError(t, err) != "invalid_grant" {
		t.Errorf("the family outlived a reuse: %v", err)
	}
	if status, _ := get(t, o.API()+"/user", second.AccessToken); status != http.StatusUnauthorized {
		t.Errorf("an access token of the ended family: %d", status)
	}
	rs, err := o.Redemptions(within(t))
	if got := outcomes(rs); err != nil || !slices.Equal(got, []authserver.Outcome{authserver.Renewed, authserver.Reused, authserver.Ended}) {
		t.Errorf("redemptions %v, %v", got, err)
	}
	tokens, err := o.Tokens(within(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range []string{back.Get("code"), first.AccessToken, first.RefreshToken, second.AccessToken, second.RefreshToken} {
		if !slices.ContainsFunc(tokens, func(i authserver.Issued) bool { return i.Value == v && i.User == "stern-alice" }) {
			t.Errorf("%s is not on record", v)
		}
	}
	// Another resource than the API is refused; so is a request without PKCE.
	for name, bad := range map[string]oauth2.AuthCodeOption{
		"invalid_target":  oauth2.SetAuthURLParam("resource", "https://elsewhere.example"),
		"invalid_request": oauth2.SetAuthURLParam("code_challenge", ""),
	} {
		if back := s.visit(t, alice, bad); back.Get("error") != name || back.Get("iss") != o.URL() {
			t.Errorf("want %s: %v", name, back)
		}
	}
}

func TestOIDCProviderRevokesAndWithdraws(t *testing.T) {
	o, s := stern(t, world.OIDCProviderConfig{})
	consent := oauth2.SetAuthURLParam("prompt", "consent")
	bob := world.NewPerson("Authorize").HasAccount(o.URL(), "stern-bob")
	tok := s.signIn(t, bob, consent)
	req, err := http.NewRequestWithContext(within(t), "POST", o.URL()+"/token/revocation", strings.NewReader(url.Values{"token": {tok.RefreshToken}}.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.SetBasicAuth(s.cfg.ClientID, s.cfg.ClientSecret)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if _, err := s.refresh(t, tok.RefreshToken); resp.StatusCode != 200 || oauthError(t, err) != "invalid_grant" {
		t.Errorf("revoked with %d, refresh: %v", resp.StatusCode, err)
	}
	tok = s.signIn(t, bob, consent)
	do[any](t, o.Process, "withdraw", url.Values{"user": {"stern-bob"}})
	if status, _ := get(t, o.API()+"/user", tok.AccessToken); status != 401 {
		t.Errorf("after withdrawal: %d", status)
	}
	no := world.NewPerson("Cancel").HasAccount(o.URL(), "stern-bob")
	if back := s.visit(t, no, consent); back.Get("error") != "access_denied" {
		t.Errorf("a no: %v", back)
	}
}

func TestOIDCProviderWantsPAR(t *testing.T) {
	o, s := stern(t, world.OIDCProviderConfig{RequirePAR: true})
	alice := world.NewPerson("Authorize").HasAccount(o.URL(), "stern-alice")
	if back := s.visit(t, alice); back.Get("error") != "invalid_request" {
		t.Errorf("an authorization request that was not pushed: %v", back)
	}
	u, err := url.Parse(s.start())
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(within(t), "POST", o.URL()+"/request", strings.NewReader(u.RawQuery))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.SetBasicAuth(s.cfg.ClientID, s.cfg.ClientSecret)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var pushed struct {
		RequestURI string `json:"request_uri"`
	}
	decode(t, resp.Body, &pushed)
	q := url.Values{"client_id": {s.cfg.ClientID}, "request_uri": {pushed.RequestURI}}
	if err := alice.Open(within(t), s.cfg.Endpoint.AuthURL+"?"+q.Encode()); err != nil {
		t.Fatal(err)
	}
	if tok, err := s.redeem(t, (<-s.back).Get("code")); err != nil || getJSON(t, o.API()+"/user", tok.AccessToken)["login"] != "stern-alice" {
		t.Errorf("pushed: %v", err)
	}
}

func TestOIDCProviderInParallel(t *testing.T) {
	o, s := stern(t, world.OIDCProviderConfig{})
	tok := s.signIn(t, world.NewPerson("Authorize").HasAccount(o.URL(), "stern-alice"), oauth2.SetAuthURLParam("prompt", "consent"))
	good := parallel(20, func() error { _, err := s.refresh(t, tok.RefreshToken); return err })
	rs, err := o.Redemptions(within(t))
	if good > 1 || len(rs) != 20 || err != nil {
		t.Errorf("%d of %d counted redemptions succeeded, %v", good, len(rs), err)
	}
}
