package world_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/google/go-cmp/cmp"

	"frontdesk.dev/frontdesk/test/world"
)

// TestIdPStatesIdentity: the IdP states who a person is to a partner that it knows, for the client that has the person's ID token,
// and to nobody else.
func TestIdPStatesIdentity(t *testing.T) {
	const partner = "https://login.partner.example"
	idp := newIdP(t, world.IdPConfig{WorkloadAudiences: []string{world.FrontdeskClient}})
	idp.Partner(partner, "desk-there")
	s := newSite(t, idp, idpScopes...)
	tok := s.signIn(t, atIdP(idp, "alice"))
	raw, _ := tok.Extra("id_token").(string)
	ask := func(change url.Values) (int, map[string]any) {
		form := url.Values{"grant_type": {"urn:ietf:params:oauth:grant-type:token-exchange"}, "requested_token_type": {"urn:ietf:params:oauth:token-type:id-jag"},
			"subject_token": {raw}, "subject_token_type": {"urn:ietf:params:oauth:token-type:id_token"}, "audience": {partner}, "resource": {"https://api.partner.example"}, "scope": {"read write"},
			"client_id": {world.FrontdeskClient}, "client_secret": {world.FrontdeskSecret}}
		for k, v := range change {
			form[k] = v
		}
		resp, err := http.PostForm(s.cfg.Endpoint.TokenURL, form)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		var answer map[string]any
		if b, err := io.ReadAll(resp.Body); err != nil || json.Unmarshal(b, &answer) != nil {
			t.Fatal(err, string(b))
		}
		return resp.StatusCode, answer
	}
	status, answer := ask(nil)
	jag, _ := answer["access_token"].(string)
	if status != http.StatusOK || answer["token_type"] != "N_A" || answer["issued_token_type"] != "urn:ietf:params:oauth:token-type:id-jag" || answer["expires_in"] != 300.0 || answer["refresh_token"] != nil {
		t.Fatalf("%d %v", status, answer)
	}
	claims := stated(t, idp, partner, jag)
	if life := claims["exp"].(float64) - claims["iat"].(float64); life <= 0 || life > 300 {
		t.Errorf("it lives for %v s", life)
	}
	for _, k := range []string{"iat", "exp", "jti"} {
		delete(claims, k)
	}
	want := map[string]any{"iss": idp.URL(), "sub": "emp-alice", "aud": partner, "client_id": "desk-there", "scope": "read write", "resource": []any{"https://api.partner.example"}}
	if d := cmp.Diff(want, claims); d != "" {
		t.Errorf("claims (-want +got):\n%s", d)
	}

	access, err := idp.MintAccessToken("alice", world.FrontdeskClient, nil)
	if err != nil {
		t.Fatal(err)
	}
	other, err := idp.Sign("JWT", map[string]any{"iss": idp.URL(), "sub": "emp-alice", "aud": "workload", "exp": time.Now().Add(time.Minute).Unix()})
	if err != nil {
		t.Fatal(err)
	}
	old, err := idp.Sign("JWT", map[string]any{"iss": idp.URL(), "sub": "emp-alice", "aud": world.FrontdeskClient, "exp": time.Now().Add(-time.Minute).Unix()})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		change url.Values
		code   string
	}{
		"a partner that is none":            {url.Values{"audience": {"https://elsewhere.example"}}, "invalid_target"},
		"two partners":                      {url.Values{"audience": {partner, partner}}, "invalid_request"},
		"no partner":                        {url.Values{"audience": nil}, "invalid_request"},
		"a resource that is no URL":         {url.Values{"resource": {"api"}}, "invalid_target"},
		"another token":                     {url.Values{"requested_token_type": {"urn:ietf:params:oauth:token-type:access_token"}}, "invalid_request"},
		"an access token for the person":    {url.Values{"subject_token": {access}}, "invalid_grant"},
		"an ID-JAG for the person":          {url.Values{"subject_token": {jag}}, "invalid_grant"},
		"an ID token of another client":     {url.Values{"subject_token": {other}}, "invalid_grant"},
		"an ID token that has expired":      {url.Values{"subject_token": {old}}, "invalid_grant"},
		"no token":                          {url.Values{"subject_token": {"x"}}, "invalid_grant"},
		"a client that has another's token": {url.Values{"client_id": {"workload"}, "client_secret": {world.Password}}, "invalid_grant"},
		"a client without its secret":       {url.Values{"client_secret": {"guess"}}, "invalid_client"},
	} {
		if status, answer := ask(c.change); status < 400 || answer["error"] != c.code {
			t.Errorf("%s: %d %v, want %s", name, status, answer, c.code)
		}
	}
	if err := idp.Dismiss("alice"); err != nil {
		t.Fatal(err)
	}
	if status, answer := ask(nil); status != http.StatusBadRequest || answer["error"] != "invalid_grant" {
		t.Errorf("somebody who was dismissed: %d %v", status, answer)
	}
}

// stated verifies an ID-JAG as the partner would.
func stated(t *testing.T, idp *world.IdP, partner, jag string) (claims map[string]any) {
	t.Helper()
	parsed, err := jwt.ParseSigned(jag, []jose.SignatureAlgorithm{jose.RS256})
	if err != nil || parsed.Headers[0].ExtraHeaders[jose.HeaderType] != "oauth-id-jag+jwt" {
		t.Fatalf("%v %v", err, parsed)
	}
	tok, err := oidc.NewVerifier(idp.URL(), oidc.NewRemoteKeySet(within(t), idp.URL()+"/keys"), &oidc.Config{ClientID: partner}).Verify(within(t), jag)
	if err != nil || tok.Claims(&claims) != nil {
		t.Fatal(err)
	}
	return claims
}
