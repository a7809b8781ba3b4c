package vault

import (
	"sync/atomic"

	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/kit/oauth"
	"frontdesk.dev/frontdesk/internal/kit/secret"
)

// ClientKey names our registration at an upstream.
type ClientKey struct {
	Tenant   identity.Tenant
	Upstream catalog.UpstreamName
}

// Clients holds the secrets of our own registrations at upstreams, from the config. The zero Clients has none.
type Clients struct {
	now atomic.Pointer[map[ClientKey]secret.Text]
}

// Use makes these the current ones.
func (c *Clients) Use(m map[ClientKey]secret.Text) { c.now.Store(&m) }

// Secret is empty where the config has none.
func (c *Clients) Secret(t identity.Tenant, up catalog.UpstreamName) secret.Text {
	if m := c.now.Load(); m != nil {
		return (*m)[ClientKey{t, up}]
	}
	return secret.Text{}
}

// Endpoint is the upstream's token endpoint with our registration there.
func (c *Clients) Endpoint(up *catalog.Upstream, m catalog.Method) (oauth.Endpoint, error) {
	if up.Provider.OAuth == nil || m.Client == "" {
		return oauth.Endpoint{}, fault.New(fault.Unavailable, up.Title+" has no OAuth client configured; ask an operator", nil)
	}
	e := up.Provider.OAuth.Endpoint()
	e.ClientID, e.Secret = m.Client, c.Secret(up.Tenant, up.Name)
	if e.Secret.IsZero() {
		e.Auth = oauth.AuthNone
	}
	return e, nil
}
