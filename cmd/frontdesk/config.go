package main

import (
	"fmt"
	"log/slog"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/conf"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/kit/oauth"
	"frontdesk.dev/frontdesk/internal/kit/outbound"
)

// File is the operator's config: the `doc` tags are its manual (docs/config.md and the JSON Schema are made of them).
type File struct {
	PublicURL      conf.URL      `yaml:"public_url" required:"yes" doc:"where people and agents reach this, as https://desk.example.com"`
	Listen         string        `yaml:"listen" doc:"address of the public listener; default: the port of public_url on loopback, else :8080"`
	TrustedProxies []conf.Prefix `yaml:"trusted_proxies" doc:"addresses of the proxies in front, where TLS ends"`
	TLS            *TLS          `yaml:"tls" doc:"certificate and key, where TLS ends here"`
	Egress         Egress        `yaml:"egress" doc:"where MCP servers send their API requests"`
	Ops            Ops           `yaml:"ops" doc:"metrics, health, readiness and profiles"`
	DataDir        string        `yaml:"data_dir" doc:"SQLite file, keys and admin socket; default ./frontdesk-data"`
	Database       conf.Secret   `yaml:"database" doc:"PostgreSQL DSN, as env:DATABASE_URL; default: SQLite in data_dir"`
	Keys           Keys          `yaml:"keys" doc:"key files; replicas share them"`
	Hosting        Hosting       `yaml:"hosting" doc:"servers that Frontdesk runs itself (command)"`
	Outbound       Outbound      `yaml:"outbound" doc:"the way out"`
	Telemetry      Telemetry     `yaml:"telemetry" doc:"logs and traces"`
	Clients        Clients       `yaml:"clients" doc:"agents: how they register"`
	Connections    Connections   `yaml:"connections" doc:"what becomes of people's connections"`

	Providers map[string]catalog.Provider `yaml:"providers" doc:"vendors beside, or instead of, the built-in ones"`

	IDP       *IDP                `yaml:"idp" doc:"the company's sign-in service (OpenID Connect)"`
	Upstreams map[string]Upstream `yaml:"upstreams" doc:"APIs in other trust domains"`
	Servers   map[string]Server   `yaml:"servers" doc:"MCP servers behind the gateway"`
	Policies  []string            `yaml:"policies" doc:"Cedar files, beside the servers' allow lists"`
	Tenants   map[string]Tenant   `yaml:"tenants" doc:"further organisations, under /t/<name>"`
}

// Tenant is what an organisation has of its own.
type Tenant struct {
	IDP       *IDP                `yaml:"idp" doc:"the company's sign-in service (OpenID Connect)"`
	Upstreams map[string]Upstream `yaml:"upstreams" doc:"APIs in other trust domains"`
	Servers   map[string]Server   `yaml:"servers" doc:"MCP servers behind the gateway"`
	Policies  []string            `yaml:"policies" doc:"Cedar files"`
}

type TLS struct {
	Cert conf.Secret `yaml:"cert" required:"yes" doc:"PEM certificate chain, as file:tls.crt"`
	Key  conf.Secret `yaml:"key" required:"yes" doc:"PEM key, as file:tls.key"`
}

type Egress struct {
	Listen string   `yaml:"listen" doc:"address; default 127.0.0.1:8081"`
	Names  []string `yaml:"names" doc:"host names and addresses by which servers reach it over https, beside localhost and the address that it listens on"`
	Others string   `yaml:"others" doc:"what a server gets that asks the proxy for a host that no upstream lists: refuse (default), or tunnel (passed on unseen, to public addresses on port 443)"`
}

type Ops struct {
	Listen string `yaml:"listen" doc:"address; default 127.0.0.1:9090"`
}

type Keys struct {
	Vault    string       `yaml:"vault" doc:"key file that wraps the vault's keys; default data_dir/vault.key"`
	Service  *KeyService  `yaml:"service" doc:"service that wraps them instead of the file"`
	Previous *PreviousKey `yaml:"previous" doc:"what wrapped them until now, while that changes: at the start everything is wrapped anew"`
	Faces    string       `yaml:"faces" doc:"key file of cookies and pages; default data_dir/faces.key"`
}

