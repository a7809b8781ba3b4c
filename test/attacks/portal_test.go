package attacks_test

import (
	"crypto/rand"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"frontdesk.dev/frontdesk/test/world"
)

const pagePolicy = "default-src 'none'; style-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"

// TestA140A141A146_pages: every page holds foreign text as text, and the headers that keep a browser from more.
func TestA140A141A146_pages(t *testing.T) {
	r := theRealm(t)
	r.oracles(t)
	foreign := `"><script>alert(1)</script>{{7*7}}</title><svg onload=alert(2)>` + "\u202e\u200b"
	r.globex.during(t, hooks{claims: func(m map[string]any) { m["name"], m["sub"] = foreign, "emp-xss" }})
	eve := world.NewPerson("Allow")
	open(t, eve, r.Desk().Public+"/t/globex/portal/")
	a := r.app(t, "/t/globex", foreign)
	open(t, eve, a.authorizeURL(nil))
	link := a.link(t, "modern", a.signedIn(t, eveAgain(eve)).Access)
	alice := r.person("alice")
	r.evil.is(foreign)
	t.Cleanup(func() { r.evil.is("emp-alice") })
	got := r.callback(t, alice, "evil", url.Values{"code": {"c"}, "state": {r.leaves(t, alice, "evil").Query().Get("state")}, "iss": {r.evil.URL}})
	shown := map[string]*world.Shown{}
	for name, at := range map[string]string{"portal": "/t/globex/portal/", "activity": "/t/globex/portal/activity", "request": strings.TrimPrefix(link, r.Desk().Public), "sign out": "/t/globex/signout", "none": "/t/globex/connect/none", "door": "/t/globex/door?server=modern"} {
		s := *open(t, eve, r.Desk().Public+at)
		shown[name] = &s
	}
	s := *open(t, eve, a.authorizeURL(map[string]string{"state": foreign}))
	shown["consent, or what follows"] = &s
	for name, at := range map[string]string{"account": "/portal/", "after": got.Header.Get("Location"), "error": "/callback/evil?state=" + url.QueryEscape(foreign) + "&error=" + url.QueryEscape(foreign)} {
		s := *open(t, alice, r.Desk().Public+at)
		shown[name] = &s
	}
	for name, s := range shown {
		body := string(s.Body)
		for _, bad := range []string{"<script", "<svg onload", "onload=alert(2)>", "{{49", ">49<", "\u202e", "\u200b", "javascript:"} {
			if strings.Contains(body, bad) {
				t.Errorf("%s holds %q", name, bad)
			}
		}
		if strings.Contains(s.URL.Host, strings.TrimPrefix(r.back.URL, "http://")) {
			continue
		}
		for header, want := range map[string]string{"Content-Security-Policy": pagePolicy, "X-Frame-Options": "DENY", "Cross-Origin-Opener-Policy": "same-origin", "Cache-Control": "no-store", "Referrer-Policy": "no-referrer", "X-Content-Type-Options": "nosniff"} {
			if s.Header.Get(header) != want {
				t.Errorf("%s: %s is %q", name, header, s.Header.Get(header))
			}
		}
	}
	for _, path := range []string{"/portal/x.css", "/portal/activity/x.css", "/portal/activity;.js", "/portal/.css", "/authorize/x.css", "/portal/activity.css"} {
		if got := send(t, http.MethodGet, r.Desk().Public+path, "", "Cookie", cookies(alice, r.Desk().Public)); got.Status != http.StatusNotFound {
			t.Errorf("A-146 %s: %d", path, got.Status)
		}
	}
	for _, path := range []string{"/portal/", "/signin", "/authorize"} {
		if got := send(t, http.MethodGet, r.Desk().Public+path, "", "If-None-Match", "*"); got.Header.Get("Cache-Control") != "no-store" || got.Header.Get("Etag") != "" {
			t.Errorf("A-146 %s: %d %q", path, got.Status, got.Header.Get("Cache-Control"))
		}
	}
}

