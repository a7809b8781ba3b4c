package stage_test

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"frontdesk.dev/frontdesk/test/pg"
	"frontdesk.dev/frontdesk/test/stage"
	"frontdesk.dev/frontdesk/test/world"
)

// wired is a client of one era without a library that could hide what it is told.
type wired struct {
	t             *testing.T
	url, era      string
	token, id     string
	streamHasSaid chan string // closed when the stream ends
}

func (c *wired) headers(more ...string) []string {
	h := append([]string{"Content-Type", "application/json", "Accept", "application/json, text/event-stream", "Authorization", "Bearer " + c.token, "Mcp-Protocol-Version", c.era}, more...)
	if c.id != "" {
		h = append(h, "Mcp-Session-Id", c.id)
	}
	return h
}

// begin is the handshake, where the era has one, and opens the stream.
func (c *wired) begin() {
	c.t.Helper()
	if c.era == world.Era2026July {
		return
	}
	c.id = ""
	resp := open(c.t, within(c.t), "POST", c.url, `{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"`+c.era+`","capabilities":{},"clientInfo":{"name":"x","version":"1"}}}`, c.headers()...)
	_ = resp.Body.Close()
	if c.id = resp.Header.Get("Mcp-Session-Id"); resp.StatusCode != http.StatusOK || c.id == "" {
		c.t.Fatal(c.era, resp.Status)
	}
	if status, said := do(c.t, "POST", c.url, `{"jsonrpc":"2.0","method":"notifications/initialized"}`, c.headers()...); status != http.StatusAccepted {
		c.t.Fatal(c.era, status, said)
	}
	if status := c.listen(); status != http.StatusOK {
		c.t.Fatal(c.era, "the stream:", status)
	}
}

// listen opens the stream, and reads it.
func (c *wired) listen() int {
	c.t.Helper()
	resp := open(c.t, context.WithoutCancel(c.t.Context()), "GET", c.url, "", c.headers("Accept", "text/event-stream")...)
	c.t.Cleanup(func() { _ = resp.Body.Close() })
	if resp.StatusCode != http.StatusOK {
		return resp.StatusCode
	}
	said := make(chan string, 100)
	c.streamHasSaid = said
	go func() {
		defer close(said)
		for l := bufio.NewScanner(resp.Body); l.Scan(); {
			if text, ok := strings.CutPrefix(l.Text(), "data: "); ok {
				said <- text
			}
		}
	}()
	return resp.StatusCode
}

// whoami is a call, and what it came to.
func (c *wired) whoami() (status int, said string) {
	c.t.Helper()
	if c.era != world.Era2026July {
		return do(c.t, "POST", c.url, `{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"whoami","arguments":{}}}`, c.headers()...)
	}
	return do(c.t, "POST", c.url, `{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"whoami","arguments":{},"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{"name":"x","version":"1"},"io.modelcontextprotocol/clientCapabilities":{}}}}`,
		c.headers("Mcp-Method", "tools/call", "Mcp-Name", "whoami")...)
}

// ended waits for the end of the stream.
func (c *wired) ended(when string) {
	c.t.Helper()
	for ctx := within(c.t); ; {
		select {
		case _, goesOn := <-c.streamHasSaid:
			if !goesOn {
				return
			}
		case <-ctx.Done():
			c.t.Fatalf("%s: the stream is still open after %s", c.era, when)
		}
	}
}

// TestRestartsBetweenCalls: whatever of Frontdesk was started anew since a client called last, its stream has ended, and its session works or is
// said to be gone, in every era; where a server holds a keycard of the session, that works with it.
func TestRestartsBetweenCalls(t *testing.T) {
	t.Run("one process", func(t *testing.T) { restartsBetweenCalls(t, stage.Options{}) })
	t.Run("on PostgreSQL", func(t *testing.T) { restartsBetweenCalls(t, stage.Options{Database: pg.Start(t)}) })
	t.Run("two", func(t *testing.T) {
		a := twoAccounts(t)
		restartsBetweenCalls(t, stage.Options{Database: a.broker, Domains: a.domains(t)})
	})
}

