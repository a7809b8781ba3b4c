package store

import (
	"context"
	"database/sql"
	"time"

	"frontdesk.dev/frontdesk/internal/admin"
	"frontdesk.dev/frontdesk/internal/ending"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/store/database"
	"frontdesk.dev/frontdesk/internal/vault"
)

var (
	_ ending.Store    = (*DB)(nil)
	_ ending.People   = (*DB)(nil)
	_ ending.Messages = (*DB)(nil)
	_ admin.Endings   = (*DB)(nil)
)

// whose is the condition on a row of connections or grants, with its argument as $2; of what a client or a server was let use,
// connections are found through their grants.
func whose(w ending.Whose) (ofConnection, ofGrant string, arg any) {
	const through = "EXISTS (SELECT 1 FROM grants g WHERE g.tenant = connections.tenant AND g.user_id = connections.user_id AND g.upstream = connections.upstream AND g.connection IN ('', connections.id) AND g."
	switch {
	case w.User != "":
		return "user_id = $2", "user_id = $2", w.User
	case w.Client != "":
		return through + "client = $2)", "client = $2", w.Client
	case w.Server != "":
		return through + "server = $2)", "server = $2", w.Server
	case w.Upstream != "":
		return "upstream = $2", "upstream = $2", w.Upstream
	case w.All:
		return "$2 = ''", "$2 = ''", ""
	}
	return "1 = 0 AND $2 = ''", "1 = 0 AND $2 = ''", ""
}

// MarkRevoking implements ending.Connections. Grants go when the last connection is marked: a client's are how the others
// are found.
func (db *DB) MarkRevoking(ctx context.Context, t identity.Tenant, w ending.Whose, reason string, limit int) (int, error) {
	n := 0
	err := db.base.Tx(ctx, func(ctx context.Context, tx *sql.Tx) error {
		connection, grant, arg := whose(w)
		ids, err := database.List(ctx, tx, database.Value[string], "UPDATE connections SET status = 'revoking', reason = $3, "+noLease+`, lease_epoch = lease_epoch + 1
			WHERE tenant = $1 AND id IN (SELECT id FROM connections WHERE tenant = $1`+living+" AND upstream NOT LIKE 'idp:%' AND "+connection+" LIMIT $4) RETURNING id", t, arg, reason, limit)
		if n = len(ids); err != nil || n == limit {
			return err
		}
		if _, err := database.Exec(ctx, tx, "DELETE FROM grants WHERE tenant = $1 AND "+grant, t, arg); err != nil {
			return err
		}
		_, err = database.Exec(ctx, tx, `DELETE FROM grants WHERE tenant = $1 AND EXISTS (SELECT 1 FROM connections c
			WHERE c.tenant = grants.tenant AND c.user_id = grants.user_id AND c.upstream = grants.upstream AND c.status = 'revoking' AND grants.connection IN ('', c.id))
			AND NOT EXISTS (SELECT 1 FROM connections c
			WHERE c.tenant = grants.tenant AND c.user_id = grants.user_id AND c.upstream = grants.upstream AND c.status NOT IN ('revoking', 'revoked') AND grants.connection IN ('', c.id))`, t)
		return err
	})
	return n, err
}

// Revoking implements ending.Connections.
func (db *DB) Revoking(ctx context.Context, limit int) ([]vault.Connection, error) {
	return connectionTable.all(ctx, db.read, "WHERE status = 'revoking' ORDER BY created, id LIMIT $1", limit)
}

// Retire implements ending.Connections.
func (db *DB) Retire(ctx context.Context, l []ending.Retired) ([]ending.Retired, error) {
	var ours []ending.Retired
	err := db.base.Tx(ctx, func(ctx context.Context, tx *sql.Tx) error {
		for _, r := range l {
			n, err := database.Exec(ctx, tx, `UPDATE connections SET status = 'revoked', refreshes = $4, access = $5, refresh = $5, previous = $5, identity = $5, proof = $5
				WHERE tenant = $1 AND id = $2 AND generation = $3 AND status = 'revoking'`, r.Tenant, r.ID, r.Generation, false, []byte{})
			if err != nil {
				return err
			}
			if n == 0 {
				continue
			}
			if r.Ending != nil {
				if err := endingTable.put(ctx, tx, r.Ending, ""); err != nil {
					return err
				}
			}
			ours = append(ours, r)
		}
		return nil
	})
	return ours, err
}

// EndingCounts implements ending.Connections.
func (db *DB) EndingCounts(ctx context.Context, t identity.Tenant) (ending.Progress, error) {
	l, err := database.List(ctx, db.read, func(p *ending.Progress) []any { return []any{&p.Marked, &p.Waiting, &p.GivenUp} }, `SELECT
		(SELECT count(*) FROM connections WHERE tenant = $1 AND status = 'revoking' AND upstream NOT LIKE 'idp:%'),
		(SELECT count(*) FROM endings WHERE tenant = $1 AND given_up = 0), (SELECT count(*) FROM endings WHERE tenant = $1 AND given_up > 0)`, t)
	if err != nil || len(l) == 0 {
		return ending.Progress{}, err
	}
	return l[0], nil
}

