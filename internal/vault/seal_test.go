package vault

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/kit/secret"
	"frontdesk.dev/frontdesk/internal/vault/keyring"
)

// shelf keeps keys in memory, and gives a name the id that can be read off it: kind, then name, filled with dots.
type shelf struct {
	mu   sync.Mutex
	keys []keyring.Key
}

func (s *shelf) Keys(_ context.Context, t identity.Tenant, purpose string) (l []keyring.Key, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range s.keys {
		if k.Tenant == t && k.Purpose == purpose {
			l = append(l, k)
		}
	}
	return l, nil
}

func (s *shelf) AddKey(_ context.Context, n keyring.Key) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range s.keys {
		if k.Tenant == n.Tenant && k.Purpose == n.Purpose && k.Generation == n.Generation {
			return fault.New(fault.Conflict, "", nil)
		}
	}
	s.keys = append(s.keys, n)
	return nil
}

func (s *shelf) UpdateKey(context.Context, keyring.Key) error { return errors.New("not here") }

func (s *shelf) NameID(_ context.Context, t identity.Tenant, kind, name string) (id [16]byte, err error) {
	copy(id[:], strings.Repeat(".", 16))
	copy(id[:], kind[:1]+":"+string(t)+":"+name)
	return id, nil
}

// plainWrap wraps by writing the context before the key: it is wrong for everything but a test of who hands over which.
type plainWrap struct{ mark string }

func (w plainWrap) Wrap(_ context.Context, plain, context []byte) ([]byte, error) {
	return slices.Concat([]byte(w.mark), context, plain), nil
}

func (w plainWrap) Unwrap(_ context.Context, wrapped, context []byte) ([]byte, error) {
	plain, ok := bytes.CutPrefix(wrapped, slices.Concat([]byte(w.mark), context))
	if !ok {
		return nil, errors.New("another key, or another place")
	}
	return slices.Clone(plain), nil
}

func testVault() *Vault {
	return &Vault{Keys: &shelf{}, Wrap: plainWrap{"w"}, Now: time.Now}
}

func connection() Connection {
	return Connection{Tenant: "acme", ID: "000102030405060708090a0b0c0d0e0f", User: "alice", Upstream: "tracker", Status: Active, Refreshes: true, Machine: Machine{Generation: 2, Version: 0x0102030405060708}}
}

var threeSecrets = Secrets{Access: secret.New("access-token"), Refresh: secret.New("refresh-token"), Previous: secret.New("the one before")}

// TestAADGolden: the layout of what a sealed field is bound to. Whoever changes a byte of it cannot read what was sealed before.
func TestAADGolden(t *testing.T) {
	pad := func(s string) string { return hex.EncodeToString([]byte((s + strings.Repeat(".", 16))[:16])) }
	c := connection()
	v := testVault()
	for field, want := range map[byte]string{fieldAccess: "01", fieldRefresh: "02", fieldPrevious: "03"} {
		got, err := v.aad(t.Context(), c, field)
		if err != nil {
			t.Fatal(err)
		}
		golden := hex.EncodeToString([]byte("frontdesk/sealed/v1\x00")) + pad("t::acme") + pad("u:acme:alice") + pad("u:acme:tracker") + "000102030405060708090a0b0c0d0e0f" + want + "0000000000000002" + "0102030405060708"
		if hex.EncodeToString(got) != golden || len(got) != 20+4*16+1+8+8 {
			t.Errorf("field %d: %x, want %s", field, got, golden)
		}
	}
	if got, want := hex.EncodeToString(flowAAD("acme", "state")), hex.EncodeToString([]byte("frontdesk/flow/v1\x00"))+"00000004"+hex.EncodeToString([]byte("acmestate")); got != want {
		t.Errorf("flow: %s, want %s", got, want)
	}
	k := keyring.Key{Tenant: "acme", Purpose: "tenant", ID: "t01", Generation: 7}
	if got, want := hex.EncodeToString(k.Context()), hex.EncodeToString([]byte("frontdesk/keyset/v1\x00"))+"00000004"+hex.EncodeToString([]byte("acme"))+"00000006"+hex.EncodeToString([]byte("tenant"))+"00000003"+hex.EncodeToString([]byte("t01"))+"0000000000000007"; got != want {
		t.Errorf("keyset: %s, want %s", got, want)
	}
	// Two pairs that joined text would make equal.
	if bytes.Equal(flowAAD("a", "bc"), flowAAD("ab", "c")) || bytes.Equal(keyring.Key{Tenant: "a", Purpose: "bc"}.Context(), keyring.Key{Tenant: "ab", Purpose: "c"}.Context()) {
		t.Error("two different places have one associated data")
	}
	c.ID = "not hex"
	if _, err := v.aad(t.Context(), c, fieldAccess); err == nil {
		t.Error("an id that is none has associated data")
	}
}

