package redact_test

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"reflect"
	"strings"
	"testing"

	"frontdesk.dev/frontdesk/internal/kit/redact"
)

func TestMasking(t *testing.T) {
	var zipped bytes.Buffer
	w := gzip.NewWriter(&zipped)
	_, _ = io.WriteString(w, `{"email":"a"}`)
	_ = w.Close()
	tests := []struct {
		name, masks, kind, body, want string
		status                        int
		header                        http.Header
	}{
		{name: "a member", masks: "/email", kind: "application/json", body: `{"email":"a@b","name":"x"}`, want: `{"email":null,"name":"x"}`},
		{name: "every element", masks: "/items/*/email", kind: "application/json; charset=utf-8", body: `{"items":[{"email":1},{"x":2},[3]],"email":"stays"}`, want: `{"items":[{"email":null},{"x":2},[3]],"email":"stays"}`},
		{name: "an element", masks: "/0", kind: "application/vnd.x+json", body: `[{"a":1},2]`, want: `[null,2]`},
		{name: "escaped", masks: "/a~1b /c~0d", kind: "application/json", body: `{"a\u002fb":1,"c~d":2}`, want: `{"a/b":null,"c~d":null}`},
		{name: "a name escaped", masks: "/email", kind: "application/json", body: `{"em\u0061il":1}`, want: `{"email":null}`},
		{name: "not there", masks: "/email", kind: "application/json", body: `7.50`, want: `7.50`},
		{name: "gzip", masks: "/email", kind: "application/json", body: zipped.String(), want: `{"email":null}`, header: http.Header{"Content-Encoding": {"gzip"}}},
		{name: "an error", masks: "/email", kind: "application/json", body: `{"email":1}`, want: `{"email":null}`, status: 404},
		{name: "nothing", masks: "/email", status: 204},
		{name: "twice", masks: "/email", kind: "application/json", body: `{"email":1,"email":2}`},
		{name: "two values", masks: "/email", kind: "application/json", body: `{}{"email":2}`},
		{name: "no JSON", masks: "/email", kind: "application/json", body: `email=1`},
		{name: "text", masks: "/email", kind: "text/plain", body: `{"email":1}`},
		{name: "gRPC", masks: "/email", kind: "application/grpc", body: "\x00\x00\x00\x00\x00"},
		{name: "of two types", masks: "/email", kind: "application/json, text/event-stream", body: "data: {\"email\":1}\n\n"},
		{name: "a part", masks: "/email", kind: "application/json", body: `{"email":1}`, status: 206},
		{name: "switched", masks: "/email", body: `x`, status: 101},
		{name: "too large", masks: "/email", kind: "application/json", body: `"` + strings.Repeat("x", 8<<20) + `"`},
		{name: "unknown coding", masks: "/email", kind: "application/json", body: `x`, header: http.Header{"Content-Encoding": {"odd"}}},
	}
	for _, marks := range [][][]byte{nil, {[]byte("a-secret-that-is-long")}} {
		for _, tt := range tests {
			resp := &http.Response{StatusCode: max(tt.status, 200), Header: tt.header.Clone(), Body: io.NopCloser(strings.NewReader(tt.body))}
			if tt.status != 0 {
				resp.StatusCode = tt.status
			}
			if resp.Header == nil {
				resp.Header = http.Header{}
			}
			resp.Header.Set("Content-Type", tt.kind)
			err := redact.New(marks).Masking(strings.Fields(tt.masks)).Response(resp)
			got, _ := io.ReadAll(resp.Body)
			if fails := tt.want == "" && tt.body != ""; (err != nil) != fails || fails && !errors.Is(err, redact.ErrUnmaskable) && !errors.Is(err, redact.ErrUncleanable) || string(got) != tt.want {
				t.Errorf("%s: %q %v, want %q", tt.name, got, err, tt.want)
			}
		}
	}
}

// FuzzMasking compares with encoding/json, value by value.
func FuzzMasking(f *testing.F) {
	f.Add([]byte(`{"a":{"b":[1,2.50,"x"]},"b":null}`))
	f.Add([]byte(`[{"a":1},{"a":{"b":2}}]`))
	f.Fuzz(func(t *testing.T, body []byte) {
		resp := &http.Response{StatusCode: 200, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(bytes.NewReader(body))}
		if redact.New(nil).Masking([]string{"/*/a", "/a/b"}).Response(resp) != nil {
			return
		}
		got, _ := io.ReadAll(resp.Body)
		if len(body) == 0 && len(got) == 0 {
			return
		}
		var in, out any
		if asWritten(body, &in) != nil || asWritten(got, &out) != nil {
			t.Fatalf("%q became %q", body, got)
		}
		switch v := in.(type) {
		case map[string]any:
			if m, ok := v["a"].(map[string]any); ok && has(m, "b") {
				m["b"] = nil
			}
			for _, e := range v {
				if m, ok := e.(map[string]any); ok && has(m, "a") {
					m["a"] = nil
				}
			}
		case []any:
			for _, e := range v {
				if m, ok := e.(map[string]any); ok && has(m, "a") {
					m["a"] = nil
				}
			}
		}
		if !reflect.DeepEqual(in, out) {
			t.Fatalf("%q became %q", body, got)
		}
	})
}

// asWritten reads JSON with its numbers as they are: some are too large for encoding/json.
func asWritten(text []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	return d.Decode(v)
}

func has(m map[string]any, k string) bool { _, ok := m[k]; return ok }
