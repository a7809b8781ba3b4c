package attacks_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// policed applies a policy file until the test ends.
func (r *realm) policed(t *testing.T, text string) {
	t.Helper()
	r.reconfigured(t, r.config+"policies: [attack.cedar]\n", map[string]string{"attack.cedar": text})
}

// refused reports a no that is no result and starts no sign-in.
func refused(a answer) bool {
	return strings.Contains(a.Body, `"error"`) && !strings.Contains(a.Body, `"result"`) && a.Header.Get("WWW-Authenticate") == ""
}

// TestA117A120_arguments: a policy that cannot be evaluated is a no; what a policy does not name harms nobody.
func TestA117A120_arguments(t *testing.T) {
	r := theRealm(t)
	r.oracles(t)
	_, k := r.connected(t, "modern")
	call := func(args string) answer { return r.call(t, "", "modern", k.Access, callBody("whoami", args)) }
	r.policed(t, `permit(principal, action, resource);
@id("limit") @reason("at most 100") forbid(principal, action == Action::"call", resource in Server::"modern") when { context.args has amount && context.args.amount > 100 };
@id("sum") forbid(principal, action == Action::"call", resource in Server::"modern") when { context.args has n && context.args.n + 1 > 1000 };
`)
	for name, args := range map[string]string{"few": `{"amount":100}`, "a fraction that nobody names": `{"temperature":0.7}`, "a proto": `{"__proto__":{"amount":1000}}`, "nested": `{"a":{"amount":1000}}`, "deep": `{"a":` + strings.Repeat("[", 40) + strings.Repeat("]", 40) + `}`} {
		if got := call(args); refused(got) || !strings.Contains(got.Body, `"result"`) { // the tool itself may say no
			t.Errorf("%s: %d %s", name, got.Status, got.Body)
		}
	}
	before := r.calls()
	for name, args := range map[string]string{"A-117 many": `{"amount":101}`, "A-117 text": `{"amount":"1"}`, "A-117 null": `{"amount":null}`, "A-117 overflow": `{"n":9223372036854775807}`, "A-120 1e400": `{"amount":1e400}`, "A-120 2^63": `{"amount":9223372036854775808}`,
		"A-120 a fraction": `{"amount":0.7}`, "A-120 twice": `{"amount":1,"amount":1000}`, "A-120 another case": `{"Amount":1000}`, "A-120 escaped twice": `{"amount":1,"amoun\u0074":1000}`, "A-120 escaped": `{"amoun\u0074":1000}`, "A-120 an exponent": `{"amount":1e3}`, "A-117 an object": `{"amount":{"__entity":{"type":"User","id":"x"}}}`, "A-117 an array": `{"amount":[1]}`} {
		if got := call(args); !refused(got) || strings.Contains(got.Body, "inside Frontdesk") {
			t.Errorf("%s: %d %s", name, got.Status, got.Body)
		}
	}
	keys := make([]string, 10_000)
	for i := range keys {
		keys[i] = fmt.Sprintf(`"k%d":%d`, i, i)
	}
	if got := call(`{` + strings.Join(keys, ",") + `,"amount":1000}`); !refused(got) {
		t.Errorf("A-120 10,000 keys: %d %.200s", got.Status, got.Body)
	}
	if r.calls() != before {
		t.Error("a refused call reached the API")
	}
	if tail := r.tail(t, "default"); !strings.Contains(tail, "limit") || !strings.Contains(tail, "sum") {
		t.Error("the log does not name the policies that decided, or erred")
	}
}

// TestA117_missingAttribute: a forbid that reads what is not there is a no for everybody, also with a permit beside it.
func TestA117_missingAttribute(t *testing.T) {
	r := theRealm(t)
	_, k := r.connected(t, "modern")
	r.policed(t, `permit(principal, action, resource);
@id("strong") forbid(principal, action == Action::"call", resource in Server::"modern") when { context.session.acr == "weak" };
`)
	before := r.calls()
	if got := r.call(t, "", "modern", k.Access, callBody("whoami", "{}")); !refused(got) || r.calls() != before {
		t.Errorf("%d %s", got.Status, got.Body)
	}
	if !strings.Contains(r.tail(t, "default"), "strong") {
		t.Error("the log does not name the policy that erred")
	}
}

