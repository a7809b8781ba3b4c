package store

import (
	"context"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/internal/connect"
	"frontdesk.dev/frontdesk/internal/exchange/refresh"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/issuer"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/vault"
	"frontdesk.dev/frontdesk/test/pg"
)

func openServer(t *testing.T, dsn string) *DB {
	t.Helper()
	db, err := Open(t.Context(), Config{DSN: dsn})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// raw is a connection beside the store's own.
func raw(t *testing.T, dsn string) *pgx.Conn {
	t.Helper()
	c, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close(context.Background()) })
	return c
}

func until(t *testing.T, what string, cond func() bool) {
	t.Helper()
	end := time.After(20 * time.Second)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-end:
			t.Fatalf("it never came true that %s", what)
		case <-tick.C:
		}
	}
}

func TestPostgresReplicasMigrateOnce(t *testing.T) {
	dsn := pg.Start(t)
	if _, err := OpenReader(t.Context(), Config{DSN: dsn}); fault.KindOf(err) != fault.Conflict {
		t.Errorf("a reader of a database without tables got %v", err)
	}
	var all sync.WaitGroup
	for range 3 {
		all.Go(func() {
			db, err := Open(t.Context(), Config{DSN: dsn})
			if err != nil {
				t.Error(err)
				return
			}
			if err := db.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	r, err := OpenReader(t.Context(), Config{DSN: dsn})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	if _, err := r.EnsureUser(t.Context(), identity.User{Tenant: "default", IDP: "corp", Subject: "a"}); err == nil {
		t.Error("a reader writes")
	}
	if _, err := r.EpochsSince(t.Context(), 0); err != nil {
		t.Error(err)
	}
}

// TestPostgresCommitsAreDurable: whatever the server's default, a commit is on the disk; what is more than that stays.
func TestPostgresCommitsAreDurable(t *testing.T) {
	dsn := pg.Start(t)
	c := raw(t, dsn)
	for set, want := range map[string]string{"off": "on", "on": "on", "remote_apply": "remote_apply"} {
		if _, err := c.Exec(t.Context(), "ALTER ROLE postgres IN DATABASE "+c.Config().Database+" SET synchronous_commit = "+set); err != nil {
			t.Fatal(err)
		}
		db := openServer(t, dsn)
		var got string
		if err := db.write.QueryRow("SHOW synchronous_commit").Scan(&got); err != nil || got != want {
			t.Errorf("where the server says %s it is %q (%v), want %q", set, got, err, want)
		}
	}
}

// TestPostgresLagging: a standby that no commit waits for is counted, one that each waits for is not; nor is there any at SQLite.
func TestPostgresLagging(t *testing.T) {
	count := func(cfg Config) int {
		t.Helper()
		db, err := Open(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = db.Close() }()
		n, err := db.Lagging(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	for synchronous, want := range map[bool]int{true: 0, false: 1} {
		if got := count(Config{DSN: pg.StartPair(t, synchronous).DSN}); got != want {
			t.Errorf("a synchronous standby %v: %d", synchronous, got)
		}
	}
	if got := count(Config{Path: filepath.Join(t.TempDir(), "desk.db")}); got != 0 {
		t.Errorf("a file: %d", got)
	}
}

// TestPostgresWinnerDiesInTheMiddle: a transaction that came first and did not commit holds the others up, and once its
// process is dead the next one wins, as if it had never been.
func TestPostgresWinnerDiesInTheMiddle(t *testing.T) {
	dsn := pg.Start(t)
	db := openServer(t, dsn)
	ctx := t.Context()
	conn := vault.Connection{Tenant: "default", ID: "c", User: "alice", Upstream: "u", Status: vault.Active, Machine: vault.Machine{Generation: 1, Version: 1, Phase: vault.Idle}}
	intent := audit.Row{Writer: "0000000000000001", Seq: 1, Tenant: "default", Kind: audit.KindIntent, Call: "0000000000000001.1", Record: []byte("{}"), Hash: []byte("h")}
	for _, err := range []error{db.PutFlow(ctx, connect.Flow{Tenant: "default", State: "s"}), db.PutCode(ctx, issuer.Code{Tenant: "default", Hash: []byte("h")}),
		db.Connect(ctx, conn, 0), db.Append(ctx, []audit.Row{intent}), db.PutFamily(ctx, issuer.Family{Tenant: "default", ID: "f", Current: []byte("1")})} {
		if err != nil {
			t.Fatal(err)
		}
	}
	yes := func(won bool, err error) error {
		if err == nil && !won {
			return fault.New(fault.Conflict, "the other one won", nil)
		}
		return err
	}
	for _, c := range []struct {
		name, first string
		next        func(context.Context) error
	}{
		{"TakeFlow", "DELETE FROM flows", func(ctx context.Context) error { _, err := db.TakeFlow(ctx, "default", "s"); return err }},
		{"UseCode", "UPDATE codes SET used = 1", func(ctx context.Context) error {
			c, err := db.UseCode(ctx, "default", []byte("h"), time.Now())
			return yes(c.Used.IsZero(), err)
		}},
		{"RotateFamily", "UPDATE families SET current = '2'", func(ctx context.Context) error {
			return db.RotateFamily(ctx, issuer.Family{Tenant: "default", ID: "f", Current: []byte("3")}, []byte("1"))
		}},
		{"Claim", "UPDATE connections SET phase = 'claimed', lease_until = 9000000000000000, lease_epoch = 1", func(ctx context.Context) error {
			_, won, err := db.Claim(ctx, conn, refresh.Lease{Attempt: "try", Owner: "me", Time: time.Minute})
			return yes(won, err)
		}},
		{"Settle", "UPDATE connections SET version = 2", func(ctx context.Context) error { return yes(db.Settle(ctx, conn, 1)) }},
		{"EnsureUser", "INSERT INTO users VALUES ('default', 'x', 'corp', 'alice', '', '', '')", func(ctx context.Context) error {
			u, err := db.EnsureUser(ctx, identity.User{Tenant: "default", IDP: "corp", Subject: "alice"})
			return yes(u.ID != "x", err)
		}},
		{"Advance", "UPDATE epoch_counter SET value = 100", func(ctx context.Context) error {
			e, err := db.Advance(ctx, identity.Epoch{Tenant: "default", Kind: identity.EpochUser, ID: "x"})
			return yes(e.Seq < 100, err)
		}},
		{"Append", "INSERT INTO audit VALUES ('0000000000000002', 1, 'default', '', 'outcome', '0000000000000001.1', 0, '', '')", func(ctx context.Context) error {
			err := db.Append(ctx, []audit.Row{{Writer: "0000000000000003", Seq: 1, Tenant: "default", Kind: audit.KindOutcome, Call: intent.Call, Record: []byte("{}"), Hash: []byte("h")}})
			if err != nil {
				return err
			}
			return yes(db.Ended(ctx, intent.Call))
		}},
	} {
		t.Run(c.name, func(t *testing.T) { winnerDies(t, dsn, c.first, c.next) })
	}
}

func winnerDies(t *testing.T, dsn, first string, next func(context.Context) error) {
	ctx := t.Context()
	winner, killer := raw(t, dsn), raw(t, dsn)
	tx, err := winner.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(ctx, first); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- next(ctx) }()
	until(t, "the next one waits", func() bool {
		var n int
		err := killer.QueryRow(ctx, "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'").Scan(&n)
		return err == nil && n == 1
	})
	select {
	case err := <-done:
		t.Fatalf("it did not wait for the first: %v", err)
	default:
	}
	if _, err := killer.Exec(ctx, "SELECT pg_terminate_backend($1)", winner.PgConn().PID()); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestPostgresComesBack: while connections are cut, callers hear that the database is away, and nothing else; afterwards all
// works, and watchers are woken again.
func TestPostgresComesBack(t *testing.T) {
	dsn := pg.Start(t)
	db, other := openServer(t, dsn), openServer(t, dsn)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	ran := make(chan error, 1)
	go func() { ran <- db.Run(ctx) }()
	wakes := db.Watch(ctx)
	woken := func() bool {
		if _, err := other.Advance(ctx, identity.Epoch{Tenant: "default", Kind: identity.EpochUser, ID: "x"}); err != nil && fault.KindOf(err) != fault.Unavailable {
			t.Errorf("while it is away: %v", err)
		}
		select {
		case <-wakes:
			return true
		default:
			return false
		}
	}
	until(t, "a watcher is woken", woken)
	killer := raw(t, dsn)
	for len(wakes) > 0 {
		<-wakes
	}
	for range 5 {
		var cut int
		if err := killer.QueryRow(ctx, "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()").Scan(&cut); err != nil {
			t.Fatal(err)
		}
		until(t, "the log can be written again", func() bool {
			err := other.Append(ctx, []audit.Row{{Writer: "0000000000000001", Seq: 1, Tenant: "default", Kind: audit.KindEvent, Record: []byte("{}"), Hash: []byte("h")}})
			if err != nil && fault.KindOf(err) != fault.Unavailable {
				t.Errorf("while it is away: %v", err)
			}
			return err == nil
		})
	}
	select {
	case <-wakes: // because it may have missed something
	case <-time.After(20 * time.Second):
		t.Error("a watcher was not woken when the connection came back")
	}
	until(t, "a watcher is woken again", woken)
	stop()
	if err := <-ran; err != nil {
		t.Error(err)
	}
}

func TestPostgresAway(t *testing.T) {
	const secret = "hunter2"
	for dsn, want := range map[string]fault.Kind{
		"postgres://frontdesk:" + secret + "@127.0.0.1:1/x": fault.Unavailable,
		"host=/nowhere user=x password=" + secret:           fault.Unavailable,
		"postgres://x:" + secret + "@h/x?sslmode=sideways":  fault.Invalid,
		"password=" + secret + " port=no":                   fault.Invalid,
	} {
		_, err := Open(t.Context(), Config{DSN: dsn})
		if err == nil || fault.KindOf(err) != want {
			t.Errorf("got %v, want %v", err, want)
			continue
		}
		if strings.Contains(err.Error(), secret) {
			t.Errorf("the password stands in %q", err)
		}
	}
}
