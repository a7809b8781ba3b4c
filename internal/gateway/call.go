package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/internal/broker"
	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/connect"
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
	session *Session // legacy, after initialize
	id      string   // the client's session id
	body    []byte   // what is forwarded
	inner   asked    // of a question of the server's own that this message answers
	task    *Task    // that this request is about
	batched bool     // it came in an array

	passage
}

// passage is a call while it is forwarded.
type passage struct {
	ctx    context.Context
	cancel context.CancelCauseFunc // says why it ends
	ends   time.Time
	news   *clientStream // of a subscription
	parked bool          // it has begun a task: its lease waits for the end of that
}

func must(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // a value of ours that is no JSON: a slip in this package
	}
	return b
}

func (c *call) post() {
	if !plainJSON(c.r.Header) {
		http.Error(c.w, "send application/json in UTF-8, without a content coding", http.StatusUnsupportedMediaType)
		return
	}
	body, err := readBody(c.w, c.r)
	if errors.Is(err, error(errTooLarge)) {
		c.w.Header().Set("Connection", "close")
		c.write(http.StatusRequestEntityTooLarge, mcp.ErrorMessage([]byte("null"), errTooLarge.Code, errTooLarge.Msg, nil))
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
		if at := c.g.smuggledInside(body, c.server, c.token); at != "" {
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

// plainJSON reports whether a body is JSON for every reader: one type, and no coding that inflates.
func plainJSON(h http.Header) bool {
	types := h.Values("Content-Type")
	if len(types) != 1 || h.Get("Content-Encoding") != "" && !strings.EqualFold(h.Get("Content-Encoding"), "identity") {
		return false
	}
	kind, params, err := mime.ParseMediaType(types[0])
	charset, said := params["charset"]
	return err == nil && kind == "application/json" && (!said || strings.EqualFold(charset, "utf-8"))
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
		news, leave, ok := c.stay(ctx, cancel)
		if !ok {
			c.stopping()
			return
		}
		defer leave()
		c.news = news
	}
	lease, err := c.g.Door.Open(ctx, c.caller, c.actOf(kind))
	if fault.KindOf(err) == fault.Conflict && c.session != nil { // its act ended, in a broker's process that was stopped
		c.g.forgetSession(ctx, c.session, c.id)
		http.Error(c.w, sessionEnded, http.StatusNotFound)
		return
	}
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
			c.park(c.id+"\x00"+string(c.m.IDBytes()), lease)
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
		if up := c.upstreamSession(); up != "" {
			r.Header[mcp.HeaderSession] = []string{up}
		}
		if v := c.r.Header.Get("Last-Event-Id"); v != "" && method == http.MethodGet {
			r.Header["Last-Event-Id"] = []string{v}
		}
	}
	return lease.Do(r)
}

const maxAnswer = 16 << 20

// answer passes the server's answer on, and says what came of the call.
func (c *call) answer(lease broker.Lease, resp *http.Response) broker.Outcome {
	kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	switch {
	case kind == "text/event-stream" && resp.StatusCode == http.StatusOK:
		return c.relay(lease, resp)
	case resp.StatusCode == http.StatusUnauthorized || resp.StatusCode == http.StatusForbidden:
		if missing := lease.State().Missing; len(missing) > 0 && c.m.Kind == mcp.Request { // it tried its keycard at the API at once
			c.ask(missing)
			return broker.Outcome{Result: audit.ResultNeeds, Detail: "the server refused its keycard, because a connection is missing"}
		}
		// The server's challenge would send the client to somebody else's authorization server: it is not passed on.
		c.say(c.server.Title+" refused the credential that Frontdesk sent (status "+strconv.Itoa(resp.StatusCode)+"). The user can connect again at "+c.g.URL(c.tenant, "/portal/")+", or ask an operator.", mcp.CodeUnavailable)
		return broker.Outcome{Result: audit.ResultFailed, Detail: "the server answered with status " + strconv.Itoa(resp.StatusCode)}
	case resp.StatusCode == http.StatusNotFound && c.session != nil && !unknownMethod(peek(resp)):
		c.g.forgetSession(c.r.Context(), c.session, c.id)
		http.Error(c.w, sessionEnded, http.StatusNotFound)
		return broker.Outcome{Result: audit.ResultFailed, Detail: "the server's session has ended"}
	case resp.StatusCode >= 400 && c.tooOld(resp.StatusCode, kind, peek(resp)):
		c.refuseOld()
		return broker.Outcome{Result: audit.ResultFailed, Detail: "the server speaks an earlier revision of the protocol"}
	case resp.StatusCode == http.StatusNotFound && c.session != nil:
		resp.StatusCode = http.StatusOK // an error about a method; 404 would end the session
	}
	return c.whole(lease, resp, kind)
}

// peek reads an answer that is looked at before it is passed on.
func peek(resp *http.Response) []byte {
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		body = nil // what broke off shows nothing
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	return body
}

// unknownMethod reports whether an answer is about a method. On 404 in a session it may be about the session alone, but not every
// server knows that.
func unknownMethod(body []byte) bool {
	return string(mcp.Lookup(body, "error", "code")) == strconv.Itoa(mcp.CodeMethod)
}

// whole passes on an answer that is no stream.
func (c *call) whole(lease broker.Lease, resp *http.Response, kind string) broker.Outcome {
	if resp.StatusCode < 200 || kind != "application/json" && (resp.StatusCode >= 300 || kind != "") {
		c.say(c.server.Title+" answered with status "+strconv.Itoa(resp.StatusCode)+". Nothing is known of what it did; an operator can look into its log.", mcp.CodeUnavailable)
		return broker.Outcome{Result: audit.ResultFailed, Detail: "status " + strconv.Itoa(resp.StatusCode)}
	}
	body, err := readAll(io.LimitReader(resp.Body, maxAnswer+1), resp.ContentLength)
	if err != nil || len(body) > maxAnswer {
		c.say(c.server.Title+" broke off its answer, or it was too large. Nothing is known of what it did.", mcp.CodeUnavailable)
		return broker.Outcome{Result: audit.ResultUnknown, Detail: "the answer was broken off or too large"}
	}
	if c.m.Kind == mcp.Request {
		return c.deliver(lease, body, resp)
	}
	if kind == "application/json" && len(body) > 0 {
		c.w.Header().Set("Content-Type", "application/json")
	} else {
		body = nil // to a notification or an answer there is nothing to say
	}
	c.w.WriteHeader(resp.StatusCode)
	_, _ = c.w.Write(body)
	m, _ := mcp.Scan(body) // what cannot be read says nothing
	return resultOf(&m, resp.StatusCode)
}

// deliver passes one JSON answer on, where it is one to this call.
func (c *call) deliver(lease broker.Lease, body []byte, resp *http.Response) broker.Outcome {
	m, err := mcp.Scan(body)
	if err != nil || m.Kind != mcp.Response || !c.ours(&m) {
		c.write(http.StatusOK, c.unfit("something that is no answer to this call"))
		return broker.Outcome{Result: audit.ResultFailed, Detail: "the server's answer is none to this call"}
	}
	if c.tooOld(resp.StatusCode, "application/json", body) {
		c.refuseOld()
		return broker.Outcome{Result: audit.ResultFailed, Detail: "the server speaks an earlier revision of the protocol"}
	}
	if c.notThere(&m) {
		c.unknown()
		return broker.Outcome{Result: audit.ResultFailed, Detail: "the server knows nothing of that name"}
	}
	msg := c.edit(lease, &m)
	c.w.Header().Set("Content-Type", "application/json")
	c.w.WriteHeader(resp.StatusCode)
	_, _ = c.w.Write(msg) // the client went away if this fails; the call is done all the same
	return resultOf(&m, resp.StatusCode)
}

// ours reports whether an answer is one to this call; an error without an id is.
func (c *call) ours(m *mcp.Message) bool {
	return !m.ID.Present() && m.Err.Present() || mcp.SameID(m.IDBytes(), c.m.IDBytes())
}

// resultOf reads what came of a call, as far as the answer says.
func resultOf(m *mcp.Message, status int) broker.Outcome {
	if status >= 400 || m.Err.Present() {
		return broker.Outcome{Result: audit.ResultFailed, Detail: "the server answered with an error"}
	}
	if string(mcp.Lookup(m.Of(m.Result), "isError")) == "true" {
		return broker.Outcome{Result: audit.ResultFailed, Detail: "the tool reported an error"}
	}
	return broker.Outcome{Result: audit.ResultOK}
}

// edit changes an answer where it must: lists lose what this caller may not call, and an answer to a call whose every API
// request was refused for a missing connection becomes the question.
func (c *call) edit(lease broker.Lease, m *mcp.Message) []byte {
	if m.ID.Present() && !bytes.Equal(m.IDBytes(), c.m.IDBytes()) { // the client looks for its id as it wrote it
		own, err := mcp.Scan(mcp.Splice(m.Raw, mcp.Edit{Span: m.ID, With: c.m.IDBytes()}))
		if err != nil {
			return c.unfit("something that is no answer to this call")
		}
		m = &own
	}
	c.spoke(m)
	if c.m.Modern() && (mcp.IsList(c.m.Method) || c.m.Method == "server/discover" || c.m.Method == "resources/read") {
		m = c.private(m)
	}
	if mcp.IsList(c.m.Method) {
		return c.filter(m.Raw)
	}
	if instead := c.followed(m); instead != nil {
		return instead
	}
	if instead := c.begins(lease, m); instead != nil {
		return instead
	}
	s := lease.State()
	if len(s.Missing) > 0 && s.Successes == 0 && c.m.Kind == mcp.Request {
		if q := c.question(s.Missing); q != nil {
			return q
		}
	}
	if c.m.Method == "tools/call" && len(s.Hints) > 0 && (s.Failing || string(mcp.Lookup(m.Of(m.Result), "isError")) == "true") {
		return c.hinted(m, s.Hints)
	}
	return c.answered(m)
}

// hinted adds to a tool's result what its agent can do about the API requests that failed: servers pass on a status at best. The
// sentences are Frontdesk's own, and are said in its name.
func (c *call) hinted(m *mcp.Message, hints []string) []byte {
	own, err := mcp.Scan(m.WithText("Frontdesk adds:\n" + strings.Join(hints, "\n")))
	if err != nil {
		return c.answered(m) // what was scanned before is scanned again: it cannot fail
	}
	return c.answered(&own)
}

// private takes an answer out of the hands of caches that several users share: it was made for this caller. How long a list
// holds is not known to its server either, for policy has a say in it.
func (c *call) private(m *mcp.Message) *mcp.Message {
	var edits []mcp.Edit
	if v := mcp.Lookup(m.Raw, "result", "cacheScope"); len(v) > 0 && string(v) != `"private"` {
		edits = append(edits, mcp.Edit{Span: m.SpanOf(v), With: []byte(`"private"`)})
	}
	if v := mcp.Lookup(m.Raw, "result", "ttlMs"); len(v) > 0 && string(v) != "0" && mcp.IsList(c.m.Method) {
		edits = append(edits, mcp.Edit{Span: m.SpanOf(v), With: []byte("0")})
	}
	if len(edits) == 0 {
		return m
	}
	own, err := mcp.Scan(mcp.Splice(m.Raw, edits...))
	if err != nil {
		return m // what was scanned before is scanned again: it cannot fail
	}
	return &own
}

func (c *call) filter(body []byte) []byte {
	names, err := mcp.ListNames(c.m.Method, body)
	if err != nil {
		if len(mcp.Lookup(body, "error")) > 0 && len(mcp.Lookup(body, "result")) == 0 {
			return body
		}
		return mcp.ErrorMessage(c.m.IDBytes(), mcp.CodeInternal, "the list could not be read", nil)
	}
	if len(names) > maxListed {
		return c.unfit("a list of more than " + strconv.Itoa(maxListed) + " entries")
	}
	if c.m.Method == "tools/list" {
		c.listed(names, body)
	}
	keep := c.visible(names)
	c.withhold(names, keep)
	out, err := mcp.FilterList(c.m.Method, body, keep)
	if err != nil {
		return mcp.ErrorMessage(c.m.IDBytes(), mcp.CodeInternal, "the list could not be read", nil)
	}
	return out
}

// visible says which entries of a list this caller may see; an error is a no.
func (c *call) visible(names []string) []bool {
	method := map[string]string{"tools/list": "tools/call", "prompts/list": "prompts/get"}[c.m.Method]
	switch {
	case c.m.Method == methodTasks:
		return c.ownTasks(names)
	case method == "":
		method = "resources/read"
	}
	keep, err := c.g.Door.Visible(c.r.Context(), c.caller, c.server, method, names)
	if err != nil {
		return make([]bool, len(names))
	}
	return keep
}

// maxListed bounds one page of a list: each entry is decided.
const maxListed = 5000

// withhold takes from a list what people and models could take for something else: names with characters that nobody sees,
// and tools and prompts whose names differ in case alone, or not at all.
func (c *call) withhold(names []string, keep []bool) {
	alike := map[string]int{}
	if c.m.Method == "tools/list" || c.m.Method == "prompts/list" {
		for _, n := range names {
			alike[strings.ToLower(n)]++
		}
	}
	withheld := 0
	for i, n := range names {
		if keep[i] && (n == "" || hidden(n) || alike[strings.ToLower(n)] > 1) {
			keep[i] = false
			withheld++
		}
	}
	if withheld > 0 {
		c.g.Log.Warn("entries of a server's list are withheld: their names are empty, stand twice, or have characters that nobody sees", "server", c.server.Name, "tenant", c.tenant, "entries", withheld)
	}
}

// failed answers for a server that could not be reached.
func (c *call) failed(err error) broker.Outcome {
	if _, o, ok := c.over(); ok && c.news == nil {
		c.say("The call was cancelled.", mcp.CodeUnavailable)
		return o
	}
	if needed, ok := errors.AsType[*catalog.Needed](err); ok { // the vendor's own server wants more than its person has allowed
		c.no(needed)
		return broker.Outcome{Result: audit.ResultNeeds, Detail: needed.Error()}
	}
	switch fault.KindOf(err) {
	case fault.Unauthenticated:
		c.g.challenge(c.w, c.tenant, string(c.server.Name), "invalid_token")
		return broker.Outcome{Result: audit.ResultDenied, Detail: fault.Message(err)}
	case fault.Internal:
		c.g.Log.Error("a call failed", "server", c.server.Name, "error", err)
	case fault.RateLimited, fault.Unavailable:
		if c.server.Program != nil { // ours, so it is known what happened
			c.say(sentence(fault.Message(err)), mcp.CodeUnavailable)
			return broker.Outcome{Result: audit.ResultFailed, Detail: fault.Message(err)}
		}
	}
	c.say(c.server.Title+" could not be reached, or did not answer in time. Nothing is known of what it did; try again later.", mcp.CodeUnavailable)
	return broker.Outcome{Result: audit.ResultFailed, Detail: "the server could not be reached, or did not answer"}
}

// no is the one switch from the broker's refusals to MCP.
func (c *call) no(err error) {
	if needed, ok := errors.AsType[*catalog.Needed](err); ok {
		c.ask(needed.Missing)
		return
	}
	switch fault.KindOf(err) {
	case fault.Unauthenticated:
		c.g.challenge(c.w, c.tenant, string(c.server.Name), "invalid_token")
	case fault.Denied:
		c.denied(err)
	case fault.Invalid:
		c.refuse(err)
	default:
		if fault.KindOf(err) == fault.Internal {
			c.g.Log.Error("a call failed inside", "server", c.server.Name, "error", err)
		}
		if c.m.Kind != mcp.Request {
			c.w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		c.write(http.StatusOK, mcp.ErrorMessage(c.m.IDBytes(), mcp.CodeUnavailable, sentence(fault.Message(err)), nil))
	}
}

// denied tells a caller no for what he can see; what he cannot see is answered like what does not exist.
func (c *call) denied(err error) {
	if c.m.Kind != mcp.Request {
		c.w.WriteHeader(http.StatusAccepted)
		return
	}
	see, verr := c.g.Door.Visible(c.r.Context(), c.caller, c.server, c.m.Method, []string{c.m.Target})
	if verr == nil && see[0] {
		c.write(http.StatusOK, mcp.ErrorMessage(c.m.IDBytes(), mcp.CodeDenied, sentence(fault.Message(err))+" Do not retry.", nil))
		return
	}
	c.unknown()
}

// unknown is made by us, for hidden and for made-up names alike.
func (c *call) unknown() {
	status := http.StatusOK
	msg := c.nothing()
	if string(mcp.Lookup(msg, "error", "code")) == strconv.Itoa(mcp.CodeMethod) {
		status = mcp.Status(c.m.Modern(), mcp.CodeMethod)
	}
	c.write(status, msg)
}

// refuse answers a message that cannot be taken.
func (c *call) refuse(err error) {
	f, ok := errors.AsType[*mcp.Fault](err)
	if !ok {
		f = &mcp.Fault{Code: mcp.CodeParams, Msg: fault.Message(err)}
	}
	status := mcp.Status(c.m.Modern(), f.Code)
	var data []byte
	switch f.Code {
	case mcp.CodeParams:
		status = http.StatusBadRequest
	case mcp.CodeVersion:
		data = must(map[string]any{"supported": mcp.Supported, "requested": c.m.Version})
	}
	c.write(status, mcp.ErrorMessage(c.m.IDBytes(), f.Code, f.Msg, data))
}

// say tells the model what happened: as a tool result where it is a tool's call, else as an error.
func (c *call) say(text string, code int) {
	switch {
	case c.m.Kind != mcp.Request:
		c.w.WriteHeader(http.StatusBadGateway)
	case c.m.Method == "tools/call":
		c.write(http.StatusOK, mcp.ToolText(c.m.IDBytes(), c.m.Modern(), text, nil))
	default:
		c.write(http.StatusOK, mcp.ErrorMessage(c.m.IDBytes(), code, text, nil))
	}
}

func sentence(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + strings.TrimSuffix(s[1:], ".") + "."
}

func (c *call) write(status int, msg []byte) {
	c.w.Header().Set("Content-Type", "application/json")
	c.w.WriteHeader(status)
	_, _ = c.w.Write(msg) // the client went away if this fails
}

// asked is the state of a question of ours, sealed into requestState. State and Answers are what the message carried already when
// we had to ask: the server's own state, and answers to its questions. They go on to it with the retry, byte for byte.
type asked struct {
	Request connect.RequestID `json:"r"`
	Who     string            `json:"w"`
	Client  identity.ClientID `json:"c"`
	Digest  []byte            `json:"d"`
	Expires time.Time         `json:"e"`
	State   []byte            `json:"s,omitempty"`
	Answers []byte            `json:"a,omitempty"`

	unshown bool // the client refused sooner than a person could have
}
