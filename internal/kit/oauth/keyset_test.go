package oauth_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/kit/jwt"
	"frontdesk.dev/frontdesk/internal/kit/oauth"
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

var (
	ecKey   = must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	rsaKey  = must(rsa.GenerateKey(rand.Reader, 2048))
	evilKey = must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
)

// keySite is a JWKS endpoint whose answer, and a clock whose time, the test sets.
type keySite struct {
	*httptest.Server
	set     *oauth.KeySet
	fetches atomic.Int32

	mu      sync.Mutex
	answer  http.HandlerFunc
	instant time.Time
	log     bytes.Buffer
}

func newKeySite(t testing.TB, answer http.HandlerFunc) *keySite {
	s := &keySite{answer: answer, instant: now}
	s.Server = serve(t, func(w http.ResponseWriter, r *http.Request) {
		s.fetches.Add(1)
		s.mu.Lock()
		h := s.answer
		s.mu.Unlock()
		h(w, r)
	})
	s.set = must(oauth.NewKeySet(s.URL, direct(s.Server), s.now, slog.New(slog.NewTextHandler(s, nil))))
	return s
}

func (s *keySite) now() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.instant
}

func (s *keySite) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.log.Write(p)
}

func (s *keySite) pass(d time.Duration, answer http.HandlerFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.instant = s.instant.Add(d)
	if answer != nil {
		s.answer = answer
	}
}

func (s *keySite) key(t testing.TB, kid string, alg jose.SignatureAlgorithm) error {
	t.Helper()
	key, err := s.set.Key(t.Context(), kid, alg)
	if err == nil && kid != "" && key.KeyID != kid {
		t.Errorf("asked for %q, got %q", kid, key.KeyID)
	}
	return err
}

func (s *keySite) expect(t testing.TB, kid string, ok bool, fetches int32) {
	t.Helper()
	err := s.key(t, kid, jose.ES256)
	if (err == nil) != ok || !ok && fault.KindOf(err) != fault.Unauthenticated {
		t.Errorf("key %q: %v", kid, err)
	}
	if n := s.fetches.Load(); n != fetches {
		t.Errorf("key %q: %d fetches, want %d", kid, n, fetches)
	}
}

func jwks(keys ...any) http.HandlerFunc {
	body := must(json.Marshal(map[string]any{"keys": keys}))
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Write(body)
	}
}

func ec(kid string) jose.JSONWebKey { return jose.JSONWebKey{KeyID: kid, Key: ecKey.Public()} }

func status(code int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
}

func TestKeySetRotation(t *testing.T) {
	s := newKeySite(t, jwks(ec("k1")))
	s.expect(t, "k1", true, 1)
	s.expect(t, "k1", true, 1)
	s.expect(t, "k2", false, 1) // within the cool-down
	s.pass(29*time.Second, jwks(ec("k2")))
	s.expect(t, "k2", false, 1)
	s.pass(time.Second, nil)
	s.expect(t, "k2", true, 2)
	s.expect(t, "k1", false, 2) // withdrawn
}

func TestKeySetCooldownHoldsForFailures(t *testing.T) {
	s := newKeySite(t, status(503))
	for range 5 {
		if err := s.key(t, "k1", jose.ES256); fault.KindOf(err) != fault.Unavailable || fault.RetryAfter(err) == 0 {
			t.Errorf("got %v", err)
		}
	}
	if n := s.fetches.Load(); n != 1 {
		t.Errorf("%d fetches", n)
	}
	s.pass(30*time.Second, jwks(ec("k1")))
	s.expect(t, "k1", true, 2)
}

// a flood of unknown kids causes one fetch, and known keys go on verifying while that hangs.
func TestKeySetFlood(t *testing.T) {
	s := newKeySite(t, jwks(ec("k1")))
	s.expect(t, "k1", true, 1)
	hanging, release := make(chan struct{}), make(chan struct{})
	s.pass(time.Minute, func(w http.ResponseWriter, r *http.Request) {
		close(hanging)
		<-release
		jwks(ec("k1"))(w, r)
	})
	var flood sync.WaitGroup
	for i := range 500 {
		flood.Go(func() {
			if err := s.key(t, fmt.Sprint("random", i), jose.ES256); fault.KindOf(err) != fault.Unauthenticated {
				t.Errorf("got %v", err)
			}
		})
	}
	<-hanging
	s.expect(t, "k1", true, 2) // returns, though the fetch hangs
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.set.Key(gone, "random", jose.ES256); fault.KindOf(err) != fault.Unavailable {
		t.Errorf("a caller who left: %v", err)
	}
	close(release)
	flood.Wait()
	s.expect(t, "k1", true, 2)
}

func TestKeySetFirstCallerLeaves(t *testing.T) {
	asked, release := make(chan struct{}), make(chan struct{})
	s := newKeySite(t, func(w http.ResponseWriter, r *http.Request) {
		close(asked)
		<-release
		jwks(ec("k1"))(w, r)
	})
	ctx, cancel := context.WithCancel(t.Context())
	left := make(chan error)
	go func() {
		_, err := s.set.Key(ctx, "k1", jose.ES256)
		left <- err
	}()
	<-asked
	cancel()
	if err := <-left; fault.KindOf(err) != fault.Unavailable {
		t.Errorf("got %v", err)
	}
	close(release)
	s.expect(t, "k1", true, 1) // his fetch served the next one
}

