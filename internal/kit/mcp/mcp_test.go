package mcp_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	"frontdesk.dev/frontdesk/internal/kit/mcp"
)

const modernMeta = `"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{"elicitation":{"url":{}}},"io.modelcontextprotocol/clientInfo":{"name":"Agent"}}`

func TestScanRefuses(t *testing.T) {
	deep := strings.Repeat(`[`, 70) + strings.Repeat(`]`, 70)
	tests := []struct {
		name, body string
		code       int
	}{
		{"empty", "", mcp.CodeParse},
		{"not JSON", "hello", mcp.CodeParse},
		{"byte order mark", "\xef\xbb\xbf" + `{"jsonrpc":"2.0","id":1,"method":"ping"}`, mcp.CodeParse},
		{"invalid UTF-8", `{"jsonrpc":"2.0","id":1,"method":"p` + "\xff" + `"}`, mcp.CodeParse},
		{"trailing bytes", `{"jsonrpc":"2.0","id":1,"method":"ping"} x`, mcp.CodeParse},
		{"control character in a string", "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"pi\x01ng\"}", mcp.CodeParse},
		{"batch", `[{"jsonrpc":"2.0","id":1,"method":"ping"}]`, mcp.CodeRequest},
		{"two methods", `{"jsonrpc":"2.0","id":1,"method":"ping","method":"tools/call"}`, mcp.CodeRequest},
		{"two methods, one escaped", `{"jsonrpc":"2.0","id":1,"method":"ping","m\u0065thod":"tools/call"}`, mcp.CodeRequest},
		{"two names", `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","na\u006de":"b"}}`, mcp.CodeRequest},
		{"two names, one in capitals", `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","Name":"b"}}`, mcp.CodeRequest},
		{"two params", `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a"},"params":{"name":"b"}}`, mcp.CodeRequest},
		{"two versions in _meta", `{"jsonrpc":"2.0","id":1,"method":"ping","params":{"_meta":{"x":1,"x":2}}}`, mcp.CodeRequest},
		{"too deep", `{"jsonrpc":"2.0","id":1,"method":"ping","params":{"a":` + deep + `}}`, mcp.CodeRequest},
		{"null id", `{"jsonrpc":"2.0","id":null,"method":"ping"}`, mcp.CodeRequest},
		{"fraction id", `{"jsonrpc":"2.0","id":1.0,"method":"ping"}`, mcp.CodeRequest},
		{"exponent id", `{"jsonrpc":"2.0","id":1e0,"method":"ping"}`, mcp.CodeRequest},
		{"object id", `{"jsonrpc":"2.0","id":{},"method":"ping"}`, mcp.CodeRequest},
		{"version as number", `{"jsonrpc":2.0,"id":1,"method":"ping"}`, mcp.CodeRequest},
		{"no version", `{"id":1,"method":"ping"}`, mcp.CodeRequest},
		{"result and error", `{"jsonrpc":"2.0","id":1,"result":{},"error":{}}`, mcp.CodeRequest},
		{"method and result", `{"jsonrpc":"2.0","id":1,"method":"x","result":{}}`, mcp.CodeRequest},
		{"nothing", `{"jsonrpc":"2.0","id":1}`, mcp.CodeRequest},
		{"Method is another name", `{"jsonrpc":"2.0","id":1,"Method":"ping"}`, mcp.CodeRequest},
		{"no name", `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{}}`, mcp.CodeParams},
		{"null name", `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":null}}`, mcp.CodeParams},
		{"lone surrogate", `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"\ud800"}}`, mcp.CodeParams},
	}
	for _, tt := range tests {
		_, err := mcp.Scan([]byte(tt.body))
		f, ok := errors.AsType[*mcp.Fault](err)
		if !ok || f.Code != tt.code {
			t.Errorf("%s: got %v, want code %d", tt.name, err, tt.code)
		}
	}
}

func TestScanFinds(t *testing.T) {
	m, err := mcp.Scan([]byte(` {"id":"a\u0062","params":{"name":"get_\u0069ssue","arguments":{"key":"OPS-1","n":9007199254740993},` + modernMeta + `},"method":"tools/call","jsonrpc":"2.0","x":[1]} `))
	if err != nil {
		t.Fatal(err)
	}
	got := []any{m.Kind, m.Method, m.Target, m.Version, m.Modern(), m.DeclaresURLElicitation(), m.ClientName(), string(m.IDBytes())}
	if d := cmp.Diff([]any{mcp.Request, "tools/call", "get_issue", "2026-07-28", true, true, "Agent", `"a\u0062"`}, got); d != "" {
		t.Error(d)
	}
	args, err := m.ArgumentValues([]string{"n", "absent"})
	if err != nil || string(args["n"]) != "9007199254740993" || len(args) != 1 {
		t.Errorf("got %s, %v", args, err)
	}
	for body, want := range map[string]bool{`{"elicitation":{}}`: false, `{"elicitation":{"form":{}}}`: false, `{"elicitation":{"url":{}}}`: true, `{"elicitation":{"url":null}}`: false, `{}`: false} {
		m, err := mcp.Scan([]byte(`{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":` + body + `,"clientInfo":{"name":"x"}}}`))
		if err != nil || m.DeclaresURLElicitation() != want || m.Version != "2025-11-25" {
			t.Errorf("%s: got %v, %v", body, m.DeclaresURLElicitation(), err)
		}
	}
}

