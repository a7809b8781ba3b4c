package vault

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/tink-crypto/tink-go/v2/aead/xchacha20poly1305"
	"github.com/tink-crypto/tink-go/v2/insecurecleartextkeyset"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/tink"

	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/kit/secret"
	"frontdesk.dev/frontdesk/internal/vault/keyring"
)

// Vault seals and opens. All fields but Log and Guard are required.
type Vault struct {
	Store Store
	Keys  keyring.Store
	Wrap  keyring.Wrapper
	Log   Events // nil: nothing is recorded, so nothing can be held against the log; of a tool that serves nobody
	Guard *Guard // nil: rows are not held against the log as they are opened
	Now   func() time.Time

	mu    sync.RWMutex
	keys  map[identity.Tenant]dataKeys // guarded by mu
	names map[nameKey][16]byte         // guarded by mu
	told  map[string]bool              // guarded by mu: rows whose tampering is on record
}

// Events records (audit.Log).
type Events interface {
	Event(ctx context.Context, r audit.Record) error
}

type nameKey struct {
	tenant     identity.Tenant
	kind, name string
}

// What a sealed field is (docs/security.md): format ‖ Tink ciphertext of the value, padded so that its length names no vendor.
const (
	format  = 1
	padTo   = 256
	aadHead = "frontdesk/sealed/v1\x00"
	aadFlow = "frontdesk/flow/v1\x00"

	fieldAccess   = 1
	fieldRefresh  = 2
	fieldPrevious = 3
	fieldIdentity = 4
	fieldProof    = 5

	maxNames = 200_000
)

// ErrSealed says that a sealed field does not open.
var ErrSealed = fault.New(fault.Unavailable, "a stored credential does not open with this key: it was moved or altered, or the key is another one; connecting again mends it", nil)

// Open returns the secrets of a connection. A row that was moved, altered or rolled back in part does not open; with a Guard,
// neither does one that was rolled back as a whole. That is recorded, once a process.
func (v *Vault) Open(ctx context.Context, c Connection) (Secrets, error) {
	s, err := v.unsealed(ctx, c)
	if err == nil && v.Guard != nil {
		err = v.Guard.check(ctx, c)
	}
	if err == nil {
		return s, nil
	}
	if errors.Is(err, ErrSealed) {
		err = errors.Join(err, v.tampered(ctx, c, err))
	}
	return Secrets{}, err
}

// maxTold bounds what is remembered of rows that do not open.
const maxTold = 10_000

func (v *Vault) tampered(ctx context.Context, c Connection, why error) error {
	key := string(c.ID) + place(c)
	v.mu.Lock()
	told := v.told[key] || len(v.told) > maxTold
	if v.told == nil {
		v.told = map[string]bool{}
	}
	v.told[key] = true
	v.mu.Unlock()
	if told {
		return nil
	}
	return v.record(ctx, c, audit.Record{Action: "vault.tamper", Result: audit.ResultFailed, Detail: fault.Message(why)})
}

// record writes an event about a connection.
func (v *Vault) record(ctx context.Context, c Connection, r audit.Record) error {
	if v.Log == nil {
		return nil
	}
	r.Time, r.Tenant, r.User, r.Upstream, r.Connection = v.Now(), c.Tenant, c.User, string(c.Upstream), string(c.ID)
	return v.Log.Event(ctx, r)
}

func (v *Vault) unsealed(ctx context.Context, c Connection) (Secrets, error) {
	if _, err := v.tenant(ctx, c.Tenant); err != nil {
		return Secrets{}, err
	}
	if living := c.Status != Revoked && c.Status != Revoking; living && (len(c.Access) == 0 || c.Refreshes && len(c.Sealed.Refresh) == 0) {
		return Secrets{}, ErrSealed // somebody emptied it: nothing is not a credential
	}
	var s Secrets
	for _, f := range []struct {
		field  byte
		sealed []byte
		into   *secret.Text
	}{{fieldAccess, c.Access, &s.Access}, {fieldRefresh, c.Sealed.Refresh, &s.Refresh}, {fieldPrevious, c.Previous, &s.Previous}, {fieldIdentity, c.Identity, &s.Identity}, {fieldProof, c.Proof, &s.Proof}} {
		if len(f.sealed) == 0 {
			continue
		}
		aad, err := v.aad(ctx, c, f.field)
		if err != nil {
			return Secrets{}, err
		}
		plain, err := v.open(ctx, c.Tenant, f.sealed, aad)
		if err != nil {
			return Secrets{}, err
		}
		*f.into = secret.New(string(plain))
		clear(plain)
	}
	return s, nil
}

// Seal fills c's sealed fields for its generation and version.
func (v *Vault) Seal(ctx context.Context, c *Connection, s Secrets) error {
	a, err := v.tenant(ctx, c.Tenant)
	if err != nil {
		return err
	}
	c.Sealed = Sealed{}
	for _, f := range []struct {
		field byte
		value secret.Text
		into  *[]byte
	}{{fieldAccess, s.Access, &c.Access}, {fieldRefresh, s.Refresh, &c.Sealed.Refresh}, {fieldPrevious, s.Previous, &c.Previous}, {fieldIdentity, s.Identity, &c.Identity}, {fieldProof, s.Proof, &c.Proof}} {
		if f.value.IsZero() {
			continue
		}
		aad, err := v.aad(ctx, *c, f.field)
		if err != nil {
			return err
		}
		if *f.into, err = seal(a, []byte(f.value.Expose()), aad); err != nil {
			return err
		}
	}
	return nil
}

