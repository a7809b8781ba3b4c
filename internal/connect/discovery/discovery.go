// Package discovery answers: who is the authorization server of a vendor's own MCP server, and which client are we there?
package discovery

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/dpop"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/kit/oauth"
)

// Finder learns of a vendor's own MCP server who its authorization server is, and registers Frontdesk there: in the order of MCP
// authorization by the client that the config names, a client ID metadata document, or dynamic registration. What it found is
// stored, so that all replicas are one client, and nothing of it is secret: we prove ourselves by a key of our JWKS, or are a
// public client with PKCE. It trusts the MCP server to name its authorization server, within the config's issuers, and nobody
// to name endpoints on another site. All fields are required.
type Finder struct {
	Catalog *catalog.Catalog
	Store   Store
	HTTP    oauth.Doer // with the guard for found addresses
	URL     func(t identity.Tenant, path string) string
	Foreign func(t identity.Tenant, issuer string) bool // an issuer that no upstream may have: the company's IdP, and ourselves
	Secret  func(up *catalog.Upstream) bool             // the config has a client secret for it
	Log     *slog.Logger
	Now     func() time.Time

	discovering sync.Mutex // one at a time in this process
	filled
}

// filled are the upstreams of the catalogue that were filled in, and what the config says of each. The zero value has none.
type filled struct {
	mu sync.Mutex
	of map[*catalog.Upstream]*catalog.Upstream // guarded by mu
}

// asConfigured is the upstream without what was found.
func (f *filled) asConfigured(up *catalog.Upstream) *catalog.Upstream {
	f.mu.Lock()
	defer f.mu.Unlock()
	if c := f.of[up]; c != nil {
		return c
	}
	return up
}

// put notes that with stands in the catalogue now, made of what the config says, and forgets what does not any more.
func (f *filled) put(c *catalog.Catalog, with, configured *catalog.Upstream) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.of == nil {
		f.of = map[*catalog.Upstream]*catalog.Upstream{}
	}
	maps.DeleteFunc(f.of, func(up, _ *catalog.Upstream) bool { return c.Upstream(up.Tenant, up.Name) != up })
	f.of[with] = configured
}

// Found is what was found of an upstream: its authorization server, and our registration there, which is good for that issuer
// alone.
type Found struct {
	Tenant   identity.Tenant
	Upstream catalog.UpstreamName
	Issuer   string
	Created  time.Time
	Facts    []byte // JSON of facts
}

// Store keeps what was found.
type Store interface {
	// Found lists what is known of an upstream, the newest first.
	Found(ctx context.Context, t identity.Tenant, up catalog.UpstreamName) ([]Found, error)
	// PutFound keeps one a (tenant, upstream, issuer): of two replicas that register at once, the first stays.
	PutFound(ctx context.Context, f Found) error
	// RenewFound puts with in the place of old, if that is still what is kept: of two replicas that renew at once, the first does.
	RenewFound(ctx context.Context, old, with Found) (bool, error)
}

// facts are what is stored. Its fields are the rows' format: they are only ever added to.
type facts struct {
	Resource      string   `json:"resource"`
	Issuer        string   `json:"issuer"`
	IssPromised   bool     `json:"iss_promised,omitempty"`
	Authorization string   `json:"authorization_endpoint"`
	Token         string   `json:"token_endpoint"`
	Revocation    string   `json:"revocation_endpoint,omitempty"`
	Pushed        string   `json:"par_endpoint,omitempty"`
	Scopes        []string `json:"scopes,omitempty"`
	Offline       bool     `json:"offline,omitempty"`
	Client        string   `json:"client_id"`
	Auth          string   `json:"token_auth"`
	Bound         bool     `json:"bound,omitempty"`
}

// Find returns the upstream with its OAuth, from the store, or by asking its server.
func (f *Finder) Find(ctx context.Context, up *catalog.Upstream) (*catalog.Upstream, error) {
	f.discovering.Lock()
	defer f.discovering.Unlock()
	if now := f.Catalog.Upstream(up.Tenant, up.Name); now != nil && now.Resource == up.Resource && now.Provider.OAuth != nil {
		return now, nil // somebody was faster
	}
	if known, err := f.known(ctx, up); known != nil || err != nil {
		return known, err
	}
	found, err := f.discover(ctx, up)
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(found)
	if err != nil {
		return nil, err
	}
	if err := f.Store.PutFound(ctx, Found{Tenant: up.Tenant, Upstream: up.Name, Issuer: found.Issuer, Created: f.Now(), Facts: text}); err != nil {
		return nil, err
	}
	f.Log.Info("the authorization server of an MCP server was found", "upstream", up.Name, "issuer", found.Issuer, "client", found.Client)
	return f.known(ctx, up) // what all replicas go by
}