// eveAgain is the same browser, whose person says yes and connects nothing.
func eveAgain(p *world.Person) *world.Person {
	q := world.NewPerson("Allow", later)
	q.Browser = p.Browser
	return q
}

// TestA142_forms: nothing changes but by our own forms.
func TestA142_forms(t *testing.T) {
	r := theRealm(t)
	r.oracles(t)
	alice := r.person("alice")
	open(t, alice, r.Desk().Public+"/portal/")
	r.callback(t, alice, "evil", url.Values{"code": {"c"}, "state": {r.leaves(t, alice, "evil").Query().Get("state")}, "iss": {r.evil.URL}})
	out, err := r.Desk().Run("connections", "list", "--user", "emp-alice")
	id := regexp.MustCompile(`(?m)^(\S+)\s+evil\s`).FindStringSubmatch(out)
	if err != nil || id == nil {
		t.Fatalf("%v\n%s", err, out)
	}
	a := r.app(t, "", "agent")
	link := a.link(t, "keyed", a.at("keyed").signedIn(t, r.person("bob", later)).Access)
	bob := r.person("bob")
	open(t, bob, r.Desk().Public+"/portal/")
	const form = "application/x-www-form-urlencoded"
	for name, h := range map[string][]string{
		"another site":        {"Content-Type", form, "Origin", "https://evil.test", "Sec-Fetch-Site", "cross-site"},
		"another site of old": {"Content-Type", form, "Origin", "https://evil.test"},
		"null":                {"Content-Type", form, "Origin", "null"},
		"a sibling":           {"Content-Type", form, "Origin", "http://evil.127.0.0.1", "Sec-Fetch-Site", "same-site"},
		"another port":        {"Content-Type", form, "Origin", "http://127.0.0.1:1"},
		"nothing said":        {"Content-Type", form},
		"text/plain":          {"Content-Type", "text/plain", "Origin", r.Desk().Public, "Sec-Fetch-Site", "same-origin"},
		"JSON":                {"Content-Type", "application/json", "Origin", r.Desk().Public, "Sec-Fetch-Site", "same-origin"},
		"no type":             {"Origin", r.Desk().Public, "Sec-Fetch-Site", "same-origin"},
	} {
		for _, path := range []string{"/portal/end/" + id[1], "/portal/grant/end", "/portal/connect/tracker", "/portal/key", "/signout"} {
			if got := r.form(t, alice, path, url.Values{"client": {a.id}, "server": {"modern"}}, h...); got.Status != http.StatusForbidden || got.Header.Get("Set-Cookie") != "" && path == "/signout" {
				t.Errorf("%s to %s: %d", name, path, got.Status)
			}
		}
		for _, path := range []string{"/refuse", "/keyed"} {
			if got := r.form(t, bob, strings.TrimPrefix(link, r.Desk().Public)+path, nil, h...); got.Status != http.StatusForbidden {
				t.Errorf("%s to %s of a request: %d", name, path, got.Status)
			}
		}
	}
	for _, path := range []string{"/portal/end/" + id[1], "/portal/grant/end", "/portal/key", "/signout?_method=POST", strings.TrimPrefix(link, r.Desk().Public) + "/refuse"} {
		got := send(t, http.MethodGet, r.Desk().Public+path, "", "Cookie", cookies(alice, r.Desk().Public), "X-HTTP-Method-Override", "POST")
		if got.Status < 400 && !strings.HasPrefix(path, "/signout") {
			t.Errorf("GET %s: %d", path, got.Status)
		}
	}
	if out, _ := r.Desk().Run("connections", "list", "--user", "emp-alice"); !strings.Contains(out, id[1]) {
		t.Error("the connection was ended")
	}
	if got := send(t, http.MethodGet, link, "", "Cookie", cookies(bob, r.Desk().Public)); got.Status != http.StatusOK {
		t.Errorf("bob's request was answered: %d", got.Status)
	}
	if shown := open(t, alice, r.Desk().Public+"/portal/"); shown.URL.Path != "/portal/" {
		t.Error("alice was signed out")
	}
	if got := r.form(t, bob, "/portal/end/"+id[1], nil); got.Status != http.StatusNotFound {
		t.Errorf("bob ends alice's connection: %d", got.Status)
	}
	if got := r.form(t, alice, "/portal/end/"+id[1], nil); got.Status != http.StatusOK {
		t.Errorf("our own form: %d %s", got.Status, got.Body)
	}
}