type Outbound struct {
	Proxy  string `yaml:"proxy" doc:"http proxy for everything that leaves"`
	CAFile string `yaml:"ca_file" doc:"certificates that are trusted beside the system's"`
}

type Telemetry struct {
	LogLevel string      `yaml:"log_level" doc:"debug, info (default), warn or error"`
	Traces   *conf.URL   `yaml:"traces" doc:"OTLP/HTTP endpoint for traces, as http://collector:4318; default: none"`
	Sample   *conf.Share `yaml:"sample" doc:"share of the traces begun here that are kept; a caller's own decision (traceparent) comes first; default 100%"`
}

type Connections struct {
	UnusedDays int `yaml:"unused_days" doc:"end connections that nobody has used for so many days, here and at the vendor; default: they stay"`
}

type Clients struct {
	Dynamic    *bool                 `yaml:"dynamic" doc:"let public clients register themselves; default true"`
	Redirects  []string              `yaml:"redirects" doc:"redirect URIs that they may have beside loopback and the built-in list"`
	Documents  []conf.URL            `yaml:"documents" doc:"origins of client metadata documents that are not on the public internet, as https://agents.corp.example"`
	Origins    []string              `yaml:"origins" doc:"web origins that may speak MCP from a browser"`
	Registered map[string]Registered `yaml:"registered" doc:"clients that the operator registers, by client_id"`
}

type Registered struct {
	Name      string      `yaml:"name" doc:"shown to people"`
	Redirects []string    `yaml:"redirects" required:"yes" doc:"exact redirect URIs"`
	Secret    conf.Secret `yaml:"client_secret" doc:"of a confidential client"`
}

type IDP struct {
	Name         string      `yaml:"name" doc:"default login"`
	Issuer       conf.URL    `yaml:"issuer" required:"yes" doc:"exactly the issuer that its discovery document names"`
	ClientID     string      `yaml:"client_id" required:"yes" doc:"our registration there"`
	ClientSecret conf.Secret `yaml:"client_secret" doc:"its secret, as file:idp.secret"`
	Scopes       []string    `yaml:"scopes" doc:"asked for beside openid, profile, email and offline_access"`
	SubjectClaim string      `yaml:"subject_claim" doc:"default sub; Entra: oid"`
	GroupsClaim  string      `yaml:"groups_claim" doc:"default groups, of the ID token"`
	Audiences    []string    `yaml:"audiences" doc:"audiences of the IdP's own access tokens that are accepted here, for workloads"`
	TokenTypes   []string    `yaml:"token_types" doc:"typ of those tokens; default at+jwt"`

	Logout   *bool   `yaml:"backchannel_logout" doc:"end sign-ins that the IdP says have ended (docs/ending.md); default true"`
	Events   *Events `yaml:"events" doc:"security events that are pushed here (CAEP, RISC)"`
	SCIM     *SCIM   `yaml:"scim" doc:"let a directory deactivate and delete people (SCIM 2.0)"`
	OnRevoke string  `yaml:"on_revoke" doc:"what an event, or a deactivation by SCIM, ends: end (default: access) or end_and_revoke (the person's connections too, at vendors). Who is deleted loses them always"`
}

type Events struct {
	Issuer   *conf.URL   `yaml:"issuer" doc:"exactly the iss of the tokens; default: the IdP's issuer"`
	Audience string      `yaml:"audience" required:"yes" doc:"exactly the aud of the tokens"`
	JWKS     *conf.URL   `yaml:"jwks_uri" doc:"the sender's keys; default: the IdP's own, or of another issuer what its SSF configuration names"`
	Token    conf.Secret `yaml:"token" required:"yes" doc:"the bearer token that the sender presents, as file:events.token"`
	Email    bool        `yaml:"email" doc:"also believe subjects that are named by their e-mail address alone"`
}

type SCIM struct {
	Token    conf.Secret `yaml:"token" required:"yes" doc:"the bearer token that the directory presents, as file:scim.token"`
	UserName string      `yaml:"user_name" doc:"what userName is: email (default; externalId is then the subject that the IdP's tokens name), or subject"`
}

