package connect

import (
	"context"

	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/identity"
)

// Desk opens connect requests, sends browsers away and takes them back, and keeps the grants.
type Desk struct {
	Catalog *catalog.Catalog
	Ready   Readiness
}

func (d *Desk) granted(context.Context, *identity.Caller, *catalog.Server, *catalog.Upstream, []string) (bool, error) {
	return false, nil
}
