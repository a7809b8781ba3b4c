// Package keyring keeps the keys of the system, wrapped: tenants' data keys, and those that sign access tokens, assertions, keycards,
// certificates and the log's checkpoints.
//
// A key is bound to its tenant, purpose, id and generation: moved to another place it does not open. It trusts its key provider and
// nothing in the database: an attacker with the database and without the provider gets public keys and times.
package keyring

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"time"

	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
)

// Key is one sealed key or keyset of the system: signing keys, tenant keysets.
type Key struct {
	Tenant     identity.Tenant // "" for the system's
	Purpose    string          // tenant, issuer, client, ticket, ca, checkpoint
	ID         string          // kid
	Generation int64
	Created    time.Time
	NotBefore  time.Time // used from then on
	NotAfter   time.Time // zero: until a successor is used
	Sealed     []byte
	Public     []byte // JWK, where there is one
}

// Store keeps keys.
type Store interface {
	Keys(ctx context.Context, t identity.Tenant, purpose string) ([]Key, error)
	// AddKey inserts; two replicas that add the same (tenant, purpose, generation) at once: the second gets fault.Conflict.
	AddKey(ctx context.Context, k Key) error
	// UpdateKey changes NotBefore, NotAfter, Sealed and Public of the key with k's tenant, purpose, generation and id.
	UpdateKey(ctx context.Context, k Key) error
	// NameID returns the random 128-bit id under which a name (of a tenant, user, upstream) is bound into sealed fields.
	NameID(ctx context.Context, t identity.Tenant, kind, name string) ([16]byte, error)
}

// Wrapper wraps keysets: a key file, or a KMS. The context is authenticated, and logged by a KMS.
type Wrapper interface {
	Wrap(ctx context.Context, plain, context []byte) ([]byte, error)
	Unwrap(ctx context.Context, wrapped, context []byte) ([]byte, error)
}

// PurposeTenant is the purpose of tenants' data keys (package vault); the others' are this package's own.
const PurposeTenant = "tenant"

const (
	aadKeyset = "frontdesk/keyset/v1\x00"

	// SeenWithin is the time in which other replicas see a new key.
	SeenWithin = time.Minute

	// Ahead is how long a new key of one of many replicas is there before it is used: longer than any replica takes to read it, so that
	// all open what one of them sealed with it.
	Ahead = 2*SeenWithin + 30*time.Second
)

// Ring keeps wrapped keys in the store. All fields are required.
type Ring struct {
	Store Store
	Wrap  Wrapper
	Now   func() time.Time
}

// Opened is a key with its secret part.
type Opened struct {
	Key
	Secret []byte
}

// Context is what a wrapped key is bound to, and what a KMS would log: whose, what for, which generation.
func (k Key) Context() []byte {
	b := []byte(aadKeyset)
	for _, s := range []string{string(k.Tenant), k.Purpose, k.ID} {
		b = binary.BigEndian.AppendUint32(b, uint32(len(s)))
		b = append(b, s...)
	}
	return binary.BigEndian.AppendUint64(b, uint64(k.Generation))
}

type refusal struct{ error }

func (r *refusal) Unwrap() error { return r.error }

// Refused reports whether err is a provider's no to a key: unlike one that is away it is believed at once.
func Refused(err error) bool { _, no := errors.AsType[*refusal](err); return no }

// All opens every key of a purpose, oldest first.
func (r Ring) All(ctx context.Context, t identity.Tenant, purpose string) ([]Opened, error) {
	keys, err := r.Store.Keys(ctx, t, purpose)
	if err != nil {
		return nil, err
	}
	var l []Opened
	for _, k := range keys {
		plain, err := r.Wrap.Unwrap(ctx, k.Sealed, k.Context())
		if fault.KindOf(err) == fault.Unavailable {
			return nil, err
		}
		if err != nil {
			return nil, fault.New(fault.Unavailable, "the vault's key does not open what is in the database: "+whatToDo(err), &refusal{err})
		}
		l = append(l, Opened{k, plain})
	}
	return l, nil
}