// TestSealedGolden opens what an earlier program sealed, with the keyset that it wrapped.
func TestSealedGolden(t *testing.T) {
	const (
		keyset = "08fe81e59506126f0a630a3b747970652e676f6f676c65617069732e636f6d2f676f6f676c652e63727970746f2e74696e6b2e584368614368613230" +
			"506f6c79313330354b657912221a20bd719c3ceaf8221fa0caccbc3ff53bac870eb044c7a3d44cd46151edbd37254d1801100118fe81e595062001"
		sealed = "010162b940fe0df57552b18a7460c5362533c2c98bb1f5cbae7c19ebe26de6f24ed766afee63b9853d13011c874f52747eb4de6ee428cfcc5e28aa02" +
			"9b2e0c2d95ab3bf0c93cd4e4831d7dccf89722680d27dcd73d3bb7659868ef9488820a92b7f338a4cdb8d6fcd996953a77469c184683cc47e4e8c8db" +
			"f535bdeb67a12c33f5d5c9084c27b236b1cacbd6014d731470409cb9200145a31943a77f27ce78dfd7b8647beff2b719a8531f9a6ce9cb8e58f93e66" +
			"3679b4a7736a6d0b4da9f4fe924f680b6db9d94f9498994400de81de2d8a5824101bfe1e46c83a33284e3ca56a9d08e67ff7df4dc667463060e941ac" +
			"6d734ff6cd665f8ad4e9ced72eea3a2957ae29885d9b6326b8dd0d33c69fec3de9d2431e09bcd9253d243c403225467b1b86c7823de47a6c5c0f92e8" +
			"358f"
	)
	wrapped, err := hex.DecodeString(keyset)
	if err != nil {
		t.Fatal(err)
	}
	field, err := hex.DecodeString(sealed)
	if err != nil {
		t.Fatal(err)
	}
	k := keyring.Key{Tenant: "acme", Purpose: keyring.PurposeTenant, ID: "t01", Generation: 1}
	k.Sealed = slices.Concat([]byte("w"), k.Context(), wrapped)
	v := testVault()
	v.Keys = &shelf{keys: []keyring.Key{k}}
	c := connection()
	c.Refreshes, c.Access = false, field
	s, err := v.Open(t.Context(), c)
	if err != nil || s.Access.Expose() != "access-token" {
		t.Fatalf("%v: what was sealed before does not open", err)
	}
	if len(field) != 1+5+24+256+16 || field[0] != 1 || field[1] != 1 {
		t.Errorf("format: %d bytes, beginning with %x", len(field), field[:6])
	}
}