// TestA118_reloads: what cannot be read changes nothing.
func TestA118_reloads(t *testing.T) {
	r := theRealm(t)
	_, k := r.connected(t, "modern")
	r.policed(t, `@id("nobody") forbid(principal, action == Action::"call", resource in Server::"modern");`)
	dir := filepath.Dir(r.Desk().ConfigPath)
	policy := filepath.Join(dir, "attack.cedar")
	refuses := func(name string) {
		t.Helper()
		out, err := r.Desk().Run("reload")
		if err == nil || !strings.Contains(out, "the old one goes on") {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
		if got := r.call(t, "", "modern", k.Access, callBody("whoami", "{}")); !refused(got) {
			t.Errorf("%s: the last good policy does not hold: %d %s", name, got.Status, got.Body)
		}
	}
	for name, text := range map[string]string{"half a policy": `forbid(principal, act`, "an unknown attribute": `permit(principal, action, resource) when { context.nothing == 1 };`, "not text": "\x00\xff", "an unknown type": `permit(principal == Robot::"x", action, resource);`} {
		if err := os.WriteFile(policy, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		refuses(name)
	}
	if err := os.Remove(policy); err != nil {
		t.Fatal(err)
	}
	refuses("no file")
	if err := os.WriteFile(policy, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	r.reconfigured(t, strings.Replace(r.config, "modern: {url: "+r.Modern.MCP()+", upstreams: [tracker], allow: [group:engineering]}", "modern: {url: "+r.Modern.MCP()+", upstreams: [tracker]}", 1)+"policies: [attack.cedar]\n", nil)
	if got := r.call(t, "", "modern", k.Access, callBody("whoami", "{}")); got.Status != http.StatusNotFound {
		t.Errorf("no policy at all: %d %s", got.Status, got.Body)
	}
}

// TestA119_groups: a group is its issuer's, letter for letter; who is in none sees nothing.
func TestA119_groups(t *testing.T) {
	r := theRealm(t)
	never := r.call(t, "/t/globex", "nothing", r.globex.access(nil), callBody("whoami", "{}"))
	for name, groups := range map[string]any{"another case": []string{"Engineering"}, "a space": []string{"engineering "}, "a part": []string{"engineerin"}, "joined": []string{"x,engineering"}, "none": []string{}, "a newline": []string{"engineering\n"}} {
		token := r.globex.access(map[string]any{"sub": "emp-grouped", "groups": groups})
		got := r.call(t, "/t/globex", "modern", token, callBody("whoami", "{}"))
		if got.Status != http.StatusNotFound || got.Body != never.Body || fmt.Sprint(sorted(got.Header)) != fmt.Sprint(sorted(never.Header)) {
			t.Errorf("%s: %d %s", name, got.Status, got.Body)
		}
	}
	r.refusesTokens(t, "/t/globex", map[string]string{"an object": r.globex.access(map[string]any{"groups": map[string]any{"engineering": true}}), "numbers": r.globex.access(map[string]any{"groups": []int{1}}), "null in it": r.globex.access(map[string]any{"groups": []any{"engineering", map[string]any{}}})})
}

// sorted is what two answers have to have in common.
func sorted(h http.Header) http.Header {
	h = h.Clone()
	h.Del("Date")
	return h
}

// TestA121_slowBody: a call is decided on all of its bytes, by the policy of that moment.
func TestA121_slowBody(t *testing.T) {
	r := theRealm(t)
	_, k := r.connected(t, "modern")
	conn, err := net.Dial("tcp", strings.TrimPrefix(r.Desk().Public, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	body := callBody("whoami", `{"amount":1000}`)
	before := r.calls()
	fmt.Fprintf(conn, "POST /mcp/modern HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nAccept: application/json, text/event-stream\r\nMCP-Protocol-Version: 2026-07-28\r\nMcp-Method: tools/call\r\nMcp-Name: whoami\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n%s",
		strings.TrimPrefix(r.Desk().Public, "http://"), k.Access, len(body), body[:80])
	r.policed(t, `@id("late") forbid(principal, action == Action::"call", resource in Server::"modern") when { context.args has amount && context.args.amount > 100 };`)
	fmt.Fprint(conn, body[80:])
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	text, _ := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if !strings.Contains(string(text), "-31403") || r.calls() != before {
		t.Errorf("%d %s", resp.StatusCode, text)
	}
}

// TestA122_aliases: one server has one address.
func TestA122_aliases(t *testing.T) {
	r := theRealm(t)
	_, k := r.connected(t, "modern")
	for _, path := range []string{"/mcp/modern/", "/mcp/modern/b", "/mcp//modern", "/mcp/./modern", "/mcp/x/../modern", "/mcp/%6dodern", "/MCP/modern", "/mcp/Modern", "/mcp/modern%00", "/mcp/modern%2f", "/mcp/modern;x=1", "/t/default/mcp/modern", "//mcp/modern", "/mcp/modern."} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, r.Desk().Public, strings.NewReader(callBody("whoami", "{}")))
		if err != nil {
			t.Fatal(err)
		}
		req.URL.Opaque = path
		for name, v := range map[string]string{"Content-Type": "application/json", "MCP-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/call", "Mcp-Name": "whoami", "Authorization": "Bearer " + k.Access} {
			req.Header.Set(name, v)
		}
		if strings.HasPrefix(path, "//") {
			req.URL.Opaque = "//" + req.URL.Host + path
		}
		resp, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if resp.StatusCode < 400 || strings.Contains(string(text), "octo-alice") {
			t.Errorf("%s: %d %s", path, resp.StatusCode, text)
		}
	}
}
