package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"log/slog"
	"net/http"
	"path/filepath"
	"sync/atomic"
	"time"

	"frontdesk.dev/frontdesk/cmd/frontdesk/config"
	"frontdesk.dev/frontdesk/cmd/frontdesk/premises"
	"frontdesk.dev/frontdesk/cmd/frontdesk/traces"
	"frontdesk.dev/frontdesk/internal/broker"
	"frontdesk.dev/frontdesk/internal/broker/remote"
	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/connect"
	"frontdesk.dev/frontdesk/internal/connect/discovery"
	"frontdesk.dev/frontdesk/internal/egress"
	"frontdesk.dev/frontdesk/internal/gateway"
	"frontdesk.dev/frontdesk/internal/hosted"
	"frontdesk.dev/frontdesk/internal/hosted/image"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/issuer"
	"frontdesk.dev/frontdesk/internal/kit/conf"
	"frontdesk.dev/frontdesk/internal/kit/outbound"
	"frontdesk.dev/frontdesk/internal/policy"
	"frontdesk.dev/frontdesk/internal/portal"
	"frontdesk.dev/frontdesk/internal/store"
)

// desk is the whole program as a value: this file is its wiring diagram. The faces stand on what they get of the broker's side
// (behind), which is the waist of the same process, or by mutual TLS that of another.
type desk struct {
	role     config.Role
	path     string // of the config file
	dataDir  string // of the command line; "" where the file says it
	owner    string // names this start of the process
	stopping atomic.Bool
	config   atomic.Pointer[config.Config]
	log      *slog.Logger
	now      func() time.Time
	metrics  *metrics
	tracer   *traces.Tracer // nil where the config names no traces

	db       *store.DB
	door     *outbound.Door
	pins     *outbound.Pairing // of this end, where there are two
	epochs   *identity.Epochs
	verifier *identity.Verifier
	catalog  catalog.Catalog
	policies policy.Policies
	images   *image.Store
	hosts    *hosted.Hosts
	admin    http.Handler

	*waist // nil in the gateway's process
	*faces // nil in the broker's
}

// behind is what faces get of the broker's side.
type behind struct {
	door   broker.Door // for acts of clients
	api    broker.Door // for API requests
	flows  broker.Flows
	notary broker.Notary
	pages  visitors
	asks   gateway.Asks
	keys   issuer.PublicKeys
	certs  egress.Certifier
	away   *remote.Client // nil where it is this process
}

// visitors is what a visitor sees and says beside the flows.
type visitors interface {
	portal.Requests
	portal.Grants
	kept
	offered
}

// offered is what a visitor reads of a server before he lets a client in.
type offered interface {
	issuer.Offers
	// Callable says which of these tools of the server he could call through the client.
	Callable(ctx context.Context, v connect.Visitor, client identity.ClientID, s *catalog.Server, names []string) ([]bool, error)
}

// kept is what stands on record of a visitor.
type kept interface {
	portal.Holdings
	portal.Activity
}

// newDesk opens what the config names and joins the rooms. Nothing runs yet.
func newDesk(ctx context.Context, path, dataDir string, cfg *config.Config, as config.Role, log *slog.Logger) (*desk, error) {
	d := &desk{role: as, path: path, dataDir: dataDir, log: log, now: time.Now, metrics: newMetrics()}
	if err := premises.MakeDataDir(cfg.DataDir); err != nil {
		return nil, err
	}
	owner := make([]byte, 6)
	if _, err := rand.Read(owner); err != nil {
		return nil, err
	}
	d.owner = hex.EncodeToString(owner)
	if err := d.open(ctx, cfg); err != nil {
		return nil, err
	}
	var err error
	if d.tracer, err = traces.New(ctx, cfg, d.door.Named().Library(), version, log); err != nil {
		return nil, err
	}
	if err := d.join(ctx, cfg); err != nil {
		return nil, err
	}
	d.metrics.gauges(d)
	return d, d.apply(ctx, cfg)
}