// Connect stores a fresh credential: under a new id, or, where c has one, in the place of that row with the next generation.
func (v *Vault) Connect(ctx context.Context, c Connection, s Secrets) (Connection, error) {
	prior := c.Generation
	if c.ID == "" {
		id := make([]byte, 16)
		if _, err := io.ReadFull(rand.Reader, id); err != nil {
			return c, err
		}
		c.ID, prior = ConnectionID(hex.EncodeToString(id)), 0
	}
	c.Machine = Machine{Generation: prior + 1, Version: 1, Phase: Idle}
	if err := v.Seal(ctx, &c, s); err != nil {
		return c, err
	}
	if err := v.Store.Connect(ctx, c, prior); err != nil {
		return c, err
	}
	return c, v.record(ctx, c, audit.Record{Action: "vault.stored", Sealed: Fingerprint(c), Obtained: string(c.Method), Result: audit.ResultOK})
}

// Connections lists a user's connections at one upstream, or at all ("").
func (v *Vault) Connections(ctx context.Context, t identity.Tenant, u identity.UserID, up catalog.UpstreamName) ([]Connection, error) {
	return v.Store.Connections(ctx, t, u, up)
}

// Connection returns one.
func (v *Vault) Connection(ctx context.Context, t identity.Tenant, id ConnectionID) (Connection, error) {
	return v.Store.Connection(ctx, t, id)
}

// Update changes what is not sealed.
func (v *Vault) Update(ctx context.Context, c Connection) error { return v.Store.Update(ctx, c) }

// SealFlow seals the secret of one flow, bound to tenant and state.
func (v *Vault) SealFlow(ctx context.Context, t identity.Tenant, state string, plain []byte) ([]byte, error) {
	a, err := v.tenant(ctx, t)
	if err != nil {
		return nil, err
	}
	return seal(a, plain, flowAAD(t, state))
}

// OpenFlow is its inverse.
func (v *Vault) OpenFlow(ctx context.Context, t identity.Tenant, state string, sealed []byte) ([]byte, error) {
	return v.open(ctx, t, sealed, flowAAD(t, state))
}

// flowAAD puts the lengths before the texts: joined text is how two different pairs become equal.
func flowAAD(t identity.Tenant, state string) []byte {
	b := []byte(aadFlow)
	b = binary.BigEndian.AppendUint32(b, uint32(len(t)))
	b = append(b, t...)
	return append(b, state...)
}

func seal(a tink.AEAD, plain, aad []byte) ([]byte, error) {
	padded := make([]byte, 0, len(plain)+padTo)
	padded = append(append(padded, plain...), 0x80)
	padded = append(padded, make([]byte, (padTo-len(padded)%padTo)%padTo)...)
	c, err := a.Encrypt(padded, aad)
	clear(padded)
	if err != nil {
		return nil, err
	}
	return append([]byte{format}, c...), nil
}

func open(a tink.AEAD, sealed, aad []byte) ([]byte, error) {
	if len(sealed) < 1 || sealed[0] != format {
		return nil, errors.New("vault: unknown format")
	}
	padded, err := a.Decrypt(sealed[1:], aad)
	if err != nil {
		return nil, err
	}
	end := bytes.LastIndexByte(padded, 0x80)
	if end < 0 {
		return nil, errors.New("vault: bad padding")
	}
	return padded[:end], nil
}

// aad binds a field to its place: tenant ‖ user ‖ upstream ‖ connection (16 bytes each) ‖ field ‖ generation ‖ version, and the site to
// which the credential goes, where the connection has one.
func (v *Vault) aad(ctx context.Context, c Connection, field byte) ([]byte, error) {
	b := append(make([]byte, 0, len(aadHead)+4*16+17), aadHead...)
	for _, n := range []nameKey{{"", "tenant", string(c.Tenant)}, {c.Tenant, "user", string(c.User)}, {c.Tenant, "upstream", string(c.Upstream)}} {
		id, err := v.name(ctx, n)
		if err != nil {
			return nil, err
		}
		b = append(b, id[:]...)
	}
	id, err := hex.DecodeString(string(c.ID))
	if err != nil || len(id) != 16 {
		return nil, fault.New(fault.Internal, "", fmt.Errorf("connection id %q", c.ID))
	}
	b = append(append(b, id...), field)
	b = binary.BigEndian.AppendUint64(b, uint64(c.Generation))
	return append(binary.BigEndian.AppendUint64(b, uint64(c.Version)), c.Site.ID()...), nil
}

// name is the internal id of a name, remembered.
func (v *Vault) name(ctx context.Context, n nameKey) ([16]byte, error) {
	v.mu.RLock()
	id, ok := v.names[n]
	v.mu.RUnlock()
	if ok {
		return id, nil
	}
	id, err := v.Keys.NameID(ctx, n.tenant, n.kind, n.name)
	if err != nil {
		return id, err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.names == nil || len(v.names) > maxNames {
		v.names = map[nameKey][16]byte{}
	}
	v.names[n] = id
	return id, nil
}

// newDataKey makes a keyset of XChaCha20-Poly1305: its nonces are long enough to be random for ever.
func newDataKey(string) (plain, public []byte, err error) {
	p, err := xchacha20poly1305.NewParameters(xchacha20poly1305.VariantTink)
	if err != nil {
		return nil, nil, err
	}
	m := keyset.NewManager()
	id, err := m.AddNewKeyFromParameters(p)
	if err != nil {
		return nil, nil, err
	}
	if err := m.SetPrimary(id); err != nil {
		return nil, nil, err
	}
	h, err := m.Handle()
	if err != nil {
		return nil, nil, err
	}
	var b bytes.Buffer
	err = insecurecleartextkeyset.Write(h, keyset.NewBinaryWriter(&b))
	return b.Bytes(), nil, err
}
