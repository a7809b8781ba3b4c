package wire_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"frontdesk.dev/frontdesk/internal/kit/mcp"
)

// TestModernPasses: what need not be touched is not, in either direction.
func TestModernPasses(t *testing.T) {
	const body = `{ "id" : "a\u0062/1", "jsonrpc":"2.0","x-unknown":[1.50],"params": {"name":"seen","arguments":{"n":9007199254740993, "f":1e0,"s":"\u00fc"}, "task" : {}, ` + meta + `},"method":"tools/call" }`
	const result = `{"result": { "structuredContent":{"b":1.0,"a":[ ]},"resultType":"complete","content":[{"type":"odd","x":1}], "unknown":null},"id":"a\u0062/1","jsonrpc":"2.0", "extra":true}`
	for name, h := range map[string]http.HandlerFunc{
		"JSON": func(w http.ResponseWriter, _ *http.Request) { say(w, result) },
		"SSE":  func(w http.ResponseWriter, _ *http.Request) { stream(w, event(result)) },
	} {
		t.Run(name, func(t *testing.T) {
			s := play(t, h)
			a := s.send(t, http.MethodPost, "wire", body, append(modernHeaders("tools/call", "seen"), "Mcp-Param-Key", "OPS-1")...)
			if !strings.Contains(a.Body, result) {
				t.Errorf("the client got\n%s\nwant\n%s", a.Body, result)
			}
			got := s.received()
			if len(got) != 1 || got[0].Body != body {
				t.Fatalf("the server got %+v", got)
			}
			h := got[0].Header
			if h.Get("Mcp-Name") != "seen" || h.Get("Mcp-Method") != "tools/call" || h.Get("Mcp-Param-Key") != "OPS-1" || h.Get("Mcp-Session-Id") != "" {
				t.Errorf("the server got the headers %v", h)
			}
			if strings.Contains(h.Get("Authorization"), s.agents["wire"].AccessToken()) {
				t.Error("the client's token went on to the server")
			}
		})
	}
}

// TestModernStream: progress comes before the answer, comments and unknown notices pass, ids and requests do not.
func TestModernStream(t *testing.T) {
	progress := `{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":"p","progress":1}}`
	odd := `{"jsonrpc":"2.0","method":"notifications/odd"}`
	ask := `{"jsonrpc":"2.0","id":1,"method":"sampling/createMessage","params":{"messages":[],"maxTokens":1}}`
	done := `{"jsonrpc":"2.0","id":7,"result":{"resultType":"complete","content":[]}}`
	s := play(t, func(w http.ResponseWriter, _ *http.Request) {
		stream(w, ": hello\n\n", "id: s1\n"+event(progress), event(odd), event(ask), event(done))
	})
	a := s.modern(t, "tools/call", "seen", `"name":"seen"`)
	var got []string
	for m := range messages(strings.NewReader(a.Body)) {
		got = append(got, m)
	}
	if want := []string{progress, odd, done}; strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got %q, want %q", got, want)
	}
	if strings.Contains(a.Body, "s1") || !strings.Contains(a.Body, ": hello") {
		t.Errorf("an id passed, which nobody can resume from, or a comment did not: %s", a.Body)
	}
	if a.Header.Get("X-Accel-Buffering") != "no" {
		t.Error("a proxy in front may hold the stream up")
	}
}

