package stage_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"frontdesk.dev/frontdesk/internal/hosted"
	"frontdesk.dev/frontdesk/test/stage"
	"frontdesk.dev/frontdesk/test/world"
)

// program builds a command of the world where a sandbox may read it.
func program(t *testing.T, name string) (dir, path string) {
	t.Helper()
	dir, path, err := stage.Program(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir, path
}

// connected is an agent of somebody who has connected the tracker.
func connected(t *testing.T, s *stage.Stage, who, server string) *world.Agent {
	t.Helper()
	a := agent(t, world.AgentConfig{URL: s.Desk().MCP(server), Name: "agent of " + who, Browser: s.Person(who, "Later: a tool that needs it will ask then")})
	r := call(t, a, "whoami", nil)
	if link := world.Text(r); r.IsError && strings.Contains(link, "/connect/") {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		if err := s.Person(who, "Continue to Tracker").Open(ctx, link[strings.LastIndex(link, "\n")+1:]); err != nil {
			t.Fatal(err)
		}
	}
	return a
}

// TestHostedServer: a program with a token in its environment serves two users at once, each as himself, and neither it nor
// the agent ever sees a credential.
func TestHostedServer(t *testing.T) {
	s := own(t)
	alice, bob := connected(t, s, "alice", "own"), connected(t, s, "bob", "own")
	for range 3 {
		for who, a := range map[string]*world.Agent{"alice": alice, "bob": bob} {
			if text := world.Text(call(t, a, "whoami", nil)); !strings.Contains(text, "octo-"+who) {
				t.Errorf("%s is told: %s", who, text)
			}
		}
	}
	env := world.Text(call(t, alice, "env", nil))
	if !strings.Contains(env, "TRACKER_TOKEN=***") || !strings.Contains(env, "TRACKER_URL=http://127.0.0.1:3128/egress/tracker") || strings.Contains(env, "FRONTDESK") {
		t.Errorf("its environment: %s", env)
	}
	logs, err := s.Desk().Run("servers", "logs", "own", "--user", "emp-alice")
	if err != nil || strings.Count(logs, "client ") != 1 || !strings.Contains(logs, "starting with token ***") || !strings.Contains(logs, "early: 403") {
		t.Errorf("its log: %v %s", err, logs)
	}
	if _, err := s.Desk().Run("servers", "logs", "issues"); err == nil {
		t.Error("there is a log of a server that runs elsewhere")
	}
}

func call(t *testing.T, a *world.Agent, tool string, args map[string]any) *mcp.CallToolResult {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	r, err := a.Call(ctx, tool, args)
	if err != nil {
		t.Fatalf("%s: %v", tool, err)
	}
	return r
}

// own is a stage with the world's stdio server behind /mcp/own.
func own(t *testing.T) *stage.Stage { return ownWith(t, stage.Options{}) }

func ownWith(t *testing.T, o stage.Options) *stage.Stage {
	t.Helper()
	o.Servers = ownServer(t)
	return start(t, o)
}

// ownServer is its entry in the config.
func ownServer(t *testing.T) string {
	t.Helper()
	dir, path := program(t, "stdio")
	return fmt.Sprintf(`  own: {command: [%s, -early], env: {TRACKER_URL: "{egress:tracker}", TRACKER_TOKEN: "{keycard}"}, sandbox: {read: [%s]}, upstreams: [tracker], allow: [group:engineering]}
`, path, dir)
}

// running are the processes of hosted servers.
func running(t *testing.T, s *stage.Stage) (l []hosted.State) {
	t.Helper()
	out, err := s.Desk().Run("servers", "list", "--json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(out), &l); err != nil {
		t.Fatal(err)
	}
	return l
}

// gone waits until a process is no more.
func gone(t *testing.T, pid int, within time.Duration) {
	t.Helper()
	for end := time.Now().Add(within); syscall.Kill(pid, 0) == nil; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("process %d lives on after %s", pid, within)
		}
	}
}

