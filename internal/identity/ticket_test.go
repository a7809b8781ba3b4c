package identity_test

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"testing"
	"time"

	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
)

type oneKey struct{}

func (oneKey) MAC(_ context.Context, kid string, data []byte) ([]byte, string, error) {
	if kid != "" && kid != "k1" {
		return nil, "", fault.New(fault.NotFound, "no such key", nil)
	}
	h := hmac.New(sha256.New, []byte("test key"))
	h.Write(data)
	return h.Sum(nil), "k1", nil
}

var noon = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

func sign(t testing.TB, kid string, c any) string {
	t.Helper()
	claims, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	in := identity.TicketEnvelope(kid, claims)
	mac, _, _ := oneKey{}.MAC(context.Background(), "k1", in)
	return string(in) + "." + base64.RawURLEncoding.EncodeToString(mac)
}

func good() identity.TicketClaims {
	return identity.TicketClaims{Issuer: "https://desk", Audience: "https://desk/egress", Txn: "00ff.1", Server: "issues", Tenant: "default",
		Kind: identity.TicketCall, Expires: noon.Add(time.Minute).Unix()}
}

func TestTicket(t *testing.T) {
	check := identity.Tickets{MAC: oneKey{}, Audience: "https://desk/egress", Now: func() time.Time { return noon }}
	change := func(f func(*identity.TicketClaims)) string { c := good(); f(&c); return sign(t, "k1", c) }
	ok := sign(t, "k1", good())
	enc := base64.RawURLEncoding.EncodeToString
	tests := []struct {
		name, token string
		ok          bool
	}{
		{"good", ok, true},
		{"empty", "", false},
		{"expired", change(func(c *identity.TicketClaims) { c.Expires = noon.Unix() }), false},
		{"other audience", change(func(c *identity.TicketClaims) { c.Audience = "https://desk" }), false},
		{"other kind", change(func(c *identity.TicketClaims) { c.Kind = "user" }), false},
		{"no tenant", change(func(c *identity.TicketClaims) { c.Tenant = "" }), false},
		{"no txn", change(func(c *identity.TicketClaims) { c.Txn = "" }), false},
		{"another key's name", sign(t, "k2", good()), false},
		{"no signature", ok[:len(ok)-43], false},
		{"cut", ok[:len(ok)-1], false},
		{"trailing bits of the last character", ok[:len(ok)-1] + string(ok[len(ok)-1]^1), false},
		{"alg none", enc([]byte(`{"alg":"none","typ":"txntoken+jwt"}`)) + ".e30.", false},
		{"header in another order", enc([]byte(`{"typ":"txntoken+jwt","alg":"HS256","kid":"k1"}`)) + ok[len(enc([]byte(`{"alg":"HS256","kid":"k1","typ":"txntoken+jwt"}`))):], false},
		{"a claim more", sign(t, "k1", map[string]any{"iss": "https://desk", "aud": "https://desk/egress", "txn": "00ff.1", "srv": "issues", "tnt": "default", "knd": "call", "exp": noon.Add(time.Minute).Unix(), "sub": "x"}), false},
		{"huge", ok + string(make([]byte, 4096)), false},
	}
	for _, tt := range tests {
		got, err := check.Check(context.Background(), tt.token)
		if (err == nil) != tt.ok {
			t.Errorf("%s: got %+v, %v", tt.name, got, err)
		}
		if err != nil && fault.KindOf(err) != fault.Unauthenticated {
			t.Errorf("%s: got kind %v", tt.name, fault.KindOf(err))
		}
	}
}

func FuzzTicket(f *testing.F) {
	check := identity.Tickets{MAC: oneKey{}, Audience: "https://desk/egress", Now: func() time.Time { return noon }}
	ok := sign(f, "k1", good())
	f.Add(ok)
	f.Fuzz(func(t *testing.T, token string) {
		if _, err := check.Check(context.Background(), token); err == nil && token != ok {
			t.Errorf("a token that we did not make was accepted: %q", token)
		}
	})
}