// TestModernRefusals: none of these reaches the server.
func TestModernRefusals(t *testing.T) {
	call := func(meta string) string {
		return `{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"seen",` + meta + `}}`
	}
	h := modernHeaders("tools/call", "seen")
	for _, tt := range []struct {
		name, method, body string
		headers            []string
		status, code       int
	}{
		{"another name in the header", "POST", call(meta), modernHeaders("tools/call", "other"), 400, mcp.CodeHeaderMismatch},
		{"another method in the header", "POST", call(meta), modernHeaders("tools/list", "seen"), 400, mcp.CodeHeaderMismatch},
		{"no name in the header", "POST", call(meta), modernHeaders("tools/call", ""), 400, mcp.CodeHeaderMismatch},
		{"bad base64 in the header", "POST", call(meta), modernHeaders("tools/call", "=?base64?!?="), 400, mcp.CodeHeaderMismatch},
		{"a version that is not spoken", "POST", call(strings.Replace(meta, "2026-07-28", "2027-01-01", 1)), append(h[:0:0], "MCP-Protocol-Version", "2027-01-01", "Mcp-Method", "tools/call", "Mcp-Name", "seen"), 400, mcp.CodeVersion},
		{"no capabilities", "POST", call(`"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}`), h, 400, mcp.CodeParams},
		{"no _meta", "POST", call(`"x":1`), h, 400, mcp.CodeParams},
		{"an array", "POST", "[" + call(meta) + "]", h, 400, mcp.CodeRequest},
		{"a method that was removed", "POST", `{"jsonrpc":"2.0","id":7,"method":"ping","params":{` + meta + `}}`, modernHeaders("ping", ""), 404, mcp.CodeMethod},
		{"another that was removed", "POST", `{"jsonrpc":"2.0","id":7,"method":"resources/subscribe","params":{"uri":"file:///a",` + meta + `}}`, modernHeaders("resources/subscribe", ""), 404, mcp.CodeMethod},
		{"a method that nobody knows", "POST", `{"jsonrpc":"2.0","id":7,"method":"made/up","params":{` + meta + `}}`, modernHeaders("made/up", ""), 404, mcp.CodeMethod},
		{"GET", "GET", "", []string{"MCP-Protocol-Version", "2026-07-28"}, 405, mcp.CodeRequest},
		{"DELETE", "DELETE", "", []string{"MCP-Protocol-Version", "2026-07-28"}, 405, mcp.CodeRequest},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := play(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) })
			a := s.send(t, tt.method, "wire", tt.body, tt.headers...)
			if a.Status != tt.status || !strings.Contains(a.Body, fmt.Sprintf(`"code":%d`, tt.code)) {
				t.Errorf("got %d %s, want %d and %d", a.Status, a.Body, tt.status, tt.code)
			}
			if a.Status == 405 && a.Header.Get("Allow") != "POST" {
				t.Errorf("Allow: %q", a.Header.Get("Allow"))
			}
			if got := s.received(); len(got) > 0 {
				t.Errorf("the server got %+v", got)
			}
		})
	}
}

// TestModernCaches: an answer that was made for one caller stays with him.
func TestModernCaches(t *testing.T) {
	s := play(t, func(w http.ResponseWriter, r *http.Request) {
		what := map[string]string{"tools/list": `"tools":[{"name":"seen"},{"name":"hidden"}],`, "resources/read": `"contents":[],`}[r.Header.Get("Mcp-Method")]
		say(w, `{"jsonrpc":"2.0","id":7,"result":{"resultType":"complete",`+what+`"ttlMs":60000,"cacheScope":"public","nextCursor":""}}`)
	})
	for method, want := range map[string]string{
		"tools/list":     `{"jsonrpc":"2.0","id":7,"result":{"resultType":"complete","tools":[{"name":"seen"}],"ttlMs":0,"cacheScope":"private","nextCursor":""}}`,
		"resources/read": `{"jsonrpc":"2.0","id":7,"result":{"resultType":"complete","contents":[],"ttlMs":60000,"cacheScope":"private","nextCursor":""}}`,
	} {
		name, params := "", ""
		if method == "resources/read" {
			name, params = "file:///a", `"uri":"file:///a"`
		}
		if a := s.modern(t, method, name, params); a.Body != want {
			t.Errorf("%s: got %s", method, a.Body)
		}
	}
}

// TestModernCancel: a client that closes its stream has cancelled, and the server learns it the same way.
func TestModernCancel(t *testing.T) {
	started, gone := make(chan struct{}), make(chan struct{})
	s := play(t, func(w http.ResponseWriter, r *http.Request) {
		stream(w, ": begun\n\n")
		close(started)
		<-r.Context().Done()
		close(gone)
	})
	ctx, cancel := context.WithCancel(within(t))
	s.open(t, ctx, http.MethodPost, "wire", `{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"seen",`+meta+`}}`, modernHeaders("tools/call", "seen")...)
	<-started
	cancel()
	select {
	case <-gone:
	case <-within(t).Done():
		t.Error("the server was not told")
	}
}

