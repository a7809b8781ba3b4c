package wire_test

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"

	"frontdesk.dev/frontdesk/internal/kit/mcp"
)

// in answers everything but one method of a session politely.
func in(method string, h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		r.Body = io.NopCloser(strings.NewReader(string(body)))
		m, scanErr := mcp.Scan(body)
		if r.Method == method || err == nil && scanErr == nil && m.Method == method {
			h(w, r)
			return
		}
		polite(w, r)
	}
}

// TestLegacyPasses: what need not be touched is not; session ids are each side's own.
func TestLegacyPasses(t *testing.T) {
	const params = `"name":"seen", "arguments":{"n":9007199254740993,"f":1.0},"_meta":{"progressToken":1}`
	const progress = `{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":1,"progress":0.5}}`
	const result = `{"result":{"content":[ ],"odd":1.50},"jsonrpc":"2.0","id":7}`
	s := play(t, in("tools/call", func(w http.ResponseWriter, _ *http.Request) {
		stream(w, "id: p_1\nretry: 3000\ndata: \n\n", "id: p_2\n"+event(progress), "id: p_3\n"+event(result))
	}))
	session := s.initialize(t, "wire", `{}`)
	if session[1] == upstreamSession {
		t.Error("the server's session id went to the client")
	}
	s.forget()
	a := s.legacy(t, session, "tools/call", params)
	if want := ":\n\nid: p_1\nretry: 3000\ndata: \n\nid: p_2\n" + event(progress) + "id: p_3\n" + event(result); a.Body != want {
		t.Errorf("got %q, want %q", a.Body, want)
	}
	got := s.received()
	if len(got) != 1 || got[0].Body != `{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{`+params+`}}` || got[0].Header.Get("Mcp-Session-Id") != upstreamSession ||
		got[0].Header.Get("Mcp-Protocol-Version") != "2025-11-25" || got[0].Header.Get("Mcp-Method") != "" {
		t.Errorf("the server got %+v", got)
	}
}

// TestLegacySession: ping is answered here, a stranger's session is gone, and so is one that its server has forgotten.
func TestLegacySession(t *testing.T) {
	s := play(t, in("tools/call", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusNotFound)
		_, _ = io.WriteString(w, `{"jsonrpc":"2.0","error":{"code":-32001,"message":"Session not found"},"id":null}`)
	}))
	session := s.initialize(t, "wire", `{}`)
	s.forget()
	if a := s.legacy(t, session, "ping", ""); a.Body != `{"jsonrpc":"2.0","id":7,"result":{}}` || len(s.received()) > 0 {
		t.Errorf("ping: got %s, the server got %v", a.Body, s.received())
	}
	if a := s.send(t, http.MethodPost, "asks", `{"jsonrpc":"2.0","id":7,"method":"ping"}`, session...); a.Status != http.StatusNotFound {
		t.Errorf("the session at another server: got %d", a.Status)
	}
	if a := s.send(t, http.MethodPost, "wire", `{"jsonrpc":"2.0","id":7,"method":"ping"}`); a.Status != http.StatusBadRequest {
		t.Errorf("no session: got %d", a.Status)
	}
	if a := s.legacy(t, session, "tools/call", `"name":"seen"`); a.Status != http.StatusNotFound || strings.Contains(a.Body, "jsonrpc") {
		t.Errorf("a session that its server has forgotten: got %d %s", a.Status, a.Body)
	}
	if a := s.legacy(t, session, "ping", ""); a.Status != http.StatusNotFound {
		t.Errorf("after that: got %d", a.Status)
	}
}