// TestA143_returns: a link to us leads to our own pages.
func TestA143_returns(t *testing.T) {
	r := theRealm(t)
	alice := r.person("alice")
	open(t, alice, r.Desk().Public+"/portal/")
	for _, to := range []string{"//evil.test", `/\evil.test`, "https:evil.test", "https://evil.test/portal/", "/%09/evil.test", "/\t/evil.test", "/t/acme/../../evil", "javascript:alert(1)", "/t/acme/portal/", "/portal/../evil", "///evil.test", "/portal//evil.test", `\\evil.test`, "/mcp/modern",
		"/callback/evil?code=x", "/signout", "@evil.test", "/portal%2f..%2fevil", " //evil.test", "/.evil.test", "data:text/html,x", "http:///evil.test"} {
		p := r.person("alice")
		shown := open(t, p, r.Desk().Public+"/signin?return="+url.QueryEscape(to))
		if shown.URL.Path != "/portal/" || "http://"+shown.URL.Host != r.Desk().Public {
			t.Errorf("%q led to %s", to, shown.URL)
		}
		body := string(open(t, alice, r.Desk().Public+"/portal/done?at=tracker&return="+url.QueryEscape(to)).Body)
		if strings.Contains(body, "evil") || strings.Contains(body, "javascript:") || strings.Contains(body, `href="/mcp`) {
			t.Errorf("%q stands in the page", to)
		}
	}
	if shown := open(t, r.person("alice"), r.Desk().Public+"/signin?return="+url.QueryEscape("/portal/activity?before=")); shown.URL.Path != "/portal/activity" {
		t.Errorf("our own page: %s", shown.URL)
	}
}

// TestA144_sessions: a session is new at each sign-in, of one tenant and one browser, and over when it is over.
func TestA144_sessions(t *testing.T) {
	r := theRealm(t)
	r.oracles(t)
	alice := r.person("alice")
	open(t, alice, r.Desk().Public+"/portal/")
	jar := cookies(alice, r.Desk().Public)
	portal := func(cookie string) bool {
		got := send(t, http.MethodGet, r.Desk().Public+"/portal/", "", "Cookie", cookie)
		return got.Status == http.StatusOK
	}
	if !portal(jar) {
		t.Fatal("the honest cookies do not open the portal")
	}
	names := map[string]string{}
	for c := range strings.SplitSeq(jar, "; ") {
		name, value, _ := strings.Cut(c, "=")
		names[name] = value
	}
	session, browser := "", ""
	for name, v := range names {
		if strings.HasPrefix(name, "frontdesk-session") {
			session = name + "=" + v
		} else if strings.HasPrefix(name, "frontdesk-browser") {
			browser = name + "=" + v
		}
	}
	other := r.person("bob")
	open(t, other, r.Desk().Public+"/portal/")
	theirs := ""
	for _, c := range other.Cookies(r.Desk().Public) {
		if strings.Contains(c.Name, "browser") {
			theirs = c.Name + "=" + c.Value
		}
	}
	for name, cookie := range map[string]string{"the session alone": session, "the browser alone": browser, "the session in another browser": session + "; " + theirs, "a changed session": strings.TrimSuffix(session, session[len(session)-2:]) + "AA; " + browser} {
		if portal(cookie) {
			t.Errorf("%s opens the portal", name)
		}
	}
	// Where the cookie is set: only here, only for us, not for scripts.
	got := send(t, http.MethodGet, r.Desk().Public+"/signin", "")
	for _, c := range got.Header.Values("Set-Cookie") {
		if !strings.Contains(c, "HttpOnly") || !strings.Contains(c, "SameSite=Lax") || !strings.Contains(c, "Path=/") || strings.Contains(c, "Domain=") {
			t.Errorf("set as %q", c)
		}
	}
	// Signed out: the copy is dead, also of one who kept it.
	if got := r.form(t, alice, "/signout", nil); got.Status != http.StatusOK {
		t.Fatalf("%d", got.Status)
	}
	for end := time.Now().Add(5 * time.Second); portal(jar); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("after the sign-out a copy of the cookies still opens the portal")
		}
	}
	again := r.person("alice")
	again.Browser = alice.Browser
	open(t, again, r.Desk().Public+"/portal/")
	if fresh := cookies(again, r.Desk().Public); strings.Contains(fresh, session) || !portal(fresh) {
		t.Errorf("the session after a sign-in is the old one, or none: %q %s", fresh, again.Page().Text())
	}
	if portal(jar) {
		t.Error("the old session came back with the new one")
	}
	// Two persons in one browser: a form of the one is not sent by the other.
	stops := r.stops("alice")
	a := r.app(t, "", "agent")
	ticket := open(t, stops, a.authorizeURL(nil)).Forms[0].Fields[0].Value
	_ = r.IdP.SignOut("alice")
	bob := r.stops("bob")
	bob.Browser = stops.Browser
	open(t, bob, r.Desk().Public+"/signin")
	if got := r.form(t, bob, "/authorize", url.Values{"ticket": {ticket}, "decision": {"allow"}}); got.Status != http.StatusForbidden {
		t.Errorf("alice's page is answered by bob: %d", got.Status)
	}
}

