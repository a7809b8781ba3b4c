package store

import (
	"context"
	"crypto/rand"
	"database/sql"
	"fmt"
	"strconv"
	"time"

	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/store/database"
	"frontdesk.dev/frontdesk/internal/vault"
	"frontdesk.dev/frontdesk/internal/vault/keyring"
)

var (
	_ vault.Store       = (*DB)(nil)
	_ vault.All         = (*DB)(nil)
	_ vault.Sampled     = (*DB)(nil)
	_ keyring.Store     = (*DB)(nil)
	_ vault.EndingStore = (*DB)(nil)
)

var connectionTable = table[vault.Connection]{
	name: "connections", none: "there is no such connection",
	columns: "tenant, id, user_id, upstream, method, account, label, site, client, scopes, status, reason, created, last_used, expires, refreshes, renewed, preferred, " +
		"generation, version, phase, attempt, lease_owner, lease_until, lease_epoch, not_before, failures, recoveries, access, refresh, previous, identity, proof",
	fields: func(c *vault.Connection) []any {
		return []any{&c.Tenant, &c.ID, &c.User, &c.Upstream, &c.Method, &c.Account, &c.Label, &record{&c.Site}, &c.Client, (*texts)(&c.Scopes), &c.Status, &c.Reason,
			(*when)(&c.Created), (*when)(&c.LastUsed), (*when)(&c.Expires), &c.Refreshes, (*when)(&c.Renewed), (*when)(&c.Preferred),
			&c.Generation, &c.Version, &c.Phase, &c.Attempt, &c.LeaseOwner, (*when)(&c.LeaseUntil), &c.LeaseEpoch, (*when)(&c.NotBefore), &c.Failures, &c.Recoveries,
			(*blob)(&c.Access), (*blob)(&c.Refresh), (*blob)(&c.Previous), (*blob)(&c.Identity), (*blob)(&c.Proof)}
	},
}

// Connections implements vault.Store, by upstream.
func (db *DB) Connections(ctx context.Context, t identity.Tenant, u identity.UserID, up catalog.UpstreamName) ([]vault.Connection, error) {
	where, args := "WHERE tenant = $1 AND user_id = $2 AND status NOT IN ('revoking', 'revoked')", []any{t, u}
	if up != "" {
		where, args = where+" AND upstream = $3", append(args, up)
	}
	return connectionTable.all(ctx, db.read, where+" ORDER BY upstream, preferred DESC, created, id", args...)
}

const byID = "WHERE tenant = $1 AND id = $2"

// Connection implements vault.Store.
func (db *DB) Connection(ctx context.Context, t identity.Tenant, id vault.ConnectionID) (vault.Connection, error) {
	return connectionTable.one(ctx, db.read, byID, t, id)
}

// Connect implements vault.Store. With the row that it replaces goes every lease on it.
func (db *DB) Connect(ctx context.Context, c vault.Connection, prior int64) error {
	c.Phase, c.Attempt, c.LeaseOwner, c.LeaseUntil = vault.Idle, "", "", time.Time{}
	if prior == 0 {
		return connectionTable.put(ctx, db.write, &c, "")
	}
	return db.base.Tx(ctx, func(ctx context.Context, tx *sql.Tx) error {
		old, err := connectionTable.change(ctx, tx, "DELETE FROM connections WHERE tenant = $1 AND id = $2 AND user_id = $3 AND upstream = $4 AND generation = $5", c.Tenant, c.ID, c.User, c.Upstream, prior)
		if err != nil {
			return err
		}
		if len(old) == 0 {
			return connectionTable.conflict(ctx, tx, byID, c.Tenant, c.ID)
		}
		c.LeaseEpoch = old[0].LeaseEpoch + 1
		return connectionTable.put(ctx, tx, &c, "")
	})
}

// Prefer implements connect.GrantStore.
func (db *DB) Prefer(ctx context.Context, c vault.Connection, at time.Time) error {
	n, err := database.Exec(ctx, db.write, "UPDATE connections SET preferred = $4 WHERE tenant = $1 AND id = $2 AND user_id = $3"+living, c.Tenant, c.ID, c.User, micros(at))
	if err == nil && n == 0 {
		return fault.New(fault.NotFound, connectionTable.none, nil)
	}
	return err
}

// EachConnection implements vault.All.
func (db *DB) EachConnection(ctx context.Context, f func(vault.Connection) error) error {
	const size = 1000
	var last vault.Connection
	for {
		l, err := connectionTable.all(ctx, db.read, "WHERE (tenant, id) > ($1, $2) ORDER BY tenant, id LIMIT "+strconv.Itoa(size), last.Tenant, last.ID)
		if err != nil {
			return err
		}
		for _, c := range l {
			if err := f(c); err != nil {
				return err
			}
			last = c
		}
		if len(l) < size {
			return nil
		}
	}
}

// ConnectionsFrom implements vault.Sampled.
func (db *DB) ConnectionsFrom(ctx context.Context, t identity.Tenant, from vault.ConnectionID, limit int) ([]vault.Connection, error) {
	return connectionTable.all(ctx, db.read, "WHERE tenant = $1 AND id >= $2 ORDER BY id LIMIT $3", t, from, limit)
}

