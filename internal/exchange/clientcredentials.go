package exchange

import (
	"context"
	"errors"
	"time"

	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/kit/oauth"
	"frontdesk.dev/frontdesk/internal/vault"
)

// ServiceAccount serves client_credentials (RFC 6749 section 4.4): one credential for everybody, which the config must
// own up to by accept_risk. Every use is still decided and recorded for the human who caused it.
type ServiceAccount struct {
	Clients *vault.Clients
	OAuth   oauth.Client
	Now     func() time.Time
}

// Ready implements Method.
func (s *ServiceAccount) Ready(_ context.Context, r Request) error {
	if r.Upstream.Risk == "" {
		return fault.New(fault.NotFound, "is a shared service account, and the config does not accept_risk", nil)
	}
	if s.Clients.Secret(r.Upstream, r.Method.Kind, vault.ClientSecret).IsZero() {
		return fault.New(fault.NotFound, "has no client_secret in the config", nil)
	}
	return nil
}

// Obtain implements Method.
func (s *ServiceAccount) Obtain(ctx context.Context, r Request) (*Credential, error) {
	if err := s.Ready(ctx, r); err != nil {
		return nil, err
	}
	e, err := s.Clients.Endpoint(r.Upstream, r.Method)
	if err != nil {
		return nil, err
	}
	t, err := s.OAuth.ClientCredentials(ctx, e, r.Scopes, nil)
	if err != nil {
		return nil, fault.Later(r.Upstream.Title+" gave no credential for the service account; ask an operator", tokenRetry(err), err)
	}
	cred := &Credential{Method: catalog.ClientCredentials, Expires: t.Expires}
	if !t.Expires.IsZero() {
		cred.Expires = t.Expires.Add(-t.Expires.Sub(s.Now()) / 5)
	}
	cred.Place, cred.Marks = s.Clients.Place(r.Upstream, catalog.ClientCredentials, r.Upstream.Provider.Injection, t.Access)
	cred.Fill = vault.Fill(t.Access)
	if t.Key != nil {
		cred.Bind(s.OAuth.Bound(t.Key, t.Access))
	}
	return cred, nil
}

// tokenRetry is how long a token endpoint asked us to wait.
func tokenRetry(err error) time.Duration {
	if te, ok := errors.AsType[*oauth.TokenError](err); ok {
		return te.RetryAfter
	}
	return 0
}
