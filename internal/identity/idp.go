package identity

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-json-experiment/json/jsontext"

	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/kit/jwt"
	"frontdesk.dev/frontdesk/internal/kit/oauth"
	"frontdesk.dev/frontdesk/internal/kit/secret"
)

// IdPConfig is the company's OpenID provider, as the operator configured it.
type IdPConfig struct {
	Tenant       Tenant
	Name         string
	Issuer       string // exactly the `iss`
	ClientID     string
	Secret       secret.Text
	Scopes       []string // asked for at sign-in; openid and, unless NoOffline, offline_access are added
	NoOffline    bool     // it gives nothing for when people are away
	SubjectClaim string   // default sub
	GroupsClaim  string   // default groups, read from the ID token
	Audiences    []string // of access tokens that the IdP issued, accepted beside the resource's URL
	TokenTypes   []string // `typ` of those; default at+jwt alone
}

// IdP is that provider with what was discovered of it. Make it with NewIdP.
type IdP struct {
	IdPConfig
	http oauth.Doer
	now  func() time.Time
	log  *slog.Logger

	mu      sync.Mutex // guards what follows; not held during a fetch
	meta    oauth.Metadata
	keys    *oauth.KeySet
	fetched time.Time
}

// NewIdP returns a provider of which nothing has been fetched yet.
func NewIdP(c IdPConfig, http oauth.Doer, now func() time.Time, log *slog.Logger) *IdP {
	return &IdP{IdPConfig: c, http: http, now: now, log: log}
}

const (
	metadataFresh = time.Hour        // how long discovered metadata is used before it is read again; an old one is better than none
	metadataRetry = 30 * time.Second // how long the old one is used before the next try, while one runs or after it failed
)

