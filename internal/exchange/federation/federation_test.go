package federation_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/exchange"
	"frontdesk.dev/frontdesk/internal/exchange/federation"
	"frontdesk.dev/frontdesk/internal/exchange/refresh"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/kit/jwt"
	"frontdesk.dev/frontdesk/internal/kit/oauth"
	"frontdesk.dev/frontdesk/internal/kit/outbound"
	"frontdesk.dev/frontdesk/internal/kit/secret"
	"frontdesk.dev/frontdesk/internal/store"
	"frontdesk.dev/frontdesk/internal/vault"
	"frontdesk.dev/frontdesk/internal/vault/keyring"
	"frontdesk.dev/frontdesk/internal/vault/kms"
)

// bench is a Federation between a real vault on SQLite and the other sides, which one HTTP server plays.
type bench struct {
	t     *testing.T
	f     *federation.Federation
	vault *vault.Vault
	users identity.Users
	sign  *keyring.Signer
	user  identity.User
	other *httptest.Server
	now   time.Time
	key   *ecdsa.PrivateKey // of the IdP

	mu    sync.Mutex
	route map[string]http.HandlerFunc // by "METHOD path", guarded by mu
	asked map[string][]url.Values     // forms that came, guarded by mu
	heads map[string][]http.Header    // and headers, guarded by mu
	body  map[string][]string         // and bodies, guarded by mu
}

const desk = "https://desk.example.com"

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{t: t, now: time.Now(), route: map[string]http.HandlerFunc{}, asked: map[string][]url.Values{}, heads: map[string][]http.Header{}, body: map[string][]string{}}
	b.other = httptest.NewServer(http.HandlerFunc(b.serve))
	t.Cleanup(b.other.Close)
	dir, log, now := t.TempDir(), slog.New(slog.DiscardHandler), func() time.Time { return b.now }
	db, err := store.Open(t.Context(), store.Config{Path: filepath.Join(dir, "f.db"), Log: log, Now: now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	wrap, err := kms.OpenKeyFile(filepath.Join(dir, "vault.key"), true)
	if err != nil {
		t.Fatal(err)
	}
	door, err := outbound.New(outbound.Config{Named: []string{b.other.URL}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(door.Close)
	logs, err := audit.New(db, db, now, log)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); _ = logs.Run(ctx) }()
	t.Cleanup(func() { stop(); <-ended })
	b.vault = &vault.Vault{Store: db, Keys: db, Wrap: wrap, Now: now}
	b.sign, b.users = &keyring.Signer{Keys: db, Wrap: wrap, Now: now}, db
	epochs := &identity.Epochs{Store: db, Now: now, Log: log, Changed: func(identity.Epoch) {}}
	client := oauth.Client{HTTP: door.Found(), Now: now}
	var idps identity.IdPs
	idps.Use([]*identity.IdP{identity.NewIdP(identity.IdPConfig{Tenant: "default", Name: "login", Issuer: b.other.URL + "/idp", ClientID: "frontdesk", Secret: secret.New("idp-secret")}, door.Found(), now, log)})
	refresher := &refresh.Machine{Vault: b.vault, Steps: db, Rows: db, Endings: &vault.Endings{Vault: b.vault, Store: db, Catalog: &catalog.Catalog{}, Clients: &vault.Clients{}, OAuth: client, Log: log, Now: now},
		Catalog: &catalog.Catalog{}, Clients: &vault.Clients{}, OAuth: client, Log: logs, Slog: log, Owner: refresh.Owner{Place: "test", Run: "test"}, Spool: refresh.Spool{Dir: filepath.Join(dir, "spool")}, Now: now}
	home := &exchange.Home{Vault: b.vault, Refresh: refresher, IdPs: &idps, Users: db, Epochs: epochs, Events: logs}
	b.f = &federation.Federation{Subjects: federation.Subjects{Home: home, Users: db}, IdPs: &idps, Clients: &vault.Clients{}, Signer: b.sign, OAuth: client, HTTP: door.Found(),
		Issuer: func(identity.Tenant) string { return desk }, Now: now}
	b.json("GET /idp/.well-known/openid-configuration", map[string]any{"issuer": b.other.URL + "/idp", "token_endpoint": b.other.URL + "/idp/token", "jwks_uri": b.other.URL + "/idp/jwks",
		"authorization_endpoint": b.other.URL + "/idp/authorize"})
	if b.user, err = db.EnsureUser(t.Context(), identity.User{Tenant: "default", IDP: "login", Subject: "sub-alice", Name: "Alice", Email: "alice@acme.test", Groups: []string{"engineering"}}); err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *bench) serve(w http.ResponseWriter, r *http.Request) {
	raw, _ := io.ReadAll(r.Body)
	at := r.Method + " " + r.URL.Path
	form, _ := url.ParseQuery(string(raw))
	b.mu.Lock()
	b.asked[at], b.heads[at], b.body[at] = append(b.asked[at], form), append(b.heads[at], r.Header), append(b.body[at], string(raw))
	h := b.route[at]
	b.mu.Unlock()
	if h == nil {
		http.NotFound(w, r)
		return
	}
	h(w, r)
}

func (b *bench) on(at string, h http.HandlerFunc) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.route[at] = h
}

