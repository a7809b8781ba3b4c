package federation_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/kit/dpop"
	"frontdesk.dev/frontdesk/internal/kit/fault"
)

// TestIDJAGBound: where the resource's metadata demand tokens that are bound to a key, id_jag gets one by proof (RFC 9449), and sends a
// proof with each request; a Bearer token in its place, or one of another key, is refused.
func TestIDJAGBound(t *testing.T) {
	for name, c := range map[string]struct {
		algorithms []string
		answer     map[string]any
		ok         bool
		want       fault.Kind // where it is not
	}{
		"bound":             {[]string{"ES256"}, map[string]any{"access_token": "ras-access", "token_type": "DPoP", "expires_in": 3600}, true, 0},
		"downgraded":        {[]string{"ES256"}, map[string]any{"access_token": "ras-access", "token_type": "Bearer", "expires_in": 3600}, false, fault.Unavailable},
		"no type":           {[]string{"ES256"}, map[string]any{"access_token": "ras-access", "expires_in": 3600}, false, fault.Unavailable},
		"of another's key":  {[]string{"ES256"}, map[string]any{"access_token": unsigned(map[string]any{"cnf": map[string]any{"jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}}), "token_type": "DPoP"}, false, fault.Unavailable},
		"proof is no good":  {[]string{"ES256"}, map[string]any{"error": "invalid_dpop_proof"}, false, fault.Denied},
		"demanded, unasked": {nil, map[string]any{"access_token": "ras-access", "token_type": "DPoP"}, true, 0}, // the resource demands it, so it is tried
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.signedIn(time.Hour)
			issuer, resource := b.ras(), b.other.URL+"/mcp"
			b.json("GET /.well-known/oauth-authorization-server/ras", map[string]any{"issuer": issuer, "token_endpoint": issuer + "/token", "dpop_signing_alg_values_supported": c.algorithms})
			b.json("GET /.well-known/oauth-protected-resource/mcp", map[string]any{"resource": resource, "authorization_servers": []string{issuer}, "dpop_bound_access_tokens_required": true})
			status := http.StatusOK
			if c.answer["error"] != nil {
				status = http.StatusBadRequest
			}
			b.answer(rasToken, status, c.answer)
			m := catalog.Method{Kind: catalog.IDJAGMethod, Client: "desk-at-ras", Settings: &catalog.IDJAG{Resource: resource, Subject: catalog.SubjectID}}
			line, cred, err := b.obtain(b.alice(), m)
			if (err == nil) != c.ok || err != nil && fault.KindOf(err) != c.want {
				t.Fatalf("%v, want %s", err, c.want)
			}
			asked := b.heads[rasToken][0].Values(dpop.Header)
			if len(asked) != 1 || claim(t, asked[0], "htu") != issuer+"/token" || claim(t, asked[0], "htm") != "POST" {
				t.Errorf("the server was asked with %v", asked)
			}
			if len(b.heads[idpToken][0].Values(dpop.Header)) != 0 {
				t.Error("the company's IdP got a proof that nobody asked for")
			}
			if err != nil {
				return
			}
			if line != "DPoP ras-access" || cred.Fill != nil || len(cred.Marks) != 1 {
				t.Errorf("it is placed as %q", line)
			}
		})
	}
}

func claim(t *testing.T, proof, name string) string {
	t.Helper()
	jws, err := jose.ParseSignedCompact(proof, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		t.Fatal(err)
	}
	var c map[string]any
	if err := json.Unmarshal(jws.UnsafePayloadWithoutVerification(), &c); err != nil {
		t.Fatal(err)
	}
	s, _ := c[name].(string)
	return strings.TrimSpace(s)
}
