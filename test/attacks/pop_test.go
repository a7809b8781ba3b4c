package attacks_test

import (
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestA176_A180_timeAndPossession: tokens are good until exp and not at it; what is bound to a key is no bearer token.
func TestA176_A180_timeAndPossession(t *testing.T) {
	s := foes(t)
	s.oracles(t)
	mint := func(more map[string]any) string {
		t.Helper()
		more["client_id"] = "good-agent"
		more["groups"] = []string{"engineering"}
		v, err := s.IdP.MintAccessToken("alice", "api://frontdesk", more)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	s.evil.answer(result(`{"jsonrpc":"2.0","id":$ID,"result":{"content":[]}}`))
	now := time.Now()
	for name, token := range map[string]string{
		"A-178 exp a minute ago":      mint(map[string]any{"exp": now.Add(-61 * time.Second).Unix()}),
		"A-177 iat far in the future": mint(map[string]any{"iat": now.Add(5 * time.Minute).Unix(), "exp": now.Add(10 * time.Minute).Unix()}),
		"A-177 nbf in the future":     mint(map[string]any{"nbf": now.Add(5 * time.Minute).Unix()}),
		"A-176 of 1970":               mint(map[string]any{"iat": 0, "exp": 60}),
		"A-178 exp of a leap second":  mint(map[string]any{"exp": "2016-12-31T23:59:60Z"}),
		"A-179 bound by DPoP":         mint(map[string]any{"cnf": map[string]any{"jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}}),
		"A-180 bound by mTLS":         mint(map[string]any{"cnf": map[string]any{"x5t#S256": "bwcK0esc3ACC3DB2Y5_lESsXE8o9ltc05O89jdN-dg2"}}),
		"A-179 bound to a key":        mint(map[string]any{"cnf": map[string]any{"jwk": map[string]any{"kty": "EC"}}}),
		"A-179 bound to nothing":      mint(map[string]any{"cnf": map[string]any{}}),
	} {
		got := s.post(t, "evil", token, "any", callBody("any", "{}"))
		if got.Status != http.StatusUnauthorized || !strings.Contains(got.Header.Get("WWW-Authenticate"), `error="invalid_token"`) {
			t.Errorf("%s: %d %s", name, got.Status, got.Body)
		}
	}
	good := mint(map[string]any{"exp": now.Add(3 * time.Minute).Unix()})
	for name, h := range map[string][]string{"X-Client-Cert": {"X-Client-Cert", "-----BEGIN CERTIFICATE-----"}, "X-Forwarded-Client-Cert": {"X-Forwarded-Client-Cert", "Subject=\"CN=alice\""}, "X-Forwarded-User": {"X-Forwarded-User", "bob"},
		"X-Remote-User": {"X-Remote-User", "bob"}, "DPoP": {"DPoP", "a.b.c"}} {
		if got := send(t, http.MethodPost, s.Desk().MCP("evil"), callBody("any", "{}"), h[0], h[1], "Content-Type", "application/json"); got.Status != http.StatusUnauthorized {
			t.Errorf("A-180 %s alone: %d", name, got.Status)
		}
		if got := s.post(t, "evil", good, "any", callBody("any", "{}"), h...); got.Status != http.StatusOK {
			t.Errorf("A-180 %s beside a good token: %d %s", name, got.Status, got.Body)
		}
	}
	// Under another scheme a token is none.
	for _, scheme := range []string{"DPoP ", "Basic ", "Digest ", ""} {
		got := send(t, http.MethodPost, s.Desk().MCP("evil"), callBody("any", "{}"), "Content-Type", "application/json", "Authorization", scheme+good)
		if got.Status != http.StatusUnauthorized || strings.Contains(got.Header.Get("WWW-Authenticate"), "error=") {
			t.Errorf("A-179 %q: %d %s", scheme, got.Status, got.Header.Get("WWW-Authenticate"))
		}
	}
}
