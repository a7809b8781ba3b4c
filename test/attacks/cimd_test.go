package attacks_test

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"frontdesk.dev/frontdesk/test/world"
)

// authorizeDocument asks for authorization in the name of a document, from an address of its own.
func (r *realm) authorizeDocument(t *testing.T, id, address string, change map[string]string) answer {
	t.Helper()
	a := &app{r: r, id: id, redirect: "https://app.test/cb", resource: r.Desk().MCP("modern"), check: strings.Repeat("c", 43)}
	return send(t, http.MethodGet, a.authorizeURL(change), "", from(address)...)
}

// isPage400 is a page that says no and leads nowhere.
func isPage400(a answer) bool {
	return a.Status == http.StatusBadRequest && a.Header.Get("Location") == "" && strings.HasPrefix(a.Header.Get("Content-Type"), "text/html") && !strings.Contains(a.Body, "http-equiv")
}

// TestA022_documentAddresses: a client_id is fetched from public addresses alone. The resolver's tricks are tried in kit/outbound.
func TestA022_documentAddresses(t *testing.T) {
	r := theRealm(t)
	r.oracles(t)
	for i, id := range []string{"https://127.0.0.1/c.json", "https://localhost/c.json", "https://169.254.169.254/c.json", "https://[::ffff:10.0.0.1]/c.json", "https://0.0.0.0/c.json", "https://[::1]/c.json",
		"https://10.0.0.1/c.json", "https://0x7f.1/c.json", "https://2130706433/c.json", "https://metadata.google.internal/c.json", "https://127.0.0.1:1/c.json", "https://a@127.0.0.1/c.json", "https://example.test/../c.json"} {
		got := r.authorizeDocument(t, id, fmt.Sprintf("203.0.113.%d", i), nil)
		if !isPage400(got) {
			t.Errorf("%s: %d %s %.200s", id, got.Status, got.Header.Get("Location"), got.Body)
		}
	}
}

// TestA022_namedForOthers: that the config names an address for an upstream lets no stranger make us ask it for something.
func TestA022_namedForOthers(t *testing.T) {
	r := theRealm(t)
	r.oracles(t)
	at := r.docs.origins[6]
	config := strings.Replace(r.config, "  keyed: {provider", "  watched: {provider: tracker, url: "+at+"/api, methods: [api_key]}\n  keyed: {provider", 1)
	config = strings.Replace(config, "\""+at+"\", ", "", 1)
	r.reconfigured(t, config, nil)
	id := r.docs.document(6, "/admin/restart", nil)
	if got := r.authorizeDocument(t, id, "203.0.113.60", nil); !isPage400(got) || r.docs.visited("/admin/restart") != 0 {
		t.Errorf("%d, and the upstream was asked %d times", got.Status, r.docs.visited("/admin/restart"))
	}
}

