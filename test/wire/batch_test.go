package wire_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"frontdesk.dev/frontdesk/internal/kit/mcp"
)

// march is a server that agrees on the one revision that has batches; a call of the tool "streams" is answered on a stream, and one
// of "breaks" never.
func march(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	r.Body = io.NopCloser(strings.NewReader(string(body)))
	m, scanErr := mcp.Scan(body)
	switch {
	case err == nil && scanErr == nil && m.Method == "initialize":
		w.Header().Set("Mcp-Session-Id", upstreamSession)
		say(w, `{"jsonrpc":"2.0","id":0,"result":{"protocolVersion":"2025-03-26","capabilities":{"tools":{}},"serverInfo":{"name":"wire","version":"1"}}}`)
	case m.Target == "streams":
		stream(w, "id: e_1\n"+event(`{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":1,"progress":0.5}}`), "id: e_2\n"+event(`{"jsonrpc":"2.0","id":`+string(m.IDBytes())+`,"result":{"content":[]}}`))
	case m.Target == "breaks":
		stream(w, "id: e_3\ndata: \n\n")
	default:
		polite(w, r)
	}
}

// begins a session of 2025-03-26.
func (s *scene) march(t *testing.T) []string {
	t.Helper()
	a := s.send(t, http.MethodPost, "wire", `{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-03-26","capabilities":{},"clientInfo":{"name":"wire","version":"1"}}}`)
	id := a.Header.Get("Mcp-Session-Id")
	if id == "" {
		t.Fatalf("no session: %d %s", a.Status, a.Body)
	}
	s.forget()
	return []string{"Mcp-Session-Id", id}
}

func tool(id, name string) string {
	return `{"jsonrpc":"2.0","id":` + id + `,"method":"tools/call","params":{"name":"` + name + `"}}`
}

// TestBatch: each message of an array is decided and sent on by itself, in order, and each request gets its one answer.
func TestBatch(t *testing.T) {
	s := play(t, march)
	session := s.march(t)
	a := s.send(t, http.MethodPost, "wire", " ["+strings.Join([]string{tool("1", "seen"), tool(`"two"`, "hidden"), `{"jsonrpc":"2.0","method":"notifications/roots/list_changed"}`, tool("3", "streams"),
		`{"jsonrpc":"2.0","id":4,"method":"ping"}`, `{"jsonrpc":"2.0","id":5}`, `[]`, tool("6", "breaks"), `{"jsonrpc":"2.0","id":7,"method":"initialize","params":{}}`,
		`{"jsonrpc":"2.0","id":8,"method":"tools/list"}`, tool("9", "seen")}, ",\n")+"]\n", session...)
	if a.Status != http.StatusOK || !strings.HasPrefix(a.Header.Get("Content-Type"), "text/event-stream") {
		t.Fatalf("got %d %s %s", a.Status, a.Header.Get("Content-Type"), a.Body)
	}
	var got []string
	for m := range messages(strings.NewReader(a.Body)) {
		got = append(got, m)
	}
	want := []string{`"id":1,"result":{}`, `"id":"two","error":{"code":-32602,"message":"Unknown tool`, `notifications/progress`, `"id":3,"result":{"content":[]}`, `"id":4,"result":{}`,
		`"code":-32600`, `"code":-32600`, `"id":6,"error":{"code":-31503`, `"id":7,"error":{"code":-32600`, `"id":8,"result":{"tools":[{"name":"seen"`, `"id":9,"result":{}`}
	if len(got) != len(want) {
		t.Fatalf("got %d messages, want %d:\n%s", len(got), len(want), strings.Join(got, "\n"))
	}
	for i := range want {
		if !strings.Contains(got[i], want[i]) {
			t.Errorf("message %d: got %s, want %s", i, got[i], want[i])
		}
	}
	if strings.Contains(a.Body, "id: ") || strings.Contains(a.Body, `"hidden"`) {
		t.Errorf("an event id, or a hidden tool: %s", a.Body)
	}
	var sent []string
	for _, r := range s.received() {
		sent = append(sent, r.Body)
	}
	if want := []string{tool("1", "seen"), `{"jsonrpc":"2.0","method":"notifications/roots/list_changed"}`, tool("3", "streams"), tool("6", "breaks"), `{"jsonrpc":"2.0","id":8,"method":"tools/list"}`, tool("9", "seen")}; strings.Join(sent, "\n") != strings.Join(want, "\n") {
		t.Errorf("the server got\n%s\nwant\n%s", strings.Join(sent, "\n"), strings.Join(want, "\n"))
	}
}

// TestBatchOfNotices: an array that asks nothing is accepted.
func TestBatchOfNotices(t *testing.T) {
	s := play(t, march)
	a := s.send(t, http.MethodPost, "wire", `[{"jsonrpc":"2.0","method":"notifications/initialized"},{"jsonrpc":"2.0","method":"notifications/roots/list_changed"}]`, s.march(t)...)
	if a.Status != http.StatusAccepted || a.Body != "" || len(s.received()) != 2 {
		t.Errorf("got %d %q, the server %d messages", a.Status, a.Body, len(s.received()))
	}
}

// TestA068_batches: arrays outside of the one revision that has them, and arrays that are too much, get nowhere as a whole.
func TestA068_batches(t *testing.T) {
	s := play(t, march)
	session := s.march(t)
	many := make([]string, 51)
	for i := range many {
		many[i] = tool(fmt.Sprint(i), "seen")
	}
	for name, body := range map[string]string{"empty": `[]`, "51": "[" + strings.Join(many, ",") + "]", "one id twice": "[" + tool("1", "seen") + "," + tool("1", "seen") + "]", "unterminated": "[" + tool("1", "seen"),
		"bytes after the end": "[" + tool("1", "seen") + "]{}", "two arrays": "[" + tool("1", "seen") + "][]", "deep": strings.Repeat("[", 100_000), "a comma at the end": "[" + tool("1", "seen") + ",]", "invalid UTF-8": "[" + tool("1", "see\xff") + "]"} {
		if a := s.send(t, http.MethodPost, "wire", body, session...); a.Status != http.StatusBadRequest || !strings.Contains(a.Body, `"error"`) || len(s.received()) > 0 {
			t.Errorf("%s: got %d %.200s, the server %d messages", name, a.Status, a.Body, len(s.received()))
		}
	}
	two := "[" + tool("1", "seen") + "," + tool("2", "seen") + "]"
	if a := s.send(t, http.MethodPost, "wire", two); a.Status != http.StatusBadRequest || !strings.Contains(a.Body, "2025-03-26") {
		t.Errorf("without a session: got %d %s", a.Status, a.Body)
	}
	if a := s.send(t, http.MethodPost, "asks-bob", two, session...); a.Status != http.StatusNotFound {
		t.Errorf("bob, with the session of alice: got %d %s", a.Status, a.Body)
	}
	modern := `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"seen",` + meta + `}}`
	if a := s.send(t, http.MethodPost, "wire", "["+modern+"]", session...); !strings.Contains(a.Body, `"error"`) || len(s.received()) > 0 {
		t.Errorf("a modern message in a batch: got %d %s", a.Status, a.Body)
	}
	s = play(t, polite)
	later := s.initialize(t, "wire", `{}`)
	s.forget()
	if a := s.send(t, http.MethodPost, "wire", two, later...); a.Status != http.StatusBadRequest || !strings.Contains(a.Body, "this session agreed on 2025-11-25") || len(s.received()) > 0 {
		t.Errorf("a later revision: got %d %s", a.Status, a.Body)
	}
}
