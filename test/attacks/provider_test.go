package attacks_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// provider is an OpenID provider and an API that do what a test tells them: a hostile authorization server, or the company's
// own that somebody took over. What is not told goes by the book.
type provider struct {
	*httptest.Server
	ec  *ecdsa.PrivateKey
	rsa *rsa.PrivateKey

	fetched   atomic.Int64 // of the keys
	exchanged atomic.Int64 // codes at the token endpoint

	mu        sync.Mutex // owns what follows
	authorize func(w http.ResponseWriter, r *http.Request) bool
	token     func(w http.ResponseWriter, r *http.Request) bool
	claims    func(m map[string]any)
	jwks      func(w http.ResponseWriter) bool
	subject   string
	nonces    map[string]string // by code
	forms     []url.Values      // that the token endpoint got
}

// hooks is what a test changes of it; the zero value is good behaviour.
type hooks struct {
	authorize, token func(w http.ResponseWriter, r *http.Request) bool // true: answered
	claims           func(m map[string]any)                            // of ID tokens
	jwks             func(w http.ResponseWriter) bool
}

func newProvider() (*provider, error) {
	p := &provider{subject: "emp-alice", nonces: map[string]string{}}
	var err error
	if p.ec, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return nil, err
	}
	if p.rsa, err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/openid-configuration", p.discovery)
	mux.HandleFunc("GET /.well-known/oauth-authorization-server", p.discovery)
	mux.HandleFunc("GET /keys", p.keys)
	mux.HandleFunc("GET /authorize", p.authorization)
	mux.HandleFunc("POST /token", p.exchange)
	mux.HandleFunc("GET /api/user", func(w http.ResponseWriter, _ *http.Request) {
		p.mu.Lock()
		defer p.mu.Unlock()
		_, _ = fmt.Fprintf(w, `{"login":%q,"id":%q}`, p.subject, p.subject)
	})
	p.Server = httptest.NewServer(mux)
	return p, nil
}

// during behaves so until the test ends.
func (p *provider) during(t *testing.T, h hooks) {
	t.Helper()
	p.set(h)
	t.Cleanup(func() { p.set(hooks{}) })
}

func (p *provider) set(h hooks) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.authorize, p.token, p.claims, p.jwks = h.authorize, h.token, h.claims, h.jwks
}

// is says who is signed in there.
func (p *provider) is(subject string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.subject = subject
}

func (p *provider) hooked() hooks {
	p.mu.Lock()
	defer p.mu.Unlock()
	return hooks{p.authorize, p.token, p.claims, p.jwks}
}

func reply(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}

func (p *provider) discovery(w http.ResponseWriter, _ *http.Request) {
	reply(w, map[string]any{"issuer": p.URL, "authorization_endpoint": p.URL + "/authorize", "token_endpoint": p.URL + "/token", "jwks_uri": p.URL + "/keys",
		"response_types_supported": []string{"code"}, "subject_types_supported": []string{"public"}, "id_token_signing_alg_values_supported": []string{"ES256", "RS256"},
		"code_challenge_methods_supported": []string{"S256"}, "authorization_response_iss_parameter_supported": true, "token_endpoint_auth_methods_supported": []string{"client_secret_basic"}})
}

func (p *provider) keys(w http.ResponseWriter, _ *http.Request) {
	p.fetched.Add(1)
	if h := p.hooked().jwks; h != nil && h(w) {
		return
	}
	reply(w, map[string]any{"keys": []any{p.ecJWK("ec"), p.rsaJWK("rsa")}})
}

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

func (p *provider) ecJWK(kid string) map[string]any {
	pub, err := p.ec.PublicKey.Bytes()
	if err != nil {
		panic(err) // a P-256 key of ours
	}
	return map[string]any{"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": kid, "x": b64(pub[1:33]), "y": b64(pub[33:])}
}

func (p *provider) rsaJWK(kid string) map[string]any {
	return map[string]any{"kty": "RSA", "alg": "RS256", "use": "sig", "kid": kid, "n": b64(p.rsa.N.Bytes()), "e": "AQAB"}
}

