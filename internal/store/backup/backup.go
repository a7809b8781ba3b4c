// Package backup answers: how does a whole database become one file, and a file one database again?
//
// The file is one format for SQLite and PostgreSQL, so it also moves a deployment from one to the other. It is sealed as a
// whole, names and scopes too, under a key of its own that the deployment's key provider wraps, and is worth nothing without
// that provider. It trusts nothing in a file before it is authenticated: a file that was cut, altered or joined is refused,
// and what was read until then is rolled back. It holds no key file: whoever keeps both together keeps every credential.
package backup

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/tink-crypto/tink-go/v2/insecurecleartextkeyset"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/streamingaead"
	"github.com/tink-crypto/tink-go/v2/tink"

	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/store"
	"frontdesk.dev/frontdesk/internal/store/whole"
	"frontdesk.dev/frontdesk/internal/vault/keyring"
)

// The file is (docs/operate.md, Backup)
//
//	magic ‖ length (4) ‖ wrapped keyset ‖ Tink streaming AEAD of gzip of ( manifest ‖ rows ‖ 0 ‖ trailer )
//
// The associated data is all that stands before. A row is the number of its table from 1 on, and its values by the columns'
// kinds: varints, one byte, or a length and that many bytes. Manifest and trailer are a length and JSON.
const (
	magic      = "frontdesk/backup/v1\n"
	aadWrapped = "frontdesk/backup/v1\x00"

	maxWrapped = 64 << 10
	maxHead    = 1 << 20
	maxValue   = 1 << 30 // SQLite's own bound
)

// Manifest says what is in a backup.
type Manifest struct {
	Made     time.Time     `json:"made"`
	By       string        `json:"by"`     // version of Frontdesk
	Schema   int64         `json:"schema"` // version of the tables
	Database string        `json:"database"`
	Tables   []whole.Table `json:"tables"`
}

// Trailer closes a backup.
type Trailer struct {
	Rows   map[string]int64 `json:"rows"`
	SHA256 []byte           `json:"sha256"` // of everything before, as it was before compression
}

// Total is the number of rows.
func (t Trailer) Total() (n int64) {
	for _, rows := range t.Rows {
		n += rows
	}
	return n
}

// Progress is told how many rows of a table are done, every few thousand of them and at the end of each table.
type Progress func(table string, rows int64)

const tellEvery = 5000

func (p Progress) tell(table string, rows int64, end bool) {
	if p != nil && (end || rows%tellEvery == 0) {
		p(table, rows)
	}
}

var errDamaged = fault.New(fault.Invalid, "this backup is cut off, or was altered; nothing was restored", nil)

// Write makes a backup of db as it is now and writes it to w. m needs Made, By and Database. Memory does not grow with the
// database. fault.Unavailable where the key provider or the database is away.
func Write(ctx context.Context, db *store.DB, wrap keyring.Wrapper, w io.Writer, m Manifest, p Progress) (Trailer, error) {
	t := Trailer{Rows: map[string]int64{}}
	sealed, err := sealing(ctx, wrap, w)
	if err != nil {
		return t, err
	}
	packed, err := gzip.NewWriterLevel(sealed, gzip.BestSpeed)
	if err != nil {
		return t, err
	}
	out := &writer{to: packed, sum: sha256.New()}
	err = db.Snapshot(ctx, func(s *whole.Snapshot) error {
		m.Schema, m.Tables = s.Version, s.Tables
		if err := out.json(m); err != nil {
			return err
		}
		for i, table := range s.Tables {
			n := int64(0)
			if err := s.Rows(ctx, table, func(values []any) error {
				n++
				p.tell(table.Name, n, false)
				return out.row(i+1, values)
			}); err != nil {
				return err
			}
			t.Rows[table.Name] = n
			p.tell(table.Name, n, true)
		}
		return nil
	})
	if err != nil {
		return t, err
	}
	if err := out.uvarint(0); err != nil {
		return t, err
	}
	t.SHA256 = out.sum.Sum(nil)
	if err := out.json(t); err != nil {
		return t, err
	}
	if err := out.flush(); err != nil {
		return t, err
	}
	return t, errors.Join(packed.Close(), sealed.Close())
}

// sealing writes the head and returns what seals everything after it.
func sealing(ctx context.Context, wrap keyring.Wrapper, w io.Writer) (io.WriteCloser, error) {
	h, err := keyset.NewHandle(streamingaead.AES256GCMHKDF4KBKeyTemplate())
	if err != nil {
		return nil, err
	}
	var plain bytes.Buffer
	if err := insecurecleartextkeyset.Write(h, keyset.NewBinaryWriter(&plain)); err != nil {
		return nil, err
	}
	wrapped, err := wrap.Wrap(ctx, plain.Bytes(), []byte(aadWrapped))
	clear(plain.Bytes())
	if err != nil {
		return nil, err
	}
	head := append(binary.BigEndian.AppendUint32([]byte(magic), uint32(len(wrapped))), wrapped...)
	if _, err := w.Write(head); err != nil {
		return nil, err
	}
	a, err := streamingaead.New(h)
	if err != nil {
		return nil, err
	}
	return a.NewEncryptingWriter(w, head)
}

