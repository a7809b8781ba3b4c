package store

import (
	"context"
	"crypto/rand"
	"database/sql"
	"fmt"
	"time"

	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/vault"
)

var (
	_ vault.Store    = (*DB)(nil)
	_ vault.KeyStore = (*DB)(nil)
)

const (
	connectionColumns = "tenant, id, user_id, upstream, method, account, label, scopes, status, reason, created, last_used, expires, refreshes, renewed, " +
		"generation, version, phase, attempt, lease_owner, lease_until, lease_epoch, not_before, failures, recoveries, access, refresh, previous"
	noConnection = "there is no such connection"
)

func connectionFields(c *vault.Connection) []any {
	return []any{&c.Tenant, &c.ID, &c.User, &c.Upstream, &c.Method, &c.Account, &c.Label, (*texts)(&c.Scopes), &c.Status, &c.Reason,
		(*when)(&c.Created), (*when)(&c.LastUsed), (*when)(&c.Expires), &c.Refreshes, (*when)(&c.Renewed),
		&c.Generation, &c.Version, &c.Phase, &c.Attempt, &c.LeaseOwner, (*when)(&c.LeaseUntil), &c.LeaseEpoch, (*when)(&c.NotBefore), &c.Failures, &c.Recoveries,
		(*blob)(&c.Access), (*blob)(&c.Refresh), (*blob)(&c.Previous)}
}

// Connections implements vault.Store, oldest first.
func (db *DB) Connections(ctx context.Context, t identity.Tenant, u identity.UserID, up catalog.UpstreamName) ([]vault.Connection, error) {
	query := "SELECT " + connectionColumns + " FROM connections WHERE tenant = $1 AND user_id = $2 AND status <> 'revoked'"
	args := []any{t, u}
	if up != "" {
		query, args = query+" AND upstream = $3", append(args, up)
	}
	return list(ctx, db.read, connectionFields, query+" ORDER BY created, id", args...)
}

// Connection implements vault.Store.
func (db *DB) Connection(ctx context.Context, t identity.Tenant, id vault.ConnectionID) (vault.Connection, error) {
	return one(ctx, db.read, connectionFields, noConnection, "SELECT "+connectionColumns+" FROM connections WHERE tenant = $1 AND id = $2", t, id)
}

// Connect implements vault.Store. With the row that it replaces goes every lease on it.
func (db *DB) Connect(ctx context.Context, c vault.Connection, prior int64) error {
	c.Phase, c.Attempt, c.LeaseOwner, c.LeaseUntil = vault.Idle, "", "", time.Time{}
	if prior == 0 {
		_, err := exec(ctx, db.write, insert("connections", connectionColumns), connectionFields(&c)...)
		return err
	}
	return db.tx(ctx, func(ctx context.Context, tx *sql.Tx) error {
		epoch, err := list(ctx, tx, value[int64], `DELETE FROM connections
			WHERE tenant = $1 AND id = $2 AND user_id = $3 AND upstream = $4 AND generation = $5 RETURNING lease_epoch`, c.Tenant, c.ID, c.User, c.Upstream, prior)
		if err != nil {
			return err
		}
		if len(epoch) == 0 {
			return changed(ctx, tx, noConnection, "SELECT generation FROM connections WHERE tenant = $1 AND id = $2", c.Tenant, c.ID)
		}
		c.LeaseEpoch = epoch[0] + 1
		_, err = exec(ctx, tx, insert("connections", connectionColumns), connectionFields(&c)...)
		return err
	})
}

// Update implements vault.Store.
func (db *DB) Update(ctx context.Context, c vault.Connection) error {
	n, err := exec(ctx, db.write, `UPDATE connections SET status = $5, reason = $6, label = $7, scopes = $8, last_used = $9
		WHERE tenant = $1 AND id = $2 AND generation = $3 AND version = $4`, c.Tenant, c.ID, c.Generation, c.Version, c.Status, c.Reason, c.Label, (*texts)(&c.Scopes), (*when)(&c.LastUsed))
	if err == nil && n == 0 {
		return changed(ctx, db.write, noConnection, "SELECT generation FROM connections WHERE tenant = $1 AND id = $2", c.Tenant, c.ID)
	}
	return err
}

const keyColumns = "tenant, purpose, generation, id, created, not_before, not_after, sealed, public"

func keyFields(k *vault.Key) []any {
	return []any{&k.Tenant, &k.Purpose, &k.Generation, &k.ID, (*when)(&k.Created), (*when)(&k.NotBefore), (*when)(&k.NotAfter), (*blob)(&k.Sealed), (*blob)(&k.Public)}
}

// Keys implements vault.KeyStore, oldest generation first.
func (db *DB) Keys(ctx context.Context, t identity.Tenant, purpose string) ([]vault.Key, error) {
	return list(ctx, db.read, keyFields, "SELECT "+keyColumns+" FROM keys WHERE tenant = $1 AND purpose = $2 ORDER BY generation", t, purpose)
}

// AddKey implements vault.KeyStore.
func (db *DB) AddKey(ctx context.Context, k vault.Key) error {
	_, err := exec(ctx, db.write, insert("keys", keyColumns), keyFields(&k)...)
	return err
}

// UpdateKey implements vault.KeyStore.
func (db *DB) UpdateKey(ctx context.Context, k vault.Key) error {
	n, err := exec(ctx, db.write, "UPDATE keys SET not_before = $5, not_after = $6, sealed = $7, public = $8 WHERE tenant = $1 AND purpose = $2 AND generation = $3 AND id = $4",
		k.Tenant, k.Purpose, k.Generation, k.ID, (*when)(&k.NotBefore), (*when)(&k.NotAfter), (*blob)(&k.Sealed), (*blob)(&k.Public))
	if err == nil && n == 0 {
		return fault.New(fault.NotFound, "there is no such key", nil)
	}
	return err
}

// NameID implements vault.KeyStore: the first one to ask makes it, for all.
func (db *DB) NameID(ctx context.Context, t identity.Tenant, kind, name string) ([16]byte, error) {
	var id [16]byte
	find := func(q querier) error {
		b, err := one(ctx, q, func(b *blob) []any { return []any{b} }, "", "SELECT id FROM names WHERE tenant = $1 AND kind = $2 AND name = $3", t, kind, name)
		if err == nil && copy(id[:], b) != len(id) {
			err = fmt.Errorf("store: the id of a %s is no id", kind)
		}
		return err
	}
	if err := find(db.read); fault.KindOf(err) != fault.NotFound {
		return id, err
	}
	fresh := make([]byte, len(id))
	_, _ = rand.Read(fresh) // never fails (crypto/rand)
	if _, err := exec(ctx, db.write, "INSERT INTO names (tenant, kind, name, id) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING", t, kind, name, fresh); err != nil {
		return id, err
	}
	return id, find(db.write)
}
