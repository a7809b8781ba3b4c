package stage_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"frontdesk.dev/frontdesk/test/stage"
	"frontdesk.dev/frontdesk/test/world"
)

// code is what the page shows, and where it leads.
func code(t *testing.T, p *world.Person) (code, page string) {
	t.Helper()
	shown := p.Page()
	code, _, _ = strings.Cut(string(shown.Body[strings.Index(string(shown.Body), `class="code">`)+len(`class="code">`):]), "<")
	if shown.Status != http.StatusOK || len(code) < 6 || shown.Header.Get("Refresh") == "" {
		t.Fatalf("no code is shown: %d %s", shown.Status, shown.Text())
	}
	return code, shown.URL.String()
}

// enters types a code at the vendor, in a browser of its own, and presses a button there.
func enters(t *testing.T, o *world.OIDCProvider, account, code, button string) {
	t.Helper()
	elsewhere := world.NewPerson("Authorize").HasAccount(o.URL(), account)
	if _, err := elsewhere.Browser.Open(within(t), o.URL()+"/device"); err != nil {
		t.Fatal(err)
	}
	if err := elsewhere.Fill("user_code", code); err != nil {
		t.Fatal(err)
	}
	shown, err := elsewhere.Click(within(t), "Continue")
	if err == nil {
		shown, err = elsewhere.Click(within(t), button)
	}
	if err != nil {
		t.Fatal(err)
	}
	if button == "It is mine" { // sign in, and say yes
		if err := elsewhere.Open(within(t), shown.URL.String()); err != nil {
			t.Fatal(err)
		}
	}
}

// goesOn looks at a page as it looks at itself, until it says something else than the code.
func goesOn(t *testing.T, p *world.Person, page string) string {
	t.Helper()
	for end := time.Now().Add(60 * time.Second); time.Now().Before(end); time.Sleep(300 * time.Millisecond) {
		shown, err := p.Browser.Open(within(t), page)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(shown.Body), `class="code"`) {
			return shown.Text()
		}
	}
	t.Fatal("the page still shows the code")
	return ""
}

// TestDeviceCode: a person without a browser beside the agent enters a code at npm's oidc-provider, elsewhere, while the desk is started
// anew; the page goes on by itself, the connection renews like any other, and nobody but the one who asked sees the code.
func TestDeviceCode(t *testing.T) {
	s, o, server := stern(t, ", client_secret: file:tracker.secret, methods: [device_code]", "", func(*stage.Stage, *world.OIDCProviderConfig) {})
	rewrite(t, s.Desk(), "http://"+server+"/mcp", s.Modern.MCP()) // a server that is there, so that its agent can ask
	if out, err := s.Desk().Run("reload"); err != nil {
		t.Fatal(out)
	}
	alice, portal := s.Person("alice"), s.Desk().Public+"/portal/"
	reads(t, alice, portal)
	a := agent(t, world.AgentConfig{URL: s.Desk().MCP("stern"), Name: "a", Era: world.Era2026July, Browser: s.Person("alice", later)})
	link := asksFor(t, a)
	reads(t, alice, link)
	if _, err := alice.Click(within(t), "Get a code for Stern"); err != nil {
		t.Fatal(err)
	}
	typed, page := code(t, alice)
	if !strings.Contains(alice.Page().Text(), o.URL()+"/device") {
		t.Errorf("the page does not say where: %s", alice.Page().Text())
	}

	// Nobody else sees it: not another person, not the same one in another browser, not the agent, not the log.
	for name, p := range map[string]*world.Person{"bob": s.Person("bob"), "alice in another browser": s.Person("alice")} {
		reads(t, p, portal)
		if shown, err := p.Browser.Open(within(t), page); err != nil || shown.Status != http.StatusNotFound || strings.Contains(string(shown.Body), typed) {
			t.Errorf("%s sees the code: %v %s", name, err, p.Page().Text())
		}
	}
	if r, err := a.Call(within(t), "whoami", nil); err != nil || strings.Contains(world.Text(r), typed) || strings.Contains(world.Text(r), o.URL()) {
		t.Errorf("the agent is told the code: %v %v", r, err)
	}

	if err := errors.Join(s.Desk().Kill(), s.Desk().Start(within(t))); err != nil {
		t.Fatal(err)
	}
	enters(t, o, "stern-alice", typed, "It is mine")
	if text := goesOn(t, alice, page); !strings.Contains(text, "Stern is connected as stern-alice") {
		t.Fatalf("afterwards: %s\n%s", text, s.Desk().Log())
	}
	if strings.Contains(s.Desk().Log(), typed) {
		t.Error("the log has the code")
	}
	if shown, err := alice.Browser.Open(within(t), link); err != nil || shown.Status != http.StatusGone {
		t.Errorf("the request is open still: %v", err)
	}

	// A no at the vendor is a no here.
	reads(t, alice, portal)
	if _, err := alice.Click(within(t), "Connect another account of Stern"); err != nil {
		t.Fatal(err)
	}
	typed, page = code(t, alice)
	enters(t, o, "stern-alice", typed, "It is not mine")
	if text := goesOn(t, alice, page); !strings.Contains(text, "You refused there") {
		t.Errorf("after a no: %s", text)
	}
}
