package redact

import (
	"errors"
	"io"
	"net/http"
	"strings"
)

// ErrUncleanable is the answer that Response cannot clean: a part of a body may begin in the middle of a mark, and in a
// coding that is not undone a mark is not itself.
var ErrUncleanable = errors.New("the answer is partial, or in a coding that is not known here, so a credential in it could not be taken out; ask without Range and for identity coding")

// clean is Response without masks.
func (r *Redactor) clean(resp *http.Response) error {
	if len(r.marks) == 0 {
		return nil
	}
	status := r.String(resp.Status)
	hits := r.Header(resp.Header)
	if status != resp.Status {
		resp.Status = status
		hits++
	}
	err := r.told(hits)
	coding, known := codings(resp.Header)
	messages, grpc, readable := codingOf(resp)
	if err == nil && (!known || !readable || resp.StatusCode == http.StatusPartialContent) {
		err = ErrUncleanable
	}
	if err != nil {
		return drop(resp, err)
	}
	if len(coding) > 0 {
		decoded(resp, coding)
	}
	if resp.Body == nil || resp.Body == http.NoBody {
		return nil
	}
	clean := body{Closer: resp.Body, redactor: r, resp: resp}
	if grpc {
		clean.Reader = r.Messages(resp.Body, messages)
		if resp.Header.Del("Grpc-Encoding"); messages != "" {
			resp.ContentLength = -1
			resp.Header.Del("Content-Length")
		}
	} else {
		clean.Reader = r.Reader(resp.Body)
	}
	if conn, ok := resp.Body.(io.Writer); ok && resp.StatusCode == http.StatusSwitchingProtocols {
		if strings.EqualFold(resp.Header.Get("Upgrade"), "websocket") {
			clean.Reader = r.Frames(resp.Body)
		}
		resp.Body = &upgraded{body: clean, Writer: conn}
		return nil
	}
	resp.Body = &clean
	return nil
}

func drop(resp *http.Response, err error) error {
	if resp.Body != nil {
		_ = resp.Body.Close() // whatever it says: nothing of it is used
	}
	resp.Body = http.NoBody
	return err
}

type body struct {
	io.Reader
	io.Closer
	redactor *Redactor
	resp     *http.Response
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if err != nil {
		// net/http fills in the trailer before it says io.EOF.
		if cut := b.redactor.told(b.redactor.Header(b.resp.Trailer)); cut != nil {
			return n, cut
		}
	}
	return n, err
}

type upgraded struct {
	body
	io.Writer
}
