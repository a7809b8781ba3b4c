package config

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/conf"
)

// Method is an entry of an upstream's methods: a name, or {name: {settings}}.
type Method struct {
	Kind    catalog.MethodKind
	details any
}

// Registration is our client at the authorization server that a method talks to.
type Registration struct {
	ClientID     string      `yaml:"client_id" doc:"our client there; default: the upstream's"`
	ClientSecret conf.Secret `yaml:"client_secret" doc:"its secret; default: the upstream's"`
	ClientAuth   string      `yaml:"client_auth" doc:"client_secret_basic, client_secret_post, private_key_jwt (register our jwks_uri, public_url/jwks) or none"`
}

// IDJAGMethod is what id_jag needs.
type IDJAGMethod struct {
	Registration
	Issuer   *conf.URL `yaml:"issuer" doc:"of the upstream's authorization server; default: the one that the metadata of resource names"`
	Resource string    `yaml:"resource" doc:"resource identifier of the upstream's API or MCP server (RFC 9728)"`
	Subject  string    `yaml:"subject" doc:"what stands for the person at the IdP: id_token (default) or access_token"`
}

// ExchangeMethod is what token_exchange needs.
type ExchangeMethod struct {
	Registration
	Endpoint  *conf.URL `yaml:"token_endpoint" doc:"where the exchange is made; default: the vendor's"`
	Audience  string    `yaml:"audience" doc:"audience asked for"`
	Resource  string    `yaml:"resource" doc:"resource asked for (RFC 8707)"`
	Requested string    `yaml:"requested_token_type" doc:"token type asked for; default: the server's choice"`
	Subject   string    `yaml:"subject" doc:"access_token (default) or id_token of the company's sign-in"`
	Type      string    `yaml:"subject_token_type" doc:"how the subject is called there; default: what it is"`
	Delegate  bool      `yaml:"delegate" doc:"name the agent as actor (RFC 8693 delegation), by a JWT of ours"`
}

// AssertionMethod is what jwt_bearer needs.
type AssertionMethod struct {
	Registration
	Endpoint   *conf.URL         `yaml:"token_endpoint" doc:"where the assertion is redeemed; default: the vendor's"`
	Subject    string            `yaml:"subject" doc:"frontdesk (default): we sign; or the person's own id_token or access_token is the assertion"`
	Audience   string            `yaml:"audience" doc:"aud of what we sign; default: token_endpoint"`
	Issuer     string            `yaml:"assertion_issuer" doc:"iss of what we sign; default: client_id, else our issuer"`
	Person     string            `yaml:"person" doc:"what the upstream knows people by: subject (default), email (none where the IdP says it is not verified), name or user (our id)"`
	PrivateKey conf.Secret       `yaml:"private_key" doc:"PEM key to sign with, RSA or P-256; default: a key of ours, published at public_url/jwks"`
	KeyID      string            `yaml:"key_id" doc:"kid of private_key"`
	Lifetime   *conf.Duration    `yaml:"lifetime" doc:"of what we sign; default 3m, at most 1h"`
	Claims     map[string]string `yaml:"claims" doc:"further claims of what we sign"`
	Direct     bool              `yaml:"direct" doc:"the signed JWT is the credential itself, as for Snowflake's external OAuth"`
}

// GoogleMethod is what google_workforce needs.
type GoogleMethod struct {
	Registration
	Audience       string              `yaml:"audience" required:"yes" doc:"//iam.googleapis.com/locations/global/workforcePools/POOL/providers/PROVIDER"`
	Project        string              `yaml:"user_project" doc:"project that is billed"`
	ServiceAccount string              `yaml:"service_account" doc:"e-mail of a service account to act as afterwards"`
	Subject        string              `yaml:"subject" doc:"id_token (default) or access_token of the company's sign-in"`
	Groups         map[string][]string `yaml:"scopes_by_group" doc:"scopes that the members of a group get beside the upstream's"`
	STS            *conf.URL           `yaml:"sts_url" doc:"default https://sts.googleapis.com"`
	IAM            *conf.URL           `yaml:"iam_url" doc:"default https://iamcredentials.googleapis.com"`
}

