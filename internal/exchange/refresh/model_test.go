package refresh_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/store"
	"frontdesk.dev/frontdesk/internal/vault"
	"frontdesk.dev/frontdesk/test/pg"
)

var (
	sequences = flag.Int("sequences", 4, "random sequences for each kind of vendor")
	seed      = flag.Uint64("seed", 1, "of the first sequence")
)

// TestModel drives two replicas over PostgreSQL through random sequences of calls, renewals, deaths between any two steps,
// stops, a database that fails, a vendor that fails, clocks that jump, and connections that end and begin. It asks:
//
//   - no refresh token is redeemed again outside a recorded recovery;
//   - no token is released that is not stored;
//   - no connection is dead and says that it is healthy;
//   - none is lost but where its vendor ended it, or had used up the token in an answer that was lost;
//   - each intent of a process that lives has its outcome.
func TestModel(t *testing.T) {
	dsn := pg.Start(t)
	var dbs [2]*store.DB
	for i := range dbs {
		db, err := store.Open(t.Context(), store.Config{DSN: dsn})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = db.Close() })
		dbs[i] = db
	}
	keys := filepath.Join(t.TempDir(), "vault.key")
	totals := map[catalog.Rotation]tally{catalog.RotationNone: {}, catalog.RotationGrace: {}, catalog.RotationStrict: {}}
	var mu sync.Mutex
	t.Run("sequence", func(t *testing.T) { // most of their time is spent waiting for leases
		for rotation, total := range totals {
			for n := range *sequences {
				t.Run(fmt.Sprintf("%s-%d", rotation, *seed+uint64(n)), func(t *testing.T) {
					t.Parallel()
					m := newModel(t, keys, rotation, *seed+uint64(n), dbs)
					for range 40 {
						m.act()
					}
					m.heal()
					m.tally["reused"] = int(m.reused.Load())
					mu.Lock()
					defer mu.Unlock()
					total.add(m.tally)
				})
			}
		}
	})
	for rotation, total := range totals {
		t.Logf("%-6s %s", rotation, total)
	}
}

type tally map[string]int

func (a tally) add(b tally) {
	for k, n := range b {
		a[k] += n
	}
}

func (a tally) String() string { return fmt.Sprint(map[string]int(a)) }

type model struct {
	t     *testing.T
	scene *scene
	dbs   [2]*store.DB
	rand  *rand.Rand
	runs  int
	on    [2]*replica
	conns []vault.ConnectionID
	tally tally
	// reused is how often a used token was redeemed again; the vendor counts while others count elsewhere.
	reused atomic.Int64
	steps  []string // what was done, for a report
}

func newModel(t *testing.T, keys string, rotation catalog.Rotation, seed uint64, dbs [2]*store.DB) *model {
	v := newVendor(rotation)
	m := &model{t: t, scene: newScene(t, v, keys), dbs: dbs, rand: rand.New(rand.NewPCG(seed, 7)), tally: tally{}}
	name := catalog.UpstreamName(fmt.Sprintf("up-%s-%d", rotation, seed))
	m.scene.up = m.scene.upstream(name)
	m.scene.use(m.scene.up)
	v.reuse = func(id vault.ConnectionID) {
		c, err := dbs[0].Connection(context.Background(), identity.DefaultTenant, id)
		m.reused.Add(1)
		if err == nil && c.Status == vault.Revoked {
			return // it was ended while the recovery was on its way
		}
		if err != nil || c.Status != vault.Uncertain && c.Status != vault.Suspect {
			m.wrong("a used refresh token was redeemed again, and its row says %s, %s (%v)", c.Status, c.Phase, err)
		}
	}
	m.start(0)
	m.start(1)
	for i := range 3 {
		c, err := m.on[0].connect(t.Context(), vault.Connection{Tenant: identity.DefaultTenant, User: identity.UserID(fmt.Sprint("user", i)), Upstream: name, Method: catalog.AuthorizationCode})
		if err != nil {
			t.Fatal(err)
		}
		m.conns = append(m.conns, c.ID)
	}
	return m
}

func (m *model) wrong(format string, args ...any) {
	m.t.Errorf(format+"\nafter %q", append(args, m.steps)...)
}

func (m *model) start(i int) {
	m.runs++
	m.on[i] = m.scene.replica(m.t, m.dbs[i], i, m.runs)
}

func (m *model) row(id vault.ConnectionID) vault.Connection {
	m.t.Helper()
	c, err := m.dbs[0].Connection(m.t.Context(), identity.DefaultTenant, id)
	if err != nil {
		m.t.Fatal(err)
	}
	return c
}

// act does one random thing, and waits until all is quiet.
func (m *model) act() {
	id := m.conns[m.rand.IntN(len(m.conns))]
	i := m.rand.IntN(2)
	step := fmt.Sprintf("%d:", i)
	do := func(what string) { step += " " + what; m.tally[what]++ }
	defer func() { m.steps = append(m.steps, step) }()
	switch n := m.rand.IntN(40); {
	case n < 3:
		do("reconnect or end")
		m.change(i, id)
	case n < 4:
		do("withdraw")
		m.scene.vendor.withdraw(id)
	case n < 6:
		do("clock")
		m.on[i].skew = time.Duration(m.rand.IntN(21)-10) * time.Minute
	case n < 12:
		do("time")
		m.scene.vendor.pass(time.Duration(m.rand.IntN(80)) * time.Minute)
	default:
		r := m.on[i]
		r.mu.Lock()
		switch m.rand.IntN(6) {
		case 0, 1:
			do("death")
			r.death = 1 + m.rand.IntN(24)
		case 2:
			do("stop")
			r.pause = 1 + m.rand.IntN(24)
		case 3:
			do("no database")
			r.away = 1 + m.rand.IntN(3)
		}
		r.mu.Unlock()
		if m.rand.IntN(3) == 0 {
			f := []trouble{unreachable, busy, slowDown, lost, half, invalidClient}[m.rand.IntN(6)]
			do(string(f))
			m.scene.vendor.set(f)
		}
		do("call")
		m.calls(id, m.rand.IntN(4) > 0)
		m.scene.vendor.set(fine)
	}
	m.quiet()
}

