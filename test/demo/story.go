package main

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"frontdesk.dev/frontdesk/test/stage"
	"frontdesk.dev/frontdesk/test/world"
	"frontdesk.dev/frontdesk/test/world/capture"
)

// teller prints what each party saw, and keeps what went wrong.
type teller struct{ failed int }

func (t *teller) says(who, format string, a ...any) {
	lines := strings.Split(strings.TrimSpace(fmt.Sprintf(format, a...)), "\n")
	fmt.Printf("  %-14s %s\n", who, lines[0])
	for _, l := range lines[1:] {
		fmt.Printf("  %-14s %s\n", "", l)
	}
}

func (t *teller) step(format string, a ...any) { fmt.Printf("\n— "+format+"\n", a...) }

// must checks one thing that the story promises.
func (t *teller) must(ok bool, format string, a ...any) {
	mark := "✓"
	if !ok {
		mark = "✗"
		t.failed++
	}
	fmt.Printf("  %s %s\n", mark, fmt.Sprintf(format, a...))
}

const later = "Later: a tool that needs it will ask then"

func story(ctx context.Context, s *stage.Stage) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	t := &teller{}
	alice := s.Person("alice", later)
	agent, err := world.NewAgent(world.AgentConfig{URL: s.Desk().MCP("issues"), Name: "Alice's agent", Era: world.Era2025November, Browser: alice})
	if err != nil {
		return err
	}
	defer func() { _ = agent.Close() }()

	t.step("alice signs in at her company, lets the agent in, and is offered to connect the tracker: later, she says")
	r, err := agent.Call(ctx, "whoami", nil)
	if err != nil {
		return err
	}
	t.says("the agent got", "%s", world.Text(r))
	t.must(alice.Visited(s.IdP.URL()+"/"), "she signed in at the company's IdP")
	t.must(alice.Visited(s.Desk().Public+"/door"), "she was offered to connect in the same visit")
	t.must(r.IsError && strings.Contains(world.Text(r), s.Desk().Public+"/connect/"), "the tool result says what to do, with a link")
	link := world.Text(r)[strings.LastIndex(world.Text(r), "\n")+1:]

	t.step("mallory opens alice's link")
	mallory := world.NewPerson("Allow", "Go on", "Continue to Tracker").HasAccount(s.IdP.URL(), "mallory")
	err = mallory.Open(ctx, link)
	t.must(err != nil && strings.Contains(err.Error(), "403") && !mallory.Visited(s.Tracker.URL()), "it was made for somebody else: refused before any redirect")

	t.step("alice opens the link, and consents at the tracker")
	if err := s.Person("alice", "Continue to Tracker").Open(ctx, link); err != nil {
		return err
	}
	r, err = agent.Call(ctx, "whoami", nil)
	if err != nil {
		return err
	}
	t.says("the agent got", "%s", world.Text(r))
	t.must(!r.IsError && strings.Contains(world.Text(r), "octo-alice"), "the tool answers, as octo-alice")
	if r, err = agent.Call(ctx, "create_issue", map[string]any{"title": "Buy milk"}); err != nil {
		return err
	}
	t.must(!r.IsError && len(s.Tracker.Issues("octo-alice")) > 0, "the tracker has an issue of octo-alice's")

	if err := bobsStory(ctx, t, s); err != nil {
		return err
	}

	t.step("carol, of sales, asks for the same server")
	carol, err := world.NewAgent(world.AgentConfig{URL: s.Desk().MCP("issues"), Name: "Carol's agent", Era: world.Era2025November, Browser: s.Person("carol", later)})
	if err != nil {
		return err
	}
	defer func() { _ = carol.Close() }()
	_, err = carol.Call(ctx, "whoami", nil)
	t.must(err != nil, "for her it does not exist")

	t.step("alice looks at her pages")
	home := world.NewPerson("Allow").HasAccount(s.IdP.URL(), "alice")
	if err := home.Open(ctx, s.Desk().Public+"/portal/"); err != nil {
		return err
	}
	t.says("she sees", "%.400s", home.Page().Text())
	t.must(strings.Contains(home.Page().Text(), "octo-alice"), "what is connected, and as whom")
	if err := home.Open(ctx, s.Desk().Public+"/portal/activity"); err != nil {
		return err
	}
	t.must(strings.Contains(home.Page().Text(), "create_issue") && !strings.Contains(home.Page().Text(), "octo-bob"), "what was done in her name, and nothing of bob's")

	t.step("alice disconnects; the next call asks again")
	if err := home.Open(ctx, s.Desk().Public+"/portal/"); err != nil {
		return err
	}
	if _, err := home.Click(ctx, "Disconnect Tracker"); err != nil {
		return err
	}
	t.says("she reads", "%s", home.Page().Text())
	t.must(strings.Contains(home.Page().Text(), "confirmed"), "the tracker confirmed that it ended there too")
	if r, err = agent.Call(ctx, "whoami", nil); err != nil {
		return err
	}
	t.must(r.IsError && strings.Contains(world.Text(r), "/connect/"), "the agent is asked again")

	search(t, s, agent)
	t.step("the log")
	out, err := s.Desk().Run("audit", "verify")
	t.says("audit verify", "%s", out)
	t.must(err == nil && strings.HasPrefix(out, "whole"), "every record is where it was written")
	if t.failed > 0 {
		return fmt.Errorf("%d things did not go as they should", t.failed)
	}
	fmt.Println("\nEverything went as it should.")
	return nil
}