type Upstream struct {
	Provider     string            `yaml:"provider" doc:"a vendor of the catalogue, or of providers in this file; without one, url is a vendor's own MCP server, whose authorization server is found from it"`
	Issuers      []string          `yaml:"issuers" doc:"without a provider: the authorization servers that may be found; default: any public one"`
	Title        string            `yaml:"title" doc:"shown to people; default: the vendor's name"`
	ClientID     string            `yaml:"client_id" doc:"our OAuth client at the vendor"`
	ClientSecret conf.Secret       `yaml:"client_secret" doc:"its secret, as env:GITHUB_SECRET"`
	URL          *conf.URL         `yaml:"url" doc:"base URL of the API, where it is not the vendor's default"`
	Hosts        []string          `yaml:"hosts" doc:"further hosts of the API, beside the vendor's"`
	Scopes       []string          `yaml:"scopes" doc:"asked for by default"`
	Methods      []Method          `yaml:"methods" doc:"ways to obtain a credential, in order: the first that can serve a caller is used"`
	Inputs       map[string]string `yaml:"inputs" doc:"what the vendor's entry asks for, as a host or a tenant"`
	WebSocket    bool              `yaml:"websocket" doc:"let connections to it be upgraded to WebSockets, where the vendor's entry does not say so"`
	OnLeak       string            `yaml:"on_leak" doc:"what happens to an answer that holds the credential: clean (default: it is taken out), or cut (the answer ends there)"`
	Limits       Limits            `yaml:"limits" doc:"how many requests it may get, of all servers together, and how large"`
	OpenAPI      string            `yaml:"openapi" doc:"OpenAPI 3 description of the API, a file beside this one; policies can name its operations then (docs/policies.md)"`
	AcceptRisk   string            `yaml:"accept_risk" doc:"why a shared credential is acceptable here; needed by client_credentials"`
}

type Server struct {
	URL         *conf.URL         `yaml:"url" doc:"its streamable HTTP endpoint"`
	Command     []string          `yaml:"command" doc:"program that Frontdesk runs itself, one process a user, in a sandbox; instead of url"`
	Env         map[string]string `yaml:"env" doc:"its environment; {keycard} stands for its token, {egress:NAME} for the base URL of an upstream"`
	Sandbox     Sandbox           `yaml:"sandbox" doc:"what it may read, how much it may use, and which walls must stand"`
	Idle        *conf.Duration    `yaml:"idle" doc:"after which a process without a call ends; default 10m"`
	Title       string            `yaml:"title" doc:"shown to people"`
	Upstreams   []Need            `yaml:"upstreams" doc:"what it uses: a name, or {name: {optional, tools, scopes}}"`
	Allow       []string          `yaml:"allow" doc:"who may use it: group:NAME, user:SUBJECT, service:SUBJECT, client:ID, everyone"`
	Deliver     string            `yaml:"deliver" doc:"egress (default): the server holds a keycard; header: it is the vendor's own server and gets the credential"`
	TokenHeader string            `yaml:"token_header" doc:"header in which it expects its token; default Authorization: Bearer"`
	Placeholder string            `yaml:"placeholder" doc:"call (default), or session for a server that reads its token once"`
	TicketShape string            `yaml:"ticket_shape" doc:"what its keycards look like, where it checks its token: vendor (as the tokens of its upstream's vendor), or as ghp_{36}; see docs/egress.md"`
	CallLimit   *conf.Duration    `yaml:"call_limit" doc:"how long a call may last; default 5m, at most 1h"`
	Check       bool              `yaml:"check_arguments" doc:"refuse messages in which a credential of one of the upstreams' vendors stands; costs a look at every string"`
	Methods     []string          `yaml:"methods" doc:"requests beyond the protocol's own that clients may send it, by exact method name; default none"`
	Limits      Limits            `yaml:"limits" doc:"how many API requests it may send, and how large"`
	ReadOnly    bool              `yaml:"read_only" doc:"its API requests may change nothing: GET, HEAD, OPTIONS, GraphQL queries, and what an upstream's description marks as reading"`
	Observe     bool              `yaml:"observe" doc:"try policies before they bind: what they would refuse to those whom the server is open to is recorded as would_deny, and passes"`
	Refuse      []string          `yaml:"refuse_headers" doc:"request headers with which clients smuggle credentials, beside the built-in ones"`
}

