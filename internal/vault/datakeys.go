package vault

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/insecurecleartextkeyset"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/tink"
	"golang.org/x/sync/errgroup"

	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/vault/keyring"
)

// dataKey is one generation of a tenant's data key.
type dataKey struct {
	tink.AEAD
	keyring.Key
	prefix string // with which everything begins that it sealed: format ‖ 0x01 ‖ key id
}

// dataKeys are a tenant's: one seals, all open. It is a tink.AEAD.
type dataKeys struct {
	seals  dataKey
	all    []dataKey
	broken []keyring.Key // whose rows do not open, while others do
	last   int64         // generation, of those that were given up too
	read   time.Time
}

// Encrypt implements tink.AEAD.
func (d dataKeys) Encrypt(plain, aad []byte) ([]byte, error) { return d.seals.AEAD.Encrypt(plain, aad) }

// Decrypt implements tink.AEAD.
func (d dataKeys) Decrypt(sealed, aad []byte) ([]byte, error) {
	for _, k := range d.all {
		if bytes.HasPrefix(sealed, []byte(k.prefix[1:])) {
			return k.AEAD.Decrypt(sealed, aad)
		}
	}
	return nil, errUnknownKey
}

var errUnknownKey = errors.New("vault: sealed with an unknown key")

// errBrokenKey is of what may open again: a key's own row was altered and can be put back, so no connection is given up for it.
var errBrokenKey = fault.New(fault.Unavailable, "what this needs is sealed with a data key that does not open: its row in the database was altered; an operator has to put it back or give it up (`frontdesk doctor`)", nil)

