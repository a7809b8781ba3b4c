package attacks_test

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestA102_A109_oddPlaces: a keycard in places that hardly anybody reads, byte for byte. It is refused, or stays here.
func TestA102_A109_oddPlaces(t *testing.T) {
	s := foes(t)
	s.oracles(t)
	card := s.keycard(t, "alice")
	host := strings.TrimPrefix(s.api.URL, "http://")
	line := "/egress/tracker/@" + host + "/x HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer " + card + "\r\n"
	for name, tt := range map[string]struct {
		text   string
		passes bool // without it
	}{
		"a trailer":                {"POST " + line + "Trailer: X-T\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX-T: " + card + "\r\n\r\n", false},
		"an encoded trailer":       {"POST " + line + "Trailer: X-T\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX-T: " + percent(card) + "\r\n\r\n", false},
		"a trailer nobody told of": {"POST " + line + "Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX-T: " + card + "\r\n\r\n", true},
		"a trailer that is a key":  {"POST " + line + "Trailer: X_Api_Key\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX_Api_Key: ghp_x\r\n\r\n", false},
		"a chunk's extension":      {"POST " + line + "Transfer-Encoding: chunked\r\n\r\n1;a=" + card[:100] + "\r\na\r\n0\r\n\r\n", true},
		"a long extension":         {"POST " + line + "Transfer-Encoding: chunked\r\n\r\n1;a=" + strings.Repeat(card, 3) + "\r\na\r\n0\r\n\r\n", false},
		"user info of a proxy":     {"GET http://" + card + "@" + host + "/x HTTP/1.1\r\nHost: " + host + "\r\nConnection: close\r\n\r\n", false},
		"user info beside it":      {"GET http://a:" + card + "@" + host + "/x HTTP/1.1\r\nHost: " + host + "\r\nConnection: close\r\nAuthorization: Bearer " + card + "\r\n\r\n", false},
		"a fragment":               {"GET http://" + host + "/x#" + card + " HTTP/1.1\r\nHost: " + host + "\r\nConnection: close\r\nAuthorization: Bearer " + card + "\r\n\r\n", false},
		"the method":               {card + " " + line + "\r\n", false},
		"over two headers":         {"GET " + line + "Cookie: " + card[:20] + "\r\nCookie: " + card[20:] + "\r\n\r\n", true},
		"h2c":                      {"GET " + line[:strings.Index(line, "Connection")] + "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\nAuthorization: Bearer " + card + "\r\n\r\n", false},
		"Expect, and no body":      {"POST " + line + "Expect: 100-continue\r\nContent-Length: 0\r\n\r\n", true},
		"Expect something else":    {"POST " + line + "Expect: 200-maybe\r\nContent-Length: 0\r\n\r\n", false},
	} {
		s.api.answer(nil)
		got := s.wire(t, tt.text)
		heard := s.api.heard()
		if ok := strings.HasPrefix(got, "HTTP/1.1 200 "); ok != tt.passes || !ok && strings.Contains(got, " 200 OK") || strings.Contains(got, card) {
			t.Errorf("%s: %.300q, the API heard %d", name, got, len(heard))
		}
		for _, r := range heard {
			for _, values := range r.Header {
				if v := strings.Join(values, ""); strings.Contains(v, card[20:]) || strings.Contains(v, "ghp_") {
					t.Errorf("%s: the API got %v", name, r.Header)
				}
			}
		}
	}
}

