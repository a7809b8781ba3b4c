package connect_test

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/connect"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/kit/oauth"
	"frontdesk.dev/frontdesk/internal/store"
	"frontdesk.dev/frontdesk/internal/vault"
	"frontdesk.dev/frontdesk/internal/vault/kms"
)

// coder is a vendor that gives codes, and answers polls in the order that a test says; the last answer stays.
type coder struct {
	mu      sync.Mutex
	device  string
	answers []string // "503" is a bad hour, "" no answer at all
	polls   int
	ended   []string // tokens that it was asked to end
	before  func()   // what happens elsewhere while it is asked
}

func (c *coder) Do(r *http.Request) (*http.Response, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	say := func(status int, body string) (*http.Response, error) {
		return &http.Response{StatusCode: status, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(body)), Request: r}, nil
	}
	if r.URL.Path == "/device" {
		return say(200, c.device)
	}
	if c.before != nil {
		c.before()
	}
	if r.URL.Path == "/revoke" {
		if err := r.ParseForm(); err != nil {
			return nil, err
		}
		c.ended = append(c.ended, r.PostForm.Get("token"))
		return say(200, "")
	}
	c.polls++
	a := c.answers[0]
	if len(c.answers) > 1 {
		c.answers = c.answers[1:]
	}
	switch {
	case a == "503":
		return say(503, "")
	case a == "":
		return nil, context.DeadlineExceeded
	case strings.HasPrefix(a, "{"):
		return say(200, a)
	}
	return say(400, `{"error":"`+a+`"}`)
}

type silent struct{}

func (silent) Event(context.Context, audit.Record) error { return nil }

type waiting struct {
	*connect.Desk
	vendor *coder
	now    time.Time
	db     *store.DB
}

const codeAnswer = `{"device_code":"dev-1","user_code":"WDJB-MJHT","verification_uri":"https://vendor.test/device","verification_uri_complete":"https://vendor.test/device?c=WDJB-MJHT","expires_in":600,"interval":5}`

