package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"frontdesk.dev/frontdesk/cmd/frontdesk/config"
	"frontdesk.dev/frontdesk/internal/admin"
	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/internal/broker"
	"frontdesk.dev/frontdesk/internal/broker/booking"
	"frontdesk.dev/frontdesk/internal/broker/traffic"
	"frontdesk.dev/frontdesk/internal/broker/visits"
	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/connect"
	"frontdesk.dev/frontdesk/internal/connect/intake"
	"frontdesk.dev/frontdesk/internal/egress"
	"frontdesk.dev/frontdesk/internal/ending"
	"frontdesk.dev/frontdesk/internal/exchange"
	"frontdesk.dev/frontdesk/internal/exchange/federation"
	"frontdesk.dev/frontdesk/internal/exchange/refresh"
	"frontdesk.dev/frontdesk/internal/gateway"
	"frontdesk.dev/frontdesk/internal/hosted"
	"frontdesk.dev/frontdesk/internal/hosted/image"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/issuer"
	"frontdesk.dev/frontdesk/internal/kit/conf"
	"frontdesk.dev/frontdesk/internal/kit/oauth"
	"frontdesk.dev/frontdesk/internal/kit/outbound"
	"frontdesk.dev/frontdesk/internal/kit/secret"
	"frontdesk.dev/frontdesk/internal/kit/web"
	"frontdesk.dev/frontdesk/internal/policy"
	"frontdesk.dev/frontdesk/internal/portal"
	"frontdesk.dev/frontdesk/internal/signals"
	"frontdesk.dev/frontdesk/internal/store"
	"frontdesk.dev/frontdesk/internal/vault"
)

// desk is the whole program as a value: this file is its wiring diagram, from the ground up.
type desk struct {
	path     string // of the config file
	dataDir  string // of the command line; "" where the file says it
	stopping atomic.Bool
	config   atomic.Pointer[config.Config]
	log      *slog.Logger
	now      func() time.Time

	db       *store.DB
	door     *outbound.Door
	epochs   *identity.Epochs
	idps     identity.IdPs
	verifier *identity.Verifier
	catalog  catalog.Catalog
	audit    *audit.Log

	checkpoints *audit.Checkpoints
	listening   signals.Listening

	policies policy.Policies
	vault    *vault.Vault
	signer   *vault.Signer
	clients  vault.Clients
	refresh  *refresh.Machine
	endings  *vault.Endings
	office   *ending.Office
	exchange *exchange.Exchange
	connect  *connect.Desk
	images   *image.Store
	hosts    *hosted.Hosts
	broker   *broker.Broker
	visits   *visits.Desk
	registry *issuer.Registry
	gateway  *gateway.Gateway
	metrics  *metrics
	tracer   *tracer // nil where the config names no traces

	federation *federation.Federation
	rotation   *vault.Rotation

	keys    *web.Keys
	public  atomic.Pointer[http.Handler]
	traffic traffic.Door
	egress  *egress.Proxy
	ca      *vault.Authority
	admin   http.Handler
}

// flows joins the halves of broker.Flows.
type flows struct {
	*connect.Desk
	*exchange.Home
}

// newDesk opens what the config names and joins the rooms. Nothing runs yet.
func newDesk(ctx context.Context, path, dataDir string, cfg *config.Config, log *slog.Logger) (*desk, error) {
	d := &desk{path: path, dataDir: dataDir, log: log, now: time.Now}
	if err := makeDataDir(cfg.DataDir); err != nil {
		return nil, err
	}
	if err := d.open(ctx, cfg); err != nil {
		return nil, err
	}
	var err error
	if d.tracer, err = newTracer(ctx, cfg, d.door.Named().Library(), log); err != nil {
		return nil, err
	}
	if err := d.join(cfg); err != nil {
		return nil, err
	}
	d.metrics.gauges(d)
	return d, d.apply(ctx, cfg)
}

