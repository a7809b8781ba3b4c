package attacks_test

import (
	"context"
	"database/sql"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"frontdesk.dev/frontdesk/test/stage"
	"frontdesk.dev/frontdesk/test/world"
)

// TestX_methodThatFellAway: an agent that was never allowed what its person connected does not get it when the method that asks
// nobody, by which it was let through a moment ago, serves no more.
func TestX_methodThatFellAway(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	binary, err := built()
	if err != nil {
		t.Fatal(err)
	}
	s, err := stage.New(ctx, t.TempDir(), stage.Options{Binary: binary, Methods: "[token_exchange: {audience: tracker}, authorization_code]"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	db, err := sql.Open("sqlite", "file:"+filepath.Join(s.Desk().Dir, "frontdesk.db")+"?_pragma=busy_timeout(5000)")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	home := func(status string) { // as the refresh machine marks it
		t.Helper()
		r, err := db.ExecContext(ctx, "UPDATE connections SET status = ? WHERE upstream = 'idp:login'", status)
		if err != nil {
			t.Fatal(err)
		}
		if n, err := r.RowsAffected(); err != nil || n != 1 {
			t.Fatalf("%d home credentials, %v", n, err)
		}
	}
	alice := s.Person("alice", "Continue to Tracker", "Done")
	agent := func(name string, opens world.Opener) *world.Agent {
		a, err := world.NewAgent(world.AgentConfig{URL: s.Desk().MCP("modern"), Name: name, Era: world.Era2026July, Browser: alice, Elicit: opens})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = a.Close() })
		return a
	}
	second := agent("second-agent", nil) // let in while nothing is connected, so that it has no grant
	if r, err := second.Call(ctx, "whoami", nil); err == nil && strings.Contains(world.Text(r), "octo-alice") {
		t.Fatal("the tracker exchanges tokens: this shows nothing")
	}
	home("needs_reconnect")
	if r, err := agent("first-agent", alice).Call(ctx, "whoami", nil); err != nil || !strings.Contains(world.Text(r), "octo-alice") {
		t.Fatalf("alice is not connected: %v, %v", r, err)
	}
	home("active")
	_, _ = second.Call(ctx, "whoami", nil) // now it is known that token_exchange serves
	home("needs_reconnect")
	before := len(s.Tracker.Calls())
	r, err := second.Call(ctx, "whoami", nil)
	if err == nil && strings.Contains(world.Text(r), "octo-alice") || len(s.Tracker.Calls()) != before {
		t.Errorf("an agent without a grant used what alice connected: %v, %v", world.Text(r), err)
	}
}
