package redact_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/klauspost/compress/gzip"

	"frontdesk.dev/frontdesk/internal/kit/redact"
)

// message is one message of gRPC.
func message(flags byte, text string) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{flags}, uint32(len(text))), text...)
}

func gzipped(text string) string {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = io.WriteString(z, text)
	_ = z.Close()
	return b.String()
}

// unpack reads messages the slow way.
func unpack(t *testing.T, b []byte) (flags []byte, texts []string) {
	t.Helper()
	for len(b) > 0 {
		n := int(binary.BigEndian.Uint32(b[1:]))
		flags, texts = append(flags, b[0]), append(texts, string(b[5:5+n]))
		b = b[5+n:]
	}
	return flags, texts
}

func TestMessages(t *testing.T) {
	for seed := range uint64(300) {
		rnd := rand.New(rand.NewPCG(seed, 5))
		text := strings.Repeat("x", rnd.IntN(200)) + canary + strings.Repeat("y", 4+rnd.IntN(70_000*rnd.IntN(2)+1)) + canary + "z"
		var stream []byte
		var sizes []int
		rest := text
		for rest != "" {
			n := min(len(rest), rnd.IntN(40))
			if rnd.IntN(20) == 0 {
				n = len(rest)
			}
			if sizes = append(sizes, n); rnd.IntN(3) == 0 {
				stream = append(stream, message(1, gzipped(rest[:n]))...)
			} else {
				stream = append(stream, message(0, rest[:n])...)
			}
			rest = rest[n:]
		}
		stream = append(stream, message(0x80, "grpc-status:0\r\ngrpc-message:"+canary+"\r\n")...) // gRPC-Web's trailer
		r := redact.New([][]byte{[]byte(canary)})
		var src io.Reader = bytes.NewReader(stream)
		if seed%3 == 0 {
			src = iotest.OneByteReader(src)
		}
		got, err := io.ReadAll(r.Messages(src, "gzip"))
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		flags, texts := unpack(t, got)
		want := redact.New([][]byte{[]byte(canary)}).String(text)
		if last := len(texts) - 1; len(texts) != len(sizes)+1 || !butEarly(want, strings.Join(texts[:last], "")) || flags[last] != 0x80 || strings.Contains(texts[last], canary) || !strings.HasPrefix(texts[last], "grpc-status:0\r\n") {
			t.Fatalf("seed %d: %d messages of %d: %.300q", seed, len(texts), len(sizes)+1, texts)
		}
		for i, n := range sizes {
			if len(texts[i]) != n || flags[i] != 0 {
				t.Fatalf("seed %d: message %d has %d bytes of %d, flags %x", seed, i, len(texts[i]), n, flags[i])
			}
		}
	}
}

// TestMessagesDoNotWait: a message arrives before the next one exists.
func TestMessagesDoNotWait(t *testing.T) {
	in, out := io.Pipe()
	defer func() { _ = in.Close() }()
	r := redact.New([][]byte{[]byte(canary)}).Messages(in, "gzip")
	for _, m := range [][2][]byte{{message(0, "hello"), nil}, {message(0, ""), nil}, {message(0, "CNRY"), nil}, {message(1, gzipped("packed")), message(0, "packed")}, {message(1, gzipped("")), message(0, "")}} {
		go func() { _, _ = out.Write(m[0]) }()
		if m[1] == nil {
			m[1] = m[0]
		}
		got := make([]byte, len(m[1]))
		if _, err := io.ReadFull(r, got); err != nil || !bytes.Equal(got, m[1]) {
			t.Fatalf("%q %v", got, err)
		}
	}
}

