package egress_test

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"frontdesk.dev/frontdesk/internal/egress"
)

// field is one of a head in HTTP/2, in the order in which it is sent.
type field struct{ name, value string }

// head sends one request of HTTP/2 as it stands, and gives its status; "" where the stream or the connection was ended instead.
func head(t *testing.T, c net.Conn, fields []field) string {
	t.Helper()
	defer func() { _ = c.Close() }()
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(c, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	f := http2.NewFramer(c, c)
	f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	var block bytes.Buffer
	e := hpack.NewEncoder(&block)
	for _, l := range fields {
		if err := e.WriteField(hpack.HeaderField{Name: l.name, Value: l.value}); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	if err := f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndStream: true, EndHeaders: true}); err != nil {
		t.Fatal(err)
	}
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			return "" // the connection was ended
		}
		switch m := frame.(type) {
		case *http2.MetaHeadersFrame:
			return m.PseudoValue("status")
		case *http2.RSTStreamFrame, *http2.GoAwayFrame:
			return ""
		case *http2.SettingsFrame:
			if !m.IsAck() {
				_ = f.WriteSettingsAck() // an end of the connection shows at the next read
			}
		}
	}
}

// TestPseudoHeaders: what two readers of HTTP/2 could take for two requests, or for another one than stands on record, is sent nowhere: at the
// base URL, where the line alone says what is meant, and in a tunnel, where the authority has to be the tunnel's (RFC 9113 section 8.3).
func TestPseudoHeaders(t *testing.T) {
	s := newStage(t)
	plain := func() net.Conn {
		c, err := net.Dial("tcp", s.addr)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	inside := func() net.Conn {
		c, err := net.Dial("tcp", s.addr)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(c, "CONNECT "+s.secure.host+" HTTP/1.1\r\nHost: "+s.secure.host+"\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, make([]byte, len("HTTP/1.1 200 Connection established\r\n\r\n"))); err != nil {
			t.Fatal(err)
		}
		tc := tls.Client(c, &tls.Config{RootCAs: s.roots, ServerName: "localhost", NextProtos: []string{"h2"}})
		if err := tc.Handshake(); err != nil {
			t.Fatal(err)
		}
		return tc
	}
	key := field{"authorization", "Bearer " + keycard}
	of := func(method, scheme, authority, path string, more ...field) []field {
		return append([]field{{":method", method}, {":scheme", scheme}, {":authority", authority}, {":path", path}, key}, more...)
	}
	base, host := "/egress/plain/echo", s.secure.host
	name, port, err := net.SplitHostPort(host)
	if err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]struct {
		to     func() net.Conn
		fields []field
		passes bool
	}{
		"as it should be":          {plain, of("GET", "http", s.addr, base), true},
		"in a tunnel":              {inside, of("GET", "https", host, "/echo"), true},
		"capitals, a final dot":    {inside, of("GET", "https", strings.ToUpper(name)+".:"+port, "/echo"), true},
		"Host beside":              {plain, of("GET", "http", s.addr, base, field{"host", s.addr}), false},
		"another Host beside":      {inside, of("GET", "https", host, "/echo", field{"host", "evil.test"}), false},
		"Host alone, another":      {inside, []field{{":method", "GET"}, {":scheme", "https"}, {":path", "/echo"}, key, {"host", "evil.test"}}, false},
		"no authority":             {inside, []field{{":method", "GET"}, {":scheme", "https"}, {":path", "/echo"}, key}, false},
		"an empty one":             {inside, of("GET", "https", "", "/echo"), false},
		"another authority":        {inside, of("GET", "https", "evil.test", "/echo"), false},
		"another port":             {inside, of("GET", "https", name+":1", "/echo"), false},
		"no port":                  {inside, of("GET", "https", name, "/echo"), false},
		"user info":                {inside, of("GET", "https", "evil.test@"+host, "/echo"), false},
		"two hosts":                {inside, of("GET", "https", host+",evil.test", "/echo"), false},
		"another script":           {inside, of("GET", "https", "loc\u0430lhost:"+port, "/echo"), false},
		"wide letters":             {inside, of("GET", "https", "\uff4cocalhost:"+port, "/echo"), false},
		"a soft hyphen":            {inside, of("GET", "https", "local\u00adhost:"+port, "/echo"), false},
		"a port with a zero":       {inside, of("GET", "https", name+":0"+port, "/echo"), false},
		"a port with a sign":       {inside, of("GET", "https", name+":+"+port, "/echo"), false},
		"an escaped host":          {inside, of("GET", "https", "%6cocalhost:"+port, "/echo"), false},
		"a path with a host":       {inside, of("GET", "https", host, "https://evil.test/echo"), false},
		"a path with our host":     {plain, of("GET", "http", s.addr, "http://"+s.addr+base), false},
		"a path with two slashes":  {inside, of("GET", "https", host, "//evil.test/echo"), false},
		"a path without a slash":   {inside, of("GET", "https", host, "echo"), false},
		"an empty path":            {inside, of("GET", "https", host, ""), false},
		"a star":                   {inside, of("GET", "https", host, "*"), false},
		"a fragment":               {inside, of("GET", "https", host, "/echo#x"), false},
		"a space":                  {inside, of("GET", "https", host, "/echo HTTP/1.1\r\nX: y"), false},
		"a backslash":              {inside, of("GET", "https", host, "/..\\echo"), false},
		"two paths":                {inside, of("GET", "https", host, "/echo", field{":path", "/other"}), false},
		"two methods":              {inside, append([]field{{":method", "DELETE"}}, of("GET", "https", host, "/echo")...), false},
		"two authorities":          {inside, append([]field{{":authority", "evil.test"}}, of("GET", "https", host, "/echo")...), false},
		"one behind the headers":   {inside, of("GET", "https", host, "/echo", field{":authority", host}), false},
		"one that nobody knows":    {inside, append([]field{{":upstream", "evil.test"}}, of("GET", "https", host, "/echo")...), false},
		"one of answers":           {inside, append([]field{{":status", "200"}}, of("GET", "https", host, "/echo")...), false},
		"a scheme of another kind": {inside, of("GET", "gopher", host, "/echo"), false},
		"a tunnel in the tunnel":   {inside, []field{{":method", "CONNECT"}, {":authority", "evil.test:443"}, key}, false},
		"a WebSocket's CONNECT":    {inside, append([]field{{":protocol", "websocket"}}, of("CONNECT", "https", host, "/echo")...), false},
		"a method in small":        {inside, of("get", "https", host, "/echo"), false},
		"a name in capitals":       {inside, of("GET", "https", host, "/echo", field{"X-Up", "1"}), false},
		"a connection header":      {inside, of("GET", "https", host, "/echo", field{"connection", "keep-alive"}), false},
		"a transfer coding":        {inside, of("GET", "https", host, "/echo", field{"transfer-encoding", "chunked"}), false},
		"a line in a value":        {inside, of("GET", "https", host, "/echo", field{"x", "1\r\nhost: evil.test"}), false},
		"two lengths":              {inside, of("GET", "https", host, "/echo", field{"content-length", "0"}, field{"content-length", "5"}), false},
		"a length without a body":  {inside, of("POST", "https", host, "/echo", field{"content-length", "5"}), false},
	} {
		s.plain.forget()
		s.secure.forget()
		before := len(s.door.opened())
		status := head(t, c.to(), c.fields)
		seen := append(s.plain.seen(), s.secure.seen()...)
		switch {
		case c.passes && (status != "200" || len(seen) != 1 || seen[0].URL.Path != "/echo"):
			t.Errorf("%s: %q, and the API has seen %d requests", what, status, len(seen))
		case !c.passes && (status != "" && status[0] != '4' || len(seen) > 0):
			t.Errorf("%s: %q, and the API has seen %d requests: %v", what, status, len(seen), seen)
		case !c.passes && len(s.door.opened()) != before:
			t.Errorf("%s: it is on record", what)
		}
	}
}

