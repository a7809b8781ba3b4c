package gateway

import (
	"bytes"
	"context"
	"net/http"
	"strings"
	"time"

	"frontdesk.dev/frontdesk/internal/broker"
	"frontdesk.dev/frontdesk/internal/connect"
	"frontdesk.dev/frontdesk/internal/gateway/pending"
	"frontdesk.dev/frontdesk/internal/kit/mcp"
)

// foreign is what a server sends toward a client, besides the one answer to the one call: requests, notices, and answers that
// are not to this call. Only what the client declared is asked of it, by every rule that it could not check itself: which host
// is ours, and that nobody types a secret into a server's form.
type foreign struct {
	*call
	lease  broker.Lease
	replay bool // the stream takes up an earlier one: answers on it are to earlier calls
	told   bool // the operator knows of it
}

// pass returns what goes on to the client of a message that is no answer to the call at hand; nil drops it.
func (f *foreign) pass(m *mcp.Message) []byte {
	switch m.Kind {
	case mcp.Response:
		if f.replay {
			return f.late(m)
		}
		f.tell("an answer to another call")
		return nil
	case mcp.Request:
		return f.request(m)
	}
	if m.Method == "notifications/elicitation/complete" && f.own(m) {
		f.tell("word that a person has answered Frontdesk")
		return nil
	}
	if m.Method == "notifications/tasks" || m.Method == "notifications/tasks/status" {
		return f.ofTask(m)
	}
	return m.Raw
}

// late is an answer to an earlier call of the session, on a stream that was taken up again. What it answers is not known here, so
// it goes by what it holds: a list loses what this caller may not call, as it would have done in its own time.
func (f *foreign) late(m *mcp.Message) []byte {
	f.g.calls.End(pending.InSession(f.id, m.IDBytes()), resultOf(m, http.StatusOK))
	asked := *f.call
	asked.m = mcp.Message{Raw: m.Raw, ID: m.ID, Kind: mcp.Request, Method: mcp.ListIn(m.Raw)}
	if asked.m.Method != "" {
		return asked.filter(m.Raw)
	}
	return m.Raw
}

// own reports whether a notice is about a connect request: only Frontdesk says what became of those.
func (f *foreign) own(m *mcp.Message) bool {
	id := mcp.Text(mcp.Lookup(m.Of(m.Params), "elicitationId"))
	_, err := f.g.Asks.State(f.r.Context(), f.tenant, connect.RequestID(id))
	return id != "" && err == nil
}

// request judges what a server asks of the client. The modern era has no such requests: there they are dropped.
func (f *foreign) request(m *mcp.Message) []byte {
	if f.session == nil {
		f.tell("a request, which this revision of the protocol does not have")
		return nil
	}
	params := m.Of(m.Params)
	ask, known := mcp.AskOf(m.Method, params)
	if !known || ask != "" && !f.declared(ask) {
		f.tell("a request that the client did not declare to take")
		f.reply(mcp.ErrorMessage(m.IDBytes(), mcp.CodeMethod, "the client does not take "+m.Method, nil))
		return nil
	}
	if m.Method != "elicitation/create" {
		return m.Raw
	}
	if bad := mcp.BadAsk(params, f.ourHost); bad != "" {
		f.tell(bad)
		f.reply(mcp.ResultMessage(m.IDBytes(), []byte(`{"action":"decline"}`)))
		return nil
	}
	if ask == mcp.AskURL {
		return f.mark(m, mcp.Asked{Params: params, Message: m.SpanOf(mcp.Lookup(params, "message"))})
	}
	return m.Raw
}

func (c *call) declared(ask string) bool {
	l := c.m.Declared()
	if c.session != nil {
		l = c.session.Declares
	}
	for _, d := range l {
		if d == ask {
			return true
		}
	}
	return false
}

// ourHost reports whether a host is where Frontdesk's own pages are.
func (c *call) ourHost(host string) bool {
	own := strings.TrimPrefix(strings.TrimPrefix(c.g.URL("", ""), "https://"), "http://")
	own, _, _ = strings.Cut(own, ":")
	return strings.EqualFold(strings.TrimSuffix(host, "."), own)
}

