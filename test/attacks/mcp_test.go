package attacks_test

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
)

// message is a modern tools/call whose members the test spells itself.
func message(members string) string { return `{"jsonrpc":"2.0","id":7,` + members + `}` }

// TestA064_A070_oneReadingOnly: a message that two readers could understand differently never gets to a server.
func TestA064_A070_oneReadingOnly(t *testing.T) {
	s := foes(t)
	s.oracles(t)
	p := func(inner string) string {
		return message(`"method":"tools/call","params":{` + inner + `,` + meta + `}`)
	}
	tests := map[string]struct{ body, code string }{
		"A-064 method twice":          {message(`"method":"tools/list","method":"tools/call","params":{"name":"whoami",` + meta + `}`), "-32600"},
		"A-064 name twice":            {p(`"name":"whoami","name":"delete_issue"`), "-32600"},
		"A-064 name by escape":        {p(`"name":"whoami","n\u0061me":"delete_issue"`), "-32600"},
		"A-064 arguments twice":       {p(`"name":"whoami","arguments":{},"arguments":{"a":1}`), "-32600"},
		"A-064 params twice":          {message(`"method":"tools/call","params":{"name":"whoami",` + meta + `},"params":{"name":"delete_issue",` + meta + `}`), "-32600"},
		"A-064 id twice":              {`{"jsonrpc":"2.0","id":7,"id":8,"method":"tools/call","params":{"name":"whoami",` + meta + `}}`, "-32600"},
		"A-064 in _meta":              {message(`"method":"tools/call","params":{"name":"whoami","_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/protocolVersion":"2025-11-25","io.modelcontextprotocol/clientCapabilities":{}}}`), "-32600"},
		"A-065 METHOD":                {message(`"METHOD":"tools/call","params":{"name":"whoami",` + meta + `}`), "-32600"},
		"A-065 both cases of method":  {message(`"method":"tools/call","Method":"tools/list","params":{"name":"whoami",` + meta + `}`), "-32600"},
		"A-065 both cases of name":    {p(`"name":"whoami","Name":"delete_issue"`), "-32600"},
		"A-065 long s in params":      {message(`"method":"tools/call","params":{"name":"whoami",` + meta + `},"param\u017f":{"name":"delete_issue"}`), "-32600"},
		"A-065 Arguments alone":       {p(`"name":"whoami","Arguments":{"repo":"secret"}`), "-32600"},
		"A-065 _META alone":           {message(`"method":"tools/call","params":{"name":"whoami","_META":{},` + meta + `}`), "-32600"},
		"A-065 requeststate alone":    {p(`"name":"whoami","requeststate":"x"`), "-32600"},
		"A-065 inputResponſes":        {p(`"name":"whoami","inputResponſes":{}`), "-32600"},
		"A-065 Id beside nothing":     {`{"jsonrpc":"2.0","Id":7,"method":"tools/call","params":{"name":"whoami",` + meta + `}}`, "-32600"},
		"A-068 batch":                 {"[" + callBody("whoami", "{}") + "," + callBody("whoami", "{}") + "]", "-32600"},
		"A-068 empty batch":           {"[]", "-32600"},
		"A-068 a long batch":          {"[" + strings.Repeat(callBody("whoami", "{}")+",", 5000) + "1]", "-32600"},
		"A-069 100,000 arrays":        {strings.Repeat("[", 100_000), "-32600"},
		"A-069 100,000 objects":       {strings.Repeat(`{"a":`, 100_000), "-32600"},
		"A-069 deep arguments":        {callBody("whoami", strings.Repeat(`{"a":`, 80)+"1"+strings.Repeat("}", 80)), "-32600"},
		"A-069 unterminated":          {callBody("whoami", "{}")[:60], "-32700"},
		"A-069 bytes after the end":   {callBody("whoami", "{}") + "{}", "-32700"},
		"A-070 UTF-16":                {"\xff\xfe{\x00", "-32700"},
		"A-070 byte order mark":       {"\xef\xbb\xbf" + callBody("whoami", "{}"), "-32700"},
		"A-070 overlong":              {callBody("who\xc0\xafami", "{}"), "-32700"},
		"A-070 invalid UTF-8 in name": {callBody("who\xff", "{}"), "-32700"},
		"A-070 raw NUL":               {callBody("who\x00ami", "{}"), "-32700"},
		"A-070 lone surrogate":        {callBody(`who\ud800ami`, "{}"), "-3260"},
		"A-070 key with a surrogate":  {p(`"name":"whoami","n\ud800ame":1`), ""},
		"A-071 null id":               {strings.Replace(callBody("whoami", "{}"), `"id":7`, `"id":null`, 1), "-32600"},
		"A-071 fraction":              {strings.Replace(callBody("whoami", "{}"), `"id":7`, `"id":1.0`, 1), "-32600"},
		"A-071 an object":             {strings.Replace(callBody("whoami", "{}"), `"id":7`, `"id":{"a":1}`, 1), "-32600"},
		"A-071 an array":              {strings.Replace(callBody("whoami", "{}"), `"id":7`, `"id":[7]`, 1), "-32600"},
		"A-071 true":                  {strings.Replace(callBody("whoami", "{}"), `"id":7`, `"id":true`, 1), "-32600"},
	}
	for name, tt := range tests {
		s.evil.answer(result(`{"jsonrpc":"2.0","id":$ID,"result":{"content":[]}}`))
		got := s.post(t, "evil", s.at(t, "alice"), "whoami", tt.body)
		if tt.code == "" {
			continue // passes as bytes, or is refused: either is one reading
		}
		if got.Status != http.StatusBadRequest || !strings.Contains(got.Body, tt.code) {
			t.Errorf("%s: %d %.200s", name, got.Status, got.Body)
		}
		if n := len(s.evil.heard()); n != 0 {
			t.Errorf("%s: the server saw it", name)
		}
	}
	for name, body := range map[string]string{"20 MiB of space": strings.Repeat(" ", 20<<20), "a string of 5 MiB": callBody("whoami", `"`+strings.Repeat("a", 5<<20)+`"`), "5 MiB of digits": callBody("whoami", strings.Repeat("1", 5<<20))} {
		got := s.post(t, "evil", s.at(t, "alice"), "whoami", body)
		if got.Status != http.StatusRequestEntityTooLarge {
			t.Errorf("A-069 %s: %d", name, got.Status)
		}
	}
}

