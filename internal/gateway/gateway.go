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

	"frontdesk.dev/frontdesk/internal/broker"
	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/connect"
	"frontdesk.dev/frontdesk/internal/gateway/pending"
	"frontdesk.dev/frontdesk/internal/gateway/sessions"
	"frontdesk.dev/frontdesk/internal/gateway/streams"
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
	Sessions *sessions.Sessions
	Tasks    Tasks
	Keys     sessions.Keys
	Names    func(ctx context.Context, t identity.Tenant, id identity.ClientID) string // what a client calls itself
	URL      func(t identity.Tenant, path string) string
	Log      *slog.Logger
	Now      func() time.Time

	mu      sync.Mutex
	waiting map[chan struct{}]bool // who waits for a person; guarded by mu

	open, listening web.Crowd  // requests and streams, by caller
	rounds          web.Rounds // whose access has ended
	streams         streams.Streams
	calls           pending.Calls
	traits          traits.Traits
}

// Asks opens connect requests (connect.Desk).
type Asks interface {
	Ask(ctx context.Context, c *identity.Caller, s *catalog.Server, tool, clientName string, missing []catalog.Missing) (connect.Request, error)
	Link(r connect.Request) string
	State(ctx context.Context, t identity.Tenant, id connect.RequestID) (connect.State, error)
}

// Tools are those that a server is known to have, from the lists that it gave so far, and whether it says that they only read.
func (g *Gateway) Tools(t identity.Tenant, s catalog.ServerName) map[string]bool {
	return g.traits.Of(t, s).Tools()
}

// like is what is known of the server.
func (c *call) like() traits.Server { return c.g.traits.Of(c.tenant, c.server.Name) }