// TestA023_documents: one that is not exactly as it must be is no client, and is not fetched again and again.
func TestA023_documents(t *testing.T) {
	r := theRealm(t)
	r.oracles(t)
	body := func(kind, text string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", kind)
			_, _ = io.WriteString(w, text)
		}
	}
	good := r.docs.document(0, "/good.json", nil)
	if got := r.authorizeDocument(t, good, "203.0.113.100", nil); got.Status != http.StatusSeeOther || !strings.Contains(got.Header.Get("Location"), "/signin") {
		t.Fatalf("the honest document: %d %s", got.Status, got.Body)
	}
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	_, _ = z.Write(bytes.Repeat([]byte(" "), 1<<20))
	_ = z.Close()
	tests := map[string]string{
		"redirect": r.docs.put(1, "/redirect", func(w http.ResponseWriter, q *http.Request) { http.Redirect(w, q, good, http.StatusFound) }),
		"html":     r.docs.put(1, "/html", body("text/html", `{}`)),
		"large":    r.docs.put(2, "/large", body("application/json", `{"client_id":"`+strings.Repeat("a", 6<<20)+`"}`)),
		"gzip": r.docs.put(2, "/gzip", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			body("application/json", zipped.String())(w, nil)
		}),
		"206": r.docs.put(3, "/206", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusPartialContent)
		}),
		"another id":          r.docs.document(3, "/other.json", map[string]any{"client_id": good + "/"}),
		"a secret":            r.docs.document(4, "/secret.json", map[string]any{"client_secret": "x"}),
		"client_secret_basic": r.docs.document(4, "/basic.json", map[string]any{"token_endpoint_auth_method": "client_secret_basic"}),
		"no redirects":        r.docs.document(5, "/none.json", map[string]any{"redirect_uris": []string{}}),
		"an array":            r.docs.put(5, "/array", body("application/json", `[]`)),
		"id twice":            r.docs.put(6, "/twice", body("application/json", `{"client_id":"`+good+`","client_id":"x","redirect_uris":["https://app.test/cb"]}`)),
	}
	n := 0
	for name, id := range tests {
		n++
		address := fmt.Sprintf("203.0.113.%d", 100+n)
		if got := r.authorizeDocument(t, id, address, nil); !isPage400(got) {
			t.Errorf("%s: %d %s %.300s", name, got.Status, got.Header.Get("Location"), got.Body)
		}
		again := r.authorizeDocument(t, id, address, nil)
		if again.Status != http.StatusServiceUnavailable || again.Header.Get("Retry-After") == "" {
			t.Errorf("%s, at once again: %d", name, again.Status)
		}
		u, _ := url.Parse(id)
		if v := r.docs.visited(u.Path); v != 1 {
			t.Errorf("%s was fetched %d times", name, v)
		}
	}
	if v := r.docs.visited("/good.json"); v != 1 {
		t.Errorf("the honest document was fetched %d times: a redirect was followed", v)
	}
	slow := r.docs.put(7, "/slow", func(w http.ResponseWriter, q *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		for q.Context().Err() == nil {
			if _, err := io.WriteString(w, " "); err != nil {
				return
			}
			_ = http.NewResponseController(w).Flush()
			select {
			case <-q.Context().Done():
			case <-time.After(time.Second):
			}
		}
	})
	began := time.Now()
	if got := r.authorizeDocument(t, slow, "203.0.113.150", nil); !isPage400(got) {
		t.Errorf("a byte a second: %d", got.Status)
	}
	if d := time.Since(began); d > 15*time.Second {
		t.Errorf("a byte a second held the request for %v", d)
	}
}

// TestA024_documentFloods: neither one host nor one address makes us fetch without end.
func TestA024_documentFloods(t *testing.T) {
	r := theRealm(t)
	count := func(next func(i int) (id, address string)) (fetched, slow int) {
		for i := range 40 {
			id, address := next(i)
			got := r.authorizeDocument(t, id, address, nil)
			switch {
			case got.Status == http.StatusTooManyRequests && got.Header.Get("Retry-After") != "":
				slow++
			case isPage400(got):
				fetched++
			default:
				t.Fatalf("%d %s", got.Status, got.Body)
			}
		}
		return fetched, slow
	}
	f, slow := count(func(i int) (string, string) {
		return fmt.Sprintf("%s/flood/%d.json", r.docs.origins[8], i), fmt.Sprintf("192.0.2.%d", i)
	})
	if f > 10 || slow < 30 {
		t.Errorf("one host: %d fetched, %d slowed", f, slow)
	}
	f, slow = count(func(i int) (string, string) {
		return fmt.Sprintf("https://a%d.victim.localhost/c.json", i), "192.0.2.200"
	})
	if f > 10 || slow < 30 {
		t.Errorf("one address: %d fetched, %d slowed", f, slow)
	}
	f, slow = count(func(i int) (string, string) {
		return fmt.Sprintf("https://b%d.victim.localhost/c.json", i), fmt.Sprintf("2001:db8:1:2::%x", i+1)
	})
	if f > 10 || slow < 30 {
		t.Errorf("one IPv6 network: %d fetched, %d slowed", f, slow)
	}
}

