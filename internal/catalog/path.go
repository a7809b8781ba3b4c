package catalog

import (
	"net/url"
	"strings"
	"unicode/utf8"

	"frontdesk.dev/frontdesk/internal/kit/fault"
)

// CanonicalPath gives a path the one spelling that policy decides on and that is sent: percent-encoded unreserved
// characters are decoded, hex digits are upper case, and everything else stays. Refused is what a server behind us could
// read as another path: dot segments in any coding, doubled slashes, backslashes, double encodings, control characters,
// invalid UTF-8. The path must begin with a slash. Errors are fault.Invalid.
func CanonicalPath(raw string) (string, error) {
	var out, plain strings.Builder // plain is what a server sees after decoding once
	if !strings.HasPrefix(raw, "/") {
		return "", badPath("the path does not begin with a slash")
	}
	for i := 0; i < len(raw); i++ {
		c := raw[i]
		if c != '%' {
			if c <= 0x20 || c >= 0x7f || strings.IndexByte(`\"<>^{|}`+"`", c) >= 0 || c == '#' || c == '?' {
				return "", badPath("the path holds a character that must be percent-encoded")
			}
			out.WriteByte(c)
			plain.WriteByte(c)
			continue
		}
		if i+2 >= len(raw) || !isHex(raw[i+1]) || !isHex(raw[i+2]) {
			return "", badPath("the path has a malformed percent-encoding")
		}
		b := unhex(raw[i+1])<<4 | unhex(raw[i+2])
		if b < 0x20 || b == 0x7f || b == '\\' {
			return "", badPath("the path holds an encoded control character or backslash")
		}
		plain.WriteByte(b)
		if Unreserved(b) {
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
		return badPath("the path is not UTF-8")
	}
	// A segment may carry parameters after a semicolon (RFC 3986 section 3.3); a server may cut them off before it looks at dots.
	for _, segment := range strings.Split(path, "/") {
		name, _, _ := strings.Cut(segment, ";")
		if name == "." || name == ".." {
			return badPath("the path holds a dot segment")
		}
	}
	if strings.Contains(path, "//") {
		return badPath("the path holds a doubled slash")
	}
	for i := 0; i+2 < len(path); i++ {
		if path[i] == '%' && isHex(path[i+1]) && isHex(path[i+2]) {
			switch unhex(path[i+1])<<4 | unhex(path[i+2]) {
			case '.', '/', '\\', '%', 0:
				return badPath("the path is encoded twice")
			}
		}
	}
	return nil
}

// WithoutParameters is the path as a server sees it that cuts off what stands behind a semicolon in a segment, plain or encoded
// (RFC 3986 section 3.3; Servlet 6.0 section 3.5). Others, as Mapbox's, take the semicolon for a part of the name.
func WithoutParameters(path string) string {
	if !strings.Contains(path, ";") && !strings.Contains(path, "%3B") {
		return path
	}
	segments := strings.Split(path, "/")
	for i, s := range segments {
		s, _, _ = strings.Cut(s, ";")
		segments[i], _, _ = strings.Cut(s, "%3B")
	}
	return strings.Join(segments, "/")
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

// Unreserved is RFC 3986 section 2.3.
func Unreserved(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("-._~", c) >= 0
}

func badPath(msg string) error { return fault.New(fault.Invalid, msg, nil) }

// Target is the URL at one of the upstream's own hosts, written as the config has it, that a path names which is written in its one
// spelling. Errors: fault.Invalid; fault.Denied for what does not lie at the upstream.
func (u *Upstream) Target(host, path string) (*url.URL, error) {
	if one, err := CanonicalPath(path); err != nil || one != path {
		return nil, badPath("the path is not in the spelling in which it is decided on")
	}
	if strings.Contains(path, "%2F") && !u.Provider.EncodedSlash {
		return nil, badPath("the path holds an encoded slash")
	}
	at := u.Origins
	for _, a := range u.Aliases {
		at = append(at[:len(at):len(at)], a.To)
	}
	for _, o := range at {
		rest, under := strings.CutPrefix(path, strings.TrimSuffix(o.EscapedPath(), "/"))
		if o.Host != host || !under || rest != "" && rest[0] != '/' {
			continue
		}
		decoded, err := url.PathUnescape(path)
		if err != nil {
			return nil, badPath("the path is not well formed")
		}
		return &url.URL{Scheme: o.Scheme, Host: o.Host, Path: decoded, RawPath: path}, nil
	}
	return nil, fault.New(fault.Denied, "this does not lie at the upstream", nil)
}