// open reaches what stands outside: database, keys, network.
func (d *desk) open(ctx context.Context, cfg *config.Config) error {
	s, err := databaseOf(cfg)
	if err != nil {
		return err
	}
	s.Log, s.Now = d.log, d.now
	if d.db, err = store.Open(ctx, s); err != nil {
		return err
	}
	var tenants []identity.Tenant
	for t := range cfg.Organisations() {
		tenants = append(tenants, t)
	}
	fresh, err := vault.Fresh(ctx, d.db, tenants)
	if err != nil {
		return err
	}
	if d.door, err = outbound.New(outbound.Config{Named: cfg.Origins(), Proxy: cfg.File.Outbound.Proxy, CAFile: cfg.File.Outbound.CAFile}); err != nil {
		return err
	}
	wrap, all, err := wrappers(ctx, cfg, d.door, fresh, d.now)
	if err != nil {
		return err
	}
	if err := d.rewrap(ctx, cfg, wrap, all, tenants); err != nil {
		return err
	}
	if err := vault.Check(ctx, d.db, wrap, tenants); err != nil {
		return err
	}
	if d.keys, err = web.OpenKeys(cfg.Keys.Faces); err != nil {
		return err
	}
	d.vault = &vault.Vault{Store: d.db, Keys: d.db, Wrap: wrap, Now: d.now}
	d.signer = &vault.Signer{Keys: d.db, Wrap: wrap, Now: d.now}
	d.rotation = &vault.Rotation{Vault: d.vault, Rows: d.db, Turns: d.db, Owner: fmt.Sprintf("%d@%d", os.Getpid(), d.now().UnixNano()), Tenants: d.tenants, Log: d.log,
		Calendar: vault.Calendar{Signer: d.signer, Log: d.logKeys(cfg), Every: cfg.RotateEvery}}
	d.ca = &vault.Authority{Keys: d.db, Wrap: wrap, Now: d.now}
	return d.keepLog(ctx, cfg)
}

