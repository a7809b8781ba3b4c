package store

import (
	"context"
	"database/sql"
	"time"

	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/exchange/refresh"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/store/database"
	"frontdesk.dev/frontdesk/internal/vault"
)

var (
	_ refresh.Steps = (*DB)(nil)
	_ refresh.Rows  = (*DB)(nil)
	_ refresh.Moves = (*DB)(nil)
)

// living is true of a row that nobody has ended: no late step brings one back.
const living = " AND status NOT IN ('revoking', 'revoked')"

const noLease = "phase = 'idle', attempt = '', lease_owner = '', lease_until = 0"

// Claim implements refresh.Steps. That a request may have left is known by the phase alone, which a claim overwrites: so it
// is kept as status, or a death between claim and send would forget it.
func (db *DB) Claim(ctx context.Context, c vault.Connection, l refresh.Lease) (vault.Connection, bool, error) {
	if len(l.Siblings) == 0 {
		return db.claim(ctx, db.write, c, l)
	}
	var held vault.Connection
	var won bool
	err := db.base.Tx(ctx, func(ctx context.Context, tx *sql.Tx) error {
		if db.base.Lock != "" {
			if _, err := database.Exec(ctx, tx, db.base.Lock, "siblings\x1f"+string(c.Tenant)+"\x1f"+string(c.User)); err != nil {
				return err
			}
		}
		args := []any{c.Tenant, c.User, c.ID}
		for _, s := range l.Siblings {
			args = append(args, s)
		}
		busy, err := connectionTable.all(ctx, tx, "WHERE tenant = $1 AND user_id = $2 AND id <> $3 AND upstream IN ("+database.Holes(4, len(l.Siblings))+") AND lease_until >= "+db.base.Now, args...)
		if err == nil && len(busy) == 0 {
			held, won, err = db.claim(ctx, tx, c, l)
		}
		return err
	})
	return held, won && err == nil, err
}

func (db *DB) claim(ctx context.Context, q database.Querier, c vault.Connection, l refresh.Lease) (vault.Connection, bool, error) {
	rows, err := connectionTable.change(ctx, q, `UPDATE connections SET
			status = CASE WHEN phase = 'sent' THEN 'uncertain' ELSE status END,
			recoveries = CASE WHEN phase = 'sent' THEN recoveries + 1 ELSE recoveries END,
			phase = 'claimed', attempt = $5, lease_owner = $6, lease_until = `+db.base.Now+` + $7, lease_epoch = lease_epoch + 1
		WHERE tenant = $1 AND id = $2 AND generation = $3 AND version = $4 AND lease_until < `+db.base.Now+living+` AND status <> 'needs_reconnect'`,
		c.Tenant, c.ID, c.Generation, c.Version, l.Attempt, l.Owner, l.Time.Microseconds())
	if err != nil || len(rows) == 0 {
		return vault.Connection{}, false, err
	}
	return rows[0], true, nil
}

// holds is true of the row while c's lease on it lasts: $1 to $6.
func (db *DB) holds() string {
	return "tenant = $1 AND id = $2 AND generation = $3 AND version = $4 AND lease_epoch = $5 AND attempt = $6 AND lease_until >= " + db.base.Now
}

func holder(c *vault.Connection, more ...any) []any {
	return append([]any{c.Tenant, c.ID, c.Generation, c.Version, c.LeaseEpoch, c.Attempt}, more...)
}

// Sent implements refresh.Steps.
func (db *DB) Sent(ctx context.Context, c vault.Connection) (bool, error) {
	n, err := database.Exec(ctx, db.write, "UPDATE connections SET phase = 'sent' WHERE phase = 'claimed' AND "+db.holds(), holder(&c)...)
	return n == 1, err
}

