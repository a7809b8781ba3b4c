package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"slices"
	"strconv"
)

// File keeps checkpoints at the end of a file, which is opened for appending alone: it may be on a disk that takes nothing
// else (chattr +a, a share that is written once).
type File struct{ Path string }

// String implements Outside.
func (f File) String() string { return f.Path }

// Keep implements Outside.
func (f File) Keep(_ context.Context, c Checkpoint) error {
	file, err := os.OpenFile(f.Path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(slices.Concat(f.gap(), c.Signed, []byte{'\n'}))
	return errors.Join(err, file.Sync(), file.Close())
}

// gap ends what a power loss cut short, so that it spoils nothing after it.
func (f File) gap() []byte {
	file, err := os.Open(f.Path)
	if err != nil {
		return []byte("\n\n")
	}
	defer func() { _ = file.Close() }() // it was only read
	info, err := file.Stat()
	if err != nil || info.Size() == 0 {
		return nil
	}
	end := make([]byte, 2)
	if _, err := file.ReadAt(end, info.Size()-2); err != nil || string(end) != "\n\n" {
		return []byte("\n\n")
	}
	return nil
}

// tailOf is more than one checkpoint takes, also one that names a hundred chains.
const tailOf = 64 << 10

// Last implements Outside.
func (f File) Last(context.Context) ([]byte, error) {
	file, err := os.Open(f.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }() // it was only read
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	tail, err := io.ReadAll(io.NewSectionReader(file, max(0, info.Size()-tailOf), tailOf))
	if err != nil {
		return nil, err
	}
	// A write that a power loss cut short is no checkpoint: the one before it counts.
	l := Split(tail)
	for i := len(l) - 1; i >= 0; i-- {
		if _, err := ParseCheckpoint(l[i]); err == nil {
			return l[i], nil
		}
	}
	return nil, nil
}

// Web keeps checkpoints at a URL: with PUT each under its number, URL/<number>, as an object store wants it; with POST all at
// the URL itself. Any answer of 2xx means that it is kept.
type Web struct {
	URL    string
	Method string // PUT or POST
	Token  func() (string, error)
	HTTP   http.RoundTripper
}

// String implements Outside.
func (w Web) String() string { return w.URL }

// Keep implements Outside.
func (w Web) Keep(ctx context.Context, c Checkpoint) error {
	to := w.URL
	if w.Method == http.MethodPut {
		to += "/" + strconv.FormatInt(c.Number, 10)
	}
	r, err := http.NewRequestWithContext(ctx, w.Method, to, bytes.NewReader(c.Signed))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "text/plain; charset=utf-8")
	token, err := w.Token()
	if err != nil {
		return err
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := w.HTTP.RoundTrip(r)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if _, err := io.Copy(io.Discard, io.LimitReader(resp.Body, tailOf)); err != nil {
		return err
	}
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("it answered %s", resp.Status)
	}
	return nil
}

// Last implements Outside: such a place is written to and not asked.
func (w Web) Last(context.Context) ([]byte, error) { return nil, nil }
