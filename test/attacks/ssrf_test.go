package attacks_test

import (
	"bytes"
	"crypto/tls"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// TestA090_A094_foundURLs: what a stranger makes Frontdesk fetch is public, on port 443, spelled in one way, or nothing. The
// addresses behind names are judged in internal/kit/outbound.
func TestA090_A094_foundURLs(t *testing.T) {
	s := foes(t)
	s.oracles(t)
	s.api.answer(nil)
	api := strings.TrimPrefix(s.api.URL, "http://")
	for i, u := range []string{"http://2130706433/c", "https://2130706433/c", "https://0x7f.1/c", "https://0177.0.0.1/c", "https://127.1/c", "https://0/c", "https://[::]/c", "https://[::1]/c", "https://[::ffff:127.0.0.1]/c",
		"https://[64:ff9b::7f00:1]/c", "https://[2002:7f00:1::]/c", "https://[fe80::1%25eth0]/c", "https://localhost./c", "https://localhost/c", "https://169.254.169.254/latest/meta-data", "https://[fd00:ec2::254]/c",
		"https://metadata.google.internal/c", "https://100.100.100.200/c", "https://10.0.0.1/c", "https://192.168.0.1/c", "https://0.0.0.0/c", "https://255.255.255.255/c", "https://[::127.0.0.1]/c",
		"https://up.test:443@127.0.0.1/c", "https://up.test%00.evil.test/c", `https://up.test\@evil.test/c`, "https://[::1/c", "https://[::1]x/c", "https://up.test#@evil.test/c", "https://up\t.test/c", "https://127\u30020\u30020\u30021/c",
		"https://127.0.0.1:22/c", "https://127.0.0.1:6379/c", "unix:///var/run/docker.sock", "file:///etc/passwd", "gopher://127.0.0.1/c", "https://" + api + "/c", "http://" + api + "/c", "https:" + api + "/c"} {
		q := url.Values{"client_id": {u}, "redirect_uri": {"http://127.0.0.1:4711/cb"}, "response_type": {"code"}, "state": {"st"}, "code_challenge": {strings.Repeat("c", 43)}, "code_challenge_method": {"S256"}, "resource": {s.Desk().MCP("evil")}}
		began := time.Now()
		got := send(t, http.MethodGet, s.Desk().Public+"/authorize?"+q.Encode(), "", "X-Forwarded-For", fmt.Sprintf("192.0.2.%d", i)) // fetches are rationed by address
		if got.Status != http.StatusBadRequest && got.Status != http.StatusUnauthorized || got.Header.Get("Location") != "" {
			t.Errorf("%s: %d %.200s", u, got.Status, got.Body)
		}
		if d := time.Since(began); d > 15*time.Second {
			t.Errorf("%s: the refusal took %s", u, d)
		}
	}
	if n := len(s.api.heard()); n != 0 {
		t.Errorf("%d fetches reached a private address", n)
	}
}

// TestA093_redirectsOfServers: a server that is named in the config cannot send Frontdesk anywhere else.
func TestA093_redirectsOfServers(t *testing.T) {
	s := foes(t)
	s.oracles(t)
	s.api.answer(nil)
	for _, to := range []string{"http://169.254.169.254/", s.api.URL + "/steal", "file:///etc/passwd", "gopher://127.0.0.1/", s.Tracker.URL() + "/api/user", "/elsewhere", s.Desk().Ops + "/metrics"} {
		for _, status := range []int{301, 302, 303, 307, 308} {
			s.evil.answer(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Location", to)
				w.WriteHeader(status)
			})
			got := s.call(t, "any", "{}")
			if len(s.evil.heard()) != 1 || got.Header.Get("Location") != "" || !strings.Contains(got.Body, `"isError":true`) {
				t.Errorf("%d to %s: %d %s, the server heard %d", status, to, got.Status, got.Body, len(s.evil.heard()))
			}
		}
	}
	if n := len(s.api.heard()); n != 0 {
		t.Errorf("%d redirects were followed", n)
	}
}

