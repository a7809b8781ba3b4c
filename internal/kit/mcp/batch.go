package mcp

import (
	"bytes"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// Array reports whether a body is an array of messages, or tries to be one.
func Array(body []byte) bool {
	return bytes.HasPrefix(bytes.TrimLeft(body, " \t\r\n"), []byte("["))
}

// Split takes an array of messages apart, at most so many; they are not looked into.
func Split(body []byte, most int) ([][]byte, error) {
	if !utf8.Valid(body) {
		return nil, refuse(CodeParse, "the body is not JSON in UTF-8")
	}
	d := jsontext.NewDecoder(bytes.NewReader(body), jsontext.AllowDuplicateNames(true))
	if _, err := d.ReadToken(); err != nil {
		return nil, refuse(CodeParse, "the batch cannot be read")
	}
	var parts [][]byte
	for d.PeekKind() != ']' {
		v, err := d.ReadValue()
		if err != nil {
			return nil, refuse(CodeParse, "the batch cannot be read")
		}
		if len(parts) == most {
			return nil, refuse(CodeRequest, "a batch holds at most "+strconv.Itoa(most)+" messages: send several")
		}
		parts = append(parts, bytes.Clone(v))
	}
	if _, err := d.ReadToken(); err != nil || d.PeekKind() != 0 || len(bytes.TrimSpace(body[d.InputOffset():])) > 0 {
		return nil, refuse(CodeParse, "there is something after the batch")
	}
	if len(parts) == 0 {
		return nil, refuse(CodeRequest, "the batch is empty")
	}
	return parts, nil
}

// Part is what one message of a batch is answered on: a ResponseWriter that makes events of the shared stream. Without out, what
// is said is dropped: it is about a message that nobody answers.
type Part struct {
	out      *Stream
	header   http.Header
	status   int
	kept     []byte // a whole answer, or the beginning of an event
	answered bool
}

// NewPart answers on out, or nowhere.
func NewPart(out *Stream) *Part { return &Part{out: out, header: http.Header{}} }

// Header implements http.ResponseWriter.
func (b *Part) Header() http.Header { return b.header }

// WriteHeader implements http.ResponseWriter.
func (b *Part) WriteHeader(status int) {
	if b.status == 0 {
		b.status = status
	}
}

// Write implements http.ResponseWriter. Of a stream only messages go on: with event ids a client would take up one of many streams.
func (b *Part) Write(p []byte) (int, error) {
	b.WriteHeader(http.StatusOK)
	if b.out == nil {
		return len(p), nil
	}
	b.kept = append(b.kept, p...)
	if kind, _, _ := mime.ParseMediaType(b.header.Get("Content-Type")); kind != "text/event-stream" {
		return len(p), nil
	}
	for {
		i := bytes.Index(b.kept, []byte("\n\n"))
		if i < 0 {
			return len(p), nil
		}
		e, err := NewEvents(bytes.NewReader(b.kept[:i+2])).Next()
		b.kept = b.kept[i+2:]
		if err != nil || !e.Message() {
			continue
		}
		if m, err := Scan(e.Data); err == nil && m.Kind == Response {
			b.answered = true
		}
		if err := b.out.Message(e.Data); err != nil {
			return 0, err
		}
	}
}

// Finish writes the answer that came whole. A request gets one in any case.
func (b *Part) Finish(m *Message) {
	if len(Lookup(b.kept, "error", "code")) > 0 || len(Lookup(b.kept, "result")) > 0 {
		_ = b.out.Message(b.kept) // the client went away if this fails
		return
	}
	if b.answered || m.Kind != Request {
		return
	}
	said := "The server ended its answer before it was whole. Nothing is known of what it did."
	switch kind, _, _ := mime.ParseMediaType(b.header.Get("Content-Type")); {
	case b.status == http.StatusUnauthorized:
		said = "The access token has expired, or is not valid here: sign in again."
	case kind == "text/plain" && len(b.kept) > 0:
		said = strings.TrimSpace(string(b.kept))
	}
	_ = b.out.Message(ErrorMessage(m.IDBytes(), CodeUnavailable, said, nil))
}
