package catalog

import "frontdesk.dev/frontdesk/internal/kit/oauth"

// Provider holds the facts of one vendor: data that a person can review, and override in the config.
// A field that is empty says that the vendor has no such thing.
type Provider struct {
	ID       string   `yaml:"id"`
	Name     string   `yaml:"name"`     // as people know it
	Docs     string   `yaml:"docs"`     // where these facts were read
	Hosts    []string `yaml:"hosts"`    // hosts of the API, the default first
	Console  string   `yaml:"console"`  // where an operator registers an OAuth app
	LowTrust []string `yaml:"unproven"` // fields that were not seen in a source

	// Inputs are what an operator fills in, as {name} in hosts and endpoints: a self-hosted vendor's host, a tenant.
	Inputs map[string]Input `yaml:"inputs"`

	OAuth  *ProviderOAuth  `yaml:"oauth"`
	APIKey *ProviderAPIKey `yaml:"api_key"`

	Account   Account           `yaml:"account"`
	Injection Injection         `yaml:"injection"`
	Headers   map[string]string `yaml:"headers"` // sent with each of our own requests to the API
	// EncodedSlash lets %2F stand in a path segment, because the vendor's ids hold slashes. A policy sees it as it is.
	EncodedSlash bool              `yaml:"encoded_slash"`
	WebSocket    bool              `yaml:"websocket"`    // the API has WebSockets: upgrades are let through
	TokenShapes  []string          `yaml:"token_shapes"` // regular expressions; what matches is refused at the gateway
	Scopes       map[string]string `yaml:"scopes"`       // scope -> what it lets an agent do, in words
}

// Input is a value that an upstream's entry in the config gives. Its pattern is a security control: what it lets through
// becomes a host that credentials are sent to.
type Input struct {
	Pattern string `yaml:"pattern"` // anchored regular expression
	Default string `yaml:"default"`
}

// ProviderOAuth is how the vendor's authorization server differs from the standard.
type ProviderOAuth struct {
	Issuer        string            `yaml:"issuer"`       // checked against `iss` where the vendor sends one
	IssPromised   bool              `yaml:"iss_promised"` // the vendor always sends `iss` (RFC 9207)
	Authorization string            `yaml:"authorization_endpoint"`
	Token         string            `yaml:"token_endpoint"`
	Revocation    string            `yaml:"revocation_endpoint"` // RFC 7009
	TokenAuth     string            `yaml:"token_auth"`          // basic, post, none
	TokenRequest  string            `yaml:"token_request"`       // form (default) or json
	Separator     string            `yaml:"scope_separator"`     // default: space
	ScopeParam    string            `yaml:"scope_param"`         // default: scope
	Authorize     map[string]string `yaml:"authorize_params"`
	TokenParams   map[string]string `yaml:"token_params"`
	Response      TokenResponse     `yaml:"token_response"`
	Refresh       Refresh           `yaml:"refresh"`
	NoPKCE        bool              `yaml:"no_pkce"` // the vendor refuses code_challenge
}

// TokenResponse says where the parts of a token answer are, as JSON pointers; empty = the standard place.
type TokenResponse struct {
	Access         string            `yaml:"access_token"`
	Refresh        string            `yaml:"refresh_token"`
	Expires        string            `yaml:"expires_in"`
	Scope          string            `yaml:"scope"`
	ScopeSeparator string            `yaml:"scope_separator"`
	ExpiresAt      string            `yaml:"expires_at"`
	Error          string            `yaml:"error"`         // default /error; looked at under any status
	ErrorCodes     map[string]string `yaml:"error_codes"`   // the vendor's codes in RFC 6749's words
	TokenTypes     []string          `yaml:"token_types"`   // besides Bearer
	ZeroIsNever    bool              `yaml:"zero_is_never"` // expires_in 0: does not expire
}

// Rotation is what the vendor does with a refresh token that was used.
type Rotation string

const (
	RotationStrict Rotation = "strict" // zero value "" means strict too: the careful assumption
	RotationGrace  Rotation = "grace"  // the old one works again within GraceSeconds
	RotationNone   Rotation = "none"
)

// Refresh holds the refresh rules of the vendor.
type Refresh struct {
	Rotation          Rotation `yaml:"rotation"`
	GraceSeconds      int      `yaml:"grace_seconds"`
	ScopeNeeded       string   `yaml:"scope_needed"`        // requested so that a refresh token is issued
	OldAccessSurvives bool     `yaml:"old_access_survives"` // the old access token outlives a refresh
}

// ProviderAPIKey is how a person gets a key, and how it travels where that differs from Injection.
type ProviderAPIKey struct {
	Where     string     `yaml:"where"` // in words
	URL       string     `yaml:"url"`
	Injection *Injection `yaml:"injection"`
}

// Account says how to find whose credential it is; the same call tests a pasted key.
type Account struct {
	URL   string `yaml:"url"`     // GET, absolute or a path on the first host
	Label string `yaml:"pointer"` // JSON pointer to the name that the person knows
	ID    string `yaml:"id_pointer"`
}

// Injection says where the credential goes on a request.
type Injection struct {
	Kind   string `yaml:"kind"`   // header (default), basic, query
	Name   string `yaml:"name"`   // header or query parameter; default Authorization
	Format string `yaml:"format"` // default "Bearer {token}"
}

// Endpoint spells the vendor's token endpoint for kit/oauth, without our registration there.
func (o *ProviderOAuth) Endpoint() oauth.Endpoint {
	e := oauth.Endpoint{URL: o.Token, Auth: oauth.AuthPost, Request: oauth.Body(o.TokenRequest), ExtraParams: o.TokenParams,
		ScopeSeparator: o.Separator, ScopeResponseSeparator: o.Response.ScopeSeparator, ZeroIsNever: o.Response.ZeroIsNever, ErrorCodes: o.Response.ErrorCodes,
		TokenTypes: o.Response.TokenTypes,
		Answer: oauth.Pointers{AccessToken: o.Response.Access, RefreshToken: o.Response.Refresh, ExpiresIn: o.Response.Expires, ExpiresAt: o.Response.ExpiresAt,
			Scope: o.Response.Scope, Error: o.Response.Error}}
	switch o.TokenAuth {
	case "basic":
		e.Auth = oauth.AuthBasic
	case "none":
		e.Auth = oauth.AuthNone
	}
	return e
}

// RefreshScope adds the scope without which the vendor gives no refresh token.
func (o *ProviderOAuth) RefreshScope(scopes []string) []string {
	if o.Refresh.ScopeNeeded == "" {
		return scopes
	}
	return oauth.UnionScopes(scopes, []string{o.Refresh.ScopeNeeded})
}
