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

// WithoutParams removes members of params by name (requestState and our own inputResponses, on a retry), with their commas.
func (m *Message) WithoutParams(names ...string) []byte {
	if !m.Params.Present() {
		return m.Raw
	}
	return Splice(m.Raw, Edit{m.Params, without(m.Of(m.Params), names)})
}

// without copies an object but for some members.
func without(raw []byte, names []string) []byte {
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
		drop := slices.Contains(names, string(s.key(k)))
		s.space()
		s.i++
		s.space()
		if err := s.value(&Message{}, levelOther); err != nil {
			return raw
		}
		if !drop {
			if len(out) > 1 {
				out = append(out, ',')
			}
			out = append(out, raw[start:s.i]...)
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
}

// IsList reports whether the method's answer is filtered by name.
func IsList(method string) bool { _, ok := lists[method]; return ok }

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
