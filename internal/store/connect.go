package store

import (
	"context"
	"database/sql"
	"slices"
	"strings"
	"time"

	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/catalog/live"
	"frontdesk.dev/frontdesk/internal/connect"
	"frontdesk.dev/frontdesk/internal/connect/discovery"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/store/database"
)

var (
	_ connect.Store = (*DB)(nil)
	_ live.Store    = (*DB)(nil)
)

var requestTable = table[connect.Request]{
	name: "connect_requests", none: "there is no such connect request",
	columns: "tenant, id, user_id, client, client_name, server, tool, missing, state, created, expires",
	fields: func(r *connect.Request) []any {
		return []any{&r.Tenant, &r.ID, &r.User, &r.Client, &r.ClientName, &r.Server, &r.Tool, &record{&r.Missing}, &r.State, (*when)(&r.Created), (*when)(&r.Expires)}
	},
}

// OpenRequest implements connect.RequestStore. Those of one user wait for each other, so two replicas that ask the same at once
// ask once.
func (db *DB) OpenRequest(ctx context.Context, r connect.Request) (connect.Request, error) {
	err := db.base.Tx(ctx, func(ctx context.Context, tx *sql.Tx) error {
		if db.base.Lock != "" {
			if _, err := database.Exec(ctx, tx, db.base.Lock, "connect request/"+string(r.Tenant)+"/"+string(r.User)); err != nil {
				return err
			}
		}
		open, err := requestTable.all(ctx, tx, "WHERE tenant = $1 AND user_id = $2 AND state = 'open' AND client = $3 AND server = $4 AND expires > $5 ORDER BY created, id",
			r.Tenant, r.User, r.Client, r.Server, (*when)(&r.Created))
		if err != nil {
			return err
		}
		for _, o := range open {
			if slices.Equal(asked(o.Missing), asked(r.Missing)) {
				o.Expires = r.Expires
				r = o
				_, err := database.Exec(ctx, tx, "UPDATE connect_requests SET expires = $3 WHERE tenant = $1 AND id = $2", r.Tenant, r.ID, (*when)(&r.Expires))
				return err
			}
		}
		return requestTable.put(ctx, tx, &r, "")
	})
	return r, err
}

// asked is what a request asks for, whatever the reason: upstreams with their scopes, in one order.
func asked(l []catalog.Missing) []string {
	var all []string
	for _, m := range l {
		scopes := slices.Clone(m.Scopes)
		slices.Sort(scopes)
		all = append(all, string(m.Upstream)+" "+strings.Join(slices.Compact(scopes), " "))
	}
	slices.Sort(all)
	return all
}

// Request implements connect.RequestStore.
func (db *DB) Request(ctx context.Context, t identity.Tenant, id connect.RequestID) (connect.Request, error) {
	return requestTable.one(ctx, db.read, byID, t, id)
}

// SetState implements connect.RequestStore.
func (db *DB) SetState(ctx context.Context, r connect.Request) error {
	err := db.base.Tx(ctx, func(ctx context.Context, tx *sql.Tx) error {
		n, err := database.Exec(ctx, tx, "UPDATE connect_requests SET state = $3, missing = $4 WHERE tenant = $1 AND id = $2 AND state = 'open'", r.Tenant, r.ID, r.State, &record{&r.Missing})
		if err == nil && n == 0 {
			return requestTable.conflict(ctx, tx, byID, r.Tenant, r.ID)
		}
		if err != nil {
			return err
		}
		return db.base.NotifyOthers(ctx, tx)
	})
	if err == nil {
		db.base.Wake()
	}
	return err
}

// Requests implements connect.RequestStore, newest first.
func (db *DB) Requests(ctx context.Context, t identity.Tenant, u identity.UserID, s connect.State) ([]connect.Request, error) {
	return requestTable.all(ctx, db.read, "WHERE tenant = $1 AND user_id = $2 AND state = $3 ORDER BY created DESC, id", t, u, s)
}

var flowTable = table[connect.Flow]{
	name: "flows", none: "there is no such flow",
	columns: "tenant, state, kind, binding, user_id, upstream, method, request, scopes, connection, site, client, issuer, nonce, verifier, return_to, expires",
	fields: func(f *connect.Flow) []any {
		return []any{&f.Tenant, &f.State, &f.Kind, (*blob)(&f.Binding), &f.User, &f.Upstream, &f.Method, &f.Request, (*texts)(&f.Scopes), &f.Connection, &f.Site, &f.Client, &f.Issuer, &f.Nonce,
			(*blob)(&f.Verifier), &f.Return, (*when)(&f.Expires)}
	},
}

// PutFlow implements connect.FlowStore.
func (db *DB) PutFlow(ctx context.Context, f connect.Flow) error {
	return flowTable.put(ctx, db.write, &f, "")
}

// TakeFlow implements connect.FlowStore.
func (db *DB) TakeFlow(ctx context.Context, t identity.Tenant, state string) (connect.Flow, error) {
	return flowTable.only(flowTable.change(ctx, db.write, "DELETE FROM flows WHERE tenant = $1 AND state = $2", t, state))
}

var grantTable = table[connect.Grant]{
	name: "grants", none: "there is no such grant",
	columns: "tenant, user_id, client, server, upstream, connection, scopes, created, expires, last_used",
	fields: func(g *connect.Grant) []any {
		return []any{&g.Tenant, &g.User, &g.Client, &g.Server, &g.Upstream, &g.Connection, (*texts)(&g.Scopes), (*when)(&g.Created), (*when)(&g.Expires), (*when)(&g.LastUsed)}
	},
}

