package exchange

import (
	"context"

	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/kit/oauth"
	"frontdesk.dev/frontdesk/internal/vault"
)

// Stored serves what a person connected: authorization_code and api_key. The credential is in the vault; Refresher keeps
// it good.
type Stored struct {
	Kind    catalog.MethodKind
	Vault   Vault
	Refresh *Refresher
}

// Ready implements Method.
func (s *Stored) Ready(ctx context.Context, r Request) error {
	_, err := s.find(ctx, r)
	return err
}

// Obtain implements Method.
func (s *Stored) Obtain(ctx context.Context, r Request) (*Credential, error) {
	c, err := s.find(ctx, r)
	if err != nil {
		return nil, err
	}
	if c, err = s.Refresh.Fresh(ctx, c, r.Upstream, r.Method); err != nil {
		return nil, err
	}
	secrets, err := s.Vault.Open(ctx, c)
	if err != nil {
		return nil, err
	}
	in := r.Upstream.Provider.Injection
	if key := r.Upstream.Provider.APIKey; s.Kind == catalog.APIKey && key != nil && key.Injection != nil {
		in = *key.Injection
	}
	cred := &Credential{Method: s.Kind, Connection: c.ID}
	cred.Place, cred.Marks = vault.Place(in, secrets.Access)
	if !c.Expires.IsZero() {
		cred.Expires = c.Expires.Add(-margin(c))
	}
	return cred, nil
}

// find returns the caller's connection by this method, or what he must do to have one.
func (s *Stored) find(ctx context.Context, r Request) (vault.Connection, error) {
	if r.Caller.User == "" {
		return vault.Connection{}, fault.New(fault.NotFound, "needs a person to connect; this caller is a service", nil)
	}
	all, err := s.Vault.Connections(ctx, r.Caller.Tenant, r.Caller.User, r.Upstream.Name)
	if err != nil {
		return vault.Connection{}, err
	}
	needed := catalog.Missing{Upstream: r.Upstream.Name, Scopes: r.Scopes, Why: catalog.WhyNotConnected}
	for _, c := range all {
		if c.Method != s.Kind {
			continue
		}
		switch {
		case c.Status == vault.NeedsReconnect:
			needed.Why, needed.Reason = catalog.WhyReconnect, c.Reason
		case c.Status == vault.Revoking || c.Status == vault.Revoked:
		case s.Kind != catalog.APIKey && !oauth.HasScopes(c.Scopes, r.Scopes...):
			needed.Why = catalog.WhyScope
		default:
			return c, nil
		}
	}
	return vault.Connection{}, &catalog.Needed{Missing: []catalog.Missing{needed}}
}