// CountConnections counts those of a status, of all tenants: a number for operators, which names nobody.
func (db *DB) CountConnections(ctx context.Context, s vault.Status) (int, error) {
	n := 0
	err := db.read.QueryRowContext(ctx, "SELECT count(*) FROM connections WHERE status = $1", s).Scan(&n)
	return n, err
}

// Update implements vault.Store.
func (db *DB) Update(ctx context.Context, c vault.Connection) error {
	n, err := database.Exec(ctx, db.write, `UPDATE connections SET status = $5, reason = $6, label = $7, scopes = $8, last_used = $9
		WHERE tenant = $1 AND id = $2 AND generation = $3 AND version = $4`+living, c.Tenant, c.ID, c.Generation, c.Version, c.Status, c.Reason, c.Label, (*texts)(&c.Scopes), (*when)(&c.LastUsed))
	if err != nil || n > 0 {
		return err
	}
	return connectionTable.conflict(ctx, db.write, byID, c.Tenant, c.ID)
}

var keyTable = table[keyring.Key]{
	name: "keys", none: "there is no such key",
	columns: "tenant, purpose, generation, id, created, not_before, not_after, sealed, public",
	fields: func(k *keyring.Key) []any {
		return []any{&k.Tenant, &k.Purpose, &k.Generation, &k.ID, (*when)(&k.Created), (*when)(&k.NotBefore), (*when)(&k.NotAfter), (*blob)(&k.Sealed), (*blob)(&k.Public)}
	},
}

// Keys implements keyring.Store, oldest generation first.
func (db *DB) Keys(ctx context.Context, t identity.Tenant, purpose string) ([]keyring.Key, error) {
	return keyTable.all(ctx, db.read, "WHERE tenant = $1 AND purpose = $2 ORDER BY generation", t, purpose)
}

// AddKey implements keyring.Store.
func (db *DB) AddKey(ctx context.Context, k keyring.Key) error {
	return keyTable.put(ctx, db.write, &k, "")
}

// UpdateKey implements keyring.Store.
func (db *DB) UpdateKey(ctx context.Context, k keyring.Key) error {
	n, err := database.Exec(ctx, db.write, "UPDATE keys SET not_before = $5, not_after = $6, sealed = $7, public = $8 WHERE tenant = $1 AND purpose = $2 AND generation = $3 AND id = $4",
		k.Tenant, k.Purpose, k.Generation, k.ID, (*when)(&k.NotBefore), (*when)(&k.NotAfter), (*blob)(&k.Sealed), (*blob)(&k.Public))
	if err == nil && n == 0 {
		return fault.New(fault.NotFound, keyTable.none, nil)
	}
	return err
}

// nameID is what names of things are bound to.
type nameID struct {
	tenant     identity.Tenant
	kind, name string
	id         []byte
}

var nameTable = table[nameID]{
	name: "names", none: "there is no such name",
	columns: "tenant, kind, name, id",
	fields:  func(n *nameID) []any { return []any{&n.tenant, &n.kind, &n.name, (*blob)(&n.id)} },
}

// NameID implements keyring.Store: the first one to ask makes it, for all.
func (db *DB) NameID(ctx context.Context, t identity.Tenant, kind, name string) (id [16]byte, err error) {
	const where = "WHERE tenant = $1 AND kind = $2 AND name = $3"
	n, err := nameTable.one(ctx, db.read, where, t, kind, name)
	if fault.KindOf(err) == fault.NotFound {
		_, _ = rand.Read(id[:]) // never fails (crypto/rand)
		if err := nameTable.put(ctx, db.write, &nameID{t, kind, name, id[:]}, " ON CONFLICT DO NOTHING"); err != nil {
			return [16]byte{}, err
		}
		n, err = nameTable.one(ctx, db.write, where, t, kind, name)
	}
	if err == nil && copy(id[:], n.id) != len(id) {
		err = fmt.Errorf("store: the id of a %s is no id", kind)
	}
	return id, err
}

var endingTable = table[vault.Ending]{
	name: "endings", none: "there is no such ending",
	columns: "tenant, id, user_id, upstream, method, connection, created, next, tries, sealed, given_up, why",
	fields: func(e *vault.Ending) []any {
		return []any{&e.Tenant, &e.ID, &e.User, &e.Upstream, &e.Method, &e.Connection, (*when)(&e.Created), (*when)(&e.Next), &e.Tries, (*blob)(&e.Sealed), (*when)(&e.GivenUp), &e.Why}
	},
}

// AddEnding implements vault.EndingStore.
func (db *DB) AddEnding(ctx context.Context, e vault.Ending) error {
	return endingTable.put(ctx, db.write, &e, "")
}

// DueEndings implements vault.EndingStore.
func (db *DB) DueEndings(ctx context.Context, now time.Time, limit int) ([]vault.Ending, error) {
	return endingTable.all(ctx, db.read, "WHERE next <= $1 AND given_up = 0 ORDER BY next, id LIMIT $2", micros(now), limit)
}

