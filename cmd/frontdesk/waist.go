package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"

	"frontdesk.dev/frontdesk/cmd/frontdesk/config"
	"frontdesk.dev/frontdesk/internal/admin"
	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/internal/broker"
	"frontdesk.dev/frontdesk/internal/broker/booking"
	"frontdesk.dev/frontdesk/internal/broker/remote"
	"frontdesk.dev/frontdesk/internal/broker/traffic"
	"frontdesk.dev/frontdesk/internal/broker/visits"
	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/catalog/live"
	"frontdesk.dev/frontdesk/internal/connect"
	"frontdesk.dev/frontdesk/internal/connect/discovery"
	"frontdesk.dev/frontdesk/internal/connect/intake"
	"frontdesk.dev/frontdesk/internal/egress"
	"frontdesk.dev/frontdesk/internal/ending"
	"frontdesk.dev/frontdesk/internal/exchange"
	"frontdesk.dev/frontdesk/internal/exchange/federation"
	"frontdesk.dev/frontdesk/internal/exchange/refresh"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/conf"
	"frontdesk.dev/frontdesk/internal/kit/dpop"
	"frontdesk.dev/frontdesk/internal/kit/oauth"
	"frontdesk.dev/frontdesk/internal/kit/secret"
	"frontdesk.dev/frontdesk/internal/signals"
	"frontdesk.dev/frontdesk/internal/vault"
	"frontdesk.dev/frontdesk/internal/vault/keyring"
)

// waist is the broker's side: what decides, records and obtains, and the only part that has keys.
type waist struct {
	idps     identity.IdPs
	audit    *audit.Log
	vault    *vault.Vault
	clients  vault.Clients
	refresh  *refresh.Machine
	endings  *vault.Endings
	office   *ending.Office
	exchange *exchange.Exchange
	connect  *connect.Desk
	broker   *broker.Broker
	visits   *visits.Desk
	traffic  traffic.Door

	checkpoints *audit.Checkpoints
	listening   signals.Listening
	federation  *federation.Federation

	unlocked
	hear atomic.Pointer[http.Handler] // what the IdP and the directory say
	apart
}

// apart is what the broker's side serves where it is a process of its own; nil where it is not.
type apart struct {
	far     *remote.Server               // for gateways
	pasting atomic.Pointer[http.Handler] // the page that takes keys, where it is here
}

// flows joins the halves of broker.Flows.
type flows struct {
	*connect.Desk
	*exchange.Home
}

// joinWaist makes the rooms of the broker's side, floor by floor.
func (d *desk) joinWaist(ctx context.Context, cfg *config.Config, at func(identity.Tenant, string) string) (behind, error) {
	d.waist = &waist{connect: &connect.Desk{}} // the exchange asks it who still takes a credential, and it asks the exchange who is ready
	if err := d.unlock(ctx, cfg); err != nil {
		return behind{}, err
	}
	d.verifier.Users = d.db
	d.clients.Signer, d.clients.Now = d.signer, d.now
	d.catalog.Live = &live.Register{Store: d.db, Log: d.log, Now: d.now}
	client := oauth.Client{HTTP: d.door.Found(), Now: d.now, Nonces: new(dpop.Nonces)}
	if err := d.joinRefresh(cfg, client, at); err != nil {
		return behind{}, err
	}
	d.joinExchange(client, at)
	d.joinConnect(cfg, client, at)
	d.joinBroker(cfg, at)
	d.joinAdmin()
	if d.role == config.RoleBroker {
		d.joinFar(cfg, at)
		return behind{}, nil
	}
	door := d.tracer.Door(d.broker)
	d.traffic.Door = door
	return behind{door: door, api: &d.traffic, flows: d.visits, notary: d.visits, pages: d.visits, asks: d.connect, keys: d.signer, certs: d.ca}, nil
}

