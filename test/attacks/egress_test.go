package attacks_test

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"frontdesk.dev/frontdesk/test/world/capture"
)

// second is the way through egress to the tracker's second host, which answers as the test says.
func (h *hostile) second(path string) string {
	return h.Desk().Egress + "/egress/tracker/@" + strings.TrimPrefix(h.api.URL, "http://") + path
}

// wire sends bytes to egress as they are, and gives all that comes back within a moment.
func (h *hostile) wire(t *testing.T, text string) string {
	t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(h.Desk().Egress, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if _, err := io.WriteString(c, text); err != nil {
		return ""
	}
	_ = c.SetReadDeadline(time.Now().Add(600 * time.Millisecond)) // a server that waits for more has been given all there is
	b, _ := io.ReadAll(c)
	return string(b)
}

// TestA098_A101_placesAndPaths: a keycard opens what policy lets it open, by one spelling.
func TestA098_A101_placesAndPaths(t *testing.T) {
	s := foes(t)
	s.oracles(t)
	card := s.keycard(t, "alice")
	auth := []string{"Authorization", "Bearer " + card}
	if got := send(t, http.MethodGet, s.second("/hello"), "", auth...); got.Status != http.StatusOK || len(s.api.heard()) != 1 {
		t.Fatalf("the honest request: %d %s", got.Status, got.Body)
	}
	before, heard := s.calls(), len(s.api.heard())
	e := s.Desk().Egress
	evil := strings.TrimPrefix(s.evil.URL, "http://")
	for name, at := range map[string]string{"another upstream": e + "/egress/evil/x", "another host": e + "/egress/tracker/@evil.test/x", "a server's host": e + "/egress/tracker/@" + evil + "/x",
		"user part": e + "/egress/tracker/@" + evil + "%40" + strings.TrimPrefix(s.api.URL, "http://") + "/x", "another port": e + "/egress/tracker/@127.0.0.1:1/x", "upper case": e + "/egress/TRACKER/x",
		"another tenant": e + "/t/globex/egress/tracker/x", "no upstream": e + "/egress/", "not egress": e + "/mcp/evil", "empty host": e + "/egress/tracker/@/x"} {
		if got := send(t, http.MethodGet, at, "", auth...); got.Status < 400 || got.Status >= 500 {
			t.Errorf("A-098 %s: %d %s", name, got.Status, got.Body)
		}
	}
	for _, path := range []string{"/forbidden", "/x/../forbidden", "/x/%2e%2e/forbidden", "/x/..%2fforbidden", "/x/%2E%2E%2Fforbidden", "/%252e%252e/forbidden", "//forbidden", "/./forbidden", "/x;y=1/..;/forbidden",
		`/x/..\forbidden`, "/x/..%5cforbidden", "/forbidden%00", "/x/%c0%ae%c0%ae/forbidden", "/forbidden/.", "/forb%69dden", "/%66orbidden", "/x?/../forbidden#", "*", "", "/a%2fforbidden", "/\x01forbidden", "/forbidden%0d%0a",
		"/forbidden?x", "/a/%2e", "/a/..", "/a%", "/a%zz", "/a\x7f", "/\xff", "/a b", "/%ff"} {
		got := s.wire(t, "GET /egress/tracker/@"+strings.TrimPrefix(s.api.URL, "http://")+path+" HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "+card+"\r\nConnection: close\r\n\r\n")
		if !strings.HasPrefix(got, "HTTP/1.1 4") && path != "/x?/../forbidden#" && path != "" {
			t.Errorf("A-101 %q: %.80q", path, got)
		}
	}
	for _, h := range s.api.heard()[heard:] {
		if strings.Contains(strings.ToLower(h.Line), "forbidden") && !strings.Contains(h.Line, "?") {
			t.Errorf("A-101: %q reached the API", h.Line)
		}
	}
	if s.calls() != before {
		t.Error("something that was refused reached the tracker")
	}
}

// TestA100_A103_framing: what two parsers could read differently does not go on, and one request in is one request out.
func TestA100_A103_framing(t *testing.T) {
	s := foes(t)
	s.oracles(t)
	card := s.keycard(t, "alice")
	host := strings.TrimPrefix(s.api.URL, "http://")
	line := func(method, path string) string {
		return method + " /egress/tracker/@" + host + path + " HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + card + "\r\n"
	}
	inner := "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
	for name, text := range map[string]string{
		"chunked and a length":   line("POST", "/a") + "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n" + inner,
		"a length and chunked":   line("POST", "/a") + "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + inner,
		"xchunked":               line("POST", "/a") + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + inner,
		"chunked, identity":      line("POST", "/a") + "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n" + inner,
		"two codings":            line("POST", "/a") + "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n" + inner,
		"TE with a tab":          line("POST", "/a") + "Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n" + inner,
		"space before the colon": line("POST", "/a") + "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + inner,
		"a signed length":        line("POST", "/a") + "Content-Length: +5\r\n\r\nhello" + inner,
		"two lengths in one":     line("POST", "/a") + "Content-Length: 5, 5\r\n\r\nhello" + inner,
		"two lengths":            line("POST", "/a") + "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello" + inner,
		"a bare LF in a size":    line("POST", "/a") + "Transfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n" + inner,
		"an extension of 1 MiB":  line("POST", "/a") + "Transfer-Encoding: chunked\r\n\r\n5;" + strings.Repeat("a", 1<<20) + "\r\nhello\r\n0\r\n\r\n" + inner,
		"a folded header":        line("GET", "/a") + "X-A: b\r\n c\r\n\r\n",
		"HTTP/1.0 with chunked":  strings.Replace(line("POST", "/a"), "HTTP/1.1", "HTTP/1.0", 1) + "Transfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n0\r\n\r\n" + inner,
		"a body hides a request": line("POST", "/a") + fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(inner), inner),
		"a GET with a body":      line("GET", "/a") + fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(inner), inner),
		"two hosts":              strings.Replace(line("GET", "/a"), "Host: x", "Host: x\r\nHost: y", 1) + "\r\n",
		"a list of hosts":        strings.Replace(line("GET", "/a"), "Host: x", "Host: x, y", 1) + "\r\n",
		"no host":                strings.Replace(line("GET", "/a"), "Host: x\r\n", "", 1) + "\r\n",
		"CR in a name":           line("GET", "/a") + "X-A\rB: c\r\n\r\n",
		"NUL in a value":         line("GET", "/a") + "X-A: b\x00c\r\n\r\n",
		"DEL in a value":         line("GET", "/a") + "X-A: b\x7fc\r\n\r\n",
		"a bare CR in a value":   line("GET", "/a") + "X-A: b\rX-B: c\r\n\r\n",
		"a name of UTF-8":        line("GET", "/a") + "X-ä: b\r\n\r\n",
		"CR in the target":       line("GET", "/a\rb") + "\r\n",
		"CRLF coded in a query":  line("GET", "/a?x=%0d%0aX:%20y") + "\r\n",
		"a method with a tab":    line("G\tET", "/a") + "\r\n",
		"Connection names ours":  line("GET", "/a") + "Connection: Authorization, Host\r\n\r\n",
	} {
		// Each has a path of its own: a request of the one before may still be on its way.
		own := "/a" + strings.ReplaceAll(strings.Map(func(c rune) rune {
			if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' {
				return c
			}
			return '-'
		}, name), "--", "-")
		text = strings.ReplaceAll(text, "/@"+host+"/a", "/@"+host+own)
		s.api.answer(nil)
		got := s.wire(t, text)
		l := slices.DeleteFunc(s.api.heard(), func(h heard) bool { return !strings.Contains(h.Line, own) && !strings.Contains(h.Line, "smuggled") })
		if len(l) > 1 || strings.Count(got, "HTTP/1.1 200") > 1 {
			t.Errorf("A-102 %s: %d requests became of one: %.200q", name, len(l), got)
		}
		for _, h := range l {
			if h.Host != host || strings.Contains(h.Line, "smuggled") || h.Header.Get("Transfer-Encoding") != "" || strings.ContainsAny(fmt.Sprint(h.Header), "\r\x00\x7f") {
				t.Errorf("A-102/A-103 %s: the API heard %q, host %q, %v", name, h.Line, h.Host, h.Header)
			}
			if h.Header.Get("Authorization") == "" || strings.Contains(fmt.Sprint(h.Header), card) {
				t.Errorf("A-102 %s: the credential is not the one that was placed: %v", name, h.Header)
			}
		}
	}
}