// TestLegacyVersions: what both sides agree on, and what one of them does not speak.
func TestLegacyVersions(t *testing.T) {
	for version, want := range map[string]string{"2024-11-05": "session", "2025-03-26": "session", "2025-06-18": "session", "2031-01-01": "-32602"} {
		s := play(t, in("initialize", func(w http.ResponseWriter, _ *http.Request) {
			say(w, `{"jsonrpc":"2.0","id":0,"result":{"protocolVersion":"`+version+`","capabilities":{},"serverInfo":{"name":"wire","version":"1"}}}`)
		}))
		a := s.send(t, http.MethodPost, "wire", `{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"`+version+`","capabilities":{},"clientInfo":{"name":"wire","version":"1"}}}`)
		id := a.Header.Get("Mcp-Session-Id")
		if want != "session" {
			if id != "" || !strings.Contains(a.Body, want) {
				t.Errorf("%s: got %s", version, a.Body)
			}
			continue
		}
		s.forget()
		if a := s.legacy(t, []string{"Mcp-Session-Id", id, "MCP-Protocol-Version", version}, "tools/list", ""); a.Status != http.StatusOK || !strings.Contains(a.Body, "seen") {
			t.Errorf("%s: got %d %s", version, a.Status, a.Body)
		}
		// A server that gave no session id gets none, and the header of the version came with 2025-06-18.
		if h := s.received()[0].Header; h.Get("Mcp-Session-Id") != "" || (h.Get("Mcp-Protocol-Version") != "") != (version >= "2025-06-18") {
			t.Errorf("%s: the server got %v", version, h)
		}
	}
}

// TestInitializeRefused: the server's own refusal passes, and no session begins.
func TestInitializeRefused(t *testing.T) {
	const refusal = `{"jsonrpc":"2.0","id":0,"error":{"code":-32603,"message":"not today"}}`
	s := play(t, func(w http.ResponseWriter, _ *http.Request) { say(w, refusal) })
	a := s.send(t, http.MethodPost, "wire", `{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"wire","version":"1"}}}`)
	if a.Body != refusal || a.Header.Get("Mcp-Session-Id") != "" {
		t.Errorf("got %s, session %q", a.Body, a.Header.Get("Mcp-Session-Id"))
	}
}

// TestLegacyUnknownMethod: 404 about a method must not end the session.
func TestLegacyUnknownMethod(t *testing.T) {
	s := play(t, in("completion/complete", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusNotFound)
		_, _ = io.WriteString(w, `{"jsonrpc":"2.0","id":7,"error":{"code":-32601,"message":"Method not found"}}`)
	}))
	session := s.initialize(t, "wire", `{}`)
	if a := s.legacy(t, session, "completion/complete", `"ref":{"type":"ref/prompt","name":"seen"}`); a.Status != http.StatusOK || !strings.Contains(a.Body, "-32601") {
		t.Errorf("got %d %s", a.Status, a.Body)
	}
	if a := s.legacy(t, session, "ping", ""); a.Status != http.StatusOK {
		t.Errorf("the session is gone: %d", a.Status)
	}
}

