package egress_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha1" // #nosec: what RFC 6455 asks for
	"crypto/tls"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/andybalholm/brotli"

	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/internal/catalog"
)

// ways are both doors to both APIs, as clients that stay within one protocol each.
type way struct {
	name string
	*http.Client
	base string
	api  *api
}

func (s *stage) ways() []way {
	h2c := &http.Transport{Protocols: new(http.Protocols), DisableCompression: true}
	h2c.Protocols.SetUnencryptedHTTP2(true)
	s.t.Cleanup(h2c.CloseIdleConnections)
	direct := &http.Transport{DisableCompression: true}
	s.t.Cleanup(direct.CloseIdleConnections)
	base := "http://" + s.addr + "/egress/"
	return []way{
		{"base URL, 1.1 to 1.1", &http.Client{Transport: direct}, base + "plain", s.plain},
		{"base URL, 1.1 to 2", &http.Client{Transport: direct}, base + "secure", s.secure},
		{"base URL, 2 to 1.1", &http.Client{Transport: h2c}, base + "plain", s.plain},
		{"base URL, 2 to 2", &http.Client{Transport: h2c}, base + "secure", s.secure},
		{"proxy, 1.1 to 1.1", s.through(), s.plain.url, s.plain},
		{"tunnel, 2 to 2", s.through(), s.secure.url, s.secure},
	}
}

func (s *stage) both(path string, f http.HandlerFunc) {
	s.plain.mux.HandleFunc(path, f)
	s.secure.mux.HandleFunc(path, f)
}

func TestEventsComeAtOnce(t *testing.T) {
	s := newStage(t)
	next := make(chan struct{})
	s.both("/events", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for i := range 3 {
			fmt.Fprintf(w, "data: %d %s\n\n", i, r.Header.Get("Authorization"))
			_ = http.NewResponseController(w).Flush()
			<-next
		}
	})
	for _, c := range s.ways() {
		resp, err := c.Do(request(t, http.MethodGet, c.base+"/events", nil, "Authorization", "Bearer "+keycard))
		if err != nil {
			t.Fatal(c.name, err)
		}
		lines := bufio.NewReader(resp.Body)
		for i := range 3 {
			line, err := lines.ReadString('\n')
			if err != nil || line != fmt.Sprintf("data: %d Bearer %s\n", i, strings.Repeat("*", len(credential))) {
				t.Errorf("%s: %q %v", c.name, line, err)
			}
			_, _ = lines.ReadString('\n')
			next <- struct{}{}
		}
		_ = resp.Body.Close()
	}
}

// TestBothWaysAtOnce is what gRPC does: the answer begins before the request has ended, and ends with trailers.
func TestBothWaysAtOnce(t *testing.T) {
	s := newStage(t)
	s.both("/grpc", func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).EnableFullDuplex()
		w.Header().Set("Trailer", "Grpc-Status")
		w.Header().Set("X-Te", r.Header.Get("Te")+" "+r.Header.Get("Grpc-Accept-Encoding"))
		_ = http.NewResponseController(w).Flush()
		buf := make([]byte, 100)
		for {
			n, err := r.Body.Read(buf)
			_, _ = w.Write(bytes.ToUpper(buf[:n]))
			_ = http.NewResponseController(w).Flush()
			if err != nil {
				break
			}
		}
		w.Header().Set("Grpc-Status", "0")
		w.Header().Set(http.TrailerPrefix+"Grpc-Message", "you sent "+r.Header.Get("Authorization"))
		w.Header().Set(http.TrailerPrefix+"X-Sent", r.Trailer.Get("X-Sum"))
	})
	for _, c := range s.ways() {
		body, feed := io.Pipe()
		r := request(t, http.MethodPost, c.base+"/grpc", body, "Authorization", "Bearer "+keycard, "Te", "trailers", "Grpc-Accept-Encoding", "gzip", "Content-Type", "application/grpc")
		r.Trailer = http.Header{"X-Sum": {"42"}}
		resp, err := c.Do(r)
		if err != nil {
			t.Fatal(c.name, err)
		}
		for _, word := range []string{"first", "second", "third"} {
			_, _ = io.WriteString(feed, word)
			got := make([]byte, len(word))
			if _, err := io.ReadFull(resp.Body, got); err != nil || string(got) != strings.ToUpper(word) {
				t.Fatalf("%s: %q %v", c.name, got, err)
			}
		}
		_ = feed.Close()
		if b, err := io.ReadAll(resp.Body); err != nil || len(b) > 0 {
			t.Errorf("%s: %q %v", c.name, b, err)
		}
		_ = resp.Body.Close()
		if got := resp.Trailer; got.Get("Grpc-Status") != "0" || got.Get("Grpc-Message") != "you sent Bearer "+strings.Repeat("*", len(credential)) || got.Get("X-Sent") != "42" || resp.Header.Get("X-Te") != "trailers identity" {
			t.Errorf("%s: %v %v", c.name, got, resp.Header)
		}
	}
}