// change ends a connection, or connects it anew, while one of the replicas may be renewing it.
func (m *model) change(i int, id vault.ConnectionID) {
	var g sync.WaitGroup
	g.Go(func() { m.calls(id, true) })
	g.Go(func() {
		c := m.row(id)
		var err error
		if m.rand.IntN(3) == 0 && c.Status != vault.Revoked {
			_, err = m.on[i].end(m.t.Context(), c)
		} else {
			_, err = m.on[i].connect(m.t.Context(), c)
		}
		if err != nil {
			m.t.Error(err)
		}
	})
	g.Wait()
}

// calls lets both replicas ask for the same connection at once.
func (m *model) calls(id vault.ConnectionID, anew bool) {
	var g sync.WaitGroup
	for _, r := range m.on {
		for range 2 {
			g.Go(func() { m.call(r, id, anew) })
		}
	}
	g.Wait()
}

// call is what a tool call does: it takes the connection, and where the vendor calls its token expired, another one.
func (m *model) call(r *replica, id vault.ConnectionID, anew bool) {
	ctx, cancel := context.WithTimeout(r.ctx, 4*lease)
	defer cancel()
	c, err := m.dbs[r.index].Connection(ctx, identity.DefaultTenant, id)
	if err != nil || c.Status == vault.Revoked || c.Status == vault.NeedsReconnect {
		return
	}
	before := c.Version
	if c, err = r.Fresh(ctx, c, m.scene.up, m.scene.method); err == nil && anew && c.Version == before {
		c, err = r.Replace(ctx, c, m.scene.up, m.scene.method)
	}
	if err != nil || ctx.Err() != nil {
		return
	}
	now, err := m.dbs[r.index].Connection(ctx, identity.DefaultTenant, id)
	if err == nil && now.Generation == c.Generation && now.Version < c.Version {
		m.wrong("version %d was released, and version %d is stored", c.Version, now.Version)
	}
}

// quiet waits for what still runs, and puts a new replica in the place of a dead one.
func (m *model) quiet() {
	for i, r := range m.on {
		ctx, cancel := context.WithTimeout(m.t.Context(), 10*time.Second)
		r.Wait(ctx)
		if ctx.Err() != nil {
			m.wrong("a renewal does not end")
		}
		cancel()
		r.mu.Lock()
		dead, open := r.ctx.Err() != nil, len(r.open)
		r.death, r.pause, r.away = 0, 0, 0
		r.mu.Unlock()
		if dead {
			m.tally["died"]++
			m.start(i)
		} else if open > 0 {
			m.wrong("%d intents of a process that lives have no outcome", open)
		}
	}
}

// heal ends all trouble, and looks what became of each connection.
func (m *model) heal() {
	for _, r := range m.on {
		r.skew = 0
		r.Recover(m.t.Context())
	}
	for _, id := range m.conns {
		m.end(id)
	}
	for _, r := range m.on {
		r.Wait(m.t.Context())
		r.die()
	}
}

func (m *model) end(id vault.ConnectionID) {
	r := m.on[m.rand.IntN(2)]
	var err error
	for try := 0; try < 8; try++ {
		c := m.row(id)
		if c.Status == vault.Revoked {
			m.tally["ended"]++
			return
		}
		ctx, cancel := context.WithTimeout(m.t.Context(), 4*lease)
		c, err = r.Fresh(ctx, c, m.scene.up, m.scene.method)
		cancel()
		if _, needed := errors.AsType[*catalog.Needed](err); needed {
			m.marked(id)
			return
		}
		if err == nil {
			if m.serves(c) == "" {
				m.tally["works"]++
				return
			}
			if c, err = r.Replace(m.t.Context(), c, m.scene.up, m.scene.method); err == nil && m.serves(c) == "" {
				m.tally["works"]++
				return
			}
		}
		m.scene.vendor.pass(6 * time.Minute) // back-off, and what was put off for a minute
	}
	c := m.row(id)
	m.wrong("%s is silently dead: it says %s, %s, and the last answer was %v", id, c.Status, c.Phase, err)
}

// serves asks the vendor's API with the connection's token.
func (m *model) serves(c vault.Connection) string {
	s, err := m.on[0].vault.Open(m.t.Context(), c)
	if err != nil {
		m.t.Fatal(err)
	}
	return m.scene.vendor.serves(s.Access.Expose())
}

// marked: only its user can mend it. There has to be a reason, for him and at the vendor.
func (m *model) marked(id vault.ConnectionID) {
	c := m.row(id)
	if c.Status != vault.NeedsReconnect || c.Reason == "" {
		m.wrong("its user was asked to connect again, and the row says %s, %q", c.Status, c.Reason)
	}
	m.scene.vendor.mu.Lock()
	why := m.scene.vendor.refusal[id]
	m.scene.vendor.mu.Unlock()
	m.tally["marked: "+why]++
	switch {
	case why == "grant ended":
	case why == "used before" && m.scene.vendor.rotation != catalog.RotationNone: // reuse has made sure that it was a recovery
	default:
		m.wrong("a connection was lost for no reason of the vendor's: %q", why)
	}
}
