package keyring

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"hash"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"

	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/kit/jwt"
)

const (
	purposeIssuer = "issuer"
	purposeClient = "client"
	purposeTicket = "ticket"

	nextAhead   = 24 * time.Hour   // a new signing key is published that long before it is used
	retiredKeep = 10 * time.Minute // longer than any token that an old key signed
	ticketsKeep = 25 * time.Hour   // longer than any transaction token of an old key is good
)

// Signer signs what Frontdesk issues. Keys are made when first needed; access tokens are ES256, which every client library
// verifies, transaction tokens HS256, which only we read. Safe for concurrent use.
type Signer struct {
	Keys Store
	Wrap Wrapper
	Now  func() time.Time

	mu      sync.RWMutex
	signing map[ring]signingKeys // guarded by mu
	tickets ticketKeys           // guarded by mu
}

// ring names the signing keys of a tenant for one purpose.
type ring struct {
	tenant  identity.Tenant
	purpose string
}

type signingKeys struct {
	signer func(typ string) (jose.Signer, error) // of the current key
	public []jose.JSONWebKey
	read   time.Time
}

type ticketKeys struct {
	current string
	pools   map[string]*sync.Pool // kid -> HMAC states
	read    time.Time
}

func (s *Signer) ring() Ring { return Ring{s.Keys, s.Wrap, s.Now} }

// Sign implements the signing half of broker.Notary: access tokens of our issuer, and nothing else.
func (s *Signer) Sign(ctx context.Context, t identity.Tenant, typ string, claims []byte) (string, error) {
	if typ != identity.AccessType {
		return "", fault.New(fault.Internal, "", fmt.Errorf("asked to sign a %q", typ))
	}
	return s.sign(ctx, ring{t, purposeIssuer}, typ, claims)
}

// Assert signs a statement that we make to another authorization server: a client assertion, or an assertion about a person
// (RFC 7523). It has keys of its own, with which no access token of ours verifies.
func (s *Signer) Assert(ctx context.Context, t identity.Tenant, typ string, claims []byte) (string, error) {
	if typ != jwt.TypeJWT && typ != jwt.TypeClientAssertion {
		return "", fault.New(fault.Internal, "", fmt.Errorf("asked to assert a %q", typ))
	}
	return s.sign(ctx, ring{t, purposeClient}, typ, claims)
}

func (s *Signer) sign(ctx context.Context, r ring, typ string, claims []byte) (string, error) {
	k, err := s.keys(ctx, r, false)
	if err != nil {
		return "", err
	}
	signer, err := k.signer(typ)
	if err != nil {
		return "", err
	}
	jws, err := signer.Sign(claims)
	if err != nil {
		return "", err
	}
	return jws.CompactSerialize()
}

// JWKS is the set that others verify with what we sign: access tokens, and assertions. Their keys are published together, and
// told apart by their kid wherever we verify.
func (s *Signer) JWKS(ctx context.Context, t identity.Tenant) ([]byte, error) {
	var set jose.JSONWebKeySet
	for _, purpose := range []string{purposeIssuer, purposeClient} {
		k, err := s.keys(ctx, ring{t, purpose}, false)
		if err != nil {
			return nil, err
		}
		set.Keys = append(set.Keys, k.public...)
	}
	return json.Marshal(set)
}

// OfTenant returns the tenant's keys as jwt.Keys, for verifying our own tokens.
func (s *Signer) OfTenant(t identity.Tenant) TenantKeys { return TenantKeys{s, t} }

// TenantKeys implements jwt.Keys over our own signing keys.
type TenantKeys struct {
	signer *Signer
	tenant identity.Tenant
}

// Key finds the key; one that is not known may have been made by another replica a moment ago.
func (k TenantKeys) Key(ctx context.Context, kid string, _ jose.SignatureAlgorithm) (jose.JSONWebKey, error) {
	for _, again := range []bool{false, true} {
		l, err := k.signer.keys(ctx, ring{k.tenant, purposeIssuer}, again)
		if err != nil {
			return jose.JSONWebKey{}, err
		}
		for _, key := range l.public {
			if key.KeyID == kid {
				return key, nil
			}
		}
	}
	return jose.JSONWebKey{}, fault.New(fault.Unauthenticated, "the token is signed with an unknown key", nil)
}

// keys returns signing keys from memory; again reads them once more, at most every few seconds.
func (s *Signer) keys(ctx context.Context, r ring, again bool) (signingKeys, error) {
	s.mu.RLock()
	k, ok := s.signing[r]
	s.mu.RUnlock()
	if age := s.Now().Sub(k.read); ok && age < SeenWithin && (!again || age < 5*time.Second) {
		return k, nil
	}
	fresh, err := s.load(ctx, r)
	if err != nil && ok && !Refused(err) {
		return k, nil // the database is away: what signed a minute ago still does
	}
	if err != nil {
		return k, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.signing == nil {
		s.signing = map[ring]signingKeys{}
	}
	s.signing[r] = fresh
	return fresh, nil
}

func (s *Signer) load(ctx context.Context, r ring) (signingKeys, error) {
	current, err := s.ring().Current(ctx, r.tenant, r.purpose, newSigningKey)
	if err != nil {
		return signingKeys{}, err
	}
	all, err := s.Keys.Keys(ctx, r.tenant, r.purpose)
	if err != nil {
		return signingKeys{}, err
	}
	out := signingKeys{read: s.Now()}
	for _, k := range all {
		if !k.NotAfter.IsZero() && s.Now().After(k.NotAfter.Add(retiredKeep)) && k.ID != current.ID {
			continue
		}
		var j jose.JSONWebKey
		if err := j.UnmarshalJSON(k.Public); err != nil {
			return signingKeys{}, err
		}
		out.public = append(out.public, j)
	}
	private, err := x509.ParseECPrivateKey(current.Secret)
	if err != nil {
		return signingKeys{}, err
	}
	out.signer = func(typ string) (jose.Signer, error) {
		return jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: private, KeyID: current.ID}}, (&jose.SignerOptions{}).WithType(jose.ContentType(typ)))
	}
	return out, nil
}

