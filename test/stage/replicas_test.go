package stage_test

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"frontdesk.dev/frontdesk/test/pg"
	"frontdesk.dev/frontdesk/test/stage"
	"frontdesk.dev/frontdesk/test/world"
)

// TestTwoReplicas signs in at one process and calls through the other; and lets both meet one expired, strictly rotating
// refresh token at once.
func TestTwoReplicas(t *testing.T) {
	const lifetime = 3 * time.Second
	s := start(t, stage.Options{Replicas: 2, Database: pg.Start(t), Tracker: world.TrackerConfig{AccessLifetime: lifetime}})
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	s.Pin(0)
	alice := agent(t, world.AgentConfig{URL: s.Desk().MCP("modern"), Name: "first", Era: world.Era2026July, Browser: s.Person("alice", "Connect Tracker", "Done")})
	whoami := func(want string) {
		t.Helper()
		r, err := alice.Call(ctx, "whoami", nil)
		if err != nil || r == nil || r.IsError || !strings.Contains(world.Text(r), want) {
			t.Error(err, r)
		}
	}
	whoami("octo-alice")
	s.Pin(1)
	whoami("octo-alice") // the call is opened at the second, its API request arrives at the first's egress

	// The tracker's tokens live three seconds: wait until this one is due, then let both replicas find that out at once.
	due := time.NewTimer(lifetime)
	<-due.C
	s.Pin(-1)
	before := len(s.Tracker.Redemptions())
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() { whoami("octo-alice") })
	}
	wg.Wait()
	after := s.Tracker.Redemptions()
	if n := len(after) - before; n != 1 {
		t.Errorf("two replicas and one expired token made %d redemptions, want 1", n)
	}
	seen := map[string]bool{}
	for _, r := range after {
		if seen[r.Token] {
			t.Error("a refresh token was redeemed twice")
		}
		seen[r.Token] = true
	}
	// Whoever looks at the log beside a running server need not know where it is kept.
	if out, err := s.Desk().Run("audit", "verify"); err != nil || !strings.Contains(out, "whole: ") {
		t.Errorf("audit verify: %v, %s", err, out)
	}
}

// roaming is two replicas, and a server behind /mcp/roaming whose API requests go through the one that is named; one more behind
// /mcp/settled holds one token for a whole session.
func roaming(t *testing.T, o stage.Options, needs string) (*stage.Stage, func(replica int)) {
	t.Helper()
	var egress lateEgress
	way := egress.serve(t)
	for name, c := range map[string]world.IssuesConfig{"roaming: {": {Stateless: true}, "settled: {placeholder: session, ": {TokenAtStart: true}} {
		c.API = way + "/egress/tracker"
		server, err := world.NewIssuesServer(c)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = server.Close() })
		o.Servers += "  " + name + "url: " + server.MCP() + ", upstreams: [" + needs + "], allow: [group:engineering]}\n"
	}
	o.Replicas = 2
	if o.Database == "" {
		o.Database = pg.Start(t)
	}
	s := start(t, o)
	return s, func(replica int) { egress.to(t, s.Desks[replica].Egress) }
}

// TestVendorsLimitAtTwoReplicas: whoever a vendor told to wait through one process is held back by the other one, and not asked again.
func TestVendorsLimitAtTwoReplicas(t *testing.T) {
	var asked atomic.Int32
	at, hosts := vendor(t, func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		w.Header().Set("Retry-After", "600")
		w.WriteHeader(http.StatusTooManyRequests)
	})
	s, through := roaming(t, stage.Options{Upstream: hosts}, "tracker")
	through(0)
	a := agent(t, world.AgentConfig{URL: s.Desk().MCP("roaming"), Name: "first", Era: world.Era2026July, Browser: s.Person("alice", "Connect Tracker", "Done")})
	if got := world.Text(call(t, a, "fetch", map[string]any{"path": at + "/x"})); !strings.Contains(got, "429") || asked.Load() != 1 {
		t.Fatalf("asked %d times: %s", asked.Load(), got)
	}
	through(1)
	end := time.Now().Add(20 * time.Second)
	for {
		before := asked.Load()
		got := texts(call(t, a, "fetch", map[string]any{"path": at + "/x"}))
		if asked.Load() == before {
			if len(got) != 2 || !strings.Contains(got[1], "Tracker has no more requests for this person until") {
				t.Errorf("the agent is told %q", got)
			}
			break
		}
		if time.Now().After(end) {
			t.Fatal("the other replica never hears of it")
		}
	}
}

