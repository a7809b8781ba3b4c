package backup

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"

	"frontdesk.dev/frontdesk/internal/store/whole"
)

// writer writes what a backup is made of, and sums it up.
type writer struct {
	to  io.Writer
	sum hash.Hash
	buf []byte
}

const bufferSize = 64 << 10

func (w *writer) flush() error {
	w.sum.Write(w.buf) // a hash has no errors
	_, err := w.to.Write(w.buf)
	w.buf = w.buf[:0]
	return err
}

func (w *writer) full() error {
	if len(w.buf) < bufferSize {
		return nil
	}
	return w.flush()
}

func (w *writer) uvarint(n uint64) error {
	w.buf = binary.AppendUvarint(w.buf, n)
	return w.flush()
}

func (w *writer) json(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	w.buf = append(binary.AppendUvarint(w.buf, uint64(len(b))), b...)
	return w.flush()
}

func (w *writer) row(table int, values []any) error {
	w.buf = binary.AppendUvarint(w.buf, uint64(table))
	for _, v := range values {
		switch v := v.(type) {
		case int64:
			w.buf = binary.AppendVarint(w.buf, v)
		case bool:
			w.buf = append(w.buf, 0)
			if v {
				w.buf[len(w.buf)-1] = 1
			}
		case string:
			w.buf = append(binary.AppendUvarint(w.buf, uint64(len(v))), v...)
		case []byte:
			w.buf = append(binary.AppendUvarint(w.buf, uint64(len(v))), v...)
		default:
			return fmt.Errorf("backup: a value is a %T", v)
		}
	}
	return w.full()
}

// reader is its inverse. What it reads is authenticated, but of a program that may have had a bug, so nothing is believed
// that would take memory or end in a panic.
type reader struct {
	from   *bufio.Reader
	packed *bufio.Reader // below the compression
	sum    hash.Hash     // of what was taken, not of what waits in the buffer
	one    [1]byte
}

func newReader(unpacked io.Reader, packed *bufio.Reader) *reader {
	return &reader{from: bufio.NewReaderSize(unpacked, bufferSize), packed: packed, sum: sha256.New()}
}

// ReadByte implements io.ByteReader.
func (r *reader) ReadByte() (byte, error) {
	b, err := r.from.ReadByte()
	if err == nil {
		r.one[0] = b
		r.sum.Write(r.one[:]) // a hash has no errors
	}
	return b, err
}

func (r *reader) fill(b []byte) error {
	_, err := io.ReadFull(r.from, b)
	r.sum.Write(b)
	return err
}

// end makes sure that nothing follows, neither in what was compressed nor in what was sealed.
func (r *reader) end() error {
	for _, from := range []*bufio.Reader{r.from, r.packed} {
		if _, err := from.ReadByte(); err != io.EOF {
			return errors.Join(errBad, err)
		}
	}
	return nil
}

var errBad = errors.New("backup: what is written here is no value")

func (r *reader) uvarint() (uint64, error) { return binary.ReadUvarint(r) }

func (r *reader) bytes(most uint64) ([]byte, error) {
	n, err := r.uvarint()
	if err != nil {
		return nil, err
	}
	if n > most {
		return nil, errBad
	}
	// Grown as it comes: a length alone takes no memory.
	b := make([]byte, 0, min(n, bufferSize))
	for uint64(len(b)) < n {
		more := min(n-uint64(len(b)), bufferSize)
		b = append(b, make([]byte, more)...)
		if err := r.fill(b[uint64(len(b))-more:]); err != nil {
			return nil, err
		}
	}
	return b, nil
}

func (r *reader) json(v any) error {
	b, err := r.bytes(maxHead)
	if err != nil {
		return err
	}
	return json.Unmarshal(b, v)
}

func (r *reader) row(t whole.Table) ([]any, error) {
	values := make([]any, len(t.Columns))
	for i, c := range t.Columns {
		var err error
		switch c.Kind {
		case whole.Int:
			values[i], err = binary.ReadVarint(r)
		case whole.Bool:
			var b byte
			b, err = r.ReadByte()
			values[i] = b == 1
		case whole.Text:
			var b []byte
			b, err = r.bytes(maxValue)
			values[i] = string(b)
		case whole.Blob:
			values[i], err = r.bytes(maxValue)
		default:
			err = errBad
		}
		if err != nil {
			return nil, err
		}
	}
	return values, nil
}