// TestHostedEnds: when a person's access ends, so do his process and its keycard; when Frontdesk is killed, nothing stays.
func TestHostedEnds(t *testing.T) {
	s := own(t)
	alice := connected(t, s, "alice", "own")
	first := running(t, s)
	bob := connected(t, s, "bob", "own")
	both := running(t, s)
	if len(first) != 1 || len(both) != 2 {
		t.Fatalf("want a process each: %v %v", first, both)
	}
	if said, err := s.Desk().Run("doctor"); err != nil || !strings.Contains(said, "these walls stand here: ") {
		t.Errorf("doctor: %v %s", err, said)
	}
	resp, err := http.PostForm(s.Desk().Public+"/revoke", url.Values{"client_id": {string(first[0].Client)}, "token": {alice.AccessToken()}})
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Fatal(resp.Status)
	}
	gone(t, first[0].Pid, 5*time.Second)
	left := running(t, s)
	if len(left) != 1 || left[0].User == first[0].User {
		t.Fatalf("left is %v", left)
	}
	if text := world.Text(call(t, bob, "whoami", nil)); !strings.Contains(text, "octo-bob") {
		t.Errorf("bob is told: %s", text)
	}
	acts, err := s.Desk().Run("audit", "tail", "--json")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(acts, `"process"`) || !strings.Contains(acts, "the user's access has ended") {
		t.Errorf("the log does not say how alice's process ended: %s", acts)
	}
	if err := s.Desk().Kill(); err != nil {
		t.Fatal(err)
	}
	gone(t, left[0].Pid, 5*time.Second)
}

// TestHostedThatDoesNotRun: what an agent is told of a program that cannot live, and where its operator finds why.
func TestHostedThatDoesNotRun(t *testing.T) {
	const entries = `  gone: {command: [no-such-server], allow: [group:engineering]}
  dies: {command: [/bin/sh, -c, "echo give me an account >&2; exit 9"], allow: [group:engineering]}
`
	s := start(t, stage.Options{Servers: entries})
	for server, want := range map[string]string{"gone": "no-such-server cannot be run in the sandbox", "dies": "exit status 9"} {
		a := agent(t, world.AgentConfig{URL: s.Desk().MCP(server), Name: "agent", Era: world.Era2026July, Browser: s.Person("alice", later)})
		_, err := a.Call(within(t), "anything", nil)
		if err == nil || !strings.Contains(err.Error(), "does not run") || !strings.Contains(err.Error(), "`frontdesk servers logs "+server+"`") || strings.Contains(err.Error(), want) {
			t.Errorf("the agent is told: %v", err)
		}
		for _, command := range [][]string{{"servers", "list"}, {"servers", "logs", server}} {
			if out, err := s.Desk().Run(command...); err != nil || !strings.Contains(out, want) {
				t.Errorf("%v: %v %s", command, err, out)
			}
		}
		if l := s.Desk().LogLines("a hosted server does not start"); len(l) == 0 || !strings.Contains(l[len(l)-1], want) {
			t.Errorf("the log: %q", l)
		}
	}
	if out, err := s.Desk().Run("servers", "logs", "dies"); err != nil || !strings.Contains(out, "give me an account") {
		t.Errorf("%v %s", err, out)
	}
	if out, err := s.Desk().Run("check", s.Desk().ConfigPath); err != nil || !strings.Contains(out, "there is no program no-such-server on this machine") || strings.Contains(out, "no program /bin/sh") {
		t.Errorf("check: %v %s", err, out)
	}
}

// TestHostedEras: a client without a handshake is served by a program that knows only that, and the other way round.
func TestHostedEras(t *testing.T) {
	dir, path := program(t, "stdio")
	entry := func(name, args string) string {
		return fmt.Sprintf(`  %s: {command: [%s%s], sandbox: {read: [%s]}, allow: [group:engineering]}
`, name, path, args, dir)
	}
	s := start(t, stage.Options{Servers: entry("old", ", -legacy") + entry("new", "")})
	for _, server := range []string{"old", "new"} {
		for _, era := range []string{world.Era2025June, world.Era2025November, world.Era2026July} {
			t.Run(server+" "+era, func(t *testing.T) {
				a := agent(t, world.AgentConfig{URL: s.Desk().MCP(server), Name: "agent " + server + era, Era: era, Progress: true, Browser: s.Person("alice", "Later: a tool that needs it will ask then")})
				ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
				defer cancel()
				session, err := a.Session(ctx)
				if err != nil {
					t.Fatal(err)
				}
				if got := session.InitializeResult().ProtocolVersion; got != era {
					t.Errorf("agreed on %s", got)
				}
				if text := world.Text(call(t, a, "echo", map[string]any{"text": "hi"})); text != "hi" {
					t.Errorf("got %q", text)
				}
				if text := world.Text(call(t, a, "slow", map[string]any{"text": "30ms"})); text != "done" {
					t.Errorf("got %q", text)
				}
				if _, err := a.AwaitNotice(ctx, "notifications/progress"); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// text calls a tool with a text, and gives what it says.
func text(t *testing.T, a *world.Agent, tool, with string) string {
	t.Helper()
	return world.Text(call(t, a, tool, map[string]any{"text": with}))
}
