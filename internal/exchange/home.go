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
	idp, err := h.IdPs.Get(t, name)
	if err != nil {
		return fault.New(fault.Unauthenticated, "the sign-in service "+name+" is not configured any more; sign in again", err)
	}
	l, err := h.Vault.Connections(ctx, t, u, HomeUpstream(name))
	if err != nil || len(l) == 0 {
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
	title := &catalog.Upstream{Tenant: t, Name: c.Upstream, Title: "the company's sign-in service", Provider: &catalog.Provider{OAuth: &catalog.ProviderOAuth{}}}
	_, token, err := h.Refresh.Renew(ctx, c, e, title)
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
	if known.IDP != who.IDP || known.Subject != who.Subject { // OpenID Connect Core, section 12.2: the same sub, or it is not his
		return h.dismissed(ctx, t, u, name)
	}
	_, err = h.Users.EnsureUser(ctx, who)
	return err
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
