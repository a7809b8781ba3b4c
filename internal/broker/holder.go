package broker

import (
	"context"

	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/internal/broker/booking"
	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/secret"
)

// Holder implements Door.
func (b *Broker) Holder(ctx context.Context, t identity.Tenant, ticket string) (*Holding, error) {
	k, err := b.Tickets.Check(ctx, ticket)
	if err != nil {
		return nil, err
	}
	s := b.Catalog.Server(k.Tenant, catalog.ServerName(k.Server))
	if t != "" && k.Tenant != t || s == nil {
		return nil, booking.ErrEnded
	}
	h := &Holding{Ticket: k, Server: s, Call: audit.CallID(k.Txn), Keycard: secret.New(ticket), book: &b.Calls, asks: b.Now()}
	if e := b.Calls.Get(h.Call); e != nil {
		h.Caller = e.Caller
	} else if h.Caller, err = booking.Elsewhere(ctx, b.Log, b.Users, k); err != nil {
		return nil, err
	}
	if !b.Access.Alive(h.Caller) {
		return nil, booking.ErrEnded
	}
	if k.Kind != identity.TicketCall {
		h.Call = b.Calls.InSession(h.Call)
		if e := b.Calls.Get(h.Call); e != nil {
			h.Caller = e.Caller // as the call that is open was decided
		}
	}
	return h, nil
}