func restartsBetweenCalls(t *testing.T, o stage.Options) {
	egress := &lateEgress{}
	settled, err := world.NewIssuesServer(world.IssuesConfig{API: egress.serve(t) + "/egress/tracker", TokenAtStart: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = settled.Close() })
	o.Servers = "  settled: {url: " + settled.MCP() + ", upstreams: [tracker], placeholder: session, allow: [group:engineering]}\n"
	s := start(t, o)
	d := s.Desk()
	egress.to(t, d.Egress)
	var all []*wired
	for server, eras := range map[string][]string{"issues": {world.Era2025March, world.Era2025June, world.Era2025November}, "settled": {world.Era2025June, world.Era2025November}, "modern": {world.Era2026July}} {
		a := agent(t, world.AgentConfig{URL: d.MCP(server), Name: "agent at " + server, Era: eras[0], Browser: s.Person("alice", "Connect Tracker", "Done")})
		serves(t, a, "at "+server)
		token := a.AccessToken()
		if err := a.Disconnect(); err != nil {
			t.Fatal(err)
		}
		for _, era := range eras {
			c := &wired{t: t, url: d.MCP(server), era: era, token: token}
			c.begin()
			all = append(all, c)
		}
	}
	stops := map[string][]func() error{"a stop": {d.Stop}, "a kill": {d.Kill}}
	if b := d.Broker; b != nil {
		stops = map[string][]func() error{"a stop, the gateway first": {d.Stop, b.Stop}, "a stop, the broker first": {b.Stop, d.Stop}, "a kill": {b.Kill, d.Kill}}
	}
	for how, steps := range stops {
		for _, stop := range steps {
			if err := stop(); err != nil {
				t.Fatal(err)
			}
		}
		if d.Broker != nil {
			if err := d.Broker.Start(within(t)); err != nil {
				t.Fatal(err)
			}
		}
		if err := d.Start(within(t)); err != nil {
			t.Fatal(err)
		}
		for _, c := range all {
			if c.id != "" {
				c.ended(how)
			}
			status, said := c.whoami()
			if status == http.StatusNotFound && c.id != "" && !strings.HasSuffix(c.url, "/issues") {
				c.begin()
				status, said = c.whoami()
			} else if c.id != "" {
				if status := c.listen(); status != http.StatusOK {
					t.Errorf("%s, %s, after %s: the stream gets %d", c.url, c.era, how, status)
				}
			}
			if status != http.StatusOK || !strings.Contains(said, "octo-alice") {
				t.Errorf("%s, %s, after %s: %d %s", c.url, c.era, how, status, said)
			}
		}
	}
}

// TestStreamOutlivesTheBroker: while no broker's process answers, a client's stream waits at the gateway, and then has the server's messages
// again: the official SDK's clients send nothing any more once a stream was refused. A server that is away is the same.
func TestStreamOutlivesTheBroker(t *testing.T) {
	s, alice := twoRoles(t)
	d := s.Desk()
	c := &wired{t: t, url: d.MCP("issues"), era: world.Era2025November, token: alice.AccessToken()}
	c.begin()
	streams := func() (n int) {
		for _, e := range alice.Recorder.Entries() {
			if strings.HasPrefix(e.What, "200 from GET ") && strings.HasSuffix(e.What, "/mcp/issues") {
				n++
			}
		}
		return n
	}
	before := streams()
	if err := d.Broker.Stop(); err != nil {
		t.Fatal(err)
	}
	c.ended("the broker's end")
	if status := c.listen(); status != http.StatusOK {
		t.Fatal("while no broker is there, the stream gets", status)
	}
	until(t, "the SDK has its stream again", func() bool { return streams() > before })
	if err := d.Broker.Start(within(t)); err != nil {
		t.Fatal(err)
	}
	until(t, "the server's notices come", func() bool {
		if err := s.Legacy.AddTool(fmt.Sprint("tool", len(c.streamHasSaid))); err != nil {
			t.Fatal(err)
		}
		select {
		case said, ok := <-c.streamHasSaid:
			return ok && strings.Contains(said, "notifications/tools/list_changed")
		default:
			return false
		}
	})
	r, err := alice.Call(within(t), "whoami", nil)
	if err != nil || !strings.Contains(world.Text(r), "octo-alice") {
		t.Errorf("the SDK's client: %v %v", r, err)
	}
}

// lateEgress stands before an egress whose address is not known yet.
type lateEgress struct{ at atomic.Pointer[url.URL] }

func (e *lateEgress) serve(t *testing.T) string {
	t.Helper()
	way := httptest.NewServer(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(e.at.Load()) }})
	t.Cleanup(way.Close)
	return way.URL
}

func (e *lateEgress) to(t *testing.T, address string) {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	e.at.Store(u)
}
