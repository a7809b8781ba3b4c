package stage_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"frontdesk.dev/frontdesk/test/stage"
	"frontdesk.dev/frontdesk/test/world"
)

// TestVendorByURLAlone: a vendor's own MCP server is an upstream by its URL; who its authorization server is is found when somebody
// connects, the token is for it alone, and a restart knows it without asking.
func TestVendorByURLAlone(t *testing.T) {
	at := port(t)
	mcp := "http://" + at + "/mcp"
	s := start(t, stage.Options{
		Callback: []string{"own"},
		Upstream: "  own: {url: \"" + mcp + "\", title: Own, client_id: frontdesk, client_secret: file:tracker.secret}\n",
		Servers:  "  own: {url: \"" + mcp + "\", upstreams: [own], deliver: header, allow: [group:engineering]}\n",
	})
	v, err := world.NewVendorMCP(world.VendorMCPConfig{Listen: at, Tracker: s.Tracker.URL(), Stateless: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = v.Close() })
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	alice := s.Person("alice", "Connect Own", "Done")
	a := agent(t, world.AgentConfig{URL: s.Desk().MCP("own"), Name: "test agent", Era: world.Era2025November, Browser: alice})
	r, err := a.Call(ctx, "whoami", nil)
	if err == nil && r.IsError { // asked in the call: the person answers, and the agent tries again
		if text := world.Text(r); strings.Contains(text, s.Desk().Public) {
			if err := alice.Open(ctx, strings.Fields(text[strings.LastIndex(text, s.Desk().Public):])[0]); err != nil {
				t.Fatal(err)
			}
		}
		r, err = a.Call(ctx, "whoami", nil)
	}
	if err != nil || r.IsError || !strings.Contains(world.Text(r), "octo-alice") {
		t.Fatalf("%v %v", err, r)
	}
	if err := s.Desk().Stop(); err != nil {
		t.Fatal(err)
	}
	if err := s.Desk().Start(ctx); err != nil {
		t.Fatal(err)
	}
	if n := len(s.Desk().LogLines("authorization server of an MCP server was found")); n != 0 {
		t.Errorf("it was looked for again %d times", n)
	}
}