// Reader reads a backup, authenticated as far as it has come. Only a whole one is to be believed: see Rows.
type Reader struct {
	Manifest Manifest
	in       *reader
}

// Open reads the head and the manifest. fault.Invalid for what is no backup, or not one that this key provider opens.
func Open(ctx context.Context, wrap keyring.Wrapper, r io.Reader) (*Reader, error) {
	r = source{r}
	head := make([]byte, len(magic)+4)
	if _, err := io.ReadFull(r, head); err != nil && !cut(err) {
		return nil, broken(err)
	}
	if string(head[:len(magic)]) != magic {
		return nil, fault.New(fault.Invalid, "this is no backup of Frontdesk, or one of a newer kind", nil)
	}
	size := binary.BigEndian.Uint32(head[len(magic):])
	if size == 0 || size > maxWrapped {
		return nil, errDamaged
	}
	wrapped := make([]byte, size)
	if _, err := io.ReadFull(r, wrapped); err != nil {
		return nil, broken(err)
	}
	plain, err := wrap.Unwrap(ctx, wrapped, []byte(aadWrapped))
	if k := fault.KindOf(err); k == fault.Unavailable || k == fault.Denied {
		return nil, err // the provider's own word
	}
	if err != nil {
		return nil, fault.New(fault.Invalid, "this backup does not open with this deployment's key: it was made under another key, or was altered; nothing was restored", nil)
	}
	a, err := opening(plain)
	clear(plain)
	if err != nil {
		return nil, errDamaged
	}
	opened, err := a.NewDecryptingReader(r, append(head, wrapped...))
	if err != nil {
		return nil, broken(err)
	}
	packed := bufio.NewReaderSize(opened, bufferSize)
	unpacked, err := gzip.NewReader(packed)
	if err != nil {
		return nil, broken(err)
	}
	unpacked.Multistream(false)
	b := &Reader{in: newReader(unpacked, packed)}
	if err := b.in.json(&b.Manifest); err != nil {
		return nil, broken(err)
	}
	if b.Manifest.Schema < 1 {
		return nil, errDamaged
	}
	return b, nil
}

func opening(plain []byte) (tink.StreamingAEAD, error) {
	h, err := insecurecleartextkeyset.Read(keyset.NewBinaryReader(bytes.NewReader(plain)))
	if err != nil {
		return nil, err
	}
	return streamingaead.New(h)
}

// Rows calls f for each row of each table, in the manifest's order, then with nil values at the end of a table. It returns nil
// only if the backup was whole to its last byte: what f did before that is to be undone with an error.
func (b *Reader) Rows(f func(t whole.Table, values []any) error, p Progress) (Trailer, error) {
	want := Trailer{}
	counts, current := map[string]int64{}, -1
	end := func() error {
		if current < 0 {
			return nil
		}
		name := b.Manifest.Tables[current].Name
		p.tell(name, counts[name], true)
		return f(b.Manifest.Tables[current], nil)
	}
	for {
		i, err := b.in.uvarint()
		if err != nil {
			return want, broken(err)
		}
		if i > uint64(len(b.Manifest.Tables)) || i > 0 && int(i)-1 < current {
			return want, errDamaged
		}
		if n := int(i) - 1; n != current {
			if err := end(); err != nil {
				return want, err
			}
			current = n
		}
		if i == 0 {
			break
		}
		t := b.Manifest.Tables[current]
		values, err := b.in.row(t)
		if err != nil {
			return want, broken(err)
		}
		counts[t.Name]++
		p.tell(t.Name, counts[t.Name], false)
		if err := f(t, values); err != nil {
			return want, err
		}
	}
	sum := b.in.sum.Sum(nil)
	if err := b.in.json(&want); err != nil {
		return want, broken(err)
	}
	for _, t := range b.Manifest.Tables {
		if counts[t.Name] != want.Rows[t.Name] {
			return want, errDamaged
		}
	}
	if !bytes.Equal(sum, want.SHA256) {
		return want, errDamaged
	}
	if err := b.in.end(); err != nil {
		return want, broken(err)
	}
	return want, nil
}

// broken makes of whatever went wrong inside the sealed part the one sentence; an error of reading stays one.
func broken(err error) error {
	if pass, ok := errors.AsType[*readError](err); ok {
		return fmt.Errorf("reading the backup: %w", pass.error)
	}
	return errDamaged
}

func cut(err error) bool { return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) }

// source tells errors of reading from those of what was read.
type source struct{ io.Reader }

type readError struct{ error }

func (s source) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p)
	if err != nil && !cut(err) {
		err = &readError{err}
	}
	return n, err
}
