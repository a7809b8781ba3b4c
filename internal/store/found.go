package store

import (
	"context"

	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/connect/discovery"
	"frontdesk.dev/frontdesk/internal/identity"
)

var _ discovery.Store = (*DB)(nil)

var foundTable = table[discovery.Found]{
	name: "found", none: "nothing was found",
	columns: "tenant, upstream, issuer, created, facts",
	fields: func(f *discovery.Found) []any {
		return []any{&f.Tenant, &f.Upstream, &f.Issuer, (*when)(&f.Created), (*blob)(&f.Facts)}
	},
}

// Found implements discovery.Store.
func (db *DB) Found(ctx context.Context, t identity.Tenant, up catalog.UpstreamName) ([]discovery.Found, error) {
	return foundTable.all(ctx, db.read, "WHERE tenant = $1 AND upstream = $2 ORDER BY created DESC, issuer", t, up)
}

// PutFound implements discovery.Store.
func (db *DB) PutFound(ctx context.Context, f discovery.Found) error {
	return foundTable.put(ctx, db.write, &f, " ON CONFLICT DO NOTHING")
}
