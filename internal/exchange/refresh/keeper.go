package refresh

import (
	"context"
	"fmt"
	"sync"
	"time"

	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/vault"
)

const (
	spoolEvery = 5 * time.Second
	lookEvery  = 15 * time.Second // for interrupted refreshes, which a vendor's grace may not wait for
	idleEvery  = 10 * time.Minute
	dueAtOnce  = 100
	minGrace   = time.Minute // before a replaced refresh token is forgotten
)

// Start takes over what earlier runs at this place left, before anybody is served: their leases end now rather than by
// their time, and what lies in the spool is stored.
func (m *Machine) Start(ctx context.Context) error {
	n, err := m.Rows.Inherit(ctx, m.Owner)
	if err != nil {
		return fmt.Errorf("the leases of an earlier run cannot be ended: %w", err)
	}
	if n > 0 {
		m.Slog.Info("renewals of an earlier run were interrupted, and are taken over", "connections", n)
	}
	m.replay(ctx, "")
	return nil
}

// Run does what nobody waits for, until ctx ends: the spool is emptied, interrupted refreshes are recovered while their
// vendor may still forgive it, connections that nobody uses are renewed before they would lapse, and replaced tokens are
// forgotten.
func (m *Machine) Run(ctx context.Context) error {
	spool, look, idle := time.NewTicker(spoolEvery), time.NewTicker(lookEvery), time.NewTicker(idleEvery)
	defer spool.Stop()
	defer look.Stop()
	defer idle.Stop()
	var moves sync.WaitGroup
	moves.Go(func() { m.watchMoves(ctx) })
	defer moves.Wait()
	m.Tend(ctx)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-spool.C:
			m.replay(ctx, "")
		case <-look.C:
			m.Recover(ctx)
		case <-idle.C:
			m.Tend(ctx)
		}
	}
}

// Recover goes on with refreshes whose process has died.
func (m *Machine) Recover(ctx context.Context) {
	m.each(ctx, func(up *catalog.Upstream, method catalog.Method) error {
		return m.renewDue(ctx, up, method, time.Unix(0, 0))
	})
}

// Tend is Recover, and the upkeep that is due each few minutes.
func (m *Machine) Tend(ctx context.Context) {
	m.each(ctx, func(up *catalog.Upstream, method catalog.Method) error {
		r := up.Provider.OAuth.Refresh
		proved := max(time.Duration(r.GraceSeconds)*time.Second, minGrace)
		if _, err := m.Rows.Proved(ctx, up.Tenant, up.Name, m.Now().Add(-proved)); err != nil {
			return err
		}
		before := time.Unix(0, 0)
		if idle := r.Idle(); idle > 0 {
			before = m.Now().Add(-idle)
		}
		return m.renewDue(ctx, up, method, before)
	})
}

// each visits the upstreams at which anything is renewed.
func (m *Machine) each(ctx context.Context, do func(up *catalog.Upstream, method catalog.Method) error) {
	for _, ups := range m.Catalog.Snapshot().Upstreams {
		for _, up := range ups {
			for _, method := range up.Methods {
				if up.Provider.OAuth == nil || !method.Kind.Consents() || ctx.Err() != nil {
					continue
				}
				if err := do(up, method); err != nil && ctx.Err() == nil {
					m.Slog.Warn("connections could not be tended; it is tried again", "upstream", up.Name, "error", err)
				}
			}
		}
	}
}

// renewDue renews what is due at one upstream, one after the other, so that a vendor sees no burst.
func (m *Machine) renewDue(ctx context.Context, up *catalog.Upstream, method catalog.Method, before time.Time) error {
	due, err := m.Rows.Due(ctx, up.Tenant, up.Name, before, dueAtOnce)
	if err != nil {
		return err
	}
	for _, c := range due {
		if ctx.Err() != nil || m.Now().Before(c.NotBefore) || c.Method != method.Kind {
			continue
		}
		w, err := m.walk(c, up, method)
		if err != nil {
			m.Slog.Info("a connection that nobody uses just now could not be renewed", "connection", c.ID, "upstream", up.Name, "error", err)
			continue
		}
		if c.Status == vault.Active && c.Phase == vault.Idle {
			w.from = c.Version // its access token may be good yet
		}
		if _, err := land(ctx, m.fly(ctx, w, c), c, up); err != nil {
			m.Slog.Info("a connection that nobody uses just now could not be renewed", "connection", c.ID, "upstream", up.Name, "error", err)
		}
	}
	return nil
}

// Lapsing says when a connection ends by its vendor's clocks and no renewal can help, for its user to know in time; zero
// where there is nothing to know.
func Lapsing(up *catalog.Upstream, c vault.Connection) time.Time {
	if up == nil || up.Provider.OAuth == nil || !c.Refreshes {
		return time.Time{}
	}
	at, final := up.Provider.OAuth.Refresh.Lapses(c.Created, c.Renewed)
	if !final {
		return time.Time{}
	}
	return at
}
