package signals_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/ending"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/issuer"
	"frontdesk.dev/frontdesk/internal/signals"
	"frontdesk.dev/frontdesk/internal/store"
	"frontdesk.dev/frontdesk/internal/vault"
)

const (
	tenant = identity.DefaultTenant
	idp    = "https://login.acme.test"
	bearer = "0123456789abcdef0123456789abcdef"
)

// world is a receiver over a real store, and the IdP that it hears.
type world struct {
	db     *store.DB
	epochs *identity.Epochs
	alice  identity.User
	now    time.Time
	key    *ecdsa.PrivateKey
	away   bool // the IdP's keys
	*signals.Receiver
	http.Handler
}

// Do is the way to the IdP's documents.
func (w *world) Do(r *http.Request) (*http.Response, error) {
	if w.away {
		return nil, errors.New("away")
	}
	var doc any = map[string]any{"issuer": idp, "jwks_uri": idp + "/keys", "token_endpoint": idp + "/token", "authorization_endpoint": idp + "/authorize"}
	if r.URL.Path == "/keys" {
		doc = jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: w.key.Public(), KeyID: "k", Algorithm: "ES256", Use: "sig"}}}
	}
	b, err := json.Marshal(doc)
	return &http.Response{StatusCode: 200, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(bytes.NewReader(b)), Request: r}, err
}

type events struct{}

func (events) Event(context.Context, audit.Record) error { return nil }

func newWorld(t *testing.T) *world {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{now: time.Now().Truncate(time.Second), key: key}
	if w.db, err = store.Open(t.Context(), store.Config{Path: filepath.Join(t.TempDir(), "test.db")}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.db.Close() })
	clock, log := func() time.Time { return w.now }, slog.New(slog.DiscardHandler)
	w.epochs = &identity.Epochs{Store: w.db, Now: clock, Log: log}
	office := &ending.Office{Store: w.db, People: w.db, Catalog: &catalog.Catalog{}, Epochs: w.epochs, Events: events{}, Log: log, Now: clock}
	who := identity.NewIdP(identity.IdPConfig{Tenant: tenant, Name: "login", Issuer: idp, ClientID: "frontdesk"}, w, clock, log)
	token := sha256.Sum256([]byte(bearer))
	w.Receiver = &signals.Receiver{Tenant: tenant, IDP: who, Logout: true, Events: &signals.Events{Issuer: idp, Audience: "https://desk.test", Keys: who, Token: token},
		Directory: &signals.Directory{Token: token, UserName: "email"}, Office: office, People: w.db, Users: w.db, Messages: w.db,
		URL: func(p string) string { return "https://desk.test" + p }, Log: log, Now: clock}
	mux := http.NewServeMux()
	w.Mount(mux, "")
	w.Handler = mux
	if w.alice, err = w.db.EnsureUser(t.Context(), identity.User{Tenant: tenant, IDP: "login", Subject: "emp-alice", Email: "alice@acme.test"}); err != nil {
		t.Fatal(err)
	}
	return w
}

// alive is whether what alice got at that time still lets her in.
func (w *world) alive(at time.Time) bool {
	return w.epochs.Alive(&identity.Caller{Tenant: tenant, User: w.alice.ID, Issued: at})
}

type claims map[string]any

func (c claims) with(more claims) claims {
	all := claims{}
	for _, m := range []claims{c, more} {
		for k, v := range m {
			if all[k] = v; v == nil {
				delete(all, k)
			}
		}
	}
	return all
}

func sign(t *testing.T, key any, alg jose.SignatureAlgorithm, typ string, c claims) string {
	t.Helper()
	opts := (&jose.SignerOptions{}).WithHeader("kid", "k")
	if typ != "" {
		opts = opts.WithType(jose.ContentType(typ))
	}
	s, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: key}, opts)
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	jws, err := s.Sign(b)
	if err != nil {
		t.Fatal(err)
	}
	out, err := jws.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// point is the public key as bytes, which somebody could take for the key of a MAC.