// join makes the rooms, floor by floor.
func (d *desk) join(cfg *config.Config) error {
	base := *cfg.PublicURL.URL
	at := func(t identity.Tenant, path string) string {
		return base.Scheme + "://" + base.Host + config.Prefix(t) + path
	}
	issuerURL := at(identity.DefaultTenant, "")
	client := oauth.Client{HTTP: d.door.Found(), Now: d.now}
	owner := make([]byte, 6)
	if _, err := rand.Read(owner); err != nil {
		return err
	}

	d.metrics = newMetrics()
	d.epochs = &identity.Epochs{Store: d.db, Now: d.now, Log: d.log, Changed: d.forget}
	d.clients.Signer, d.clients.Now = d.signer, d.now
	d.verifier = &identity.Verifier{Users: d.db, Epochs: d.epochs, Now: d.now}
	place, err := placeID(cfg.DataDir)
	if err != nil {
		return err
	}
	d.endings = &vault.Endings{Vault: d.vault, Store: d.db, Catalog: &d.catalog, Clients: &d.clients, OAuth: client, Log: d.log, Now: d.now}
	d.refresh = &refresh.Machine{Vault: d.vault, Steps: d.db, Rows: d.db, Endings: d.endings, Catalog: &d.catalog, Clients: &d.clients, OAuth: client, Log: countedLog{d.audit, d.metrics}, Slog: d.log,
		Owner: refresh.Owner{Place: place, Run: hex.EncodeToString(owner)}, Spool: refresh.Spool{Dir: filepath.Join(cfg.DataDir, "spool")}, Now: d.now}
	d.connect = &connect.Desk{}
	stored := exchange.Stored{Vault: d.vault, Refresh: d.refresh, Uses: d.db, Witness: d.connect, Log: d.log}
	home := &exchange.Home{Vault: d.vault, Refresh: d.refresh, IdPs: &d.idps, Users: d.db, Epochs: d.epochs, Events: d.audit}
	d.federation = &federation.Federation{Subjects: federation.Subjects{Home: home, Users: d.db}, IdPs: &d.idps, Clients: &d.clients, Signer: d.signer, OAuth: client,
		HTTP: d.door.Found(), Issuer: func(t identity.Tenant) string { return at(t, "") }, Now: d.now}
	methods := d.federation.Methods()
	for _, kind := range []catalog.MethodKind{catalog.AuthorizationCode, catalog.DeviceCode, catalog.APIKey} {
		methods[kind] = stored.By(kind)
	}
	methods[catalog.ClientCredentials] = &exchange.ServiceAccount{Clients: &d.clients, OAuth: client, Now: d.now}
	d.exchange = &exchange.Exchange{Vault: d.vault, Clients: &d.clients, OAuth: client, Refresh: d.refresh, Now: d.now,
		Tickets: &exchange.TicketMint{MAC: d.signer, Issuer: issuerURL, Audience: issuerURL + "/egress", Opaque: d.db}, Methods: methods}
	*d.connect = connect.Desk{Catalog: &d.catalog, Store: d.db, Vault: d.vault, Clients: &d.clients, IdPs: &d.idps, Users: d.db, Epochs: d.epochs, Events: d.audit, Policies: &d.policies,
		OAuth: client, API: d.door.Named(), Ready: d.exchange, Finder: d.finder(at), URL: at, Log: d.log, Now: d.now,
		Ends: connect.Ends{Endings: d.endings, Unused: d.db, UnusedAfter: func() time.Duration { return time.Duration(d.config.Load().Connections.UnusedDays) * 24 * time.Hour }}}
	d.office = &ending.Office{Store: d.db, People: d.db, Vault: d.vault, Vendors: d.endings, Catalog: &d.catalog, Epochs: d.epochs, Events: d.audit, Log: d.log, Now: d.now}
	d.images = &image.Store{Dir: filepath.Join(cfg.DataDir, "images"), HTTP: d.door.Found(), Log: d.log, Now: d.now}
	d.hosts = &hosted.Hosts{Images: d.images, Catalog: &d.catalog, Serve: func(l net.Listener, act audit.CallID) { _ = d.egress.ServeProcess(l, act) }, CA: d.ca.PEM, Bounds: hosted.Bounds{Max: cfg.Hosting.Max, Per: cfg.Hosting.PerUser},
		Log: d.log, Now: d.now} // a listener that ends has ended with its process
	d.broker = &broker.Broker{Policies: &d.policies, Log: d.tracer.log(timedLog{d.audit, d.metrics, d.now}), Exchange: d.tracer.credentials(d.exchange), People: d.connect, Access: d.epochs, Users: d.db,
		Tickets: &identity.Tickets{MAC: d.signer, Opaque: d.db, Audience: issuerURL + "/egress", Now: d.now}, Catalog: &d.catalog, Out: d.door.Named(), Hosts: d.hosts, Now: d.now,
		Observe: d.metrics.observe, Leaked: d.metrics.leaked}
	if !cfg.Database.IsZero() { // others may be there
		d.broker.Calls.Post = &booking.Post{Notes: d.db, Acts: d.db, Own: d.audit.Writers, Log: d.log}
		d.traffic.Shared = d.db
	}
	d.visits = &visits.Desk{Flows: d.flows(), People: d.connect, Shelf: d.db, Signer: d.signer, Log: d.audit, MAC: d.signer, Epochs: d.epochs, URL: at, Now: d.now, Together: true}
	door := d.tracer.door(d.broker)
	d.registry = &issuer.Registry{Store: d.db, Fetch: d.door.Found(), Now: d.now, Dynamic: cfg.File.Clients.Dynamic == nil || *cfg.File.Clients.Dynamic}
	d.gateway = &gateway.Gateway{Verifier: d.verifier, Catalog: &d.catalog, Policies: &d.policies, Door: door, Asks: d.connect, Sessions: d.db, Tasks: d.db, Epochs: d.epochs,
		Keys: d.keys, Names: d.registry.Name, URL: at, Log: d.log, Now: d.now}
	hop := "frontdesk-" + hex.EncodeToString(owner)
	d.traffic.Door, d.traffic.Now, d.traffic.Log, d.traffic.Circuits.Log, d.traffic.Replica = door, d.now, d.log, d.log, hop
	d.egress = &egress.Proxy{Door: &d.traffic, Catalog: &d.catalog, Certs: d.ca, Log: d.log, Hop: hop, Trace: d.tracer.extract(), Refused: d.metrics.refusedAtEgress}
	if cfg.Egress.Others == "tunnel" {
		d.egress.Tunnel = d.door.Tunnel
	}
	d.admin = (&admin.API{People: d.db, Connections: d.vault, Door: d.broker, Explains: admin.Explains{Explain: d.exchange, Grants: d.connect, Requests: d.egress}, Flows: d.flows(), Intake: &intake.Intake{Desk: d.connect, Vault: d.vault, People: d.db, IdPs: &d.idps, Catalog: &d.catalog, Events: d.audit, Now: d.now}, Catalog: &d.catalog, Ends: admin.Ends{Office: d.office, Endings: d.db},
		Log: d.db, Events: d.audit, Reload: d.reload, Status: d.status, Hosted: d.hosts, Authority: d.ca.PEM, Keys: d.rotation, Slog: d.log, Now: d.now}).Handler()
	return nil
}

// finder learns of vendors' own MCP servers what no catalogue says.
func (d *desk) finder(at func(identity.Tenant, string) string) *connect.Finder {
	return &connect.Finder{Catalog: &d.catalog, Store: d.db, HTTP: d.door.Found(), URL: at, Log: d.log, Now: d.now,
		Foreign: func(t identity.Tenant, issuer string) bool {
			return issuer == at(t, "") || slices.ContainsFunc(d.idps.Of(t), func(i *identity.IdP) bool { return i.Issuer == issuer })
		},
		Secret: func(up *catalog.Upstream) bool {
			return !d.clients.Secret(up, catalog.AuthorizationCode, vault.ClientSecret).IsZero()
		}}
}