// TestA065_argumentsThatFold: a policy reads an argument by its exact name, and a server may fold.
func TestA065_argumentsThatFold(t *testing.T) {
	s := foes(t)
	s.oracles(t)
	for name, args := range map[string]string{"the named one": `{"repo":"secret"}`, "twice": `{"repo":"ok","repo":"secret"}`, "twice by escape": `{"repo":"ok","r\u0065po":"secret"}`,
		"another case beside it": `{"repo":"ok","Repo":"secret"}`, "another case alone": `{"REPO":"secret"}`, "not an object": `["repo","secret"]`} {
		s.evil.answer(result(`{"jsonrpc":"2.0","id":$ID,"result":{"content":[]}}`))
		got := s.call(t, "any", args)
		if !strings.Contains(got.Body, `"error"`) || len(s.evil.heard()) > 0 {
			t.Errorf("%s: %d %s", name, got.Status, got.Body)
		}
	}
	if got := s.call(t, "any", `{"repo":"ok","Other":1}`); got.Status != http.StatusOK || len(s.evil.heard()) != 1 {
		t.Errorf("the honest call: %d %s", got.Status, got.Body)
	}
}

// TestA066_A067_headersAgreeWithTheBody, in every way in which they can fail to.
func TestA066_A067_headersAgreeWithTheBody(t *testing.T) {
	s := foes(t)
	s.oracles(t)
	b64 := func(v string) string { return "=?base64?" + base64.StdEncoding.EncodeToString([]byte(v)) + "?=" }
	body, token := callBody("whoami", "{}"), s.at(t, "alice")
	ask := func(h map[string][]string) answer {
		set := map[string][]string{"Content-Type": {"application/json"}, "Authorization": {"Bearer " + token}, "MCP-Protocol-Version": {"2026-07-28"}, "Mcp-Method": {"tools/call"}, "Mcp-Name": {"whoami"}}
		var flat []string
		for k, v := range h {
			set[k] = v
		}
		for k, l := range set {
			for _, v := range l {
				flat = append(flat, k, v)
			}
		}
		return send(t, http.MethodPost, s.Desk().MCP("evil"), body, flat...)
	}
	for name, h := range map[string]map[string][]string{
		"A-066 another name":          {"Mcp-Name": {"delete_issue"}},
		"A-066 absent":                {"Mcp-Name": nil},
		"A-066 twice":                 {"Mcp-Name": {"whoami", "whoami"}},
		"A-066 coded, another":        {"Mcp-Name": {b64("delete_issue")}},
		"A-066 coded, not UTF-8":      {"Mcp-Name": {b64("who\xff")}},
		"A-066 coded, with NUL":       {"Mcp-Name": {b64("whoami\x00")}},
		"A-066 coded badly":           {"Mcp-Name": {"=?base64?!!!?="}},
		"A-066 percent":               {"Mcp-Name": {"who%61mi"}},
		"A-066 case":                  {"Mcp-Name": {"WHOAMI"}},
		"A-066 list":                  {"Mcp-Name": {"whoami, delete_issue"}},
		"A-067 another method":        {"Mcp-Method": {"tools/list"}},
		"A-067 method absent":         {"Mcp-Method": nil},
		"A-067 an older version":      {"MCP-Protocol-Version": {"2025-06-18"}},
		"A-067 version absent":        {"MCP-Protocol-Version": nil},
		"A-067 two versions":          {"MCP-Protocol-Version": {"2026-07-28", "2025-11-25"}},
		"A-067 two versions in a row": {"MCP-Protocol-Version": {"2026-07-28, 2025-11-25"}},
	} {
		s.evil.answer(nil)
		if got := ask(h); got.Status != http.StatusBadRequest || !strings.Contains(got.Body, "-32020") || len(s.evil.heard()) > 0 {
			t.Errorf("%s: %d %s", name, got.Status, got.Body)
		}
	}
	body = strings.Replace(body, "2026-07-28", "2099-01-01", 1)
	if got := ask(map[string][]string{"MCP-Protocol-Version": {"2099-01-01"}}); got.Status != http.StatusBadRequest || !strings.Contains(got.Body, "-32022") || !strings.Contains(got.Body, "2026-07-28") {
		t.Errorf("A-067 unknown version: %d %s", got.Status, got.Body)
	}
	// No era without checks: a legacy body under a modern header, and a modern header on a session.
	body = `{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"whoami"}}`
	if got := ask(nil); got.Status != http.StatusBadRequest {
		t.Errorf("A-067 legacy body, modern header: %d %s", got.Status, got.Body)
	}
	if got := s.legacy(t, "issues", token, s.session(t, "issues", token), body, "MCP-Protocol-Version", "2025-11-25", "MCP-Protocol-Version", "2026-07-28"); got.Status != http.StatusBadRequest {
		t.Errorf("A-067 two versions in a session: %d %s", got.Status, got.Body)
	}
	// What goes on is what Frontdesk computed.
	body = callBody("whoami", "{}")
	s.evil.answer(result(`{"jsonrpc":"2.0","id":$ID,"result":{"content":[]}}`))
	if got := ask(map[string][]string{"Mcp-Name": {b64("whoami")}, "X-Anything": {"y"}, "Forwarded": {"for=1.2.3.4"}, "Baggage": {"user=alice"}}); got.Status != http.StatusOK {
		t.Fatalf("%d %s", got.Status, got.Body)
	}
	h := s.evil.heard()[0].Header
	if h.Get("Mcp-Name") != "whoami" || h.Get("X-Anything")+h.Get("Forwarded")+h.Get("Baggage") != "" || strings.Contains(fmt.Sprint(h), token) {
		t.Errorf("A-066/A-174: the server got %v", h)
	}
}