// TestA096_hostileAnswers: a server that answers badly costs its call, and no more.
func TestA096_hostileAnswers(t *testing.T) {
	s := foes(t)
	s.oracles(t)
	ok := "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
	for name, how := range map[string]http.HandlerFunc{
		"a byte now and then": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			for range 100 {
				if _, err := io.WriteString(w, " "); err != nil || r.Context().Err() != nil {
					return
				}
				_ = http.NewResponseController(w).Flush()
				select {
				case <-r.Context().Done():
					return
				case <-time.After(200 * time.Millisecond):
				}
			}
		},
		"headers of 1 MiB":   raw(ok + "X-A: " + strings.Repeat("a", 1<<20) + "\r\n\r\n{}"),
		"100,000 headers":    raw(ok + strings.Repeat("X-A: b\r\n", 100_000) + "\r\n{}"),
		"101":                raw("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nhello"),
		"10,000 times 103":   raw(strings.Repeat("HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n", 10_000) + ok + "Content-Length: 2\r\n\r\n{}"),
		"bad chunk sizes":    raw(ok + "Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n"),
		"a chunk too short":  raw(ok + "Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n{}\r\n"),
		"endless trailers":   raw(ok + "Trailer: X-T\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n" + strings.Repeat("X-T: "+strings.Repeat("a", 1000)+"\r\n", 2000) + "\r\n"),
		"too short a length": raw(ok + "Content-Length: 100\r\n\r\n{}"),
		"two lengths":        raw(ok + "Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}"),
		"no HTTP":            raw("SSH-2.0-OpenSSH\r\n"),
		"nothing":            raw(""),
		"20 MiB": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write(bytes.Repeat([]byte(" "), 20<<20))
		},
		"status 200 with nothing": raw(ok + "Content-Length: 0\r\n\r\n"),
		"status 999":              raw("HTTP/1.1 999 X\r\nContent-Length: 0\r\n\r\n"),
		"status 000":              raw("HTTP/1.1 000 X\r\nContent-Length: 0\r\n\r\n"),
	} {
		s.evil.answer(how)
		began := time.Now()
		got := s.post(t, "slow", s.at(t, "alice"), "any", callBody("any", "{}"))
		if got.Status != http.StatusOK && got.Status != http.StatusBadGateway || len(got.Body) > 2048 || !strings.Contains(got.Body, `"id":7`) || got.Header.Get("Upgrade") != "" {
			t.Errorf("%s: %d %v %.200s", name, got.Status, got.Header, got.Body)
		}
		if d := time.Since(began); d > 10*time.Second {
			t.Errorf("%s took %s", name, d)
		}
	}
	// The same from an API.
	card := s.keycard(t, "alice")
	for name, how := range map[string]http.HandlerFunc{"headers of 1 MiB": raw(ok + "X-A: " + strings.Repeat("a", 1<<20) + "\r\n\r\n{}"), "101": raw("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nhello"),
		"no HTTP": raw("SSH-2.0-OpenSSH\r\n"), "two lengths": raw(ok + "Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}"), "bad chunk sizes": raw(ok + "Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n")} {
		s.api.answer(how)
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.second("/x"), nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+card)
		resp, err := http.DefaultTransport.RoundTrip(r)
		if err != nil {
			continue // broken off: nobody takes a part for the whole
		}
		_, rerr := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if resp.StatusCode == http.StatusOK && rerr == nil || resp.StatusCode == http.StatusSwitchingProtocols {
			t.Errorf("API, %s: %d", name, resp.StatusCode)
		}
	}
}