// TestModernListen: resources that policy hides are not subscribed to; a changed policy is told on the stream, with its tag.
func TestModernListen(t *testing.T) {
	ack := `{"jsonrpc":"2.0","method":"notifications/subscriptions/acknowledged","params":{"_meta":{"io.modelcontextprotocol/subscriptionId":"s1"},"notifications":{"toolsListChanged":true}}}`
	s := play(t, func(w http.ResponseWriter, r *http.Request) {
		stream(w, event(ack))
		<-r.Context().Done()
	})
	ctx, cancel := context.WithCancel(within(t))
	defer cancel()
	body := `{"jsonrpc":"2.0","id":"s1","method":"subscriptions/listen","params":{` + meta + `,"notifications":{"toolsListChanged":true,"resourceSubscriptions":["file:///a","file:///hidden"]}}}`
	heard := messages(s.open(t, ctx, http.MethodPost, "wire", body, modernHeaders("subscriptions/listen", "")...).Body)
	if got := next(t, heard); got != ack {
		t.Fatalf("got %s", got)
	}
	if got := s.received(); len(got) != 1 || got[0].Body != strings.Replace(body, `,"file:///hidden"`, "", 1) {
		t.Errorf("the server got %+v", got)
	}
	if out, err := s.Desk().Run("reload"); err != nil {
		t.Fatal(out)
	}
	want := `{"jsonrpc":"2.0","method":"notifications/tools/list_changed","params":{"_meta":{"io.modelcontextprotocol/subscriptionId":"s1"}}}`
	if got := next(t, heard); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// TestModernNestedQuestion: a server that asks something of its own gets its state and the answers to it back byte for byte, though
// Frontdesk had to ask in between.
func TestModernNestedQuestion(t *testing.T) {
	const elicits = `"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{"elicitation":{"url":{},"form":{}}}}`
	const inner = `"inputResponses":{"q":{"action":"accept","content":{"n":1.50}}},"requestState":"the server's own"`
	s := play(t, func(w http.ResponseWriter, _ *http.Request) {
		say(w, `{"jsonrpc":"2.0","id":7,"result":{"resultType":"complete","content":[{"type":"text","text":"done"}]}}`)
	})
	call := func(params string) answer {
		return s.send(t, http.MethodPost, "asks-bob", `{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"seen","arguments":{"a":1},`+params+elicits+`}}`, modernHeaders("tools/call", "seen")...)
	}
	a := call(inner + ",")
	state := mcp.Lookup([]byte(a.Body), "result", "requestState")
	link := mcp.Text(mcp.Lookup([]byte(a.Body), "result", "inputRequests", "desk:connect", "params", "url"))
	if len(state) == 0 || link == "" || len(s.received()) > 0 {
		t.Fatalf("not asked: %s, the server got %v", a.Body, s.received())
	}
	// Nobody refuses within a second: a client that does has shown nothing, and the model is told instead.
	if a := call(`"inputResponses":{"desk:connect":{"action":"decline"}},"requestState":` + string(state) + ","); !strings.Contains(a.Body, `"isError":true`) || !strings.Contains(a.Body, strings.TrimSuffix(link, "?then=on")) {
		t.Errorf("declined at once: %s", a.Body)
	}
	if err := s.Person("bob", "Continue to Tracker").Open(within(t), link); err != nil {
		t.Fatal(err)
	}
	a = call(`"inputResponses":{"desk:connect":{"action":"accept"}},"requestState":` + string(state) + ",")
	if !strings.Contains(a.Body, `"done"`) {
		t.Fatal(a.Body)
	}
	got := s.received()
	if len(got) != 1 || !strings.Contains(got[0].Body, inner) || strings.Contains(got[0].Body, "desk:connect") {
		t.Errorf("the server got %+v", got)
	}
}

// TestStop: a process that stops ends what no call ends, by its era's rules, and so need not be waited for.
func TestStop(t *testing.T) {
	s, err := begin()
	if err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	s.handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Mcp-Method") == "" && r.Method == http.MethodPost {
			polite(w, r)
			return
		}
		stream(w, event(`{"jsonrpc":"2.0","method":"notifications/hello"}`))
		<-r.Context().Done()
	})
	s.mu.Unlock()
	session := s.initialize(t, "wire", `{}`)
	legacy := messages(s.open(t, within(t), http.MethodGet, "wire", "", session...).Body)
	body := `{"jsonrpc":"2.0","id":"s1","method":"subscriptions/listen","params":{` + meta + `,"notifications":{"toolsListChanged":true}}}`
	modern := messages(s.open(t, within(t), http.MethodPost, "wire", body, modernHeaders("subscriptions/listen", "")...).Body)
	next(t, legacy)
	next(t, modern)
	if err := s.Desk().Stop(); err != nil {
		t.Fatal(err)
	}
	if got := next(t, modern); got != `{"jsonrpc":"2.0","id":"s1","result":{"resultType":"complete","_meta":{"io.modelcontextprotocol/subscriptionId":"s1"}}}` {
		t.Errorf("got %s", got)
	}
	if _, open := <-modern; open {
		t.Error("the subscription goes on")
	}
	if _, open := <-legacy; open {
		t.Error("the session's stream goes on")
	}
}