func (b *bench) json(at string, v any) { b.answer(at, http.StatusOK, v) }

func (b *bench) answer(at string, status int, v any) {
	b.on(at, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(v)
	})
}

// forms are what came to a route.
func (b *bench) forms(at string) []url.Values {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.asked[at])
}

func (b *bench) last(at string) url.Values {
	b.t.Helper()
	l := b.forms(at)
	if len(l) == 0 {
		b.t.Fatalf("nothing came to %s", at)
	}
	return l[len(l)-1]
}

// unsigned is a token that nobody here verifies.
func unsigned(claims map[string]any) string {
	e := base64.RawURLEncoding.EncodeToString
	body, _ := json.Marshal(claims)
	return e([]byte(`{"alg":"ES256","typ":"JWT"}`)) + "." + e(body) + "." + e([]byte("signature"))
}

// signedIn gives alice a home credential.
func (b *bench) signedIn(life time.Duration) (access, id string) {
	b.t.Helper()
	access, id = "home-access-token", unsigned(map[string]any{"sub": "sub-alice", "aud": "frontdesk", "exp": b.now.Add(life).Unix()})
	if _, err := b.vault.Connect(b.t.Context(), vault.Connection{Tenant: "default", User: b.user.ID, Upstream: "idp:login", Method: catalog.AuthorizationCode, Status: vault.Active,
		Created: b.now, Renewed: b.now, Expires: b.now.Add(life), Refreshes: true},
		vault.Secrets{Access: secret.New(access), Refresh: secret.New("home-refresh"), Identity: secret.New(id)}); err != nil {
		b.t.Fatal(err)
	}
	return access, id
}

func (b *bench) alice() *identity.Caller {
	return &identity.Caller{Tenant: "default", User: b.user.ID, IDP: "login", Subject: "sub-alice", Groups: []string{"engineering"}, Client: "agent-1", Local: true}
}

func (b *bench) secrets(m map[vault.Part]string, k catalog.MethodKind) {
	all := map[vault.ClientKey]secret.Text{}
	for part, v := range m {
		all[vault.ClientKey{Tenant: "default", Upstream: "up", Method: k, Part: part}] = secret.New(v)
	}
	b.f.Clients.Use(all)
}

// obtain asks the method for a credential and returns the Authorization header that it places.
func (b *bench) obtain(c *identity.Caller, m catalog.Method, scopes ...string) (string, *exchange.Credential, error) {
	b.t.Helper()
	r := b.request(c, m, scopes...)
	method := b.f.Methods()[m.Kind]
	if err := method.Ready(b.t.Context(), r); err != nil {
		return "", nil, err
	}
	cred, err := method.Obtain(b.t.Context(), r)
	if err != nil {
		return "", nil, err
	}
	q := httptest.NewRequest(http.MethodGet, "https://api.example.com/", nil)
	if err := cred.Place(q); err != nil {
		b.t.Fatal(err)
	}
	return q.Header.Get("Authorization"), cred, nil
}

func (b *bench) request(c *identity.Caller, m catalog.Method, scopes ...string) exchange.Request {
	up := &catalog.Upstream{Tenant: "default", Name: "up", Title: "Upstream", Risk: "tested", Provider: &catalog.Provider{Name: "Upstream"}, Methods: []catalog.Method{m}}
	return exchange.Request{Caller: c, Upstream: up, Method: m, Scopes: scopes}
}

const (
	idpToken = "POST /idp/token"
	rasToken = "POST /ras/token"
)

// ras is the upstream's authorization server, and the IdP's half of an ID-JAG.
func (b *bench) ras() (issuer string) {
	issuer = b.other.URL + "/ras"
	b.json("GET /.well-known/oauth-authorization-server/ras", map[string]any{"issuer": issuer, "token_endpoint": issuer + "/token"})
	b.json(idpToken, map[string]any{"access_token": unsigned(map[string]any{"aud": issuer, "client_id": "desk-at-ras"}), "issued_token_type": oauth.TokenTypeIDJAG, "token_type": "N_A", "expires_in": 300})
	b.json(rasToken, map[string]any{"access_token": "ras-access", "token_type": "Bearer", "expires_in": 3600})
	return issuer
}

