package redact

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"slices"
	"unicode/utf8"
)

// pattern is one form of a mark before escaping: at each place stands one of two bytes.
type pattern struct{ a, b []byte }

// patterns returns all forms of a mark. Escapes are none of them: they are undone while matching.
func patterns(mark []byte) []pattern {
	backward := slices.Clone(mark)
	slices.Reverse(backward)
	lower := hex.AppendEncode(nil, mark)
	list := []pattern{
		{mark, bytes.ReplaceAll(mark, []byte(" "), []byte("+"))}, // application/x-www-form-urlencoded
		{backward, backward},
		{lower, bytes.ToUpper(lower)},
	}
	for before := range 3 {
		list = append(list, pattern{inner(base64.RawStdEncoding, mark, before), inner(base64.RawURLEncoding, mark, before)})
	}
	return list
}

// inner returns those characters of base64 that the mark alone decides, where `before` bytes precede it in its group of
// three. At either end a character that shares its bits with a neighbour is left out.
func inner(e *base64.Encoding, mark []byte, before int) []byte {
	text := e.AppendEncode(nil, append(make([]byte, before), mark...))
	skip := [...]int{0, 2, 3}[before]
	return text[skip : (before+len(mark))*8/6]
}

func (p pattern) takes(i int, text []byte) bool {
	if len(text) == 1 {
		return text[0] == p.a[i] || text[0] == p.b[i]
	}
	return len(p.a)-i >= len(text) && string(p.a[i:i+len(text)]) == string(text)
}

// isSpecial reports whether a byte can begin an escape or a line break.
func isSpecial(c byte) bool {
	return c == '\\' || c == '%' || c == '&' || c == '\n' || c == '\r'
}

// text is what an escape stands for: one byte, or one character in UTF-8.
type text struct {
	bytes [utf8.UTFMax]byte
	n     int
}

func (t *text) slice() []byte { return t.bytes[:t.n] }

// needMore is the size of an escape, or of a line break, that ends beyond the bytes at hand.
const needMore = -1

// unescape reads the escape at the start of b and returns its size: 0 where there is none.
func unescape(b []byte) (t text, size int) {
	switch b[0] {
	case '\\':
		return unescapeJSON(b)
	case '&':
		return unescapeHTML(b)
	case '%':
		v, ok, short := hexDigits(b, 1, 2)
		if short || !ok {
			return t, sizeOf(0, short)
		}
		t.bytes[0], t.n = byte(v), 1
		return t, 3
	}
	return t, 0
}

func sizeOf(n int, short bool) int {
	if short {
		return needMore
	}
	return n
}

// short escapes of JSON (RFC 8259 s7), and what they mean.
const jsonShort, jsonMeans = `"\/bfnrt`, "\"\\/\b\f\n\r\t"

func unescapeJSON(b []byte) (t text, size int) {
	if len(b) < 2 {
		return t, needMore
	}
	if b[1] != 'u' {
		for i := range len(jsonShort) {
			if b[1] == jsonShort[i] {
				t.bytes[0], t.n = jsonMeans[i], 1
				return t, 2
			}
		}
		return t, 0
	}
	v, ok, short := hexDigits(b, 2, 4)
	if short || !ok {
		return t, sizeOf(0, short)
	}
	if v < 0xd800 || v > 0xdfff {
		return character(v, 6)
	}
	if v > 0xdbff {
		return t, 0
	}
	for i, c := range []byte(`\u`) { // the other half of a pair
		if len(b) <= 6+i {
			return t, needMore
		}
		if b[6+i] != c {
			return t, 0
		}
	}
	low, ok, short := hexDigits(b, 8, 4)
	if short || !ok || low < 0xdc00 || low > 0xdfff {
		return t, sizeOf(0, short)
	}
	return character(0x10000+(v-0xd800)<<10+(low-0xdc00), 12)
}

// maxDigits bounds a numeric reference of HTML, which may have leading zeros, and maxName a named one.
const maxDigits, maxName = 8, 8

func unescapeHTML(b []byte) (t text, size int) {
	if len(b) >= 2 && b[1] == '#' {
		return unescapeNumber(b)
	}
	for i := 1; i < len(b) && i <= maxName+1; i++ {
		c := b[i]
		if c == ';' {
			meaning, ok := named[string(b[1:i])]
			if !ok {
				return t, 0
			}
			t.bytes[0], t.n = meaning, 1
			return t, i + 1
		}
		if c|0x20 < 'a' || c|0x20 > 'z' {
			return t, 0
		}
	}
	return t, sizeOf(0, len(b) <= maxName+1)
}

func unescapeNumber(b []byte) (t text, size int) {
	at, base := 2, uint32(10)
	if len(b) > 2 && b[2]|0x20 == 'x' {
		at, base = 3, 16
	}
	v := uint32(0) // eight digits fit
	for i := at; i < len(b) && i <= at+maxDigits; i++ {
		if b[i] == ';' && i > at {
			return character(v, i+1)
		}
		d := uint32(digits[b[i]])
		if d >= base {
			return t, 0
		}
		v = v*base + d
	}
	return t, sizeOf(0, len(b) <= at+maxDigits)
}

func character(v uint32, size int) (t text, _ int) {
	if v > utf8.MaxRune || !utf8.ValidRune(rune(v)) {
		return t, 0
	}
	t.n = utf8.EncodeRune(t.bytes[:], rune(v))
	return t, size
}

// hexDigits reads n digits from b[at:]. short: b ends before they do, all of them being digits so far.
func hexDigits(b []byte, at, n int) (v uint32, ok, short bool) {
	short = len(b) < at+n
	for _, c := range b[at:min(at+n, len(b))] {
		d := digits[c]
		if d >= 16 {
			return 0, false, false
		}
		v = v<<4 | uint32(d)
	}
	return v, !short, short
}

// digits are the values of hexadecimal digits; 16 for what is none.
var digits = func() (t [256]uint8) {
	for c := range t {
		t[c] = 16
	}
	for i, c := range []byte("0123456789abcdef") {
		t[c], t[bytes.ToUpper([]byte{c})[0]] = uint8(i), uint8(i)
	}
	return t
}()

// named are the references of HTML that stand for a character of ASCII.
var named = map[string]byte{
	"Tab": '\t', "NewLine": '\n', "excl": '!', "quot": '"', "QUOT": '"', "num": '#', "dollar": '$', "percnt": '%', "amp": '&', "AMP": '&', "apos": '\'',
	"lpar": '(', "rpar": ')', "ast": '*', "midast": '*', "plus": '+', "comma": ',', "period": '.', "sol": '/', "colon": ':', "semi": ';', "lt": '<', "LT": '<',
	"equals": '=', "gt": '>', "GT": '>', "quest": '?', "commat": '@', "lsqb": '[', "lbrack": '[', "bsol": '\\', "rsqb": ']', "rbrack": ']', "Hat": '^',
	"lowbar": '_', "UnderBar": '_', "grave": '`', "lcub": '{', "lbrace": '{', "verbar": '|', "vert": '|', "rcub": '}', "rbrace": '}',
}
