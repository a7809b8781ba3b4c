package refresh

import (
	"context"
	"time"
)

// ShortLeases lets tests wait for a lease that is over.
func (m *Machine) ShortLeases(d time.Duration) { m.short = d }

// Moved does what a failover needs.
func (m *Machine) Moved(ctx context.Context) error { return m.moved(ctx) }