func point(t *testing.T, k *ecdsa.PrivateKey) []byte {
	t.Helper()
	p, err := k.PublicKey.ECDH()
	if err != nil {
		t.Fatal(err)
	}
	return p.Bytes()
}

func unsigned(t *testing.T, typ string, c claims) string {
	t.Helper()
	b, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	e := base64.RawURLEncoding.EncodeToString
	return e([]byte(`{"alg":"none","typ":"`+typ+`"}`)) + "." + e(b) + "."
}

func (w *world) send(method, path, kind, auth, body string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	if kind != "" {
		r.Header.Set("Content-Type", kind)
	}
	if auth != "" {
		r.Header.Set("Authorization", auth)
	}
	rec := httptest.NewRecorder()
	w.ServeHTTP(rec, r)
	return rec
}

func (w *world) logOut(token string) *httptest.ResponseRecorder {
	return w.send("POST", "/backchannel-logout/login", "application/x-www-form-urlencoded", "", url.Values{"logout_token": {token}}.Encode())
}

func (w *world) logoutClaims() claims {
	return claims{"iss": idp, "aud": "frontdesk", "iat": w.now.Unix(), "exp": w.now.Add(2 * time.Minute).Unix(), "jti": "j1", "sub": "emp-alice",
		"events": claims{"http://schemas.openid.net/event/backchannel-logout": claims{}}}
}

// TestLogoutTokens: what is not a logout token of this IdP for us, fresh and for the first time, ends nothing.
func TestLogoutTokens(t *testing.T) {
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	const event = "http://schemas.openid.net/event/backchannel-logout"
	for name, change := range map[string]claims{
		"another issuer": {"iss": "https://evil.test"}, "no issuer": {"iss": nil}, "another audience": {"aud": "other"}, "no audience": {"aud": nil}, "expired": {"exp": time.Now().Add(-time.Hour).Unix()},
		"no exp": {"exp": nil}, "lives for days": {"exp": time.Now().Add(72 * time.Hour).Unix()}, "no iat": {"iat": nil}, "of tomorrow": {"iat": time.Now().Add(time.Hour).Unix()},
		"no jti": {"jti": nil}, "a nonce": {"nonce": "n"}, "an empty nonce": {"nonce": ""}, "no events": {"events": nil}, "another event": {"events": claims{"urn:other": claims{}}}, "event is no object": {"events": claims{event: true}},
		"events is a list": {"events": []string{event}}, "nobody": {"sub": nil}, "sub is a number": {"sub": 7}, "sub is huge": {"sub": strings.Repeat("a", 300)}, "sid is a list": {"sid": []string{"s"}}, "oversized": {"x": strings.Repeat("a", 20<<10)},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			if got := w.logOut(sign(t, w.key, jose.ES256, "logout+jwt", w.logoutClaims().with(change))); got.Code != 400 || !w.alive(w.now.Add(-time.Minute)) {
				t.Errorf("%d %s; alive: %v", got.Code, got.Body, w.alive(w.now.Add(-time.Minute)))
			}
		})
	}
	w := newWorld(t)
	good := w.logoutClaims()
	for name, token := range map[string]string{
		"ID token's typ": sign(t, w.key, jose.ES256, "JWT", good), "no typ": sign(t, w.key, jose.ES256, "", good), "access token's typ": sign(t, w.key, jose.ES256, "at+jwt", good), "event's typ": sign(t, w.key, jose.ES256, "secevent+jwt", good),
		"another key": sign(t, other, jose.ES256, "logout+jwt", good), "MAC with the public key": sign(t, point(t, w.key), jose.HS256, "logout+jwt", good),
		"alg none": unsigned(t, "logout+jwt", good), "garbage": "a.b.c", "nothing": "",
	} {
		if got := w.logOut(token); got.Code != 400 || got.Header().Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %d %s", name, got.Code, got.Body)
		}
	}
	for name, got := range map[string]*httptest.ResponseRecorder{
		"JSON":       w.send("POST", "/backchannel-logout/login", "application/json", "", `{"logout_token":"`+sign(t, w.key, jose.ES256, "logout+jwt", good)+`"}`),
		"two tokens": w.send("POST", "/backchannel-logout/login", "application/x-www-form-urlencoded", "", "logout_token=a&logout_token=b"),
		"too long":   w.send("POST", "/backchannel-logout/login", "application/x-www-form-urlencoded", "", "logout_token="+strings.Repeat("a", 100<<10)),
	} {
		if got.Code != 400 {
			t.Errorf("%s: %d", name, got.Code)
		}
	}
	if !w.alive(w.now.Add(-time.Minute)) {
		t.Error("one of them ended something")
	}
	w = newWorld(t)
	w.away = true
	if got := w.logOut(sign(t, w.key, jose.ES256, "logout+jwt", good)); got.Code != 503 || got.Header().Get("Retry-After") == "" {
		t.Errorf("keys away: %d", got.Code)
	}
	if got := w.push(sign(t, w.key, jose.ES256, "secevent+jwt", w.eventClaims(caep+"session-revoked", claims{}))); got.Code != 503 {
		t.Errorf("keys away: %d", got.Code)
	}
}

