//go:build linux

// Package servers_test runs MCP servers of other people, as npm has them, unmodified, for two users at once, against a fake
// of each vendor's API that knows whose credential it sees.
package servers_test

import (
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// seen is one request that a vendor's API got.
type seen struct {
	host, path, body, user string // user: whose credential came along; "" for none that is known
}

// vendors are all the vendors' APIs: one TLS server for every host, behind a proxy that leads there whatever name is asked
// for. Nothing leaves the machine.
type vendors struct {
	Proxy string
	CA    []byte // PEM

	who func(ctx context.Context, credential string) string

	mu   sync.Mutex
	seen []seen
}

func newVendors(t *testing.T, hosts []string) *vendors {
	t.Helper()
	v := &vendors{}
	cert := v.certificate(t, hosts)
	api := httptest.NewUnstartedServer(http.HandlerFunc(v.answer))
	api.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	api.StartTLS()
	t.Cleanup(api.Close)
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodConnect {
			http.Error(w, "only CONNECT here", http.StatusForbidden)
			return
		}
		tunnel(w, api.Listener.Addr().String())
	}))
	t.Cleanup(proxy.Close)
	v.Proxy = proxy.URL
	return v
}

// certificate makes an authority, and one certificate of it for all hosts.
func (v *vendors) certificate(t *testing.T, hosts []string) tls.Certificate {
	t.Helper()
	make := func(tpl, parent *x509.Certificate, signer *ecdsa.PrivateKey) ([]byte, *ecdsa.PrivateKey) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		if signer == nil {
			signer = key
		}
		tpl.SerialNumber, tpl.NotBefore, tpl.NotAfter = big.NewInt(time.Now().UnixNano()), time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
		der, err := x509.CreateCertificate(rand.Reader, tpl, parent, &key.PublicKey, signer)
		if err != nil {
			t.Fatal(err)
		}
		return der, key
	}
	root := &x509.Certificate{Subject: pkix.Name{CommonName: "vendors"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	ca, caKey := make(root, root, nil)
	v.CA = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca})
	leaf, key := make(&x509.Certificate{Subject: pkix.Name{CommonName: hosts[0]}, DNSNames: hosts}, root, caKey)
	return tls.Certificate{Certificate: [][]byte{leaf, ca}, PrivateKey: key}
}

func tunnel(w http.ResponseWriter, to string) {
	out, err := net.Dial("tcp", to)
	if err != nil {
		http.Error(w, "away", http.StatusBadGateway)
		return
	}
	in, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		_ = out.Close()
		return
	}
	_, _ = rw.WriteString("HTTP/1.1 200 OK\r\n\r\n")
	_ = rw.Flush()
	go func() { _, _ = io.Copy(out, rw); _ = out.Close() }()
	_, _ = io.Copy(in, out)
	_ = in.Close()
}

// credential finds it wherever these vendors let it stand.
func credential(r *http.Request) string {
	for _, h := range []string{"X-Figma-Token", "Private-Token", "X-Subscription-Token"} {
		if v := r.Header.Get(h); v != "" {
			return v
		}
	}
	if key := r.URL.Query().Get("key"); key != "" {
		return key
	}
	scheme, v, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if strings.EqualFold(scheme, "basic") {
		pair, _ := base64.StdEncoding.DecodeString(v)
		user, password, _ := strings.Cut(string(pair), ":")
		v = cmp.Or(password, user)
	}
	return v
}

// answer says what each vendor would, as far as these servers look at it.
func (v *vendors) answer(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	user := v.who(r.Context(), credential(r))
	v.mu.Lock()
	v.seen = append(v.seen, seen{r.Host, r.URL.RequestURI(), string(body), user})
	v.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	if user == "" {
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = io.WriteString(w, `{"message":"Bad credentials"}`)
		return
	}
	var say any
	switch path := r.URL.Path; {
	case path == "/frontdesk-account":
		say = map[string]any{"login": user, "id": user}
	case r.Host == "api.github.com":
		say = map[string]any{"total_count": 0, "incomplete_results": false, "items": []any{}}
	case r.Host == "slack.com":
		say = map[string]any{"ok": true, "profile": map[string]any{"real_name": user}}
	case r.Host == "api.notion.com":
		say = map[string]any{"object": "list", "results": []any{}, "has_more": false, "next_cursor": nil}
	case r.Host == "api.figma.com":
		say = map[string]any{"name": user, "lastModified": "2026-01-01T00:00:00Z", "thumbnailUrl": "", "version": "1", "role": "owner", "components": map[string]any{}, "componentSets": map[string]any{},
			"styles": map[string]any{}, "schemaVersion": 0, "document": map[string]any{"id": "0:0", "name": "Document", "type": "DOCUMENT", "children": []any{}}}
	case path == "/api/0/users/me/regions/":
		say = map[string]any{"regions": []any{map[string]any{"name": "us", "url": "https://sentry.io"}}}
	case r.Host == "api.tavily.com":
		say = map[string]any{"query": "", "results": []any{map[string]any{"title": user, "url": "https://example.com", "content": "", "score": 1}}}
	case r.Host == "maps.googleapis.com":
		say = map[string]any{"status": "OK", "results": []any{map[string]any{"formatted_address": user, "place_id": "1", "geometry": map[string]any{"location": map[string]any{"lat": 1, "lng": 1}}}}}
	case r.Host == "api.search.brave.com":
		say = map[string]any{"type": "search", "web": map[string]any{"type": "search", "results": []any{map[string]any{"title": user, "url": "https://example.com", "description": ""}}}}
	case strings.HasSuffix(r.Host, ".atlassian.net"):
		say = map[string]any{"issues": []any{}, "seenAs": user}
	default: // GitLab, Sentry: lists
		w.Header().Set("X-Total", "0")
		say = []any{}
	}
	_ = json.NewEncoder(w).Encode(say)
}

// of are the requests to a host in which a mark stands, with whose credential each came.
func (v *vendors) of(mark string) (users []string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, s := range v.seen {
		if strings.Contains(s.path, mark) || strings.Contains(s.body, mark) {
			users = append(users, s.user)
		}
	}
	return users
}

// strangers are requests that came with a credential that is nobody's, as a keycard would be.
func (v *vendors) strangers() (l []seen) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, s := range v.seen {
		if s.user == "" {
			l = append(l, s)
		}
	}
	return l
}
