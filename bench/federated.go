package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/internal/catalog"
	obtaining "frontdesk.dev/frontdesk/internal/exchange"
	"frontdesk.dev/frontdesk/internal/exchange/federation"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/oauth"
	"frontdesk.dev/frontdesk/internal/kit/secret"
	"frontdesk.dev/frontdesk/internal/vault"
	"frontdesk.dev/frontdesk/internal/vault/keyring"
)

// homes is how many people have a home credential at the company's IdP, for the methods that ask nobody.
const homes = 50

// other is everybody whom those methods ask: the IdP, authorization servers, STS of two clouds, GitHub. Each answers at once.
type other struct{}

func (other) Do(r *http.Request) (*http.Response, error) {
	status, kind, until := http.StatusOK, "application/json", time.Now().Add(time.Hour).UTC().Format(time.RFC3339)
	var doc any = map[string]any{"access_token": credential(1), "token_type": "Bearer", "expires_in": 3600, "issued_token_type": oauth.TokenTypeAccess}
	switch at := r.URL.String(); {
	case strings.Contains(at, "/.well-known/") && r.URL.Host == "idp.test":
		doc = map[string]any{"issuer": "https://idp.test", "authorization_endpoint": "https://idp.test/authorize", "token_endpoint": "https://idp.test/token", "jwks_uri": "https://idp.test/jwks"}
	case strings.Contains(at, "/.well-known/"):
		doc = map[string]any{"issuer": "https://ras.test", "token_endpoint": "https://ras.test/token"}
	case at == "https://idp.test/token":
		doc = map[string]any{"access_token": statement(map[string]any{"aud": "https://ras.test", "client_id": "frontdesk"}), "token_type": "N_A", "expires_in": 300, "issued_token_type": oauth.TokenTypeIDJAG}
	case r.URL.Host == "github.test":
		status, doc = http.StatusCreated, map[string]any{"token": credential(1), "expires_at": until}
	}
	body, err := json.Marshal(doc)
	if r.URL.Host == "aws.test" {
		kind = "text/xml"
		body = fmt.Appendf(nil, `<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>ASIA</AccessKeyId><SecretAccessKey>s</SecretAccessKey>
<SessionToken>t</SessionToken><Expiration>%s</Expiration></Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>`, until)
	}
	return &http.Response{StatusCode: status, Header: http.Header{"Content-Type": {kind}}, Body: io.NopCloser(bytes.NewReader(body)), Request: r}, err
}

// statement is a JWT that nobody here verifies.
func statement(claims map[string]any) string {
	b, err := json.Marshal(claims)
	if err != nil {
		panic(err) // a value of ours
	}
	e := base64.RawURLEncoding.EncodeToString
	return e([]byte(`{"alg":"ES256"}`)) + "." + e(b) + "." + e([]byte("signature"))
}

// federated are the methods that ask no person, and who is asked for.
type federated struct {
	*federation.Federation
	callers []*identity.Caller
	asked   []*catalog.Upstream
}

