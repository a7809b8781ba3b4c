// Package redact takes a credential out of whatever comes back.
//
// A mark is a byte string that may not be seen. It is found raw, escaped for JSON, for a URL or for HTML (each byte
// by itself, so any mixture), in hex, in base64 and base64url wherever the mark lies in the encoded text, in reverse,
// across line breaks within any of these, and across any border between two reads. What is found is overwritten with
// asterisks, byte for byte: lengths, ranges, chunk sizes and the frames of WebSocket and gRPC stay right, and JSON stays
// JSON. Bytes that cannot be the start of a mark are never held back. Compressed answers are decoded first, and passed on
// as they are then; of WebSockets the payloads are cleaned, across the borders of frames.
//
// The package trusts nobody's framing, and does not try to understand content. It cannot undo what was encrypted, or
// encoded in another way: an answer in a coding that it does not know, or a part of an answer, is refused (Response). A
// mark shorter than MinMark bytes is ignored, as it would be found everywhere. What it cannot hide: whoever can make an upstream echo a guess at
// the very end of a chunk, and then pause, sees by the delay that the guess is the beginning of a mark.
package redact

import (
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// MinMark is the length in bytes from which on a mark is looked for.
const MinMark = 8

// filler is a character that needs no escape in JSON, HTML, URLs and headers; fillerBase64 are three of them.
const filler, fillerBase64 = '*', "Kioq"

// Redactor takes marks out of bytes. It is safe for concurrent use and worth keeping for as long as its marks: the first
// use builds its tables.
type Redactor struct {
	*known
	hits atomic.Int64
	tell func(hits int) error // may be nil

	masks []string // of answers
}

// known is what Redactors for the same marks share.
type known struct {
	marks [][]byte
	build sync.Once
	table *table
}

// New returns a Redactor for these marks, which the caller may not change afterwards. With none that is long enough,
// it changes nothing.
func New(marks [][]byte) *Redactor {
	r := &Redactor{known: &known{}}
	for _, m := range marks {
		if len(m) >= MinMark {
			r.marks = append(r.marks, m)
		}
	}
	return r
}

// Telling returns a Redactor for the same marks, with hits of its own. It calls tell with the number of marks that were
// found, before what was around them is passed on; if tell returns an error, that is passed on instead.
func (r *Redactor) Telling(tell func(hits int) error) *Redactor {
	return &Redactor{known: r.known, tell: tell}
}

func (r *Redactor) told(hits int) error {
	if hits == 0 || r.tell == nil {
		return nil
	}
	return r.tell(hits)
}

// Hits returns how often a mark was found so far. A place that two marks share counts for each place where one begins.
func (r *Redactor) Hits() int64 { return r.hits.Load() }

// Bytes returns b without the marks: b itself where there are none, else a copy.
func (r *Redactor) Bytes(b []byte) []byte {
	if clean, hits := r.scrub(b); hits > 0 {
		return clean
	}
	return b
}

// String is Bytes for a string.
func (r *Redactor) String(s string) string {
	if len(s) < MinMark || len(r.marks) == 0 {
		return s
	}
	if clean, hits := r.scrub([]byte(s)); hits > 0 {
		return string(clean)
	}
	return s
}

// Header cleans the values of h in place and returns how many marks it found. gRPC's binary values stay base64.
func (r *Redactor) Header(h http.Header) (hits int) {
	var scratch []byte
	for name, values := range h {
		for i, v := range values {
			if len(v) < MinMark {
				continue
			}
			scratch = append(scratch[:0], v...)
			if clean, n := r.scrub(scratch); n > 0 {
				for at := range clean {
					if strings.HasSuffix(name, "-Bin") && clean[at] == filler {
						clean[at] = fillerBase64[at%len(fillerBase64)]
					}
				}
				values[i] = string(clean)
				hits += n
			}
		}
	}
	return hits
}

// Reader returns src without the marks. A Read that gets bytes returns them at once, but for a tail that is the beginning
// of a mark; if src then ends with an error other than io.EOF, the tail is dropped.
func (r *Redactor) Reader(src io.Reader) io.Reader {
	if len(r.marks) == 0 {
		return src
	}
	return &reader{redactor: r, src: src}
}

func (k *known) tables() *table {
	k.build.Do(func() { k.table = newTable(k.marks) })
	return k.table
}

// scrub returns a clean copy of b, if there was anything to find.
func (r *Redactor) scrub(b []byte) (clean []byte, hits int) {
	if len(r.marks) == 0 {
		return nil, 0
	}
	found, _ := r.tables().scan(b, wholeText)
	if len(found) == 0 {
		return nil, 0
	}
	clean = slices.Clone(b)
	r.cover(clean, b, found)
	return clean, len(found)
}

// cover overwrites the spans of text in clean, which is as long as text.
func (r *Redactor) cover(clean, text []byte, spans []span) {
	r.hits.Add(int64(len(spans)))
	done := 0 // spans come in order of their start and may overlap
	for _, s := range spans {
		for i := max(s.from, done); i < s.to; i++ {
			if n := breakAt(text, i, s.to); n > 0 {
				i += n - 1
				continue
			}
			clean[i] = filler
		}
		done = max(done, s.to)
	}
}

// breakAt returns the length of the line break, with SSE's field name behind it, at text[i:to]. It stays, or the text
// would no longer be the stream of lines that it was.
func breakAt(text []byte, i, to int) int {
	switch text[i] {
	case '\r':
		return 1
	case '\n':
		return 1 + dataField(text[i+1:to])
	}
	return 0
}
