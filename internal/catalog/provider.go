package catalog

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"frontdesk.dev/frontdesk/internal/kit/dpop"
	"frontdesk.dev/frontdesk/internal/kit/oauth"
	"frontdesk.dev/frontdesk/internal/kit/secret"
)

// Provider holds the facts of one vendor: data that a person can review, and override in the config.
// A field that is empty says that the vendor has no such thing.
type Provider struct {
	ID       string   `yaml:"id" doc:"short name; in a config the key above it"`
	Like     string   `yaml:"like" doc:"in a config: a built-in entry, whose facts count where this one says nothing; of oauth, account and other mappings of this manual each key by itself, lists and names as a whole"`
	Name     string   `yaml:"name" doc:"as people know it"`
	Docs     string   `yaml:"docs" doc:"where these facts were read"`
	Hosts    []string `yaml:"hosts" doc:"hosts of the API, the default first"`
	Console  string   `yaml:"console" doc:"where an operator registers an OAuth app"`
	LowTrust []string `yaml:"unproven" doc:"fields that were not seen in a source"`

	Inputs map[string]Input `yaml:"inputs" doc:"what an upstream fills in, as {name} in hosts and endpoints: a self-hosted vendor's host, a tenant"`

	OAuth      *ProviderOAuth  `yaml:"oauth" doc:"its authorization server"`
	APIKey     *ProviderAPIKey `yaml:"api_key" doc:"how people paste a key"`
	Federation []MethodKind    `yaml:"federation" doc:"methods by which the vendor takes somebody else's word for a person"`

	Sites        *Sites            `yaml:"sites" doc:"how the site of each person's account is learned, where an upstream leaves that to the connection (site: connection)"`
	Signals      []Signal          `yaml:"signals" doc:"answers of the API that have another cure than trying again; the first that fits counts, and after them what RFC 6750 says"`
	Hints        []Hint            `yaml:"hints" doc:"failures that the API is known for, and what an agent can do about each; the first that fits counts"`
	Quotas       []Quota           `yaml:"quotas" doc:"how answers say what is left of the vendor's own limits; default: RateLimit, RateLimit-*, X-RateLimit-* and X-Rate-Limit-*, of each person"`
	Retries      Retries           `yaml:"retries" doc:"which requests the vendor asks to send again when they fail; without it none is"`
	Account      Account           `yaml:"account" doc:"how to find whose credential it is; the same call tests a new one"`
	Injection    Injection         `yaml:"injection" doc:"where the credential goes on a request"`
	Headers      map[string]string `yaml:"headers" doc:"sent with each of our own requests to the API"`
	EncodedSlash bool              `yaml:"encoded_slash" doc:"let %2F stand in a path segment, because the ids of this vendor hold slashes; a policy sees it as it is"`
	Egress       ProviderEgress    `yaml:"egress" doc:"how servers speak to the API"`
	TokenShapes  []string          `yaml:"token_shapes" doc:"regular expressions; what matches is refused at the gateway"`
	Scopes       map[string]string `yaml:"scopes" doc:"scope -> what it lets an agent do, in words"`
}

// Input is a value that an upstream's entry in the config gives. Its pattern is a security control: what it lets through
// becomes a host that credentials are sent to.
type Input struct {
	Pattern string `yaml:"pattern" doc:"regular expression from ^ to $. A security control: what it lets through becomes a host that credentials are sent to"`
	Default string `yaml:"default" doc:"the value where none is given"`
	// Optional inputs may stay empty: what needs them is left out.
	Optional bool `yaml:"optional" doc:"may stay empty: what needs it is left out then"`
}

// Quota is how answers say what is left of one of the vendor's limits. Retry-After is read without it.
type Quota struct {
	Remaining string `yaml:"remaining" doc:"header with the number of requests that are left"`
	Reset     string `yaml:"reset" doc:"header that says when it is renewed: seconds from now, a time since 1970 in seconds or milliseconds, a date, or a duration as 6m0s"`
	Every     int    `yaml:"every" doc:"seconds after which it is renewed, where no header says so"`
	Per       Per    `yaml:"per" doc:"whose it is: user (default), or all: everybody's who is connected here; then nobody gets more than a share of it (share of the upstream)"`
}

