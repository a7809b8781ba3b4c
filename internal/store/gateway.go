package store

import (
	"context"
	"database/sql"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/gateway"
	"frontdesk.dev/frontdesk/internal/gateway/sessions"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/store/database"
)

var _ sessions.Store = (*DB)(nil)

var sessionTable = table[sessions.Session]{
	name: "sessions", none: "there is no such session",
	columns: "tenant, id, principal, client, server, version, url_ask, declares, upstream, act, created, seen",
	fields: func(s *sessions.Session) []any {
		return []any{&s.Tenant, (*blob)(&s.ID), &s.Principal, &s.Client, &s.Server, &s.Version, &s.URLAsk, (*texts)(&s.Declares), (*blob)(&s.Upstream), &s.Act, (*when)(&s.Created), (*when)(&s.Seen)}
	},
}

// PutSession implements sessions.Store. One principal's are begun one after the other, so that those of a client that begins many at
// once never count against its principal's others.
func (db *DB) PutSession(ctx context.Context, s sessions.Session, most sessions.Most) (dropped []sessions.Session, err error) {
	err = db.base.Tx(ctx, func(ctx context.Context, tx *sql.Tx) error {
		if db.base.Lock != "" {
			if _, err := database.Exec(ctx, tx, db.base.Lock, "sessions/"+string(s.Tenant)+"/"+s.Principal); err != nil {
				return err
			}
		}
		if err := sessionTable.put(ctx, tx, &s, ""); err != nil {
			return err
		}
		const surplus = "DELETE FROM sessions WHERE (tenant, id) IN (SELECT tenant, id FROM sessions WHERE tenant = $1 AND principal = $2 AND id <> $3 %s ORDER BY seen DESC, created DESC, id LIMIT 1000 OFFSET $4)"
		ofClient, err := sessionTable.change(ctx, tx, fmt.Sprintf(surplus, "AND client = $5"), s.Tenant, s.Principal, s.ID, most.Client-1, s.Client)
		if err != nil {
			return err
		}
		ofAll, err := sessionTable.change(ctx, tx, fmt.Sprintf(surplus, ""), s.Tenant, s.Principal, s.ID, most.Principal-1)
		dropped = append(ofClient, ofAll...)
		return err
	})
	return dropped, err
}

// Session implements sessions.Store. One that was dropped meanwhile does not come back by being seen.
func (db *DB) Session(ctx context.Context, t identity.Tenant, id []byte, at time.Time) (sessions.Session, error) {
	s, err := sessionTable.one(ctx, db.read, byID, t, id)
	if err != nil || at.Sub(s.Seen) <= time.Minute {
		return s, err
	}
	return sessionTable.only(sessionTable.change(ctx, db.write, "UPDATE sessions SET seen = $3 WHERE tenant = $1 AND id = $2", t, id, micros(at)))
}

// DropSession implements sessions.Store; one that is gone already is no error.
func (db *DB) DropSession(ctx context.Context, t identity.Tenant, id []byte) error {
	_, err := database.Exec(ctx, db.write, "DELETE FROM sessions WHERE tenant = $1 AND id = $2", t, id)
	return err
}

// IdleSessions implements sessions.Store.
func (db *DB) IdleSessions(ctx context.Context, since time.Time, limit int) ([]sessions.Session, error) {
	return sessionTable.change(ctx, db.write, "DELETE FROM sessions WHERE (tenant, id) IN (SELECT tenant, id FROM sessions WHERE seen < $1 ORDER BY seen LIMIT $2)", micros(since), limit)
}

var taskTable = table[gateway.Task]{
	name: "tasks", none: "there is no such task",
	columns: "tenant, server, id, principal, client, tool, created, expires",
	fields: func(k *gateway.Task) []any {
		return []any{&k.Tenant, &k.Server, (*blob)(&k.ID), &k.Principal, &k.Client, &k.Tool, (*when)(&k.Created), (*when)(&k.Expires)}
	},
}