// TestA096_hostileAPIs: an API that answers oddly. What is handed on is whole and clean, or the answer breaks off.
func TestA096_hostileAPIs(t *testing.T) {
	s := foes(t)
	s.oracles(t)
	card := s.keycard(t, "alice")
	const ok = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
	ask := func(method string, how http.HandlerFunc) (*http.Response, string, error) {
		s.api.answer(how)
		r, err := http.NewRequestWithContext(t.Context(), method, s.second("/x"), nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+card)
		resp, err := (&http.Transport{DisableCompression: true, DisableKeepAlives: true}).RoundTrip(r)
		if err != nil {
			return nil, "", err
		}
		defer func() { _ = resp.Body.Close() }()
		b, err := io.ReadAll(io.LimitReader(resp.Body, 64<<20))
		return resp, string(b), err
	}
	second := "HTTP/1.1 200 OK\r\nX-Second: 1\r\nContent-Length: 6\r\n\r\nsecond"
	for name, tt := range map[string]struct {
		method, answer, body string
		status               int // 0: broken off, or any refusal
	}{
		"HTTP/1.0, no length":           {"GET", "HTTP/1.0 200 OK\r\n\r\nhello", "hello", 200},
		"no length":                     {"GET", "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello", "hello", 200},
		"a body behind HEAD":            {"HEAD", ok + "Content-Length: 5\r\n\r\nhello", "", 200},
		"a body behind 204":             {"GET", "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello", "", 204},
		"a body behind 304":             {"GET", "HTTP/1.1 304 Not Modified\r\n\r\nhello", "", 304},
		"a second answer":               {"GET", ok + "Content-Length: 5\r\n\r\nhello" + second, "hello", 200},
		"a second in the first":         {"GET", ok + "X-A: b\r\n\tc\r\nContent-Length: 5\r\n\r\nhello", "hello", 200},
		"a header with CR":              {"GET", ok + "X-A: b\rX-B: c\r\nContent-Length: 5\r\n\r\nhello", "", 0},
		"a part that nobody asked for":  {"GET", "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-4/9\r\nContent-Length: 5\r\n\r\nhello", "", 502},
		"an endless head":               {"GET", ok + strings.Repeat("X-A: "+strings.Repeat("a", 1000)+"\r\n", 3000), "", 0},
		"early hints without end":       {"GET", strings.Repeat("HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n", 10_000) + ok + "Content-Length: 2\r\n\r\n{}", "", 0},
		"a switch nobody asked for":     {"GET", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\nhello", "", 0},
		"a length too long":             {"GET", ok + "Content-Length: 500\r\n\r\nhello", "", 0},
		"a length and chunks":           {"GET", ok + "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", "hello", 200},
		"an unknown transfer coding":    {"GET", ok + "Transfer-Encoding: gzip, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", "", 0},
		"a multipart of another border": {"GET", "HTTP/1.1 200 OK\r\nContent-Type: multipart/mixed; boundary=a\r\nContent-Length: 12\r\n\r\n--b\r\n\r\nhello", "--b\r\n\r\nhello", 200},
	} {
		resp, body, err := ask(tt.method, raw(tt.answer))
		switch {
		case tt.status == 0 && (err != nil || resp.StatusCode >= 500):
		case err != nil || resp.StatusCode != tt.status || tt.status < 500 && body != tt.body || resp.Header.Get("X-Second") != "":
			t.Errorf("%s: %v %v %.200q", name, resp, err, body)
		}
	}
	// A line of events that never ends is passed on as it comes: nothing waits for its end.
	resp, body, err := ask("GET", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		w.Header().Set("Set-Cookie", "session=1")
		w.Header().Set("Alt-Svc", `h3=":443"`)
		secret := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
		_, _ = io.WriteString(w, "data: ")
		for range 48 {
			if _, err := io.WriteString(w, strings.Repeat("x", 1<<20)+secret); err != nil {
				return
			}
		}
	})
	if err != nil || len(body) < 48<<20 || strings.Count(body, "*") < 48*16 || resp.Header.Get("Alt-Svc")+resp.Header.Get("Set-Cookie") != "" {
		t.Errorf("an endless line: %d bytes, %v", len(body), err)
	}
	// A head that comes a byte now and then is given up with its call.
	card = s.keycardAt(t, "slow", "alice")
	givenUp := make(chan bool, 1)
	if resp, _, err := ask("GET", func(w http.ResponseWriter, r *http.Request) {
		c, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer func() { _ = c.Close() }()
		every := time.NewTicker(100 * time.Millisecond) // more often than any wait for one byte could end
		defer every.Stop()
		for range 600 {
			if _, err := io.WriteString(c, "H"); err != nil {
				givenUp <- true
				return
			}
			<-every.C
		}
		givenUp <- false
	}); err == nil && resp.StatusCode < 500 {
		t.Errorf("a head that never ends is an answer: %s", resp.Status)
	}
	if !<-givenUp {
		t.Error("a head that never ends was waited for until the API gave up")
	}
}
