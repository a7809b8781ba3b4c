package redact_test

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"html"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"
)

// reference is the slow and obvious way: every form of a mark as a regular expression, tried from every byte of the
// whole text. It works on texts of Latin-1, in which a byte is a character.
type reference struct{ forms []*regexp.Regexp }

func newReference(marks [][]byte) *reference {
	r := &reference{}
	for _, m := range marks {
		if len(m) < 8 {
			continue
		}
		backward := slices.Clone(m)
		slices.Reverse(backward)
		forms := [][2]string{
			{string(m), strings.ReplaceAll(string(m), " ", "+")},
			{string(backward), string(backward)},
			{hex.EncodeToString(m), strings.ToUpper(hex.EncodeToString(m))},
		}
		for before := range 3 {
			// What of the text stays the same, whatever stands around the mark?
			low, high := append(make([]byte, before), m...), append([]byte("\xff\xff")[:before:before], m...)
			for range 3 {
				low, high = append(low, 0), append(high, 0xff)
			}
			a, b := base64.StdEncoding.EncodeToString(low), base64.StdEncoding.EncodeToString(high)
			first, last := -1, -1
			for i := range a {
				if a[i] == b[i] && i*6 < (before+len(m))*8 {
					if first < 0 {
						first = i
					}
					last = i
				}
			}
			same := a[first : last+1]
			forms = append(forms, [2]string{same, strings.NewReplacer("+", "-", "/", "_").Replace(same)})
		}
		for _, f := range forms {
			re := regexp.MustCompile("(?s)^(?:" + expression(f[0], f[1]) + ")")
			re.Longest()
			r.forms = append(r.forms, re)
		}
	}
	return r
}

// clean returns the text without marks, and how many there were.
func (r *reference) clean(body []byte) ([]byte, int) {
	out := slices.Clone(body)
	runes := make([]rune, len(body))
	for i, c := range body {
		runes[i] = rune(c)
	}
	hits := 0
	for at := range runes {
		rest := string(runes[at:])
		end := 0
		for _, re := range r.forms {
			if loc := re.FindStringIndex(rest); loc != nil {
				end = max(end, utf8.RuneCountInString(rest[:loc[1]]))
			}
		}
		if end == 0 {
			continue
		}
		hits++
		for i, c := range []byte(kept.ReplaceAllStringFunc(string(body[at:at+end]), func(s string) string { return strings.Repeat("\n", len(s)) })) {
			if c != '\n' {
				out[at+i] = '*'
			}
		}
	}
	return out, hits
}

// kept is what stays of a line break within a mark.
var kept = regexp.MustCompile(`\r|\n(data: ?)?`)

// expression is a pattern for one form, of which each byte may be a[i] or b[i], each may be escaped, and between any two
// there may be a line break.
func expression(a, b string) string {
	var parts []string
	for i := 0; i < len(a); {
		if c, n := utf8.DecodeRuneInString(a[i:]); n > 1 {
			var single []string
			for j := range n {
				single = append(single, oneOf(a[i+j], b[i+j]))
			}
			parts = append(parts, "(?:"+strings.Join(single, newline)+"|"+character(c)+")")
			i += n
			continue
		}
		parts = append(parts, oneOf(a[i], b[i]))
		i++
	}
	return strings.Join(parts, newline)
}

var newline = fmt.Sprintf(`(?:(?:(?:%s)?(?:%s)|(?:%[1]s)?\n(?:data: ?)?))?`, oneOf('\r', '\r'), oneOf('\n', '\n'))

func oneOf(bytes ...byte) string {
	var alternatives []string
	for _, c := range bytes {
		alternatives = append(alternatives, regexp.QuoteMeta(string(rune(c))), "(?i:%"+hex.EncodeToString([]byte{c})+")")
		if c < utf8.RuneSelf {
			alternatives = append(alternatives, character(rune(c)))
		}
	}
	return "(?:" + strings.Join(alternatives, "|") + ")"
}

func character(c rune) string {
	alternatives := []string{fmt.Sprintf(`\\u(?i:%04x)`, c)}
	if c > 0xffff {
		c := c - 0x10000
		alternatives[0] = fmt.Sprintf(`\\u(?i:%04x)\\u(?i:%04x)`, 0xd800+c>>10, 0xdc00+c&0x3ff)
	}
	for short, meaning := range map[string]rune{`"`: '"', `\`: '\\', `/`: '/', `b`: '\b', `f`: '\f', `n`: '\n', `r`: '\r', `t`: '\t'} {
		if c == meaning {
			alternatives = append(alternatives, regexp.QuoteMeta(`\`+short))
		}
	}
	for _, format := range []string{"&#%s%d;", "&#(?i:x%s%x);"} {
		digits := len(fmt.Sprintf(format[strings.LastIndexByte(format, '%'):len(format)-1], c))
		if strings.Contains(format, "x%s") {
			digits = len(fmt.Sprintf("%x", c))
		}
		alternatives = append(alternatives, fmt.Sprintf(format, fmt.Sprintf("0{0,%d}", 8-digits), c))
	}
	for _, name := range names {
		if html.UnescapeString("&"+name+";") == string(c) {
			alternatives = append(alternatives, "&"+name+";")
		}
	}
	return strings.Join(alternatives, "|")
}

// names are HTML's names for characters of ASCII, but for those longer than eight letters.
var names = strings.Fields(`Tab NewLine excl quot QUOT num dollar percnt amp AMP apos lpar rpar ast midast plus comma period sol colon semi
	lt LT equals gt GT quest commat lsqb lbrack bsol rsqb rbrack Hat lowbar UnderBar grave lcub lbrace verbar vert rcub rbrace`)