// TestA025_redirects: an address to send people back to is compared byte for byte.
func TestA025_redirects(t *testing.T) {
	r := theRealm(t)
	r.oracles(t)
	id := r.docs.document(0, "/redirects.json", map[string]any{"redirect_uris": []string{"https://app.test/cb", "http://127.0.0.1:4711/cb"}})
	for _, uri := range []string{"https://app.test/cb/../x", "https://APP.test/cb", "https://app.test/cb?x=1", "https://app.test/cb#f", "https://app.test/cb#", "https://app.test@evil.test/cb", "https://app.test/cb%2f..",
		"https://app.test/cb/", "http://app.test/cb", "https://app.test:443/cb", "https://app.test./cb", " https://app.test/cb", "https://app.test/cb\n", "https://evil.test/cb", "javascript:alert(1)",
		"http://127.0.0.1:4711/cb/../x", "http://127.0.0.1:4711/cb?x=1", "http://127.0.0.1:4711/cb#f", "http://127.0.0.1:4711/cb/", "http://127.0.0.1:4711@evil.test/cb", "https://127.0.0.1:4711/cb",
		"http://127.0.0.1:4711/c%62", "http://localhost:4711/cb", "http://127.0.0.2:4711/cb", "http://127.0.0.1:4711\\@evil.test/cb", "http://[::1]:4711/cb"} {
		if got := r.authorizeDocument(t, id, "203.0.113.160", map[string]string{"redirect_uri": uri}); !isPage400(got) {
			t.Errorf("%q: %d %s", uri, got.Status, got.Header.Get("Location"))
		}
	}
	if got := r.authorizeDocument(t, id, "203.0.113.160", map[string]string{"redirect_uri": "http://127.0.0.1:9999/cb"}); got.Status != http.StatusSeeOther {
		t.Errorf("loopback may have another port: %d", got.Status)
	}
	if got := r.authorizeDocument(t, id, "203.0.113.160", map[string]string{"redirect_uri": ""}); !isPage400(got) {
		t.Errorf("none, of two: %d", got.Status)
	}
	at := r.Desk().Public + "/authorize?client_id=" + url.QueryEscape(id) + "&client_id=x&redirect_uri=https://app.test/cb"
	if got := send(t, http.MethodGet, at, "", from("203.0.113.160")...); !isPage400(got) {
		t.Errorf("client_id twice: %d", got.Status)
	}
}

// TestA025_errorsLeadNowhere: a link to us does not lead to where a stranger's document says, before anybody has said yes; an error is a
// page then. To the person's own machine it goes back, as the client there waits for it.
func TestA025_errorsLeadNowhere(t *testing.T) {
	r := theRealm(t)
	r.oracles(t)
	id := r.docs.document(0, "/leads.json", map[string]any{"redirect_uris": []string{"https://app.test/cb", "http://127.0.0.1:4711/cb"}})
	for name, change := range map[string]map[string]string{"token": {"response_type": "token"}, "no proof": {"code_challenge": ""}, "form_post": {"response_mode": "form_post"}, "another resource": {"resource": "https://app.test/"}, "scope": {"scope": "\""}} {
		if got := r.authorizeDocument(t, id, "203.0.113.161", change); !isPage400(got) {
			t.Errorf("%s: %d %s", name, got.Status, got.Header.Get("Location"))
		}
		change["redirect_uri"] = "http://127.0.0.1:4711/cb"
		if got := r.authorizeDocument(t, id, "203.0.113.161", change); got.Status != http.StatusFound || !strings.HasPrefix(got.Header.Get("Location"), "http://127.0.0.1:4711/cb?error=") {
			t.Errorf("%s, to this machine: %d %s", name, got.Status, got.Header.Get("Location"))
		}
	}
}

// TestA026_redirectsThatNobodyMayHave, by either way of registering.
func TestA026_redirectsThatNobodyMayHave(t *testing.T) {
	r := theRealm(t)
	for i, uri := range []string{"javascript:alert(1)", "data:text/html,<script>", "file:///etc/passwd", "http://public.test/cb", "https://127.0.0.1:99/cb", "https://localhost/cb", "http://localhost.evil.test/cb", "com.app:/cb",
		"cursor://anysphere.cursor-mcp/oauth/callback/", "cursor://anysphere.cursor-mcp/oauth/callback?x", "vscode://x", "http://127.0.0.1@evil.test/cb", "http://127.0.0.1:1/a/../b", "https://user@app.test/cb", "https://app.test/cb#f", "//app.test/cb", "", "https://\u0430pp.test/cb", "https://app\u3002test/cb", "https://LocalHost/cb"} {
		got := send(t, http.MethodPost, r.Desk().Public+"/register", fmt.Sprintf(`{"client_name":"x","redirect_uris":[%q]}`, uri), append(from("203.0.113.170"), "Content-Type", "application/json")...)
		if got.Status != http.StatusBadRequest || !strings.Contains(got.Body, "invalid_redirect_uri") {
			t.Errorf("registered %q: %d %s", uri, got.Status, got.Body)
		}
		path := fmt.Sprintf("/redirect%d.json", i)
		id := r.docs.document(i%8, path, map[string]any{"redirect_uris": []string{"https://app.test/cb", uri}})
		if got := r.authorizeDocument(t, id, fmt.Sprintf("203.0.114.%d", i), nil); !isPage400(got) {
			t.Errorf("a document with %q: %d", uri, got.Status)
		}
	}
}

