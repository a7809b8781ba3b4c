package gateway

import (
	"errors"
	"net/http"
	"strconv"
	"strings"

	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/internal/broker"
	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/kit/mcp"
)

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
	switch kind := fault.KindOf(err); {
	case kind == fault.Conflict && c.session != nil: // its act ended, with the process that it was begun in
		c.g.Sessions.Forget(c.r.Context(), c.session)
		http.Error(c.w, sessionEnded, http.StatusNotFound)
	case kind == fault.Unauthenticated:
		c.g.challenge(c.w, c.tenant, string(c.server.Name), "invalid_token")
	case kind == fault.Denied:
		c.denied(err)
	case kind == fault.Invalid:
		c.refuse(err)
	default:
		if kind == fault.Internal {
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

// refuseOld answers a modern client of a server that speaks earlier revisions alone: a client that knows those begins anew with
// initialize (2026-07-28, versioning).
func (c *call) refuseOld() {
	c.write(http.StatusBadRequest, mcp.ErrorMessage(c.m.IDBytes(), mcp.CodeVersion, c.server.Title+" speaks an earlier revision of the protocol: begin with initialize",
		must(map[string]any{"supported": mcp.Legacy, "requested": c.m.Version})))
}

// refuseNew answers a legacy client of a server that speaks the modern era alone. The error is the one of its own era, on 200:
// clients show its sentence then.
func (c *call) refuseNew() {
	c.write(http.StatusOK, mcp.ErrorMessage(c.m.IDBytes(), mcp.CodeParams, c.server.Title+" speaks revision "+mcp.Version2026July+
		" of the protocol alone: use a client that does, or ask an operator for a server of an earlier one", must(map[string]any{"supported": []string{mcp.Version2026July}, "requested": c.m.Version})))
}

// nothing is the answer for a name that is hidden, and for one that nobody has: the same, and always ours.
func (c *call) nothing() []byte {
	modern := c.m.Modern()
	switch c.m.Method {
	case "tools/call":
		return mcp.ErrorMessage(c.m.IDBytes(), mcp.CodeParams, "Unknown tool", nil)
	case "prompts/get", "completion/complete":
		return mcp.ErrorMessage(c.m.IDBytes(), mcp.CodeParams, "Unknown prompt or resource", nil)
	case "resources/read", "resources/subscribe", "resources/unsubscribe":
		code := mcp.CodeNoResource
		if modern {
			code = mcp.CodeParams
		}
		return mcp.ErrorMessage(c.m.IDBytes(), code, "Resource not found", must(map[string]string{"uri": c.m.Target}))
	}
	return mcp.ErrorMessage(c.m.IDBytes(), mcp.CodeMethod, "Method not found", nil)
}
