package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/connect"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/secret"
	"frontdesk.dev/frontdesk/internal/store"
	"frontdesk.dev/frontdesk/internal/vault"
	"frontdesk.dev/frontdesk/internal/vault/kms"
	"frontdesk.dev/frontdesk/test/stage"
	"frontdesk.dev/frontdesk/test/world"
)

const (
	client   = identity.ClientID("bench-agent")
	audience = "api://frontdesk"
)

// desk is a Frontdesk with everything on: token check, 100 policies, grants, keycards, and the log on disk before each call.
type desk struct {
	stage.Desk
	data  string
	calls int64 // tool calls that were sent through it and answered
	apis  int64 // and API calls that they made
}

// setting is what one Frontdesk is put between.
type setting struct {
	stored int    // users, each with a connection and a grant
	server string // base URL of the MCP server; it may hang on the egress address, which is known before
	egress string // listen address
	api    string // base URL of the API
	secure string // URL of the same API on https, "" where there is none
	ca     string // file with the certificate that it shows
	// program is a server that Frontdesk runs itself, in place of one at a URL, for so many users at most.
	program string
	max     int
}

// prepare builds the binary and opens the company's IdP.
func (b *bench) prepare() error {
	var err error
	if b.binary == "" {
		if b.binary, err = stage.Build(b.ctx, b.dir); err != nil {
			return err
		}
	}
	b.idp, err = newIssuer()
	if err == nil {
		b.onClose(b.idp.Close)
	}
	return err
}

// open seeds a database and starts Frontdesk on it.
func (b *bench) open(s setting) (*desk, error) {
	home, err := os.MkdirTemp(b.dir, "desk")
	if err != nil {
		return nil, err
	}
	d := &desk{data: filepath.Join(home, "data")}
	d.Binary, d.Dir, d.ConfigPath, d.Egress = b.binary, d.data, filepath.Join(home, "frontdesk.yaml"), "http://"+s.egress
	for _, at := range []*string{&d.Public, &d.Ops} {
		addr, err := world.Port()
		if err != nil {
			return nil, err
		}
		*at = "http://" + addr
	}
	if err := os.Mkdir(d.data, 0o700); err != nil {
		return nil, err
	}
	if err := b.seed(d.data, s.stored); err != nil {
		return nil, fmt.Errorf("storing %d users: %w", s.stored, err)
	}
	for name, text := range map[string]string{"frontdesk.yaml": d.config(b.idp.url, s), "policies.cedar": policies()} {
		if err := os.WriteFile(filepath.Join(home, name), []byte(text), 0o600); err != nil {
			return nil, err
		}
	}
	b.onClose(d.Stop)
	return d, d.Start(b.ctx)
}

// config is what an operator would write.
func (d *desk) config(idp string, s setting) string {
	host := func(url string) string { return strings.TrimPrefix(url, "http://") }
	server, hosts, more := "url: "+s.server+"/mcp", "", ""
	if s.program != "" {
		server = fmt.Sprintf("command: [%s], sandbox: {read: [%s]}", s.program, filepath.Dir(s.program))
		more = fmt.Sprintf("hosting: {max: %d}\n", s.max)
	}
	if s.secure != "" {
		hosts, more = fmt.Sprintf(", hosts: [%q]", s.secure), fmt.Sprintf("outbound: {ca_file: %s}\n", s.ca)
	}
	return fmt.Sprintf(`public_url: %s
egress: {listen: "%s"}
ops: {listen: "%s"}
data_dir: %s
idp: {issuer: %s, client_id: frontdesk, audiences: ["%s"]}
providers:
  api:
    name: The API
    hosts: ["%s"]
    api_key: {where: "your settings"}
    account: {url: /me, pointer: /login, id_pointer: /id}
    token_shapes: ['\bbenchkey_[-0-9a-z_]{16,}\b']
upstreams:
  api: {provider: api, url: "%s", methods: [api_key]%s}
servers:
  tools: {%s, upstreams: [api], allow: [group:engineering]}
policies: [policies.cedar]
%s`, d.Public, s.egress, host(d.Ops), d.data, idp, audience, s.api, s.api, hosts, server, more)
}

