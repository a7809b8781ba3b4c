package visits_test

import (
	"context"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/internal/broker"
	"frontdesk.dev/frontdesk/internal/broker/visits"
	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/connect"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/store"
	"frontdesk.dev/frontdesk/internal/vault"
	"frontdesk.dev/frontdesk/internal/vault/keyring"
	"frontdesk.dev/frontdesk/internal/vault/kms"
)

const issuer = "https://desk.example.com"

// room is a desk over a real store and real keys; what it guards only notes that it was reached.
type room struct {
	*visits.Desk
	epochs  *identity.Epochs
	reached int
	renewed int
	home    bool // the IdP gives a home credential, and asking by it works
	events  []audit.Record
	now     time.Time
}

func (r *room) Event(_ context.Context, e audit.Record) error {
	r.events = append(r.events, e)
	return nil
}

// guarded is what believes every visitor.
type guarded struct {
	visits.People
	r *room
}

func (g guarded) Begin(context.Context, connect.Visitor, connect.Start) (connect.Next, error) {
	g.r.reached++
	return connect.Next{}, nil
}

func (g guarded) Complete(_ context.Context, v connect.Visitor, a connect.Answer) (connect.Result, error) {
	g.r.reached++
	if a.IDP == "" {
		return connect.Result{Kind: connect.FlowConnect, User: identity.User{ID: v.User}}, nil
	}
	return connect.Result{Kind: connect.FlowSignIn, User: identity.User{ID: "alice"}, Session: connect.SignedIn{IDP: "login", SID: "s1", At: g.r.now, HasHome: g.r.home, ACR: "high", AMR: []string{"pwd"}}}, nil
}

func (g guarded) End(context.Context, connect.Visitor, vault.ConnectionID) (connect.Ending, error) {
	g.r.reached++
	return "", nil
}

func (g guarded) Renew(context.Context, identity.Tenant, identity.UserID, string) error {
	g.r.renewed++
	if !g.r.home {
		return fault.New(fault.NotFound, "no home credential", nil)
	}
	return nil
}

func (g guarded) Consent(context.Context, connect.Visitor, identity.ClientID, *catalog.Server) error {
	g.r.reached++
	return nil
}

func (g guarded) Device(context.Context, connect.Visitor, string) (connect.Device, error) {
	g.r.reached++
	return connect.Device{}, nil
}

func (g guarded) Prefer(context.Context, connect.Visitor, vault.ConnectionID) error {
	g.r.reached++
	return nil
}

func (g guarded) UseAccount(context.Context, connect.Visitor, connect.Grant) error {
	g.r.reached++
	return nil
}

func (g guarded) RevokeGrant(context.Context, connect.Visitor, connect.Grant) error {
	g.r.reached++
	return nil
}

func (g guarded) Refuse(context.Context, connect.Visitor, connect.RequestID) error {
	g.r.reached++
	return nil
}

func (g guarded) Visible(_ context.Context, c *identity.Caller, _ *catalog.Server, _ string, names []string) ([]bool, error) {
	g.r.reached++
	return make([]bool, len(names)), nil
}

// shelf knows alice by her id.
type shelf struct{ *store.DB }

func (s shelf) User(_ context.Context, t identity.Tenant, u identity.UserID) (identity.User, error) {
	return identity.User{Tenant: t, ID: u, Groups: []string{"engineering"}}, nil
}

