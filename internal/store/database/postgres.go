package database

import (
	"context"
	"io/fs"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"

	"frontdesk.dev/frontdesk/internal/kit/fault"
)

var postgresDialect = Dialect{
	Now:    "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint",
	Lock:   "SELECT pg_advisory_xact_lock(hashtextextended($1, 0))",
	Notify: "SELECT pg_notify('frontdesk', '')",
}

const (
	postgresConns  = 16
	connectTimeout = 5 * time.Second
)

func (db *DB) openPostgres(ctx context.Context, migrations fs.FS, readOnly bool) (*goose.Provider, error) {
	cfg, err := db.postgresConfig()
	if err != nil {
		return nil, err
	}
	// An acknowledged intent has to survive a power loss, and be with the standby where one is synchronous, whatever the server's
	// default is. A stronger one stays.
	durable := stdlib.OptionAfterConnect(func(ctx context.Context, c *pgx.Conn) error {
		_, err := c.Exec(ctx, "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') IN ('off', 'local')")
		if err == nil && readOnly { // not before it is connected: then a DSN that asks for the server that takes writes would find none
			_, err = c.Exec(ctx, "SET default_transaction_read_only = on")
		}
		if err == nil {
			db.lineage.look(ctx, c)
		}
		return err
	})
	pool := stdlib.OpenDB(*cfg, durable)
	size := db.cfg.Conns
	if size <= 0 {
		size = postgresConns
	}
	pool.SetMaxOpenConns(size)
	pool.SetMaxIdleConns(size)
	pool.SetConnMaxIdleTime(10 * time.Minute)
	db.Dialect, db.Write, db.Read = postgresDialect, pool, pool
	if err := db.Ping(ctx); err != nil {
		return nil, err
	}
	// Replicas that start at once wait for the first one's migration, asking again each second.
	locker, err := lock.NewPostgresSessionLocker(lock.WithLockTimeout(1, 60), lock.WithUnlockTimeout(1, 10))
	if err != nil {
		return nil, err
	}
	return provider(goose.DialectPostgres, pool, migrations, "postgres", goose.WithSessionLocker(locker))
}

// Lagging says how many standbys follow the database while none of them is one that a commit waits for: what was stored last is
// gone where one is promoted. Always 0 with SQLite.
func (db *DB) Lagging(ctx context.Context) (int, error) {
	if db.Notify == "" {
		return 0, nil
	}
	l, err := List(ctx, db.Read, Value[int], "SELECT count(*) FROM pg_stat_replication WHERE current_setting('synchronous_standby_names') = ''")
	if err != nil {
		return 0, err
	}
	return l[0], nil
}

// lineage is which server of a cluster this process speaks with: each promotion of a standby begins another timeline.
type lineage struct {
	mu       sync.Mutex
	timeline string    // guarded by mu, as what follows; "" where the server does not say
	moves    int64     // how often it was another one than before
	last     time.Time // when that was noticed
}

const timeline = "SELECT CASE WHEN pg_is_in_recovery() THEN '' ELSE left(pg_walfile_name(pg_current_wal_lsn()), 8) END"

// remember compares the server with the one that the database itself knows, so that a process that begins after a failover knows of it
// too.
func (db *DB) remember(ctx context.Context) error {
	now, _, _ := db.lineage.state()
	if now == "" {
		return nil
	}
	if _, err := Exec(ctx, db.Write, "INSERT INTO chores (name, owner, until) VALUES ($1, $2, 0) ON CONFLICT (name) DO NOTHING", ChoreServer, now); err != nil {
		return err
	}
	l, err := List(ctx, db.Read, Value[string], "SELECT owner FROM chores WHERE name = $1", ChoreServer)
	if err == nil && len(l) == 1 && l[0] != now {
		db.lineage.moved()
	}
	return err
}

// ChoreServer is no chore: its owner is the timeline for which the last failover was seen to.
const ChoreServer = "server"

