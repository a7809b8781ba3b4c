package ending_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/ending"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/kit/oauth"
	"frontdesk.dev/frontdesk/internal/kit/secret"
	"frontdesk.dev/frontdesk/internal/store"
	"frontdesk.dev/frontdesk/internal/vault"
	"frontdesk.dev/frontdesk/internal/vault/kms"
)

const tenant = identity.DefaultTenant

// vendor is a revocation endpoint that counts what it ended.
type vendor struct {
	mu    sync.Mutex
	away  bool
	ended map[string]int
}

func (v *vendor) Do(r *http.Request) (*http.Response, error) {
	if err := r.ParseForm(); err != nil {
		return nil, err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.away {
		return nil, errors.New("away")
	}
	v.ended[r.PostForm.Get("token")]++
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(""))}, nil
}

func (v *vendor) count() (n int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return len(v.ended)
}

// events keeps what was recorded.
type events struct {
	mu sync.Mutex
	l  []audit.Record
}

func (e *events) Event(_ context.Context, r audit.Record) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.l = append(e.l, r)
	return nil
}

func (e *events) of(action string) (n int) {
	for _, r := range e.l {
		if r.Action == action {
			n++
		}
	}
	return n
}

// room is an office over a real database and vault.
type room struct {
	db      *store.DB
	vault   *vault.Vault
	epochs  *identity.Epochs
	endings *vault.Endings
	events  *events
	vendor  *vendor
	now     time.Time
	ending.Office
}

