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
	"frontdesk.dev/frontdesk/internal/kit/mcp"
)

const (
	keepAlive  = 15 * time.Second
	checkAlive = 2 * time.Second
)

// relay passes a stream on event by event, as it came, but for the answer where it must be changed. It ends when the
// server ends it, the client goes away, or forward's context does.
func (c *call) relay(lease broker.Lease, resp *http.Response) broker.Outcome {
	out := mcp.StartStream(c.w, http.StatusOK)
	defer out.Close()
	defer out.KeepAlive(keepAlive)()
	outcome := broker.Outcome{Result: audit.ResultUnknown, Detail: "the stream ended without an answer"}
	others := &foreign{call: c, lease: lease}
	events := mcp.NewEvents(resp.Body)
	for answered := false; ; {
		e, err := events.Next()
		if err != nil {
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
				outcome = resultOf(&m, http.StatusOK)
				if msg = c.edit(lease, &m); c.unknownThere(&m) {
					msg, _ = c.unknownMessage()
				}
			default:
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

// endWithAccess calls end when the caller's access does, until stop is called. Most calls are over before it looks.
func (c *call) endWithAccess(ctx context.Context, lease broker.Lease, end func()) (stop func()) {
	over := make(chan struct{})
	first := time.AfterFunc(checkAlive, func() {
		tick := time.NewTicker(checkAlive)
		defer tick.Stop()
		for lease.Valid(ctx) == nil {
			select {
			case <-over:
				return
			case <-ctx.Done():
				return
			case <-tick.C:
			}
		}
		end()
	})
	return func() {
		first.Stop()
		close(over)
	}
}

// clientStream is an open GET stream of a session.
type clientStream struct {
	out *mcp.Stream
	ctx context.Context
	end context.CancelFunc
}

// get is the standalone stream of a legacy session: the server's messages, and our own notice that a person has answered. It
// lives as long as its token; a new one replaces the old one.
func (c *call) get() {
	if c.r.Header.Get(mcp.HeaderVersion) == mcp.Version2026July {
		c.w.Header().Set("Allow", "POST")
		http.Error(c.w, "this revision of the protocol has no GET", http.StatusMethodNotAllowed)
		return
	}
	if !c.findSession() {
		return
	}
	c.m = mcp.Message{Method: "stream", Kind: mcp.Notification}
	ctx, cancel := context.WithDeadline(c.r.Context(), c.caller.Expires)
	defer cancel()
	lease, err := c.g.Door.Open(ctx, c.caller, c.actOf(broker.KindStream))
	var resp *http.Response
	switch {
	case err == nil:
		defer func() { lease.Close(ctx, broker.Outcome{Result: audit.ResultOK}) }()
		if resp, err = c.send(ctx, lease, http.MethodGet, nil); err == nil {
			defer func() { _ = resp.Body.Close() }()
		}
		stop := c.endWithAccess(ctx, lease, cancel)
		defer stop()
	case !isNeeded(err):
		c.no(err)
		return
	}
	s := &clientStream{out: mcp.StartStream(c.w, http.StatusOK), ctx: ctx, end: cancel}
	defer s.out.Close()
	if !c.g.attach(c.id, s) {
		return
	}
	defer c.g.detach(c.id, s)
	defer s.out.KeepAlive(keepAlive)()
	if resp != nil {
		if kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")); resp.StatusCode == http.StatusOK && kind == "text/event-stream" {
			c.pump(s, resp.Body, lease)
		}
	}
	<-ctx.Done()
}

func isNeeded(err error) bool {
	_, ok := errors.AsType[*catalog.Needed](err)
	return ok
}

// pump passes the server's events on until its stream ends.
func (c *call) pump(s *clientStream, body io.Reader, lease broker.Lease) {
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
		if err := s.out.Event(c.frame(&e, msg)); err != nil {
			s.end()
			return
		}
	}
}

func (g *Gateway) attach(id string, s *clientStream) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.draining {
		return false
	}
	if g.streams == nil {
		g.streams = map[string]*clientStream{}
	}
	if old := g.streams[id]; old != nil {
		old.end()
	}
	g.streams[id] = s
	return true
}

// Streams is how many GET streams are open here.
func (g *Gateway) Streams() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.streams)
}

func (g *Gateway) detach(id string, s *clientStream) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.streams[id] == s {
		delete(g.streams, id)
	}
}
