package stage_test

import (
	"net/url"
	"strings"
	"testing"

	"frontdesk.dev/frontdesk/test/stage"
	"frontdesk.dev/frontdesk/test/world"
)

// TestPastedKeys: with a page of the broker's for them, keys that people paste pass the gateway at no time: its memory holds none. Who sends
// somebody else to that page for a flow of his own gets nothing of what is pasted there.
func TestPastedKeys(t *testing.T) {
	a := twoAccounts(t)
	keys := port(t)
	d := a.domains(t)
	d.Keys = "http://" + keys
	s := start(t, stage.Options{Database: a.broker, Domains: d, Methods: "[api_key, authorization_code]"})
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(s.Desk().Broker.Log())
		}
	})
	ctx := within(t)
	// at is where somebody is asked for a key.
	at := func(who string) (*world.Agent, *world.Person) {
		t.Helper()
		agent := agent(t, world.AgentConfig{URL: s.Desk().MCP("issues"), Name: "agent of " + who, Era: world.Era2025June, Browser: s.Person(who, later)})
		said := world.Text(call(t, agent, "whoami", nil))
		i := strings.Index(said, s.Desk().Public+"/connect/")
		if i < 0 {
			t.Fatal(said)
		}
		link, _, _ := strings.Cut(said[i:], "\n")
		person := s.Person(who, "Paste a key")
		if err := person.Open(ctx, link); err != nil {
			t.Fatal(err)
		}
		if got := where(person); !strings.HasPrefix(got, d.Keys+"/key/tracker?state=") {
			t.Fatalf("%s is asked at %s: %s", who, got, person.Page().Text())
		}
		return agent, person
	}
	agent, alice := at("alice")
	key := s.Tracker.NewAPIKey("octo-alice", world.ScopeRead, world.ScopeWrite)
	paste := func(p *world.Person, key string) *world.Shown {
		t.Helper()
		if err := p.Fill("Key", key); err != nil {
			t.Fatal(err)
		}
		shown, err := p.Click(ctx, "Test and save")
		if err != nil {
			t.Fatal(err)
		}
		return shown
	}
	if shown := paste(alice, key); !strings.HasPrefix(where(alice), s.Desk().Public) || !strings.Contains(shown.Text(), "octo-alice") {
		t.Fatalf("at %s: %s", where(alice), shown.Text())
	}
	if text := world.Text(call(t, agent, "whoami", nil)); !strings.Contains(text, "octo-alice") {
		t.Error(text)
	}
	// Mallory begins, and sends bob where he is asked.
	mallorys, mallory := at("gus")
	trap := where(mallory)
	bob := s.Person("bob")
	if err := bob.Open(ctx, s.Desk().Public+"/portal/"); err != nil {
		t.Fatal(err)
	}
	if err := bob.Open(ctx, trap); err != nil {
		t.Fatal(err)
	}
	stolen := s.Tracker.NewAPIKey("octo-bob", world.ScopeRead, world.ScopeWrite)
	if shown := paste(bob, stolen); !strings.Contains(shown.Text(), "began in another browser") {
		t.Errorf("bob pastes into the trap: %s", shown.Text())
	}
	state, err := url.Parse(trap)
	if err != nil {
		t.Fatal(err)
	}
	if err := mallory.Open(ctx, s.Desk().Public+"/callback/tracker?"+state.RawQuery); err == nil || !strings.Contains(mallory.Page().Text(), "nothing was saved") {
		t.Error("mallory goes on:", err, mallory.Page().Text())
	}
	if text := world.Text(call(t, mallorys, "whoami", nil)); strings.Contains(text, "octo-bob") {
		t.Errorf("mallory acts as bob: %s", text)
	}
	// Of a flow that holds no key the state is worth nothing at the callback.
	_, dora := at("dora")
	if state, err = url.Parse(where(dora)); err != nil {
		t.Fatal(err)
	}
	if err := dora.Open(ctx, s.Desk().Public+"/callback/tracker?"+state.RawQuery); err == nil || !strings.Contains(dora.Page().Text(), "nothing was saved") {
		t.Error("a flow without a key is completed:", err, dora.Page().Text())
	}
	for d, want := range map[*stage.Desk]string{s.Desk(): "goes to the broker alone", s.Desk().Broker: "every credential"} {
		if out, err := d.Run("doctor", "--blast-radius"); err != nil || !strings.Contains(out, want) {
			t.Error(out, err)
		}
	}
	for _, secret := range []sought{ofText("alice's key", key), ofText("bob's key", stolen)} {
		for _, place := range append(image(t, s.Desk().Pid()), tables(t, a)...) {
			if form := secret.in(place.text); form != "" {
				t.Errorf("%s holds %s (%s)", place.where, secret.what, form)
			}
		}
	}
	if held := image(t, s.Desk().Broker.Pid()); len(held) > 0 && ofText("alice's key", key).in(held[0].text) == "" {
		t.Error("the broker's memory does not hold alice's key either: the search finds nothing")
	}
}

// where is the address of the page that somebody looks at.
func where(p *world.Person) string {
	h := p.History()
	return h[len(h)-1].URL
}
