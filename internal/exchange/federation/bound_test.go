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

// TestIDJAGBoundByHint: where the config names the authorization server, the resource is asked all the same whether it wants tokens that
// are bound to a key. One that says nothing, or not in time, delays and fails no call, and is heard once it speaks.
func TestIDJAGBoundByHint(t *testing.T) {
	const at = "GET /.well-known/oauth-protected-resource/mcp"
	setUp := func(t *testing.T) (*bench, catalog.Method, map[string]any) {
		b := newBench(t)
		b.signedIn(time.Hour)
		issuer, resource := b.ras(), b.other.URL+"/mcp"
		b.json("GET /.well-known/oauth-authorization-server/ras", map[string]any{"issuer": issuer, "token_endpoint": issuer + "/token", "dpop_signing_alg_values_supported": []string{"ES256"}})
		b.on(rasToken, func(w http.ResponseWriter, r *http.Request) {
			kind := "Bearer"
			if r.Header.Get(dpop.Header) != "" {
				kind = "DPoP"
			}
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(map[string]any{"access_token": "ras-access", "token_type": kind, "expires_in": 3600})
		})
		return b, catalog.Method{Kind: catalog.IDJAGMethod, Client: "desk-at-ras", Settings: &catalog.IDJAG{Issuer: issuer, Resource: resource, Subject: catalog.SubjectID}},
			map[string]any{"resource": resource, "dpop_bound_access_tokens_required": true}
	}
	gets := func(t *testing.T, b *bench, m catalog.Method, want string) {
		t.Helper()
		began := time.Now()
		line, _, err := b.obtain(b.alice(), m)
		if err != nil || line != want {
			t.Errorf("%q, %v; want %q", line, err, want)
		}
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("it took %v", took)
		}
	}
	t.Run("demanded", func(t *testing.T) {
		b, m, says := setUp(t)
		b.json(at, says)
		gets(t, b, m, "DPoP ras-access")
		gets(t, b, m, "DPoP ras-access")
		if n := len(b.forms(at)); n != 1 {
			t.Errorf("the resource was asked %d times", n)
		}
	})
	for name, answer := range map[string]http.HandlerFunc{
		"no metadata": http.NotFound,
		"not its own": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write([]byte(`{"resource":"https://other.example.com","dpop_bound_access_tokens_required":true}`))
		},
		"nothing that is wanted": func(w http.ResponseWriter, r *http.Request) {
			_, _ = w.Write([]byte(`{"resource":"http://` + r.Host + `/mcp"}`))
		},
		"broken": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) },
	} {
		t.Run(name, func(t *testing.T) {
			b, m, _ := setUp(t)
			b.on(at, answer)
			gets(t, b, m, "Bearer ras-access")
			gets(t, b, m, "Bearer ras-access")
			if n := len(b.forms(rasToken)); n != 1 {
				t.Errorf("a token was asked for %d times", n)
			}
		})
	}
	t.Run("silent", func(t *testing.T) {
		b, m, says := setUp(t)
		speak, spoken := make(chan struct{}), make(chan struct{})
		b.on(at, func(w http.ResponseWriter, _ *http.Request) {
			<-speak
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(says)
			close(spoken)
		})
		gets(t, b, m, "Bearer ras-access")
		gets(t, b, m, "Bearer ras-access")
		close(speak)
		<-spoken
		for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
			line, _, err := b.obtain(b.alice(), m)
			if line == "DPoP ras-access" {
				break
			}
			if err != nil || time.Now().After(deadline) {
				t.Fatalf("%q, %v once it has spoken", line, err)
			}
		}
	})
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