// TestLogout: a good one ends what was there, once; whoever signs in afterwards is not touched, whoever nobody knows is out.
func TestLogout(t *testing.T) {
	w := newWorld(t)
	before := w.now.Add(-time.Minute)
	token := sign(t, w.key, jose.ES256, "logout+jwt", w.logoutClaims())
	if got := w.logOut(token); got.Code != 200 || w.alive(before) || !w.alive(w.now.Add(time.Second)) {
		t.Errorf("%d %s", got.Code, got.Body)
	}
	if got := w.logOut(token); got.Code != 400 {
		t.Errorf("again: %d", got.Code)
	}
	if got := w.logOut(sign(t, w.key, jose.ES256, "logout+jwt", w.logoutClaims().with(claims{"sub": "emp-nobody", "jti": "j2"}))); got.Code != 200 {
		t.Errorf("somebody unknown: %d", got.Code)
	}

	w = newWorld(t)
	for id, sid := range map[string]string{"f1": "s1", "f2": "s2"} {
		if err := w.db.PutFamily(t.Context(), issuer.Family{Tenant: tenant, ID: id, User: w.alice.ID, IDP: "login", Auth: identity.Authentication{SID: sid}}); err != nil {
			t.Fatal(err)
		}
	}
	if got := w.logOut(sign(t, w.key, jose.ES256, "logout+jwt", w.logoutClaims().with(claims{"sid": "s1"}))); got.Code != 200 {
		t.Errorf("one sign-in: %d %s", got.Code, got.Body)
	}
	if w.epochs.SignIn(tenant, "login", "s1") || !w.epochs.SignIn(tenant, "login", "s2") || !w.epochs.SignIn(tenant, "other", "s1") || !w.alive(before) {
		t.Error("not exactly that browser was signed out")
	}
	for id, want := range map[string]bool{"f1": false, "f2": true} {
		if alive := w.epochs.Alive(&identity.Caller{Tenant: tenant, User: w.alice.ID, Family: id, Issued: before}); alive != want {
			t.Errorf("the agent's sign-in %s: alive %v", id, alive)
		}
		if _, err := w.db.Family(t.Context(), tenant, id); (err == nil) != want {
			t.Errorf("the agent's sign-in %s: %v", id, err)
		}
	}

	w = newWorld(t) // many at once: one is the first
	token, codes := sign(t, w.key, jose.ES256, "logout+jwt", w.logoutClaims()), make([]int, 16)
	var wg sync.WaitGroup
	for i := range codes {
		wg.Go(func() { codes[i] = w.logOut(token).Code })
	}
	wg.Wait()
	ok := 0
	for _, c := range codes {
		if c == 200 {
			ok++
		}
	}
	if ok != 1 {
		t.Errorf("one token was taken %d times", ok)
	}
}

