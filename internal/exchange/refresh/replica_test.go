package refresh_test

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"time"

	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/exchange/refresh"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/kit/oauth"
	"frontdesk.dev/frontdesk/internal/kit/secret"
	"frontdesk.dev/frontdesk/internal/store"
	"frontdesk.dev/frontdesk/internal/vault"
	"frontdesk.dev/frontdesk/internal/vault/keyring"
	"frontdesk.dev/frontdesk/internal/vault/kms"
)

// scene is a vendor, a database and the config that every replica has.
type scene struct {
	vendor  *vendor
	wrap    keyring.Wrapper
	catalog *catalog.Catalog
	up      *catalog.Upstream
	method  catalog.Method
	dir     string
}

const lease = 400 * time.Millisecond

func newScene(t testing.TB, v *vendor, keys string) *scene {
	t.Helper()
	s := &scene{vendor: v, catalog: &catalog.Catalog{}, dir: t.TempDir()}
	wrap, err := kms.OpenKeyFile(keys, true)
	if err != nil {
		t.Fatal(err)
	}
	s.wrap = wrap
	s.method = catalog.Method{Kind: catalog.AuthorizationCode, Client: "frontdesk"}
	s.up = s.upstream("tracker")
	s.use(s.up)
	return s
}

func (s *scene) upstream(name catalog.UpstreamName) *catalog.Upstream {
	return &catalog.Upstream{Tenant: identity.DefaultTenant, Name: name, Title: "Tracker", Origins: []*url.URL{{Scheme: "https", Host: "api.vendor.test"}}, Methods: []catalog.Method{s.method},
		Provider: &catalog.Provider{ID: "tracker", Name: "Tracker", Hosts: []string{"api.vendor.test"}, OAuth: &catalog.ProviderOAuth{Token: "https://vendor.test/token", Revocation: "https://vendor.test/revoke",
			TokenAuth: "basic", Refresh: catalog.Refresh{Rotation: s.vendor.rotation, GraceSeconds: int(s.vendor.grace.Seconds()), OldAccessSurvives: s.vendor.survives}}}}
}

// use makes a config of these upstreams the current one.
func (s *scene) use(ups ...*catalog.Upstream) {
	m := map[catalog.UpstreamName]*catalog.Upstream{}
	for _, up := range ups {
		m[up.Name] = up
	}
	s.catalog.Set(&catalog.Snapshot{Upstreams: map[identity.Tenant]map[catalog.UpstreamName]*catalog.Upstream{identity.DefaultTenant: m}})
}

// replica is one process: everything that it does passes a seam, at which it can be stopped, or die.
type replica struct {
	*refresh.Machine
	scene *scene
	db    *store.DB
	vault *vault.Vault
	index int
	run   int
	skew  time.Duration // of its clock

	seams
}

// seams are where things happen to a replica.
type seams struct {
	mu     sync.Mutex
	ctx    context.Context // ends with the replica
	die    context.CancelFunc
	death  int // so many seams from now it dies; 0: it lives
	pause  int // so many seams from now it is stopped for longer than a lease
	away   int // so many of the database's answers fail from now on
	open   map[audit.CallID]bool
	logged int

	settleAway     bool   // nothing can be stored
	answerLost     string // the step whose answer is lost next, though it was done
	dieAfterAnswer bool   // the vendor's
	beforeSend     func() // to the vendor
	afterAnswer    func() // of the vendor, once
	beforeSettle   func() // once
}

func (s *scene) replica(t testing.TB, db *store.DB, index, run int) *replica {
	t.Helper()
	r := &replica{scene: s, db: db, index: index, run: run}
	r.vault = &vault.Vault{Store: db, Keys: db, Wrap: s.wrap, Now: time.Now}
	r.ctx, r.die = context.WithCancel(context.Background())
	r.open = map[audit.CallID]bool{}
	clients := &vault.Clients{}
	secrets := map[vault.ClientKey]secret.Text{}
	for name := range s.catalog.Snapshot().Upstreams[identity.DefaultTenant] {
		secrets[vault.ClientKey{Tenant: identity.DefaultTenant, Upstream: name}] = secret.New("hush")
	}
	clients.Use(secrets)
	client := oauth.Client{HTTP: doer{r}, Now: r.now}
	quiet := slog.New(slog.DiscardHandler)
	r.Machine = &refresh.Machine{Vault: seamedVault{r}, Steps: steps{r}, Rows: rows{db, r}, Catalog: s.catalog, Clients: clients, OAuth: client, Log: seamedLog{r}, Slog: quiet,
		Endings: &vault.Endings{Vault: r.vault, Store: db, Catalog: s.catalog, Clients: clients, OAuth: client, Log: quiet, Now: r.now},
		Owner:   refresh.Owner{Place: "place" + strconv.Itoa(index), Run: strconv.Itoa(run)}, Spool: refresh.Spool{Dir: filepath.Join(s.dir, "spool"+strconv.Itoa(index))}, Now: r.now}
	r.ShortLeases(lease)
	if err := r.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *replica) now() time.Time {
	r.scene.vendor.mu.Lock()
	defer r.scene.vendor.mu.Unlock()
	return r.scene.vendor.now().Add(r.skew)
}

// seam is passed before and after everything that a replica does to the world. A dead one never gets past it.
func (r *replica) seam() {
	r.mu.Lock()
	stop := false
	if r.death > 0 {
		if r.death--; r.death == 0 {
			r.die()
		}
	}
	if r.pause > 0 {
		r.pause--
		stop = r.pause == 0
	}
	r.mu.Unlock()
	if stop {
		time.Sleep(lease + lease/4) // as SIGSTOP would: the world goes on
	}
	if r.ctx.Err() != nil {
		runtime.Goexit()
	}
}

