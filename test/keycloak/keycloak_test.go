//go:build keycloak

// Package keycloak_test tries Frontdesk against Keycloak, an authorization server that is not ours: as the company's IdP, as the
// authorization server of upstreams, and as who says that access has ended. Run it by `make keycloak`.
package keycloak_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"frontdesk.dev/frontdesk/test/stage"
	"frontdesk.dev/frontdesk/test/world"
)

// base is the URL of a Keycloak whose administrator is admin, with the password admin.
func base(t *testing.T) string {
	t.Helper()
	u := os.Getenv("KEYCLOAK_URL")
	if u == "" {
		t.Fatal("KEYCLOAK_URL names no Keycloak; `make keycloak` starts one")
	}
	return u
}

type object = map[string]any

// realm is one of Keycloak's, made for one test, with the people of the world in it.
type realm struct {
	t     *testing.T
	name  string
	URL   string // the issuer
	users map[string]string

	mu    sync.Mutex // guards the administrator's token
	token string
	until time.Time
}

// people are who has an account, and in which group.
var people = map[string]string{"alice": "engineering", "bob": "engineering", "dora": "engineering", "emil": "engineering", "fay": "engineering", "carol": "sales"}

// newRealm makes a realm with these settings of its own.
func newRealm(t *testing.T, settings object) *realm {
	t.Helper()
	name := strings.ToLower(strings.NewReplacer("/", "-", "_", "-").Replace(t.Name()))
	k := &realm{t: t, name: name, URL: base(t) + "/realms/" + name, users: map[string]string{}}
	all := object{"realm": name, "enabled": true, "sslRequired": "none", "eventsEnabled": true,
		"enabledEventTypes": []string{"LOGIN", "REFRESH_TOKEN", "REFRESH_TOKEN_ERROR", "TOKEN_EXCHANGE", "JWT_AUTHORIZATION_GRANT", "REVOKE_GRANT"}}
	for key, v := range settings {
		all[key] = v
	}
	k.do("DELETE", "", nil, nil) // one of a run that was cut off
	k.must("POST", base(t)+"/admin/realms", all)
	t.Cleanup(func() { k.do("DELETE", "", nil, nil) })
	for _, g := range []string{"engineering", "sales"} {
		k.must("POST", "/groups", object{"name": g})
	}
	for who, group := range people {
		k.users[who] = k.must("POST", "/users", object{"username": who, "enabled": true, "firstName": who, "lastName": "of Acme", "email": who + "@acme.example", "emailVerified": true,
			"groups": []string{"/" + group}, "credentials": []object{{"type": "password", "value": world.Password, "temporary": false}}})
	}
	return k
}

// client registers one; more is added to what each has. It returns Keycloak's own id of it.
func (k *realm) client(id string, more object) string {
	k.t.Helper()
	c := object{"clientId": id, "enabled": true, "protocol": "openid-connect", "publicClient": false, "secret": world.FrontdeskSecret, "standardFlowEnabled": false, "directAccessGrantsEnabled": false}
	for key, v := range more {
		c[key] = v
	}
	return k.must("POST", "/clients", c)
}

// groupsMapper puts the names of a person's groups into tokens, as operators do it for every relying party.
var groupsMapper = object{"name": "groups", "protocol": "openid-connect", "protocolMapper": "oidc-group-membership-mapper",
	"config": object{"claim.name": "groups", "full.path": "false", "id.token.claim": "true", "access.token.claim": "true", "userinfo.token.claim": "true"}}

// audienceMapper names an audience in access tokens.
func audienceMapper(audience string) object {
	return object{"name": "audience " + audience, "protocol": "openid-connect", "protocolMapper": "oidc-audience-mapper",
		"config": object{"included.custom.audience": audience, "access.token.claim": "true", "id.token.claim": "false"}}
}

// must asks the administration for something and returns the id of what was made. Paths are the realm's.
func (k *realm) must(method, path string, body any) (id string) {
	k.t.Helper()
	status, at, said := k.do(method, path, body, nil)
	if status >= 300 {
		k.t.Fatalf("keycloak: %s %s: %d %s", method, path, status, said)
	}
	return at[strings.LastIndexByte(at, '/')+1:]
}

// get reads something of the administration.
func (k *realm) get(path string, into any) {
	k.t.Helper()
	if status, _, said := k.do("GET", path, nil, into); status != http.StatusOK {
		k.t.Fatalf("keycloak: GET %s: %d %s", path, status, said)
	}
}