// mark says in a question's text who asks, and where its link leads.
func (c *call) mark(m *mcp.Message, asks ...mcp.Asked) []byte {
	var edits []mcp.Edit
	for _, a := range asks {
		if a.Message.Present() {
			said := "Asked by the server " + c.server.Title + ", leads to " + mcp.HostOf(mcp.Text(mcp.Lookup(a.Params, "url"))) + ": " + m.StringOf(a.Message)
			edits = append(edits, mcp.Edit{Span: a.Message, With: mcp.Quoted(said)})
		}
	}
	return mcp.Splice(m.Raw, edits...)
}

// answered judges the questions within an answer, and returns what the client gets in its place.
func (c *call) answered(m *mcp.Message) []byte {
	asks, err := m.Asks()
	if err != nil {
		return c.unfit("a question that cannot be read")
	}
	if len(asks) == 0 {
		return m.Raw
	}
	if strings.HasPrefix(mcp.Text(mcp.Lookup(m.Of(m.Result), "requestState")), statePrefix) {
		return c.unfit("a question in the name of Frontdesk")
	}
	var links []mcp.Asked
	for _, a := range asks {
		ask, known := mcp.AskOf(a.Method, a.Params)
		bad := ""
		switch {
		case a.Key == askKey:
			bad = "a question in the name of Frontdesk"
		case !known:
			bad = "a question of a kind that the protocol does not have"
		case ask != "" && !c.declared(ask):
			return mcp.ErrorMessage(c.m.IDBytes(), mcp.CodeCapability, c.server.Title+" wants to ask the user something, and this client did not declare that it can: "+ask, nil)
		case a.Method == "elicitation/create":
			bad = mcp.BadAsk(a.Params, c.ourHost)
		}
		if bad != "" {
			return c.unfit(bad)
		}
		if ask == mcp.AskURL {
			links = append(links, a)
		}
	}
	return c.mark(m, links...)
}

// unfit stands for an answer that is not passed on.
func (c *call) unfit(what string) []byte {
	c.g.Log.Warn("what a server said was not passed on", "server", c.server.Name, "tenant", c.tenant, "what", what)
	return mcp.ErrorMessage(c.m.IDBytes(), mcp.CodeUnavailable, c.server.Title+" answered with "+what+"; that is not passed on. An operator can see it in the log.", nil)
}

func (f *foreign) tell(what string) {
	if !f.told {
		f.told = true
		f.g.Log.Warn("what a server said was not passed on", "server", f.server.Name, "tenant", f.tenant, "what", what)
	}
}

const replyTime = 5 * time.Second

// reply answers the server in the client's place.
func (f *foreign) reply(msg []byte) {
	ctx, cancel := context.WithTimeout(f.r.Context(), replyTime)
	defer cancel()
	if resp, err := f.send(ctx, f.lease, "POST", msg); err == nil {
		_ = resp.Body.Close()
	} // a server that does not listen is answered by silence
}

// frame is an event as it goes on. Ids and times of reconnection belong to sessions: the modern era resumes nothing. No server
// tells clients to come back at once.
func (c *call) frame(e *mcp.Event, msg []byte) []byte {
	hasty := len(e.Retry) == 1 || len(e.Retry) == 2
	plain := c.session != nil && !hasty || e.ID == "" && e.Retry == ""
	if plain && bytes.Equal(msg, e.Data) {
		return e.Raw
	}
	out := []byte("event: message\n")
	if c.session != nil && e.ID != "" {
		out = append(append(append(out, "id: "...), e.ID...), '\n')
	}
	switch {
	case c.session != nil && hasty:
		out = append(out, "retry: 100\n"...)
	case c.session != nil && e.Retry != "":
		out = append(append(append(out, "retry: "...), e.Retry...), '\n')
	}
	for line := range bytes.SplitSeq(msg, []byte("\n")) {
		out = append(append(append(out, "data: "...), line...), '\n')
	}
	return append(out, '\n')
}
