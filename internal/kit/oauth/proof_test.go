package oauth_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"frontdesk.dev/frontdesk/internal/kit/dpop"
	"frontdesk.dev/frontdesk/internal/kit/oauth"
	"frontdesk.dev/frontdesk/internal/kit/secret"
)

// TestNoncesOfTokenEndpoints: a server that wants its nonce in the proof is asked once more, with a client assertion of its own; one that
// wants another each time is asked no third time, and its no is not taken for a dead grant.
func TestNoncesOfTokenEndpoints(t *testing.T) {
	for name, c := range map[string]struct {
		nonces []string // that each answer names; after the last one it is content
		never  bool     // it is content with none
		asked  int
	}{
		"wants none":          {asked: 1},
		"wants one":           {nonces: []string{"n1"}, asked: 2},
		"names none":          {nonces: []string{""}, asked: 1, never: true},
		"names what is none":  {nonces: []string{`n"1`}, asked: 1, never: true},
		"wants another":       {nonces: []string{"n1", "n2", "n3"}, asked: 2, never: true},
		"wants the same once": {nonces: []string{"n1", "n1"}, asked: 2, never: true},
	} {
		t.Run(name, func(t *testing.T) {
			var proofs, assertions []string
			s := serve(t, func(w http.ResponseWriter, r *http.Request) {
				proofs, assertions = append(proofs, r.Header.Get(dpop.Header)), append(assertions, r.PostFormValue("client_assertion"))
				w.Header().Set("Content-Type", "application/json")
				if n := len(proofs) - 1; n < len(c.nonces) {
					w.Header().Set(dpop.HeaderNonce, c.nonces[n])
					w.WriteHeader(http.StatusBadRequest)
					_, _ = io.WriteString(w, `{"error":"use_dpop_nonce"}`)
					return
				}
				_, _ = io.WriteString(w, `{"access_token":"a1","token_type":"dpop"}`)
			})
			cl := client(s)
			cl.Nonces = new(dpop.Nonces)
			e := oauth.Endpoint{URL: s.URL + "/token", ClientID: "desk", Auth: oauth.AuthJWT, Key: dpop.NewKey, ExtraParams: map[string]string{"audience": "x"},
				Assert: func(context.Context) (secret.Text, error) {
					return secret.New(fmt.Sprint("assertion ", len(proofs))), nil
				}}
			got, err := refresh(t, cl, e)
			if (err != nil) != c.never || len(proofs) != c.asked {
				t.Fatalf("%v, asked %d times", err, len(proofs))
			}
			if te, ok := errors.AsType[*oauth.TokenError](err); err != nil && (!ok || te.Failure != oauth.Temporary || te.Definitive) {
				t.Errorf("it is taken for %v", err)
			}
			for i, p := range proofs {
				if i > 0 && (p == proofs[0] || assertions[i] == assertions[0]) {
					t.Error("a proof or an assertion was sent twice")
				}
			}
			if c.never {
				return
			}
			at, err := url.Parse(s.URL + "/token")
			if err != nil {
				t.Fatal(err)
			}
			if got.Key == nil || len(c.nonces) > 0 && cl.Nonces.Of(at) != c.nonces[0] {
				t.Errorf("key %v, nonce %q", got.Key, cl.Nonces.Of(at))
			}
		})
	}
}

// TestBoundAnswers: who asks by a proof takes a token of that key and no other, and who does not takes none that is bound.
func TestBoundAnswers(t *testing.T) {
	key, err := dpop.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	bound := func(print string) string {
		signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.HS256, Key: make([]byte, 32)}, nil)
		if err != nil {
			t.Fatal(err)
		}
		jws, err := signer.Sign([]byte(`{"cnf":{"jkt":"` + print + `"}}`))
		if err != nil {
			t.Fatal(err)
		}
		text, err := jws.CompactSerialize()
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	for name, c := range map[string]struct {
		with         func() (*dpop.Key, error)
		access, kind string
		ok           bool
	}{
		"bound":             {key.Itself, "a1", "DPoP", true},
		"bound, a JWT":      {key.Itself, bound(key.Thumbprint()), "DPoP", true},
		"to another key":    {key.Itself, bound("0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"), "DPoP", false},
		"not bound":         {key.Itself, "a1", "Bearer", false},
		"not said":          {key.Itself, "a1", "", false},
		"bound, unasked":    {nil, "a1", "DPoP", false},
		"as it always was":  {nil, "a1", "Bearer", true},
		"a key that is not": {func() (*dpop.Key, error) { return nil, errors.New("no randomness") }, "a1", "DPoP", false},
	} {
		body := `{"access_token":"` + c.access + `","token_type":"` + c.kind + `"}`
		if c.kind == "" {
			body = `{"access_token":"` + c.access + `"}`
		}
		s := answer(t, http.StatusOK, "application/json", body)
		e := endpoint(s.URL + "/token")
		e.Key = c.with
		got, err := refresh(t, client(s), e)
		if (err == nil) != c.ok || err == nil && (got.Key != nil) != (c.with != nil) {
			t.Errorf("%s: %v, %v", name, got.Key, err)
		}
	}
}
