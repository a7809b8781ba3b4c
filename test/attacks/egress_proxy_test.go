package attacks_test

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

// TestA098_A099_theProxy: the same keycard by the other doors, in plain text and in tunnels.
func TestA098_A099_theProxy(t *testing.T) {
	s := foes(t)
	s.oracles(t)
	card := s.keycard(t, "alice")
	api, evil := strings.TrimPrefix(s.api.URL, "http://"), strings.TrimPrefix(s.evil.URL, "http://")
	auth := "Authorization: Bearer " + card + "\r\nConnection: close\r\n\r\n"
	connect := func(to string) string { return "CONNECT " + to + " HTTP/1.1\r\nHost: " + to + "\r\n\r\n" }
	for name, text := range map[string]string{
		"absolute form": "GET http://" + api + "/hello HTTP/1.1\r\nHost: " + api + "\r\n" + auth,
		"a tunnel":      connect(api) + "GET /hello HTTP/1.1\r\nHost: " + api + "\r\n" + auth,
	} {
		if got := s.wire(t, text); !strings.Contains(got, "HTTP/1.1 200 OK") {
			t.Errorf("%s: the honest request: %.300q", name, got)
		}
	}
	heard, strangers := len(s.api.heard()), len(s.evil.heard())
	for name, text := range map[string]string{
		"A-098 absolute form to a stranger":  "GET http://" + evil + "/x HTTP/1.1\r\nHost: " + evil + "\r\n" + auth,
		"A-098 CONNECT to a stranger":        connect(evil) + "GET /x HTTP/1.1\r\nHost: " + evil + "\r\n" + auth,
		"A-098 CONNECT to ourselves":         connect(strings.TrimPrefix(s.Desk().Egress, "http://")) + "GET /x HTTP/1.1\r\nHost: x\r\n" + auth,
		"A-099 Host is another":              "GET http://" + api + "/x HTTP/1.1\r\nHost: " + evil + "\r\n" + auth,
		"A-099 a tunnel's Host is another":   connect(api) + "GET /x HTTP/1.1\r\nHost: " + evil + "\r\n" + auth,
		"A-099 a tunnel's target is another": connect(api) + "GET http://" + evil + "/x HTTP/1.1\r\nHost: " + api + "\r\n" + auth,
		"A-099 CONNECT and its Host":         "CONNECT " + api + " HTTP/1.1\r\nHost: evil.test:443\r\n\r\nGET /x HTTP/1.1\r\nHost: " + api + "\r\n" + auth,
		"A-100 user info":                    "GET http://" + api + "@" + evil + "/x HTTP/1.1\r\nHost: " + api + "\r\n" + auth,
		"A-100 a list":                       "GET http://" + api + "/x HTTP/1.1\r\nHost: " + api + ", " + evil + "\r\n" + auth,
		"A-109 no keycard":                   "GET http://" + api + "/x HTTP/1.1\r\nHost: " + api + "\r\nConnection: close\r\n\r\n",
		"A-109 as the proxy's own":           "GET http://" + api + "/x HTTP/1.1\r\nHost: " + api + "\r\nProxy-" + auth,
		"A-101 dots":                         "GET http://" + api + "/a/../x HTTP/1.1\r\nHost: " + api + "\r\n" + auth,
		"A-114 TRACE":                        "TRACE http://" + api + "/x HTTP/1.1\r\nHost: " + api + "\r\n" + auth,
	} {
		got := strings.TrimPrefix(s.wire(t, text), "HTTP/1.1 200 Connection established\r\n\r\n")
		if !strings.HasPrefix(got, "HTTP/1.1 4") || strings.Contains(got, card) {
			t.Errorf("%s: %.300q", name, got)
		}
		if name == "A-109 no keycard" && !strings.HasPrefix(got, "HTTP/1.1 407 ") {
			t.Errorf("%s: a proxy's refusal is 407: %.100q", name, got)
		}
	}
	if len(s.api.heard()) != heard || len(s.evil.heard()) != strangers {
		t.Error("something that was refused was sent")
	}
}

// TestA097_theAuthority: what `ca print` prints is trusted for egress's own names, and for nothing that is not in the config.
func TestA097_theAuthority(t *testing.T) {
	s := foes(t)
	pem, err := s.Desk().Run("ca", "print")
	roots := x509.NewCertPool()
	if err != nil || !roots.AppendCertsFromPEM([]byte(pem)) {
		t.Fatal(err, pem)
	}
	card := s.keycard(t, "alice")
	c := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}}
	base := strings.Replace(s.Desk().Egress, "http://", "https://", 1)
	for _, at := range []string{base, strings.Replace(base, "127.0.0.1", "localhost", 1)} {
		r, err := http.NewRequest(http.MethodGet, at+"/egress/tracker/user", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+card)
		resp, err := c.Do(r)
		if err != nil {
			t.Fatal(at, err)
		}
		b, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			t.Errorf("%s: %s %s", at, resp.Status, b)
		}
	}
	u, err := url.Parse(base)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"evil.test", "api.github.com", "169.254.169.254"} {
		conn, err := tls.Dial("tcp", u.Host, &tls.Config{ServerName: name, InsecureSkipVerify: true}) // whatever it is, there must be none
		if err == nil {
			_ = conn.Close()
			if name != "169.254.169.254" { // addresses are no server names: it is egress's own certificate that is shown
				t.Errorf("a certificate was made for %s", name)
			}
		}
	}
}

// TestA104_aLeakIsOnRecord: an answer that holds the credential is cleaned, counted, and stands in the log.
func TestA104_aLeakIsOnRecord(t *testing.T) {
	s := foes(t)
	s.oracles(t)
	card := s.keycard(t, "alice")
	s.api.answer(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Echo", r.Header.Get("Authorization"))
		_, _ = io.WriteString(w, "you sent "+r.Header.Get("Authorization"))
	})
	defer s.api.answer(nil)
	got := send(t, http.MethodGet, s.second("/hello"), "", "Authorization", "Bearer "+card)
	if got.Status != http.StatusOK || !strings.Contains(got.Body, "****") || !strings.Contains(got.Header.Get("X-Echo"), "****") {
		t.Fatalf("%d %s %s", got.Status, got.Header, got.Body)
	}
	out, err := s.Desk().Run("audit", "export")
	if err != nil || !strings.Contains(out, `"leak"`) {
		t.Errorf("the log says nothing of it: %v\n%.500s", err, out)
	}
	resp, err := http.Get(s.Desk().Ops + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if b, _ := io.ReadAll(resp.Body); !strings.Contains(string(b), `frontdesk_leaks_total{upstream="tracker"} `) {
		t.Error("no metric counts it")
	}
}