// known reads what was found before, as far as the config still allows it; nil: nothing.
func (f *Finder) known(ctx context.Context, now *catalog.Upstream) (*catalog.Upstream, error) {
	up := f.asConfigured(now)
	_, x, err := f.row(ctx, up)
	if err != nil || x.Client == "" {
		return nil, err
	}
	if o := now.Provider.OAuth; o != nil && o.Issuer == x.Issuer && now.Method(catalog.AuthorizationCode).Client == x.Client {
		return now, nil
	}
	with := x.fill(up)
	if f.Catalog.Replace(now, with) {
		f.put(f.Catalog, with, up)
	}
	return with, nil
}

// row is what is kept of an upstream, and may be used; of no client where nothing is.
func (f *Finder) row(ctx context.Context, up *catalog.Upstream) (Found, facts, error) {
	l, err := f.Store.Found(ctx, up.Tenant, up.Name)
	if err != nil {
		return Found{}, facts{}, err
	}
	for _, row := range l {
		var x facts
		if json.Unmarshal(row.Facts, &x) != nil || x.Resource != up.Resource || !f.allows(up, x.Issuer) {
			continue
		}
		if client, _ := f.configured(up); client == "" || client == x.Client {
			return row, x, nil
		}
	}
	return Found{}, facts{}, nil
}

// fill makes the upstream whole.
func (x facts) fill(up *catalog.Upstream) *catalog.Upstream {
	p := *up.Provider
	p.OAuth = &catalog.ProviderOAuth{Issuer: x.Issuer, IssPromised: x.IssPromised, Authorization: x.Authorization, Token: x.Token, Revocation: x.Revocation, Pushed: x.Pushed,
		TokenAuth: x.Auth, Resource: x.Resource, Offered: x.Scopes}
	if x.Offline {
		p.OAuth.Refresh.ScopeNeeded = "offline_access"
	}
	if x.Bound {
		p.OAuth.DPoP = catalog.DPoPAlways
	}
	with := *up
	with.Provider, with.Methods = &p, slices.Clone(up.Methods)
	for i := range with.Methods {
		if with.Methods[i].Kind == catalog.AuthorizationCode {
			with.Methods[i].Client = x.Client
		}
	}
	return &with
}

// Load fills in what is stored, also in the place of what was, asking nobody but the store.
func (f *Finder) Load(ctx context.Context) error {
	for _, ups := range f.Catalog.Snapshot().Upstreams {
		for _, up := range ups {
			if up.Resource == "" {
				continue
			}
			if _, err := f.known(ctx, up); err != nil {
				return err
			}
		}
	}
	return nil
}

const loadEvery = 10 * time.Second

