package traffic

import (
	"mime"
	"net/http"
	"strconv"
	"strings"

	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/kit/outbound"
)

// look reads in the answer which of the vendor's known failures it is, and tells the call what its agent can do. The answer passes as
// it came. Of its text nothing goes into what is told, nor into the log.
func (l *lease) look(resp *http.Response) {
	up := l.act.Upstream
	h := up.Provider.Hint(&catalog.Answer{Status: resp.StatusCode, Header: resp.Header, Body: func() []byte { return failure(resp) }})
	if h == nil {
		return
	}
	l.failed = "status " + strconv.Itoa(resp.StatusCode) + ", " + h.Name + ": " + h.Sentence()
	l.act.Holding.Tell(up.Title + ": " + h.Sentence())
}

// failure is the body of an answer that may be a failure's: JSON, or whatever a failing status has, short and no stream. What is
// read is put back.
func failure(resp *http.Response) []byte {
	kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if json := kind == "application/json" || strings.HasSuffix(kind, "+json"); kind == "text/event-stream" || resp.StatusCode < 300 && !json || resp.ContentLength > catalog.SignalBody {
		return nil
	}
	if b := outbound.Peek(resp, catalog.SignalBody+1); len(b) <= catalog.SignalBody {
		return b
	}
	return nil
}
