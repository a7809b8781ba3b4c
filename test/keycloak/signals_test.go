//go:build keycloak

package keycloak_test

import (
	"strings"
	"testing"
	"time"

	"frontdesk.dev/frontdesk/test/stage"
	"frontdesk.dev/frontdesk/test/world"
)

// TestSharedSignals: Keycloak's transmitter (experimental) pushes what happens to people there, and their access ends within five
// seconds of its arrival.
func TestSharedSignals(t *testing.T) {
	t.Parallel()
	const bearer = "0123456789abcdef0123456789abcdef"
	k := newRealm(t, object{"attributes": object{"ssf.transmitterEnabled": "true"}})
	s := atKeycloak(t, k, plain, `, events: {audience: "urn:desk", token: file:events.token}`, stage.Options{Files: map[string]string{"events.token": bearer + "\n"}})
	to := s.Desk().Public + "/events/login"
	k.client("desk-events", object{"serviceAccountsEnabled": true, "attributes": object{"ssf.enabled": "true", "ssf.validPushUrls": to, "ssf.defaultSubjects": "ALL", "ssf.streamAudience": "urn:desk", "ssf.allowedDeliveryMethods": "push"}})
	const caep = "https://schemas.openid.net/secevent/caep/event-type/"
	k.must("POST", "/ssf/clients/desk-events/stream", object{"events_requested": []string{caep + "session-revoked", caep + "credential-change"},
		"delivery": object{"method": "urn:ietf:rfc:8935", "endpoint_url": to, "authorization_header": "Bearer " + bearer}})
	portal := newPortal(t, k)

	dora := agent(t, s, "modern", person(s, k, "dora", later))
	if _, err := dora.Tools(within(t)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		who, what string
		end       func(p *world.Person)
	}{
		{"alice", "her password is set anew by an administrator", func(*world.Person) {
			k.must("PUT", "/users/"+k.users["alice"]+"/reset-password", object{"type": "password", "value": world.Password, "temporary": false})
		}},
		{"bob", "an administrator signs him out everywhere", func(*world.Person) {
			k.must("POST", "/users/"+k.users["bob"]+"/logout", nil)
		}},
		{"emil", "he signs out at the portal", func(p *world.Person) { portal.leave(t, p) }},
	} {
		p := person(s, k, c.who, "Connect Tracker", "Done")
		if c.who == "emil" { // at the company's portal before, so that Keycloak has a session of his browser
			portal.visit(t, p)
		}
		a := agent(t, s, "modern", once(p))
		if _, err := a.Tools(within(t)); err != nil {
			t.Fatal(c.who, err)
		}
		token, slow := a.AccessToken(), running(t, s, a)
		c.end(p)
		began := time.Now()
		until(t, c.who+"'s token is good for nothing: "+c.what, 10*time.Second, func() bool { return !works(t, s, token) })
		t.Logf("%s: out after %s", c.what, time.Since(began).Round(10*time.Millisecond))
		select {
		case <-slow:
		case <-time.After(5 * time.Second):
			t.Errorf("%s's call goes on", c.who)
		}
	}
	if !works(t, s, dora.AccessToken()) {
		t.Error("dora's access ended too")
	}
	if l := s.Desk().LogLines("not acted on"); len(l) > 0 {
		t.Errorf("Keycloak was refused: %s", strings.Join(l, "\n"))
	}
}
