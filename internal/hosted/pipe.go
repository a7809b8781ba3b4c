package hosted

import (
	"bytes"
	"fmt"
	"maps"
	"strconv"

	"frontdesk.dev/frontdesk/internal/kit/mcp"
)

// call is one request that a process has not answered yet. Ids and progress tokens are ours on the pipe, so that those of
// many clients cannot meet there; the client's own come back as they were, byte for byte.
type call struct {
	n       int64
	id      []byte
	token   []byte // of progress; nil where none was asked for
	session string
	method  string
	modern  bool
	queue   *queue
}

// finish gives the last message.
func (c *call) finish(msg []byte) {
	c.queue.finish(msg, mcp.ErrorMessage(c.id, mcp.CodeUnavailable, "the answer was too large to be held", nil))
}

// open takes the user that acquire counted over into a call; abandon gives him back.
func (p *process) open(m *mcp.Message, session string) *call {
	c := &call{id: bytes.Clone(m.IDBytes()), session: session, method: m.Method, modern: m.Modern(), queue: newQueue(2 * maxMessage)}
	if m.ProgressToken.Present() {
		c.token = bytes.Clone(m.Of(m.ProgressToken))
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last++
	c.n = p.last
	p.calls[c.n] = c
	return c
}

// abandon ends a call for us, and tells the server where it still works on it. It is called once.
func (p *process) abandon(c *call) {
	p.mu.Lock()
	_, working := p.calls[c.n]
	delete(p.calls, c.n)
	p.mu.Unlock()
	c.queue.end()
	if working {
		// Nobody is told where this does not arrive: the server has ended.
		_ = p.send([]byte(`{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":` + strconv.FormatInt(c.n, 10) + `}}`))
	}
	p.release()
}

// outgoing is a request as it goes down the pipe.
func (p *process) outgoing(m *mcp.Message, c *call) []byte {
	n := strconv.AppendInt(nil, c.n, 10)
	edits := []mcp.Edit{{Span: m.ID, With: n}}
	switch {
	case c.modern && p.legacy && m.Meta.Present():
		edits = append(edits, mcp.Edit{Span: m.Meta, With: legacyMeta(c, n)})
	case c.token != nil:
		edits = append(edits, mcp.Edit{Span: m.ProgressToken, With: n})
	}
	return mcp.Splice(m.Raw, edits...)
}

// translate makes a client's notification or answer ready for the pipe; nil where there is nothing to tell.
func (p *process) translate(m *mcp.Message, session string) []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	if m.Kind == mcp.Response {
		// An answer is passed on once, to the process that asked and for the session that it asked.
		if id := string(m.IDBytes()); p.key.session == session && session != "" && p.asked[id] {
			delete(p.asked, id)
			return m.Raw
		}
		return nil
	}
	if m.Method != "notifications/cancelled" {
		return m.Raw
	}
	for _, c := range p.calls {
		if c.session == session && session != "" && m.RequestID.Present() && bytes.Equal(c.id, m.Of(m.RequestID)) {
			return mcp.Splice(m.Raw, mcp.Edit{Span: m.RequestID, With: strconv.AppendInt(nil, c.n, 10)})
		}
	}
	return nil
}

// knows lets a session hear what the process says to everybody.
func (p *process) knows(session string) {
	if session == "" {
		return
	}
	o := p.hosts.outbox(p.key.principal + " " + session)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.sessions[session] == nil {
		maps.DeleteFunc(p.sessions, func(_ string, o *outbox) bool { return o.forgotten(p.hosts.Now()) })
	}
	p.sessions[session] = o
}

// heard takes one line of the process's output. What is no message is kept for the operator: many programs greet the world.
func (p *process) heard(line []byte) {
	if len(bytes.TrimSpace(line)) == 0 {
		return
	}
	line = p.hide.Bytes(line)
	m, err := mcp.Scan(line)
	if err != nil {
		p.babble(line)
		return
	}
	switch m.Kind {
	case mcp.Response:
		p.answered(&m)
	case mcp.Request:
		p.asks(&m)
	case mcp.Notification:
		p.says(&m)
	}
}

// maxNonsense is how many lines that are no message a server may print before it has said one.
const maxNonsense = 200

func (p *process) babble(line []byte) {
	p.log.add(p.hosts.Now(), "stdout, no message: "+string(line))
	p.mu.Lock()
	p.nonsense++
	hopeless := p.nonsense > maxNonsense && p.hello == nil
	p.mu.Unlock()
	if hopeless {
		p.kill(fmt.Sprintf("it printed more than %d lines on stdout that are no messages, and none that is: stdout is for MCP alone", maxNonsense))
	}
}

func (p *process) answered(m *mcp.Message) {
	n, err := strconv.ParseInt(string(m.IDBytes()), 10, 64)
	if err != nil {
		return // an answer to nothing that we asked
	}
	p.mu.Lock()
	c := p.calls[n]
	delete(p.calls, n)
	p.mu.Unlock()
	if c != nil {
		c.finish(p.incoming(m, c))
	}
}

// maxAsked is how many questions of a server may wait for its client.
const maxAsked = 100

// asks is a request of the server: ours to answer, or the client's where there is one that can be asked.
func (p *process) asks(m *mcp.Message) {
	if m.Method == "ping" {
		_ = p.send(mcp.ResultMessage(m.IDBytes(), []byte(`{}`))) // a server that has ended wants no answer
		return
	}
	if p.key.session != "" {
		p.mu.Lock()
		may := len(p.asked) < maxAsked
		if may {
			p.asked[string(m.IDBytes())] = true
		}
		p.mu.Unlock()
		if may && (p.toCall(m.Raw) || p.toSessions(m.Raw)) {
			return
		}
	}
	_ = p.send(mcp.ErrorMessage(m.IDBytes(), mcp.CodeMethod, "Method not found", nil))
}

// says is a notification of the server.
func (p *process) says(m *mcp.Message) {
	switch m.Method {
	case "notifications/progress":
		p.progress(m)
	case "notifications/message", "notifications/cancelled":
		_ = p.toCall(m.Raw) || p.toSessions(m.Raw) // nobody listens: it is lost, as it would be on HTTP
	default:
		if !p.subscribed(m) {
			_ = p.toSessions(m.Raw)
		}
	}
}

func (p *process) progress(m *mcp.Message) {
	token := mcp.Lookup(m.Raw, "params", "progressToken")
	n, err := strconv.ParseInt(string(token), 10, 64)
	if err != nil {
		return
	}
	p.mu.Lock()
	c := p.calls[n]
	p.mu.Unlock()
	if c != nil && c.token != nil {
		_ = c.queue.put(mcp.Splice(m.Raw, mcp.Edit{Span: spanOf(m.Raw, token), With: c.token}), false) // one that is lost is followed by another
	}
}

// toCall sends to the stream of the only call that is open, or, in a process of one session, of the newest.
func (p *process) toCall(msg []byte) bool {
	p.mu.Lock()
	var newest *call
	for _, c := range p.calls {
		if newest == nil || c.n > newest.n {
			newest = c
		}
	}
	if len(p.calls) > 1 && p.key.session == "" || newest != nil && newest.modern && p.legacy {
		newest = nil
	}
	p.mu.Unlock()
	return newest != nil && newest.queue.put(msg, false) == nil
}

func (p *process) toSessions(msg []byte) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	sent := false
	for _, o := range p.sessions {
		sent = o.queue.put(msg, true) == nil || sent
	}
	return sent
}