// Limits are counted by each replica for itself.
type Limits struct {
	Calls         int `yaml:"calls" doc:"API requests a minute; default: no limit. Each replica counts for itself"`
	UserCalls     int `yaml:"user_calls" doc:"of these, of each person"`
	Megabytes     int `yaml:"megabytes" doc:"MiB a minute, of request and answer bodies; what is over is paid back by waiting"`
	UserMegabytes int `yaml:"user_megabytes" doc:"of these, of each person"`
}

type Sandbox struct {
	Read      []string `yaml:"read" doc:"absolute paths that it may read, beside the system's programs and libraries; readable for everybody"`
	Memory    int      `yaml:"memory_mb" doc:"bound of its memory, in MiB; default 512"`
	Processes int      `yaml:"processes" doc:"bound of its processes and threads; default 128"`
	Require   []string `yaml:"require" doc:"walls without which it is not started: uid, network, files, processes, ipc, no_new_privs, landlock, seccomp, limits, memory; default network, files, processes, no_new_privs and seccomp; frontdesk doctor says which stand on this machine"`
}

type Hosting struct {
	Max     int `yaml:"max" doc:"processes of hosted servers in all; default 200"`
	PerUser int `yaml:"per_user" doc:"processes of one user; default 10"`
}

// Need is an entry of a server's upstreams.
type Need struct {
	Name string
	NeedDetails
}

type NeedDetails struct {
	Optional bool     `yaml:"optional" doc:"the server can do without"`
	Tools    []string `yaml:"tools" doc:"tool name patterns that need it"`
	Scopes   []string `yaml:"scopes" doc:"beyond the upstream's own"`
}

// SetName implements conf.Either.
func (n *Need) SetName(name string) { n.Name = name }

// Details implements conf.Either.
func (n *Need) Details() any { return &n.NeedDetails }

// Config is a file that was read and checked: what the rooms are made of.
type Config struct {
	File
	dir       string
	text      []byte
	digest    string // of the file and its policies: whether two are the same
	doc       *conf.Document
	providers map[string]*catalog.Provider
	snapshot  *catalog.Snapshot
	warnings  []string
}

// tenants lists the file's organisations by name, the default one among them.
func (c *Config) tenants() map[identity.Tenant]Tenant {
	m := map[identity.Tenant]Tenant{identity.DefaultTenant: {c.IDP, c.File.Upstreams, c.File.Servers, c.Policies}}
	for name, t := range c.Tenants {
		m[identity.Tenant(name)] = t
	}
	return m
}

// place is the path of a tenant's key in the file.
func place(t identity.Tenant, key string) string {
	if t == identity.DefaultTenant {
		return key
	}
	return "tenants." + string(t) + "." + key
}

// readConfig reads and checks a file. All that is wrong comes at once. A dataDir that is not empty goes before the file's.
func readConfig(path, dataDir string) (*Config, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("the config %s cannot be read: `frontdesk init` writes one to start from", path)
	}
	c := &Config{dir: filepath.Dir(path), text: text}
	doc, problems := conf.Decode(filepath.Base(path), text, &c.File)
	c.doc = doc
	if dataDir != "" {
		c.DataDir = dataDir
	}
	if problems = append(problems, c.check()...); len(problems) > 0 {
		doc.Sort(problems)
		return c, problems
	}
	return c, nil
}

// check looks at what the form cannot say, wherever the form is right: one slip is not told twice, and hides no other.
func (c *Config) check() conf.Problems {
	k := &checker{Config: c}
	if c.PublicURL.URL != nil {
		k.defaults()
		k.public()
		k.egress()
	}
	k.keyring()
	if err := new(slog.Level).UnmarshalText([]byte(cmpOr(c.Telemetry.LogLevel, "info"))); err != nil {
		k.wrong("telemetry.log_level", "there is no log level "+c.Telemetry.LogLevel, "the levels are debug, info, warn and error")
	}
	k.catalogue()
	for t := range c.Tenants {
		if !name.MatchString(t) || t == string(identity.DefaultTenant) {
			k.wrong("tenants."+t, "a tenant's name is 1 to 32 lower-case letters, digits and hyphens, and not \"default\"", "")
		}
	}
	for _, t := range slices.Sorted(maps.Keys(c.tenants())) {
		k.tenant(t, c.tenants()[t])
	}
	return k.problems
}

