package gateway

import (
	"bytes"
	"context"
	"io"
	"mime"
	"net/http"
	"slices"
	"time"

	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/internal/broker"
	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/connect"
	"frontdesk.dev/frontdesk/internal/gateway/sessions"
	"frontdesk.dev/frontdesk/internal/gateway/traits"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/kit/mcp"
)

// sessionEnded goes with 404, as plain text: some clients take a JSON-RPC error there for an answer, and never begin anew.
const sessionEnded = "the session has ended: initialize again"

// findSession loads the legacy session that the request names. Somebody else's is answered like one that is gone.
func (c *call) findSession() bool {
	c.id = c.r.Header.Get(mcp.HeaderSession)
	if c.id == "" {
		c.write(http.StatusBadRequest, mcp.ErrorMessage(c.m.IDBytes(), mcp.CodeRequest, "header Mcp-Session-Id is missing: begin with initialize", nil))
		return false
	}
	s, err := c.g.Sessions.Find(c.r.Context(), c.caller, c.server.Name, c.id)
	if fault.KindOf(err) == fault.NotFound {
		http.Error(c.w, sessionEnded, http.StatusNotFound)
		return false
	}
	if err != nil {
		c.no(err)
		return false
	}
	c.session = &s
	return true
}

// initialize begins a legacy session: the server's answer passes, its session id becomes ours.
func (c *call) initialize() {
	limited, end := context.WithTimeout(c.context(), c.server.CallLimit)
	defer end()
	ctx, cancel := context.WithCancelCause(limited)
	defer cancel(nil)
	c.ctx, c.cancel = ctx, cancel
	lease, err := c.g.Door.Open(ctx, c.caller, c.actOf(broker.KindSession))
	if err != nil {
		c.notYet(ctx, err)
		return
	}
	outcome := broker.Outcome{Result: audit.ResultUnknown, Detail: "the session was not begun"}
	keepOpen := false
	defer func() {
		if !keepOpen {
			lease.Close(ctx, outcome)
		}
	}()
	resp, err := c.send(ctx, lease, http.MethodPost, c.body)
	if err != nil {
		outcome = c.failed(err)
		return
	}
	defer func() { _ = resp.Body.Close() }()
	msg, ok := firstResponse(resp)
	if traits.TooNew(resp.StatusCode, msg) {
		c.refuseNew()
		outcome = broker.Outcome{Result: audit.ResultFailed, Detail: "the server speaks the modern era alone"}
		return
	}
	if !ok {
		if msg != nil {
			resp.Body = io.NopCloser(bytes.NewReader(msg))
		}
		outcome = c.answer(lease, resp)
		return
	}
	version := unquote(mcp.Lookup(msg, "result", "protocolVersion"))
	if m, err := mcp.Scan(msg); err != nil || m.Err.Present() { // the server's own refusal
		outcome = c.whole(lease, &http.Response{StatusCode: resp.StatusCode, Body: io.NopCloser(bytes.NewReader(msg))}, "application/json")
		return
	}
	if !mcp.Handshake(version) {
		outcome = broker.Outcome{Result: audit.ResultFailed, Detail: "the server answered with a version that is not spoken here"}
		c.write(http.StatusOK, mcp.ErrorMessage(c.m.IDBytes(), mcp.CodeParams, c.server.Title+" answered with a version of the protocol that Frontdesk does not speak: an operator can ask its maker for one that is supported",
			must(map[string]any{"supported": mcp.Legacy, "requested": c.m.Version})))
		return
	}
	if !c.begin(ctx, lease.State().Call, version, resp.Header.Get(mcp.HeaderSession)) {
		return
	}
	outcome = broker.Outcome{Result: audit.ResultOK}
	if c.server.Placeholder == identity.TicketSession {
		keepOpen = true
		c.g.Sessions.Hold(ctx, c.session, func(ctx context.Context) { lease.Close(ctx, broker.Outcome{Result: audit.ResultOK}) })
	}
	c.write(http.StatusOK, msg)
}

// firstResponse reads the answer to initialize, from JSON or the first message of a stream.
func firstResponse(resp *http.Response) ([]byte, bool) {
	kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	switch {
	case kind == "application/json":
		body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
		return body, err == nil && resp.StatusCode == http.StatusOK
	case resp.StatusCode != http.StatusOK:
		return nil, false
	case kind == "text/event-stream":
		events := mcp.NewEvents(resp.Body)
		for {
			e, err := events.Next()
			if err != nil {
				return nil, false
			}
			if e.Message() {
				if m, err := mcp.Scan(e.Data); err == nil && m.Kind == mcp.Response {
					return e.Data, true
				}
			}
		}
	}
	return nil, false
}

