package identity_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/google/go-cmp/cmp"

	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
)

const (
	ours     = "https://desk.example.com"
	company  = "https://login.example.com"
	resource = "https://desk.example.com/mcp/issues"
)

// key signs for one issuer.
type key struct{ *ecdsa.PrivateKey }

func newKey(t *testing.T) key {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key{k}
}

func (k key) Key(_ context.Context, kid string, _ jose.SignatureAlgorithm) (jose.JSONWebKey, error) {
	if kid != "k" {
		return jose.JSONWebKey{}, fault.New(fault.Unauthenticated, "unknown key", nil)
	}
	return jose.JSONWebKey{Key: &k.PublicKey, KeyID: "k", Algorithm: "ES256", Use: "sig"}, nil
}

func (k key) sign(t *testing.T, typ string, claims map[string]any) string {
	t.Helper()
	s, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: k.PrivateKey, KeyID: "k"}}, (&jose.SignerOptions{}).WithType(jose.ContentType(typ)))
	if err != nil {
		t.Fatal(err)
	}
	out, err := jwt.Signed(s).Claims(claims).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// users is a Users and EpochStore in memory.
type users struct {
	mu     sync.Mutex
	people map[identity.UserID]identity.User
	epochs []identity.Epoch
}

func (u *users) EnsureUser(_ context.Context, n identity.User) (identity.User, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for id, p := range u.people {
		if p.Tenant == n.Tenant && p.IDP == n.IDP && p.Subject == n.Subject {
			if n.Groups != nil {
				p.Groups = n.Groups
			}
			u.people[id] = p
			return p, nil
		}
	}
	n.ID = identity.UserID("u-" + n.IDP + "-" + n.Subject)
	u.people[n.ID] = n
	return n, nil
}

func (u *users) User(_ context.Context, t identity.Tenant, id identity.UserID) (identity.User, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if p, ok := u.people[id]; ok && p.Tenant == t {
		return p, nil
	}
	return identity.User{}, fault.New(fault.NotFound, "no such user", nil)
}

func (u *users) Advance(_ context.Context, e identity.Epoch) (identity.Epoch, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	e.Seq = int64(len(u.epochs) + 1)
	u.epochs = append(u.epochs, e)
	return e, nil
}

func (u *users) EpochsSince(_ context.Context, seq int64) ([]identity.Epoch, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.epochs[seq:], nil
}

type desk struct {
	*identity.Verifier
	own, idp key
	store    *users
	now      time.Time
}

func newDesk(t *testing.T) *desk {
	d := &desk{own: newKey(t), idp: newKey(t), store: &users{people: map[identity.UserID]identity.User{}}, now: noon}
	d.store.people["alice-id"] = identity.User{Tenant: "default", ID: "alice-id", IDP: "login", Subject: "alice", Groups: []string{"engineering"}}
	now := func() time.Time { return d.now }
	d.Verifier = &identity.Verifier{Users: d.store, Now: now, Epochs: &identity.Epochs{Store: d.store, Now: now, Log: slog.New(slog.DiscardHandler)}}
	d.UseIssuers([]identity.Issuer{{Tenant: "default", URL: ours, Keys: d.own}, {Tenant: "default", URL: company, Keys: d.idp, IDP: "login", Audiences: []string{"api://frontdesk"}}})
	return d
}

func ownClaims(over map[string]any) map[string]any {
	m := map[string]any{"iss": ours, "aud": resource, "sub": "alice-id", "client_id": "agent", "jti": "1", "iat": noon.Unix(), "exp": noon.Add(4 * time.Minute).Unix(),
		"fam": "f1", "fus": noon.UnixMicro(), "scope": "mcp"}
	maps.Copy(m, over)
	return m
}

func idpClaims(over map[string]any) map[string]any {
	m := map[string]any{"iss": company, "aud": "api://frontdesk", "sub": "alice", "client_id": "workload", "iat": noon.Unix(), "exp": noon.Add(time.Hour).Unix(), "groups": []string{"engineering"}}
	maps.Copy(m, over)
	return m
}

