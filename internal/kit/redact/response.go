package redact

import (
	"errors"
	"io"
	"net/http"
	"strings"
)

// ErrUncleanable is the answer that Response cannot clean: a part of a body may begin in the middle of a mark, and in
// compressed bytes a mark is not itself.
var ErrUncleanable = errors.New("the answer is partial or compressed, so a credential in it could not be taken out; ask without Range and for identity coding")

// Response cleans an answer in place: status line, header, body as it is read, and the trailer once the body has ended.
// After `101 Switching Protocols` the body stays an io.ReadWriteCloser, of which the reading side is cleaned. On an
// error, which is ErrUncleanable, the body has been closed and nothing of the answer may be used.
func (r *Redactor) Response(resp *http.Response) error {
	if len(r.marks) == 0 {
		return nil
	}
	resp.Status = r.String(resp.Status)
	r.Header(resp.Header)
	if resp.Body == nil || resp.Body == http.NoBody {
		return nil
	}
	if resp.StatusCode == http.StatusPartialContent || isCoded(resp.Header) {
		_ = resp.Body.Close()
		resp.Body = http.NoBody
		return ErrUncleanable
	}
	clean := body{Reader: r.Reader(resp.Body), Closer: resp.Body, redactor: r, resp: resp}
	if conn, ok := resp.Body.(io.Writer); ok && resp.StatusCode == http.StatusSwitchingProtocols {
		resp.Body = &upgraded{body: clean, Writer: conn}
		return nil
	}
	resp.Body = &clean
	return nil
}

// isCoded reports whether the body is compressed as a whole (RFC 9110 s8.4), by message (gRPC), or by frame (RFC 7692).
func isCoded(h http.Header) bool {
	for _, name := range []string{"Content-Encoding", "Grpc-Encoding", "Sec-Websocket-Extensions"} {
		for _, v := range h[name] {
			if v = strings.TrimSpace(v); v != "" && !strings.EqualFold(v, "identity") {
				return true
			}
		}
	}
	return false
}

type body struct {
	io.Reader
	io.Closer
	redactor *Redactor
	resp     *http.Response
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if err == io.EOF {
		b.redactor.Header(b.resp.Trailer) // net/http fills it in before it says io.EOF
	}
	return n, err
}

type upgraded struct {
	body
	io.Writer
}