// TestA104_A106_reflections: the API says its credential back, in every form and split; what arrives is clean.
func TestA104_A106_reflections(t *testing.T) {
	s := foes(t)
	s.oracles(t)
	card := s.keycard(t, "alice")
	ask := func(how func(w http.ResponseWriter, secret string), more ...string) (answer, string) {
		t.Helper()
		secret := ""
		s.api.answer(func(w http.ResponseWriter, r *http.Request) {
			secret = strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
			how(w, secret)
		})
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.second("/x"), nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+card)
		for i := 0; i+1 < len(more); i += 2 {
			r.Header.Set(more[i], more[i+1])
		}
		resp, err := (&http.Transport{DisableCompression: true, DisableKeepAlives: true}).RoundTrip(r)
		if err != nil {
			return answer{}, secret
		}
		defer func() { _ = resp.Body.Close() }()
		b, _ := io.ReadAll(resp.Body)
		all := fmt.Sprint(resp.Status, resp.Header, resp.Trailer)
		return answer{resp.StatusCode, resp.Header, all + "\n" + string(b)}, secret
	}
	clean := func(name string, got answer, secret string) {
		t.Helper()
		if len(secret) < 16 {
			t.Fatalf("%s: the API got no credential", name)
		}
		texts := []string{got.Body}
		if _, body, ok := strings.Cut(got.Body, "\n"); ok {
			if z, err := gzip.NewReader(strings.NewReader(body)); err == nil {
				b, _ := io.ReadAll(z)
				texts = append(texts, string(b))
			}
			b, _ := io.ReadAll(flate.NewReader(strings.NewReader(body)))
			texts = append(texts, string(b))
		}
		for _, text := range texts {
			if strings.Contains(text, secret) {
				t.Errorf("%s: the credential came back: %.400s", name, text)
			}
			for _, f := range capture.Forms(secret) {
				if strings.Contains(text, f.Text) {
					t.Errorf("%s: the credential came back as %s: %.400s", name, f.Name, text)
				}
			}
		}
	}
	var unicode, percent strings.Builder
	for name, form := range map[string]func(string) string{
		"plain":         func(v string) string { return v },
		"JSON":          func(v string) string { return `{"authorization":"Bearer ` + v + `"}` },
		"base64":        func(v string) string { return base64.StdEncoding.EncodeToString([]byte("user:" + v)) },
		"base64url":     func(v string) string { return base64.RawURLEncoding.EncodeToString([]byte("xy" + v + "z")) },
		"hex":           func(v string) string { return hex.EncodeToString([]byte(v)) },
		"upper hex":     func(v string) string { return strings.ToUpper(hex.EncodeToString([]byte(v))) },
		"query escape":  url.QueryEscape,
		"JSON escapes":  func(v string) string { return escaped(&unicode, `\u%04x`, v) },
		"upper escapes": func(v string) string { return escaped(&unicode, `\u%04X`, v) },
		"percent":       func(v string) string { return escaped(&percent, "%%%02x", v) },
		"entities":      func(v string) string { return escaped(&percent, "&#%d;", v) },
		"reversed":      func(v string) string { b := []byte(v); slices.Reverse(b); return string(b) },
		"an HTML error": func(v string) string { return "<h1>bad token " + v + "</h1>" },
	} {
		got, secret := ask(func(w http.ResponseWriter, v string) { _, _ = io.WriteString(w, form(v)) })
		clean("A-104 "+name, got, secret)
		if strings.Contains(got.Body, form(secret)) {
			t.Errorf("A-104 %s: came back: %s", name, got.Body)
		}
	}
	for name, how := range map[string]func(w http.ResponseWriter, v string){
		"a header":        func(w http.ResponseWriter, v string) { w.Header().Set("X-Echo", v) },
		"a header's name": func(w http.ResponseWriter, v string) { w.Header().Set("X-"+v, "1") },
		"Set-Cookie":      func(w http.ResponseWriter, v string) { w.Header().Set("Set-Cookie", "t="+v) },
		"Location": func(w http.ResponseWriter, v string) {
			w.Header().Set("Location", "https://x.test/?t="+v)
			w.WriteHeader(302)
		},
		"Link": func(w http.ResponseWriter, v string) { w.Header().Set("Link", "<https://x.test/?t="+v+">; rel=next") },
		"WWW-Authenticate": func(w http.ResponseWriter, v string) {
			w.Header().Set("WWW-Authenticate", `Bearer realm="`+v+`"`)
			w.WriteHeader(401)
		},
		"a trailer": func(w http.ResponseWriter, v string) {
			w.Header().Set("Trailer", "X-T")
			_, _ = io.WriteString(w, "x")
			w.Header().Set("X-T", v)
		},
		"an early hint": func(w http.ResponseWriter, v string) {
			w.Header().Set("Link", "<https://x.test/?t="+v+">")
			w.WriteHeader(http.StatusEarlyHints)
			w.Header().Del("Link")
			_, _ = io.WriteString(w, "x")
		},
		"the reason": func(w http.ResponseWriter, v string) { raw("HTTP/1.1 200 "+v+"\r\nContent-Length: 1\r\n\r\nx")(w, nil) },
		"gzip": func(w http.ResponseWriter, v string) {
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = w.Write(zip(v))
		},
		"gzip twice": func(w http.ResponseWriter, v string) {
			w.Header().Set("Content-Encoding", "gzip, gzip")
			_, _ = w.Write(zip(string(zip(v))))
		},
		"said to be gzip": func(w http.ResponseWriter, v string) {
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = io.WriteString(w, v)
		},
		"an unknown coding": func(w http.ResponseWriter, v string) {
			w.Header().Set("Content-Encoding", "x-rot13")
			_, _ = io.WriteString(w, v)
		},
		"deflate": func(w http.ResponseWriter, v string) {
			var b bytes.Buffer
			z, _ := flate.NewWriter(&b, 9)
			_, _ = io.WriteString(z, v)
			_ = z.Close()
			w.Header().Set("Content-Encoding", "deflate")
			_, _ = w.Write(b.Bytes())
		},
		"a part": func(w http.ResponseWriter, v string) {
			w.Header().Set("Content-Range", "bytes 5-20/60")
			w.WriteHeader(http.StatusPartialContent)
			_, _ = io.WriteString(w, v[5:])
		},
	} {
		got, secret := ask(how, "Accept-Encoding", "gzip, br", "Range", "bytes=5-20")
		clean("A-104/A-106 "+name, got, secret)
		if name == "a part" && strings.Contains(got.Body, secret[5:]) {
			t.Errorf("A-106: the middle of the credential came back")
		}
		if h := s.api.heard(); len(h) != 1 || h[0].Header.Get("Range") != "" || strings.Contains(h[0].Header.Get("Accept-Encoding"), "br") {
			t.Errorf("A-106 %s: the API was asked with %v", name, h)
		}
	}
	// every split point, over two writes.
	_, sample := ask(func(w http.ResponseWriter, v string) {})
	for i := 1; i < len(sample); i++ {
		got, secret := ask(func(w http.ResponseWriter, v string) {
			_, _ = io.WriteString(w, "x"+v[:min(i, len(v))])
			_ = http.NewResponseController(w).Flush()
			_, _ = io.WriteString(w, v[min(i, len(v)):]+"y")
		})
		clean(fmt.Sprint("A-105 split at ", i), got, secret)
	}
	got, secret := ask(func(w http.ResponseWriter, v string) {
		for _, c := range []byte(v) {
			_, _ = w.Write([]byte{c})
			_ = http.NewResponseController(w).Flush()
		}
	})
	clean("A-105 byte by byte", got, secret)
	got, secret = ask(func(w http.ResponseWriter, v string) {
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprintf(w, "data: %s\ndata: %s\n\n", v[:10], v[10:])
	})
	if strings.Contains(got.Body, secret[:10]) && strings.Contains(got.Body, secret[10:]) {
		t.Errorf("A-105 two lines of data: %s", got.Body)
	}
}

