package catalog

import (
	"errors"
	"math"
	"strconv"
	"strings"
)

// Shape is what an opaque keycard looks like, for servers that check what their token looks like: fixed text with runs of
// random characters, as `ghp_{36}` or `xoxb-{d12}-{d12}-{24}`. {n} is n letters and digits, {dn} digits, {xn} lower-case
// hexadecimal digits. The zero Shape is none.
type Shape struct{ parts []shapePart }

type shapePart struct {
	text     string // fixed, where alphabet is ""
	alphabet string
	n        int
}

const (
	minShapeBits = 128 // as hard to guess as a signed keycard
	maxShape     = 255
	digits       = "0123456789"
	alnum        = digits + "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
)

// ParseShape reads a shape. Only letters, digits, '-', '_' and '.' may be fixed: a keycard has to pass through environments,
// headers and URLs as it is.
func ParseShape(s string) (Shape, error) {
	var shape Shape
	bits, length := 0.0, 0
	for s != "" {
		text, rest, random := strings.Cut(s, "{")
		if strings.Trim(text, alnum+"-_.") != "" {
			return Shape{}, errors.New("a shape's fixed text is letters, digits, '-', '_' and '.'")
		}
		if text != "" {
			shape.parts, length = append(shape.parts, shapePart{text: text}), length+len(text)
		}
		if s = rest; !random {
			break
		}
		part, rest, err := parseRun(rest)
		if err != nil {
			return Shape{}, err
		}
		shape.parts, s, length = append(shape.parts, part), rest, length+part.n
		bits += float64(part.n) * math.Log2(float64(len(part.alphabet)))
	}
	if bits < minShapeBits || length > maxShape {
		return Shape{}, errors.New("a shape needs at least 128 bits that are random (22 letters and digits, 39 digits), and at most 255 characters")
	}
	return shape, nil
}

func parseRun(s string) (p shapePart, rest string, err error) {
	run, rest, closed := strings.Cut(s, "}")
	p.alphabet = alnum
	if n, ok := strings.CutPrefix(run, "d"); ok {
		p.alphabet, run = digits, n
	} else if n, ok := strings.CutPrefix(run, "x"); ok {
		p.alphabet, run = digits+"abcdef", n
	}
	if p.n, err = strconv.Atoi(run); err != nil || !closed || p.n < 1 || p.n > maxShape {
		return p, "", errors.New("a shape is fixed text with runs as {36}, {d12} or {x64}")
	}
	return p, rest, nil
}

// IsZero reports whether there is no shape.
func (s Shape) IsZero() bool { return len(s.parts) == 0 }

// Fill makes a token of random bytes, which it asks for as it needs them.
func (s Shape) Fill(next func() byte) string {
	var b strings.Builder
	for _, p := range s.parts {
		b.WriteString(p.text)
		for limit, i := 256-256%max(len(p.alphabet), 1), 0; i < p.n; {
			if c := int(next()); c < limit { // the rest would make some characters likelier than others
				b.WriteByte(p.alphabet[c%len(p.alphabet)])
				i++
			}
		}
	}
	return b.String()
}