// TestHiddenIsUnknown: a name that policy hides is answered as one that nobody has, in each of the ways in which servers say that.
func TestHiddenIsUnknown(t *testing.T) {
	for name, says := range map[string]string{
		"an error":             `"error":{"code":-32602,"message":"Unknown tool: ghost"}`,
		"an error, other SDK":  `"error":{"code":-32602,"message":"MCP error -32602: Tool ghost not found"}`,
		"a result":             `"result":{"content":[{"type":"text","text":"Unknown tool: ghost"}],"isError":true}`,
		"a result, other SDK":  `"result":{"content":[{"type":"text","text":"MCP error -32602: Tool ghost not found"}],"isError":true}`,
		"no resource":          `"error":{"code":-32002,"message":"Resource not found","data":{"uri":"file:///ghost"}}`,
		"no resource, modern":  `"error":{"code":-32602,"message":"resource not found"}`,
		"no prompt to go by":   `"error":{"code":-32602,"message":"unknown prompt \"ghost\""}`,
		"no prompt to compete": `"error":{"code":-32602,"message":"prompt ghost does not exist"}`,
	} {
		t.Run(name, func(t *testing.T) {
			reply := func(w http.ResponseWriter, r *http.Request) { say(w, `{"jsonrpc":"2.0","id":7,`+says+`}`) }
			method, params := "tools/call", func(n string) string { return `"name":"` + n + `"` }
			switch {
			case strings.HasPrefix(name, "no resource"):
				method, params = "resources/read", func(n string) string { return `"uri":"file:///` + n + `"` }
			case strings.HasSuffix(name, "go by"):
				method = "prompts/get"
			case strings.HasSuffix(name, "compete"):
				method, params = "completion/complete", func(n string) string { return `"ref":{"type":"ref/prompt","name":"` + n + `"}` }
			}
			s := play(t, in(method, reply))
			session := s.initialize(t, "wire", `{}`)
			header := func(n string) string {
				switch method {
				case "resources/read":
					return "file:///" + n
				case "completion/complete":
					return ""
				}
				return n
			}
			for era, ask := range map[string]func(n string) answer{
				"legacy": func(n string) answer { return s.legacy(t, session, method, params(n)) },
				"modern": func(n string) answer { return s.modern(t, method, header(n), params(n)) },
			} {
				ghost := ask("ghost")
				s.forget()
				hidden := ask("hidden")
				if len(s.received()) > 0 {
					t.Errorf("%s: a call of a hidden name reached the server", era)
				}
				if strings.ReplaceAll(ghost.Body, "ghost", "X") != strings.ReplaceAll(hidden.Body, "hidden", "X") || ghost.Status != hidden.Status || ghost.Header.Get("Content-Type") != hidden.Header.Get("Content-Type") {
					t.Errorf("%s: unknown is %d %s, hidden is %d %s", era, ghost.Status, ghost.Body, hidden.Status, hidden.Body)
				}
			}
		})
	}
}

// TestToolsOwnError: a tool that exists may say that something was not found.
func TestToolsOwnError(t *testing.T) {
	const result = `{"jsonrpc":"2.0","id":7,"result":{"content":[{"type":"text","text":"seen: not found"}],"isError":true}}`
	s := play(t, in("tools/call", func(w http.ResponseWriter, _ *http.Request) { say(w, result) }))
	session := s.initialize(t, "wire", `{}`)
	s.legacy(t, session, "tools/list", "")
	if a := s.legacy(t, session, "tools/call", `"name":"seen"`); a.Body != result {
		t.Errorf("got %s", a.Body)
	}
}

