package stage_test

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"frontdesk.dev/frontdesk/test/stage"
	"frontdesk.dev/frontdesk/test/world"
)

const later = "Later: a tool that needs it will ask then"

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// TestEveryFormOfTheQuestion: a client that declares URL elicitation is asked in its era's form, and its one call goes on by
// itself once the person has answered.
func TestEveryFormOfTheQuestion(t *testing.T) {
	s := start(t, stage.Options{})
	for name, c := range map[string]struct{ server, era, user string }{
		"InputRequiredResult (2026-07-28)":   {"modern", world.Era2026July, "alice"},
		"error -32042 and notice 2025-11-25": {"issues", world.Era2025November, "bob"},
	} {
		t.Run(name, func(t *testing.T) {
			asked := 0
			person := s.Person(c.user, "Continue to Tracker")
			a := agent(t, world.AgentConfig{URL: s.Desk().MCP(c.server), Name: "eliciting", Era: c.era, Browser: s.Person(c.user, later),
				Elicit: world.OpenerFunc(func(ctx context.Context, address string) error { asked++; return person.Open(ctx, address) })})
			r, err := a.Call(within(t), "whoami", nil)
			if err != nil || r.IsError || !strings.Contains(world.Text(r), "octo-"+c.user) {
				t.Fatalf("got %v, %v", r, err)
			}
			if asked != 1 {
				t.Errorf("the person was asked %d times", asked)
			}
		})
	}
}

