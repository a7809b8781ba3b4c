package backup

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"reflect"
	"testing"

	"frontdesk.dev/frontdesk/internal/store/whole"
)

var everyKind = whole.Table{Name: "t", Columns: []whole.Column{{Name: "i", Kind: whole.Int}, {Name: "b", Kind: whole.Bool}, {Name: "t", Kind: whole.Text}, {Name: "x", Kind: whole.Blob}}}

// FuzzRow: whatever is read as a row is written as the same row again, and nothing that is no row takes memory or panics.
func FuzzRow(f *testing.F) {
	var b bytes.Buffer
	w := &writer{to: &b, sum: sha256.New()}
	if err := w.row(1, []any{int64(-5), true, "text", []byte{0, 1}}); err != nil {
		f.Fatal(err)
	}
	if err := w.flush(); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Add([]byte{1, 2, 0, 0xff, 0xff, 0xff, 0xff, 0x03})
	f.Add([]byte{1, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01})
	f.Fuzz(func(t *testing.T, in []byte) {
		row := func(in []byte) ([]any, error) {
			r := newReader(bytes.NewReader(in), bufio.NewReader(bytes.NewReader(nil)))
			if _, err := r.uvarint(); err != nil {
				return nil, err
			}
			return r.row(everyKind)
		}
		values, err := row(in)
		if err != nil {
			return
		}
		var b bytes.Buffer
		w := &writer{to: &b, sum: sha256.New()}
		if err := w.row(1, values); err != nil {
			t.Fatal(err)
		}
		if err := w.flush(); err != nil {
			t.Fatal(err)
		}
		again, err := row(b.Bytes())
		if err != nil || !reflect.DeepEqual(values, again) {
			t.Fatalf("%v became %v (%v)", values, again, err)
		}
	})
}
