package attacks_test

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// connected gives alice's access token at the default tenant's servers, for an app of its own, with the tracker connected.
func (r *realm) connected(t *testing.T, server string) (*app, tokens) {
	t.Helper()
	a := r.app(t, "", "good-agent").at(server)
	k := a.signedIn(t, r.person("alice", "Connect Tracker", "Done"))
	if got := r.call(t, "", server, k.Access, callBody("whoami", "{}")); !strings.Contains(got.Body, "octo-alice") {
		t.Fatalf("alice is not connected: %d %s", got.Status, got.Body)
	}
	return a, k
}

// TestA058_headers: what looks like a credential is refused, and nothing else of a client's headers gets to a server.
func TestA058_headers(t *testing.T) {
	r := theRealm(t)
	r.oracles(t)
	_, k := r.connected(t, "modern")
	for name, value := range map[string]string{"X-Api-Key": "abc", "X-GitHub-Token": "abc", "Cookie": "a=b", "X-Anything": "trk_0123456789abcdef0123", "Private-Token": "x", "Proxy-Authorization": "Basic eA==", "X-Forwarded-Access-Token": "x",
		"Txn-Token": "forged", "X_Api_Key": "abc", "Authorization_X": "Bearer trk_0123456789abcdef0123", "x_forwarded_access_token": "x", "Proxy_Authorization": "Basic eA=="} {
		if got := r.call(t, "", "modern", k.Access, callBody("whoami", "{}"), name, value); got.Status != http.StatusBadRequest || !strings.Contains(got.Body, "credential") || strings.Contains(got.Body, value) {
			t.Errorf("%s: %d %s", name, got.Status, got.Body)
		}
	}
	if got := r.call(t, "", "modern", k.Access, callBody("whoami", "{}"), "X-Api-Key", "", "X-Api-Key", "abc"); got.Status != http.StatusBadRequest {
		t.Errorf("a key behind an empty one: %d %s", got.Status, got.Body)
	}
	before := len(r.Modern.Recorder.Entries())
	got := r.call(t, "", "modern", k.Access, callBody("whoami", "{}"), "X_Forwarded_User", "alice", "Mcp-Init-Host", "evil-host", "X-Frontdesk-Call", "forged-call", "X-Real-Ip", "forged-address", "Authorization_", "forged-authorization",
		"Forwarded", "for=forged-for", "Baggage", "forged-baggage", "Mcp-Session-Id", "forged-session", "X-Mcp-Server", "forged-server")
	if got.Status != http.StatusOK && got.Status != http.StatusBadRequest {
		t.Errorf("%d %s", got.Status, got.Body)
	}
	for _, e := range r.Modern.Recorder.Entries()[before:] {
		for _, bad := range []string{"X_forwarded_user", "evil-host", "forged"} {
			if strings.Contains(fmt.Sprint(e.Header), bad) {
				t.Errorf("the server got %q: %v", bad, e.Header)
			}
		}
	}
}

// TestA059_hopByHop: naming headers in Connection takes nothing off what Frontdesk adds.
func TestA059_hopByHop(t *testing.T) {
	r := theRealm(t)
	_, k := r.connected(t, "modern")
	for _, value := range []string{"close, Authorization, Txn-Token, X-Frontdesk-Call", "TE, Authorization", "keep-alive, Mcp-Method, Mcp-Name, Mcp-Protocol-Version, Content-Type, Host"} {
		before := r.calls()
		got := r.call(t, "", "modern", k.Access, callBody("whoami", "{}"), "Connection", value)
		if got.Status != http.StatusOK || !strings.Contains(got.Body, "octo-alice") || r.calls() == before {
			t.Errorf("Connection: %s: %d %s", value, got.Status, got.Body)
		}
	}
}

