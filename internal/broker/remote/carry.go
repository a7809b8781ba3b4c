package remote

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"sync"

	"frontdesk.dev/frontdesk/internal/kit/fault"
)

// A lease's request and its answer travel in a body each: four bytes of length, a head in JSON, then the message's own body as it is. What
// comes after an answer's body (trailers, or why it broke off) stands in one trailer of the outer answer; where that is missing, it broke off.
// A request's body that has trailers is cut in pieces, and they come after the last one: trailers of HTTP/2 that arrive at net/http after it
// has answered end the whole connection.

// headerEnd is that trailer: base64 of an end.
const headerEnd = "Frontdesk-End"

// requestHead is what a lease is asked to send.
type requestHead struct {
	Lease   string      `json:"lease"`
	Method  string      `json:"method"`
	URL     string      `json:"url"`
	Header  http.Header `json:"header"`
	Length  int64       `json:"length"`  // -1: unknown
	Upgrade bool        `json:"upgrade"` // the body is the connection's, both ways, if the other side switches
	Trailer []string    `json:"trailer,omitempty"`
}

// answerHead is how the other side answered.
type answerHead struct {
	Status       int         `json:"status"`
	Header       http.Header `json:"header"`
	Length       int64       `json:"length"`
	Uncompressed bool        `json:"uncompressed,omitempty"`
	Trailer      []string    `json:"trailer,omitempty"`
}

// end is what comes after a body.
type end struct {
	Trailer http.Header `json:"trailer,omitempty"`
	Trouble *trouble    `json:"trouble,omitempty"`
}

func (e end) text() string {
	b, err := json.Marshal(e)
	if err != nil {
		return "" // read as broken off
	}
	return base64.StdEncoding.EncodeToString(b)
}

var errBroken = fault.New(fault.Unavailable, "the connection between gateway and broker broke off; nothing is known of what was done", io.ErrUnexpectedEOF)

// arriving is the body of an answer. Its end is only an end where the trailer says so.
type arriving struct {
	io.ReadCloser
	outer   *http.Response
	trailer http.Header // of the inner message, to be filled in
}

func (a *arriving) Read(p []byte) (int, error) {
	n, err := a.ReadCloser.Read(p)
	if err == nil {
		return n, nil
	}
	if err != io.EOF {
		return n, errors.Join(errBroken, err)
	}
	var e end
	text, derr := base64.StdEncoding.DecodeString(a.outer.Trailer.Get(headerEnd))
	switch {
	case derr != nil || len(text) == 0 || json.Unmarshal(text, &e) != nil:
		return n, errBroken
	case e.Trouble != nil:
		return n, e.Trouble.err()
	}
	maps.Copy(a.trailer, e.Trailer)
	return n, io.EOF
}

// leaving is the body of a request as it is sent: the head, then what there is.
type leaving struct {
	head *bytes.Reader
	body io.ReadCloser

	mu   sync.Mutex
	said error // why the body broke off, guarded by mu
}

func (l *leaving) Read(p []byte) (int, error) {
	if l.head.Len() > 0 {
		return l.head.Read(p)
	}
	n, err := l.body.Read(p)
	if err != nil && err != io.EOF {
		l.mu.Lock()
		l.said = err
		l.mu.Unlock()
	}
	return n, err
}

func (l *leaving) Close() error { return l.body.Close() }

// why is what made the body break off, nil if nothing did.
func (l *leaving) why() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.said
}

// both is a connection that has switched protocols.
type both struct {
	io.Reader
	io.Writer
	close func() error
}

func (b both) Close() error { return b.close() }
