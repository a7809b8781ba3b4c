package redact

import (
	"bytes"
	"errors"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// maxMasked is the largest answer, or event of a stream, in which values are masked, in bytes. It is held in memory.
const maxMasked = 8 << 20

// ErrUnmaskable is an answer in which values have to be masked, and cannot be found: it is no JSON, or too large, or a part.
var ErrUnmaskable = errors.New("the answer, or an event of its stream, is not whole JSON of at most 8 MiB, so that what policy keeps back could not be taken out")

// Masking lets r put null in the place of values in answers, too, before they are passed on. The places are JSON pointers
// (RFC 6901), in which a step `*` is every element or member. A place that is not there is no error. Of a stream (server-sent events,
// lines of JSON, RFC 7464) they are places in each event; the stream ends with ErrUnmaskable at one that is no JSON.
func (r *Redactor) Masking(pointers []string) *Redactor {
	r.masks = pointers
	return r
}

// Response cleans an answer in place: status line, header, body as it is read, and the trailer once the body has ended.
// A coded body is decoded: it is passed on without Content-Encoding and Content-Length, and resp.Uncompressed says so.
// After `101 Switching Protocols` the body stays an io.ReadWriteCloser, of which the reading side is cleaned. On an
// error, which is ErrUncleanable, ErrUnmaskable or what tell said, the body has been closed and nothing of the answer may be used.
func (r *Redactor) Response(resp *http.Response) error {
	if err := r.clean(resp); err != nil || len(r.masks) == 0 {
		return err
	}
	if err := r.mask(resp); err != nil {
		return drop(resp, err)
	}
	return nil
}

func (r *Redactor) mask(resp *http.Response) error {
	switch {
	case resp.StatusCode == http.StatusSwitchingProtocols || resp.StatusCode == http.StatusPartialContent:
		return ErrUnmaskable
	case resp.Body == nil || resp.Body == http.NoBody || resp.Request != nil && resp.Request.Method == http.MethodHead:
		return nil
	}
	coding, known := codings(resp.Header)
	if !known {
		return ErrUnmaskable
	}
	if len(coding) > 0 { // nothing had to be cleaned, so nothing was decoded yet
		decoded(resp, coding)
	}
	for _, name := range []string{"Etag", "Content-Md5", "Digest", "Content-Digest", "Repr-Digest"} {
		resp.Header.Del(name) // of what it was
	}
	places, kind := placesOf(r.masks), mediaType(resp.Header)
	if next := streamed(kind, resp.Body, places); next != nil {
		resp.Body, resp.ContentLength = &maskedStream{next: next, Closer: resp.Body}, -1
		resp.Header.Del("Content-Length")
		return nil
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxMasked+1))
	if err != nil || len(text) > maxMasked {
		return errors.Join(ErrUnmaskable, err)
	}
	if len(text) > 0 {
		if kind != "application/json" && !strings.HasSuffix(kind, "+json") {
			return ErrUnmaskable
		}
		if text, err = masked(text, places); err != nil {
			return ErrUnmaskable
		}
	}
	resp.Body = &replaced{bytes.NewReader(text), resp.Body}
	resp.ContentLength = int64(len(text))
	resp.Header.Set("Content-Length", strconv.Itoa(len(text)))
	return nil
}

// mediaType is "" where there are several, or none.
func mediaType(h http.Header) string {
	if len(h["Content-Type"]) != 1 {
		return ""
	}
	kind, _, err := mime.ParseMediaType(h["Content-Type"][0])
	if err != nil {
		return ""
	}
	return kind
}

type replaced struct {
	io.Reader
	io.Closer
}

// placesOf are the steps of JSON pointers.
func placesOf(pointers []string) (places [][]string) {
	unescape := strings.NewReplacer("~1", "/", "~0", "~")
	for _, p := range pointers {
		steps := strings.Split(strings.TrimPrefix(p, "/"), "/")
		for i := range steps {
			steps[i] = unescape.Replace(steps[i])
		}
		places = append(places, steps)
	}
	return places
}

// masked is one JSON text with null in the places.
func masked(text []byte, places [][]string) ([]byte, error) {
	var out bytes.Buffer
	m := masker{jsontext.NewDecoder(bytes.NewReader(text)), jsontext.NewEncoder(&out)}
	if err := m.value(places); err != nil {
		return nil, err
	}
	if _, err := m.in.ReadToken(); err != io.EOF {
		return nil, ErrUnmaskable // more than one value: another reader takes the second
	}
	return bytes.TrimSuffix(out.Bytes(), []byte("\n")), nil
}

type masker struct {
	in  *jsontext.Decoder
	out *jsontext.Encoder
}

// value copies one value. places are what is masked in it; one without steps is the value itself.
func (m masker) value(places [][]string) error {
	for _, p := range places {
		if len(p) == 0 {
			if err := m.in.SkipValue(); err != nil {
				return err
			}
			return m.out.WriteToken(jsontext.Null)
		}
	}
	kind := m.in.PeekKind()
	if len(places) == 0 || kind != '{' && kind != '[' {
		v, err := m.in.ReadValue()
		if err != nil {
			return err
		}
		return m.out.WriteValue(v)
	}
	if _, err := m.token(); err != nil {
		return err
	}
	end := jsontext.Kind(kind + 2) // the closing one, in ASCII
	for i := 0; m.in.PeekKind() != end; i++ {
		step := strconv.Itoa(i)
		if kind == '{' {
			var err error
			if step, err = m.token(); err != nil {
				return err
			}
		}
		if err := m.value(behind(places, step)); err != nil {
			return err
		}
	}
	_, err := m.token()
	return err
}

// token copies one token, and spells it.
func (m masker) token() (string, error) {
	t, err := m.in.ReadToken()
	if err != nil {
		return "", err
	}
	s := ""
	if t.Kind() == '"' {
		s = t.String()
	}
	return s, m.out.WriteToken(t)
}

// behind are the places in what a step leads to.
func behind(places [][]string, step string) (in [][]string) {
	for _, p := range places {
		if p[0] == "*" || p[0] == step {
			in = append(in, p[1:])
		}
	}
	return in
}