// federate gives the room those methods, and some people a home credential.
func (r *room) federate(ctx context.Context, log *audit.Log) (federated, error) {
	quiet := slog.New(slog.DiscardHandler)
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return federated{}, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return federated{}, err
	}
	client := oauth.Client{HTTP: other{}, Now: time.Now}
	clients, idps := &vault.Clients{}, &identity.IdPs{}
	clients.Use(map[vault.ClientKey]secret.Text{{Tenant: identity.DefaultTenant, Upstream: "github_app", Part: vault.PrivateKey}: secret.New(string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})))})
	idps.Use([]*identity.IdP{identity.NewIdP(identity.IdPConfig{Tenant: identity.DefaultTenant, Name: "login", Issuer: "https://idp.test", ClientID: "frontdesk", Secret: secret.New("s")}, other{}, time.Now, quiet)})
	epochs := &identity.Epochs{Store: r.db, Now: time.Now, Log: quiet, Changed: func(identity.Epoch) {}}
	home := &obtaining.Home{Vault: r.vault, Refresh: r.x.Refresh, IdPs: idps, Users: r.db, Epochs: epochs, Events: log}
	f := federated{Federation: &federation.Federation{Subjects: federation.Subjects{Home: home, Users: r.db}, IdPs: idps, Clients: clients, Signer: &keyring.Signer{Keys: r.db, Wrap: r.vault.Wrap, Now: time.Now},
		OAuth: client, HTTP: other{}, Issuer: func(identity.Tenant) string { return "https://desk.test" }, Now: time.Now}}
	for i := range homes {
		u, err := r.db.EnsureUser(ctx, identity.User{Tenant: identity.DefaultTenant, IDP: "login", Subject: fmt.Sprint("sub-", i), Name: "x"})
		if err != nil {
			return f, err
		}
		now := time.Now()
		c := vault.Connection{Tenant: u.Tenant, User: u.ID, Upstream: "idp:login", Method: catalog.AuthorizationCode, Account: u.Subject, Status: vault.Active, Created: now, Renewed: now, Expires: now.Add(time.Hour), Refreshes: true}
		if _, err := r.vault.Connect(ctx, c, vault.Secrets{Access: secret.New(credential(i)), Refresh: secret.New(credential(i)), Identity: secret.New(statement(map[string]any{"exp": now.Add(time.Hour).Unix()}))}); err != nil {
			return f, err
		}
		f.callers = append(f.callers, &identity.Caller{Tenant: u.Tenant, User: u.ID, IDP: "login", Local: true, Client: "agent"})
	}
	settings := map[catalog.MethodKind]catalog.Settings{
		catalog.IDJAGMethod:     &catalog.IDJAG{Issuer: "https://ras.test", Subject: catalog.SubjectID},
		catalog.TokenExchange:   &catalog.Exchange{Endpoint: "https://ras.test/token", Audience: "x", Subject: catalog.SubjectAccess},
		catalog.JWTBearer:       &catalog.Assertion{Endpoint: "https://ras.test/token", Subject: catalog.SubjectSelf},
		catalog.EntraOBO:        &catalog.Entra{Endpoint: "https://ras.test/token"},
		catalog.GoogleWorkforce: &catalog.Google{Audience: "//iam", Subject: catalog.SubjectID, STS: "https://ras.test", IAM: "https://ras.test"},
		catalog.AWSWebIdentity:  &catalog.AWS{Role: "arn:aws:iam::1:role/x", Region: "eu-central-1", Service: "s3", Audience: "x", Subject: catalog.SubjectSelf, STS: "https://aws.test"},
		catalog.GitHubApp:       &catalog.GitHub{Installation: "1", API: "https://github.test"},
	}
	for _, kind := range slices.Sorted(maps.Keys(settings)) { // the same order each time: two tables are compared line by line
		s := settings[kind]
		m := catalog.Method{Kind: kind, Client: "frontdesk", Auth: catalog.ClientNone, Settings: s}
		f.asked = append(f.asked, &catalog.Upstream{Tenant: identity.DefaultTenant, Name: catalog.UpstreamName(kind), Title: string(kind), Risk: "a bench", Origins: []*url.URL{{Scheme: "https", Host: "api.vendor.test"}},
			Methods: []catalog.Method{m}, Provider: &catalog.Provider{ID: "vendor", Name: "Vendor"}})
	}
	return f, nil
}

// measure obtains by each method anew, with all that it was made of asked for again.
func (f federated) measure(ctx context.Context) (costs []cost, err error) {
	for _, up := range f.asked {
		m := up.Methods[0]
		method := f.Methods()[m.Kind]
		c, err := timed(string(m.Kind)+", asked for", 1000, func(i int) error {
			who := f.callers[i%len(f.callers)]
			f.Forget(who.Tenant, who.Principal())
			_, err := method.Obtain(ctx, obtaining.Request{Caller: who, Upstream: up, Method: m})
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("%s: %w", m.Kind, err)
		}
		costs = append(costs, c)
	}
	return costs, nil
}