// EntraMethod is what entra_obo needs.
type EntraMethod struct {
	Registration
	Endpoint *conf.URL `yaml:"token_endpoint" doc:"https://login.microsoftonline.com/TENANT/oauth2/v2.0/token; default: the vendor's"`
}

// AWSMethod is what aws_web_identity needs.
type AWSMethod struct {
	Role     string         `yaml:"role_arn" required:"yes" doc:"role that people assume"`
	Region   string         `yaml:"region" doc:"for signing; default: read from the host"`
	Service  string         `yaml:"service" doc:"signing name; default: read from the host"`
	Policy   string         `yaml:"policy" doc:"session policy (JSON) that narrows the role"`
	Duration *conf.Duration `yaml:"duration" doc:"15m to 12h; default: the role's"`
	Subject  string         `yaml:"subject" doc:"id_token (default) or access_token of the company's sign-in, or frontdesk: a JWT that we sign"`
	Audience string         `yaml:"audience" doc:"aud of the JWT that we sign"`
	STS      *conf.URL      `yaml:"sts_url" doc:"default https://sts.amazonaws.com"`
}

// GitHubMethod is what github_app needs.
type GitHubMethod struct {
	App          string            `yaml:"app_id" required:"yes" doc:"App id or client id"`
	Installation string            `yaml:"installation_id" required:"yes" doc:"whose repositories"`
	PrivateKey   conf.Secret       `yaml:"private_key" required:"yes" doc:"the App's key, as file:app.pem"`
	Repositories []string          `yaml:"repositories" doc:"narrow to these; default: all of the installation"`
	Permissions  map[string]string `yaml:"permissions" doc:"narrow to these, as {issues: read}; default: all of the installation"`
	API          *conf.URL         `yaml:"api_url" doc:"default https://api.github.com"`
}

// ServiceKeyMethod is what service_key needs.
type ServiceKeyMethod struct {
	Key conf.Secret `yaml:"key" required:"yes" doc:"the key that everybody uses, as file:service.key"`
}

// PassthroughMethod is what passthrough needs.
type PassthroughMethod struct {
	Audience string `yaml:"audience" required:"yes" doc:"the caller's own token of the IdP is forwarded only if this is among its audiences"`
}

// Kinds implements conf.Kinds.
func (*Method) Kinds() map[string]any {
	return map[string]any{
		string(catalog.AuthorizationCode): nil, string(catalog.DeviceCode): nil, string(catalog.APIKey): nil, string(catalog.ClientCredentials): nil,
		string(catalog.IDJAGMethod): &IDJAGMethod{}, string(catalog.TokenExchange): &ExchangeMethod{}, string(catalog.JWTBearer): &AssertionMethod{},
		string(catalog.GoogleWorkforce): &GoogleMethod{}, string(catalog.EntraOBO): &EntraMethod{}, string(catalog.AWSWebIdentity): &AWSMethod{},
		string(catalog.GitHubApp): &GitHubMethod{}, string(catalog.ServiceKey): &ServiceKeyMethod{}, string(catalog.Passthrough): &PassthroughMethod{},
	}
}

// SetName implements conf.Either.
func (m *Method) SetName(name string) { m.Kind = catalog.MethodKind(name) }

// Details implements conf.Either.
func (m *Method) Details() any {
	m.details = m.Kinds()[string(m.Kind)]
	return m.details
}

// Secrets are the references of a method's own, by their key in the file.
func (m *Method) Secrets() map[string]conf.Secret {
	switch d := m.details.(type) {
	case *IDJAGMethod:
		return map[string]conf.Secret{"client_secret": d.ClientSecret}
	case *ExchangeMethod:
		return map[string]conf.Secret{"client_secret": d.ClientSecret}
	case *AssertionMethod:
		return map[string]conf.Secret{"client_secret": d.ClientSecret, "private_key": d.PrivateKey}
	case *GoogleMethod:
		return map[string]conf.Secret{"client_secret": d.ClientSecret}
	case *EntraMethod:
		return map[string]conf.Secret{"client_secret": d.ClientSecret}
	case *GitHubMethod:
		return map[string]conf.Secret{"private_key": d.PrivateKey}
	case *ServiceKeyMethod:
		return map[string]conf.Secret{"key": d.Key}
	}
	return nil
}

