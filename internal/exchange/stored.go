package exchange

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/catalog/live"
	"frontdesk.dev/frontdesk/internal/exchange/refresh"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/kit/oauth"
	"frontdesk.dev/frontdesk/internal/vault"
)

// Stored serves what a person connected: authorization_code, device_code and api_key. The credential is in the vault; the refresh
// machine keeps it good. All fields are required.
type Stored struct {
	Kind    catalog.MethodKind
	Vault   Vault
	Refresh *refresh.Machine
	Uses    Uses
	Witness Witness
	Log     *slog.Logger
}

// Witness asks a vendor whether it still takes a credential (connect.Desk).
type Witness interface {
	// Refuses reports that the vendor said no to the credential itself. False is not that it is good: the vendor may be away, or
	// have no call that tells.
	Refuses(ctx context.Context, up *catalog.Upstream, c vault.Connection, credential vault.Secrets) bool
}

// By is the same for one kind of method.
func (s Stored) By(k catalog.MethodKind) *Stored { s.Kind = k; return &s }

// Ready implements Method.
func (s *Stored) Ready(ctx context.Context, r Request) error {
	_, err := s.find(ctx, r)
	return err
}

// Uses keeps when a connection was last used.
type Uses interface {
	Used(ctx context.Context, t identity.Tenant, id vault.ConnectionID, at time.Time) error
}

// usedEvery is how exactly last use is known.
const usedEvery = 5 * time.Minute

// Obtain implements Method.
func (s *Stored) Obtain(ctx context.Context, r Request) (*Credential, error) {
	c, err := s.find(ctx, r)
	if err != nil {
		return nil, err
	}
	if r.Upstream, err = r.Upstream.At(c.Site.Value); err != nil {
		return nil, siteless(c)
	}
	if c, err = s.Refresh.Fresh(ctx, c, r.Upstream, r.Method); err != nil {
		return nil, err
	}
	if now := s.Refresh.Now(); now.Sub(c.LastUsed) > usedEvery {
		if err := s.Uses.Used(ctx, c.Tenant, c.ID, now); err != nil {
			s.Log.Warn("the last use of a connection could not be noted", "connection", c.ID, "error", err)
		}
	}
	return s.credential(ctx, r, c)
}

// credential opens a connection that is good.
func (s *Stored) credential(ctx context.Context, r Request, c vault.Connection) (*Credential, error) {
	secrets, err := s.Vault.Open(ctx, c)
	if errors.Is(err, vault.ErrSealed) {
		return nil, s.broken(ctx, c)
	}
	if err != nil {
		return nil, err
	}
	cred := &Credential{Method: s.Kind, Connection: c.ID}
	cred.Place, cred.Marks = s.Refresh.Clients.Place(r.Upstream, s.Kind, r.Upstream.Provider.InjectionOf(s.Kind), secrets.Access)
	cred.Fill = vault.Fill(secrets.Access)
	if err := onSite(cred, r.Upstream, c); err != nil {
		return nil, err
	}
	switch bound, err := secrets.Bound(s.Refresh.OAuth); {
	case err != nil:
		return nil, s.broken(ctx, c)
	case bound != nil:
		cred.Bind(bound)
	}
	if !c.Expires.IsZero() {
		cred.Expires = c.Expires.Add(-refresh.Margin(c))
	}
	if c.Refreshes && r.Upstream.Provider.OAuth != nil && s.Refresh.Now().Sub(c.Renewed) > youngest {
		cred.again = &again{expired: r.Upstream.Provider.OAuth.Refresh.Expired, rules: r.Upstream.Provider, renew: func(ctx context.Context) (*Credential, error) {
			next, err := s.Refresh.Replace(ctx, c, r.Upstream, r.Method)
			if err != nil {
				return nil, err
			}
			return s.credential(ctx, r, next)
		}}
	}
	cred.reads = s.reader(r, c, secrets)
	return cred, nil
}

// onSite makes the credential send what is meant for the upstream's first origin to the site of its connection. Both have been
// checked when the connection was made; the entry may have changed since.
func onSite(cred *Credential, up *catalog.Upstream, c vault.Connection) error {
	if up.Sites == nil {
		return nil
	}
	at, err := up.Sites.At(c.Site.Value)
	if err != nil {
		return siteless(c)
	}
	first, foreign := up.Origins[0], up.Sites.Foreign(c.Site.Account)
	cred.Site, cred.onto = c.Site.ID(), func(r *http.Request) error {
		if other := foreign(r.URL.Path); other != "" {
			return fault.New(fault.Denied, fmt.Sprintf("this connection is for the account %s of %s (%s), and the request for another one (%s): use that id, or have its person connect the other account and choose it for this agent", c.Site.Label, up.Title, c.Site.Account, other), nil)
		}
		if r.URL.Scheme == first.Scheme && r.URL.Host == first.Host {
			up.Sites.Onto(r, at, c.Site.Value)
		}
		return nil
	}
	return nil
}

