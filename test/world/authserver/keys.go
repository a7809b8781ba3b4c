package authserver

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"maps"
	"sync"
	"time"

	jose "github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/zitadel/oidc/v3/pkg/op"
)

// keyring holds the signing key and those that are still published.
type keyring struct {
	mu   sync.Mutex
	keys []signingKey // the last one signs
}

// signingKey is both sides of one key, in the shapes that zitadel/oidc asks for.
type signingKey struct {
	id  string
	key *rsa.PrivateKey
}

func (k signingKey) ID() string                                  { return k.id }
func (k signingKey) SignatureAlgorithm() jose.SignatureAlgorithm { return jose.RS256 }
func (k signingKey) Key() any                                    { return k.key }

type publicKey struct{ signingKey }

func (k publicKey) Algorithm() jose.SignatureAlgorithm { return jose.RS256 }
func (k publicKey) Use() string                        { return "sig" }
func (k publicKey) Key() any                           { return &k.key.PublicKey }

func newKeyring() (*keyring, error) {
	k := &keyring{}
	return k, k.rotate()
}

func (k *keyring) rotate() error {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return fmt.Errorf("make a signing key: %w", err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.keys = append(k.keys, signingKey{id: random(), key: key})
	return nil
}

func (k *keyring) current() signingKey {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.keys[len(k.keys)-1]
}

func (k *keyring) forgetOld() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.keys = k.keys[len(k.keys)-1:]
}

func (k *keyring) published() []op.Key {
	k.mu.Lock()
	defer k.mu.Unlock()
	keys := make([]op.Key, len(k.keys))
	for i := range k.keys {
		keys[i] = publicKey{k.keys[i]}
	}
	return keys
}

// RotateKey signs with a new key from now on; the old one stays published.
func (s *Server) RotateKey() error { return s.keys.rotate() }

// ForgetOldKeys publishes only the key that signs now.
func (s *Server) ForgetOldKeys() { s.keys.forgetOld() }

// Sign signs any claims under any `typ` with the server's key: the means to forge what the server itself would never say.
func (s *Server) Sign(typ string, claims map[string]any) (string, error) {
	k := s.keys.current()
	signer, err := jose.NewSigner(
		jose.SigningKey{Algorithm: jose.RS256, Key: jose.JSONWebKey{Key: k.key, KeyID: k.id}},
		(&jose.SignerOptions{}).WithType(jose.ContentType(typ)))
	if err != nil {
		return "", fmt.Errorf("make a signer: %w", err)
	}
	return jwt.Signed(signer).Claims(claims).Serialize()
}

// MintAccessToken gives a JWT access token (RFC 9068) as this user would have got it for this audience. `more` adds to
// the claims or replaces them; a nil value takes one away.
func (s *Server) MintAccessToken(user, audience string, more map[string]any) (string, error) {
	s.mu.Lock()
	a, err := s.account(user)
	s.mu.Unlock()
	if err != nil {
		return "", err
	}
	claims := s.accessClaims(a.ID, audience)
	claims["client_id"] = "workload"
	claims["groups"] = a.Groups
	claims["preferred_username"] = a.Name
	claims["email"] = a.Email
	claims["auth_time"] = s.cfg.Now().Unix()
	maps.Copy(claims, more)
	maps.DeleteFunc(claims, func(_ string, v any) bool { return v == nil })
	return s.signAccess(claims)
}

func (s *Server) accessClaims(subject, audience string) map[string]any {
	now := s.cfg.Now()
	return map[string]any{
		"iss": s.cfg.Issuer, "sub": subject, "aud": audience, "jti": random(),
		"iat": now.Unix(), "exp": now.Add(s.cfg.AccessLifetime).Unix(),
	}
}

func (s *Server) signAccess(claims map[string]any) (string, error) {
	token, err := s.Sign("at+jwt", claims)
	if err == nil {
		subject, _ := claims["sub"].(string)
		s.note(Issued{Kind: "access", User: subject, Value: token})
	}
	return token, err
}

func (st *storage) SigningKey(context.Context) (op.SigningKey, error) {
	return st.s.keys.current(), nil
}

func (st *storage) SignatureAlgorithms(context.Context) ([]jose.SignatureAlgorithm, error) {
	return []jose.SignatureAlgorithm{jose.RS256}, nil
}

func (st *storage) KeySet(context.Context) ([]op.Key, error) { return st.s.keys.published(), nil }

// shift is how far this server's clock is from the machine's. zitadel/oidc reckons expiries by the latter.
func (s *Server) shift() time.Duration { return time.Until(s.cfg.Now()).Round(time.Second) }