// joinRefresh makes what keeps stored credentials good, and ends them.
func (d *desk) joinRefresh(cfg *config.Config, client oauth.Client, at func(identity.Tenant, string) string) error {
	place, err := placeID(cfg.DataDir)
	if err != nil {
		return err
	}
	d.endings = &vault.Endings{Vault: d.vault, Store: d.db, Catalog: &d.catalog, Clients: &d.clients, OAuth: client, Log: d.log, Now: d.now}
	d.refresh = &refresh.Machine{
		Vault: d.vault, Steps: d.db, Rows: d.db, Moves: d.db, Endings: d.endings,
		Catalog: &d.catalog, Clients: &d.clients, OAuth: client, Unknown: d.unknownThere,
		Owner: refresh.Owner{Place: place, Run: d.owner}, Spool: refresh.Spool{Dir: filepath.Join(cfg.DataDir, "spool")},
		Callback: func(t identity.Tenant, up catalog.UpstreamName) string { return at(t, "/callback/"+string(up)) },
		Log:      countedLog{d.audit, d.metrics}, Slog: d.log, Now: d.now,
	}
	return nil
}

// joinExchange makes every method by which a credential is obtained.
func (d *desk) joinExchange(client oauth.Client, at func(identity.Tenant, string) string) {
	d.federation = &federation.Federation{
		Subjects: federation.Subjects{Home: d.home(), Users: d.db}, IdPs: &d.idps, Clients: &d.clients, Signer: d.signer,
		OAuth: client, HTTP: d.door.Found(), Issuer: func(t identity.Tenant) string { return at(t, "") }, Now: d.now,
	}
	methods := d.federation.Methods()
	stored := exchange.Stored{Vault: d.vault, Refresh: d.refresh, Uses: d.db, Witness: d.connect, Log: d.log}
	for _, kind := range []catalog.MethodKind{catalog.AuthorizationCode, catalog.DeviceCode, catalog.APIKey} {
		methods[kind] = stored.By(kind)
	}
	methods[catalog.ClientCredentials] = &exchange.ServiceAccount{Clients: &d.clients, OAuth: client, Now: d.now}
	d.exchange = &exchange.Exchange{
		Vault: d.vault, Clients: &d.clients, OAuth: client, Refresh: d.refresh, Methods: methods, Now: d.now,
		Tickets: &exchange.TicketMint{MAC: d.signer, Issuer: at(identity.DefaultTenant, ""), Audience: at(identity.DefaultTenant, "/egress"), Opaque: d.db},
	}
}

// joinConnect makes what people do, and what ends with their access.
func (d *desk) joinConnect(cfg *config.Config, client oauth.Client, at func(identity.Tenant, string) string) {
	*d.connect = connect.Desk{
		Catalog: &d.catalog, Store: d.db, Vault: d.vault, Clients: &d.clients, IdPs: &d.idps, Users: d.db, Epochs: d.epochs,
		Events: d.audit, Policies: &d.policies, OAuth: client, API: d.door.Found(), Ready: d.exchange, Finder: d.finds(at),
		URL: at, KeyPage: keyPage(cfg, d.role), Log: d.log, Now: d.now,
		Ends: connect.Ends{Endings: d.endings, Unused: d.db, UnusedAfter: d.unusedAfter},
	}
	d.office = &ending.Office{
		Store: d.db, People: d.db, Vault: d.vault, Vendors: d.endings, Catalog: &d.catalog, Epochs: d.epochs,
		Events: d.audit, Log: d.log, Now: d.now,
	}
}

