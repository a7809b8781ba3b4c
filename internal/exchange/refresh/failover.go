package refresh

import (
	"context"
	"sync"
	"time"

	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/vault"
)

// Moves tells of a database whose server was replaced by a standby that may not have got what was acknowledged last.
type Moves interface {
	// Moves is how often this process has seen that, and when last, by its own clock.
	Moves() (int64, time.Time)
	// Doubt makes connections uncertain, with this reason, whose access token was due by the database's clock and that nobody
	// renews: where a renewal of one was lost, it was one of them. It returns how many.
	Doubt(ctx context.Context, reason string) (int64, error)
}

const (
	keepFor  = 10 * time.Minute // what was stored is remembered; longer than a standby lags that anybody would promote
	maxKept  = 10_000
	lookMove = time.Second

	// settleMove is how long nothing is redeemed after a standby took over: longer than another replica takes to notice it,
	// and to give the database what it remembers.
	settleMove = 5 * time.Second

	// ReasonMoved stays with a connection until it has proved to be alive.
	ReasonMoved = "the database lost its last moments in a failover, and the vendor had given out a newer token in them"
)

// kept are the credentials that this process has stored last, sealed, in case that the database loses them.
type kept struct {
	mu sync.Mutex
	of map[vault.ConnectionID]keptOne // guarded by mu
}

type keptOne struct {
	c  vault.Connection
	at time.Time
}

// keep remembers what was stored. What is too old is forgotten here alone: while the database is away nothing comes, and nothing goes.
func (k *kept) keep(c vault.Connection, now time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.of == nil {
		k.of = map[vault.ConnectionID]keptOne{}
	}
	if len(k.of) >= maxKept {
		for id, o := range k.of {
			if now.Sub(o.at).Abs() > keepFor || len(k.of) >= maxKept {
				delete(k.of, id)
			}
		}
	}
	k.of[c.ID] = keptOne{c, now}
}

// newer is what this process has stored in the place of an older row: the database has lost it.
func (k *kept) newer(row vault.Connection) (vault.Connection, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	o, ok := k.of[row.ID]
	return o.c, ok && o.c.Generation == row.Generation && o.c.Version > row.Version
}

func (k *kept) all() (l []vault.Connection) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, o := range k.of {
		l = append(l, o.c)
	}
	return l
}

// putBack gives the database what it has lost of one connection, under rule 1: nobody has anything newer. It reports whether the row
// is another one now.
func (m *Machine) putBack(ctx context.Context, row vault.Connection) (bool, error) {
	for changed := false; ; changed = true {
		c, lost := m.kept.newer(row)
		if !lost || row.Status == vault.Revoked || row.Status == vault.Revoking {
			return changed, nil
		}
		ok, err := m.storeAgain(ctx, c, row.Version, "a renewed credential is put back that the database has lost")
		if ok {
			m.Slog.Warn("the database had lost a renewed credential, and has it again", "connection", c.ID, "upstream", c.Upstream)
		}
		if ok || err != nil {
			return ok, err
		}
		if row, err = m.Rows.Connection(ctx, c.Tenant, c.ID); err != nil { // another replica was faster, with what it remembers: that may be older still
			return false, err
		}
	}
}

// moved does what a failover needs: what this process remembers is put back, and what it cannot know is doubted.
func (m *Machine) moved(ctx context.Context) error {
	for _, c := range m.kept.all() {
		row, err := m.Rows.Connection(ctx, c.Tenant, c.ID)
		if fault.KindOf(err) == fault.NotFound {
			continue
		}
		if err == nil {
			_, err = m.putBack(ctx, row)
		}
		if err != nil {
			return err
		}
	}
	n, err := m.Moves.Doubt(ctx, ReasonMoved)
	if err == nil {
		m.Slog.Warn("another server of the database has taken over: what was renewed in the last moments is put back, or tried before it is trusted", "connections", n)
	}
	return err
}

// watchMoves looks for failovers until ctx ends.
func (m *Machine) watchMoves(ctx context.Context) {
	if m.Moves == nil {
		return
	}
	done := int64(0)
	tick := time.NewTicker(lookMove)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		n, _ := m.Moves.Moves()
		if n == done {
			continue
		}
		if err := m.moved(ctx); err != nil {
			m.Slog.Warn("what the database lost in a failover could not be put back; it is tried again", "error", err)
			continue
		}
		done = n
	}
}

// settling is how long nothing may be redeemed yet.
func (m *Machine) settling() time.Duration {
	if m.Moves == nil {
		return 0
	}
	n, last := m.Moves.Moves()
	if n == 0 {
		return 0
	}
	return settleMove - time.Since(last)
}