func TestIDJAG(t *testing.T) {
	b := newBench(t)
	_, id := b.signedIn(time.Hour)
	issuer := b.ras()
	m := catalog.Method{Kind: catalog.IDJAGMethod, Client: "desk-at-ras", Auth: catalog.ClientJWT, Settings: &catalog.IDJAG{Issuer: issuer, Resource: "https://mcp.example.com/mcp", Subject: catalog.SubjectID}}
	line, cred, err := b.obtain(b.alice(), m, "read", "write")
	if err != nil || line != "Bearer ras-access" {
		t.Fatalf("got %q, %v", line, err)
	}
	if want := b.now.Add(time.Hour); cred.Expires.After(want) || len(cred.Marks) == 0 {
		t.Errorf("it lives until %s, longer than the token that it was made of (%s), or has no marks", cred.Expires, want)
	}
	for name, want := range map[string]string{"grant_type": oauth.GrantTokenExchange, "subject_token": id, "subject_token_type": oauth.TokenTypeID, "requested_token_type": oauth.TokenTypeIDJAG,
		"audience": issuer, "resource": "https://mcp.example.com/mcp", "scope": "read write"} {
		if got := b.last(idpToken).Get(name); got != want {
			t.Errorf("the IdP was asked with %s=%q, want %q", name, got, want)
		}
	}
	form := b.last(rasToken)
	if form.Get("grant_type") != oauth.GrantJWTBearer || form.Get("client_id") != "desk-at-ras" || form.Get("client_assertion_type") == "" {
		t.Errorf("the upstream was asked with %v", form)
	}
	b.checkClientAssertion(form.Get("client_assertion"), issuer)

	// It is kept: nobody is asked again, until the person's access changes.
	if _, _, err := b.obtain(b.alice(), m, "read", "write"); err != nil || len(b.forms(rasToken)) != 1 {
		t.Errorf("asked %d times, %v", len(b.forms(rasToken)), err)
	}
	b.f.Forget("default", string(b.user.ID))
	if _, _, err := b.obtain(b.alice(), m, "read", "write"); err != nil || len(b.forms(rasToken)) != 2 {
		t.Errorf("after a change of access asked %d times in all, %v", len(b.forms(rasToken)), err)
	}
}

// checkClientAssertion verifies what proved our client with the keys that we publish (RFC 7523, section 3).
func (b *bench) checkClientAssertion(assertion, audience string) {
	b.t.Helper()
	set, err := b.sign.JWKS(b.t.Context(), "default")
	if err != nil {
		b.t.Fatal(err)
	}
	var keys jose.JSONWebKeySet
	if err := json.Unmarshal(set, &keys); err != nil {
		b.t.Fatal(err)
	}
	jws, err := jose.ParseSignedCompact(assertion, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		b.t.Fatal(err)
	}
	found := keys.Key(jws.Signatures[0].Header.KeyID)
	if len(found) != 1 {
		b.t.Fatalf("the JWKS has %d keys for the assertion's kid", len(found))
	}
	payload, err := jws.Verify(found[0])
	if err != nil {
		b.t.Fatal(err)
	}
	var c struct {
		Iss, Sub, Aud, Jti string
		Iat, Exp           int64
	}
	if err := json.Unmarshal(payload, &c); err != nil {
		b.t.Fatal(err)
	}
	if c.Iss != c.Sub || c.Sub != "desk-at-ras" || c.Aud != audience || c.Jti == "" || c.Exp-c.Iat > 60 || jws.Signatures[0].Header.ExtraHeaders["typ"] != jwt.TypeClientAssertion {
		b.t.Errorf("the client assertion says %+v with typ %v", c, jws.Signatures[0].Header.ExtraHeaders["typ"])
	}
	// With that key no access token of ours verifies.
	if _, err := b.sign.OfTenant("default").Key(b.t.Context(), found[0].KeyID, jose.ES256); err == nil {
		b.t.Error("a key for assertions verifies access tokens")
	}
}

func TestIDJAGRefuses(t *testing.T) {
	tests := map[string]struct {
		jag    map[string]any
		status int
		body   map[string]any
		want   fault.Kind
	}{
		"stated for another server": {jag: map[string]any{"aud": "https://other.example.com"}, want: fault.Unavailable},
		"stated for two servers":    {jag: map[string]any{"aud": []string{"https://other.example.com", "RAS"}}, want: fault.Unavailable},
		"stated for another client": {jag: map[string]any{"aud": "RAS", "client_id": "somebody-else"}, want: fault.Unavailable},
		"the IdP's policy says no":  {status: 400, body: map[string]any{"error": "access_denied"}, want: fault.Denied},
		"the IdP is away":           {status: 503, body: map[string]any{}, want: fault.Unavailable},
		"an access token instead":   {body: map[string]any{"access_token": "x", "issued_token_type": oauth.TokenTypeAccess, "token_type": "N_A"}, want: fault.Unavailable},
		"a bearer token instead":    {status: 200, body: map[string]any{"access_token": "x", "token_type": "mac"}, want: fault.Unavailable},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.signedIn(time.Hour)
			issuer := b.ras()
			if test.body != nil {
				b.answer(idpToken, max(test.status, 200), test.body)
			} else {
				raw, _ := json.Marshal(test.jag)
				var claims map[string]any
				_ = json.Unmarshal([]byte(strings.ReplaceAll(string(raw), "RAS", issuer)), &claims)
				b.json(idpToken, map[string]any{"access_token": unsigned(claims), "issued_token_type": oauth.TokenTypeIDJAG, "token_type": "N_A"})
			}
			m := catalog.Method{Kind: catalog.IDJAGMethod, Client: "desk-at-ras", Settings: &catalog.IDJAG{Issuer: issuer, Subject: catalog.SubjectID}}
			_, _, err := b.obtain(b.alice(), m)
			if fault.KindOf(err) != test.want {
				t.Errorf("got %v (%s), want %s", err, fault.KindOf(err), test.want)
			}
			if n := len(b.forms(rasToken)); n != 0 {
				t.Errorf("the upstream's server was asked %d times", n)
			}
			if msg := fault.Message(err); strings.Contains(msg, "home-") || strings.Contains(msg, "eyJ") {
				t.Errorf("the sentence quotes a token: %q", msg)
			}
		})
	}
}

