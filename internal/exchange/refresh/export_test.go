package refresh

import "time"

// ShortLeases lets tests wait for a lease that is over.
func (m *Machine) ShortLeases(d time.Duration) { m.short = d }
