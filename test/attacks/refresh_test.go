package attacks_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"frontdesk.dev/frontdesk/test/pg"
	"frontdesk.dev/frontdesk/test/stage"
	"frontdesk.dev/frontdesk/test/world"
	"frontdesk.dev/frontdesk/test/world/authserver"
)

// TestA130_A134_refresh: three replicas, tokens that live a moment, and a vendor that rotates strictly and misbehaves.
func TestA130_A134_refresh(t *testing.T) {
	const lifetime = 1500 * time.Millisecond
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	binary, err := built()
	if err != nil {
		t.Fatal(err)
	}
	s, err := stage.New(ctx, t.TempDir(), stage.Options{Binary: binary, Replicas: 3, Database: pg.Start(t), Allow: "[everyone]", Tracker: world.TrackerConfig{AccessLifetime: lifetime}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	agents := map[string]*world.Agent{}
	for _, name := range []string{"alice", "bob", "carol", "mallory"} {
		a, err := world.NewAgent(world.AgentConfig{URL: s.Desk().MCP("modern"), Name: "agent", Era: world.Era2026July, Browser: s.Person(name, "Connect Tracker", "Done")})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = a.Close() })
		if r, err := a.Call(ctx, "whoami", nil); err != nil || !strings.Contains(world.Text(r), "octo-"+name) {
			t.Fatal(r, err)
		}
		agents[name] = a
	}
	due := func() { // nothing to wait for but time: the tokens must be past their life
		tick := time.NewTimer(lifetime)
		<-tick.C
	}
	redeemed := func(user string) (n int) {
		for _, r := range s.Tracker.Redemptions() {
			if r.User == "octo-"+user {
				n++
			}
		}
		return n
	}
	call := func(name string) (bool, string) {
		r, err := agents[name].Call(ctx, "whoami", nil)
		if err != nil {
			return false, err.Error()
		}
		return strings.Contains(world.Text(r), "octo-"+name), world.Text(r)
	}
	// all at once, at the instant of expiry.
	due()
	before := redeemed("alice")
	var wg sync.WaitGroup
	for range 60 {
		wg.Go(func() {
			if ok, said := call("alice"); !ok {
				t.Errorf("A-130: %s", said)
			}
		})
	}
	wg.Wait()
	if n := redeemed("alice") - before; n < 1 || n > 4 { // more than one where the calls take longer than a token lives
		t.Errorf("A-130: %d redemptions", n)
	}
	seen := map[string]int{}
	for _, r := range s.Tracker.Redemptions() {
		if seen[r.Token]++; seen[r.Token] > 1 {
			t.Errorf("A-130: a refresh token was redeemed twice")
		}
	}
	// answers that are no help. Each ends in a connection that works, or in a question; never in silence.
	const tokens = "/oauth/token"
	for _, tt := range []struct {
		name, user string
		faults     authserver.Faults
		fail       bool // invalid_grant, once
	}{
		{"500, then well", "alice", authserver.Faults{Path: tokens, Times: 1, Status: 500}, false},
		{"no refresh token in the answer", "alice", authserver.Faults{Path: tokens, Times: 1, NoRefresh: true}, false},
		{"expires_in of another kind", "mallory", authserver.Faults{Path: tokens, Times: 1, EditToken: func(b map[string]any) { b["expires_in"] = "soon" }}, false},
		{"invalid_grant once", "bob", authserver.Faults{}, true},
		{"429 for a day", "carol", authserver.Faults{Path: tokens, Times: 1, Status: 429, RetryAfter: "86400"}, false},
	} {
		due()
		s.Tracker.SetFaults(tt.faults)
		if tt.fail {
			if err := s.Tracker.FailNextRefresh("octo-" + tt.user); err != nil {
				t.Fatal(err)
			}
		}
		before := redeemed(tt.user)
		works, said := false, ""
		for range 3 {
			if works, said = call(tt.user); works {
				break
			}
		}
		if !works && !strings.Contains(said, "/connect/") && !strings.Contains(said, "later") {
			t.Errorf("A-132 %s: %s", tt.name, said)
		}
		if n := redeemed(tt.user) - before; tt.faults.Status == 429 && n > 1 {
			t.Errorf("A-132 %s: the vendor was asked %d times more", tt.name, n)
		}
		s.Tracker.SetFaults(authserver.Faults{})
	}
	// the answer is lost after the vendor has used the token up. Either way the person learns it.
	due()
	s.Tracker.SetFaults(authserver.Faults{Path: tokens, Times: 1, LoseAnswer: true})
	last := ""
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); {
		ok, said := call("bob")
		if last = said; ok || strings.Contains(said, "/connect/") {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	if !strings.Contains(last, "/connect/") && !strings.Contains(last, "octo-bob") {
		t.Errorf("A-132 a lost answer: %s", last)
	}
	// the connection is ended while its refresh is under way: what comes of it is nobody's.
	due()
	s.Tracker.SetFaults(authserver.Faults{Path: tokens, Times: 1, Delay: 1500 * time.Millisecond})
	out, err := s.Desk().Run("connections", "list", "--user", "emp-alice")
	if err != nil {
		t.Fatal(err, out)
	}
	id := ""
	for line := range strings.Lines(out) {
		if f := strings.Fields(line); len(f) > 1 && f[1] == "tracker" {
			id = f[0]
		}
	}
	flying := make(chan string, 1)
	began := redeemed("alice")
	go func() { _, said := call("alice"); flying <- said }()
	tick := time.NewTimer(300 * time.Millisecond)
	<-tick.C
	if out, err := s.Desk().Run("connections", "revoke", id); err != nil {
		t.Fatal(err, out)
	}
	<-flying
	if redeemed("alice") == began {
		t.Log("the refresh was not under way; nothing was raced")
	}
	alive := func() (n int) {
		for _, token := range s.Tracker.Tokens() {
			if c, ok := s.Tracker.Authenticate(token.Value); ok && c.User == "octo-alice" && token.Kind == "access" {
				n++
			}
		}
		return n
	}
	for end := time.Now().Add(10 * time.Second); alive() > 0 && time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
	}
	if n := alive(); n > 0 {
		t.Errorf("A-134: %d tokens of an ended connection live on at the vendor", n)
	}
	if ok, said := call("alice"); ok || !strings.Contains(said, "/connect/") {
		t.Errorf("A-134: a call after the end: %s", said)
	}
	if out, err := s.Desk().Run("audit", "verify", "--database", "env:FRONTDESK_TEST_DATABASE"); err != nil {
		t.Errorf("O2: %v\n%s", err, out)
	}
}
