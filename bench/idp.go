package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// issuer is the company's IdP, as far as a call needs it: its keys, and access tokens that it signed.
type issuer struct {
	url    string
	server *httptest.Server
	signer jose.Signer
}

// groups of everybody.
var groups = []string{"engineering", "everybody", "office-north"}

func newIssuer() (*issuer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	jwk := jose.JSONWebKey{Key: key, KeyID: "bench", Algorithm: string(jose.ES256), Use: "sig"}
	i := &issuer{}
	if i.signer, err = jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jwk}, (&jose.SignerOptions{}).WithType("at+jwt")); err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	say := func(path string, v func() any) {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(v()) // whoever asked is gone if this fails
		})
	}
	say("/.well-known/openid-configuration", func() any {
		return map[string]any{"issuer": i.url, "authorization_endpoint": i.url + "/authorize", "token_endpoint": i.url + "/token", "jwks_uri": i.url + "/jwks",
			"response_types_supported": []string{"code"}, "id_token_signing_alg_values_supported": []string{"ES256"}, "subject_types_supported": []string{"public"}}
	})
	say("/jwks", func() any { return jose.JSONWebKeySet{Keys: []jose.JSONWebKey{jwk.Public()}} })
	i.server = httptest.NewServer(mux)
	i.url = i.server.URL
	return i, nil
}

// Close ends the IdP.
func (i *issuer) Close() error {
	i.server.Close()
	return nil
}

// token is a user's access token for Frontdesk.
func (i *issuer) token(user int) (string, error) {
	now := time.Now()
	return jwt.Signed(i.signer).Claims(map[string]any{"iss": i.url, "aud": audience, "sub": login(user), "client_id": client, "jti": rand.Text(), "iat": now.Unix(),
		"exp": now.Add(12 * time.Hour).Unix(), "groups": groups, "scope": "mcp"}).Serialize()
}
