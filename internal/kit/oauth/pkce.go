package oauth

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"io"

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
func CodeChallenge(verifier secret.Text) string {
	sum := sha256.Sum256([]byte(verifier.Expose()))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// VerifierMatches reports whether verifier is well formed and hashes to challenge (RFC 7636 s4.1 and s4.6).
func VerifierMatches(verifier secret.Text, challenge string) bool {
	v := verifier.Expose()
	if len(v) < 43 || len(v) > 128 {
		return false
	}
	for i := range len(v) {
		if c := v[i]; !isAlnum(rune(c)) && c != '-' && c != '.' && c != '_' && c != '~' {
			return false
		}
	}
	return Same(CodeChallenge(verifier), challenge)
}

// Same compares in constant time. An empty value is the same as nothing, not even another empty one: a forgotten
// expectation must not match a missing parameter.
func Same(a, b string) bool {
	return a != "" && subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1
}