func newRoom(t testing.TB) *room {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "ending") // ten thousand connections are many waits for a disk, which is not what is tried
	if err != nil {
		dir = t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	db, err := store.Open(t.Context(), store.Config{Path: filepath.Join(dir, "test.db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	wrap, err := kms.OpenKeyFile(filepath.Join(t.TempDir(), "vault.key"), true)
	if err != nil {
		t.Fatal(err)
	}
	r := &room{db: db, events: &events{}, vendor: &vendor{ended: map[string]int{}}, now: time.Now()}
	clock := func() time.Time { return r.now }
	log := slog.New(slog.DiscardHandler)
	up := func(name catalog.UpstreamName, revocation string) *catalog.Upstream {
		return &catalog.Upstream{Tenant: tenant, Name: name, Title: string(name), Methods: []catalog.Method{{Kind: catalog.AuthorizationCode, Client: "frontdesk"}},
			Provider: &catalog.Provider{Name: string(name), OAuth: &catalog.ProviderOAuth{Token: "https://vendor.test/token", Revocation: revocation, TokenAuth: "basic"}}}
	}
	cat, clients := &catalog.Catalog{}, &vault.Clients{}
	cat.Set(&catalog.Snapshot{Upstreams: map[identity.Tenant]map[catalog.UpstreamName]*catalog.Upstream{tenant: {
		"tracker": up("tracker", "https://vendor.test/revoke"), "mute": up("mute", "")}}})
	clients.Use(map[vault.ClientKey]secret.Text{{Tenant: tenant, Upstream: "tracker"}: secret.New("hush")})
	r.vault = &vault.Vault{Store: db, Keys: db, Wrap: wrap, Now: clock}
	r.epochs = &identity.Epochs{Store: db, Now: clock, Log: log}
	r.endings = &vault.Endings{Vault: r.vault, Store: db, Catalog: cat, Clients: clients, OAuth: oauth.Client{HTTP: r.vendor, Now: clock}, Log: log, Now: clock}
	r.Office = ending.Office{Store: db, People: db, Vault: r.vault, Vendors: r.endings, Catalog: cat, Epochs: r.epochs, Events: r.events, Log: log, Now: clock}
	return r
}

func (r *room) connect(t testing.TB, u identity.UserID, up catalog.UpstreamName) vault.Connection {
	t.Helper()
	c, err := r.vault.Connect(t.Context(), vault.Connection{Tenant: tenant, User: u, Upstream: up, Method: catalog.AuthorizationCode, Status: vault.Active, Created: r.now, Refreshes: true},
		vault.Secrets{Access: secret.New("access of " + string(u)), Refresh: secret.New("refresh of " + string(u))})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (r *room) progress(t testing.TB) ending.Progress {
	t.Helper()
	p, err := r.Progress(t.Context(), tenant)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

var many = flag.Int("connections", 1_000, "how many connections TestMany ends")

// TestMany: all connections of an upstream end here with the command; their vendor hears of each exactly once, though
// the process dies in the middle and two go on.
func TestMany(t *testing.T) {
	many := *many
	r, ctx := newRoom(t), t.Context()
	bulk(t, r, many)
	other := r.connect(t, "bystander", "mute")

	began := time.Now()
	n, err := r.Revoke(ctx, tenant, ending.Whose{Upstream: "tracker"}, "ended by an operator")
	if err != nil || n != many {
		t.Fatal(n, err)
	}
	t.Logf("marked after %v", time.Since(began))
	for _, u := range []identity.UserID{"u0", "u500", "u999"} {
		if l, err := r.db.Connections(ctx, tenant, u, ""); err != nil || len(l) != 0 {
			t.Errorf("%s still has %v %v", u, l, err)
		}
	}
	dying, die := context.WithCancel(ctx)
	if more, err := r.Round(dying); err != nil || !more {
		t.Fatal(more, err)
	}
	die()
	if _, err := r.Round(dying); err == nil {
		t.Error("a dead process went on")
	}
	r.vendor.away = true // for the first who ask
	if err := r.endings.Round(ctx); err != nil {
		t.Fatal(err)
	}
	if p := r.progress(t); r.vendor.count() != 0 || p.Marked != many-200 || p.Waiting != 200 {
		t.Fatalf("after the crash: %+v, and the vendor ended %d", p, r.vendor.count())
	}
	r.vendor.away = false
	var two sync.WaitGroup
	for range 2 {
		two.Go(func() {
			for more := true; more; {
				var err error
				if more, err = r.Round(ctx); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	two.Wait()
	t.Logf("out of the vault after %v", time.Since(began))
	r.now = r.now.Add(time.Minute)
	for range 2 {
		two.Go(func() {
			if err := r.endings.Round(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	two.Wait()
	t.Logf("vendor told after %v", time.Since(began))
	if p := r.progress(t); p != (ending.Progress{}) || r.vendor.count() != many || r.events.of("connection.ended") != many || r.events.of("connections.revoked") != 1 {
		t.Errorf("%+v is left; the vendor ended %d, %d are on record", p, r.vendor.count(), r.events.of("connection.ended"))
	}
	for token, n := range r.vendor.ended {
		if n != 1 || !strings.HasPrefix(token, "refresh of ") {
			t.Errorf("the vendor was asked %d times to end %q", n, token)
		}
	}
	if c, err := r.db.Connection(ctx, tenant, other.ID); err != nil || c.Status != vault.Active {
		t.Error("another upstream's connection ended too", err)
	}
}

// bulk stores connections without a transaction each: that is not what is measured.
func bulk(t testing.TB, r *room, n int) {
	t.Helper()
	var g sync.WaitGroup
	next := make(chan int)
	for range 8 {
		g.Go(func() {
			for i := range next {
				r.connect(t, identity.UserID(fmt.Sprint("u", i)), "tracker")
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	g.Wait()
}

// TestByHand: what cannot be ended from here is listed with its reason, and no token stays.
func TestByHand(t *testing.T) {
	r, ctx := newRoom(t), t.Context()
	r.connect(t, "alice", "mute")
	gone := r.connect(t, "alice", "removed")
	if n, err := r.Revoke(ctx, tenant, ending.Whose{User: "alice"}, "ended by an operator"); n != 2 || err != nil {
		t.Fatal(n, err)
	}
	if _, err := r.Round(ctx); err != nil {
		t.Fatal(err)
	}
	l, err := r.db.Endings(ctx, tenant, 10)
	if err != nil || len(l) != 2 || r.progress(t) != (ending.Progress{GivenUp: 2}) {
		t.Fatal(l, err)
	}
	for _, e := range l {
		want := "the vendor offers no way to end it from here"
		if e.Connection == gone.ID {
			want = "the upstream is not configured any more"
		}
		if e.Why != want || len(e.Sealed) != 0 || e.GivenUp.IsZero() {
			t.Errorf("%+v", e)
		}
	}
}

// TestAccess: what began before dies, of exactly those who are meant; what begins later lives; an old message ends nothing new.
func TestAccess(t *testing.T) {
	caller := func(u identity.UserID, c identity.ClientID, at time.Time) *identity.Caller {
		return &identity.Caller{Tenant: tenant, User: u, Client: c, Issued: at}
	}
	for _, c := range []struct {
		name  string
		whose ending.Whose
		dead  []string // of alice/cursor, alice/claude, bob/cursor
	}{
		{"user", ending.Whose{User: "alice"}, []string{"alice/cursor", "alice/claude"}},
		{"client", ending.Whose{Client: "cursor"}, []string{"alice/cursor", "bob/cursor"}},
		{"all", ending.Whose{All: true}, []string{"alice/cursor", "alice/claude", "bob/cursor"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, ctx := newRoom(t), t.Context()
			if err := r.Access(ctx, tenant, c.whose, r.now, "why"); err != nil {
				t.Fatal(err)
			}
			for _, who := range []string{"alice/cursor", "alice/claude", "bob/cursor"} {
				u, client, _ := strings.Cut(who, "/")
				dead := strings.Contains(strings.Join(c.dead, " "), who)
				if got := !r.epochs.Alive(caller(identity.UserID(u), identity.ClientID(client), r.now.Add(-time.Second))); got != dead {
					t.Errorf("%s ended: %v", who, got)
				}
				if !r.epochs.Alive(caller(identity.UserID(u), identity.ClientID(client), r.now.Add(time.Second))) {
					t.Errorf("%s cannot begin again", who)
				}
			}
			if !r.epochs.Alive(&identity.Caller{Tenant: "globex", User: "alice", Client: "cursor", Issued: r.now.Add(-time.Second)}) {
				t.Error("another tenant's access ended too")
			}
		})
	}
	r, ctx := newRoom(t), t.Context()
	if err := r.Access(ctx, tenant, ending.Whose{User: "alice"}, r.now.Add(-time.Hour), "an old message"); err != nil {
		t.Fatal(err)
	}
	if !r.epochs.Alive(caller("alice", "cursor", r.now.Add(-time.Minute))) {
		t.Error("an old message ended what began after it")
	}
	for _, w := range []ending.Whose{{}, {User: "alice", All: true}, {User: "*"}, {Server: "issues"}, {Upstream: "tracker"}} {
		if err := r.Access(ctx, tenant, w, r.now, "why"); fault.KindOf(err) != fault.Invalid {
			t.Errorf("%+v: %v", w, err)
		}
	}
	for _, w := range []ending.Whose{{}, {User: "alice", All: true}, {Client: "*"}} {
		if _, err := r.Revoke(ctx, tenant, w, "why"); fault.KindOf(err) != fault.Invalid {
			t.Errorf("%+v: %v", w, err)
		}
	}
}
