//go:build keycloak

package keycloak_test

import (
	"net/url"
	"strings"
	"testing"

	"frontdesk.dev/frontdesk/test/stage"
	"frontdesk.dev/frontdesk/test/world"
)

// accessType is the switch at a client of Keycloak's that makes its access tokens say what they are (RFC 9068 section 2.1).
var accessType = object{"access.token.header.type.rfc9068": "true"}

// TestWorkload: a workload calls with an access token that Keycloak gave it, without a browser, and is no person; a person's token of
// another client is that person. A token that was not made for Frontdesk alone, or is none of that kind, lets nobody in.
func TestWorkload(t *testing.T) {
	t.Parallel()
	k := newRealm(t, nil)
	ours := []object{groupsMapper, audienceMapper("api://frontdesk")}
	for id, more := range map[string]object{
		"robot":     {"attributes": accessType, "protocolMappers": ours, "fullScopeAllowed": false},
		"elsewhere": {"attributes": accessType, "protocolMappers": []object{audienceMapper("api://elsewhere")}, "fullScopeAllowed": false},
		"nowhere":   {"attributes": accessType, "fullScopeAllowed": false},
		"too-many":  {"attributes": accessType, "protocolMappers": ours}, // Keycloak adds its own account console
		"untyped":   {"protocolMappers": ours, "fullScopeAllowed": false},
	} {
		more["serviceAccountsEnabled"], more["directAccessGrantsEnabled"] = true, true
		k.client(id, more)
	}
	var robot struct{ ID string }
	var clients []struct{ ID string }
	k.get("/clients?clientId=robot", &clients)
	k.get("/clients/"+clients[0].ID+"/service-account-user", &robot)
	s := atKeycloak(t, k, plain, `, audiences: ["api://frontdesk"]`, stage.Options{})
	reconfigure(t, s, "servers:\n", "servers:\n  plain: {url: "+s.Modern.MCP()+", allow: [\"service:"+robot.ID+"\", group:engineering]}\n")
	get := func(client, grant, who string) (access, id string) {
		var a struct {
			Access string `json:"access_token"`
			ID     string `json:"id_token"`
		}
		ask(t, k.URL, url.Values{"grant_type": {grant}, "client_id": {client}, "client_secret": {world.FrontdeskSecret}, "username": {who}, "password": {world.Password}, "scope": {"openid"}}, &a)
		return a.Access, a.ID
	}
	calls := func(server, token string) (string, error) {
		a, err := world.NewAgent(world.AgentConfig{URL: s.Desk().MCP(server), Name: "a workload", Era: world.Era2026July, Token: token})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = a.Close() }()
		r, err := a.Call(within(t), "echo", map[string]any{"text": "hello"})
		if err != nil {
			return "", err
		}
		return world.Text(r), nil
	}
	machine, _ := get("robot", "client_credentials", "")
	if said, err := calls("plain", machine); err != nil || !strings.Contains(said, "hello") {
		t.Errorf("the workload: %q %v", said, err)
	}
	if said, err := calls("modern", machine); err == nil {
		t.Errorf("the workload is let in where it is not named: %q", said)
	}
	alice, id := get("robot", "password", "alice")
	if said, err := calls("plain", alice); err != nil || !strings.Contains(said, "hello") {
		t.Errorf("alice, by her token of another client: %q %v", said, err)
	}
	out, err := s.Desk().Run("audit", "export")
	if err != nil || !strings.Contains(out, `"service":"`+robot.ID+`"`) || strings.Contains(out, `"user":"`+robot.ID) {
		t.Errorf("the log does not say that the workload is one: %v\n%s", err, out)
	}
	refused := map[string]string{"an ID token": id}
	for _, client := range []string{"elsewhere", "nowhere", "too-many", "untyped"} {
		refused[client], _ = get(client, "client_credentials", "")
	}
	for name, token := range refused {
		if said, err := calls("plain", token); err == nil || !strings.Contains(err.Error(), "nauthorized") {
			t.Errorf("%s: %q %v", name, said, err)
		}
	}
}
