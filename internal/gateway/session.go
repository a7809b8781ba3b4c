package gateway

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"io"
	"maps"
	"mime"
	"net/http"
	"slices"
	"time"

	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/internal/broker"
	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/connect"
	"frontdesk.dev/frontdesk/internal/gateway/traits"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/kit/mcp"
)

type cachedSession struct {
	Session
	until time.Time
}

const (
	sessionCache    = 30 * time.Second
	maxCached       = 50_000
	sessionIdle     = 7 * 24 * time.Hour // long: many clients never recover from a session that is gone
	purposeUpstream = "gateway/upstream-session"
	// sessionEnded goes with 404, as plain text: some clients take a JSON-RPC error there for an answer, and never begin anew.
	sessionEnded = "the session has ended: initialize again"
)

func digest(id string) []byte {
	d := sha256.Sum256([]byte(id))
	return d[:]
}

// findSession loads the legacy session that the request names. Somebody else's is answered like one that is gone.
func (c *call) findSession() bool {
	c.id = c.r.Header.Get(mcp.HeaderSession)
	if c.id == "" {
		c.write(http.StatusBadRequest, mcp.ErrorMessage(c.m.IDBytes(), mcp.CodeRequest, "header Mcp-Session-Id is missing: begin with initialize", nil))
		return false
	}
	s, err := c.g.loadSession(c.r.Context(), c.tenant, c.id)
	if err != nil && fault.KindOf(err) != fault.NotFound {
		c.no(err)
		return false
	}
	if err != nil || s.Principal != c.caller.Principal() || s.Server != c.server.Name || s.Client != c.caller.Client {
		http.Error(c.w, sessionEnded, http.StatusNotFound)
		return false
	}
	c.session = &s
	return true
}

func (g *Gateway) loadSession(ctx context.Context, t identity.Tenant, id string) (Session, error) {
	now := g.Now()
	g.mu.Lock()
	k, ok := g.cache[id]
	g.mu.Unlock()
	if ok && now.Before(k.until) && k.Tenant == t {
		return k.Session, nil
	}
	s, err := g.Sessions.Session(ctx, t, digest(id))
	if err != nil {
		return s, err
	}
	if now.Sub(s.Seen) > time.Minute {
		s.Seen = now
		if err := g.Sessions.PutSession(ctx, s); err != nil {
			return s, err
		}
	}
	g.keep(id, s)
	return s, nil
}

func (g *Gateway) keep(id string, s Session) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.cache == nil || len(g.cache) > maxCached {
		g.cache = map[string]cachedSession{}
	}
	g.cache[id] = cachedSession{s, g.Now().Add(sessionCache)}
}

// upstreamSession is the server's own session id; the client never sees it.
func (c *call) upstreamSession() string {
	if len(c.session.Upstream) == 0 {
		return ""
	}
	plain, err := c.g.Keys.Open(purposeUpstream, c.session.ID, string(c.session.Upstream))
	if err != nil {
		return ""
	}
	return string(plain)
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
		c.hold(lease)
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

// begin stores a session and tells the client its id.
func (c *call) begin(ctx context.Context, act audit.CallID, version, upstream string) bool {
	random := make([]byte, 24)
	if _, err := rand.Read(random); err != nil {
		c.no(err)
		return false
	}
	id := base64.RawURLEncoding.EncodeToString(random)
	now := c.g.Now()
	s := Session{Tenant: c.tenant, ID: digest(id), Principal: c.caller.Principal(), Client: c.caller.Client, Server: c.server.Name, Version: version,
		URLAsk: c.m.DeclaresURLElicitation(), Declares: c.m.Declared(), Act: act, Created: now, Seen: now}
	if upstream != "" {
		s.Upstream = []byte(c.g.Keys.Seal(purposeUpstream, s.ID, []byte(upstream)))
	}
	if err := c.g.Sessions.PutSession(ctx, s); err != nil {
		c.no(err)
		return false
	}
	c.g.keep(id, s)
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

// held is a session whose own act is open, because its server holds a keycard for the whole of it.
type held struct {
	lease   broker.Lease
	session *Session
	id      string
	leave   func() // the crowd
}

// maxHeld bounds such sessions of one caller: clients that are started anew each day never end the old ones.
const maxHeld = 100

// hold keeps a session's own act open for as long as its ticket must work. Where its caller has too many, the oldest one ends: who
// still uses that is told to initialize again.
func (c *call) hold(l broker.Lease) {
	who := string(c.tenant) + "\x00" + c.caller.Principal()
	leave, ok := c.g.lasting.Enter(who, maxHeld)
	for ; !ok; leave, ok = c.g.lasting.Enter(who, maxHeld) {
		if old, found := c.g.oldest(c.tenant, c.session.Principal); found {
			c.g.forgetSession(context.WithoutCancel(c.ctx), old.session, old.id)
		}
	}
	c.g.mu.Lock()
	defer c.g.mu.Unlock()
	if c.g.held == nil {
		c.g.held = map[audit.CallID]held{}
	}
	c.g.held[l.State().Call] = held{l, c.session, c.id, leave}
}

// oldest is the first that one caller began of the sessions that are held here.
func (g *Gateway) oldest(t identity.Tenant, principal string) (old held, found bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, h := range g.held {
		if h.session.Tenant == t && h.session.Principal == principal && (!found || h.session.Created.Before(old.session.Created)) {
			old, found = h, true
		}
	}
	return old, found
}

func (g *Gateway) release(ctx context.Context, act audit.CallID) {
	g.mu.Lock()
	h, ok := g.held[act]
	delete(g.held, act)
	g.mu.Unlock()
	if ok {
		h.leave()
		h.lease.Close(ctx, broker.Outcome{Result: audit.ResultOK})
	}
}

func (g *Gateway) forgetSession(ctx context.Context, s *Session, id string) {
	g.mu.Lock()
	delete(g.cache, id)
	g.mu.Unlock()
	if err := g.Sessions.DropSession(ctx, s.Tenant, s.ID); err != nil {
		g.Log.Warn("a session could not be dropped", "error", err)
	}
	g.release(ctx, s.Act)
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
	if c.upstreamSession() == "" { // the server has none to end
		c.g.forgetSession(c.r.Context(), c.session, c.id)
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
	c.g.forgetSession(c.r.Context(), c.session, c.id)
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
		l, err := g.Sessions.IdleSessions(ctx, g.Now().Add(-sessionIdle), 1000)
		if err != nil && ctx.Err() == nil {
			g.Log.Warn("idle sessions could not be dropped", "error", err)
		}
		for _, s := range l {
			g.release(ctx, s.Act)
		}
	}
}

// Drain ends what would never end by itself: streams without a call. Calls go on.
func (g *Gateway) Drain() {
	g.mu.Lock()
	g.draining = true
	streams, sessions := maps.Clone(g.streams), maps.Clone(g.held)
	g.mu.Unlock()
	for _, s := range streams {
		s.end()
	}
	for id := range sessions {
		g.release(context.Background(), id)
	}
}

// watch promises `notifications/elicitation/complete` on the session's GET stream; false if it has none here.
func (g *Gateway) watch(session string, q connect.Request) bool {
	g.mu.Lock()
	s := g.streams[session]
	var out *mcp.Stream
	if s != nil {
		out = s.out
	}
	g.mu.Unlock()
	if out == nil {
		return false
	}
	go func() {
		if g.await(s.ctx, q.Tenant, q.ID, time.Until(q.Expires)) == connect.Done {
			_ = out.Message(mcp.ElicitationComplete(string(q.ID))) // a stream that is gone has nobody to tell
		}
	}()
	return true
}
