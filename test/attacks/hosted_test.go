package attacks_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"frontdesk.dev/frontdesk/test/stage"
	"frontdesk.dev/frontdesk/test/world"
)

// TestA110_aHostedKeycardElsewhere: a hostile program that Frontdesk runs says its keycard in a way that nothing finds. It opens
// nothing from outside of the program's own sandbox, by no door, and nothing in another user's.
func TestA110_aHostedKeycardElsewhere(t *testing.T) {
	s := hostedStage(t)
	alice, bob := hostedUser(t, s, "alice"), hostedUser(t, s, "bob")
	said, ok := strings.CutPrefix(tell(t, alice, "escape", "token"), "got: ")
	card := strings.ReplaceAll(said, " ", "")
	if !ok || len(card) < 40 {
		t.Fatalf("the program did not say its keycard: %q", said)
	}
	if got := tell(t, alice, "escape", "use "+card+" /user"); !strings.Contains(got, "200 ") || !strings.Contains(got, "octo-alice") {
		t.Fatalf("at home it opens what it is for: %s", got)
	}
	before := len(s.Tracker.Calls())
	api := strings.TrimPrefix(s.Tracker.API(), "http://")
	host, path, _ := strings.Cut(api, "/")
	if path != "" {
		path = "/" + path
	}
	egress := strings.TrimPrefix(s.Desk().Egress, "http://")
	head := "Authorization: Bearer " + card + "\r\nConnection: close\r\n\r\n"
	for name, text := range map[string]string{
		"a base URL":    "GET /egress/tracker/user HTTP/1.1\r\nHost: " + egress + "\r\n" + head,
		"absolute form": "GET http://" + api + "/user HTTP/1.1\r\nHost: " + host + "\r\n" + head,
		"a tunnel":      "CONNECT " + host + " HTTP/1.1\r\nHost: " + host + "\r\n\r\nGET " + path + "/user HTTP/1.1\r\nHost: " + host + "\r\n" + head,
	} {
		got := strings.TrimPrefix((&hostile{scene: &scene{Stage: s}}).wire(t, text), "HTTP/1.1 200 Connection established\r\n\r\n")
		if !strings.HasPrefix(got, "HTTP/1.1 40") || !strings.Contains(got, "invalid_token") {
			t.Errorf("%s: %.300q", name, got)
		}
	}
	if got := tell(t, bob, "escape", "use "+card+" /user"); !strings.Contains(got, "401 ") || strings.Contains(got, "octo-alice") {
		t.Errorf("in bob's sandbox: %s", got)
	}
	if n := len(s.Tracker.Calls()); n != before {
		t.Errorf("%d requests reached the tracker", n-before)
	}
	if l := s.Desk().LogLines("came from elsewhere"); len(l) != 4 || strings.Contains(strings.Join(l, ""), card) {
		t.Errorf("the operator is told %d times, want 4: %q", len(l), l)
	}
	if got := tell(t, alice, "whoami", ""); !strings.Contains(got, "octo-alice") {
		t.Errorf("alice is not served any more: %s", got)
	}
}

// hostedStage has a server that is run by Frontdesk.
func hostedStage(t *testing.T) *stage.Stage {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	binary, err := built()
	if err != nil {
		t.Fatal(err)
	}
	dir, program, err := stage.Program(ctx, "stdio")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return stage.Start(t, stage.Options{Binary: binary, Servers: fmt.Sprintf(
		"  own: {command: [%s], env: {TRACKER_URL: \"{egress:tracker}\", TRACKER_TOKEN: \"{keycard}\"}, sandbox: {read: [%s]}, upstreams: [tracker], allow: [group:engineering]}\n", program, dir)})
}

// hostedUser is an agent of somebody who has connected the tracker.
func hostedUser(t *testing.T, s *stage.Stage, name string) *world.Agent {
	t.Helper()
	a, err := world.NewAgent(world.AgentConfig{URL: s.Desk().MCP("own"), Name: "agent of " + name, Browser: s.Person(name, "Later: a tool that needs it will ask then")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Close() })
	if link := linkIn.FindString(tell(t, a, "whoami", "")); link != "" {
		if err := s.Person(name, "Continue to Tracker").Open(t.Context(), link); err != nil {
			t.Fatal(err)
		}
	}
	return a
}

// tell calls a tool of the program with a text, and gives what it says.
func tell(t *testing.T, a *world.Agent, tool, text string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	r, err := a.Call(ctx, tool, map[string]any{"text": text})
	if err != nil {
		t.Fatalf("%s: %v", tool, err)
	}
	return world.Text(r)
}
