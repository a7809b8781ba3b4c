package gateway

import (
	"context"
	"errors"

	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/internal/broker"
	"frontdesk.dev/frontdesk/internal/gateway/pending"
	"frontdesk.dev/frontdesk/internal/gateway/streams"
	"frontdesk.dev/frontdesk/internal/kit/mcp"
)

// Streams that no call ends: what becomes of them when the process stops, the token ends, or what their caller may see changes.

var (
	errCancelled = errors.New("the client cancelled the call")
	errStopping  = errors.New("the process is stopping")
)

const methodListen = "subscriptions/listen"

// subscribe is a modern client's stream of news. It lives as long as the token that opened it; resources that the caller
// may not read are left out of what is asked of the server, whose acknowledgement then names those alone that count.
func (c *call) subscribe() {
	if err := c.narrow(); err != nil {
		c.refuse(err)
		return
	}
	c.forward(broker.KindStream)
}

func (c *call) narrow() error {
	uris := mcp.Lookup(c.m.Of(c.m.Params), "notifications", "resourceSubscriptions")
	see, err := c.g.Door.Visible(c.r.Context(), c.caller, c.server, "resources/read", mcp.Texts(uris))
	if err == nil {
		err = c.keep(uris, see)
	}
	if err != nil {
		return err
	}
	tasks := mcp.Lookup(c.m.Of(c.m.Params), "notifications", "taskIds")
	return c.keep(tasks, c.ownTasks(mcp.Texts(tasks)))
}

// keep leaves in a list of the message what stands; the message is another one then, to the server too.
func (c *call) keep(list []byte, stays []bool) error {
	keep := []string{}
	for i, v := range mcp.Texts(list) {
		if stays[i] {
			keep = append(keep, v)
		}
	}
	if len(keep) == len(stays) {
		return nil
	}
	own, err := mcp.Scan(mcp.Splice(c.m.Raw, mcp.Edit{Span: c.m.SpanOf(list), With: must(keep)}))
	if err != nil {
		return err
	}
	c.m, c.body = own, own.Raw
	return nil
}

// acknowledged notes which changes of lists the server promised to tell: word of ours about the same goes on the same stream.
func (c *call) acknowledged(m *mcp.Message) {
	if c.news == nil || m.Method != "notifications/subscriptions/acknowledged" {
		return
	}
	c.g.streams.Tell(c.news, streams.Promised(m, c.m.IDBytes()))
}

// over says how a stream ends that the server did not end, if it ends for a reason of ours.
func (c *call) over() (last []byte, o broker.Outcome, ok bool) {
	cause := context.Cause(c.ctx)
	switch {
	case errors.Is(cause, errCancelled):
		return nil, broker.Outcome{Result: audit.ResultFailed, Detail: "the client cancelled the call"}, true
	case c.news != nil && (errors.Is(cause, errStopping) || errors.Is(cause, context.DeadlineExceeded)): // the client opens it anew
		return mcp.ResultMessage(c.m.IDBytes(), []byte(`{"resultType":"complete","_meta":{"io.modelcontextprotocol/subscriptionId":`+string(c.m.IDBytes())+`}}`)),
			broker.Outcome{Result: audit.ResultOK, Detail: "the stream was ended"}, true
	}
	return nil, broker.Outcome{}, false
}

// goesOn is no outcome: the server has ended the stream of a call, and the answer comes on another one that the client opens
// (2025-11-25, polling). Until then the call is open, and its keycard works.
var goesOn = broker.Outcome{}

// park keeps the lease of a call whose end is still to come, for as long as the call may take.
func (c *call) park(k pending.Key, l broker.Lease) {
	c.g.calls.Park(k, c.who(), c.ends.Sub(c.g.Now()), l)
}

// running lets a legacy call be cancelled by its session and id. The modern era has no such notice: there the stream is closed.
func (c *call) running() (done func()) {
	if c.session == nil || c.m.Kind != mcp.Request {
		return func() {}
	}
	return c.g.calls.Run(pending.InSession(c.id, c.m.IDBytes()), c.cancel)
}

// cancelled ends the call that a notice names, where it runs here. The server has been told already.
func (c *call) cancelled() {
	c.g.calls.Cancel(pending.InSession(c.id, c.m.Of(c.m.RequestID)), errCancelled)
}

// Changed tells every open stream that its lists may have changed: policies or servers have.
func (g *Gateway) Changed() { g.streams.Changed() }