// Settle implements refresh.Steps. Sealed fields open for their site alone: it is stored with them.
func (db *DB) Settle(ctx context.Context, c vault.Connection, fromVersion int64) (bool, error) {
	const moved = "CASE WHEN site = $20 OR EXISTS (SELECT 1 FROM connections o WHERE o.tenant = $1 AND o.id <> $2 AND o.user_id = connections.user_id AND o.upstream = connections.upstream AND o.account = $21 AND o.status NOT IN ('revoking', 'revoked'))"
	n, err := database.Exec(ctx, db.write, `UPDATE connections SET version = $19, `+noLease+`, status = $5, reason = $6, scopes = $7, expires = $8, renewed = $9, refreshes = $10,
			not_before = $11, failures = $12, recoveries = $13, access = $14, refresh = $15, previous = $16, identity = $17, proof = $18,
			account = `+moved+` THEN account ELSE $21 END, label = `+moved+` THEN label ELSE $22 END, site = $20
		WHERE tenant = $1 AND id = $2 AND generation = $3 AND version = $4`+living,
		c.Tenant, c.ID, c.Generation, fromVersion, c.Status, c.Reason, (*texts)(&c.Scopes), (*when)(&c.Expires), (*when)(&c.Renewed), c.Refreshes,
		(*when)(&c.NotBefore), c.Failures, c.Recoveries, (*blob)(&c.Access), (*blob)(&c.Refresh), (*blob)(&c.Previous), (*blob)(&c.Identity), (*blob)(&c.Proof), max(c.Version, fromVersion+1), &record{&c.Site}, c.Account, c.Label)
	return n == 1, err
}

// Fail implements refresh.Steps.
func (db *DB) Fail(ctx context.Context, c vault.Connection) (bool, error) {
	n, err := database.Exec(ctx, db.write, "UPDATE connections SET "+noLease+", status = $7, reason = $8, failures = $9, not_before = $10, recoveries = $11 WHERE "+db.holds()+living,
		holder(&c, c.Status, c.Reason, c.Failures, (*when)(&c.NotBefore), c.Recoveries)...)
	return n == 1, err
}

// Due implements refresh.Rows, in two questions, for each of which there is an index.
func (db *DB) Due(ctx context.Context, t identity.Tenant, up catalog.UpstreamName, before time.Time, limit int) ([]vault.Connection, error) {
	const refreshing = "WHERE tenant = $1 AND upstream = $2 AND refreshes AND "
	l, err := connectionTable.all(ctx, db.read, refreshing+"(phase <> 'idle' OR status = 'uncertain') AND status IN ('active', 'suspect', 'uncertain') AND lease_until < "+db.base.Now+
		" ORDER BY renewed LIMIT $3", t, up, limit)
	if err != nil || len(l) >= limit || !before.After(time.Unix(0, 0)) {
		return l, err
	}
	idle, err := connectionTable.all(ctx, db.read, refreshing+"status IN ('active', 'suspect') AND phase = 'idle' AND renewed < $3 ORDER BY renewed LIMIT $4", t, up, micros(before), limit-len(l))
	return append(l, idle...), err
}

// Inherit implements refresh.Rows.
func (db *DB) Inherit(ctx context.Context, o refresh.Owner) (int64, error) {
	return database.Exec(ctx, db.write, "UPDATE connections SET lease_until = 0 WHERE phase <> 'idle' AND lease_owner LIKE $1 AND lease_owner <> $2", o.Place+"-%", o.String())
}

// Proved implements refresh.Rows.
func (db *DB) Proved(ctx context.Context, t identity.Tenant, up catalog.UpstreamName, before time.Time) (int64, error) {
	return database.Exec(ctx, db.write, "UPDATE connections SET previous = $4 WHERE tenant = $1 AND upstream = $2 AND renewed < $3 AND phase = 'idle' AND status = 'active' AND length(previous) > 0",
		t, up, micros(before), []byte{})
}

// Doubt implements refresh.Moves. A renewal begins at the earliest a fifth of its token's life before that ends (refresh.Margin).
func (db *DB) Doubt(ctx context.Context, reason string) (int64, error) {
	n, err := database.Exec(ctx, db.write, `UPDATE connections SET status = 'uncertain', reason = $1, not_before = 0
		WHERE refreshes AND phase = 'idle' AND status IN ('active', 'suspect') AND expires > 0 AND expires - (expires - renewed) / 5 <= `+db.base.Now, reason)
	if err == nil {
		err = db.base.SeenTo(ctx)
	}
	return n, err
}

// Restored marks every connection that can be renewed as uncertain, after a restore from a backup: since it was made, vendors
// may have replaced what is stored here.
func (db *DB) Restored(ctx context.Context, reason string) (int64, error) {
	return restored(ctx, db.write, reason)
}

func restored(ctx context.Context, q database.Querier, reason string) (int64, error) {
	return database.Exec(ctx, q, "UPDATE connections SET status = 'uncertain', reason = $1, not_before = 0, "+noLease+" WHERE refreshes AND status IN ('active', 'suspect', 'uncertain')", reason)
}
