package gateway

import (
	"context"
	"errors"
	"fmt"
	"time"

	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/internal/broker"
	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/identity"
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

// stay registers a stream of news under a name of its own, for Drain and Changed. It reports false where the process is stopping.
func (c *call) stay(ctx context.Context, end context.CancelCauseFunc) (s *clientStream, leave func(), ok bool) {
	s = &clientStream{caller: c.caller, server: c.server, ctx: ctx, end: func() { end(errStopping) }, gone: make(chan struct{})}
	name := fmt.Sprintf("listen %p", s)
	if !c.g.attach(ctx, name, s) {
		return nil, nil, false
	}
	return s, func() { close(s.gone); c.g.detach(name, s) }, true
}

// acknowledged notes which changes of lists the server promised to tell: word of ours about the same goes on the same stream.
func (c *call) acknowledged(m *mcp.Message) {
	if c.news == nil || m.Method != "notifications/subscriptions/acknowledged" {
		return
	}
	var l [][]byte
	for _, kind := range []string{"tools", "prompts", "resources"} {
		if string(mcp.Lookup(m.Of(m.Params), "notifications", kind+"ListChanged")) == "true" {
			l = append(l, []byte(`{"jsonrpc":"2.0","method":"notifications/`+kind+`/list_changed","params":{"_meta":{"io.modelcontextprotocol/subscriptionId":`+string(c.m.IDBytes())+`}}}`))
		}
	}
	c.g.mu.Lock()
	defer c.g.mu.Unlock()
	c.news.changed = l
}

// changed are the notices of a legacy session's stream.
func changed() [][]byte {
	var l [][]byte
	for _, kind := range []string{"tools", "prompts", "resources"} {
		l = append(l, []byte(`{"jsonrpc":"2.0","method":"notifications/`+kind+`/list_changed"}`))
	}
	return l
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

type parked struct {
	lease broker.Lease
	limit *time.Timer
	leave func() // the crowd of those whose calls wait
}

// park keeps the lease of a call whose end is still to come, until that is seen here, or the call's time is over: another replica
// may have seen it. What stood under the key is over then.
func (c *call) park(key string, l broker.Lease) {
	unseen := broker.Outcome{Result: audit.ResultUnknown, Detail: "the end of the call was not seen here"}
	leave, ok := c.g.late.Enter(string(c.tenant)+"\x00"+c.caller.Principal(), maxOpen)
	if !ok {
		l.Close(context.WithoutCancel(c.ctx), broker.Outcome{Result: audit.ResultUnknown, Detail: "too many calls of this caller wait for their end"})
		return
	}
	c.g.unpark(key, unseen)
	c.g.mu.Lock()
	defer c.g.mu.Unlock()
	if c.g.parked == nil {
		c.g.parked = map[string]parked{}
	}
	c.g.parked[key] = parked{l, time.AfterFunc(c.ends.Sub(c.g.Now()), func() { c.g.unpark(key, unseen) }), leave}
}

// unpark ends a parked call, if it is here, and returns what is known of it.
func (g *Gateway) unpark(key string, o broker.Outcome) (s broker.State) {
	g.mu.Lock()
	p, ok := g.parked[key]
	delete(g.parked, key)
	g.mu.Unlock()
	if ok {
		p.limit.Stop()
		p.leave()
		s = p.lease.State()
		p.lease.Close(context.Background(), o)
	}
	return s
}

// running lets a legacy call be cancelled by its session and id. The modern era has no such notice: there the stream is closed.
func (c *call) running() (done func()) {
	if c.session == nil || c.m.Kind != mcp.Request {
		return func() {}
	}
	key := c.id + "\x00" + string(c.m.IDBytes())
	c.g.mu.Lock()
	defer c.g.mu.Unlock()
	if c.g.calls == nil {
		c.g.calls = map[string]*call{}
	}
	c.g.calls[key] = c
	return func() {
		c.g.mu.Lock()
		defer c.g.mu.Unlock()
		if c.g.calls[key] == c {
			delete(c.g.calls, key)
		}
	}
}

// cancelled ends the call that a notice names, where it runs here. The server has been told already.
func (c *call) cancelled() {
	c.g.mu.Lock()
	defer c.g.mu.Unlock()
	if other := c.g.calls[c.id+"\x00"+string(c.m.Of(c.m.RequestID))]; other != nil {
		other.cancel(errCancelled)
	}
}

// Changed tells every open stream that its lists may have changed: policies or servers have.
func (g *Gateway) Changed() { g.announce(func(*clientStream) bool { return true }) }

// announce never blocks: a slow client is written to on the side.
func (g *Gateway) announce(whom func(s *clientStream) bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, s := range g.streams {
		if s.out == nil || !whom(s) {
			continue
		}
		go func(out *mcp.Stream, notices [][]byte) {
			for _, n := range notices {
				_ = out.Message(n) // a stream that is gone has nobody to tell
			}
		}(s.out, s.changed)
	}
}

// connected reports whether a stream's list may have changed with its user's connections: a vendor's own server lists
// nothing before.
func connected(e identity.Epoch) func(s *clientStream) bool {
	return func(s *clientStream) bool {
		return s.server.Deliver == catalog.DeliverHeader && s.caller.Tenant == e.Tenant && (string(s.caller.User) == e.ID || e.ID == identity.Everybody)
	}
}
