package store

import (
	"context"
	"net/url"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"

	"frontdesk.dev/frontdesk/internal/kit/fault"
)

var postgresDialect = dialect{
	now:        "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint",
	lock:       "SELECT pg_advisory_xact_lock(hashtextextended($1, 0))",
	notify:     "SELECT pg_notify('frontdesk', '')",
	insertRows: insertRowsPostgres,
}

const (
	postgresConns  = 16
	connectTimeout = 5 * time.Second
)

func (db *DB) openPostgres(ctx context.Context, readOnly bool) (*goose.Provider, error) {
	cfg, err := db.postgresConfig()
	if err != nil {
		return nil, err
	}
	if readOnly {
		cfg.RuntimeParams["default_transaction_read_only"] = "on"
	}
	// An acknowledged intent has to survive a power loss, whatever the server's default is. A stronger one stays.
	durable := stdlib.OptionAfterConnect(func(ctx context.Context, c *pgx.Conn) error {
		_, err := c.Exec(ctx, "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'")
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
	db.dialect, db.write, db.read = postgresDialect, pool, pool
	if err := db.Ping(ctx); err != nil {
		return nil, err
	}
	// Replicas that start at once wait for the first one's migration, asking again each second.
	locker, err := lock.NewPostgresSessionLocker(lock.WithLockTimeout(1, 60), lock.WithUnlockTimeout(1, 10))
	if err != nil {
		return nil, err
	}
	return provider(goose.DialectPostgres, pool, "postgres", goose.WithSessionLocker(locker))
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
	db.wake()
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
		db.wake()
		return nil
	case wait.Err() == nil || ctx.Err() != nil:
		return err
	}
	ping, cancelPing := context.WithTimeout(ctx, connectTimeout)
	defer cancelPing()
	return conn.Ping(ping)
}
