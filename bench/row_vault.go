package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"text/tabwriter"
	"time"

	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/internal/catalog"
	obtaining "frontdesk.dev/frontdesk/internal/exchange"
	"frontdesk.dev/frontdesk/internal/exchange/refresh"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/oauth"
	"frontdesk.dev/frontdesk/internal/kit/secret"
	"frontdesk.dev/frontdesk/internal/store"
	"frontdesk.dev/frontdesk/internal/vault"
	"frontdesk.dev/frontdesk/internal/vault/keyring"
	"frontdesk.dev/frontdesk/internal/vault/kms"
)

// vaultRow is what a credential costs, by where it comes from, among 100 stored connections and among very many; and how fast the
// vault opens. It runs in this process, on a database on the disk, with the log on; the vendor answers at once.
func vaultRow(b *bench) error {
	many := b.times(100_000, 1_000_000)
	var all [][]cost
	for _, stored := range []int{100, many} {
		costs, err := b.vaultOf(stored)
		if err != nil {
			return err
		}
		all = append(all, costs)
	}
	t := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(t, "one credential\tof 100: CPU µs\tµs\tof %d: CPU µs\tµs\tof the first's CPU\t\n", many)
	for i, few := range all[0] {
		lots := all[1][i]
		fmt.Fprintf(t, "%s\t%.1f\t%.1f\t%.1f\t%.1f\t%.2f\t\n", few.what, few.cpu, few.clock, lots.cpu, lots.clock, lots.cpu/few.cpu)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for i, few := range all[0] {
		if r := all[1][i].cpu / few.cpu; r > grows {
			return fmt.Errorf("%s costs %.2f times the CPU among %d connections", few.what, r, many)
		}
	}
	return b.opens()
}

// grows is more than a deeper index and noise; what is looked through grows by thousands.
const grows = 2

// cost is that of one credential, in µs.
type cost struct {
	what       string
	cpu, clock float64
}

// room is a vault with what obtains credentials from it.
type room struct {
	db     *store.DB
	vault  *vault.Vault
	keys   *catalog.Upstream
	tokens *catalog.Upstream
	shared *catalog.Upstream
	x      *obtaining.Exchange
}

// rented is how many people have a token that is due for renewal: each is renewed once.
const rented = 400

func (b *bench) vaultOf(stored int) (costs []cost, err error) {
	dir, err := os.MkdirTemp(b.dir, "vault")
	if err != nil {
		return nil, err
	}
	began := time.Now()
	if err := b.furnish(dir, stored); err != nil {
		return nil, err
	}
	fmt.Printf("%d connections stored in %s\n", stored+rented, time.Since(began).Round(time.Second))
	db, err := store.Open(b.ctx, store.Config{Path: filepath.Join(dir, "frontdesk.db")})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	log, err := audit.New(db, db, time.Now, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(b.ctx)
	ended := make(chan error, 1)
	go func() { ended <- log.Run(ctx) }()
	defer func() { stop(); err = errors.Join(err, <-ended) }()
	r, err := newRoom(db, log, dir)
	if err != nil {
		return nil, err
	}
	costs, err = r.measure(b.ctx, stored)
	if err != nil {
		return nil, err
	}
	f, err := r.federate(b.ctx, log)
	if err != nil {
		return nil, err
	}
	more, err := f.measure(b.ctx)
	return append(costs, more...), err
}

// furnish stores connections through the vault's own code, in memory where there is a place for that, or a million would take an
// hour of syncs.
func (b *bench) furnish(dir string, stored int) (err error) {
	place := dir
	if shm, err := os.MkdirTemp("/dev/shm", "frontdesk-bench"); err == nil {
		defer func() { _ = os.RemoveAll(shm) }()
		place = shm
	}
	path := filepath.Join(place, "frontdesk.db")
	wrap, err := kms.OpenKeyFile(filepath.Join(dir, "vault.key"), true)
	if err != nil {
		return err
	}
	db, err := store.Open(b.ctx, store.Config{Path: path})
	if err != nil {
		return err
	}
	v := &vault.Vault{Store: db, Keys: db, Wrap: wrap, Now: time.Now}
	for i := range stored + rented {
		c := vault.Connection{Tenant: identity.DefaultTenant, User: person(i), Upstream: "keys", Method: catalog.APIKey, Account: "a", Label: "a", Status: vault.Active, Created: time.Now()}
		s := vault.Secrets{Access: secret.New(credential(i))}
		if i >= stored {
			c.Upstream, c.Method, c.Refreshes = "tokens", catalog.AuthorizationCode, true
			c.Renewed, c.Expires = time.Now().Add(-time.Hour), time.Now().Add(-time.Minute)
			s.Refresh = secret.New(credential(i))
		}
		if _, err := v.Connect(b.ctx, c, s); err != nil {
			return errors.Join(err, db.Close())
		}
	}
	if err := db.Close(); err != nil || place == dir {
		return err
	}
	return copyFile(path, filepath.Join(dir, "frontdesk.db"))
}

func person(i int) identity.UserID { return identity.UserID(fmt.Sprintf("%032x", i)) }

// at is a vendor that answers at once.
type at struct{}

func (at) Do(r *http.Request) (*http.Response, error) {
	body := fmt.Sprintf(`{"access_token":"%s","refresh_token":"%s","token_type":"Bearer","expires_in":3600}`, credential(1), credential(2))
	return &http.Response{StatusCode: http.StatusOK, Status: "200 OK", Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(bytes.NewReader([]byte(body))), Request: r}, nil
}

func newRoom(db *store.DB, log *audit.Log, dir string) (*room, error) {
	wrap, err := kms.OpenKeyFile(filepath.Join(dir, "vault.key"), false)
	if err != nil {
		return nil, err
	}
	quiet := slog.New(slog.DiscardHandler)
	r := &room{db: db, vault: &vault.Vault{Store: db, Keys: db, Wrap: wrap, Log: log, Now: time.Now}}
	upstream := func(name catalog.UpstreamName, kind catalog.MethodKind) *catalog.Upstream {
		return &catalog.Upstream{Tenant: identity.DefaultTenant, Name: name, Title: string(name), Risk: "a bench", Origins: []*url.URL{{Scheme: "https", Host: "api.vendor.test"}}, Methods: []catalog.Method{{Kind: kind, Client: "frontdesk"}},
			Provider: &catalog.Provider{ID: "vendor", Name: "Vendor", OAuth: &catalog.ProviderOAuth{Token: "https://vendor.test/token", TokenAuth: "basic", Refresh: catalog.Refresh{Rotation: "strict"}}}}
	}
	r.keys, r.tokens, r.shared = upstream("keys", catalog.APIKey), upstream("tokens", catalog.AuthorizationCode), upstream("shared", catalog.ClientCredentials)
	cat := &catalog.Catalog{}
	cat.Set(&catalog.Snapshot{Upstreams: map[identity.Tenant]map[catalog.UpstreamName]*catalog.Upstream{identity.DefaultTenant: {"keys": r.keys, "tokens": r.tokens, "shared": r.shared}}})
	clients := &vault.Clients{}
	clients.Use(map[vault.ClientKey]secret.Text{{Tenant: identity.DefaultTenant, Upstream: "tokens"}: secret.New("s"), {Tenant: identity.DefaultTenant, Upstream: "shared"}: secret.New("s")})
	client := oauth.Client{HTTP: at{}, Now: time.Now}
	endings := &vault.Endings{Vault: r.vault, Store: db, Catalog: cat, Clients: clients, OAuth: client, Log: quiet, Now: time.Now}
	machine := &refresh.Machine{Vault: r.vault, Steps: db, Rows: db, Endings: endings, Catalog: cat, Clients: clients, OAuth: client, Log: log, Slog: quiet,
		Owner: refresh.Owner{Place: "bench", Run: "bench"}, Spool: refresh.Spool{Dir: filepath.Join(dir, "spool")}, Now: time.Now}
	stored := obtaining.Stored{Vault: r.vault, Refresh: machine, Uses: db, Log: quiet}
	r.x = &obtaining.Exchange{Vault: r.vault, Clients: clients, OAuth: client, Refresh: machine, Now: time.Now, Methods: map[catalog.MethodKind]obtaining.Method{
		catalog.APIKey: stored.By(catalog.APIKey), catalog.AuthorizationCode: stored.By(catalog.AuthorizationCode), catalog.ClientCredentials: &obtaining.ServiceAccount{Clients: clients, OAuth: client, Now: time.Now}}}
	return r, nil
}

func (r *room) measure(ctx context.Context, stored int) ([]cost, error) {
	callers := make([]*identity.Caller, 100)
	for i := range callers { // spread over all who are stored
		callers[i] = &identity.Caller{Tenant: identity.DefaultTenant, User: person(i * (stored / len(callers)))}
	}
	obtain := func(c *identity.Caller, up *catalog.Upstream, forget bool) error {
		if forget {
			r.x.Forget(c.Tenant, c.Principal())
		}
		_, err := r.x.Obtain(ctx, c, up, up.Scopes, "")
		return err
	}
	token := &identity.Caller{Tenant: identity.DefaultTenant, User: person(stored)} // renewed by the first round below
	var costs []cost
	for _, m := range []struct {
		what string
		n    int
		do   func(i int) error
	}{
		{"api_key, in memory", 200_000, func(i int) error { return obtain(callers[i%len(callers)], r.keys, false) }},
		{"api_key, from the vault", 4000, func(i int) error { return obtain(callers[i%len(callers)], r.keys, true) }},
		{"authorization_code, due for renewal", rented, func(i int) error {
			return obtain(&identity.Caller{Tenant: identity.DefaultTenant, User: person(stored + i)}, r.tokens, true)
		}},
		{"authorization_code, from the vault", 4000, func(int) error { return obtain(token, r.tokens, true) }},
		{"client_credentials, asked for", 4000, func(i int) error { return obtain(callers[i%len(callers)], r.shared, true) }},
	} {
		c, err := timed(m.what, m.n, m.do)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", m.what, err)
		}
		costs = append(costs, c)
	}
	return costs, nil
}

func timed(what string, n int, do func(i int) error) (cost, error) {
	from, err := cpu(os.Getpid())
	if err != nil {
		return cost{}, err
	}
	began := time.Now()
	for i := range n {
		if err := do(i); err != nil {
			return cost{}, err
		}
	}
	took := time.Since(began)
	to, err := cpu(os.Getpid())
	per := func(d time.Duration) float64 { return float64(d.Microseconds()) / float64(n) }
	return cost{what, per(to - from), per(took)}, err
}

// slow is a key service that takes its time.
type slow struct {
	keyring.Wrapper
	asked int
}

func (s *slow) Unwrap(ctx context.Context, wrapped, context []byte) ([]byte, error) {
	s.asked++
	time.Sleep(20 * time.Millisecond)
	return s.Wrapper.Unwrap(ctx, wrapped, context)
}

// opens is how many credentials a second the vault opens on one core, with the key in a file, and in a service 20 ms away.
func (b *bench) opens() error {
	dir, err := os.MkdirTemp(b.dir, "opens")
	if err != nil {
		return err
	}
	if err := b.furnish(dir, 1000); err != nil {
		return err
	}
	db, err := store.OpenReader(b.ctx, store.Config{Path: filepath.Join(dir, "frontdesk.db")})
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }() // nothing was written
	file, err := kms.OpenKeyFile(filepath.Join(dir, "vault.key"), false)
	if err != nil {
		return err
	}
	var rows []vault.Connection
	if err := db.EachConnection(b.ctx, func(c vault.Connection) error { rows = append(rows, c); return nil }); err != nil {
		return err
	}
	service := &slow{Wrapper: file}
	for _, k := range []struct {
		name string
		wrap keyring.Wrapper
	}{{"key file", file}, {"key service, 20 ms away", &kms.Cached{Wrapper: service, Now: time.Now}}} {
		v := &vault.Vault{Store: db, Keys: db, Wrap: k.wrap, Now: time.Now}
		began := time.Now()
		if _, err := v.Open(b.ctx, rows[0]); err != nil {
			return err
		}
		first := time.Since(began)
		c, err := timed(k.name, 200_000, func(i int) error { _, err := v.Open(b.ctx, rows[i%len(rows)]); return err })
		if err != nil {
			return err
		}
		fmt.Printf("%s: %.0f opens/s by CPU, %.0f by the clock; the first one of a process %.1f ms\n", k.name, 1e6/c.cpu, 1e6/c.clock, float64(first.Microseconds())/1000)
	}
	fmt.Printf("the service was asked %d times\n", service.asked)
	return nil
}
