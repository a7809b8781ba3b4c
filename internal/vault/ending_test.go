package vault_test

import (
	"errors"
	"io"
	"log/slog"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/oauth"
	"frontdesk.dev/frontdesk/internal/kit/secret"
	"frontdesk.dev/frontdesk/internal/store"
	"frontdesk.dev/frontdesk/internal/vault"
	"frontdesk.dev/frontdesk/internal/vault/kms"
)

// revoker is a vendor's revocation endpoint.
type revoker struct {
	away  bool
	ended []string
}

func (v *revoker) Do(r *http.Request) (*http.Response, error) {
	if v.away {
		return nil, errors.New("away")
	}
	if err := r.ParseForm(); err != nil {
		return nil, err
	}
	v.ended = append(v.ended, r.PostForm.Get("token"))
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(""))}, nil
}

// TestEndedAtLast: a vendor that is away when a connection ends is asked again after a restart, until it confirms; the token waits
// sealed, and when it is given up on nothing of it stays.
func TestEndedAtLast(t *testing.T) {
	ctx := t.Context()
	db, err := store.Open(ctx, store.Config{Path: filepath.Join(t.TempDir(), "test.db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	wrap, err := kms.OpenKeyFile(filepath.Join(t.TempDir(), "vault.key"), true)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	vendor := &revoker{away: true}
	up := &catalog.Upstream{Tenant: identity.DefaultTenant, Name: "tracker", Title: "Tracker", Methods: []catalog.Method{{Kind: catalog.AuthorizationCode, Client: "frontdesk"}},
		Provider: &catalog.Provider{Name: "Tracker", OAuth: &catalog.ProviderOAuth{Token: "https://vendor.test/token", Revocation: "https://vendor.test/revoke", TokenAuth: "basic"}}}
	cat, clients := &catalog.Catalog{}, &vault.Clients{}
	cat.Set(&catalog.Snapshot{Upstreams: map[identity.Tenant]map[catalog.UpstreamName]*catalog.Upstream{identity.DefaultTenant: {"tracker": up}}})
	clients.Use(map[vault.ClientKey]secret.Text{{Tenant: identity.DefaultTenant, Upstream: "tracker"}: secret.New("hush")})
	clock := func() time.Time { return now }
	start := func() *vault.Endings { // as each process does
		return &vault.Endings{Vault: &vault.Vault{Store: db, Keys: db, Wrap: wrap, Now: clock}, Store: db, Catalog: cat, Clients: clients,
			OAuth: oauth.Client{HTTP: vendor, Now: clock}, Log: slog.New(slog.DiscardHandler), Now: clock}
	}
	waiting := func() []vault.Ending {
		t.Helper()
		l, err := db.DueEndings(ctx, now.Add(100*24*time.Hour), 10)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	round := func(e *vault.Endings) { // one look of Run
		t.Helper()
		if err := e.Round(ctx); err != nil {
			t.Error(err)
		}
	}
	c := vault.Connection{Tenant: identity.DefaultTenant, ID: "00112233445566778899aabbccddeeff", User: "alice", Upstream: "tracker", Method: catalog.AuthorizationCode}
	end := func(s vault.Secrets) vault.Ended {
		t.Helper()
		got, err := start().End(ctx, up, c, s)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	pair := vault.Secrets{Access: secret.New("the access token"), Refresh: secret.New("the refresh token")}

	if got := end(pair); got != vault.EndedTrying || len(waiting()) != 1 || strings.Contains(string(waiting()[0].Sealed), "token") {
		t.Errorf("the vendor is away, and it is %s with %d waiting", got, len(waiting()))
	}
	vendor.away = false
	e := start()
	round(e) // it is not time yet
	if len(vendor.ended) != 0 {
		t.Error("the vendor was asked again at once")
	}
	now = now.Add(time.Minute)
	round(e)
	if len(vendor.ended) != 1 || vendor.ended[0] != "the refresh token" || len(waiting()) != 0 {
		t.Errorf("the vendor ended %q, and %d wait", vendor.ended, len(waiting()))
	}
	if got := end(vault.Secrets{Access: pair.Access}); got != vault.EndedConfirmed || vendor.ended[1] != "the access token" {
		t.Errorf("it is %s, and the vendor ended %q", got, vendor.ended)
	}
	vendor.away = true
	end(pair)
	for range 20 {
		now = now.Add(24 * time.Hour)
		round(e)
	}
	if len(waiting()) != 0 {
		t.Error("it is never given up on")
	}
	up.Provider.OAuth.Revocation = ""
	if got := end(pair); got != vault.EndedHere {
		t.Errorf("the vendor offers no way, and it is %s", got)
	}

	// What ends a whole grant is asked for by the last of the person's connections through it, and what ends others' never.
	up.Provider.OAuth.Revocation, up.Provider.OAuth.Revoke.Shared, vendor.away = "https://vendor.test/revoke", catalog.SharedGrant, false
	twin := *up
	twin.Name = "tracker-wiki"
	cat.Set(&catalog.Snapshot{Upstreams: map[identity.Tenant]map[catalog.UpstreamName]*catalog.Upstream{identity.DefaultTenant: {"tracker": up, "tracker-wiki": &twin}}})
	v := &vault.Vault{Store: db, Keys: db, Wrap: wrap, Now: clock}
	c.Account = "alice@tracker"
	other, err := v.Connect(ctx, vault.Connection{Tenant: identity.DefaultTenant, User: "alice", Upstream: "tracker-wiki", Method: catalog.AuthorizationCode, Account: "alice@tracker", Status: vault.Active}, pair)
	if err != nil {
		t.Fatal(err)
	}
	if got := end(pair); got != vault.EndedHere {
		t.Errorf("another connection hangs on the grant, and it is %s", got)
	}
	c.Account = "alice@elsewhere"
	if got := end(pair); got != vault.EndedConfirmed {
		t.Errorf("the other connection is another account's, and it is %s", got)
	}
	c.Account, other.Status = "alice@tracker", vault.Revoked
	if err := v.Update(ctx, other); err != nil {
		t.Fatal(err)
	}
	if got := end(pair); got != vault.EndedConfirmed {
		t.Errorf("nothing else hangs on the grant, and it is %s", got)
	}
	up.Provider.OAuth.Revoke.Shared = catalog.SharedEverybody
	if got := end(pair); got != vault.EndedHere {
		t.Errorf("others would be ended too, and it is %s", got)
	}
}
