package issuer

import (
	"context"
	"strings"

	"frontdesk.dev/frontdesk/internal/identity"
)

// Name is what a client calls itself, for pages: foreign text. Nothing is fetched for it.
func (g *Registry) Name(ctx context.Context, t identity.Tenant, id identity.ClientID) string {
	if c := g.config.Load(); c != nil {
		if k, ok := c.clients[t][id]; ok {
			return k.Name
		}
	}
	if strings.HasPrefix(string(id), "https://") {
		g.mu.Lock()
		defer g.mu.Unlock()
		if d, ok := g.documents[documentKey{t, string(id)}]; ok && d.client.Name != "" {
			return d.client.Name
		}
		return redirectHost(string(id))
	}
	k, err := g.Store.Client(ctx, t, id)
	if err != nil {
		return ""
	}
	return k.Name
}
