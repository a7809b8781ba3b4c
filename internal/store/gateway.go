package store

import (
	"context"
	"time"

	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/gateway"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/store/database"
)

var _ gateway.Sessions = (*DB)(nil)

var sessionTable = table[gateway.Session]{
	name: "sessions", none: "there is no such session",
	columns: "tenant, id, principal, client, server, version, url_ask, declares, upstream, act, created, seen",
	fields: func(s *gateway.Session) []any {
		return []any{&s.Tenant, (*blob)(&s.ID), &s.Principal, &s.Client, &s.Server, &s.Version, &s.URLAsk, (*texts)(&s.Declares), (*blob)(&s.Upstream), &s.Act, (*when)(&s.Created), (*when)(&s.Seen)}
	},
}

// PutSession implements gateway.Sessions.
func (db *DB) PutSession(ctx context.Context, s gateway.Session) error {
	return sessionTable.put(ctx, db.write, &s, ` ON CONFLICT (tenant, id) DO UPDATE SET principal = excluded.principal, client = excluded.client,
		server = excluded.server, version = excluded.version, url_ask = excluded.url_ask, declares = excluded.declares, upstream = excluded.upstream, act = excluded.act, seen = excluded.seen`)
}

// Session implements gateway.Sessions.
func (db *DB) Session(ctx context.Context, t identity.Tenant, id []byte) (gateway.Session, error) {
	return sessionTable.one(ctx, db.read, byID, t, id)
}

// DropSession implements gateway.Sessions; one that is gone already is no error.
func (db *DB) DropSession(ctx context.Context, t identity.Tenant, id []byte) error {
	_, err := database.Exec(ctx, db.write, "DELETE FROM sessions WHERE tenant = $1 AND id = $2", t, id)
	return err
}

// IdleSessions implements gateway.Sessions.
func (db *DB) IdleSessions(ctx context.Context, since time.Time, limit int) ([]gateway.Session, error) {
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
