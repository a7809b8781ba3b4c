//go:build crash

// Package crash_test kills Frontdesk under load that refreshes nearly all the time, at random moments and at each step of a
// refresh as the vendor sees it; it stops a replica there and lets it go on, and cuts it off from its database. Run it by
// `make crash` (KILLS=100).
package crash_test

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"frontdesk.dev/frontdesk/test/pg"
	"frontdesk.dev/frontdesk/test/stage"
	"frontdesk.dev/frontdesk/test/world"
	"frontdesk.dev/frontdesk/test/world/authserver"
)

var kills = flag.Int("kills", 100, "how often a process is killed on each database, over all kinds of vendor")

// rules are what the config says of each kind of vendor.
var rules = map[authserver.Rotation]string{
	authserver.RotationNone:   "{rotation: none, old_access_survives: true, scope_needed: offline_access}",
	authserver.RotationGrace:  "{rotation: grace, grace_seconds: 30, old_access_survives: true, scope_needed: offline_access}",
	authserver.RotationStrict: "{rotation: strict, scope_needed: offline_access}",
}

// TestKilled: each connection answers again or is marked with its reason, and is marked at a strict vendor alone; no vendor saw a
// used token again but after a kill; no intent is without an outcome in the end; and the chain verifies.
func TestKilled(t *testing.T) {
	slog.SetDefault(slog.New(slog.DiscardHandler))
	binary, err := stage.Build(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, replicas := range []int{1, 2} {
		for i, kind := range []authserver.Rotation{authserver.RotationNone, authserver.RotationGrace, authserver.RotationStrict} {
			t.Run(fmt.Sprintf("%s-%d", kind, replicas), func(t *testing.T) {
				o := stage.Options{Binary: binary, Replicas: replicas, Allow: "[everyone]", Refresh: rules[kind],
					Tracker: world.TrackerConfig{Rotation: kind, OldAccessDies: kind == authserver.RotationStrict, AccessLifetime: 2 * time.Second}}
				if replicas > 1 {
					o.Database = pg.Start(t)
				}
				storm(t, o, (*kills+i)/3, (*run).kill)
			})
		}
	}
}

// run is one storm.
type run struct {
	t      *testing.T
	s      *stage.Stage
	people []*person

	frozen    bool // replicas stop, and go on
	forgives  bool // no connection needs to be marked, whatever happens
	cut       bool // the database loses what it acknowledged last
	forgotten bool // and so do all processes: a mark may have another reason than an interrupted renewal

	calls, good atomic.Int64
	killed      map[string]int // by step
	marked      map[string]int // by reason
	back        []time.Duration
}

type person struct {
	name  string
	agent *world.Agent
	link  atomic.Value // the connect link that the last answer held, "" if it answered
	last  atomic.Int64 // when it last answered, in nanoseconds

	failed atomic.Value // the last error, as text
}

// storm disturbs so often what serves a load that refreshes nearly all the time, and looks after each time whether everybody is served again.
func storm(t *testing.T, o stage.Options, times int, disturb func(r *run, ctx context.Context, n int)) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Minute)
	defer cancel()
	s, err := stage.New(ctx, t.TempDir(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	r := &run{t: t, s: s, forgives: o.Tracker.Rotation != authserver.RotationStrict, killed: map[string]int{}, marked: map[string]int{}}
	for i, name := range []string{"alice", "bob", "carol", "mallory"} {
		c := world.AgentConfig{URL: s.Desk().MCP("modern"), Name: name, Era: world.Era2026July, Browser: s.Person(name, "Connect Tracker", "Done")}
		if i%2 == 1 { // half of them at the vendor's own server, whose credential the gateway's replica renews rather than the egress's
			c.URL, c.Era = s.Desk().MCP("tracker"), world.Era2025November
		}
		a, err := world.NewAgent(c)
		if err != nil {
			t.Fatal(err)
		}
		if answer, err := a.Call(ctx, "whoami", nil); err != nil || answer.IsError {
			t.Fatal(name, world.Text(answer), err)
		}
		r.people = append(r.people, &person{name: name, agent: a})
	}
	load, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	for _, p := range r.people {
		for range 2 {
			wg.Go(func() { r.load(load, p) })
		}
	}
	for n := range times {
		disturb(r, ctx, n)
		r.settled(ctx)
		if t.Failed() {
			break
		}
	}
	stop()
	wg.Wait()
	for _, p := range r.people { // a session is an act that is open
		if err := p.agent.Disconnect(); err != nil {
			t.Log(err) // its session may have been another process's
		}
	}
	r.report(times)
	if r.cut && !r.forgotten {
		r.accept()
	}
	if !r.forgotten { // nobody is left who knows what the log has lost, but for what is kept outside
		r.audit(ctx)
	}
}

// load calls all the time.
func (r *run) load(ctx context.Context, p *person) {
	for ctx.Err() == nil {
		one, done := context.WithTimeout(ctx, 10*time.Second)
		answer, err := p.agent.Call(one, "whoami", nil)
		done()
		r.calls.Add(1)
		switch {
		case err != nil:
			p.failed.Store(err.Error())
			_ = p.agent.Disconnect()          // a session of the SDK's gives up for good after some tries
			time.Sleep(20 * time.Millisecond) // it is down: that is the test
		case answer.IsError && strings.Contains(world.Text(answer), "/connect/"):
			p.link.Store(world.Text(answer)[strings.LastIndex(world.Text(answer), "\n")+1:])
			time.Sleep(50 * time.Millisecond)
		case !answer.IsError:
			p.link.Store("")
			p.last.Store(time.Now().UnixNano())
			r.good.Add(1)
		default:
			p.failed.Store(world.Text(answer))
		}
	}
}

// kill kills one process: by turns at a random moment, and at each step that the vendor sees.
func (r *run) kill(ctx context.Context, n int) {
	r.t.Helper()
	step := "at random"
	victim := rand.IntN(len(r.s.Desks))
	if aim := n % (len(world.Steps) + 1); aim < len(world.Steps) {
		if victim = r.ambush(world.Steps[aim], func(i int) { _ = r.s.Desks[i].Strike() }); victim < 0 {
			return
		}
		step = string(world.Steps[aim])
	} else {
		time.Sleep(time.Duration(100+rand.IntN(900)) * time.Millisecond)
	}
	r.killed[step]++
	if err := r.s.Desks[victim].Kill(); err != nil {
		r.t.Fatal(err)
	}
	if err := r.s.Desks[victim].Start(ctx); err != nil {
		r.t.Fatalf("after a kill %s it does not start: %v\n%s", step, err, r.s.Desks[victim].Log())
	}
}

// ambush waits for a refresh to come to this step, and strikes the replica that makes it. It returns which that was; -1 where it hung
// up before that was known.
func (r *run) ambush(step world.Step, strike func(replica int)) int {
	r.t.Helper()
	after := time.Duration(0)
	if step == world.StepLast {
		after = time.Duration(rand.IntN(20)) * time.Millisecond
	}
	struck := make(chan int, 1)
	r.s.Tracker.Ambush.Lay(step, after, func(peer string) {
		i := ownerOf(r.s.Desks, peer)
		if i >= 0 {
			strike(i)
		}
		struck <- i
	})
	select {
	case i := <-struck:
		return i
	case <-time.After(10 * time.Second):
		r.t.Fatal("nothing was renewed for ten seconds")
		return -1
	}
}

// settled waits until each connection has answered since the restart, or is marked, and does then what its user would.
func (r *run) settled(ctx context.Context) {
	r.t.Helper()
	start := time.Now()
	for _, p := range r.people {
		for p.last.Load() < start.UnixNano() {
			if time.Since(start) > r.patience() {
				status, reason := connection(r.t, r.s, p.name)
				err, _ := p.failed.Load().(string)
				r.t.Errorf("%s: the connection says %s (%s), and does not answer: %s\n%s", p.name, status, reason, err, r.s.Desk().Log())
				return
			}
			if link, _ := p.link.Load().(string); link != "" {
				r.reconnect(ctx, p)
			}
			time.Sleep(5 * time.Millisecond)
		}
		r.back = append(r.back, time.Duration(p.last.Load())-time.Duration(start.UnixNano()))
	}
}

// patience is how long everybody may take to be served again: of who waits for a lease, that has to run out first.
func (r *run) patience() time.Duration {
	if r.frozen {
		return 60 * time.Second
	}
	return 20 * time.Second
}

// connection is what `frontdesk connections list` says.
func connection(t *testing.T, s *stage.Stage, name string) (status, reason string) {
	t.Helper()
	out, err := s.Desk().Run("connections", "list", "--user", "emp-"+name, "--json")
	var l []struct{ Upstream, Status, Reason string }
	if err != nil || json.Unmarshal([]byte(out), &l) != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, c := range l {
		if c.Upstream == "tracker" {
			return c.Status, c.Reason
		}
	}
	return "", ""
}

// reconnect does what the person would, where a connection is marked. A mark without a reason is a failure, and so is any at a
// vendor that forgives.
func (r *run) reconnect(ctx context.Context, p *person) {
	r.t.Helper()
	status, reason := connection(r.t, r.s, p.name)
	if status != "needs_reconnect" {
		return
	}
	if reason == "" {
		r.t.Errorf("%s: marked without a reason", p.name)
	}
	if r.forgives {
		r.t.Errorf("%s: marked at a vendor that forgives: %s", p.name, reason)
	}
	if reason != interrupted && !r.forgotten {
		r.t.Errorf("%s: marked, and not for a renewal that was interrupted: %s\n%s", p.name, reason, r.history(p.name))
	}
	r.marked[reason]++
	for end := time.Now().Add(15 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if link, _ := p.link.Load().(string); link != "" {
			if err := r.s.Person(p.name, "Continue to Tracker").Open(ctx, link); err == nil {
				return
			}
		}
		if status, _ := connection(r.t, r.s, p.name); status != "needs_reconnect" {
			return
		}
	}
	r.t.Errorf("%s cannot reconnect", p.name)
}

// interrupted is the one reason for which a kill may cost a connection.
const interrupted = "a renewal was interrupted, and the vendor had already used up the old token"

// history is what the vendor and the log saw last of a person's connection.
func (r *run) history(name string) string {
	var b strings.Builder
	all := r.s.Tracker.Redemptions()
	for _, red := range all[max(0, len(all)-40):] {
		if strings.Contains(red.User, name) {
			fmt.Fprintf(&b, "vendor %s %s ...%s\n", red.At.Format("15:04:05.000000"), red.Outcome, red.Token[max(0, len(red.Token)-6):])
		}
	}
	out, _ := r.s.Desk().Run("audit", "tail", "--user", "emp-"+name)
	for line := range strings.Lines(out) {
		if strings.Contains(line, `"action":"refresh"`) || strings.Contains(line, "connect") {
			b.WriteString(line)
		}
	}
	return b.String()
}

// report prints what happened, and compares it with what the vendor saw.
func (r *run) report(kills int) {
	seen := map[authserver.Outcome]int{}
	for _, red := range r.s.Tracker.Redemptions() {
		seen[red.Outcome]++
	}
	marks := 0
	for _, n := range r.marked {
		marks += n
	}
	half, most := spread(r.back)
	fmt.Printf("%s\n  calls %d, answered %d; kills by step %v\n  vendor saw %v; reconnects by reason %v\n  from ready to an answer: median %s, at most %s\n",
		r.t.Name(), r.calls.Load(), r.good.Load(), r.killed, seen, r.marked, half.Round(time.Millisecond), most.Round(time.Millisecond))
	bound := kills * len(r.people) // a kill can catch the renewals of all
	if seen[authserver.Reused] > marks || seen[authserver.Reused] > bound || seen[authserver.GraceAgain] > bound {
		r.t.Errorf("the vendor saw used tokens again more often than a kill explains: %v after %d kills, %d of them with a mark", seen, kills, marks)
	}
	if seen[authserver.Unknown] > 0 {
		r.t.Error("the vendor saw a token that it never gave out")
	}
}

// audit waits until what the dead processes left open is closed, once their heartbeat is half a minute old.
func (r *run) audit(ctx context.Context) {
	r.t.Helper()
	var report struct {
		Verdict, Rows, Writers, Open int
		Where, What                  string
	}
	for end := time.Now().Add(90 * time.Second); ctx.Err() == nil; time.Sleep(time.Second) {
		args := []string{"audit", "verify", "--json"}
		if len(r.s.Desks) > 1 {
			args = append(args, "--database", "env:FRONTDESK_TEST_DATABASE")
		}
		out, err := r.s.Desk().Run(args...)
		if jerr := json.Unmarshal([]byte(out), &report); jerr != nil || err != nil {
			r.t.Fatalf("the chain does not verify: %v\n%s", err, out)
		}
		if report.Open == 0 {
			break
		}
		if time.Now().After(end) {
			r.t.Fatalf("%d intents have no outcome", report.Open)
		}
	}
	fmt.Printf("  audit: %d records in %d chains, whole, none open\n", report.Rows, report.Writers)
}
