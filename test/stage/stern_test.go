package stage_test

import (
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"frontdesk.dev/frontdesk/test/stage"
	"frontdesk.dev/frontdesk/test/world"
)

// TestSternVendor is authorization_code at an authorization server that takes the specifications at their word: requests are pushed, the
// client proves itself by a key that our JWKS publishes and has no secret, and every answer names its issuer.
func TestSternVendor(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := l.Addr().String() // held until its party starts, so that nobody else gets it
	issuer := "http://" + at
	s := start(t, stage.Options{
		Providers: func(string) string {
			return fmt.Sprintf(`  stern:
    name: Stern
    hosts: ["%[1]s"]
    oauth:
      issuer: %[1]s
      iss_promised: true
      authorization_endpoint: %[1]s/auth
      token_endpoint: %[1]s/token
      par_endpoint: %[1]s/request
      revocation_endpoint: %[1]s/token/revocation
      token_auth: private_key_jwt
      authorize_params: {prompt: consent}
      resource: %[1]s/api
      refresh: {rotation: strict, scope_needed: offline_access}
    account: {url: /user, pointer: /login, id_pointer: /id}
`, issuer)
		},
		Upstream: fmt.Sprintf("  stern: {provider: stern, url: %s/api, client_id: frontdesk, scopes: [\"issues:read\"]}\n", issuer),
		Servers:  "  stern: {url: \"http://127.0.0.1:1/mcp\", upstreams: [stern], allow: [group:engineering]}\n", // it is never reached: the door is
	})
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	o, err := world.NewOIDCProvider(ctx, world.OIDCProviderConfig{RedirectURIs: []string{s.Desk().Public + "/callback/stern"}, RequirePAR: true,
		JWKSURI: s.Desk().Public + "/jwks", Port: port(t, at)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = o.Close() })

	alice := s.Person("alice", "Connect Stern", "Done")
	alice.HasAccount(o.URL(), "stern-alice")
	a := agent(t, world.AgentConfig{URL: s.Desk().MCP("stern"), Name: "test agent", Era: world.Era2026July, Browser: alice})
	if _, err := a.Call(ctx, "whoami", nil); err == nil {
		t.Error("a server that is not there has answered")
	}
	out, err := s.Desk().Run("connections", "list", "--user", "emp-alice", "--json")
	if err != nil || !strings.Contains(out, "stern-alice") {
		t.Fatalf("%v\n%s\n%s", err, out, s.Desk().Log())
	}
}

func port(t *testing.T, at string) (n int) {
	t.Helper()
	if _, err := fmt.Sscanf(at[strings.LastIndex(at, ":")+1:], "%d", &n); err != nil {
		t.Fatal(err)
	}
	return n
}
