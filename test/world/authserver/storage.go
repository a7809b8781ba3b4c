package authserver

import (
	"context"
	"crypto/subtle"
	"errors"
	"slices"
	"time"

	jose "github.com/go-jose/go-jose/v4"
	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
)

// requestLifetime is how long a person may take to sign in and consent.
const requestLifetime = 10 * time.Minute

// storage is the server as zitadel/oidc wants to see it.
type storage struct{ s *Server }

var (
	_ op.Storage                   = (*storage)(nil)
	_ op.CanSetUserinfoFromRequest = (*storage)(nil)
)

// authRequest is one visit to the authorization endpoint.
type authRequest struct {
	oidc.AuthRequest
	id       string
	subject  string // once signed in
	scopes   []string
	done     bool // signed in and, where asked, consented
	authTime time.Time
	expires  time.Time
	code     string
	family   *family // once the code was redeemed
}

func (r *authRequest) GetID() string                      { return r.id }
func (r *authRequest) GetACR() string                     { return "" }
func (r *authRequest) GetAMR() []string                   { return []string{"pwd"} }
func (r *authRequest) GetAudience() []string              { return []string{r.ClientID} }
func (r *authRequest) GetAuthTime() time.Time             { return r.authTime }
func (r *authRequest) GetClientID() string                { return r.ClientID }
func (r *authRequest) GetNonce() string                   { return r.Nonce }
func (r *authRequest) GetResponseMode() oidc.ResponseMode { return r.ResponseMode }
func (r *authRequest) GetScopes() []string                { return r.scopes }
func (r *authRequest) GetSubject() string                 { return r.subject }
func (r *authRequest) Done() bool                         { return r.done }
func (r *authRequest) GetCodeChallenge() *oidc.CodeChallenge {
	return &oidc.CodeChallenge{Challenge: r.CodeChallenge, Method: r.CodeChallengeMethod}
}

// CreateAuthRequest takes a request whose client and redirect URI were checked, and adds what zitadel/oidc leaves open
// for a confidential client: no code without PKCE by S256 (RFC 9700 section 2.1.1).
func (st *storage) CreateAuthRequest(_ context.Context, req *oidc.AuthRequest, _ string) (op.AuthRequest, error) {
	if req.CodeChallenge == "" {
		return nil, oidc.ErrInvalidRequest().WithDescription("code_challenge is required")
	}
	if req.CodeChallengeMethod != oidc.CodeChallengeMethodS256 {
		return nil, oidc.ErrInvalidRequest().WithDescription("code_challenge_method must be S256")
	}
	if slices.Contains(req.Prompt, oidc.PromptNone) {
		return nil, oidc.ErrLoginRequired()
	}
	s := st.s
	s.mu.Lock()
	defer s.mu.Unlock()
	r := &authRequest{AuthRequest: *req, id: random(), scopes: slices.Clone(req.Scopes), expires: s.cfg.Now().Add(requestLifetime)}
	s.requests[r.id] = r
	return r, nil
}

var errNoRequest = errors.New("this sign-in is not known here, or took too long: start again where you came from")

func (s *Server) request(id string) (*authRequest, error) {
	r, ok := s.requests[id]
	if !ok || s.cfg.Now().After(r.expires) {
		return nil, errNoRequest
	}
	return r, nil
}

func (st *storage) AuthRequestByID(_ context.Context, id string) (op.AuthRequest, error) {
	st.s.mu.Lock()
	defer st.s.mu.Unlock()
	r, err := st.s.request(id)
	if err != nil {
		return nil, err // not r: a nil *authRequest in the interface would pass for one
	}
	return r, nil
}

func (st *storage) SaveAuthCode(_ context.Context, id, code string) error {
	st.s.mu.Lock()
	defer st.s.mu.Unlock()
	r, err := st.s.request(id)
	if err != nil {
		return err
	}
	if r.code != "" {
		return oidc.ErrInvalidRequest().WithDescription("a code was given out for this sign-in already")
	}
	r.code = code
	st.s.codes[code] = r
	return nil
}