func newSigningKey(kid string) (plain, public []byte, err error) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	if plain, err = x509.MarshalECPrivateKey(k); err != nil {
		return nil, nil, err
	}
	public, err = jose.JSONWebKey{Key: &k.PublicKey, KeyID: kid, Algorithm: string(jose.ES256), Use: "sig"}.MarshalJSON()
	return plain, public, err
}

// Rotate publishes a new signing key of the tenant, to be used a day from now, or at once where the old one must not sign
// again. The old one stays published for as long as its tokens live. One that is still on its way is not followed by another.
func (s *Signer) Rotate(ctx context.Context, t identity.Tenant, atOnce bool) error {
	ahead := nextAhead
	if atOnce {
		ahead = 0
	}
	if _, err := s.succeed(ctx, ring{t, purposeIssuer}, 0, ahead, newSigningKey); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.signing, ring{t, purposeIssuer})
	return nil
}

// RotateAged gives a successor to each key of ours that has been there for so long: those that sign access tokens of the tenant,
// and, of the default tenant, those of transaction tokens. Assertions toward vendors keep theirs: some vendors hold a copy. It
// returns how many there were.
func (s *Signer) RotateAged(ctx context.Context, t identity.Tenant, age time.Duration) (n int, err error) {
	type aged struct {
		ring   ring
		ahead  time.Duration
		create func(kid string) (secret, public []byte, err error)
	}
	l := []aged{{ring{t, purposeIssuer}, nextAhead, newSigningKey}}
	if t == identity.DefaultTenant {
		l = append(l, aged{ring{"", purposeTicket}, Ahead, newMACKey})
	}
	for _, a := range l {
		new, err := s.succeed(ctx, a.ring, age, a.ahead, a.create)
		if err != nil {
			return n, err
		}
		if new {
			n++
		}
	}
	return n, nil
}

// succeed adds a key after the newest one of a ring, if that is of age, and says of all before it until when they are used. Broken
// off in between, the next call says it.
func (s *Signer) succeed(ctx context.Context, r ring, age, ahead time.Duration, create func(kid string) (secret, public []byte, err error)) (bool, error) {
	all, err := s.Keys.Keys(ctx, r.tenant, r.purpose)
	if err != nil || len(all) == 0 {
		return false, err
	}
	for i, k := range all[:len(all)-1] {
		if k.NotAfter.IsZero() {
			k.NotAfter = all[i+1].NotBefore
			if err := s.Keys.UpdateKey(ctx, k); err != nil {
				return false, err
			}
		}
	}
	newest, from := all[len(all)-1], s.Now().Add(ahead)
	if s.Now().Before(newest.NotBefore) || s.Now().Sub(newest.Created) < age {
		return false, nil
	}
	err = s.ring().Add(ctx, r.tenant, r.purpose, newest.Generation+1, from, create)
	if fault.KindOf(err) == fault.Conflict {
		return false, nil // another replica did so at the same moment
	}
	if err != nil {
		return false, err
	}
	newest.NotAfter = from
	return true, s.Keys.UpdateKey(ctx, newest)
}

// MAC implements identity.TicketMAC.
func (s *Signer) MAC(ctx context.Context, kid string, data []byte) ([]byte, string, error) {
	k, err := s.ticketKeys(ctx)
	if err != nil {
		return nil, "", err
	}
	if kid == "" {
		kid = k.current
	}
	pool, ok := k.pools[kid]
	if !ok {
		return nil, "", fault.New(fault.NotFound, "no such key", nil)
	}
	if data == nil {
		return nil, kid, nil
	}
	h := pool.Get().(hash.Hash)
	h.Reset()
	h.Write(data)
	mac := h.Sum(nil)
	pool.Put(h)
	return mac, kid, nil
}

func (s *Signer) ticketKeys(ctx context.Context) (ticketKeys, error) {
	s.mu.RLock()
	k := s.tickets
	s.mu.RUnlock()
	if k.pools != nil && s.Now().Sub(k.read) < SeenWithin {
		return k, nil
	}
	current, err := s.ring().Current(ctx, "", purposeTicket, newMACKey)
	if err != nil && k.pools != nil && !Refused(err) {
		return k, nil
	}
	if err != nil {
		return k, err
	}
	all, err := s.ring().Open(ctx, "", purposeTicket)
	if err != nil {
		return k, err
	}
	fresh := ticketKeys{current: current.ID, pools: map[string]*sync.Pool{}, read: s.Now()}
	for _, key := range all.Keys {
		if !key.NotAfter.IsZero() && s.Now().After(key.NotAfter.Add(ticketsKeep)) && key.ID != current.ID {
			continue
		}
		fresh.pools[key.ID] = &sync.Pool{New: func() any { return hmac.New(sha256.New, key.Secret) }}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tickets = fresh
	return fresh, nil
}

func newMACKey(string) (plain, public []byte, err error) {
	plain = make([]byte, 32)
	_, err = rand.Read(plain)
	return plain, nil, err
}
