package stage_test

import (
	"fmt"
	"strings"
	"testing"

	"frontdesk.dev/frontdesk/test/stage"
	"frontdesk.dev/frontdesk/test/world"
)

// stern is a stage with npm's oidc-provider as the vendor of an upstream of that name. facts are added to its OAuth, indented by six.
// server is where its MCP server may be started.
func stern(t *testing.T, entry, facts string, cfg func(*stage.Stage, *world.OIDCProviderConfig)) (s *stage.Stage, o *world.OIDCProvider, server string) {
	t.Helper()
	at, server := port(t), port(t)
	issuer := "http://" + at
	s = start(t, stage.Options{
		Providers: func(string) string {
			return fmt.Sprintf(`  stern:
    name: Stern
    hosts: ["%[1]s"]
    oauth:
      issuer: %[1]s
      iss_promised: true
      authorization_endpoint: %[1]s/auth
      token_endpoint: %[1]s/token
      device: {authorization_endpoint: "%[1]s/device/auth"}
      revocation_endpoint: %[1]s/token/revocation
      authorize_params: {prompt: consent}
      resource: %[1]s/api
      refresh: {rotation: strict, scope_needed: offline_access}
%[2]s
    account: {url: /user, pointer: /login, id_pointer: /id}
`, issuer, strings.ReplaceAll(facts, "ISSUER", issuer))
		},
		Upstream: fmt.Sprintf("  stern: {provider: stern, url: %s/api, client_id: frontdesk, scopes: [\"issues:read\"]%s}\n", issuer, entry),
		Servers:  fmt.Sprintf("  stern: {url: \"http://%s/mcp\", upstreams: [stern], allow: [group:engineering]}\n", server),
	})
	c := world.OIDCProviderConfig{RedirectURIs: []string{s.Desk().Public + "/callback/stern"}, Port: number(t, at)}
	cfg(s, &c)
	var err error
	if o, err = world.NewOIDCProvider(within(t), c); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = o.Close() })
	return s, o, server
}

// port is an address for a party that starts later.
func port(t *testing.T) string {
	t.Helper()
	at, err := world.Port()
	if err != nil {
		t.Fatal(err)
	}
	return at
}

// TestSternVendor is authorization_code at an authorization server that takes the specifications at their word: requests are pushed, the
// client proves itself by a key that our JWKS publishes and has no secret, and every answer names its issuer.
func TestSternVendor(t *testing.T) {
	s, o, _ := stern(t, "", "      par_endpoint: ISSUER/request\n      token_auth: private_key_jwt", func(s *stage.Stage, c *world.OIDCProviderConfig) {
		c.RequirePAR, c.JWKSURI = true, s.Desk().Public+"/jwks"
	})
	alice := s.Person("alice", "Connect Stern", "Done")
	alice.HasAccount(o.URL(), "stern-alice")
	a := agent(t, world.AgentConfig{URL: s.Desk().MCP("stern"), Name: "test agent", Era: world.Era2026July, Browser: alice})
	if _, err := a.Call(within(t), "whoami", nil); err == nil {
		t.Error("a server that is not there has answered")
	}
	out, err := s.Desk().Run("connections", "list", "--user", "emp-alice", "--json")
	if err != nil || !strings.Contains(out, "stern-alice") {
		t.Fatalf("%v\n%s\n%s", err, out, s.Desk().Log())
	}
}

func number(t *testing.T, at string) (n int) {
	t.Helper()
	if _, err := fmt.Sscanf(at[strings.LastIndex(at, ":")+1:], "%d", &n); err != nil {
		t.Fatal(err)
	}
	return n
}
