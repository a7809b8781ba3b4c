package egress

import (
	"strings"
	"unicode/utf8"
)

// canonicalPath gives a path the one spelling that policy decides on and that is sent: percent-encoded unreserved
// characters are decoded, hex digits are upper case, and everything else stays. Refused is what a server behind us could
// read as another path: dot segments in any coding, doubled slashes, backslashes, double encodings, control characters,
// invalid UTF-8. The path must begin with a slash.
func canonicalPath(raw string) (string, error) {
	var out, plain strings.Builder // plain is what a server sees after decoding once
	if !strings.HasPrefix(raw, "/") {
		return "", badRequest("the path does not begin with a slash")
	}
	for i := 0; i < len(raw); i++ {
		c := raw[i]
		if c != '%' {
			if c <= 0x20 || c >= 0x7f || strings.IndexByte(`\"<>^{|}`+"`", c) >= 0 || c == '#' || c == '?' {
				return "", badRequest("the path holds a character that must be percent-encoded")
			}
			out.WriteByte(c)
			plain.WriteByte(c)
			continue
		}
		if i+2 >= len(raw) || !isHex(raw[i+1]) || !isHex(raw[i+2]) {
			return "", badRequest("the path has a malformed percent-encoding")
		}
		b := unhex(raw[i+1])<<4 | unhex(raw[i+2])
		if b < 0x20 || b == 0x7f || b == '\\' {
			return "", badRequest("the path holds an encoded control character or backslash")
		}
		plain.WriteByte(b)
		if unreserved(b) {
			out.WriteByte(b)
		} else {
			out.WriteString("%" + strings.ToUpper(raw[i+1:i+3]))
		}
		i += 2
	}
	return out.String(), checkDecoded(plain.String())
}

func checkDecoded(path string) error {
	if !utf8.ValidString(path) {
		return badRequest("the path is not UTF-8")
	}
	// A segment may carry parameters after a semicolon (RFC 3986 section 3.3); a server may cut them off before it looks at dots.
	for _, segment := range strings.Split(path, "/") {
		name, _, _ := strings.Cut(segment, ";")
		if name == "." || name == ".." {
			return badRequest("the path holds a dot segment")
		}
	}
	if strings.Contains(path, "//") {
		return badRequest("the path holds a doubled slash")
	}
	for i := 0; i+2 < len(path); i++ {
		if path[i] == '%' && isHex(path[i+1]) && isHex(path[i+2]) {
			switch unhex(path[i+1])<<4 | unhex(path[i+2]) {
			case '.', '/', '\\', '%', 0:
				return badRequest("the path is encoded twice")
			}
		}
	}
	return nil
}

func isHex(c byte) bool { return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F' }

func unhex(c byte) byte {
	switch {
	case c <= '9':
		return c - '0'
	case c <= 'F':
		return c - 'A' + 10
	}
	return c - 'a' + 10
}

// unreserved is RFC 3986 section 2.3.
func unreserved(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("-._~", c) >= 0
}