const caep, risc = "https://schemas.openid.net/secevent/caep/event-type/", "https://schemas.openid.net/secevent/risc/event-type/"

func (w *world) eventClaims(kind string, payload claims) claims {
	return claims{"iss": idp, "aud": "https://desk.test", "iat": w.now.Unix(), "jti": "e1", "sub_id": claims{"format": "iss_sub", "iss": idp, "sub": "emp-alice"}, "events": claims{kind: payload}}
}

func (w *world) push(token string) *httptest.ResponseRecorder {
	return w.send("POST", "/events/login", "application/secevent+jwt", "Bearer "+bearer, token)
}

// TestEventTokens: what is refused, in the words of RFC 8935, and ends nothing.
func TestEventTokens(t *testing.T) {
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t)
	good := w.eventClaims(caep+"session-revoked", claims{})
	as := func(change claims) string { return sign(t, w.key, jose.ES256, "secevent+jwt", good.with(change)) }
	for name, c := range map[string]struct{ token, err string }{
		"another issuer":     {as(claims{"iss": "https://evil.test"}), "invalid_issuer"},
		"another audience":   {as(claims{"aud": "https://other.test"}), "invalid_audience"},
		"another key":        {sign(t, other, jose.ES256, "secevent+jwt", good), "invalid_key"},
		"alg none":           {unsigned(t, "secevent+jwt", good), "invalid_request"},
		"logout's typ":       {sign(t, w.key, jose.ES256, "logout+jwt", good), "invalid_request"},
		"no typ":             {sign(t, w.key, jose.ES256, "", good), "invalid_request"},
		"an access token":    {sign(t, w.key, jose.ES256, "at+jwt", good), "invalid_request"},
		"with exp":           {as(claims{"exp": w.now.Add(time.Hour).Unix()}), "invalid_request"},
		"with sub":           {as(claims{"sub": "emp-alice"}), "invalid_request"},
		"no iat":             {as(claims{"iat": nil}), "invalid_request"},
		"too old":            {as(claims{"iat": w.now.Add(-8 * 24 * time.Hour).Unix()}), "invalid_request"},
		"of tomorrow":        {as(claims{"iat": w.now.Add(time.Hour).Unix()}), "invalid_request"},
		"no jti":             {as(claims{"jti": nil}), "invalid_request"},
		"no event":           {as(claims{"events": claims{}}), "invalid_request"},
		"two events":         {as(claims{"events": claims{caep + "session-revoked": claims{}, risc + "account-disabled": claims{}}}), "invalid_request"},
		"event is no object": {as(claims{"events": claims{caep + "session-revoked": 1}}), "invalid_request"},
		"no subject":         {as(claims{"sub_id": nil}), "invalid_request"},
		"subject of another": {as(claims{"sub_id": claims{"format": "iss_sub", "iss": "https://evil.test", "sub": "emp-alice"}}), "invalid_request"},
		"e-mail not allowed": {as(claims{"sub_id": claims{"format": "email", "email": "alice@acme.test"}}), "invalid_request"},
		"unknown format":     {as(claims{"sub_id": claims{"format": "did", "url": "did:x"}}), "invalid_request"},
		"complex, no user":   {as(claims{"sub_id": claims{"format": "complex", "tenant": claims{"format": "opaque", "id": "t"}}}), "invalid_request"},
		"oversized":          {as(claims{"x": strings.Repeat("a", 20<<10)}), "invalid_request"},
		"far too long":       {strings.Repeat("a", 100<<10), "invalid_request"},
		"garbage":            {"{}", "invalid_request"},
	} {
		got := w.push(c.token)
		var said struct{ Err, Description string }
		if err := json.Unmarshal(got.Body.Bytes(), &said); err != nil || got.Code != 400 || said.Err != c.err || said.Description == "" {
			t.Errorf("%s: %d %s, want %s", name, got.Code, got.Body, c.err)
		}
	}
	token := as(nil)
	for name, auth := range map[string]string{"no token": "", "another token": "Bearer x", "another scheme": "Basic " + bearer, "the token bare": bearer, "empty": "Bearer "} {
		if got := w.send("POST", "/events/login", "application/secevent+jwt", auth, token); got.Code != 400 || !strings.Contains(got.Body.String(), "authentication_failed") {
			t.Errorf("%s: %d %s", name, got.Code, got.Body)
		}
	}
	if got := w.send("POST", "/events/login", "application/jwt", "Bearer "+bearer, token); got.Code != 400 {
		t.Errorf("another type: %d", got.Code)
	}
	if !w.alive(w.now.Add(-time.Minute)) {
		t.Error("one of them ended something")
	}
	if got := w.push(token); got.Code != 202 || got.Body.Len() != 0 || w.alive(w.now.Add(-time.Minute)) {
		t.Errorf("the good one: %d %s", got.Code, got.Body)
	}
}