// TestWithoutAHome: who has nothing that stands for him is told why this method cannot serve, and the next one is tried.
func TestWithoutAHome(t *testing.T) {
	b := newBench(t)
	b.ras()
	for kind, s := range map[catalog.MethodKind]catalog.Settings{catalog.IDJAGMethod: &catalog.IDJAG{Subject: catalog.SubjectID}, catalog.TokenExchange: &catalog.Exchange{Subject: catalog.SubjectAccess},
		catalog.GoogleWorkforce: &catalog.Google{Subject: catalog.SubjectID}, catalog.EntraOBO: &catalog.Entra{}, catalog.AWSWebIdentity: &catalog.AWS{Subject: catalog.SubjectID}} {
		for who, c := range map[string]*identity.Caller{"a person": b.alice(), "a service": {Tenant: "default", Service: "ci", Local: true}} {
			if _, _, err := b.obtain(c, catalog.Method{Kind: kind, Client: "c", Settings: s}); fault.KindOf(err) != fault.NotFound {
				t.Errorf("%s for %s: got %v, want not_found", kind, who, err)
			}
		}
		if _, _, err := b.obtain(b.alice(), catalog.Method{Kind: kind}); fault.KindOf(err) != fault.NotFound {
			t.Errorf("%s without settings: got %v, want not_found", kind, err)
		}
	}
}

// TestTheCallersOwnToken: who came with a token of the IdP is stood for by that one, not by what a sign-in left.
func TestTheCallersOwnToken(t *testing.T) {
	b := newBench(t)
	b.signedIn(time.Hour)
	own := b.foreign("https://api.example.com")
	b.json("POST /x/token", map[string]any{"access_token": "exchanged", "token_type": "Bearer", "issued_token_type": oauth.TokenTypeAccess, "expires_in": 900})
	m := catalog.Method{Kind: catalog.TokenExchange, Client: "desk", Settings: &catalog.Exchange{Endpoint: b.other.URL + "/x/token", Audience: "https://api.example.com", Subject: catalog.SubjectAccess, Actor: true}}
	line, cred, err := b.obtain(own, m)
	if err != nil || line != "Bearer exchanged" {
		t.Fatalf("got %q, %v", line, err)
	}
	form := b.last("POST /x/token")
	if form.Get("subject_token") != own.Raw().Expose() || form.Get("subject_token_type") != oauth.TokenTypeAccess || form.Get("audience") != "https://api.example.com" {
		t.Errorf("asked with %v", form)
	}
	if actor, ok := oauth.PeekJWT(form.Get("actor_token")); !ok || form.Get("actor_token_type") != oauth.TokenTypeJWT || !slices.Equal(actor.Audience, []string{b.other.URL + "/x/token"}) {
		t.Errorf("the actor is %v", form["actor_token"])
	}
	if cred.Expires.After(own.Expires) {
		t.Errorf("it lives until %s, longer than the caller's token (%s)", cred.Expires, own.Expires)
	}
}

// foreign is a caller with a token of the company's IdP, verified as at the door.
func (b *bench) foreign(audiences ...string) *identity.Caller {
	b.t.Helper()
	if b.key == nil {
		var err error
		if b.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
			b.t.Fatal(err)
		}
		b.json("GET /idp/jwks", jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: &b.key.PublicKey, KeyID: "k1", Algorithm: "ES256", Use: "sig"}}})
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: b.key, KeyID: "k1"}}, (&jose.SignerOptions{}).WithType("at+jwt"))
	if err != nil {
		b.t.Fatal(err)
	}
	claims, err := json.Marshal(map[string]any{"iss": b.other.URL + "/idp", "sub": "sub-alice", "aud": audiences, "client_id": "agent-2", "iat": b.now.Unix(), "exp": b.now.Add(10 * time.Minute).Unix()})
	if err != nil {
		b.t.Fatal(err)
	}
	jws, err := signer.Sign(claims)
	if err != nil {
		b.t.Fatal(err)
	}
	token, err := jws.CompactSerialize()
	if err != nil {
		b.t.Fatal(err)
	}
	idp, err := b.f.IdPs.Get("default", "login")
	if err != nil {
		b.t.Fatal(err)
	}
	v := &identity.Verifier{Users: b.users, Epochs: &identity.Epochs{}, Now: func() time.Time { return b.now }}
	v.UseIssuers([]identity.Issuer{{Tenant: "default", URL: b.other.URL + "/idp", Keys: idp, IDP: "login", Audiences: audiences}})
	c, err := v.Verify(b.t.Context(), "default", desk+"/mcp/x", token)
	if err != nil {
		b.t.Fatal(err)
	}
	return c
}

