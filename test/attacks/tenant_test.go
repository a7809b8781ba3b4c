package attacks_test

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"

	"frontdesk.dev/frontdesk/test/world"
)

// eve has a browser in which she is signed in at globex.
func (r *realm) eve(t *testing.T) *world.Person {
	t.Helper()
	r.globex.is("emp-alice") // the same subject as alice has elsewhere
	p := world.NewPerson()
	if shown := open(t, p, r.Desk().Public+"/t/globex/portal/"); shown.Status != http.StatusOK {
		t.Fatalf("eve is not signed in: %d %s", shown.Status, shown.Text())
	}
	return p
}

// TestA135_foreignTenant: who belongs to one organisation is nobody at another, whatever he is called.
func TestA135_foreignTenant(t *testing.T) {
	r := theRealm(t)
	r.oracles(t)
	alice := r.app(t, "/t/acme", "good-agent")
	k := alice.signedIn(t, r.person("alice", "Connect Tracker", "Done"))
	if got := r.call(t, "/t/acme", "modern", k.Access, callBody("whoami", "{}")); !strings.Contains(got.Body, "octo-alice") {
		t.Fatalf("alice is not connected: %s", got.Body)
	}
	eve := r.eve(t)
	if shown := open(t, eve, r.Desk().Public+"/t/globex/portal/"); strings.Contains(shown.Text(), "octo-alice") {
		t.Error("eve sees alice's connection at her own portal")
	}
	jar := cookies(eve, r.Desk().Public)
	forged := jar + "; " + strings.ReplaceAll(jar, ".globex", ".acme") // her session under acme's cookie names
	for _, path := range []string{"/portal/", "/portal/activity", "/portal/activity.jsonl", "/door?server=modern", "/connect/AAAAAAAAAAAAAAAAAAAAAA", "/portal/done?at=tracker"} {
		for name, c := range map[string]string{"her cookies": jar, "her cookies under acme's names": forged} {
			got := send(t, http.MethodGet, r.Desk().Public+"/t/acme"+path, "", "Cookie", c)
			if got.Status != http.StatusSeeOther || !strings.HasPrefix(got.Header.Get("Location"), "/t/acme/signin") {
				t.Errorf("%s with %s: %d %s", path, name, got.Status, got.Header.Get("Location"))
			}
		}
	}
	for _, token := range []string{r.globex.access(nil), k.Access} {
		for _, at := range []string{"", "/t/globex", "/t/initech"} {
			if token != k.Access && at == "/t/globex" {
				continue
			}
			if got := r.call(t, at, "modern", token, callBody("whoami", "{}")); !isU1(got) {
				t.Errorf("a token of another tenant at %q: %d %s", at, got.Status, got.Body)
			}
		}
	}
	// Her tokens open nothing at acme's issuer, and end nothing there.
	for _, path := range []string{"/t/globex/token", "/token", "/t/globex/revoke", "/revoke"} {
		f := url.Values{"grant_type": {"refresh_token"}, "client_id": {alice.id}, "refresh_token": {k.Refresh}, "token": {k.Refresh}}
		if got := send(t, http.MethodPost, r.Desk().Public+path, f.Encode(), "Content-Type", "application/x-www-form-urlencoded"); got.Status < 400 {
			t.Errorf("alice's refresh token at %s: %d %s", path, got.Status, got.Body)
		}
	}
	if got := r.call(t, "/t/acme", "modern", k.Access, callBody("whoami", "{}")); got.Status != http.StatusOK {
		t.Errorf("alice's access ended elsewhere: %d", got.Status)
	}
	if strings.Contains(r.tail(t, "acme"), r.globex.URL) || strings.Contains(r.tail(t, "globex"), "octo-alice") {
		t.Error("one tenant's log holds another's data")
	}
	// A connection is ended by its own person alone.
	out, err := r.Desk().Run("connections", "list", "--user", "emp-alice", "--tenant", "acme")
	if err != nil {
		t.Fatal(out)
	}
	id := strings.Fields(strings.Split(out, "\n")[1])[0]
	if got := r.form(t, eve, "/t/globex/portal/end/"+id, nil); got.Status != http.StatusNotFound {
		t.Errorf("eve ends alice's connection: %d", got.Status)
	}
	if out, err := r.Desk().Run("connections", "revoke", id, "--tenant", "globex"); err == nil {
		t.Errorf("an operator of globex ends it: %s", out)
	}
}

// TestA136_nothingCrosses: two tenants with everything alike but the person, in turn and at once.
func TestA136_nothingCrosses(t *testing.T) {
	r := theRealm(t)
	r.oracles(t)
	k := r.app(t, "/t/acme", "same-agent").signedIn(t, r.person("alice", "Connect Tracker", "Done"))
	tokens := map[string][]string{"/t/acme": {k.Access}, "/t/globex": {r.globex.access(nil), r.globex.access(nil)}, "/t/initech": {r.initech.access(nil)}}
	var wg sync.WaitGroup
	for range 4 {
		for tenant, l := range tokens {
			wg.Go(func() {
				for i := range 25 {
					got := r.call(t, tenant, "modern", l[i%len(l)], callBody("whoami", "{}"))
					if mine := strings.Contains(got.Body, "octo-alice"); mine != (tenant == "/t/acme") || got.Status != http.StatusOK {
						t.Errorf("%s: %d %s", tenant, got.Status, got.Body)
						return
					}
					if tenant != "/t/acme" && !strings.Contains(got.Body, tenant+"/connect/") {
						t.Errorf("%s: asked to connect elsewhere: %s", tenant, got.Body)
					}
				}
			})
		}
	}
	wg.Wait()
	keys := map[string]bool{}
	for _, tenant := range []string{"", "/t/acme", "/t/globex", "/t/initech"} {
		got := send(t, http.MethodGet, r.Desk().Public+tenant+"/jwks", "")
		if got.Status != http.StatusOK || keys[got.Body] {
			t.Errorf("%s signs with another tenant's keys", tenant)
		}
		keys[got.Body] = true
	}
}

// TestA138_names: a tenant is spelled in one way.
func TestA138_names(t *testing.T) {
	r := theRealm(t)
	for _, suffix := range []string{"/mcp/modern", "/jwks", "/portal/", "/authorize", "/register"} {
		never := ""
		for i, name := range []string{"nobody", "acme%2f..%2fglobex", "ACME", "acme.", "acm%C3%A9", "", "default", "%61cme", "acme%00", "acme%20", "acme;x", "acme/../globex", "./acme", "acme/.", "acme%2e", strings.Repeat("a", 10<<10)} {
			for _, path := range []string{"/t/" + name + suffix, "/.well-known/oauth-protected-resource/t/" + name + suffix, "/.well-known/oauth-authorization-server/t/" + name} {
				req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, r.Desk().Public, nil)
				if err != nil {
					t.Fatal(err)
				}
				req.URL.Opaque = path
				resp, err := http.DefaultTransport.RoundTrip(req)
				if err != nil {
					t.Fatal(err)
				}
				_ = resp.Body.Close()
				headers := fmt.Sprint(sorted(resp.Header))
				if i == 0 && strings.HasPrefix(path, "/t/") {
					never = headers
				}
				if resp.StatusCode != http.StatusNotFound || strings.HasPrefix(path, "/t/") && headers != never {
					t.Errorf("%.80s: %d %s", path, resp.StatusCode, headers)
				}
			}
		}
	}
}
