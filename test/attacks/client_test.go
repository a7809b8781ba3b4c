package attacks_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"frontdesk.dev/frontdesk/internal/admin"
	"frontdesk.dev/frontdesk/test/world"
)

// leaves sends a person from the portal to an upstream, and gives the address at the vendor to which the browser goes.
func (r *realm) leaves(t *testing.T, p *world.Person, upstream string) *url.URL {
	t.Helper()
	open(t, p, r.Desk().Public+"/portal/")
	got := r.form(t, p, "/portal/connect/"+upstream, nil)
	u, err := url.Parse(between(got.Body, `content="0; url=`, `"`))
	if got.Status != http.StatusOK || err != nil || u.Host == "" {
		t.Fatalf("%d %s", got.Status, got.Body)
	}
	return u
}

func between(text, from, to string) string {
	_, rest, _ := strings.Cut(text, from)
	part, _, _ := strings.Cut(rest, to)
	return strings.ReplaceAll(part, "&amp;", "&")
}

// callback brings an answer back in a person's browser.
func (r *realm) callback(t *testing.T, p *world.Person, name string, q url.Values) answer {
	t.Helper()
	return send(t, http.MethodGet, r.Desk().Public+"/callback/"+name+"?"+q.Encode(), "", "Cookie", cookies(p, r.Desk().Public))
}

// TestA036_mixUp: a code of the honest vendor never gets to the hostile one.
func TestA036_mixUp(t *testing.T) {
	r := theRealm(t)
	r.oracles(t)
	alice := r.person("alice")
	for name, iss := range map[string]string{"with the honest iss": r.Tracker.URL(), "with the hostile iss": r.evil.URL, "without": ""} {
		at := r.leaves(t, alice, "evil")
		before := r.evil.exchanged.Load()
		// The hostile server sends the browser on to the tracker, as if the tracker had been asked.
		code := "honest-code-" + strings.Fields(name)[0]
		q := url.Values{"code": {code}, "state": {at.Query().Get("state")}}
		if iss != "" {
			q.Set("iss", iss)
		}
		if got := r.callback(t, alice, "tracker", q); got.Status != http.StatusBadRequest && got.Status != http.StatusForbidden {
			t.Errorf("%s at the tracker's callback: %d", name, got.Status)
		}
		if r.evil.exchanged.Load() != before || r.evil.got(code) {
			t.Errorf("%s: the hostile server got the code", name)
		}
	}
	if at := r.leaves(t, alice, "evil"); at.Query().Get("redirect_uri") != r.Desk().Public+"/callback/evil" || at.Query().Get("code_challenge_method") != "S256" {
		t.Errorf("A-040: the request has another redirect, or no challenge: %s", at)
	}
}

