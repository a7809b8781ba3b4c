package redact_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"

	"frontdesk.dev/frontdesk/internal/kit/redact"
)

func TestMaskingStreams(t *testing.T) {
	const sse, lines, seq = "text/event-stream", "application/x-ndjson", "application/json-seq"
	for _, tt := range []struct {
		name, kind, body, want string
		err                    error
	}{
		{"events", sse, ": hello\n\nevent: user\nid: 7\ndata: {\"email\":\"a@b\",\"n\":1}\n\ndata:{\"email\":1}\n\n", ": hello\n\nevent: user\nid: 7\ndata: {\"email\":null,\"n\":1}\n\ndata: {\"email\":null}\n\n", nil},
		{"one in several lines", sse, "data: {\"em\\u0061il\":\ndata: \"a@b\",\ndata:\ndata: \"n\" : 1.50}\nid: 1\n\n", "id: 1\ndata: {\"email\":null,\"n\":1.50}\n\n", nil},
		{"CR LF", sse, "data: {\"email\":1}\r\n\r\ndata: 2\r\n\r\n", "data: {\"email\":null}\n\ndata: 2\n\n", nil},
		{"CR", sse, "data: {\"email\":1}\r\rdata: 2\r\r", "data: {\"email\":null}\n\ndata: 2\n\n", nil},
		{"a mark of the order of bytes", sse, "\ufeffdata: {\"email\":1}\n\n", "data: {\"email\":null}\n\n", nil},
		{"a mark that is none", sse, "\n\ufeffdata: {\"email\":1}\n\n", "\n\n", nil},
		{"fields that nobody has", sse, "Data: {\"email\":1}\ndata : {\"email\":1}\nemail: a@b\nretry: 10\n\n", "retry: 10\n\n", nil},
		{"the last word", sse, "data: {\"email\":1}\n\ndata: [DONE]\n\n", "data: {\"email\":null}\n\ndata: [DONE]\n\n", nil},
		{"no data", sse, "data\n\ndata:\n\nevent: x\n\n", "data: \n\ndata: \n\nevent: x\n\n", nil},
		{"no end", sse, "data: {\"email\":1}", "data: {\"email\":null}\n", nil},
		{"no end of its lines", sse, "data: {\"email\":1}\ndata: ", "data: {\"email\":null}\n", nil},
		{"text", sse, "data: 1\n\ndata: email=a@b\n\n", "data: 1\n\n", redact.ErrUnmaskable},
		{"two values", sse, "data: {}{\"email\":1}\n\n", "", redact.ErrUnmaskable},
		{"a name twice", sse, "data: {\"email\":1,\"email\":2}\n\n", "", redact.ErrUnmaskable},
		{"half an event at the end", sse, "data: {\"email\":", "", redact.ErrUnmaskable},
		{"an event that is too large", sse, "data: \"" + strings.Repeat("x", 8<<20) + "\"\n\n", "", redact.ErrUnmaskable},
		{"too many lines", sse, strings.Repeat("data: "+strings.Repeat(" ", 1<<20)+"\n", 9) + "data: 1\n\n", "", redact.ErrUnmaskable},

		{"lines", lines, "{\"email\":1, \"n\":2}\n\n[1]\r\n{\"a\":{\"email\":1}}", "{\"email\":null,\"n\":2}\n[1]\n{\"a\":{\"email\":1}}\n", nil},
		{"lines without ends", "application/stream+json", "{\"email\":1}{\"email\":2}", "{\"email\":null}\n{\"email\":null}\n", nil},
		{"a line of text", lines, "{\"email\":1}\nemail=a@b\n", "{\"email\":null}\n", redact.ErrUnmaskable},
		{"a line that is cut", lines, "{\"email\":1}\n{\"email\":", "{\"email\":null}\n", io.ErrUnexpectedEOF},
		{"a line that is too large", lines, "1\n\"" + strings.Repeat("x", 9<<20) + "\"\n", "1\n", redact.ErrUnmaskable},
		{"many lines", lines, strings.Repeat("{\"email\":\""+strings.Repeat("x", 1000)+"\"}\n", 10_000), strings.Repeat("{\"email\":null}\n", 10_000), nil},
		{"a sequence", seq, "\x1e{\"email\":1}\n\x1e{\"n\":\n1}\n", "\x1e{\"email\":null}\n\x1e{\"n\":1}\n", nil},
		{"nothing", lines, "", "", nil},
	} {
		for _, slow := range []bool{false, len(tt.body) < 1000} {
			var body io.Reader = strings.NewReader(tt.body)
			if slow {
				body = iotest.OneByteReader(body)
			}
			resp := &http.Response{StatusCode: 200, Header: http.Header{"Content-Type": {tt.kind}, "Content-Length": {"9"}}, ContentLength: 9, Body: io.NopCloser(body)}
			if err := redact.New(nil).Masking([]string{"/email"}).Response(resp); err != nil || resp.ContentLength != -1 || resp.Header.Get("Content-Length") != "" {
				t.Fatalf("%s: %v", tt.name, err)
			}
			got, err := io.ReadAll(resp.Body)
			if string(got) != tt.want || !errors.Is(err, tt.err) {
				t.Errorf("%s: %.300q %v, want %.300q", tt.name, got, err, tt.want)
			}
		}
	}
	// What the source says goes on as it is.
	away := errors.New("away")
	for _, kind := range []string{sse, lines} {
		resp := &http.Response{StatusCode: 200, Header: http.Header{"Content-Type": {kind}}, Body: io.NopCloser(io.MultiReader(strings.NewReader("data: 1\n"), iotest.ErrReader(away)))}
		if kind == lines {
			resp.Body = io.NopCloser(io.MultiReader(strings.NewReader("{\"a\":"), iotest.ErrReader(away)))
		}
		if err := redact.New(nil).Masking([]string{"/email"}).Response(resp); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(resp.Body); !errors.Is(err, away) || len(got) > 0 {
			t.Errorf("%s: %q %v", kind, got, err)
		}
	}
}

