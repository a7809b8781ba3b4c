package oauth

import (
	"context"
	"net/url"
	"time"

	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/kit/secret"
)

// Token types of a token exchange (RFC 8693 section 3, and the drafts that add to it).
const (
	TokenTypeAccess = "urn:ietf:params:oauth:token-type:access_token"
	TokenTypeID     = "urn:ietf:params:oauth:token-type:id_token"
	TokenTypeJWT    = "urn:ietf:params:oauth:token-type:jwt"
	TokenTypeIDJAG  = "urn:ietf:params:oauth:token-type:id-jag"
)

const assertionType = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

// notAccess is the token_type of what is no access token (RFC 8693 section 2.2.1).
const notAccess = "N_A"

// ExchangeGrant asks for another token in place of the subject's (RFC 8693 section 2.1).
type ExchangeGrant struct {
	Subject     secret.Text
	SubjectType string
	Actor       secret.Text // zero: impersonation
	ActorType   string
	Requested   string // requested_token_type; "": the server's choice. What came must be of this type
	Audiences   []string
	Resources   []string // RFC 8707
	Scopes      []string
	Extra       map[string]string // a vendor's own parameters, as Google's options
}

// ExchangeToken makes a token exchange. Of a Requested type that is no access token, Token.Access is that token. Errors as
// Exchange; an answer of another type than was asked for is Unavailable.
func (c Client) ExchangeToken(ctx context.Context, e Endpoint, g ExchangeGrant) (Token, error) {
	params := url.Values{"grant_type": {GrantTokenExchange}, "subject_token": {g.Subject.Expose()}, "subject_token_type": {g.SubjectType}}
	if !g.Actor.IsZero() {
		params.Set("actor_token", g.Actor.Expose())
		params.Set("actor_token_type", g.ActorType)
	}
	if g.Requested != "" {
		params.Set("requested_token_type", g.Requested)
		if g.Requested != TokenTypeAccess {
			e.TokenTypes = []string{notAccess}
		}
	}
	for _, a := range g.Audiences {
		params.Add("audience", a)
	}
	if len(g.Scopes) > 0 {
		params.Set("scope", JoinScopes(g.Scopes, e.ScopeSeparator))
	}
	if err := merge(params, g.Extra); err != nil {
		return Token{}, err
	}
	t, err := c.token(ctx, e, params, g.Resources)
	if err == nil && g.Requested != "" && t.Issued != "" && t.Issued != g.Requested {
		return Token{}, fault.New(fault.Unavailable, hostOf(e.URL)+" gave a token of another type than was asked for; ask your operator", nil)
	}
	return t, err
}

// AssertionGrant redeems a signed statement about a person (RFC 7523 section 2.1).
type AssertionGrant struct {
	Assertion secret.Text
	Scopes    []string
	Resources []string
	Extra     map[string]string // a vendor's own parameters, as Entra's requested_token_use
}

// Assertion redeems a JWT bearer assertion. Errors as Exchange.
func (c Client) Assertion(ctx context.Context, e Endpoint, g AssertionGrant) (Token, error) {
	params := url.Values{"grant_type": {GrantJWTBearer}, "assertion": {g.Assertion.Expose()}}
	if len(g.Scopes) > 0 {
		params.Set("scope", JoinScopes(g.Scopes, e.ScopeSeparator))
	}
	if err := merge(params, g.Extra); err != nil {
		return Token{}, err
	}
	return c.token(ctx, e, params, g.Resources)
}

// UnverifiedClaims are what a client looks at in a token that it was given and does not verify: who else could tell is whoever
// takes the token. Zero where the token is no JWT, or does not say.
type UnverifiedClaims struct {
	Audience []string
	ClientID string
	Expires  time.Time
}

// PeekJWT reads them. Nothing that protects anybody may depend on it.
func PeekJWT(token string) (UnverifiedClaims, bool) {
	doc := unverifiedClaims(token)
	if doc == nil {
		return UnverifiedClaims{}, false
	}
	var c UnverifiedClaims
	switch aud := at(doc, "/aud").(type) {
	case string:
		c.Audience = []string{aud}
	case []any:
		for _, v := range aud {
			if s, ok := v.(string); ok {
				c.Audience = append(c.Audience, s)
			}
		}
	}
	c.ClientID, _ = at(doc, "/client_id").(string)
	if exp, ok := secondsUpTo(at(doc, "/exp"), maxUnix); ok {
		c.Expires = time.Unix(int64(exp), 0)
	}
	return c, true
}

func hostOf(endpoint string) string {
	if u, err := url.Parse(endpoint); err == nil && u.Host != "" {
		return u.Host
	}
	return "the vendor"
}
