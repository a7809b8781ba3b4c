package oauth

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"io"
	"strings"

	"frontdesk.dev/frontdesk/internal/kit/secret"
)

// ChallengeMethod is the only PKCE method that is ever used: plain protects nothing (RFC 9700 s2.1.1).
const ChallengeMethod = "S256"

// Random returns 256 bits from rand (crypto/rand.Reader in production) as 43 URL-safe characters: fit for state,
// nonce, and a PKCE verifier (RFC 7636 s4.1).
func Random(rand io.Reader) (string, error) {
	var b [32]byte
	if _, err := io.ReadFull(rand, b[:]); err != nil {
		return "", fmt.Errorf("reading randomness: %w", err)
	}
	return base64.RawURLEncoding.EncodeToString(b[:]), nil
}

// Verifier returns a new PKCE code verifier.
func Verifier(rand io.Reader) (secret.Text, error) {
	v, err := Random(rand)
	return secret.New(v), err
}

// CodeChallenge returns the S256 challenge of a verifier (RFC 7636 s4.2).
func CodeChallenge(verifier secret.Text) string { return s256(verifier.Expose()) }

func s256(verifier string) string {
	sum := sha256.Sum256([]byte(verifier))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// VerifierMatches reports whether verifier, as a client sent it to us, is well formed and hashes to challenge (RFC 7636
// s4.1 and s4.6).
func VerifierMatches(verifier, challenge string) bool {
	if len(verifier) < 43 || len(verifier) > 128 ||
		strings.ContainsFunc(verifier, func(r rune) bool { return !isAlnum(r) && !strings.ContainsRune("-._~", r) }) {
		return false
	}
	return Same(s256(verifier), challenge)
}

// Same compares in constant time. An empty value is the same as nothing, not even another empty one: a forgotten
// expectation must not match a missing parameter.
func Same(a, b string) bool {
	return a != "" && subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1
}
