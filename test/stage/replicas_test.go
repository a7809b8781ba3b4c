package stage_test

import (
	"context"
	"strings"
	"sync"
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