func cmpOrZero(t *TLS) TLS {
	if t == nil {
		return TLS{}
	}
	return *t
}

type checker struct {
	*Config
	problems conf.Problems
}

func (k *checker) wrong(path, message, help string) {
	k.problems = append(k.problems, k.doc.Problem(path, message, help))
}

func (k *checker) defaults() {
	set := func(s *string, v string) {
		if *s == "" {
			*s = v
		}
	}
	set(&k.DataDir, "./frontdesk-data")
	set(&k.Keys.Vault, filepath.Join(k.DataDir, "vault.key"))
	set(&k.Keys.Faces, filepath.Join(k.DataDir, "faces.key"))
	set(&k.Egress.Listen, "127.0.0.1:8081")
	set(&k.Ops.Listen, "127.0.0.1:9090")
	if k.Listen == "" {
		k.Listen = ":8080"
		if k.local() {
			k.Listen = k.PublicURL.Host
		}
	}
}

// local reports whether the public URL is plain http on this machine.
func (k *checker) local() bool {
	h := k.PublicURL.Hostname()
	return k.PublicURL.Scheme == "http" && (h == "localhost" || h == "127.0.0.1" || h == "::1")
}

func (k *checker) public() {
	if p := k.PublicURL.Path; p != "" && p != "/" {
		k.wrong("public_url", "public_url must not have a path", "give Frontdesk a host name of its own")
	}
	k.PublicURL.Path = ""
	for at, f := range map[string]conf.Secret{"tls.cert": cmpOrZero(k.TLS).Cert, "tls.key": cmpOrZero(k.TLS).Key} {
		if !f.IsZero() && !f.IsFile() {
			k.wrong(at, at+" is read from a file, and again whenever that changes", "write it as file:"+strings.Replace(at, "tls.cert", "tls.crt", 1))
		}
	}
	if k.local() {
		return
	}
	if k.PublicURL.Scheme != "https" {
		k.wrong("public_url", "public_url is plain http, and not on loopback: cookies and tokens would travel in the open", "use https, and say where TLS ends: tls, or trusted_proxies")
	}
	if k.TLS == nil && len(k.TrustedProxies) == 0 {
		k.wrong("public_url", "nothing says where TLS ends", "add  tls: {cert: file:tls.crt, key: file:tls.key}  or  trusted_proxies: [10.0.0.0/8]")
	}
}

// catalogue joins the built-in providers with those of the file.
// shape reads what a server's keycards look like.
func (k *checker) shape(at, shape string, s *catalog.Server, ups map[string]Upstream) {
	if shape == "vendor" {
		if shape = ""; len(s.Needs) > 0 {
			if p := k.providers[ups[string(s.Needs[0].Upstream)].Provider]; p != nil {
				shape = p.Egress.TicketShape
			}
		}
		if shape == "" {
			k.wrong(at+".ticket_shape", "the catalogue does not know what this vendor's tokens look like", "write it as ghp_{36}: {n} letters and digits, {dn} digits, {xn} hexadecimal digits")
		}
	}
	if shape == "" {
		return
	}
	var err error
	if s.Shape, err = catalog.ParseShape(shape); err != nil {
		k.wrong(at+".ticket_shape", err.Error(), "as ghp_{36} or xoxb-{d12}-{d12}-{24}")
	}
	if s.Deliver == catalog.DeliverHeader || s.VerifyJWT {
		k.wrong(at+".ticket_shape", "this server gets no keycard that could have a shape", "")
	}
}

