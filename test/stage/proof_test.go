package stage_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"frontdesk.dev/frontdesk/internal/kit/dpop"
	"frontdesk.dev/frontdesk/internal/kit/secret"
	"frontdesk.dev/frontdesk/test/stage"
	"frontdesk.dev/frontdesk/test/world"
)

// TestBoundTokens is DPoP (RFC 9449) at an authorization server and an API that are not ours and want nonces in proofs, each its own:
// the tokens of a connection are bound to its key, from the consent over renewals to each API request, whatever the server sends; and a
// token that is stolen without that key opens nothing.
func TestBoundTokens(t *testing.T) {
	s, o, at := stern(t, "", "      par_endpoint: ISSUER/request\n      token_auth: private_key_jwt\n      dpop: always", func(s *stage.Stage, c *world.OIDCProviderConfig) {
		c.RequirePAR, c.JWKSURI, c.Bound, c.AccessSeconds = true, s.Desk().Public+"/jwks", true, 10
	})
	issues, err := world.NewIssuesServer(world.IssuesConfig{Listen: at, API: s.Desk().Egress + "/egress/stern"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = issues.Close() })
	alice := s.Person("alice", "Connect Stern", "Done")
	alice.HasAccount(o.URL(), "stern-alice")
	a := agent(t, world.AgentConfig{URL: s.Desk().MCP("stern"), Name: "test agent", Era: world.Era2026July, Browser: alice})
	fetch := func(args map[string]any) string { return world.Text(call(t, a, "fetch", args)) }
	for range 7 { // the API wants another nonce after each third
		if got := fetch(map[string]any{"path": "/user?x=1"}); !strings.Contains(got, `"login":"stern-alice"`) {
			t.Fatalf("%s\n%s", got, s.Desk().Log())
		}
		if got := fetch(map[string]any{"method": "POST", "path": "/issues", "body": "a short one"}); !strings.Contains(got, "Too strict") {
			t.Fatal(got)
		}
	}
	until(t, "the token is renewed, with a proof", func() bool {
		if got := fetch(map[string]any{"path": "/user"}); !strings.Contains(got, "stern-alice") {
			t.Fatal(got)
		}
		l, err := o.Redemptions(within(t))
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range l {
			if r.Outcome != "renewed" {
				t.Fatalf("a redemption: %+v", r)
			}
		}
		return len(l) > 0
	})
	if got := fetch(map[string]any{"path": "/user"}); !strings.Contains(got, "stern-alice") {
		t.Fatalf("after the renewal: %s", got)
	}
	var calls []struct{ Wrong string }
	if err := o.Do(within(t), "calls", nil, &calls); err != nil {
		t.Fatal(err)
	}
	fresh := 0
	for _, c := range calls {
		switch c.Wrong {
		case "":
		case dpop.CodeUseNonce:
			fresh++
		default:
			t.Errorf("the API found %q", c.Wrong)
		}
	}
	if fresh < 3 || fresh > len(calls)/2 {
		t.Errorf("of %d requests %d lacked a nonce", len(calls), fresh)
	}
	stolen(t, o)
}

// stolen tries what a thief of the newest access token can: to show it, and to prove a key of his own.
func stolen(t *testing.T, o *world.OIDCProvider) {
	t.Helper()
	tokens, err := o.Tokens(within(t))
	if err != nil {
		t.Fatal(err)
	}
	access := ""
	for _, k := range tokens {
		if k.Kind == "access" {
			access = k.Value
		}
	}
	key, err := dpop.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	own := dpop.Token{Key: key, Access: secret.New(access), Nonces: new(dpop.Nonces), Now: time.Now}
	for name, send := range map[string]func(*http.Request) (*http.Response, error){
		"as Bearer": func(r *http.Request) (*http.Response, error) {
			r.Header.Set("Authorization", "Bearer "+access)
			return http.DefaultClient.Do(r)
		},
		"with another key": func(r *http.Request) (*http.Response, error) { return own.Send(r, http.DefaultClient.Do) },
	} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, o.API()+"/user", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := send(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusUnauthorized {
			t.Errorf("a stolen token, %s: %s", name, resp.Status)
		}
	}
}
