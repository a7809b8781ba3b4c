//go:build keycloak

package keycloak_test

import (
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"frontdesk.dev/frontdesk/test/stage"
	"frontdesk.dev/frontdesk/test/world"
)

// TestTokenExchange: Keycloak gives its own people's access tokens for another API of the realm (RFC 8693, its standard token exchange
// v2), and gives none for an API that Frontdesk's client has nothing to do with.
func TestTokenExchange(t *testing.T) {
	t.Parallel()
	k := newRealm(t, nil)
	for _, id := range []string{"orders-api", "ledger-api"} {
		k.client(id, nil)
	}
	scope := k.must("POST", "/client-scopes", object{"name": "orders", "protocol": "openid-connect", "protocolMappers": []object{audienceMapper("orders-api")}})
	orders := newAPI(t, k, "orders-api")
	exchange := func(audience string) string {
		return "    client_id: frontdesk\n    client_secret: file:idp.secret\n    scopes: [orders]\n    methods: [token_exchange: {token_endpoint: " + k.URL + "/protocol/openid-connect/token, audience: " + audience + "}]\n"
	}
	o := orders.options("orders", "    federation: [token_exchange]\n", exchange("orders-api"))
	o.Upstream += "  ledger:\n    provider: orders\n    url: " + orders.URL + "\n" + exchange("ledger-api")
	s := atKeycloak(t, k, func(string) object { return object{"attributes": object{"standard.token.exchange.enabled": "true"}} }, "", o)
	var clients []struct{ ID string }
	k.get("/clients?clientId=frontdesk", &clients)
	k.must("PUT", "/clients/"+clients[0].ID+"/optional-client-scopes/"+scope, nil)
	behind(t, s, "orders")
	behind(t, s, "ledger")
	if n := opened(t, s, orders, "orders", "token_exchange", func(who string) *world.Person { return person(s, k, who) }, func(who string) string { return k.users[who] }); n != 2 {
		t.Errorf("%d tokens were used by two people", n)
	}
	if n := len(k.events("TOKEN_EXCHANGE")); n != 2 {
		t.Errorf("Keycloak exchanged %d times", n)
	}
	if r := call(t, agent(t, s, "ledger", person(s, k, "alice")), "whoami", nil); !r.IsError || !strings.Contains(world.Text(r), "does not allow it for this person") {
		t.Errorf("an API for which nothing may be exchanged: %s", world.Text(r))
	}
}

// believes makes a realm take what an issuer signs about people whom it knows there by these subjects, once and for five minutes at most.
func (k *realm) believes(issuer, keys string, subject func(who string) string) {
	k.t.Helper()
	k.must("POST", "/identity-provider/instances", object{"alias": "partner", "providerId": "oidc", "enabled": true, "config": object{"issuer": issuer, "useJwksUrl": "true", "jwksUrl": keys,
		"validateSignature": "true", "clientId": "keycloak", "clientSecret": "unused", "authorizationUrl": issuer + "/authorize", "tokenUrl": issuer + "/oauth/token", "jwtAuthorizationGrantEnabled": "true"}})
	for who := range people {
		k.must("POST", "/users/"+k.users[who]+"/federated-identity/partner", object{"userId": subject(who), "userName": who})
	}
}

// grants is a client that may redeem what the partner signs, for the API; it proves itself by a key of Frontdesk's JWKS.
func grants(s *stage.Stage, audience string) object {
	return object{"clientAuthenticatorType": "client-jwt", "protocolMappers": []object{audienceMapper(audience)}, "fullScopeAllowed": false,
		"attributes": object{"oauth2.jwt.authorization.grant.enabled": "true", "oauth2.jwt.authorization.grant.idp": "partner", "use.jwks.url": "true", "jwks.url": s.Desk().Public + "/jwks"}}
}

func employee(who string) string { return "emp-" + who }

// TestIdentityAssertion: the company's IdP states to Keycloak, which is the API's authorization server in another company, who the person
// is (ID-JAG), and Keycloak gives a token to Frontdesk, which has no secret there.
func TestIdentityAssertion(t *testing.T) {
	t.Parallel()
	k := newRealm(t, nil)
	orders := newAPI(t, k, "orders-api")
	s := start(t, orders.options("orders", "    federation: [id_jag]\n", "    client_id: desk-there\n    scopes: [email]\n    methods: [id_jag: {issuer: "+k.URL+", resource: "+orders.URL+", client_auth: private_key_jwt}]\n"))
	s.IdP.Partner(k.URL, "desk-there")
	k.believes(s.IdP.URL(), s.IdP.URL()+"/keys", employee)
	k.client("desk-there", grants(s, "orders-api"))
	k.client("thief", object{"attributes": object{"oauth2.jwt.authorization.grant.enabled": "true", "oauth2.jwt.authorization.grant.idp": "partner"}})
	behind(t, s, "orders")
	if n := opened(t, s, orders, "orders", "id_jag", func(who string) *world.Person { return s.Person(who) }, employee); n != 2 {
		t.Errorf("%d tokens were used by two people", n)
	}
	var jags []string
	for _, i := range s.IdP.Tokens() {
		if i.Kind == "id-jag" {
			jags = append(jags, i.Value)
		}
	}
	if len(jags) != 2 || strings.Contains(s.Desk().Log(), jags[0]) {
		t.Errorf("%d were stated for two people", len(jags))
	}
	// Keycloak takes it for what it is: another client of its own, which may redeem the partner's assertions too, cannot use one.
	for _, c := range []struct{ typ, client, error string }{{"oauth-id-jag+jwt", "desk-there", "client id in assertion"}, {"oauth-id-jag+jwt", "thief", ""}, {"JWT", "desk-there", ""}} {
		assertion, err := s.IdP.Sign(c.typ, map[string]any{"iss": s.IdP.URL(), "sub": "emp-alice", "aud": k.URL, "client_id": c.client, "jti": c.typ + c.client, "iat": time.Now().Unix(), "exp": time.Now().Add(time.Minute).Unix()})
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.PostForm(k.URL+"/protocol/openid-connect/token", url.Values{"grant_type": {"urn:ietf:params:oauth:grant-type:jwt-bearer"}, "assertion": {assertion}, "client_id": {"thief"}, "client_secret": {world.FrontdeskSecret}})
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil || (resp.StatusCode == http.StatusOK) != (c.error == "") || !strings.Contains(string(b), c.error) {
			t.Errorf("a %s for %s: %d %s %v", c.typ, c.client, resp.StatusCode, b, err)
		}
	}
}

// TestOwnAssertion: Keycloak takes what Frontdesk signs about a person itself (RFC 7523), by the keys that Frontdesk publishes.
func TestOwnAssertion(t *testing.T) {
	t.Parallel()
	k := newRealm(t, nil)
	orders := newAPI(t, k, "orders-api")
	s := start(t, orders.options("orders", "    federation: [jwt_bearer]\n", "    client_id: desk-there\n    methods: [jwt_bearer: {token_endpoint: "+k.URL+"/protocol/openid-connect/token, audience: "+k.URL+
		", assertion_issuer: https://desk.acme.example, client_auth: private_key_jwt}]\n"))
	k.believes("https://desk.acme.example", s.Desk().Public+"/jwks", employee)
	k.client("desk-there", grants(s, "orders-api"))
	behind(t, s, "orders")
	if n := opened(t, s, orders, "orders", "jwt_bearer", func(who string) *world.Person { return s.Person(who) }, employee); n != 2 {
		t.Errorf("%d tokens were used by two people", n)
	}
}
