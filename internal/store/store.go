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
	"fmt"
	"io/fs"
	"log/slog"
	"sync"
	"time"

	"github.com/pressly/goose/v3"
	"golang.org/x/sync/errgroup"

	"frontdesk.dev/frontdesk/internal/kit/fault"
)

// Config says which database, by one of DSN and Path.
type Config struct {
	DSN   string // of PostgreSQL: postgres://…, or key=value words
	Path  string // of the SQLite file, made where there is none
	Conns int    // PostgreSQL connections of this process; 0 = 16
	Guest bool   // the tables are another process's, which brings them up to date and throws out what has expired
	Log   *slog.Logger
	Now   func() time.Time // for throwing out what has expired; leases go by the database's own clock
}

// DB is one database. It is safe for concurrent use.
type DB struct {
	dialect
	cfg   Config
	write *sql.DB
	read  *sql.DB
	held  []func() error // given back by Close, last one first

	insertAudit *sql.Stmt // SQLite: of the hot path
	lineage     lineage   // PostgreSQL: which server it is

	mu       sync.Mutex
	watchers map[chan struct{}]struct{} // guarded by mu
}

// dialect is all in which the two databases differ for a statement.
type dialect struct {
	now    string // microseconds since 1970, by the database's clock
	lock   string // statement that makes transactions with the same $1 wait for each other; "" where all writers do
	notify string // statement that wakes other processes at commit; "" where there are none

	insertRows func(ctx context.Context, db *DB, rows []auditRow) error // all or none
}

//go:embed migrations
var migrations embed.FS

// Open opens the database, and brings its tables up to date. A SQLite file serves one server at a time: fault.Conflict if
// another one has it. fault.Unavailable where the database is away.
func Open(ctx context.Context, cfg Config) (*DB, error) { return open(ctx, cfg, newest) }

// OpenAt is Open for a database that is to be filled (DB.Fill): its tables are brought up to a version and no further.
// fault.Invalid for a version that this program does not know.
func OpenAt(ctx context.Context, cfg Config, version int64) (*DB, error) {
	return open(ctx, cfg, version)
}

// OpenReader opens the database for reading alone, beside a running server or without one. It changes nothing, so tables
// that are not up to date are fault.Conflict.
func OpenReader(ctx context.Context, cfg Config) (*DB, error) { return open(ctx, cfg, asItIs) }

// Versions of tables that are no number of a migration.
const (
	newest = 0
	asItIs = -1
)

