package outbound_test

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/kit/outbound"
)

func TestRedirectsAreHandedBack(t *testing.T) {
	trap := newTrap(t)
	server := serve(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://127.0.0.1:"+trap.port+"/", http.StatusTemporaryRedirect)
	})
	door := newDoor(t, outbound.Config{Named: []string{server, "http://127.0.0.1:" + trap.port}})
	for _, send := range []func(*http.Request) (*http.Response, error){door.Named().RoundTrip, door.Found().Do} {
		resp, err := send(request(t, http.MethodPost, server, strings.NewReader("client_secret=x")))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := outbound.ReadLimited(resp, 1<<20); err != nil || resp.StatusCode != http.StatusTemporaryRedirect {
			t.Errorf("got %d, %v, want the redirect itself", resp.StatusCode, err)
		}
	}
}

func TestEnvironmentIsIgnored(t *testing.T) {
	trap := newTrap(t)
	server := echo(t)
	for _, name := range []string{"HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY"} {
		t.Setenv(name, "http://127.0.0.1:"+trap.port)
	}
	t.Setenv("NO_PROXY", "")
	door := newDoor(t, outbound.Config{Named: []string{server}})
	r := request(t, http.MethodGet, server, nil)
	r.Header.Set("Proxy", "http://127.0.0.1:"+trap.port)
	resp, err := door.Named().RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
}

func TestProxyDialsAndTheNameIsChecked(t *testing.T) {
	ca, caFile := newCA(t)
	server := serveTLS(t, ca.leaf(t, "up.example.com", time.Hour), 0)
	var connects atomic.Int64
	proxy := serve(t, func(w http.ResponseWriter, r *http.Request) {
		connects.Add(1)
		if r.Method != http.MethodConnect || r.Host != "up.example.com:443" {
			http.Error(w, "no", http.StatusForbidden)
			return
		}
		up, err := net.Dial("tcp", server)
		if err != nil {
			t.Error(err)
			return
		}
		defer up.Close()
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\n")
		go func() { _, _ = io.Copy(up, conn) }()
		_, _ = io.Copy(conn, up)
	})
	local := echo(t)
	door := newDoor(t, outbound.Config{Proxy: proxy, CAFile: caFile, Named: []string{"https://up.example.com", "https://refused.example.com", local}})
	for _, c := range []*outbound.Client{door.Named(), door.Found()} {
		if got, err := fetch(t, c, "https://up.example.com/"); err != nil || got != "GET /" {
			t.Errorf("got %q, %v", got, err)
		}
	}
	if got, err := fetch(t, door.Named(), local+"/x"); err != nil || got != "GET /x" {
		t.Errorf("a named loopback server behind a proxy: got %q, %v", got, err)
	}
	if _, err := fetch(t, door.Named(), "https://refused.example.com/"); fault.KindOf(err) != fault.Unavailable || !strings.Contains(fault.Message(err), "status 403") {
		t.Errorf("a proxy's refusal: got %v", err)
	}
	before := connects.Load()
	for _, raw := range []string{"https://127.0.0.1/", "https://metadata.google.internal/", "https://169.254.169.254/", "https://intranet/", "https://x.internal/", "https://up.example.com:8443/", "http://up.example.com/"} {
		wantRefused(t, raw, door.Found(), request(t, http.MethodGet, raw, nil))
	}
	if connects.Load() != before {
		t.Error("the proxy was asked for a refused host")
	}
	for _, bad := range []string{"proxy:3128", "socks5://proxy:1080", "http://", "http://proxy:x", "http://proxy/path"} {
		if _, err := outbound.New(outbound.Config{Proxy: bad}); fault.KindOf(err) != fault.Invalid {
			t.Errorf("proxy %q: got %v, want fault.Invalid", bad, err)
		}
	}
}