// TestA037A038_answers: only the answer to the question that this browser left with is taken, once.
func TestA037A038_answers(t *testing.T) {
	r := theRealm(t)
	r.oracles(t)
	alice := r.person("alice")
	bob := r.person("bob")
	open(t, bob, r.Desk().Public+"/portal/")
	before := r.evil.exchanged.Load()
	const script = "<script>alert(1)</script>"
	for name, change := range map[string]func(q url.Values){
		"iss of another":   func(q url.Values) { q.Set("iss", r.Tracker.URL()) },
		"iss with a slash": func(q url.Values) { q.Set("iss", r.evil.URL+"/") },
		"iss left out":     func(q url.Values) { q.Del("iss") },
		"iss twice":        func(q url.Values) { q.Add("iss", r.evil.URL) },
		"code twice":       func(q url.Values) { q.Add("code", "y") },
		"state twice":      func(q url.Values) { q.Add("state", q.Get("state")) },
		"error of another": func(q url.Values) {
			q.Set("error", "access_denied")
			q.Set("iss", r.Tracker.URL())
			q.Set("error_description", script)
		},
		"a no":               func(q url.Values) { q.Set("error", "access_denied"); q.Set("error_description", script); q.Del("code") },
		"an odd error":       func(q url.Values) { q.Set("error", script); q.Del("code") },
		"no state":           func(q url.Values) { q.Del("state") },
		"state flipped":      func(q url.Values) { s := q.Get("state"); q.Set("state", "A"+s[1:]+"B") },
		"a state of 100 KiB": func(q url.Values) { q.Set("state", strings.Repeat("a", 20<<10)) },
		"no code":            func(q url.Values) { q.Del("code") },
	} {
		q := url.Values{"code": {"c"}, "state": {r.leaves(t, alice, "evil").Query().Get("state")}, "iss": {r.evil.URL}}
		change(q)
		got := r.callback(t, alice, "evil", q)
		if got.Status != http.StatusBadRequest && got.Status != http.StatusForbidden || strings.Contains(got.Body, "<script") || strings.Contains(got.Body, "alert(1)") {
			t.Errorf("%s: %d %s", name, got.Status, got.Body)
		}
	}
	state := r.leaves(t, alice, "evil").Query().Get("state")
	q := url.Values{"code": {"c"}, "state": {state}, "iss": {r.evil.URL}}
	for name, got := range map[string]answer{"no cookie": r.callback(t, world.NewPerson(), "evil", q), "A-039 another's browser": r.callback(t, bob, "evil", q)} {
		if got.Status != http.StatusForbidden && got.Status != http.StatusBadRequest {
			t.Errorf("%s: %d", name, got.Status)
		}
	}
	if n := r.evil.exchanged.Load() - before; n != 0 {
		t.Errorf("%d codes were exchanged", n)
	}
	// Twice in parallel: one exchange.
	q.Set("state", r.leaves(t, alice, "evil").Query().Get("state"))
	var wg sync.WaitGroup
	var ok atomic.Int64
	for range 8 {
		wg.Go(func() {
			if got := r.callback(t, alice, "evil", q); got.Status == http.StatusSeeOther {
				ok.Add(1)
			}
		})
	}
	wg.Wait()
	if n := r.evil.exchanged.Load() - before; n != 1 || ok.Load() != 1 {
		t.Errorf("eight answers at once: %d exchanges, %d successes", n, ok.Load())
	}
	if got := r.callback(t, alice, "evil", q); got.Status != http.StatusForbidden {
		t.Errorf("used before: %d", got.Status)
	}
}

// TestA039_forcedLink: mallory's account is not put under alice's name.
func TestA039_forcedLink(t *testing.T) {
	r := theRealm(t)
	r.oracles(t)
	mallory, alice := r.person("carol"), r.person("alice")
	open(t, alice, r.Desk().Public+"/portal/")
	state := r.leaves(t, mallory, "evil").Query().Get("state")
	r.evil.is("mallory-account")
	t.Cleanup(func() { r.evil.is("emp-alice") })
	before := r.evil.exchanged.Load()
	q := url.Values{"code": {"mallorys"}, "state": {state}, "iss": {r.evil.URL}}
	if got := r.callback(t, alice, "evil", q); got.Status != http.StatusForbidden {
		t.Errorf("%d %s", got.Status, got.Body)
	}
	if r.evil.exchanged.Load() != before {
		t.Error("the code was exchanged")
	}
	if shown := open(t, alice, r.Desk().Public+"/portal/"); strings.Contains(shown.Text(), "mallory-account") {
		t.Error("alice has mallory's account")
	}
}

