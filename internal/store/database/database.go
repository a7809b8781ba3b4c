// Package database answers: which database is it, and how is it spoken to?
//
// It opens SQLite and PostgreSQL alike, brings tables up to date by the migrations that it is given, runs statements, gives errors
// their kind, and wakes who waits for other processes. It knows no room and no table of theirs, but the row by which a failover is
// known. It trusts the database's answers, and says nothing of what a DSN holds.
package database

import (
	"context"
	"database/sql"
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
	Dialect
	Read, Write *sql.DB // one pool with PostgreSQL; with SQLite one connection writes

	cfg     Config
	held    []func() error // given back by Close, last one first
	lineage lineage        // PostgreSQL: which server it is

	mu       sync.Mutex
	watchers map[chan struct{}]struct{} // guarded by mu
}

// Dialect is all in which the two databases differ for a statement.
type Dialect struct {
	Now    string // microseconds since 1970, by the database's clock
	Lock   string // statement that makes transactions with the same $1 wait for each other; "" where all writers do
	Notify string // statement that wakes other processes at commit; "" where there are none
}

// Versions of tables that are no number of a migration.
const (
	Newest = 0
	AsItIs = -1 // for reading alone
)

// Open opens the database, and brings its tables up to a version by the migrations in the folders migrations/sqlite and
// migrations/postgres. A SQLite file serves one server at a time: fault.Conflict if another one has it. fault.Unavailable where the
// database is away, fault.Invalid for a version that there is no migration to.
func Open(ctx context.Context, cfg Config, migrations fs.FS, version int64) (*DB, error) {
	readOnly := version == AsItIs
	if cfg.Guest {
		version = AsItIs
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	db := &DB{cfg: cfg, watchers: map[chan struct{}]struct{}{}}
	var provider *goose.Provider
	var err error
	switch {
	case cfg.DSN != "" && cfg.Path != "", cfg.DSN == "" && cfg.Path == "":
		return nil, fault.New(fault.Invalid, "a database needs either the DSN of a PostgreSQL server or the path of a SQLite file", nil)
	case cfg.DSN != "":
		provider, err = db.openPostgres(ctx, migrations, readOnly)
	default:
		provider, err = db.openSQLite(ctx, migrations, readOnly)
	}
	if err == nil {
		err = db.migrate(ctx, provider, version)
	}
	if err == nil && db.Notify != "" && version == Newest {
		err = db.remember(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

func provider(dialect goose.Dialect, db *sql.DB, migrations fs.FS, folder string, opts ...goose.ProviderOption) (*goose.Provider, error) {
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
	case version == Newest:
		_, err := p.Up(ctx)
		return Fault(err)
	case version != AsItIs:
		_, err := p.UpTo(ctx, version)
		return Fault(err)
	}
	at, err := List(ctx, db.Read, Value[int64], "SELECT max(version_id) FROM goose_db_version")
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
	ctx, cancel := context.WithTimeout(ctx, Patience)
	defer cancel()
	var n int
	return Fault(db.Write.QueryRowContext(ctx, "SELECT 1").Scan(&n))
}

// Close gives everything back. What still runs fails.
func (db *DB) Close() error {
	var errs []error
	for _, pool := range []*sql.DB{db.Read, db.Write} {
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

// Wake wakes this process's watchers; one that has not looked yet is not woken twice.
func (db *DB) Wake() {
	db.mu.Lock()
	defer db.mu.Unlock()
	for ch := range db.watchers {
		select {
		case ch <- struct{}{}:
		default:
		}
	}
}

// NotifyOthers wakes the watchers of other processes when the transaction commits.
func (db *DB) NotifyOthers(ctx context.Context, tx *sql.Tx) error {
	if db.Notify == "" {
		return nil
	}
	_, err := Exec(ctx, tx, db.Notify)
	return err
}

const (
	checkpointEvery = time.Second
	checkpointPages = 1000 // in the write-ahead log: for fewer nobody has to hold still
)

// Run does the database's own chores until ctx ends: it hears other processes (PostgreSQL), and writes back the write-ahead log
// (SQLite).
func (db *DB) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	if db.Notify != "" {
		g.Go(func() error { return db.listen(ctx) })
		g.Go(func() error { return db.Every(ctx, lookEvery, "asking which server this is", db.lookAtServer) })
	}
	if db.cfg.Path != "" && !db.cfg.Guest {
		g.Go(func() error { return db.Every(ctx, checkpointEvery, "writing back the write-ahead log", db.checkpoint) })
	}
	return g.Wait()
}

// Every does a chore now and again until ctx ends; one that fails is logged by its name, and tried again.
func (db *DB) Every(ctx context.Context, d time.Duration, what string, do func(context.Context) error) error {
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
