package egress_test

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"

	"golang.org/x/net/idna"

	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/egress"
)

// corpus is: what a front and a back read differently. TARGET and HOST are put in for each door.
var corpus = map[string]string{
	"length and chunks":             "POST TARGET HTTP/1.1\r\nHost: HOST\r\nAUTH\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nSECOND",
	"chunks and length":             "POST TARGET HTTP/1.1\r\nHost: HOST\r\nAUTH\r\nTransfer-Encoding: chunked\r\nContent-Length: 30\r\n\r\n0\r\n\r\nSECOND",
	"xchunked":                      "POST TARGET HTTP/1.1\r\nHost: HOST\r\nAUTH\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\nSECOND",
	"chunked, identity":             "POST TARGET HTTP/1.1\r\nHost: HOST\r\nAUTH\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\nSECOND",
	"two codings":                   "POST TARGET HTTP/1.1\r\nHost: HOST\r\nAUTH\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\nSECOND",
	"vertical tab":                  "POST TARGET HTTP/1.1\r\nHost: HOST\r\nAUTH\r\nTransfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\nSECOND",
	"space before the colon":        "POST TARGET HTTP/1.1\r\nHost: HOST\r\nAUTH\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\nSECOND",
	"folded":                        "POST TARGET HTTP/1.1\r\nHost: HOST\r\nAUTH\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\nSECOND",
	"a sign":                        "POST TARGET HTTP/1.1\r\nHost: HOST\r\nAUTH\r\nContent-Length: +5\r\n\r\nhelloSECOND",
	"a list of lengths":             "POST TARGET HTTP/1.1\r\nHost: HOST\r\nAUTH\r\nContent-Length: 5, 5\r\n\r\nhelloSECOND",
	"two lengths":                   "POST TARGET HTTP/1.1\r\nHost: HOST\r\nAUTH\r\nContent-Length: 5\r\nContent-Length: 50\r\n\r\nhelloSECOND",
	"the same length twice":         "POST TARGET HTTP/1.1\r\nHost: HOST\r\nAUTH\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhelloSECOND",
	"hexadecimal length":            "POST TARGET HTTP/1.1\r\nHost: HOST\r\nAUTH\r\nContent-Length: 0x5\r\n\r\nhelloSECOND",
	"HTTP/1.0 with chunks":          "POST TARGET HTTP/1.0\r\nHost: HOST\r\nAUTH\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nSECOND",
	"lines that end in LF":          "POST TARGET HTTP/1.1\nHost: HOST\nAUTH\nContent-Length: 5\n\nhelloSECOND",
	"one line that ends in LF":      "POST TARGET HTTP/1.1\r\nHost: HOST\r\nAUTH\nX: y\r\n\r\nSECOND",
	"CR alone":                      "POST TARGET HTTP/1.1\r\nHost: HOST\r\nAUTH\r\nX: a\rTransfer-Encoding: chunked\r\n\r\nSECOND",
	"NUL":                           "GET TARGET HTTP/1.1\r\nHost: HOST\r\nAUTH\r\nX: a\x00b\r\n\r\nSECOND",
	"no colon":                      "GET TARGET HTTP/1.1\r\nHost: HOST\r\nAUTH\r\nGET / HTTP/1.1\r\n\r\nSECOND",
	"two Hosts":                     "GET TARGET HTTP/1.1\r\nHost: HOST\r\nAUTH\r\nHost: HOST\r\n\r\nSECOND",
	"no Host":                       "GET TARGET HTTP/1.1\r\nAUTH\r\n\r\nSECOND",
	"a list of Hosts":               "GET TARGET HTTP/1.1\r\nHost: HOST, evil.test\r\nAUTH\r\n\r\nSECOND",
	"user info in Host":             "GET TARGET HTTP/1.1\r\nHost: HOST@evil.test\r\nAUTH\r\n\r\nSECOND",
	"a space in Host":               "GET TARGET HTTP/1.1\r\nHost: HO ST\r\nAUTH\r\n\r\nSECOND",
	"a port with a zero":            "GET TARGET HTTP/1.1\r\nHost: localhost:0443\r\nAUTH\r\n\r\nSECOND",
	"another version":               "GET TARGET HTTP/1.2\r\nHost: HOST\r\nAUTH\r\n\r\nSECOND",
	"a tab in the request line":     "GET\tTARGET HTTP/1.1\r\nHost: HOST\r\nAUTH\r\n\r\nSECOND",
	"a chunk's size ends in LF":     "POST TARGET HTTP/1.1\r\nHost: HOST\r\nAUTH\r\nTransfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\nSECOND",
	"a chunk's size with a sign":    "POST TARGET HTTP/1.1\r\nHost: HOST\r\nAUTH\r\nTransfer-Encoding: chunked\r\n\r\n+5\r\nhello\r\n0\r\n\r\nSECOND",
	"a chunk's size with 0x":        "POST TARGET HTTP/1.1\r\nHost: HOST\r\nAUTH\r\nTransfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\nSECOND",
	"a chunk longer than its size":  "POST TARGET HTTP/1.1\r\nHost: HOST\r\nAUTH\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello!!\r\n0\r\n\r\nSECOND",
	"a chunk extension without end": "POST TARGET HTTP/1.1\r\nHost: HOST\r\nAUTH\r\nTransfer-Encoding: chunked\r\n\r\n5;" + strings.Repeat("a", 1<<20) + "",
	"a head without end":            "GET TARGET HTTP/1.1\r\nHost: HOST\r\nAUTH\r\nX: " + strings.Repeat("a", 200<<10) + "",
	"a chunk's size beyond any":     "POST TARGET HTTP/1.1\r\nHost: HOST\r\nAUTH\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000005\r\nhello\r\n0\r\n\r\nSECOND",
	"a chunk's size below zero":     "POST TARGET HTTP/1.1\r\nHost: HOST\r\nAUTH\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\nhello\r\n0\r\n\r\nSECOND",
	"a chunk's size with a space":   "POST TARGET HTTP/1.1\r\nHost: HOST\r\nAUTH\r\nTransfer-Encoding: chunked\r\n\r\n5 \r\nhello\r\n0\r\n\r\nSECOND",
	"a chunk without a size":        "POST TARGET HTTP/1.1\r\nHost: HOST\r\nAUTH\r\nTransfer-Encoding: chunked\r\n\r\n;x\r\nhello\r\n0\r\n\r\nSECOND",
	"a chunk's extension with CR":   "POST TARGET HTTP/1.1\r\nHost: HOST\r\nAUTH\r\nTransfer-Encoding: chunked\r\n\r\n5;a\rb\r\nhello\r\n0\r\n\r\nSECOND",
	"a trailer that ends in LF":     "POST TARGET HTTP/1.1\r\nHost: HOST\r\nAUTH\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: y\n\r\nSECOND",
	"a trailer with a length":       "POST TARGET HTTP/1.1\r\nHost: HOST\r\nAUTH\r\nTrailer: Content-Length\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 50\r\n\r\n",
	"a length beyond any":           "POST TARGET HTTP/1.1\r\nHost: HOST\r\nAUTH\r\nContent-Length: 18446744073709551621\r\n\r\nhelloSECOND",
	"a length below zero":           "POST TARGET HTTP/1.1\r\nHost: HOST\r\nAUTH\r\nContent-Length: -1\r\n\r\nhelloSECOND",
	"a length in other digits":      "POST TARGET HTTP/1.1\r\nHost: HOST\r\nAUTH\r\nContent-Length: \u0665\r\n\r\nhelloSECOND",
	"chunked in quotes":             "POST TARGET HTTP/1.1\r\nHost: HOST\r\nAUTH\r\nTransfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\nSECOND",
	"chunked twice":                 "POST TARGET HTTP/1.1\r\nHost: HOST\r\nAUTH\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\nSECOND",
	"a header before the first":     "POST TARGET HTTP/1.1\r\n X: y\r\nHost: HOST\r\nAUTH\r\n\r\nSECOND",
	"two spaces in the line":        "GET  TARGET HTTP/1.1\r\nHost: HOST\r\nAUTH\r\n\r\nSECOND",
	"a space in the target":         "GET TARGET /x HTTP/1.1\r\nHost: HOST\r\nAUTH\r\n\r\nSECOND",
	"a version in small letters":    "GET TARGET http/1.1\r\nHost: HOST\r\nAUTH\r\n\r\nSECOND",
	"no version":                    "GET TARGET\r\nHost: HOST\r\nAUTH\r\n\r\nSECOND",
	"HTTP/2 by its name":            "GET TARGET HTTP/2.0\r\nHost: HOST\r\nAUTH\r\n\r\nSECOND",
	"a trailer that is none":        "POST TARGET HTTP/1.1\r\nHost: HOST\r\nAUTH\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nGET / HTTP/1.1\r\n\r\nSECOND",
}