func open(ctx context.Context, cfg Config, version int64) (*DB, error) {
	readOnly := version == asItIs
	if cfg.Guest {
		version = asItIs
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	db := &DB{cfg: cfg, watchers: map[chan struct{}]struct{}{}}
	var provider *goose.Provider
	var err error
	switch {
	case cfg.DSN != "" && cfg.Path != "", cfg.DSN == "" && cfg.Path == "":
		return nil, fault.New(fault.Invalid, "a database needs either the DSN of a PostgreSQL server or the path of a SQLite file", nil)
	case cfg.DSN != "":
		provider, err = db.openPostgres(ctx, readOnly)
	default:
		provider, err = db.openSQLite(ctx, readOnly)
	}
	if err == nil {
		err = db.migrate(ctx, provider, version)
	}
	if err == nil && db.notify != "" && version == newest {
		err = db.remember(ctx)
	}
	if err == nil && cfg.Path != "" && !readOnly {
		db.insertAudit, err = db.write.PrepareContext(ctx, insertAudit)
	}
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

func provider(dialect goose.Dialect, db *sql.DB, folder string, opts ...goose.ProviderOption) (*goose.Provider, error) {
	sub, err := fs.Sub(migrations, "migrations/"+folder)
	if err != nil {
		return nil, err
	}
	return goose.NewProvider(dialect, db, sub, opts...)
}

// migrate goes forward only. A database that is ahead of this program is left alone: migrations run old and new code side
// by side.
func (db *DB) migrate(ctx context.Context, p *goose.Provider, version int64) error {
	sources := p.ListSources()
	switch newer := version > sources[len(sources)-1].Version; {
	case newer:
		return fault.New(fault.Invalid, fmt.Sprintf("the backup is of a newer Frontdesk, with tables of version %d; this one knows them up to %d", version, sources[len(sources)-1].Version), nil)
	case version == newest:
		_, err := p.Up(ctx)
		return asFault(err)
	case version != asItIs:
		_, err := p.UpTo(ctx, version)
		return asFault(err)
	}
	at, err := list(ctx, db.read, value[int64], "SELECT max(version_id) FROM goose_db_version")
	if fault.KindOf(err) == fault.Unavailable {
		return err
	}
	if err != nil || len(at) == 0 || at[0] < sources[len(sources)-1].Version {
		return fault.New(fault.Conflict, "the database's tables are missing, or of an older Frontdesk; start the server once to bring them up to date", err)
	}
	return nil
}

// Ping asks the database whether it is there: fault.Unavailable if not.
func (db *DB) Ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var n int
	return asFault(db.write.QueryRowContext(ctx, "SELECT 1").Scan(&n))
}

// Close gives everything back. What still runs fails.
func (db *DB) Close() error {
	var errs []error
	for _, pool := range []*sql.DB{db.read, db.write} {
		if pool != nil {
			errs = append(errs, pool.Close())
		}
	}
	for i := len(db.held) - 1; i >= 0; i-- {
		errs = append(errs, db.held[i]())
	}
	db.held = nil
	return errors.Join(errs...)
}

// Watch returns a channel that gets a value soon after an epoch advanced or a connect request was answered, in this process
// or another one, until ctx ends. Values may be missed while the database is away, and come without a reason: read again.
func (db *DB) Watch(ctx context.Context) <-chan struct{} {
	ch := make(chan struct{}, 1)
	db.mu.Lock()
	db.watchers[ch] = struct{}{}
	db.mu.Unlock()
	context.AfterFunc(ctx, func() {
		db.mu.Lock()
		defer db.mu.Unlock()
		delete(db.watchers, ch)
	})
	return ch
}

// wake wakes this process's watchers; one that has not looked yet is not woken twice.
func (db *DB) wake() {
	db.mu.Lock()
	defer db.mu.Unlock()
	for ch := range db.watchers {
		select {
		case ch <- struct{}{}:
		default:
		}
	}
}

const (
	checkpointEvery = time.Second
	checkpointPages = 1000 // in the write-ahead log: for fewer nobody has to hold still

	indexEvery = 10 * time.Second
	cleanEvery = 10 * time.Minute
)

// Run does the database's chores until ctx ends: it hears other processes (PostgreSQL), puts the log's acts where people
// find them, and throws out what has expired. Nothing is wrong without it, only slower and bigger.
func (db *DB) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	if db.notify != "" {
		g.Go(func() error { return db.listen(ctx) })
		g.Go(func() error { return db.every(ctx, lookEvery, "asking which server this is", db.lookAtServer) })
	}
	if db.cfg.Guest {
		return g.Wait()
	}
	if db.cfg.Path != "" {
		g.Go(func() error { return db.every(ctx, checkpointEvery, "writing back the write-ahead log", db.checkpoint) })
	}
	g.Go(func() error { return db.every(ctx, indexEvery, "indexing the log", db.IndexActs) })
	g.Go(func() error {
		return db.every(ctx, cleanEvery, "throwing out what has expired", func(ctx context.Context) error { return db.clean(ctx) })
	})
	return g.Wait()
}

func (db *DB) every(ctx context.Context, d time.Duration, what string, do func(context.Context) error) error {
	tick := time.NewTicker(d)
	defer tick.Stop()
	for {
		if err := do(ctx); err != nil && ctx.Err() == nil {
			db.cfg.Log.Warn("the database refused a chore; it is tried again", "chore", what, "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
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
		{"DELETE FROM flows WHERE expires < $1", now.Add(-time.Hour)},
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
		if _, err := exec(ctx, db.write, stale.query, micros(stale.before)); err != nil {
			return err
		}
	}
	return nil
}