func escaped(b *strings.Builder, format, v string) string {
	b.Reset()
	for _, c := range []byte(v) {
		fmt.Fprintf(b, format, c)
	}
	return b.String()
}

// percent escapes every letter.
func percent(v string) string {
	var b strings.Builder
	return escaped(&b, "%%%02X", v)
}

func zip(v string) []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = io.WriteString(z, v)
	_ = z.Close()
	return b.Bytes()
}

// TestA107_redirects are handed back: the server that follows asks again.
func TestA107_redirects(t *testing.T) {
	s := foes(t)
	s.oracles(t)
	card := s.keycard(t, "alice")
	host := strings.TrimPrefix(s.api.URL, "http://")
	for _, status := range []int{301, 302, 303, 307, 308} {
		for to, want := range map[string]string{"https://evil.test/x": "https://evil.test/x", "http://" + host + "/forbidden": "/egress/tracker/@" + host + "/forbidden", "https://" + host + "/x": "https://" + host + "/x",
			"http://" + strings.Split(host, ":")[0] + ":1/x": "http://127.0.0.1:1/x", "/forbidden": "/egress/tracker/@" + host + "/forbidden", "//evil.test/x": "//evil.test/x", "javascript:alert(1)": "javascript:alert(1)"} {
			s.api.answer(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Location", to)
				w.WriteHeader(status)
			})
			got := send(t, http.MethodPost, s.second("/x"), "body", "Authorization", "Bearer "+card)
			if got.Status != status || got.Header.Get("Location") != want && !strings.HasSuffix(got.Header.Get("Location"), want) || len(s.api.heard()) != 1 {
				t.Errorf("%d to %s: %d %q, the API heard %d", status, to, got.Status, got.Header.Get("Location"), len(s.api.heard()))
			}
		}
	}
}