func (d *desk) flows() flows {
	return flows{d.connect, &exchange.Home{Vault: d.vault, Refresh: d.refresh, IdPs: &d.idps, Users: d.db, Epochs: d.epochs, Events: d.audit}}
}

// placeID names a data_dir for good: by it a process finds what earlier ones here had begun.
func placeID(dir string) (string, error) {
	path := filepath.Join(dir, "place.id")
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		id := make([]byte, 8)
		if _, err := rand.Read(id); err != nil {
			return "", err
		}
		text = []byte(hex.EncodeToString(id))
		err = os.WriteFile(path, append(text, '\n'), 0o600)
		return string(text), err
	}
	if err != nil {
		return "", err
	}
	id := strings.TrimSpace(string(text))
	if b, err := hex.DecodeString(id); err != nil || len(b) != 8 {
		return "", fmt.Errorf("%s does not hold 16 hex digits; remove it, and a new one is made", path)
	}
	return id, nil
}

// tenants are those of the current config.
func (d *desk) tenants() []identity.Tenant {
	var l []identity.Tenant
	if cfg := d.config.Load(); cfg != nil {
		for t := range cfg.Organisations() {
			l = append(l, t)
		}
	}
	return l
}

// forget drops what is remembered of whoever an epoch names, from whichever replica it came.
func (d *desk) forget(e identity.Epoch) {
	switch e.Kind {
	case identity.EpochUser, identity.EpochAccess:
		d.exchange.Forget(e.Tenant, e.ID)
		d.federation.Forget(e.Tenant, e.ID)
		d.connect.Forget(e.Tenant, identity.UserID(e.ID))
	}
	d.gateway.Wake(e)
	d.hosts.Wake()
}

// apply makes a checked config the current one: all of it, or, with an error, nothing.
func (d *desk) apply(ctx context.Context, cfg *config.Config) error {
	sets, problems := cfg.PolicySets()
	if len(problems) > 0 {
		return problems
	}
	secrets, idps, issuers, clients, problems := d.resolve(cfg)
	if len(problems) > 0 {
		return problems
	}
	images := cfg.Images(noting(cfg, &problems))
	if len(problems) > 0 {
		return problems
	}
	hear, problems := d.receivers(cfg, idps)
	if len(problems) > 0 {
		return problems
	}
	if err := d.door.SetNamed(cfg.Origins()); err != nil {
		return err
	}
	if err := d.ca.Use(ctx, cfg.Certified()); err != nil {
		return err
	}
	d.catalog.Set(cfg.Snapshot)
	d.images.Use(images)
	d.policies.Use(sets)
	d.clients.Use(secrets)
	d.idps.Use(idps)
	if err := d.connect.Finder.Load(ctx); err != nil {
		return err
	}
	d.verifier.UseIssuers(issuers)
	d.registry.UseConfig(clients, cfg.File.Clients.Redirects)
	d.listening.Use(slices.Collect(maps.Values(hear)))
	h := d.routes(cfg, hear)
	d.public.Store(&h)
	d.config.Store(cfg)
	d.metrics.loaded.SetToCurrentTime()
	d.gateway.Changed()
	return d.epochs.Load(ctx)
}

