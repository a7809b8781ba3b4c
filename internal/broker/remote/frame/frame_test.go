package frame_test

import (
	"bytes"
	"io"
	"net/http"
	"testing"

	"frontdesk.dev/frontdesk/internal/broker/remote/frame"
)

// FuzzWhole: what Pieces cuts, Whole puts together with its trailers; of bytes that are none of its own it makes no more than there are,
// and never an end that is not one.
func FuzzWhole(f *testing.F) {
	f.Add([]byte("a body"), "sum")
	f.Add([]byte{0, 0, 0, 0, 0, 0, 0, 2, '{', '}'}, "")
	f.Add([]byte{0, 0, 0, 0, 255, 255, 255, 255}, "x")
	f.Fuzz(func(t *testing.T, body []byte, sum string) {
		trailer := http.Header{"X-Sum": {sum}}
		cut := &frame.Pieces{ReadCloser: io.NopCloser(bytes.NewReader(body)), Trailer: func() http.Header { return trailer }}
		pieces, err := io.ReadAll(cut)
		if err != nil {
			t.Fatal(err)
		}
		put := &frame.Whole{ReadCloser: io.NopCloser(bytes.NewReader(pieces)), Trailer: frame.Announced([]string{"x-sum"})}
		got, err := io.ReadAll(put)
		if err != nil || !bytes.Equal(got, body) || len(put.Trailer["X-Sum"]) != 1 {
			t.Errorf("%q became %q: %v", body, got, err)
		}
		for _, n := range []int{len(pieces) - 1, len(pieces) / 2, 3} {
			if _, err := io.ReadAll(&frame.Whole{ReadCloser: io.NopCloser(bytes.NewReader(pieces[:n])), Trailer: http.Header{}}); err == nil {
				t.Errorf("%d of %d bytes are taken for all", n, len(pieces))
			}
		}
		if got, _ := io.ReadAll(&frame.Whole{ReadCloser: io.NopCloser(bytes.NewReader(body)), Trailer: http.Header{}}); len(got) > len(body) {
			t.Errorf("%d bytes became %d", len(body), len(got))
		}
	})
}
