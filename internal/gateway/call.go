package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode"

	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/internal/broker"
	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/gateway/inbound"
	"frontdesk.dev/frontdesk/internal/gateway/pending"
	"frontdesk.dev/frontdesk/internal/gateway/sessions"
	"frontdesk.dev/frontdesk/internal/gateway/streams"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/kit/mcp"
)

// call is one HTTP request on its way.
type call struct {
	g       *Gateway
	w       http.ResponseWriter
	r       *http.Request
	tenant  identity.Tenant
	server  *catalog.Server
	caller  *identity.Caller
	token   string // as it was presented: looked for in the message, and nothing else
	m       mcp.Message
	session *sessions.Session // legacy, after initialize
	id      string            // the client's session id
	body    []byte            // what is forwarded
	inner   asked             // of a question of the server's own that this message answers
	task    *Task             // that this request is about
	batched bool              // it came in an array

	passage
}

// passage is a call while it is forwarded.
type passage struct {
	ctx    context.Context
	cancel context.CancelCauseFunc // says why it ends
	ends   time.Time
	news   *streams.Stream // of a subscription
	parked bool            // it has begun a task: its lease waits for the end of that
}

func must(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // a value of ours that is no JSON: a slip in this package
	}
	return b
}

func (c *call) post() {
	if !inbound.PlainJSON(c.r.Header) {
		http.Error(c.w, "send application/json in UTF-8, without a content coding", http.StatusUnsupportedMediaType)
		return
	}
	body, err := inbound.Body(c.r)
	if errors.Is(err, error(inbound.ErrTooLarge)) {
		c.w.Header().Set("Connection", "close")
		c.write(http.StatusRequestEntityTooLarge, mcp.ErrorMessage([]byte("null"), inbound.ErrTooLarge.Code, inbound.ErrTooLarge.Msg, nil))
		return
	}
	if err != nil {
		return // the client went away
	}
	if mcp.Array(body) {
		c.batch(body)
		return
	}
	c.take(body)
}

// take is the way of one message, whether it came alone or in a batch.
func (c *call) take(body []byte) {
	var err error
	if c.m, err = mcp.Scan(body); err == nil {
		c.body = body
		err = c.era()
	}
	if err == nil && c.batched {
		err = c.fits()
	}
	if err == nil {
		if at := inbound.SmuggledInside(c.g.Catalog, c.server, body, c.token); at != "" {
			err = &mcp.Fault{Code: mcp.CodeParams, Msg: "a credential stands in the message, at " + at + ": Frontdesk obtains credentials itself, so send none along"}
		}
	}
	if err != nil {
		c.refuse(err)
		return
	}
	if c.m.Kind == mcp.Notification && (c.m.Modern() || c.r.Header.Get(mcp.HeaderVersion) == mcp.Version2026July) {
		// The modern era defines no notification of clients over HTTP: a cancel is the closing of the stream.
		c.w.WriteHeader(http.StatusAccepted)
		return
	}
	if !c.m.Modern() && c.m.Method != "initialize" && !c.findSession() {
		return
	}
	c.dispatch()
}

// era checks what a message of its era must carry.
func (c *call) era() error {
	if c.m.Kind == mcp.Notification && c.r.Header.Get(mcp.HeaderVersion) == mcp.Version2026July {
		return nil // what headers a notification carries is not defined
	}
	if c.m.Modern() {
		if err := mcp.CheckHeaders(c.r.Header, &c.m); err != nil {
			return err
		}
		if c.m.Kind == mcp.Request && !c.m.Capabilities.Present() {
			return &mcp.Fault{Code: mcp.CodeParams, Msg: "_meta lacks io.modelcontextprotocol/clientCapabilities"}
		}
		return nil
	}
	if len(c.r.Header.Values(mcp.HeaderVersion)) > 1 || len(c.r.Header.Values(mcp.HeaderSession)) > 1 {
		return &mcp.Fault{Code: mcp.CodeRequest, Msg: "the version or the session stands twice in the header"}
	}
	v := c.r.Header.Get(mcp.HeaderVersion)
	if v == mcp.Version2026July && c.m.Method != "initialize" {
		return &mcp.Fault{Code: mcp.CodeParams, Msg: "_meta lacks io.modelcontextprotocol/protocolVersion"}
	}
	if v != "" && v != mcp.Version2026July && !mcp.Handshake(v) {
		return &mcp.Fault{Code: mcp.CodeRequest, Msg: "this protocol version is not supported; supported are " + strings.Join(mcp.Supported, ", ")}
	}
	return nil
}