// URLs are the addresses that a method's settings name: where connections may go.
func (m *Method) URLs() []string {
	var l []string
	add := func(all ...*conf.URL) {
		for _, u := range all {
			if u != nil {
				l = append(l, u.String())
			}
		}
	}
	switch d := m.details.(type) {
	case *IDJAGMethod:
		add(d.Issuer)
	case *ExchangeMethod:
		add(d.Endpoint)
	case *AssertionMethod:
		add(d.Endpoint)
	case *GoogleMethod:
		add(d.STS, d.IAM)
	case *EntraMethod:
		add(d.Endpoint)
	case *AWSMethod:
		add(d.STS)
	case *GitHubMethod:
		add(d.API)
	}
	return l
}

// methods turns an upstream's entries into the catalogue's, in their order.
func (k *checker) methods(t identity.Tenant, at string, u Upstream, p *catalog.Provider) []catalog.Method {
	entries := u.Methods
	if len(entries) == 0 {
		if u.ClientID != "" && p.OAuth != nil || u.Provider == "" {
			entries = append(entries, Method{Kind: catalog.AuthorizationCode})
		}
		if p.APIKey != nil {
			entries = append(entries, Method{Kind: catalog.APIKey})
		}
	}
	var l []catalog.Method
	for i := range entries {
		here := at + ".methods[" + strconv.Itoa(i) + "]"
		m := &entries[i]
		if _, known := m.Kinds()[string(m.Kind)]; !known {
			help := "the methods are " + strings.Join(slices.Sorted(maps.Keys(m.Kinds())), ", ")
			if near := conf.Nearest(string(m.Kind), slices.Sorted(maps.Keys(m.Kinds()))); near != "" {
				help = fmt.Sprintf("did you mean %q?", near)
			}
			k.wrong(here, fmt.Sprintf("there is no method %q", m.Kind), help)
			continue
		}
		if slices.ContainsFunc(entries[:i], func(e Method) bool { return e.Kind == m.Kind }) { // their secrets are told apart by it
			k.wrong(here, fmt.Sprintf("the method %q stands twice", m.Kind), "an upstream has one of a kind: make another upstream for the second")
			continue
		}
		k.suits(here, at, m, u, p)
		l = append(l, k.method(t, here, m, u, p))
	}
	if len(l) == 0 {
		k.wrong(at, "nothing says how a credential is obtained", "add client_id and client_secret of an OAuth app at "+p.Name)
	}
	return l
}

// suits checks a method against what the vendor offers and the operator answers for.
func (k *checker) suits(here, at string, m *Method, u Upstream, p *catalog.Provider) {
	switch {
	case u.Provider == "" && m.Kind == catalog.AuthorizationCode:
	case u.Provider == "" && m.Kind == catalog.APIKey:
		k.wrong(here, "nothing is known of keys of a server that is given by its URL alone", "describe it under providers, with api_key")
	case m.Kind == catalog.AuthorizationCode && p.OAuth == nil:
		k.wrong(here, p.Name+" has no OAuth in the catalogue", "use api_key")
	case m.Kind == catalog.AuthorizationCode && u.ClientID == "":
		k.wrong(at, "authorization_code needs a client_id", "register an OAuth app at "+p.Name+" ("+p.Docs+") and put its id here")
	case m.Kind == catalog.DeviceCode && (p.OAuth == nil || p.OAuth.Device.Authorization == ""):
		k.wrong(here, p.Name+" has no device grant in the catalogue", "use authorization_code, or add its oauth.device under providers")
	case m.Kind == catalog.DeviceCode && u.ClientID == "":
		k.wrong(at, "device_code needs a client_id", "register an OAuth app at "+p.Name+" ("+p.Docs+"), allow it the device flow, and put its id here")
	case m.Kind == catalog.APIKey && p.APIKey == nil:
		k.wrong(here, p.Name+" has no api_key in the catalogue", "use authorization_code")
	case m.Kind.Shared() && u.AcceptRisk == "":
		what := " is one credential for everybody"
		if m.Kind == catalog.Passthrough {
			what = " lets a caller's own token out of Frontdesk's hands"
		}
		k.wrong(here, string(m.Kind)+what, "say why that is acceptable: accept_risk: \"read-only statistics, no personal data\"")
	case m.Kind == catalog.ClientCredentials && (u.ClientID == "" || u.ClientSecret.IsZero()):
		k.wrong(at, "client_credentials needs client_id and client_secret", "")
	case !m.Kind.Asks() && m.Kind != catalog.ClientCredentials && m.details == nil:
		k.wrong(here, string(m.Kind)+" needs settings", "write  "+string(m.Kind)+": {…}; docs/config.md lists them")
	}
}