// TestA041A062A122_configs: what a config may not say, and what it is told.
func TestA041A062A122_configs(t *testing.T) {
	r := theRealm(t)
	check := func(config string) (string, error) {
		at := filepath.Join(filepath.Dir(r.Desk().ConfigPath), "candidate.yaml")
		if err := os.WriteFile(at, []byte(config), 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := exec.CommandContext(t.Context(), r.Desk().Binary, "check", at).CombinedOutput()
		return string(out), err
	}
	if out, err := check(r.config); err != nil {
		t.Fatalf("the honest config: %v\n%s", err, out)
	}
	change := func(old, with string) string {
		if !strings.Contains(r.config, old) {
			t.Fatalf("the config has no %q", old)
		}
		return strings.Replace(r.config, old, with, 1)
	}
	authorize := "authorization_endpoint: " + r.evil.URL + "/authorize"
	for name, config := range map[string]string{
		"A-041 javascript":           change(authorize, `authorization_endpoint: "javascript:alert(1)"`),
		"A-041 file":                 change(authorize, `authorization_endpoint: "file:///etc/passwd"`),
		"A-041 shell":                change(authorize, `authorization_endpoint: "https://x/$(calc)`+"`"+`"`),
		"A-041 plain http":           change(authorize, `authorization_endpoint: "http://vendor.example/authorize"`),
		"A-041 a user in it":         change("token_endpoint: "+r.evil.URL, `token_endpoint: `+strings.Replace(r.evil.URL, "http://", "http://a:b@", 1)),
		"A-152 all hosts":            change(`hosts: ["`+r.evil.URL+`"]`, `hosts: ["*"]`),
		"A-152 a public suffix":      change(`hosts: ["`+r.evil.URL+`"]`, `hosts: ["*.com"]`),
		"A-152 metadata":             change(`hosts: ["`+r.evil.URL+`"]`, `hosts: ["http://169.254.169.254"]`),
		"A-062 passthrough":          change("methods: [authorization_code, api_key]", "methods: [passthrough]"),
		"A-122 the same name twice":  change("  evil: {url: ", "  modern: {url: "),
		"A-122 a path in the name":   change("  evil: {url: ", "  modern/b: {url: "),
		"A-138 a tenant's name":      change("  initech:\n", "  Initech:\n"),
		"A-138 a tenant that is not": change("  initech:\n", "  default:\n"),
		"an unknown key":             change("trusted_proxies:", "trusted_proxy:"),
	} {
		out, err := check(config)
		if err == nil || !strings.Contains(out, "candidate.yaml:") {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
		if strings.Contains(out, world.FrontdeskSecret) {
			t.Errorf("%s: the message holds a secret", name)
		}
	}
}

// TestA044A046_tokenAnswers: what a vendor's token endpoint answers is read strictly, and nothing of it is shown.
func TestA044A046_tokenAnswers(t *testing.T) {
	r := theRealm(t)
	r.oracles(t)
	alice := r.person("alice")
	var lured atomic.Int64
	lure := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { lured.Add(1) }))
	t.Cleanup(lure.Close)
	echo := func(status int) func(w http.ResponseWriter, q *http.Request) bool {
		return func(w http.ResponseWriter, q *http.Request) bool {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(status)
			_, _ = fmt.Fprintf(w, `{"error":"invalid_grant","error_description":%q,"access_token":""}`, q.PostForm.Encode()+" "+q.Header.Get("Authorization"))
			return true
		}
	}
	says := func(kind, body string) func(w http.ResponseWriter, q *http.Request) bool {
		return func(w http.ResponseWriter, _ *http.Request) bool {
			w.Header().Set("Content-Type", kind)
			_, _ = io.WriteString(w, body)
			return true
		}
	}
	connect := func() answer {
		q := url.Values{"code": {"code-that-is-echoed"}, "state": {r.leaves(t, alice, "evil").Query().Get("state")}, "iss": {r.evil.URL}}
		return r.callback(t, alice, "evil", q)
	}
	for name, h := range map[string]func(w http.ResponseWriter, q *http.Request) bool{
		"200 with an error": echo(http.StatusOK),
		"400 with an echo":  echo(http.StatusBadRequest),
		"500 with an echo":  echo(http.StatusInternalServerError),
		"HTML":              says("text/html", "<html><script>alert(1)</script>"),
		"10 MiB": func(w http.ResponseWriter, _ *http.Request) bool {
			_, _ = w.Write(bytes.Repeat([]byte("a"), 10<<20))
			return true
		},
		"token_type mac":     says("application/json", `{"access_token":"aaaaaaaaaaaaaaaaaaaa","token_type":"mac"}`),
		"no token":           says("application/json", `{"token_type":"Bearer"}`),
		"a token of no text": says("application/json", `{"access_token":{"a":1},"token_type":"Bearer"}`),
		"a header in it":     says("application/json", `{"access_token":"a\r\nX-Evil: 1","token_type":"Bearer"}`),
		"307": func(w http.ResponseWriter, q *http.Request) bool {
			http.Redirect(w, q, lure.URL, http.StatusTemporaryRedirect)
			return true
		},
		"empty": says("application/json", ``),
	} {
		r.evil.set(hooks{token: h})
		got := connect()
		r.evil.set(hooks{})
		if got.Status < 400 {
			t.Errorf("%s: %d %s", name, got.Status, got.Header.Get("Location"))
		}
		for _, bad := range []string{"code-that-is-echoed", world.FrontdeskSecret, "<script", "code_verifier", "Basic "} {
			if strings.Contains(got.Body, bad) {
				t.Errorf("%s: the page holds %q", name, bad)
			}
		}
	}
	if lured.Load() != 0 {
		t.Error("A-044: the redirect was followed, with the secret in the body")
	}
	for _, bad := range []string{"code-that-is-echoed", "code_verifier="} {
		if strings.Contains(r.Desk().Log(), bad) {
			t.Errorf("A-046: the log holds %q", bad)
		}
	}
	for name, more := range map[string]string{"text": `"3600"`, "negative": `-1`, "huge": `1e309`, "nothing": `null`} {
		r.evil.set(hooks{token: says("application/json", `{"access_token":"evil-access-`+name+`","token_type":"Bearer","expires_in":`+more+`}`)})
		got := connect()
		r.evil.set(hooks{})
		if got.Status != http.StatusSeeOther {
			t.Errorf("expires_in %s: %d %s", name, got.Status, got.Body)
		}
	}
	r.evil.set(hooks{token: says("application/json", `{"access_token":"evil-access-wide","token_type":"Bearer","scope":"read admin"}`)})
	connect()
	r.evil.set(hooks{})
	if out, err := r.Desk().Run("connections", "list", "--user", "emp-alice"); err != nil || !strings.Contains(out, "admin") || strings.Contains(out, "evil-access") {
		t.Errorf("A-044: a wider scope is not shown: %v\n%s", err, out)
	}
}