func TestVerify(t *testing.T) {
	d := newDesk(t)
	tests := []struct {
		name, token string
		user        identity.UserID
		service     string
	}{
		{"ours", d.own.sign(t, "at+jwt", ownClaims(nil)), "alice-id", ""},
		{"the IdP's: the same person", d.idp.sign(t, "at+jwt", idpClaims(nil)), "alice-id", ""},
		{"A-015 a workload is no person, whatever its name", d.idp.sign(t, "at+jwt", idpClaims(map[string]any{"client_id": "alice"})), "", "alice"},
		{"A-015 a workload whose IdP says cid for client_id", d.idp.sign(t, "at+jwt", without(idpClaims(map[string]any{"cid": "alice"}), "client_id")), "", "alice"},
		{"A-015 the account of a client at Keycloak", d.idp.sign(t, "at+jwt", without(idpClaims(map[string]any{"sub": "5f7a", "azp": "robot", "preferred_username": "service-account-robot"}), "client_id")), "", "5f7a"},
		{"A-015 a machine's token of Auth0", d.idp.sign(t, "at+jwt", without(idpClaims(map[string]any{"sub": "robot@clients", "azp": "robot", "gty": "client-credentials"}), "client_id")), "", "robot@clients"},
		{"A-015 one of Auth0 by its subject alone", d.idp.sign(t, "at+jwt", without(idpClaims(map[string]any{"sub": "robot@clients", "azp": "robot"}), "client_id")), "", "robot@clients"},
		{"A-015 an application of Entra that does not ask for idtyp", d.idp.sign(t, "at+jwt", without(idpClaims(map[string]any{"sub": "0b1c", "oid": "0b1c", "azp": "robot"}), "client_id")), "", "0b1c"},
		{"A-015 an account of Google's for services", d.idp.sign(t, "at+jwt", without(idpClaims(map[string]any{"sub": "1066", "azp": "robot@acme.iam.gserviceaccount.com", "email": "robot@acme.iam.gserviceaccount.com"}), "client_id")), "", "1066"},
		{"a person of Entra has another sub than oid", d.idp.sign(t, "at+jwt", idpClaims(map[string]any{"sub": "bert", "oid": "0b1c"})), "u-login-bert", ""},
		{"somebody whose name ends like a client's at Auth0 is a person", d.idp.sign(t, "at+jwt", idpClaims(map[string]any{"sub": "carl@clients"})), "u-login-carl@clients", ""},
		{"somebody who is called like another client's account is a person", d.idp.sign(t, "at+jwt", idpClaims(map[string]any{"sub": "bert", "preferred_username": "service-account-robot"})), "u-login-bert", ""},
		{"A-009 an ID token", d.idp.sign(t, "JWT", idpClaims(map[string]any{"nonce": "n"})), "", ""},
		{"A-009 an ID token that claims to be an access token", d.idp.sign(t, "at+jwt", idpClaims(map[string]any{"nonce": "n"})), "", ""},
		{"A-009 a transaction token", d.own.sign(t, "txntoken+jwt", ownClaims(nil)), "", ""},
		{"A-008 another resource", d.own.sign(t, "at+jwt", ownClaims(map[string]any{"aud": resource + "2"})), "", ""},
		{"A-008 a slash more", d.own.sign(t, "at+jwt", ownClaims(map[string]any{"aud": resource + "/"})), "", ""},
		{"A-008 two audiences", d.own.sign(t, "at+jwt", ownClaims(map[string]any{"aud": []string{resource, "https://evil"}})), "", ""},
		{"ours does not take the IdP's audience", d.own.sign(t, "at+jwt", ownClaims(map[string]any{"aud": "api://frontdesk"})), "", ""},
		{"A-004 the other issuer's key", d.idp.sign(t, "at+jwt", ownClaims(nil)), "", ""},
		{"A-011 a slash at the issuer", d.own.sign(t, "at+jwt", ownClaims(map[string]any{"iss": ours + "/"})), "", ""},
		{"A-010 expired", d.own.sign(t, "at+jwt", ownClaims(map[string]any{"exp": noon.Unix()})), "", ""},
		{"A-010 lives for ten years", d.own.sign(t, "at+jwt", ownClaims(map[string]any{"exp": noon.AddDate(10, 0, 0).Unix()})), "", ""},
		{"unknown user", d.own.sign(t, "at+jwt", ownClaims(map[string]any{"sub": "bob-id"})), "", ""},
		{"A-119 groups as a string", d.idp.sign(t, "at+jwt", idpClaims(map[string]any{"groups": "engineering"})), "", ""},
		{"A-119 groups somewhere else", d.idp.sign(t, "at+jwt", func() map[string]any {
			c := idpClaims(map[string]any{"_claim_names": map[string]any{"groups": "src1"}})
			delete(c, "groups")
			return c
		}()), "", ""},
		{"no token", "", "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for range 2 { // the second time from memory
				c, err := d.Verify(t.Context(), "default", resource, tt.token)
				if tt.user == "" && tt.service == "" {
					if fault.KindOf(err) != fault.Unauthenticated {
						t.Fatalf("got %+v, %v, want a refusal", c, err)
					}
					continue
				}
				if err != nil || c.User != tt.user || c.Service != tt.service {
					t.Fatalf("got %+v, %v", c, err)
				}
			}
		})
	}
	if _, err := d.Verify(t.Context(), "acme", resource, tests[0].token); fault.KindOf(err) != fault.Unauthenticated {
		t.Errorf("another tenant's token was taken: %v", err)
	}
}

func without(m map[string]any, name string) map[string]any { delete(m, name); return m }

