package openapi

import (
	"fmt"
	"strings"
)

// segment is one segment of a path template: the text between its parameters. One part is a literal; two empty ones are a
// parameter alone.
type segment []string

// template reads a path template. A parameter stands for at least one character, and never for a slash.
func template(path string) ([]segment, error) {
	if !strings.HasPrefix(path, "/") {
		return nil, fmt.Errorf("the path %q does not begin with a slash", path)
	}
	var out []segment
	for s := range strings.SplitSeq(path[1:], "/") {
		var seg segment
		for {
			before, rest, ok := strings.Cut(s, "{")
			if strings.Contains(before, "}") {
				return nil, fmt.Errorf("the path %q has a parameter without its beginning", path)
			}
			seg = append(seg, before)
			if !ok {
				break
			}
			name, after, closed := strings.Cut(rest, "}")
			if !closed || name == "" || strings.Contains(name, "{") {
				return nil, fmt.Errorf("the path %q has a parameter without a name, or without its end", path)
			}
			s = after
		}
		out = append(out, seg)
	}
	return out, nil
}

// shape is a template without its parameters' names.
func shape(l []segment) string {
	var b strings.Builder
	for _, s := range l {
		b.WriteString("/" + strings.Join(s, "{}"))
	}
	return b.String()
}

func (s segment) matches(text string) bool {
	if len(s) == 1 {
		return text == s[0]
	}
	last := len(s) - 1
	if len(text) < len(s[0])+len(s[last])+last || !strings.HasPrefix(text, s[0]) || !strings.HasSuffix(text, s[last]) {
		return false
	}
	text = text[len(s[0]) : len(text)-len(s[last])]
	for _, between := range s[1:last] {
		if len(text) == 0 {
			return false
		}
		i := strings.Index(text[1:], between)
		if i < 0 {
			return false
		}
		text = text[1+i+len(between):]
	}
	return len(text) > 0
}

// rank is how much of a segment is said: literal, partly, nothing.
func (s segment) rank() int {
	switch {
	case len(s) == 1:
		return 2
	case strings.Join(s, "") != "":
		return 1
	}
	return 0
}

func (o *operation) matches(parts []string) bool {
	for i, s := range o.segments {
		if !s.matches(parts[i]) {
			return false
		}
	}
	return true
}

// above reports whether o says at least as much as other in every segment, and more in one: every reader takes it then.
func (o *operation) above(other *operation) bool {
	more := false
	if o.base != other.base || len(o.segments) != len(other.segments) {
		return false
	}
	for i, s := range o.segments {
		a, b := s.rank(), other.segments[i].rank()
		if a < b || a == b && a == 1 && strings.Join(s, "{}") != strings.Join(other.segments[i], "{}") {
			return false
		}
		more = more || a > b
	}
	return more
}
