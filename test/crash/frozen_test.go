//go:build crash

package crash_test

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"frontdesk.dev/frontdesk/test/pg"
	"frontdesk.dev/frontdesk/test/stage"
	"frontdesk.dev/frontdesk/test/world"
	"frontdesk.dev/frontdesk/test/world/authserver"
)

var (
	freezes = flag.Int("freezes", 6, "how often a replica is stopped in the middle of a refresh, and goes on later, for each kind of vendor")
	cuts    = flag.Int("cuts", 15, "how often the database ends all its connections in the middle of a refresh, for each kind of vendor")
)

// pauses are how long a replica stands still: shorter than the lease of a refresh (30 s), about as long, and longer.
var pauses = []time.Duration{10 * time.Second, 29 * time.Second, 31 * time.Second}

// TestFrozen: a replica that stands still in the middle of a refresh, and goes on when another one has taken over, takes nothing from
// anybody: what TestKilled says holds, and at no time do two pairs stand for one connection.
func TestFrozen(t *testing.T) {
	each(t, authserver.RotationGrace, authserver.RotationStrict)(func(t *testing.T, o stage.Options) {
		storm(t, o, *freezes, (*run).freeze)
	})
}

// freeze stops the replica that refreshes, at each step by turns. The other one serves meanwhile.
func (r *run) freeze(ctx context.Context, n int) {
	r.t.Helper()
	step, pause := world.Steps[n%len(world.Steps)], pauses[n%len(pauses)]
	r.frozen = true
	r.forgives = r.forgives && pause < 29*time.Second // a vendor's grace of 30 s is over too by then
	victim := r.ambush(step, func(i int) { _ = syscall.Kill(r.s.Desks[i].Pid(), syscall.SIGSTOP) })
	if victim < 0 {
		return
	}
	r.s.Pin(1 - victim)
	r.killed[fmt.Sprintf("%s, for %s", step, pause)]++
	select {
	case <-time.After(pause):
	case <-ctx.Done():
	}
	if err := syscall.Kill(r.s.Desks[victim].Pid(), syscall.SIGCONT); err != nil {
		r.t.Fatal(err)
	}
	r.s.Pin(-1)
}

// TestDatabaseCutsOff: the database ends every connection in the middle of a refresh. The process lives, and has what the vendor gave:
// nobody has to connect anew, at any kind of vendor.
func TestDatabaseCutsOff(t *testing.T) {
	each(t, authserver.RotationNone, authserver.RotationGrace, authserver.RotationStrict)(func(t *testing.T, o stage.Options) {
		storm(t, o, *cuts, func(r *run, ctx context.Context, n int) {
			r.forgives = true
			step := world.Steps[n%len(world.Steps)]
			db, err := pgx.Connect(ctx, o.Database)
			if err != nil {
				r.t.Fatal(err)
			}
			defer func() { _ = db.Close(ctx) }()
			cut := make(chan error, 1)
			if r.ambush(step, func(int) {
				_, err := db.Exec(ctx, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()")
				cut <- err
			}) < 0 {
				return
			}
			if err := <-cut; err != nil {
				r.t.Fatal(err)
			}
			r.killed["connections to the database, when the "+string(step)]++
		})
	})
}

// each runs a test of two replicas over PostgreSQL against these kinds of vendor.
func each(t *testing.T, kinds ...authserver.Rotation) func(func(t *testing.T, o stage.Options)) {
	t.Helper()
	slog.SetDefault(slog.New(slog.DiscardHandler))
	binary, err := stage.Build(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return func(f func(t *testing.T, o stage.Options)) {
		for _, kind := range kinds {
			t.Run(string(kind), func(t *testing.T) {
				f(t, stage.Options{Binary: binary, Replicas: 2, Database: pg.Start(t), Allow: "[everyone]", Refresh: rules[kind],
					Tracker: world.TrackerConfig{Rotation: kind, OldAccessDies: kind == authserver.RotationStrict, AccessLifetime: 2 * time.Second}})
			})
		}
	}
}