func (k *checker) egress() {
	switch k.Egress.Others {
	case "", "refuse":
	case "tunnel":
		if k.File.Outbound.Proxy != "" {
			k.wrong("egress.others", "tunnel does not go through outbound.proxy", "list the hosts under an upstream, or refuse the others")
		}
	default:
		k.wrong("egress.others", "others is refuse or tunnel", "")
	}
	for i, n := range k.Egress.Names {
		if u, err := origin(n); err != nil || strings.Contains(n, "://") || u.Port() != "" || u.Path != "" {
			k.wrong("egress.names["+strconv.Itoa(i)+"]", "this is no host name or address", "write it as egress.internal or 10.0.0.5")
		}
	}
}

func (k *checker) catalogue() {
	built, err := catalog.Providers()
	if err != nil {
		panic(err) // the built-in files are part of the program, and tested
	}
	k.providers = built
	for id, p := range k.Providers {
		if !k.doc.Sound("providers." + id) {
			continue
		}
		p.ID = id
		if p.Name == "" {
			p.Name = id
		}
		if err := p.Check(); err != nil {
			k.wrong("providers."+id, err.Error(), "internal/catalog/providers has examples")
			continue
		}
		k.providers[id] = &p
	}
}

// name is the form of servers', upstreams' and tenants' names.
var name = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,31}$`)

func (k *checker) tenant(t identity.Tenant, org Tenant) {
	if k.snapshot == nil {
		k.snapshot = &catalog.Snapshot{Servers: map[identity.Tenant]map[catalog.ServerName]*catalog.Server{}, Upstreams: map[identity.Tenant]map[catalog.UpstreamName]*catalog.Upstream{}}
	}
	ups, servers := map[catalog.UpstreamName]*catalog.Upstream{}, map[catalog.ServerName]*catalog.Server{}
	k.snapshot.Upstreams[t], k.snapshot.Servers[t] = ups, servers
	if org.IDP == nil && len(org.Servers) > 0 && k.doc.Sound("") && k.doc.Sound(place(t, "servers")) {
		k.wrong(place(t, "servers"), "there are servers, but nobody can sign in", "add  idp: {issuer: https://login.example.com, client_id: frontdesk, client_secret: file:idp.secret}")
	}
	k.signals(place(t, "idp"), org.IDP)
	for _, n := range slices.Sorted(maps.Keys(org.Upstreams)) {
		if !k.doc.Sound(place(t, "upstreams."+n)) {
			continue
		}
		if up := k.upstream(t, n, org.Upstreams[n]); up != nil {
			ups[up.Name] = up
		}
	}
	for _, n := range slices.Sorted(maps.Keys(org.Servers)) {
		if !k.doc.Sound(place(t, "servers."+n)) {
			continue
		}
		if s := k.server(t, n, org.Servers[n], org.Upstreams); s != nil {
			servers[s.Name] = s
		}
	}
}

func (k *checker) upstream(t identity.Tenant, n string, u Upstream) *catalog.Upstream {
	at := place(t, "upstreams."+n)
	if !name.MatchString(n) {
		k.wrong(at, "an upstream's name is 1 to 32 lower-case letters, digits and hyphens", "")
	}
	p, ok := k.providers[u.Provider]
	if _, own := k.Providers[u.Provider]; !ok && own {
		return nil // it is there, and wrong: that is told
	}
	if u.Provider == "" {
		p, ok = k.toBeFound(at, u)
		if !ok {
			return nil
		}
	} else if len(u.Issuers) > 0 {
		k.wrong(at+".issuers", "issuers is for an upstream without a provider: the vendor's facts name its own", "")
	}
	if !ok {
		help := "name a built-in one, or describe it under providers"
		if near := conf.Nearest(u.Provider, slices.Sorted(maps.Keys(k.providers))); near != "" {
			help = fmt.Sprintf("did you mean %q?", near)
		}
		k.wrong(at+".provider", fmt.Sprintf("there is no provider %q", u.Provider), help)
		return nil
	}
	p, err := p.With(u.Inputs)
	if err != nil {
		k.wrong(at+".inputs", err.Error(), "write it under inputs, as inputs: {host: acme.example.com}")
		return nil
	}
	if u.ClientID == fillIn {
		k.wrong(at+".client_id", "client_id is not filled in", "register an OAuth app at "+p.Name+" ("+cmpOr(p.Console, p.Docs)+") and put its id here")
	}
	up := &catalog.Upstream{Tenant: t, Name: catalog.UpstreamName(n), Title: cmpOr(u.Title, p.Name), Provider: p, Scopes: u.Scopes, Risk: u.AcceptRisk, CutLeaks: u.OnLeak == "cut",
		WebSocket: p.Egress.WebSocket || u.WebSocket}
	up.Limits = k.limits(at, u.Limits)
	if u.OnLeak != "" && u.OnLeak != "cut" && u.OnLeak != "clean" {
		k.wrong(at+".on_leak", "on_leak is clean or cut", "")
	}
	slices.Sort(up.Scopes)
	k.described(at+".openapi", u.OpenAPI, up)
	if u.Provider == "" {
		up.Resource, up.Issuers = u.URL.String(), u.Issuers
	}
	if u.URL != nil {
		up.Origins = append(up.Origins, u.URL.URL)
	}
	for _, h := range append(slices.Clone(p.Hosts), u.Hosts...) {
		if o, err := origin(h); err != nil {
			k.wrong(at+".hosts", err.Error(), "write it as api.example.com, or https://api.example.com")
		} else if !slices.ContainsFunc(up.Origins, func(x *url.URL) bool { return x.Host == o.Host }) {
			up.Origins = append(up.Origins, o)
		}
	}
	for _, o := range up.Origins {
		k.notOurselves(at, o)
		if err := new(outbound.Door).SetNamed([]string{o.Scheme + "://" + o.Host}); err != nil {
			k.wrong(at, fault.Message(err), "name hosts of the API itself")
		}
	}
	for _, a := range p.Egress.Aliases {
		from, err := origin(a.Host)
		to, err2 := origin(a.To)
		if err != nil || err2 != nil || !slices.ContainsFunc(up.Origins, func(x *url.URL) bool { return catalog.Canonical(x) == catalog.Canonical(to) }) {
			k.wrong(at+".provider", fmt.Sprintf("the alias %s leads to %s, which is not one of the hosts", a.Host, a.To), "")
			continue
		}
		up.Aliases = append(up.Aliases, catalog.Alias{From: from, To: to})
	}
	up.Methods = k.methods(t, at, u, p)
	return up
}

// toBeFound is the provider of an upstream that is a vendor's own MCP server: all but its authorization server.
func (k *checker) toBeFound(at string, u Upstream) (*catalog.Provider, bool) {
	switch {
	case u.URL == nil:
		k.wrong(at, "neither provider nor url says what this is", "name a vendor (provider: github), or the vendor's own MCP server (url: https://mcp.example.com/mcp)")
		return nil, false
	case u.URL.Scheme != "https" && !k.local():
		k.wrong(at+".url", "the URL of a vendor's MCP server is https", "")
	case u.URL.RawQuery != "" || u.URL.Fragment != "":
		k.wrong(at+".url", "the URL of an MCP server has neither query nor fragment", "")
	}
	if len(u.Hosts) > 0 {
		k.wrong(at+".hosts", "an MCP server is one host: its url's", "")
	}
	for i, issuer := range u.Issuers {
		if _, err := oauth.MetadataURLs(issuer); err != nil {
			k.wrong(at+".issuers["+strconv.Itoa(i)+"]", fault.Message(err), "write it exactly as the server's metadata names it, as https://auth.example.com")
		}
	}
	return &catalog.Provider{ID: "mcp:" + u.URL.Host, Name: u.URL.Hostname(), Hosts: []string{u.URL.Scheme + "://" + u.URL.Host}}, true
}

// itself checks that what was got for a vendor's MCP server goes there and nowhere else.
func (k *checker) itself(at, here string, s *catalog.Server, u Upstream) {
	if u.Provider != "" || u.URL == nil {
		return
	}
	if s.Deliver != catalog.DeliverHeader {
		k.wrong(here, "this upstream is a vendor's own MCP server and no API", "add  deliver: header  to the server")
	} else if s.URL == nil || s.URL.String() != u.URL.String() {
		k.wrong(at+".url", "the upstream is another MCP server than this one", "use the same url for both: the credential is for that alone")
	}
}

func (k *checker) limits(at string, l Limits) catalog.Limits {
	if min(l.Calls, l.UserCalls, l.Megabytes, l.UserMegabytes) < 0 {
		k.wrong(at+".limits", "a limit is not below 0", "leave it out where there is none")
	}
	return catalog.Limits{Calls: int64(l.Calls), UserCalls: int64(l.UserCalls), Bytes: int64(l.Megabytes) << 20, UserBytes: int64(l.UserMegabytes) << 20}
}

// origin reads a host, which may say its scheme.
func origin(h string) (*url.URL, error) {
	if !strings.Contains(h, "://") {
		h = "https://" + h
	}
	u, err := url.Parse(h)
	if err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || strings.ContainsAny(u.Host, "*{}") {
		return nil, fmt.Errorf("%q is no host", h)
	}
	u.Host = strings.ToLower(u.Host)
	return u, nil
}

const (
	defaultCallLimit = 5 * time.Minute
	maxCallLimit     = time.Hour
)

// notOurselves refuses what leads back here: a request in a circle ends only at its second turn.
func (k *checker) notOurselves(at string, u *url.URL) {
	if u == nil {
		return
	}
	for _, own := range []string{k.PublicURL.Host, k.Listen, k.Egress.Listen, k.Ops.Listen} {
		if strings.EqualFold(u.Host, own) {
			k.wrong(at, u.Host+" is Frontdesk itself", "name the server or the API that stands behind it")
			return
		}
	}
}

func (k *checker) server(t identity.Tenant, n string, s Server, ups map[string]Upstream) *catalog.Server {
	at := place(t, "servers."+n)
	if !name.MatchString(n) {
		k.wrong(at, "a server's name is 1 to 32 lower-case letters, digits and hyphens", "")
	}
	out := &catalog.Server{Tenant: t, Name: catalog.ServerName(n), Title: cmpOr(s.Title, n), Deliver: catalog.Delivery(cmpOr(s.Deliver, string(catalog.DeliverEgress))),
		TokenHeader: s.TokenHeader, Placeholder: identity.TicketKind(cmpOr(s.Placeholder, string(identity.TicketCall))), CallLimit: defaultCallLimit, SmuggleHeaders: s.Refuse, CheckArguments: s.Check, Methods: s.Methods, Observe: s.Observe}
	out.Limits = k.limits(at, s.Limits)
	k.whereItRuns(at, s, out)
	k.notOurselves(at, out.URL)
	if s.CallLimit != nil {
		if out.CallLimit = time.Duration(*s.CallLimit); out.CallLimit > maxCallLimit {
			k.wrong(at+".call_limit", "call_limit is at most 1h", "")
		}
	}
	if out.Deliver != catalog.DeliverEgress && out.Deliver != catalog.DeliverHeader {
		k.wrong(at+".deliver", "deliver is egress or header", "")
	}
	if out.Placeholder != identity.TicketCall && out.Placeholder != identity.TicketSession {
		k.wrong(at+".placeholder", "placeholder is call or session", "")
	}
	for i, need := range s.Upstreams {
		here := at + ".upstreams[" + strconv.Itoa(i) + "]"
		if _, ok := ups[need.Name]; !ok {
			help := "add it under upstreams"
			if near := conf.Nearest(need.Name, slices.Sorted(maps.Keys(ups))); near != "" {
				help = fmt.Sprintf("did you mean %q?", near)
			}
			k.wrong(here, fmt.Sprintf("there is no upstream %q", need.Name), help)
			continue
		}
		if len(out.Need(catalog.UpstreamName(need.Name))) > 0 {
			k.wrong(here, fmt.Sprintf("upstream %q stands twice", need.Name), "")
		}
		k.itself(at, here, out, ups[need.Name])
		out.Needs = append(out.Needs, catalog.Need{Upstream: catalog.UpstreamName(need.Name), Scopes: need.Scopes, Optional: need.Optional, Tools: need.Tools})
	}
	k.shape(at, s.TicketShape, out, ups)
	if out.Deliver == catalog.DeliverHeader && len(out.Needs) != 1 {
		k.wrong(at+".deliver", "deliver: header needs exactly one upstream: the one whose credential the server gets", "")
	}
	return out
}