// TestA060A061_arguments: a credential in a message is refused by place, not repeated; the agent's own token gets nowhere.
func TestA060A061_arguments(t *testing.T) {
	r := theRealm(t)
	r.oracles(t)
	_, k := r.connected(t, "checked")
	const key = "trk_0123456789abcdef0123"
	before := r.Modern.Count("/mcp")
	for name, c := range map[string]struct{ args, at string }{
		"a header":          {`{"headers":{"Authorization":"Bearer ` + key + `"}}`, "/params/arguments/headers/Authorization"},
		"a token":           {`{"token":"` + key + `"}`, "/params/arguments/token"},
		"base64":            {`{"a":["x","` + base64.StdEncoding.EncodeToString([]byte(key+"?>")) + `"]}`, "/params/arguments/a/1"},
		"base64url":         {`{"a":"` + base64.RawURLEncoding.EncodeToString([]byte(key+"?>")) + `"}`, "/params/arguments/a"},
		"escaped":           {`{"a":"` + strings.Replace(key, "t", `\u0074`, 1) + `"}`, "/params/arguments/a"},
		"a name":            {`{"` + key + `":1}`, "/params/arguments/"},
		"A-061 its token":   {`{"a":"` + k.Access + `"}`, "/params/arguments/a"},
		"A-061 as Bearer":   {`{"a":{"b~c/d":"Bearer ` + k.Access + `"}}`, "/params/arguments/a/b~0c~1d"},
		"A-061 in a longer": {`{"a":"curl -H 'Authorization: Bearer ` + k.Access + `'"}`, "/params/arguments/a"},
	} {
		got := r.call(t, "", "checked", k.Access, callBody("whoami", c.args))
		if got.Status != http.StatusBadRequest || !strings.Contains(got.Body, "-32602") || !strings.Contains(got.Body, c.at) || name != "a name" && strings.Contains(got.Body, key) || strings.Contains(got.Body, k.Access) {
			t.Errorf("%s: %d %s", name, got.Status, got.Body)
		}
	}
	a, plain := r.connected(t, "modern")
	for name, body := range map[string]string{
		"in an argument": callBody("whoami", `{"a":"`+plain.Access+`"}`),
		"in _meta":       strings.Replace(callBody("whoami", "{}"), `"_meta":{`, `"_meta":{"token":"`+plain.Access+`",`, 1),
	} {
		if got := a.r.call(t, "", "modern", plain.Access, body); got.Status != http.StatusBadRequest || !strings.Contains(got.Body, "-32602") {
			t.Errorf("A-061 %s, at a server that checks nothing else: %d %s", name, got.Status, got.Body)
		}
	}
	if r.Modern.Count("/mcp") != before+1 { // the honest call of connected
		t.Errorf("refused messages reached the server: %d", r.Modern.Count("/mcp")-before)
	}
	for _, token := range []string{k.Access, plain.Access} {
		if len(r.Modern.Recorder.Search(token)) > 0 || strings.Contains(r.Desk().Log(), token) || strings.Contains(r.tail(t, "default"), token) {
			t.Error("A-061: an inbound token got to the server, the log or the audit log")
		}
	}
	if strings.Contains(r.tail(t, "default"), key) || strings.Contains(r.Desk().Log(), key) {
		t.Error("A-060: the value is in a log")
	}
}

// TestA063_forwarded: what a stranger says of where he came from changes nothing that we say.
func TestA063_forwarded(t *testing.T) {
	s := play(t) // trusts no proxy
	lies := []string{"X-Forwarded-For", "10.0.0.1", "Forwarded", "host=evil.test;proto=https", "X-Forwarded-Host", "evil.test", "X-Forwarded-Proto", "https", "X-Original-URL", "/portal/", "X-Rewrite-URL", "/portal/", "X-Forwarded-Uri", "/healthz", "X-Forwarded-Prefix", "/evil",
		"X-HTTP-Method-Override", "DELETE"}
	for _, path := range []string{"/.well-known/oauth-protected-resource/mcp/modern", "/.well-known/oauth-authorization-server", "/mcp/modern", "/portal/", "/signin"} {
		honest := send(t, http.MethodGet, s.Desk().Public+path, "")
		got := send(t, http.MethodGet, s.Desk().Public+path, "", lies...)
		if got.Status != honest.Status || strings.Contains(got.Body+fmt.Sprint(got.Header), "evil.test") || path != "/signin" && got.Body != honest.Body {
			t.Errorf("%s: %d %s", path, got.Status, got.Body)
		}
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.Desk().Public+"/portal/", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = "evil.test"
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusForbidden && resp.StatusCode != http.StatusMisdirectedRequest {
		t.Errorf("another Host: %d", resp.StatusCode)
	}
}
