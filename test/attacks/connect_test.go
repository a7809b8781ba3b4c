package attacks_test

import (
	"crypto/rand"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"frontdesk.dev/frontdesk/test/world"
)

// TestA048A049_somebodyElsesLink: whoever holds the link, only the one for whom it was opened may answer it.
func TestA048A049_somebodyElsesLink(t *testing.T) {
	r := theRealm(t)
	r.oracles(t)
	a := r.app(t, "", "bobs-agent")
	bob := r.person("bob", later)
	link := a.link(t, "modern", a.signedIn(t, bob).Access)
	path := strings.TrimPrefix(link, r.Desk().Public)
	signedIn := r.person("alice", "Continue to Tracker")
	open(t, signedIn, r.Desk().Public+"/portal/")
	for name, p := range map[string]*world.Person{"A-048 who is signed in": signedIn, "A-049 who signs in for it": r.person("alice", "Continue to Tracker")} {
		shown := open(t, p, link)
		if shown.Status != http.StatusForbidden || p.Visited(r.Tracker.URL()) || strings.Contains(strings.ToLower(string(shown.Body)), "bob") || strings.Contains(string(shown.Body), "bobs-agent") {
			t.Errorf("%s: %d %s", name, shown.Status, shown.Text())
		}
		for _, act := range []string{"/tracker", "/refuse"} {
			if got := r.form(t, p, path+act, nil); got.Status != http.StatusForbidden {
				t.Errorf("%s posts %s: %d", name, act, got.Status)
			}
		}
		if shown := open(t, p, r.Desk().Public+"/portal/"); !strings.Contains(shown.Text(), "Alice") {
			t.Errorf("%s is not alice any more: %s", name, shown.Text())
		}
	}
	if !strings.Contains(r.tail(t, "default"), "connect.wrong_user") {
		t.Error("the attempt is not on record")
	}
	if shown := open(t, signedIn, r.Desk().Public+"/portal/activity"); !strings.Contains(shown.Text(), "made for somebody else") {
		t.Error("alice does not see it in her history")
	}
	if shown := open(t, bob, link); shown.Status != http.StatusOK {
		t.Errorf("bob's own request is spoiled: %d", shown.Status)
	}
}

// TestA050_halfWay: what bob began and sent on at the vendor's door is not finished in alice's browser.
func TestA050_halfWay(t *testing.T) {
	r := theRealm(t)
	r.oracles(t)
	bob := r.person("bob")
	at := r.leaves(t, bob, "tracker")
	alice := r.person("alice", "Connect Tracker")
	open(t, alice, r.Desk().Public+"/portal/")
	before := len(r.Tracker.Tokens())
	if shown := open(t, alice, at.String()); shown.Status != http.StatusForbidden {
		t.Errorf("alice finished what bob began: %d %s", shown.Status, shown.Text())
	}
	for _, k := range r.Tracker.Tokens()[before:] {
		if k.Kind != "code" {
			t.Errorf("the code was exchanged for a %s", k.Kind)
		}
	}
}

// TestA051A052_ids: the pages say who is meant, and an id is nothing to guess.
func TestA051A052_ids(t *testing.T) {
	r := theRealm(t)
	a := r.app(t, "/t/acme", "agent")
	alice := r.person("alice", later)
	link := a.link(t, "modern", a.signedIn(t, r.person("dave", later)).Access)
	id := link[strings.LastIndex(link, "/")+1:]
	open(t, alice, r.Desk().Public+"/t/acme/portal/")
	open(t, alice, r.Desk().Public+"/portal/")
	made := map[string]string{"another tenant's": id, "another case": swapCase(id), "made up": b64([]byte(rand.Text())[:16]), "short": "x", "long": strings.Repeat("a", 4096), "with a suffix": id + ".css", "with a parameter": id + ";.js"}
	pages := map[string]string{}
	for name, v := range made {
		got := send(t, http.MethodGet, r.Desk().Public+"/connect/"+v, "", "Cookie", cookies(alice, r.Desk().Public))
		if got.Status != http.StatusNotFound {
			t.Errorf("%s: %d", name, got.Status)
		}
		got.Header.Del("Date")
		all, err := json.Marshal(got)
		if err != nil {
			t.Fatal(err)
		}
		pages[string(all)] = name
	}
	if len(pages) != 1 {
		t.Errorf("what is not there looks in %d ways: %v", len(pages), pages)
	}
	if len(id) < 22 {
		t.Errorf("the id %q has less than 128 bits", id)
	}
	own := r.person("dave")
	open(t, own, r.Desk().Public+"/t/acme/portal/")
	if got := send(t, http.MethodGet, r.Desk().Public+"/t/acme/connect/"+id, "", "Cookie", cookies(own, r.Desk().Public)); got.Status != http.StatusOK || !strings.Contains(got.Body, "Signed in as") {
		t.Errorf("A-051: the page does not say for whom it is: %d", got.Status)
	}
}