// TestAnySize: neither way is held in memory, and lengths stay right.
func TestAnySize(t *testing.T) {
	s := newStage(t)
	const size = 24 << 20
	s.both("/big", func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		if err != nil || n != r.ContentLength {
			panic(http.ErrAbortHandler)
		}
		w.Header().Set("Content-Length", fmt.Sprint(n))
		_, _ = io.Copy(w, io.LimitReader(zeros{}, n))
	})
	for _, c := range s.ways() {
		r := request(t, http.MethodPut, c.base+"/big", io.LimitReader(zeros{}, size), "Authorization", "Bearer "+keycard)
		r.ContentLength = size
		resp, err := c.Do(r)
		if err != nil {
			t.Fatal(c.name, err)
		}
		if n, err := io.Copy(io.Discard, resp.Body); n != size || err != nil || resp.ContentLength != size {
			t.Errorf("%s: %d bytes of %d, %v", c.name, n, resp.ContentLength, err)
		}
		_ = resp.Body.Close()
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// TestContinue: a body is asked for only when the API has asked for it.
func TestContinue(t *testing.T) {
	s := newStage(t)
	s.plain.mux.HandleFunc("/refuses", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Connection", "close")
		w.WriteHeader(http.StatusRequestEntityTooLarge)
	})
	head := "POST /egress/plain%s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + keycard + "\r\nExpect: 100-continue\r\nContent-Length: 11\r\nConnection: close\r\n\r\n"
	got := s.raw(t, fmt.Sprintf(head, "/refuses"), func(got string) bool { return strings.Contains(got, "\r\n\r\n") })
	if !strings.HasPrefix(got, "HTTP/1.1 413 ") {
		t.Errorf("asked for a body that the API does not want: %s", got)
	}
	c, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if got := converse(t, c, fmt.Sprintf(head, "/echo"), func(got string) bool { return strings.HasSuffix(got, "\r\n\r\n") }); got != "HTTP/1.1 100 Continue\r\n\r\n" {
		t.Errorf("not asked for the body: %s", got)
	}
	if got := converse(t, c, "a long body", nil); !strings.HasPrefix(got, "HTTP/1.1 200 ") || !strings.Contains(got, "a long body") {
		t.Error(got)
	}
}

// TestA106_codings: what comes compressed is decoded and cleaned, or refused; ranges are answered whole.
func TestA106_codings(t *testing.T) {
	s := newStage(t)
	text := strings.Repeat("some words, ", 500) + "and Bearer " + credential
	pack := map[string]func(io.Writer) io.WriteCloser{"gzip": func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) }, "br": func(w io.Writer) io.WriteCloser { return brotli.NewWriter(w) }}
	s.both("/coded", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Accept-Encoding") != "identity" || r.Header.Get("Range") != "" {
			http.Error(w, "asked for "+r.Header.Get("Accept-Encoding"), http.StatusTeapot)
			return
		}
		coding := r.URL.Query().Get("as")
		w.Header().Set("Content-Encoding", coding)
		w.Header().Set("Accept-Ranges", "bytes")
		if r.URL.Query().Has("part") {
			w.WriteHeader(http.StatusPartialContent)
		}
		if f, ok := pack[coding]; ok && !r.URL.Query().Has("lie") {
			z := f(w)
			_, _ = io.WriteString(z, text)
			_ = z.Close()
			return
		}
		_, _ = io.WriteString(w, text)
	})
	for _, c := range s.ways() {
		for query, want := range map[string]int{"as=gzip": 200, "as=br": 200, "as=identity": 200, "as=gzip&lie": 502, "as=br&lie": 502, "as=x-unknown": 502, "as=gzip,gzip,gzip": 502, "as=identity&part": 502} {
			got := do(t, c.Client, request(t, http.MethodGet, c.base+"/coded?"+query, nil, "Authorization", "Bearer "+keycard, "Accept-Encoding", "gzip, br", "Range", "bytes=5-9"))
			if got.StatusCode != want || strings.Contains(got.body, credential) || want == 200 && (!strings.HasSuffix(got.body, "and Bearer "+strings.Repeat("*", len(credential))) || len(got.body) != len(text)) {
				t.Errorf("%s, %s: %s, %d bytes", c.name, query, got.Status, len(got.body))
			}
			if coding := got.Header.Get("Content-Encoding"); coding != "" && coding != "identity" || got.Header.Get("Accept-Ranges") != "" {
				t.Errorf("%s, %s: %v", c.name, query, got.Header)
			}
		}
	}
}

