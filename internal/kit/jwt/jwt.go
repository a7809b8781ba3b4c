// Package jwt verifies signed tokens (RFC 7519 as RFC 8725 wants it): a door says what it takes, and nothing else passes. The
// keys come from whoever asks; no address in a token is ever followed, no symmetric algorithm is ever taken.
package jwt

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"hash"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/kit/secret"
)

// JOSE "typ" values; a token is accepted only at the door that its type names (RFC 8725 s3.11).
const (
	TypeAccessToken      = "at+jwt"                    // RFC 9068
	TypeClientAssertion  = "client-authentication+jwt" // RFC 7523bis
	TypeJWT              = "JWT"                       // ID tokens, and whatever is older than typ
	TypeLogoutToken      = "logout+jwt"                // OpenID Connect back-channel logout
	TypeSecurityEvent    = "secevent+jwt"              // RFC 8417
	TypeTransactionToken = "txntoken+jwt"              // draft-ietf-oauth-transaction-tokens
)

// Keys finds the public key that verifies a token's signature. It never sees an address from the token: keys are
// looked up by kid among those of one issuer (RFC 8725 s3.10). An error without a fault kind means 'no such key'.
// Safe for concurrent use.
type Keys interface {
	Key(ctx context.Context, kid string, alg jose.SignatureAlgorithm) (jose.JSONWebKey, error)
}

// Expect is what a door accepts. The zero value accepts nothing.
type Expect struct {
	Issuer    string   // exactly this iss
	Audiences []string // aud is one of these, byte for byte
	Types     []string // typ is one of these, without case and "application/"; "" stands for no typ at all

	Algs          []jose.SignatureAlgorithm // nil: all of SignatureAlgs; symmetric ones are refused even here
	ManyAudiences bool                      // aud may name others besides; by default such a token works at theirs too
	Absent        []string                  // claims that mark another kind of token: "events", "nonce", "req_wl"
	Now           time.Time
	Leeway        time.Duration // for clocks that disagree; at most MaxLeeway
	MaxLife       time.Duration // exp is at most this far ahead; 0: 24 hours
	MaxAge        time.Duration // not 0: no exp, but an iat that is at most this old (security event tokens, RFC 8417 s2.2)
}

// MaxLeeway bounds Expect.Leeway.
const MaxLeeway = time.Minute

const (
	maxLength      = 16 << 10
	defaultMaxLife = 24 * time.Hour
	maxUnix        = 253402300799 // the last second of year 9999
	base64url      = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
)

// SignatureAlgs returns the algorithms that a token may be signed with: asymmetric ones only.
func SignatureAlgs() []jose.SignatureAlgorithm {
	return []jose.SignatureAlgorithm{jose.ES256, jose.RS256, jose.PS256, jose.EdDSA, jose.ES384, jose.ES512, jose.RS384, jose.RS512, jose.PS384, jose.PS512}
}

// Claims is the payload of a verified token.
type Claims struct {
	Issuer    string
	Subject   string
	Audience  []string
	ID        string // jti
	Expires   time.Time
	NotBefore time.Time // zero: absent
	IssuedAt  time.Time // zero: absent
	Type      string    // typ, lower case, without "application/"
	Alg       jose.SignatureAlgorithm

	payload []byte
}

// Decode reads further claims into a struct or map. Names match exactly, unlike in encoding/json.
func (c Claims) Decode(into any) error {
	if err := json.Unmarshal(c.payload, into); err != nil {
		return fault.New(fault.Unauthenticated, "a claim of the token has the wrong type", nil)
	}
	return nil
}

// Verify checks a compact JWS against want and returns its claims. Every refusal is Unauthenticated with a sentence
// that quotes nothing of the token; Unavailable means that the keys could not be had. Nothing is fetched for a token of
// another issuer, type or algorithm.
func Verify(ctx context.Context, token string, keys Keys, want Expect) (Claims, error) {
	p, err := parse(token)
	if err != nil {
		return Claims{}, err
	}
	if err := want.checkHeader(p.header); err != nil {
		return Claims{}, err
	}
	if want.Issuer == "" || p.claims.Issuer == nil || *p.claims.Issuer != want.Issuer {
		return Claims{}, refuse("the token is from another issuer")
	}
	alg := jose.SignatureAlgorithm(p.header.Alg)
	key, err := keys.Key(ctx, p.header.KeyID, alg)
	if err != nil {
		if fault.KindOf(err) != fault.Internal {
			return Claims{}, err
		}
		return Claims{}, fault.New(fault.Unauthenticated, "the token is signed with an unknown key", errors.Join(ErrSignature, err))
	}
	if !Fits(key, alg) {
		return Claims{}, refuse("the token is signed with another algorithm than its key is for")
	}
	jws, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{alg})
	if err != nil {
		return Claims{}, refuse("the token is malformed")
	}
	payload, err := jws.Verify(key.Key)
	if err != nil {
		return Claims{}, ErrSignature
	}
	c := Claims{Type: mediaType(p.header.Type), Alg: alg, payload: payload}
	if err := want.checkClaims(p, &c); err != nil {
		return Claims{}, err
	}
	return c, nil
}