func TestArgumentsTwiceAreRefused(t *testing.T) {
	m, err := mcp.Scan([]byte(`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"x","arguments":{"repo":"ok","r\u0065po":"evil"}}}`))
	if err != nil {
		t.Fatal(err)
	}
	if v, err := m.ArgumentValues([]string{"repo"}); err == nil {
		t.Errorf("got %s", v)
	}
}

func TestCheckHeaders(t *testing.T) {
	m, err := mcp.Scan([]byte(`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"grün",` + modernMeta + `}}`))
	if err != nil {
		t.Fatal(err)
	}
	good := func() http.Header {
		return http.Header{"Mcp-Protocol-Version": {"2026-07-28"}, "Mcp-Method": {" tools/call "}, "Mcp-Name": {mcp.EncodeHeader("grün")}}
	}
	if err := mcp.CheckHeaders(good(), &m); err != nil {
		t.Errorf("good headers: %v", err)
	}
	for name, change := range map[string]func(http.Header){
		"no method": func(h http.Header) { h.Del("Mcp-Method") }, "other method": func(h http.Header) { h.Set("Mcp-Method", "tools/list") },
		"method twice": func(h http.Header) { h.Add("Mcp-Method", "tools/call") }, "other name": func(h http.Header) { h.Set("Mcp-Name", "x") },
		"bad base64": func(h http.Header) { h.Set("Mcp-Name", "=?base64?!?=") }, "marker in capitals is literal": func(h http.Header) { h.Set("Mcp-Name", "=?BASE64?Z3LDvG4=?=") },
		"other version": func(h http.Header) { h.Set("Mcp-Protocol-Version", "2025-11-25") },
	} {
		h := good()
		change(h)
		if f, ok := errors.AsType[*mcp.Fault](mcp.CheckHeaders(h, &m)); !ok || f.Code != mcp.CodeHeaderMismatch {
			t.Errorf("%s: got %v", name, f)
		}
	}
}

func TestFilterList(t *testing.T) {
	const answer = `{"jsonrpc":"2.0","id":1,"result":{"tools":[ {"name":"a","x":1.0}, {"name":"b"} ,{"name":"c","inputSchema":{"n":[]}} ],"nextCursor":""}}`
	names, err := mcp.ListNames("tools/list", []byte(answer))
	if d := cmp.Diff([]string{"a", "b", "c"}, names); d != "" || err != nil {
		t.Fatal(d, err)
	}
	for _, tt := range []struct {
		keep []bool
		want string
	}{
		{[]bool{true, true, true}, answer},
		{[]bool{true, false, true}, `{"jsonrpc":"2.0","id":1,"result":{"tools":[ {"name":"a","x":1.0},{"name":"c","inputSchema":{"n":[]}} ],"nextCursor":""}}`},
		{[]bool{false, false, false}, `{"jsonrpc":"2.0","id":1,"result":{"tools":[  ],"nextCursor":""}}`},
	} {
		got, err := mcp.FilterList("tools/list", []byte(answer), tt.keep)
		if err != nil || string(got) != tt.want || !json.Valid(got) {
			t.Errorf("%v: got %s, %v", tt.keep, got, err)
		}
	}
}

func TestWithParams(t *testing.T) {
	m, err := mcp.Scan([]byte(`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"requestState":"s", "name":"x" ,"inputResponses":{"a":1},"arguments":{"n":1.50}}}`))
	if err != nil {
		t.Fatal(err)
	}
	want := `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"x","arguments":{"n":1.50}}}`
	if got := string(m.WithParams(map[string][]byte{"requestState": []byte(`"own"`), "inputResponses": nil})); got != `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"requestState":"own","name":"x","arguments":{"n":1.50}}}` {
		t.Errorf("got %s", got)
	}
	if got := string(m.WithParams(map[string][]byte{"requestState": nil, "inputResponses": nil})); got != want {
		t.Errorf("got %s", got)
	}
}

func TestEvents(t *testing.T) {
	const stream = "\xef\xbb\xbf: hi\n\nevent: message\nid: 7\ndata: {\"a\":\ndata:  1}\n\ndata\r\n\r\nevent: other\rdata: x\r\revent: message\ndata: lost"
	for name, r := range map[string]io.Reader{"whole": strings.NewReader(stream), "byte by byte": iotest.OneByteReader(strings.NewReader(stream))} {
		events := mcp.NewEvents(r)
		var got []string
		var raw bytes.Buffer
		for {
			e, err := events.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			raw.Write(e.Raw)
			got = append(got, e.Type+"|"+string(e.Data)+"|"+e.ID+"|"+map[bool]string{true: "message", false: "-"}[e.Message()])
		}
		want := []string{"|||-", "message|{\"a\":\n 1}|7|message", "|||-", "other|x||-"}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s: %s", name, d)
		}
		if strings.ContainsRune(raw.String(), '\r') {
			t.Errorf("%s: a CR passed, which some readers take for a line end and others don't: %q", name, raw.String())
		}
	}
}

