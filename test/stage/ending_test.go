package stage_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"frontdesk.dev/frontdesk/test/pg"
	"frontdesk.dev/frontdesk/test/stage"
	"frontdesk.dev/frontdesk/test/world"
)

const senderToken = "0123456789abcdef0123456789abcdef"

// hearing is two replicas whose IdP may push events and whose directory may remove people.
func hearing(t *testing.T, o stage.Options) *stage.Stage {
	t.Helper()
	o.Replicas, o.Files = 2, map[string]string{"sender.token": senderToken + "\n"}
	s := start(t, o)
	for _, d := range processes(s) {
		rewrite(t, d, `audiences: ["api://frontdesk"]}`, `audiences: ["api://frontdesk"], events: {audience: "urn:desk", token: file:sender.token}, scim: {token: file:sender.token}}`)
		if said, err := d.Run("reload"); err != nil {
			t.Fatal(err, said)
		}
	}
	return s
}

// processes are all of Frontdesk's: with two roles, both of each replica.
func processes(s *stage.Stage) (l []*stage.Desk) {
	for _, d := range s.Desks {
		l = append(l, d)
		if d.Broker != nil {
			l = append(l, d.Broker)
		}
	}
	return l
}

// operator is where an operator asks of a replica what gateways do not know.
func operator(d *stage.Desk) *stage.Desk {
	if d.Broker != nil {
		return d.Broker
	}
	return d
}

func do(t *testing.T, method, url string, body string, headers ...string) (int, string) {
	t.Helper()
	resp := open(t, t.Context(), method, url, body, headers...)
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Error(err)
	}
	return resp.StatusCode, string(b)
}