func (c *call) dispatch() {
	switch {
	case c.m.Removed():
		c.write(http.StatusNotFound, mcp.ErrorMessage(c.m.IDBytes(), mcp.CodeMethod, "Method not found", nil))
	case c.m.Method == "ping" && c.m.Kind == mcp.Request && !c.m.Modern():
		c.write(http.StatusOK, mcp.ResultMessage(c.m.IDBytes(), []byte(`{}`)))
	case c.m.Method == "initialize":
		c.initialize()
	case aboutTask(c.m.Method) && c.m.Kind == mcp.Request:
		c.follow()
	case mcp.Acts(c.m.Method) && c.m.Kind == mcp.Request:
		c.act()
	case c.m.Method == methodListen && c.m.Modern():
		c.subscribe()
	case c.m.Method == "notifications/cancelled":
		c.forward(broker.KindCatalogue)
		c.cancelled()
	default:
		c.forward(broker.KindCatalogue)
	}
}

// known are the requests that the protocol lets clients send. Others pass only where the config names them for the server.
var known = []string{"initialize", "ping", "server/discover", "tools/list", "tools/call", "prompts/list", "prompts/get", "resources/list", "resources/read", "resources/templates/list",
	"resources/subscribe", "resources/unsubscribe", "subscriptions/listen", "completion/complete", "logging/setLevel", "tasks/list", "tasks/get", "tasks/update", "tasks/result", "tasks/cancel"}

// hidden reports whether a name holds characters that people do not see, or that end it for some reader: no honest one does.
func hidden(name string) bool {
	return strings.TrimSpace(name) != name || strings.ContainsFunc(name, func(r rune) bool {
		return unicode.IsControl(r) || unicode.In(r, unicode.Cf, unicode.Co, unicode.Zl, unicode.Zp, unicode.Variation_Selector)
	})
}

// act is a call that policy decides by name: first the retry of a question is recognised, then it goes on as any other.
func (c *call) act() {
	if hidden(c.m.Target) || !slices.Contains(known, c.m.Method) && !slices.Contains(c.server.Methods, c.m.Method) {
		c.unknown()
		return
	}
	if !c.completes() {
		c.unknown()
		return
	}
	if c.m.Modern() && (c.m.RequestState.Present() || c.m.InputResponses.Present()) {
		if goOn := c.resume(); !goOn {
			return
		}
	}
	if c.m.Method == "tools/call" && c.m.Target == connectTool && c.server.Deliver == catalog.DeliverHeader {
		c.connectNow()
		return
	}
	c.forward(broker.KindCall)
}

// completes reports whether what a completion is about may be seen at all; it is true for every other method.
func (c *call) completes() bool {
	if c.m.Method != "completion/complete" {
		return true
	}
	as := map[string]string{"ref/prompt": "prompts/get", "ref/resource": "resources/read"}[mcp.Text(mcp.Lookup(c.m.Of(c.m.Params), "ref", "type"))]
	see, err := c.g.Door.Visible(c.r.Context(), c.caller, c.server, as, []string{c.m.Target})
	return as != "" && err == nil && see[0]
}

