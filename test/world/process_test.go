package world_test

import (
	"encoding/json"
	"net/url"
	"strings"
	"testing"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"frontdesk.dev/frontdesk/test/world"
	"frontdesk.dev/frontdesk/test/world/authserver"
	"frontdesk.dev/frontdesk/test/world/capture"
)

func spawn(t *testing.T, program string, args ...string) *world.Process {
	t.Helper()
	p := must[*world.Process](t)(world.Spawn(within(t), program, args...))
	closing(t, p)
	return p
}

func do[T any](t *testing.T, p *world.Process, command string, args url.Values) T {
	t.Helper()
	var out T
	if err := p.Do(within(t), command, args, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// The same parties, each in a process of its own: an agent signs in at the vendor through a person's browser.
func TestProcesses(t *testing.T) {
	program := must[string](t)(world.BuildParty(within(t), t.TempDir()))
	tracker := spawn(t, program, "tracker", "--rotation", "grace", "--access-lifetime", "1m", "--redirect", "http://127.0.0.1:1/callback")
	key := do[string](t, tracker, "api-key", url.Values{"user": {"octo-bob"}, "scope": {world.ScopeRead}})
	issues := spawn(t, program, "issues", "--api", tracker.URL()+"/api", "--stateless")
	agent := spawn(t, program, "agent", "--mcp", issues.URL()+"/mcp", "--token", key)

	canary := "canary-that-goes-through-the-agent"
	args, err := json.Marshal(map[string]any{"text": canary})
	if err != nil {
		t.Fatal(err)
	}
	if res := do[mcp.CallToolResult](t, agent, "call", url.Values{"tool": {"echo"}, "args": {string(args)}}); !strings.Contains(world.Text(&res), canary) {
		t.Errorf("echo: %s", world.Text(&res))
	}
	if res := do[mcp.CallToolResult](t, agent, "call", url.Values{"tool": {"whoami"}}); !strings.Contains(world.Text(&res), "octo-bob") {
		t.Errorf("whoami: %s", world.Text(&res))
	}
	for _, p := range []*world.Process{agent, issues} {
		entries, err := p.Captures(within(t))
		if err != nil || len(capture.Search(entries, canary)) == 0 || len(capture.Search(entries, key)) == 0 {
			t.Errorf("%s: nothing found in %d captures, %v", p.Kind, len(entries), err)
		}
	}
	if calls := do[[]world.APICall](t, tracker, "calls", nil); len(calls) != 1 || calls[0].User != "octo-bob" {
		t.Errorf("calls: %v", calls)
	}
	do[any](t, tracker, "faults", url.Values{"faults": {`{"status": 503, "times": 1}`}})
	if status, _ := get(t, tracker.URL()+"/api/user", key); status != 503 {
		t.Errorf("with a fault: %d", status)
	}
	if err := tracker.Do(within(t), "withdraw", url.Values{"user": {"nobody"}}, nil); err == nil {
		t.Error("a command for nobody succeeded")
	}
}

func TestProcessOfIdPAndVendor(t *testing.T) {
	program := must[string](t)(world.BuildParty(within(t), t.TempDir()))
	idp := spawn(t, program, "idp", "--audience", "https://desk.example")
	if token := do[string](t, idp, "mint", url.Values{"user": {"alice"}, "audience": {"x"}}); strings.Count(token, ".") != 2 {
		t.Errorf("minted %q", token)
	}
	tracker := newTracker(t, world.TrackerConfig{})
	vendor := spawn(t, program, "vendor-mcp", "--tracker", tracker.URL())
	agent := spawn(t, program, "agent", "--mcp", vendor.URL()+"/mcp", "--client-id", "agent")
	tracker.AddClient(authserver.Client{ID: "agent", RedirectURIs: []string{agent.URL() + "/callback"}})
	alice := atTracker(tracker, "octo-alice")
	opened := make(chan error, 1)
	go func() { opened <- alice.Open(within(t), <-agent.Links()) }()
	if res := do[mcp.CallToolResult](t, agent, "call", url.Values{"tool": {"whoami"}}); !strings.Contains(world.Text(&res), "octo-alice") {
		t.Errorf("whoami: %s", world.Text(&res))
	}
	if err := <-opened; err != nil {
		t.Error(err)
	}
}

func TestSpawnSaysWhatFailed(t *testing.T) {
	program := must[string](t)(world.BuildParty(within(t), t.TempDir()))
	for _, args := range [][]string{{"stranger"}, {"issues"}, {"idp", "--listen", "256.0.0.1:1"}} {
		if p, err := world.Spawn(within(t), program, args...); err == nil {
			t.Errorf("%v started", args)
			_ = p.Close()
		}
	}
}
