package stage_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/test/stage"
	"frontdesk.dev/frontdesk/test/world"
	"frontdesk.dev/frontdesk/test/world/authserver"
)

// reads is what a person reads at a page of the desk.
func reads(t *testing.T, p *world.Person, address string) string {
	t.Helper()
	if err := p.Open(within(t), address); err != nil {
		t.Fatal(err)
	}
	return p.Page().Text()
}

// asksFor is the link that an agent's tool result gives.
func asksFor(t *testing.T, a *world.Agent) string {
	t.Helper()
	r, err := a.Call(within(t), "whoami", nil)
	if err != nil || !r.IsError || !strings.Contains(world.Text(r), "/connect/") {
		t.Fatalf("it is not asked: %v, %v", r, err)
	}
	return world.Text(r)[strings.LastIndex(world.Text(r), "\n")+1:]
}

// TestWhoGoesOn: the last page says that the agent goes on by itself where it does, and that it has to be asked again where it does not.
func TestWhoGoesOn(t *testing.T) {
	s := start(t, stage.Options{Allow: "[everyone]"})
	alice := s.Person("alice", "Continue to Tracker")
	a := agent(t, world.AgentConfig{URL: s.Desk().MCP("issues"), Name: "asked again", Era: world.Era2025November, Browser: s.Person("alice", later)})
	if page := reads(t, alice, asksFor(t, a)); !strings.Contains(page, "Go back to your agent, and ask it again.") {
		t.Errorf("after a tool result: %s", page)
	}
	for name, c := range map[string]struct{ server, era, user string }{"2026-07-28": {"modern", world.Era2026July, "bob"}, "2025-11-25": {"issues", world.Era2025November, "carol"}} {
		t.Run(name, func(t *testing.T) {
			person := s.Person(c.user, "Continue to Tracker")
			a := agent(t, world.AgentConfig{URL: s.Desk().MCP(c.server), Name: "goes on", Era: c.era, Browser: s.Person(c.user, later), Elicit: person})
			if r, err := a.Call(within(t), "whoami", nil); err != nil || r.IsError {
				t.Fatal(r, err)
			}
			if page := person.Page().Text(); !strings.Contains(page, "it goes on by itself") {
				t.Errorf("it did go on, and the page said: %s", page)
			}
		})
	}
}

// TestEndingIsShown: what the vendor has not confirmed yet stands on the page of connections.
func TestEndingIsShown(t *testing.T) {
	s := start(t, stage.Options{})
	a := agent(t, world.AgentConfig{URL: s.Desk().MCP("modern"), Name: "a", Era: world.Era2026July, Browser: s.Person("alice", "Connect Tracker", "Done")})
	if r, err := a.Call(within(t), "whoami", nil); err != nil || r.IsError {
		t.Fatal(r, err)
	}
	s.Tracker.SetFaults(authserver.Faults{Down: true, Path: "/revoke"})
	alice := s.Person("alice", "Disconnect Tracker")
	if page := reads(t, alice, s.Desk().Public+"/portal/"); !strings.Contains(page, "has not answered yet; we keep asking") {
		t.Fatalf("disconnected while the vendor is away: %s", page)
	}
	if page := reads(t, alice, s.Desk().Public+"/portal/"); !strings.Contains(page, "Ended here, not yet confirmed") || !strings.Contains(page, "Tracker ended here just now") {
		t.Errorf("the page of connections says nothing of it: %s", page)
	}
	if page := reads(t, s.Person("bob"), s.Desk().Public+"/portal/"); strings.Contains(page, "not yet confirmed") {
		t.Errorf("bob sees it: %s", page)
	}
}

// TestConsentCountsTools: who is asked to let an agent in reads how many tools it would get, once they are known, and only those
// that policy lets him call. Where the page is another process's than policy, that is asked for his visit.
func TestConsentCountsTools(t *testing.T) {
	o := stage.Options{Files: map[string]string{"p.cedar": `forbid(principal, action, resource == Tool::"issues/delete_issue");`}, Config: "policies: [p.cedar]\n"}
	t.Run("one process", func(t *testing.T) { countsTools(t, start(t, o)) })
	t.Run("two", func(t *testing.T) {
		a := twoAccounts(t)
		o.Database, o.Domains = a.broker, a.domains(t)
		countsTools(t, start(t, o))
	})
}

func countsTools(t *testing.T, s *stage.Stage) {
	consent := func(name string) (page string) {
		asked := s.Person("alice", later)
		asks := world.NewPerson() // who stops at the question
		asks.HasAccount(s.IdP.URL(), "alice")
		ctx, cancel := context.WithCancel(within(t))
		defer cancel()
		a := agent(t, world.AgentConfig{URL: s.Desk().MCP("issues"), Name: name, Era: world.Era2025November, Browser: world.OpenerFunc(func(ctx context.Context, address string) error {
			if err := asks.Open(ctx, address); err != nil {
				return err
			}
			page = asks.Page().Text()
			return asked.Open(ctx, address)
		})})
		if _, err := a.Tools(ctx); err != nil {
			t.Fatal(err)
		}
		return page
	}
	if page := consent("first"); !strings.Contains(page, "use issues as you?") || strings.Contains(page, "only read") {
		t.Errorf("before anybody has listed the tools: %s", page)
	}
	if page := consent("second"); !strings.Contains(page, "you have 2 that only read, and 4 that can change things") {
		t.Errorf("afterwards: %s", page)
	}
}