// forward takes one message through the broker to the server, and its answer back.
func (c *call) forward(kind broker.Kind) {
	ends := c.g.Now().Add(c.server.CallLimit)
	if kind == broker.KindStream {
		ends = c.caller.Expires
	}
	limited, end := context.WithDeadline(c.context(), ends)
	defer end()
	ctx, cancel := context.WithCancelCause(limited)
	defer cancel(nil)
	c.ctx, c.cancel, c.ends = ctx, cancel, ends
	defer c.running()()
	if kind == broker.KindStream {
		c.news = &streams.Stream{Caller: c.caller, Server: c.server, Ctx: ctx, End: func() { cancel(errStopping) }}
		leave, ok := c.g.streams.Enter("", c.news)
		if !ok {
			c.stopping()
			return
		}
		defer leave()
	}
	lease, err := c.g.Door.Open(ctx, c.caller, c.actOf(kind))
	if err != nil {
		c.no(err)
		return
	}
	outcome := broker.Outcome{Result: audit.ResultUnknown, Detail: "the call was broken off"}
	defer func() {
		if c.parked {
			return
		}
		if outcome == goesOn {
			c.park(pending.InSession(c.id, c.m.IDBytes()), lease)
			return
		}
		lease.Close(ctx, outcome)
	}()
	defer c.endWithAccess(ctx, lease, end)()
	resp, err := c.send(ctx, lease, http.MethodPost, c.body)
	if err != nil {
		if ended := lease.Valid(ctx); ended != nil {
			err = ended
		}
		outcome = c.failed(err)
		return
	}
	defer func() { _ = resp.Body.Close() }()
	outcome = c.answer(lease, resp)
}

// context is the request's in the modern era, where a client that goes away cancels. A legacy client that goes away does not.
func (c *call) context() context.Context {
	if c.m.Modern() || c.m.Kind != mcp.Request {
		return c.r.Context()
	}
	return context.WithoutCancel(c.r.Context())
}

// arguments are those that policy reads. What it cannot read is the client's to change.
func (c *call) arguments(names []string) (map[string][]byte, error) {
	v, err := c.m.ArgumentValues(names)
	if f, ok := errors.AsType[*mcp.Fault](err); ok {
		return nil, fault.New(fault.Invalid, f.Msg, err)
	}
	return v, err
}

func (c *call) actOf(kind broker.Kind) broker.Act {
	a := broker.Act{Kind: kind, Server: c.server, Method: c.m.Method, Arguments: c.arguments}
	switch {
	case c.task != nil:
		a.Name = c.task.Tool
	case kind == broker.KindCall:
		a.Name = c.m.Target
	}
	if c.session != nil && c.server.Placeholder == identity.TicketSession {
		a.Session = c.session.Act
	}
	return a
}

// send builds the request to the server from nothing: what a client sent in headers goes no further, but for what the
// protocol needs.
func (c *call) send(ctx context.Context, lease broker.Lease, method string, body []byte) (*http.Response, error) {
	r := (&http.Request{Method: method, URL: c.server.URL, Host: c.server.URL.Host, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: make(http.Header, 10)}).WithContext(ctx)
	if body != nil {
		r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
		r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
		r.Header["Content-Type"] = []string{"application/json"}
	}
	r.Header["Accept"] = []string{"application/json, text/event-stream"}
	r.Header["Accept-Encoding"] = []string{"identity"}
	r.Header["User-Agent"] = []string{"frontdesk"}
	for _, name := range []string{"Traceparent", "Tracestate"} {
		if v := c.r.Header.Get(name); v != "" && len(v) < 512 {
			r.Header[name] = []string{v}
		}
	}
	switch {
	case c.m.Modern():
		r.Header[mcp.HeaderVersion] = []string{c.m.Version}
		r.Header[mcp.HeaderMethod] = []string{c.m.Method}
		if c.m.Target != "" && c.m.Method != "completion/complete" {
			r.Header[mcp.HeaderName] = []string{mcp.EncodeHeader(c.m.Target)}
		}
		for name, v := range c.r.Header {
			if strings.HasPrefix(name, "Mcp-Param-") {
				r.Header[name] = v
			}
		}
	case c.session != nil:
		if c.session.Version >= mcp.Version2025June {
			r.Header[mcp.HeaderVersion] = []string{c.session.Version}
		}
		if up := c.g.Sessions.Upstream(c.session); up != "" {
			r.Header[mcp.HeaderSession] = []string{up}
		}
		if v := c.r.Header.Get("Last-Event-Id"); v != "" && method == http.MethodGet {
			r.Header["Last-Event-Id"] = []string{v}
		}
	}
	return lease.Do(r)
}