// TestA027_consentIsForOneClient: whoever else was let in, each is asked for, by name and host, and only a click gives a code.
func TestA027_consentIsForOneClient(t *testing.T) {
	r := theRealm(t)
	r.oracles(t)
	alice := r.person("alice", later)
	good := r.app(t, "", "good-agent")
	good.signedIn(t, alice)
	stops := r.stops("alice")
	open(t, stops, r.Desk().Public+"/portal/")
	evil := r.app(t, "", "evil-agent")
	for name, a := range map[string]*app{"evil-agent": evil, "good-agent, again": good} {
		r.back.take()
		shown := open(t, stops, a.authorizeURL(nil))
		if shown.Status != http.StatusOK || r.back.take().Get("code") != "" {
			t.Fatalf("%s: a code without a click: %d", name, shown.Status)
		}
		for _, want := range []string{strings.TrimSuffix(name, ", again"), "127.0.0.1", "unverified", "modern", "alice"} {
			if !strings.Contains(shown.Text()+shown.Title, want) && !strings.Contains(strings.ToLower(shown.Text()), want) {
				t.Errorf("%s: the page does not say %q: %s", name, want, shown.Text())
			}
		}
	}
	// The page of one client is no yes for another, nor for another person or browser.
	shown := open(t, stops, evil.authorizeURL(nil))
	ticket := shown.Forms[0].Fields[0].Value
	bob := r.stops("bob")
	open(t, bob, r.Desk().Public+"/portal/")
	for name, got := range map[string]answer{
		"bob's browser":      r.form(t, bob, "/authorize", url.Values{"ticket": {ticket}, "decision": {"allow"}}),
		"a tampered ticket":  r.form(t, stops, "/authorize", url.Values{"ticket": {ticket[:len(ticket)-2] + "AA"}, "decision": {"allow"}}),
		"no ticket":          r.form(t, stops, "/authorize", url.Values{"decision": {"allow"}}),
		"another site":       r.form(t, stops, "/authorize", url.Values{"ticket": {ticket}, "decision": {"allow"}}, "Content-Type", "application/x-www-form-urlencoded", "Origin", "https://evil.test", "Sec-Fetch-Site", "cross-site"),
		"a sibling":          r.form(t, stops, "/authorize", url.Values{"ticket": {ticket}, "decision": {"allow"}}, "Content-Type", "application/x-www-form-urlencoded", "Sec-Fetch-Site", "same-site"),
		"at another tenant":  r.form(t, stops, "/t/acme/authorize", url.Values{"ticket": {ticket}, "decision": {"allow"}}),
		"nobody's browser":   r.form(t, world.NewPerson(), "/authorize", url.Values{"ticket": {ticket}, "decision": {"allow"}}),
		"a click that is no": r.form(t, stops, "/authorize", url.Values{"ticket": {ticket}, "decision": {"Allow"}}),
	} {
		if strings.Contains(got.Body, "code=") || strings.Contains(got.Header.Get("Location"), "code=") || name != "a click that is no" && got.Status != http.StatusForbidden {
			t.Errorf("%s: %d %s", name, got.Status, got.Body)
		}
	}
}

// TestA028A181_theBrowserThatAsked: a sign-in that was begun in one browser ends in no other, and its ids open nothing.
func TestA028A181_theBrowserThatAsked(t *testing.T) {
	r := theRealm(t)
	r.oracles(t)
	evil := r.app(t, "", "evil-agent")
	mallory := world.NewPerson("Allow") // has no account at the IdP here: stops there
	open(t, mallory, evil.authorizeURL(nil))
	link := ""
	for _, v := range mallory.History() {
		if strings.HasPrefix(v.URL, r.IdP.URL()+"/authorize?") {
			link = v.URL
		}
	}
	if link == "" {
		t.Fatalf("did not get to the IdP: %s", mallory.Page().Text())
	}
	alice := r.person("alice", "Allow", later)
	r.back.take()
	if shown := open(t, alice, link); shown.Status != http.StatusForbidden {
		t.Errorf("alice finished mallory's sign-in: %d %s", shown.Status, shown.Text())
	}
	if q := r.back.take(); q != nil {
		t.Errorf("something came back to mallory's app: %v", q)
	}
	if shown := open(t, mallory, r.Desk().Public+"/portal/"); strings.Contains(shown.Text(), "alice") {
		t.Error("mallory's browser is signed in as alice")
	}
	// What the door and the end of the visit carry in their addresses is worth nothing elsewhere.
	connects := r.person("heidi", "Allow")
	open(t, connects, evil.authorizeURL(nil))
	door := ""
	for _, v := range connects.History() {
		if strings.Contains(v.URL, "/door?") {
			door = v.URL
		}
	}
	if door == "" {
		t.Fatalf("there was no door: %s", connects.Page().Text())
	}
	u, _ := url.Parse(door)
	finish := r.Desk().Public + u.Query().Get("return")
	for name, p := range map[string]*world.Person{"mallory's": mallory, "bob's": r.person("bob")} {
		for range 3 {
			r.back.take()
			if shown := open(t, p, finish); shown.Status == http.StatusOK && strings.Contains(shown.URL.Path, "finish") || r.back.take() != nil {
				t.Errorf("%s browser finished alice's visit: %d", name, shown.Status)
			}
		}
	}
}