func (st *storage) AuthRequestByCode(_ context.Context, code string) (op.AuthRequest, error) {
	st.s.mu.Lock()
	defer st.s.mu.Unlock()
	r, ok := st.s.codes[code]
	if !ok || st.s.cfg.Now().After(r.expires) {
		return nil, errors.New("no such code")
	}
	if r.family != nil {
		st.s.end(r.family)
		return nil, errors.New("the code was used before")
	}
	if a := st.s.users[r.subject]; a == nil || a.dismissed {
		return nil, errors.New("no such user any more")
	}
	return r, nil
}

// DeleteAuthRequest keeps the request: its code must be recognised when somebody uses it again.
func (st *storage) DeleteAuthRequest(context.Context, string) error { return nil }

func (st *storage) CreateAccessToken(_ context.Context, request op.TokenRequest) (string, time.Time, error) {
	st.s.mu.Lock()
	defer st.s.mu.Unlock()
	f, scopes, err := st.s.familyOf(request)
	if err != nil {
		return "", time.Time{}, err
	}
	id, expires := st.s.newAccess(f, scopes)
	return id, expires, nil
}

func (st *storage) CreateAccessAndRefreshTokens(_ context.Context, request op.TokenRequest, current string) (string, string, time.Time, error) {
	st.s.mu.Lock()
	defer st.s.mu.Unlock()
	f, scopes, err := st.s.familyOf(request)
	if err != nil {
		return "", "", time.Time{}, err
	}
	var next string
	if current == "" {
		next = st.s.newRefresh(f)
	} else if next, err = st.s.redeem(current); err != nil {
		return "", "", time.Time{}, err
	}
	id, expires := st.s.newAccess(f, scopes)
	return id, next, expires, nil
}

func (st *storage) TokenRequestByRefreshToken(_ context.Context, value string) (op.RefreshTokenRequest, error) {
	st.s.mu.Lock()
	defer st.s.mu.Unlock()
	t, err := st.s.redeemable(value)
	if err != nil {
		return nil, err
	}
	return &refreshRequest{family: t.family, asked: t.family.scopes}, nil
}

func (st *storage) TerminateSession(_ context.Context, user, _ string) error {
	return st.s.SignOut(user)
}

func (st *storage) GetRefreshTokenInfo(_ context.Context, _, token string) (string, string, error) {
	st.s.mu.Lock()
	defer st.s.mu.Unlock()
	t, ok := st.s.refresh[token]
	if !ok {
		return "", "", op.ErrInvalidRefreshToken
	}
	return t.family.subject, token, nil
}

// RevokeToken ends one access token, or with a refresh token everything of its family (RFC 7009 section 2.1).
func (st *storage) RevokeToken(_ context.Context, token, _, client string) *oidc.Error {
	st.s.mu.Lock()
	defer st.s.mu.Unlock()
	if t, ok := st.s.refresh[token]; ok && t.family.client == client {
		st.s.end(t.family)
	}
	if t, ok := st.s.access[token]; ok && t.family.client == client {
		t.ended = true
	}
	return nil
}

func (st *storage) GetClientByClientID(_ context.Context, id string) (op.Client, error) {
	st.s.mu.Lock()
	defer st.s.mu.Unlock()
	c, ok := st.s.clients[id]
	if !ok {
		return nil, errors.New("no such client")
	}
	return &client{Client: c, s: st.s}, nil
}

func (st *storage) AuthorizeClientIDSecret(_ context.Context, id, secret string) error {
	st.s.mu.Lock()
	defer st.s.mu.Unlock()
	c, ok := st.s.clients[id]
	if !ok || c.Secret == "" || subtle.ConstantTimeCompare([]byte(c.Secret), []byte(secret)) != 1 {
		return errors.New("wrong client id or secret")
	}
	return nil
}

// SetUserinfoFromScopes is asked first for an ID token; SetUserinfoFromRequest does the work.
func (st *storage) SetUserinfoFromScopes(context.Context, *oidc.UserInfo, string, string, []string) error {
	return nil
}

// SetUserinfoFromRequest fills an ID token. zitadel/oidc takes the subject from here too.
func (st *storage) SetUserinfoFromRequest(_ context.Context, info *oidc.UserInfo, request op.IDTokenRequest, _ []string) error {
	st.s.mu.Lock()
	defer st.s.mu.Unlock()
	return st.s.describe(info, request.GetSubject(), request.GetScopes())
}

