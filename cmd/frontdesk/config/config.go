// Package config is the operator's file: its form, what is wrong with it, and what the rooms are made of by it.
//
// Nothing outside is asked: a file is right or wrong by itself, with what lies beside it. cmd/frontdesk opens what it names.
package config

import (
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/conf"
)

// Config is a file that was read and checked: what the rooms are made of.
type Config struct {
	File
	Digest   string                       // of the file and its policies: whether two are the same
	Vendors  map[string]*catalog.Provider // the built-in ones, and the file's
	Snapshot *catalog.Snapshot            // servers and upstreams
	Warnings []string                     // what is right, and worth a thought
	Forget   []string                     // keys of the database that do not open and are given up, of the command line

	dir   string
	text  []byte
	doc   *conf.Document
	noted []string // warnings that do not depend on policies
}

// Organisations lists the file's organisations by name, the default one among them.
func (c *Config) Organisations() map[identity.Tenant]Tenant {
	m := map[identity.Tenant]Tenant{identity.DefaultTenant: {c.IDP, c.File.Upstreams, c.File.Servers, c.Policies}}
	for name, t := range c.Tenants {
		m[identity.Tenant(name)] = t
	}
	return m
}

// Place is the path of a tenant's key in the file.
func Place(t identity.Tenant, key string) string {
	if t == identity.DefaultTenant {
		return key
	}
	return "tenants." + string(t) + "." + key
}