// PutTask implements gateway.Tasks.
func (db *DB) PutTask(ctx context.Context, k gateway.Task) error {
	n, err := database.Exec(ctx, db.write, taskTable.insert()+` ON CONFLICT (tenant, server, id) DO UPDATE SET principal = excluded.principal, client = excluded.client,
		tool = excluded.tool, created = excluded.created, expires = excluded.expires
		WHERE tasks.principal = excluded.principal AND tasks.client = excluded.client OR tasks.expires <= excluded.created`, taskTable.fields(&k)...)
	if err == nil && n == 0 {
		err = fault.New(fault.Conflict, "another caller has a task of that id", nil)
	}
	return err
}

// Task implements gateway.Tasks.
func (db *DB) Task(ctx context.Context, t identity.Tenant, s catalog.ServerName, id []byte) (gateway.Task, error) {
	return taskTable.one(ctx, db.read, "WHERE tenant = $1 AND server = $2 AND id = $3", t, s, id)
}

// DropTasks implements gateway.Tasks.
func (db *DB) DropTasks(ctx context.Context, expired time.Time) error {
	_, err := database.Exec(ctx, db.write, "DELETE FROM tasks WHERE expires <= $1", micros(expired))
	return err
}

// guestRights are those of the gateway's own account, where gateway and broker are two processes: what it keeps for its clients, and
// whose access has ended. Every table that holds something sealed, or a digest that opens something, is the broker's alone; so are
// people, grants and the log, which the gateway reads through it.
var guestRights = map[string]string{
	"goose_db_version": "SELECT",
	"epochs":           "SELECT",
	"found":            "SELECT",
	"sessions":         "SELECT, INSERT, UPDATE, DELETE",
	"tasks":            "SELECT, INSERT, UPDATE, DELETE",
	"clients":          "SELECT, INSERT, UPDATE, DELETE",
	"codes":            "SELECT, INSERT, UPDATE, DELETE",
	"families":         "SELECT, INSERT, UPDATE, DELETE",
	"consents":         "SELECT, INSERT, UPDATE, DELETE",
}

// GuestGrants is the SQL that gives an account these rights, and takes all others from it.
func GuestGrants(account string) string {
	to := pgx.Identifier{account}.Sanitize()
	var b strings.Builder
	fmt.Fprintf(&b, "-- The rights of Frontdesk's gateway, for the owner of the tables to give. No table with anything sealed is among them.\n")
	fmt.Fprintf(&b, "BEGIN;\nREVOKE ALL ON ALL TABLES IN SCHEMA public FROM PUBLIC, %s;\nGRANT USAGE ON SCHEMA public TO %s;\n", to, to)
	for _, table := range slices.Sorted(maps.Keys(guestRights)) {
		fmt.Fprintf(&b, "GRANT %s ON %s TO %s;\n", guestRights[table], table, to)
	}
	b.WriteString("COMMIT;\n")
	return b.String()
}

// right is one thing that the account may do, or not.
type right struct {
	table, what string
	has         bool
}

// GuestRights compares what this account may do with what it should: what it lacks, and what is too much.
func (db *DB) GuestRights(ctx context.Context) (lacks, over []string, err error) {
	l, err := database.List(ctx, db.read, func(r *right) []any { return []any{&r.table, &r.what, &r.has} }, `
		SELECT c.relname, p.what, CASE WHEN p.what = 'DELETE' THEN has_table_privilege(c.oid, p.what) ELSE has_any_column_privilege(c.oid, p.what) END
		FROM pg_class c CROSS JOIN unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS p(what)
		WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm') ORDER BY c.relname, p.what`)
	if err != nil {
		return nil, nil, err
	}
	seen := map[string]bool{}
	for _, r := range l {
		seen[r.table] = true
		switch should := strings.Contains(guestRights[r.table], r.what); {
		case should && !r.has:
			lacks = append(lacks, r.what+" on "+r.table)
		case !should && r.has:
			over = append(over, r.what+" on "+r.table)
		}
	}
	for _, table := range slices.Sorted(maps.Keys(guestRights)) {
		if !seen[table] {
			lacks = append(lacks, "the table "+table)
		}
	}
	return lacks, over, nil
}
