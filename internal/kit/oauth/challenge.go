package oauth

import (
	"slices"
	"strings"

	"frontdesk.dev/frontdesk/internal/kit/fault"
)

// Challenge is one challenge of a WWW-Authenticate field (RFC 9110 s11.6.1).
type Challenge struct {
	Scheme  string // as it came; compare with strings.EqualFold
	Token68 string // in place of Params in some schemes, never for Bearer
	Params  []Param
}

// Param is a parameter of a challenge. Names are compared without case.
type Param struct{ Name, Value string }

// Get returns the value of a parameter, "" if it is absent.
func (c Challenge) Get(name string) string {
	for _, p := range c.Params {
		if strings.EqualFold(p.Name, name) {
			return p.Value
		}
	}
	return ""
}

// BearerChallenge returns a Bearer challenge (RFC 6750 s3, RFC 9728 s5.1); parameters without a value are left out.
func BearerChallenge(params ...Param) Challenge {
	params = slices.DeleteFunc(slices.Clone(params), func(p Param) bool { return p.Value == "" })
	return Challenge{Scheme: "Bearer", Params: params}
}

// String gives the field value. All values are quoted strings, since clients in the wild misread bare tokens;
// characters that a header must not carry become '?'.
func (c Challenge) String() string {
	var b strings.Builder
	b.WriteString(c.Scheme)
	if c.Token68 != "" {
		b.WriteString(" " + c.Token68)
	}
	for i, p := range c.Params {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(" " + p.Name + `="`)
		for _, r := range p.Value {
			switch {
			case r == '"' || r == '\\':
				b.WriteByte('\\')
				b.WriteRune(r)
			case r < ' ' || r > '~':
				b.WriteByte('?')
			default:
				b.WriteRune(r)
			}
		}
		b.WriteByte('"')
	}
	return b.String()
}

const (
	maxChallengeBytes = 8 << 10
	maxChallenges     = 16
	maxParams         = 32
)

// ParseChallenges reads all values of WWW-Authenticate. Anything but the grammar of RFC 9110 s11.2 is an Invalid
// error, and so is a parameter that appears twice in a challenge: two readers could read two things.
func ParseChallenges(values []string) ([]Challenge, error) {
	p := challengeParser{rest: strings.Join(values, ",")}
	if len(p.rest) > maxChallengeBytes {
		return nil, fault.New(fault.Invalid, "WWW-Authenticate is too long", nil)
	}
	for {
		p.skip(" \t,")
		if p.rest == "" {
			return p.out, nil
		}
		if !p.element() {
			return nil, fault.New(fault.Invalid, "WWW-Authenticate is malformed", nil)
		}
	}
}

type challengeParser struct {
	rest string
	out  []Challenge
}

// element reads one element of the comma-separated list: a challenge with its first parameter, or another parameter
// of the challenge before it.
func (p *challengeParser) element() bool {
	name := p.token()
	if name == "" {
		return false
	}
	if p.peekEquals() {
		return len(p.out) > 0 && p.out[len(p.out)-1].Token68 == "" && p.param(name)
	}
	if len(p.out) == maxChallenges {
		return false
	}
	p.out = append(p.out, Challenge{Scheme: name})
	if p.rest == "" || p.rest[0] == ',' {
		return true
	}
	if p.rest[0] != ' ' {
		return false
	}
	p.skip(" ")
	if t, ok := p.token68(); ok {
		p.out[len(p.out)-1].Token68 = t
		return true
	}
	if p.rest == "" || p.rest[0] == ',' {
		return true
	}
	name = p.token()
	return name != "" && p.peekEquals() && p.param(name)
}

// param reads the value after "name" and up to the end of the element.
func (p *challengeParser) param(name string) bool {
	c := &p.out[len(p.out)-1]
	p.skip(" \t")
	p.rest = p.rest[1:] // the '=' that peekEquals saw
	p.skip(" \t")
	value, ok := p.value()
	if !ok || len(c.Params) == maxParams || slices.ContainsFunc(c.Params, func(q Param) bool { return strings.EqualFold(q.Name, name) }) {
		return false
	}
	c.Params = append(c.Params, Param{strings.ToLower(name), value})
	p.skip(" \t")
	return p.rest == "" || p.rest[0] == ','
}

func (p *challengeParser) value() (string, bool) {
	if !strings.HasPrefix(p.rest, `"`) {
		t := p.token()
		return t, t != ""
	}
	var b strings.Builder
	for i := 1; i < len(p.rest); i++ {
		switch c := p.rest[i]; {
		case c == '"':
			p.rest = p.rest[i+1:]
			return b.String(), true
		case c == '\\' && i+1 < len(p.rest) && isQuotable(p.rest[i+1]):
			i++
			b.WriteByte(p.rest[i])
		case c == '\\' || !isQuotable(c):
			return "", false
		default:
			b.WriteByte(c)
		}
	}
	return "", false
}

func isQuotable(c byte) bool { return c == '\t' || c >= ' ' && c != 0x7f }

func (p *challengeParser) skip(chars string) { p.rest = strings.TrimLeft(p.rest, chars) }

func (p *challengeParser) token() string {
	n := 0
	for n < len(p.rest) && (isAlnum(rune(p.rest[n])) || strings.IndexByte("!#$%&'*+-.^_`|~", p.rest[n]) >= 0) {
		n++
	}
	t := p.rest[:n]
	p.rest = p.rest[n:]
	return t
}

// peekEquals reports whether a parameter's '=' follows. "Basic =" has none: there, a scheme stands before a space.
func (p *challengeParser) peekEquals() bool {
	return strings.HasPrefix(strings.TrimLeft(p.rest, " \t"), "=")
}

// token68 reads one if it fills the element; "a=b" is a parameter, "a=" and "a==" are token68.
func (p *challengeParser) token68() (string, bool) {
	end := strings.IndexByte(p.rest, ',')
	if end < 0 {
		end = len(p.rest)
	}
	t := strings.TrimRight(p.rest[:end], " \t")
	body := strings.TrimRight(t, "=")
	if body == "" || strings.ContainsFunc(body, func(r rune) bool { return !isAlnum(r) && !strings.ContainsRune("-._~+/", r) }) {
		return "", false
	}
	p.rest = p.rest[end:]
	return t, true
}
