package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"frontdesk.dev/frontdesk/cmd/frontdesk/config"
	"frontdesk.dev/frontdesk/cmd/frontdesk/console"
	"frontdesk.dev/frontdesk/internal/admin"
	"frontdesk.dev/frontdesk/internal/broker/remote"
	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/connect"
	"frontdesk.dev/frontdesk/internal/connect/discovery"
	"frontdesk.dev/frontdesk/internal/gateway"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/outbound"
	"frontdesk.dev/frontdesk/internal/kit/web"
	"frontdesk.dev/frontdesk/internal/portal"
	"frontdesk.dev/frontdesk/internal/store"
)

// part reads what a process needs that is only a part of Frontdesk.
func (d *desk) part(cfg *config.Config) (err error) {
	if d.role == config.RoleAll {
		return nil
	}
	if cfg.Domains == nil {
		return fmt.Errorf("serve --role %s needs `domains` in %s: it says how the two processes find and know each other (docs/domains.md)", d.role, filepath.Base(d.path))
	}
	if err := d.fits(cfg); err != nil {
		return err
	}
	own, peer := cfg.Domains.Broker, cfg.Domains.Gateway
	if d.role == config.RoleGateway {
		own, peer = peer, own
	}
	d.pins, err = outbound.Pair(cfg.Path(own.Cert), cfg.Path(own.Key), cfg.Path(peer.Cert), d.now, d.log)
	return err
}

const tellPairing = 24 * time.Hour

// watchPairing says once a day which certificates between the two sides end soon, and has new ones read though nobody calls.
func (d *desk) watchPairing(ctx context.Context) error {
	d.pins.Tell()
	told, tick := d.now(), time.NewTicker(time.Minute)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		_ = d.pins.Trouble() // it is in the log
		if d.now().Sub(told) >= tellPairing {
			d.pins.Tell()
			told = d.now()
		}
	}
}

// fits says which configs two processes cannot serve.
func (d *desk) fits(cfg *config.Config) error {
	if d.role == config.RoleAll {
		return nil
	}
	if cfg.Database.IsZero() && d.role == config.RoleBroker || cfg.Domains.Database.IsZero() {
		return errors.New("gateway and broker need PostgreSQL, with an account for each (database, and domains.database): a SQLite file has one owner, who can read all of it")
	}
	return nil
}

// guestRights refuses to start with an account that can do too little, or reads what the gateway is not to have.
func (d *desk) guestRights(ctx context.Context) error {
	lacks, over, err := d.db.GuestRights(ctx)
	switch {
	case err != nil:
		return err
	case len(over) > 0:
		return fmt.Errorf("the gateway's database account has more rights than it may have: %s. Run what `frontdesk database grants ACCOUNT` prints, as the owner of the tables, and see that the account owns nothing", strings.Join(over, ", "))
	case len(lacks) > 0:
		return fmt.Errorf("the gateway's database account lacks rights: %s. Start the broker once, which makes the tables, then run what `frontdesk database grants ACCOUNT` prints", strings.Join(lacks, ", "))
	}
	return nil
}

// reach is the broker's side in another process.
func (d *desk) reach(cfg *config.Config, at func(identity.Tenant, string) string) behind {
	var brokers []remote.Broker
	for _, address := range append([]string{cfg.Domains.Address}, cfg.Domains.Others...) {
		brokers = append(brokers, remote.Broker{Address: address, Wire: d.pins.To(address)})
	}
	c := remote.NewClient(brokers, &d.catalog, d.epochs.Alive, d.log)
	c.Trace, c.Hosts, d.hosts.CA = d.tracer.Inject(), d.hosts, c.Authority
	d.verifier.Elsewhere = c.Verify
	d.epochs.Store = farEpochs{d.db, c}
	door := d.tracer.Door(c)
	return behind{door: door, api: door, flows: c, notary: c, pages: c, asks: farAsks{c, at}, keys: c, certs: &remote.Certifier{Client: c, Now: d.now}, away: c}
}

// farEpochs reads ends here and has them written by the broker: who could write them could hide others.
type farEpochs struct {
	*store.DB
	far *remote.Client
}

func (e farEpochs) Advance(ctx context.Context, ep identity.Epoch) (identity.Epoch, error) {
	return e.far.Advance(ctx, ep)
}

// farAsks are connect requests that the broker's process opens.
type farAsks struct {
	*remote.Client
	at func(t identity.Tenant, path string) string
}

var _ gateway.Asks = farAsks{}

// Link is where a person answers a request.
func (a farAsks) Link(r connect.Request) string { return a.at(r.Tenant, "/connect/"+string(r.ID)) }

// reads learns what the broker's process has found of vendors' servers. It asks nobody itself.
func (d *desk) reads(at func(identity.Tenant, string) string) *discovery.Finder {
	return &discovery.Finder{Catalog: &d.catalog, Store: d.db, HTTP: d.door.Found(), URL: at, Log: d.log, Now: d.now,
		Foreign: func(t identity.Tenant, issuer string) bool { return issuer == at(t, "") },
		Secret:  func(*catalog.Upstream) bool { return false }}
}

// keyPage is where keys are pasted, where that is not at the portal.
func keyPage(cfg *config.Config, as config.Role) func(identity.Tenant, catalog.UpstreamName, string) string {
	if as != config.RoleBroker || cfg.Domains.Keys == nil {
		return nil
	}
	base := cfg.Domains.Keys.URL.String()
	return func(t identity.Tenant, up catalog.UpstreamName, state string) string {
		return base + config.Prefix(t) + "/key/" + url.PathEscape(string(up)) + "?state=" + url.QueryEscape(state)
	}
}

// keyPages are those of all tenants.
func (d *desk) keyPages(cfg *config.Config) {
	if d.role != config.RoleBroker || cfg.Domains.Keys == nil {
		return
	}
	mux := http.NewServeMux()
	for t := range cfg.Organisations() {
		p := config.Prefix(t)
		(&portal.KeyPage{Tenant: t, Prefix: p, Pages: web.NewPages(p, "Frontdesk", d.log, d.now), Catalog: &d.catalog, Keys: d.connect, Home: cfg.Issuer(t) + "/portal/", Now: d.now}).Mount(mux)
	}
	front := &web.Front{Public: cfg.Domains.Keys.URL.URL, Log: d.log}
	for _, p := range cfg.TrustedProxies {
		front.Trusted = append(front.Trusted, p.Prefix)
	}
	h := front.Wrap(mux)
	d.pasting.Store(&h)
}

// frontAdmin is what operators may ask the gateway's process; the rest is the broker's to answer.
func (d *desk) frontAdmin() http.Handler {
	return (&admin.API{Catalog: &d.catalog, Reload: d.reload, Status: d.status, Hosted: d.hosts, Slog: d.log, Now: d.now}).Front()
}

// roleOf reads --role.
func roleOf(s string) (config.Role, error) {
	r := config.Role(s)
	if !slices.Contains([]config.Role{config.RoleAll, config.RoleGateway, config.RoleBroker}, r) {
		return "", console.UsageError{Err: fmt.Errorf("--role is all, gateway or broker, not %q", s)}
	}
	return r, nil
}