// EndingsOf implements portal.Endings: what a person's vendors have yet to end, the newest first.
func (db *DB) EndingsOf(ctx context.Context, t identity.Tenant, u identity.UserID) ([]vault.Ending, error) {
	return endingTable.all(ctx, db.read, "WHERE tenant = $1 AND user_id = $2 ORDER BY created DESC, id", t, u)
}

// TryEnding implements vault.EndingStore.
func (db *DB) TryEnding(ctx context.Context, e vault.Ending, next time.Time) (bool, error) {
	n, err := database.Exec(ctx, db.write, "UPDATE endings SET next = $4, tries = tries + 1 WHERE tenant = $1 AND id = $2 AND tries = $3", e.Tenant, e.ID, e.Tries, micros(next))
	return n == 1, err
}

// FailEnding implements vault.EndingStore.
func (db *DB) FailEnding(ctx context.Context, e vault.Ending) error {
	if e.GivenUp.IsZero() {
		_, err := database.Exec(ctx, db.write, "UPDATE endings SET why = $3 "+byID, e.Tenant, e.ID, e.Why)
		return err
	}
	_, err := database.Exec(ctx, db.write, "UPDATE endings SET why = $3, given_up = $4, sealed = $5 "+byID, e.Tenant, e.ID, e.Why, micros(e.GivenUp), []byte{})
	return err
}

// RemoveEnding implements vault.EndingStore; one that is gone already is no error.
func (db *DB) RemoveEnding(ctx context.Context, t identity.Tenant, id string) error {
	_, err := database.Exec(ctx, db.write, "DELETE FROM endings "+byID, t, id)
	return err
}

// Used implements exchange.Uses.
func (db *DB) Used(ctx context.Context, t identity.Tenant, id vault.ConnectionID, at time.Time) error {
	_, err := database.Exec(ctx, db.write, "UPDATE connections SET last_used = $3 WHERE tenant = $1 AND id = $2 AND last_used < $3", t, id, micros(at))
	return err
}

// Unused implements connect.Unused.
func (db *DB) Unused(ctx context.Context, t identity.Tenant, since time.Time, limit int) ([]vault.Connection, error) {
	return connectionTable.all(ctx, db.read, `WHERE tenant = $1 AND status NOT IN ('revoking', 'revoked') AND upstream NOT LIKE 'idp:%' AND created < $2 AND last_used < $2
		ORDER BY last_used, created LIMIT $3`, t, micros(since), limit)
}

var (
	_ vault.Resealing = (*DB)(nil)
	_ vault.Turns     = (*DB)(nil)
)

// SealedUnder implements vault.Resealing.
func (db *DB) SealedUnder(ctx context.Context, t identity.Tenant) (map[string]int, error) {
	type count struct {
		head []byte
		n    int
	}
	l, err := database.List(ctx, db.read, func(c *count) []any { return []any{&c.head, &c.n} },
		"SELECT substr(access, 1, 6), count(*) FROM connections WHERE tenant = $1 AND length(access) > 0 GROUP BY 1", t)
	m := map[string]int{}
	for _, c := range l {
		m[string(c.head)] = c.n
	}
	return m, err
}

// SealedElse implements vault.Resealing.
func (db *DB) SealedElse(ctx context.Context, t identity.Tenant, prefix string, after vault.ConnectionID, limit int) ([]vault.Connection, error) {
	return connectionTable.all(ctx, db.read, "WHERE tenant = $1 AND id > $2 AND length(access) > 0 AND substr(access, 1, 6) <> $3 ORDER BY id LIMIT $4", t, after, []byte(prefix), limit)
}

// Reseal implements vault.Resealing.
func (db *DB) Reseal(ctx context.Context, c vault.Connection, was vault.Sealed) (bool, error) {
	n, err := database.Exec(ctx, db.write, `UPDATE connections SET access = $6, refresh = $7, previous = $8, identity = $9, proof = $10
		WHERE tenant = $1 AND id = $2 AND generation = $3 AND version = $4 AND access = $5`,
		c.Tenant, c.ID, c.Generation, c.Version, was.Access, (*blob)(&c.Access), (*blob)(&c.Sealed.Refresh), (*blob)(&c.Previous), (*blob)(&c.Identity), (*blob)(&c.Proof))
	return n == 1, err
}

// DropKeys implements vault.Resealing.
func (db *DB) DropKeys(ctx context.Context, t identity.Tenant, purpose string, upTo int64) (int64, error) {
	return database.Exec(ctx, db.write, "DELETE FROM keys WHERE tenant = $1 AND purpose = $2 AND generation <= $3", t, purpose, upTo)
}

// Turn implements vault.Turns, by the database's clock.
func (db *DB) Turn(ctx context.Context, chore, owner string, d time.Duration) (bool, error) {
	n, err := database.Exec(ctx, db.write, `INSERT INTO chores (name, owner, until) VALUES ($1, $2, `+db.base.Now+` + $3)
		ON CONFLICT (name) DO UPDATE SET owner = excluded.owner, until = excluded.until WHERE chores.owner = excluded.owner OR chores.until < `+db.base.Now, chore, owner, d.Microseconds())
	return n == 1, err
}
