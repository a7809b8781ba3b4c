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

// About is what is known of a client: its name, the host that stands behind it, and whether anybody could have registered so.
// A client that is gone is unverified.
func (g *Registry) About(ctx context.Context, t identity.Tenant, id identity.ClientID) (name, host string, unverified bool) {
	name = g.Name(ctx, t, id)
	if strings.HasPrefix(string(id), "https://") {
		return name, redirectHost(string(id)), false
	}
	if c := g.config.Load(); c != nil {
		if _, ok := c.clients[t][id]; ok {
			return name, "", false
		}
	}
	if k, err := g.Store.Client(ctx, t, id); err == nil && len(k.RedirectURIs) > 0 {
		host = redirectHost(k.RedirectURIs[0])
	}
	return name, host, true
}