// Metadata returns the provider's metadata, discovered when first needed. fault.Unavailable while the IdP is away.
func (p *IdP) Metadata(ctx context.Context) (oauth.Metadata, error) {
	p.mu.Lock()
	meta, fresh := p.meta, p.now().Sub(p.fetched) < metadataFresh
	if !fresh && meta.Issuer != "" {
		p.fetched = p.now().Add(metadataRetry - metadataFresh) // one asks; whoever comes meanwhile does not wait for an IdP that is slow or away
	}
	p.mu.Unlock()
	if fresh {
		return meta, nil
	}
	found, err := oauth.FetchMetadata(ctx, p.http, p.Issuer)
	if err != nil && meta.Issuer != "" {
		p.log.Warn("the IdP's metadata cannot be read again; going on with what it said before", "idp", p.Name, "error", err)
		return meta, nil
	}
	if err != nil {
		return oauth.Metadata{}, fault.New(fault.Unavailable, "the company's sign-in service "+p.Name+" does not answer; try again later", err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.keys == nil || p.meta.JWKSURI != found.JWKSURI {
		if p.keys, err = oauth.NewKeySet(found.JWKSURI, p.http, p.now, p.log); err != nil {
			return oauth.Metadata{}, err
		}
	}
	p.meta, p.fetched = found, p.now()
	return found, nil
}

// Key makes IdP an jwt.Keys: the IdP's own signing keys.
func (p *IdP) Key(ctx context.Context, kid string, alg jose.SignatureAlgorithm) (jose.JSONWebKey, error) {
	if _, err := p.Metadata(ctx); err != nil {
		return jose.JSONWebKey{}, err
	}
	p.mu.Lock()
	keys := p.keys
	p.mu.Unlock()
	return keys.Key(ctx, kid, alg)
}

// Endpoint is the IdP's token endpoint with our registration there.
func (p *IdP) Endpoint(ctx context.Context) (oauth.Endpoint, error) {
	meta, err := p.Metadata(ctx)
	if err != nil {
		return oauth.Endpoint{}, err
	}
	e := oauth.Endpoint{URL: meta.TokenEndpoint, ClientID: p.ClientID, Secret: p.Secret, Auth: oauth.AuthBasic}
	if p.Secret.IsZero() {
		e.Auth = oauth.AuthNone
	} else if len(meta.TokenAuthMethods) > 0 && !slices.Contains(meta.TokenAuthMethods, string(oauth.AuthBasic)) {
		e.Auth = oauth.AuthPost
	}
	return e, nil
}

// idTokenClaims are those that we read (OpenID Connect Core, section 2).
type idTokenClaims struct {
	Nonce    string         `json:"nonce"`
	AtHash   string         `json:"at_hash"`
	AZP      string         `json:"azp"`
	Name     string         `json:"name"`
	Email    string         `json:"email"`
	Verified jsontext.Value `json:"email_verified"`
	AuthTime int64          `json:"auth_time"`
	ACR      string         `json:"acr"`
	AMR      []string       `json:"amr"`
	SID      string         `json:"sid"`
}

// Read verifies the ID token that came with an access token, and says who it names. At a sign-in, nonce is the one that was
// sent; at a refresh it is "" and the token's is not looked at (OpenID Connect Core, sections 3.1.3.7 and 12.2).
func (p *IdP) Read(ctx context.Context, t oauth.Token, nonce string) (User, Authentication, error) {
	claims, err := jwt.Verify(ctx, t.IDToken.Expose(), p, jwt.Expect{Issuer: p.Issuer, Audiences: []string{p.ClientID},
		Types: []string{jwt.TypeJWT, ""}, ManyAudiences: true, Absent: []string{"events"}, Now: p.now(), Leeway: jwt.MaxLeeway})
	if err != nil {
		return User{}, Authentication{}, err
	}
	var k idTokenClaims
	var all map[string]jsontext.Value
	if claims.Decode(&k) != nil || claims.Decode(&all) != nil {
		return User{}, Authentication{}, errNotHere
	}
	if nonce != "" && !oauth.Same(nonce, k.Nonce) || (len(claims.Audience) > 1 || k.AZP != "") && k.AZP != p.ClientID {
		return User{}, Authentication{}, errOtherSignIn
	}
	if k.AtHash != "" { // whose access token it came with (section 3.1.3.8)
		if hash, err := jwt.TokenHash(claims.Alg, t.Access); err != nil || !oauth.Same(hash, k.AtHash) {
			return User{}, Authentication{}, errOtherSignIn
		}
	}
	subject, ok := stringClaim(all, p.SubjectClaim, "sub")
	groups, groupsOK := listClaim(all, p.GroupsClaim, "groups")
	if !ok || !groupsOK {
		return User{}, Authentication{}, fault.New(fault.Unauthenticated, "the ID token's subject or groups cannot be used; ask an operator to look at subject_claim and groups_claim", nil)
	}
	auth := Authentication{ACR: k.ACR, AMR: k.AMR}
	if len(k.SID) <= 255 {
		auth.SID = k.SID
	}
	if k.AuthTime != 0 {
		auth.Time = time.Unix(k.AuthTime, 0)
	}
	if groups == nil {
		groups = []string{} // no groups is a statement: what was there before is gone
	}
	return User{Tenant: p.Tenant, IDP: p.Name, Subject: subject, Name: k.Name, Email: email(k.Email, k.Verified), Groups: groups}, auth, nil
}

var errOtherSignIn = fault.New(fault.Unauthenticated, "the sign-in is the answer to another question; start again", nil)

// IdPs are the configured providers; the zero value has none.
type IdPs struct{ now atomic.Pointer[[]*IdP] }

// Use makes these the current ones.
func (s *IdPs) Use(l []*IdP) { s.now.Store(&l) }

// Of lists a tenant's providers, in the order of the config.
func (s *IdPs) Of(t Tenant) []*IdP {
	var l []*IdP
	if all := s.now.Load(); all != nil {
		for _, p := range *all {
			if p.Tenant == t {
				l = append(l, p)
			}
		}
	}
	return l
}

// Greet asks each provider for its metadata, so that an operator hears at the start that one is away and not from the first who
// cannot sign in. Nothing depends on it: the metadata is asked for again when it is needed.
func (s *IdPs) Greet(ctx context.Context) error {
	for _, p := range *s.now.Load() {
		if _, err := p.Metadata(ctx); err != nil && ctx.Err() == nil {
			p.log.Warn("the company's sign-in service does not answer, or not as it should: nobody can sign in until it does", "idp", p.Name, "issuer", p.Issuer, "error", err)
		}
	}
	return nil
}

// Get returns fault.NotFound for a name that the tenant doesn't have.
func (s *IdPs) Get(t Tenant, name string) (*IdP, error) {
	for _, p := range s.Of(t) {
		if p.Name == name {
			return p, nil
		}
	}
	return nil, fault.New(fault.NotFound, "no such sign-in service", nil)
}
