package gateway

import (
	"net/http"

	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/kit/mcp"
)

// maxBatch bounds the messages of one array.
const maxBatch = 50

// batch takes an array of messages, which 2025-03-26 has and no other revision. Each is decided, recorded and sent on by itself, as
// if it had come alone, and one after the other: so an array opens no more at once than any other request. What is said to them
// are events of one stream.
func (c *call) batch(body []byte) {
	parts, err := c.parts(body)
	if err != nil {
		c.refuse(err)
		return
	}
	if parts == nil {
		return
	}
	asks := false
	items := make([]*call, len(parts))
	seen := map[string]bool{}
	for i, part := range parts {
		items[i] = &call{g: c.g, r: c.r, tenant: c.tenant, server: c.server, caller: c.caller, token: c.token, batched: true}
		m, err := mcp.Scan(part)
		if err == nil && m.Kind == mcp.Request {
			if seen[string(m.IDBytes())] {
				c.refuse(&mcp.Fault{Code: mcp.CodeRequest, Msg: "two requests of the batch have one id"})
				return
			}
			seen[string(m.IDBytes())] = true
		}
		asks = asks || err != nil || m.Kind == mcp.Request
	}
	if !asks {
		for i, part := range parts {
			items[i].w = mcp.NewPart(nil)
			items[i].take(part)
		}
		c.w.WriteHeader(http.StatusAccepted)
		return
	}
	out := mcp.StartStream(c.w, http.StatusOK)
	defer out.Close()
	defer out.KeepAlive(keepAlive)()
	for i, part := range parts {
		if c.r.Context().Err() != nil {
			return // nobody reads: what has not begun does not begin
		}
		w := mcp.NewPart(out)
		items[i].w = w
		items[i].take(part)
		w.Finish(&items[i].m)
	}
}

// parts are the messages of an array, if this session has arrays; nil where it was answered already.
func (c *call) parts(body []byte) ([][]byte, error) {
	if c.r.Header.Get(mcp.HeaderSession) == "" {
		return nil, &mcp.Fault{Code: mcp.CodeRequest, Msg: "a batch is of revision 2025-03-26 alone, and of a session: send one message a request"}
	}
	if !c.findSession() {
		return nil, nil
	}
	if c.session.Version != mcp.Version2025March {
		return nil, &mcp.Fault{Code: mcp.CodeRequest, Msg: "a batch is of revision 2025-03-26 alone, and this session agreed on " + c.session.Version + ": send one message a request"}
	}
	return mcp.Split(body, maxBatch)
}

// fits reports what must not stand in a batch. The token is looked at again before each message: an array may take longer than it lasts.
func (c *call) fits() error {
	if c.m.Modern() || c.m.Method == "initialize" {
		return &mcp.Fault{Code: mcp.CodeRequest, Msg: "this message must not be in a batch: send it alone"}
	}
	_, err := c.g.Verifier.Verify(c.r.Context(), c.tenant, c.g.URL(c.tenant, "/mcp/"+string(c.server.Name)), c.token)
	if err != nil {
		return &mcp.Fault{Code: mcp.CodeUnavailable, Msg: sentence(fault.Message(err))}
	}
	return nil
}
