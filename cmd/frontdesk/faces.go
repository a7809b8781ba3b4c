package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"frontdesk.dev/frontdesk/cmd/frontdesk/config"
	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/connect/discovery"
	"frontdesk.dev/frontdesk/internal/egress"
	"frontdesk.dev/frontdesk/internal/gateway"
	"frontdesk.dev/frontdesk/internal/gateway/sessions"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/issuer"
	"frontdesk.dev/frontdesk/internal/kit/conf"
	"frontdesk.dev/frontdesk/internal/kit/web"
	"frontdesk.dev/frontdesk/internal/portal"
)

// faces speak with the world, and hold no secret but their own keys.
type faces struct {
	behind   behind
	registry *issuer.Registry
	gateway  *gateway.Gateway
	egress   *egress.Proxy
	keys     *web.Keys
	public   atomic.Pointer[http.Handler]
	found    *discovery.Finder // where the broker is another process: reads what that has found
}

// joinFaces makes the faces, before what they get of the broker's side.
func (d *desk) joinFaces(cfg *config.Config, at func(identity.Tenant, string) string, b behind) error {
	d.faces = &faces{behind: b}
	var err error
	if d.keys, err = web.OpenKeys(cfg.Keys.Faces); err != nil {
		return err
	}
	d.registry = &issuer.Registry{Store: d.db, Fetch: d.door.Chosen(), Now: d.now, Dynamic: cfg.File.Clients.Dynamic == nil || *cfg.File.Clients.Dynamic}
	d.gateway = &gateway.Gateway{Verifier: d.verifier, Catalog: &d.catalog, Policies: &d.policies, Door: b.door, Asks: b.asks, Sessions: &sessions.Sessions{Store: d.db, Keys: d.keys, Log: d.log, Now: d.now}, Tasks: d.db,
		Keys: d.keys, Names: d.registry.Name, URL: at, Log: d.log, Now: d.now}
	d.egress = &egress.Proxy{Door: b.api, Catalog: &d.catalog, Certs: b.certs, Log: d.log, Hop: d.hop(), Trace: d.tracer.Extract(), Refused: d.metrics.refusedAtEgress}
	d.hosts.ServeDirect = func(l net.Listener, act audit.CallID) { _ = d.egress.ServeDirect(l, act) } // the same
	d.hosts.Serve = func(l net.Listener, act audit.CallID) { _ = d.egress.ServeProcess(l, act) }      // a listener that ends has ended with its process
	if cfg.Egress.Others == "tunnel" {
		d.egress.Tunnel = d.door.Tunnel
	}
	if b.away != nil {
		d.found = d.reads(at)
		d.admin = d.frontAdmin()
	}
	return nil
}

// unusedAfter is after how long a connection ends that nobody uses; 0: never.
func (d *desk) unusedAfter() time.Duration {
	return time.Duration(d.config.Load().Connections.UnusedDays) * 24 * time.Hour
}

// hop marks requests that passed this process's egress.
func (d *desk) hop() string { return "frontdesk-" + d.owner }

// registered are the clients that the config names.
func registered(cfg *config.Config, now time.Time) (clients []issuer.Client, problems conf.Problems) {
	read := cfg.Noting(&problems)
	for id, r := range cfg.File.Clients.Registered {
		c := issuer.Client{Tenant: identity.DefaultTenant, ID: identity.ClientID(id), Name: cmp.Or(r.Name, id), RedirectURIs: r.Redirects, Created: now}
		at := "clients.registered." + id + ".client_secret"
		if v := read(at, r.Secret); v != "" {
			problems = append(problems, cfg.Guessable(at, r.Secret)...)
			sum := sha256.Sum256([]byte(v))
			c.SecretHash = sum[:]
		}
		clients = append(clients, c)
	}
	return clients, problems
}

// heard takes what the IdP and the directory say to where it is verified.
func (d *desk) heard(w http.ResponseWriter, r *http.Request) {
	if away := d.behind.away; away != nil {
		away.Heard(w, r)
		return
	}
	(*d.hear.Load()).ServeHTTP(w, r)
}