// Per says whose a quota is.
type Per string

const (
	PerUser Per = "user" // zero value "" means it too
	PerAll  Per = "all"
)

// Retries are the vendor's own word that a request which failed may be sent again.
type Retries struct {
	Status []int  `yaml:"status" doc:"answers after which to try again: some of 429, 502, 503, 504. With one of the last three also where the connection broke off before an answer"`
	Key    string `yaml:"idempotency_key" doc:"header by which the vendor knows a request that comes twice: with it, requests that change something may be sent again too"`
}

// ProviderEgress is how servers speak to the vendor's API, where that is not how everybody does.
type ProviderEgress struct {
	WebSocket   bool            `yaml:"websocket" doc:"the API has WebSockets: connections may be upgraded"`
	H2C         bool            `yaml:"h2c" doc:"its http hosts speak HTTP/2 without TLS, from the first byte, as gRPC does"`
	Aliases     []ProviderAlias `yaml:"aliases" doc:"hosts that servers call, whose requests are sent elsewhere"`
	TokenIn     TokenPlaces     `yaml:"token_in" doc:"further places where servers put their token, and so the keycard"`
	GraphQL     []string        `yaml:"graphql" doc:"paths at which the API takes GraphQL; default /graphql and /api/graphql"`
	TicketShape string          `yaml:"ticket_shape" doc:"what a keycard looks like for servers that check their token's shape, as ghp_{36}: {n} letters and digits, {dn} digits, {xn} hexadecimal digits"`
}

// ProviderAlias sends what is addressed to a host to another URL, with the path behind it. Both may hold inputs; where an
// optional input is not given, the alias does not exist.
type ProviderAlias struct {
	Host string `yaml:"host" doc:"as servers call it"`
	To   string `yaml:"to" doc:"URL whose host is one of the API's; the path of the request is put behind its own"`
}

// TokenPlaces are names of places in a request, beside Authorization and where the credential itself goes.
type TokenPlaces struct {
	Headers   []string       `yaml:"headers" doc:"headers"`
	Query     []string       `yaml:"query" doc:"parameters of the query"`
	Form      []string       `yaml:"form" doc:"fields of a form; of one with files (multipart/form-data) the field has to stand before them"`
	JSON      []string       `yaml:"json" doc:"JSON pointers to members of JSON bodies of 1 MiB at most, as /api_key; beside a header, where servers send both"`
	Protocols []string       `yaml:"protocols" doc:"subprotocols that a WebSocket offers, as openai-insecure-api-key.{token}; the credential goes there too"`
	Messages  []MessagePlace `yaml:"messages" doc:"first messages of WebSockets that come without a token; the credential goes there too"`
}

// MessagePlace is where a token stands in the first message of a WebSocket, which is JSON. No connection to the API is opened before
// that message is there. Where servers wait for the API to speak first, Frontdesk says in its place what Greeting is.
type MessagePlace struct {
	Host       string `yaml:"host" doc:"of the API; default: any"`
	Token      string `yaml:"token" doc:"JSON pointer to the token, which may have a scheme before it, as in Bearer"`
	Greeting   string `yaml:"greeting" doc:"JSON that the API says first, where servers wait for it: it is said in the API's place, and the API's own is dropped"`
	GreetingAt string `yaml:"greeting_at" doc:"JSON pointer to what tells the API's greeting from other messages: it is the same in both"`
}