// TestOpensAtItsPlaceAlone: promise 5. Breaks when a part of the associated data is left out.
func TestOpensAtItsPlaceAlone(t *testing.T) {
	ctx := t.Context()
	v := testVault()
	c := connection()
	if err := v.Seal(ctx, &c, threeSecrets); err != nil {
		t.Fatal(err)
	}
	s, err := v.Open(ctx, c)
	if err != nil || s.Access.Expose() != "access-token" || s.Refresh.Expose() != "refresh-token" || s.Previous.Expose() != "the one before" {
		t.Fatal("what was sealed does not open: ", err)
	}
	other := connection()
	other.User, other.ID = "bob", "ff0102030405060708090a0b0c0d0e0f"
	if err := v.Seal(ctx, &other, threeSecrets); err != nil {
		t.Fatal(err)
	}
	flow, err := v.SealFlow(ctx, "acme", "state", []byte("access-token"))
	if err != nil {
		t.Fatal(err)
	}
	for name, move := range map[string]func(*Connection){
		"tenant":                 func(c *Connection) { c.Tenant = "globex" },
		"user":                   func(c *Connection) { c.User = "bob" },
		"upstream":               func(c *Connection) { c.Upstream = "wiki" },
		"connection":             func(c *Connection) { c.ID = "100102030405060708090a0b0c0d0e0f" },
		"generation":             func(c *Connection) { c.Generation++ },
		"version":                func(c *Connection) { c.Version-- },
		"site":                   func(c *Connection) { c.Site.Value = "evil" },
		"access into refresh":    func(c *Connection) { c.Sealed.Refresh = c.Access },
		"refresh into access":    func(c *Connection) { c.Access = c.Sealed.Refresh },
		"previous into access":   func(c *Connection) { c.Access = c.Previous },
		"another user's field":   func(c *Connection) { c.Access = other.Access },
		"a flow's":               func(c *Connection) { c.Access = flow },
		"no access token":        func(c *Connection) { c.Access = nil },
		"no refresh token":       func(c *Connection) { c.Sealed.Refresh = nil },
		"format 0":               func(c *Connection) { c.Access = append([]byte{0}, c.Access[1:]...) },
		"format 2":               func(c *Connection) { c.Access = append([]byte{2}, c.Access[1:]...) },
		"plain text":             func(c *Connection) { c.Access = []byte("\x01access-token") },
		"an unknown key":         func(c *Connection) { c.Access = bytes.Clone(c.Access); c.Access[5] ^= 1 },
		"cut":                    func(c *Connection) { c.Access = c.Access[:len(c.Access)-1] },
		"longer":                 func(c *Connection) { c.Access = append(bytes.Clone(c.Access), 0) },
		"only the format":        func(c *Connection) { c.Access = c.Access[:1] },
		"status and label alone": nil,
	} {
		moved := c
		if move == nil {
			moved.Status, moved.Label = NeedsReconnect, "x"
			if _, err := v.Open(ctx, moved); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		move(&moved)
		if s, err := v.Open(ctx, moved); !errors.Is(err, ErrSealed) || !s.Access.IsZero() || !s.Refresh.IsZero() {
			t.Errorf("%s: opened, or failed otherwise: %v", name, err)
		}
	}
	if _, err := v.OpenFlow(ctx, "globex", "state", flow); !errors.Is(err, ErrSealed) {
		t.Errorf("a flow opens for another tenant: %v", err)
	}
	if _, err := v.OpenFlow(ctx, "acme", "other", flow); !errors.Is(err, ErrSealed) {
		t.Errorf("a flow opens for another state: %v", err)
	}
	if _, err := v.OpenFlow(ctx, "acme", "state", c.Access); !errors.Is(err, ErrSealed) {
		t.Errorf("a connection's field opens as a flow's: %v", err)
	}
}

// TestEveryByteCounts flips each byte of a sealed field.
func TestEveryByteCounts(t *testing.T) {
	v := testVault()
	c := connection()
	if err := v.Seal(t.Context(), &c, threeSecrets); err != nil {
		t.Fatal(err)
	}
	for i := range c.Access {
		bad := c
		bad.Access = bytes.Clone(c.Access)
		bad.Access[i] ^= 0x40
		if _, err := v.Open(t.Context(), bad); !errors.Is(err, ErrSealed) {
			t.Errorf("byte %d was changed, and the field opens: %v", i, err)
		}
	}
	again := connection()
	if err := v.Seal(t.Context(), &again, threeSecrets); err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(again.Access, c.Access) {
		t.Error("one value seals to one ciphertext: the nonce is not random")
	}
}

// TestLengthNamesNoVendor: what is stored has the length of its padding.
func TestLengthNamesNoVendor(t *testing.T) {
	v := testVault()
	lengths := map[int]bool{}
	for _, n := range []int{1, 8, 40, 100, 254, 255} {
		c := connection()
		if err := v.Seal(t.Context(), &c, Secrets{Access: secret.New(strings.Repeat("x", n)), Refresh: secret.New("r")}); err != nil {
			t.Fatal(err)
		}
		lengths[len(c.Access)] = true
		if s, err := v.Open(t.Context(), c); err != nil || len(s.Access.Expose()) != n {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
	if len(lengths) != 1 {
		t.Errorf("lengths tell: %v", lengths)
	}
	c := connection()
	if err := v.Seal(t.Context(), &c, Secrets{Access: secret.New("ends in \x80\x00\x00"), Refresh: secret.New(strings.Repeat("y", 5000))}); err != nil {
		t.Fatal(err)
	}
	if s, err := v.Open(t.Context(), c); err != nil || s.Access.Expose() != "ends in \x80\x00\x00" || len(s.Refresh.Expose()) != 5000 {
		t.Errorf("a value that looks like padding: %v", err)
	}
}

// TestAnotherKeyFile: a process with the wrong one does not start, and marks nothing.
func TestAnotherKeyFile(t *testing.T) {
	ctx := t.Context()
	store := &shelf{}
	v := &Vault{Keys: store, Wrap: plainWrap{"one"}, Now: time.Now}
	c := connection()
	if err := v.Seal(ctx, &c, threeSecrets); err != nil {
		t.Fatal(err)
	}
	if err := keyring.Check(ctx, store, plainWrap{"one"}, []identity.Tenant{"acme"}); err != nil {
		t.Errorf("the right key: %v", err)
	}
	if err := keyring.Check(ctx, store, plainWrap{"other"}, []identity.Tenant{"acme"}); fault.KindOf(err) != fault.Unavailable || !strings.Contains(fault.Message(err), "another key file") {
		t.Errorf("the wrong key starts: %v", err)
	}
	if _, err := (&Vault{Keys: store, Wrap: plainWrap{"other"}, Now: time.Now}).Open(ctx, c); err == nil || errors.Is(err, ErrSealed) {
		t.Errorf("the wrong key says that the row is broken: %v", err)
	}
	// A tenant's keyset moved to another tenant opens nothing.
	moved := store.keys[0]
	moved.Tenant = "globex"
	if _, err := (&Vault{Keys: &shelf{keys: []keyring.Key{moved}}, Wrap: plainWrap{"one"}, Now: time.Now}).Open(ctx, Connection{Tenant: "globex", ID: c.ID, Status: Active, Sealed: c.Sealed}); err == nil {
		t.Error("a keyset opens for another tenant")
	}
}

// TestOneKeyATenant: whoever asks first makes it, for all; two tenants never share one.
func TestOneKeyATenant(t *testing.T) {
	store := &shelf{}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			v := &Vault{Keys: store, Wrap: plainWrap{"w"}, Now: time.Now}
			c := connection()
			if err := v.Seal(t.Context(), &c, threeSecrets); err != nil {
				t.Error(err)
				return
			}
			if _, err := (&Vault{Keys: store, Wrap: plainWrap{"w"}, Now: time.Now}).Open(t.Context(), c); err != nil {
				t.Errorf("another replica cannot read it: %v", err)
			}
		})
	}
	wg.Wait()
	v := &Vault{Keys: store, Wrap: plainWrap{"w"}, Now: time.Now}
	c := connection()
	c.Tenant = "globex"
	if err := v.Seal(t.Context(), &c, threeSecrets); err != nil {
		t.Fatal(err)
	}
	if len(store.keys) != 2 || bytes.Equal(store.keys[0].Sealed[len(store.keys[0].Sealed)-32:], store.keys[1].Sealed[len(store.keys[1].Sealed)-32:]) {
		t.Errorf("%d keys for two tenants", len(store.keys))
	}
}