// bobsStory is the door: he connects when he signs in, and is never interrupted later.
func bobsStory(ctx context.Context, t *teller, s *stage.Stage) error {
	t.step("bob connects at the door, with an agent that can neither ask nor step up")
	agent, err := world.NewAgent(world.AgentConfig{URL: s.Desk().MCP("modern"), Name: "Bob's agent", Era: world.Era2026July, Browser: s.Person("bob", "Connect Tracker", "Done")})
	if err != nil {
		return err
	}
	defer func() { _ = agent.Close() }()
	r, err := agent.Call(ctx, "whoami", nil)
	if err != nil {
		return err
	}
	t.says("his agent got", "%s", world.Text(r))
	t.must(!r.IsError && strings.Contains(world.Text(r), "octo-bob"), "his first call works, as octo-bob")
	return nil
}

// search looks for the tracker's tokens in everything that agent and server received or logged, in every form; and for a
// canary that is planted in each of these, so that a search that finds nothing has shown that it can find.
func search(t *teller, s *stage.Stage, agent *world.Agent) {
	t.step("who has seen the tracker's tokens?")
	var logs capture.Recorder
	logs.Note("Frontdesk's log", []byte(s.Desk().Log()))
	tokens := s.Tracker.Tokens()
	t.must(len(tokens) >= 4, "the tracker gave out %d codes and tokens", len(tokens))
	const canary = "canary-5f2b9c71d0e84a66"
	for _, c := range []struct {
		name string
		rec  *capture.Recorder
	}{{"the agent", &agent.Recorder}, {"the MCP server", &s.Legacy.Recorder}, {"the modern MCP server", &s.Modern.Recorder}, {"Frontdesk's log", &logs}} {
		hits := 0
		for _, token := range tokens {
			hits += len(c.rec.Search(token.Value))
		}
		c.rec.Note("planted", []byte("Authorization: Bearer "+canary))
		t.must(hits == 0 && len(c.rec.Entries()) > 1 || hits == 0 && c.rec == &logs, "%s: no token in %d captures", c.name, len(c.rec.Entries())-1)
		t.must(len(c.rec.Search(canary)) > 0, "%s: the planted canary is found", c.name)
	}
	seen := false
	for _, q := range s.Tracker.Requests() {
		seen = seen || strings.HasPrefix(q.Path, "/api/")
	}
	t.must(seen && slices.ContainsFunc(s.Tracker.Calls(), func(c world.APICall) bool { return c.User == "octo-alice" && c.Status == http.StatusOK }), "the tracker's API saw them, as it should")
}
