package hosted

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"frontdesk.dev/frontdesk/internal/kit/mcp"
)

// Programs are of either era. A legacy client's own initialize goes to the server as it came. For a modern client the
// server is asked what it is; a legacy one is greeted in the client's name, without any capability by which it could ask
// back, and what it answers gets the members that the modern era wants (docs/eras.md).

// discoverLimit bounds the question; a legacy server that does not know it may stay silent.
const discoverLimit = 5 * time.Second

const (
	keyVersion      = "io.modelcontextprotocol/protocolVersion"
	keySubscription = "io.modelcontextprotocol/subscriptionId"
	discover        = `{"jsonrpc":"2.0","id":1,"method":"server/discover","params":{"_meta":{"` + keyVersion + `":"` + mcp.Version2026July + `","io.modelcontextprotocol/clientCapabilities":{}}}}`
	initialized     = `{"jsonrpc":"2.0","method":"notifications/initialized"}`
)

func initialize(params []byte) []byte {
	return append(append([]byte(`{"jsonrpc":"2.0","id":1,"method":"initialize","params":`), params...), '}')
}

// modernGreeting is how a legacy server is greeted for a modern client.
func modernGreeting(m *mcp.Message) []byte {
	info := []byte(`{"name":"frontdesk","version":"1"}`)
	if m.ClientInfo.Present() && m.Of(m.ClientInfo)[0] == '{' {
		info = m.Of(m.ClientInfo)
	}
	b := []byte(`{"protocolVersion":"` + mcp.Version2025November + `","capabilities":{},"clientInfo":`)
	return append(append(b, info...), '}')
}

// greet finds out what the server speaks, and shakes hands where it wants that.
func (p *process) greet(ctx context.Context) error {
	p.legacy = true
	if p.dialect.modern {
		ask, cancel := context.WithTimeout(ctx, discoverLimit)
		answer, err := p.internal(ask, []byte(discover))
		cancel()
		if err != nil && (ctx.Err() != nil || p.over.Load()) {
			return err
		}
		if bytes.Contains(mcp.Lookup(answer, "result", "supportedVersions"), []byte(`"`+mcp.Version2026July+`"`)) {
			p.legacy = false
			p.setHello(mcp.Lookup(answer, "result"))
			return nil
		}
	}
	answer, err := p.internal(ctx, initialize(p.dialect.params))
	if err != nil {
		return err
	}
	result := mcp.Lookup(answer, "result")
	if len(result) == 0 || result[0] != '{' {
		return errors.New("it refused the handshake: " + string(mcp.Lookup(answer, "error")))
	}
	p.setHello(result)
	return p.send([]byte(initialized))
}

func (p *process) setHello(result []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hello = bytes.Clone(result)
}

// errOver says that a process is no more.
var errOver = errors.New("it ended")

// internal sends a request of our own and waits for its answer.
func (p *process) internal(ctx context.Context, request []byte) ([]byte, error) {
	m, err := mcp.Scan(request)
	if err != nil {
		return nil, err
	}
	p.use(p.hosts.Now())
	c := p.open(&m, "")
	c.modern = false
	defer func() {
		p.mu.Lock()
		delete(p.calls, c.n)
		p.mu.Unlock()
		p.release()
	}()
	if err := p.send(mcp.Splice(m.Raw, mcp.Edit{Span: m.ID, With: strconv.AppendInt(nil, c.n, 10)})); err != nil {
		return nil, fmt.Errorf("%w at once", errOver)
	}
	for {
		msg, err := c.queue.next(ctx)
		if err != nil {
			return nil, errors.New("it did not answer " + m.Method)
		}
		if c.queue.done() {
			if p.over.Load() {
				return nil, fmt.Errorf("%w before it had answered %s", errOver, m.Method)
			}
			return msg, nil
		}
	}
}