// TestA029_changedDocument: who changed since the person said yes is asked for again, and the page says what changed.
func TestA029_changedDocument(t *testing.T) {
	r := theRealm(t)
	r.oracles(t)
	now := map[string]any{"client_name": "Helper", "redirect_uris": []string{r.back.URL + "/cb"}}
	id := r.docs.put(6, "/changing.json", func(w http.ResponseWriter, _ *http.Request) { reply(w, now) })
	now["client_id"] = id
	a := r.app(t, "", "x")
	a.id = id
	alice := r.person("alice", later)
	first := open(t, r.stops("alice"), a.authorizeURL(nil))
	if strings.Contains(first.Text(), "let it in") {
		t.Errorf("said yes before: %s", first.Text())
	}
	k := a.signedIn(t, alice)
	if again := open(t, r.stops("alice"), a.authorizeURL(nil)); !strings.Contains(again.Text(), "nothing of it has changed") {
		t.Errorf("unchanged: %s", again.Text())
	}
	// The document is remembered for some minutes: a start anew forgets it, as time would.
	now["client_name"], now["redirect_uris"] = "Helper <b>2</b>", []string{r.back.URL + "/cb", "https://evil.test/cb"}
	if err := r.Desk().Stop(); err != nil {
		t.Fatal(err)
	}
	if err := r.Desk().Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	changed := open(t, r.stops("alice"), a.authorizeURL(nil))
	if !strings.Contains(changed.Text(), "it was “Helper”") || !strings.Contains(changed.Text(), "addresses that it is registered with") || strings.Contains(string(changed.Body), "<b>") {
		t.Errorf("changed: %s", changed.Text())
	}
	moved := open(t, r.stops("alice"), a.authorizeURL(map[string]string{"redirect_uri": "https://evil.test/cb"}))
	if !strings.Contains(moved.Text(), "it was 127.0.0.1") || !strings.Contains(moved.Text(), "evil.test") {
		t.Errorf("moved: %s", moved.Text())
	}
	// A document that is none any more ends what it got.
	delete(now, "redirect_uris")
	if err := r.Desk().Stop(); err != nil {
		t.Fatal(err)
	}
	if err := r.Desk().Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if k := a.refresh(t, k.Refresh); k.Error != "invalid_client" {
		t.Errorf("a client that is gone refreshes: %+v", k)
	}
}

// TestA030_names: what a client says of itself is text, short, and not what the page shows first.
func TestA030_names(t *testing.T) {
	r := theRealm(t)
	alice := r.stops("alice")
	for name, says := range map[string]string{"markup": `<img src=x onerror=alert(1)>`, "direction": "abc\u202etxt.exe\u2066", "length": strings.Repeat("A", 10<<10), "a lie": "Frontdesk Security Check", "template": "{{7*7}}", "controls": "a\x1b[31mb\u200bc\U000E0041"} {
		id := r.docs.document(0, "/name-"+name+".json", map[string]any{"client_name": says, "logo_uri": "https://tracker.test/logo.png", "redirect_uris": []string{r.back.URL + "/cb"}})
		if name != "markup" { // whoever registers says it in the same way, and is not counted as a fetch
			id = r.app(t, "", says).id
		}
		a := &app{r: r, id: id, redirect: r.back.URL + "/cb", resource: r.Desk().MCP("modern"), check: strings.Repeat("c", 43)}
		shown := open(t, alice, a.authorizeURL(nil))
		body := string(shown.Body)
		for _, bad := range []string{"<img", "\u202e", "\u2066", "\u200b", "\x1b", "\U000E0041", strings.Repeat("A", 65), "tracker.test", "<script"} {
			if strings.Contains(body, bad) {
				t.Errorf("%s: the page holds %q", name, bad)
			}
		}
		if shown.Status != http.StatusOK || !strings.Contains(body, `<p class="host">127.0.0.1</p>`) {
			t.Errorf("%s: %d, the host is not what stands out", name, shown.Status)
		}
	}
}