// service is a key provider that can be away, or say no.
type service struct {
	plainWrap
	no error
}

func (s *service) Wrap(ctx context.Context, plain, at []byte) ([]byte, error) {
	if s.no != nil {
		return nil, s.no
	}
	return s.plainWrap.Wrap(ctx, plain, at)
}

func (s *service) Unwrap(ctx context.Context, wrapped, at []byte) ([]byte, error) {
	if s.no != nil {
		return nil, s.no
	}
	return s.plainWrap.Unwrap(ctx, wrapped, at)
}

// TestTheProviderIsBelieved: a key provider that is away is forgiven for a while, one that says no at once; and keys that were
// shredded open nothing although the provider is away.
func TestTheProviderIsBelieved(t *testing.T) {
	away, no := fault.New(fault.Unavailable, "away", nil), fault.New(fault.Denied, "its right was taken", nil)
	tests := []struct {
		name  string
		err   error
		shred bool
		after time.Duration
		opens bool
	}{
		{"away for a moment", away, false, 2 * time.Minute, true},
		{"away for long", away, false, 20 * time.Minute, false},
		{"says no", no, false, 2 * time.Minute, false},
		{"shredded", nil, true, 2 * time.Minute, false},
		{"shredded while the provider is away", away, true, 2 * time.Minute, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			now, keys, wrap := time.Now(), &shelf{}, &service{plainWrap: plainWrap{"w"}}
			v := &Vault{Keys: keys, Wrap: wrap, Now: func() time.Time { return now }}
			signer := &keyring.Signer{Keys: keys, Wrap: wrap, Now: v.Now}
			c := connection()
			if err := v.Seal(t.Context(), &c, threeSecrets); err != nil {
				t.Fatal(err)
			}
			if _, _, err := signer.MAC(t.Context(), "", nil); err != nil {
				t.Fatal(err)
			}
			wrap.no = test.err
			if test.shred {
				keys.mu.Lock()
				keys.keys = nil
				keys.mu.Unlock()
			}
			now = now.Add(test.after)
			if _, err := v.Open(t.Context(), c); (err == nil) != test.opens {
				t.Errorf("opens: %v", err)
			}
			if _, _, err := signer.MAC(t.Context(), "", nil); test.err == no && err == nil {
				t.Error("a keycard was signed with a key that the provider refuses")
			}
		})
	}
}