func swapCase(s string) string {
	return strings.Map(func(c rune) rune {
		if c >= 'a' && c <= 'z' {
			return c - 32
		}
		if c >= 'A' && c <= 'Z' {
			return c + 32
		}
		return c
	}, s)
}

// TestA053_replays: a request is answered once, and decided again when it is.
func TestA053_replays(t *testing.T) {
	r := theRealm(t)
	r.oracles(t)
	a := r.app(t, "", "agent")
	erin := r.person("erin", later)
	access := a.signedIn(t, erin)
	begin := func(link string) url.Values { // up to the vendor, and not back yet
		got := r.form(t, erin, strings.TrimPrefix(link, r.Desk().Public)+"/evil", nil)
		u, err := url.Parse(between(got.Body, `content="0; url=`, `"`))
		if err != nil || u.Query().Get("state") == "" {
			t.Fatalf("%d %s", got.Status, got.Body)
		}
		return url.Values{"code": {"c"}, "state": {u.Query().Get("state")}, "iss": {r.evil.URL}}
	}
	e := a.at("evil")
	evilAccess := e.signedIn(t, erin)
	refused := e.link(t, "evil", evilAccess.Access)
	q := begin(refused)
	exchanged := r.evil.exchanged.Load()
	if got := r.form(t, erin, strings.TrimPrefix(refused, r.Desk().Public)+"/refuse", nil); got.Status != http.StatusOK {
		t.Fatalf("%d", got.Status)
	}
	if got := r.callback(t, erin, "evil", q); got.Status != http.StatusGone && got.Status != http.StatusForbidden {
		t.Errorf("after a no: %d", got.Status)
	}
	// The policy changes while the person is at the vendor.
	q = begin(e.link(t, "evil", evilAccess.Access))
	line := "  evil: {url: " + r.Modern.MCP() + ", upstreams: [evil], allow: [group:engineering]}"
	r.reconfigured(t, strings.Replace(r.config, line, strings.Replace(line, "engineering", "nobody", 1), 1), nil)
	if got := r.callback(t, erin, "evil", q); got.Status != http.StatusForbidden {
		t.Errorf("after the policy changed: %d %s", got.Status, got.Body)
	}
	r.reconfigured(t, r.config, nil)
	if n := r.evil.exchanged.Load() - exchanged; n != 0 {
		t.Errorf("%d codes were exchanged", n)
	}
	link := e.link(t, "evil", evilAccess.Access)
	q = begin(link)
	if got := r.callback(t, erin, "evil", q); got.Status != http.StatusSeeOther {
		t.Fatalf("the honest answer: %d %s", got.Status, got.Body)
	}
	if got := r.callback(t, erin, "evil", q); got.Status != http.StatusForbidden {
		t.Errorf("the same answer again: %d", got.Status)
	}
	if shown := open(t, erin, link); shown.Status != http.StatusGone {
		t.Errorf("an answered request: %d", shown.Status)
	}
	if got := r.form(t, erin, strings.TrimPrefix(link, r.Desk().Public)+"/evil", nil); got.Status != http.StatusGone {
		t.Errorf("an answered request is begun again: %d", got.Status)
	}
	_ = access
}

// TestA054_fatigue: an agent gets one open request for one thing, and not many in all; the page's words are ours.
func TestA054_fatigue(t *testing.T) {
	r := theRealm(t)
	r.oracles(t)
	a := r.app(t, "", "evil <b>agent</b>")
	p := r.person("frank", later)
	access := a.signedIn(t, p).Access
	var links []string
	for range 30 {
		links = append(links, a.link(t, "modern", access))
	}
	slices.Sort(links)
	if l := slices.Compact(links); len(l) != 1 {
		t.Errorf("30 calls opened %d requests", len(l))
	}
	shown := open(t, p, links[0])
	if !strings.Contains(string(shown.Body), `<span class="foreign">evil &lt;b&gt;agent`) {
		t.Errorf("what the agent says is not set apart: %s", shown.Body)
	}
	got := r.call(t, "", "modern", access, strings.Replace(callBody("whoami", "{}"), `"clientCapabilities":{}`, `"clientCapabilities":{},"io.modelcontextprotocol/clientInfo":{"name":"URGENT: your account is locked","version":"1"}`, 1))
	if l := linkOf.FindString(got.Body); l != "" {
		if shown := open(t, p, l); strings.Contains(shown.Title+" "+between(string(shown.Body), "<h1>", "</h1>"), "URGENT") {
			t.Error("the agent's words are the page's title")
		}
	}
}

