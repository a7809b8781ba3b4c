package stage_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"frontdesk.dev/frontdesk/test/stage"
	"frontdesk.dev/frontdesk/test/world"
)

// program builds a command of the world where a sandbox may read it.
func program(t *testing.T, name string) (dir, path string) {
	t.Helper()
	dir, err := os.MkdirTemp("/var/tmp", "frontdesk-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(dir, name)
	c := exec.Command("go", "build", "-o", path, "frontdesk.dev/frontdesk/test/world/cmd/"+name)
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
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
	dir, path := program(t, "stdio")
	s := start(t, stage.Options{Servers: fmt.Sprintf(`  own: {command: [%s, -early], env: {TRACKER_URL: "{egress:tracker}", TRACKER_TOKEN: "{keycard}"}, sandbox: {read: [%s]}, upstreams: [tracker], allow: [group:engineering]}
`, path, dir)})
	alice, bob := connected(t, s, "alice", "own"), connected(t, s, "bob", "own")
	for range 3 {
		for who, a := range map[string]*world.Agent{"alice": alice, "bob": bob} {
			if text := world.Text(call(t, a, "whoami", nil)); !strings.Contains(text, "octo-"+who) {
				t.Errorf("%s is told: %s", who, text)
			}
		}
	}
	env := world.Text(call(t, alice, "env", nil))
	t.Log(env)
	logs, err := s.Desk().Run("servers", "logs", "own")
	if err != nil {
		t.Fatal(err)
	}
	t.Log(logs)
	list, err := s.Desk().Run("servers", "list")
	if err != nil {
		t.Fatal(err)
	}
	t.Log(list)
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