// TestA095_A097_trustComesFromTheConfig: neither proxies nor certificates of the environment have a say.
func TestA095_A097_trustComesFromTheConfig(t *testing.T) {
	s := foes(t)
	var trapped, served atomic.Int32
	trap := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { trapped.Add(1); w.WriteHeader(http.StatusBadGateway) }))
	defer trap.Close()
	var idp *httptest.Server
	idp = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		served.Add(1)
		fmt.Fprintf(w, `{"issuer":%q,"authorization_endpoint":%q,"token_endpoint":%q,"jwks_uri":%q}`, idp.URL, idp.URL+"/a", idp.URL+"/t", idp.URL+"/k")
	}))
	idp.StartTLS()
	defer idp.Close()
	old := httptest.NewUnstartedServer(idp.Config.Handler)
	old.TLS = &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}
	old.StartTLS()
	defer old.Close()
	dir := t.TempDir()
	ca := filepath.Join(dir, "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: idp.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	check := func(issuer, more string) string {
		config := filepath.Join(dir, "frontdesk.yaml")
		text := "public_url: http://127.0.0.1:1\n" + more + "idp: {issuer: " + issuer + ", client_id: x}\nservers:\n  a: {url: " + s.evil.URL + "/mcp, allow: [everyone]}\n"
		if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		c := exec.CommandContext(t.Context(), s.Desk().Binary, "check", "--online", config)
		c.Env = append(os.Environ(), "HTTP_PROXY="+trap.URL, "HTTPS_PROXY="+trap.URL, "ALL_PROXY="+trap.URL, "http_proxy="+trap.URL, "https_proxy="+trap.URL, "SSL_CERT_FILE="+ca, "SSL_CERT_DIR="+dir,
			"GODEBUG=x509usefallbackroots=1,tls10server=1")
		out, _ := c.CombinedOutput()
		return string(out)
	}
	if out := check("https://idp.invalid", ""); trapped.Load() != 0 || !strings.Contains(out, "idp.invalid") {
		t.Errorf("A-095: a proxy of the environment was asked %d times: %s", trapped.Load(), out)
	}
	if out := check(idp.URL, ""); served.Load() != 0 || strings.Contains(out, "idp "+idp.URL+": ok") {
		t.Errorf("A-097: a certificate of the environment was believed: %s", out)
	}
	if out := check(old.URL, "outbound: {ca_file: "+ca+"}\n"); served.Load() != 0 || strings.Contains(out, "idp "+old.URL+": ok") {
		t.Errorf("A-097: TLS 1.1 was spoken: %s", out)
	}
	if out := check(idp.URL, "outbound: {ca_file: "+ca+"}\n"); served.Load() == 0 {
		t.Errorf("A-097: outbound.ca_file is not believed: %s", out)
	}
}

// TestA115_circles: what leads back to Frontdesk is refused when the config is read.
func TestA115_circles(t *testing.T) {
	binary, err := built()
	if err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(t.TempDir(), "frontdesk.yaml")
	for at, circle := range map[string]bool{"https://desk.example.com/mcp/a": true, "https://DESK.example.com/x": true, "http://127.0.0.1:8081/egress/self": true, "http://127.0.0.1:9090/metrics": true, "https://mcp.example.com/": false} {
		for name, text := range map[string]string{"server": "servers:\n  a: {url: " + at + ", allow: [everyone]}\n",
			"upstream": "upstreams:\n  self: {provider: notion, url: " + at + "}\nservers:\n  a: {url: https://mcp.example.com/, upstreams: [self], allow: [everyone]}\n"} {
			head := "public_url: https://desk.example.com\ntrusted_proxies: [10.0.0.0/8]\nidp: {issuer: https://login.example.com, client_id: frontdesk}\n"
			if err := os.WriteFile(config, []byte(head+text), 0o600); err != nil {
				t.Fatal(err)
			}
			out, err := exec.CommandContext(t.Context(), binary, "check", config).CombinedOutput()
			if (err != nil) != circle || circle && !strings.Contains(string(out), "is Frontdesk itself") {
				t.Errorf("%s at %s: %v %s", name, at, err, out)
			}
		}
	}
}