// method is the catalogue's form of an entry.
func (k *checker) method(t identity.Tenant, here string, m *Method, u Upstream, p *catalog.Provider) catalog.Method {
	out := catalog.Method{Kind: m.Kind, Client: u.ClientID}
	registered := func(r Registration) {
		out.Client, out.Auth = cmp.Or(r.ClientID, u.ClientID), catalog.ClientAuth(r.ClientAuth)
		switch out.Auth {
		case "", catalog.ClientBasic, catalog.ClientPost, catalog.ClientJWT, catalog.ClientNone:
		default:
			k.wrong(here+".client_auth", "client_auth is client_secret_basic, client_secret_post, private_key_jwt or none", "")
		}
		if own := r.ClientID != "" && r.ClientID != u.ClientID; own && r.ClientSecret.IsZero() && !u.ClientSecret.IsZero() && out.Auth != catalog.ClientJWT && out.Auth != catalog.ClientNone {
			k.wrong(here+".client_id", "this client has no secret of its own, and the upstream's is another client's", "add client_secret, or client_auth: none or private_key_jwt")
		}
	}
	endpoint := func(u *conf.URL) {
		if u == nil && (p.OAuth == nil || p.OAuth.Token == "") {
			k.wrong(here, string(m.Kind)+" needs a token_endpoint: the vendor's facts name none", "add token_endpoint to its settings")
		}
	}
	switch d := m.details.(type) {
	case *IDJAGMethod:
		registered(d.Registration)
		out.Settings = &catalog.IDJAG{Issuer: address(d.Issuer), Resource: d.Resource, Subject: k.subject(here, d.Subject, catalog.SubjectID, catalog.SubjectAccess)}
		if d.Issuer == nil && d.Resource == "" {
			k.wrong(here, "id_jag needs issuer or resource", "name the upstream's authorization server: issuer: https://auth.example.com")
		}
		secret := !d.ClientSecret.IsZero() || !u.ClientSecret.IsZero()
		if d.Issuer == nil && secret && out.Auth != catalog.ClientJWT && out.Auth != catalog.ClientNone {
			k.wrong(here, "a client_secret is for one authorization server, and whoever answers for the resource could name another", "add issuer, or client_auth: private_key_jwt")
		}
		if out.Client == "" {
			k.wrong(here, "id_jag needs the client_id of Frontdesk at the upstream's authorization server", "")
		}
	case *ExchangeMethod:
		registered(d.Registration)
		endpoint(d.Endpoint)
		out.Settings = &catalog.Exchange{Endpoint: address(d.Endpoint), Audience: d.Audience, Resource: d.Resource, Requested: d.Requested, Type: d.Type, Actor: d.Delegate,
			Subject: k.subject(here, d.Subject, catalog.SubjectAccess, catalog.SubjectID)}
	case *AssertionMethod:
		registered(d.Registration)
		if !d.Direct {
			endpoint(d.Endpoint)
		}
		out.Settings = k.assertion(t, here, d)
	case *GoogleMethod:
		registered(d.Registration)
		out.Settings = &catalog.Google{Audience: d.Audience, Project: d.Project, ServiceAccount: d.ServiceAccount, Groups: d.Groups, STS: address(d.STS), IAM: address(d.IAM),
			Subject: k.subject(here, d.Subject, catalog.SubjectID, catalog.SubjectAccess)}
	case *EntraMethod:
		registered(d.Registration)
		endpoint(d.Endpoint)
		out.Settings = &catalog.Entra{Endpoint: address(d.Endpoint)}
	case *AWSMethod:
		out.Client, out.Settings = "", k.aws(t, here, d)
	case *GitHubMethod:
		out.Client = d.App
		if strings.Trim(d.Installation, "0123456789") != "" {
			k.wrong(here+".installation_id", "installation_id is no number", "it is the last part of the address of the installation's page at GitHub")
		}
		out.Settings = &catalog.GitHub{Installation: d.Installation, Repositories: d.Repositories, Permissions: d.Permissions, API: address(d.API)}
	case *PassthroughMethod:
		out.Client, out.Settings = "", &catalog.Forward{Audience: d.Audience}
		k.foreign(t, here+".audience", d.Audience)
	}
	return out
}