// TestA045A047_anotherAccount: on a reconnect as somebody else nothing is stored until its user says so, and the old account stays
// either way; and the page that asks has a clean address.
func TestA045A047_anotherAccount(t *testing.T) {
	r := theRealm(t)
	r.oracles(t)
	person := r.person("bob")
	connect := func(as string) answer {
		r.evil.is(as)
		return r.callback(t, person, "evil", url.Values{"code": {"c"}, "state": {r.leaves(t, person, "evil").Query().Get("state")}, "iss": {r.evil.URL}})
	}
	t.Cleanup(func() { r.evil.is("emp-alice") })
	account := func() string {
		out, err := r.Desk().Run("connections", "list", "--user", "emp-bob")
		if err != nil {
			t.Fatal(out)
		}
		return out
	}
	first := connect("account-a@mail.example")
	if first.Status != http.StatusSeeOther || strings.Contains(first.Header.Get("Location"), "account-a") || strings.Contains(first.Header.Get("Location"), "code=") || strings.Contains(first.Header.Get("Location"), "state=") {
		t.Errorf("A-147: after the callback: %d %s", first.Status, first.Header.Get("Location"))
	}
	second := connect("account-b@mail.example")
	to := second.Header.Get("Location")
	if second.Status != http.StatusSeeOther || strings.Contains(to, "account-b") || strings.Contains(to, "state=") || second.Header.Get("Referrer-Policy") != "no-referrer" {
		t.Errorf("A-047: the question is asked at %d %s", second.Status, to)
	}
	if l := account(); !strings.Contains(l, "account-a") || strings.Contains(l, "account-b") {
		t.Errorf("A-045: the old account was replaced in silence: %s", l)
	}
	shown := open(t, person, r.Desk().Public+to)
	if !strings.Contains(shown.Text(), "account-a@mail.example") || !strings.Contains(shown.Text(), "account-b@mail.example") || strings.Contains(string(shown.Body), "src=") {
		t.Errorf("the page does not name both, or loads something: %s", shown.Text())
	}
	if other := r.person("alice"); open(t, other, r.Desk().Public+"/portal/").Status != http.StatusOK || open(t, other, r.Desk().Public+to).Status != http.StatusForbidden {
		t.Error("the question is shown in another browser")
	}
	if _, err := person.Click(t.Context(), "Add it, and use it here"); err != nil {
		t.Fatal(err)
	}
	if l := account(); !strings.Contains(l, "account-a") || !strings.Contains(l, "account-b") {
		t.Errorf("the new account was added, but: %s", l)
	}
	back := connect("account-c@mail.example")
	open(t, person, r.Desk().Public+back.Header.Get("Location"))
	if _, err := person.Click(t.Context(), "Leave it, and keep the first"); err != nil {
		t.Fatal(err)
	}
	if l := account(); !strings.Contains(l, "account-a") || strings.Contains(l, "account-c") {
		t.Errorf("the old account was kept, but: %s", l)
	}
}

