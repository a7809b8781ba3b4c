package dpop_test

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"frontdesk.dev/frontdesk/internal/kit/dpop"
	"frontdesk.dev/frontdesk/internal/kit/secret"
)

var now = time.Unix(1_800_000_000, 0)

func clock() time.Time { return now }

// proof is what a server sees of one.
type proof struct {
	JTI   string `json:"jti"`
	HTM   string `json:"htm"`
	HTU   string `json:"htu"`
	IAT   int64  `json:"iat"`
	ATH   string `json:"ath"`
	Nonce string `json:"nonce"`

	print string
}

// read checks a proof as RFC 9449 section 4.3 says, as far as no request is needed for it.
func read(t *testing.T, text string) proof {
	t.Helper()
	jws, err := jose.ParseSignedCompact(text, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		t.Fatal(err)
	}
	h := jws.Signatures[0].Protected
	if h.JSONWebKey == nil || !h.JSONWebKey.IsPublic() || h.ExtraHeaders[jose.HeaderType] != "dpop+jwt" || h.KeyID != "" {
		t.Fatalf("header: %+v", h)
	}
	payload, err := jws.Verify(h.JSONWebKey)
	if err != nil {
		t.Fatal(err)
	}
	var p proof
	if err := json.Unmarshal(payload, &p); err != nil {
		t.Fatal(err)
	}
	sum, err := h.JSONWebKey.Thumbprint(crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	p.print = base64.RawURLEncoding.EncodeToString(sum)
	return p
}

func target(t *testing.T, raw string) *url.URL {
	t.Helper()
	u, err := url.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func newKey(t *testing.T) *dpop.Key {
	t.Helper()
	k, err := dpop.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestProof(t *testing.T) {
	k := newKey(t)
	stored, err := k.Secret()
	if err != nil {
		t.Fatal(err)
	}
	if k, err = dpop.ParseKey(stored); err != nil {
		t.Fatal(err)
	}
	for raw, want := range map[string]string{
		"HTTPS://Api.Example:443/a%2Fb/c?x=1#y": "https://api.example/a%2Fb/c",
		"http://127.0.0.1:80":                   "http://127.0.0.1/",
		"https://api.example:8443/":             "https://api.example:8443/",
		"https://[2001:db8::1]/x":               "https://[2001:db8::1]/x",
	} {
		text, err := k.Proof(http.MethodPost, target(t, raw), secret.Text{}, "", now)
		if err != nil {
			t.Fatal(err)
		}
		p := read(t, text)
		if p.HTU != want || p.HTM != "POST" || p.IAT != now.Unix() || len(p.JTI) < 16 || p.ATH != "" || p.Nonce != "" || p.print != k.Thumbprint() {
			t.Errorf("%s: %+v", raw, p)
		}
	}
	text, err := k.Proof(http.MethodGet, target(t, "https://api.example/"), secret.New("Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU"), "n", now)
	if err != nil {
		t.Fatal(err)
	}
	if p := read(t, text); p.ATH != "fUHyO2r2Z3DZ53EsNrWBb0xWXoaNy59IiKCAqksmQEo" || p.Nonce != "n" { // RFC 9449 section 7.1
		t.Errorf("%+v", p)
	}
	again, err := k.Proof(http.MethodGet, target(t, "https://api.example/"), secret.New("x"), "n", now)
	if err != nil || read(t, again).JTI == read(t, text).JTI {
		t.Errorf("two proofs have one jti: %v", err)
	}
}

// TestKeysThatAreNone: what was stored and is no key says so, and not what it is.
func TestKeysThatAreNone(t *testing.T) {
	for _, s := range []string{"", "not base64!", base64.RawURLEncoding.EncodeToString(make([]byte, 32)), base64.RawURLEncoding.EncodeToString(bytes.Repeat([]byte{0xff}, 32)), "AAAA"} {
		if _, err := dpop.ParseKey(secret.New(s)); err == nil || s != "" && strings.Contains(err.Error(), s) {
			t.Errorf("%q: %v", s, err)
		}
	}
}

// resource wants a nonce in proofs, and keeps what it was sent.
type resource struct {
	wants string
	says  http.Header // beside the challenge
	got   []proof
	body  []string
	auth  []string
}

func (s *resource) send(t *testing.T) func(*http.Request) (*http.Response, error) {
	return func(r *http.Request) (*http.Response, error) {
		if n := len(r.Header.Values(dpop.Header)); n != 1 {
			t.Errorf("%d proofs", n)
		}
		for name := range r.Header {
			if strings.EqualFold(name, dpop.Header) && name != http.CanonicalHeaderKey(dpop.Header) {
				t.Errorf("a second proof, as %q", name)
			}
		}
		p := read(t, r.Header.Get(dpop.Header))
		body := []byte{}
		if r.Body != nil {
			var err error
			if body, err = io.ReadAll(r.Body); err != nil {
				return nil, err
			}
		}
		s.got, s.body, s.auth = append(s.got, p), append(s.body, string(body)), append(s.auth, r.Header.Get("Authorization"))
		resp := &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: http.NoBody, Request: r}
		if s.wants != "" && p.Nonce != s.wants {
			resp.StatusCode = http.StatusUnauthorized
			resp.Header.Set("WWW-Authenticate", `Bearer, DPoP error="use_dpop_nonce", algs="ES256"`)
			resp.Header.Set(dpop.HeaderNonce, s.wants)
		}
		for k, v := range s.says {
			resp.Header[k] = v
		}
		return resp, nil
	}
}

func TestNoncesOfResources(t *testing.T) {
	tok := dpop.Token{Key: newKey(t), Access: secret.New("token"), Nonces: new(dpop.Nonces), Now: clock}
	request := func(body io.Reader) *http.Request {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://api.example/x?y", body)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set(dpop.Header, "a server's own")
		r.Header["dpop"] = []string{"under another spelling"}
		return r
	}
	once := func(s *resource, r *http.Request, sent int, status int) *http.Response {
		t.Helper()
		s.got, s.body, s.auth = nil, nil, nil
		resp, err := tok.Send(r, s.send(t))
		if err != nil || len(s.got) != sent || resp.StatusCode != status || resp.Header.Get(dpop.HeaderNonce) != "" {
			t.Fatalf("%v, sent %d times, want %d: %+v", err, len(s.got), sent, resp)
		}
		for _, a := range s.auth {
			if a != "DPoP token" {
				t.Errorf("Authorization: %s", a)
			}
		}
		return resp
	}
	s := &resource{wants: "one"}
	once(s, request(strings.NewReader("body")), 2, http.StatusOK)
	if s.body[0] != "body" || s.body[1] != "body" || s.got[0].Nonce != "" || s.got[1].Nonce != "one" || s.got[0].JTI == s.got[1].JTI {
		t.Errorf("%q %+v", s.body, s.got)
	}
	once(s, request(strings.NewReader("body")), 1, http.StatusOK) // it is known now
	s.wants = "two"
	r := request(io.MultiReader(strings.NewReader("no length, no way back")))
	once(s, r, 1, http.StatusUnauthorized) // the next one has it
	once(s, request(nil), 1, http.StatusOK)
	s.wants = "three"
	short := request(io.MultiReader(strings.NewReader("short")))
	short.ContentLength = 5 // as a request that is passed on says it
	once(s, short, 2, http.StatusOK)
	if s.body[1] != "short" {
		t.Errorf("%q", s.body)
	}
	s.says = http.Header{http.CanonicalHeaderKey(dpop.HeaderNonce): {"four"}} // told before it is wanted
	once(s, request(nil), 1, http.StatusOK)
	s.wants, s.says = "four", nil
	once(s, request(nil), 1, http.StatusOK)
	for name, nonces := range map[string][]string{"two": {"a", "b"}, "a line": {"a\r\nX-Injected: 1"}, "a quote": {`a"b`}, "a space": {"a b"}, "a long one": {strings.Repeat("n", 2000)}, "none": {""}} {
		s.wants, s.says = "five", http.Header{http.CanonicalHeaderKey(dpop.HeaderNonce): nonces}
		if resp := once(s, request(nil), 1, http.StatusUnauthorized); resp == nil {
			t.Error(name)
		}
	}
	s.says = nil
	// One that wants another nonce each time is asked twice, and no more.
	n := 0
	resp, err := tok.Send(request(nil), func(r *http.Request) (*http.Response, error) {
		n++
		h := http.Header{"Www-Authenticate": {`DPoP error="use_dpop_nonce"`}}
		h.Set(dpop.HeaderNonce, strings.Repeat("n", n))
		return &http.Response{StatusCode: http.StatusUnauthorized, Header: h, Body: http.NoBody, Request: r}, nil
	})
	if err != nil || n != 2 || resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("asked %d times: %v", n, err)
	}
}

// TestNoncesAreBounded: whoever has many names cannot fill the memory, and one origin's nonce is not another's.
func TestNoncesAreBounded(t *testing.T) {
	n := new(dpop.Nonces)
	h := http.Header{}
	h.Set(dpop.HeaderNonce, "n")
	for i := range 10_000 {
		n.Learn(&url.URL{Scheme: "https", Host: string(rune('a'+i%26)) + strings.Repeat("x", i/26)}, h)
	}
	n.Learn(target(t, "https://Api.example/a"), h)
	if n.Of(target(t, "https://api.EXAMPLE/b")) != "n" || n.Of(target(t, "http://api.example/a")) != "" || n.Of(target(t, "https://api.example:8443/a")) != "" {
		t.Error("nonces belong to origins")
	}
	var none *dpop.Nonces
	if none.Learn(target(t, "https://a/"), h) != "n" || none.Of(target(t, "https://a/")) != "" {
		t.Error("nil Nonces remember")
	}
}

func TestThumbprint(t *testing.T) {
	k := newKey(t)
	if b, err := base64.RawURLEncoding.DecodeString(k.Thumbprint()); err != nil || len(b) != sha256.Size {
		t.Error(err)
	}
}

// BenchmarkProof is what each request with a bound token costs more than one without.
func BenchmarkProof(b *testing.B) {
	k, err := dpop.NewKey()
	if err != nil {
		b.Fatal(err)
	}
	u, access := &url.URL{Scheme: "https", Host: "api.example", Path: "/x"}, secret.New("token")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := k.Proof(http.MethodGet, u, access, "", now); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkParseKey is what a credential costs more when it is opened.
func BenchmarkParseKey(b *testing.B) {
	k, err := dpop.NewKey()
	if err != nil {
		b.Fatal(err)
	}
	s, err := k.Secret()
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := dpop.ParseKey(s); err != nil {
			b.Fatal(err)
		}
	}
}