func (p *provider) authorization(w http.ResponseWriter, r *http.Request) {
	if h := p.hooked().authorize; h != nil && h(w, r) {
		return
	}
	q := r.URL.Query()
	code := b64([]byte(rand.Text()))
	p.mu.Lock()
	p.nonces[code] = q.Get("nonce")
	p.mu.Unlock()
	back := url.Values{"code": {code}, "state": {q.Get("state")}, "iss": {p.URL}}
	http.Redirect(w, r, q.Get("redirect_uri")+"?"+back.Encode(), http.StatusFound)
}

func (p *provider) exchange(w http.ResponseWriter, r *http.Request) {
	p.exchanged.Add(1)
	_ = r.ParseForm()
	p.mu.Lock()
	p.forms = append(p.forms, r.PostForm)
	subject, nonce := p.subject, p.nonces[r.PostForm.Get("code")]
	p.mu.Unlock()
	h := p.hooked()
	if h.token != nil && h.token(w, r) {
		return
	}
	access := "hostile-access-" + rand.Text()
	claims := map[string]any{"iss": p.URL, "aud": "frontdesk", "sub": subject, "nonce": nonce, "iat": time.Now().Unix(), "exp": time.Now().Add(5 * time.Minute).Unix(), "groups": []string{"engineering"}, "name": subject}
	sum := sha256.Sum256([]byte(access))
	claims["at_hash"] = b64(sum[:16])
	if h.claims != nil {
		h.claims(claims)
	}
	reply(w, map[string]any{"access_token": access, "token_type": "Bearer", "expires_in": 300, "id_token": p.sign(map[string]any{"alg": "ES256", "typ": "JWT", "kid": "ec"}, claims)})
}

// sign makes a token with any header; ES256 and RS256 are signed with the provider's keys, anything else with nothing.
func (p *provider) sign(header, claims map[string]any) string {
	payload, err := json.Marshal(claims)
	if err != nil {
		panic(err) // a test's mistake
	}
	return p.signRaw(header, payload)
}

func (p *provider) signRaw(header map[string]any, payload []byte) string {
	head, err := json.Marshal(header)
	if err != nil {
		panic(err) // a test's mistake
	}
	input := b64(head) + "." + b64(payload)
	return input + "." + b64(p.signature(header["alg"], input))
}

func (p *provider) signature(alg any, input string) []byte {
	sum := sha256.Sum256([]byte(input))
	switch alg {
	case "ES256":
		r, s, err := ecdsa.Sign(rand.Reader, p.ec, sum[:])
		if err != nil {
			panic(err) // the random source
		}
		out := make([]byte, 64)
		r.FillBytes(out[:32])
		s.FillBytes(out[32:])
		return out
	case "RS256":
		sig, err := rsa.SignPKCS1v15(rand.Reader, p.rsa, crypto.SHA256, sum[:])
		if err != nil {
			panic(err) // a 2048-bit key of ours
		}
		return sig
	}
	return []byte("x")
}

// access is an access token as the provider gives workloads and people for Frontdesk's own audience.
func (p *provider) access(change map[string]any) string {
	return p.sign(map[string]any{"alg": "ES256", "typ": "at+jwt", "kid": "ec"}, p.accessClaims(change))
}

// accessClaims are those of a good token, changed; a nil value takes one away.
func (p *provider) accessClaims(change map[string]any) map[string]any {
	m := map[string]any{"iss": p.URL, "aud": "api://frontdesk", "sub": "emp-alice", "client_id": "good-agent", "jti": rand.Text(), "iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix(), "groups": []string{"engineering"}}
	for k, v := range change {
		if v == nil {
			delete(m, k)
		} else {
			m[k] = v
		}
	}
	return m
}

// got reports whether any form at the token endpoint holds the text.
func (p *provider) got(text string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, f := range p.forms {
		if strings.Contains(f.Encode(), url.QueryEscape(text)) {
			return true
		}
	}
	return false
}
