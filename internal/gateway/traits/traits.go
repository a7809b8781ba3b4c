// Package traits answers: what is a server like?
//
// That shows in what it answers: which era it speaks, which tools it has, how it says that it does not know a name. Nothing here decides
// anything about a caller; it only words answers, and may be forgotten. It trusts no server: the most that one gains by lying is the
// wrong words.
package traits

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

// trait is what is known of one server.
type trait struct {
	modern bool
	tools  map[string]bool // that stood in any of its lists; true where the server says that they only read
}

// Traits are those of all servers. The zero Traits know nothing. Safe for concurrent use.
type Traits struct {
	mu sync.Mutex
	of map[place]*trait // guarded by mu, as is what it points to
}

type place struct {
	tenant identity.Tenant
	server catalog.ServerName
}

const maxTools = 10_000 // of one server

// Server is what is known of one.
type Server struct {
	all *Traits
	at  place
}

// Of is the server of that name.
func (t *Traits) Of(tenant identity.Tenant, s catalog.ServerName) Server {
	return Server{t, place{tenant, s}}
}

// known needs the lock.
func (s Server) known() *trait {
	of := s.all.of
	if of == nil {
		of = map[place]*trait{}
		s.all.of = of
	}
	if of[s.at] == nil {
		of[s.at] = &trait{tools: map[string]bool{}}
	}
	return of[s.at]
}

// Spoke notes that it answered a modern message as its era does.
func (s Server) Spoke(asked, answer *mcp.Message) {
	if !asked.Modern() || s.modern() || len(mcp.Lookup(answer.Of(answer.Result), "resultType")) == 0 {
		return
	}
	s.all.mu.Lock()
	defer s.all.mu.Unlock()
	s.known().modern = true
}

// Tools are those that it is known to have, from the lists that it gave so far, and whether it says that they only read.
func (s Server) Tools() map[string]bool {
	s.all.mu.Lock()
	defer s.all.mu.Unlock()
	return maps.Clone(s.known().tools)
}

// Listed notes the tools of a list, before anything is taken out of it.
func (s Server) Listed(names []string, list []byte) {
	reads, err := mcp.ReadOnly(list)
	if err != nil || len(reads) != len(names) {
		return // the names were read from the same list: it cannot be
	}
	s.all.mu.Lock()
	defer s.all.mu.Unlock()
	tools := s.known().tools
	for i, n := range names {
		if _, known := tools[n]; known || len(tools) < maxTools {
			tools[n] = reads[i]
		}
	}
}

func (s Server) has(tool string) bool {
	s.all.mu.Lock()
	defer s.all.mu.Unlock()
	_, known := s.known().tools[tool]
	return known
}

func (s Server) modern() bool {
	s.all.mu.Lock()
	defer s.all.mu.Unlock()
	return s.known().modern
}

// modernCodes are errors that only a server of the modern era answers a well-formed modern message with, or any server may.
var modernCodes = []int{mcp.CodeHeaderMismatch, mcp.CodeCapability, mcp.CodeVersion, mcp.CodeParams, mcp.CodeInternal}

// TooOld reports whether an answer to a modern message shows a server that speaks an earlier revision: it has no discovery, or
// it misses a session, or does not understand at all. A tool's own error is no such sign.
func (s Server) TooOld(asked *mcp.Message, status int, contentType string, body []byte) bool {
	if !asked.Modern() || asked.Kind != mcp.Request || s.modern() {
		return false
	}
	kind, _, _ := mime.ParseMediaType(contentType)
	code, err := strconv.Atoi(string(mcp.Lookup(body, "error", "code")))
	isError := kind == "application/json" && err == nil
	if asked.Method == "server/discover" && isError {
		return !slices.Contains(modernCodes[:3], code)
	}
	switch status {
	case http.StatusBadRequest, http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusNotAcceptable:
		return !isError || !slices.Contains(modernCodes, code) && code != mcp.CodeMethod
	}
	return false
}

// TooNew reports whether an answer to initialize shows a server that has no handshake any more.
func TooNew(status int, body []byte) bool {
	code, err := strconv.Atoi(string(mcp.Lookup(body, "error", "code")))
	if err != nil {
		return false
	}
	return code == mcp.CodeVersion || code == mcp.CodeHeaderMismatch || code == mcp.CodeMethod || status == http.StatusBadRequest && code == mcp.CodeParams
}

// NotThere reports whether the server says, in one of the ways in use, that it knows nothing of the name that was asked for.
// Its own words would tell a name that policy hides from one that nobody has.
func (s Server) NotThere(asked, m *mcp.Message) bool {
	code, said := "", ""
	if m.Err.Present() {
		e := m.Of(m.Err)
		code, said = string(mcp.Lookup(e, "code")), strings.ToLower(mcp.Text(mcp.Lookup(e, "message")))
	}
	switch asked.Method {
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
	if string(mcp.Lookup(result, "isError")) != "true" || s.has(asked.Target) {
		return false
	}
	said = mcp.FirstText(result)
	return len(said) < 200+len(asked.Target) && strings.Contains(said, asked.Target) && unknownWords(strings.ToLower(said))
}

func unknownWords(said string) bool {
	for _, w := range []string{"unknown", "not found", "no such", "does not exist", "not exist"} {
		if strings.Contains(said, w) {
			return true
		}
	}
	return false
}