func FuzzScan(f *testing.F) {
	f.Add([]byte(`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"x","arguments":{"a":1},` + modernMeta + `}}`))
	f.Add([]byte(`{"jsonrpc":"2.0","id":1,"result":{}}`))
	f.Add([]byte(`{"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"a"}, {"name":"b"}],"nextCursor":""}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		m, err := mcp.Scan(body)
		if err != nil {
			return
		}
		// Whatever we take, encoding/json takes too, and sees the same method, name and id.
		var std struct {
			Method string          `json:"method"`
			ID     json.RawMessage `json:"id"`
		}
		var all map[string]json.RawMessage
		if method := mcp.ListIn(body); method != "" {
			if names, err := mcp.ListNames(method, body); err == nil {
				if out, err := mcp.FilterList(method, body, make([]bool, len(names))); err != nil || !json.Valid(out) {
					t.Errorf("filtering broke it: %q, %v", out, err)
				}
			}
		}
		if json.Unmarshal(body, &all) != nil {
			t.Fatalf("taken, but not JSON: %q", body)
		}
		std.ID = all["id"]
		if raw, ok := all["method"]; ok && json.Unmarshal(raw, &std.Method) != nil {
			t.Fatalf("method is no string: %q", body)
		}
		if std.Method != m.Method || m.ID.Present() && string(std.ID) != string(m.IDBytes()) {
			t.Errorf("we see %q %s, encoding/json %q %s", m.Method, m.IDBytes(), std.Method, std.ID)
		}
		if m.Method == "tools/call" && m.Kind == mcp.Request {
			var params map[string]json.RawMessage
			var name string
			if json.Unmarshal(all["params"], &params) != nil || json.Unmarshal(params["name"], &name) != nil || name != m.Target {
				t.Errorf("we see the tool %q, encoding/json %q", m.Target, name)
			}
		}
		if out := m.WithParams(map[string][]byte{"requestState": nil}); !json.Valid(out) {
			t.Errorf("splicing broke it: %q", out)
		}
	})
}

func FuzzEvents(f *testing.F) {
	f.Add([]byte("event: message\ndata: x\n\n"))
	f.Fuzz(func(t *testing.T, stream []byte) {
		events, n := mcp.NewEvents(bytes.NewReader(stream)), 0
		for {
			e, err := events.Next()
			if err != nil {
				return
			}
			if n += len(e.Raw); n > len(stream) || len(e.Raw) == 0 {
				t.Fatal("more came out than went in, or nothing")
			}
		}
	})
}

func BenchmarkScan1KB(b *testing.B) {
	body := []byte(`{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"get_issue","arguments":{"text":"` + strings.Repeat("lorem ipsum ", 55) + `"},` + modernMeta + `}}`)
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := mcp.Scan(body); err != nil {
			b.Fatal(err)
		}
	}
}

func TestReadOnly(t *testing.T) {
	answer := []byte(`{"result":{"tools":[{"name":"a","annotations":{"readOnlyHint":true}},{"name":"b"},{"name":"c","annotations":{"readOnlyHint":"true"}},{"name":"d","annotations":{"readOnlyHint":false}},{"name":"e","annotations":7}]}}`)
	got, err := mcp.ReadOnly(answer)
	if want := []bool{true, false, false, false, false}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
	if _, err := mcp.ReadOnly([]byte(`{"result":{}}`)); !errors.Is(err, mcp.ErrNotList) {
		t.Errorf("no list: %v", err)
	}
}

// TestWithText: a text is put behind the others of a tool's result, and nothing else moves.
func TestWithText(t *testing.T) {
	const block = `{"type":"text","text":"a \"b\""}`
	for body, want := range map[string]string{
		`{"jsonrpc":"2.0","id":1,"result":{"content":[ {"type":"text","text":"]"} ],"isError":true,"n":1.50}}`: `{"jsonrpc":"2.0","id":1,"result":{"content":[ {"type":"text","text":"]"} ,` + block + `],"isError":true,"n":1.50}}`,
		`{"result":{"isError":false, "content":[ ]},"id":1,"jsonrpc":"2.0"}`:                                   `{"result":{"isError":false, "content":[ ` + block + `]},"id":1,"jsonrpc":"2.0"}`,
		`{"jsonrpc":"2.0","id":1,"result":{"content":"x"}}`:                                                    `{"jsonrpc":"2.0","id":1,"result":{"content":"x"}}`,
		`{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"m"}}`:                                            `{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"m"}}`,
	} {
		m, err := mcp.Scan([]byte(body))
		if err != nil {
			t.Fatal(err)
		}
		if got := string(m.WithText(`a "b"`)); got != want {
			t.Errorf("got %s\nwant %s", got, want)
		}
	}
}
