package oauth_test

import (
	"crypto/rand"
	"errors"
	"strings"
	"testing"
	"testing/iotest"

	"frontdesk.dev/frontdesk/internal/kit/oauth"
	"frontdesk.dev/frontdesk/internal/kit/secret"
)

func TestCodeChallenge(t *testing.T) {
	// RFC 7636 appendix B.
	verifier := secret.New("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk")
	const want = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
	if got := oauth.CodeChallenge(verifier); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if !oauth.VerifierMatches(verifier.Expose(), want) {
		t.Error("the verifier of appendix B does not match its challenge")
	}
}

func TestVerifierMatchesRefuses(t *testing.T) {
	of := func(v string) string { return oauth.CodeChallenge(secret.New(v)) }
	for name, c := range map[string]struct{ verifier, challenge string }{
		"other":     {strings.Repeat("a", 43), of(strings.Repeat("b", 43))},
		"plain":     {strings.Repeat("a", 43), strings.Repeat("a", 43)},
		"empty":     {"", of("")},
		"both none": {"", ""},
		"short":     {strings.Repeat("a", 42), of(strings.Repeat("a", 42))},
		"long":      {strings.Repeat("a", 129), of(strings.Repeat("a", 129))},
		"charset":   {strings.Repeat("a", 42) + "!", of(strings.Repeat("a", 42) + "!")},
	} {
		if oauth.VerifierMatches(c.verifier, c.challenge) {
			t.Errorf("%s: matches", name)
		}
	}
}

func TestVerifierIsFresh(t *testing.T) {
	a, err := oauth.Verifier(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	b, _ := oauth.Verifier(rand.Reader)
	if a.Equal(b) || len(a.Expose()) != 43 || !oauth.VerifierMatches(a.Expose(), oauth.CodeChallenge(a)) {
		t.Error("two verifiers are equal, or not as RFC 7636 s4.1 wants them")
	}
	if _, err := oauth.Random(iotest.ErrReader(errors.New("dry"))); err == nil {
		t.Error("no randomness, and yet a value")
	}
}

func TestSame(t *testing.T) {
	if !oauth.Same("a", "a") || oauth.Same("a", "b") || oauth.Same("a", "aa") || oauth.Same("", "") {
		t.Error("Same is wrong")
	}
}