func TestA102_smuggling(t *testing.T) {
	s := newStage(t)
	for door, at := range map[string][2]string{"base URL": {"/egress/plain/echo", s.addr}, "absolute form": {s.plain.url + "/echo", s.plain.host}, "tunnel": {"/echo", s.plain.host}} {
		put := strings.NewReplacer("TARGET", at[0], "HOST", at[1], "AUTH", "Authorization: Bearer "+keycard)
		second, tunnel := put.Replace("GET TARGET?second HTTP/1.1\r\nHost: HOST\r\nAUTH\r\nConnection: close\r\n\r\n"), ""
		if door == "tunnel" {
			tunnel = "CONNECT " + s.plain.host + " HTTP/1.1\r\nHost: " + s.plain.host + "\r\n\r\n"
		}
		for name, text := range corpus {
			mine := url.QueryEscape(door + " " + name)
			text = strings.Replace(text, "TARGET", "TARGET?"+mine, 1)
			c, err := net.Dial("tcp", s.addr)
			if err != nil {
				t.Fatal(err)
			}
			go func() { _, _ = io.WriteString(c, tunnel+strings.Replace(put.Replace(text), "SECOND", second, 1)) }() // egress may hang up on it
			b, _ := io.ReadAll(c)
			_ = c.Close()
			got := strings.TrimPrefix(string(b), "HTTP/1.1 200 Connection established\r\n\r\n")
			// A body that turns out to be broken breaks its own request off, at the API too; nothing comes after it.
			inBody := strings.HasPrefix(name, "a chunk") || strings.Contains(name, "trailer")
			n := len(slices.DeleteFunc(s.plain.seen(), func(r *http.Request) bool { return r.URL.RawQuery != mine && r.URL.RawQuery != "second" }))
			if n > 1 || n == 1 && !inBody || strings.Contains(got, "?second") || strings.Contains(got, " 200 OK") {
				t.Errorf("%s, %s: %d requests reached the API; %.300q", door, name, n, got)
			}
			if !strings.HasPrefix(got, "HTTP/1.1 4") && !strings.HasPrefix(got, "HTTP/1.1 5") && !(inBody && got == "") {
				t.Errorf("%s, %s: %.300q", door, name, got)
			}
		}
		// What is well formed passes, one after the other on one connection.
		ok := put.Replace("POST TARGET HTTP/1.1\r\nHost: HOST\r\nAUTH\r\nTransfer-Encoding: Chunked\r\n\r\n5;x=y\r\nhello\r\n0\r\nX-T: 1\r\n\r\nPOST TARGET HTTP/1.1\r\nHost: HOST\r\nAUTH\r\nContent-Length: 5\r\n\r\nworld") + second
		if got := s.raw(t, tunnel+ok, nil); strings.Count(got, "HTTP/1.1 200 OK") != 3 || !strings.Contains(got, "hello") || !strings.Contains(got, "world") {
			t.Errorf("%s: %q", door, got)
		}
		s.plain.forget()
	}
}

