package mcp

import (
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"frontdesk.dev/frontdesk/internal/kit/outbound"
)

// What a client can declare that servers may ask of it. Names are those of the capabilities, with the mode of elicitation.
const (
	AskSampling = "sampling"
	AskRoots    = "roots"
	AskForm     = "elicitation.form"
	AskURL      = "elicitation.url"
	AskTasks    = "tasks"
)

// Declared lists what a server may ask of the client that sent this message, by its capabilities.
func (m *Message) Declared() []string {
	if !m.Capabilities.Present() {
		return nil
	}
	raw := m.Of(m.Capabilities)
	var l []string
	for _, name := range []string{AskSampling, AskRoots, AskTasks} {
		if isObject(Lookup(raw, name)) {
			l = append(l, name)
		}
	}
	if e := Lookup(raw, "elicitation"); isObject(e) {
		ask := isObject(Lookup(e, "url"))
		if ask {
			l = append(l, AskURL)
		}
		if !ask || isObject(Lookup(e, "form")) { // an empty one means form mode
			l = append(l, AskForm)
		}
	}
	return l
}

func isObject(v []byte) bool { return len(v) > 0 && v[0] == '{' }

// AskOf says what a client must have declared to be asked this: "" for what every client answers, false for what the protocol
// does not let a server ask.
func AskOf(method string, params []byte) (name string, known bool) {
	switch method {
	case "ping":
		return "", true
	case "sampling/createMessage":
		return AskSampling, true
	case "roots/list":
		return AskRoots, true
	case "elicitation/create":
		if string(Lookup(params, "mode")) == `"url"` {
			return AskURL, true
		}
		return AskForm, true
	}
	return AskTasks, strings.HasPrefix(method, "tasks/")
}

// secretField matches names of form fields in which people would type what no form may ask for (2025-11-25, elicitation: "MUST
// NOT use form mode to request sensitive information").
var secretField = regexp.MustCompile(`(?i)passw(or)?d|passphrase|passcode|secret|api[-_ ]?key|access[-_ ]?key|private[-_ ]?key|token|credential|\bpin\b|\botp\b|card[-_ ]?(number|no)|cvv|cvc|ssn|iban`)

// maxAskedURL bounds an address that a person is to look at.
const maxAskedURL = 2048

// BadAsk names what is wrong with an elicitation of a server; "" where it may be shown. Own reports whether a host is ours:
// only Frontdesk sends people to its own pages.
func BadAsk(params []byte, own func(host string) bool) string {
	if string(Lookup(params, "mode")) != `"url"` {
		return badForm(Lookup(params, "requestedSchema"))
	}
	raw := unquoted(Lookup(params, "url"))
	u, err := url.Parse(raw)
	_, other := outbound.Origin(raw) // a host that a browser makes another one of: numbers, letters of other scripts, encoded too
	plain := func(c rune) bool { return c > 0x20 && c < 0x7f && c != '\\' }
	switch {
	case err != nil || other != nil || len(raw) > maxAskedURL || u.Scheme != "https" || u.Host == "" || u.User != nil || u.Opaque != "" || strings.ContainsFunc(raw, func(c rune) bool { return !plain(c) }):
		return "an address that is no plain https URL"
	case own(u.Hostname()):
		return "a page of Frontdesk, which servers may not send people to"
	}
	return ""
}

func badForm(schema []byte) string {
	if len(schema) == 0 {
		return ""
	}
	properties := Lookup(schema, "properties")
	if !isObject(properties) {
		return "a form that cannot be read"
	}
	names, values, err := all(properties)
	if err != nil {
		return "a form that cannot be read"
	}
	for i, n := range names {
		texts := []string{n, unquoted(Lookup(values[i], "title")), unquoted(Lookup(values[i], "description"))}
		if slices.ContainsFunc(texts, secretField.MatchString) || string(Lookup(values[i], "format")) == `"password"` {
			return "a form that asks for a secret"
		}
	}
	return ""
}

