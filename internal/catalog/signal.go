package catalog

import (
	"fmt"
	"net/http"
	"regexp"
	"strings"

	"frontdesk.dev/frontdesk/internal/kit/dpop"
	"frontdesk.dev/frontdesk/internal/kit/oauth"
)

// Meaning is what an answer of an API says of the credential that it was asked with.
type Meaning string

const (
	MeansScope Meaning = "scope" // the person has to allow more
	MeansRight Meaning = "right" // he may not, or another than he has to act: neither a question nor a renewal helps
	MeansDead  Meaning = "dead"  // the token is good no more
)

// Signal is how the vendor's API says such a thing. All that is given must fit. The text is that of Header, of Pointer, or else
// of the whole body.
type Signal struct {
	Means      Meaning  `yaml:"means" doc:"scope (the person has to allow more), right (nobody here can cure it) or dead (the token is good no more)"`
	Status     int      `yaml:"status" doc:"of the answer"`
	Header     string   `yaml:"header" doc:"name of a header that must be there"`
	Pointer    string   `yaml:"pointer" doc:"JSON pointer to a value that must be there"`
	Is         []string `yaml:"is" doc:"the text is one of these"`
	Like       string   `yaml:"like" doc:"regular expression that the text fits"`
	Scopes     string   `yaml:"scopes" doc:"JSON pointer to the scopes that are missing, a string or a list"`
	ScopesLike string   `yaml:"scopes_like" doc:"regular expression whose first group is them, in the text; default: the header, else scope of WWW-Authenticate"`
	AnyOf      bool     `yaml:"any_of" doc:"any of the scopes would do: asked for only where one alone is named"`
}

func (s Signal) check() error {
	switch s.Means {
	case MeansScope, MeansRight, MeansDead:
	default:
		return fmt.Errorf("signals: means is %q, want scope, right or dead", s.Means)
	}
	if s.Status < 200 || s.Status > 499 || s.Status == http.StatusTooManyRequests {
		return fmt.Errorf("signals: status %d cannot mean that", s.Status)
	}
	if s.Header == "" && s.Pointer == "" && s.Like == "" {
		return fmt.Errorf("signals: status %d alone says too little: add header, pointer or like", s.Status)
	}
	for _, p := range []string{s.Pointer, s.Scopes} {
		if p != "" && !strings.HasPrefix(p, "/") {
			return fmt.Errorf("signals: %q is no JSON pointer", p)
		}
	}
	if _, err := regexp.Compile(s.Like); err != nil {
		return fmt.Errorf("signals: like: %w", err)
	}
	if re, err := regexp.Compile(s.ScopesLike); err != nil || s.ScopesLike != "" && re.NumSubexp() != 1 {
		return fmt.Errorf("signals: scopes_like is no regular expression with one group")
	}
	return nil
}

// SignalBody is how far into an answer a Signal looks. What is longer is no answer of an error.
const SignalBody = 64 << 10

// maxNamed bounds how many scopes an answer can ask a person for.
const maxNamed = 20

// Says is what the answer says by the vendor's rules, else by RFC 6750 section 3.1, with the scopes that it names as missing: those
// that have does not hold. The zero Meaning is that it says nothing of the kind. body is called where a rule wants it, and
// gives nil where the answer is too long to be one.
func (p *Provider) Says(status int, header http.Header, body func() []byte, have []string) (Meaning, []string) {
	for _, s := range p.Signals {
		if s.Status != status {
			continue
		}
		if means, scopes, ok := s.read(header, body, have); ok {
			return means, scopes
		}
	}
	challenges, err := oauth.ParseChallenges(header.Values("WWW-Authenticate"))
	if err != nil {
		return "", nil
	}
	for _, c := range challenges {
		switch code := c.Get("error"); {
		case !strings.EqualFold(c.Scheme, "Bearer") && !(p.OAuth != nil && p.OAuth.DPoP == DPoPAlways && strings.EqualFold(c.Scheme, dpop.Scheme)):
		case status == http.StatusUnauthorized && code == oauth.CodeInvalidToken:
			return MeansDead, nil
		case status == http.StatusForbidden && code == oauth.CodeInsufficientScope:
			return lacking(splitScopes(c.Get("scope")), have, false)
		}
	}
	return "", nil
}

func (s Signal) read(header http.Header, body func() []byte, have []string) (Meaning, []string, bool) {
	text, ok := fit{s.Header, s.Pointer, s.Is, s.Like}.text(&Answer{Header: header, Body: body})
	if !ok {
		return "", nil, false
	}
	if s.Means != MeansScope {
		return s.Means, nil, true
	}
	means, scopes := lacking(s.named(text, header, body), have, s.AnyOf)
	return means, scopes, true
}

// named are the scopes that the answer speaks of.
func (s Signal) named(text string, header http.Header, body func() []byte) []string {
	switch {
	case s.Scopes != "":
		l, _ := oauth.Texts(body(), s.Scopes)
		return splitScopes(strings.Join(l, " "))
	case s.ScopesLike != "":
		if m := regexp.MustCompile(s.ScopesLike).FindStringSubmatch(text); m != nil { // compiled once before, by check
			return splitScopes(m[1])
		}
		return nil
	case s.Header != "":
		return splitScopes(text)
	}
	challenges, err := oauth.ParseChallenges(header.Values("WWW-Authenticate"))
	if err != nil || len(challenges) == 0 {
		return nil
	}
	return splitScopes(challenges[0].Get("scope"))
}

// lacking is what a person has to be asked for: nothing where nothing is named, or nothing new, since asking again for what is
// there cures nothing.
func lacking(named, have []string, anyOf bool) (Meaning, []string) {
	missing := oauth.MissingScopes(have, named)
	if len(missing) == 0 || len(missing) > maxNamed || anyOf && (len(named) != 1 || len(missing) < len(named)) {
		return MeansRight, nil
	}
	return MeansScope, missing
}

// splitScopes reads what vendors write between scopes: spaces, commas, quotes. What is no scope makes the whole unreadable.
func splitScopes(text string) []string {
	text = strings.NewReplacer(",", " ", `"`, "", "'", "", "`", "").Replace(text)
	l, ok := oauth.ParseScopes(text, " ")
	if !ok {
		return nil
	}
	return l
}

func matches(pattern, text string) bool {
	ok, err := regexp.MatchString(pattern, text)
	return ok && err == nil
}