// siteless asks for a connection of an account whose site nothing may be sent to, or is not known.
func siteless(c vault.Connection) error {
	return &catalog.Needed{Missing: []catalog.Missing{{Upstream: c.Upstream, Scopes: c.Scopes, Why: catalog.WhyReconnect, Reason: "it is not known at which site the account is", Connection: string(c.ID)}}}
}

// reader reads answers for the person whose connection c is. That a scope is missing becomes the question for it. That the token
// is dead is believed where there is none to renew it with and the vendor says it a second time, asked whose it is.
func (s *Stored) reader(r Request, c vault.Connection, held vault.Secrets) func(*http.Response) *catalog.Needed {
	return func(resp *http.Response) *catalog.Needed {
		means, scopes := meaning(r.Upstream.Provider, resp, c.Scopes)
		if resp.StatusCode == http.StatusUnauthorized || means != "" {
			s.Refresh.Catalog.Showed(context.Background(), r.Upstream, func() []catalog.Showing { return live.OfRefusal(resp.StatusCode, means) })
		}
		switch {
		case means == catalog.MeansScope && s.Kind.Consents():
			return &catalog.Needed{Missing: []catalog.Missing{{Upstream: c.Upstream, Scopes: oauth.UnionScopes(r.Scopes, scopes), Why: catalog.WhyScope, Connection: string(c.ID)}}}
		case means == catalog.MeansDead && !c.Refreshes && resp.Request != nil:
			ctx := resp.Request.Context()
			if s.Witness == nil || !s.Witness.Refuses(ctx, r.Upstream, c, held) {
				return nil
			}
			c := c
			c.Status, c.Reason = vault.NeedsReconnect, r.Upstream.Title+" no longer accepts this credential"
			if err := s.Vault.Update(ctx, c); err != nil {
				return nil // somebody connected anew meanwhile, or it is noticed again
			}
			s.Log.Info("a connection needs its user", "connection", c.ID, "upstream", c.Upstream, "reason", c.Reason)
			return &catalog.Needed{Missing: []catalog.Missing{{Upstream: c.Upstream, Scopes: c.Scopes, Why: catalog.WhyReconnect, Reason: c.Reason, Connection: string(c.ID)}}}
		}
		return nil
	}
}

// broken marks a connection that does not open, so that its user is asked and nobody takes it for healthy.
func (s *Stored) broken(ctx context.Context, c vault.Connection) error {
	c.Status, c.Reason = vault.NeedsReconnect, "the stored credential does not open any more"
	s.Log.Error("a stored credential does not open: its row was moved or altered, or its key is gone", "connection", c.ID, "upstream", c.Upstream)
	if err := s.Vault.Update(ctx, c); err != nil && fault.KindOf(err) != fault.Conflict {
		return err
	}
	return &catalog.Needed{Missing: []catalog.Missing{{Upstream: c.Upstream, Scopes: c.Scopes, Why: catalog.WhyReconnect, Reason: c.Reason, Connection: string(c.ID)}}}
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
	if c, ok := meant(all, r.Connection); ok && c.Method == s.Kind {
		needed.Connection = string(c.ID)
		switch {
		case c.Status == vault.NeedsReconnect:
			needed.Why, needed.Reason = catalog.WhyReconnect, c.Reason
		case s.Kind != catalog.APIKey && !oauth.HasScopes(c.Scopes, r.Scopes...):
			needed.Why = catalog.WhyScope
		default:
			return c, nil
		}
	}
	return vault.Connection{}, &catalog.Needed{Missing: []catalog.Missing{needed}}
}

// meant is the connection that a grant names, or where none does, the account that new grants take. One that has ended is not
// made up for by another account: whose that is, its person says.
func meant(all []vault.Connection, id vault.ConnectionID) (vault.Connection, bool) {
	for _, c := range all {
		if id == "" || c.ID == id {
			return c, true
		}
	}
	return vault.Connection{}, false
}
