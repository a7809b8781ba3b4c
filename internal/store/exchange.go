package store

import (
	"context"
	"time"

	"frontdesk.dev/frontdesk/internal/exchange"
	"frontdesk.dev/frontdesk/internal/vault"
)

var _ exchange.Machine = (*DB)(nil)

const noLease = "phase = 'idle', attempt = '', lease_owner = '', lease_until = 0"

// Claim implements exchange.Machine. That a request may have left is known by the phase alone, which a claim overwrites: so it
// is kept as status, or a death between claim and send would forget it.
func (db *DB) Claim(ctx context.Context, c vault.Connection, attempt, owner string, lease time.Duration) (vault.Connection, bool, error) {
	l, err := connectionTable.change(ctx, db.write, `UPDATE connections SET
			status = CASE WHEN phase = 'sent' THEN 'uncertain' ELSE status END,
			recoveries = CASE WHEN phase = 'sent' THEN recoveries + 1 ELSE recoveries END,
			phase = 'claimed', attempt = $5, lease_owner = $6, lease_until = `+db.now+` + $7, lease_epoch = lease_epoch + 1
		WHERE tenant = $1 AND id = $2 AND generation = $3 AND version = $4 AND lease_until < `+db.now,
		c.Tenant, c.ID, c.Generation, c.Version, attempt, owner, lease.Microseconds())
	if err != nil || len(l) == 0 {
		return vault.Connection{}, false, err
	}
	return l[0], true, nil
}

// holds is true of the row while c's lease on it lasts: $1 to $6.
func (db *DB) holds() string {
	return "tenant = $1 AND id = $2 AND generation = $3 AND version = $4 AND lease_epoch = $5 AND attempt = $6 AND lease_until >= " + db.now
}

func holder(c *vault.Connection, more ...any) []any {
	return append([]any{c.Tenant, c.ID, c.Generation, c.Version, c.LeaseEpoch, c.Attempt}, more...)
}

// Sent implements exchange.Machine.
func (db *DB) Sent(ctx context.Context, c vault.Connection) (bool, error) {
	n, err := exec(ctx, db.write, "UPDATE connections SET phase = 'sent' WHERE phase = 'claimed' AND "+db.holds(), holder(&c)...)
	return n == 1, err
}

// Settle implements exchange.Machine.
func (db *DB) Settle(ctx context.Context, c vault.Connection, fromVersion int64) (bool, error) {
	n, err := exec(ctx, db.write, `UPDATE connections SET version = version + 1, `+noLease+`, status = $5, reason = $6, scopes = $7, expires = $8, renewed = $9, refreshes = $10,
			not_before = $11, failures = $12, recoveries = $13, access = $14, refresh = $15, previous = $16
		WHERE tenant = $1 AND id = $2 AND generation = $3 AND version = $4`,
		c.Tenant, c.ID, c.Generation, fromVersion, c.Status, c.Reason, (*texts)(&c.Scopes), (*when)(&c.Expires), (*when)(&c.Renewed), c.Refreshes,
		(*when)(&c.NotBefore), c.Failures, c.Recoveries, (*blob)(&c.Access), (*blob)(&c.Refresh), (*blob)(&c.Previous))
	return n == 1, err
}

// Fail implements exchange.Machine.
func (db *DB) Fail(ctx context.Context, c vault.Connection) (bool, error) {
	n, err := exec(ctx, db.write, "UPDATE connections SET "+noLease+", status = $7, reason = $8, failures = $9, not_before = $10, recoveries = $11 WHERE "+db.holds(),
		holder(&c, c.Status, c.Reason, c.Failures, (*when)(&c.NotBefore), c.Recoveries)...)
	return n == 1, err
}
