package config

import (
	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/kit/conf"
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
	Domains        *Domains      `yaml:"domains" doc:"gateway and broker as two processes (serve --role; docs/domains.md)"`
	Hosting        Hosting       `yaml:"hosting" doc:"servers that Frontdesk runs itself (command, image)"`
	Outbound       Outbound      `yaml:"outbound" doc:"the way out"`
	Telemetry      Telemetry     `yaml:"telemetry" doc:"logs and traces"`
	Clients        Clients       `yaml:"clients" doc:"agents: how they register"`
	Connections    Connections   `yaml:"connections" doc:"what becomes of people's connections"`
	Audit          Audit         `yaml:"audit" doc:"the audit log: what is kept of it elsewhere, and what is held against it"`

	Providers map[string]catalog.Provider `yaml:"providers" doc:"vendors beside, or instead of, the built-in ones; with like, changes to one of them"`

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
	Previous *WrappingKey `yaml:"previous" doc:"what wrapped them until now, while that changes: at the start everything is wrapped anew"`
	Rotate   *int         `yaml:"rotate_days" doc:"follow each data key, and each key that signs our tokens, by a new one after so many days; default 30; 0: only when asked"`
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

type Audit struct {
	Checkpoints []CheckpointPlace `yaml:"checkpoints" doc:"where signed checkpoints of the log are kept beside the database, best where its owner cannot change them"`
	Paranoid    bool              `yaml:"paranoid" doc:"hold each stored credential against the log before it is used: a database that was put back is found at once, not by audit verify alone; reads the whole log at the start, and keeps some 150 bytes a connection in memory"`
}

// CheckpointPlace is a file, or a URL.
type CheckpointPlace struct {
	File   string      `yaml:"file" doc:"file to whose end they are written"`
	URL    *conf.URL   `yaml:"url" doc:"where they are sent instead: with PUT each to URL/NUMBER, with POST all to the URL"`
	Method string      `yaml:"method" doc:"PUT (default) or POST"`
	Token  conf.Secret `yaml:"token" doc:"bearer token for the URL, as file:witness.token; the file is read each time"`
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
	Secret    conf.Secret `yaml:"client_secret" doc:"of a confidential client; 128 bits: at least 22 characters"`
}

type IDP struct {
	Name         string      `yaml:"name" doc:"default login"`
	Issuer       conf.URL    `yaml:"issuer" required:"yes" doc:"exactly the issuer that its discovery document names"`
	ClientID     string      `yaml:"client_id" required:"yes" doc:"our registration there"`
	ClientSecret conf.Secret `yaml:"client_secret" doc:"its secret, as file:idp.secret"`
	Scopes       []string    `yaml:"scopes" doc:"asked for beside openid, profile, email and offline_access"`
	Offline      *bool       `yaml:"offline_access" doc:"ask for it, so that agents work while people are away; default true. Without it they work as long as the IdP's session lives, or for 12 hours where it gives no refresh token then"`
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
	Token    conf.Secret `yaml:"token" doc:"the bearer token that the sender presents when it pushes, as file:events.token"`
	Poll     *conf.URL   `yaml:"poll" doc:"where the sender is asked for events (RFC 8936), instead of waiting for it to push them"`
	Stream   string      `yaml:"stream" doc:"id of the stream at the sender: every ten minutes its status is asked for, and tried if events come through"`
	Access   conf.Secret `yaml:"access" doc:"the bearer token that we present for poll and stream, as file:ssf.token; the file is read each time"`
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
	Site         string            `yaml:"site" doc:"connection: at which site of the vendor an account is, each person's consent says, and who has several chooses; person: each person says it before; default: what inputs say, for everybody"`
	Sites        []string          `yaml:"sites" doc:"with site: person, those that may be said: values of the input that is left out; default: what its pattern allows, where that keeps them with the vendor"`
	WebSocket    bool              `yaml:"websocket" doc:"let connections to it be upgraded to WebSockets, where the vendor's entry does not say so"`
	H2C          bool              `yaml:"h2c" doc:"its http hosts speak HTTP/2 without TLS, from the first byte, as gRPC does, where the vendor's entry does not say so"`
	OnLeak       string            `yaml:"on_leak" doc:"what happens to an answer that holds the credential: clean (default: it is taken out), or cut (the answer ends there)"`
	Limits       Limits            `yaml:"limits" doc:"how many requests it may get, of all servers together, and how large"`
	Share        *conf.Share       `yaml:"share" doc:"of what remains of a quota that the vendor gives to all who are connected here, how much one person may take; default 50%"`
	Hints        []catalog.Hint    `yaml:"hints" doc:"what an agent can do about failures of the API: looked at before the vendor's own, so that one that fits too counts instead"`
	OpenAPI      string            `yaml:"openapi" doc:"OpenAPI 3 description of the API, a file beside this one; policies can name its operations then (docs/policies.md)"`
	AcceptRisk   string            `yaml:"accept_risk" doc:"why a shared credential is acceptable here; needed by client_credentials"`
}

type Server struct {
	URL         *conf.URL         `yaml:"url" doc:"its streamable HTTP endpoint"`
	Command     []string          `yaml:"command" doc:"program that Frontdesk runs itself, one process a user, in a sandbox; instead of url. With an image: what is run of it, instead of its own entrypoint and arguments"`
	Args        []string          `yaml:"args" doc:"arguments of an image's program, instead of those that the image says"`
	Image       string            `yaml:"image" doc:"container image that the program is in: registry.example/name@sha256:…, registry.example/name:tag, or file:image.tar (docs/hosting.md)"`
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

// Limits are shared by all replicas.
type Limits struct {
	Calls         int `yaml:"calls" doc:"API requests a minute; default: no limit. Replicas share it"`
	UserCalls     int `yaml:"user_calls" doc:"of these, of each person"`
	Megabytes     int `yaml:"megabytes" doc:"MiB a minute, of request and answer bodies; what is over is paid back by waiting"`
	UserMegabytes int `yaml:"user_megabytes" doc:"of these, of each person"`
}

type Sandbox struct {
	Read      []string `yaml:"read" doc:"absolute paths that it may read, beside the system's programs and libraries; readable for everybody"`
	Memory    int      `yaml:"memory_mb" doc:"bound of its memory, in MiB; default 512"`
	Scratch   int      `yaml:"scratch_mb" doc:"bound of what it may write, in MiB; it is in memory, and gone with the process; default 64"`
	Processes int      `yaml:"processes" doc:"bound of its processes and threads; default 128"`
	CPU       int      `yaml:"cpu_percent" doc:"bound of its processor time, in percent of one processor; it needs the wall memory; default: none"`
	Require   []string `yaml:"require" doc:"walls without which it is not started: uid, network, files, processes, ipc, no_new_privs, landlock, seccomp, limits, memory; default network, files, processes, no_new_privs and seccomp; frontdesk doctor says which stand on this machine"`
}

type Hosting struct {
	Max     int `yaml:"max" doc:"processes of hosted servers in all; default 200"`
	PerUser int `yaml:"per_user" doc:"processes of one user; default 10"`

	ImageMB    int                 `yaml:"image_mb" doc:"how large an image may be, in MiB of its files; default 4096"`
	ImagesMB   int                 `yaml:"images_mb" doc:"how much room all images may take in data_dir, in MiB; default 20480"`
	Registries map[string]Registry `yaml:"registries" doc:"registries of images that want a password, or are not reached by their name, by host"`
}

type Registry struct {
	URL      *conf.URL   `yaml:"url" doc:"where it is reached, as of a mirror; default https://HOST"`
	Username string      `yaml:"username" doc:"who we are there"`
	Password conf.Secret `yaml:"password" doc:"its password or token, as file:registry.token"`
	Realm    *conf.URL   `yaml:"realm" doc:"where its tokens are, if on another site than its own: the password goes nowhere else"`
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