func TestJWTBearerSignsForAPerson(t *testing.T) {
	b := newBench(t)
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(rsaKey)
	if err != nil {
		t.Fatal(err)
	}
	b.secrets(map[vault.Part]string{vault.PrivateKey: string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))}, catalog.JWTBearer)
	b.json("POST /sf/token", map[string]any{"access_token": "sf-access", "token_type": "Bearer", "scope": "api"})
	m := catalog.Method{Kind: catalog.JWTBearer, Client: "sf-app", Auth: catalog.ClientNone, Settings: &catalog.Assertion{Endpoint: b.other.URL + "/sf/token", Audience: "https://login.salesforce.com",
		Person: "email", KeyID: "key-7", Subject: catalog.SubjectSelf, Claims: map[string]string{"tenant": "acme"}}}
	line, _, err := b.obtain(b.alice(), m, "api")
	if err != nil || line != "Bearer sf-access" {
		t.Fatalf("got %q, %v", line, err)
	}
	jws, err := jose.ParseSignedCompact(b.last("POST /sf/token").Get("assertion"), []jose.SignatureAlgorithm{jose.RS256})
	if err != nil {
		t.Fatal(err)
	}
	payload, err := jws.Verify(&rsaKey.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	var c map[string]any
	if err := json.Unmarshal(payload, &c); err != nil {
		t.Fatal(err)
	}
	if c["iss"] != "sf-app" || c["sub"] != "alice@acme.test" || c["aud"] != "https://login.salesforce.com" || c["tenant"] != "acme" || c["exp"].(float64)-c["iat"].(float64) > 180 || jws.Signatures[0].Header.KeyID != "key-7" {
		t.Errorf("signed was %v by %q", c, jws.Signatures[0].Header.KeyID)
	}
}

// TestJWTBearerDirect: what we sign is the credential; no endpoint is asked.
func TestJWTBearerDirect(t *testing.T) {
	b := newBench(t)
	m := catalog.Method{Kind: catalog.JWTBearer, Settings: &catalog.Assertion{Audience: "https://acme.snowflakecomputing.com", Person: "subject", Subject: catalog.SubjectSelf, Direct: true,
		Claims: map[string]string{"scp": "session:role-any"}}}
	line, cred, err := b.obtain(b.alice(), m)
	if err != nil {
		t.Fatal(err)
	}
	claims, ok := oauth.PeekJWT(strings.TrimPrefix(line, "Bearer "))
	if !ok || !slices.Equal(claims.Audience, []string{"https://acme.snowflakecomputing.com"}) || claims.Expires.After(b.now.Add(4*time.Minute)) || cred.Expires.After(claims.Expires) {
		t.Errorf("the credential is for %v until %s, kept until %s", claims.Audience, claims.Expires, cred.Expires)
	}
}