// TestA030_longHosts: a document's host is shown by its end, whatever stands before that.
func TestA030_longHosts(t *testing.T) {
	r := theRealm(t)
	r.oracles(t)
	long := "claude.ai." + strings.Repeat("sign-in.", 12) + "evil.test"
	id := r.docs.document(3, "/long.json", map[string]any{"redirect_uris": []string{"https://" + long + "/cb"}})
	a := &app{r: r, id: id, redirect: "https://" + long + "/cb", resource: r.Desk().MCP("modern"), check: strings.Repeat("c", 43)}
	shown := open(t, r.stops("alice"), a.authorizeURL(nil)).Text()
	if !strings.Contains(shown, "sign-in.evil.test") || strings.Contains(shown, "claude.ai") {
		t.Errorf("consent shows %s", shown)
	}
}

// TestA031_registration: what may register, how often, and as what.
func TestA031_registration(t *testing.T) {
	r := theRealm(t)
	register := func(body, address string) answer {
		return send(t, http.MethodPost, r.Desk().Public+"/t/initech/register", body, append(from(address), "Content-Type", "application/json")...)
	}
	const fine = `"redirect_uris":["http://127.0.0.1:1/cb"]`
	for _, chosen := range []string{"chosen", "https://victim.test/c.json"} {
		got := register(`{"client_id":"`+chosen+`",`+fine+`}`, "203.0.113.180")
		if got.Status != http.StatusCreated || strings.Contains(got.Body, chosen) || strings.Contains(got.Body, "client_secret") {
			t.Errorf("a chosen id: %d %s", got.Status, got.Body)
		}
	}
	for name, body := range map[string]string{"confidential": `{` + fine + `,"token_endpoint_auth_method":"client_secret_basic"}`, "keys": `{` + fine + `,"token_endpoint_auth_method":"private_key_jwt"}`,
		"no JSON": `hello`, "twice": `{` + fine + `,` + fine + `}`, "two values": `{` + fine + `}{}`, "case": `{"Redirect_URIs":["http://127.0.0.1:1/cb"]}`, "eleven": `{"redirect_uris":[` + strings.Repeat(`"http://127.0.0.1:1/cb",`, 10) + `"http://127.0.0.1:1/cb"]}`,
		"long": `{"redirect_uris":["http://127.0.0.1:1/` + strings.Repeat("a", 4<<10) + `"]}`} {
		if got := register(body, "203.0.113.181"); got.Status != http.StatusBadRequest || !strings.Contains(got.Body, "invalid_") {
			t.Errorf("%s: %d %s", name, got.Status, got.Body)
		}
	}
	if got := register(`{"redirect_uris":["https://app.test/cb"]}`, "203.0.113.181"); !strings.Contains(got.Body, "clients.redirects") {
		t.Errorf("the refusal does not name the line of the config: %s", got.Body)
	}
	if got := register(`{"client_name":"`+strings.Repeat("a", 200<<10)+`",`+fine+`}`, "203.0.113.181"); got.Status < 400 {
		t.Errorf("200 KiB: %d", got.Status)
	}
	slow := 0
	for i := range 70 {
		if got := register(`{`+fine+`}`, fmt.Sprintf("2001:db8:5:5::%x", i+1)); got.Status == http.StatusTooManyRequests && got.Header.Get("Retry-After") != "" {
			slow++
		}
	}
	if slow < 35 {
		t.Errorf("of 70 registrations from one network %d were slowed", slow)
	}
	// A public client that shows a secret is not the one that registered; and one of another tenant is nobody here.
	a := r.app(t, "", "public")
	form := url.Values{"grant_type": {"authorization_code"}, "client_id": {a.id}, "client_secret": {"x"}, "code": {"x"}}
	if k := a.ask(t, form); k.Status != http.StatusUnauthorized || k.Error != "invalid_client" {
		t.Errorf("a secret of a public client: %+v", k)
	}
	b := *a
	b.prefix = "/t/acme"
	if k := b.refresh(t, "fdr_x.y"); k.Error != "invalid_client" {
		t.Errorf("at another tenant: %+v", k)
	}
}