// SeenTo notes in the database that the last failover was seen to.
func (db *DB) SeenTo(ctx context.Context) error {
	now, _, _ := db.lineage.state()
	if now == "" {
		return nil
	}
	_, err := Exec(ctx, db.Write, "UPDATE chores SET owner = $1 WHERE name = $2", now, ChoreServer)
	return err
}

func (l *lineage) state() (timeline string, moves int64, last time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.timeline, l.moves, l.last
}

func (l *lineage) moved() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.moves, l.last = l.moves+1, time.Now()
}

// look asks a server. One that does not say, as some that are like PostgreSQL, is never seen to move.
func (l *lineage) look(ctx context.Context, c *pgx.Conn) {
	var now string
	if err := c.QueryRow(ctx, timeline).Scan(&now); err != nil {
		return
	}
	l.seen(now)
}

func (l *lineage) seen(now string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now == "" || now == l.timeline {
		return
	}
	if l.timeline != "" {
		l.moves, l.last = l.moves+1, time.Now()
	}
	l.timeline = now
}

// Moves is how often this process has found a standby in the place of the server that it knew, and when last: what that had
// acknowledged in its last moments may be gone. It is always 0 with SQLite.
func (db *DB) Moves() (int64, time.Time) {
	_, n, last := db.lineage.state()
	return n, last
}

const lookEvery = 5 * time.Second

// lookAtServer asks which server it is: behind a pooler, connections stay and the server changes.
func (db *DB) lookAtServer(ctx context.Context) error {
	l, err := List(ctx, db.Read, Value[string], timeline)
	if err == nil && len(l) == 1 {
		db.lineage.seen(l[0])
	}
	return err
}

// postgresConfig says nothing of what the DSN holds: there may be a password in it.
func (db *DB) postgresConfig() (*pgx.ConnConfig, error) {
	if u, err := url.Parse(db.cfg.DSN); strings.Contains(db.cfg.DSN, "://") && (err != nil || u.Scheme != "postgres" && u.Scheme != "postgresql") {
		return nil, fault.New(fault.Invalid, "the database's DSN does not begin with postgres://", nil)
	}
	cfg, err := pgx.ParseConfig(db.cfg.DSN)
	if err != nil {
		return nil, fault.New(fault.Invalid, "the database's DSN cannot be read: it has the form postgres://user:password@host:5432/database?sslmode=verify-full", nil)
	}
	if cfg.ConnectTimeout == 0 {
		cfg.ConnectTimeout = connectTimeout
	}
	if cfg.RuntimeParams["application_name"] == "" {
		cfg.RuntimeParams["application_name"] = "frontdesk"
	}
	return cfg, nil
}

// listen wakes our watchers when another process notifies, until ctx ends. What was said while it was not connected is
// lost, so it wakes them after each connect too.
func (db *DB) listen(ctx context.Context) error {
	const most = 5 * time.Second
	for pause := time.Duration(0); ctx.Err() == nil; pause = min(2*pause+100*time.Millisecond, most) {
		heard, err := db.listenOnce(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if heard {
			pause = 0
		}
		db.cfg.Log.Warn("wake-ups from other replicas are not heard; connecting again, and asking meanwhile", "error", err)
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
	return nil
}

func (db *DB) listenOnce(ctx context.Context) (heard bool, err error) {
	cfg, err := db.postgresConfig()
	if err != nil {
		return false, err
	}
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return false, err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }() // it is given up in any case
	if _, err := conn.Exec(ctx, "LISTEN frontdesk"); err != nil {
		return false, err
	}
	db.Wake()
	for {
		if err := db.await(ctx, conn); err != nil {
			return true, err
		}
	}
}

// await waits for one notification; where none comes for long, it makes sure that the connection is still one.
func (db *DB) await(ctx context.Context, conn *pgx.Conn) error {
	wait, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	_, err := conn.WaitForNotification(wait)
	switch {
	case err == nil:
		db.Wake()
		return nil
	case wait.Err() == nil || ctx.Err() != nil:
		return err
	}
	ping, cancelPing := context.WithTimeout(ctx, connectTimeout)
	defer cancelPing()
	return conn.Ping(ping)
}
