package keyring

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
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"frontdesk.dev/frontdesk/internal/kit/fault"
)

const (
	purposeAuthority = "ca"

	authorityLife = 10 * 365 * 24 * time.Hour
	leafLife      = 24 * time.Hour
	leafBack      = time.Hour // clocks of servers may be behind ours
)

// Authority is the deployment's certification authority: with its certificates egress opens the HTTPS of MCP servers that
// trust it. Its key is made at the first start and sealed like every other; it never leaves this room. Its certificate is
// made anew, with the same key, whenever the names change, and is the same on every replica: X.509 name constraints
// (RFC 5280 section 4.2.1.10) bind it to the names that Use was given and close all other addresses, so what a thief of
// the key can pretend to be is what stands in the config. Safe for concurrent use.
type Authority struct {
	Keys Store
	Wrap Wrapper
	Now  func() time.Time

	mu     sync.Mutex
	names  []string                    // sorted; guarded by mu, as all below
	root   *x509.Certificate           // nil until Use
	key    *ecdsa.PrivateKey           // of root
	leaf   *ecdsa.PrivateKey           // one for all leaves of this process; they live a day
	leaves map[string]*tls.Certificate // by name, of names alone, so bounded by the config
}

// Use makes the authority one for exactly these names: host names without wildcards, and IP addresses. It reads the key, or
// makes it where there is none.
func (a *Authority) Use(ctx context.Context, names []string) error {
	names = slices.Clone(names)
	for i, n := range names {
		names[i] = strings.ToLower(n)
	}
	slices.Sort(names)
	names = slices.Compact(names)
	key, err := Ring{a.Keys, a.Wrap, a.Now}.Current(ctx, "", purposeAuthority, newAuthorityKey)
	if err != nil {
		return err
	}
	private, err := x509.ParseECPrivateKey(key.Secret)
	if err != nil {
		return err
	}
	root, err := authority(private, key.Created, names)
	if err != nil {
		return err
	}
	leaf, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.root != nil && slices.Equal(a.names, names) && a.root.Equal(root) {
		return nil
	}
	a.names, a.root, a.key, a.leaf, a.leaves = names, root, private, leaf, map[string]*tls.Certificate{}
	return nil
}

// PEM is the authority's certificate, for those who are to trust it. Nil before Use.
func (a *Authority) PEM() []byte {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.root == nil {
		return nil
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.root.Raw})
}

// Leaf returns a certificate for one of the names, good for some hours at least. Any other name is fault.Denied, whoever asks.
func (a *Authority) Leaf(_ context.Context, name string) (*tls.Certificate, error) {
	name = strings.ToLower(name)
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.listed(name); err != nil {
		return nil, err
	}
	now := a.Now()
	if c := a.leaves[name]; c != nil && now.Before(c.Leaf.NotAfter.Add(-leafLife/2)) && now.After(c.Leaf.NotBefore) {
		return c, nil
	}
	der, err := a.certify(name, now, &a.leaf.PublicKey)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	a.leaves[name] = &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: a.leaf, Leaf: leaf}
	return a.leaves[name], nil
}

// Certify returns a certificate (DER) like those of Leaf for a key that somebody else holds (PKIX): egress in another process. Errors
// as of Leaf; fault.Invalid for a key that is none.
func (a *Authority) Certify(name string, public []byte) ([]byte, error) {
	key, err := x509.ParsePKIXPublicKey(public)
	if _, ok := key.(*ecdsa.PublicKey); err != nil || !ok {
		return nil, fault.New(fault.Invalid, "a certificate is made for an ECDSA key", err)
	}
	name = strings.ToLower(name)
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.listed(name); err != nil {
		return nil, err
	}
	return a.certify(name, a.Now(), key)
}

// listed needs mu.
func (a *Authority) listed(name string) error {
	if _, ok := slices.BinarySearch(a.names, name); !ok || a.root == nil {
		return fault.New(fault.Denied, "no certificate is made for a name that is not in the config", nil)
	}
	return nil
}

// certify needs mu.
func (a *Authority) certify(name string, now time.Time, key any) ([]byte, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	t := &x509.Certificate{SerialNumber: serial, Subject: pkix.Name{Organization: []string{"Frontdesk egress"}}, NotBefore: now.Add(-leafBack), NotAfter: now.Add(leafLife),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, BasicConstraintsValid: true}
	if ip, err := netip.ParseAddr(name); err == nil {
		t.IPAddresses = []net.IP{ip.AsSlice()}
	} else {
		t.DNSNames = []string{name}
	}
	return x509.CreateCertificate(rand.Reader, t, a.root, key, a.key)
}

func newAuthorityKey(string) (plain, public []byte, err error) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	plain, err = x509.MarshalECPrivateKey(k)
	return plain, nil, err
}

// authority makes the root. Everything in it follows from the key and the names, the signature included (RFC 6979), so that
// replicas need not agree on anything.
func authority(key *ecdsa.PrivateKey, created time.Time, names []string) (*x509.Certificate, error) {
	public, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return nil, err
	}
	id := sha256.Sum256(public)
	serial := sha256.Sum256(append(public, strings.Join(names, " ")...))
	created = created.UTC().Truncate(time.Second)
	t := &x509.Certificate{SerialNumber: new(big.Int).SetBytes(serial[:16]), Subject: pkix.Name{Organization: []string{"Frontdesk"}, CommonName: "Frontdesk egress"},
		NotBefore: created.Add(-leafBack), NotAfter: created.Add(authorityLife), SubjectKeyId: id[:20],
		KeyUsage: x509.KeyUsageCertSign, BasicConstraintsValid: true, IsCA: true, MaxPathLenZero: true,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, PermittedDNSDomainsCritical: true}
	for _, n := range names {
		ip, err := netip.ParseAddr(n)
		if err != nil {
			t.PermittedDNSDomains = append(t.PermittedDNSDomains, n)
			continue
		}
		t.PermittedIPRanges = append(t.PermittedIPRanges, &net.IPNet{IP: ip.AsSlice(), Mask: net.CIDRMask(ip.BitLen(), ip.BitLen())})
	}
	// A kind of name without a constraint would be open altogether.
	if len(t.PermittedIPRanges) == 0 {
		t.PermittedIPRanges = []*net.IPNet{{IP: net.IPv4(127, 0, 0, 1).To4(), Mask: net.CIDRMask(32, 32)}}
	}
	if len(t.PermittedDNSDomains) == 0 {
		t.PermittedDNSDomains = []string{"localhost"}
	}
	t.PermittedEmailAddresses, t.PermittedURIDomains = []string{"frontdesk.invalid"}, []string{"frontdesk.invalid"}
	der, err := x509.CreateCertificate(nil, t, t, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}