// frame writes one WebSocket frame of up to 125 bytes; a client's is masked.
func frame(first byte, payload string, mask uint32) []byte {
	b := []byte{first, byte(len(payload))}
	if mask != 0 {
		b[1] |= 0x80
		b = binary.BigEndian.AppendUint32(b, mask)
	}
	for i := range payload {
		b = append(b, payload[i]^byte(mask>>(24-8*(i%4))))
	}
	return b
}

// echoes is an API's WebSocket, which says back what it gets and, first of all, its credential, in two frames.
func echoes(w http.ResponseWriter, r *http.Request) {
	sum := sha1.Sum([]byte(r.Header.Get("Sec-Websocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11")) // #nosec
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(err)
	}
	defer func() { _ = conn.Close() }()
	fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\nX-Extensions: %s\r\nSet-Cookie: a=b\r\n\r\n",
		base64.StdEncoding.EncodeToString(sum[:]), r.Header.Get("Sec-Websocket-Extensions"))
	line := r.Header.Get("Authorization")
	_, _ = conn.Write(append(frame(0x01, line[:20], 0), frame(0x80, line[20:], 0)...))
	for {
		head := make([]byte, 6)
		if _, err := io.ReadFull(buffered, head); err != nil {
			return
		}
		p := make([]byte, head[1]&0x7f)
		if _, err := io.ReadFull(buffered, p); err != nil {
			return
		}
		for i := range p {
			p[i] ^= head[2+i%4]
		}
		if _, err := conn.Write(frame(head[0], string(p), 0)); err != nil || head[0] == 0x88 {
			return
		}
	}
}