// Read reads and checks a file. All that is wrong comes at once. A dataDir that is not empty goes before the file's.
func Read(path, dataDir string) (*Config, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, &Unreadable{path, err}
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

// Problem is one at a key of the file.
func (c *Config) Problem(at, message, help string) conf.Problem {
	return c.doc.Problem(at, message, help)
}

// Secret reads what a reference stands for.
func (c *Config) Secret(s conf.Secret) (string, error) {
	return s.Resolve(c.dir)
}

// Path is where the file of a reference is.
func (c *Config) Path(s conf.Secret) string {
	return s.Path(c.dir)
}

// check looks at what the form cannot say, wherever the form is right: one slip is not told twice, and hides no other.
func (c *Config) check() conf.Problems {
	k := &checker{Config: c}
	if c.PublicURL.URL != nil {
		k.defaults()
		k.public()
		k.egress()
		k.doors()
	}
	k.keyring()
	k.registries()
	k.domains()
	k.audit()
	if err := new(slog.Level).UnmarshalText([]byte(cmp.Or(c.Telemetry.LogLevel, "info"))); err != nil {
		k.wrong("telemetry.log_level", "there is no log level "+c.Telemetry.LogLevel, "the levels are debug, info, warn and error")
	}
	k.catalogue()
	for t := range c.Tenants {
		if !name.MatchString(t) || t == string(identity.DefaultTenant) {
			k.wrong("tenants."+t, "a tenant's name is 1 to 32 lower-case letters, digits and hyphens, and not \"default\"", "")
		}
	}
	for _, t := range slices.Sorted(maps.Keys(c.Organisations())) {
		k.tenant(t, c.Organisations()[t])
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
	k.Hosting.Max, k.Hosting.PerUser = orInt(k.Hosting.Max, defaultHosted), orInt(k.Hosting.PerUser, defaultPerUser)
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

// doors checks where this listens: each address can be one, and none is another's.
func (k *checker) doors() {
	taken := map[string]string{}
	for _, door := range []struct{ at, address string }{{"listen", k.Listen}, {"egress.listen", k.Egress.Listen}, {"ops.listen", k.Ops.Listen}} {
		_, port, err := net.SplitHostPort(door.address)
		if n, nerr := strconv.ParseUint(port, 10, 16); err != nil || nerr != nil {
			if door.at != "listen" || k.File.Listen != "" && k.Listen != k.PublicURL.Host {
				k.wrong(door.at, door.address+" is no address to listen on", `write it as "127.0.0.1:8081", or ":8081" for all addresses`)
			}
			continue
		} else if n == 0 {
			continue // any that is free
		}
		if other, twice := taken[door.address]; twice {
			k.wrong(door.at, door.address+" is the address of "+other+" too", "give each a port of its own")
		}
		taken[door.address] = door.at
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

// name is the form of servers', upstreams' and tenants' names.
var name = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,31}$`)

// ValidName reports whether a server, an upstream or a tenant may be called so.
func ValidName(n string) bool { return name.MatchString(n) }

func (k *checker) tenant(t identity.Tenant, org Tenant) {
	if k.Snapshot == nil {
		k.Snapshot = &catalog.Snapshot{Servers: map[identity.Tenant]map[catalog.ServerName]*catalog.Server{}, Upstreams: map[identity.Tenant]map[catalog.UpstreamName]*catalog.Upstream{}}
	}
	ups, servers := map[catalog.UpstreamName]*catalog.Upstream{}, map[catalog.ServerName]*catalog.Server{}
	k.Snapshot.Upstreams[t], k.Snapshot.Servers[t] = ups, servers
	if org.IDP == nil && len(org.Servers) > 0 && k.doc.Sound("") && k.doc.Sound(Place(t, "servers")) {
		k.wrong(Place(t, "servers"), "there are servers, but nobody can sign in", "add  idp: {issuer: https://login.example.com, client_id: frontdesk, client_secret: file:idp.secret}")
	}
	k.signals(Place(t, "idp"), org.IDP)
	for _, n := range slices.Sorted(maps.Keys(org.Upstreams)) {
		if !k.doc.Sound(Place(t, "upstreams."+n)) {
			continue
		}
		if up := k.upstream(t, n, org.Upstreams[n]); up != nil {
			ups[up.Name] = up
		}
	}
	for _, n := range slices.Sorted(maps.Keys(org.Servers)) {
		if !k.doc.Sound(Place(t, "servers."+n)) {
			continue
		}
		if s := k.server(t, n, org.Servers[n], org.Upstreams); s != nil {
			servers[s.Name] = s
		}
	}
}

// Checked reads a config whole: form, references, policies and secrets.
func Checked(path string) (*Config, error) {
	cfg, err := Read(path, "")
	problems, formal := errors.AsType[conf.Problems](err)
	if err != nil && !formal {
		return nil, err
	}
	_, wrong := cfg.PolicySets()
	problems = append(append(problems, wrong...), cfg.secretProblems()...)
	if len(problems) > 0 {
		cfg.doc.Sort(problems)
		return nil, problems
	}
	return cfg, nil
}

// secretProblems tries every reference.
func (c *Config) secretProblems() conf.Problems {
	var l conf.Problems
	try := func(at string, s conf.Secret) {
		if s.IsZero() {
			return
		}
		if _, err := s.Resolve(c.dir); err != nil {
			l = append(l, c.doc.Problem(at, err.Error(), "put the secret there, then check again"))
		}
	}
	for t, org := range c.Organisations() {
		if org.IDP != nil {
			try(Place(t, "idp.client_secret"), org.IDP.ClientSecret)
			if e := org.IDP.Events; e != nil {
				try(Place(t, "idp.events.access"), e.Access)
			}
		}
		for n, u := range org.Upstreams {
			try(Place(t, "upstreams."+n+".client_secret"), u.ClientSecret)
			for i := range u.Methods {
				for key, s := range u.Methods[i].Secrets() {
					try(MethodAt(t, n, i)+"."+key, s)
				}
			}
		}
	}
	for id, r := range c.File.Clients.Registered {
		at := "clients.registered." + id + ".client_secret"
		if try(at, r.Secret); !r.Secret.IsZero() {
			l = append(l, c.Guessable(at, r.Secret)...)
		}
	}
	try("database", c.Database)
	for host, r := range c.Hosting.Registries {
		try("hosting.registries."+host+".password", r.Password)
	}
	for i, p := range c.File.Audit.Checkpoints {
		try("audit.checkpoints["+strconv.Itoa(i)+"].token", p.Token)
	}
	for at, s := range map[string]*KeyService{"keys.service": c.Keys.Service, "keys.previous.service": previousService(c.Keys.Previous)} {
		if s != nil && s.Azure != nil {
			try(at+".azure.client_secret", s.Azure.ClientSecret)
		}
		if s != nil && s.Transit != nil {
			try(at+".transit.token", s.Transit.Token)
		}
	}
	found := len(l)
	for at, f := range map[string]conf.Secret{"tls.cert": cmpOrZero(c.TLS).Cert, "tls.key": cmpOrZero(c.TLS).Key} {
		if f.IsFile() {
			try(at, f)
		}
	}
	if c.TLS != nil && c.TLS.Cert.IsFile() && c.TLS.Key.IsFile() && len(l) == found {
		if _, err := tls.LoadX509KeyPair(c.Path(c.TLS.Cert), c.Path(c.TLS.Key)); err != nil {
			l = append(l, c.doc.Problem("tls.cert", "certificate and key cannot be used: "+strings.TrimPrefix(err.Error(), "tls: "), "cert is a PEM file with the certificate first and its chain after it, key the PEM file of its private key"))
		}
	}
	return l
}

// minSecret is 128 bits in base64 (RFC 6749 section 10.10): how fast one address may guess is bounded, and how many addresses there are
// is not.
const minSecret = 22

// Guessable says what is wrong with the secret of a client that the config registers; nothing where it cannot be read.
func (c *Config) Guessable(at string, s conf.Secret) conf.Problems {
	v, err := s.Resolve(c.dir)
	if err != nil || len(v) >= minSecret {
		return nil
	}
	return conf.Problems{c.doc.Problem(at, fmt.Sprintf("the secret has %d characters: it could be guessed, by many who share the work", len(v)), "make one of 22 characters or more, as with  openssl rand -base64 32")}
}

// Unreadable is a config file that is not there, or is not ours to read.
type Unreadable struct {
	Path string
	Err  error
}

func (u *Unreadable) Error() string {
	if errors.Is(u.Err, fs.ErrNotExist) {
		return "there is no config " + u.Path + ": `frontdesk init` writes one to start from"
	}
	why := u.Err
	if inner, ok := errors.AsType[*fs.PathError](u.Err); ok {
		why = inner.Err
	}
	return fmt.Sprintf("the config %s cannot be read: %v; name a file that the account of frontdesk may read", u.Path, why)
}

func (u *Unreadable) Unwrap() error { return u.Err }

// FillIn stands in a starter where the operator has to write; check refuses it.
const FillIn = "FILL-IN"

// Prefix of a tenant's paths.
func Prefix(t identity.Tenant) string {
	if t == identity.DefaultTenant {
		return ""
	}
	return "/t/" + string(t)
}

// MethodAt is the place of a method in the file.
func MethodAt(t identity.Tenant, upstream string, i int) string {
	return Place(t, "upstreams."+upstream+".methods["+strconv.Itoa(i)+"]")
}

// Issuer is a tenant's issuer identifier.
func (c *Config) Issuer(t identity.Tenant) string {
	return c.PublicURL.Scheme + "://" + c.PublicURL.Host + Prefix(t)
}

// Certified are the names that egress shows certificates for: the hosts that it opens, and its own.
func (c *Config) Certified() []string {
	l := append([]string{"localhost", "127.0.0.1", "::1"}, c.Snapshot.Hosts()...)
	if host, _, err := net.SplitHostPort(c.Egress.Listen); err == nil {
		if a, err := netip.ParseAddr(host); err == nil && !a.IsUnspecified() {
			l = append(l, host)
		}
	}
	return append(l, c.Egress.Names...)
}

// DocumentOrigins are those of clients' metadata documents that are not on the public internet: agents may lead us there.
func (c *Config) DocumentOrigins() (l []string) {
	for _, o := range c.File.Clients.Documents {
		l = append(l, o.Scheme+"://"+o.Host)
	}
	return l
}

// Origins are all that the config names: where connections may go, private addresses included.
func (c *Config) Origins() []string {
	set := map[string]bool{}
	add := func(raw string) {
		if u, err := url.Parse(raw); err == nil && u.Host != "" {
			set[u.Scheme+"://"+u.Host] = true
		}
	}
	for _, o := range c.DocumentOrigins() {
		add(o)
	}
	if c.Telemetry.Traces != nil {
		add(c.Telemetry.Traces.String())
	}
	for _, p := range c.File.Audit.Checkpoints {
		if p.URL != nil {
			add(p.URL.String())
		}
	}
	for _, raw := range slices.Concat(c.Keys.Service.URLs(), previousService(c.Keys.Previous).URLs(), c.registryOrigins()) {
		add(raw)
	}
	for t, org := range c.Organisations() {
		if org.IDP != nil {
			add(org.IDP.Issuer.String())
			if e := org.IDP.Events; e != nil && e.Issuer != nil {
				add(e.Issuer.String())
			}
			if e := org.IDP.Events; e != nil && e.Poll != nil {
				add(e.Poll.String())
			}
			if e := org.IDP.Events; e != nil && e.JWKS != nil {
				add(e.JWKS.String())
			}
		}
		for _, s := range org.Servers {
			if s.URL != nil {
				add(s.URL.String())
			}
		}
		for _, u := range org.Upstreams {
			for i := range u.Methods {
				for _, raw := range u.Methods[i].URLs() {
					add(raw)
				}
			}
		}
		for _, up := range c.Snapshot.Upstreams[t] {
			for _, o := range up.Origins {
				if add(o.String()); up.Provider.Egress.H2C && o.Scheme == "http" {
					set["h2c://"+o.Host] = true
				}
			}
			vendorOrigins(up, add)
			for _, site := range up.Sites.Listed() {
				if there, err := up.At(site); err == nil {
					vendorOrigins(there, add)
				}
				if u, err := up.Sites.At(site); err == nil {
					add(u.String())
				}
			}
		}
	}
	var l []string
	for o := range set {
		l = append(l, o)
	}
	return l
}

// Noting reads secrets, and notes those that cannot be read.
func (c *Config) Noting(problems *conf.Problems) func(at string, s conf.Secret) string {
	return func(at string, s conf.Secret) string {
		if s.IsZero() {
			return ""
		}
		v, err := c.Secret(s)
		if err != nil {
			*problems = append(*problems, c.Problem(at, err.Error(), ""))
		}
		return v
	}
}

// vendorOrigins are those of a vendor's own endpoints.
func vendorOrigins(up *catalog.Upstream, add func(raw string)) {
	add(up.Provider.Account.URL)
	if o := up.Provider.OAuth; o != nil {
		add(o.Token)
		add(o.Refreshing)
		add(o.Pushed)
		add(o.Device.Authorization)
		add(strings.ReplaceAll(o.Revocation, "{client_id}", ""))
	}
}
