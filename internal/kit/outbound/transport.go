package outbound

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"syscall"
	"time"

	"frontdesk.dev/frontdesk/internal/kit/fault"
)

// equip fills in a transport whose connections are judged by the address that they are about to be made to:
// the kernel gets the very bytes that were checked.
func equip(t *http.Transport, c Config, roots *x509.CertPool, judge func(netip.Addr) string) {
	dial := orDefault(c.DialTimeout, 10*time.Second)
	dialer := &net.Dialer{
		Timeout:  dial,
		Resolver: c.Resolver,
		ControlContext: func(_ context.Context, _, address string, _ syscall.RawConn) error {
			at, err := netip.ParseAddrPort(address)
			if err != nil {
				return &refusal{why: "no plain address"}
			}
			if why := judge(at.Addr()); why != "" {
				return &refusal{at.Addr(), why}
			}
			return nil
		},
	}
	t.DialContext = dialer.DialContext
	t.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots, ClientSessionCache: tls.NewLRUClientSessionCache(1024)}
	t.TLSHandshakeTimeout = dial
	t.ResponseHeaderTimeout = orDefault(c.HeaderTimeout, 5*time.Minute)
	t.ExpectContinueTimeout = time.Second
	t.IdleConnTimeout = 90 * time.Second
	t.MaxIdleConns = 4096
	t.MaxIdleConnsPerHost = 1024
	t.MaxResponseHeaderBytes = 64 << 10
	t.ForceAttemptHTTP2 = true
	t.DisableCompression = true // what comes back passes byte for byte
	t.HTTP2 = &http.HTTP2Config{SendPingTimeout: 30 * time.Second, PingTimeout: 15 * time.Second}
}

func parseProxy(s string) (*url.URL, error) {
	if s == "" {
		return nil, nil
	}
	u, err := url.Parse(s)
	if err == nil {
		_, err = parseAuthority(u.Scheme, u.Host)
	}
	if err != nil || (u.Path != "" && u.Path != "/") || u.RawQuery != "" || u.Fragment != "" {
		// No cause: it quotes the URL, which may hold the proxy's password.
		return nil, fault.New(fault.Invalid, "outbound.proxy is not of the form http://host:port or https://host:port", nil)
	}
	return u, nil
}

// bundles is where systems keep the certificates that they trust.
var bundles = []string{
	"/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem",
	"/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", "/etc/ssl/cert.pem",
}

// roots returns the system's roots and those of the config. Trust comes from there alone: where
// SSL_CERT_FILE or SSL_CERT_DIR is set, the standard library would obey it, so the system's bundle is read by hand.
func roots(caFile string) (*x509.CertPool, error) {
	pool := x509.NewCertPool()
	if os.Getenv("SSL_CERT_FILE") == "" && os.Getenv("SSL_CERT_DIR") == "" {
		if system, err := x509.SystemCertPool(); err == nil {
			pool = system
		}
	} else {
		for _, file := range bundles {
			if pem, err := os.ReadFile(file); err == nil && pool.AppendCertsFromPEM(pem) {
				break
			}
		}
	}
	if caFile == "" {
		return pool, nil
	}
	pem, err := os.ReadFile(caFile)
	if err != nil {
		return nil, fault.New(fault.Invalid, "outbound.ca_file cannot be read", err)
	}
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fault.New(fault.Invalid, "outbound.ca_file holds no certificate in PEM", nil)
	}
	return pool, nil
}
