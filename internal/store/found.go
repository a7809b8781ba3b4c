package store

import (
	"context"

	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/connect"
	"frontdesk.dev/frontdesk/internal/identity"
)

var _ connect.FoundStore = (*DB)(nil)

var foundTable = table[connect.Found]{
	name: "found", none: "nothing was found",
	columns: "tenant, upstream, issuer, created, facts",
	fields: func(f *connect.Found) []any {
		return []any{&f.Tenant, &f.Upstream, &f.Issuer, (*when)(&f.Created), (*blob)(&f.Facts)}
	},
}

// Found implements connect.FoundStore.
func (db *DB) Found(ctx context.Context, t identity.Tenant, up catalog.UpstreamName) ([]connect.Found, error) {
	return foundTable.all(ctx, db.read, "WHERE tenant = $1 AND upstream = $2 ORDER BY created DESC, issuer", t, up)
}

// PutFound implements connect.FoundStore.
func (db *DB) PutFound(ctx context.Context, f connect.Found) error {
	return foundTable.put(ctx, db.write, &f, " ON CONFLICT DO NOTHING")
}
