//go:build crash

package crash_test

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"frontdesk.dev/frontdesk/test/pg"
	"frontdesk.dev/frontdesk/test/stage"
	"frontdesk.dev/frontdesk/test/world"
	"frontdesk.dev/frontdesk/test/world/authserver"
)

var promotions = flag.Int("promotions", 5, "how often a standby of the database is promoted, for each kind of vendor and of standby")

// TestPromoted: the database's server is killed under load that refreshes nearly all the time, and its standby takes over. Where the
// standby is synchronous, nothing is lost and the log is whole. Where it lags, what was acknowledged last is gone: the processes
// live, and put back what they remember, so nobody has to connect anew at any kind of vendor; no vendor sees a used token again;
// and the log says what it lost until an operator signs that he knows.
func TestPromoted(t *testing.T) {
	slog.SetDefault(slog.New(slog.DiscardHandler))
	binary, err := stage.Build(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, synchronous := range []bool{true, false} {
		for _, kind := range []authserver.Rotation{authserver.RotationGrace, authserver.RotationStrict} {
			t.Run(fmt.Sprintf("%s-%s", kind, map[bool]string{true: "synchronous", false: "lagging"}[synchronous]), func(t *testing.T) {
				pair := pg.StartPair(t, synchronous)
				o := stage.Options{Binary: binary, Replicas: 2, Database: pair.DSN, Allow: "[everyone]", Refresh: rules[kind],
					Tracker: world.TrackerConfig{Rotation: kind, OldAccessDies: kind == authserver.RotationStrict, AccessLifetime: 2 * time.Second}}
				storm(t, o, *promotions, func(r *run, ctx context.Context, _ int) {
					r.forgives, r.cut = true, !synchronous
					r.promote(ctx, pair, !synchronous)
				})
			})
		}
	}
}

// promote lets the standby lag for a while, where it may, and takes over.
func (r *run) promote(ctx context.Context, pair *pg.Pair, lag bool) {
	r.t.Helper()
	if lag {
		if err := errors.Join(pair.CaughtUp(ctx), pair.Lag(ctx)); err != nil {
			r.t.Fatal(err)
		}
	}
	time.Sleep(time.Duration(500+rand.IntN(2000)) * time.Millisecond) // each connection is renewed once or twice
	if err := pair.Promote(ctx); err != nil {
		r.t.Fatal(err)
	}
	r.killed["the database's server"]++
	if err := pair.Follow(ctx); err != nil { // where commits wait for a standby, nobody is served before there is one
		r.t.Fatal(err)
	}
}

// TestPromotedWithTheProcesses: the processes die with the server, and nobody remembers what was lost. Each connection answers again,
// or is marked with its reason; none is asked for again and again.
func TestPromotedWithTheProcesses(t *testing.T) {
	slog.SetDefault(slog.New(slog.DiscardHandler))
	binary, err := stage.Build(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range []authserver.Rotation{authserver.RotationGrace, authserver.RotationStrict} {
		t.Run(string(kind), func(t *testing.T) {
			pair := pg.StartPair(t, false)
			o := stage.Options{Binary: binary, Replicas: 2, Database: pair.DSN, Allow: "[everyone]", Refresh: rules[kind],
				Tracker: world.TrackerConfig{Rotation: kind, OldAccessDies: kind == authserver.RotationStrict, AccessLifetime: 2 * time.Second}}
			storm(t, o, *promotions, func(r *run, ctx context.Context, _ int) {
				r.cut, r.forgotten = true, true
				if err := errors.Join(pair.CaughtUp(ctx), pair.Lag(ctx)); err != nil {
					r.t.Fatal(err)
				}
				time.Sleep(time.Duration(500+rand.IntN(2000)) * time.Millisecond)
				for _, d := range r.s.Desks {
					if err := d.Kill(); err != nil {
						r.t.Fatal(err)
					}
				}
				if err := pair.Promote(ctx); err != nil {
					r.t.Fatal(err)
				}
				for _, d := range r.s.Desks {
					if err := d.Start(ctx); err != nil {
						r.t.Fatalf("after a failover it does not start: %v\n%s", err, d.Log())
					}
				}
				r.killed["the database's server, and all processes"]++
				if err := pair.Follow(ctx); err != nil {
					r.t.Fatal(err)
				}
			})
		})
	}
}

// accept signs that what a failover lost is known, and is then what an operator sees.
func (r *run) accept() {
	r.t.Helper()
	var report struct {
		Verdict   int
		What      string
		Reminders []string
	}
	verify := func() {
		r.t.Helper()
		out, _ := r.s.Desk().Run("audit", "verify", "--json", "--database", "env:FRONTDESK_TEST_DATABASE") // its exit code is the verdict
		if err := json.Unmarshal([]byte(out), &report); err != nil {
			r.t.Fatalf("%v\n%s", err, out)
		}
	}
	if verify(); report.Verdict != 2 {
		r.t.Errorf("after a failover that lost records the log says %d: %s", report.Verdict, report.What)
	}
	for end := time.Now().Add(time.Minute); report.Verdict != 0 && time.Now().Before(end); verify() { // once more for what a replica signs later
		if out, err := r.s.Desk().Run("audit", "accept", "--yes"); err != nil {
			r.t.Fatalf("%v\n%s", err, out)
		}
	}
	if report.Verdict != 0 || !strings.Contains(strings.Join(report.Reminders, " "), "lost with a failover") {
		for _, d := range r.s.Desks {
			r.t.Log(strings.Join(append(d.LogLines("checkpoint"), d.LogLines("has lost")...), "\n"))
		}
		r.t.Errorf("after an operator has signed it the log says %d: %s; %q", report.Verdict, report.What, report.Reminders)
	}
}
