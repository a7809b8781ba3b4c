package mcp

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/http"
	"sync"
	"time"
)

// MaxEvent bounds one server-sent event.
const MaxEvent = 16 << 20

// Event is one server-sent event. Raw is the whole block with its blank line.
type Event struct {
	Raw   []byte
	Type  string
	Data  []byte // lines of data joined by LF; nil where there are none
	ID    string
	Retry string // milliseconds, as the server wrote them
}

// Message reports whether the event carries an MCP message: an absent type or "message", and data.
func (e *Event) Message() bool {
	return (e.Type == "" || e.Type == "message") && len(bytes.TrimSpace(e.Data)) > 0
}

// Events reads a stream by the WHATWG rules: lines end in CR, LF or CRLF; a block without its blank line at the end is dropped.
// Raw is written anew with LF: readers that know fewer line ends than we do must see the same events.
type Events struct {
	r     *bufio.Reader
	first bool
	cr    bool // the last line ended in CR: an LF that follows belongs to it
}

// NewEvents reads from r.
func NewEvents(r io.Reader) *Events { return &Events{r: bufio.NewReaderSize(r, 16<<10), first: true} }

// ErrEventTooLarge ends a stream whose event passes MaxEvent.
var ErrEventTooLarge = errors.New("mcp: a server-sent event is too large")

// Next returns the next event, io.EOF at the end of the stream. Comments come as events without data.
func (s *Events) Next() (Event, error) {
	var e Event
	for {
		line, err := s.line(len(e.Raw))
		if err != nil {
			return Event{}, err
		}
		if s.first {
			line = bytes.TrimPrefix(line, []byte("\xef\xbb\xbf"))
			s.first = false
		}
		e.Raw = append(append(e.Raw, line...), '\n')
		if len(line) == 0 {
			return e, nil
		}
		if line[0] == ':' {
			continue
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimPrefix(value, []byte(" "))
		switch string(name) {
		case "event":
			e.Type = string(value)
		case "id":
			e.ID = string(value)
		case "retry":
			e.Retry = string(value)
		case "data":
			if e.Data != nil {
				e.Data = append(e.Data, '\n')
			}
			e.Data = append(e.Data, value...)
			if e.Data == nil {
				e.Data = []byte{}
			}
		}
	}
}

// line reads up to a line end, without it.
func (s *Events) line(have int) (line []byte, err error) {
	for {
		c, err := s.r.ReadByte()
		if err != nil {
			return nil, err
		}
		afterCR := s.cr
		s.cr = c == '\r'
		switch {
		case c == '\n' && afterCR:
			continue // the second half of a CRLF, however late it came
		case c == '\n' || c == '\r':
			return line, nil
		}
		if line = append(line, c); have+len(line) > MaxEvent {
			return nil, ErrEventTooLarge
		}
	}
}

// Stream writes server-sent events to a client. It owns the ResponseWriter from StartStream to Close: comments and events never
// interleave, and after Close nothing is written. Safe for concurrent use.
type Stream struct {
	mu  sync.Mutex
	w   http.ResponseWriter
	rc  *http.ResponseController
	err error
}

// writeTimeout bounds one event: a client that reads slower than this is cut.
const writeTimeout = 30 * time.Second

// StartStream sends the head, and a comment at once: some proxies hold a head back until there is a body.
func StartStream(w http.ResponseWriter, status int) *Stream {
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-cache, no-transform")
	h.Set("X-Accel-Buffering", "no")
	h.Del("Content-Length")
	w.WriteHeader(status)
	s := &Stream{w: w, rc: http.NewResponseController(w)}
	s.Comment()
	return s
}

func (s *Stream) write(parts ...[]byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return s.err
	}
	// A ResponseWriter without deadlines (a test's recorder) cannot hang either.
	_ = s.rc.SetWriteDeadline(time.Now().Add(writeTimeout))
	for _, p := range parts {
		if _, s.err = s.w.Write(p); s.err != nil {
			return s.err
		}
	}
	if err := s.rc.Flush(); err != nil && !errors.Is(err, http.ErrNotSupported) {
		s.err = err
	}
	return s.err
}

// Close ends the stream: whoever still writes is told so. It must be called before the handler returns.
func (s *Stream) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.err = http.ErrHandlerTimeout
	}
	// The connection may serve another request: the deadline was this stream's.
	_ = s.rc.SetWriteDeadline(time.Time{})
}

// Comment keeps the connection alive.
func (s *Stream) Comment() { _ = s.write([]byte(":\n\n")) }

// Event passes on an event as it came.
func (s *Stream) Event(raw []byte) error { return s.write(raw) }

// Message writes one JSON-RPC message.
func (s *Stream) Message(msg []byte) error {
	return s.write([]byte("event: message\ndata: "), oneLine(msg), []byte("\n\n"))
}

// oneLine removes line ends, which in JSON can only stand between tokens.
func oneLine(msg []byte) []byte {
	if bytes.IndexByte(msg, '\n') < 0 && bytes.IndexByte(msg, '\r') < 0 {
		return msg
	}
	return bytes.Map(func(r rune) rune {
		if r == '\n' || r == '\r' {
			return ' '
		}
		return r
	}, msg)
}

// KeepAlive writes a comment every interval until stop is called.
func (s *Stream) KeepAlive(interval time.Duration) (stop func()) {
	done := make(chan struct{})
	go func() {
		t := time.NewTicker(interval)
		defer t.Stop()
		for {
			select {
			case <-done:
				return
			case <-t.C:
				s.Comment()
			}
		}
	}()
	return sync.OnceFunc(func() { close(done) })
}

// EventOf is the server-sent event that carries a message.
func EventOf(msg []byte) []byte {
	return append(append([]byte("event: message\ndata: "), oneLine(msg)...), "\n\n"...)
}

// Line is a message as stdio carries it: one line, with its end.
func Line(msg []byte) []byte {
	return append(append(make([]byte, 0, len(msg)+1), oneLine(msg)...), '\n')
}