// TestA108_A115_oneCredential: one keycard in, one credential out, whatever else a request carries.
func TestA108_A115_oneCredential(t *testing.T) {
	s := foes(t)
	s.oracles(t)
	card := s.keycard(t, "alice")
	bearer := "Bearer " + card
	parts := strings.Split(card, ".")
	last := func(change string) string { return parts[0] + "." + parts[1] + "." + change }
	type request struct {
		method, path string
		headers      []string
	}
	for name, tt := range map[string]request{
		"A-109 none":                  {"GET", "/x", nil},
		"A-109 in the query":          {"GET", "/x?t=" + card, nil},
		"A-109 in the query as well":  {"GET", "/x?t=" + card, []string{"Authorization", bearer}},
		"A-109 percent-encoded":       {"GET", "/x?t=" + strings.ReplaceAll(card, ".", "%2E"), []string{"Authorization", bearer}},
		"A-109 in a cookie":           {"GET", "/x", []string{"Cookie", "t=" + card}},
		"A-109 twice":                 {"GET", "/x", []string{"Authorization", bearer, "Authorization", bearer}},
		"A-109 in another as well":    {"GET", "/x", []string{"Authorization", bearer, "Txn-Token", card}},
		"A-109 within a longer one":   {"GET", "/x", []string{"Authorization", bearer, "X-Debug", "a" + card + "b"}},
		"A-109 encoded twice":         {"GET", "/x?t=" + strings.ReplaceAll(card, ".", "%252E"), []string{"Authorization", bearer}},
		"A-109 every letter encoded":  {"GET", "/x?t=" + percent(percent(card)), []string{"Authorization", bearer}},
		"A-109 a segment, encoded":    {"GET", "/a/" + percent(card) + "/b", []string{"Authorization", bearer}},
		"A-109 in base64":             {"GET", "/x", []string{"Authorization", bearer, "X-Debug", base64.StdEncoding.EncodeToString([]byte("a:" + card))}},
		"A-109 in base64, a query":    {"GET", "/x?t=" + base64.RawURLEncoding.EncodeToString([]byte(card)), []string{"Authorization", bearer}},
		"A-109 in hex":                {"GET", "/x", []string{"Authorization", bearer, "X-Debug", hex.EncodeToString([]byte(card))}},
		"A-109 escaped in a header":   {"GET", "/x", []string{"Authorization", bearer, "X-Debug", percent(card)}},
		"A-109 as a header's name":    {"GET", "/x", []string{"Authorization", bearer, "X-" + card, "1"}},
		"A-112 underscores":           {"GET", "/x", []string{"Authorization", bearer, "X_Api_Key", "ghp_x"}},
		"A-112 mixed":                 {"GET", "/x", []string{"Authorization", bearer, "x-api_KEY", "ghp_x"}},
		"A-114 underscores":           {"POST", "/x", []string{"Authorization", bearer, "X_HTTP_Method_Override", "DELETE"}},
		"A-114 another address":       {"GET", "/x", []string{"Authorization", bearer, "X_Original_URL", "/admin"}},
		"A-102 a length":              {"GET", "/x", []string{"Authorization", bearer, "Content_Length", "5"}},
		"A-102 a coding":              {"GET", "/x", []string{"Authorization", bearer, "Transfer_Encoding", "chunked"}},
		"A-109 in another alone":      {"GET", "/x", []string{"X-Debug", card}},
		"A-109 with a second value":   {"GET", "/x", []string{"Authorization", bearer + ", Bearer x"}},
		"A-109 in the path":           {"GET", "/" + card, []string{"Authorization", bearer}},
		"A-110 tampered":              {"GET", "/x", []string{"Authorization", "Bearer " + last(strings.Repeat("A", len(parts[2])))}},
		"A-110 no signature":          {"GET", "/x", []string{"Authorization", "Bearer " + last("")}},
		"A-110 alg none":              {"GET", "/x", []string{"Authorization", "Bearer " + base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none","typ":"txntoken+jwt"}`)) + "." + parts[1] + "."}},
		"A-110 an access token":       {"GET", "/x", []string{"Authorization", "Bearer " + s.token}},
		"A-110 the IdP's token":       {"GET", "/x", []string{"Authorization", "Bearer " + s.at(t, "alice")}},
		"A-110 signed by the IdP":     {"GET", "/x", []string{"Authorization", "Bearer " + s.forged(t)}},
		"A-112 a token in the query":  {"GET", "/x?access_token=ghp_x", []string{"Authorization", bearer}},
		"A-112 by another case":       {"GET", "/x?Access_Token=ghp_x", []string{"Authorization", bearer}},
		"A-113 half an escape":        {"GET", "/x?a=%zz", []string{"Authorization", bearer}},
		"A-113 a semicolon":           {"GET", "/x?a=1;access_token=2", []string{"Authorization", bearer}},
		"A-114 TRACE":                 {"TRACE", "/x", []string{"Authorization", bearer}},
		"A-114 TRACK":                 {"TRACK", "/x", []string{"Authorization", bearer}},
		"A-114 lower case":            {"get", "/x", []string{"Authorization", bearer}},
		"A-114 method by the query":   {"POST", "/x?_method=DELETE", []string{"Authorization", bearer}},
		"A-108 websocket":             {"GET", "/x", []string{"Authorization", bearer, "Connection", "Upgrade", "Upgrade", "websocket"}},
		"A-108 h2c":                   {"GET", "/x", []string{"Authorization", bearer, "Connection", "Upgrade, HTTP2-Settings", "Upgrade", "h2c", "HTTP2-Settings", "AAMAAABkAARAAAAAAAIAAAAA"}},
		"A-115 it has been here once": {"GET", "/x", []string{"Authorization", bearer, "Via", s.hop(t, bearer)}},
	} {
		s.api.answer(nil)
		got := send(t, tt.method, s.second(tt.path), "", tt.headers...)
		if got.Status < 400 || got.Status == http.StatusBadGateway || len(s.api.heard()) > 0 {
			t.Errorf("%s: %d %s, the API heard %d", name, got.Status, got.Body, len(s.api.heard()))
		}
		if strings.Contains(got.Body, card) {
			t.Errorf("%s: the answer holds the keycard", name)
		}
	}
	for name, h := range map[string][]string{"a key": {"X-Api-Key", "ghp_0123456789"}, "a cookie": {"Cookie", "session=ghp_0123456789"}, "a proxy's": {"Proxy-Authorization", "Basic ghp_0123456789"},
		"another method": {"X-HTTP-Method-Override", "DELETE"}, "another method 2": {"X-Method-Override", "DELETE"}, "another method 3": {"X-HTTP-Method", "DELETE"}, "where from": {"X-Forwarded-For", "10.0.0.1"},
		"Max-Forwards": {"Max-Forwards", "0"}, "Connection": {"Connection", "X-Secret"}, "Proxy": {"Proxy", "http://evil.test"}, "TE": {"TE", "trailers"}} {
		s.api.answer(nil)
		got := send(t, http.MethodPost, s.second("/x"), "b", append(h, "Authorization", bearer)...)
		l := s.api.heard()
		if got.Status == http.StatusBadRequest {
			continue
		}
		if len(l) != 1 || len(l[0].Header.Values("Authorization")) != 1 || l[0].Header.Get(h[0]) != "" || strings.Contains(fmt.Sprint(l[0].Header), "ghp_") || !strings.HasPrefix(l[0].Line, "POST") {
			t.Errorf("A-112/A-114 %s: %d %v", name, got.Status, l)
		}
	}
	// Thousands of parameters, duplicates among them: what was looked at is what is sent.
	query := "repo=ok&repo=evil&" + strings.Repeat("a=b&", 5000) + "z=1"
	s.api.answer(nil)
	if got := send(t, http.MethodGet, s.second("/x?"+query), "", "Authorization", bearer); got.Status == http.StatusOK && s.api.heard()[0].Line != "GET /x?"+query {
		t.Errorf("A-113: %d, sent was %.200s", got.Status, s.api.heard()[0].Line)
	}
}

// TestA115_whatNeverComes: a body that never comes and an answer that nobody reads end with the call.
func TestA115_whatNeverComes(t *testing.T) {
	s := foes(t)
	s.oracles(t)
	card := s.keycardAt(t, "slow", "alice")
	var all sync.WaitGroup
	for name, text := range map[string]string{
		"Expect":        "POST /egress/tracker/issues HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + card + "\r\nExpect: 100-continue\r\nContent-Length: 10\r\n\r\n",
		"half a body":   "POST /egress/tracker/issues HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + card + "\r\nContent-Length: 10\r\n\r\n{",
		"half a chunk":  "POST /egress/tracker/issues HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + card + "\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
		"a long stream": "GET /egress/tracker/events?every=10ms HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + card + "\r\n\r\n",
	} {
		all.Go(func() {
			c, err := net.Dial("tcp", strings.TrimPrefix(s.Desk().Egress, "http://"))
			if err != nil {
				t.Error(err)
				return
			}
			defer func() { _ = c.Close() }()
			_, _ = io.WriteString(c, strings.Replace(text, "Host: x", "Host: x\r\nConnection: close", 1))
			_ = c.SetReadDeadline(time.Now().Add(15 * time.Second))
			b, err := io.ReadAll(c)
			if errors.Is(err, os.ErrDeadlineExceeded) || strings.Contains(string(b), " 401 ") {
				t.Errorf("%s: the connection outlives its call, or never was: %.100q", name, b)
			}
		})
	}
	all.Wait()
}

// forged has the claims of a keycard, and the company's signature.
func (h *hostile) forged(t *testing.T) string {
	t.Helper()
	v, err := h.IdP.Sign("txntoken+jwt", map[string]any{"iss": h.Desk().Public, "aud": h.Desk().Public + "/egress", "txn": "1", "sub": "emp-alice", "exp": time.Now().Add(time.Minute).Unix()})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// hop is how egress marks what went through it.
func (h *hostile) hop(t *testing.T, bearer string) string {
	t.Helper()
	h.api.answer(nil)
	if got := send(t, http.MethodGet, h.second("/x"), "", "Authorization", bearer); got.Status != http.StatusOK {
		t.Fatalf("%d %s", got.Status, got.Body)
	}
	return h.api.heard()[0].Header.Get("Via")
}

// TestA110_A111_oneCallEach: a keycard is worth something while its call is open, and each request is judged by its own.
func TestA110_A111_oneCallEach(t *testing.T) {
	s := foes(t)
	s.oracles(t)
	alice, bob := s.keycard(t, "alice"), s.keycard(t, "bob")
	client := &http.Client{Transport: &http.Transport{MaxConnsPerHost: 1}}
	for i := range 20 {
		card, want := alice, "octo-alice"
		if i%2 == 1 {
			card, want = bob, "octo-bob"
		}
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.Desk().Egress+"/egress/tracker/user", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+card)
		resp, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if !strings.Contains(string(b), want) {
			t.Errorf("A-111: %s's keycard got %s", want, b)
		}
	}
	// Pipelined on one connection.
	req := func(card, end string) string {
		return "GET /egress/tracker/user HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + card + "\r\n" + end + "\r\n"
	}
	got := s.wire(t, req(alice, "")+req(bob, "")+req(alice, "Connection: close\r\n"))
	first, second := strings.Index(got, "octo-alice"), strings.Index(got, "octo-bob")
	if strings.Count(got, "200 OK") != 3 || first < 0 || second < first || strings.LastIndex(got, "octo-alice") < second {
		t.Errorf("A-111 pipelined: %s", got)
	}
	// A call that is over.
	s.evil.answer(result(`{"jsonrpc":"2.0","id":$ID,"result":{"content":[]}}`))
	s.call(t, "quick", "{}")
	over := strings.TrimPrefix(s.evil.heard()[0].Header.Get("Authorization"), "Bearer ")
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			if got := send(t, http.MethodGet, s.Desk().Egress+"/egress/tracker/user", "", "Authorization", "Bearer "+over); got.Status != http.StatusUnauthorized {
				t.Errorf("A-110: the call has ended, and its keycard still opens: %d", got.Status)
			}
		})
	}
	wg.Wait()
	// As an inbound token it is none.
	if got := s.post(t, "evil", alice, "any", callBody("any", "{}")); got.Status != http.StatusUnauthorized {
		t.Errorf("a keycard as an access token: %d", got.Status)
	}
	var claims map[string]any
	payload, err := base64.RawURLEncoding.DecodeString(strings.Split(alice, ".")[1])
	if err != nil || json.Unmarshal(payload, &claims) != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(payload), "alice") || strings.Contains(string(payload), "octo") {
		t.Errorf("a keycard says more than it must: %s", payload)
	}
}