func TestKeySetStale(t *testing.T) {
	s := newKeySite(t, jwks(ec("k1")))
	s.expect(t, "k1", true, 1)
	down := make(chan struct{}, 100)
	s.pass(10*time.Minute, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(500)
		down <- struct{}{}
	})
	if err := s.key(t, "k1", jose.ES256); err != nil {
		t.Errorf("old keys: %v", err)
	}
	<-down                              // refreshed behind the caller's back, in vain
	_ = s.key(t, "unknown", jose.ES256) // returns when that fetch has ended
	s.pass(3*time.Hour+49*time.Minute, nil)
	if err := s.key(t, "k1", jose.ES256); err != nil {
		t.Errorf("keys of 3:59 h: %v", err)
	}
	<-down
	s.pass(time.Minute, nil)
	if err := s.key(t, "k1", jose.ES256); fault.KindOf(err) != fault.Unavailable {
		t.Errorf("keys of 4:00 h: %v", err)
	}
}

func TestKeySetStaleDoesNotWait(t *testing.T) {
	s := newKeySite(t, jwks(ec("k1")))
	s.expect(t, "k1", true, 1)
	hanging, release := make(chan struct{}), make(chan struct{})
	s.pass(time.Hour, func(w http.ResponseWriter, r *http.Request) {
		close(hanging)
		<-release
		jwks(ec("k1"), ec("k2"))(w, r)
	})
	if err := s.key(t, "k1", jose.ES256); err != nil { // returns, though the fetch that it began hangs
		t.Error(err)
	}
	<-hanging
	close(release)
	s.expect(t, "k2", true, 2)
}

func TestKeySetBadAnswersKeepGoodKeys(t *testing.T) {
	thief := serve(t, func(w http.ResponseWriter, r *http.Request) {
		t.Error("a redirect was followed")
		jwks(ec("k2"))(w, r)
	})
	text := func(body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, body) }
	}
	for name, answer := range map[string]http.HandlerFunc{
		"oversized":     text(`{"keys":[],"x":"` + strings.Repeat("x", 512<<10) + `"}`),
		"HTML":          text(`<html>`),
		"duplicate":     text(`{"keys":[],"keys":[]}`),
		"empty":         jwks(),
		"no usable key": jwks(map[string]any{"kty": "oct", "k": "AAAA", "kid": "k2"}),
		"redirect":      func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, thief.URL, http.StatusFound) },
		"half an answer": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "99")
			io.WriteString(w, `{"keys":[`)
		},
		"keys not a list": text(`{"keys":{}}`),
	} {
		s := newKeySite(t, jwks(ec("k1")))
		s.expect(t, "k1", true, 1)
		s.pass(time.Minute, answer)
		s.expect(t, "k2", false, 2)
		s.expect(t, "k1", true, 2)
		s.mu.Lock()
		if !strings.Contains(s.log.String(), "signing keys not fetched") {
			t.Errorf("%s: the operator is told something else: %s", name, &s.log)
		}
		s.mu.Unlock()
	}
}

// bad keys are ignored with a reason, those beside them work.
func TestKeySetBadKeys(t *testing.T) {
	weak := jose.JSONWebKey{KeyID: "x", Key: must(weakRSA())}
	offCurve := map[string]any{"kty": "EC", "crv": "P-256", "kid": "x", "x": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAE", "y": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAE"}
	with := func(key any, member string, value any) map[string]any {
		var m map[string]any
		if err := json.Unmarshal(must(json.Marshal(key)), &m); err != nil {
			t.Fatal(err)
		}
		m[member] = value
		return m
	}
	many := make([]any, 10_000)
	for i := range many {
		many[i] = with(ec("x"), "kid", fmt.Sprint("k", i))
	}
	for name, bad := range map[string]any{
		"oct": map[string]any{"kty": "oct", "k": "AAAAAAAAAAAAAAAAAAAAAA", "kid": "x"}, "private": jose.JSONWebKey{KeyID: "x", Key: ecKey}, "off curve": offCurve,
		"weak RSA": weak, "for encryption": with(ec("x"), "use", "enc"), "unknown use": with(ec("x"), "use", "tls"), "key_ops": with(ec("x"), "key_ops", []string{"encrypt"}),
		"other alg": with(ec("x"), "alg", "RS256"), "HMAC alg": with(ec("x"), "alg", "HS256"), "encryption alg": with(ec("x"), "alg", "ECDH-ES"), "unknown kty": map[string]any{"kty": "LMS", "kid": "x"},
		"no kty": map[string]any{"kid": "x"}, "number": 1, "null": nil, "kid a number": with(ec("x"), "kid", 1), "long kid": with(ec("x"), "kid", strings.Repeat("x", 600)),
	} {
		s := newKeySite(t, jwks(bad, ec("k1")))
		for _, alg := range jwt.SignatureAlgs() {
			if err := s.key(t, "x", alg); fault.KindOf(err) != fault.Unauthenticated {
				t.Errorf("%s is taken for %s: %v", name, alg, err)
			}
		}
		s.expect(t, "k1", true, 1)
		s.mu.Lock()
		if said := strings.Contains(s.log.String(), "signing key ignored"); said != (name != "for encryption") {
			t.Errorf("%s: the operator is told of it: %v, %s", name, said, &s.log)
		}
		if strings.Contains(name, "private") != strings.Contains(s.log.String(), "not a public key") && name != "oct" {
			t.Errorf("%s: the operator is told something else: %s", name, &s.log)
		}
		s.mu.Unlock()
	}

	s := newKeySite(t, jwks(ec("x"), ec("x"), ec("k1"), jose.JSONWebKey{KeyID: "k1", Key: rsaKey.Public()}))
	s.expect(t, "x", false, 1)
	s.expect(t, "k1", true, 1)
	if err := s.key(t, "k1", jose.RS256); err != nil {
		t.Errorf("one kid, two types: %v", err)
	}

	s = newKeySite(t, jwks(many...))
	if err := s.key(t, "k0", jose.ES256); fault.KindOf(err) != fault.Unavailable {
		t.Errorf("10,000 keys are more than the size limit: %v", err)
	}
	s = newKeySite(t, jwks(many[:150]...))
	s.expect(t, "k99", true, 1)
	s.expect(t, "k100", false, 1)
}