// TestRefusedElsewhere: an API request that one replica refuses for want of a connection belongs to a call that is open at the other: its
// agent gets the question in place of what its server made of the refusal, and what a failure means; where a request of the call
// succeeded, the server's own answer.
func TestRefusedElsewhere(t *testing.T) {
	at, hosts := vendor(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/scope":
			w.Header().Set("WWW-Authenticate", `Bearer error="insufficient_scope", scope="admin"`)
			w.WriteHeader(http.StatusForbidden)
		case "/frozen":
			w.WriteHeader(http.StatusConflict)
		}
	})
	s, through := roaming(t, stage.Options{Upstream: hosts + `    hints: [{name: frozen, status: [409], say: "It is frozen until Monday."}]` + "\n"}, "tracker: {optional: true}")
	s.Pin(0)
	for replica := range 2 {
		through(replica)
		a := agent(t, world.AgentConfig{URL: s.Desk().MCP("roaming"), Name: "of bob", Era: world.Era2026July, Browser: s.Person("bob", "Later: a tool that needs it will ask then", "Done")})
		for range 3 { // each time: it is no matter of luck
			if got := world.Text(call(t, a, "whoami", nil)); !strings.Contains(got, "is not connected for the user yet") || !strings.Contains(got, "/connect/") {
				t.Errorf("refused at replica %d, the agent is told: %s", replica, got)
			}
		}
	}
	a := agent(t, world.AgentConfig{URL: s.Desk().MCP("roaming"), Name: "of alice", Era: world.Era2026July, Browser: s.Person("alice", "Connect Tracker", "Done")})
	if got := world.Text(call(t, a, "whoami", nil)); !strings.Contains(got, "octo-alice") {
		t.Fatal(got)
	}
	if got := world.Text(call(t, a, "fetch", map[string]any{"path": at + "/scope"})); !strings.Contains(got, "more has to be allowed for this") {
		t.Errorf("a scope that is missing: %s", got)
	}
	if got := texts(call(t, a, "fetch", map[string]any{"path": at + "/frozen"})); len(got) != 2 || !strings.Contains(got[1], "It is frozen until Monday.") {
		t.Errorf("a failure that is known: %q", got)
	}
	if out, err := s.Desk().Run("audit", "verify"); err != nil {
		t.Errorf("audit verify: %v, %s", err, out)
	}
}

// TestSessionRefusedElsewhere: a keycard of a whole session names the replica that began it. Wherever that was, wherever the call is open and
// wherever its API request is refused, the agent gets the question, for a connection and for a scope. With two roles it is the brokers that know.
func TestSessionRefusedElsewhere(t *testing.T) {
	t.Run("one process", func(t *testing.T) { sessionRefusedElsewhere(t, stage.Options{}) })
	t.Run("two", func(t *testing.T) {
		a := twoAccounts(t)
		sessionRefusedElsewhere(t, stage.Options{Database: a.broker, Domains: a.domains(t)})
	})
}

func sessionRefusedElsewhere(t *testing.T, o stage.Options) {
	at, hosts := vendor(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/scope" {
			w.Header().Set("WWW-Authenticate", `Bearer error="insufficient_scope", scope="admin"`)
			w.WriteHeader(http.StatusForbidden)
		}
	})
	o.Upstream = hosts
	s, through := roaming(t, o, "tracker: {optional: true}")
	for begun := range 2 {
		s.Pin(begun)
		legacy := func(who string, yes ...string) *world.Agent {
			a := agent(t, world.AgentConfig{URL: s.Desk().MCP("settled"), Name: "of " + who, Era: world.Era2025November, Browser: s.Person(who, yes...)})
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			if _, err := a.Session(ctx); err != nil {
				t.Fatal(err)
			}
			return a
		}
		bob, alice := legacy("bob", "Later: a tool that needs it will ask then", "Done"), legacy("alice", "Connect Tracker", "Done")
		for _, where := range []struct{ call, request int }{{0, 0}, {0, 1}, {1, 0}, {1, 1}} {
			s.Pin(where.call)
			through(where.request)
			for range 2 { // each time: it is no matter of luck
				if got := world.Text(call(t, bob, "whoami", nil)); !strings.Contains(got, "is not connected for the user yet") || !strings.Contains(got, "/connect/") {
					t.Errorf("begun at %d, called and asked at %v, the agent is told: %s", begun, where, got)
				}
				if got := world.Text(call(t, alice, "whoami", nil)); !strings.Contains(got, "octo-alice") {
					t.Errorf("begun at %d, called and asked at %v: %s", begun, where, got)
				}
				if got := world.Text(call(t, alice, "fetch", map[string]any{"path": at + "/scope"})); !strings.Contains(got, "more has to be allowed for this") {
					t.Errorf("begun at %d, called and asked at %v, a scope that is missing: %s", begun, where, got)
				}
			}
		}
	}
}
