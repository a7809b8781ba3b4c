package catalog

import "time"

// Method is one configured way to obtain a credential.
type Method struct {
	Kind     MethodKind
	Client   string     // our client_id where the method redeems something; "" where it has none
	Auth     ClientAuth // how that client proves itself; "" is what the provider's facts say
	Settings Settings   // of the kinds that have some; nil for the others
}

// MethodKind names a way to obtain a credential.
type MethodKind string

const (
	AuthorizationCode MethodKind = "authorization_code" // a person connects, once
	DeviceCode        MethodKind = "device_code"        // a person enters a code at the vendor, in whatever browser he has, once
	APIKey            MethodKind = "api_key"            // a person pastes a key, once
	ClientCredentials MethodKind = "client_credentials" // shared: needs accept_risk

	// Federation: no person is asked, because the upstream believes somebody who knows him already.
	IDJAGMethod     MethodKind = "id_jag"
	TokenExchange   MethodKind = "token_exchange"
	JWTBearer       MethodKind = "jwt_bearer"
	GoogleWorkforce MethodKind = "google_workforce"
	EntraOBO        MethodKind = "entra_obo"
	AWSWebIdentity  MethodKind = "aws_web_identity"

	GitHubApp   MethodKind = "github_app"  // shared: an installation, narrowed
	ServiceKey  MethodKind = "service_key" // shared: a static key of the config
	Passthrough MethodKind = "passthrough" // the caller's own token goes on
)

// Shared reports whether the credential is not the caller's own, or his own and no other's to forward: such a method needs the
// operator's accept_risk.
func (k MethodKind) Shared() bool {
	return k == ClientCredentials || k == GitHubApp || k == ServiceKey || k == Passthrough
}

// Asks reports whether a person connects by it.
func (k MethodKind) Asks() bool { return k.Consents() || k == APIKey }

// Consents reports whether a person says yes at the vendor, which then gives tokens.
func (k MethodKind) Consents() bool { return k == AuthorizationCode || k == DeviceCode }

// ClientAuth is how our client proves itself to an upstream's authorization server.
type ClientAuth string

const (
	ClientBasic ClientAuth = "client_secret_basic"
	ClientPost  ClientAuth = "client_secret_post"
	ClientJWT   ClientAuth = "private_key_jwt" // with the keys that our JWKS publishes
	ClientNone  ClientAuth = "none"
)

// Subject says which token stands for the person at the other side. A caller who came with a token of the company's IdP is
// always stood for by that one.
type Subject string

const (
	SubjectID     Subject = "id_token"     // of the home credential
	SubjectAccess Subject = "access_token" // of the home credential
	SubjectSelf   Subject = "frontdesk"    // a JWT that we sign; our JWKS publishes the keys
)

// Settings are what one kind of method needs beside the upstream's facts. It is one of the structs below.
type Settings interface{ settings() }

// IDJAG asks the company's IdP for an identity assertion for the upstream's authorization server, and redeems it there
// (draft-ietf-oauth-identity-assertion-authz-grant).
type IDJAG struct {
	Issuer   string // of the upstream's authorization server; "": the one that Resource's metadata names
	Resource string // RFC 9728 identifier of the resource; "": none is named
	Subject  Subject
}

// Exchange swaps the person's token at the upstream's token endpoint (RFC 8693).
type Exchange struct {
	Endpoint  string // "": the provider's token endpoint
	Audience  string
	Resource  string
	Requested string // requested_token_type; "": the server's choice
	Subject   Subject
	Type      string // subject_token_type; "": what the subject is
	Actor     bool   // delegation: a JWT of ours that names the agent goes along as actor_token
}

// Assertion is a JWT bearer grant (RFC 7523), or a signed JWT that is the credential itself.
type Assertion struct {
	Endpoint string // "": the provider's token endpoint
	Audience string // aud of what we sign; "": Endpoint
	Issuer   string // iss of what we sign; "": our client_id, or our own issuer without one
	Person   string // claim of the person that becomes sub: subject, email, name, user
	KeyID    string // kid of the configured key; "" with our own keys
	Life     time.Duration
	Claims   map[string]string // further claims of what we sign
	Subject  Subject           // frontdesk: we sign; else the person's own token is the assertion
	Direct   bool              // what we sign is not redeemed: it is the credential
}

// Google is workforce identity federation: Google's STS, then a service account if one is named.
type Google struct {
	Audience       string // //iam.googleapis.com/locations/global/workforcePools/POOL/providers/PROVIDER
	Project        string // billed for the calls (userProject)
	ServiceAccount string // e-mail of the account to impersonate; "": the federated token itself
	Subject        Subject
	Groups         map[string][]string // scopes by group of the person, beside those that everybody gets
	STS, IAM       string              // base URLs
}

// Entra is the on-behalf-of flow: the person's access token for us becomes one for the upstream.
type Entra struct{ Endpoint string }

// AWS is AssumeRoleWithWebIdentity; requests are signed (SigV4) in place of a bearer token.
type AWS struct {
	Role     string // ARN
	Region   string // "": read from the host of each request
	Service  string // signing name; "": read from the host
	Policy   string // session policy (JSON) that narrows the role; "": none
	Duration time.Duration
	Audience string // aud of what we sign, for subject frontdesk
	Subject  Subject
	STS      string // base URL
}

// GitHub is a GitHub App's installation, narrowed.
type GitHub struct {
	Installation string
	Repositories []string          // none: all of the installation
	Permissions  map[string]string // none: all of the installation
	API          string            // base URL
}

// Forward is passthrough: the caller's own token of the company's IdP, whose audience must be this one.
type Forward struct{ Audience string }

func (*IDJAG) settings()     {}
func (*Exchange) settings()  {}
func (*Assertion) settings() {}
func (*Google) settings()    {}
func (*Entra) settings()     {}
func (*AWS) settings()       {}
func (*GitHub) settings()    {}
func (*Forward) settings()   {}
