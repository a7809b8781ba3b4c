package broker

import (
	"context"

	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
)

var errTicketEnded = fault.New(fault.Unauthenticated, "this is not a transaction token of ours, or its call has ended", nil)

// Holder implements Door.
func (b *Broker) Holder(ctx context.Context, t identity.Tenant, ticket string) (*Holding, error) {
	k, err := b.Tickets.Check(ctx, ticket)
	if err != nil {
		return nil, err
	}
	s := b.Catalog.Server(k.Tenant, catalog.ServerName(k.Server))
	if t != "" && k.Tenant != t || s == nil {
		return nil, errTicketEnded
	}
	h := &Holding{Ticket: k, Server: s, Call: audit.CallID(k.Txn)}
	if e := b.calls.Get(h.Call); e != nil {
		h.Caller = e.Caller
	} else if h.Caller, err = b.elsewhere(ctx, h); err != nil {
		return nil, err
	}
	if !b.Access.Alive(h.Caller) {
		return nil, errTicketEnded
	}
	if k.Kind == identity.TicketSession {
		h.Call = b.calls.InSession(h.Call)
	}
	return h, nil
}

// elsewhere finds the caller of an act that another replica opened, in the record of its intent.
func (b *Broker) elsewhere(ctx context.Context, h *Holding) (*identity.Caller, error) {
	r, err := b.Log.Unfinished(ctx, h.Call)
	if fault.KindOf(err) == fault.NotFound {
		return nil, errTicketEnded
	}
	if err != nil {
		return nil, err
	}
	if r.Tenant != h.Ticket.Tenant || r.Server != h.Ticket.Server || r.User == "" {
		return nil, errTicketEnded
	}
	u, err := b.Users.User(ctx, r.Tenant, r.User)
	if err != nil {
		return nil, err
	}
	return &identity.Caller{Tenant: r.Tenant, User: u.ID, Name: u.Name, IDP: u.IDP, Subject: u.Subject, Groups: u.Groups,
		Client: r.Client, Actors: r.Actors, Issued: r.Time, Expires: h.Ticket.Expires}, nil
}