func TestCertificates(t *testing.T) {
	ca, caFile := newCA(t)
	rogue, rogueFile := newCA(t)
	t.Setenv("SSL_CERT_FILE", rogueFile) // trust comes from the config
	for name, tc := range map[string]struct {
		cert tls.Certificate
		max  uint16
		ok   bool
	}{
		"good":       {cert: ca.leaf(t, "127.0.0.1", time.Hour), ok: true},
		"expired":    {cert: ca.leaf(t, "127.0.0.1", -time.Minute)},
		"wrong name": {cert: ca.leaf(t, "up.test", time.Hour)},
		"other CA":   {cert: rogue.leaf(t, "127.0.0.1", time.Hour)},
		"TLS 1.1":    {cert: ca.leaf(t, "127.0.0.1", time.Hour), max: tls.VersionTLS11},
	} {
		t.Run(name, func(t *testing.T) {
			origin := "https://" + serveTLS(t, tc.cert, tc.max)
			door := newDoor(t, outbound.Config{Named: []string{origin}, CAFile: caFile})
			_, err := fetch(t, door.Named(), origin)
			if (err == nil) != tc.ok {
				t.Errorf("got %v, want success to be %t", err, tc.ok)
			}
			if err != nil && fault.KindOf(err) != fault.Unavailable {
				t.Errorf("got kind %v, want Unavailable: %v", fault.KindOf(err), err)
			}
		})
	}
	for name, file := range map[string]string{"missing": "/does/not/exist", "no PEM": os.Args[0]} {
		if _, err := outbound.New(outbound.Config{CAFile: file}); fault.KindOf(err) != fault.Invalid {
			t.Errorf("CA file %s: got %v, want fault.Invalid", name, err)
		}
	}
}

// TestHostilePeers: whatever a server does, one clear error comes, in time, and without the server's words.
func TestHostilePeers(t *testing.T) {
	const canary = "CNRY-0123456789"
	endless := func(head, line string) func(net.Conn) {
		return func(c net.Conn) {
			_, _ = io.WriteString(c, head)
			for {
				if _, err := io.WriteString(c, line); err != nil {
					return
				}
			}
		}
	}
	say := func(s string) func(net.Conn) { return func(c net.Conn) { _, _ = io.WriteString(c, s) } }
	hang := func(s string) func(net.Conn) {
		return func(c net.Conn) { _, _ = io.WriteString(c, s); _, _ = io.Copy(io.Discard, c) }
	}
	for name, answer := range map[string]func(net.Conn){
		"closes":             say(""),
		"hangs":              hang(""),
		"hangs in header":    hang("HTTP/1.1 200 OK\r\nX: "),
		"hangs in body":      hang("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"),
		"hangs in 1xx":       hang("HTTP/1.1 100 Continue\r\n\r\n"),
		"breaks off":         say("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"),
		"endless header":     endless("HTTP/1.1 200 OK\r\n", "X: "+strings.Repeat("x", 1000)+"\r\n"),
		"endless line":       endless("HTTP/1.1 200 OK\r\nX: ", "xxxxxxxxxxxxxxxxxxxxxxxxxx"),
		"1xx flood":          endless("", "HTTP/1.1 102 Processing\r\n\r\n"),
		"endless body":       endless("HTTP/1.1 200 OK\r\n\r\n", strings.Repeat("x", 1000)),
		"long body":          say("HTTP/1.1 200 OK\r\nContent-Length: 4294967296\r\n\r\nabc"),
		"endless trailer":    endless("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", "X: "+canary+"\r\n"),
		"bad trailer":        say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + canary + "\r\n\r\n"),
		"bad chunk":          say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + canary + "\r\n"),
		"bad coding":         say("HTTP/1.1 200 OK\r\nTransfer-Encoding: " + canary + "\r\n\r\n"),
		"bad length":         say("HTTP/1.1 200 OK\r\nContent-Length: " + canary + "\r\n\r\n"),
		"two lengths":        say("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 9" + canary + "\r\n\r\n"),
		"bad status":         say("HTTP/1.1 " + canary + " OK\r\n\r\n"),
		"bad protocol":       say(canary + "\r\n\r\n"),
		"bad header":         say("HTTP/1.1 200 OK\r\n" + canary + "\r\n\r\n"),
		"bad header name":    say("HTTP/1.1 200 OK\r\n " + canary + " : x\r\n\r\n"),
		"unasked 101":        hang("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"),
		"one byte at a time": func(c net.Conn) { drip(c, "HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			origin := rawServer(t, answer)
			door := newDoor(t, outbound.Config{Named: []string{origin}, FetchTimeout: 300 * time.Millisecond})
			_, err := fetch(t, door.Named(), origin)
			if fault.KindOf(err) != fault.Unavailable || err == nil {
				t.Fatalf("got %v, want fault.Unavailable", err)
			}
			if strings.Contains(err.Error(), "CNRY") {
				t.Errorf("the error quotes the peer: %v", err)
			}
		})
	}
}