func TestWebSockets(t *testing.T) {
	s := newStage(t)
	s.both("/socket", echoes)
	head := func(target, host, more string) string {
		return "GET " + target + " HTTP/1.1\r\nHost: " + host + "\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n" +
			"Sec-WebSocket-Extensions: permessage-deflate\r\nAuthorization: Bearer " + keycard + "\r\n" + more + "\r\n"
	}
	dial := func() net.Conn {
		c, err := net.Dial("tcp", s.addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	tunnel := func() net.Conn {
		c, err := s.tunnel(t, s.secure.host, "localhost")
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	for _, tc := range []struct {
		name         string
		conn         net.Conn
		target, host string
	}{
		{"base URL", dial(), "/egress/plain/socket", s.addr},
		{"base URL to TLS", dial(), "/egress/secure/socket", s.addr},
		{"absolute form", dial(), s.plain.url + "/socket", s.plain.host},
		{"tunnel", tunnel(), "/socket", s.secure.host},
	} {
		said := "Bearer " + strings.Repeat("*", len(credential))
		want := string(append(frame(0x01, said[:20], 0), frame(0x80, said[20:], 0)...))
		got := converse(t, tc.conn, head(tc.target, tc.host, ""), func(got string) bool { return strings.HasSuffix(got, want) })
		if !strings.HasPrefix(got, "HTTP/1.1 101 ") || !strings.Contains(got, "Sec-Websocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n") || !strings.Contains(got, "X-Extensions: \r\n") || strings.Contains(got, "Set-Cookie") || !strings.HasSuffix(got, want) {
			t.Errorf("%s: %q", tc.name, got)
		}
		want = string(frame(0x81, "hello", 0))
		if got := converse(t, tc.conn, string(frame(0x81, "hello", 0x12345678)), func(got string) bool { return len(got) == len(want) }); got != want {
			t.Errorf("%s: %q", tc.name, got)
		}
		// The keycard does not leave, even in two frames; the connection ends, and says why.
		if got := converse(t, tc.conn, string(frame(0x01, keycard[:30], 0x12345678))+string(frame(0x80, keycard[30:], 0x9abcdef0)), func(got string) bool { return strings.Contains(got, "later message") }); strings.Contains(got, keycard[30:]) || !strings.Contains(got, "\x03\xf0invalid_token: ") {
			t.Errorf("%s: %q", tc.name, got)
		}
	}
	for name, change := range map[string][2]string{"h2c": {"Upgrade: websocket", "Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__"}, "two at once": {"Upgrade: websocket", "Upgrade: websocket, h2c"}, "an old version": {"Version: 13", "Version: 8"},
		"a body": {"Upgrade: websocket", "Upgrade: websocket\r\nContent-Length: 5"}, "POST": {"GET ", "POST "}} {
		if got := s.raw(t, strings.Replace(head("/egress/plain/socket", s.addr, ""), change[0], change[1], 1)+"hello", nil); !strings.HasPrefix(got, "HTTP/1.1 501 ") && !strings.HasPrefix(got, "HTTP/1.1 400 ") {
			t.Errorf("%s: %q", name, got)
		}
	}
	s.ups["plain"].WebSocket = false
	if got := s.raw(t, head("/egress/plain/socket", s.addr, ""), nil); !strings.HasPrefix(got, "HTTP/1.1 501 ") {
		t.Errorf("an upstream without WebSockets: %q", got)
	}
}

// TestWhereKeycardsStand is every place in which servers put a token, and what must not be one.
func TestWhereKeycardsStand(t *testing.T) {
	const opaque = "ghp_0123456789abcdefGHIJKLMNOPQRSTUVWXYZ"
	inJSON := catalog.TokenPlaces{JSON: []string{"/api_key"}}
	basic := func(s string) string { return "Basic " + base64.StdEncoding.EncodeToString([]byte(s)) }
	for _, tc := range []struct {
		name, query, form string
		js                string
		headers           []string
		in                catalog.Injection
		token             catalog.TokenPlaces
		ok                bool
		want              string // in what the API sees, with the credential in full
	}{
		{name: "Bearer", headers: []string{"Authorization", "Bearer " + keycard}, ok: true, want: "Authorization: Bearer @"},
		{name: "token", headers: []string{"Authorization", "token " + keycard}, ok: true, want: "Authorization: Bearer @"},
		{name: "bare", headers: []string{"Authorization", keycard}, ok: true, want: "Authorization: Bearer @"},
		{name: "password of Basic", headers: []string{"Authorization", basic("alice.the.user@example.com:" + keycard)}, ok: true, want: "Authorization: Bearer @"},
		{name: "user of Basic", headers: []string{"Authorization", basic(keycard + ":")}, ok: true, want: "Authorization: Bearer @"},
		{name: "user of Basic, with a filler", headers: []string{"Authorization", basic(keycard + ":x-oauth-basic")}, ok: true, want: "Authorization: Bearer @"},
		{name: "to Basic", headers: []string{"Authorization", "Bearer " + keycard}, in: catalog.Injection{Kind: "basic", Format: "{token}:X"}, ok: true, want: "Authorization: " + basic(credential+":X")},
		{name: "the vendor's header", headers: []string{"X-Figma-Token", keycard}, in: catalog.Injection{Kind: "header", Name: "X-Figma-Token", Format: "{token}"}, ok: true, want: "X-Figma-Token: @"},
		{name: "another header", headers: []string{"X-Old-Token", keycard}, token: catalog.TokenPlaces{Headers: []string{"X-Old-Token"}}, ok: true, want: "Authorization: Bearer @"},
		{name: "query to header", query: "a=b%20c&token=" + keycard + "&a=d", token: catalog.TokenPlaces{Query: []string{"token"}}, ok: true, want: "?a=b%20c&a=d HTTP"},
		{name: "header to query", query: "z=1&a=%7E", headers: []string{"Authorization", "Bearer " + keycard}, in: catalog.Injection{Kind: "query", Name: "key"}, ok: true, want: "?z=1&a=%7E&key=@ HTTP"},
		{name: "form to header", form: "channel=C1&token=" + keycard + "&text=a+b", token: catalog.TokenPlaces{Form: []string{"token"}}, ok: true, want: "\nchannel=C1&text=a+b"},
		{name: "JSON to header", js: `{"q":"a", "api_key":"` + keycard + `" , "n":[1.0]}`, token: inJSON, ok: true, want: "\n" + `{"q":"a" , "n":[1.0]}`},
		{name: "first in JSON", js: `{ "api_key" : "` + keycard + `", "q":"a,"}`, token: inJSON, ok: true, want: "\n" + `{ "q":"a,"}`},
		{name: "alone in JSON", js: `{"api_key":"` + keycard + `"}`, token: inJSON, ok: true, want: "\n{}"},
		{name: "deep in JSON", js: `[{"auth":{"api_key":"` + keycard + `"},"q":1}]`, token: catalog.TokenPlaces{JSON: []string{"/0/auth/api_key"}}, ok: true, want: "\n" + `[{"auth":{},"q":1}]`},
		{name: "in a header and in JSON", headers: []string{"Authorization", "Bearer " + keycard}, js: `{"q":"a","api_key":"` + keycard + `"}`, token: inJSON, ok: true, want: "\n" + `{"q":"a"}`},
		{name: "in a header, with JSON that has none", headers: []string{"Authorization", "Bearer " + keycard}, js: `{"q":"a"}`, token: inJSON, ok: true, want: "\n" + `{"q":"a"}`},
		{name: "in a header, with something that is no JSON", headers: []string{"Authorization", "Bearer " + keycard}, js: `{"q":`, token: inJSON, ok: true, want: "\n" + `{"q":`},
		{name: "one half of a pair", headers: []string{"X-App-Key", keycard}, in: catalog.Injection{Kind: "pair", Name: "X-Api-Id", Second: "X-App-Key"}, ok: true, want: "X-Api-Id: @"},
		{name: "both halves of a pair", headers: []string{"X-Api-Id", keycard, "X-App-Key", keycard}, in: catalog.Injection{Kind: "pair", Name: "X-Api-Id", Second: "X-App-Key"}, ok: true, want: "X-Api-Id: @"},
		{name: "opaque", headers: []string{"Authorization", "Bearer " + opaque}, ok: true, want: "Authorization: Bearer @"},

		{name: "nowhere"},
		{name: "in a place that is not listed", query: "token=" + keycard},
		{name: "in a header that is not listed", headers: []string{"X-Token", keycard}},
		{name: "twice", headers: []string{"Authorization", "Bearer " + keycard, "Authorization", "Bearer " + keycard}},
		{name: "in two places", headers: []string{"Authorization", "Bearer " + keycard, "X-Old-Token", keycard}, token: catalog.TokenPlaces{Headers: []string{"X-Old-Token"}}},
		{name: "a pair with a half of its own", headers: []string{"X-Api-Id", "own-0123456789", "X-App-Key", keycard}, in: catalog.Injection{Kind: "pair", Name: "X-Api-Id", Second: "X-App-Key"}},
		{name: "a pair of two keycards", headers: []string{"X-Api-Id", opaque, "X-App-Key", keycard}, in: catalog.Injection{Kind: "pair", Name: "X-Api-Id", Second: "X-App-Key"}},
		{name: "again in the query", query: "x=" + keycard, headers: []string{"Authorization", "Bearer " + keycard}},
		{name: "again in the query, escaped", query: "x=%65" + keycard[1:], headers: []string{"Authorization", "Bearer " + keycard}},
		{name: "again in a cookie's neighbour", headers: []string{"Authorization", "Bearer " + keycard, "X-Note", "it is " + keycard}},
		{name: "again in the body", form: "x=" + keycard, headers: []string{"Authorization", "Bearer " + keycard}},
		{name: "again in the body, in base64", form: "x=" + base64.StdEncoding.EncodeToString([]byte("12"+keycard)), headers: []string{"Authorization", "Bearer " + keycard}},
		{name: "again in JSON", js: `{"api_key":"` + keycard + `","q":"` + keycard + `"}`, token: inJSON},
		{name: "twice in JSON", js: `{"api_key":"` + keycard + `","api_key":"` + keycard + `"}`, token: inJSON},
		{name: "in JSON, where it is not listed", js: `{"key":"` + keycard + `"}`, token: inJSON},
		{name: "within a longer text in JSON", js: `{"api_key":"Bearer ` + keycard + `"}`, token: inJSON},
		{name: "another one in JSON", headers: []string{"Authorization", "Bearer " + opaque}, js: `{"api_key":"` + keycard + `"}`, token: inJSON},
		{name: "in JSON that is none", js: `{"api_key":"` + keycard + `"`, token: inJSON},
		{name: "beside a credential of its own", headers: []string{"Authorization", "Bearer " + keycard, "X-Figma-Token", "figd_own"}, in: catalog.Injection{Kind: "header", Name: "X-Figma-Token", Format: "{token}"}},
		{name: "beside a credential in the query", query: "access_token=own", headers: []string{"Authorization", "Bearer " + keycard}},
		{name: "Basic that is none", headers: []string{"Authorization", "Basic !!!"}},
	} {
		s := newStage(t, func(s *stage) {
			s.ups["plain"].Provider = &catalog.Provider{Name: "Vendor", Injection: tc.in, Egress: catalog.ProviderEgress{TokenIn: tc.token}}
			s.door.more = opaque
		})
		s.plain.mux.HandleFunc("/seen", func(w http.ResponseWriter, r *http.Request) {
			var b bytes.Buffer
			fmt.Fprintf(&b, "%s HTTP\n", r.URL.RequestURI())
			_ = r.Header.Write(&b)
			body, err := io.ReadAll(r.Body)
			if err != nil || r.ContentLength >= 0 && r.ContentLength != int64(len(body)) {
				panic(http.ErrAbortHandler)
			}
			s.saw = b.String() + "\n" + string(body)
		})
		h := tc.headers
		var body io.Reader
		if tc.js != "" {
			h, body = append(h, "Content-Type", "application/json; charset=utf-8"), strings.NewReader(tc.js)
		}
		if tc.form != "" {
			h, body = append(h, "Content-Type", "application/x-www-form-urlencoded"), strings.NewReader(tc.form)
		}
		url := "http://" + s.addr + "/egress/plain/seen"
		if tc.query != "" {
			url += "?" + tc.query
		}
		got := do(t, http.DefaultClient, request(t, http.MethodPost, url, body, h...))
		saw := strings.ReplaceAll(s.saw, credential, "@")
		if tc.want = strings.ReplaceAll(tc.want, credential, "@"); strings.Contains(tc.want, "Basic ") {
			saw = s.saw
		}
		if tc.ok && (got.StatusCode != 200 || !strings.Contains(strings.ReplaceAll(saw, "\r", ""), tc.want) || strings.Contains(saw, keycard)) {
			t.Errorf("%s: %s %s\nthe API saw %s", tc.name, got.Status, got.body, saw)
		}
		if !tc.ok && (got.StatusCode != 401 && got.StatusCode != 400 || s.saw != "") {
			t.Errorf("%s: %s %s\nthe API saw %s", tc.name, got.Status, got.body, saw)
		}
	}
}

// TestAliases: a server calls the host that people know; the credential works elsewhere.
func TestAliases(t *testing.T) {
	s := newStage(t, func(s *stage) {
		s.ups["secure"].Aliases = []catalog.Alias{{From: parsed(t, "https://acme.example.net"), To: parsed(t, s.secure.url+"/ex/jira/11-22")}}
	}, acmeCertified)
	s.secure.mux.HandleFunc("/ex/jira/11-22/rest/api/3/myself", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "me at "+r.Host) })
	got := do(t, s.through(), request(t, http.MethodGet, "https://acme.example.net/rest/api/3/myself", nil, "Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte("alice@example.com:"+keycard))))
	if got.body != "me at "+s.secure.host {
		t.Errorf("%s %s", got.Status, got.body)
	}
	if acts := s.door.opened(); len(acts) != 1 || acts[0].Host != s.secure.host || acts[0].Path != "/ex/jira/11-22/rest/api/3/myself" {
		t.Errorf("policy has to see what is sent: %+v", acts)
	}
}

// acmeCertified is an authority that vouches for the alias too.
func acmeCertified(s *stage) {
	certs, file := authority(s.t, "localhost", "127.0.0.1", "acme.example.net")
	s.Certs, s.caFile = certs, file
	s.roots.AppendCertsFromPEM(certs.PEM())
}

// TestAccessEnds: a stream ends when its person's access does.
func TestAccessEnds(t *testing.T) {
	s := newStage(t)
	s.door.left = make(chan struct{})
	s.plain.mux.HandleFunc("/endless", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "begin")
		_ = http.NewResponseController(w).Flush()
		close(s.door.left)
		<-r.Context().Done()
	})
	resp, err := http.DefaultClient.Do(request(t, http.MethodGet, "http://"+s.addr+"/egress/plain/endless", nil, "Authorization", "Bearer "+keycard))
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(resp.Body); err == nil || string(b) != "begin" {
		t.Errorf("%q %v", b, err)
	}
	_ = resp.Body.Close()
}

// TestKeycardsAtHome: the keycard of a process is good on the listener in its sandbox, and that one takes no other; by every door.
func TestKeycardsAtHome(t *testing.T) {
	s := newStage(t)
	at := map[string]string{"outside": s.addr}
	for name, act := range map[string]audit.CallID{"own": "1.7", "another's": "1.8"} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		at[name] = l.Addr().String()
		go func() { _ = s.ServeProcess(l, act) }() // ends with the stage
	}
	direct := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: s.roots}}, Timeout: 20 * time.Second}
	for name, addr := range at {
		proxy := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{Proxy: http.ProxyURL(&url.URL{Scheme: "http", Host: addr}), TLSClientConfig: &tls.Config{RootCAs: s.roots}, ForceAttemptHTTP2: true}}
		for _, door := range []struct {
			name   string
			client *http.Client
			url    string
		}{{"base URL", direct, "http://" + addr + "/egress/plain/echo"}, {"base URL over TLS", direct, "https://" + addr + "/egress/plain/echo"}, {"absolute form", proxy, s.plain.url + "/echo"}, {"CONNECT", proxy, s.secure.url + "/echo"}} {
			for card, home := range map[string]string{processCard: "own", keycard: "outside"} {
				s.plain.forget()
				s.secure.forget()
				got := do(t, door.client, request(t, http.MethodGet, door.url, nil, "Authorization", "Bearer "+card))
				reached := len(s.plain.seen()) + len(s.secure.seen())
				if good := home == name; good != (got.StatusCode == http.StatusOK) || good != (reached == 1) || !good && !strings.Contains(got.body, "invalid_token") {
					t.Errorf("%s, listener %s, a keycard of %s: %s, %d reached the API", door.name, name, home, got.Status, reached)
				}
			}
		}
		proxy.CloseIdleConnections()
	}
}

