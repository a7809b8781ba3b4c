package redact

import (
	"bytes"
	"io"
)

// Buffers start small, since most streams are idle or short, and grow while reads fill them.
const firstBuffer, lastBuffer = 2 << 10, 64 << 10

// reader cleans a stream. It keeps the bytes from the first undecided one on, as they came and as they may go out.
type reader struct {
	redactor *Redactor
	src      io.Reader
	raw      []byte // what came
	covered  []byte // the same with marks covered, as far as they are known; nil as long as there are none in raw
	decided  int    // raw[:decided] holds no start of a mark that isn't covered
	ready    int    // so much may go out
	sent     int    // and has
	err      error  // src's last word
}

func (r *reader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for r.sent == r.ready {
		if r.err != nil {
			return 0, r.err
		}
		if !r.fill() {
			return 0, nil
		}
	}
	clean := r.raw
	if r.covered != nil {
		clean = r.covered
	}
	n := copy(p, clean[r.sent:r.ready])
	r.sent += n
	return n, nil
}

// fill forgets what is decided and reads once. It reports false where src gave neither bytes nor an error.
func (r *reader) fill() bool {
	kept := copy(r.raw, r.raw[r.decided:])
	if r.covered = r.covered[min(r.decided, len(r.covered)):]; len(r.covered) == 0 {
		r.covered = nil
	}
	r.sent -= r.decided
	r.grow(kept)
	n, err := r.src.Read(r.raw[kept:cap(r.raw)])
	if n == 0 && err == nil {
		r.raw, r.decided, r.ready = r.raw[:kept], 0, r.sent
		return false
	}
	r.err = err
	r.raw = r.raw[:kept+n]
	if r.covered != nil {
		r.covered = append(r.covered, r.raw[kept:]...)
	}
	var found []span
	found, r.decided = r.redactor.tables().scan(r.raw, err == io.EOF)
	if len(found) > 0 && r.covered == nil {
		r.covered = bytes.Clone(r.raw)
	}
	r.redactor.cover(r.covered, r.raw, found)
	if cut := r.redactor.told(len(found)); cut != nil {
		r.err, r.ready = cut, r.sent
		return true
	}
	r.ready = max(r.decided, r.sent)
	if err == nil && len(r.raw)-r.decided <= r.redactor.table.early {
		r.ready = len(r.raw)
	}
	return true
}

// grow makes room after the first `kept` bytes, more where the last read left none.
func (r *reader) grow(kept int) {
	size := cap(r.raw)
	if len(r.raw) == size || size-kept < firstBuffer/2 {
		size = max(firstBuffer, min(2*size, lastBuffer), 2*kept)
	}
	if size <= cap(r.raw) {
		r.raw = r.raw[:kept]
		return
	}
	wider := make([]byte, kept, size)
	copy(wider, r.raw)
	r.raw = wider
}