func TestHeaderTimeout(t *testing.T) {
	origin := rawServer(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
	door := newDoor(t, outbound.Config{Named: []string{origin}, HeaderTimeout: 50 * time.Millisecond})
	_, err := door.Named().RoundTrip(request(t, http.MethodGet, origin, nil))
	if fault.KindOf(err) != fault.Unavailable || !strings.Contains(fault.Message(err), "in time") {
		t.Errorf("got %v", err)
	}
}

func TestCancelIsTold(t *testing.T) {
	origin := rawServer(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
	door := newDoor(t, outbound.Config{Named: []string{origin}})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := door.Named().RoundTrip(request(t, http.MethodGet, origin, nil).WithContext(ctx))
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want it to be context.Canceled", err)
	}
}

func TestErrorOfTheRequestsOwnBody(t *testing.T) {
	server := echo(t)
	door := newDoor(t, outbound.Config{Named: []string{server}})
	mine := fault.New(fault.Invalid, "the body is too long", nil)
	_, err := door.Named().RoundTrip(request(t, http.MethodPost, server, io.MultiReader(strings.NewReader("abc"), broken{mine})))
	if fault.KindOf(err) != fault.Invalid {
		t.Errorf("got %v, want the body's own error", err)
	}
}

func TestStreamsBothWays(t *testing.T) {
	server := serve(t, func(w http.ResponseWriter, r *http.Request) {
		rc := http.NewResponseController(w)
		if err := rc.EnableFullDuplex(); err != nil {
			t.Error(err)
		}
		_ = rc.Flush()
		lines := bufio.NewScanner(r.Body)
		for lines.Scan() {
			_, _ = fmt.Fprintf(w, "got %s\n", lines.Text())
			_ = rc.Flush()
		}
	})
	door := newDoor(t, outbound.Config{Named: []string{server}})
	pr, pw := io.Pipe()
	resp, err := door.Named().RoundTrip(request(t, http.MethodPost, server, pr))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	answers := bufio.NewReader(resp.Body)
	for i := range 3 { // each answer is read before the next line is sent
		if _, err := fmt.Fprintf(pw, "%d\n", i); err != nil {
			t.Fatal(err)
		}
		if got, err := answers.ReadString('\n'); err != nil || got != fmt.Sprintf("got %d\n", i) {
			t.Fatalf("got %q, %v", got, err)
		}
	}
	_ = pw.Close()
	if _, err := answers.ReadString('\n'); err != io.EOF {
		t.Errorf("got %v, want the end", err)
	}
}

func TestSwitchingProtocols(t *testing.T) {
	server := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n")
		_, _ = io.Copy(conn, rw)
	})
	door := newDoor(t, outbound.Config{Named: []string{server}})
	r := request(t, http.MethodGet, server, nil)
	r.Header.Set("Connection", "Upgrade")
	r.Header.Set("Upgrade", "echo")
	resp, err := door.Named().RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	conn, ok := resp.Body.(io.ReadWriteCloser)
	if !ok || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("got %d and a body of type %T", resp.StatusCode, resp.Body)
	}
	for _, s := range []string{"ping", "pong"} {
		got := make([]byte, len(s))
		if _, err := io.WriteString(conn, s); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(conn, got); err != nil || string(got) != s {
			t.Fatalf("got %q, %v, want %q", got, err, s)
		}
	}
}

