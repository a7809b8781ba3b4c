package stage_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"frontdesk.dev/frontdesk/internal/admin"
	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/test/stage"
	"frontdesk.dev/frontdesk/test/world"
)

// as presses a button at our pages that leads to the tracker, and says yes there with an account.
func as(t *testing.T, s *stage.Stage, p *world.Person, button, name string) string {
	t.Helper()
	p.HasAccount(s.Tracker.URL(), name)
	shown, err := p.Click(within(t), button)
	if err == nil {
		err = p.Open(within(t), shown.URL.String())
	}
	if err != nil {
		t.Fatal(err)
	}
	return p.Page().Text()
}

func whoami(t *testing.T, a *world.Agent) string {
	t.Helper()
	r, err := a.Call(within(t), "whoami", nil)
	if err != nil {
		t.Fatal(err)
	}
	return world.Text(r)
}

// TestSeveralAccounts: a second account of one person stands beside the first; each agent uses the one that its person chose, on the
// page that asks or in the portal, calls, explain and the log go by it, and the end of one leaves the other.
func TestSeveralAccounts(t *testing.T) {
	s := start(t, stage.Options{Allow: "[everyone]"})
	portal := s.Desk().Public + "/portal/"
	alice := s.Person("alice")
	first := agent(t, world.AgentConfig{URL: s.Desk().MCP("modern"), Name: "first", Era: world.Era2026July, Browser: s.Person("alice", "Connect Tracker", "Done")})
	if got := whoami(t, first); !strings.Contains(got, "octo-alice") {
		t.Fatal(got)
	}
	if page := reads(t, alice, portal); strings.Contains(page, "New agents use this account") {
		t.Errorf("of one account, the page speaks of several: %s", page)
	}
	if page := as(t, s, alice, "Connect another account of Tracker", "octo-dora"); !strings.Contains(page, "Tracker is connected as octo-dora") {
		t.Fatalf("a second account: %s", page)
	}
	page := reads(t, alice, portal)
	if !strings.Contains(page, "Tracker: octo-alice") || !strings.Contains(page, "Tracker: octo-dora") {
		t.Fatalf("the page does not list both: %s", page)
	}
	if got := whoami(t, first); !strings.Contains(got, "octo-alice") {
		t.Errorf("an agent changed its account by itself: %s", got)
	}

	// An agent that has nothing yet is asked, and the page offers both.
	second := agent(t, world.AgentConfig{URL: s.Desk().MCP("issues"), Name: "second", Era: world.Era2025November, Browser: s.Person("alice", later)})
	if got := whoami(t, second); !strings.Contains(got, "octo-alice") {
		t.Errorf("its consent gave a new agent %s", got)
	}
	_, agents := ids(t, s, "emp-alice")
	if status := posts(t, s, alice, "/portal/grant/end", url.Values{"client": {agents["issues"]}, "server": {"issues"}, "upstream": {"tracker"}}); status != http.StatusSeeOther {
		t.Fatal(status)
	}
	link := asksFor(t, second)
	if page := reads(t, alice, link); !strings.Contains(page, "Which account is it to use?") {
		t.Fatalf("the page offers no choice: %s", page)
	}
	if shown, err := alice.Click(within(t), "Use octo-dora"); err != nil || !strings.Contains(shown.Text(), "Tracker is connected as octo-dora") {
		t.Fatal(err, alice.Page().Text())
	}
	chosen := time.Now()
	if got := whoami(t, second); !strings.Contains(got, "octo-dora") {
		t.Errorf("the chosen account is not used: %s", got)
	}
	if got := whoami(t, first); !strings.Contains(got, "octo-alice") {
		t.Errorf("the first agent uses what was chosen for the second: %s", got)
	}
	// Explain and the log name the connection that each one uses.
	connections, _ := ids(t, s, "emp-alice")
	for server, account := range map[string]string{"modern": "octo-alice", "issues": "octo-dora"} {
		out, err := s.Desk().Run("explain", "--user", "emp-alice", "--client", agents[server], "--server", server, "--tool", "whoami")
		if err != nil || !strings.Contains(out, "connection  "+connections[account]) {
			t.Errorf("explain says of %s: %v %s", server, err, out)
		}
		for _, k := range records(t, s) {
			if k.Action == "api" && k.Server == server && k.Kind == audit.KindOutcome && k.Time.After(chosen) && k.Connection != connections[account] {
				t.Errorf("at %s a request went out with connection %s, want %s", server, k.Connection, connections[account])
			}
		}
	}

	// The portal gives an agent another account, and new agents one.
	move := url.Values{"client": {agents["modern"]}, "server": {"modern"}, "upstream": {"tracker"}, "connection": {connections["octo-dora"]}}
	if status := posts(t, s, alice, "/portal/grant/account", move); status != http.StatusSeeOther {
		t.Errorf("the choice in the portal: %d", status)
	}
	if got := whoami(t, first); !strings.Contains(got, "octo-dora") {
		t.Errorf("after the choice in the portal: %s", got)
	}
	move.Set("connection", connections["octo-alice"])
	posts(t, s, alice, "/portal/grant/account", move)
	if status := posts(t, s, alice, "/portal/prefer/"+connections["octo-dora"], nil); status != http.StatusSeeOther {
		t.Errorf("the choice for new agents: %d", status)
	}
	third := agent(t, world.AgentConfig{URL: s.Desk().MCP("modern"), Name: "third", Era: world.Era2026July, Browser: s.Person("alice", "Done")})
	if got := whoami(t, third); !strings.Contains(got, "octo-dora") {
		t.Errorf("a new agent uses %s", got)
	}

	// One ends, the other does not notice.
	reads(t, alice, portal)
	if shown, err := alice.Click(within(t), "Disconnect Tracker (octo-dora)"); err != nil || !strings.Contains(shown.Text(), "Disconnected from Tracker") {
		t.Fatal(err)
	}
	if got := whoami(t, first); !strings.Contains(got, "octo-alice") {
		t.Errorf("the end of one account ended the other: %s", got)
	}
	if r, err := second.Call(within(t), "whoami", nil); err != nil || !r.IsError || !strings.Contains(world.Text(r), "/connect/") {
		t.Errorf("an agent whose account has ended goes on with another one: %v %v", r, err)
	}
}