// TestAnUnprovenAddressIsNone: some upstreams know people by their address, so one that anybody could have claimed is not kept.
func TestAnUnprovenAddressIsNone(t *testing.T) {
	d := newDesk(t)
	for said, want := range map[any]string{nil: "ceo@example.com", true: "ceo@example.com", "true": "ceo@example.com", false: "", "false": ""} {
		claims := idpClaims(map[string]any{"sub": fmt.Sprint("mallory-", said), "email": "ceo@example.com", "email_verified": said})
		if said == nil {
			delete(claims, "email_verified")
		}
		c, err := d.Verify(t.Context(), "default", resource, d.idp.sign(t, "at+jwt", claims))
		if err != nil {
			t.Fatal(err)
		}
		if got := d.store.people[c.User].Email; got != want {
			t.Errorf("email_verified %v: %q is kept, want %q", said, got, want)
		}
	}
}

func TestAnotherIdPsAliceIsSomebodyElse(t *testing.T) {
	d := newDesk(t)
	second := newKey(t)
	d.UseIssuers([]identity.Issuer{{Tenant: "default", URL: "https://idp2", Keys: second, IDP: "second", Audiences: []string{"api://frontdesk"}}})
	c, err := d.Verify(t.Context(), "default", resource, second.sign(t, "at+jwt", idpClaims(map[string]any{"iss": "https://idp2", "email": "alice@example.com", "preferred_username": "alice"})))
	if err != nil || c.User == "alice-id" || c.User == "" {
		t.Errorf("got %+v, %v", c, err)
	}
}

func TestEndOfAccess(t *testing.T) {
	d := newDesk(t)
	other := &identity.Epochs{Store: d.store, Now: d.Verifier.Now, Log: slog.New(slog.DiscardHandler)} // the second replica
	for _, end := range []identity.Epoch{{Kind: identity.EpochUser, ID: "alice-id"}, {Kind: identity.EpochClient, ID: "agent"}, {Kind: identity.EpochFamily, ID: "f1"}} {
		d.now = d.now.Add(time.Millisecond)
		old := d.own.sign(t, "at+jwt", ownClaims(map[string]any{"fus": d.now.UnixMicro()}))
		c, err := d.Verify(t.Context(), "default", resource, old)
		if err != nil {
			t.Fatal(err)
		}
		d.now = d.now.Add(time.Millisecond)
		if err := d.Epochs.End(t.Context(), "acme", end.Kind, end.ID); err != nil {
			t.Fatal(err)
		}
		if !d.Epochs.Alive(c) {
			t.Fatalf("%s: another tenant's end reached this caller", end.Kind)
		}
		if err := d.Epochs.End(t.Context(), "default", end.Kind, end.ID); err != nil {
			t.Fatal(err)
		}
		if _, err := d.Verify(t.Context(), "default", resource, old); fault.KindOf(err) != fault.Unauthenticated {
			t.Errorf("%s: the old token still works: %v", end.Kind, err)
		}
		if err := other.Load(t.Context()); err != nil || other.Alive(c) {
			t.Errorf("%s: the other replica doesn't know: %v", end.Kind, err)
		}
		d.now = d.now.Add(time.Millisecond) // the same second
		fresh := d.own.sign(t, "at+jwt", ownClaims(map[string]any{"fus": d.now.UnixMicro(), "jti": string(end.Kind)}))
		_, err = d.Verify(t.Context(), "default", resource, fresh)
		if ended := end.Kind == identity.EpochFamily; ended != (err != nil) { // a sign-in that ended never begins again
			t.Errorf("%s: a token issued after the end: %v", end.Kind, err)
		}
	}
}

func TestEndsOfTwoReplicasDoNotHideEachOther(t *testing.T) {
	d := newDesk(t)
	other := &identity.Epochs{Store: d.store, Now: d.Verifier.Now, Log: slog.New(slog.DiscardHandler)}
	if err := other.End(t.Context(), "default", identity.EpochUser, "bob"); err != nil {
		t.Fatal(err)
	}
	if err := d.Epochs.End(t.Context(), "default", identity.EpochUser, "carol"); err != nil { // learned here before bob's is read
		t.Fatal(err)
	}
	if err := d.Epochs.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	got := []bool{d.Epochs.Session("default", "bob", "browser", noon), d.Epochs.Session("default", "carol", "browser", noon), d.Epochs.Session("default", "alice", "browser", noon)}
	if diff := cmp.Diff([]bool{false, false, true}, got); diff != "" {
		t.Error(diff)
	}
}

func BenchmarkVerifyWarm(b *testing.B) {
	t := &testing.T{}
	d := newDesk(t)
	token := d.own.sign(t, "at+jwt", ownClaims(nil))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := d.Verify(context.Background(), "default", resource, token); err != nil {
			b.Fatal(err)
		}
	}
}