// own answers what the handshake has told already; nil where the server has to be asked.
func (p *process) own(m *mcp.Message) []byte {
	switch {
	case m.Method == "initialize":
		return mcp.ResultMessage(m.IDBytes(), p.hello)
	case !m.Modern() || !p.legacy:
		return nil
	case m.Method == "server/discover":
		r := []byte(`{"resultType":"complete","supportedVersions":["` + mcp.Version2026July + `"`)
		for _, v := range mcp.Legacy {
			r = append(append(r, `,"`...), v+`"`...)
		}
		r = append(append(r, `],"capabilities":`...), or(mcp.Lookup(p.hello, "capabilities"), `{}`)...)
		if text := mcp.Lookup(p.hello, "instructions"); len(text) > 0 {
			r = append(append(r, `,"instructions":`...), text...)
		}
		r = append(append(r, `,"ttlMs":0,"cacheScope":"private","_meta":{"io.modelcontextprotocol/serverInfo":`...), or(mcp.Lookup(p.hello, "serverInfo"), `{}`)...)
		return mcp.ResultMessage(m.IDBytes(), append(r, "}}"...))
	case m.Method == "subscriptions/listen":
		return mcp.ErrorMessage(m.IDBytes(), mcp.CodeMethod, "this server cannot tell of changes to clients of this revision", nil)
	}
	return nil
}

func or(v []byte, otherwise string) []byte {
	if len(v) == 0 {
		return []byte(otherwise)
	}
	return v
}

// legacyMeta is what a legacy server is told of a modern request's _meta.
func legacyMeta(c *call, n []byte) []byte {
	if c.token == nil {
		return []byte(`{}`)
	}
	return append(append([]byte(`{"progressToken":`), n...), '}')
}

// cacheable are the methods whose results say in the modern era how long they hold.
var cacheable = map[string]bool{"tools/list": true, "prompts/list": true, "resources/list": true, "resources/templates/list": true, "resources/read": true}

// codeNoResource is -32002, which only the legacy era has.
const codeNoResource = -32002

// incoming is the server's answer as it goes to the client: with his own id, and with what his era wants.
func (p *process) incoming(m *mcp.Message, c *call) []byte {
	edits := []mcp.Edit{{Span: m.ID, With: c.id}}
	if !c.modern {
		return mcp.Splice(m.Raw, edits...)
	}
	if !p.legacy {
		if at := spanOf(m.Raw, mcp.Lookup(m.Raw, "result", "_meta", keySubscription)); at.Present() {
			edits = append(edits, mcp.Edit{Span: at, With: c.id})
		}
		return mcp.Splice(m.Raw, edits...)
	}
	if m.Result.Present() && m.Raw[m.Result.Start] == '{' && len(mcp.Lookup(m.Raw, "result", "resultType")) == 0 {
		more := `{"resultType":"complete"`
		if cacheable[c.method] {
			more += `,"ttlMs":0,"cacheScope":"private"`
		}
		if len(bytes.TrimSpace(m.Raw[m.Result.Start+1:m.Result.End-1])) > 0 {
			more += ","
		}
		edits = append(edits, mcp.Edit{Span: mcp.Span{Start: m.Result.Start, End: m.Result.Start + 1}, With: []byte(more)})
	}
	if at := spanOf(m.Raw, mcp.Lookup(m.Raw, "error", "code")); at.Present() && code(m.Raw) == codeNoResource {
		edits = append(edits, mcp.Edit{Span: at, With: strconv.AppendInt(nil, mcp.CodeParams, 10)})
	}
	return mcp.Splice(m.Raw, edits...)
}

// spanOf finds where a part that Lookup returned lies: it is a slice of the same bytes.
func spanOf(raw, part []byte) mcp.Span {
	if len(part) == 0 {
		return mcp.Span{}
	}
	start := cap(raw) - cap(part)
	return mcp.Span{Start: start, End: start + len(part)}
}

// code is an error's; 0 where there is none.
func code(msg []byte) int {
	n, err := strconv.Atoi(string(mcp.Lookup(msg, "error", "code")))
	if err != nil {
		return 0
	}
	return n
}

// subscribed passes on a message that belongs to an open subscription (modern servers): it names that by its request.
func (p *process) subscribed(m *mcp.Message) bool {
	id := mcp.Lookup(m.Raw, "params", "_meta", keySubscription)
	n, err := strconv.ParseInt(string(id), 10, 64)
	if len(id) == 0 || err != nil {
		return false
	}
	p.mu.Lock()
	c := p.calls[n]
	p.mu.Unlock()
	return c != nil && c.queue.put(mcp.Splice(m.Raw, mcp.Edit{Span: spanOf(m.Raw, id), With: c.id}), false) == nil
}
