package gateway

import (
	"context"
	"errors"
	"io"
	"mime"
	"net/http"
	"time"

	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/internal/broker"
	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/gateway/streams"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/kit/mcp"
)

// get is a stream of a legacy session. Without Last-Event-ID it is the standalone one: the server's messages, and our own
// notice that a person has answered; a new one replaces the old one, for whoever opens it has lost that. With Last-Event-ID
// it takes up any stream of the session, beside the standalone one. It lives as long as its token.
func (c *call) get() {
	if c.r.Header.Get(mcp.HeaderVersion) == mcp.Version2026July {
		c.postOnly()
		return
	}
	if !c.findSession() {
		return
	}
	c.m = mcp.Message{Method: "stream", Kind: mcp.Notification}
	ctx, cancel := context.WithDeadline(c.r.Context(), c.caller.Expires)
	defer cancel()
	s := &streams.Stream{Caller: c.caller, Server: c.server, Ctx: ctx, End: cancel}
	resumes := c.r.Header.Get("Last-Event-Id") != ""
	if !resumes {
		leave, ok := c.g.streams.Enter(c.id, s)
		if !ok {
			c.stopping()
			return
		}
		defer leave()
		c.g.streams.Tell(s, streams.Notices())
	}
	far := c.side(ctx, cancel)
	defer func() { far.end() }()
	if resumes && far.body == nil || far.body == nil && !far.none && !far.away() {
		c.noStream(far)
		return
	}
	out := mcp.StartStream(c.w, http.StatusOK)
	defer out.Close()
	c.g.streams.Begun(s, out)
	defer out.KeepAlive(keepAlive)()
	// Some clients are of no use any more once a stream is refused: theirs waits here until the server, or a broker's process, is back.
	for pause := time.Second; far.away(); pause = min(2*pause, keepAlive) {
		far.end()
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		far = c.side(ctx, cancel)
	}
	switch {
	case far.body != nil: // when the server's stream ends, so does this one: the client opens it anew where it wants to
		c.pump(out, far.body, far.lease)
	case far.none:
		<-ctx.Done()
	}
}

// side is the server's end of a GET stream.
type side struct {
	lease  broker.Lease
	body   io.Reader // nil: it gave no stream,
	none   bool      // because it has none, or not before its user has connected
	err    error     // or because the broker said so
	status int       // or with this status
	end    func()
}

// away reports whether it may be there later.
func (s *side) away() bool {
	return s.body == nil && (fault.KindOf(s.err) == fault.Unavailable || s.err == nil && s.status >= http.StatusInternalServerError)
}

func (c *call) side(ctx context.Context, cancel func()) side {
	lease, err := c.g.Door.Open(ctx, c.caller, c.actOf(broker.KindStream))
	if err != nil {
		return side{err: err, none: isNeeded(err), end: func() {}}
	}
	stop := c.endWithAccess(ctx, lease, cancel)
	s := side{lease: lease, end: func() { stop(); lease.Close(ctx, broker.Outcome{Result: audit.ResultOK}) }}
	resp, status := c.listen(ctx, lease)
	if s.status, s.none = status, status == http.StatusMethodNotAllowed; resp != nil {
		end := s.end
		s.body, s.end = resp.Body, func() { _ = resp.Body.Close(); end() }
	}
	return s
}

func (c *call) postOnly() {
	c.w.Header().Set("Allow", "POST")
	c.write(http.StatusMethodNotAllowed, mcp.ErrorMessage([]byte("null"), mcp.CodeRequest, "this revision of the protocol has POST alone", nil))
}

const (
	busyTries = 20
	busyPause = 100 * time.Millisecond
)

// listen opens the server's side. A server that has not noticed yet that its last stream is gone is asked again for a while.
func (c *call) listen(ctx context.Context, lease broker.Lease) (*http.Response, int) {
	for try := 1; ; try++ {
		resp, err := c.send(ctx, lease, http.MethodGet, nil)
		if err != nil {
			return nil, http.StatusBadGateway
		}
		kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
		if resp.StatusCode == http.StatusOK && kind == "text/event-stream" {
			return resp, http.StatusOK
		}
		_ = resp.Body.Close()
		switch {
		case resp.StatusCode == http.StatusOK: // a page for people, or the like: no stream
			return nil, http.StatusMethodNotAllowed
		case resp.StatusCode != http.StatusConflict || try == busyTries:
			return nil, resp.StatusCode
		}
		select {
		case <-ctx.Done():
			return nil, http.StatusConflict
		case <-time.After(busyPause):
		}
	}
}

// noStream answers where the server gave none. 404 says that the session is gone, and nothing else does.
func (c *call) noStream(far side) {
	if far.err != nil && !far.none {
		c.no(far.err)
		return
	}
	switch far.status {
	case http.StatusNotFound:
		c.g.Sessions.Forget(c.r.Context(), c.session)
		http.Error(c.w, sessionEnded, http.StatusNotFound)
	case http.StatusBadRequest, http.StatusMethodNotAllowed, 0:
		http.Error(c.w, "this stream cannot be taken up again: open one without Last-Event-ID", http.StatusBadRequest)
	case http.StatusConflict:
		http.Error(c.w, c.server.Title+" still holds another stream of this session open; try again later", http.StatusConflict)
	default:
		c.w.Header().Set("Retry-After", "5")
		http.Error(c.w, c.server.Title+" gave no stream; try again later", http.StatusBadGateway)
	}
}

func (c *call) stopping() {
	c.w.Header().Set("Retry-After", "1")
	http.Error(c.w, "this replica is stopping; try again", http.StatusServiceUnavailable)
}

func isNeeded(err error) bool {
	_, ok := errors.AsType[*catalog.Needed](err)
	return ok
}

// pump passes the server's events on until its stream ends.
func (c *call) pump(out *mcp.Stream, body io.Reader, lease broker.Lease) {
	others := &foreign{call: c, lease: lease, replay: c.r.Header.Get("Last-Event-Id") != ""}
	events := mcp.NewEvents(body)
	for {
		e, err := events.Next()
		if err != nil {
			return
		}
		msg := e.Data
		if e.Message() {
			m, err := mcp.Scan(e.Data)
			if err != nil {
				others.tell("a message that cannot be read in one way")
				continue
			}
			if msg = others.pass(&m); msg == nil {
				continue
			}
		}
		if out.Event(c.frame(&e, msg)) != nil {
			return
		}
	}
}

// Streams is how many GET streams are open here.
func (g *Gateway) Streams() int { return g.streams.Len() }