func weakRSA() (any, error) {
	key, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		return nil, err
	}
	return key.Public(), nil
}

func TestKeySetWithoutKid(t *testing.T) {
	s := newKeySite(t, jwks(ec("k1"), jose.JSONWebKey{KeyID: "k2", Key: rsaKey.Public()}, jose.JSONWebKey{KeyID: "k3", Key: evilKey.Public(), Use: "enc"}))
	s.expect(t, "", true, 1)
	s = newKeySite(t, jwks(ec("k1"), jose.JSONWebKey{KeyID: "k2", Key: evilKey.Public()}))
	s.expect(t, "", false, 1)
}

func TestKeySetVerifies(t *testing.T) {
	s := newKeySite(t, jwks(ec("ec")))
	token := func(key *ecdsa.PrivateKey) string {
		signer := must(jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{KeyID: "ec", Key: key}}, (&jose.SignerOptions{}).WithType(jwt.TypeAccessToken)))
		claims := must(json.Marshal(map[string]any{"iss": "https://as.example", "aud": "here", "sub": "alice", "iat": now.Unix(), "exp": now.Add(time.Minute).Unix()}))
		return must(must(signer.Sign(claims)).CompactSerialize())
	}
	door := jwt.Expect{Issuer: "https://as.example", Audiences: []string{"here"}, Types: []string{jwt.TypeAccessToken}, Now: now}
	if _, err := jwt.Verify(t.Context(), token(ecKey), s.set, door); err != nil {
		t.Error(err)
	}
	if _, err := jwt.Verify(t.Context(), token(evilKey), s.set, door); fault.KindOf(err) != fault.Unauthenticated {
		t.Errorf("got %v", err)
	}
	if n := s.fetches.Load(); n != 1 {
		t.Errorf("%d fetches", n)
	}
}

func TestNewKeySetRefuses(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	for _, u := range []string{"", "http://as.example/jwks", "file:///etc/passwd", "https://a@as.example/", "/jwks"} {
		if _, err := oauth.NewKeySet(u, http.DefaultClient, clock, log); fault.KindOf(err) != fault.Invalid || err == nil {
			t.Errorf("%q: got %v", u, err)
		}
	}
	if _, err := oauth.NewKeySet("https://as.example/jwks", nil, clock, log); err == nil {
		t.Error("no doer")
	}
}

func FuzzKeySet(f *testing.F) {
	f.Add(must(json.Marshal(map[string]any{"keys": []any{ec("x")}})), "x")
	f.Add([]byte(`{"keys":[{"kty":"oct","k":"AAAA","kid":"x"}]}`), "x")
	f.Add([]byte(`{"keys":[{"kty":"RSA","n":"AQAB","e":"AQAB","kid":"x","x5c":["AAAA"]}]}`), "")
	f.Fuzz(func(t *testing.T, body []byte, kid string) {
		doer := doerFunc(func(*http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: 200, Header: http.Header{}, Body: io.NopCloser(bytes.NewReader(body))}, nil
		})
		set := must(oauth.NewKeySet("https://as.example/jwks", doer, clock, slog.New(slog.DiscardHandler)))
		for _, alg := range jwt.SignatureAlgs() {
			key, err := set.Key(context.Background(), kid, alg)
			if err == nil && (!key.IsPublic() || !key.Valid() || kid != "" && key.KeyID != kid || key.Use == "enc") {
				t.Fatalf("%s: took %+v", alg, key)
			}
		}
	})
}
