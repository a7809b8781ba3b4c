// Package mcp reads and edits MCP messages without decoding them: it scans for what a gateway must know (method, name, id,
// _meta) and leaves every other byte as it came, because whatever is decoded and written again is changed.
//
// It knows the wire of every era of the protocol, streamable HTTP's headers and server-sent events. It trusts nothing it
// reads: what two readers could understand differently is refused.
package mcp

import (
	"bytes"
	"fmt"
	"strconv"

	"github.com/go-json-experiment/json/jsontext"
)

// Kind is what a message is.
type Kind uint8

const (
	Invalid Kind = iota
	Request
	Notification
	Response
)

// Span is a part of a message: the bytes of one JSON value. The zero Span is absent.
type Span struct{ Start, End int }

// Present reports whether there is such a value.
func (s Span) Present() bool { return s.End > s.Start }

// Message is what a scan found. Strings point into nothing: they are copies, made only where something is there.
type Message struct {
	Raw    []byte
	Kind   Kind
	Method string
	ID     Span // raw: echoed exactly as it came

	Params  Span
	Result  Span
	Err     Span
	Target  string // params.name, params.uri or params.taskId, whichever the method goes by
	Version string // params.protocolVersion of initialize, or _meta's of the modern era

	Arguments      Span
	RequestState   Span
	InputResponses Span
	Capabilities   Span // the client's: params.capabilities of initialize, or _meta's of the modern era
	ClientInfo     Span
	Meta           Span
	RequestID      Span // params.requestId of notifications/cancelled
	ProgressToken  Span
	LogLevel       Span

	name, uri, task Span
	modern          bool
}

// Of returns the bytes of a span of this message.
func (m *Message) Of(s Span) []byte { return m.Raw[s.Start:s.End] }

// IDBytes is the id as it came; null where there is none.
func (m *Message) IDBytes() []byte {
	if m.ID.Present() {
		return m.Of(m.ID)
	}
	return []byte("null")
}

// Modern reports whether the message carries the modern era's protocol version in its _meta.
func (m *Message) Modern() bool { return m.modern }

// DeclaresURLElicitation reports whether the capabilities name elicitation in URL mode. An empty elicitation object means
// form mode alone.
func (m *Message) DeclaresURLElicitation() bool {
	if !m.Capabilities.Present() {
		return false
	}
	v := Lookup(m.Of(m.Capabilities), "elicitation", "url")
	return len(v) > 0 && v[0] == '{'
}

// ClientName is what the client calls itself: foreign text, for display alone.
func (m *Message) ClientName() string {
	if !m.ClientInfo.Present() {
		return ""
	}
	return unquoted(Lookup(m.Of(m.ClientInfo), "name"))
}

// StringOf is the text of a JSON string span, "" for anything else.
func (m *Message) StringOf(s Span) string {
	if !s.Present() {
		return ""
	}
	return unquoted(m.Of(s))
}

func unquoted(v []byte) string {
	if len(v) < 2 || v[0] != '"' {
		return ""
	}
	s, err := jsontext.AppendUnquote(nil, v)
	if err != nil {
		return ""
	}
	return string(s)
}

// Error codes that Frontdesk sends. -32020 and below belong to the specification; -31403 is ours.
const (
	CodeParse          = -32700
	CodeRequest        = -32600
	CodeMethod         = -32601
	CodeParams         = -32602
	CodeInternal       = -32603
	CodeHeaderMismatch = -32020
	CodeCapability     = -32021 // the client did not declare what it is asked for
	CodeVersion        = -32022
	CodeURLElicitation = -32042 // 2025-11-25 alone
	CodeNoResource     = -32002 // of the legacy era alone
	CodeDenied         = -31403
	CodeUnavailable    = -31503
)

// Fault is a message that cannot be taken, or an answer that is an error: its code and a sentence for the sender.
type Fault struct {
	Code int
	Msg  string
}

func (f *Fault) Error() string { return fmt.Sprintf("%s (%d)", f.Msg, f.Code) }

func refuse(code int, msg string) error { return &Fault{code, msg} }