// TestAskedForByName: where the API's names lead to us, a program that asks no proxy is served as in a tunnel, for the host that its
// handshake names and no other.
func TestAskedForByName(t *testing.T) {
	s := newStage(t, func(s *stage) {
		s.ups["secure"].Aliases = []catalog.Alias{{From: parsed(t, "https://acme.example.net"), To: parsed(t, s.secure.url)}}
	}, acmeCertified)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = s.ServeDirect(l, "1.7") }() // ends with the stage
	for _, h2 := range []bool{false, true} {
		client := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{ForceAttemptHTTP2: h2, TLSClientConfig: &tls.Config{RootCAs: s.roots}, DisableKeepAlives: !h2,
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, "tcp", l.Addr().String())
			}}}
		for name, tc := range map[string]struct {
			url, host, card string
			status          int // 0: there is no connection
		}{
			"its own":           {"https://acme.example.net/echo", "", processCard, 200},
			"a keycard of none": {"https://acme.example.net/echo", "", keycard, 401},
			"another Host":      {"https://acme.example.net/echo", "localhost", processCard, 421},
			"another port":      {"https://acme.example.net/echo", "acme.example.net:8443", processCard, 421},
			"a stranger":        {"https://evil.example.net/echo", "", processCard, 0},
			"egress itself":     {"https://localhost/egress/plain/echo", "", processCard, 0},
			"without TLS":       {"http://acme.example.net/echo", "", processCard, 0},
		} {
			s.secure.forget()
			r := request(t, http.MethodGet, tc.url, nil, "Authorization", "Bearer "+tc.card)
			r.Host = tc.host
			resp, err := client.Do(r)
			status := 0
			if err == nil {
				status = resp.StatusCode
				_ = resp.Body.Close()
			}
			if status != tc.status || len(s.secure.seen()) > 0 != (tc.status == 200) {
				t.Errorf("%s, HTTP/2 %v: %d (%v), %d reached the API", name, h2, status, err, len(s.secure.seen()))
			}
		}
		client.CloseIdleConnections()
	}
}