// TestEvents: each kind ends what it says, of whom it names, and once.
func TestEvents(t *testing.T) {
	user := claims{"format": "iss_sub", "iss": idp, "sub": "emp-alice"}
	for _, c := range []struct {
		name    string
		kind    string
		payload claims
		subject any
		ends    bool
		gone    identity.Gone
	}{
		{"session revoked", caep + "session-revoked", claims{"reason_admin": claims{"en": "x"}}, user, true, ""},
		{"complex", caep + "session-revoked", claims{}, claims{"format": "complex", "user": user, "tenant": claims{"format": "opaque", "id": "t"}}, true, ""},
		{"one session, which is not ours", caep + "session-revoked", claims{}, claims{"format": "complex", "user": user, "session": claims{"format": "opaque", "id": "of another"}}, false, ""},
		{"all sessions, as Keycloak says it", caep + "session-revoked", claims{}, claims{"format": "complex", "user": user, "session": claims{"format": "opaque", "id": "ALL"}}, true, ""},
		{"password changed", caep + "credential-change", claims{"credential_type": "password", "change_type": "update"}, user, true, ""},
		{"key revoked", caep + "credential-change", claims{"credential_type": "fido2-roaming", "change_type": "revoke"}, user, true, ""},
		{"key added", caep + "credential-change", claims{"credential_type": "fido2-roaming", "change_type": "create"}, user, false, ""},
		{"RISC sessions revoked", risc + "sessions-revoked", claims{}, user, true, ""},
		{"disabled", risc + "account-disabled", claims{"reason": "hijacking"}, user, true, identity.Disabled},
		{"purged", risc + "account-purged", claims{}, user, true, identity.Deleted},
		{"verification", "https://schemas.openid.net/secevent/ssf/event-type/verification", claims{"state": "s"}, claims{"format": "opaque", "id": "stream"}, false, ""},
		{"another event", caep + "device-compliance-change", claims{}, user, false, ""},
		{"somebody unknown", caep + "session-revoked", claims{}, claims{"format": "iss_sub", "iss": idp, "sub": "emp-nobody"}, false, ""},
		{"an hour ago", caep + "session-revoked", claims{"event_timestamp": time.Now().Add(-time.Hour).Unix()}, user, false, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			token := sign(t, w.key, jose.ES256, "secevent+jwt", w.eventClaims(c.kind, c.payload).with(claims{"sub_id": c.subject}))
			if got := w.push(token); got.Code != 202 {
				t.Fatalf("%d %s", got.Code, got.Body)
			}
			u, err := w.db.User(t.Context(), tenant, w.alice.ID)
			if alive := w.alive(w.now.Add(-time.Minute)); err != nil || alive == c.ends || u.Gone != c.gone {
				t.Errorf("alive %v, gone %q %v", alive, u.Gone, err)
			}
			w.now = w.now.Add(time.Minute)
			since := w.now.Add(-time.Second)
			if got := w.push(token); got.Code != 202 || !w.alive(since) {
				t.Errorf("the same again: %d, and what began since: %v", got.Code, w.alive(since))
			}
		})
	}
	w := newWorld(t)
	w.Events.Email, w.Events.Revoke = true, true
	if err := w.db.Connect(t.Context(), vault.Connection{Tenant: tenant, ID: "c", User: w.alice.ID, Upstream: "tracker", Status: vault.Active, Machine: vault.Machine{Generation: 1, Version: 1, Phase: vault.Idle}}, 0); err != nil {
		t.Fatal(err)
	}
	token := sign(t, w.key, jose.ES256, "secevent+jwt", w.eventClaims(caep+"session-revoked", claims{}).with(claims{"sub_id": claims{"format": "email", "email": "Alice@acme.test"}}))
	if got := w.push(token); got.Code != 202 || w.alive(w.now.Add(-time.Minute)) {
		t.Errorf("by e-mail: %d %s", got.Code, got.Body)
	}
	if c, err := w.db.Connection(t.Context(), tenant, "c"); err != nil || c.Status != vault.Revoking {
		t.Errorf("end_and_revoke: %s %v", c.Status, err)
	}
}