// joinBroker makes the waist itself, what guards the ways to vendors, and what knows who is in front of the faces.
func (d *desk) joinBroker(cfg *config.Config, at func(identity.Tenant, string) string) {
	d.broker = &broker.Broker{
		Policies: &d.policies, Log: d.tracer.Log(timedLog{d.audit, d.metrics, d.now}), Exchange: d.tracer.Credentials(d.exchange),
		People: d.connect, Access: d.epochs, Users: d.db, Catalog: &d.catalog, Out: d.door.Named(), Sites: d.door.Found(),
		Tickets: &identity.Tickets{MAC: d.signer, Opaque: d.db, Audience: at(identity.DefaultTenant, "/egress"), Now: d.now},
		Observe: d.metrics.observe, Leaked: d.metrics.leaked, Now: d.now,
	}
	d.traffic.Door, d.traffic.Now, d.traffic.Log, d.traffic.Circuits.Log, d.traffic.Replica = d.broker, d.now, d.log, d.log, d.hop()
	if !cfg.Database.IsZero() { // others may be there
		d.broker.Calls.Post = &booking.Post{Notes: d.db, Acts: d.db, Own: d.audit.Writers, Log: d.log}
		d.traffic.Shared = d.db
	}
	d.visits = &visits.Desk{
		Flows: d.flows(), People: d.connect, Shelf: d.db, Tools: d.broker, Signer: d.signer, MAC: d.signer, Log: d.audit,
		Epochs: d.epochs, URL: at, Now: d.now, Together: d.role == config.RoleAll,
	}
	d.hosts.CA = d.ca.PEM
	if d.role == config.RoleAll {
		d.broker.Hosts = d.hosts
	}
}

// joinAdmin makes what operators look into.
func (d *desk) joinAdmin() {
	api := &admin.API{
		People: d.db, Connections: d.vault, Door: d.broker, Flows: d.flows(), Catalog: &d.catalog, Sightings: d.db,
		Explains: admin.Explains{Explain: d.exchange, Grants: d.connect, Requests: &egress.Proxy{Catalog: &d.catalog, Hop: d.hop()}}, // it serves nobody
		Intake:   &intake.Intake{Desk: d.connect, Vault: d.vault, People: d.db, IdPs: &d.idps, Catalog: &d.catalog, Events: d.audit, Now: d.now},
		Ends:     admin.Ends{Office: d.office, Endings: d.db},
		Log:      d.db, Events: keepers{d.audit, d.checkpoints}, Reload: d.reload, Status: d.status,
		Authority: d.ca.PEM, Keys: d.rotation, Slog: d.log, Now: d.now,
	}
	if d.role == config.RoleAll { // servers run beside the faces, wherever those are
		api.Hosted = d.hosts
	}
	d.admin = api.Handler()
}

// joinFar makes what serves gateways, where they are other processes.
func (d *desk) joinFar(cfg *config.Config, at func(identity.Tenant, string) string) {
	bounds := cfg.Domains.Releases
	d.far = &remote.Server{
		Acts: remote.Acts{Door: &d.traffic, Processes: d.broker, Calls: &d.broker.Calls, Intents: d.audit},
		Desk: d.visits, Asks: d.connect, Verifier: d.verifier, Epochs: d.epochs, Keys: publicKeys{d.signer, d.ca}, Catalog: &d.catalog,
		Heard:    http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { (*d.hear.Load()).ServeHTTP(w, r) }),
		Releases: &remote.Releases{User: bounds.User, All: bounds.All, Told: d.metrics.release},
		URL:      at, Version: version, Log: d.log, Now: d.now,
	}
}

// publicKeys are what gateways see of keys.
type publicKeys struct {
	*keyring.Signer
	*keyring.Authority
}

// finds learns of vendors' own MCP servers what no catalogue says.
func (d *desk) finds(at func(identity.Tenant, string) string) *discovery.Finder {
	return &discovery.Finder{Catalog: &d.catalog, Store: d.db, HTTP: d.door.Found(), URL: at, Log: d.log, Now: d.now,
		Foreign: func(t identity.Tenant, issuer string) bool {
			return issuer == at(t, "") || slices.ContainsFunc(d.idps.Of(t), func(i *identity.IdP) bool { return i.Issuer == issuer })
		},
		Secret: func(up *catalog.Upstream) bool {
			return !d.clients.Secret(up, catalog.AuthorizationCode, vault.ClientSecret).IsZero()
		}}
}