// ProviderOAuth is how the vendor's authorization server differs from the standard.
type ProviderOAuth struct {
	Issuer        string            `yaml:"issuer" doc:"checked against iss where the vendor sends one"`
	IssPromised   bool              `yaml:"iss_promised" doc:"the vendor always sends iss (RFC 9207)"`
	Authorization string            `yaml:"authorization_endpoint" doc:"where the browser is sent"`
	Token         string            `yaml:"token_endpoint" doc:"where codes and refresh tokens are redeemed"`
	Refreshing    string            `yaml:"refresh_endpoint" doc:"where refresh tokens are redeemed instead, then without grant_type"`
	Pushed        string            `yaml:"par_endpoint" doc:"where authorization requests are pushed to (RFC 9126); each is, where it is given"`
	Device        DeviceFacts       `yaml:"device" doc:"where a code is had that people enter at the vendor (RFC 8628)"`
	Revocation    string            `yaml:"revocation_endpoint" doc:"RFC 7009, or the vendor's own call, which revocation describes; {client_id} stands for ours"`
	Revoke        Revoke            `yaml:"revocation" doc:"how revocation_endpoint differs from RFC 7009"`
	TokenAuth     string            `yaml:"token_auth" doc:"basic, post, none, private_key_jwt, or secret_user: the secret is the user of Basic"`
	TokenHeaders  map[string]string `yaml:"token_headers" doc:"sent with each token and revocation request"`
	TokenRequest  string            `yaml:"token_request" doc:"form (default) or json"`
	Separator     string            `yaml:"scope_separator" doc:"default: space"`
	ScopeParam    string            `yaml:"scope_param" doc:"default: scope; none: the vendor takes no scopes here"`
	Authorize     map[string]string `yaml:"authorize_params" doc:"sent with the browser"`
	Another       map[string]string `yaml:"another_params" doc:"sent with the browser, in the place of what authorize_params says, where no connected account is meant: so that the vendor asks which"`
	TokenParams   map[string]string `yaml:"token_params" doc:"sent with each token request"`
	Response      TokenResponse     `yaml:"token_response" doc:"where the parts of a token answer are, as JSON pointers"`
	Refresh       Refresh           `yaml:"refresh" doc:"how refresh tokens behave"`
	Resource      string            `yaml:"resource" doc:"resource that every request names (RFC 8707)"`
	Offered       []string          `yaml:"default_scopes" doc:"asked for where neither upstream nor server name scopes; who gives fewer is not asked again"`
	Beside        []string          `yaml:"account_scopes" doc:"asked for beside all others, because account.url wants them; who does not give them is connected all the same, and nobody knows whose account it is"`
	NoPKCE        bool              `yaml:"no_pkce" doc:"the vendor refuses code_challenge"`
	DPoP          string            `yaml:"dpop" doc:"always: tokens are bound to a key of their connection, and each request proves it (RFC 9449); never; default: where the resource's own metadata ask for it, if any are read"`
	CallbackMAC   string            `yaml:"callback_mac" doc:"parameter of the callback that is the hexadecimal HMAC-SHA256, by the client's secret, of all others"`
	Confirm       []Confirm         `yaml:"confirm" doc:"what must come back from a consent, so that an account of another site than the configured one is refused"`
}

// Confirm is a value of a callback or a token answer that must be what the config says. It is a security control where the value
// names a host: a credential goes to the configured one or nowhere. A value that did not come is not compared.
type Confirm struct {
	Param   string `yaml:"param" doc:"parameter of the callback"`
	Pointer string `yaml:"pointer" doc:"or JSON pointer into the token answer"`
	Is      string `yaml:"is" doc:"what it must be, with {input}s filled in"`
}

// Elsewhere reports whether a token answer is about an account of another site than the configured one; at reads it.
func (o *ProviderOAuth) Elsewhere(at func(pointer string) (string, bool)) bool {
	return slices.ContainsFunc(o.Confirm, func(c Confirm) bool {
		v, ok := at(c.Pointer)
		return c.Pointer != "" && ok && v != c.Is
	})
}

// DeviceFacts is how the vendor starts a device grant.
type DeviceFacts struct {
	Authorization string `yaml:"authorization_endpoint" doc:"where the code is had; empty: the vendor has no such grant"`
	Client        string `yaml:"client" doc:"what proves our client there: as at the token endpoint (default), or none: its id alone, as several vendors want it"`
}