func newRoom(t *testing.T) *room {
	t.Helper()
	dir := t.TempDir()
	db, err := store.Open(t.Context(), store.Config{Path: filepath.Join(dir, "f.db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	key, err := kms.OpenKeyFile(filepath.Join(dir, "vault.key"), true)
	if err != nil {
		t.Fatal(err)
	}
	r := &room{now: time.Now()}
	now := func() time.Time { return r.now }
	signer := &keyring.Signer{Keys: db, Wrap: key, Now: now}
	r.epochs = &identity.Epochs{Store: db, Now: now, Log: slog.New(slog.DiscardHandler)}
	g := guarded{r: r}
	r.Desk = &visits.Desk{Flows: g, People: g, Shelf: shelf{db}, Tools: g, Signer: signer, Log: r, MAC: signer, Epochs: r.epochs, Now: now,
		URL: func(_ identity.Tenant, path string) string { return issuer + path }}
	return r
}

var browser = []byte("the digest of a cookie")

// signIn is alice, in her browser.
func (r *room) signIn(t *testing.T) connect.Visitor {
	t.Helper()
	res, err := r.Complete(t.Context(), connect.Visitor{Tenant: "default", Binding: browser}, connect.Answer{IDP: "login"})
	if err != nil || res.Session.Proof == "" || res.Session.ID == "" {
		t.Fatal(res, err)
	}
	return connect.Visitor{Tenant: "default", User: "alice", Binding: browser, Proof: res.Session.Proof}
}

// TestAVisitIsProved: whatever the faces say of a visitor that the broker did not see itself reaches nothing.
func TestAVisitIsProved(t *testing.T) {
	r := newRoom(t)
	alice := r.signIn(t)
	acts := map[string]func(v connect.Visitor) error{
		"begin": func(v connect.Visitor) error {
			_, err := r.Begin(t.Context(), v, connect.Start{Kind: connect.FlowConnect})
			return err
		},
		"end":     func(v connect.Visitor) error { _, err := r.End(t.Context(), v, "c"); return err },
		"consent": func(v connect.Visitor) error { return r.Consent(t.Context(), v, "agent", &catalog.Server{}) },
		"device":  func(v connect.Visitor) error { _, err := r.Device(t.Context(), v, "d"); return err },
		"prefer":  func(v connect.Visitor) error { return r.Prefer(t.Context(), v, "c") },
		"account": func(v connect.Visitor) error { return r.UseAccount(t.Context(), v, connect.Grant{}) },
		"revoke":  func(v connect.Visitor) error { return r.RevokeGrant(t.Context(), v, connect.Grant{}) },
		"refuse":  func(v connect.Visitor) error { return r.Refuse(t.Context(), v, "q") },
		"list":    func(v connect.Visitor) error { _, err := r.Connections(t.Context(), v, ""); return err },
		"endings": func(v connect.Visitor) error { _, err := r.Endings(t.Context(), v); return err },
		"log":     func(v connect.Visitor) error { _, err := r.Activity(t.Context(), v, "", 10); return err },
		"callable": func(v connect.Visitor) error {
			_, err := r.Callable(t.Context(), v, "agent", &catalog.Server{}, []string{"list"})
			return err
		},
		"admit": func(v connect.Visitor) error {
			_, err := r.Admit(t.Context(), v, broker.Admission{Client: "agent", Server: &catalog.Server{Name: "issues"}, Family: "f"})
			return err
		},
	}
	for name, act := range acts {
		if err := act(alice); err != nil {
			t.Errorf("%s by alice herself: %v", name, err)
		}
	}
	forged := map[string]func(v *connect.Visitor){
		"nothing":             func(v *connect.Visitor) { v.Proof = "" },
		"another person":      func(v *connect.Visitor) { v.User = "bob" },
		"nobody":              func(v *connect.Visitor) { v.User = "" },
		"another tenant":      func(v *connect.Visitor) { v.Tenant = "acme" },
		"another browser":     func(v *connect.Visitor) { v.Binding = []byte("another one") },
		"no browser":          func(v *connect.Visitor) { v.Binding = nil },
		"another key's name":  func(v *connect.Visitor) { v.Proof = strings.Replace(v.Proof, ".t", ".x", 1) },
		"a standing in place": func(v *connect.Visitor) { v.Proof = r.admit(t, alice, "f") },
	}
	for i := 0; i < len(alice.Proof); i += 7 {
		forged["byte "+string(rune('a'+i%26))+alice.Proof[:i]] = func(v *connect.Visitor) {
			b := []byte(v.Proof)
			b[i] ^= 1
			v.Proof = string(b)
		}
	}
	for what, forge := range forged {
		v := alice
		forge(&v)
		was := r.reached
		for name, act := range acts {
			if err := act(v); fault.KindOf(err) != fault.Denied || r.reached != was {
				t.Fatalf("%s with %s: %v, and it was reached %d times", name, what, err, r.reached-was)
			}
		}
	}
	// Who can't prove a visit completes as a stranger: that is for package connect to refuse.
	v := alice
	v.Proof = "x"
	if res, err := r.Complete(t.Context(), v, connect.Answer{}); err != nil || res.User.ID != "" {
		t.Error("a visitor without proof completes as himself", res, err)
	}
	if res, err := r.Complete(t.Context(), alice, connect.Answer{}); err != nil || res.User.ID != "alice" {
		t.Error("alice does not complete as herself", res, err)
	}
}

// TestAVisitEnds with what ends the sign-in, or by itself.
func TestAVisitEnds(t *testing.T) {
	for what, end := range map[string]func(r *room, id string) error{
		"sign-out": func(r *room, id string) error { return r.epochs.End(t.Context(), "default", identity.EpochSession, id) },
		"access": func(r *room, _ string) error {
			return r.epochs.End(t.Context(), "default", identity.EpochUser, "alice")
		},
		"IdP's logout": func(r *room, _ string) error {
			return r.epochs.End(t.Context(), "default", identity.EpochSession, identity.SignInID("login", "s1"))
		},
		"time": func(r *room, _ string) error { r.now = r.now.Add(visits.Life); return nil },
	} {
		r := newRoom(t)
		res, err := r.Complete(t.Context(), connect.Visitor{Tenant: "default", Binding: browser}, connect.Answer{IDP: "login"})
		if err != nil {
			t.Fatal(err)
		}
		v := connect.Visitor{Tenant: "default", User: "alice", Binding: browser, Proof: res.Session.Proof}
		if _, err := r.Connections(t.Context(), v, ""); err != nil {
			t.Fatal(err)
		}
		r.now = r.now.Add(time.Millisecond)
		if err := end(r, res.Session.ID); err != nil {
			t.Fatal(err)
		}
		if _, err := r.Connections(t.Context(), v, ""); fault.KindOf(err) != fault.Denied {
			t.Errorf("after the end by %s: %v", what, err)
		}
	}
}

func (r *room) admit(t *testing.T, v connect.Visitor, family string) string {
	t.Helper()
	s, err := r.Admit(t.Context(), v, broker.Admission{Client: "agent", Server: &catalog.Server{Name: "issues"}, Family: family})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestATokenNeedsAStanding: no face makes the broker's side sign for somebody who has not let that agent in.
func TestATokenNeedsAStanding(t *testing.T) {
	r := newRoom(t)
	alice := r.signIn(t)
	standing := r.admit(t, alice, "family")
	if len(r.events) != 1 || r.events[0].Action != "client.allowed" || r.events[0].User != "alice" || r.events[0].Client != "agent" {
		t.Error("what was allowed is not on record as it was", r.events)
	}
	good := identity.AccessClaims{Issuer: issuer, Audience: issuer + "/mcp/issues", Subject: "alice", Client: "agent", ID: "1", IssuedAt: r.now.Unix(), Expires: r.now.Add(4 * time.Minute).Unix(),
		AuthTime: r.now.Unix(), ACR: "high", AMR: []string{"pwd"}, Family: "family", Micros: r.now.UnixMicro()}
	if _, err := r.Sign(t.Context(), "default", standing, good); err != nil || r.renewed != 1 {
		t.Fatalf("alice's agent gets no token: %v; the IdP was asked %d times", err, r.renewed)
	}
	no := func(what string, tenant identity.Tenant, standing string, c identity.AccessClaims) {
		t.Helper()
		if token, err := r.Sign(t.Context(), tenant, standing, c); fault.KindOf(err) != fault.Unauthenticated || token != "" {
			t.Errorf("%s: %q, %v", what, token, err)
		}
	}
	for what, forge := range map[string]func(c *identity.AccessClaims){
		"another person":     func(c *identity.AccessClaims) { c.Subject = "bob" },
		"another agent":      func(c *identity.AccessClaims) { c.Client = "other" },
		"another server":     func(c *identity.AccessClaims) { c.Audience = issuer + "/mcp/payroll" },
		"another issuer":     func(c *identity.AccessClaims) { c.Issuer = "https://elsewhere.example" },
		"another sign-in":    func(c *identity.AccessClaims) { c.Family = "" },
		"a stronger sign-in": func(c *identity.AccessClaims) { c.ACR = "higher" },
		"another factor":     func(c *identity.AccessClaims) { c.AMR = []string{"hwk"} },
		"a fresher sign-in":  func(c *identity.AccessClaims) { c.AuthTime++ },
		"a long life":        func(c *identity.AccessClaims) { c.Expires = r.now.Add(time.Hour).Unix() },
		"a later beginning":  func(c *identity.AccessClaims) { c.Micros = r.now.Add(time.Hour).UnixMicro() }, // it would outlive an end of access
		"an odd beginning":   func(c *identity.AccessClaims) { c.IssuedAt += 3600 },
	} {
		c := good
		forge(&c)
		no(what, "default", standing, c)
	}
	no("no standing", "default", "", good)
	no("a visit in its place", "default", alice.Proof, good)
	no("another tenant", "acme", standing, good)
	if err := r.epochs.End(t.Context(), "default", identity.EpochFamily, "family"); err != nil {
		t.Fatal(err)
	}
	no("its family has ended", "default", standing, good)
	r.Together = true
	if _, err := r.Sign(t.Context(), "default", "", good); err != nil {
		t.Error("in one process a family from before there were standings goes on:", err)
	}
	no("in one process a standing that has ended", "default", standing, good)
}

// TestFacesRecordLittle: the log's lines about acts and people are not theirs to write.
func TestFacesRecordLittle(t *testing.T) {
	r := newRoom(t)
	ok := audit.Record{Kind: audit.KindEvent, Time: r.now, Tenant: "default", Action: "sign_in.ended"}
	if err := r.Record(t.Context(), ok); err != nil || len(r.events) != 1 {
		t.Error(err)
	}
	for _, bad := range []audit.Record{{Kind: audit.KindEvent, Time: r.now, Action: "client.allowed"}, {Kind: audit.KindOutcome, Time: r.now, Action: "sign_in.ended"},
		{Kind: audit.KindEvent, Time: r.now.Add(-time.Hour), Action: "sign_in.ended"}} {
		if err := r.Record(t.Context(), bad); fault.KindOf(err) != fault.Denied {
			t.Error(bad, err)
		}
	}
}

// TestAgentsOutlastTheBrowser where the company's IdP can be asked at each token, and only there.
func TestAgentsOutlastTheBrowser(t *testing.T) {
	for _, home := range []bool{true, false} {
		r := newRoom(t)
		r.home = home
		alice := r.signIn(t)
		standing := r.admit(t, alice, "family")
		sign := func() error {
			_, err := r.Sign(t.Context(), "default", standing, identity.AccessClaims{Issuer: issuer, Audience: issuer + "/mcp/issues", Subject: "alice", Client: "agent", ID: "1",
				IssuedAt: r.now.Unix(), Expires: r.now.Add(4 * time.Minute).Unix(), ACR: "high", AMR: []string{"pwd"}, Family: "family", Micros: r.now.UnixMicro()})
			return err
		}
		if err := sign(); err != nil {
			t.Fatal(err)
		}
		r.now = r.now.Add(visits.Life + time.Minute)
		if _, err := r.Connections(t.Context(), alice, ""); fault.KindOf(err) != fault.Denied {
			t.Errorf("the browser is signed in for ever: %v", err)
		}
		if err := sign(); home != (err == nil) {
			t.Errorf("with a home credential (%v), after a day: %v", home, err)
		}
		asked := r.renewed
		if r.home = false; sign() == nil {
			t.Error("the home credential is gone, so nobody was asked, and a token was signed")
		}
		if home && r.renewed == asked {
			t.Error("nobody was asked")
		}
		r.home, r.now = home, r.now.Add(visits.AgentLife)
		if sign() == nil {
			t.Error("an agent's sign-in does not end")
		}
	}
}
