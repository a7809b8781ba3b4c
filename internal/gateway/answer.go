package gateway

import (
	"bytes"
	"context"
	"errors"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"

	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/internal/broker"
	"frontdesk.dev/frontdesk/internal/gateway/inbound"
	"frontdesk.dev/frontdesk/internal/kit/mcp"
)

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
		c.g.Sessions.Forget(c.r.Context(), c.session)
		http.Error(c.w, sessionEnded, http.StatusNotFound)
		return broker.Outcome{Result: audit.ResultFailed, Detail: "the server's session has ended"}
	case resp.StatusCode >= 400 && c.like().TooOld(&c.m, resp.StatusCode, kind, peek(resp)):
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
	body, err := inbound.ReadAll(io.LimitReader(resp.Body, maxAnswer+1), resp.ContentLength)
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
	if c.like().TooOld(&c.m, resp.StatusCode, "application/json", body) {
		c.refuseOld()
		return broker.Outcome{Result: audit.ResultFailed, Detail: "the server speaks an earlier revision of the protocol"}
	}
	if c.like().NotThere(&c.m, &m) {
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
	c.like().Spoke(&c.m, m)
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
		c.like().Listed(names, body)
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
		c.g.streams.Begun(c.news, out)
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
				if msg = c.edit(lease, &m); c.like().NotThere(&c.m, &m) {
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