// Revoke is how the vendor's call that ends a token differs from RFC 7009.
type Revoke struct {
	Method string            `yaml:"method" doc:"POST (default) or DELETE"`
	Auth   string            `yaml:"auth" doc:"client (default: as at the token endpoint), basic, bearer (the token itself) or none"`
	Body   string            `yaml:"body" doc:"form, json or none; default: as at the token endpoint"`
	Token  string            `yaml:"token" doc:"access, or refresh (default: that one where there is one)"`
	Params map[string]string `yaml:"params" doc:"the body; {token}, {client_id} and {client_secret} are filled in; default: as in RFC 7009"`
	Shared Shared            `yaml:"shared" doc:"what ends with it: grant (the person's other connections through the same OAuth client: not called while there is one), everybody (other people's too: never called for one of them); default: nothing"`
	ByHand string            `yaml:"by_hand" doc:"where at the vendor a person ends it himself"`
}

// Shared is what else ends when the vendor ends one token.
type Shared string

const (
	SharedNothing   Shared = ""
	SharedGrant     Shared = "grant"
	SharedEverybody Shared = "everybody"
)

// TokenResponse says where the parts of a token answer are, as JSON pointers; empty = the standard place.
type TokenResponse struct {
	Access         string            `yaml:"access_token" doc:"default /access_token"`
	Refresh        string            `yaml:"refresh_token" doc:"default /refresh_token"`
	Expires        string            `yaml:"expires_in" doc:"default /expires_in: seconds"`
	Scope          string            `yaml:"scope" doc:"default /scope"`
	ScopeSeparator string            `yaml:"scope_separator" doc:"default: space"`
	ExpiresAt      string            `yaml:"expires_at" doc:"where the vendor gives a time instead"`
	Error          string            `yaml:"error" doc:"default /error; looked at under any status"`
	ErrorCodes     map[string]string `yaml:"error_codes" doc:"the vendor's codes in RFC 6749's words"`
	TokenTypes     []string          `yaml:"token_types" doc:"besides Bearer"`
	ZeroIsNever    bool              `yaml:"zero_is_never" doc:"expires_in 0: does not expire"`
	ExpiresFromJWT string            `yaml:"expires_from_jwt" doc:"claim of the access token that holds its end, where the answer does not"`
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
	By                string    `yaml:"by" doc:"grant_type by which an access token renews itself, where there are no refresh tokens, and the parameter that carries it, as fb_exchange_token; what a code brings is renewed at once"`
	Rotation          Rotation  `yaml:"rotation" doc:"strict (default: a used one is dead), grace, none"`
	GraceSeconds      int       `yaml:"grace_seconds" doc:"for how long a used one works again"`
	ScopeNeeded       string    `yaml:"scope_needed" doc:"requested so that a refresh token is issued"`
	RedirectURI       bool      `yaml:"redirect_uri" doc:"the request repeats redirect_uri"`
	OldAccessSurvives bool      `yaml:"old_access_survives" doc:"the old access token outlives a refresh"`
	LifetimeDays      int       `yaml:"lifetime_days" doc:"a refresh token ends so long after the consent, whatever is done; 0: it does not, or nobody knows"`
	IdleDays          int       `yaml:"idle_days" doc:"it ends so long after it was last used or replaced; 0: it does not, or nobody knows"`
	SiblingLock       Siblings  `yaml:"sibling_lock" doc:"connection (default), or app+user: all that a person has through one OAuth client is renewed one after the other"`
	Expired           []Expired `yaml:"expired" doc:"answers of the API that call a token expired; none: as RFC 6750 says it"`
}

// Siblings says which connections a refresh of one may disturb.
type Siblings string

const (
	SiblingConnection Siblings = "connection" // none but itself; the zero value means it too
	SiblingAppUser    Siblings = "app+user"   // all that a person has through one OAuth client: they are renewed one after the other
)