// TestA145_signIn: an ID token that is not the answer to our question signs nobody in.
func TestA145_signIn(t *testing.T) {
	r := theRealm(t)
	r.oracles(t)
	for name, change := range map[string]func(m map[string]any){
		"nonce wrong":       func(m map[string]any) { m["nonce"] = "other" },
		"nonce missing":     func(m map[string]any) { delete(m, "nonce") },
		"another client":    func(m map[string]any) { m["aud"] = "other" },
		"azp of another":    func(m map[string]any) { m["azp"] = "other" },
		"two audiences":     func(m map[string]any) { m["aud"] = []string{"frontdesk", "other"} },
		"at_hash wrong":     func(m map[string]any) { m["at_hash"] = b64(make([]byte, 16)) },
		"another issuer":    func(m map[string]any) { m["iss"] = r.acme.URL() },
		"expired":           func(m map[string]any) { m["exp"] = time.Now().Add(-5 * time.Minute).Unix() },
		"no sub":            func(m map[string]any) { delete(m, "sub") },
		"sub is a number":   func(m map[string]any) { m["sub"] = 1 },
		"a logout token":    func(m map[string]any) { m["events"] = map[string]any{} },
		"groups are a text": func(m map[string]any) { m["groups"] = "engineering" },
	} {
		r.globex.set(hooks{claims: change})
		p := world.NewPerson()
		shown := open(t, p, r.Desk().Public+"/t/globex/portal/")
		r.globex.set(hooks{})
		if shown.Status != http.StatusBadRequest || strings.Contains(cookies(p, r.Desk().Public), "session") {
			t.Errorf("%s: %d %s", name, shown.Status, shown.Text())
		}
	}
	for name, sign := range map[string]func(w http.ResponseWriter, q *http.Request) bool{
		"no ID token": func(w http.ResponseWriter, _ *http.Request) bool {
			reply(w, map[string]any{"access_token": "aaaaaaaaaaaaaaaaaaaa", "token_type": "Bearer"})
			return true
		},
		"unsigned": func(w http.ResponseWriter, _ *http.Request) bool {
			reply(w, map[string]any{"access_token": "aaaaaaaaaaaaaaaaaaaa", "token_type": "Bearer", "id_token": r.globex.sign(map[string]any{"alg": "none"}, map[string]any{"iss": r.globex.URL, "aud": "frontdesk", "sub": "emp-alice"})})
			return true
		},
	} {
		r.globex.set(hooks{token: sign})
		p := world.NewPerson()
		shown := open(t, p, r.Desk().Public+"/t/globex/portal/")
		r.globex.set(hooks{})
		if shown.Status < 400 || strings.Contains(cookies(p, r.Desk().Public), "session") {
			t.Errorf("%s: %d %s", name, shown.Status, shown.Text())
		}
	}
	// Login CSRF: mallory's answer in alice's browser.
	mallory := world.NewPerson()
	var back string
	r.globex.set(hooks{authorize: func(w http.ResponseWriter, q *http.Request) bool {
		back = q.URL.Query().Get("redirect_uri") + "?" + url.Values{"code": {"mallorys"}, "state": {q.URL.Query().Get("state")}, "iss": {r.globex.URL}}.Encode()
		return true
	}})
	open(t, mallory, r.Desk().Public+"/t/globex/portal/")
	r.globex.set(hooks{})
	alice := world.NewPerson()
	if shown := open(t, alice, back); back == "" || shown.Status != http.StatusForbidden || strings.Contains(cookies(alice, r.Desk().Public), "session") {
		t.Errorf("login CSRF: %d %s", shown.Status, shown.Text())
	}
}

