// Package frame is how a message travels within the body of another one: four bytes of length and a head in JSON; bodies in pieces where
// trailers follow.
package frame

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"io"
	"maps"
	"net/http"

	"frontdesk.dev/frontdesk/internal/kit/fault"
)

// Max bounds a head: the headers of a message, which are bounded where they come from.
const Max = 256 << 10

// Write makes a head.
func Write(v any) ([]byte, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	return append(binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(b)), uint32(len(b))), b...), nil
}

// Read is the inverse of Write; fault.Invalid for one that is too large.
func Read(r io.Reader, into any) error {
	var size [4]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return err
	}
	n := binary.BigEndian.Uint32(size[:])
	if n > Max {
		return fault.New(fault.Invalid, "the head of a message is too large", nil)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		return err
	}
	return json.Unmarshal(b, into)
}

// Names are those of a trailer that is announced.
func Names(h http.Header) []string {
	var l []string
	for name := range h {
		l = append(l, name)
	}
	return l
}

// Announced makes the map that is filled in at the end; nil where nothing was announced.
func Announced(l []string) http.Header {
	h := http.Header{}
	for _, name := range l {
		h[http.CanonicalHeaderKey(name)] = nil
	}
	return h
}

// Pieces is a body with its trailers: pieces of what there is, each behind its length; one of none; then the trailers as a head.
type Pieces struct {
	io.ReadCloser
	Trailer func() http.Header
	ready   bytes.Buffer
	over    bool
}

func (b *Pieces) Read(p []byte) (int, error) {
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
			last, err := Write(b.Trailer())
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

// Whole is the inverse of Pieces.
type Whole struct {
	io.ReadCloser
	Trailer http.Header // to be filled in
	left    uint32
	over    bool
}

func (b *Whole) Read(p []byte) (int, error) {
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
			if err := Read(b.ReadCloser, &h); err != nil {
				return 0, io.ErrUnexpectedEOF
			}
			maps.Copy(b.Trailer, h)
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