// Expired is how an API says that the token has ended, as against a right that is missing.
type Expired struct {
	Status int    `yaml:"status" doc:"of the answer"`
	Header string `yaml:"header" doc:"text in its WWW-Authenticate"`
	Body   string `yaml:"body" doc:"text in its first 2 KiB"`
}

// ExpiredBody is how far into an answer Expired.Body is looked for.
const ExpiredBody = 2 << 10

// Lapses is when a connection ends by the vendor's own clocks, zero if it does not; final where no renewal moves that.
func (r Refresh) Lapses(created, renewed time.Time) (at time.Time, final bool) {
	const day = 24 * time.Hour
	if r.IdleDays > 0 {
		at = renewed.Add(time.Duration(r.IdleDays) * day)
	}
	if end := created.Add(time.Duration(r.LifetimeDays) * day); r.LifetimeDays > 0 && (at.IsZero() || end.Before(at)) {
		return end, true
	}
	return at, false
}

// Idle is after how long without a renewal Frontdesk renews by itself: at four fifths of the vendor's patience. 0: never.
func (r Refresh) Idle() time.Duration { return time.Duration(r.IdleDays) * 24 * time.Hour / 5 * 4 }

// ProviderAPIKey is how a person gets a key, and where it works and how it travels where that differs from a token of OAuth.
type ProviderAPIKey struct {
	Where     string     `yaml:"where" doc:"in words"`
	URL       string     `yaml:"url" doc:"the page where one is made"`
	First     *KeyPart   `yaml:"first" doc:"what a person writes before it, where a key alone is not the credential: his e-mail address, an id, another key. They are kept as one, with a colon between them"`
	Injection *Injection `yaml:"injection" doc:"where the credential goes on a request"`
	Hosts     []string   `yaml:"hosts" doc:"hosts at which keys work, in the place of hosts, where tokens of OAuth work at others: an upstream then has keys or another method, not both"`
	Account   *Account   `yaml:"account" doc:"in the place of account, for keys"`
}

// KeyPart is what stands before a key.
type KeyPart struct {
	Name    string `yaml:"name" doc:"what it is, as the page calls it"`
	Pattern string `yaml:"pattern" doc:"regular expression from ^ to $; no colon fits it"`
	Secret  bool   `yaml:"secret" doc:"a secret too: the page does not show it while it is written"`
}

// Fits reports whether somebody's text can be it.
func (k *KeyPart) Fits(text string) bool { return matches(k.Pattern, text) }

// Join puts what a person wrote before his key. Who has written both in the place of the key is understood too.
func (k *ProviderAPIKey) Join(first, key string) string {
	if k == nil || k.First == nil || first == "" || strings.HasPrefix(key, first+":") {
		return key
	}
	return first + ":" + key
}

func (k *ProviderAPIKey) check() error {
	if k == nil {
		return nil
	}
	if f := k.First; f != nil {
		_, err := regexp.Compile(f.Pattern)
		if err != nil || f.Name == "" || !strings.HasPrefix(f.Pattern, "^") || !strings.HasSuffix(f.Pattern, "$") || matches(f.Pattern, "a@b.example:c") || matches(f.Pattern, ":") || matches(f.Pattern, "") {
			return fmt.Errorf("api_key.first needs a name, and a pattern from ^ to $ that no colon and nothing empty fits")
		}
	}
	if in := k.Injection; in != nil && k.First == nil && (in.Kind == InjectPair || strings.Contains(in.Format, "{first}")) {
		return fmt.Errorf("api_key.first is missing: what stands before the key")
	}
	if k.Account == nil {
		return nil
	}
	if k.Account.InToken {
		return fmt.Errorf("api_key.account: a key comes with no token answer")
	}
	return k.Account.check()
}

// ByKey is the provider as keys see it, where they work at other hosts than what OAuth gives.
func (p *Provider) ByKey() *Provider {
	if p.APIKey == nil || len(p.APIKey.Hosts) == 0 {
		return p
	}
	q, k := *p, *p.APIKey
	q.Hosts, q.OAuth, q.Sites, q.Federation, k.Hosts = k.Hosts, nil, nil, nil, nil
	q.APIKey = &k
	return &q
}