// TestReload applies a changed file to a running session, and keeps the old one when the new one is wrong.
func TestReload(t *testing.T) {
	s := start(t, stage.Options{})
	ctx := within(t)
	a := agent(t, world.AgentConfig{URL: s.Desk().MCP("issues"), Name: "a", Era: world.Era2025November, Browser: s.Person("alice", "Connect Tracker", "Done")})
	tools := func() string {
		l, err := a.Tools(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return strings.Join(l, " ")
	}
	if before := tools(); !strings.Contains(before, "delete_issue") {
		t.Fatal(before)
	}
	good, err := os.ReadFile(s.Desk().ConfigPath)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(filepath.Dir(s.Desk().ConfigPath), name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("ops.cedar", `@reason("nobody deletes") forbid(principal, action == Action::"call", resource == Tool::"issues/delete_issue");`)
	write("frontdesk.yaml", string(good)+"policies: [ops.cedar]\n")
	if out, err := s.Desk().Run("reload"); err != nil {
		t.Fatal(out)
	}
	if after := tools(); strings.Contains(after, "delete_issue") || !strings.Contains(after, "whoami") {
		t.Errorf("after the reload: %s", after)
	}
	_, hidden := a.Call(ctx, "delete_issue", map[string]any{"number": 1})
	_, madeUp := a.Call(ctx, "no_such_tool", nil)
	if hidden == nil || madeUp == nil || strings.ReplaceAll(hidden.Error(), "delete_issue", "X") != strings.ReplaceAll(madeUp.Error(), "no_such_tool", "X") {
		t.Errorf("hidden: %v, made up: %v", hidden, madeUp)
	}
	write("frontdesk.yaml", string(good)+"policys: [ops.cedar]\n")
	out, err := s.Desk().Run("reload")
	if err == nil || !strings.Contains(out, `did you mean "policies"?`) || !strings.Contains(out, "the old one goes on") {
		t.Errorf("a bad file: %v\n%s", err, out)
	}
	if after := tools(); strings.Contains(after, "delete_issue") {
		t.Error("the bad file changed something")
	}
}

// TestCommandsOfARunningServer asks each of them what a person would.
func TestCommandsOfARunningServer(t *testing.T) {
	s := start(t, stage.Options{})
	ctx := within(t)
	a := agent(t, world.AgentConfig{URL: s.Desk().MCP("issues"), Name: "a", Era: world.Era2025November, Browser: s.Person("alice", "Connect Tracker", "Done")})
	if r, err := a.Call(ctx, "whoami", nil); err != nil || r.IsError {
		t.Fatal(r, err)
	}
	out, err := s.Desk().Run("explain", "--user", "emp-alice", "--server", "issues", "--tool", "whoami")
	if err != nil || !strings.Contains(out, "yes") || !strings.Contains(out, "servers.issues.allow[0]") || !strings.Contains(out, "* authorization_code") {
		t.Errorf("%v\n%s", err, out)
	}
	if out, err = s.Desk().Run("explain", "--user", "nobody", "--group", "sales", "--server", "issues", "--tool", "whoami"); err != nil || !strings.Contains(out, "no: ") {
		t.Errorf("%v\n%s", err, out)
	}
	out, err = s.Desk().Run("connections", "list", "--user", "emp-alice", "--json")
	var l []map[string]any
	if err != nil || json.Unmarshal([]byte(out), &l) != nil || len(l) == 0 {
		t.Fatalf("%v\n%s", err, out)
	}
	if out, err = s.Desk().Run("audit", "tail"); err != nil || !strings.Contains(out, `"tool":"whoami"`) {
		t.Errorf("%v\n%s", err, out)
	}
	if out, err = s.Desk().Run("doctor"); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestKilledAndStartedAgain: what was open is closed as unknown, the log verifies, and the connection works.
func TestKilledAndStartedAgain(t *testing.T) {
	s := start(t, stage.Options{})
	ctx := within(t)
	a := agent(t, world.AgentConfig{URL: s.Desk().MCP("modern"), Name: "a", Era: world.Era2026July, Browser: s.Person("alice", "Connect Tracker", "Done")})
	if r, err := a.Call(ctx, "whoami", nil); err != nil || r.IsError {
		t.Fatal(r, err)
	}
	if err := s.Desk().Kill(); err != nil {
		t.Fatal(err)
	}
	if err := s.Desk().Start(ctx); err != nil {
		t.Fatal(err)
	}
	if r, err := a.Call(ctx, "whoami", nil); err != nil || r.IsError || !strings.Contains(world.Text(r), "octo-alice") {
		t.Fatal(r, err)
	}
	if out, err := s.Desk().Run("audit", "verify"); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestAVendorsOwnServer gets the credential in its header, and only once its user has connected.
func TestAVendorsOwnServer(t *testing.T) {
	s := start(t, stage.Options{})
	ctx := within(t)
	a := agent(t, world.AgentConfig{URL: s.Desk().MCP("tracker"), Name: "a", Era: world.Era2025November, Browser: s.Person("alice", "Connect Tracker", "Done")})
	r, err := a.Call(ctx, "whoami", nil)
	if err != nil || r.IsError || !strings.Contains(world.Text(r), "octo-alice") {
		t.Fatalf("got %v, %v", r, err)
	}
	b := agent(t, world.AgentConfig{URL: s.Desk().MCP("tracker"), Name: "b", Era: world.Era2025November, Browser: s.Person("bob", later)})
	tools, err := b.Tools(ctx)
	if err != nil || len(tools) != 1 || tools[0] != "connect" {
		t.Fatalf("before bob connects: %v, %v", tools, err)
	}
	r, err = b.Call(ctx, "connect", nil)
	if err != nil || !r.IsError || !strings.Contains(world.Text(r), "/connect/") {
		t.Fatalf("got %v, %v", r, err)
	}
}

// TestPastedKey: a person without OAuth pastes a key, which is tried before it is kept.
func TestPastedKey(t *testing.T) {
	s := start(t, stage.Options{Methods: "[api_key]"})
	ctx := within(t)
	a := agent(t, world.AgentConfig{URL: s.Desk().MCP("modern"), Name: "a", Era: world.Era2026July, Browser: s.Person("alice", later)})
	r, err := a.Call(ctx, "whoami", nil)
	if err != nil || !r.IsError {
		t.Fatal(r, err)
	}
	link := world.Text(r)[strings.LastIndex(world.Text(r), "\n")+1:]
	b := s.Person("alice")
	for _, key := range []string{"not a key at all", "trk_0000000000000000000000", s.Tracker.NewAPIKey("octo-alice", world.ScopeRead, world.ScopeWrite)} {
		if err := b.Open(ctx, link); err != nil {
			t.Fatal(err)
		}
		if _, err := b.Click(ctx, "Paste a key"); err != nil {
			t.Fatal(err)
		}
		if err := b.Fill("Key", key); err != nil {
			t.Fatal(err)
		}
		page, err := b.Click(ctx, "Test and save")
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(page.Text(), key) {
			t.Error("the page shows the key")
		}
	}
	if r, err = a.Call(ctx, "whoami", nil); err != nil || r.IsError || !strings.Contains(world.Text(r), "octo-alice") {
		t.Fatal(r, err, b.Page().Text())
	}
}