func TestGoogleWorkforce(t *testing.T) {
	b := newBench(t)
	_, id := b.signedIn(time.Hour)
	b.json("POST /sts/v1/token", map[string]any{"access_token": "federated", "issued_token_type": oauth.TokenTypeAccess, "token_type": "Bearer", "expires_in": 3600})
	const account = "POST /iam/v1/projects/-/serviceAccounts/robot@acme.iam.gserviceaccount.com:generateAccessToken"
	b.json(account, map[string]any{"accessToken": "ya29.robot", "expireTime": b.now.Add(30 * time.Minute).UTC().Format(time.RFC3339)})
	const pool = "//iam.googleapis.com/locations/global/workforcePools/acme/providers/login"
	s := &catalog.Google{Audience: pool, Project: "billing", Subject: catalog.SubjectID, STS: b.other.URL + "/sts", IAM: b.other.URL + "/iam",
		Groups: map[string][]string{"engineering": {"https://www.googleapis.com/auth/bigquery"}, "sales": {"https://www.googleapis.com/auth/drive"}}}
	m := catalog.Method{Kind: catalog.GoogleWorkforce, Settings: s}
	line, _, err := b.obtain(b.alice(), m, "https://www.googleapis.com/auth/cloud-platform")
	if err != nil || line != "Bearer federated" {
		t.Fatalf("got %q, %v", line, err)
	}
	form := b.last("POST /sts/v1/token")
	for name, want := range map[string]string{"audience": pool, "subject_token": id, "subject_token_type": oauth.TokenTypeID, "requested_token_type": oauth.TokenTypeAccess, "client_id": "",
		"scope": "https://www.googleapis.com/auth/bigquery https://www.googleapis.com/auth/cloud-platform", "options": "%7B%22userProject%22%3A%22billing%22%7D"} {
		if got := form.Get(name); got != want {
			t.Errorf("the STS was asked with %s=%q, want %q", name, got, want)
		}
	}
	// Two steps: exchange, then impersonate. The first is not made again for the second.
	s.ServiceAccount = "robot@acme.iam.gserviceaccount.com"
	line, cred, err := b.obtain(b.alice(), m, "https://www.googleapis.com/auth/cloud-platform")
	if err != nil || line != "Bearer ya29.robot" {
		t.Fatalf("got %q, %v", line, err)
	}
	if cred.Expires.After(b.now.Add(30 * time.Minute)) {
		t.Errorf("kept until %s, longer than its shortest input", cred.Expires)
	}
	if n := len(b.forms("POST /sts/v1/token")); n != 1 {
		t.Errorf("the STS was asked %d times", n)
	}
	b.mu.Lock()
	head := b.heads[account][0]
	b.mu.Unlock()
	if head.Get("Authorization") != "Bearer federated" {
		t.Errorf("the account was asked with %q", head.Get("Authorization"))
	}
}

func TestEntraOnBehalfOf(t *testing.T) {
	b := newBench(t)
	access, _ := b.signedIn(time.Hour)
	b.json("POST /entra/token", map[string]any{"access_token": "graph", "token_type": "Bearer", "expires_in": 3599, "scope": "User.Read"})
	b.secrets(map[vault.Part]string{vault.ClientSecret: "entra-secret"}, catalog.EntraOBO)
	m := catalog.Method{Kind: catalog.EntraOBO, Client: "app", Settings: &catalog.Entra{Endpoint: b.other.URL + "/entra/token"}}
	if line, _, err := b.obtain(b.alice(), m, "https://graph.microsoft.com/User.Read"); err != nil || line != "Bearer graph" {
		t.Fatalf("got %q, %v", line, err)
	}
	for name, want := range map[string]string{"grant_type": oauth.GrantJWTBearer, "assertion": access, "requested_token_use": "on_behalf_of", "client_id": "app", "client_secret": "entra-secret",
		"scope": "https://graph.microsoft.com/User.Read"} {
		if got := b.last("POST /entra/token").Get(name); got != want {
			t.Errorf("asked with %s=%q, want %q", name, got, want)
		}
	}
	b.f.Forget("default", string(b.user.ID))
	b.answer("POST /entra/token", 400, map[string]any{"error": "interaction_required", "error_description": "AADSTS50079 home-access-token", "claims": "{}"})
	_, _, err := b.obtain(b.alice(), m, "https://graph.microsoft.com/User.Read")
	if fault.KindOf(err) != fault.Denied || !strings.Contains(fault.Message(err), "interaction_required") || strings.Contains(fault.Message(err), "AADSTS") {
		t.Errorf("got %v: %q", fault.KindOf(err), fault.Message(err))
	}
}

// TestRenewedForItsIDToken: an ID token that is over is not shown to anybody; the home credential is renewed first, once.
func TestRenewedForItsIDToken(t *testing.T) {
	b := newBench(t)
	b.signedIn(time.Hour)
	b.now = b.now.Add(2 * time.Hour)
	issuer := b.ras()
	fresh := unsigned(map[string]any{"sub": "sub-alice", "exp": b.now.Add(time.Hour).Unix()})
	jag := unsigned(map[string]any{"aud": issuer})
	b.on(idpToken, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		form := b.last(idpToken)
		if form.Get("grant_type") == oauth.GrantRefreshToken {
			fmt.Fprintf(w, `{"access_token":"a2","refresh_token":"r2","id_token":%q,"token_type":"Bearer","expires_in":3600}`, fresh)
			return
		}
		fmt.Fprintf(w, `{"access_token":%q,"issued_token_type":%q,"token_type":"N_A"}`, jag, oauth.TokenTypeIDJAG)
	})
	m := catalog.Method{Kind: catalog.IDJAGMethod, Client: "desk-at-ras", Settings: &catalog.IDJAG{Issuer: issuer, Subject: catalog.SubjectID}}
	if _, _, err := b.obtain(b.alice(), m); err != nil {
		t.Fatal(err)
	}
	l := b.forms(idpToken)
	if len(l) != 2 || l[0].Get("refresh_token") != "home-refresh" || l[1].Get("subject_token") != fresh {
		t.Errorf("the IdP was asked %d times: %v", len(l), l)
	}
}