// TestMaskedEventsComeAtOnce: an event arrives before the next one exists.
func TestMaskedEventsComeAtOnce(t *testing.T) {
	for kind, format := range map[string][2]string{"text/event-stream": {"data: {\"n\":%d,\"email\":1}\n\n", "data: {\"n\":%d,\"email\":null}\n\n"}, "application/x-ndjson": {"{\"n\":%d,\"email\":1}\n", "{\"n\":%d,\"email\":null}\n"},
		"application/json-seq": {"\x1e{\"n\":%d,\"email\":1}\n", "\x1e{\"n\":%d,\"email\":null}\n"}} {
		in, out := io.Pipe()
		resp := &http.Response{StatusCode: 200, Header: http.Header{"Content-Type": {kind}}, Body: in}
		if err := redact.New([][]byte{[]byte(canary)}).Masking([]string{"/email"}).Response(resp); err != nil {
			t.Fatal(err)
		}
		for i := range 3 {
			go func() { fmt.Fprintf(out, format[0], i) }()
			want := fmt.Sprintf(format[1], i)
			got := make([]byte, len(want))
			if _, err := io.ReadFull(resp.Body, got); err != nil || string(got) != want {
				t.Fatalf("%s: %q %v", kind, got, err)
			}
		}
		_ = resp.Body.Close()
	}
}

// FuzzMaskingEvents: whatever comes, no client of events finds what is masked in what goes out.
func FuzzMaskingEvents(f *testing.F) {
	for _, s := range []string{"data: {\"email\":\"SECRET\"}\n\n", "data: {\"email\"\rdata: :\"SECRET\"}\r\r", "\ufeffdata:{\"email\":\"SECRET\"}\r\n\r\n", "data: [DONE]\n\nid: 1\n", ":\n\ndata"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		resp := &http.Response{StatusCode: 200, Header: http.Header{"Content-Type": {"text/event-stream"}}, Body: io.NopCloser(bytes.NewReader(body))}
		if err := redact.New(nil).Masking([]string{"/email"}).Response(resp); err != nil {
			t.Fatal(err)
		}
		got, _ := io.ReadAll(resp.Body)
		for _, event := range dispatched(got) {
			resp := &http.Response{StatusCode: 200, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(event))}
			if event == "" || event == "[DONE]" {
				continue
			}
			if err := redact.New(nil).Masking([]string{"/email"}).Response(resp); err != nil {
				t.Fatalf("%q became %q: its event %q could not be masked", body, got, event)
			}
			if again, _ := io.ReadAll(resp.Body); string(again) != event {
				t.Fatalf("%q became %q: its event %q is not masked", body, got, event)
			}
		}
	})
}

// dispatched are the events of a stream, as the standard reads it.
func dispatched(stream []byte) (l []string) {
	text := strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(strings.TrimPrefix(string(stream), "\ufeff"))
	data, some := "", false
	for line := range strings.SplitSeq(text, "\n") {
		name, value, _ := strings.Cut(line, ":")
		switch {
		case line == "" && some:
			l, data, some = append(l, strings.TrimSuffix(data, "\n")), "", false
		case name == "data":
			data, some = data+strings.TrimPrefix(value, " ")+"\n", true
		}
	}
	return l
}