func newWaiting(t *testing.T, answers ...string) *waiting {
	t.Helper()
	db, err := store.Open(t.Context(), store.Config{Path: filepath.Join(t.TempDir(), "test.db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	wrap, err := kms.OpenKeyFile(filepath.Join(t.TempDir(), "vault.key"), true)
	if err != nil {
		t.Fatal(err)
	}
	w := &waiting{vendor: &coder{device: codeAnswer, answers: answers}, now: time.Now(), db: db}
	clock := func() time.Time { return w.now }
	up := &catalog.Upstream{Tenant: identity.DefaultTenant, Name: "own", Title: "Own", Methods: []catalog.Method{{Kind: catalog.DeviceCode, Client: "frontdesk"}},
		Provider: &catalog.Provider{Name: "Own", OAuth: &catalog.ProviderOAuth{Token: "https://vendor.test/token", TokenAuth: "none", Revocation: "https://vendor.test/revoke",
			Device: catalog.DeviceFacts{Authorization: "https://vendor.test/device"}}, Account: catalog.Account{InToken: true, ID: "/who", Label: "/who"}}}
	cat := &catalog.Catalog{}
	cat.Set(&catalog.Snapshot{Upstreams: map[identity.Tenant]map[catalog.UpstreamName]*catalog.Upstream{identity.DefaultTenant: {"own": up}}})
	u, err := db.EnsureUser(t.Context(), identity.User{Tenant: identity.DefaultTenant, IDP: "login", Subject: "alice"})
	if err != nil {
		t.Fatal(err)
	}
	visitor.User = u.ID
	log := slog.New(slog.DiscardHandler)
	v, client := &vault.Vault{Store: db, Keys: db, Wrap: wrap, Now: clock}, oauth.Client{HTTP: w.vendor, Now: clock}
	clients := &vault.Clients{}
	w.Desk = &connect.Desk{Catalog: cat, Store: db, Vault: v, Clients: clients, Users: db, Epochs: &identity.Epochs{Store: db, Now: clock, Log: log}, Events: silent{}, OAuth: client, Log: log, Now: clock,
		Ends: connect.Ends{Endings: &vault.Endings{Vault: v, Store: db, Catalog: cat, Clients: clients, OAuth: client, Log: log, Now: clock}}}
	return w
}

var visitor = connect.Visitor{Tenant: identity.DefaultTenant, User: "alice", Binding: []byte("her browser")}

func (w *waiting) begin(t *testing.T) connect.Device {
	t.Helper()
	next, err := w.Begin(t.Context(), visitor, connect.Start{Kind: connect.FlowConnect, Upstream: "own"})
	if err != nil {
		t.Fatal(err)
	}
	return w.look(t, next.Device)
}

func (w *waiting) look(t *testing.T, id string) connect.Device {
	t.Helper()
	x, err := w.Device(t.Context(), visitor, id)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// after lets time pass, and two replicas look at once.
func (w *waiting) after(t *testing.T, seconds int) int {
	t.Helper()
	w.now = w.now.Add(time.Duration(seconds) * time.Second)
	before := w.vendor.polls
	var both sync.WaitGroup
	for range 2 {
		both.Go(func() {
			if err := w.AskDevices(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	both.Wait()
	return w.vendor.polls - before
}

// TestDevicePolls: the vendor is asked as seldom as it wants, once for all replicas, until it gives a token, which is stored for the one
// who asked.
func TestDevicePolls(t *testing.T) {
	w := newWaiting(t, "authorization_pending", "slow_down", "503", "", `{"access_token":"secret-1","token_type":"Bearer","who":"octo-alice","expires_in":600}`)
	x := w.begin(t)
	if x.Code.Code != "WDJB-MJHT" || x.Code.Complete == "" || len(x.Verifier) != 0 {
		t.Fatalf("%+v", x)
	}
	for i, step := range []struct{ seconds, polls int }{
		{4, 0}, {1, 1}, // pending: the interval stays 5
		{4, 0}, {1, 1}, // slow down: 10
		{5, 0}, {5, 1}, // a bad hour: 20
		{19, 0}, {1, 1}, // and no answer: 40
		{39, 0}, {1, 1}, // the token
	} {
		if got := w.after(t, step.seconds); got != step.polls {
			t.Fatalf("step %d: asked %d times, want %d", i, got, step.polls)
		}
	}
	end := w.look(t, x.State)
	l, err := w.Vault.Connections(t.Context(), identity.DefaultTenant, visitor.User, "own")
	if err != nil || end.Status != connect.Done || len(l) != 1 || l[0].ID != end.End.Connection || l[0].Label != "octo-alice" || l[0].Method != catalog.DeviceCode {
		t.Fatalf("%+v, %+v (%v)", end, l, err)
	}
	if row, err := w.db.Device(t.Context(), identity.DefaultTenant, x.State); err != nil || len(row.Verifier) != 0 {
		t.Errorf("the device code is kept: %v", err)
	}
	if w.after(t, 600) != 0 {
		t.Error("it is asked after the end")
	}
}

// TestDeviceEnds: a no, an end of time, and a lost answer are each told in words, and none is asked again.
func TestDeviceEnds(t *testing.T) {
	for answer, c := range map[string]struct {
		status connect.State
		words  string
	}{
		"access_denied": {connect.Refused, "you refused there"}, "expired_token": {connect.Expired, "not entered in time"}, "invalid_grant": {connect.Refused, "no longer accepts"},
		"invalid_client": {connect.Refused, ""}, `{"access_token":""}`: {connect.Refused, "not to be trusted"},
	} {
		t.Run(answer, func(t *testing.T) {
			w := newWaiting(t, answer)
			x := w.begin(t)
			w.after(t, 5)
			if got := w.look(t, x.State); got.Status != c.status || !strings.Contains(got.End.Why, c.words) {
				t.Errorf("%s: %q", got.Status, got.End.Why)
			}
			if w.after(t, 100) != 0 {
				t.Error("it is asked again")
			}
		})
	}
	t.Run("by the clock", func(t *testing.T) {
		w := newWaiting(t, "authorization_pending")
		x := w.begin(t)
		if w.after(t, 601) != 0 || w.look(t, x.State).Status != connect.Expired {
			t.Error("a code that is over is asked for")
		}
	})
	t.Run("by a newer one", func(t *testing.T) {
		w := newWaiting(t, "authorization_pending")
		x := w.begin(t)
		y := w.begin(t)
		if n := w.after(t, 5); n != 1 || w.look(t, x.State).Status != connect.Expired || w.look(t, y.State).Status != connect.Open {
			t.Errorf("asked %d times", n)
		}
	})
}

// TestDeviceCodesOfOthers: a code is seen by the one who asked for it, in the browser in which he did. What a vendor says of itself is
// looked at before a person is sent anywhere.
func TestDeviceCodesOfOthers(t *testing.T) {
	w := newWaiting(t, "authorization_pending")
	x := w.begin(t)
	for name, v := range map[string]connect.Visitor{"another person": {Tenant: identity.DefaultTenant, User: "bob", Binding: visitor.Binding}, "another browser": {Tenant: identity.DefaultTenant, User: visitor.User, Binding: []byte("other")},
		"nobody": {Tenant: identity.DefaultTenant, Binding: visitor.Binding}, "another tenant's": {Tenant: "globex", User: visitor.User, Binding: visitor.Binding}, "no cookie": {Tenant: identity.DefaultTenant, User: visitor.User}} {
		if got, err := w.Device(t.Context(), v, x.State); fault.KindOf(err) != fault.NotFound || got.Code.Code != "" {
			t.Errorf("%s sees %+v (%v)", name, got, err)
		}
	}
	if _, err := w.Complete(t.Context(), visitor, connect.Answer{Upstream: "own", Params: map[string][]string{"state": {x.State}, "code": {"c"}}}); err == nil {
		t.Error("the id of a code completes a flow")
	}
	for name, c := range map[string]struct {
		from, to string
		usable   bool
	}{
		"a link to another host":  {`"https://vendor.test/device?c=WDJB-MJHT"`, `"https://evil.test/device?c=WDJB-MJHT"`, true},
		"a script":                {`"https://vendor.test/device"`, `"javascript:alert(1)"`, false},
		"plain http":              {`"https://vendor.test/device"`, `"http://vendor.test/device"`, false},
		"user info":               {`"https://vendor.test/device"`, `"https://vendor.test@evil.test/device"`, false},
		"a code with markup":      {`"WDJB-MJHT"`, `"<b> WDJB</b>"`, false},
		"no end":                  {`"expires_in":600`, `"expires_in":0`, false},
		"an end beyond all sense": {`"expires_in":600`, `"expires_in":1e30`, false},
	} {
		w.vendor.device = strings.Replace(codeAnswer, c.from, c.to, 1)
		next, err := w.Begin(t.Context(), visitor, connect.Start{Kind: connect.FlowConnect, Upstream: "own"})
		if (err == nil) != c.usable {
			t.Errorf("%s: %v", name, err)
		}
		if err == nil && w.look(t, next.Device).Code.Complete != "" {
			t.Errorf("%s is shown", name)
		}
	}
}