// FuzzGate: what the HTTP server reads behind the gate are the bytes that came, up to where they stop making sense; and no
// message among them has two lengths.
func FuzzGate(f *testing.F) {
	for _, text := range corpus {
		if len(text) < 1000 {
			f.Add([]byte(strings.NewReplacer("TARGET", "/a", "HOST", "b", "AUTH", "A: b", "SECOND", "GET / HTTP/1.1\r\nHost: c\r\n\r\n").Replace(text)), false)
		}
	}
	f.Fuzz(func(t *testing.T, text []byte, slow bool) {
		var src io.Reader = bytes.NewReader(text)
		if slow {
			src = iotest.OneByteReader(src)
		}
		passed, err := io.ReadAll(egress.Gate(&reading{src: src}))
		if err != nil {
			t.Fatal(err)
		}
		if at := bytes.Index(passed, []byte("FRONTDESK-REFUSED / HTTP/1.1\r\n")); at >= 0 && !bytes.Contains(text, []byte("FRONTDESK-REFUSED")) {
			passed = passed[:at]
		}
		if !bytes.HasPrefix(text, passed) {
			t.Fatalf("%q came out of %q", passed, text)
		}
		for r := bufio.NewReader(bytes.NewReader(passed)); ; {
			req, err := http.ReadRequest(r)
			if err != nil || req.Method == http.MethodConnect || len(req.Header["Upgrade"]) > 0 || req.Method == "PRI" {
				return
			}
			if len(req.TransferEncoding) > 0 && req.Header.Get("Content-Length") != "" {
				t.Fatal("two lengths passed")
			}
			if _, err := io.Copy(io.Discard, req.Body); err != nil {
				return
			}
		}
	})
}

