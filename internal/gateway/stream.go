package gateway

import (
	"context"
	"errors"
	"io"
	"net/http"
	"time"

	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/internal/broker"
	"frontdesk.dev/frontdesk/internal/kit/mcp"
)

const (
	keepAlive = 15 * time.Second
	endTime   = time.Second
)

// relay passes a stream on event by event, as it came, but for the answer where it must be changed. It ends when the
// server ends it, the client goes away, or forward's context does.
func (c *call) relay(lease broker.Lease, resp *http.Response) broker.Outcome {
	out := mcp.StartStream(c.w, http.StatusOK)
	defer out.Close()
	defer out.KeepAlive(keepAlive)()
	if c.news != nil {
		c.g.begun(c.news, out)
	}
	outcome := broker.Outcome{Result: audit.ResultUnknown, Detail: "the stream ended without an answer"}
	others := &foreign{call: c, lease: lease}
	events := mcp.NewEvents(resp.Body)
	for answered, resumable := false, false; ; {
		e, err := events.Next()
		resumable = resumable || e.ID != "" && c.session != nil && c.m.Kind == mcp.Request && !c.batched
		if err != nil {
			if last, o, ok := c.over(); ok && !answered {
				if last != nil {
					_ = out.Message(last)
				}
				return o
			}
			if errors.Is(err, io.EOF) && !answered && resumable {
				return goesOn
			}
			if !errors.Is(err, io.EOF) && c.m.Kind == mcp.Request && !answered && c.r.Context().Err() == nil {
				_ = out.Message(mcp.ErrorMessage(c.m.IDBytes(), mcp.CodeUnavailable, c.server.Title+" broke off its answer. Nothing is known of what it did.", nil))
			}
			return outcome
		}
		msg := e.Data
		if e.Message() {
			m, err := mcp.Scan(e.Data)
			switch {
			case err != nil: // two readers could understand it differently
				_ = out.Message(c.unfit("a message that cannot be read in one way"))
				return broker.Outcome{Result: audit.ResultFailed, Detail: "the server's message cannot be read in one way"}
			case m.Kind == mcp.Response && !answered && c.ours(&m):
				answered = true
				// Nothing comes after the answer but the end of the stream. A server that does not send that is not waited for.
				defer time.AfterFunc(endTime, func() { c.cancel(nil) }).Stop()
				outcome = resultOf(&m, http.StatusOK)
				if msg = c.edit(lease, &m); c.notThere(&m) {
					msg = c.nothing()
				}
			default:
				c.acknowledged(&m)
				if msg = others.pass(&m); msg == nil {
					continue
				}
			}
		}
		if err := out.Event(c.frame(&e, msg)); err != nil && c.m.Modern() {
			return broker.Outcome{Result: audit.ResultUnknown, Detail: "the client went away"}
		}
	}
}

// endWithAccess calls end when the caller's access does, until stop is called.
func (c *call) endWithAccess(ctx context.Context, lease broker.Lease, end func()) (stop func()) {
	return c.g.rounds.Visit(func() bool { return lease.Valid(ctx) == nil }, end)
}
