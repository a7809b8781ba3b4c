//go:build crash

// Package crash_test kills Frontdesk at random moments under load. Run it by `make crash` (KILLS=100).
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

	"frontdesk.dev/frontdesk/test/stage"
	"frontdesk.dev/frontdesk/test/world"
)

var kills = flag.Int("kills", 100, "how often the process is killed")

type person struct {
	name  string
	agent *world.Agent
	link  atomic.Value // the connect link that the last answer held, "" if it answered
}

// TestKilled: no connection silently dead (each works, or is marked for reconnection with its reason), no intent without an
// outcome in the end, and the chain verifies. The tracker rotates strictly and its tokens live two seconds, so that a refresh
// is nearly always under way.
func TestKilled(t *testing.T) {
	slog.SetDefault(slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Minute)
	defer cancel()
	s, err := stage.New(ctx, t.TempDir(), stage.Options{Tracker: world.TrackerConfig{AccessLifetime: 2 * time.Second}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	var people []*person
	for _, name := range []string{"alice", "bob"} {
		a, err := world.NewAgent(world.AgentConfig{URL: s.Desk().MCP("modern"), Name: name, Era: world.Era2026July, Browser: s.Person(name, "Connect Tracker", "Done")})
		if err != nil {
			t.Fatal(err)
		}
		if r, err := a.Call(ctx, "whoami", nil); err != nil || r.IsError {
			t.Fatal(r, err)
		}
		people = append(people, &person{name: name, agent: a})
	}
	var calls, good atomic.Int64
	load, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	for _, p := range people {
		for range 4 {
			wg.Go(func() {
				for load.Err() == nil {
					one, done := context.WithTimeout(load, 10*time.Second)
					r, err := p.agent.Call(one, "whoami", nil)
					done()
					calls.Add(1)
					switch {
					case err != nil:
						time.Sleep(50 * time.Millisecond) // it is down: that is the test
					case r.IsError && strings.Contains(world.Text(r), "/connect/"):
						p.link.Store(world.Text(r)[strings.LastIndex(world.Text(r), "\n")+1:])
						time.Sleep(50 * time.Millisecond)
					case !r.IsError:
						p.link.Store("")
						good.Add(1)
					}
				}
			})
		}
	}
	marked := map[string]int{}
	for k := range *kills {
		time.Sleep(time.Duration(100+rand.IntN(900)) * time.Millisecond)
		if err := s.Desk().Kill(); err != nil {
			t.Fatal(err)
		}
		if err := s.Desk().Start(ctx); err != nil {
			t.Fatalf("kill %d: %v", k, err)
		}
		for _, p := range people {
			reconnect(t, ctx, s, p, marked)
		}
	}
	time.Sleep(time.Second)
	stop()
	wg.Wait()
	for _, p := range people {
		alive(t, ctx, s, p, marked)
	}
	fmt.Printf("kills %d, calls %d, answered %d, reconnects by reason %v\n", *kills, calls.Load(), good.Load(), marked)

	// What the dead processes left open is closed once their heartbeat is half a minute old.
	var report struct {
		Verdict, Rows, Writers, Open int
		Where, What                  string
	}
	for end := time.Now().Add(90 * time.Second); ; time.Sleep(time.Second) {
		out, err := s.Desk().Run("audit", "verify", "--json")
		if jerr := json.Unmarshal([]byte(out), &report); jerr != nil || err != nil {
			t.Fatalf("the chain does not verify: %v\n%s", err, out)
		}
		if report.Open == 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%d intents have no outcome", report.Open)
		}
	}
	fmt.Printf("audit: %d records in %d chains, whole, none open\n", report.Rows, report.Writers)
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

// reconnect does what the person would, where a connection is marked. A mark without a reason is a failure.
func reconnect(t *testing.T, ctx context.Context, s *stage.Stage, p *person, marked map[string]int) {
	t.Helper()
	status, reason := connection(t, s, p.name)
	if status != "needs_reconnect" {
		return
	}
	if reason == "" {
		t.Errorf("%s: marked without a reason", p.name)
	}
	marked[reason]++
	for range 200 {
		if link, _ := p.link.Load().(string); link != "" {
			if err := s.Person(p.name, "Continue to Tracker").Open(ctx, link); err == nil {
				return
			}
		}
		if status, _ := connection(t, s, p.name); status != "needs_reconnect" {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Errorf("%s cannot reconnect", p.name)
}

// alive: after the storm each connection answers, or says what it needs.
func alive(t *testing.T, ctx context.Context, s *stage.Stage, p *person, marked map[string]int) {
	t.Helper()
	for range 100 {
		r, err := p.agent.Call(ctx, "whoami", nil)
		if err == nil && !r.IsError && strings.Contains(world.Text(r), "octo-"+p.name) {
			return
		}
		if err == nil && r.IsError && strings.Contains(world.Text(r), "/connect/") {
			p.link.Store(world.Text(r)[strings.LastIndex(world.Text(r), "\n")+1:])
			reconnect(t, ctx, s, p, marked)
		}
		time.Sleep(100 * time.Millisecond)
	}
	status, reason := connection(t, s, p.name)
	t.Errorf("%s: the connection says %s (%s), and does not answer", p.name, status, reason)
}