func TestHTTP2(t *testing.T) {
	ca, caFile := newCA(t)
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Proto) }))
	srv.EnableHTTP2 = true
	srv.TLS = &tls.Config{Certificates: []tls.Certificate{ca.leaf(t, "127.0.0.1", time.Hour)}}
	srv.StartTLS()
	t.Cleanup(srv.Close)
	door := newDoor(t, outbound.Config{Named: []string{srv.URL}, CAFile: caFile})
	if got, err := fetch(t, door.Named(), srv.URL); err != nil || got != "HTTP/2.0" {
		t.Errorf("got %q, %v", got, err)
	}
}

// TestHTTP2WithoutTLS: an origin of h2c is spoken to so from the first byte; its neighbour of http is not; and no proxy is asked.
func TestHTTP2WithoutTLS(t *testing.T) {
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Proto+" "+r.Host) }))
	srv.Config.Protocols = new(http.Protocols)
	srv.Config.Protocols.SetHTTP1(true)
	srv.Config.Protocols.SetUnencryptedHTTP2(true)
	srv.Start()
	t.Cleanup(srv.Close)
	host := strings.TrimPrefix(srv.URL, "http://")
	for scheme, want := range map[string]string{"http": "HTTP/1.1 ", "h2c": "HTTP/2.0 "} {
		door := newDoor(t, outbound.Config{Named: []string{scheme + "://" + host}, Proxy: "http://127.0.0.1:1"})
		if got, err := fetch(t, door.Named(), srv.URL); err != nil || got != want+host {
			t.Errorf("%s: %q, %v", scheme, got, err)
		}
	}
	if _, err := outbound.New(outbound.Config{Named: []string{"h2c://api.example.com:50051"}, Proxy: srv.URL}); fault.KindOf(err) != fault.Invalid {
		t.Errorf("behind a proxy: %v", err)
	}
	for _, bad := range []string{"h2c://", "h2c://api.example.com/path", "h2c://user@api.example.com", "h2c://169.254.169.254", "h2cs://api.example.com"} {
		if _, err := outbound.New(outbound.Config{Named: []string{bad}}); fault.KindOf(err) != fault.Invalid {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

func TestCodedBodiesPassUntouched(t *testing.T) {
	server := serve(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.Header.Get("Accept-Encoding"))
	})
	door := newDoor(t, outbound.Config{Named: []string{server}})
	if got, err := fetch(t, door.Named(), server); err != nil || got != "" {
		t.Errorf("an Accept-Encoding was added: %q, %v", got, err)
	}
}

func TestReadLimited(t *testing.T) {
	server := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/chunked" {
			_ = http.NewResponseController(w).Flush()
		}
		_, _ = io.WriteString(w, "0123456789")
	})
	door := newDoor(t, outbound.Config{Named: []string{server}})
	for _, path := range []string{"/", "/chunked"} {
		for limit, ok := range map[int64]bool{9: false, 10: true, 11: true} {
			resp, err := door.Named().Do(request(t, http.MethodGet, server+path, nil))
			if err != nil {
				t.Fatal(err)
			}
			got, err := outbound.ReadLimited(resp, limit)
			if (err == nil) != ok || ok && string(got) != "0123456789" || !ok && (got != nil || fault.KindOf(err) != fault.Unavailable) {
				t.Errorf("%s, limit %d: got %q, %v", path, limit, got, err)
			}
		}
	}
}