// InjectionOf says where the credential of a method goes.
func (p *Provider) InjectionOf(k MethodKind) Injection {
	if k == APIKey && p.APIKey != nil && p.APIKey.Injection != nil {
		return *p.APIKey.Injection
	}
	return p.Injection
}

// AccountOf says how to find whose credential of a method it is.
func (p *Provider) AccountOf(k MethodKind) Account {
	if k == APIKey && p.APIKey != nil && p.APIKey.Account != nil {
		return *p.APIKey.Account
	}
	return p.Account
}

// Account says how to find whose credential it is; the same call tests a pasted key.
type Account struct {
	URL      string            `yaml:"url" doc:"absolute or a path on the first host"`
	Method   string            `yaml:"method" doc:"GET (default) or POST"`
	Body     string            `yaml:"body" doc:"JSON to send with it; {token} in a string of it is filled in"`
	Form     map[string]string `yaml:"form" doc:"form to send, in the place of body and of the credential's own place: {token}, {client_id} and {client_secret} are filled in, as introspection wants them (RFC 7662)"`
	Label    string            `yaml:"pointer" doc:"JSON pointer to the name that the person knows"`
	Or       string            `yaml:"or_pointer" doc:"JSON pointer to a name where there is none at pointer"`
	ID       string            `yaml:"id_pointer" doc:"JSON pointer to its stable id"`
	Within   string            `yaml:"within_pointer" doc:"JSON pointer to what the account is within, a company or a workspace; its name stands behind the account's"`
	WithinID string            `yaml:"within_id_pointer" doc:"JSON pointer to the stable id of that, where a person has the same id in several"`
	InToken  bool              `yaml:"in_token_answer" doc:"the pointers lead into the token answer; then there is no call"`
}

// Whose reads an account's id and name, by what stands at pointers of the vendor's answer ("": nothing).
func (a Account) Whose(at func(pointer string) string) (id, label string) {
	text := func(pointer string) string {
		if pointer == "" {
			return ""
		}
		return at(pointer)
	}
	id, label = text(a.ID), cmp.Or(text(a.Label), text(a.Or))
	if within := text(a.WithinID); within != "" && id != "" {
		id = within + "/" + id
	}
	if within := text(a.Within); within != "" && label != "" && within != label {
		label += " (" + within + ")"
	}
	return id, label
}

// Injection says where the credential goes on a request.
type Injection struct {
	Kind   string `yaml:"kind" doc:"header (default), basic, query, or pair: a credential that is two, with a colon between them, goes into two headers"`
	Name   string `yaml:"name" doc:"header or query parameter; default Authorization"`
	Second string `yaml:"second" doc:"of pair: the header of what stands behind the colon"`
	Format string `yaml:"format" doc:"default \"Bearer {token}\"; of basic \"{token}:\". With {first} in it, that is what stands before the credential's first colon, and {token} what stands behind"`
	Proof  string `yaml:"proof" doc:"parameter of the query that proves with each request whose client sends it: the hexadecimal HMAC-SHA256 of the credential by client_secret; no pasted key has one"`
}

// InjectPair as Kind: two credentials that are pasted and kept as one.
const InjectPair = "pair"