// UnverifiedIssuer returns the iss of a well-formed token, to choose whose keys and Expect it is verified with. Nothing
// else may depend on it.
func UnverifiedIssuer(token string) (string, error) {
	p, err := parse(token)
	if err != nil {
		return "", err
	}
	if p.claims.Issuer == nil || *p.claims.Issuer == "" {
		return "", refuse("the token has no issuer")
	}
	return *p.claims.Issuer, nil
}

// TokenHash is the at_hash or c_hash of OpenID Connect Core s3.1.3.6 and s3.3.2.11, for an ID token signed with alg.
func TokenHash(alg jose.SignatureAlgorithm, token secret.Text) (string, error) {
	var h hash.Hash
	switch alg {
	case jose.RS256, jose.PS256, jose.ES256:
		h = sha256.New()
	case jose.RS384, jose.PS384, jose.ES384:
		h = sha512.New384()
	case jose.RS512, jose.PS512, jose.ES512, jose.EdDSA: // Ed25519 hashes with SHA-512
		h = sha512.New()
	default:
		return "", fault.New(fault.Unauthenticated, "the token is signed with an algorithm that is not accepted", nil)
	}
	h.Write([]byte(token.Expose()))
	sum := h.Sum(nil)
	return base64.RawURLEncoding.EncodeToString(sum[:len(sum)/2]), nil
}

// Refusals that some protocols have a word of their own for (RFC 8935 s2.4).
var (
	ErrSignature = refuse("the token's signature does not verify")
	ErrAudience  = refuse("the token is for another audience")
)

func refuse(sentence string) error { return fault.New(fault.Unauthenticated, sentence, nil) }

type header struct {
	Alg   string `json:"alg"`
	Type  string `json:"typ"`
	KeyID string `json:"kid"`

	// Present in any form, these refuse the token: extensions that we do not implement, and keys of the sender's choice.
	Crit     jsontext.Value `json:"crit"`
	Unencode jsontext.Value `json:"b64"`
	Zip      jsontext.Value `json:"zip"`
	JWK      jsontext.Value `json:"jwk"`
	JKU      jsontext.Value `json:"jku"`
	X5U      jsontext.Value `json:"x5u"`
	X5C      jsontext.Value `json:"x5c"`
}

type payloadClaims struct {
	Issuer    *string        `json:"iss"`
	Subject   string         `json:"sub"`
	ID        string         `json:"jti"`
	Audience  jsontext.Value `json:"aud"`
	Expires   jsontext.Value `json:"exp"`
	NotBefore jsontext.Value `json:"nbf"`
	IssuedAt  jsontext.Value `json:"iat"`
}

type parsed struct {
	header header
	claims payloadClaims
}

// parse reads a compact JWS without verifying it. The work is bounded before anything is split or decoded.
func parse(token string) (parsed, error) {
	var p parsed
	if len(token) > maxLength {
		return p, refuse("the token is too long")
	}
	// Three parts: a JWE has five, and JSON serialization has no business in a header.
	if strings.Count(token, ".") != 2 || strings.ContainsFunc(token, func(r rune) bool { return r != '.' && !strings.ContainsRune(base64url, r) }) {
		return p, refuse("the token is malformed")
	}
	parts := strings.Split(token, ".")
	var raw [3][]byte
	for i, part := range parts {
		var err error
		// Strict: one signature must not have several spellings.
		if raw[i], err = base64.RawURLEncoding.Strict().DecodeString(part); err != nil || len(raw[i]) == 0 {
			return p, refuse("the token is malformed")
		}
	}
	if json.Unmarshal(raw[0], &p.header) != nil || json.Unmarshal(raw[1], &p.claims) != nil {
		return p, refuse("the token is malformed")
	}
	return p, nil
}

func (want Expect) checkHeader(h header) error {
	for _, v := range []jsontext.Value{h.Crit, h.Unencode, h.Zip, h.JWK, h.JKU, h.X5U, h.X5C} {
		if v != nil {
			return refuse("the token's header has a parameter that is not accepted")
		}
	}
	alg := jose.SignatureAlgorithm(h.Alg)
	if !slices.Contains(SignatureAlgs(), alg) || want.Algs != nil && !slices.Contains(want.Algs, alg) {
		return refuse("the token is signed with an algorithm that is not accepted")
	}
	typ := mediaType(h.Type)
	if !slices.ContainsFunc(want.Types, func(t string) bool { return mediaType(t) == typ }) {
		return refuse("the token is of another kind than is accepted here")
	}
	return nil
}