// TestKeysLastDay: the day that a person gives for his key is kept, shown and told before it comes; one that is over is refused.
func TestKeysLastDay(t *testing.T) {
	s := start(t, stage.Options{Methods: "[api_key]"})
	a := agent(t, world.AgentConfig{URL: s.Desk().MCP("modern"), Name: "a", Era: world.Era2026July, Browser: s.Person("alice", later)})
	link := asksFor(t, a)
	ctx := within(t)
	alice := s.Person("alice", "Paste a key")
	paste := func(day time.Time) string {
		t.Helper()
		if err := alice.Open(ctx, link); err != nil {
			t.Fatal(err)
		}
		for field, value := range map[string]string{"key": s.Tracker.NewAPIKey("octo-alice", world.ScopeRead, world.ScopeWrite), "expires": day.Format(time.DateOnly)} {
			if err := alice.Fill(field, value); err != nil {
				t.Fatal(err)
			}
		}
		page, err := alice.Click(ctx, "Test and save")
		if err != nil {
			t.Fatal(err)
		}
		return page.Text()
	}
	if page := paste(time.Now().UTC().AddDate(0, 0, -1)); !strings.Contains(page, "nothing was saved") {
		t.Errorf("a day that is over: %s", page)
	}
	last := time.Now().UTC().AddDate(0, 0, 3)
	if page := paste(last); !strings.Contains(page, "Tracker is connected as octo-alice") {
		t.Fatalf("a day to come: %s", page)
	}
	if page := reads(t, alice, s.Desk().Public+"/portal/"); !strings.Contains(page, "ends soon") || !strings.Contains(page, "Make a new key there and paste it here before that") || !strings.Contains(page, "Connect Tracker again") || strings.Contains(page, "not by itself") {
		t.Errorf("three days before: %s", page)
	}
	out, err := s.Desk().Run("connections", "list", "--user", "emp-alice", "--json")
	var l []struct {
		Upstream string
		Expires  time.Time
	}
	if err != nil || json.Unmarshal([]byte(out), &l) != nil {
		t.Fatal(err, out)
	}
	end := last.Truncate(24*time.Hour).AddDate(0, 0, 1) // when that day is over
	for _, c := range l {
		if c.Upstream == "tracker" && !c.Expires.Equal(end) {
			t.Errorf("it ends at %s, want %s", c.Expires, end)
		}
	}
}

// TestActivityOfARealLog: the page of what was done shows what really was, filtered by kind and agent, and gives it all away as JSON
// lines; of nobody else.
func TestActivityOfARealLog(t *testing.T) {
	s := start(t, stage.Options{Files: map[string]string{"p.cedar": `@reason("nobody closes long issues") forbid(principal, action == Action::"call", resource == Tool::"modern/echo") when { context.args has text && context.args.text == "no" };`}, Config: "policies: [p.cedar]\n"})
	ctx := within(t)
	for user, name := range map[string]string{"alice": "Ada", "bob": "Bert"} {
		a := agent(t, world.AgentConfig{URL: s.Desk().MCP("modern"), Name: name, Era: world.Era2026July, Browser: s.Person(user, "Connect Tracker", "Done")})
		if r, err := a.Call(ctx, "whoami", nil); err != nil || r.IsError {
			t.Fatal(r, err)
		}
		if _, err := a.Call(ctx, "echo", map[string]any{"text": "no"}); err == nil {
			t.Fatal("it was not refused")
		}
	}
	alice := s.Person("alice")
	address := s.Desk().Public + "/portal/activity"
	has := func(query string, want, unwanted []string) {
		t.Helper()
		page := reads(t, alice, address+query)
		_, page, _ = strings.Cut(page, "Show") // the choices of the filter come first
		_, page, _ = strings.Cut(page, " 20")  // and the day after them
		for _, w := range want {
			if !strings.Contains(page, w) {
				t.Errorf("%q lacks %q: %s", query, w, page)
			}
		}
		for _, w := range unwanted {
			if strings.Contains(page, w) {
				t.Errorf("%q has %q: %s", query, w, page)
			}
		}
	}
	has("", []string{"whoami at modern", "1 request to Tracker", "Nobody closes long issues.", "You connected an account", "You let an agent in"}, []string{"Bert"})
	has("?show=no", []string{"echo at modern", "refused"}, []string{"whoami at", "You connected"})
	has("?show=agents", []string{"whoami at modern", "echo at modern"}, []string{"You connected"})
	has("?show=you", []string{"You connected an account"}, []string{"whoami at", "echo at"})
	if page := reads(t, alice, address+"?agent=nobody"); !strings.Contains(page, "Nothing of that kind") {
		t.Errorf("an agent that did nothing: %s", page)
	}

	r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.Desk().Public+"/portal/activity.jsonl", nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range alice.Cookies(s.Desk().Public + "/portal/") {
		r.AddCookie(c)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil || !strings.Contains(resp.Header.Get("Content-Disposition"), "attachment") {
		t.Fatal(err, resp.Header)
	}
	kinds := map[string]int{}
	users := map[string]bool{}
	for line := range strings.Lines(string(body)) {
		var k audit.Record
		if err := json.Unmarshal([]byte(line), &k); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		users[string(k.User)] = true
		kinds[string(k.Kind)+" "+k.Action+" "+k.Tool]++
	}
	if len(users) != 1 || kinds["outcome call whoami"] != 1 || kinds["event call echo"] != 1 || kinds["event connected "] != 1 {
		t.Errorf("the download holds %v of %v", kinds, users)
	}
}
