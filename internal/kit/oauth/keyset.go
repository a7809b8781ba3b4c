package oauth

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-json-experiment/json/jsontext"

	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/kit/jwt"
)

const (
	maxKeySet = 512 << 10
	maxKeys   = 100

	keysFresh    = 10 * time.Minute // after that a withdrawn key is noticed, in the background
	keysUsable   = 4 * time.Hour    // how long keys outlive their last good fetch
	keysCooldown = 30 * time.Second // between fetches, whatever tokens ask for
	keysTimeout  = 5 * time.Second
)

// KeySet holds the signing keys of one issuer, fetched from its JWKS URL when first needed and kept in memory. An
// attacker who reaches the URL's answers can sign as the issuer; one who only sends tokens causes at most one fetch in
// 30 seconds, and known keys go on verifying while that hangs. Safe for concurrent use.
type KeySet struct {
	url  string
	http Doer
	now  func() time.Time
	log  *slog.Logger

	mu      sync.Mutex // guards what follows; never held during a fetch
	keys    []jose.JSONWebKey
	fetched time.Time     // last good fetch
	tried   time.Time     // last fetch
	flight  chan struct{} // closed when the running fetch ends; nil: none runs
}

// NewKeySet returns the keys at url, which comes from the issuer's metadata or the config, never from a token. Nothing
// is fetched yet.
func NewKeySet(url string, doer Doer, now func() time.Time, log *slog.Logger) (*KeySet, error) {
	if _, ok := checkEndpoint(url); !ok {
		return nil, fault.New(fault.Invalid, "the JWKS URL is not a usable https URL", nil)
	}
	if doer == nil || now == nil || log == nil {
		return nil, fault.New(fault.Internal, "a key set needs a doer, a clock and a log", nil)
	}
	return &KeySet{url: url, http: doer, now: now, log: log}, nil
}

// Key returns the key for kid, or, without a kid, the only one that fits alg. Unavailable if there are no keys to look
// among.
func (k *KeySet) Key(ctx context.Context, kid string, alg jose.SignatureAlgorithm) (jose.JSONWebKey, error) {
	key, found, flight := k.lookup(ctx, kid, alg)
	if found || flight == nil {
		return k.result(key, found)
	}
	select {
	case <-flight:
	case <-ctx.Done():
		return jose.JSONWebKey{}, fault.New(fault.Unavailable, "the issuer's signing keys cannot be fetched in time", ctx.Err())
	}
	k.mu.Lock()
	key, found = find(k.usable(), kid, alg)
	k.mu.Unlock()
	return k.result(key, found)
}

func (k *KeySet) result(key jose.JSONWebKey, found bool) (jose.JSONWebKey, error) {
	if found {
		return key, nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.usable()) == 0 {
		return jose.JSONWebKey{}, fault.Later("the issuer's signing keys cannot be fetched", keysCooldown, nil)
	}
	return jose.JSONWebKey{}, fault.New(fault.Unauthenticated, "the token is signed with an unknown key", nil)
}

// lookup finds a key among those in memory. It starts a fetch if the key is unknown or the keys are old; flight is the
// fetch that an unknown key is worth waiting for.
func (k *KeySet) lookup(ctx context.Context, kid string, alg jose.SignatureAlgorithm) (key jose.JSONWebKey, found bool, flight <-chan struct{}) {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := k.now()
	key, found = find(k.usable(), kid, alg)
	if found && now.Sub(k.fetched) < keysFresh {
		return key, true, nil
	}
	if k.flight == nil && (k.tried.IsZero() || now.Sub(k.tried) >= keysCooldown) {
		k.flight, k.tried = make(chan struct{}), now
		// The fetch serves all who wait, so it outlives the one who started it, by at most its time-out.
		go k.fetch(context.WithoutCancel(ctx), k.flight)
	}
	return key, found, k.flight
}

// usable returns the keys unless their time is over. k.mu is held.
func (k *KeySet) usable() []jose.JSONWebKey {
	if k.now().Sub(k.fetched) >= keysUsable {
		return nil
	}
	return k.keys
}