// Run learns what other replicas found, until ctx ends.
func (f *Finder) Run(ctx context.Context) error {
	tick := time.NewTicker(loadEvery)
	defer tick.Stop()
	for {
		if err := f.Load(ctx); err != nil && ctx.Err() == nil {
			f.Log.Warn("what was found of MCP servers could not be read; it is tried again", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

const (
	findTimeout = 20 * time.Second
	maxFound    = 64 << 10
)

// discover goes from the MCP server to its authorization server (RFC 9728), to what that says of itself (RFC 8414), and registers.
func (f *Finder) discover(ctx context.Context, up *catalog.Upstream) (facts, error) {
	ctx, cancel := context.WithTimeout(ctx, findTimeout)
	defer cancel()
	at, scope, err := f.challenged(ctx, up)
	if err != nil {
		return facts{}, err
	}
	resource, err := oauth.FetchResourceMetadata(ctx, f.HTTP, up.Resource, at)
	if err != nil {
		return facts{}, f.cannot(up, "what it says of itself cannot be used", err)
	}
	if len(resource.AuthorizationServers) == 0 {
		return facts{}, f.cannot(up, "it names no authorization server", nil)
	}
	scopes, ok := oauth.ParseScopes(scope, " ")
	if len(scopes) == 0 || !ok {
		scopes = resource.ScopesSupported
	}
	var first error
	for _, issuer := range resource.AuthorizationServers {
		x, err := f.server(ctx, up, resource, issuer)
		if err == nil {
			x.Scopes = slices.DeleteFunc(slices.Clone(scopes), func(s string) bool { return s == "offline_access" })
			return x, nil
		}
		if first == nil {
			first = err
		}
	}
	return facts{}, first
}

// cannot words why a server cannot be connected to, for the person and the operator whom he asks.
func (f *Finder) cannot(up *catalog.Upstream, why string, err error) error {
	if k := fault.KindOf(err); k == fault.Unavailable {
		return fault.Later(up.Title+" cannot be connected now: it or its authorization server does not answer; try again later", time.Minute, err)
	}
	if msg := fault.Message(err); err != nil && msg != "" {
		why += " (" + msg + ")"
	}
	f.Log.Warn("an MCP server cannot be connected to", "upstream", up.Name, "why", why)
	return fault.New(fault.Denied, up.Title+" cannot be connected: "+why+"; ask an operator", err)
}

// challenged asks the MCP server without a token, and reads from its refusal where its metadata are and which scopes it wants. What
// is on another site is not looked at: the well-known places are.
func (f *Finder) challenged(ctx context.Context, up *catalog.Upstream) (metadata, scope string, err error) {
	const hello = `{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"Frontdesk","version":"1"}}}`
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, up.Resource, strings.NewReader(hello))
	if err != nil {
		return "", "", f.cannot(up, "its URL is none", nil)
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Accept", "application/json, text/event-stream")
	resp, err := f.HTTP.Do(r)
	if err != nil {
		return "", "", fault.Later(up.Title+" cannot be connected now: it does not answer; try again later", time.Minute, err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode < 300 {
		return "", "", f.cannot(up, "it wants no sign-in; remove its upstream, and deliver nothing to it", nil)
	}
	challenges, err := oauth.ParseChallenges(resp.Header.Values("WWW-Authenticate"))
	if err != nil {
		return "", "", nil
	}
	for _, c := range challenges {
		if (strings.EqualFold(c.Scheme, "Bearer") || strings.EqualFold(c.Scheme, dpop.Scheme)) && metadata == "" {
			metadata, scope = c.Get("resource_metadata"), c.Get("scope")
		}
	}
	if metadata != "" && !oauth.SameSite(up.Resource, metadata) {
		return "", "", f.cannot(up, "it points to metadata on another site", nil)
	}
	return metadata, scope, nil
}

// allows reports whether an upstream's flows may start at an issuer.
func (f *Finder) allows(up *catalog.Upstream, issuer string) bool {
	return !f.Foreign(up.Tenant, issuer) && (len(up.Issuers) == 0 || slices.Contains(up.Issuers, issuer))
}

// server is one authorization server that the MCP server named, with our registration there.
func (f *Finder) server(ctx context.Context, up *catalog.Upstream, resource oauth.ResourceMetadata, issuer string) (facts, error) {
	if !f.allows(up, issuer) {
		return facts{}, f.cannot(up, "it names an authorization server that is not among its issuers in the config, or is the company's own", nil)
	}
	m, err := oauth.FetchMetadata(ctx, f.HTTP, issuer)
	if err != nil {
		return facts{}, f.cannot(up, "its authorization server's metadata cannot be used", err)
	}
	switch {
	case m.AuthorizationEndpoint == "" || m.TokenEndpoint == "":
		return facts{}, f.cannot(up, "its authorization server names no endpoints", nil)
	case !m.SupportsS256():
		return facts{}, f.cannot(up, "its authorization server does not promise PKCE with S256", nil)
	case resource.BoundTokens && !slices.Contains(m.ProofAlgorithms, dpop.Algorithm):
		return facts{}, f.cannot(up, "it takes bound tokens alone, and its authorization server no proofs (DPoP) by "+dpop.Algorithm, nil)
	}
	for _, e := range []string{m.AuthorizationEndpoint, m.TokenEndpoint, m.RegistrationEndpoint, m.RevocationEndpoint, m.PushedEndpoint} {
		if e != "" && !oauth.SameSite(issuer, e) {
			return facts{}, f.cannot(up, "its authorization server names endpoints on another site", nil)
		}
	}
	x := facts{Resource: up.Resource, Issuer: m.Issuer, IssPromised: m.IssParameter, Authorization: m.AuthorizationEndpoint, Token: m.TokenEndpoint, Revocation: m.RevocationEndpoint,
		Pushed: m.PushedEndpoint, Offline: slices.Contains(m.ScopesSupported, "offline_access"), Bound: m.Binds(resource)}
	x.Client, x.Auth, err = f.register(ctx, up, m)
	return x, err
}

// configured is the client that the config names, and how it proves itself.
func (f *Finder) configured(up *catalog.Upstream) (client string, secret bool) {
	return up.Method(catalog.AuthorizationCode).Client, f.Secret(up)
}

// register gets us a client at the server, in the order of MCP authorization ("Client Registration Approaches").
func (f *Finder) register(ctx context.Context, up *catalog.Upstream, m oauth.Metadata) (client, auth string, err error) {
	takes := func(a oauth.AuthMethod) bool { return slices.Contains(m.TokenAuthMethods, string(a)) }
	if client, secret := f.configured(up); client != "" {
		switch {
		case !secret && takes(oauth.AuthJWT) && !takes(oauth.AuthNone):
			return client, "private_key_jwt", nil
		case !secret:
			return client, "none", nil
		case takes(oauth.AuthPost) && !takes(oauth.AuthBasic):
			return client, "post", nil
		}
		return client, "basic", nil // RFC 8414 section 2: the default
	}
	auth = "none"
	if takes(oauth.AuthJWT) {
		auth = "private_key_jwt"
	}
	own := f.URL(up.Tenant, DocumentPath+string(up.Name))
	if auth == "private_key_jwt" {
		own += DocumentWithKey
	}
	if m.ClientIDMetadata && (strings.HasPrefix(own, "https:") || strings.HasPrefix(m.Issuer, "http:")) { // http is this machine alone, in both
		return own, auth, nil
	}
	if m.RegistrationEndpoint == "" {
		return "", "", f.cannot(up, "its authorization server registers no clients by itself: register Frontdesk at "+m.Issuer+" with the callback "+f.URL(up.Tenant, "/callback/"+string(up.Name))+
			", and put the client_id into the config", nil)
	}
	client, err = f.dynamic(ctx, up, m.RegistrationEndpoint, auth)
	return client, auth, err
}

// Where our client ID metadata documents are, below a tenant's address: one an upstream, so that a code of one cannot come back as
// another's; the second form is of a client that proves itself by a key.
const (
	DocumentPath    = "/.well-known/oauth-client/"
	DocumentWithKey = "/key"
)

// Document is Frontdesk as a client of one upstream's authorization server (RFC 7591 section 2; as a client ID metadata document
// where id is its address).
func Document(id, callback, jwks string, key bool) map[string]any {
	d := map[string]any{"client_name": "Frontdesk", "redirect_uris": []string{callback}, "grant_types": []string{oauth.GrantAuthorizationCode, oauth.GrantRefreshToken},
		"response_types": []string{"code"}, "application_type": "web", "token_endpoint_auth_method": string(oauth.AuthNone)}
	if strings.HasPrefix(callback, "http:") {
		d["application_type"] = "native" // this machine's own (OpenID Connect Registration section 2)
	}
	if id != "" {
		d["client_id"] = id
	}
	if key {
		d["token_endpoint_auth_method"], d["token_endpoint_auth_signing_alg"], d["jwks_uri"] = string(oauth.AuthJWT), "ES256", jwks
	}
	return d
}

// dynamic registers by RFC 7591. A server that gives another way of proof than was asked for is refused: we keep no secret that a
// found server made.
func (f *Finder) dynamic(ctx context.Context, up *catalog.Upstream, endpoint, auth string) (string, error) {
	body, err := json.Marshal(Document("", f.URL(up.Tenant, "/callback/"+string(up.Name)), f.URL(up.Tenant, "/jwks"), auth == "private_key_jwt"))
	if err != nil {
		return "", err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, endpoint, bytes.NewReader(body))
	if err != nil {
		return "", f.cannot(up, "its registration endpoint is no URL", nil)
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Accept", "application/json")
	resp, err := f.HTTP.Do(r)
	if err != nil {
		return "", fault.Later(up.Title+" cannot be connected now: its authorization server does not answer; try again later", time.Minute, err)
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxFound+1))
	if err != nil || resp.StatusCode >= 500 || resp.StatusCode == http.StatusTooManyRequests {
		return "", fault.Later(up.Title+" cannot be connected now: its authorization server does not answer; try again later", time.Minute, err)
	}
	var got struct {
		Client string `json:"client_id"`
		Method string `json:"token_endpoint_auth_method"`
	}
	want := string(oauth.AuthNone)
	if auth == "private_key_jwt" {
		want = string(oauth.AuthJWT)
	}
	if resp.StatusCode != http.StatusCreated && resp.StatusCode != http.StatusOK || len(answer) > maxFound || json.Unmarshal(answer, &got) != nil || got.Client == "" || len(got.Client) > 1024 {
		return "", f.cannot(up, "its authorization server did not register Frontdesk", nil)
	}
	if got.Method != "" && got.Method != want {
		return "", f.cannot(up, "its authorization server registers clients with a secret alone: register Frontdesk by hand, and put client_id and client_secret into the config", nil)
	}
	return got.Client, nil
}