// TestForeignAccounts: no choice of an account reaches another person's, another upstream's, or one that has ended; what is posted
// changes nothing, and looks like a choice of what never was.
func TestForeignAccounts(t *testing.T) {
	r := theRealm(t)
	r.oracles(t)
	ids := func(user string) map[string]string { // by upstream and account
		out, err := r.Desk().Run("connections", "list", "--user", user, "--json")
		var l []admin.Connection
		if err != nil || json.Unmarshal([]byte(out), &l) != nil {
			t.Fatal(err, out)
		}
		m := map[string]string{}
		for _, c := range l {
			m[c.Upstream+" "+c.Account] = string(c.ID)
		}
		return m
	}
	through := func(p *world.Person, as string, form url.Values) {
		r.evil.is(as)
		open(t, p, r.Desk().Public+"/portal/")
		got := r.form(t, p, "/portal/connect/evil", form)
		u, err := url.Parse(between(got.Body, `content="0; url=`, `"`))
		if err != nil {
			t.Fatal(err)
		}
		if got := r.callback(t, p, "evil", url.Values{"code": {"c"}, "state": {u.Query().Get("state")}, "iss": {r.evil.URL}}); got.Status != http.StatusSeeOther {
			t.Fatalf("%d %s", got.Status, got.Body)
		}
	}
	t.Cleanup(func() { r.evil.is("emp-alice") })
	victim, p := r.person("ivan"), r.person("heidi", later)
	through(victim, "ivan-at-home@mail.example", url.Values{"another": {"1"}})
	through(p, "heidi-one@mail.example", url.Values{"another": {"1"}})
	through(p, "heidi-two@mail.example", url.Values{"another": {"1"}})
	through(p, "heidi-gone@mail.example", url.Values{"another": {"1"}})
	own := ids("emp-heidi")
	gone := own["evil heidi-gone@mail.example"]
	if got := r.form(t, p, "/portal/end/"+gone, nil); got.Status != http.StatusOK {
		t.Fatalf("%d", got.Status)
	}
	if l := ids("emp-heidi"); l["evil heidi-one@mail.example"] == "" || l["evil heidi-two@mail.example"] == "" || l["evil heidi-gone@mail.example"] != "" {
		t.Fatalf("the end of one account: %v", l)
	}
	open(t, p, r.Desk().Public+"/portal/connect/keyed")
	key := between(r.form(t, p, "/portal/connect/keyed", nil).Body, `name="state" value="`, `"`)
	r.form(t, p, "/portal/key", url.Values{"state": {key}, "key": {r.Tracker.NewAPIKey("octo-heidi", world.ScopeRead)}})
	own = ids("emp-heidi")

	a := r.app(t, "", "agent").at("evil")
	access := a.signedIn(t, p).Access
	foreign := map[string]string{"another person's": ids("emp-ivan")["evil ivan-at-home@mail.example"], "another upstream's": own["keyed octo-heidi"], "an ended one": gone,
		"the company's own IdP's": own["idp:login Heidi Hahn"], "made up": strings.Repeat("0", 32), "a wildcard": "%"}
	grant := url.Values{"client": {a.id}, "server": {"evil"}, "upstream": {"evil"}}
	if r.form(t, p, "/portal/grant/end", grant).Status != http.StatusSeeOther {
		t.Fatal("the grant of her consent does not end")
	}
	link := a.link(t, "evil", access)
	path := strings.TrimPrefix(link, r.Desk().Public) + "/evil"
	said := map[string]bool{}
	for name, id := range foreign {
		if id == "" {
			t.Fatalf("%s: there is none: %v", name, own)
		}
		got := r.form(t, p, path, url.Values{"connection": {id}})
		if got.Status != http.StatusNotFound {
			t.Errorf("%s is chosen on the page that asks: %d %s", name, got.Status, got.Body)
		}
		said[between(got.Body, "<h1>", "<footer")] = true
	}
	if open(t, p, link).Status != http.StatusOK {
		t.Error("a wrong choice answered the request")
	}
	if got := r.form(t, p, path, url.Values{"connection": {own["evil heidi-two@mail.example"]}}); got.Status != http.StatusSeeOther {
		t.Fatalf("the honest choice: %d %s", got.Status, got.Body)
	}
	explained := func() string {
		out, err := r.Desk().Run("explain", "--user", "emp-heidi", "--client", a.id, "--server", "evil", "--tool", "whoami")
		if err != nil {
			t.Fatal(out)
		}
		return out
	}
	for name, id := range foreign {
		g := url.Values{"client": {a.id}, "server": {"evil"}, "upstream": {"evil"}, "connection": {id}}
		if got := r.form(t, p, "/portal/grant/account", g); got.Status != http.StatusNotFound {
			t.Errorf("%s is chosen for an agent: %d", name, got.Status)
		}
		if got := r.form(t, p, "/portal/prefer/"+url.PathEscape(id), nil); got.Status != http.StatusNotFound && name != "another upstream's" {
			t.Errorf("%s is preferred: %d", name, got.Status)
		}
		if out := explained(); !strings.Contains(out, "connection  "+own["evil heidi-two@mail.example"]) {
			t.Errorf("%s: the agent uses another account now: %s", name, out)
		}
	}
	// What is hers, and she has not allowed, is not given by choosing its account; and another site's page chooses nothing.
	for name, g := range map[string]url.Values{"an agent that has nothing": {"client": {"nobody"}, "server": {"evil"}, "upstream": {"evil"}}, "another server": {"client": {a.id}, "server": {"modern"}, "upstream": {"evil"}}} {
		g.Set("connection", own["evil heidi-one@mail.example"])
		if got := r.form(t, p, "/portal/grant/account", g); got.Status != http.StatusNotFound {
			t.Errorf("%s: %d", name, got.Status)
		}
	}
	grant.Set("connection", own["evil heidi-one@mail.example"])
	if got := r.form(t, p, "/portal/grant/account", grant, "Content-Type", "application/x-www-form-urlencoded", "Origin", "https://evil.test", "Sec-Fetch-Site", "cross-site"); got.Status < 400 || !strings.Contains(explained(), own["evil heidi-two@mail.example"]) {
		t.Errorf("a form of another site: %d", got.Status)
	}
	if len(said) != 1 {
		t.Errorf("the refusals differ: %v", said)
	}
}