func TestAdmittingANamedRequestAllocatesNothing(t *testing.T) {
	door := newDoor(t, outbound.Config{Named: []string{"https://up.test"}})
	c := door.Named()
	r := request(t, http.MethodGet, "https://up.test/repos", nil)
	if n := testing.AllocsPerRun(100, func() {
		if err := c.Admit(r); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// BenchmarkRoundTrip compares the door with a bare transport of the same settings: the 1 KB message of a tool call.
func BenchmarkRoundTrip(b *testing.B) {
	answer := strings.Repeat("x", 1000)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, answer)
	}))
	b.Cleanup(srv.Close)
	bare := &http.Transport{MaxIdleConnsPerHost: 1024, DisableCompression: true}
	b.Cleanup(bare.CloseIdleConnections)
	door := newDoor(b, outbound.Config{Named: []string{srv.URL}})
	for _, tc := range []struct {
		name string
		rt   http.RoundTripper
	}{{"bare", bare}, {"door", door.Named()}, {"bare again", bare}, {"door again", door.Named()}} {
		b.Run(tc.name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetParallelism(16)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					r, err := http.NewRequest(http.MethodPost, srv.URL, strings.NewReader(answer))
					if err != nil {
						b.Fatal(err)
					}
					resp, err := tc.rt.RoundTrip(r)
					if err != nil {
						b.Error(err)
						return
					}
					_, _ = io.Copy(io.Discard, resp.Body)
					_ = resp.Body.Close()
				}
			})
		})
	}
}

func BenchmarkAdmit(b *testing.B) {
	door := newDoor(b, outbound.Config{Named: []string{"https://up.test", "https://b.test", "https://c.test"}})
	r, err := http.NewRequest(http.MethodGet, "https://up.test/repos", nil)
	if err != nil {
		b.Fatal(err)
	}
	c := door.Named()
	b.ReportAllocs()
	for b.Loop() {
		if err := c.Admit(r); err != nil {
			b.Fatal(err)
		}
	}
}

func request(t *testing.T, method, url string, body io.Reader) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func fetch(t *testing.T, c *outbound.Client, url string) (string, error) {
	t.Helper()
	resp, err := c.Do(request(t, http.MethodGet, url, nil))
	if err != nil {
		return "", err
	}
	b, err := outbound.ReadLimited(resp, 1<<20)
	return string(b), err
}

func serve(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return srv.URL
}

func echo(t *testing.T) string {
	return serve(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, r.Method+" "+r.URL.Path)
	})
}

func serveTLS(t *testing.T, cert tls.Certificate, maxVersion uint16) (address string) {
	t.Helper()
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.Method+" "+r.URL.Path)
	}))
	srv.TLS = &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS10, MaxVersion: maxVersion}
	srv.Config.ErrorLog = quiet
	srv.StartTLS()
	t.Cleanup(srv.Close)
	return srv.Listener.Addr().String()
}

// rawServer reads a request's header and answers with whatever the test wants.
func rawServer(t *testing.T, answer func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				if _, err := http.ReadRequest(bufio.NewReader(conn)); err == nil {
					answer(conn)
				}
			}()
		}
	}()
	return "http://" + l.Addr().String()
}

func drip(c net.Conn, head string) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	_, _ = io.WriteString(c, head)
	for range tick.C {
		if _, err := io.WriteString(c, "x"); err != nil {
			return
		}
	}
}

type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newCA(t *testing.T) (ca *authority, file string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: t.Name()}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return &authority{cert, key}, file
}

func (a *authority) leaf(t *testing.T, host string, life time.Duration) tls.Certificate {
	t.Helper()
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(2), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(life)}
	if ip := net.ParseIP(host); ip != nil {
		tmpl.IPAddresses = []net.IP{ip}
	} else {
		tmpl.DNSNames = []string{host}
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, &a.key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: a.key}
}

type closing struct{ closed bool }

func (*closing) Read([]byte) (int, error) { return 0, io.EOF }
func (c *closing) Close() error           { c.closed = true; return nil }

type broken struct{ err error }

func (b broken) Read([]byte) (int, error) { return 0, b.err }

var quiet = log.New(io.Discard, "", 0)