// TestLegacyStreams: the standalone stream is one; what it misses can be taken up beside it; what is replayed is filtered as
// it would have been in its own time.
func TestLegacyStreams(t *testing.T) {
	ended := make(chan string, 10)
	s := play(t, in(http.MethodGet, func(w http.ResponseWriter, r *http.Request) {
		last := r.Header.Get("Last-Event-Id")
		if last == "unknown_1" {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		more := stream(w, event(`{"jsonrpc":"2.0","method":"notifications/hello","params":{"after":"`+last+`"}}`))
		if last != "" {
			more("id: l_2\n" + event(`{"jsonrpc":"2.0","id":3,"result":{"tools":[{"name":"hidden"},{"name":"seen"}]}}`))
			return
		}
		<-r.Context().Done()
		ended <- r.Header.Get("Mcp-Session-Id")
	}))
	session := s.initialize(t, "wire", `{}`)
	first := messages(s.open(t, within(t), http.MethodGet, "wire", "", session...).Body)
	next(t, first)
	resumed := messages(s.open(t, within(t), http.MethodGet, "wire", "", append(session, "Last-Event-ID", "l_1")...).Body)
	if got := next(t, resumed); !strings.Contains(got, `"after":"l_1"`) {
		t.Errorf("got %s", got)
	}
	if got := next(t, resumed); got != `{"jsonrpc":"2.0","id":3,"result":{"tools":[{"name":"seen"}]}}` {
		t.Errorf("replayed: %s", got)
	}
	if _, open := <-resumed; open {
		t.Error("the server's stream has ended, the client's has not")
	}
	if a := s.send(t, http.MethodGet, "wire", "", append(session, "Last-Event-ID", "unknown_1")...); a.Status != http.StatusBadRequest {
		t.Errorf("nothing to take up: got %d", a.Status)
	}
	select {
	case <-ended:
		t.Error("the standalone stream was ended by one that was taken up")
	default:
	}
	second := messages(s.open(t, within(t), http.MethodGet, "wire", "", session...).Body)
	next(t, second)
	if got := <-ended; got != upstreamSession {
		t.Errorf("ended: %s", got)
	}
	if _, open := <-first; open {
		t.Error("two standalone streams at once")
	}
	if out, err := s.Desk().Run("reload"); err != nil {
		t.Fatal(out)
	}
	if got := next(t, second); got != `{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}` {
		t.Errorf("after a reload: %s", got)
	}
	if a := s.send(t, http.MethodDelete, "wire", "", session...); a.Status != http.StatusNoContent {
		t.Errorf("DELETE: got %d", a.Status)
	}
	if a := s.legacy(t, session, "ping", ""); a.Status != http.StatusNotFound {
		t.Errorf("after DELETE: got %d", a.Status)
	}
}

// TestLegacyBusyStream: a server that has not noticed yet that its stream was left is asked again.
func TestLegacyBusyStream(t *testing.T) {
	tries := 0
	s := play(t, in(http.MethodGet, func(w http.ResponseWriter, r *http.Request) {
		if tries++; tries < 3 {
			w.WriteHeader(http.StatusConflict)
			return
		}
		stream(w, event(`{"jsonrpc":"2.0","method":"notifications/hello"}`))
	}))
	session := s.initialize(t, "wire", `{}`)
	next(t, messages(s.open(t, within(t), http.MethodGet, "wire", "", session...).Body))
}

// TestLegacyDisconnect: a client that goes away has not cancelled; one that says so has.
func TestLegacyDisconnect(t *testing.T) {
	started, told, gone, finish := make(chan struct{}), make(chan string, 1), make(chan struct{}), make(chan struct{})
	s := play(t, in("tools/call", func(w http.ResponseWriter, r *http.Request) {
		stream(w, ": begun\n\n")
		started <- struct{}{}
		select {
		case <-r.Context().Done():
			close(gone)
		case <-finish:
		}
	}))
	session := s.initialize(t, "wire", `{}`)
	ctx, cancel := context.WithCancel(within(t))
	call := `{"jsonrpc":"2.0","id":"c1","method":"tools/call","params":{"name":"seen"}}`
	s.open(t, ctx, http.MethodPost, "wire", call, session...)
	<-started
	cancel()
	a := s.legacy(t, session, "tools/list", "") // whatever else: the call goes on
	if a.Status != http.StatusOK {
		t.Fatal(a.Body)
	}
	select {
	case <-gone:
		t.Fatal("the server lost the call, though nobody cancelled it")
	default:
	}
	s.open(t, within(t), http.MethodPost, "wire", `{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"c1"}}`, session...)
	select {
	case <-gone:
	case <-within(t).Done():
		t.Fatal("the call was cancelled, and goes on")
	}
	close(told)
	eventually(t, "the server was told", func() bool {
		for _, r := range s.received() {
			if strings.Contains(r.Body, "notifications/cancelled") {
				return true
			}
		}
		return false
	})
}

// TestLegacyPolling: a server may end the stream of a call and answer on one that the client opens later (2025-11-25). The keycard of
// the call works until the answer has passed.
func TestLegacyPolling(t *testing.T) {
	keycard := ""
	calls := in("tools/call", func(w http.ResponseWriter, r *http.Request) {
		keycard = r.Header.Get("Authorization")
		stream(w, "id: c_1\nretry: 1000\ndata: \n\n")
	})
	s := play(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet {
			calls(w, r)
			return
		}
		stream(w, "id: c_2\n"+event(`{"jsonrpc":"2.0","id":7,"result":{"content":[]}}`))
	})
	session := s.initialize(t, "wire", `{}`)
	egress := func() int {
		r, err := http.NewRequestWithContext(within(t), http.MethodGet, s.Desk().Egress+"/egress/tracker/user", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", keycard)
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		return resp.StatusCode
	}
	if a := s.legacy(t, session, "tools/call", `"name":"seen"`); !strings.Contains(a.Body, "id: c_1") || strings.Contains(a.Body, "jsonrpc") {
		t.Fatalf("got %q", a.Body)
	}
	open := egress()
	a := s.send(t, http.MethodGet, "wire", "", append(session, "Last-Event-ID", "c_1")...)
	if !strings.Contains(a.Body, `"content":[]`) {
		t.Fatalf("got %q", a.Body)
	}
	if over := egress(); open == http.StatusUnauthorized || over != http.StatusUnauthorized {
		t.Errorf("egress answered %d while the call was open, %d after it", open, over)
	}
}

// TestNobodyWaitsForTheEnd: the answer ends the client's stream, whether or not the server ends its own.
func TestNobodyWaitsForTheEnd(t *testing.T) {
	s := play(t, in("tools/call", func(w http.ResponseWriter, r *http.Request) {
		stream(w, event(`{"jsonrpc":"2.0","id":7,"result":{"content":[]}}`))
		<-r.Context().Done()
	}))
	session := s.initialize(t, "wire", `{}`)
	if a := s.legacy(t, session, "tools/call", `"name":"seen"`); !strings.Contains(a.Body, `"content":[]`) {
		t.Errorf("got %s", a.Body)
	}
}

// TestNoticeToItsSessionAlone: word that a person has answered goes to the session that asked.
func TestNoticeToItsSessionAlone(t *testing.T) {
	s := play(t, polite)
	const shows = `{"elicitation":{"url":{}}}`
	asking, other := s.initialize(t, "asks", shows), s.initialize(t, "asks", shows)
	heard, nothing := messages(s.open(t, within(t), http.MethodGet, "asks", "", asking...).Body), messages(s.open(t, within(t), http.MethodGet, "asks", "", other...).Body)
	var a answer
	eventually(t, "asked by -32042, for the stream is open", func() bool {
		a = s.send(t, http.MethodPost, "asks", `{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"seen"}}`, asking...)
		return strings.Contains(a.Body, "-32042")
	})
	var one string
	for _, e := range []string{"elicitations"} {
		one = string(mcp.Lookup([]byte(a.Body), "error", "data", e))
	}
	asked := []byte(strings.Trim(one, "[]"))
	id, link := mcp.Text(mcp.Lookup(asked, "elicitationId")), mcp.Text(mcp.Lookup(asked, "url"))
	if err := s.Person("alice", "Continue to Tracker").Open(within(t), link); err != nil {
		t.Fatal(err)
	}
	if got := next(t, heard); got != `{"jsonrpc":"2.0","method":"notifications/elicitation/complete","params":{"elicitationId":"`+id+`"}}` {
		t.Errorf("got %s", got)
	}
	if out, err := s.Desk().Run("reload"); err != nil {
		t.Fatal(out)
	}
	if got := next(t, nothing); !strings.Contains(got, "list_changed") {
		t.Errorf("the other session was told: %s", got)
	}
}

// A client that is started anew each day, and ends nothing, does not fill the gateway: of the sessions whose server holds a keycard
// for the whole of them, its oldest one ends when there are too many.
func TestLegacy_sessionsThatLast(t *testing.T) {
	s := play(t, polite)
	var first []string
	for i := range 101 {
		session := s.initialize(t, "lasting", `{}`)
		if i == 0 {
			first = session
		}
	}
	list := func(session []string) answer {
		return s.send(t, http.MethodPost, "lasting", `{"jsonrpc":"2.0","id":7,"method":"tools/list"}`, session...)
	}
	if a := list(first); a.Status != http.StatusNotFound || !strings.Contains(a.Body, "initialize again") {
		t.Errorf("the oldest of 101 sessions: %d %s", a.Status, a.Body)
	}
	if a := list(s.initialize(t, "lasting", `{}`)); a.Status != http.StatusOK {
		t.Errorf("a new session: %d %s", a.Status, a.Body)
	}
}
