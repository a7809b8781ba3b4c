// Package store implements in SQL what the rooms declare, on SQLite and on PostgreSQL.
//
// One file a room, one statement text for both databases; every statement about a tenant's things names the tenant first.
// Only cmd imports it. It decides nothing and checks no right. An attacker with the database reads names, scopes, times
// and the log, and can delete; credentials in it are sealed (package vault), tokens and codes of ours are digests.
package store

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"time"

	"golang.org/x/sync/errgroup"

	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/internal/store/database"
	"frontdesk.dev/frontdesk/internal/store/whole"
)

// Config says which database, by one of DSN and Path.
type Config = database.Config

// DB is the rooms' rows in one database. It is safe for concurrent use.
type DB struct {
	cfg         Config
	base        *database.DB
	read, write *sql.DB // of base

	insertAudit *sql.Stmt // SQLite: of the hot path
}

//go:embed migrations
var migrations embed.FS

// Open opens the database, and brings its tables up to date. A SQLite file serves one server at a time: fault.Conflict if
// another one has it. fault.Unavailable where the database is away.
func Open(ctx context.Context, cfg Config) (*DB, error) { return open(ctx, cfg, database.Newest) }

// OpenAt is Open for a database that is to be filled (DB.Fill): its tables are brought up to a version and no further.
// fault.Invalid for a version that this program does not know.
func OpenAt(ctx context.Context, cfg Config, version int64) (*DB, error) {
	return open(ctx, cfg, version)
}

// OpenReader opens the database for reading alone, beside a running server or without one. It changes nothing, so tables
// that are not up to date are fault.Conflict.
func OpenReader(ctx context.Context, cfg Config) (*DB, error) { return open(ctx, cfg, database.AsItIs) }

func open(ctx context.Context, cfg Config, version int64) (*DB, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	base, err := database.Open(ctx, cfg, migrations, version)
	if err != nil {
		return nil, err
	}
	db := &DB{cfg: cfg, base: base, read: base.Read, write: base.Write}
	if cfg.Path != "" && version != database.AsItIs {
		db.insertAudit, err = db.write.PrepareContext(ctx, insertAudit)
	}
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

// Ping asks the database whether it is there: fault.Unavailable if not.
func (db *DB) Ping(ctx context.Context) error { return db.base.Ping(ctx) }

// Close gives everything back. What still runs fails.
func (db *DB) Close() error { return db.base.Close() }

// Watch returns a channel that gets a value soon after an epoch advanced or a connect request was answered, in this process
// or another one, until ctx ends. Values may be missed while the database is away, and come without a reason: read again.
func (db *DB) Watch(ctx context.Context) <-chan struct{} { return db.base.Watch(ctx) }

// Moves implements refresh.Moves: how often this process has found a standby in the place of the server that it knew, and when last.
func (db *DB) Moves() (int64, time.Time) { return db.base.Moves() }

// Lagging says how many standbys follow the database while none of them is one that a commit waits for.
func (db *DB) Lagging(ctx context.Context) (int, error) { return db.base.Lagging(ctx) }

// Snapshot calls f with the whole database as it is now, while servers go on. It holds up nobody.
func (db *DB) Snapshot(ctx context.Context, f func(*whole.Snapshot) error) error {
	return whole.Read(ctx, db.base, f)
}

// Filling is an empty database that is being filled, with what the rooms say of their rows. It is good inside DB.Fill alone.
type Filling struct{ *whole.Filling }

// Fill calls f to fill a database in which nothing is: see whole.Fill.
func (db *DB) Fill(ctx context.Context, version int64, f func(*Filling) error) error {
	return whole.Fill(ctx, db.base, version, func(w *whole.Filling) error { return f(&Filling{w}) })
}

// Restored marks what cannot be trusted after time has passed since the backup: connections that can be renewed are uncertain,
// and everybody signs in again, since sign-ins that were ended meanwhile would be back, and refresh tokens of ours that were
// replaced would be good. It returns how many connections it marked.
func (f *Filling) Restored(ctx context.Context, reason string) (int64, error) {
	for _, once := range []string{"flows", "devices", "codes", "families", "tickets", "sessions"} {
		if f.Has(once) { // an older version lacks some
			if _, err := f.Tx.ExecContext(ctx, "DELETE FROM "+once); err != nil {
				return 0, database.Fault(err)
			}
		}
	}
	return restored(ctx, f.Tx, reason)
}

// Append writes rows of the log, of a chain that this database has not seen.
func (f *Filling) Append(ctx context.Context, rows []audit.Row) error {
	for _, r := range rows {
		if _, err := database.Exec(ctx, f.Tx, enlist, r.Writer, micros(r.Time)); err != nil {
			return err
		}
		if _, err := database.Exec(ctx, f.Tx, insertAudit, (*auditRow)(&r).args()...); err != nil {
			return err
		}
	}
	return nil
}

const (
	indexEvery = 10 * time.Second
	cleanEvery = 10 * time.Minute
)

// Run does the database's chores until ctx ends: its own (database.DB), and it puts the log's acts where people find them, and
// throws out what has expired. Nothing is wrong without it, only slower and bigger.
func (db *DB) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return db.base.Run(ctx) })
	if db.cfg.Guest {
		return g.Wait()
	}
	g.Go(func() error { return db.base.Every(ctx, indexEvery, "indexing the log", db.IndexActs) })
	g.Go(func() error { return db.base.Every(ctx, cleanEvery, "throwing out what has expired", db.clean) })
	return g.Wait()
}

// clean throws out what nobody can use any more. An answered question stays for a month, so that its page can say what became
// of it; an end of access longer than any token lives, a reason to forget what is cached longer than any cache.
func (db *DB) clean(ctx context.Context) error {
	now := db.cfg.Now()
	const day = 24 * time.Hour
	for _, stale := range []struct {
		query  string
		before time.Time
	}{
		{"DELETE FROM flows WHERE expires < $1", now}, // strangers begin them
		{"DELETE FROM devices WHERE expires < $1", now.Add(-time.Hour)},
		{"DELETE FROM codes WHERE expires < $1", now.Add(-day)},
		{"DELETE FROM messages WHERE expires < $1", now},
		{"DELETE FROM tickets WHERE expires < $1", now},
		{"DELETE FROM allowances WHERE at < $1", now.Add(-time.Hour)},
		{"DELETE FROM call_notes WHERE sent < $1", now.Add(-time.Hour)},
		{"DELETE FROM vendor_words WHERE until < $1", now},
		{"DELETE FROM families WHERE ends < $1", now.Add(-day)},
		{"DELETE FROM grants WHERE expires < $1", now.Add(-30 * day)},
		{"DELETE FROM consents WHERE given < $1", now.Add(-365 * day)},
		{"DELETE FROM connect_requests WHERE expires < $1", now.Add(-30 * day)},
		{"DELETE FROM endings WHERE given_up > 0 AND given_up < $1", now.Add(-30 * day)},
		{"DELETE FROM epochs WHERE kind = 'access' AND not_before < $1", now.Add(-time.Hour)},
		{"DELETE FROM epochs WHERE not_before < $1", now.Add(-30 * day)},
	} {
		if _, err := database.Exec(ctx, db.write, stale.query, micros(stale.before)); err != nil {
			return err
		}
	}
	return nil
}