// tenant returns the tenant's data keys, made when first needed; of two replicas that make one at once, one wins. They are read
// again every minute, so that a new one is known before it is used, and one that is gone is forgotten.
func (v *Vault) tenant(ctx context.Context, t identity.Tenant) (dataKeys, error) {
	v.mu.RLock()
	d, ok := v.keys[t]
	v.mu.RUnlock()
	age := v.Now().Sub(d.read)
	if ok && age < keyring.SeenWithin {
		return d, nil
	}
	fresh, err := v.dataKeys(ctx, t)
	if err != nil && ok && age < keysStale && fault.KindOf(err) == fault.Unavailable && v.stillThere(ctx, d, err) {
		return d, nil // the database, or the key provider beyond its own patience, is away: what opened a minute ago still does
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if err != nil {
		delete(v.keys, t)
		return dataKeys{}, err
	}
	if v.keys == nil {
		v.keys = map[identity.Tenant]dataKeys{}
	}
	v.keys[t] = fresh
	return fresh, nil
}

// keysStale is how long data keys are used that cannot be read again.
const keysStale = 10 * time.Minute

// stillThere reports whether keys that could not be read again may be used a while longer: not where the provider says no, nor
// where the database answers that they were dropped.
func (v *Vault) stillThere(ctx context.Context, d dataKeys, why error) bool {
	if keyring.Refused(why) {
		return false
	}
	l, err := v.Keys.Keys(ctx, d.seals.Tenant, keyring.PurposeTenant)
	return err != nil || slices.ContainsFunc(l, func(k keyring.Key) bool { return k.ID == d.seals.ID })
}

// unknownAgain is how soon keys are read again because something was sealed with one that is not known.
const unknownAgain = 5 * time.Second

// open opens one field. What is sealed with an unknown key may have been sealed by another replica, with a key that is not read
// here yet: nothing is called broken before the keys were read again.
func (v *Vault) open(ctx context.Context, t identity.Tenant, sealed, aad []byte) ([]byte, error) {
	d, err := v.tenant(ctx, t)
	if err != nil {
		return nil, err
	}
	plain, err := open(d, sealed, aad)
	if errors.Is(err, errUnknownKey) && v.Now().Sub(d.read) >= unknownAgain {
		if d, err = v.dataKeys(ctx, t); err != nil {
			return nil, err
		}
		v.mu.Lock()
		v.keys[t] = d
		v.mu.Unlock()
		plain, err = open(d, sealed, aad)
	}
	switch {
	case errors.Is(err, errUnknownKey) && len(d.broken) > 0:
		return nil, errBrokenKey
	case err != nil:
		return nil, ErrSealed
	}
	return plain, nil
}

func (v *Vault) ring() keyring.Ring { return keyring.Ring{Store: v.Keys, Wrap: v.Wrap, Now: v.Now} }

func (v *Vault) dataKeys(ctx context.Context, t identity.Tenant) (dataKeys, error) {
	ring := v.ring()
	current, err := ring.Current(ctx, t, keyring.PurposeTenant, newDataKey)
	if err != nil {
		return dataKeys{}, err
	}
	all, err := ring.Open(ctx, t, keyring.PurposeTenant)
	if err != nil {
		return dataKeys{}, err
	}
	d := dataKeys{broken: all.Broken, last: all.Last, read: v.Now()}
	for _, k := range all.Keys {
		h, err := insecurecleartextkeyset.Read(keyset.NewBinaryReader(bytes.NewReader(k.Secret)))
		if err != nil {
			return dataKeys{}, err
		}
		clear(k.Secret)
		primary, err := h.Primary()
		if err != nil {
			return dataKeys{}, err
		}
		a, err := aead.New(h)
		if err != nil {
			return dataKeys{}, err
		}
		one := dataKey{AEAD: a, Key: k.Key, prefix: string(binary.BigEndian.AppendUint32([]byte{format, 1}, primary.KeyID()))}
		d.all = append(d.all, one)
		if k.Generation == current.Generation {
			d.seals = one
		}
	}
	return d, nil
}

// Resealing is what the rotation of data keys needs of the store.
type Resealing interface {
	// SealedUnder counts connections by the first bytes of their sealed access token: format, and the key's own prefix.
	SealedUnder(ctx context.Context, t identity.Tenant) (map[string]int, error)
	// SealedElse lists connections after an id whose sealed access token begins otherwise, at most limit, by id.
	SealedElse(ctx context.Context, t identity.Tenant, prefix string, after ConnectionID, limit int) ([]Connection, error)
	// Reseal replaces what is sealed, if generation, version and the sealed access token are still those of was; false if not.
	Reseal(ctx context.Context, c Connection, was Sealed) (bool, error)
	// DropKeys removes the keys of a purpose up to and with a generation; it returns how many.
	DropKeys(ctx context.Context, t identity.Tenant, purpose string, upTo int64) (int64, error)
}

// Rotation changes data keys while calls go on: a new key is added and read by all, then seals; what the old one sealed is sealed
// anew, row by row; then the old one can be dropped. Each step can be broken off anywhere and begun again by any process.
// All fields but Turns are required.
type Rotation struct {
	Vault   *Vault
	Rows    Resealing
	Turns   Turns  // nil: nobody else does it
	Owner   string // the place where this process runs: whoever begins there next has its turn
	Tenants func() []identity.Tenant
	Log     *slog.Logger
	Calendar
}

// Calendar says when keys are followed by new ones, without being asked.
type Calendar struct {
	Signer *keyring.Signer
	Log    keyring.CheckpointKeys // of the audit log
	Every  func() time.Duration   // zero: never
}

// Turns lets one replica do a chore at a time.
type Turns interface {
	// Turn takes or keeps the turn of a chore for so long; false where somebody else has it.
	Turn(ctx context.Context, chore, owner string, d time.Duration) (bool, error)
}

const (
	choreReseal = "reseal"
	turnTime    = 5 * time.Minute
)

func (r *Rotation) turn(ctx context.Context) (bool, error) {
	if r.Turns == nil {
		return true, nil
	}
	return r.Turns.Turn(ctx, choreReseal, r.Owner, turnTime)
}

// ByCalendar gives keys that are of age their successors.
func (r *Rotation) ByCalendar(ctx context.Context, t identity.Tenant) error {
	if r.Every == nil || r.Every() <= 0 {
		return nil
	}
	n, err := r.Signer.RotateAged(ctx, t, r.Every())
	if err == nil && t == identity.DefaultTenant {
		var new bool
		if new, err = r.Calendar.Log.RotateAged(ctx, r.Every()); new {
			n++
		}
	}
	if err != nil {
		return err
	}
	d, err := r.Vault.tenant(ctx, t)
	if err != nil {
		return err
	}
	if newest := d.all[len(d.all)-1]; r.Vault.Now().Sub(newest.Created) >= r.Every() {
		if err := r.Rotate(ctx, t); err != nil {
			return err
		}
		n++
	}
	if n == 0 {
		return nil
	}
	r.Log.Info("keys are followed by new ones, by the calendar", "tenant", t, "keys", n)
	if r.Vault.Log == nil {
		return nil
	}
	return r.Vault.Log.Event(ctx, audit.Record{Time: r.Vault.Now(), Tenant: t, Action: "keys.rotate", Result: audit.ResultOK, Detail: strconv.Itoa(n) + " keys, by the calendar"})
}

// KeyState is one data key, as operators see it.
type KeyState struct {
	Tenant     identity.Tenant `json:"tenant"`
	ID         string          `json:"id"`
	Generation int64           `json:"generation"`
	Created    time.Time       `json:"created"`
	From       time.Time       `json:"from"`             // seals from then on
	Seals      bool            `json:"seals"`            // now
	Rows       int             `json:"rows"`             // connections that it sealed
	Broken     bool            `json:"broken,omitempty"` // its row does not open, so nobody knows what it sealed
}

// States lists a tenant's data keys, oldest first.
func (r *Rotation) States(ctx context.Context, t identity.Tenant) ([]KeyState, error) {
	d, err := r.Vault.dataKeys(ctx, t)
	if err != nil {
		return nil, err
	}
	rows, err := r.Rows.SealedUnder(ctx, t)
	if err != nil {
		return nil, err
	}
	var l []KeyState
	for _, k := range d.all {
		l = append(l, KeyState{Tenant: t, ID: k.ID, Generation: k.Generation, Created: k.Created, From: k.NotBefore, Seals: k.Generation == d.seals.Generation, Rows: rows[k.prefix]})
	}
	for _, k := range d.broken {
		l = append(l, KeyState{Tenant: t, ID: k.ID, Generation: k.Generation, Created: k.Created, From: k.NotBefore, Broken: true})
	}
	return l, nil
}

// Rotate adds a new data key. One that is still on its way is not followed by another.
func (r *Rotation) Rotate(ctx context.Context, t identity.Tenant) error {
	d, err := r.Vault.dataKeys(ctx, t)
	if err != nil {
		return err
	}
	newest, now := d.all[len(d.all)-1], r.Vault.Now()
	if now.Before(newest.NotBefore) {
		return nil
	}
	err = r.Vault.ring().Add(ctx, t, keyring.PurposeTenant, d.last+1, now.Add(keyring.Ahead), newDataKey)
	if fault.KindOf(err) == fault.Conflict {
		return nil // another replica was asked at the same moment
	}
	return err
}

// Retire drops the keys before the one that seals, once nothing is sealed with them any more; fault.Conflict while something is.
// What an older backup holds cannot be opened afterwards.
func (r *Rotation) Retire(ctx context.Context, t identity.Tenant) (int64, error) {
	states, err := r.States(ctx, t)
	if err != nil {
		return 0, err
	}
	if slices.ContainsFunc(states, func(k KeyState) bool { return k.Broken }) {
		return 0, fault.New(fault.Conflict, "a data key does not open, and what it sealed cannot be sealed anew: put its row back or give it up first, as `frontdesk doctor` says", nil)
	}
	var upTo int64
	for _, k := range states {
		switch {
		case k.Seals && upTo == 0:
			return 0, nil
		case k.Seals && r.Vault.Now().Sub(k.From) < retireAfter:
			return 0, fault.New(fault.Conflict, "the new key is in use for too short a time: sign-ins under way and endings that vendors have not confirmed are sealed with the old one for up to a day", nil)
		case k.Seals:
			return r.Rows.DropKeys(ctx, t, keyring.PurposeTenant, upTo)
		case k.Rows > 0:
			return 0, fault.New(fault.Conflict, "connections are still sealed with an old key; they are being sealed anew, ask again later", nil)
		}
		upTo = k.Generation
	}
	return 0, nil
}

// retireAfter is longer than anything lives that is sealed with a data key but is no connection.
const retireAfter = 25 * time.Hour

// Shred drops all data keys of a tenant: nothing that they sealed opens again, here or on any replica within two minutes. Backups
// that were made before hold the wrapped keys: they are shredded with the key that wraps them, or with the backup.
func (r *Rotation) Shred(ctx context.Context, t identity.Tenant) (int64, error) {
	keys, err := r.Vault.Keys.Keys(ctx, t, keyring.PurposeTenant)
	if err != nil || len(keys) == 0 {
		return 0, err
	}
	n, err := r.Rows.DropKeys(ctx, t, keyring.PurposeTenant, keys[len(keys)-1].Generation)
	r.Vault.mu.Lock()
	defer r.Vault.mu.Unlock()
	delete(r.Vault.keys, t)
	return n, err
}

const (
	resealEvery = time.Minute
	resealBatch = 100

	resealAtOnce = 25 // that share one commit of the log
)

// Run seals anew what an older key sealed, until ctx ends.
func (r *Rotation) Run(ctx context.Context) error {
	tick := time.NewTicker(resealEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		for _, t := range r.Tenants() {
			ours, err := r.turn(ctx)
			if err == nil && !ours {
				break
			}
			n := 0
			if err = errors.Join(err, r.ByCalendar(ctx, t)); err == nil {
				n, err = r.Reseal(ctx, t)
			}
			if n > 0 {
				r.Log.Info("connections were sealed with the new data key", "tenant", t, "connections", n)
			}
			if err != nil && ctx.Err() == nil {
				r.Log.Warn("keys could not be rotated, or connections not sealed with the new data key; trying again", "tenant", t, "error", err)
			}
		}
	}
}

// Reseal seals anew everything of a tenant that the current key did not seal, and returns how much that was. A row that changes
// meanwhile is left: it was sealed with the current key then. One that does not open is left too, and says so when it is used.
func (r *Rotation) Reseal(ctx context.Context, t identity.Tenant) (int, error) {
	d, err := r.Vault.tenant(ctx, t)
	if err != nil || len(d.all) < 2 {
		return 0, err
	}
	n := 0
	for after := ConnectionID(""); ; {
		rows, err := r.Rows.SealedElse(ctx, t, d.seals.prefix, after, resealBatch)
		if err != nil || len(rows) == 0 {
			return n, err
		}
		after = rows[len(rows)-1].ID
		done, err := r.resealPage(ctx, rows)
		if n += done; err != nil {
			return n, err
		}
		if ours, err := r.turn(ctx); err != nil || !ours { // it took longer than a turn, and another one goes on
			return n, err
		}
	}
}

// resealPage seals some rows anew. The log says so first: after a crash in between it knows of one digest too many.
func (r *Rotation) resealPage(ctx context.Context, rows []Connection) (int, error) {
	var done atomic.Int64
	var g errgroup.Group
	g.SetLimit(resealAtOnce)
	for _, c := range rows {
		g.Go(func() error {
			secrets, err := r.Vault.Open(ctx, c)
			if errors.Is(err, ErrSealed) || errors.Is(err, errBrokenKey) {
				return nil
			}
			if err != nil {
				return err
			}
			was := c.Sealed
			if err := r.Vault.Seal(ctx, &c, secrets); err != nil {
				return err
			}
			if err := r.Vault.record(ctx, c, audit.Record{Action: "vault.resealed", Sealed: Fingerprint(c), Result: audit.ResultOK}); err != nil {
				return err
			}
			ok, err := r.Rows.Reseal(ctx, c, was)
			if ok {
				done.Add(1)
			}
			return err
		})
	}
	err := g.Wait()
	return int(done.Load()), err
}
