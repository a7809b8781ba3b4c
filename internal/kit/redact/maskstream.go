package redact

import (
	"bufio"
	"bytes"
	"errors"
	"io"

	"github.com/go-json-experiment/json/jsontext"
)

// lines are the types of streams that are one JSON text after the other.
var lines = map[string]bool{"application/x-ndjson": true, "application/ndjson": true, "application/jsonl": true, "application/x-jsonlines": true, "application/jsonlines": true,
	"application/json-lines": true, "application/json-seq": true, "application/stream+json": true}

// streamed gives the masked pieces of a stream, one by one; nil where the type is not that of a stream.
func streamed(kind string, body io.Reader, places [][]string) func() ([]byte, error) {
	switch {
	case kind == "text/event-stream":
		e := &events{src: bufio.NewReader(body), places: places}
		return e.next
	case lines[kind]:
		t := &texts{src: body, places: places}
		if kind == "application/json-seq" {
			t.before = separator
		}
		t.in = jsontext.NewDecoder(t)
		return t.next
	}
	return nil
}

// maskedStream is the body of a stream whose pieces are masked as they come.
type maskedStream struct {
	io.Closer
	next  func() ([]byte, error)
	ready []byte
	err   error
}

func (m *maskedStream) Read(p []byte) (int, error) {
	for len(m.ready) == 0 {
		if m.err != nil {
			return 0, m.err
		}
		m.ready, m.err = m.next()
	}
	n := copy(p, m.ready)
	m.ready = m.ready[n:]
	return n, nil
}

// separator stands before each text of RFC 7464. It can stand in none.
const separator = "\x1e"

// texts reads JSON texts, one after the other, whatever white space stands between them.
type texts struct {
	src    io.Reader
	before string
	places [][]string
	in     *jsontext.Decoder
	left   int // bytes until a text is too large
	err    error
}

// Read is what the decoder reads.
func (t *texts) Read(p []byte) (int, error) {
	if t.left == 0 {
		return 0, ErrUnmaskable
	}
	n, err := t.src.Read(p[:min(len(p), t.left)])
	t.left -= n
	if err != nil && err != io.EOF {
		t.err = err
	}
	if t.before != "" {
		for i, c := range p[:n] {
			if c == separator[0] {
				p[i] = ' '
			}
		}
	}
	return n, err
}

func (t *texts) next() ([]byte, error) {
	t.left = maxMasked
	text, err := t.in.ReadValue()
	switch {
	case t.err != nil:
		return nil, t.err // as the body said it
	case err == io.EOF || errors.Is(err, io.ErrUnexpectedEOF):
		return nil, err
	case err != nil:
		return nil, ErrUnmaskable
	}
	clean, err := masked(text, t.places)
	if err != nil {
		return nil, ErrUnmaskable
	}
	return append(append([]byte(t.before), clean...), '\n'), nil
}

// events reads a stream of server-sent events (WHATWG HTML section 9.2). The data of each is one JSON text, and is passed on in one
// line; lines end in LF then.
type events struct {
	src    *bufio.Reader
	places [][]string
	data   []byte // of the event, so far
	some   bool   // it has data
	begun  bool   // behind the first line
	cr     bool   // the last line ended in CR, whose LF may follow
}

// next is a line that is not data, or the end of an event with its data before it.
func (e *events) next() ([]byte, error) {
	line, err := e.line()
	if err == io.EOF && (len(line) > 0 || e.some) { // most clients take what has no end for an event
		if _, err = e.take(line); err == nil {
			line, err = e.end()
		}
		if err == nil {
			err = io.EOF
		}
		return bytes.TrimSuffix(line, []byte("\n")), err
	}
	if err != nil {
		return nil, err
	}
	if len(line) == 0 {
		return e.end()
	}
	return e.take(line)
}

// take keeps a line of data, and gives what else may pass: fields that the standard has, and comments.
func (e *events) take(line []byte) ([]byte, error) {
	name, value, _ := bytes.Cut(line, []byte(":"))
	switch string(name) {
	case "data":
		value = bytes.TrimPrefix(value, []byte(" "))
		if len(e.data)+len(value) > maxMasked {
			return nil, ErrUnmaskable
		}
		if e.some {
			e.data = append(e.data, '\n')
		}
		e.data, e.some = append(e.data, value...), true
		return nil, nil
	case "", "event", "id", "retry":
		return append(line, '\n'), nil
	}
	return nil, nil // no client looks at others
}

// doneWord ends the streams of many vendors of models, and is no JSON. It holds nothing.
const doneWord = "[DONE]"

func (e *events) end() ([]byte, error) {
	out := []byte("\n")
	if e.some && len(e.data) > 0 && string(e.data) != doneWord {
		clean, err := masked(e.data, e.places)
		if err != nil {
			return nil, ErrUnmaskable
		}
		e.data = append(e.data[:0], clean...)
	}
	if e.some {
		out = append(append([]byte("data: "), e.data...), "\n\n"...)
	}
	e.data, e.some = e.data[:0], false
	return out, nil
}

// line reads up to LF, CR or both, and gives the line without.
func (e *events) line() ([]byte, error) {
	var line []byte
	for {
		c, err := e.src.ReadByte()
		if err != nil {
			return line, err
		}
		if e.cr {
			if e.cr = false; c == '\n' {
				continue
			}
		}
		if c == '\n' || c == '\r' {
			e.cr = c == '\r'
			if !e.begun {
				line = bytes.TrimPrefix(line, []byte("\ufeff"))
			}
			e.begun = true
			return line, nil
		}
		if line = append(line, c); len(line) > maxMasked {
			return nil, ErrUnmaskable
		}
	}
}