// TestHostsOfOneSpelling: a host has one spelling, by the name that is sent on the wire; of every other that some reader would take for the
// same, or for another one, nothing is made.
func TestHostsOfOneSpelling(t *testing.T) {
	for authority, want := range map[string]string{
		"api.example": "https://api.example:443", "API.Example.": "https://api.example:443", "api.example:443": "https://api.example:443", "api.example:8443": "https://api.example:8443",
		"xn--bcher-kva.example": "https://xn--bcher-kva.example:443", "XN--BCHER-KVA.example": "https://xn--bcher-kva.example:443", "192.0.2.7": "https://192.0.2.7:443", "[2001:DB8::1]:1": "https://[2001:db8::1]:1", "api.example:65535": "https://api.example:65535",
	} {
		if got, err := egress.OriginOf("https", authority); err != nil || got != want {
			t.Errorf("%q is %q, %v", authority, got, err)
		}
	}
	for _, authority := range []string{
		"b\u00fccher.example", "BU\u0308CHER.example", "\uff41pi.example", "api\u3002example", "api.ex\u00e4mple", "fa\u00df.example", "api.example\u200b", "\u0430pi.example", // what IDNA would map, by its one version or the other
		"api.example:", "api.example:0", "api.example:00443", "api.example:0443", "api.example:65536", "api.example:99999999999999999999", "api.example:-1", "api.example:+443", "api.example: 443", "api.example:443:443", "api.example:\u0664\u0664\u0663", "api.example:https", "api.example:4_43", "api.example:0x1bb",
		"", ".", "..", "api..example", ".api.example", "api.example..", "-api.example", "0300.0.2.7", "192.0.2.07", "3221225991", "0xc0000207", "192.0.519", "[fe80::1%25eth0]", "[::1", "::1", "[api.example]", "[192.0.2.7]",
		"user@api.example", "api.example/", "api.example?x", "api.example#x", "api.example\\x", "api.example,evil.test", "api.example evil.test", "%61pi.example",
	} {
		if got, err := egress.OriginOf("https", authority); err == nil {
			t.Errorf("%q is taken for %s", authority, got)
		}
	}
}
