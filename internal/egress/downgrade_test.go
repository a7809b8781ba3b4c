package egress_test

import (
	"bytes"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// TestA103_downgrade: what HTTP/2 can carry and HTTP/1.1 cannot never becomes a second request, or another one, at the API.
func TestA103_downgrade(t *testing.T) {
	type field = [2]string
	const path = "/egress/plain/echo"
	s := newStage(t)
	head := []field{{":method", "POST"}, {":scheme", "http"}, {":authority", s.addr}, {":path", path}, {"authorization", "Bearer " + keycard}}
	with := func(more ...field) []field { return append(slices.Clone(head), more...) }
	instead := func(name, value string) []field {
		l := slices.Clone(head)
		for i := range l {
			if l[i][0] == name {
				l[i][1] = value
			}
		}
		return l
	}
	for name, c := range map[string]struct {
		fields []field
		body   string
		inBody bool // the head is well formed: the request breaks off behind it
		fine   bool
	}{
		"as it should be":               {fields: with(field{"content-length", "5"}), body: "hello", fine: true},
		"a length that is too short":    {fields: with(field{"content-length", "3"}), body: "helloGET /smuggled HTTP/1.1\r\n\r\n", inBody: true},
		"a length that is too long":     {fields: with(field{"content-length", "500"}), body: "hello", inBody: true},
		"two lengths":                   {fields: with(field{"content-length", "5"}, field{"content-length", "6"}), body: "hello"},
		"a length that is none":         {fields: with(field{"content-length", "+5"}), body: "hello"},
		"Transfer-Encoding":             {fields: with(field{"transfer-encoding", "chunked"}), body: "0\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n"},
		"Connection":                    {fields: with(field{"connection", "authorization"})},
		"Upgrade":                       {fields: with(field{"upgrade", "h2c"})},
		"CR LF in a value":              {fields: with(field{"x-a", "b\r\nTransfer-Encoding: chunked"})},
		"LF in a value":                 {fields: with(field{"x-a", "b\nx-b: c"})},
		"NUL in a value":                {fields: with(field{"x-a", "b\x00c"})},
		"CR LF in a name":               {fields: with(field{"x-a: b\r\nx-b", "c"})},
		"a colon in a name":             {fields: with(field{"x-a:", "c"})},
		"capitals in a name":            {fields: with(field{"X-A", "c"})},
		"CR LF in the path":             {fields: instead(":path", path+" HTTP/1.1\r\nHost: x\r\n\r\nGET /smuggled")},
		"a space in the path":           {fields: instead(":path", path+" /smuggled")},
		"a path in absolute form":       {fields: instead(":path", "http://evil.test"+path)},
		"no slash before the path":      {fields: instead(":path", "egress/plain/echo")},
		"CR LF in the method":           {fields: instead(":method", "POST / HTTP/1.1\r\nx: y\r\n\r\nGET")},
		"a space in the method":         {fields: instead(":method", "POST x")},
		"CR LF in the authority":        {fields: instead(":authority", s.addr+"\r\nx: y")},
		"user info in the authority":    {fields: instead(":authority", "x@"+s.addr+"/evil")},
		"another Host":                  {fields: with(field{"host", "evil.test"})},
		"two paths":                     {fields: append([]field{{":path", "/egress/plain/other"}}, head...)},
		"a pseudo-header behind others": {fields: with(field{":path", "/smuggled"})},
		"one that nobody knows":         {fields: append([]field{{":odd", "x"}}, head...)},
		"extended CONNECT":              {fields: append([]field{{":protocol", "websocket"}}, instead(":method", "CONNECT")...)},
		"CONNECT with a path":           {fields: instead(":method", "CONNECT")},
	} {
		status, n, smuggled := s.frames(t, append(c.fields, field{"x-case", name}), c.body), 0, false
		for _, r := range s.plain.seen() { // one that broke off may come late, in another's turn
			smuggled = smuggled || r.URL.Path != "/echo" || r.Header.Get("X-B") != ""
			if r.Header.Get("X-Case") == name {
				n++
			}
		}
		if smuggled || n > 1 || n == 1 && !c.inBody && !c.fine || (status == "200") != c.fine {
			t.Errorf("%s: %d requests at the API, smuggled: %v, status %q", name, n, smuggled, status)
		}
	}
}

// frames sends one request as bare frames, and gives its status: "" where the stream or the connection was ended instead.
func (s *stage) frames(t *testing.T, fields [][2]string, body string) (status string) {
	t.Helper()
	c, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	for _, f := range fields {
		_ = enc.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]}) // into memory
	}
	f := http2.NewFramer(c, c)
	_, _ = io.WriteString(c, http2.ClientPreface)
	_ = f.WriteSettings()
	_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true})
	_ = f.WriteData(1, true, []byte(body)) // egress may hang up on any of these
	f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			return status
		}
		switch frame := frame.(type) {
		case *http2.MetaHeadersFrame:
			status = frame.PseudoValue("status")
			if frame.StreamEnded() {
				return status
			}
		case *http2.DataFrame:
			if frame.StreamEnded() {
				return status
			}
		case *http2.RSTStreamFrame, *http2.GoAwayFrame:
			return strings.TrimPrefix(status, "200")
		}
	}
}
