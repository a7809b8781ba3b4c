package mcp

import (
	"bytes"
	"slices"
)

// Edit replaces the bytes of a span.
type Edit struct {
	Span Span
	With []byte
}

// Splice applies edits, which must not overlap, and keeps every other byte.
func Splice(raw []byte, edits ...Edit) []byte {
	slices.SortFunc(edits, func(a, b Edit) int { return a.Span.Start - b.Span.Start })
	var out bytes.Buffer
	at := 0
	for _, e := range edits {
		out.Write(raw[at:e.Span.Start])
		out.Write(e.With)
		at = e.Span.End
	}
	out.Write(raw[at:])
	return out.Bytes()
}

// WithParams gives members of params other values, and removes those whose value is empty, with their commas. What was not there
// stays absent.
func (m *Message) WithParams(values map[string][]byte) []byte {
	if !m.Params.Present() {
		return m.Raw
	}
	return Splice(m.Raw, Edit{m.Params, with(m.Of(m.Params), values)})
}

// with copies an object but for some members.
func with(raw []byte, values map[string][]byte) []byte {
	s := scanner{b: raw}
	if empty, err := s.enter('}'); empty || err != nil {
		return raw
	}
	out := []byte{'{'}
	for {
		start := s.i
		k, err := s.str()
		if err != nil {
			return raw
		}
		value, change := values[string(s.key(k))]
		s.space()
		s.i++
		s.space()
		at := s.i
		if err := s.value(&Message{}, levelOther); err != nil {
			return raw
		}
		if !change || len(value) > 0 {
			if len(out) > 1 {
				out = append(out, ',')
			}
			if out = append(out, raw[start:at]...); change {
				out = append(out, value...)
			} else {
				out = append(out, raw[at:s.i]...)
			}
		}
		if done, err := s.next('}'); done || err != nil {
			return append(out, '}')
		}
	}
}

// lists says which array of a result a list method answers with, and by which member its entries are named.
var lists = map[string][2]string{
	"tools/list":               {"tools", "name"},
	"prompts/list":             {"prompts", "name"},
	"resources/list":           {"resources", "uri"},
	"resources/templates/list": {"resourceTemplates", "uriTemplate"},
	"tasks/list":               {"tasks", "taskId"},
}

// IsList reports whether the method's answer is filtered by name.
func IsList(method string) bool { _, ok := lists[method]; return ok }

// ListIn returns the list method whose answer this is, going by the array that the result holds; "" if it is none.
func ListIn(answer []byte) string {
	result := Lookup(answer, "result")
	for method, l := range lists {
		if v := Lookup(result, l[0]); len(v) > 0 && v[0] == '[' {
			return method
		}
	}
	return ""
}

// Texts are the strings of an array; what is no string is left out.
func Texts(list []byte) []string {
	var l []string
	_ = each(list, func(v []byte) { // an array that cannot be read holds none
		if s := unquoted(v); s != "" {
			l = append(l, s)
		}
	})
	return l
}

// ListNames returns the names in the answer of a list method, in order.
func ListNames(method string, answer []byte) ([]string, error) {
	entries, err := listEntries(method, answer)
	if err != nil {
		return nil, err
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = unquoted(Lookup(answer[e.Start:e.End], lists[method][1]))
	}
	return names, nil
}

// ReadOnly says of each tool of an answer to tools/list whether its server calls it one that only reads (annotations.readOnlyHint).
// It is the server's word, and no more than that.
func ReadOnly(answer []byte) ([]bool, error) {
	entries, err := listEntries("tools/list", answer)
	if err != nil {
		return nil, err
	}
	l := make([]bool, len(entries))
	for i, e := range entries {
		l[i] = string(Lookup(answer[e.Start:e.End], "annotations", "readOnlyHint")) == "true"
	}
	return l, nil
}

// FilterList takes out the entries whose keep is false, with their commas; every other byte stays.
func FilterList(method string, answer []byte, keep []bool) ([]byte, error) {
	entries, err := listEntries(method, answer)
	if err != nil || len(entries) != len(keep) || !slices.Contains(keep, false) {
		return answer, err
	}
	var out []byte
	out = append(out, answer[:entries[0].Start]...)
	first := true
	for i, e := range entries {
		if !keep[i] {
			continue
		}
		if !first {
			out = append(out, ',')
		}
		out = append(out, answer[e.Start:e.End]...)
		first = false
	}
	return append(out, answer[entries[len(entries)-1].End:]...), nil
}

func listEntries(method string, answer []byte) ([]Span, error) {
	list := Lookup(answer, "result", lists[method][0])
	if len(list) == 0 || list[0] != '[' {
		return nil, ErrNotList
	}
	// Lookup returns a part of answer: its place is where its bytes are.
	base := cap(answer) - cap(list)
	s := scanner{b: list}
	var entries []Span
	if empty, err := s.enter(']'); empty || err != nil {
		return nil, err
	}
	for {
		start := s.i
		if err := s.value(&Message{}, levelOther); err != nil {
			return nil, err
		}
		entries = append(entries, Span{base + start, base + s.i})
		if done, err := s.next(']'); done || err != nil {
			return entries, err
		}
	}
}