// mediaType folds a typ (RFC 7515 s4.1.9).
func mediaType(typ string) string { return strings.TrimPrefix(strings.ToLower(typ), "application/") }

func (want Expect) checkClaims(p parsed, c *Claims) error {
	c.Issuer, c.Subject, c.ID = want.Issuer, p.claims.Subject, p.claims.ID
	var members map[string]jsontext.Value
	if err := c.Decode(&members); err != nil {
		return err
	}
	for _, name := range want.Absent {
		if _, present := members[name]; present {
			return refuse("the token is of another kind than is accepted here")
		}
	}
	if err := want.checkTimes(p.claims, c); err != nil {
		return err
	}
	var ok bool
	if c.Audience, ok = readAudience(p.claims.Audience); !ok {
		return refuse("the token names no audience")
	}
	if !slices.ContainsFunc(c.Audience, func(a string) bool { return a != "" && slices.Contains(want.Audiences, a) }) {
		return ErrAudience
	}
	if len(c.Audience) > 1 && !want.ManyAudiences {
		return refuse("the token is for several audiences")
	}
	return nil
}

func (want Expect) checkTimes(claims payloadClaims, c *Claims) error {
	leeway, life := min(max(want.Leeway, 0), MaxLeeway), want.MaxLife
	if life <= 0 {
		life = defaultMaxLife
	}
	var readable [3]bool
	c.Expires, readable[0] = numericDate(claims.Expires)
	c.NotBefore, readable[1] = numericDate(claims.NotBefore)
	c.IssuedAt, readable[2] = numericDate(claims.IssuedAt)
	if want.MaxAge > 0 {
		switch {
		case readable != [3]bool{true, true, true} || claims.Expires != nil || c.IssuedAt.IsZero():
			return refuse("the token's times are missing or malformed")
		case c.IssuedAt.Before(want.Now.Add(-want.MaxAge)):
			return refuse("the token is too old")
		}
		c.Expires = c.IssuedAt.Add(want.MaxAge)
	}
	switch {
	case readable != [3]bool{true, true, true} || c.Expires.IsZero():
		return refuse("the token's times are missing or malformed")
	case !want.Now.Before(c.Expires.Add(leeway)):
		return refuse("the token has expired")
	case want.MaxAge == 0 && c.Expires.After(want.Now.Add(life+leeway)):
		return refuse("the token lives longer than is accepted")
	case c.NotBefore.After(want.Now.Add(leeway)), c.IssuedAt.After(want.Now.Add(leeway)):
		return refuse("the token is not valid yet")
	}
	return nil
}

// numericDate reads a JSON number of seconds (RFC 7519 s2); a fraction is cut off. Absent is zero and fine; a string, a
// negative or a number beyond year 9999 is not.
func numericDate(v jsontext.Value) (time.Time, bool) {
	if v == nil {
		return time.Time{}, true
	}
	if v.Kind() != '0' {
		return time.Time{}, false
	}
	f, err := strconv.ParseFloat(string(v), 64)
	return time.Unix(int64(f), 0), err == nil && f >= 0 && f <= maxUnix
}

func readAudience(v jsontext.Value) ([]string, bool) {
	var one string
	var many []string
	switch v.Kind() {
	case '"':
		err := json.Unmarshal(v, &one)
		return []string{one}, err == nil
	case '[':
		err := json.Unmarshal(v, &many)
		return many, err == nil && len(many) > 0
	}
	return nil, false
}

// Fits reports whether a public key may verify alg: type, curve, strength, and its own word.
func Fits(key jose.JSONWebKey, alg jose.SignatureAlgorithm) bool {
	if key.Algorithm != "" && key.Algorithm != string(alg) && !(key.Algorithm == "Ed25519" && alg == jose.EdDSA) {
		return false
	}
	switch alg {
	case jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512:
		public, ok := key.Key.(*rsa.PublicKey)
		return ok && public.N.BitLen() >= 2048
	case jose.ES256:
		return isOnCurve(key, elliptic.P256())
	case jose.ES384:
		return isOnCurve(key, elliptic.P384())
	case jose.ES512:
		return isOnCurve(key, elliptic.P521())
	case jose.EdDSA:
		_, ok := key.Key.(ed25519.PublicKey)
		return ok
	}
	return false
}

func isOnCurve(key jose.JSONWebKey, curve elliptic.Curve) bool {
	public, ok := key.Key.(*ecdsa.PublicKey)
	return ok && public.Curve == curve
}