// reading is a connection of which only the reading side is used.
type reading struct {
	net.Conn
	src io.Reader
}

func (r *reading) Read(p []byte) (int, error) { return r.src.Read(p) }

// FuzzAuthority compares with net/url, netip and idna: what they read differently from us, we refuse.
func FuzzAuthority(f *testing.F) {
	for _, s := range []string{"up.test", "UP.test.:443", "up.test:443@evil.test", "[::1]:80", "[::1%25eth0]", "127.1", "0x7f.1", "2130706433", "xn--a", "up。test", "a,b", "a..b", ":443", "up.test:", "up.test:0443", "[::ffff:1.2.3.4]", "1.2.3.4:65536", "a_b", "-a", "ß.de"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		origin, err := egress.OriginOf("https", s)
		if err != nil {
			return
		}
		u, err := url.Parse("https://" + s + "/")
		if err != nil || u.User != nil || u.Path != "/" || u.RawQuery != "" {
			t.Fatalf("%q is %s here, and %v, %v for net/url", s, origin, u, err)
		}
		host, port, err := net.SplitHostPort(strings.TrimPrefix(origin, "https://"))
		if err != nil {
			t.Fatal(origin, err)
		}
		theirs := strings.TrimSuffix(strings.ToLower(u.Hostname()), ".")
		plain := strings.ReplaceAll(theirs, "_", "a") // idna has no underscores
		if a, err := netip.ParseAddr(theirs); err == nil {
			theirs = a.String()
		} else if name, err := idna.Lookup.ToASCII(plain); err == nil && name != plain {
			t.Fatalf("%q is %q for idna", s, name)
		}
		want := u.Port()
		if want == "" {
			want = "443"
		}
		if n, err := strconv.Atoi(want); theirs != host || port != want || err != nil || n < 1 || n > 65535 {
			t.Fatalf("%q is %s here, and host %q, port %q for net/url", s, origin, theirs, want)
		}
		if again, err := egress.OriginOf("https", strings.TrimPrefix(origin, "https://")); again != origin {
			t.Fatalf("%q is %q, and that is %q, %v", s, origin, again, err)
		}
	})
}

// FuzzPath compares with net/url and path.Clean, each after decoding as often as a careless server may.
func FuzzPath(f *testing.F) {
	for _, s := range []string{"/repos/alice", "/a/../b", "/a/%2e%2e/b", "/a/..%2fb", "/%252e%252e/", "//a", "/a;x=1/../b", "/a\\..\\b", "/%00", "/%c0%ae%c0%ae/", "/a/.", "*", "", "/%7Ea", "/a%2Fb", "/%", "/é", "/a%25b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := catalog.CanonicalPath(s)
		if err != nil {
			return
		}
		u, err := url.ParseRequestURI(got)
		if err != nil || u.RawQuery != "" || u.Fragment != "" || u.Host != "" || u.EscapedPath() != got {
			t.Fatalf("%q became %q, which net/url reads as %v, %v", s, got, u, err)
		}
		was, err := url.PathUnescape(s)
		if err != nil || was != u.Path {
			t.Fatalf("%q means %q, and became %q", s, was, u.Path)
		}
		for range 3 {
			clean := path.Clean(was)
			if strings.HasSuffix(was, "/") && clean != "/" {
				clean += "/"
			}
			if clean != was {
				t.Fatalf("%q passed, and somebody could read it as %q", s, clean)
			}
			next, err := url.PathUnescape(was)
			if err != nil {
				break
			}
			was = next
		}
		if again, err := catalog.CanonicalPath(got); again != got || err != nil {
			t.Fatalf("%q became %q, and that %q, %v", s, got, again, err)
		}
	})
}