// open reaches what stands outside: the other half of the program, the database, the network.
func (d *desk) open(ctx context.Context, cfg *config.Config) error {
	if err := d.part(cfg); err != nil {
		return err
	}
	s, err := premises.Database(cfg)
	if d.role == config.RoleGateway {
		s, err = premises.GuestDatabase(cfg)
	}
	if err != nil {
		return err
	}
	s.Log, s.Now = d.log, d.now
	if d.db, err = store.Open(ctx, s); err != nil {
		return err
	}
	if d.door, err = outbound.New(outbound.Config{Named: cfg.Origins(), Proxy: cfg.File.Outbound.Proxy, CAFile: cfg.File.Outbound.CAFile}); err != nil {
		return err
	}
	if d.role != config.RoleGateway {
		return nil
	}
	return d.guestRights(ctx)
}

// join makes the rooms: the broker's side, then the faces before it.
func (d *desk) join(ctx context.Context, cfg *config.Config) error {
	base := *cfg.PublicURL.URL
	at := func(t identity.Tenant, path string) string {
		return base.Scheme + "://" + base.Host + config.Prefix(t) + path
	}
	d.epochs = &identity.Epochs{Store: d.db, Now: d.now, Log: d.log, Changed: d.forget}
	d.verifier = &identity.Verifier{Epochs: d.epochs, Now: d.now}
	d.images = &image.Store{Dir: filepath.Join(cfg.DataDir, "images"), HTTP: d.door.Found(), Log: d.log, Now: d.now}
	d.hosts = &hosted.Hosts{Images: d.images, Catalog: &d.catalog, Bounds: hosted.Bounds{Max: cfg.Hosting.Max, Per: cfg.Hosting.PerUser}, Log: d.log, Now: d.now}
	var b behind
	var err error
	if d.role == config.RoleGateway {
		b = d.reach(cfg, at)
	} else if b, err = d.joinWaist(ctx, cfg, at); err != nil {
		return err
	}
	if d.role == config.RoleBroker {
		return nil
	}
	return d.joinFaces(cfg, at, b)
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
	if d.waist != nil && (e.Kind == identity.EpochUser || e.Kind == identity.EpochAccess) {
		d.exchange.Forget(e.Tenant, e.ID)
		d.federation.Forget(e.Tenant, e.ID)
		d.connect.Forget(e.Tenant, identity.UserID(e.ID))
	}
	if d.faces != nil {
		d.gateway.Wake(e)
	}
	d.hosts.Wake()
}

// apply makes a checked config the current one: all of it, or, with an error, nothing.
func (d *desk) apply(ctx context.Context, cfg *config.Config) error {
	if err := d.fits(cfg); err != nil {
		return err
	}
	sets, problems := cfg.PolicySets()
	var known known
	if d.waist != nil {
		known = d.resolve(cfg)
		problems = append(problems, known.problems...)
	}
	var clients []issuer.Client
	var images image.Settings
	if d.faces != nil {
		images = cfg.Images(cfg.Noting(&problems))
		var wrong conf.Problems
		clients, wrong = registered(cfg, d.now())
		problems = append(problems, wrong...)
	}
	if len(problems) > 0 {
		return problems
	}
	if err := errors.Join(d.door.SetNamed(cfg.Origins()), d.door.SetOpen(cfg.DocumentOrigins())); err != nil {
		return err
	}
	if d.waist != nil {
		if err := d.ca.Use(ctx, cfg.Certified()); err != nil {
			return err
		}
	}
	d.catalog.Set(cfg.Snapshot)
	d.policies.Use(sets)
	if d.waist != nil {
		d.use(cfg, known)
		d.keyPages(cfg)
	}
	if err := d.finder().Load(ctx); err != nil {
		return err
	}
	if d.faces != nil {
		d.images.Use(images) // servers that we run are run beside the faces
		d.registry.UseConfig(clients, cfg.File.Clients.Redirects)
		h := d.routes(cfg)
		d.public.Store(&h)
		d.gateway.Changed()
	}
	d.config.Store(cfg)
	d.metrics.loaded.SetToCurrentTime()
	return d.epochs.Load(ctx)
}

// finder is the one of this process.
func (d *desk) finder() *discovery.Finder {
	if d.waist != nil {
		return d.connect.Finder
	}
	return d.found
}
