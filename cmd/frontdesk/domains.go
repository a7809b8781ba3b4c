package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"frontdesk.dev/frontdesk/cmd/frontdesk/config"
	"frontdesk.dev/frontdesk/internal/admin"
	"frontdesk.dev/frontdesk/internal/broker/remote"
	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/connect"
	"frontdesk.dev/frontdesk/internal/gateway"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/outbound"
	"frontdesk.dev/frontdesk/internal/kit/web"
	"frontdesk.dev/frontdesk/internal/portal"
	"frontdesk.dev/frontdesk/internal/store"
)

// part reads what a process needs that is only a part of Frontdesk.
func (d *desk) part(cfg *config.Config) (err error) {
	if d.role == roleAll {
		return nil
	}
	if cfg.Domains == nil {
		return fmt.Errorf("serve --role %s needs `domains` in %s: it says how the two processes find and know each other (docs/domains.md)", d.role, filepath.Base(d.path))
	}
	if err := d.fits(cfg); err != nil {
		return err
	}
	own, peer := cfg.Domains.Broker, cfg.Domains.Gateway
	if d.role == roleGateway {
		own, peer = peer, own
	}
	d.pins, err = outbound.ReadPins(cfg.Path(own.Cert), cfg.Path(own.Key), cfg.Path(peer.Cert), d.now)
	return err
}

// fits says which configs two processes cannot serve.
func (d *desk) fits(cfg *config.Config) error {
	if d.role == roleAll {
		return nil
	}
	if cfg.Database.IsZero() && d.role == roleBroker || cfg.Domains.Database.IsZero() {
		return errors.New("gateway and broker need PostgreSQL, with an account for each (database, and domains.database): a SQLite file has one owner, who can read all of it")
	}
	return nil
}