// TestA032_proof: no code without a challenge, and no token without its verifier.
func TestA032_proof(t *testing.T) {
	r := theRealm(t)
	r.oracles(t)
	a := r.app(t, "", "good-agent")
	for name, change := range map[string]map[string]string{"no challenge": {"code_challenge": ""}, "plain": {"code_challenge_method": "plain"}, "no method": {"code_challenge_method": ""}, "a short challenge": {"code_challenge": "abc"},
		"token": {"response_type": "token"}, "a fragment": {"response_mode": "fragment"}} {
		got := send(t, http.MethodGet, a.authorizeURL(change), "")
		to, _ := url.Parse(got.Header.Get("Location"))
		if to == nil || to.Query().Get("error") == "" || to.Query().Get("code") != "" || to.Query().Get("iss") != r.Desk().Public || !strings.HasPrefix(to.String(), a.redirect) {
			t.Errorf("%s: %d %s", name, got.Status, got.Header.Get("Location"))
		}
	}
	alice := r.person("alice", later)
	for name, verifier := range map[string]string{"none": "", "another": strings.Repeat("v", 43), "42": a.verifier[:42], "129": a.verifier + strings.Repeat("a", 65), "the challenge": a.check} {
		code := a.code(t, alice)
		if k := a.redeem(t, code, map[string]string{"code_verifier": verifier}); k.Error != "invalid_grant" || k.Access != "" {
			t.Errorf("verifier %s: %+v", name, k)
		}
		if k := a.redeem(t, code, nil); k.Access != "" {
			t.Errorf("verifier %s: the code lived on", name)
		}
	}
}

// TestA033_codes: a code is good once, for one client, one redirect and one resource; a second use ends what the first got.
func TestA033_codes(t *testing.T) {
	r := theRealm(t)
	r.oracles(t)
	a, other := r.app(t, "", "good-agent"), r.app(t, "", "evil-agent")
	alice := r.person("alice", later)
	for name, change := range map[string]map[string]string{"another client": {"client_id": other.id}, "another redirect": {"redirect_uri": a.redirect + "/"}, "another resource": {"resource": r.Desk().MCP("issues")},
		"another tenant's resource": {"resource": r.Desk().Public + "/t/acme/mcp/modern"}} {
		code := a.code(t, alice)
		if k := a.redeem(t, code, change); k.Error != "invalid_grant" || k.Access != "" {
			t.Errorf("%s: %+v", name, k)
		}
		if k := a.redeem(t, code, nil); k.Access != "" {
			t.Errorf("%s: the code lived on", name)
		}
	}
	for name, second := range map[string]map[string]string{"itself": nil, "another client": {"client_id": other.id}} {
		code := a.code(t, alice)
		first := a.redeem(t, code, nil)
		if first.Access == "" {
			t.Fatalf("the honest redemption: %+v", first)
		}
		if k := a.redeem(t, code, second); k.Error != "invalid_grant" {
			t.Errorf("by %s, again: %+v", name, k)
		}
		if got := r.call(t, "", "modern", first.Access, callBody("whoami", "{}")); !isU1(got) {
			t.Errorf("by %s: what the first got lives on: %d", name, got.Status)
		}
		if k := a.refresh(t, first.Refresh); k.Error != "invalid_grant" {
			t.Errorf("by %s: the refresh token lives on: %+v", name, k)
		}
	}
	// In parallel: one at most, and since the code was used twice, not even that one for long.
	code := a.code(t, alice)
	all := make([]tokens, 8)
	var wg sync.WaitGroup
	for i := range all {
		wg.Go(func() { all[i] = a.redeem(t, code, nil) })
	}
	wg.Wait()
	won := 0
	for _, k := range all {
		if k.Access != "" {
			won++
			if got := r.call(t, "", "modern", k.Access, callBody("whoami", "{}")); !isU1(got) {
				t.Errorf("a code that was used eight times at once still opens: %d", got.Status)
			}
		}
	}
	if won > 1 {
		t.Errorf("%d of 8 redeemed one code", won)
	}
}