// TestA147_addresses: after the callback no address holds what must not be seen.
func TestA147_addresses(t *testing.T) {
	r := theRealm(t)
	r.oracles(t)
	p := r.person("ivan", "Connect Tracker", "Done")
	a := r.app(t, "", "agent")
	k := a.signedIn(t, p)
	secret := regexp.MustCompile(`[?&](code|state|token|access_token|id_token)=|mail\.example|%40|@`)
	seen := 0
	for _, v := range p.History() {
		u, err := url.Parse(v.URL)
		if err != nil || "http://"+u.Host != r.Desk().Public || strings.HasPrefix(u.Path, "/callback/") || u.Path == "/authorize" {
			continue
		}
		seen++
		if u.Path != "/signin" && u.Path != "/authorize/finish" && secret.MatchString(v.URL) {
			t.Errorf("an address holds what must not be seen: %s", v.URL)
		}
	}
	if seen < 3 {
		t.Errorf("only %d addresses were looked at", seen)
	}
	for _, v := range []string{k.Access, k.Refresh} {
		if strings.Contains(r.Desk().Log(), v) {
			t.Error("the log holds a token")
		}
	}
	for _, v := range p.History() {
		u, _ := url.Parse(v.URL)
		if u != nil && strings.HasPrefix(u.Path, "/callback/") {
			if c := u.Query().Get("code"); c != "" && strings.Contains(r.Desk().Log(), c) {
				t.Error("the log holds a code")
			}
		}
	}
}

// TestA142_startedSignIns: what a stranger can make us keep is counted by where he comes from.
func TestA142_startedSignIns(t *testing.T) {
	r := theRealm(t)
	slow := 0
	for range 330 {
		if got := send(t, http.MethodGet, r.Desk().Public+"/signin", "", from("192.0.2.250")...); got.Status == http.StatusTooManyRequests && got.Header.Get("Retry-After") != "" {
			slow++
		} else if got.Status != http.StatusSeeOther {
			t.Fatalf("%d %s", got.Status, got.Body)
		}
	}
	if slow < 30 {
		t.Errorf("of 330 sign-ins that were begun %d were slowed", slow)
	}
	if got := send(t, http.MethodGet, r.Desk().Public+"/signin", "", from("192.0.2.251")...); got.Status != http.StatusSeeOther {
		t.Errorf("somebody else: %d", got.Status)
	}
	// Nor is it as long as he likes: what was kept leads back after the sign-in, and this does not.
	for n, back := range map[int]string{1 << 10: "kept", 15 << 10: "", 50 << 10: ""} {
		p := r.stops("alice")
		shown := open(t, p, r.Desk().Public+"/signin?return="+url.QueryEscape("/portal/activity?show=you&x="+rand.Text()+strings.Repeat("x", n)))
		if at := shown.URL.Path; at != map[string]string{"kept": "/portal/activity", "": "/portal/"}[back] {
			t.Errorf("a way back of %d bytes leads to %s", n, at)
		}
	}
}