// Endings implements admin.Endings: those that are tried first, then those that were given up, the oldest first.
func (db *DB) Endings(ctx context.Context, t identity.Tenant, limit int) ([]vault.Ending, error) {
	return endingTable.all(ctx, db.read, "WHERE tenant = $1 ORDER BY given_up, created, id LIMIT $2", t, limit)
}

// DropAccess implements ending.Access.
func (db *DB) DropAccess(ctx context.Context, t identity.Tenant, w ending.Whose, until time.Time) ([]string, error) {
	column, arg := "user_id", string(w.User)
	switch {
	case w.Client != "":
		column, arg = "client", string(w.Client)
	case w.All: // the column does not matter
	case w.User == "":
		return nil, fault.New(fault.Invalid, "access is dropped of a user, of a client, or of all", nil)
	}
	var families []string
	err := db.base.Tx(ctx, func(ctx context.Context, tx *sql.Tx) (err error) {
		match := " WHERE tenant = $1 AND ($2 = '' OR " + column + " = $2) "
		if families, err = database.List(ctx, tx, database.Value[string], "DELETE FROM families"+match+"AND created <= $3 RETURNING id", t, arg, micros(until)); err != nil {
			return err
		}
		if _, err := database.Exec(ctx, tx, "DELETE FROM grants"+match+"AND created <= $3", t, arg, micros(until)); err != nil {
			return err
		}
		if _, err := database.Exec(ctx, tx, "DELETE FROM codes"+match, t, arg); err != nil {
			return err
		}
		if w.Client != "" {
			return nil
		}
		_, err = database.Exec(ctx, tx, "UPDATE connections SET status = 'revoking', reason = 'the sign-in ended', "+noLease+", lease_epoch = lease_epoch + 1"+match+
			"AND created <= $3 AND upstream LIKE 'idp:%'"+living, t, arg, micros(until))
		return err
	})
	return families, err
}

// DropSignIn implements ending.Access.
func (db *DB) DropSignIn(ctx context.Context, t identity.Tenant, idp, sid string) ([]string, error) {
	if sid == "" {
		return nil, fault.New(fault.Invalid, "a sign-in at the IdP has a name", nil)
	}
	const of = " WHERE tenant = $1 AND idp = $2 AND sid = $3"
	if _, err := database.Exec(ctx, db.write, "DELETE FROM codes"+of, t, idp, sid); err != nil {
		return nil, err
	}
	return database.List(ctx, db.write, database.Value[string], "DELETE FROM families"+of+" RETURNING id", t, idp, sid)
}

// UserBySubject implements ending.People.
func (db *DB) UserBySubject(ctx context.Context, t identity.Tenant, idp, subject string) (identity.User, error) {
	return userTable.one(ctx, db.read, "WHERE tenant = $1 AND idp = $2 AND subject = $3", t, idp, subject)
}

// UsersByEmail implements ending.People.
func (db *DB) UsersByEmail(ctx context.Context, t identity.Tenant, idp, email string) ([]identity.User, error) {
	return userTable.all(ctx, db.read, "WHERE tenant = $1 AND idp = $2 AND $3 <> '' AND lower(email) = lower($3) ORDER BY id LIMIT 20", t, idp, email)
}

// UsersOf implements ending.People.
func (db *DB) UsersOf(ctx context.Context, t identity.Tenant, idp string, skip, limit int) ([]identity.User, int, error) {
	const of = "WHERE tenant = $1 AND idp = $2 AND gone <> 'deleted'"
	l, err := userTable.all(ctx, db.read, of+" ORDER BY id LIMIT $3 OFFSET $4", t, idp, limit, skip)
	if err != nil {
		return nil, 0, err
	}
	total := 0
	err = db.read.QueryRowContext(ctx, "SELECT count(*) FROM users "+of, t, idp).Scan(&total)
	return l, total, database.Fault(err)
}

// SetGone implements ending.People.
func (db *DB) SetGone(ctx context.Context, t identity.Tenant, id identity.UserID, gone identity.Gone, at time.Time) error {
	n, err := database.Exec(ctx, db.write, `UPDATE users SET gone = $3, gone_at = CASE WHEN gone_at > $4 THEN gone_at ELSE $4 END
		WHERE tenant = $1 AND id = $2 AND ($3 <> '' OR gone_at < $4 OR $4 = 0)`, t, id, gone, micros(at))
	switch {
	case err != nil || n > 0:
		return err
	case gone == "" && !at.IsZero():
		return fault.New(fault.Conflict, "something newer is known of this user", nil)
	}
	return fault.New(fault.NotFound, userTable.none, nil)
}

// KnownMessage implements ending.Messages.
func (db *DB) KnownMessage(ctx context.Context, t identity.Tenant, hash []byte) (bool, error) {
	l, err := database.List(ctx, db.read, database.Value[int64], "SELECT count(*) FROM messages WHERE tenant = $1 AND hash = $2", t, hash)
	return len(l) == 1 && l[0] > 0, err
}

// PutMessage implements ending.Messages.
func (db *DB) PutMessage(ctx context.Context, t identity.Tenant, hash []byte, expires time.Time) (bool, error) {
	n, err := database.Exec(ctx, db.write, "INSERT INTO messages (tenant, hash, expires) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING", t, hash, micros(expires))
	return n == 1, err
}