// TestA055_pastedKeys: what is no key of this vendor is not sent anywhere, and never shown again.
func TestA055_pastedKeys(t *testing.T) {
	r := theRealm(t)
	r.oracles(t)
	p := r.person("alice")
	open(t, p, r.Desk().Public+"/portal/")
	paste := func(key string) answer {
		got := r.form(t, p, "/portal/connect/keyed", nil)
		state := between(got.Body, `name="state" value="`, `"`)
		if state == "" {
			t.Fatalf("%d %s", got.Status, got.Body)
		}
		return r.form(t, p, "/portal/key", url.Values{"state": {state}, "key": {key}})
	}
	before := r.calls()
	for name, key := range map[string]string{"another vendor's": "evl_0123456789abcdef0123", "CRLF": "trk_0123456789abcdef\r\nX-Evil: 1", "a space": "trk_0123456789 abcdef", "empty": "", "a URL": "https://evil.test/key", "long": "trk_" + strings.Repeat("a", 8<<10),
		"1 MiB": strings.Repeat("a", 1<<20), "not ASCII": "trk_0123456789abcdefé", "NUL": "trk_0123456789abcdef\x00"} {
		got := paste(key)
		if got.Status < 400 || key != "" && strings.Contains(got.Body, key) {
			t.Errorf("%s: %d", name, got.Status)
		}
	}
	if r.calls() != before {
		t.Error("a key that is none was sent to the vendor")
	}
	if got := paste("trk_00000000000000000000"); got.Status != http.StatusBadRequest || strings.Contains(got.Body, "trk_0000") {
		t.Errorf("a key that the vendor refuses: %d %s", got.Status, got.Body)
	}
	key := r.Tracker.NewAPIKey("octo-alice", world.ScopeRead)
	if got := paste(key); got.Status != http.StatusSeeOther || strings.Contains(got.Body+got.Header.Get("Location"), key) {
		t.Errorf("the honest key: %d", got.Status)
	}
	if shown := open(t, p, r.Desk().Public+"/portal/"); strings.Contains(string(shown.Body), key) {
		t.Error("the portal shows the key")
	}
	if strings.Contains(r.Desk().Log(), key) {
		t.Error("the log shows the key")
	}
}

func (r *realm) calls() int { return len(r.Tracker.Calls()) }

// TestA057_resumed: a call that waited for its person is decided from the start.
func TestA057_resumed(t *testing.T) {
	r := theRealm(t)
	r.oracles(t)
	a := r.app(t, "", "agent")
	p := r.person("grace", later)
	k := a.signedIn(t, p)
	asks := strings.Replace(callBody("whoami", "{}"), `"io.modelcontextprotocol/clientCapabilities":{}`, `"io.modelcontextprotocol/clientCapabilities":{"elicitation":{"url":{}}}`, 1)
	got := r.call(t, "", "modern", k.Access, asks)
	var m struct {
		Result struct {
			Type  string `json:"resultType"`
			State string `json:"requestState"`
			Input map[string]json.RawMessage
		}
	}
	if err := json.Unmarshal([]byte(got.Body), &m); err != nil || m.Result.State == "" {
		t.Fatalf("%d %s", got.Status, got.Body)
	}
	retry := func(state, tool string) string {
		responses := map[string]any{}
		var raw struct {
			Result struct {
				Requests map[string]any `json:"inputRequests"`
			} `json:"result"`
		}
		_ = json.Unmarshal([]byte(got.Body), &raw)
		for key := range raw.Result.Requests {
			responses[key] = map[string]any{"action": "accept"}
		}
		b, _ := json.Marshal(responses)
		s, _ := json.Marshal(state)
		return strings.Replace(strings.Replace(asks, `"arguments":{}`, `"arguments":{},"requestState":`+string(s)+`,"inputResponses":`+string(b), 1), `"whoami"`, `"`+tool+`"`, 1)
	}
	// The state is this person's, this client's, for this call.
	other := r.app(t, "", "other").signedIn(t, r.person("alice", later))
	for name, resp := range map[string]answer{
		"another person's":  r.call(t, "", "modern", other.Access, retry(m.Result.State, "whoami")),
		"a tampered state":  r.call(t, "", "modern", k.Access, retry(m.Result.State[:len(m.Result.State)-2]+"AA", "whoami")),
		"for another tool":  r.call(t, "", "modern", k.Access, retry(m.Result.State, "delete_issue"), "Mcp-Name", "delete_issue"),
		"at another server": r.call(t, "", "checked", a.at("checked").signedIn(t, p).Access, retry(m.Result.State, "whoami")),
	} {
		if strings.Contains(resp.Body, "octo-") && !strings.Contains(resp.Body, "/connect/") {
			t.Errorf("%s: %d %s", name, resp.Status, resp.Body)
		}
	}
	// The person connects, and access ends before the retry.
	if err := r.person("grace", "Continue to Tracker").Open(t.Context(), linkOf.FindString(got.Body)); err != nil {
		t.Fatal(err)
	}
	before := r.calls()
	send(t, http.MethodPost, r.Desk().Public+"/revoke", url.Values{"client_id": {a.id}, "token": {k.Refresh}}.Encode(), "Content-Type", "application/x-www-form-urlencoded")
	if resp := r.call(t, "", "modern", k.Access, retry(m.Result.State, "whoami")); !isU1(resp) {
		t.Errorf("the retry of a sign-in that ended: %d %s", resp.Status, resp.Body)
	}
	if r.calls() != before {
		t.Error("the call went on")
	}
}
