package web_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"frontdesk.dev/frontdesk/internal/kit/web"
)

// TestPrompt: a body that does not come holds no connection, whatever the handler does with it; one that came holds nobody up.
func TestPrompt(t *testing.T) {
	const within = 50 * time.Millisecond
	for name, h := range map[string]http.HandlerFunc{
		"unread":      func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnauthorized) },
		"read":        func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) },
		"partly read": func(_ http.ResponseWriter, r *http.Request) { _, _ = r.Body.Read(make([]byte, 1)) },
		"bounded": func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, http.MaxBytesReader(w, r.Body, 4))
		},
	} {
		s := httptest.NewServer(web.Prompt(within, h))
		for _, framing := range []string{"Content-Length: 5000\r\n\r\nbegun", "Transfer-Encoding: chunked\r\n\r\n5\r\nbegun\r\n"} {
			c, err := net.Dial("tcp", strings.TrimPrefix(s.URL, "http://"))
			if err != nil {
				t.Fatal(err)
			}
			_, _ = fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: x\r\n%s", framing)
			_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
			if _, err := io.Copy(io.Discard, c); err != nil {
				t.Errorf("%s, %.20q: the connection is still held: %v", name, framing, err)
			}
			_ = c.Close()
		}
		s.Close()
	}
	// Who is told in the middle of his body that it is too large gets to read that.
	refuses := httptest.NewServer(web.Prompt(web.BodyTime, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Connection", "close")
		w.WriteHeader(http.StatusRequestEntityTooLarge)
	})))
	defer refuses.Close()
	for range 10 {
		resp, err := http.Post(refuses.URL, "text/plain", strings.NewReader(strings.Repeat("a", 20<<20)))
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusRequestEntityTooLarge {
			t.Errorf("%d", resp.StatusCode)
		}
	}
	long := httptest.NewServer(web.Prompt(within, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		over := time.NewTimer(3 * within)
		select {
		case <-over.C:
		case <-r.Context().Done():
			t.Error("a request whose body was there was ended")
		}
		_, _ = fmt.Fprint(w, string(b), err)
	})))
	defer long.Close()
	for range 2 { // on one connection
		resp, err := http.Post(long.URL, "text/plain", strings.NewReader("whole "))
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if string(b) != "whole <nil>" || err != nil {
			t.Errorf("%q, %v", b, err)
		}
	}
}