// unknownThere has us registered anew at a found server that knows us no more, for whoever connects from now on.
func (d *desk) unknownThere(ctx context.Context, up *catalog.Upstream, client string) bool {
	if up.Resource == "" {
		return false
	}
	_, err := d.connect.Finder.Forgotten(ctx, up, client)
	if err != nil {
		d.log.Warn("Frontdesk could not be registered anew at an authorization server that knows it no more", "upstream", up.Name, "error", err)
	}
	return err == nil
}

func (d *desk) flows() flows { return flows{d.connect, d.home()} }

// home keeps what the company's IdP gave at sign-in.
func (d *desk) home() *exchange.Home {
	return &exchange.Home{Vault: d.vault, Refresh: d.refresh, IdPs: &d.idps, Users: d.db, Epochs: d.epochs, Events: d.audit}
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

// known is what a config says of secrets, and of who may speak for whom.
type known struct {
	secrets  map[vault.ClientKey]secret.Text
	idps     []*identity.IdP
	issuers  []identity.Issuer
	hear     map[identity.Tenant]*signals.Receiver
	problems conf.Problems
}

// resolve reads the secrets that the config refers to.
func (d *desk) resolve(cfg *config.Config) known {
	k := known{secrets: map[vault.ClientKey]secret.Text{}}
	read := cfg.Noting(&k.problems)
	for t, org := range cfg.Organisations() {
		for n, u := range org.Upstreams {
			k.secrets[vault.ClientKey{Tenant: t, Upstream: catalog.UpstreamName(n)}] = secret.New(read(config.Place(t, "upstreams."+n+".client_secret"), u.ClientSecret))
			for i := range u.Methods {
				for key, s := range u.Methods[i].Secrets() {
					if !s.IsZero() {
						k.secrets[vault.ClientKey{Tenant: t, Upstream: catalog.UpstreamName(n), Method: u.Methods[i].Kind, Part: parts[key]}] = secret.New(read(config.MethodAt(t, n, i)+"."+key, s))
					}
				}
			}
		}
		own := identity.Issuer{Tenant: t, URL: cfg.Issuer(t), Keys: d.signer.OfTenant(t)}
		k.issuers = append(k.issuers, own)
		if org.IDP == nil {
			continue
		}
		idp := identity.NewIdP(identity.IdPConfig{Tenant: t, Name: cmp.Or(org.IDP.Name, "login"), Issuer: org.IDP.Issuer.String(), ClientID: org.IDP.ClientID,
			Secret: secret.New(read(config.Place(t, "idp.client_secret"), org.IDP.ClientSecret)), Scopes: org.IDP.Scopes, SubjectClaim: org.IDP.SubjectClaim, GroupsClaim: org.IDP.GroupsClaim,
			Audiences: org.IDP.Audiences, TokenTypes: org.IDP.TokenTypes, NoOffline: org.IDP.Offline != nil && !*org.IDP.Offline}, d.door.Found(), d.now, d.log)
		k.idps = append(k.idps, idp)
		k.issuers = append(k.issuers, identity.Issuer{Tenant: t, URL: idp.Issuer, Keys: idp, IDP: idp.Name, Audiences: idp.Audiences, Types: idp.TokenTypes,
			SubjectClaim: idp.SubjectClaim, GroupsClaim: idp.GroupsClaim})
	}
	var wrong conf.Problems
	k.hear, wrong = d.receivers(cfg, k.idps)
	k.problems = append(k.problems, wrong...)
	return k
}

// parts are a method's secrets in the vault's words.
var parts = map[string]vault.Part{"client_secret": vault.ClientSecret, "private_key": vault.PrivateKey, "key": vault.StaticKey}

// use takes over what was read.
func (d *desk) use(cfg *config.Config, k known) {
	d.clients.Use(k.secrets)
	d.idps.Use(k.idps)
	d.verifier.UseIssuers(k.issuers)
	d.listening.Use(slices.Collect(maps.Values(k.hear)))
	mux := http.NewServeMux()
	for t, r := range k.hear {
		r.Mount(mux, config.Prefix(t))
	}
	var h http.Handler = mux
	d.hear.Store(&h)
}