// TestEventsOutOfOrder: events come late and in any order (RFC 8935 promises none). Somebody was let go, or taken back, by what happened
// last, and is let in by nothing that is older; who was deleted by nothing but his directory.
func TestEventsOutOfOrder(t *testing.T) {
	const minute = time.Minute
	type said struct {
		event string
		ago   time.Duration
	}
	for name, c := range map[string]struct {
		come []said
		want identity.Gone
	}{
		"in order":                     {[]said{{"account-disabled", 20 * minute}, {"account-enabled", 10 * minute}}, ""},
		"taken back before":            {[]said{{"account-disabled", 10 * minute}, {"account-enabled", 20 * minute}}, identity.Disabled},
		"in the same second":           {[]said{{"account-disabled", 10 * minute}, {"account-enabled", 10 * minute}}, identity.Disabled},
		"a moment ago":                 {[]said{{"account-disabled", 5 * time.Second}, {"account-enabled", 10 * time.Second}}, identity.Disabled},
		"let go twice, the later late": {[]said{{"account-disabled", 10 * minute}, {"account-disabled", 30 * minute}, {"account-enabled", 20 * minute}}, identity.Disabled},
		"from the future":              {[]said{{"account-disabled", 0}, {"account-enabled", -30 * time.Second}}, identity.Disabled},
		"after the end":                {[]said{{"account-purged", 20 * minute}, {"account-enabled", 10 * minute}}, identity.Deleted},
	} {
		w := newWorld(t)
		for _, e := range c.come {
			token := sign(t, w.key, jose.ES256, "secevent+jwt", w.eventClaims(risc+e.event, claims{"event_timestamp": w.now.Add(-e.ago).Unix()}).
				with(claims{"sub_id": claims{"format": "iss_sub", "iss": idp, "sub": "emp-alice"}, "jti": rand.Text()}))
			if got := w.push(token); got.Code != 202 {
				t.Errorf("%s: %d %s", name, got.Code, got.Body)
			}
		}
		if u, err := w.db.User(t.Context(), tenant, w.alice.ID); err != nil || u.Gone != c.want {
			t.Errorf("%s: she is %q, want %q; %v", name, u.Gone, c.want, err)
		}
	}
}

// locked collects log lines.
type locked struct {
	mu sync.Mutex
	b  *strings.Builder
}

func (l *locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *locked) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (l *locked) logger() *slog.Logger { return slog.New(slog.NewJSONHandler(l, nil)) }