func unquote(v []byte) string {
	if len(v) < 2 || v[0] != '"' {
		return ""
	}
	return string(v[1 : len(v)-1])
}

// begin keeps a session, and tells the client its id.
func (c *call) begin(ctx context.Context, act audit.CallID, version, upstream string) bool {
	id, s, err := c.g.Sessions.Begin(ctx, sessions.Session{Tenant: c.tenant, Principal: c.caller.Principal(), Client: c.caller.Client, Server: c.server.Name, Version: version,
		URLAsk: c.m.DeclaresURLElicitation(), Declares: c.m.Declared(), Act: act}, upstream)
	if err != nil {
		c.no(err)
		return false
	}
	c.session, c.id = &s, id
	c.w.Header().Set(mcp.HeaderSession, id)
	return true
}

// notYet begins a session with a vendor's own server before its user has connected: we answer for it, and the tool list has
// one way to connect.
func (c *call) notYet(ctx context.Context, err error) {
	if needs := c.server.Needs; c.server.Deliver != catalog.DeliverHeader || len(needs) == 0 || !isNeeded(err) {
		c.no(err)
		return
	}
	version := c.m.Version
	if !slices.Contains(mcp.Legacy, version) {
		version = mcp.Version2025November
	}
	if !c.begin(ctx, "", version, "") {
		return
	}
	c.write(http.StatusOK, mcp.ResultMessage(c.m.IDBytes(), must(map[string]any{"protocolVersion": version, "capabilities": map[string]any{"tools": map[string]any{"listChanged": true}},
		"serverInfo": map[string]string{"name": string(c.server.Name), "version": "0"}, "instructions": "Not connected yet: call the tool " + connectTool + " to get the link, then initialize again."})))
}

// delete ends a session, here and at the server.
func (c *call) delete() {
	if c.r.Header.Get(mcp.HeaderVersion) == mcp.Version2026July {
		c.postOnly()
		return
	}
	if !c.findSession() {
		return
	}
	if c.g.Sessions.Upstream(c.session) == "" { // the server has none to end
		c.g.Sessions.Forget(c.r.Context(), c.session)
		c.w.WriteHeader(http.StatusNoContent)
		return
	}
	if lease, err := c.g.Door.Open(c.r.Context(), c.caller, c.actOf(broker.KindCatalogue)); err == nil {
		outcome := broker.Outcome{Result: audit.ResultOK, Detail: "the session was ended"}
		if resp, err := c.send(c.r.Context(), lease, http.MethodDelete, nil); err == nil {
			_ = resp.Body.Close()
		} else {
			outcome = broker.Outcome{Result: audit.ResultFailed, Detail: "the server could not be told that the session ended"}
		}
		lease.Close(c.r.Context(), outcome)
	}
	c.g.Sessions.Forget(c.r.Context(), c.session)
	c.w.WriteHeader(http.StatusNoContent)
}

// Run drops sessions that nobody uses any more.
func (g *Gateway) Run(ctx context.Context) error {
	tick := time.NewTicker(10 * time.Minute)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if err := g.Tasks.DropTasks(ctx, g.Now()); err != nil && ctx.Err() == nil {
			g.Log.Warn("expired tasks could not be dropped", "error", err)
		}
		if err := g.Sessions.DropIdle(ctx); err != nil && ctx.Err() == nil {
			g.Log.Warn("idle sessions could not be dropped", "error", err)
		}
	}
}

// Drain ends what would never end by itself: streams without a call. Calls go on.
func (g *Gateway) Drain() {
	g.streams.Drain()
	g.Sessions.Drain()
}

// watch promises `notifications/elicitation/complete` on the session's GET stream; false if it has none here.
func (g *Gateway) watch(session string, q connect.Request) bool {
	return g.streams.Later(session, func(ctx context.Context) []byte {
		if g.await(ctx, q.Tenant, q.ID, time.Until(q.Expires)) != connect.Done {
			return nil
		}
		return mcp.ElicitationComplete(string(q.ID))
	})
}
