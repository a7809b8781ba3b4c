// Package gateway serves MCP: messages in from clients, messages out to servers, in every era of the protocol.
//
// It reads what it must (method, name, id, _meta) by scanning and leaves every other byte alone. It knows who asks
// from identity, passes every act through the broker, and shows 'not connected' by the ladder. It holds no credential.
package gateway

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/internal/broker"
	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/connect"
	"frontdesk.dev/frontdesk/internal/gateway/traits"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/web"
	"frontdesk.dev/frontdesk/internal/policy"
)

// Gateway serves every tenant's MCP endpoints. All exported fields are required.
type Gateway struct {
	Verifier *identity.Verifier
	Catalog  *catalog.Catalog
	Policies *policy.Policies
	Door     broker.Door
	Asks     Asks
	Sessions Sessions
	Tasks    Tasks
	Epochs   *identity.Epochs
	Keys     Keys
	Names    func(ctx context.Context, t identity.Tenant, id identity.ClientID) string // what a client calls itself
	URL      func(t identity.Tenant, path string) string
	Log      *slog.Logger
	Now      func() time.Time

	mu       sync.Mutex
	cache    map[string]cachedSession // guarded by mu, as is what follows
	held     map[audit.CallID]held
	streams  map[string]*clientStream // open GET streams by session, and subscriptions
	calls    map[string]*call         // of legacy sessions, by session and id
	parked   map[string]parked        // likewise: calls whose answer comes on another stream
	waiting  map[chan struct{}]bool   // who waits for a person
	draining bool

	crowds
	rounds web.Rounds // whose access has ended
	traits traits.Traits
}

// crowds are what is open here, by caller.
type crowds struct{ open, listening, late, lasting web.Crowd }

// Asks opens connect requests (connect.Desk).
type Asks interface {
	Ask(ctx context.Context, c *identity.Caller, s *catalog.Server, tool, clientName string, missing []catalog.Missing) (connect.Request, error)
	Link(r connect.Request) string
	State(ctx context.Context, t identity.Tenant, id connect.RequestID) (connect.State, error)
}

// Keys are the faces' own (web.Keys).
type Keys interface {
	Seal(purpose string, aad, plain []byte) string
	Open(purpose string, aad []byte, sealed string) ([]byte, error)
}

// Session is a legacy MCP session of one client of one user at one server. Any replica can serve its next message.
type Session struct {
	Tenant    identity.Tenant
	ID        []byte // SHA-256 of the Mcp-Session-Id that the client holds
	Principal string // identity.Caller.Principal of its owner
	Client    identity.ClientID
	Server    catalog.ServerName
	Version   string       // negotiated
	URLAsk    bool         // the client declared elicitation.url
	Declares  []string     // what else servers may ask of it (mcp.Message.Declared)
	Upstream  []byte       // the server's own session id, sealed with the faces' keys; empty where the server has none
	Act       audit.CallID // the session's own act
	Created   time.Time
	Seen      time.Time // to the minute
}

// Sessions keeps legacy sessions.
type Sessions interface {
	PutSession(ctx context.Context, s Session) error // inserts or replaces
	Session(ctx context.Context, t identity.Tenant, id []byte) (Session, error)
	DropSession(ctx context.Context, t identity.Tenant, id []byte) error
	// IdleSessions returns and removes those not seen since, at most limit.
	IdleSessions(ctx context.Context, since time.Time, limit int) ([]Session, error)
}

// Tools are those that a server is known to have, from the lists that it gave so far, and whether it says that they only read.
func (g *Gateway) Tools(t identity.Tenant, s catalog.ServerName) map[string]bool {
	return g.traits.Of(t, s).Tools()
}

// like is what is known of the server.
func (c *call) like() traits.Server { return c.g.traits.Of(c.tenant, c.server.Name) }