func open(t *testing.T, ctx context.Context, method, url, body string, headers ...string) *http.Response {
	t.Helper()
	r, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

// lines are what somebody has open at one replica: a stream of the old era, and a running call of the new one.
func lines(t *testing.T, s *stage.Stage, token string) []<-chan struct{} {
	t.Helper()
	bearer, both := "Bearer "+token, "application/json, text/event-stream"
	init := open(t, t.Context(), "POST", s.Desk().MCP("issues"), `{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"x","version":"1"}}}`,
		"Content-Type", "application/json", "Accept", both, "Authorization", bearer)
	_ = init.Body.Close()
	if init.StatusCode != 200 {
		t.Fatal(init.Status)
	}
	stream := open(t, t.Context(), "GET", s.Desk().MCP("issues"), "", "Accept", "text/event-stream", "Authorization", bearer, "Mcp-Session-Id", init.Header.Get("Mcp-Session-Id"), "Mcp-Protocol-Version", "2025-11-25")
	call := open(t, t.Context(), "POST", s.Desk().MCP("issues"), `{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"slow","arguments":{"steps":600,"every_ms":100},"_meta":{"progressToken":"p"}}}`,
		"Content-Type", "application/json", "Accept", both, "Authorization", bearer, "Mcp-Session-Id", init.Header.Get("Mcp-Session-Id"), "Mcp-Protocol-Version", "2025-11-25")
	var l []<-chan struct{}
	for what, resp := range map[string]*http.Response{"stream": stream, "call": call} {
		if resp.StatusCode != 200 {
			t.Fatal(what, resp.Status)
		}
		ended := make(chan struct{})
		go func() { defer close(ended); _, _ = io.Copy(io.Discard, resp.Body); _ = resp.Body.Close() }()
		l = append(l, ended)
	}
	return l
}

// works asks a replica whether a token lets in.
func works(t *testing.T, s *stage.Stage, replica int, token string) bool {
	t.Helper()
	s.Pin(replica)
	status, body := do(t, "POST", s.Desk().MCP("modern"), `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","arguments":{},"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{"name":"x","version":"1"},"io.modelcontextprotocol/clientCapabilities":{}}}}`,
		"Content-Type", "application/json", "Accept", "application/json, text/event-stream", "Authorization", "Bearer "+token, "Mcp-Protocol-Version", "2026-07-28", "Mcp-Method", "tools/call", "Mcp-Name", "echo")
	if status != 200 && status != 401 {
		t.Fatal(status, body)
	}
	return status == 200
}

// TestEndsEverywhere: whoever says that a person's access has ended, and at whichever replica, within five seconds nothing of
// it runs at any: tokens, streams, calls. What begins afterwards works, unless the person is gone. With two roles it is at two gateways
// before two brokers.
func TestEndsEverywhere(t *testing.T) {
	t.Run("one process", func(t *testing.T) { endsEverywhere(t, hearing(t, stage.Options{Database: pg.Start(t)})) })
	t.Run("two", func(t *testing.T) {
		a := twoAccounts(t)
		endsEverywhere(t, hearing(t, stage.Options{Database: a.broker, Domains: a.domains(t)}))
	})
}

func endsEverywhere(t *testing.T, s *stage.Stage) {
	event := func(kind string) string {
		token, err := s.IdP.Sign("secevent+jwt", map[string]any{"iss": s.IdP.URL(), "aud": "urn:desk", "iat": time.Now().Unix(), "jti": kind,
			"sub_id": map[string]any{"format": "iss_sub", "iss": s.IdP.URL(), "sub": "emp-alice"}, "events": map[string]any{"https://schemas.openid.net/secevent/" + kind: map[string]any{"change_type": "revoke"}}})
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	push := func(kind string) {
		if status, said := do(t, "POST", s.Desk().Public+"/events/login", event(kind), "Content-Type", "application/secevent+jwt", "Authorization", "Bearer "+senderToken); status != 202 {
			t.Fatal(status, said)
		}
	}
	directory := func(method, path, body string, want int) string {
		status, said := do(t, method, s.Desk().Public+"/scim/v2"+path, body, "Content-Type", "application/scim+json", "Authorization", "Bearer "+senderToken)
		if status != want {
			t.Fatal(status, said)
		}
		return said
	}
	const patch = `{"schemas":["urn:ietf:params:scim:api:messages:2.0:PatchOp"],"Operations":[{"op":"Replace","path":"active","value":"False"}]}`
	for _, c := range []struct {
		name string
		end  func()
		gone bool
	}{
		{"operator", func() {
			if said, err := operator(s.Desks[1]).Run("access", "end", "--user", "emp-alice"); err != nil {
				t.Fatal(err, said)
			}
		}, false},
		{"back-channel logout", func() {
			token, err := s.IdP.Sign("logout+jwt", map[string]any{"iss": s.IdP.URL(), "aud": "frontdesk", "iat": time.Now().Unix(), "exp": time.Now().Add(time.Minute).Unix(), "jti": "1", "sub": "emp-alice",
				"events": map[string]any{"http://schemas.openid.net/event/backchannel-logout": map[string]any{}}})
			if err != nil {
				t.Fatal(err)
			}
			form := url.Values{"logout_token": {token}}.Encode()
			for i, want := range []int{200, 400} { // one token counts once, across replicas
				s.Pin(i)
				if status, said := do(t, "POST", s.Desk().Public+"/backchannel-logout/login", form, "Content-Type", "application/x-www-form-urlencoded"); status != want {
					t.Fatal(status, said)
				}
			}
		}, false},
		{"session-revoked", func() { push("caep/event-type/session-revoked") }, false},
		{"credential-change", func() { push("caep/event-type/credential-change") }, false},
		{"SCIM", func() {
			var l struct{ Resources []struct{ ID string } }
			if err := json.Unmarshal([]byte(directory("GET", "/Users?filter="+url.QueryEscape(`externalId eq "emp-alice"`), "", 200)), &l); err != nil || len(l.Resources) != 1 {
				t.Fatal(err, l)
			}
			directory("PATCH", "/Users/"+l.Resources[0].ID, patch, 200)
		}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			s.Pin(0)
			alice, bob := agent(t, world.AgentConfig{URL: s.Desk().MCP("modern"), Name: "a", Era: world.Era2026July, Browser: s.Person("alice", "Later: a tool that needs it will ask then")}),
				agent(t, world.AgentConfig{URL: s.Desk().MCP("modern"), Name: "b", Era: world.Era2026July, Browser: s.Person("bob", "Later: a tool that needs it will ask then")})
			ofIssues := agent(t, world.AgentConfig{URL: s.Desk().MCP("issues"), Name: "c", Era: world.Era2025November, Browser: s.Person("alice", "Connect Tracker", "Done")})
			for _, a := range []*world.Agent{alice, bob, ofIssues} {
				if _, err := a.Tools(within(t)); err != nil {
					t.Fatal(err)
				}
			}
			if r := call(t, ofIssues, "whoami", nil); !strings.Contains(world.Text(r), "octo-alice") {
				t.Fatal(world.Text(r))
			}
			var running []<-chan struct{}
			for i := range s.Desks {
				s.Pin(i)
				running = append(running, lines(t, s, ofIssues.AccessToken())...)
				if !works(t, s, i, alice.AccessToken()) || !works(t, s, i, bob.AccessToken()) {
					t.Fatal("it does not work to begin with")
				}
			}
			for i, ended := range running {
				select {
				case <-ended:
					t.Fatalf("line %d of %d was over before", i, len(running))
				default:
				}
			}
			s.Pin(1)
			c.end()
			over := time.After(5 * time.Second)
			for i := range s.Desks {
				for works(t, s, i, alice.AccessToken()) {
					select {
					case <-over:
						t.Fatalf("replica %d lets her token in after 5 seconds", i)
					case <-time.After(20 * time.Millisecond):
					}
				}
			}
			for i, ended := range running {
				select {
				case <-ended:
				case <-over:
					t.Fatalf("line %d of %d is open after 5 seconds", i, len(running))
				}
			}
			if !works(t, s, 0, bob.AccessToken()) || !works(t, s, 1, bob.AccessToken()) {
				t.Error("bob's access ended too")
			}
			again := agent(t, world.AgentConfig{URL: s.Desk().MCP("modern"), Name: "again", Era: world.Era2026July, Browser: s.Person("alice", "Later: a tool that needs it will ask then")})
			if _, err := again.Tools(within(t)); (err == nil) == c.gone {
				t.Errorf("signing in again: %v", err)
			}
		})
	}
	// The IdP goes on giving her tokens: the directory's word stands above them.
	fresh, err := s.IdP.MintAccessToken("alice", "api://frontdesk", nil)
	if err != nil {
		t.Fatal(err)
	}
	if works(t, s, 0, fresh) || works(t, s, 1, fresh) {
		t.Error("a fresh token of the IdP brought back somebody who is gone")
	}
}

// TestRevokeMany: all connections of an upstream end with one command, and what became of them at the vendor can be seen.
func TestRevokeMany(t *testing.T) {
	s := start(t, stage.Options{})
	alice := agent(t, world.AgentConfig{URL: s.Desk().MCP("modern"), Name: "a", Era: world.Era2026July, Browser: s.Person("alice", "Connect Tracker", "Done")})
	if r := call(t, alice, "whoami", nil); !strings.Contains(world.Text(r), "octo-alice") {
		t.Fatal(world.Text(r))
	}
	said, err := s.Desk().Run("connections", "revoke", "--upstream", "tracker", "--wait")
	if err != nil || !strings.Contains(said, "1 connection ended here") || !strings.Contains(said, "vendors: all confirmed") {
		t.Errorf("%v %s", err, said)
	}
	if r, err := alice.Call(within(t), "whoami", nil); err == nil && r != nil && strings.Contains(world.Text(r), "octo-alice") {
		t.Errorf("it goes on: %s", world.Text(r))
	}
	if said, err := s.Desk().Run("connections", "endings"); err != nil || !strings.Contains(said, "all confirmed") {
		t.Errorf("%v %s", err, said)
	}
	var l []struct{ Status string }
	said, err = s.Desk().Run("connections", "list", "--user", "emp-alice", "--json")
	if err != nil || json.NewDecoder(bytes.NewBufferString(said)).Decode(&l) != nil {
		t.Fatal(err, said)
	}
	for _, c := range l { // the home credential is no connection that a revoke is about
		if c.Status != "active" {
			t.Errorf("she has %s", said)
		}
	}
	for _, args := range [][]string{{"connections", "revoke"}, {"connections", "revoke", "x", "--all"}, {"connections", "revoke", "--all", "--user", "a"}, {"connections", "revoke", "--user", "nobody"}, {"access", "end"}} {
		if said, err := s.Desk().Run(args...); err == nil {
			t.Errorf("%v: %s", args, said)
		}
	}
}
