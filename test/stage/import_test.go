package stage_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"frontdesk.dev/frontdesk/test/stage"
	"frontdesk.dev/frontdesk/test/world"
	"frontdesk.dev/frontdesk/test/world/authserver"
)

// TestImport: a deployment that begins anew takes over what people had connected elsewhere. They are asked for nothing at the
// vendor again, and no agent uses it before they say so.
func TestImport(t *testing.T) {
	s := start(t, stage.Options{Config: "tenants: {}\n"})
	d, ctx := s.Desk(), within(t)
	for _, name := range []string{"alice", "bob"} {
		a := agent(t, world.AgentConfig{URL: d.MCP("modern"), Name: "elsewhere", Era: world.Era2026July, Browser: s.Person(name, "Connect Tracker", "Done")})
		if r, err := a.Call(ctx, "whoami", nil); err != nil || r.IsError {
			t.Fatal(r, err)
		}
	}
	token := func(user, kind string) (value string) {
		for _, i := range s.Tracker.Tokens() {
			if i.User == user && i.Kind == kind {
				value = i.Value
			}
		}
		if value == "" {
			t.Fatalf("%s has no %s token", user, kind)
		}
		return value
	}
	if err := d.Stop(); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{"frontdesk.db", "frontdesk.db-wal", "frontdesk.db-shm"} {
		_ = os.Remove(filepath.Join(d.Dir, file))
	}
	if err := d.Start(ctx); err != nil {
		t.Fatal(err)
	}
	key := s.Tracker.NewAPIKey("octo-dora", "issues:read", "issues:write")
	file := filepath.Join(s.Dir, "old.csv")
	write := func(mode os.FileMode, rows ...string) {
		t.Helper()
		_ = os.Remove(file)
		text := "subject,upstream,access_token,refresh_token,api_key,scopes,account\n" + strings.Join(rows, "\n") + "\n"
		if err := os.WriteFile(file, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	alice := fmt.Sprintf("emp-alice,tracker,%s,%s,,issues:read issues:write,", token("octo-alice", "access"), token("octo-alice", "refresh"))
	bob := fmt.Sprintf("emp-bob,tracker,,%s,,issues:read issues:write,octo-bob", token("octo-bob", "refresh"))
	dora := fmt.Sprintf("emp-dora,tracker,,,%s,,", key)
	run := func(fails bool, says string, args ...string) {
		t.Helper()
		out, err := d.Run(append([]string{"connections", "import", file}, args...)...)
		if (err != nil) != fails || !strings.Contains(out, says) {
			t.Errorf("import %v: %v\n%s", args, err, out)
		}
		for _, secret := range []string{key, token("octo-alice", "access"), token("octo-alice", "refresh"), token("octo-bob", "refresh")} {
			if strings.Contains(out, secret) || strings.Contains(d.Log(), secret) {
				t.Errorf("a credential is said: %s", out)
			}
		}
	}
	write(0o644, alice)
	run(true, "can be read by others (mode 0644)")
	write(0o600, alice, bob, dora)
	run(true, "old.csv:2: nobody with this subject has signed in; --new-people takes such lines too")
	run(false, "3 connections: 3 would be stored, 0 there already; 1 to be renewed before they are used", "--new-people", "--dry-run")
	if out, err := d.Run("connections", "list", "--user", "emp-alice"); err == nil {
		t.Errorf("a dry run stored something: %s", out)
	}

	// Nothing is stored while a line is wrong; all that is wrong comes at once.
	write(0o600, alice, "emp-x,nowhere,a,,,,", "emp-y,tracker,,,,,", "emp-z,tracker,tok,,key,,", "emp-w,tracker")
	run(true, "old.csv:3: there is no upstream of that name at its tenant; there are [tracker]", "--new-people")
	run(true, "old.csv:4: it has no credential: access_token, refresh_token or api_key", "--new-people")
	run(true, "old.csv:5: it has an api_key and a token: one of them is the credential", "--new-people")
	run(true, "old.csv:6: the line has another number of fields than the header, which has 7", "--new-people")
	if out, err := d.Run("connections", "list", "--user", "emp-alice"); err == nil {
		t.Errorf("a file with problems stored something: %s", out)
	}
	run(true, "1 stored, 0 there already", "--new-people", "--partial")

	write(0o600, alice, bob, dora)
	run(false, "3 connections: 2 stored, 1 there already; 1 to be renewed before they are used", "--new-people")
	run(false, "3 connections: 0 stored, 3 there already", "--new-people")
	write(0o600, "emp-dora,tracker,,,trk_0000000000000000000000,,")
	run(true, "does not accept this credential", "--replace")
	list := func(subject, want string) {
		t.Helper()
		until(t, subject+" has "+want, func() bool {
			out, err := d.Run("connections", "list", "--user", subject)
			return err == nil && strings.Contains(out, want)
		})
	}
	list("emp-alice", "octo-alice  active")
	list("emp-dora", "octo-dora  active")
	until(t, "bob's was renewed by itself", func() bool {
		for _, r := range s.Tracker.Redemptions() {
			if r.User == "octo-bob" && r.Outcome == authserver.Renewed {
				return true
			}
		}
		return false
	})
	list("emp-bob", "octo-bob  active")

	codes := func() (n int) {
		for _, i := range s.Tracker.Tokens() {
			if i.Kind == "code" {
				n++
			}
		}
		return n
	}
	before := codes()
	bearer, err := s.IdP.MintAccessToken("alice", "api://frontdesk", map[string]any{"groups": []string{"engineering"}})
	if err != nil {
		t.Fatal(err)
	}
	direct := agent(t, world.AgentConfig{URL: d.MCP("modern"), Name: "direct", Era: world.Era2026July, Token: bearer})
	if r, err := direct.Call(ctx, "whoami", nil); err != nil || !strings.Contains(world.Text(r), "has not allowed this agent") {
		t.Errorf("an agent used what was imported unasked: %v %v", world.Text(r), err)
	}
	for _, name := range []string{"alice", "bob", "dora"} { // who signs in for an agent says yes to it on the way
		a := agent(t, world.AgentConfig{URL: d.MCP("modern"), Name: "new agent", Era: world.Era2026July, Browser: s.Person(name, later)})
		if r, err := a.Call(ctx, "whoami", nil); err != nil || !strings.Contains(world.Text(r), "octo-"+name) {
			t.Errorf("%s: %v %v", name, world.Text(r), err)
		}
	}
	if codes() != before {
		t.Error("somebody was sent to the vendor again")
	}
	if out, err := d.Run("audit", "tail"); err != nil || strings.Count(out, "operator.imported") != 3 {
		t.Errorf("the log: %v\n%s", err, out)
	}
	if out, err := d.Run("audit", "verify", "--vault"); err != nil || !strings.Contains(out, "whole") {
		t.Errorf("%v %s", err, out)
	}
}