func TestGitHubApp(t *testing.T) {
	b := newBench(t)
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	b.secrets(map[vault.Part]string{vault.PrivateKey: string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(rsaKey)}))}, catalog.GitHubApp)
	const at = "POST /gh/app/installations/42/access_tokens"
	b.answer(at, http.StatusCreated, map[string]any{"token": "ghs_installation", "expires_at": b.now.Add(time.Hour).UTC().Format(time.RFC3339)})
	m := catalog.Method{Kind: catalog.GitHubApp, Client: "Iv23app", Settings: &catalog.GitHub{Installation: "42", Repositories: []string{"website"}, Permissions: map[string]string{"issues": "read"}, API: b.other.URL + "/gh"}}
	if line, _, err := b.obtain(b.alice(), m); err != nil || line != "Bearer ghs_installation" {
		t.Fatalf("got %q, %v", line, err)
	}
	b.mu.Lock()
	body, head := b.body[at][0], b.heads[at][0]
	b.mu.Unlock()
	if body != `{"repositories":["website"],"permissions":{"issues":"read"}}` {
		t.Errorf("asked for %s", body)
	}
	jws, err := jose.ParseSignedCompact(strings.TrimPrefix(head.Get("Authorization"), "Bearer "), []jose.SignatureAlgorithm{jose.RS256})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := jws.Verify(&rsaKey.PublicKey); err != nil {
		t.Error(err)
	}
	r := b.request(b.alice(), m)
	r.Upstream.Risk = ""
	if err := b.f.Methods()[catalog.GitHubApp].Ready(t.Context(), r); fault.KindOf(err) != fault.NotFound {
		t.Errorf("without accept_risk: %v", err)
	}
}

func TestServiceKeyNeedsAReason(t *testing.T) {
	b := newBench(t)
	b.secrets(map[vault.Part]string{vault.StaticKey: "static-key-of-all"}, catalog.ServiceKey)
	m := catalog.Method{Kind: catalog.ServiceKey}
	if line, _, err := b.obtain(b.alice(), m); err != nil || line != "Bearer static-key-of-all" {
		t.Errorf("got %q, %v", line, err)
	}
	r := b.request(b.alice(), m)
	r.Upstream.Risk = ""
	if err := b.f.Methods()[catalog.ServiceKey].Ready(t.Context(), r); fault.KindOf(err) != fault.NotFound {
		t.Errorf("without accept_risk: %v", err)
	}
}