// TestAKeyThatIsNotReadYet: what another replica sealed with its newest key is not broken here, only not known.
func TestAKeyThatIsNotReadYet(t *testing.T) {
	now, keys := time.Now(), &shelf{}
	clock := func() time.Time { return now }
	wrap := &service{plainWrap: plainWrap{"w"}}
	behind, ahead := &Vault{Keys: keys, Wrap: wrap, Now: clock}, &Vault{Keys: keys, Wrap: plainWrap{"w"}, Now: func() time.Time { return now.Add(time.Hour) }}
	c := connection()
	if err := behind.Seal(t.Context(), &c, threeSecrets); err != nil {
		t.Fatal(err)
	}
	if err := (&Rotation{Vault: behind}).Rotate(t.Context(), c.Tenant); err != nil {
		t.Fatal(err)
	}
	if err := ahead.Seal(t.Context(), &c, threeSecrets); err != nil { // its clock is wrong
		t.Fatal(err)
	}
	now = now.Add(10 * time.Second)
	wrap.no = fault.New(fault.Unavailable, "away", nil)
	if _, err := behind.Open(t.Context(), c); err == nil || errors.Is(err, ErrSealed) {
		t.Errorf("while the provider is away: %v, which has its person asked to connect again", err)
	}
	wrap.no = nil
	if s, err := behind.Open(t.Context(), c); err != nil || s.Access.Expose() != "access-token" {
		t.Errorf("with a key that is not read yet: %v", err)
	}
	c.Access = append([]byte{format, 1, 9, 9, 9, 9}, c.Access[6:]...)
	if _, err := behind.Open(t.Context(), c); !errors.Is(err, ErrSealed) {
		t.Errorf("with a key that there never was: %v", err)
	}
}

// TestAKeyDamagedWhileServing: what another key sealed goes on, what the damaged one sealed fails in words for an operator and asks nobody to
// connect again, and all opens once its row is put back.
func TestAKeyDamagedWhileServing(t *testing.T) {
	now, keys := time.Now(), &shelf{}
	v := &Vault{Keys: keys, Wrap: plainWrap{"w"}, Now: func() time.Time { return now }}
	older, newer := connection(), connection()
	if err := v.Seal(t.Context(), &older, threeSecrets); err != nil {
		t.Fatal(err)
	}
	if err := (&Rotation{Vault: v}).Rotate(t.Context(), older.Tenant); err != nil {
		t.Fatal(err)
	}
	now = now.Add(time.Hour)
	if err := v.Seal(t.Context(), &newer, threeSecrets); err != nil || bytes.Equal(newer.Access[:6], older.Access[:6]) {
		t.Fatal(err, "both are sealed with one key")
	}
	is := func(when string, c Connection, opens bool) {
		t.Helper()
		s, err := v.Open(t.Context(), c)
		switch {
		case opens && (err != nil || s.Access.Expose() != "access-token"):
			t.Errorf("%s: %v", when, err)
		case !opens && (fault.KindOf(err) != fault.Unavailable || errors.Is(err, ErrSealed) || !strings.Contains(fault.Message(err), "an operator has to put it back")):
			t.Errorf("%s: %v", when, err)
		}
	}
	for i, damaged := range []struct{ older, newer bool }{{older: false, newer: true}, {older: true, newer: false}} {
		whole := slices.Clone(keys.keys[i].Sealed)
		keys.keys[i].Sealed = append([]byte("x"), whole...)
		is("before it is noticed", older, true)
		is("before it is noticed", newer, true)
		now = now.Add(2 * keyring.SeenWithin)
		is("once it is noticed, sealed by the older key", older, damaged.older)
		is("once it is noticed, sealed by the newer key", newer, damaged.newer)
		c := connection()
		if err := v.Seal(t.Context(), &c, threeSecrets); err != nil {
			t.Errorf("nothing can be sealed: %v", err)
		}
		is("sealed meanwhile", c, true)
		keys.keys[i].Sealed = whole
		now = now.Add(2 * keyring.SeenWithin)
		is("once it is put back", older, true)
		is("once it is put back", newer, true)
		is("once it is put back, sealed meanwhile", c, true)
	}
}