// whatToDo tells an operator, by what refused the key.
func whatToDo(err error) string {
	if fault.KindOf(err) == fault.Denied {
		return "the key service says no; its right was taken from this process, or another key wrapped the database's: look at the service, or name the old key under keys.previous"
	}
	return "this process has another key file than the one that wrote it; put back the one that belongs to this database, or name it under keys.previous"
}

// Current is the newest key that may be used now; one is made where there is none.
func (r Ring) Current(ctx context.Context, t identity.Tenant, purpose string, create func(kid string) (secret, public []byte, err error)) (Opened, error) {
	for range 2 {
		l, err := r.All(ctx, t, purpose)
		if err != nil {
			return Opened{}, err
		}
		for i := len(l) - 1; i >= 0; i-- {
			if !r.Now().Before(l[i].NotBefore) {
				return l[i], nil
			}
		}
		if len(l) > 0 {
			return l[0], nil
		}
		if err := r.Add(ctx, t, purpose, 1, r.Now(), create); err != nil && fault.KindOf(err) != fault.Conflict {
			return Opened{}, err
		} // on a conflict another replica made it: read again
	}
	return Opened{}, fault.New(fault.Unavailable, "a key could not be made; try again", nil)
}

// Add makes a key of a generation, to be used from a moment on; fault.Conflict where another replica made it.
func (r Ring) Add(ctx context.Context, t identity.Tenant, purpose string, generation int64, from time.Time, create func(kid string) (secret, public []byte, err error)) error {
	id := make([]byte, 8)
	if _, err := rand.Read(id); err != nil {
		return err
	}
	k := Key{Tenant: t, Purpose: purpose, ID: purpose[:1] + hex.EncodeToString(id), Generation: generation, Created: r.Now(), NotBefore: from}
	plain, public, err := create(k.ID)
	if err != nil {
		return err
	}
	k.Public = public
	if k.Sealed, err = r.Wrap.Wrap(ctx, plain, k.Context()); err != nil {
		return err
	}
	return r.Store.AddKey(ctx, k)
}

var purposes = []string{PurposeTenant, purposeIssuer, purposeClient, purposeTicket, purposeAuthority, purposeCheckpoint}

// Rewrap wraps anew what another provider than the current one had wrapped, and returns how many keys that were. from opens
// what either wrapped, to is the current one. It may be broken off at any point, and begun again.
func Rewrap(ctx context.Context, store Store, from, to Wrapper, tenants []identity.Tenant) (int, error) {
	n := 0
	for _, t := range append([]identity.Tenant{""}, tenants...) {
		for _, purpose := range purposes {
			keys, err := store.Keys(ctx, t, purpose)
			if err != nil {
				return n, err
			}
			for _, k := range keys {
				if _, err := to.Unwrap(ctx, k.Sealed, k.Context()); err == nil {
					continue
				}
				plain, err := from.Unwrap(ctx, k.Sealed, k.Context())
				if err != nil {
					return n, err
				}
				if k.Sealed, err = to.Wrap(ctx, plain, k.Context()); err != nil {
					return n, err
				}
				clear(plain)
				if err := store.UpdateKey(ctx, k); err != nil {
					return n, err
				}
				n++
			}
		}
	}
	return n, nil
}

// Fresh reports whether there is no key at all yet: only then may a key file be made.
func Fresh(ctx context.Context, store Store, tenants []identity.Tenant) (bool, error) {
	for _, t := range append([]identity.Tenant{""}, tenants...) {
		for _, purpose := range purposes {
			if l, err := store.Keys(ctx, t, purpose); err != nil || len(l) > 0 {
				return false, err
			}
		}
	}
	return true, nil
}

// Check opens one key of each kind that is there, so that a process with the wrong key file does not start.
func Check(ctx context.Context, store Store, wrap Wrapper, tenants []identity.Tenant) error {
	r := Ring{store, wrap, time.Now}
	for _, t := range append([]identity.Tenant{""}, tenants...) {
		for _, purpose := range purposes {
			if _, err := r.All(ctx, t, purpose); err != nil {
				return err
			}
		}
	}
	return nil
}