// policies are 99 beside the server's allow list: some about every server, most about one of twenty, ours among them.
func policies() string {
	var b strings.Builder
	b.WriteString(`@id("no-secrets-tool") forbid (principal, action == Action::"call", resource) when { resource.name like "secret_*" };
@id("no-deletes-by-contractors") forbid (principal in Group::"contractors", action == Action::"call", resource) when { resource.name like "delete_*" };
@id("no-api-deletes") forbid (principal, action == Action::"api", resource) when { context.method == "DELETE" };
@id("known-agents") forbid (principal, action == Action::"call", resource) unless { context.client like "bench-*" || context.client like "https://*" };
`)
	for i := range 19 {
		server := fmt.Sprintf("server-%d", i)
		if i == 0 {
			server = "tools"
		}
		fmt.Fprintf(&b, `@id("%[1]s-sales") permit (principal in Group::"sales", action, resource in Server::"%[1]s");
@id("%[1]s-support-reads") permit (principal in Group::"support", action == Action::"call", resource in Server::"%[1]s") when { resource.name like "get_*" };
@id("%[1]s-size") forbid (principal, action == Action::"call", resource in Server::"%[1]s") when { context.args has limit && context.args.limit > 1000 };
@id("%[1]s-window") forbid (principal in Group::"interns", action == Action::"call", resource in Server::"%[1]s") when { context.time < datetime("2020-01-01") };
@id("%[1]s-paths") forbid (principal, action == Action::"api", resource in Server::"%[1]s") when { context.path like "/admin/*" };
`, server)
	}
	return b.String()
}

// seed stores users through the store's own code, each with a sealed credential at the API and a grant for our agent. It does so
// in memory where there is a place for that, so that 100,000 take seconds.
func (b *bench) seed(data string, users int) error {
	place := data
	if dir, err := os.MkdirTemp("/dev/shm", "frontdesk-bench"); err == nil {
		defer func() { _ = os.RemoveAll(dir) }()
		place = dir
	}
	path := filepath.Join(place, "frontdesk.db")
	wrap, err := kms.OpenKeyFile(filepath.Join(data, "vault.key"), true)
	if err != nil {
		return err
	}
	db, err := store.Open(b.ctx, store.Config{Path: path})
	if err != nil {
		return err
	}
	err = populate(b.ctx, db, &vault.Vault{Store: db, Keys: db, Wrap: wrap, Now: time.Now}, users)
	if err = errors.Join(err, db.Close()); err != nil || place == data {
		return err
	}
	return copyFile(path, filepath.Join(data, "frontdesk.db"))
}

func populate(ctx context.Context, db *store.DB, v *vault.Vault, users int) error {
	now := time.Now()
	for i := range users {
		u, err := db.EnsureUser(ctx, identity.User{Tenant: identity.DefaultTenant, IDP: "login", Subject: login(i), Groups: groups})
		if err != nil {
			return err
		}
		c := vault.Connection{Tenant: u.Tenant, User: u.ID, Upstream: "api", Method: catalog.APIKey, Account: login(i), Label: login(i), Status: vault.Active, Created: now}
		if _, err := v.Connect(ctx, c, vault.Secrets{Access: secret.New(credential(i))}); err != nil {
			return err
		}
		if err := db.PutGrant(ctx, connect.Grant{Tenant: u.Tenant, User: u.ID, Client: client, Server: "tools", Upstream: "api", Created: now, Expires: now.Add(24 * time.Hour)}); err != nil {
			return err
		}
	}
	return nil
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Sync(), out.Close())
}

// settle stops the Frontdesk and counts what its log holds: an intent and an outcome for every call that was answered, no more, and
// a chain that verifies. Anything else is a failed bench, however fast it was.
func (d *desk) settle(ctx context.Context) error {
	if err := d.Stop(); err != nil {
		return err
	}
	said, err := d.Run("audit", "verify")
	if err != nil {
		return fmt.Errorf("the log does not verify: %w\n%s", err, said)
	}
	db, err := store.OpenReader(ctx, store.Config{Path: filepath.Join(d.data, "frontdesk.db")})
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	got := map[string]int64{}
	err = db.Chain(ctx, nil, func(r audit.Row) error {
		for _, action := range []string{"call", "api"} {
			if strings.Contains(string(r.Record), `"action":"`+action+`"`) {
				got[string(r.Kind)+" "+action]++
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for what, want := range map[string]int64{"intent call": d.calls, "outcome call": d.calls, "intent api": d.apis, "outcome api": d.apis, "late call": 0, "event call": 0} {
		if got[what] != want {
			return fmt.Errorf("the log holds %d rows of kind %q, want %d: it has %v", got[what], what, want, got)
		}
	}
	fmt.Printf("log: 2 rows a call for %d calls and %d API calls; the chain verifies\n", d.calls, d.apis)
	return nil
}
