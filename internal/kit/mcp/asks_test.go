package mcp

import (
	"bytes"
	"slices"
	"testing"
)

func TestDeclared(t *testing.T) {
	for raw, want := range map[string][]string{
		`{}`: nil, `{"sampling":{}}`: {AskSampling}, `{"elicitation":{}}`: {AskForm}, `{"elicitation":{"url":{}}}`: {AskURL}, `{"elicitation":{"url":{},"form":{}}}`: {AskURL, AskForm},
		`{"elicitation":true,"roots":1}`: nil, `{"roots":{},"tasks":{}}`: {AskRoots, AskTasks}, `{"elicitation":{"url":{}},"elicitation":{}}`: nil,
	} {
		m, err := Scan([]byte(`{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":` + raw + `}}`))
		if err != nil {
			t.Fatal(err)
		}
		if got := m.Declared(); !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", raw, got, want)
		}
	}
}

func TestSameID(t *testing.T) {
	for pair, want := range map[[2]string]bool{{"7", "7"}: true, {"7", `"7"`}: false, {`"a"`, `"\u0061"`}: true, {"9007199254740993", "9007199254740992"}: true, {"1", "2"}: false, {"", "1"}: false, {`"a"`, `"b"`}: false, {"1", "1.0"}: true} {
		if got := SameID([]byte(pair[0]), []byte(pair[1])); got != want {
			t.Errorf("%v: %v", pair, got)
		}
	}
}

// FuzzAsks: whatever a server answers, its questions are found within it or it is refused; nothing is read past its end.
func FuzzAsks(f *testing.F) {
	f.Add([]byte(`{"jsonrpc":"2.0","id":1,"result":{"resultType":"input_required","inputRequests":{"k":{"method":"elicitation/create","params":{"mode":"url","message":"m","url":"https://a.test"}}}}}`))
	f.Add([]byte(`{"jsonrpc":"2.0","id":1,"error":{"code":-32042,"message":"x","data":{"elicitations":[{"mode":"url","message":"m","url":"javascript:1"}]}}}`))
	f.Add([]byte(`{"jsonrpc":"2.0","id":1,"result":{"resultType":"input_required","inputRequests":[1]}}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		m, err := Scan(raw)
		if err != nil || m.Kind != Response {
			return
		}
		asks, err := m.Asks()
		if err != nil {
			return
		}
		for _, a := range asks {
			_ = BadAsk(a.Params, func(string) bool { return false })
			if a.Message.Present() && !bytes.Equal(m.Of(a.Message), Lookup(a.Params, "message")) {
				t.Errorf("the text of a question was looked for at the wrong place: %q", m.Of(a.Message))
			}
		}
	})
}