func (st *storage) SetUserinfoFromToken(_ context.Context, info *oidc.UserInfo, tokenID, _, _ string) error {
	st.s.mu.Lock()
	defer st.s.mu.Unlock()
	t, ok := st.s.access[tokenID]
	if !ok || t.ended || !st.s.cfg.Now().Before(t.expires) {
		return errors.New("the access token is not good any more")
	}
	return st.s.describe(info, t.family.subject, t.scopes)
}

func (s *Server) describe(info *oidc.UserInfo, subject string, scopes []string) error {
	a, ok := s.users[subject]
	if !ok || a.dismissed {
		return errors.New("no such user any more")
	}
	info.Subject = subject
	if slices.Contains(scopes, oidc.ScopeProfile) {
		info.PreferredUsername, info.Name = a.Name, a.FullName
	}
	if slices.Contains(scopes, oidc.ScopeEmail) {
		info.Email, info.EmailVerified = a.Email, true
	}
	if len(a.Groups) > 0 {
		info.AppendClaims("groups", a.Groups)
	}
	return nil
}

func (st *storage) SetIntrospectionFromToken(_ context.Context, in *oidc.IntrospectionResponse, tokenID, _, client string) error {
	st.s.mu.Lock()
	defer st.s.mu.Unlock()
	t, ok := st.s.access[tokenID]
	if !ok || t.ended || t.family.client != client || !st.s.cfg.Now().Before(t.expires) {
		return errors.New("not active")
	}
	in.Subject, in.ClientID, in.Scope = t.family.subject, client, t.scopes
	in.Expiration = oidc.FromTime(t.expires)
	return nil
}

func (st *storage) GetPrivateClaimsFromScopes(context.Context, string, string, []string) (map[string]any, error) {
	return nil, nil
}

func (st *storage) GetKeyByIDAndClientID(context.Context, string, string) (*jose.JSONWebKey, error) {
	return nil, errors.New("clients have no keys here")
}

func (st *storage) ValidateJWTProfileScopes(context.Context, string, []string) ([]string, error) {
	return nil, errors.New("no JWT grants here")
}

func (st *storage) Health(context.Context) error { return nil }

// client is a Client as zitadel/oidc wants to see it.
type client struct {
	Client
	s *Server
}

func (c *client) GetID() string                    { return c.ID }
func (c *client) RedirectURIs() []string           { return c.Client.RedirectURIs }
func (c *client) PostLogoutRedirectURIs() []string { return nil }
func (c *client) ResponseTypes() []oidc.ResponseType {
	return []oidc.ResponseType{oidc.ResponseTypeCode}
}
func (c *client) LoginURL(id string) string           { return "/login?id=" + id }
func (c *client) AccessTokenType() op.AccessTokenType { return op.AccessTokenTypeBearer }
func (c *client) IDTokenLifetime() time.Duration      { return c.s.cfg.AccessLifetime + c.s.shift() }
func (c *client) DevMode() bool                       { return true } // http redirect URIs; they are compared exactly all the same
func (c *client) IsScopeAllowed(scope string) bool    { return c.s.scopeKnown(scope) }
func (c *client) ClockSkew() time.Duration            { return 0 }

// ApplicationType is always web: for native clients zitadel/oidc compares loopback redirects without their port.
func (c *client) ApplicationType() op.ApplicationType { return op.ApplicationTypeWeb }

func (c *client) AuthMethod() oidc.AuthMethod {
	if c.Secret == "" {
		return oidc.AuthMethodNone
	}
	return oidc.AuthMethodBasic
}

func (c *client) GrantTypes() []oidc.GrantType {
	return []oidc.GrantType{oidc.GrantTypeCode, oidc.GrantTypeRefreshToken}
}

// IDTokenUserinfoClaimsAssertion puts name and mail into the ID token, where Frontdesk reads them.
func (c *client) IDTokenUserinfoClaimsAssertion() bool { return true }

func (c *client) RestrictAdditionalIdTokenScopes() func([]string) []string {
	return func(scopes []string) []string { return scopes }
}

func (c *client) RestrictAdditionalAccessTokenScopes() func([]string) []string {
	return func(scopes []string) []string { return scopes }
}