// lose reports whether this answer of the database fails; half of those that fail have been done all the same.
func (r *replica) lose() (fails, done bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.away == 0 {
		return false, true
	}
	r.away--
	return true, rand.N(2) == 0
}

var errAway = fault.New(fault.Unavailable, "the database does not answer", nil)

// through does something to the world.
func through[T any](r *replica, do func() (T, error)) (v T, err error) {
	r.seam()
	fails, done := r.lose()
	if done {
		v, err = do()
	}
	r.seam()
	if fails {
		var none T
		return none, errAway
	}
	return v, err
}

type steps struct{ r *replica }

func (s steps) Claim(ctx context.Context, c vault.Connection, l refresh.Lease) (vault.Connection, bool, error) {
	type claimed struct {
		c  vault.Connection
		ok bool
	}
	v, err := through(s.r, func() (claimed, error) {
		c, ok, err := s.r.db.Claim(ctx, c, l)
		if s.r.answer("claim") {
			return claimed{}, errAway
		}
		return claimed{c, ok}, err
	})
	return v.c, v.ok, err
}

func (s steps) Sent(ctx context.Context, c vault.Connection) (bool, error) {
	return through(s.r, func() (bool, error) {
		ok, err := s.r.db.Sent(ctx, c)
		if s.r.answer("sent") {
			return false, errAway
		}
		return ok, err
	})
}

// answer reports whether the answer to this step is lost now.
func (r *replica) answer(step string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	lost := r.answerLost == step
	if lost {
		r.answerLost = ""
	}
	return lost
}

func (s steps) Settle(ctx context.Context, c vault.Connection, from int64) (bool, error) {
	s.r.mu.Lock()
	away, before := s.r.settleAway, s.r.beforeSettle
	s.r.beforeSettle = nil
	s.r.mu.Unlock()
	if before != nil {
		before()
	}
	return through(s.r, func() (bool, error) {
		if away {
			return false, errAway
		}
		return s.r.db.Settle(ctx, c, from)
	})
}

func (s steps) Fail(ctx context.Context, c vault.Connection) (bool, error) {
	return through(s.r, func() (bool, error) { return s.r.db.Fail(ctx, c) })
}

type rows struct {
	*store.DB
	r *replica
}

func (s rows) Connection(ctx context.Context, t identity.Tenant, id vault.ConnectionID) (vault.Connection, error) {
	return through(s.r, func() (vault.Connection, error) { return s.DB.Connection(ctx, t, id) })
}

type seamedVault struct{ r *replica }

func (v seamedVault) Open(ctx context.Context, c vault.Connection) (vault.Secrets, error) {
	v.r.seam()
	return v.r.vault.Open(ctx, c)
}

func (v seamedVault) Seal(ctx context.Context, c *vault.Connection, s vault.Secrets) error {
	v.r.seam()
	return v.r.vault.Seal(ctx, c, s)
}

func (v seamedVault) Update(ctx context.Context, c vault.Connection) error {
	_, err := through(v.r, func() (bool, error) { return true, v.r.vault.Update(ctx, c) })
	return err
}

type seamedLog struct{ r *replica }

func (l seamedLog) Begin(context.Context, audit.Record) (audit.CallID, error) {
	l.r.seam()
	l.r.mu.Lock()
	defer l.r.mu.Unlock()
	l.r.logged++
	id := audit.CallID(strconv.Itoa(l.r.logged))
	l.r.open[id] = true
	return id, nil
}

func (l seamedLog) End(_ context.Context, id audit.CallID, _ audit.Record) {
	l.r.mu.Lock()
	defer l.r.mu.Unlock()
	delete(l.r.open, id)
}

type doer struct{ r *replica }

func (d doer) Do(r *http.Request) (*http.Response, error) {
	d.r.seam()
	d.r.mu.Lock()
	before := d.r.beforeSend
	d.r.mu.Unlock()
	if before != nil {
		before()
	}
	resp, err := d.r.scene.vendor.Do(r)
	d.r.mu.Lock()
	after := d.r.afterAnswer
	d.r.afterAnswer = nil
	if d.r.dieAfterAnswer {
		d.r.die()
	}
	d.r.mu.Unlock()
	if after != nil {
		after()
	}
	d.r.seam()
	return resp, err
}

// connect stores a fresh grant of the vendor's, in the place of what is there.
func (r *replica) connect(ctx context.Context, c vault.Connection) (vault.Connection, error) {
	if c.ID == "" {
		made, err := r.vault.Connect(ctx, c, vault.Secrets{Access: secret.New("none yet")})
		if err != nil {
			return c, err
		}
		c = made
	}
	access, token, expires := r.scene.vendor.consent(c.ID)
	c.Status, c.Reason, c.Created, c.Renewed, c.Expires, c.Refreshes = vault.Active, "", r.now(), r.now(), expires, true
	return r.vault.Connect(ctx, c, vault.Secrets{Access: secret.New(access), Refresh: secret.New(token)})
}

// end ends a connection here, as its user would.
func (r *replica) end(ctx context.Context, c vault.Connection) (vault.Connection, error) {
	c.Status, c.Reason, c.Refreshes = vault.Revoked, "ended", false
	return r.vault.Connect(ctx, c, vault.Secrets{})
}
