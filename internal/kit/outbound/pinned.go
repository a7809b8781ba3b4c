package outbound

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"

	"frontdesk.dev/frontdesk/internal/kit/fault"
)

// Pins are the two ends of a connection between two processes of one deployment: our certificate with its key, and those of which the
// other end must show one. No authority is asked and no name compared: a certificate that is not written down is nobody's.
type Pins struct {
	Own   tls.Certificate
	Peers [][sha256.Size]byte // of their DER form; several while one takes another's place
	Now   func() time.Time
}

// ReadPins reads them from PEM files; the peer's file may hold several. Errors: fault.Invalid, with a sentence for the operator.
func ReadPins(cert, key, peer string, now func() time.Time) (Pins, error) {
	own, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return Pins{}, fault.New(fault.Invalid, "the certificate "+cert+" and its key "+key+" cannot be read, or do not belong together: `frontdesk pair DIR` makes both ends", err)
	}
	if info, err := os.Stat(key); err == nil && info.Mode().Perm()&0o077 != 0 {
		return Pins{}, fault.New(fault.Invalid, "the key file "+key+" can be read by others: chmod 600 it", nil)
	}
	p := Pins{Own: own, Now: now}
	text, err := os.ReadFile(peer)
	if err != nil {
		return Pins{}, fault.New(fault.Invalid, "the other side's certificate "+peer+" cannot be read", err)
	}
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "CERTIFICATE" {
			p.Peers = append(p.Peers, sha256.Sum256(block.Bytes))
		}
	}
	if len(p.Peers) == 0 {
		return Pins{}, fault.New(fault.Invalid, peer+" holds no certificate in PEM", nil)
	}
	return p, nil
}

// pinLife is how long a pinned certificate lasts.
const pinLife = 5 * 365 * 24 * time.Hour

// MakePin makes one side's certificate and key, NAME.crt and NAME.key in dir, where there are none yet. It is known by its bytes alone, so what stands in it names only who it is.
func MakePin(dir, name string, now time.Time) error {
	crt, file := filepath.Join(dir, name+".crt"), filepath.Join(dir, name+".key")
	if _, err := os.Stat(file); err == nil {
		return nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return err
	}
	t := &x509.Certificate{SerialNumber: serial, Subject: pkix.Name{CommonName: "frontdesk " + name}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(pinLife), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	der, err := x509.CreateCertificate(rand.Reader, t, t, &key.PublicKey, key)
	if err != nil {
		return err
	}
	plain, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	if err := os.WriteFile(crt, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		return err
	}
	return os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: plain}), 0o600)
}

// verify is the whole trust between the two ends.
func (p Pins) verify(s tls.ConnectionState) error {
	if len(s.PeerCertificates) == 0 {
		return fault.New(fault.Denied, "the other side shows no certificate", nil)
	}
	c := s.PeerCertificates[0]
	if !slices.Contains(p.Peers, sha256.Sum256(c.Raw)) {
		return fault.New(fault.Denied, "the other side shows a certificate that is not pinned", nil)
	}
	if now := p.Now(); now.Before(c.NotBefore) || now.After(c.NotAfter) {
		return fault.New(fault.Denied, "the other side's certificate has ended: make both anew with `frontdesk pair`", nil)
	}
	return nil
}

// Listening is how the listening end speaks TLS.
func (p Pins) Listening() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{p.Own}, ClientAuth: tls.RequireAnyClientCert, VerifyConnection: p.verify,
		NextProtos: []string{"h2"}, SessionTicketsDisabled: true}
}

// How much of a body is on its way until somebody reads it: of one request, and of all on a connection.
const (
	pinnedStream     = 512 << 10
	pinnedConnection = 256 << 20
	pinnedStreams    = 10_000
)

// PinnedHTTP2 bounds a connection between two processes: no body that nobody reads may stop the others.
func PinnedHTTP2() *http.HTTP2Config {
	return &http.HTTP2Config{MaxConcurrentStreams: pinnedStreams, MaxReceiveBufferPerConnection: pinnedConnection, MaxReceiveBufferPerStream: pinnedStream,
		SendPingTimeout: 15 * time.Second, PingTimeout: 10 * time.Second}
}

// To returns a transport to the listening end at host:port. Whatever a request's host says, it goes there, by HTTP/2.
func (p Pins) To(address string) http.RoundTripper { return p.to(address, p.verify) }

func (p Pins) to(address string, verify func(tls.ConnectionState) error) *http.Transport {
	t := &http.Transport{ForceAttemptHTTP2: true, Protocols: new(http.Protocols), HTTP2: PinnedHTTP2(), DisableCompression: true, IdleConnTimeout: 5 * time.Minute,
		TLSHandshakeTimeout: 10 * time.Second,
		// Certificates are pinned: the chain and the name, which would be checked otherwise, say nothing here.
		TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{p.Own}, InsecureSkipVerify: true, VerifyConnection: verify, NextProtos: []string{"h2"}},
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{Timeout: 10 * time.Second}).DialContext(ctx, "tcp", address)
		}}
	t.Protocols.SetHTTP2(true)
	return t
}

// Ends says when a certificate in a PEM file ends, the earliest of several.
func Ends(file string) (time.Time, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return time.Time{}, err
	}
	var first time.Time
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if c, err := x509.ParseCertificate(block.Bytes); err == nil && (first.IsZero() || c.NotAfter.Before(first)) {
			first = c.NotAfter
		}
	}
	return first, nil
}