// ids are a person's connections at the tracker by account, and agents by server.
func ids(t *testing.T, s *stage.Stage, user string) (connections, agents map[string]string) {
	t.Helper()
	out, err := s.Desk().Run("connections", "list", "--user", user, "--json")
	var l []admin.Connection
	if err != nil || json.Unmarshal([]byte(out), &l) != nil {
		t.Fatal(err, out)
	}
	connections, agents = map[string]string{}, map[string]string{}
	for _, c := range l {
		if c.Upstream == "tracker" {
			connections[c.Account] = string(c.ID)
		}
	}
	for _, k := range records(t, s) {
		if k.Action == "call" {
			agents[k.Server] = string(k.Client)
		}
	}
	return connections, agents
}

// records are all of the log.
func records(t *testing.T, s *stage.Stage) []audit.Record {
	t.Helper()
	out, err := s.Desk().Run("audit", "export")
	if err != nil {
		t.Fatal(out)
	}
	var l []audit.Record
	for line := range strings.Lines(out) {
		var row struct{ Record audit.Record }
		if err := json.Unmarshal([]byte(line), &row); err != nil {
			t.Fatal(err)
		}
		l = append(l, row.Record)
	}
	return l
}

// posts sends a form as the person's browser at our own page does.
func posts(t *testing.T, s *stage.Stage, p *world.Person, path string, form url.Values) int {
	t.Helper()
	r, err := http.NewRequestWithContext(within(t), http.MethodPost, s.Desk().Public+path, strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range p.Cookies(s.Desk().Public + path) {
		r.AddCookie(c)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Origin", s.Desk().Public)
	r.Header.Set("Sec-Fetch-Site", "same-origin")
	c := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	if err := resp.Body.Close(); err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode
}
