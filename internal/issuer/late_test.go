package issuer

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"frontdesk.dev/frontdesk/internal/broker"
	"frontdesk.dev/frontdesk/internal/identity"
)

// heard keeps ends, and lets a replica hear of them when a test says so.
type heard struct{ l []identity.Epoch }

func (h *heard) Advance(_ context.Context, e identity.Epoch) (identity.Epoch, error) {
	e.Seq = int64(len(h.l) + 1)
	h.l = append(h.l, e)
	return e, nil
}

func (h *heard) EpochsSince(_ context.Context, seq int64) ([]identity.Epoch, error) {
	return h.l[min(int(seq), len(h.l)):], nil
}

// signing keeps what it was asked to sign.
type signing struct {
	broker.Notary
	claims identity.AccessClaims
}

func (s *signing) Sign(_ context.Context, _ identity.Tenant, _ string, c identity.AccessClaims) (string, error) {
	s.claims = c
	return "signed", nil
}

// one is a code, and the family that comes of it.
type one struct {
	Grants
	Clients
	code   Code
	family Family
}

func (o *one) UseCode(context.Context, identity.Tenant, []byte, time.Time) (Code, error) {
	return o.code, nil
}
func (o *one) PutFamily(_ context.Context, f Family) error { o.family = f; return nil }
func (o *one) TouchClient(context.Context, identity.Tenant, identity.ClientID, time.Time) error {
	return nil
}

// TestRedeemedWhileItEnds: a code is redeemed at one replica in the moment in which another one ends its person's access. When the first hears of
// it, what it has given is dead: the access token as well as what would renew it.
func TestRedeemedWhileItEnds(t *testing.T) {
	now := time.Now().Truncate(time.Microsecond)
	clock := func() time.Time { return now }
	const verifier = "0123456789012345678901234567890123456789012"
	challenge := sha256.Sum256([]byte(verifier))
	grants := &one{code: Code{Tenant: "acme", Family: "f", Client: "agent", User: "alice", Resource: "https://desk.test/mcp/one", Challenge: base64.RawURLEncoding.EncodeToString(challenge[:]),
		Expires: now.Add(codeLife), Ends: now.Add(time.Hour)}}
	ends, notary := &heard{}, &signing{}
	here, there := &identity.Epochs{Store: ends, Now: clock}, &identity.Epochs{Store: ends, Now: clock}
	registry := &Registry{Now: clock, Store: grants}
	registry.UseConfig([]Client{{Tenant: "acme", ID: "agent"}}, nil)
	s := &Server{Clients: registry, Grants: grants, Notary: notary, Epochs: here, Pages: bare{}, Now: clock, URL: func(identity.Tenant, string) string { return "https://desk.test" }}
	mux := http.NewServeMux()
	s.Mount(mux, "acme", "")

	now = now.Add(5 * time.Millisecond)
	if err := there.End(t.Context(), "acme", identity.EpochUser, "alice"); err != nil {
		t.Fatal(err)
	}
	now = now.Add(5 * time.Millisecond)
	r := httptest.NewRequest(http.MethodPost, "/token", strings.NewReader(url.Values{"grant_type": {"authorization_code"}, "client_id": {"agent"}, "code": {"c"}, "code_verifier": {verifier}}.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	w := httptest.NewRecorder()
	mux.ServeHTTP(w, r)
	if w.Code != http.StatusOK || grants.family.ID != "f" {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	if err := here.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	c := notary.claims
	if here.Alive(&identity.Caller{Tenant: "acme", User: c.Subject, Client: c.Client, Family: c.Family, Issued: time.UnixMicro(c.Micros)}) {
		t.Error("the access token lives")
	}
	if !s.revoked(grants.family) {
		t.Error("the refresh token lives")
	}
}
