package stage_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"frontdesk.dev/frontdesk/test/stage"
	"frontdesk.dev/frontdesk/test/world"
)

func start(t *testing.T, o stage.Options) *stage.Stage {
	t.Helper()
	return stage.Start(t, o)
}

func agent(t *testing.T, cfg world.AgentConfig) *world.Agent {
	t.Helper()
	a, err := world.NewAgent(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Close() })
	return a
}

// TestTheWholePath is the story: asked, connected, answered, as the right user, in every era.
func TestTheWholePath(t *testing.T) {
	s := start(t, stage.Options{})
	for _, way := range [][2]string{{"issues", world.Era2025November}, {"modern", world.Era2026July}} { // in this order: after the first she is connected
		server, era := way[0], way[1]
		t.Run(server, func(t *testing.T) {
			alice := s.Person("alice", "Later: a tool that needs it will ask then")
			a := agent(t, world.AgentConfig{URL: s.Desk().MCP(server), Name: "test agent", Era: era, Browser: alice})
			ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
			defer cancel()
			r, err := a.Call(ctx, "whoami", nil)
			if err != nil {
				t.Fatal(err)
			}
			text := world.Text(r)
			if server == "issues" && (!r.IsError || !strings.Contains(text, s.Desk().Public+"/connect/")) {
				t.Fatalf("not connected, but the agent was told: %q", text)
			}
			if r.IsError {
				link := text[strings.LastIndex(text, "\n")+1:]
				connects := s.Person("alice", "Continue to Tracker")
				if err := connects.Open(ctx, link); err != nil {
					t.Fatal(err)
				}
				if r, err = a.Call(ctx, "whoami", nil); err != nil {
					t.Fatal(err)
				}
			}
			if text := world.Text(r); r.IsError || !strings.Contains(text, "octo-alice") {
				t.Fatalf("connected, but the agent was told: %q", text)
			}
		})
	}
}