// TestA071_idsStayWithTheirCaller: two users with one id get their own answers, whatever the id.
func TestA071_idsStayWithTheirCaller(t *testing.T) {
	s := foes(t)
	s.oracles(t)
	s.evil.answer(func(w http.ResponseWriter, r *http.Request) {
		// Both wait for each other, so that both are open at once.
		who := r.Header.Get("Authorization")
		id := idOf(r)
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"jsonrpc":"2.0","id":%s,"result":{"content":[{"type":"text","text":%q}]}}`, id, who[len(who)-12:])
	})
	for _, id := range []string{"7", `"seven"`, "9007199254740993", `"` + strings.Repeat("x", 64<<10) + `"`, `"\u0041"`, "-1"} {
		var wg sync.WaitGroup
		said := make([]answer, 2)
		for i, user := range []string{"alice", "bob"} {
			wg.Go(func() {
				said[i] = s.post(t, "evil", s.at(t, user), "who", strings.Replace(callBody("who", "{}"), `"id":7`, `"id":`+id, 1))
			})
		}
		wg.Wait()
		for _, got := range said {
			if got.Status != http.StatusOK || !strings.Contains(got.Body, `"id":`+id) {
				t.Errorf("id %.20s: %d %.200s", id, got.Status, got.Body)
			}
		}
		if said[0].Body == said[1].Body {
			t.Errorf("id %.20s: two users got one answer", id)
		}
	}
}

// TestA072_A073_pagesAndCodings: what a web page can send without being asked, and bodies that inflate.
func TestA072_A073_pagesAndCodings(t *testing.T) {
	s := foes(t)
	s.oracles(t)
	token, body := s.at(t, "alice"), callBody("whoami", "{}")
	for name, h := range map[string][]string{"text": {"Content-Type", "text/plain"}, "a form": {"Content-Type", "application/x-www-form-urlencoded"}, "none": {"Content-Type", ""},
		"two": {"Content-Type", "application/json", "Content-Type", "text/plain"}, "a strange charset": {"Content-Type", "application/json; charset=utf-16"}} {
		got := send(t, http.MethodPost, s.Desk().MCP("evil"), body, append(h, "Authorization", "Bearer "+token, "MCP-Protocol-Version", "2026-07-28", "Mcp-Method", "tools/call", "Mcp-Name", "whoami")...)
		if got.Status != http.StatusUnsupportedMediaType {
			t.Errorf("A-072 %s: %d %s", name, got.Status, got.Body)
		}
	}
	for _, origin := range []string{"https://evil.test", "null", "http://127.0.0.1:1", s.Desk().Public + ".evil.test", "file://", "moz-extension://x"} {
		for method, path := range map[string]string{http.MethodPost: "/mcp/evil", http.MethodGet: "/mcp/issues", http.MethodDelete: "/mcp/issues", http.MethodOptions: "/mcp/evil"} {
			got := send(t, method, s.Desk().Public+path, body, "Origin", origin, "Authorization", "Bearer "+token, "Content-Type", "application/json")
			if got.Status != http.StatusForbidden || got.Header.Get("Access-Control-Allow-Origin") != "" {
				t.Errorf("A-072 %s from %s: %d", method, origin, got.Status)
			}
		}
	}
	for _, path := range []string{"/mcp/evil", "/authorize", "/token", "/portal/", "/.well-known/oauth-authorization-server", "/jwks"} {
		for _, host := range []string{"rebind.evil.test", "rebind.evil.test:80", "127.0.0.1.evil.test", "127.0.0.1:1"} {
			r, err := http.NewRequest(http.MethodGet, s.Desk().Public+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			r.Host = host
			resp, err := http.DefaultTransport.RoundTrip(r)
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			if resp.StatusCode != http.StatusMisdirectedRequest {
				t.Errorf("A-072 host %s of %s: %d", host, path, resp.StatusCode)
			}
		}
	}
	var bomb bytes.Buffer
	z := gzip.NewWriter(&bomb)
	for range 64 {
		_, _ = z.Write(make([]byte, 1<<20))
	}
	_ = z.Close()
	for _, coding := range []string{"gzip", "deflate, gzip, br", "x-unknown", "GZIP"} {
		if got := s.post(t, "evil", token, "whoami", bomb.String(), "Content-Encoding", coding); got.Status != http.StatusUnsupportedMediaType {
			t.Errorf("A-073 %s: %d %s", coding, got.Status, got.Body)
		}
	}
}

// TestA074_A075_whatIsHiddenDoesNotExist: a forbidden tool is answered like a made-up one, by every door and spelling.
func TestA074_A075_whatIsHiddenDoesNotExist(t *testing.T) {
	s := foes(t)
	s.oracles(t)
	token := s.at(t, "alice")
	coded := func(tool, name string) answer {
		return s.post(t, "modern", token, "=?base64?"+base64.StdEncoding.EncodeToString([]byte(name))+"?=", callBody(tool, `{"number":1}`))
	}
	want := s.post(t, "modern", token, "no_such_tool", callBody("no_such_tool", `{"number":1}`))
	if !strings.Contains(want.Body, "-32602") {
		t.Fatalf("a made-up tool: %d %s", want.Status, want.Body)
	}
	same := func(name string, got answer) {
		t.Helper()
		if got.Status != want.Status || got.Body != want.Body || got.Header.Get("Content-Type") != want.Header.Get("Content-Type") || len(got.Header) != len(want.Header) {
			t.Errorf("%s: %d %s, a made-up tool gets %d %s", name, got.Status, got.Body, want.Status, want.Body)
		}
	}
	same("A-075 hidden", s.post(t, "modern", token, "delete_issue", callBody("delete_issue", `{"number":1}`)))
	for name, tool := range map[string][2]string{"zero width": {"delete_issue\u200b", "delete_issue\u200b"}, "cyrillic": {"d\u0435lete_issue", "d\u0435lete_issue"}, "NFD": {"de\u0301lete", "de\u0301lete"},
		"NUL": {`delete_issue\u0000`, "delete_issue\x00"}, "newline": {`delete_issue\n`, "delete_issue\n"}, "tag block": {"delete_issue\U000E0041", "delete_issue\U000E0041"},
		"bidi": {"\u202edelete_issue", "\u202edelete_issue"}, "space": {"delete_issue ", "delete_issue "}} {
		before := len(s.Modern.Recorder.Entries())
		got := coded(tool[0], tool[1])
		if !strings.Contains(got.Body, `"error"`) {
			t.Errorf("A-074 %s: %d %s", name, got.Status, got.Body)
		}
		if strings.ContainsAny(tool[1], "\x00\n\u200b\u202e\U000E0041") || strings.HasSuffix(tool[1], " ") {
			same("A-074 "+name, got)
			if len(s.Modern.Recorder.Entries()) != before {
				t.Errorf("A-074 %s: a name with characters that nobody sees got to the server", name)
			}
		}
	}
	for name, tool := range map[string]string{"upper case": "DELETE_ISSUE", "dot": "delete_issue.", "prefix": "modern__delete_issue", "slash": "modern/delete_issue"} {
		same("A-074 "+name, s.post(t, "modern", token, tool, callBody(tool, `{"number":1}`)))
	}
	if got := s.post(t, "modern", token, "", callBody("", "{}")); !strings.Contains(got.Body, "-32602") {
		t.Errorf("A-074 empty: %d %s", got.Status, got.Body)
	}
	list := send(t, http.MethodPost, s.Desk().MCP("modern"), message(`"method":"tools/list","params":{`+meta+`}`), "Content-Type", "application/json", "Accept", "application/json, text/event-stream",
		"MCP-Protocol-Version", "2026-07-28", "Mcp-Method", "tools/list", "Authorization", "Bearer "+token)
	if list.Status != http.StatusOK || strings.Contains(list.Body, "delete_issue") || !strings.Contains(list.Body, "whoami") {
		t.Errorf("A-075 the list: %d %.300s", list.Status, list.Body)
	}
}

// TestA076_methodsNobodyKnows: what the protocol does not have a client ask is not asked, and notices are no acts.
func TestA076_methodsNobodyKnows(t *testing.T) {
	s := foes(t)
	s.oracles(t)
	token := s.at(t, "alice")
	s.evil.answer(result(`{"jsonrpc":"2.0","id":$ID,"result":{"secret":"reached"}}`))
	for _, method := range []string{"x/evil", "sampling/createMessage", "elicitation/create", "roots/list", "tools/delete", "Tools/call", "tools/call ", "rpc.discover"} {
		s.evil.answer(result(`{"jsonrpc":"2.0","id":$ID,"result":{"secret":"reached"}}`))
		got := send(t, http.MethodPost, s.Desk().MCP("evil"), message(fmt.Sprintf(`"method":%q,"params":{%s}`, method, meta)), "Content-Type", "application/json",
			"MCP-Protocol-Version", "2026-07-28", "Mcp-Method", strings.TrimSpace(method), "Authorization", "Bearer "+token)
		if strings.Contains(got.Body, "reached") || len(s.evil.heard()) > 0 || !strings.Contains(got.Body, "-32601") && !strings.Contains(got.Body, "-32020") {
			t.Errorf("A-076 %q: %d %s, the server heard %d", method, got.Status, got.Body, len(s.evil.heard()))
		}
	}
	// A notification opens no call: the keycard that goes with it, if any, opens nothing.
	session := s.session(t, "issues", token)
	before := s.calls()
	for _, n := range []string{"notifications/initialized", "notifications/x/evil", "notifications/roots/list_changed"} {
		if got := s.legacy(t, "issues", token, session, `{"jsonrpc":"2.0","method":"`+n+`"}`); got.Status < 200 {
			t.Errorf("A-076 %s: %d %s", n, got.Status, got.Body)
		}
	}
	if s.calls() != before {
		t.Error("A-076: a notification made the server use a credential")
	}
}