// PutGrant implements connect.GrantStore.
func (db *DB) PutGrant(ctx context.Context, g connect.Grant) error {
	return grantTable.put(ctx, db.write, &g, ` ON CONFLICT (tenant, user_id, client, server, upstream)
		DO UPDATE SET connection = excluded.connection, scopes = excluded.scopes, created = excluded.created, expires = excluded.expires, last_used = excluded.last_used`)
}

// Grants implements connect.GrantStore, oldest first.
func (db *DB) Grants(ctx context.Context, t identity.Tenant, u identity.UserID) ([]connect.Grant, error) {
	return grantTable.all(ctx, db.read, "WHERE tenant = $1 AND user_id = $2 ORDER BY created, client, server, upstream", t, u)
}

// DeleteGrants implements connect.GrantStore.
func (db *DB) DeleteGrants(ctx context.Context, g connect.Grant) (int, error) {
	if g.Tenant == "" || g.User == "" {
		return 0, fault.New(fault.Invalid, "grants are deleted for one user of one tenant", nil)
	}
	n, err := database.Exec(ctx, db.write, `DELETE FROM grants WHERE tenant = $1 AND user_id = $2 AND ($3 = '' OR client = $3) AND ($4 = '' OR server = $4) AND ($5 = '' OR upstream = $5)
		AND ($6 = '' OR connection IN ($6, ''))`, g.Tenant, g.User, g.Client, g.Server, g.Upstream, g.Connection)
	return int(n), err
}

var deviceTable = table[connect.Device]{
	name: "devices", none: "there is no such code",
	columns: flowTable.columns + ", code, next, tries, status, outcome",
	fields: func(d *connect.Device) []any {
		return append(flowTable.fields(&d.Flow), &record{&d.Code}, (*when)(&d.Next), &d.Tries, &d.Status, &record{&d.End})
	},
}

// PutDevice implements connect.DeviceStore.
func (db *DB) PutDevice(ctx context.Context, d connect.Device) error {
	return db.base.Tx(ctx, func(ctx context.Context, tx *sql.Tx) error {
		if _, err := database.Exec(ctx, tx, "UPDATE devices SET status = 'expired', verifier = $4, outcome = $5 WHERE tenant = $1 AND user_id = $2 AND upstream = $3 AND status = 'open'",
			d.Tenant, d.User, d.Upstream, []byte{}, &record{&connect.DeviceEnd{Why: "a newer code was asked for"}}); err != nil {
			return err
		}
		return deviceTable.put(ctx, tx, &d, "")
	})
}

// Device implements connect.DeviceStore.
func (db *DB) Device(ctx context.Context, t identity.Tenant, id string) (connect.Device, error) {
	return deviceTable.one(ctx, db.read, "WHERE tenant = $1 AND state = $2", t, id)
}

// DueDevices implements connect.DeviceStore.
func (db *DB) DueDevices(ctx context.Context, now time.Time, limit int) ([]connect.Device, error) {
	return deviceTable.all(ctx, db.read, "WHERE status = 'open' AND next <= $1 ORDER BY next, state LIMIT $2", micros(now), limit)
}

// SetDevice implements connect.DeviceStore.
func (db *DB) SetDevice(ctx context.Context, d connect.Device) (bool, error) {
	n, err := database.Exec(ctx, db.write, `UPDATE devices SET code = $4, next = $5, status = $6, outcome = $7, verifier = $8, tries = tries + 1
		WHERE tenant = $1 AND state = $2 AND tries = $3 AND status = 'open'`, d.Tenant, d.State, d.Tries, &record{&d.Code}, micros(d.Next), d.Status, &record{&d.End}, (*blob)(&d.Verifier))
	return n == 1, err
}

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

// RenewFound implements discovery.Store.
func (db *DB) RenewFound(ctx context.Context, old, with discovery.Found) (bool, error) {
	n, err := database.Exec(ctx, db.write, "UPDATE found SET created = $4, facts = $5 WHERE tenant = $1 AND upstream = $2 AND issuer = $3 AND created = $6 AND facts = $7",
		old.Tenant, old.Upstream, old.Issuer, (*when)(&with.Created), (*blob)(&with.Facts), (*when)(&old.Created), (*blob)(&old.Facts))
	return n > 0, err
}

// PutFound implements discovery.Store.
func (db *DB) PutFound(ctx context.Context, f discovery.Found) error {
	return foundTable.put(ctx, db.write, &f, " ON CONFLICT DO NOTHING")
}

var sightingTable = table[live.Sighting]{
	name: "sightings", none: "there is no such sighting",
	columns: "tenant, upstream, fact, fits, said, at",
	fields: func(s *live.Sighting) []any {
		return []any{&s.Tenant, &s.Upstream, &s.Fact, &s.Fits, &s.Said, (*when)(&s.At)}
	},
}

// Saw implements live.Store.
func (db *DB) Saw(ctx context.Context, s live.Sighting, before time.Time) error {
	return db.base.Tx(ctx, func(ctx context.Context, tx *sql.Tx) error {
		if _, err := database.Exec(ctx, tx, "DELETE FROM sightings WHERE tenant = $1 AND at < $2", s.Tenant, micros(before)); err != nil {
			return err
		}
		return sightingTable.put(ctx, tx, &s, " ON CONFLICT (tenant, upstream, fact, fits) DO UPDATE SET said = excluded.said, at = excluded.at WHERE sightings.at < excluded.at")
	})
}

// Sightings implements live.Store.
func (db *DB) Sightings(ctx context.Context, t identity.Tenant) ([]live.Sighting, error) {
	return sightingTable.all(ctx, db.read, "WHERE tenant = $1 ORDER BY upstream, fact, fits", t)
}
