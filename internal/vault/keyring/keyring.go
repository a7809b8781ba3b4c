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
	"fmt"
	"slices"
	"strconv"
	"strings"
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

// refusal is a provider's no to keys, of which it opens others, or none.
type refusal struct {
	error
	keys   []Key
	opened int // how many others it opens
}

func (r *refusal) Unwrap() error { return r.error }

// Refused reports whether err is a provider's no to a key: unlike one that is away it is believed at once.
func Refused(err error) bool { _, no := errors.AsType[*refusal](err); return no }

// Partial reports whether err, of Check, is about data keys alone, while others open: a process can serve all that they did not seal.
func Partial(err error) bool {
	r, no := errors.AsType[*refusal](err)
	return no && r.opened > 0 && !slices.ContainsFunc(r.keys, func(k Key) bool { return k.Purpose != PurposeTenant })
}

// Opening is what opens of the keys of a purpose.
type Opening struct {
	Keys   []Opened // oldest first
	Broken []Key    // what the provider says no to: its row was altered, or another provider wrapped it
	Last   int64    // the newest generation that there is or was, whether it opens or not
}

// Open opens the keys of a purpose. A provider that opens none is the wrong one, and that is the error, as it is where it is away.
func (r Ring) Open(ctx context.Context, t identity.Tenant, purpose string) (o Opening, err error) {
	keys, err := r.Store.Keys(ctx, t, purpose)
	if err != nil {
		return o, err
	}
	var no error
	for _, k := range keys {
		o.Last = max(o.Last, k.Generation)
		if string(k.Sealed) == forgotten {
			continue
		}
		plain, err := r.Wrap.Unwrap(ctx, k.Sealed, k.Context())
		if fault.KindOf(err) == fault.Unavailable {
			return Opening{}, err
		}
		if err != nil {
			no, o.Broken = err, append(o.Broken, k)
			continue
		}
		o.Keys = append(o.Keys, Opened{k, plain})
	}
	if len(o.Broken) > 0 && len(o.Keys) == 0 {
		return o, fault.New(fault.Unavailable, "the vault's key does not open what is in the database: "+whatToDo(no), &refusal{no, o.Broken, 0})
	}
	return o, nil
}

// whatToDo tells an operator, by what refused the key.
func whatToDo(err error) string {
	if fault.KindOf(err) == fault.Denied {
		return fault.Message(err)
	}
	return "this process has another key file than the one that wrote it; put back the one that belongs to this database, or name it under keys.previous"
}

