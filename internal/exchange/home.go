package exchange

import (
	"context"
	"errors"
	"time"

	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/exchange/refresh"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/kit/oauth"
	"frontdesk.dev/frontdesk/internal/kit/secret"
	"frontdesk.dev/frontdesk/internal/vault"
)

// Home keeps what the company's IdP gave at sign-in: a connection like others, at the upstream `idp:<name>`.
type Home struct {
	Vault   Vault
	Refresh *refresh.Machine
	IdPs    *identity.IdPs
	Users   identity.Users
	Epochs  *identity.Epochs
	Events  interface {
		Event(ctx context.Context, r audit.Record) error
	}
}

// homeFresh is how long the IdP's last yes counts.
const homeFresh = time.Minute

// HomeUpstream is the name under which the home credential is kept.
func HomeUpstream(idp string) catalog.UpstreamName { return catalog.UpstreamName("idp:" + idp) }

// Renew implements the fourth of broker.Flows.
func (h *Home) Renew(ctx context.Context, t identity.Tenant, u identity.UserID, name string) error {
	err := h.renew(ctx, t, u, name)
	if fault.KindOf(err) == fault.NotFound && !errors.Is(err, errNoHome) { // it means the home credential, and nothing else
		err = fault.New(fault.Unavailable, "the company's sign-in service could not be asked; try again later", err)
	}
	return err
}

func (h *Home) renew(ctx context.Context, t identity.Tenant, u identity.UserID, name string) error {
	idp, err := h.IdPs.Get(t, name)
	if err != nil {
		return fault.New(fault.Unauthenticated, "the sign-in service "+name+" is not configured any more; sign in again", err)
	}
	l, err := h.Vault.Connections(ctx, t, u, HomeUpstream(name))
	if err == nil && len(l) == 0 {
		err = errNoHome
	}
	if err != nil {
		return err
	}
	c := l[0]
	if h.Refresh.Now().Sub(c.Renewed) < homeFresh {
		return nil
	}
	e, err := idp.Endpoint(ctx)
	if err != nil {
		return err
	}
	_, token, err := h.Refresh.Renew(ctx, c, e, homeFacts(c))
	if _, dead := errors.AsType[*catalog.Needed](err); dead {
		return h.dismissed(ctx, t, u, name)
	}
	if err != nil || token.IDToken.IsZero() {
		return err
	}
	who, _, err := idp.Read(ctx, token, "")
	if err != nil {
		return err
	}
	known, err := h.Users.User(ctx, t, u)
	if err != nil {
		return err
	}
	if known.Gone != "" || known.IDP != who.IDP || known.Subject != who.Subject { // OpenID Connect Core, section 12.2: the same sub, or it is not his
		return h.dismissed(ctx, t, u, name)
	}
	_, err = h.Users.EnsureUser(ctx, who)
	return err
}

// homeFacts are those of the company's IdP where it is an upstream like others.
func homeFacts(c vault.Connection) *catalog.Upstream {
	return &catalog.Upstream{Tenant: c.Tenant, Name: c.Upstream, Title: "the company's sign-in service", Provider: &catalog.Provider{OAuth: &catalog.ProviderOAuth{}}}
}

var errNoHome = fault.New(fault.NotFound, "needs the company's sign-in to stand for the person, and his gave nothing to keep (offline_access)", nil)

// Connection is a person's home credential; fault.NotFound where his sign-in gave none.
func (h *Home) Connection(ctx context.Context, c *identity.Caller) (vault.Connection, error) {
	if c.User == "" || c.IDP == "" {
		return vault.Connection{}, errNoHome
	}
	l, err := h.Vault.Connections(ctx, c.Tenant, c.User, HomeUpstream(c.IDP))
	if err == nil && (len(l) == 0 || l[0].Status == vault.NeedsReconnect) {
		err = errNoHome
	}
	if err != nil {
		return vault.Connection{}, err
	}
	return l[0], nil
}

// minSubject is how long a token must still live that stands for a person somewhere else.
const minSubject = 30 * time.Second

// Token is what stands for the person where the company's IdP is believed: a fresh access token of his home credential, or
// with id its ID token. Errors as of Connection; fault.Unauthenticated where the IdP does not let him in any more.
func (h *Home) Token(ctx context.Context, caller *identity.Caller, id bool) (secret.Text, time.Time, error) {
	c, err := h.Connection(ctx, caller)
	if err != nil {
		return secret.Text{}, time.Time{}, err
	}
	idp, err := h.IdPs.Get(caller.Tenant, caller.IDP)
	if err != nil {
		return secret.Text{}, time.Time{}, err
	}
	e, err := idp.Endpoint(ctx)
	if err != nil {
		return secret.Text{}, time.Time{}, err
	}
	for renewed := false; ; renewed = true {
		secrets, err := h.Vault.Open(ctx, c)
		if err != nil {
			return secret.Text{}, time.Time{}, err
		}
		token, until := secrets.Access, c.Expires
		if id {
			token = secrets.Identity
			claims, _ := oauth.PeekJWT(token.Expose())
			until = claims.Expires
		}
		if !token.IsZero() && h.Refresh.Now().Add(minSubject).Before(until) {
			return token, until, nil
		}
		if renewed {
			return secret.Text{}, time.Time{}, fault.New(fault.NotFound, "the company's sign-in service renews without giving the token that is needed here; an operator can choose another subject", nil)
		}
		c, _, err = h.Refresh.Renew(ctx, c, e, homeFacts(c))
		if _, dead := errors.AsType[*catalog.Needed](err); dead {
			err = h.dismissed(ctx, caller.Tenant, caller.User, caller.IDP)
		}
		if err != nil {
			return secret.Text{}, time.Time{}, err
		}
	}
}

// dismissed ends everything that the person's sign-ins gave, here and on all replicas.
func (h *Home) dismissed(ctx context.Context, t identity.Tenant, u identity.UserID, idp string) error {
	if err := h.Epochs.End(ctx, t, identity.EpochUser, string(u)); err != nil {
		return err
	}
	err := h.Events.Event(ctx, audit.Record{Kind: audit.KindEvent, Time: h.Refresh.Now(), Tenant: t, User: u, Action: "access.ended", Result: audit.ResultOK,
		Detail: "the IdP " + idp + " does not renew this sign-in any more"})
	return errors.Join(fault.New(fault.Unauthenticated, "the company's sign-in has ended; sign in again", nil), err)
}