// resolve reads the secrets that the config refers to.
func (d *desk) resolve(cfg *config.Config) (secrets map[vault.ClientKey]secret.Text, idps []*identity.IdP, issuers []identity.Issuer, clients []issuer.Client, problems conf.Problems) {
	secrets = map[vault.ClientKey]secret.Text{}
	read := noting(cfg, &problems)
	for t, org := range cfg.Organisations() {
		for n, u := range org.Upstreams {
			secrets[vault.ClientKey{Tenant: t, Upstream: catalog.UpstreamName(n)}] = secret.New(read(config.Place(t, "upstreams."+n+".client_secret"), u.ClientSecret))
			for i := range u.Methods {
				for key, s := range u.Methods[i].Secrets() {
					if !s.IsZero() {
						secrets[vault.ClientKey{Tenant: t, Upstream: catalog.UpstreamName(n), Method: u.Methods[i].Kind, Part: parts[key]}] = secret.New(read(config.MethodAt(t, n, i)+"."+key, s))
					}
				}
			}
		}
		own := identity.Issuer{Tenant: t, URL: cfg.Issuer(t), Keys: d.signer.OfTenant(t)}
		issuers = append(issuers, own)
		if org.IDP == nil {
			continue
		}
		idp := identity.NewIdP(identity.IdPConfig{Tenant: t, Name: cmp.Or(org.IDP.Name, "login"), Issuer: org.IDP.Issuer.String(), ClientID: org.IDP.ClientID,
			Secret: secret.New(read(config.Place(t, "idp.client_secret"), org.IDP.ClientSecret)), Scopes: org.IDP.Scopes, SubjectClaim: org.IDP.SubjectClaim, GroupsClaim: org.IDP.GroupsClaim,
			Audiences: org.IDP.Audiences, TokenTypes: org.IDP.TokenTypes, NoOffline: org.IDP.Offline != nil && !*org.IDP.Offline}, d.door.Found(), d.now, d.log)
		idps = append(idps, idp)
		issuers = append(issuers, identity.Issuer{Tenant: t, URL: idp.Issuer, Keys: idp, IDP: idp.Name, Audiences: idp.Audiences, Types: idp.TokenTypes,
			SubjectClaim: idp.SubjectClaim, GroupsClaim: idp.GroupsClaim})
	}
	for id, r := range cfg.File.Clients.Registered {
		c := issuer.Client{Tenant: identity.DefaultTenant, ID: identity.ClientID(id), Name: cmp.Or(r.Name, id), RedirectURIs: r.Redirects, Created: d.now()}
		if v := read("clients.registered."+id+".client_secret", r.Secret); v != "" {
			sum := sha256.Sum256([]byte(v))
			c.SecretHash = sum[:]
		}
		clients = append(clients, c)
	}
	return secrets, idps, issuers, clients, problems
}

// noting reads secrets, and notes those that cannot be read.
func noting(cfg *config.Config, problems *conf.Problems) func(at string, s conf.Secret) string {
	return func(at string, s conf.Secret) string {
		if s.IsZero() {
			return ""
		}
		v, err := cfg.Secret(s)
		if err != nil {
			*problems = append(*problems, cfg.Problem(at, err.Error(), ""))
		}
		return v
	}
}

// parts are a method's secrets in the vault's words.
var parts = map[string]vault.Part{"client_secret": vault.ClientSecret, "private_key": vault.PrivateKey, "key": vault.StaticKey}

// routes is the site map of the public listener.
func (d *desk) routes(cfg *config.Config, hear map[identity.Tenant]*signals.Receiver) http.Handler {
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
		(&issuer.Server{URL: func(t identity.Tenant, path string) string { return cfg.Issuer(t) + path }, Catalog: &d.catalog, Clients: d.registry, Grants: d.db, Flows: d.visits,
			Notary: d.visits, Keys: d.signer, Epochs: d.epochs, Offers: d.visits, Given: d.db, Browser: browser, Pages: issuerPages{pages, d}, Log: d.log, Now: d.now}).Mount(mux, t, p)
		(&portal.Site{Tenant: t, Prefix: p, Browser: browser, Pages: pages, Flows: d.visits, Requests: d.visits, Grants: d.visits, Catalog: &d.catalog, Holdings: d.visits,
			Log: d.visits, Sessions: d.epochs, Agents: d.agent, Now: d.now}).Mount(mux)
		d.gateway.Mount(mux, t, p)
		if r := hear[t]; r != nil {
			r.Mount(mux, p)
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
	known := d.gateway.Tools(c.Tenant, catalog.ServerName(c.Server))
	names := slices.Sorted(maps.Keys(known))
	s := d.catalog.Server(c.Tenant, catalog.ServerName(c.Server))
	u, err := d.db.User(ctx, c.Tenant, c.User)
	if err != nil || s == nil {
		return issuer.Tools{}
	}
	who := &identity.Caller{Tenant: u.Tenant, User: u.ID, IDP: u.IDP, Subject: u.Subject, Name: u.Name, Groups: u.Groups, Client: c.Client, Issued: d.now(), Expires: c.Until}
	see, err := d.broker.Visible(ctx, who, s, "tools/call", names)
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
	p.Render(w, http.StatusOK, web.Page{Template: "consent", Title: "Let " + web.Name(cmp.Or(c.ClientName, c.ClientHost)) + " use " + c.Server + " as you?", Person: c.Person, View: c})
}

func (p issuerPages) Leave(w http.ResponseWriter, _ *http.Request, to string) {
	where := to
	if u, err := url.Parse(to); err == nil {
		where = cmp.Or(u.Hostname(), u.Scheme)
	}
	p.Pages.Leave(w, "Back to your agent", to, where)
}
