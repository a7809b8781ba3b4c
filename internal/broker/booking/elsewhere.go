package booking

import (
	"context"

	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
)

// ErrEnded is all that is said of a ticket that is not ours, or whose act is over.
var ErrEnded = fault.New(fault.Unauthenticated, "this is not a transaction token of ours, or its call has ended", nil)

// Intents finds the record of an act that has no outcome yet, from whichever replica; else fault.NotFound (audit.Log).
type Intents interface {
	Unfinished(ctx context.Context, id audit.CallID) (audit.Record, error)
}

// Elsewhere finds the caller of an act that another replica opened, in the record of its intent. The ticket has been checked.
func Elsewhere(ctx context.Context, log Intents, users identity.Users, t identity.Ticket) (*identity.Caller, error) {
	r, err := log.Unfinished(ctx, audit.CallID(t.Txn))
	if fault.KindOf(err) == fault.NotFound {
		return nil, ErrEnded
	}
	if err != nil {
		return nil, err
	}
	if r.Tenant != t.Tenant || r.Server != t.Server || r.User == "" {
		return nil, ErrEnded
	}
	u, err := users.User(ctx, r.Tenant, r.User)
	if err != nil {
		return nil, err
	}
	return &identity.Caller{Tenant: r.Tenant, User: u.ID, Name: u.Name, IDP: u.IDP, Subject: u.Subject, Groups: u.Groups,
		Client: r.Client, Family: r.SignIn, Actors: r.Actors, Issued: r.Time, Expires: t.Expires}, nil
}

// GoesOn errs where the session that a call names has ended, here or elsewhere: its server's keycard opens nothing any more. "" is none.
func (b *Book) GoesOn(ctx context.Context, log Intents, session audit.CallID) error {
	if session == "" || b.Get(session) != nil {
		return nil
	}
	_, err := log.Unfinished(ctx, session)
	if fault.KindOf(err) == fault.NotFound {
		err = fault.New(fault.Conflict, "this session has ended; begin a new one", err)
	}
	return err
}