// all returns the members of an object, decoded names and raw values, in order.
func all(raw []byte) (names []string, values [][]byte, err error) {
	s := scanner{b: raw}
	if empty, err := s.enter('}'); empty || err != nil {
		return nil, nil, err
	}
	for {
		k, err := s.str()
		if err != nil {
			return nil, nil, err
		}
		names = append(names, string(s.key(k)))
		s.space()
		if s.peek() != ':' {
			return nil, nil, errSyntax
		}
		s.i++
		s.space()
		start := s.i
		if err := s.value(&Message{}, levelOther); err != nil {
			return nil, nil, err
		}
		values = append(values, raw[start:s.i])
		if done, err := s.next('}'); done || err != nil {
			return names, values, err
		}
	}
}

// Asked is one question of a server within an answer of its: the modern era's input_required, or error -32042.
type Asked struct {
	Key     string // of inputRequests; "" in an error
	Method  string
	Params  []byte
	Message Span // of the text that people read, within the answer; absent where there is none
}

// Asks lists the questions in an answer. Another answer has none; an error means that there are some that cannot be read.
func (m *Message) Asks() ([]Asked, error) {
	if m.Err.Present() {
		if string(Lookup(m.Of(m.Err), "code")) != "-32042" {
			return nil, nil
		}
		var l []Asked
		list := Lookup(m.Of(m.Err), "data", "elicitations")
		err := each(list, func(v []byte) {
			l = append(l, Asked{Method: "elicitation/create", Params: v, Message: m.SpanOf(Lookup(v, "message"))})
		})
		return l, err
	}
	// A task that waits has them too, in an answer that is complete (extension io.modelcontextprotocol/tasks).
	requests := Lookup(m.Of(m.Result), "inputRequests")
	if len(requests) == 0 {
		return nil, nil
	}
	if !isObject(requests) {
		return nil, errSyntax
	}
	names, values, err := all(requests)
	if err != nil {
		return nil, err
	}
	var l []Asked
	for i, n := range names {
		p := Lookup(values[i], "params")
		l = append(l, Asked{n, unquoted(Lookup(values[i], "method")), p, m.SpanOf(Lookup(p, "message"))})
	}
	return l, nil
}

// SpanOf finds a part of the message that Lookup returned.
func (m *Message) SpanOf(part []byte) Span {
	if len(part) == 0 {
		return Span{}
	}
	start := cap(m.Raw) - cap(part)
	return Span{start, start + len(part)}
}

// each calls f for the values of an array.
func each(list []byte, f func(v []byte)) error {
	s := scanner{b: list}
	if s.peek() != '[' {
		return errSyntax
	}
	if empty, err := s.enter(']'); empty || err != nil {
		return err
	}
	for {
		start := s.i
		if err := s.value(&Message{}, levelOther); err != nil {
			return err
		}
		f(list[start:s.i])
		if done, err := s.next(']'); done || err != nil {
			return err
		}
	}
}

// HostOf is the host of an address, for people to see.
func HostOf(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	return u.Host
}

// Text is the text of a raw JSON string, "" for anything else.
func Text(raw []byte) string { return unquoted(raw) }

// Quoted is a text as a JSON string.
func Quoted(text string) []byte { return quote(nil, text) }

// SameID reports whether two raw ids are one: servers may spell a string, or round a number, in their own way.
func SameID(a, b []byte) bool {
	if string(a) == string(b) {
		return true
	}
	if len(a) == 0 || len(b) == 0 || (a[0] == '"') != (b[0] == '"') {
		return false
	}
	if a[0] == '"' {
		return unquoted(a) == unquoted(b)
	}
	x, errX := strconv.ParseFloat(string(a), 64)
	y, errY := strconv.ParseFloat(string(b), 64)
	return errX == nil && errY == nil && x == y
}