// Current is the newest key that may be used now, of those that open; one is made where there is none.
func (r Ring) Current(ctx context.Context, t identity.Tenant, purpose string, create func(kid string) (secret, public []byte, err error)) (Opened, error) {
	for range 2 {
		o, err := r.Open(ctx, t, purpose)
		if err != nil {
			return Opened{}, err
		}
		l, now := o.Keys, r.Now()
		for _, k := range slices.Backward(l) {
			if !now.Before(k.NotBefore) && (k.NotAfter.IsZero() || now.Before(k.NotAfter)) {
				return k, nil
			}
		}
		if len(l) > 0 && now.Before(l[0].NotBefore) {
			return l[0], nil
		}
		if len(l) > 0 && len(o.Broken) > 0 {
			return l[len(l)-1], nil // its successor does not open, and may be put back
		}
		if err := r.Add(ctx, t, purpose, o.Last+1, now, create); err != nil && fault.KindOf(err) != fault.Conflict {
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
				if string(k.Sealed) == forgotten {
					continue
				}
				if _, err := to.Unwrap(ctx, k.Sealed, k.Context()); err == nil {
					continue
				}
				plain, err := from.Unwrap(ctx, k.Sealed, k.Context())
				if fault.KindOf(err) == fault.Unavailable {
					return n, err
				}
				if err != nil {
					continue // neither opens it: Check says so, and what to do
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

// Check opens every key that is there, so that a process with the wrong key file does not start, and none that lacks some of the keys
// without somebody knowing which (Partial: it may start all the same).
func Check(ctx context.Context, store Store, wrap Wrapper, tenants []identity.Tenant) error {
	opened, broken, wrong, err := survey(ctx, store, wrap, tenants)
	if err != nil || len(broken) == 0 {
		return err
	}
	if opened == 0 {
		return wrong
	}
	var said strings.Builder
	for _, k := range broken {
		fmt.Fprintf(&said, "\n  %s: %s (made %s)", k.ID, k.What(), k.Created.UTC().Format(time.DateOnly))
	}
	return fault.New(fault.Unavailable, fmt.Sprintf("%d of the %d keys in the database do not open, while the others do: their rows were altered, or an older wrapping key is missing.%s\n"+
		"Put the rows back from a backup, or name the older wrapping key under keys.previous. What is lost for good is given up by starting once with --forget-keys and these ids",
		len(broken), opened+len(broken), said.String()), &refusal{errors.New("not all keys open"), broken, opened})
}

// survey opens every key: how many open, which do not, and what is said where none of a purpose does.
func survey(ctx context.Context, store Store, wrap Wrapper, tenants []identity.Tenant) (opened int, broken []Key, wrong, err error) {
	r := Ring{store, wrap, time.Now}
	for _, t := range append([]identity.Tenant{""}, tenants...) {
		for _, purpose := range purposes {
			o, err := r.Open(ctx, t, purpose)
			if err != nil && !Refused(err) {
				return 0, nil, nil, err
			}
			if opened, broken = opened+len(o.Keys), append(broken, o.Broken...); err != nil {
				wrong = err
			}
		}
	}
	return opened, broken, wrong, nil
}

// forgotten stands in the place of a key that was given up: its number stays taken, and its public half is there for what it signed.
const forgotten = "forgotten"

// Forget gives up keys that do not open, by their ids, and returns them. It gives up none that opens, nor any while nothing opens at all:
// then the provider is the wrong one. Those that were given up before are passed over. fault.Invalid where an id is of no such key: then
// all stay.
func Forget(ctx context.Context, store Store, wrap Wrapper, tenants []identity.Tenant, ids []string) ([]Key, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	opened, broken, wrong, err := survey(ctx, store, wrap, tenants)
	if err != nil {
		return nil, err
	}
	var lost []Key
	for _, id := range ids {
		i := slices.IndexFunc(broken, func(k Key) bool { return k.ID == id })
		switch {
		case i >= 0 && opened == 0:
			return nil, wrong
		case i >= 0 && broken[i].Purpose == purposeCheckpoint: // the log could not go on from where it stands
			return nil, fault.New(fault.Invalid, "--forget-keys: "+id+" signs checkpoints of the log, which cannot go on without it: put its row back from a backup; nothing was forgotten", nil)
		case i >= 0:
			lost = append(lost, broken[i])
		default:
			before, err := wasForgotten(ctx, store, tenants, id)
			if err != nil {
				return nil, err
			}
			if !before {
				return nil, fault.New(fault.Invalid, "--forget-keys: "+strconv.Quote(id)+" is not the id of a key that does not open; nothing was forgotten", nil)
			}
		}
	}
	for i, k := range lost {
		lost[i].Sealed = []byte(forgotten)
		k.Sealed = lost[i].Sealed
		if err := store.UpdateKey(ctx, k); err != nil {
			return lost[:i], err
		}
	}
	return lost, nil
}

func wasForgotten(ctx context.Context, store Store, tenants []identity.Tenant, id string) (bool, error) {
	for _, t := range append([]identity.Tenant{""}, tenants...) {
		for _, purpose := range purposes {
			keys, err := store.Keys(ctx, t, purpose)
			if err != nil {
				return false, err
			}
			if slices.ContainsFunc(keys, func(k Key) bool { return k.ID == id && string(k.Sealed) == forgotten }) {
				return true, nil
			}
		}
	}
	return false, nil
}

// What says what a key is for, and so what is lost with it.
func (k Key) What() string {
	switch k.Purpose {
	case PurposeTenant:
		return "data key " + strconv.FormatInt(k.Generation, 10) + " of tenant " + string(k.Tenant) + ", without which what it sealed has to be connected again"
	case purposeIssuer:
		return "signs access tokens of tenant " + string(k.Tenant) + ", which clients get anew by themselves"
	case purposeClient:
		return "proves Frontdesk to vendors for tenant " + string(k.Tenant) + ": they read the next one at jwks, or want to be given it"
	case purposeTicket:
		return "proves keycards: calls and sessions that run end"
	case purposeAuthority:
		return "certifies egress for servers: they need the next one, `frontdesk ca`"
	case purposeCheckpoint:
		return "signs checkpoints of the log, which cannot go on without it: this one has to be put back"
	}
	return k.Purpose
}
