package gateway

import (
	"maps"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"

	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/mcp"
)

// What a server is like shows in what it answers: which era it speaks, which tools it has. Nothing here decides anything about
// a caller; it only words answers, and may be forgotten.

// trait is what is known of one server.
type trait struct {
	modern bool
	tools  map[string]bool // that stood in any of its lists; true where the server says that they only read
}

// traits are those of all servers. The zero traits know nothing.
type traits struct {
	mu sync.Mutex
	of map[place]*trait // guarded by mu, as is what it points to
}

type place struct {
	tenant identity.Tenant
	server catalog.ServerName
}

const maxTools = 10_000 // of one server

func (t *traits) get(tenant identity.Tenant, s catalog.ServerName) *trait {
	key := place{tenant, s}
	if t.of == nil {
		t.of = map[place]*trait{}
	}
	if t.of[key] == nil {
		t.of[key] = &trait{tools: map[string]bool{}}
	}
	return t.of[key]
}

// spoke notes that a server answered a modern message as its era does.
func (c *call) spoke(m *mcp.Message) {
	if !c.m.Modern() || c.isModern() || len(mcp.Lookup(m.Of(m.Result), "resultType")) == 0 {
		return
	}
	c.g.traits.mu.Lock()
	defer c.g.traits.mu.Unlock()
	c.g.traits.get(c.tenant, c.server.Name).modern = true
}

// Tools are those that a server is known to have, from the lists that it gave so far, and whether it says that they only read.
func (g *Gateway) Tools(t identity.Tenant, s catalog.ServerName) map[string]bool {
	g.traits.mu.Lock()
	defer g.traits.mu.Unlock()
	return maps.Clone(g.traits.get(t, s).tools)
}

// listed notes the tools of a list, before anything is taken out of it.
func (c *call) listed(names []string, list []byte) {
	reads, err := mcp.ReadOnly(list)
	if err != nil || len(reads) != len(names) {
		return // the names were read from the same list: it cannot be
	}
	c.g.traits.mu.Lock()
	defer c.g.traits.mu.Unlock()
	t := c.g.traits.get(c.tenant, c.server.Name)
	for i, n := range names {
		if _, known := t.tools[n]; known || len(t.tools) < maxTools {
			t.tools[n] = reads[i]
		}
	}
}

func (c *call) has(tool string) bool {
	c.g.traits.mu.Lock()
	defer c.g.traits.mu.Unlock()
	_, known := c.g.traits.get(c.tenant, c.server.Name).tools[tool]
	return known
}

func (c *call) isModern() bool {
	c.g.traits.mu.Lock()
	defer c.g.traits.mu.Unlock()
	return c.g.traits.get(c.tenant, c.server.Name).modern
}

// modernCodes are errors that only a server of the modern era answers a well-formed modern message with, or any server may.
var modernCodes = []int{mcp.CodeHeaderMismatch, mcp.CodeCapability, mcp.CodeVersion, mcp.CodeParams, mcp.CodeInternal}

// tooOld reports whether an answer to a modern message shows a server that speaks an earlier revision: it has no discovery, or
// it misses a session, or does not understand at all. A tool's own error is no such sign.
func (c *call) tooOld(status int, contentType string, body []byte) bool {
	if !c.m.Modern() || c.m.Kind != mcp.Request || c.isModern() {
		return false
	}
	kind, _, _ := mime.ParseMediaType(contentType)
	code, err := strconv.Atoi(string(mcp.Lookup(body, "error", "code")))
	isError := kind == "application/json" && err == nil
	if c.m.Method == "server/discover" && isError {
		return !slices.Contains(modernCodes[:3], code)
	}
	switch status {
	case http.StatusBadRequest, http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusNotAcceptable:
		return !isError || !slices.Contains(modernCodes, code) && code != mcp.CodeMethod
	}
	return false
}

// refuseOld answers a modern client of a server that speaks earlier revisions alone: a client that knows those begins anew with
// initialize (2026-07-28, versioning).
func (c *call) refuseOld() {
	c.write(http.StatusBadRequest, mcp.ErrorMessage(c.m.IDBytes(), mcp.CodeVersion, c.server.Title+" speaks an earlier revision of the protocol: begin with initialize",
		must(map[string]any{"supported": mcp.Legacy, "requested": c.m.Version})))
}

// tooNew reports whether an answer to initialize shows a server that has no handshake any more.
func tooNew(status int, body []byte) bool {
	code, err := strconv.Atoi(string(mcp.Lookup(body, "error", "code")))
	if err != nil {
		return false
	}
	return code == mcp.CodeVersion || code == mcp.CodeHeaderMismatch || code == mcp.CodeMethod || status == http.StatusBadRequest && code == mcp.CodeParams
}

// refuseNew answers a legacy client of a server that speaks the modern era alone. The error is the one of its own era, on 200:
// clients show its sentence then.
func (c *call) refuseNew() {
	c.write(http.StatusOK, mcp.ErrorMessage(c.m.IDBytes(), mcp.CodeParams, c.server.Title+" speaks revision "+mcp.Version2026July+
		" of the protocol alone: use a client that does, or ask an operator for a server of an earlier one", must(map[string]any{"supported": []string{mcp.Version2026July}, "requested": c.m.Version})))
}

// notThere reports whether the server says, in one of the ways in use, that it knows nothing of the name that was asked for.
// Its own words would tell a name that policy hides from one that nobody has.
func (c *call) notThere(m *mcp.Message) bool {
	code, said := "", ""
	if m.Err.Present() {
		e := m.Of(m.Err)
		code, said = string(mcp.Lookup(e, "code")), strings.ToLower(mcp.Text(mcp.Lookup(e, "message")))
	}
	switch c.m.Method {
	case "resources/read", "resources/subscribe", "resources/unsubscribe":
		return code == strconv.Itoa(mcp.CodeNoResource) || code == strconv.Itoa(mcp.CodeParams) && unknownWords(said)
	case "prompts/get", "completion/complete":
		return code == strconv.Itoa(mcp.CodeParams) && unknownWords(said)
	case "tools/call":
		if code != "" {
			return code == strconv.Itoa(mcp.CodeParams) && unknownWords(said)
		}
	default:
		return false
	}
	// Some SDKs say it as a tool's own error.
	result := m.Of(m.Result)
	if string(mcp.Lookup(result, "isError")) != "true" || c.has(c.m.Target) {
		return false
	}
	said = mcp.FirstText(result)
	return len(said) < 200+len(c.m.Target) && strings.Contains(said, c.m.Target) && unknownWords(strings.ToLower(said))
}

func unknownWords(said string) bool {
	for _, w := range []string{"unknown", "not found", "no such", "does not exist", "not exist"} {
		if strings.Contains(said, w) {
			return true
		}
	}
	return false
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