// TestPassthrough: A-062. A token goes on only where it names the upstream, and never one that we issued.
func TestPassthrough(t *testing.T) {
	b := newBench(t)
	m := catalog.Method{Kind: catalog.Passthrough, Settings: &catalog.Forward{Audience: "https://api.example.com"}}
	own := b.foreign("https://api.example.com")
	if line, _, err := b.obtain(own, m); err != nil || line != "Bearer "+own.Raw().Expose() {
		t.Errorf("got %q, %v", line, err)
	}
	for name, c := range map[string]*identity.Caller{"for another audience": b.foreign("https://other.example.com"), "one of ours": b.alice()} {
		if _, _, err := b.obtain(c, m); fault.KindOf(err) != fault.NotFound {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if _, _, err := b.obtain(own, catalog.Method{Kind: catalog.Passthrough, Settings: &catalog.Forward{}}); err == nil {
		t.Error("a config without an audience forwards")
	}
}

// TestStepsAreShared: many calls at once make one exchange, and a caller who leaves ends it for nobody.
func TestStepsAreShared(t *testing.T) {
	b := newBench(t)
	b.signedIn(time.Hour)
	issuer := b.ras()
	gate := make(chan struct{})
	b.on(rasToken, func(w http.ResponseWriter, _ *http.Request) {
		<-gate
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"access_token":"ras-access","token_type":"Bearer","expires_in":3600}`)
	})
	m := catalog.Method{Kind: catalog.IDJAGMethod, Client: "desk-at-ras", Settings: &catalog.IDJAG{Issuer: issuer, Subject: catalog.SubjectID}}
	leaving, leave := context.WithCancel(t.Context())
	first := make(chan error, 1)
	go func() {
		_, err := b.f.Methods()[catalog.IDJAGMethod].Obtain(leaving, b.request(b.alice(), m))
		first <- err
	}()
	for end := time.Now().Add(30 * time.Second); len(b.forms(rasToken)) == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("nobody asked for the exchange")
		}
	}
	leave()
	if err := <-first; fault.KindOf(err) != fault.Unavailable {
		t.Errorf("who left got %v", err)
	}
	var wg sync.WaitGroup
	errs := make(chan error, 20)
	for range 20 {
		wg.Go(func() {
			_, err := b.f.Methods()[catalog.IDJAGMethod].Obtain(t.Context(), b.request(b.alice(), m))
			errs <- err
		})
	}
	close(gate)
	wg.Wait()
	close(errs)
	for err := range errs {
		if err != nil {
			t.Error(errors.Unwrap(err), err)
		}
	}
	if n := len(b.forms(rasToken)); n != 1 {
		t.Errorf("%d exchanges were made", n)
	}
}

// TestADelegationIsTheAgentsOwn: a token that names an agent as actor is never given to another agent of the same person.
func TestADelegationIsTheAgentsOwn(t *testing.T) {
	b := newBench(t)
	b.signedIn(time.Hour)
	b.on("POST /x/token", func(w http.ResponseWriter, r *http.Request) {
		forms := b.forms("POST /x/token")
		parts := strings.Split(forms[len(forms)-1].Get("actor_token"), ".")
		payload, _ := base64.RawURLEncoding.DecodeString(parts[min(1, len(parts)-1)])
		var actor struct{ Sub string }
		_ = json.Unmarshal(payload, &actor)
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]any{"access_token": "act-" + actor.Sub, "token_type": "Bearer", "issued_token_type": oauth.TokenTypeAccess, "expires_in": 900})
	})
	m := catalog.Method{Kind: catalog.TokenExchange, Client: "desk", Settings: &catalog.Exchange{Endpoint: b.other.URL + "/x/token", Subject: catalog.SubjectAccess, Actor: true}}
	x := &exchange.Exchange{Methods: b.f.Methods(), Now: b.f.Now}
	up := b.request(b.alice(), m).Upstream
	for _, agent := range []identity.ClientID{"agent-1", "agent-2", "agent-1"} {
		c := b.alice()
		c.Client = agent
		cred, err := x.Obtain(t.Context(), c, up, nil, "")
		if err != nil {
			t.Fatal(err)
		}
		q := httptest.NewRequest(http.MethodGet, "https://api.example.com/", nil)
		if err := cred.Place(q); err != nil {
			t.Fatal(err)
		}
		if got := q.Header.Get("Authorization"); got != "Bearer act-"+string(agent) {
			t.Errorf("%s acts with %q", agent, got)
		}
	}
}

// TestAReloadNarrows: what the config said before is not in what is obtained afterwards, whichever setting it was.
func TestAReloadNarrows(t *testing.T) {
	b := newBench(t)
	b.signedIn(time.Hour)
	answers := 0
	b.on("POST /x/token", func(w http.ResponseWriter, _ *http.Request) {
		answers++
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]any{"access_token": fmt.Sprint("token-", answers), "token_type": "Bearer", "issued_token_type": oauth.TokenTypeAccess, "expires_in": 3600})
	})
	at := b.other.URL + "/x/token"
	wide := &catalog.Assertion{Endpoint: at, Person: "subject", Subject: catalog.SubjectSelf, Claims: map[string]string{"role": "admin"}}
	direct := &catalog.Assertion{Audience: "https://api.example.com", Person: "subject", Subject: catalog.SubjectSelf, Direct: true, Claims: map[string]string{"role": "admin"}}
	with := func(a catalog.Assertion, change func(*catalog.Assertion)) *catalog.Assertion { change(&a); return &a }
	tests := map[string][2]catalog.Method{
		"claims": {{Kind: catalog.JWTBearer, Settings: wide}, {Kind: catalog.JWTBearer, Settings: with(*wide, func(a *catalog.Assertion) { a.Claims = map[string]string{"role": "reader"} })}},
		"person": {{Kind: catalog.JWTBearer, Settings: wide}, {Kind: catalog.JWTBearer, Settings: with(*wide, func(a *catalog.Assertion) { a.Person = "email" })}},
		"issuer": {{Kind: catalog.JWTBearer, Settings: wide}, {Kind: catalog.JWTBearer, Settings: with(*wide, func(a *catalog.Assertion) { a.Issuer = "https://other.example.com" })}},
		"direct": {{Kind: catalog.JWTBearer, Settings: direct}, {Kind: catalog.JWTBearer, Settings: with(*direct, func(a *catalog.Assertion) { a.Claims = nil })}},
		"client": {{Kind: catalog.TokenExchange, Client: "desk", Settings: &catalog.Exchange{Endpoint: at, Subject: catalog.SubjectAccess}},
			{Kind: catalog.TokenExchange, Client: "desk-2", Settings: &catalog.Exchange{Endpoint: at, Subject: catalog.SubjectAccess}}},
		"actor": {{Kind: catalog.TokenExchange, Client: "desk", Settings: &catalog.Exchange{Endpoint: at, Subject: catalog.SubjectAccess}},
			{Kind: catalog.TokenExchange, Client: "desk", Settings: &catalog.Exchange{Endpoint: at, Subject: catalog.SubjectAccess, Actor: true}}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			before, _, err := b.obtain(b.alice(), test[0])
			if err != nil {
				t.Fatal(err)
			}
			after, _, err := b.obtain(b.alice(), test[1])
			if err != nil || after == before {
				t.Errorf("after the reload it still is %q (%v)", after, err)
			}
			b.f.Forget("default", string(b.user.ID))
		})
	}
}
