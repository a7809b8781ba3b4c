package remote

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
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

// maxHead bounds a head: the headers of a message, which are bounded where they come from.
const maxHead = 256 << 10

func writeHead(v any) ([]byte, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	return append(binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(b)), uint32(len(b))), b...), nil
}

func readHead(r io.Reader, into any) error {
	var size [4]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return err
	}
	n := binary.BigEndian.Uint32(size[:])
	if n > maxHead {
		return fault.New(fault.Invalid, "the head of a message is too large", nil)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		return err
	}
	return json.Unmarshal(b, into)
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

// names are those of a trailer that is announced.
func names(h http.Header) []string {
	var l []string
	for name := range h {
		l = append(l, name)
	}
	return l
}

// announced makes the map that is filled in at the end; nil where nothing was announced.
func announced(l []string) http.Header {
	h := http.Header{}
	for _, name := range l {
		h[http.CanonicalHeaderKey(name)] = nil
	}
	return h
}

// pieces is a body with its trailers: pieces of what there is, each behind its length; one of none; then the trailers as a head.
type pieces struct {
	io.ReadCloser
	trailer func() http.Header
	ready   bytes.Buffer
	over    bool
}

func (b *pieces) Read(p []byte) (int, error) {
	for b.ready.Len() == 0 {
		if b.over {
			return 0, io.EOF
		}
		piece := make([]byte, 4+16<<10)
		n, err := b.ReadCloser.Read(piece[4:])
		if n > 0 {
			binary.BigEndian.PutUint32(piece, uint32(n))
			b.ready.Write(piece[:4+n])
		}
		if err != nil && err != io.EOF {
			return 0, err
		}
		if err == io.EOF {
			last, err := writeHead(b.trailer())
			if err != nil {
				return 0, err
			}
			b.ready.Write([]byte{0, 0, 0, 0})
			b.ready.Write(last)
			b.over = true
		}
	}
	return b.ready.Read(p)
}

// whole is the inverse of pieces.
type whole struct {
	io.ReadCloser
	trailer http.Header // to be filled in
	left    uint32
	over    bool
}

func (b *whole) Read(p []byte) (int, error) {
	if b.over {
		return 0, io.EOF
	}
	if b.left == 0 {
		var size [4]byte
		if _, err := io.ReadFull(b.ReadCloser, size[:]); err != nil {
			return 0, io.ErrUnexpectedEOF
		}
		if b.left = binary.BigEndian.Uint32(size[:]); b.left == 0 {
			b.over = true
			var h http.Header
			if err := readHead(b.ReadCloser, &h); err != nil {
				return 0, io.ErrUnexpectedEOF
			}
			maps.Copy(b.trailer, h)
			return 0, io.EOF
		}
	}
	n, err := b.ReadCloser.Read(p[:min(len(p), int(b.left))])
	b.left -= uint32(n)
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}
