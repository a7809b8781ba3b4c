package keyring_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/vault/keyring"
	"frontdesk.dev/frontdesk/internal/vault/kms"
)

// keys is a key store in memory.
type keys struct {
	mu sync.Mutex
	l  []keyring.Key
}

func (k *keys) Keys(_ context.Context, t identity.Tenant, purpose string) ([]keyring.Key, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(k.l), func(x keyring.Key) bool { return x.Tenant != t || x.Purpose != purpose }), nil
}

func (k *keys) AddKey(_ context.Context, n keyring.Key) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, x := range k.l {
		if x.Tenant == n.Tenant && x.Purpose == n.Purpose && x.Generation == n.Generation {
			return fault.New(fault.Conflict, "it is there", nil)
		}
	}
	k.l = append(k.l, n)
	return nil
}

func (k *keys) UpdateKey(context.Context, keyring.Key) error { return nil }

func (k *keys) NameID(context.Context, identity.Tenant, string, string) ([16]byte, error) {
	return [16]byte{}, nil
}

var day = time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)

func newAuthority(t *testing.T, store *keys, wrap keyring.Wrapper, names ...string) *keyring.Authority {
	t.Helper()
	a := &keyring.Authority{Keys: store, Wrap: wrap, Now: func() time.Time { return day }}
	if err := a.Use(t.Context(), names); err != nil {
		t.Fatal(err)
	}
	return a
}

func root(t *testing.T, a *keyring.Authority) *x509.Certificate {
	t.Helper()
	b, _ := pem.Decode(a.PEM())
	c, err := x509.ParseCertificate(b.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func verify(root *x509.Certificate, c *tls.Certificate, name string) error {
	pool := x509.NewCertPool()
	pool.AddCert(root)
	_, err := c.Leaf.Verify(x509.VerifyOptions{Roots: pool, DNSName: name, CurrentTime: day.Add(time.Minute)})
	return err
}

func TestAuthority(t *testing.T) {
	wrap, err := kms.OpenKeyFile(t.TempDir()+"/vault.key", true)
	if err != nil {
		t.Fatal(err)
	}
	store := &keys{}
	names := []string{"api.example.com", "10.1.2.3", "localhost", "::1", "127.0.0.1"}
	a, b := newAuthority(t, store, wrap, names...), newAuthority(t, store, wrap, names...)
	if !bytes.Equal(a.PEM(), b.PEM()) {
		t.Error("two replicas of one config have different certificates")
	}
	for _, n := range append(names, "API.example.com") {
		leaf, err := a.Leaf(t.Context(), n)
		if err != nil {
			t.Fatal(n, err)
		}
		in := n
		if ip, err := netip.ParseAddr(n); err == nil && ip.Is6() {
			in = "[" + n + "]"
		}
		if err := verify(root(t, b), leaf, in); err != nil {
			t.Errorf("%s, trusted by way of the other replica: %v", n, err)
		}
	}
	for _, n := range []string{"evil.example.com", "example.com", "x.api.example.com", "10.1.2.4", ""} {
		if _, err := a.Leaf(t.Context(), n); fault.KindOf(err) != fault.Denied {
			t.Errorf("%q got a certificate: %v", n, err)
		}
	}
	// The same key with other names: what trusts the old certificate believes none of them (the constraints are in it).
	other := newAuthority(t, store, wrap, "evil.test", "10.9.9.9", "::2")
	for _, n := range []string{"evil.test", "10.9.9.9", "::2"} {
		leaf, err := other.Leaf(t.Context(), n)
		if err != nil {
			t.Fatal(err)
		}
		if err := verify(root(t, a), leaf, ""); err == nil {
			t.Errorf("%s: the constraints did not hold", n)
		}
		if err := verify(root(t, other), leaf, ""); err != nil {
			t.Errorf("%s: %v", n, err)
		}
	}
	// The same leaf is handed out until it is half over.
	one, _ := a.Leaf(t.Context(), "localhost")
	two, _ := a.Leaf(t.Context(), "localhost")
	a.Now = func() time.Time { return day.Add(13 * time.Hour) }
	three, _ := a.Leaf(t.Context(), "localhost")
	if one != two || one == three {
		t.Error("leaves are not cached, or for ever")
	}
	if bytes.Contains(store.l[0].Sealed, []byte("EC PRIVATE")) || len(store.l) != 1 || store.l[0].Public != nil {
		t.Errorf("one sealed key, got %d", len(store.l))
	}
}