func (k *KeySet) fetch(ctx context.Context, done chan struct{}) {
	ctx, cancel := context.WithTimeout(ctx, keysTimeout)
	defer cancel()
	keys, skipped, err := k.get(ctx)
	for _, reason := range skipped {
		k.log.Warn("signing key ignored", "jwks", k.url, "reason", reason)
	}
	if err != nil {
		k.log.Warn("signing keys not fetched", "jwks", k.url, "error", err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if err == nil {
		k.keys, k.fetched = keys, k.now()
	}
	k.flight = nil
	close(done)
}

func (k *KeySet) get(ctx context.Context) (keys []jose.JSONWebKey, skipped []string, err error) {
	doc, err := get(ctx, k.http, k.url, maxKeySet)
	switch {
	case err != nil:
		return nil, nil, quiet(err)
	case doc.status != http.StatusOK:
		return nil, nil, fmt.Errorf("HTTP %d", doc.status)
	case !doc.whole:
		return nil, nil, fmt.Errorf("longer than %d KiB", maxKeySet>>10)
	}
	keys, skipped, err = parseKeys(doc.body)
	if err == nil && len(keys) == 0 {
		err = fmt.Errorf("no key that could verify a signature, %d ignored", len(skipped))
	}
	return keys, skipped, err
}

// parseKeys reads a JWK set (RFC 7517 s5). A key that cannot be used is skipped with its reason: one bad key must not
// stop those beside it.
func parseKeys(body []byte) (keys []jose.JSONWebKey, skipped []string, err error) {
	var set struct {
		Keys []jsontext.Value `json:"keys"`
	}
	if decode(body, &set) != nil {
		return nil, nil, fmt.Errorf("malformed JWK set")
	}
	if len(set.Keys) > maxKeys {
		skipped = append(skipped, fmt.Sprintf("%d keys beyond the first %d", len(set.Keys)-maxKeys, maxKeys))
		set.Keys = set.Keys[:maxKeys]
	}
	for i, raw := range set.Keys {
		key, reason := parseKey(raw)
		if reason == forEncryption { // many issuers publish one beside (Keycloak always): nothing is wrong with that
			continue
		}
		if reason != "" {
			skipped = append(skipped, fmt.Sprintf("key %d: %s", i, reason))
			continue
		}
		keys = append(keys, key)
	}
	return keys, skipped, nil
}

const forEncryption = "for encryption"

func parseKey(raw jsontext.Value) (key jose.JSONWebKey, reason string) {
	var facts struct {
		KeyOps []string `json:"key_ops"`
	}
	if decode(raw, &facts) != nil {
		return key, "malformed"
	}
	if err := key.UnmarshalJSON(raw); err != nil {
		return key, "unsupported or malformed"
	}
	switch {
	case !key.IsPublic():
		return key, "not a public key"
	case key.Use == "enc":
		return key, forEncryption
	case key.Use != "" && key.Use != "sig", facts.KeyOps != nil && !slices.Contains(facts.KeyOps, "verify"):
		return key, "not for signatures"
	case len(key.KeyID) > 512:
		return key, "kid too long"
	case !slices.ContainsFunc(jwt.SignatureAlgs(), func(alg jose.SignatureAlgorithm) bool { return jwt.Fits(key, alg) }):
		return key, "too weak, or its alg is not for it"
	}
	return key, ""
}

// find returns the key for kid and alg. The algorithm belongs to the key: a token cannot choose another (RFC 8725 s3.1).
// Of two keys with one name neither can be meant, unless their types tell them apart (RFC 7517 s4.5).
func find(keys []jose.JSONWebKey, kid string, alg jose.SignatureAlgorithm) (jose.JSONWebKey, bool) {
	var match []jose.JSONWebKey
	for _, key := range keys {
		if (kid == "" || key.KeyID == kid) && jwt.Fits(key, alg) {
			match = append(match, key)
		}
	}
	if len(match) != 1 {
		return jose.JSONWebKey{}, false
	}
	return match[0], true
}

// Transmitter is who sends security events: its keys, found through its SSF configuration when first needed (OpenID Shared
// Signals Framework 1.0, section 7). All exported fields are required.
type Transmitter struct {
	Issuer string
	HTTP   Doer
	Now    func() time.Time
	Log    *slog.Logger

	mu   sync.Mutex
	keys *KeySet // guarded by mu
	ends SSFEndpoints
}

// SSFEndpoints are where a transmitter is asked about its streams; "" where it offers none.
type SSFEndpoints struct{ Status, Verification string }

// Endpoints are read once. fault.Unavailable while the transmitter is away.
func (t *Transmitter) Endpoints(ctx context.Context) (SSFEndpoints, error) {
	_, err := t.known(ctx)
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.ends, err
}

const wellKnownSSF = "/.well-known/ssf-configuration"

// Key implements jwt.Keys. fault.Unavailable while the transmitter is away.
func (t *Transmitter) Key(ctx context.Context, kid string, alg jose.SignatureAlgorithm) (jose.JSONWebKey, error) {
	keys, err := t.known(ctx)
	if err != nil {
		return jose.JSONWebKey{}, err
	}
	return keys.Key(ctx, kid, alg)
}

func (t *Transmitter) known(ctx context.Context) (*KeySet, error) {
	t.mu.Lock()
	keys := t.keys
	t.mu.Unlock()
	if keys != nil {
		return keys, nil
	}
	keys, ends, err := t.discover(ctx)
	if err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.keys, t.ends = keys, ends
	return keys, nil
}

func (t *Transmitter) discover(ctx context.Context) (*KeySet, SSFEndpoints, error) {
	u, ok := checkURL(t.Issuer)
	if !ok {
		return nil, SSFEndpoints{}, fault.New(fault.Invalid, "an issuer is an https URL without query, fragment and user info", nil)
	}
	var doc struct {
		Issuer       string `json:"issuer"`
		JWKSURI      string `json:"jwks_uri"`
		Status       string `json:"status_endpoint"`
		Verification string `json:"verification_endpoint"`
	}
	at := u.Scheme + "://" + u.Host + wellKnownSSF + strings.TrimSuffix(u.EscapedPath(), "/")
	if err := fetchFirst(ctx, t.HTTP, []string{at}, &doc); err != nil {
		return nil, SSFEndpoints{}, fault.New(fault.Unavailable, "the sender's configuration cannot be read", err)
	}
	if doc.Issuer != t.Issuer {
		return nil, SSFEndpoints{}, fault.New(fault.Unavailable, "the sender's configuration names another issuer", nil)
	}
	for _, at := range []string{doc.Status, doc.Verification} {
		if _, ok := checkURL(at); at != "" && !ok {
			return nil, SSFEndpoints{}, fault.New(fault.Unavailable, "the sender's configuration names an endpoint that is no https URL", nil)
		}
	}
	keys, err := NewKeySet(doc.JWKSURI, t.HTTP, t.Now, t.Log)
	return keys, SSFEndpoints{doc.Status, doc.Verification}, err
}