// Endpoint spells the vendor's token endpoint for kit/oauth, without our registration there.
func (o *ProviderOAuth) Endpoint() oauth.Endpoint {
	e := oauth.Endpoint{URL: o.Token, Auth: oauth.AuthPost, Request: oauth.Body(o.TokenRequest), ExtraParams: o.TokenParams,
		ScopeSeparator: o.Separator, ScopeResponseSeparator: o.Response.ScopeSeparator, ZeroIsNever: o.Response.ZeroIsNever, ErrorCodes: o.Response.ErrorCodes,
		TokenTypes: o.Response.TokenTypes, RefreshURL: o.Refreshing, Renews: o.Refresh.By, Headers: o.TokenHeaders,
		Answer: oauth.Pointers{AccessToken: o.Response.Access, RefreshToken: o.Response.Refresh, ExpiresIn: o.Response.Expires, ExpiresAt: o.Response.ExpiresAt,
			ExpiresFromJWT: o.Response.ExpiresFromJWT, Scope: o.Response.Scope, Error: o.Response.Error}}
	if o.DPoP == DPoPAlways {
		e.Key = dpop.NewKey
	}
	switch o.TokenAuth {
	case "basic":
		e.Auth = oauth.AuthBasic
	case "secret_user":
		e.Auth = oauth.AuthSecretUser
	case "private_key_jwt":
		e.Auth = oauth.AuthJWT
	case "none":
		e.Auth = oauth.AuthNone
	}
	return e
}

// DeviceEndpoint spells where a device code is had, from the token endpoint with our registration.
func (o *ProviderOAuth) DeviceEndpoint(token oauth.Endpoint) oauth.Endpoint {
	token.URL = o.Device.Authorization
	if o.Device.Client == "none" {
		token.Auth, token.Secret, token.Assert = oauth.AuthNone, secret.Text{}, nil
	}
	return token
}

// Values of DPoP.
const (
	DPoPAlways = "always"
	DPoPNever  = "never"
)

// NoScopes as ScopeParam: the vendor takes no scopes in an authorization request.
const NoScopes = "none"

// Resources are what requests name as their target (RFC 8707), none where the vendor has none.
func (o *ProviderOAuth) Resources() []string {
	if o.Resource == "" {
		return nil
	}
	return []string{o.Resource}
}

// Asked are the scopes of an authorization request: those that are needed, else those that the vendor offers, and the one without
// which no refresh token comes.
func (o *ProviderOAuth) Asked(needed []string) []string {
	if len(needed) == 0 {
		needed = o.Offered
	}
	return o.Alongside(needed)
}

// Request is the authorization request for these scopes; challenge is left out for a vendor that refuses it.
func (o *ProviderOAuth) Request(client, redirect, state, challenge string, scopes []string) oauth.AuthorizationRequest {
	r := oauth.AuthorizationRequest{Endpoint: o.Authorization, ClientID: client, RedirectURI: redirect, State: state, CodeChallenge: challenge,
		Scopes: o.Asked(scopes), ScopeParam: o.ScopeParam, ScopeSeparator: o.Separator, Resources: o.Resources(), Extra: o.Authorize}
	if o.ScopeParam == NoScopes {
		r.ScopeParam, r.Scopes = "", nil
	}
	if o.NoPKCE {
		r.CodeChallenge = ""
	}
	return r
}

// Ends reports whether the vendor has a call that ends one person's grant and nobody else's.
func (o *ProviderOAuth) Ends() bool {
	return o != nil && o.Revocation != "" && o.Revoke.Shared != SharedEverybody
}

// Ending spells that call for kit/oauth.
func (o *ProviderOAuth) Ending() oauth.Revocation {
	v := oauth.Revocation{Method: o.Revoke.Method, Body: oauth.Body(o.Revoke.Body), Params: o.Revoke.Params, Auth: oauth.RevocationAuth(o.Revoke.Auth)}
	if o.Revoke.Auth == "client" {
		v.Auth = oauth.RevokeAsClient
	}
	return v
}

// Alongside adds the scopes that Frontdesk itself needs: those by which it learns whose account it is, and the one without which the
// vendor gives no refresh token.
func (o *ProviderOAuth) Alongside(scopes []string) []string {
	if len(scopes) > 0 && len(o.Beside) > 0 { // alone they would be asked for in the place of what the vendor gives where nobody asks
		scopes = oauth.UnionScopes(scopes, o.Beside)
	}
	if o.Refresh.ScopeNeeded == "" {
		return scopes
	}
	return oauth.UnionScopes(scopes, []string{o.Refresh.ScopeNeeded})
}