// routes is the site map of the public listener.
func (d *desk) routes(cfg *config.Config) http.Handler {
	mux := http.NewServeMux()
	base := cfg.PublicURL
	suffix := ""
	if base.Scheme == "http" {
		suffix = "-" + base.Port()
	}
	for t := range cfg.Organisations() {
		p := config.Prefix(t)
		pages := web.NewPages(p, "Frontdesk", d.log, d.now)
		browser := &web.Browser{Keys: d.keys, Secure: base.Scheme == "https", Suffix: suffix, Tenant: strings.TrimPrefix(p, "/t/"), Now: d.now, Alive: func(s web.Session) bool {
			return identity.Tenant(s.Tenant) == t && s.Proof != "" && d.epochs.Session(t, identity.UserID(s.User), s.ID, s.Started) && d.epochs.SignIn(t, s.IDP, s.SID)
		}}
		(&issuer.Server{URL: func(t identity.Tenant, path string) string { return cfg.Issuer(t) + path }, Catalog: &d.catalog, Clients: d.registry, Grants: d.db, Flows: d.behind.flows,
			Notary: d.behind.notary, Keys: d.behind.keys, Epochs: d.epochs, Offers: d.behind.pages, Given: d.db, Browser: browser, Pages: issuerPages{pages, d}, Log: d.log, Now: d.now}).Mount(mux, t, p)
		(&portal.Site{Tenant: t, Prefix: p, Browser: browser, Pages: pages, Flows: d.behind.flows, Requests: d.behind.pages, Grants: d.behind.pages, Catalog: &d.catalog, Holdings: d.behind.pages,
			Log: d.behind.pages, Sessions: d.epochs, Agents: d.agent, Unused: d.unusedAfter, Now: d.now}).Mount(mux)
		d.gateway.Mount(mux, t, p)
		for _, path := range []string{"/backchannel-logout/", "/events/", "/scim/v2/"} {
			mux.HandleFunc(p+path, d.heard)
		}
	}
	var trusted []conf.Prefix = cfg.TrustedProxies
	front := &web.Front{Public: base.URL, Origins: cfg.File.Clients.Origins, Log: d.log}
	for _, p := range trusted {
		front.Trusted = append(front.Trusted, p.Prefix)
	}
	return front.Wrap(mux)
}

// agent is what pages say of a client.
func (d *desk) agent(ctx context.Context, t identity.Tenant, id identity.ClientID) portal.Agent {
	name, host, unverified := d.registry.About(ctx, t, id)
	return portal.Agent{Name: name, Host: host, Unverified: unverified}
}

// toolsFor counts what a person could call. Only a page shows it: what cannot be found out is left out.
func (d *desk) toolsFor(ctx context.Context, c issuer.Consent) issuer.Tools {
	known := d.gateway.Tools(c.Visitor.Tenant, catalog.ServerName(c.Server))
	names := slices.Sorted(maps.Keys(known))
	s := d.catalog.Server(c.Visitor.Tenant, catalog.ServerName(c.Server))
	if s == nil {
		return issuer.Tools{}
	}
	see, err := d.behind.pages.Callable(ctx, c.Visitor, c.Client, s, names)
	if err != nil {
		return issuer.Tools{}
	}
	var n issuer.Tools
	for i, name := range names {
		switch {
		case see[i] && known[name]:
			n.Reads++
		case see[i]:
			n.Changes++
		}
	}
	return n
}

// issuerPages shows the issuer's pages with the frame of all.
type issuerPages struct {
	*web.Pages
	d *desk
}

func (p issuerPages) Consent(w http.ResponseWriter, r *http.Request, c issuer.Consent) {
	c.Tools = p.d.toolsFor(r.Context(), c)
	p.Render(w, http.StatusOK, web.Page{Template: "consent", Title: "Let " + web.Name(cmp.Or(c.ClientName, web.Host(c.ClientHost))) + " use " + c.Server + " as you?", Person: c.Person, View: c})
}

func (p issuerPages) Leave(w http.ResponseWriter, _ *http.Request, to string) {
	where := to
	if u, err := url.Parse(to); err == nil {
		where = cmp.Or(u.Hostname(), u.Scheme)
	}
	p.Pages.Leave(w, "Back to your agent", to, where)
}