// quote appends s as a JSON string.
func quote(b []byte, s string) []byte {
	out, err := jsontext.AppendQuote(b, s)
	if err != nil { // invalid UTF-8 in a sentence: what can be shown of it is
		return strconv.AppendQuoteToASCII(b, s)
	}
	return out
}

// ErrorMessage builds a JSON-RPC error answer. data is raw JSON or nil.
func ErrorMessage(id []byte, code int, msg string, data []byte) []byte {
	b := make([]byte, 0, 96+len(msg)+len(data))
	b = append(b, `{"jsonrpc":"2.0","id":`...)
	b = append(b, id...)
	b = append(b, `,"error":{"code":`...)
	b = strconv.AppendInt(b, int64(code), 10)
	b = append(b, `,"message":`...)
	b = quote(b, msg)
	if data != nil {
		b = append(b, `,"data":`...)
		b = append(b, data...)
	}
	return append(b, '}', '}')
}

// ResultMessage builds an answer around a raw result.
func ResultMessage(id, result []byte) []byte {
	b := make([]byte, 0, 40+len(id)+len(result))
	b = append(b, `{"jsonrpc":"2.0","id":`...)
	b = append(b, id...)
	b = append(b, `,"result":`...)
	b = append(b, result...)
	return append(b, '}')
}

// ToolText builds the answer of a tool call that failed in a way the model should read. meta is raw JSON for `_meta`, or nil.
func ToolText(id []byte, modern bool, text string, meta []byte) []byte {
	r := []byte(`{`)
	if modern {
		r = append(r, `"resultType":"complete",`...)
	}
	r = append(r, `"isError":true,"content":[{"type":"text","text":`...)
	r = quote(r, text)
	r = append(r, `}]`...)
	if meta != nil {
		r = append(r, `,"_meta":`...)
		r = append(r, meta...)
	}
	return ResultMessage(id, append(r, '}'))
}

// WithText adds a text to the end of a tool's result; every other byte stays. A result without a list of contents stays as it is.
func (m *Message) WithText(text string) []byte {
	content := Lookup(m.Raw, "result", "content")
	if len(content) < 2 || content[0] != '[' {
		return m.Raw
	}
	var b []byte
	if len(bytes.TrimSpace(content[1:len(content)-1])) > 0 {
		b = append(b, ',')
	}
	b = append(quote(append(b, `{"type":"text","text":`...), text), '}')
	end := m.SpanOf(content).End - 1
	return Splice(m.Raw, Edit{Span{end, end}, b})
}

// FirstText is the text of the first part of a tool's result, "" if it is none.
func FirstText(result []byte) string {
	content := Lookup(result, "content")
	text := ""
	_ = each(content, func(v []byte) { // what cannot be read has no text
		if text == "" {
			text = Text(Lookup(v, "text"))
		}
	})
	return text
}

// InputRequired builds the modern era's question in URL mode, under our own key.
func InputRequired(id []byte, key, message, url, state string) []byte {
	r := []byte(`{"resultType":"input_required","inputRequests":{`)
	r = quote(r, key)
	r = append(r, `:{"method":"elicitation/create","params":{"mode":"url","message":`...)
	r = quote(r, message)
	r = append(r, `,"url":`...)
	r = quote(r, url)
	r = append(r, `}}},"requestState":`...)
	r = quote(r, state)
	return ResultMessage(id, append(r, '}'))
}

// URLElicitation is the data of error -32042 (2025-11-25).
func URLElicitation(elicitationID, message, url string) []byte {
	d := []byte(`{"elicitations":[{"mode":"url","elicitationId":`)
	d = quote(d, elicitationID)
	d = append(d, `,"url":`...)
	d = quote(d, url)
	d = append(d, `,"message":`...)
	d = quote(d, message)
	return append(d, `}]}`...)
}

// ElicitationComplete is the notification that the person has answered (2025-11-25).
func ElicitationComplete(elicitationID string) []byte {
	b := []byte(`{"jsonrpc":"2.0","method":"notifications/elicitation/complete","params":{"elicitationId":`)
	return append(quote(b, elicitationID), `}}`...)
}