// TestA034_refreshTokens: the token before the current one gets the same successor for some seconds, for its own client; an
// older one ends the sign-in.
func TestA034_refreshTokens(t *testing.T) {
	r := theRealm(t)
	r.oracles(t)
	a, other := r.app(t, "", "good-agent"), r.app(t, "", "evil-agent")
	first := a.signedIn(t, r.person("alice", later))
	second := a.refresh(t, first.Refresh)
	if again := a.refresh(t, first.Refresh); again.Refresh != second.Refresh || again.Status != http.StatusOK {
		t.Errorf("a lost answer gets another successor: %+v", again)
	}
	stolen := *a
	stolen.id = other.id
	if k := stolen.refresh(t, second.Refresh); k.Error != "invalid_grant" {
		t.Errorf("another client's: %+v", k)
	}
	for name, token := range map[string]string{"cut": second.Refresh[:len(second.Refresh)-3], "changed": second.Refresh[:len(second.Refresh)-1] + "_", "no family": "fdr_nobody.x", "an access token": second.Access} {
		if k := a.refresh(t, token); k.Error != "invalid_grant" {
			t.Errorf("%s: %+v", name, k)
		}
		if name == "cut" || name == "changed" { // of a known family, and never issued: somebody guesses
			first = a.signedIn(t, r.person("alice", later))
			second = a.refresh(t, first.Refresh)
		}
	}
	for _, resource := range []string{r.Desk().MCP("issues"), a.resource + "/", r.Desk().Public + "/t/acme/mcp/modern"} {
		if k := a.ask(t, url.Values{"grant_type": {"refresh_token"}, "client_id": {a.id}, "refresh_token": {second.Refresh}, "resource": {resource}}); k.Error != "invalid_target" || k.Access != "" {
			t.Errorf("for resource %s: %+v", resource, k)
		}
	}
	third := a.ask(t, url.Values{"grant_type": {"refresh_token"}, "client_id": {a.id}, "refresh_token": {second.Refresh}, "resource": {a.resource}})
	if third.Refresh == "" {
		t.Fatalf("the honest refresh: %+v", third)
	}
	if k := a.refresh(t, first.Refresh); k.Error != "invalid_grant" {
		t.Errorf("the token before the last one: %+v", k)
	}
	if k := a.refresh(t, third.Refresh); k.Error != "invalid_grant" {
		t.Errorf("the family lives on: %+v", k)
	}
	if got := r.call(t, "", "modern", third.Access, callBody("whoami", "{}")); !isU1(got) {
		t.Errorf("the family's access token lives on: %d", got.Status)
	}
	if !strings.Contains(r.tail(t, "default"), "sign_in.ended") {
		t.Error("the end of the sign-in is not on record")
	}
}

// TestA035_resources: a token is for one server of this issuer.
func TestA035_resources(t *testing.T) {
	r := theRealm(t)
	a := r.app(t, "/t/acme", "good-agent")
	for name, resource := range map[string]string{"another tenant's": r.Desk().Public + "/t/globex/mcp/modern", "the default tenant's": r.Desk().MCP("modern"), "nobody's": "https://elsewhere.test/mcp", "one that is not": r.Desk().Public + "/t/acme/mcp/none",
		"a slash": a.resource + "/", "a fragment": a.resource + "#x", "a query": a.resource + "?x", "upper case": strings.ToUpper(a.resource)} {
		got := send(t, http.MethodGet, a.authorizeURL(map[string]string{"resource": resource}), "")
		to, _ := url.Parse(got.Header.Get("Location"))
		if to == nil || to.Query().Get("error") != "invalid_target" {
			t.Errorf("%s: %d %s", name, got.Status, got.Header.Get("Location"))
		}
	}
	got := send(t, http.MethodGet, a.authorizeURL(nil)+"&resource="+url.QueryEscape(r.Desk().MCP("modern")), "")
	if to, _ := url.Parse(got.Header.Get("Location")); to.Query().Get("error") != "invalid_target" {
		t.Errorf("two tenants' at once: %s", to)
	}
	// acme has one server: a client of old that names none means that one. The default tenant has several.
	if got := send(t, http.MethodGet, a.authorizeURL(map[string]string{"resource": ""}), ""); got.Status != http.StatusSeeOther {
		t.Errorf("none, where there is one: %d %s", got.Status, got.Header.Get("Location"))
	}
	b := r.app(t, "", "good-agent")
	got = send(t, http.MethodGet, b.authorizeURL(map[string]string{"resource": ""}), "")
	if to, _ := url.Parse(got.Header.Get("Location")); to.Query().Get("error") != "invalid_target" {
		t.Errorf("none, where there are several: %s", to)
	}
}
