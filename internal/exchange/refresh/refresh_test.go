package refresh_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/exchange/refresh"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/kit/secret"
	"frontdesk.dev/frontdesk/internal/store"
	"frontdesk.dev/frontdesk/internal/store/storetest/check"
	"frontdesk.dev/frontdesk/internal/vault"
)

// alone is one replica over SQLite.
func alone(t *testing.T, v *vendor) *replica {
	t.Helper()
	db, err := store.Open(t.Context(), store.Config{Path: filepath.Join(t.TempDir(), "test.db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	s := newScene(t, v, filepath.Join(t.TempDir(), "vault.key"))
	r := s.replica(t, db, 0, 1)
	t.Cleanup(func() { r.Wait(context.Background()); r.die() })
	return r
}

// again is the next run at the same place, over the same database.
func (r *replica) again(t *testing.T) *replica {
	t.Helper()
	r.die()
	next := r.scene.replica(t, r.db, r.index, r.run+1)
	t.Cleanup(func() { next.Wait(context.Background()); next.die() })
	return next
}

func (r *replica) person(t *testing.T, name string, up catalog.UpstreamName) vault.Connection {
	t.Helper()
	c, err := r.connect(t.Context(), vault.Connection{Tenant: identity.DefaultTenant, User: identity.UserID(name), Upstream: up, Method: catalog.AuthorizationCode})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (r *replica) row(t *testing.T, c vault.Connection) vault.Connection {
	t.Helper()
	now, err := r.db.Connection(t.Context(), c.Tenant, c.ID)
	if err != nil {
		t.Fatal(err)
	}
	return now
}

func (r *replica) fresh(t *testing.T, c vault.Connection) (vault.Connection, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	return r.Fresh(ctx, r.row(t, c), r.scene.up, r.scene.method)
}

func (r *replica) works(t *testing.T, c vault.Connection) {
	t.Helper()
	fresh, err := r.fresh(t, c)
	if err != nil {
		t.Fatal(err)
	}
	s, err := r.vault.Open(t.Context(), fresh)
	if err != nil {
		t.Fatal(err)
	}
	if why := r.scene.vendor.serves(s.Access.Expose()); why != "" {
		t.Errorf("the vendor does not take the token: %s", why)
	}
}

func wantStatus(t *testing.T, c vault.Connection, s vault.Status, reason string) {
	t.Helper()
	if c.Status != s || !strings.Contains(c.Reason, reason) {
		t.Errorf("the connection is %s (%q), want %s (%q)", c.Status, c.Reason, s, reason)
	}
}

func needs(err error) bool { _, ok := errors.AsType[*catalog.Needed](err); return ok }

// TestRedirectRepeated: a vendor that wants the redirect URI again gets the one of its upstream's callback; others do not.
func TestRedirectRepeated(t *testing.T) {
	for _, wants := range []bool{true, false} {
		v := newVendor(catalog.RotationStrict)
		r := alone(t, v)
		r.Callback = func(_ identity.Tenant, up catalog.UpstreamName) string {
			return "https://desk.example.com/callback/" + string(up)
		}
		r.scene.up.Provider.OAuth.Refresh.RedirectURI = wants
		c := r.person(t, "alice", "tracker")
		v.pass(2 * time.Hour)
		r.works(t, c)
		want := ""
		if wants {
			want = "https://desk.example.com/callback/tracker"
		}
		if got := v.last.Get("redirect_uri"); got != want || v.last.Get("grant_type") != "refresh_token" {
			t.Errorf("it sends %v, want redirect_uri %q", v.last, want)
		}
	}
}

// showings hears what vendors have shown.
type showings []catalog.Showing

func (s *showings) Showed(_ context.Context, _ *catalog.Upstream, l []catalog.Showing) {
	*s = append(*s, l...)
}

// TestRotationIsSeen: where an entry's refresh rules are unproven, a renewal is held against them.
func TestRotationIsSeen(t *testing.T) {
	for rotation, fits := range map[catalog.Rotation]bool{catalog.RotationStrict: true, catalog.RotationNone: false} {
		v := newVendor(catalog.RotationStrict)
		r := alone(t, v)
		var seen showings
		r.scene.catalog.Live = &seen
		r.scene.up.Provider.LowTrust = []string{"refresh"}
		c := r.person(t, "alice", "tracker")
		r.scene.up.Provider.OAuth.Refresh.Rotation = rotation
		v.pass(2 * time.Hour)
		r.works(t, c)
		i := slices.IndexFunc(seen, func(s catalog.Showing) bool { return s.Aspect == catalog.AspectRefresh })
		if i < 0 || seen[i].Fits != fits {
			t.Errorf("%s at a strict vendor: %+v", rotation, seen)
		}
	}
}

// TestDeathNeedsTwoWitnesses: one invalid_grant ends nothing, a second one does.
func TestDeathNeedsTwoWitnesses(t *testing.T) {
	v := newVendor(catalog.RotationStrict)
	r := alone(t, v)
	c := r.person(t, "alice", "tracker")
	v.pass(2 * time.Hour)
	v.withdraw(c.ID)
	if _, err := r.fresh(t, c); !needs(err) {
		t.Errorf("the vendor has ended it, and the answer is %v", err)
	}
	wantStatus(t, r.row(t, c), vault.NeedsReconnect, "does not accept the renewal")
	if v.asked != 2 {
		t.Errorf("the vendor was asked %d times, want 2", v.asked)
	}
}

// TestBadHour: many at one upstream seem to end at once. Nobody is asked to reconnect, those who were already are taken back,
// the vendor is tried once a minute, and when it answers all go on.
func TestBadHour(t *testing.T) {
	v := newVendor(catalog.RotationStrict)
	r := alone(t, v)
	var people []vault.Connection
	for i := range 12 {
		people = append(people, r.person(t, fmt.Sprint("user", i), "tracker"))
	}
	v.pass(2 * time.Hour)
	v.set(badHour)
	asked := 0
	for _, c := range people {
		if _, err := r.fresh(t, c); needs(err) {
			asked++
		}
	}
	if asked >= 5 {
		t.Errorf("%d people were asked to reconnect", asked)
	}
	for _, c := range people {
		if s := r.row(t, c).Status; s != vault.Suspect && s != vault.Active {
			t.Errorf("a connection is left %s", s)
		}
	}
	if l := r.Ailing(); len(l) != 1 || l[0].Trouble != refresh.Refusing {
		t.Errorf("operators see %v", l)
	}
	before := v.asked
	for _, c := range people {
		if _, err := r.fresh(t, c); fault.KindOf(err) != fault.Unavailable || fault.RetryAfter(err) <= 0 {
			t.Errorf("the answer is %v, want one that says when to come again", err)
		}
	}
	if v.asked != before {
		t.Errorf("the vendor was asked %d times within the minute", v.asked-before)
	}
	v.pass(2 * time.Minute)
	for _, c := range people {
		_, _ = r.fresh(t, c) // one of them is the probe
	}
	if n := v.asked - before; n != 1 {
		t.Errorf("the vendor was asked %d times in the next minute, want 1", n)
	}
	v.set(fine)
	v.pass(2 * time.Minute)
	for _, c := range people {
		r.works(t, c)
	}
	if l := r.Ailing(); len(l) != 0 {
		t.Errorf("it is over, and operators see %v", l)
	}
}

// TestBadHourBelieved: a vendor that has refused everybody for an hour means it.
func TestBadHourBelieved(t *testing.T) {
	v := newVendor(catalog.RotationStrict)
	r := alone(t, v)
	var people []vault.Connection
	for i := range 6 {
		people = append(people, r.person(t, fmt.Sprint("user", i), "tracker"))
	}
	v.pass(2 * time.Hour)
	v.set(badHour)
	for range 65 {
		for _, c := range people {
			_, _ = r.fresh(t, c)
		}
		v.pass(61 * time.Second)
	}
	marked := 0
	for _, c := range people {
		if r.row(t, c).Status == vault.NeedsReconnect {
			marked++
		}
	}
	if marked == 0 {
		t.Error("nobody has been asked to reconnect after an hour")
	}
}

// TestOneOfMany: one who is refused among many who are not has to reconnect.
func TestOneOfMany(t *testing.T) {
	v := newVendor(catalog.RotationStrict)
	r := alone(t, v)
	var people []vault.Connection
	for i := range 30 {
		people = append(people, r.person(t, fmt.Sprint("user", i), "tracker"))
	}
	v.pass(2 * time.Hour)
	for i, c := range people {
		if i%6 == 5 {
			v.withdraw(c.ID)
			if _, err := r.fresh(t, c); !needs(err) {
				t.Errorf("the vendor has ended it, and the answer is %v", err)
			}
			continue
		}
		r.works(t, c)
	}
}

// TestMisconfigured: a vendor that refuses our client is the operator's to mend. No connection is touched, and the vendor is
// not asked for each; a new config is tried at once.
func TestMisconfigured(t *testing.T) {
	v := newVendor(catalog.RotationStrict)
	r := alone(t, v)
	alice, bob := r.person(t, "alice", "tracker"), r.person(t, "bob", "tracker")
	v.pass(2 * time.Hour)
	v.set(invalidClient)
	for range 3 {
		for _, c := range []vault.Connection{alice, bob} {
			if _, err := r.fresh(t, c); fault.KindOf(err) != fault.Unavailable {
				t.Errorf("the answer is %v", err)
			}
		}
	}
	if v.asked != 1 {
		t.Errorf("the vendor was asked %d times, want 1", v.asked)
	}
	if now := r.row(t, alice); now.Status != vault.Active || now.Failures != 0 || !now.NotBefore.IsZero() || now.Phase != vault.Idle {
		t.Errorf("the connection was touched: %+v", now.Machine)
	}
	if l := r.Ailing(); len(l) != 1 || l[0].Trouble != refresh.Misconfigured {
		t.Errorf("operators see %v", l)
	}
	v.set(fine)
	r.scene.up = r.scene.upstream("tracker") // as a reload makes it
	r.scene.use(r.scene.up)
	r.works(t, alice)
	r.works(t, bob)
}

// TestSilenceEndsNothing: a vendor that does not answer, for however long, makes nobody reconnect.
func TestSilenceEndsNothing(t *testing.T) {
	for _, rotation := range []catalog.Rotation{catalog.RotationNone, catalog.RotationGrace} {
		for _, trouble := range []trouble{lost, half, busy, unreachable} {
			v := newVendor(rotation)
			v.grace = 24 * time.Hour
			v.reuse = func(vault.ConnectionID) {}
			r := alone(t, v)
			c := r.person(t, "alice", "tracker")
			v.pass(2 * time.Hour)
			v.set(trouble)
			for range 8 {
				if _, err := r.fresh(t, c); fault.KindOf(err) != fault.Unavailable {
					t.Errorf("%s, %s: the answer is %v", rotation, trouble, err)
				}
				v.pass(6 * time.Minute)
			}
			v.set(fine)
			r.works(t, c)
		}
	}
}

// TestOldTokenServes: while the old token lives, and its vendor lets it live on, nobody waits for the new one; where it dies
// with the renewal, everybody does.
func TestOldTokenServes(t *testing.T) {
	for _, survives := range []bool{true, false} {
		v := newVendor(catalog.RotationStrict)
		v.survives = survives
		r := alone(t, v)
		c := r.person(t, "alice", "tracker")
		v.pass(53 * time.Minute) // due, and good for seven minutes yet
		got, err := r.fresh(t, c)
		if err != nil || (got.Version == 1) != survives {
			t.Errorf("the old token survives: %v; got version %d (%v)", survives, got.Version, err)
		}
		r.Wait(t.Context())
		if now := r.row(t, c); now.Version != 2 {
			t.Errorf("it was not renewed behind their backs: version %d", now.Version)
		}
		r.works(t, c)
	}
}

// TestSpool: the database is away when the new pair comes. It outlives the process in the spool, and nothing is lost.
func TestSpool(t *testing.T) {
	v := newVendor(catalog.RotationStrict)
	r := alone(t, v)
	c := r.person(t, "alice", "tracker")
	v.pass(2 * time.Hour)
	r.mu.Lock()
	r.settleAway = true
	r.mu.Unlock()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { _, _ = r.Fresh(ctx, c, r.scene.up, r.scene.method); close(done) }()
	check.Eventually(t, "the pair lies in the spool", func() bool { l, _ := r.Spool.List(c.ID); return len(l) == 1 })
	text, err := os.ReadFile(filepath.Join(r.Spool.Dir, string(c.ID)+"-2-2.renewed"))
	if err != nil || strings.Contains(string(text), "rt-") || strings.Contains(string(text), "at-") {
		t.Errorf("the spool holds a secret, or nothing: %v", err)
	}
	r.die()
	cancel()
	<-done
	next := r.again(t)
	if now := next.row(t, c); now.Version != 2 || now.Status != vault.Active || now.Phase != vault.Idle {
		t.Errorf("after the restart it is version %d, %s, %s", now.Version, now.Status, now.Phase)
	}
	next.works(t, c)
	if l, err := next.Spool.List(""); len(l) > 0 || err != nil {
		t.Errorf("the spool still holds %d (%v)", len(l), err)
	}
	if v.asked != 1 {
		t.Errorf("the vendor was asked %d times, want 1", v.asked)
	}
}

// sited makes each connection of the scene have a site of its own, as Salesforce's, and connects alice at acme.
func sited(t *testing.T, r *replica) vault.Connection {
	t.Helper()
	up := *r.scene.up
	up.Sites = &catalog.Sites{Host: "my.vendor.test", Base: "https://{site}.my.vendor.test", Pattern: "^[a-z0-9-]+$", Extract: `^https://(.+)\.my\.vendor\.test$`, Pointer: "/instance_url"}
	r.scene.up = &up
	r.scene.use(&up)
	c, err := r.connect(t.Context(), vault.Connection{Tenant: identity.DefaultTenant, User: "alice", Upstream: "tracker", Method: catalog.AuthorizationCode, Account: "005x@acme", Label: "alice (Acme)",
		Site: catalog.Site{Value: "acme", Label: "Acme"}})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestAccountMoves: a renewal that names another site of the vendor's moves the connection there, with the credential that is good there:
// at once, and also where it is stored by the next run alone. Nothing is asked of the vendor twice, and nothing is lost.
func TestAccountMoves(t *testing.T) {
	at := func(r *replica, c vault.Connection, site, account, label string) {
		t.Helper()
		now := r.row(t, c)
		if now.Site.Value != site || now.Account != account || now.Label != label || now.Status != vault.Active {
			t.Errorf("it is %s %q of %q at %q", now.Status, now.Label, now.Account, now.Site.Value)
		}
		r.works(t, c)
	}
	t.Run("at once", func(t *testing.T) {
		v := newVendor(catalog.RotationStrict)
		r := alone(t, v)
		c := sited(t, r)
		v.site = "https://acme.my.vendor.test"
		v.pass(2 * time.Hour)
		r.works(t, c)
		at(r, c, "acme", "005x@acme", "alice (Acme)")
		v.site = "https://acme-new.my.vendor.test"
		v.pass(2 * time.Hour)
		r.works(t, c)
		at(r, c, "acme-new", "005x@acme-new", "alice (acme-new)")
		if v.asked != 2 {
			t.Errorf("the vendor was asked %d times", v.asked)
		}
	})
	t.Run("by the next run", func(t *testing.T) {
		v := newVendor(catalog.RotationStrict)
		r := alone(t, v)
		c := sited(t, r)
		v.site = "https://acme-new.my.vendor.test"
		v.pass(2 * time.Hour)
		r.mu.Lock()
		r.settleAway = true
		r.mu.Unlock()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { _, _ = r.Fresh(ctx, c, r.scene.up, r.scene.method); close(done) }()
		check.Eventually(t, "the pair lies in the spool", func() bool { l, _ := r.Spool.List(c.ID); return len(l) == 1 })
		r.die()
		cancel()
		<-done
		if now := r.row(t, c); now.Site.Value != "acme" {
			t.Errorf("it is at %s, and its credential is not stored", now.Site.Value)
		}
		at(r.again(t), c, "acme-new", "005x@acme-new", "alice (acme-new)")
		if v.asked != 1 {
			t.Errorf("the vendor was asked %d times", v.asked)
		}
	})
	t.Run("to where another one of his is", func(t *testing.T) {
		v := newVendor(catalog.RotationStrict)
		r := alone(t, v)
		c := sited(t, r)
		if _, err := r.connect(t.Context(), vault.Connection{Tenant: identity.DefaultTenant, User: "alice", Upstream: "tracker", Method: catalog.AuthorizationCode, Account: "005x@acme-new", Label: "alice (acme-new)",
			Site: catalog.Site{Value: "acme-new", Label: "acme-new"}}); err != nil {
			t.Fatal(err)
		}
		v.site = "https://acme-new.my.vendor.test"
		v.pass(2 * time.Hour)
		r.works(t, c)
		at(r, c, "acme-new", "005x@acme", "alice (Acme)")
	})
}

// TestAccountAstray: a renewal that names a place which nobody has set up, or which is none of the vendor's, gives no credential to anybody.
// What it brought is kept, since the old token is spent; the person is asked, and is told why.
func TestAccountAstray(t *testing.T) {
	for _, site := range []string{"https://evil.test", "https://acme.my.vendor.test.evil.test", "https://acme.my.vendor.test@evil.test", "http://acme.my.vendor.test", "https://acme.my.vendor.test:8443", "https://127.0.0.1", "acme"} {
		v := newVendor(catalog.RotationStrict)
		r := alone(t, v)
		c := sited(t, r)
		v.site = site
		v.pass(2 * time.Hour)
		if _, err := r.fresh(t, c); !needs(err) {
			t.Errorf("%s: %v", site, err)
		}
		now := r.row(t, c)
		wantStatus(t, now, vault.NeedsReconnect, "to which its credential may not go")
		if s, err := r.vault.Open(t.Context(), now); err != nil || now.Site.Value != "acme" || now.Version != 2 || s.Access.Expose() == "at-1" {
			t.Errorf("%s: version %d at %s, %v", site, now.Version, now.Site.Value, err)
		}
	}
	v := newVendor(catalog.RotationStrict)
	r := alone(t, v)
	r.scene.up.Provider.OAuth.Confirm = []catalog.Confirm{{Pointer: "/instance_url", Is: "https://acme.my.vendor.test"}, {Param: "site", Is: "acme"}}
	c := r.person(t, "alice", "tracker")
	v.site = "https://acme.my.vendor.test"
	v.pass(2 * time.Hour)
	r.works(t, c)
	v.site = "https://acme-new.my.vendor.test"
	v.pass(2 * time.Hour)
	for range 2 {
		if _, err := r.fresh(t, c); !needs(err) {
			t.Errorf("an account that has moved away: %v", err)
		}
	}
	wantStatus(t, r.row(t, c), vault.NeedsReconnect, "another site than the one that is set up here")
	if v.asked != 2 {
		t.Errorf("the vendor was asked %d times", v.asked)
	}
}

// TestSpoolOfBefore: what the spool holds is refused where the connection has gone on.
func TestSpoolOfBefore(t *testing.T) {
	v := newVendor(catalog.RotationStrict)
	r := alone(t, v)
	c := r.person(t, "alice", "tracker")
	old := c
	old.Version = 2
	if err := r.vault.Seal(t.Context(), &old, vault.Secrets{Access: secretOf("stale"), Refresh: secretOf("stale")}); err != nil {
		t.Fatal(err)
	}
	if err := r.Spool.Put(old); err != nil {
		t.Fatal(err)
	}
	if _, err := r.connect(t.Context(), c); err != nil { // the next generation
		t.Fatal(err)
	}
	next := r.again(t)
	next.works(t, c)
	if l, _ := next.Spool.List(""); len(l) > 0 {
		t.Error("a pair that nobody wants stays in the spool")
	}
}

// TestTakenOver: a process that died with a renewal on its way is succeeded at once by the next one at its place, not when its
// lease is over.
func TestTakenOver(t *testing.T) {
	v := newVendor(catalog.RotationGrace)
	v.reuse = func(vault.ConnectionID) {}
	r := alone(t, v)
	r.ShortLeases(time.Hour)
	c := r.person(t, "alice", "tracker")
	v.pass(2 * time.Hour)
	r.mu.Lock()
	r.dieAfterAnswer = true
	r.mu.Unlock()
	ctx, cancel := context.WithTimeout(r.ctx, 10*time.Second)
	defer cancel()
	if _, err := r.Fresh(ctx, c, r.scene.up, r.scene.method); err == nil {
		t.Fatal("a process that died gave an answer")
	}
	if now := r.row(t, c); now.Phase != vault.Sent {
		t.Fatalf("it died at %s, want sent", now.Phase)
	}
	r.again(t).works(t, c)
}

// TestAnswerLost: the database did what it was asked, and the answer is lost. Nothing had been sent, so nobody waits for a lease that
// nobody uses.
func TestAnswerLost(t *testing.T) {
	for _, step := range []string{"claim", "sent"} {
		v := newVendor(catalog.RotationStrict)
		r := alone(t, v)
		r.ShortLeases(time.Hour)
		c := r.person(t, "alice", "tracker")
		v.pass(2 * time.Hour)
		r.mu.Lock()
		r.answerLost = step
		r.mu.Unlock()
		ctx, cancel := context.WithTimeout(r.ctx, 10*time.Second)
		defer cancel()
		if _, err := r.Fresh(ctx, c, r.scene.up, r.scene.method); err == nil {
			t.Fatalf("%s: it was not lost", step)
		}
		if _, err := r.Fresh(ctx, c, r.scene.up, r.scene.method); err != nil {
			t.Errorf("%s: %v", step, err)
		}
		if v.asked != 1 {
			t.Errorf("%s: the vendor was asked %d times", step, v.asked)
		}
	}
}

// TestFailover: a row that is older than what this process stored is put right, and the used token in it is not redeemed.
func TestFailover(t *testing.T) {
	v := newVendor(catalog.RotationStrict)
	v.reuse = func(vault.ConnectionID) { t.Error("a used token was redeemed") }
	r := alone(t, v)
	c := r.person(t, "alice", "tracker")
	old := r.row(t, c)
	for range 2 { // what is lost are two renewals
		v.pass(2 * time.Hour)
		if _, err := r.Fresh(t.Context(), c, r.scene.up, r.scene.method); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.db.Connect(t.Context(), old, old.Generation); err != nil {
		t.Fatal(err)
	}
	r.works(t, c)
	if now := r.row(t, c); now.Version != old.Version+2 || now.Status != vault.Active {
		t.Errorf("the row says version %d, %s, want %d", now.Version, now.Status, old.Version+2)
	}
}

// once is a database whose server was replaced.
type once struct{}

func (once) Moves() (int64, time.Time)                    { return 1, time.Time{} }
func (once) Doubt(context.Context, string) (int64, error) { return 0, nil }

// TestFailoverOfTwo: what two replicas remember of one connection is put back at once, the older of it first. The newer one counts all the same.
func TestFailoverOfTwo(t *testing.T) {
	v := newVendor(catalog.RotationStrict)
	v.reuse = func(vault.ConnectionID) { t.Error("a used token was redeemed") }
	r := alone(t, v)
	r.Moves = once{}
	c := r.person(t, "alice", "tracker")
	lost := []vault.Connection{r.row(t, c)}
	for range 2 {
		v.pass(2 * time.Hour)
		r.works(t, c)
		lost = append(lost, r.row(t, c))
	}
	if err := r.db.Connect(t.Context(), lost[0], lost[0].Generation); err != nil {
		t.Fatal(err)
	}
	r.mu.Lock()
	r.beforeSettle = func() { // the other replica has stored the first renewal, and remembers that
		if ok, err := r.db.Settle(t.Context(), lost[1], lost[0].Version); !ok || err != nil {
			t.Error(ok, err)
		}
	}
	r.mu.Unlock()
	if err := r.Moved(t.Context()); err != nil {
		t.Fatal(err)
	}
	if now := r.row(t, c); now.Version != lost[2].Version || !bytes.Equal(now.Access, lost[2].Access) {
		t.Errorf("the row says version %d, want %d", now.Version, lost[2].Version)
	}
}

// renewing is a connection whose renewal is due, to which its user does something as soon as the vendor has answered.
func renewing(t *testing.T, meanwhile func(*replica, context.Context, vault.Connection) (vault.Connection, error)) (*vendor, *replica, vault.Connection) {
	v := newVendor(catalog.RotationStrict)
	r := alone(t, v)
	c := r.person(t, "alice", "tracker")
	v.pass(2 * time.Hour)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.afterAnswer = func() {
		if _, err := meanwhile(r, t.Context(), r.row(t, c)); err != nil {
			t.Error(err)
		}
	}
	return v, r, c
}

// TestEndedMeanwhile: the user ends the connection while it is renewed. What the vendor gave is ended there.
func TestEndedMeanwhile(t *testing.T) {
	v, r, c := renewing(t, (*replica).end)
	if _, err := r.fresh(t, c); !needs(err) {
		t.Errorf("it has ended, and the answer is %v", err)
	}
	wantStatus(t, r.row(t, c), vault.Revoked, "")
	v.mu.Lock()
	defer v.mu.Unlock()
	if !v.grants[c.ID].ended {
		t.Error("the vendor has not been asked to end what it gave")
	}
}

// TestOverAtOnce: what a vendor gives is over before it is here, by its word or by its clock. It is asked once, and not as fast as it answers.
func TestOverAtOnce(t *testing.T) {
	v := newVendor(catalog.RotationStrict)
	r := alone(t, v)
	c := r.person(t, "alice", "tracker")
	v.pass(2 * time.Hour)
	v.life, v.late = time.Second, 2*time.Second
	before := v.asked
	if got, err := r.fresh(t, c); err != nil || got.Version != 2 || v.asked != before+1 {
		t.Errorf("it was asked %d times, up to version %d: %v", v.asked-before, got.Version, err)
	}
	v.life, v.late = time.Hour, 0
	r.works(t, c)
}

// TestReconnectedMeanwhile: the user connects anew while the old one is renewed. The new one is left alone, also at the vendor.
func TestReconnectedMeanwhile(t *testing.T) {
	_, r, c := renewing(t, (*replica).connect)
	r.works(t, c)
	if now := r.row(t, c); now.Generation != c.Generation+1 || now.Version != 1 {
		t.Errorf("the new connection was overwritten: %d.%d", now.Generation, now.Version)
	}
}

// TestIdle: a connection that nobody uses is renewed before its vendor's patience ends, and what it may not be is left alone.
func TestIdle(t *testing.T) {
	v := newVendor(catalog.RotationStrict)
	r := alone(t, v)
	r.scene.up.Provider.OAuth.Refresh.IdleDays = 10
	c := r.person(t, "alice", "tracker")
	r.Tend(t.Context())
	v.pass(7 * 24 * time.Hour)
	r.Tend(t.Context())
	if now := r.row(t, c); now.Version != 1 {
		t.Errorf("it was renewed after seven days of ten: version %d", now.Version)
	}
	v.pass(36 * time.Hour)
	r.Tend(t.Context())
	if now := r.row(t, c); now.Version != 2 {
		t.Errorf("it was not renewed after eight and a half days of ten: version %d", now.Version)
	}
	if now := r.row(t, c); len(now.Previous) == 0 {
		t.Error("the replaced token was forgotten at once")
	}
	v.pass(time.Hour)
	r.Tend(t.Context())
	if now := r.row(t, c); len(now.Previous) != 0 || now.Version != 2 {
		t.Errorf("the replaced token was not forgotten when the grace was over, at version %d", now.Version)
	}
}

// TestRecoveredUnasked: an interrupted renewal is recovered before anybody asks, while the vendor's grace lasts.
func TestRecoveredUnasked(t *testing.T) {
	v := newVendor(catalog.RotationGrace)
	v.reuse = func(vault.ConnectionID) {}
	r := alone(t, v)
	c := r.person(t, "alice", "tracker")
	v.pass(2 * time.Hour)
	v.set(lost)
	if _, err := r.fresh(t, c); fault.KindOf(err) != fault.Unavailable {
		t.Fatal(err)
	}
	wantStatus(t, r.row(t, c), vault.Uncertain, "")
	v.set(fine)
	v.pass(time.Minute)
	r.Recover(t.Context())
	wantStatus(t, r.row(t, c), vault.Active, "")
	v.pass(v.grace)
	r.works(t, c)
}

// TestSlowEndpoint: one upstream's token endpoint hangs; the others' callers do not notice.
func TestSlowEndpoint(t *testing.T) {
	v := newVendor(catalog.RotationStrict)
	r := alone(t, v)
	other := r.scene.upstream("wiki")
	r.scene.use(r.scene.up, other)
	r = r.again(t)
	r.ShortLeases(time.Hour)
	slow, quick := r.person(t, "alice", "tracker"), r.person(t, "alice", "wiki")
	v.pass(2 * time.Hour)
	held, release := make(chan struct{}), make(chan struct{})
	var first atomic.Bool
	r.mu.Lock()
	r.beforeSend = func() {
		if first.CompareAndSwap(false, true) {
			close(held)
			<-release
		}
	}
	r.mu.Unlock()
	done := make(chan error, 1)
	go func() { _, err := r.Fresh(t.Context(), slow, r.scene.up, r.scene.method); done <- err }()
	<-held
	if got, err := r.Fresh(t.Context(), quick, other, r.scene.method); err != nil || got.Version != 2 {
		t.Errorf("another upstream's renewal waits: version %d, %v", got.Version, err)
	}
	close(release)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestRestored: after a restore, each connection is tried before it is trusted, and says why where it is dead.
func TestRestored(t *testing.T) {
	v := newVendor(catalog.RotationStrict)
	r := alone(t, v)
	good, stale := r.person(t, "alice", "tracker"), r.person(t, "bob", "tracker")
	v.pass(2 * time.Hour)
	r.works(t, stale)
	if _, err := r.db.Restored(t.Context(), refresh.ReasonRestored); err != nil {
		t.Fatal(err)
	}
	r.works(t, good)
	r.works(t, stale)
	v.mu.Lock()
	v.refresh[v.grants[stale.ID].current].used = v.now() // its successor was in the database that is gone
	v.mu.Unlock()
	v.reuse = func(vault.ConnectionID) {}
	if _, err := r.db.Restored(t.Context(), refresh.ReasonRestored); err != nil {
		t.Fatal(err)
	}
	if _, err := r.fresh(t, stale); !needs(err) {
		t.Errorf("what was used up is served: %v", err)
	}
	wantStatus(t, r.row(t, stale), vault.NeedsReconnect, "restored from a backup")
}

// TestUnopenable: a row that does not open says so and asks for its user; it is not tried at the vendor.
func TestUnopenable(t *testing.T) {
	v := newVendor(catalog.RotationStrict)
	r := alone(t, v)
	c := r.person(t, "alice", "tracker")
	v.pass(2 * time.Hour)
	moved := r.row(t, c)
	moved.Sealed.Refresh[len(moved.Sealed.Refresh)-1] ^= 1
	if _, err := r.db.Settle(t.Context(), moved, moved.Version); err != nil {
		t.Fatal(err)
	}
	if _, err := r.fresh(t, c); !needs(err) {
		t.Errorf("the answer is %v", err)
	}
	wantStatus(t, r.row(t, c), vault.NeedsReconnect, "does not open")
	if v.asked != 0 {
		t.Error("the vendor was asked")
	}
}

// TestWithoutRefreshToken: a token that cannot be renewed is used until its last moment, and then its user is asked.
func TestWithoutRefreshToken(t *testing.T) {
	v := newVendor(catalog.RotationStrict)
	r := alone(t, v)
	c := r.person(t, "alice", "tracker")
	c.Refreshes = false
	v.pass(55 * time.Minute)
	if got, err := r.Fresh(t.Context(), c, r.scene.up, r.scene.method); err != nil || got.Version != 1 {
		t.Errorf("a token that lives is not used: %v", err)
	}
	v.pass(10 * time.Minute)
	if _, err := r.Fresh(t.Context(), c, r.scene.up, r.scene.method); !needs(err) {
		t.Errorf("the answer is %v", err)
	}
	wantStatus(t, r.row(t, c), vault.NeedsReconnect, "has expired")
}

func FuzzSpooled(f *testing.F) {
	f.Add([]byte(`{"ID":"00","Version":2,"Generation":1,"Access":"AA=="}`))
	f.Add([]byte(`{`))
	f.Add([]byte(`{"ID":"00","Nothing":1}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		s := refresh.Spool{Dir: t.TempDir()}
		if err := os.WriteFile(filepath.Join(s.Dir, "x.renewed"), text, 0o600); err != nil {
			t.Fatal(err)
		}
		l, err := s.List("")
		if (err == nil) != (len(l) == 1) {
			t.Errorf("%d read, and the error is %v", len(l), err)
		}
		for _, c := range l {
			if c.ID == "" || c.Version < 2 || len(c.Access) == 0 {
				t.Errorf("this is no renewed credential: %+v", c)
			}
		}
	})
}

func secretOf(s string) secret.Text { return secret.New(s) }