// guestDatabaseOf is the database as the gateway's own account sees it.
func guestDatabaseOf(cfg *config.Config) (store.Config, error) {
	dsn, err := cfg.Secret(cfg.Domains.Database)
	if err != nil {
		return store.Config{}, fmt.Errorf("domains.database: %w", err)
	}
	return store.Config{DSN: dsn, Guest: true}, nil
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
	c.Trace, c.Hosts, d.hosts.CA = d.tracer.inject(), d.hosts, c.Authority
	d.verifier.Elsewhere = c.Verify
	d.epochs.Store = farEpochs{d.db, c}
	door := d.tracer.door(c)
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
func (d *desk) reads(at func(identity.Tenant, string) string) *connect.Finder {
	return &connect.Finder{Catalog: &d.catalog, Store: d.db, HTTP: d.door.Found(), URL: at, Log: d.log, Now: d.now,
		Foreign: func(t identity.Tenant, issuer string) bool { return issuer == at(t, "") },
		Secret:  func(*catalog.Upstream) bool { return false }}
}

// keyPage is where keys are pasted, where that is not at the portal.
func keyPage(cfg *config.Config, as role) func(identity.Tenant, catalog.UpstreamName, string) string {
	if as != roleBroker || cfg.Domains.Keys == nil {
		return nil
	}
	base := cfg.Domains.Keys.URL.String()
	return func(t identity.Tenant, up catalog.UpstreamName, state string) string {
		return base + config.Prefix(t) + "/key/" + url.PathEscape(string(up)) + "?state=" + url.QueryEscape(state)
	}
}

// keyPages are those of all tenants.
func (d *desk) keyPages(cfg *config.Config) {
	if d.role != roleBroker || cfg.Domains.Keys == nil {
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

func pairCommand() *cobra.Command {
	return &cobra.Command{Use: "pair DIR", Short: "make the two certificates by which gateway and broker know each other", Args: cobra.ExactArgs(1),
		Long:    "Makes gateway.crt, gateway.key, broker.crt and broker.key in DIR; what is there already stays. Each side needs its own pair, and the\nother's certificate; no key has to leave the host that uses it (docs/domains.md).",
		Example: "  frontdesk pair ./pair",
		RunE: func(c *cobra.Command, args []string) error {
			if err := os.MkdirAll(args[0], 0o700); err != nil {
				return err
			}
			for _, name := range []string{"gateway", "broker"} {
				if err := outbound.MakePin(args[0], name, time.Now()); err != nil {
					return err
				}
			}
			_, err := fmt.Fprintf(c.OutOrStdout(), "gateway.crt, gateway.key, broker.crt and broker.key are in %s. In the config:\n\n  domains:\n    address: BROKER-HOST:8443\n    gateway: {cert: file:%[1]s/gateway.crt, key: file:%[1]s/gateway.key}\n    broker: {cert: file:%[1]s/broker.crt, key: file:%[1]s/broker.key}\n    database: env:GATEWAY_DATABASE_URL\n", args[0])
			return err
		}}
}

func databaseCommand() *cobra.Command {
	c := &cobra.Command{Use: "database", Short: "what the database needs where gateway and broker are two processes"}
	c.AddCommand(&cobra.Command{Use: "grants ACCOUNT", Short: "print the SQL that gives the gateway's own account its rights, and no others", Args: cobra.ExactArgs(1),
		Long:    "Prints SQL for the owner of the tables to run, after the broker has made them, and again after an upgrade. The account has to exist:\n\n  CREATE ROLE frontdesk_gateway LOGIN PASSWORD '...';",
		Example: `  frontdesk database grants frontdesk_gateway | psql "$DATABASE_URL"`,
		RunE: func(c *cobra.Command, args []string) error {
			_, err := fmt.Fprint(c.OutOrStdout(), store.GuestGrants(args[0]))
			return err
		}})
	return c
}

// roleOf reads --role.
func roleOf(s string) (role, error) {
	r := role(s)
	if !slices.Contains([]role{roleAll, roleGateway, roleBroker}, r) {
		return "", usageError{fmt.Errorf("--role is all, gateway or broker, not %q", s)}
	}
	return r, nil
}

// configOf is the config of a running process; a gateway's host lacks the secrets that are the broker's.
func configOf(status map[string]string) (*config.Config, error) {
	if status["role"] == string(roleGateway) {
		return config.Read(status["config"], "")
	}
	return config.Checked(status["config"])
}

// radius says what an intruder gets of each part of the deployment that runs.
func radius(c *cobra.Command) []finding {
	var s map[string]string
	if err := ask(c, http.MethodGet, "/status", nil, &s); err != nil {
		return []finding{{"bad", err.Error(), ""}}
	}
	cfg, err := configOf(s)
	if err != nil {
		return []finding{{"bad", err.Error(), ""}}
	}
	key := "the key file " + cfg.Keys.Vault + ", also later and elsewhere"
	if cfg.Keys.Service != nil {
		key = cfg.KeyPlace() + ", on record there, until its right is taken away"
	}
	l := []finding{{"note", "a copy of the database: no credential without " + key, ""}}
	switch role(s["role"]) {
	case roleGateway:
		l = append(l, finding{"note", "this process, the gateway: no stored credential and no key; what people and agents who come by may do, while they come by, on record, at most " +
			fmt.Sprintf("%d credentials a minute for each and %d for all", cfg.Domains.Releases.User, cfg.Domains.Releases.All), "docs/domains.md"}, pasted(cfg), tried(c.Context(), cfg))
	case roleBroker:
		l = append(l, finding{"note", "this process, the broker: every credential, by " + key, ""}, finding{"note", "a gateway: nothing that is stored; run this on its host too, where its database account is tried", ""})
	default:
		l = append(l, finding{"note", "this process, which is gateway and broker: every credential, by " + key, "two processes keep it from who faces strangers: docs/domains.md"})
	}
	return append(l, finding{"note", "faces.key: signed-in browsers cannot be forged with it alone; half-done pages can be read", ""})
}

// pasted says where the keys pass that people paste.
func pasted(cfg *config.Config) finding {
	if cfg.Domains.Keys == nil {
		return finding{"note", "a key that somebody pastes passes this process's memory once: who is here by then has it", "domains: {keys: {url: ...}} has the broker take it (docs/domains.md)"}
	}
	return finding{"ok", "a key that somebody pastes goes to the broker alone, at " + cfg.Domains.Keys.URL.String(), ""}
}

// tried opens the database as the gateway's account, and looks what it may do.
func tried(ctx context.Context, cfg *config.Config) finding {
	s, err := guestDatabaseOf(cfg)
	var db *store.DB
	if err == nil {
		db, err = store.Open(ctx, s)
	}
	if err != nil {
		return finding{"bad", "the gateway's database account could not be tried: " + err.Error(), "run this with the environment of the server"}
	}
	defer func() { _ = db.Close() }() // nothing was written
	lacks, over, err := db.GuestRights(ctx)
	if err != nil || len(lacks)+len(over) > 0 {
		return finding{"bad", "the gateway's database account: lacks " + strings.Join(lacks, ", ") + "; may do too much: " + strings.Join(over, ", "), "frontdesk database grants ACCOUNT"}
	}
	return finding{"ok", "the gateway's database account, tried: sessions, sign-ins of agents and consents; no table that holds a credential, a key, people, grants or the log", ""}
}

const (
	brokerPrefix = "broker "
	answering    = "answers"
)

// brokers are doctor's words on those that a gateway knows.
func brokers(status map[string]string) (l []finding) {
	for _, key := range slices.Sorted(maps.Keys(status)) {
		address, ok := strings.CutPrefix(key, brokerPrefix)
		switch {
		case !ok:
		case status[key] == answering:
			l = append(l, finding{"ok", "the broker at " + address + " answers", ""})
		case strings.HasPrefix(status[key], answering):
			l = append(l, finding{"note", "the broker at " + address + " " + status[key], "upgrade brokers first, then gateways (docs/domains.md)"})
		default:
			l = append(l, finding{"bad", "the broker at " + address + " " + status[key], "is it running, can it be reached, and has each side the other's certificate? Its log and this one's say more"})
		}
	}
	return l
}