func (k *realm) do(method, path string, body, into any) (status int, location, said string) {
	k.t.Helper()
	if !strings.HasPrefix(path, "http") {
		path = base(k.t) + "/admin/realms/" + k.name + path
	}
	b, err := json.Marshal(body)
	if err != nil {
		k.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(k.t.Context()), time.Minute)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, path, bytes.NewReader(b))
	if err != nil {
		k.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Authorization", "Bearer "+k.admin())
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		k.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		k.t.Fatal(err)
	}
	if into != nil && resp.StatusCode == http.StatusOK {
		if err := json.Unmarshal(answer, into); err != nil {
			k.t.Fatalf("%v: %s", err, answer)
		}
	}
	return resp.StatusCode, resp.Header.Get("Location"), string(answer)
}

// admin is the administrator's token; Keycloak lets it live for a minute.
func (k *realm) admin() string {
	k.t.Helper()
	k.mu.Lock()
	defer k.mu.Unlock()
	if time.Now().After(k.until) {
		var a struct {
			Token string `json:"access_token"`
		}
		ask(k.t, base(k.t)+"/realms/master", url.Values{"grant_type": {"password"}, "client_id": {"admin-cli"}, "username": {"admin"}, "password": {"admin"}}, &a)
		k.token, k.until = a.Token, time.Now().Add(30*time.Second)
	}
	return k.token
}

// ask gets something of an issuer's token endpoint.
func ask(t *testing.T, issuer string, form url.Values, into any) {
	t.Helper()
	resp, err := http.PostForm(issuer+"/protocol/openid-connect/token", form)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if b, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != http.StatusOK || json.Unmarshal(b, into) != nil {
		t.Fatalf("%s: %d %s %v", issuer, resp.StatusCode, b, err)
	}
}

// event is an entry of Keycloak's own log.
type event struct{ Type, ClientID, UserID, Error string }

func (k *realm) events(kind string) (l []event) {
	k.t.Helper()
	k.get("/events?max=1000&type="+kind, &l)
	return l
}

func start(t *testing.T, o stage.Options) *stage.Stage {
	t.Helper()
	return stage.Start(t, o)
}

// atKeycloak is a stage whose people sign in at a realm; settings are added to Frontdesk's registration there, entry to the config's idp.
func atKeycloak(t *testing.T, k *realm, settings func(public string) object, entry string, o stage.Options) *stage.Stage {
	t.Helper()
	o.IdP = func(public string) string {
		c := object{"standardFlowEnabled": true, "redirectUris": []string{public + "/callback/idp:login"}, "protocolMappers": []object{groupsMapper}}
		for key, v := range settings(public) {
			c[key] = v
		}
		k.client("frontdesk", c)
		return fmt.Sprintf("{issuer: %s, client_id: frontdesk, client_secret: file:idp.secret%s}", k.URL, entry)
	}
	return start(t, o)
}

func plain(string) object { return nil }

const later = "Later: a tool that needs it will ask then"

// person is somebody with an account at Keycloak, and one at the tracker.
func person(s *stage.Stage, k *realm, who string, yes ...string) *world.Person {
	return s.Person(who, append(yes, "Yes")...).HasAccount(k.URL, who)
}

func agent(t *testing.T, s *stage.Stage, server string, browser world.Opener) *world.Agent {
	t.Helper()
	a, err := world.NewAgent(world.AgentConfig{URL: s.Desk().MCP(server), Name: "an agent", Era: world.Era2026July, Browser: browser})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Close() })
	return a
}

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func call(t *testing.T, a *world.Agent, tool string, args map[string]any) *mcp.CallToolResult {
	t.Helper()
	r, err := a.Call(within(t), tool, args)
	if err != nil {
		t.Fatalf("%s: %v", tool, err)
	}
	return r
}

// until waits for something to become so.
func until(t *testing.T, what string, most time.Duration, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(most); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %s: %s", most, what)
		}
	}
}

// reconfigure changes the config of a running Frontdesk.
func reconfigure(t *testing.T, s *stage.Stage, pairs ...string) {
	t.Helper()
	text, err := os.ReadFile(s.Desk().ConfigPath)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.Desk().ConfigPath, []byte(strings.NewReplacer(pairs...).Replace(string(text))), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := s.Desk().Run("reload"); err != nil {
		t.Fatal(out)
	}
}