func TestMessagesThatAreNone(t *testing.T) {
	for name, c := range map[string]struct {
		stream []byte
		coding string
		want   error
	}{
		"cut in the head":             {[]byte{0, 0}, "", io.ErrUnexpectedEOF},
		"cut in the text":             {message(0, "hello")[:7], "", io.ErrUnexpectedEOF},
		"cut where it is packed":      {message(1, gzipped("hello"))[:20], "gzip", io.ErrUnexpectedEOF},
		"unknown flags":               {message(2, "hello"), "", redact.ErrFrame},
		"packed, and nothing said":    {message(1, gzipped("hello")), "", redact.ErrFrame},
		"packed in what is no coding": {message(1, gzipped("hello")), "snappy", redact.ErrFrame},
		"said to be packed":           {message(1, "hello, this is no gzip at all"), "gzip", gzip.ErrHeader},
		"too long to be packed":       {[]byte{1, 0xff, 0xff, 0xff, 0xff}, "gzip", redact.ErrFrame},
		"a bomb":                      {message(1, gzipped(strings.Repeat("\x00", 17<<20))), "gzip", redact.ErrBomb},
	} {
		if _, err := io.ReadAll(redact.New([][]byte{[]byte(canary)}).Messages(bytes.NewReader(c.stream), c.coding)); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestAnswersOfGRPC: by what an answer says of itself it is read as messages, or as text, or refused.
func TestAnswersOfGRPC(t *testing.T) {
	split := string(message(0, canary[:10])) + string(message(0, canary[10:]))
	for name, c := range map[string]struct {
		kind, coding, text string
		status             int
		want               string // "" = refused
	}{
		"messages":           {"application/grpc", "", split, 200, string(message(0, strings.Repeat("*", 10))) + string(message(0, strings.Repeat("*", len(canary)-10)))},
		"packed":             {"application/grpc+proto", "gzip", string(message(1, gzipped("a "+canary))), 200, string(message(0, "a "+strings.Repeat("*", len(canary))))},
		"gRPC-Web":           {"application/grpc-web+proto", "identity", string(message(0, "a "+canary)), 200, string(message(0, "a "+strings.Repeat("*", len(canary))))},
		"gRPC-Web as text":   {"application/grpc-web-text", "", "AAAA " + canary, 200, "AAAA " + strings.Repeat("*", len(canary))},
		"packed as text":     {"application/grpc-web-text", "gzip", "AAAA", 200, ""},
		"an unknown packing": {"application/grpc", "snappy", split, 200, ""},
		"two packings":       {"application/grpc", "gzip, gzip", split, 200, ""},
		"no gRPC":            {"text/plain", "gzip", split, 200, ""},
		"a proxy's error":    {"application/grpc", "", "nope " + canary, 503, "nope " + strings.Repeat("*", len(canary))},
		"an error, packed":   {"application/grpc", "gzip", "nope", 503, ""},
	} {
		resp := &http.Response{StatusCode: c.status, Header: http.Header{"Content-Type": {c.kind}, "Grpc-Encoding": {c.coding}}, Body: io.NopCloser(strings.NewReader(c.text)),
			Trailer: http.Header{"Grpc-Message": {"no%20" + strings.ReplaceAll(canary, "R", "%52")}, "Grpc-Status-Details-Bin": {"CAcS" + canary}}}
		r := redact.New([][]byte{[]byte(canary)})
		err := r.Response(resp)
		if (err == nil) != (c.want != "") {
			t.Errorf("%s: %v", name, err)
		}
		if c.want == "" {
			continue
		}
		b, err := io.ReadAll(resp.Body)
		if err != nil || !butEarly(c.want, string(b)) || len(b) != len(c.want) {
			t.Errorf("%s: %q %v, want %q", name, b, err, c.want)
		}
		if m := resp.Trailer.Get("Grpc-Message"); !strings.HasPrefix(m, "no%20**") || strings.Trim(m[5:], "*") != "" || strings.Contains(resp.Trailer.Get("Grpc-Status-Details-Bin"), canary) {
			t.Errorf("%s: %v", name, resp.Trailer)
		}
		if resp.Header.Get("Grpc-Encoding") != "" && c.coding == "gzip" {
			t.Errorf("%s: still says that it is packed", name)
		}
	}
}

// FuzzMessages: whatever comes, messages that come out have the lengths that their heads say, and hold no mark.
func FuzzMessages(f *testing.F) {
	f.Add(message(0, "a "+canary), uint8(3))
	f.Add(append(message(0, canary[:9]), message(1, gzipped(canary[9:]))...), uint8(1))
	f.Add(append(message(0x80, canary), 1), uint8(0))
	f.Fuzz(func(t *testing.T, stream []byte, n uint8) {
		src := &splitting{src: bytes.NewReader(stream), rnd: rand.New(rand.NewPCG(uint64(n), 1))}
		got, err := io.ReadAll(redact.New([][]byte{[]byte(canary)}).Messages(src, "gzip"))
		if err != nil {
			return
		}
		flags, texts := unpack(t, got)
		if slices.ContainsFunc(flags, func(c byte) bool { return c != 0 && c != 0x80 }) || strings.Contains(strings.Join(texts, ""), canary) {
			t.Fatalf("%x %q", flags, texts)
		}
	})
}
