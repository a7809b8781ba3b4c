package store

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/hex"
	"fmt"
	"slices"
	"time"

	"frontdesk.dev/frontdesk/internal/admin"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/store/database"
)

var (
	_ identity.Users      = (*DB)(nil)
	_ identity.EpochStore = (*DB)(nil)
	_ admin.People        = (*DB)(nil)
)

var userTable = table[identity.User]{
	name: "users", none: "there is no such user",
	columns: "tenant, id, idp, subject, name, email, gone, groups",
	fields: func(u *identity.User) []any {
		return []any{&u.Tenant, &u.ID, &u.IDP, &u.Subject, &u.Name, &u.Email, &u.Gone, (*texts)(&u.Groups)}
	},
}

// EnsureUser implements identity.Users. Somebody who is known as he is costs no write.
func (db *DB) EnsureUser(ctx context.Context, u identity.User) (identity.User, error) {
	known, err := userTable.one(ctx, db.read, "WHERE tenant = $1 AND idp = $2 AND subject = $3", u.Tenant, u.IDP, u.Subject)
	switch {
	case err == nil && (u.Name == "" || u.Name == known.Name) && (u.Email == "" || u.Email == known.Email) && (u.Groups == nil || slices.Equal(u.Groups, known.Groups)):
		return known, nil
	case err != nil && fault.KindOf(err) != fault.NotFound:
		return identity.User{}, err
	}
	id := make([]byte, 16)
	_, _ = rand.Read(id) // never fails (crypto/rand)
	u.ID = identity.UserID(hex.EncodeToString(id))
	args := userTable.fields(&u)
	if u.Groups == nil {
		args[len(args)-1] = "" // says nothing, unlike a list without groups
	}
	return userTable.only(userTable.change(ctx, db.write, userTable.insert()+` ON CONFLICT (tenant, idp, subject) DO UPDATE SET
		name = CASE WHEN excluded.name = '' THEN users.name ELSE excluded.name END,
		email = CASE WHEN excluded.email = '' THEN users.email ELSE excluded.email END,
		groups = CASE WHEN excluded.groups = '' THEN users.groups ELSE excluded.groups END`, args...))
}

// User implements identity.Users.
func (db *DB) User(ctx context.Context, t identity.Tenant, id identity.UserID) (identity.User, error) {
	return userTable.one(ctx, db.read, "WHERE tenant = $1 AND id = $2", t, id)
}

// FindUsers implements admin.People, the first 20. What nobody said of himself finds nobody.
func (db *DB) FindUsers(ctx context.Context, t identity.Tenant, who string) ([]identity.User, error) {
	return userTable.all(ctx, db.read, `WHERE tenant = $1 AND $2 <> ''
		AND (id = $2 OR subject = $2 OR lower(name) = lower($2) OR lower(email) = lower($2)) ORDER BY id LIMIT 20`, t, who)
}

var epochTable = table[identity.Epoch]{
	name: "epochs", none: "there is no such epoch",
	columns: "seq, tenant, kind, id, not_before",
	fields: func(e *identity.Epoch) []any {
		return []any{&e.Seq, &e.Tenant, &e.Kind, &e.ID, (*when)(&e.NotBefore)}
	},
}

// Advance implements identity.EpochStore. The counter's row is locked until the commit, so no lower number is still on its way
// when a higher one can be seen.
func (db *DB) Advance(ctx context.Context, e identity.Epoch) (identity.Epoch, error) {
	e.NotBefore = e.NotBefore.Truncate(time.Microsecond).UTC() // as everybody else will read it
	err := db.base.Tx(ctx, func(ctx context.Context, tx *sql.Tx) error {
		var err error
		if e.Seq, err = nextEpoch(ctx, tx); err != nil {
			return err
		}
		if err := epochTable.put(ctx, tx, &e, ""); err != nil {
			return err
		}
		return db.base.NotifyOthers(ctx, tx)
	})
	if err != nil {
		return identity.Epoch{}, err
	}
	db.base.Wake()
	return e, nil
}

// nextEpoch is the next number. Until the commit nobody else gets one.
func nextEpoch(ctx context.Context, tx *sql.Tx) (int64, error) {
	next, err := database.List(ctx, tx, database.Value[int64], "UPDATE epoch_counter SET value = value + 1 RETURNING value")
	if err == nil && len(next) != 1 {
		err = fmt.Errorf("store: there are %d epoch counters", len(next))
	}
	if err != nil {
		return 0, err
	}
	return next[0], nil
}

// EpochsSince implements identity.EpochStore.
func (db *DB) EpochsSince(ctx context.Context, seq int64) ([]identity.Epoch, error) {
	return epochTable.all(ctx, db.read, "WHERE seq > $1 ORDER BY seq", seq)
}

var _ identity.OpaqueTickets = (*DB)(nil)

// ticketRow is a ticket under the hash of its text.
type ticketRow struct {
	hash []byte
	identity.Ticket
}

var ticketTable = table[ticketRow]{
	name: "tickets", none: "there is no such ticket", columns: "hash, tenant, kind, txn, server, expires",
	fields: func(t *ticketRow) []any {
		return []any{(*blob)(&t.hash), &t.Tenant, &t.Kind, &t.Txn, &t.Server, (*when)(&t.Expires)}
	},
}

// PutTicket implements identity.OpaqueTickets.
func (db *DB) PutTicket(ctx context.Context, hash [32]byte, t identity.Ticket) error {
	return ticketTable.put(ctx, db.write, &ticketRow{hash[:], t}, " ON CONFLICT (hash) DO UPDATE SET expires = excluded.expires WHERE tickets.expires < excluded.expires")
}

// OpaqueTicket implements identity.OpaqueTickets.
func (db *DB) OpaqueTicket(ctx context.Context, hash [32]byte) (identity.Ticket, error) {
	row, err := ticketTable.one(ctx, db.read, "WHERE hash = $1", hash[:])
	return row.Ticket, err
}
