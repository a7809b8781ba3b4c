package vault

import (
	"sync/atomic"

	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/kit/oauth"
	"frontdesk.dev/frontdesk/internal/kit/secret"
)

// ClientKey names a secret of ours at an upstream.
type ClientKey struct {
	Tenant   identity.Tenant
	Upstream catalog.UpstreamName
	Method   catalog.MethodKind // "": of every method that has none of its own
	Part     Part
}

// Part says which secret of a registration.
type Part string

const (
	ClientSecret Part = ""            // client_secret
	PrivateKey   Part = "private_key" // PEM, with which assertions are signed
	StaticKey    Part = "key"         // of service_key
)

// Clients holds the secrets of our own registrations at upstreams, from the config. The zero Clients has none.
type Clients struct {
	now atomic.Pointer[map[ClientKey]secret.Text]
}

// Use makes these the current ones.
func (c *Clients) Use(m map[ClientKey]secret.Text) { c.now.Store(&m) }

// Secret is the method's own, else the upstream's; empty where the config has none.
func (c *Clients) Secret(up *catalog.Upstream, k catalog.MethodKind, p Part) secret.Text {
	m := c.now.Load()
	if m == nil {
		return secret.Text{}
	}
	if own, ok := (*m)[ClientKey{up.Tenant, up.Name, k, p}]; ok {
		return own
	}
	return (*m)[ClientKey{up.Tenant, up.Name, "", p}]
}

// Endpoint is the upstream's token endpoint with our registration there.
func (c *Clients) Endpoint(up *catalog.Upstream, m catalog.Method) (oauth.Endpoint, error) {
	if up.Provider.OAuth == nil || m.Client == "" {
		return oauth.Endpoint{}, fault.New(fault.Unavailable, up.Title+" has no OAuth client configured; ask an operator", nil)
	}
	e := up.Provider.OAuth.Endpoint()
	e.ClientID, e.Secret = m.Client, c.Secret(up, m.Kind, ClientSecret)
	if e.Secret.IsZero() {
		e.Auth = oauth.AuthNone
	}
	return e, nil
}