const maxAssertionLife = time.Hour

func (k *checker) assertion(t identity.Tenant, here string, d *AssertionMethod) *catalog.Assertion {
	a := &catalog.Assertion{Endpoint: address(d.Endpoint), Audience: d.Audience, Issuer: d.Issuer, Person: cmp.Or(d.Person, "subject"), KeyID: d.KeyID, Claims: d.Claims,
		Subject: k.subject(here, d.Subject, catalog.SubjectSelf, catalog.SubjectID, catalog.SubjectAccess), Direct: d.Direct}
	if !slices.Contains([]string{"subject", "email", "name", "user"}, a.Person) {
		k.wrong(here+".person", "person is subject, email, name or user", "")
	}
	if d.Lifetime != nil {
		if a.Life = time.Duration(*d.Lifetime); a.Life > maxAssertionLife {
			k.wrong(here+".lifetime", "lifetime is at most 1h", "")
		}
	}
	if d.Direct && (d.Audience == "" || a.Subject != catalog.SubjectSelf) {
		k.wrong(here, "direct needs subject: frontdesk and an audience", "name whom the JWT is for: audience: https://api.example.com")
	}
	for _, reserved := range []string{"iss", "sub", "aud", "exp", "iat", "nbf", "jti"} {
		if _, ok := d.Claims[reserved]; ok {
			k.wrong(here+".claims", "the claim "+reserved+" is set by Frontdesk", "use audience, assertion_issuer, person or lifetime")
		}
	}
	k.foreign(t, here+".audience", d.Audience)
	return a
}

func (k *checker) aws(t identity.Tenant, here string, d *AWSMethod) *catalog.AWS {
	a := &catalog.AWS{Role: d.Role, Region: d.Region, Service: d.Service, Policy: d.Policy, Audience: d.Audience, STS: address(d.STS),
		Subject: k.subject(here, d.Subject, catalog.SubjectID, catalog.SubjectAccess, catalog.SubjectSelf)}
	if d.Duration != nil {
		if a.Duration = time.Duration(*d.Duration); a.Duration < 15*time.Minute || a.Duration > 12*time.Hour {
			k.wrong(here+".duration", "duration is 15m to 12h", "")
		}
	}
	if !strings.HasPrefix(d.Role, "arn:") {
		k.wrong(here+".role_arn", "role_arn is no ARN", "write it as arn:aws:iam::123456789012:role/NAME")
	}
	if d.Policy != "" && !json.Valid([]byte(d.Policy)) {
		k.wrong(here+".policy", "policy is no JSON", "")
	}
	if a.Subject == catalog.SubjectSelf && d.Audience == "" {
		k.wrong(here, "subject: frontdesk needs an audience", "name the audience that the role's identity provider in IAM expects: audience: sts.amazonaws.com")
	}
	k.foreign(t, here+".audience", d.Audience)
	return a
}

// foreign refuses an audience of our own: nothing that is made for elsewhere may work here.
func (k *checker) foreign(t identity.Tenant, at, audience string) {
	if own := k.Issuer(t); audience == own || strings.HasPrefix(audience, own+"/") {
		k.wrong(at, "the audience is Frontdesk itself", "name the upstream's")
	}
}

// subject is what the config says, of what the method knows; the first is the default.
func (k *checker) subject(here, said string, known ...catalog.Subject) catalog.Subject {
	if said == "" {
		return known[0]
	}
	if !slices.Contains(known, catalog.Subject(said)) {
		words := make([]string, len(known))
		for i, s := range known {
			words[i] = string(s)
		}
		k.wrong(here+".subject", "subject is "+strings.Join(words, " or "), "")
	}
	return catalog.Subject(said)
}

func address(u *conf.URL) string {
	if u == nil {
		return ""
	}
	return u.String()
}
