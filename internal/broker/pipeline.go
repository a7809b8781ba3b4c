package broker

import (
	"context"
	"errors"
	"net/http"

	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/internal/broker/booking"
	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/exchange"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/policy"
)

// Ready implements Door.
func (b *Broker) Ready(ctx context.Context, c *identity.Caller, a Act) (Answer, error) {
	d, err := b.decide(c, a)
	if err != nil || !d.Allow {
		return Answer{Decision: d}, err
	}
	err = b.ready(ctx, c, a)
	if needed, ok := errors.AsType[*catalog.Needed](err); ok {
		return Answer{d, needed.Missing}, nil
	}
	return Answer{Decision: d}, err
}

// Visible implements Door.
func (b *Broker) Visible(_ context.Context, c *identity.Caller, s *catalog.Server, method string, names []string) ([]bool, error) {
	r := policy.Request{Caller: c, Action: policy.ActionCall, Server: string(s.Name), Method: method, Observe: s.Observe, Now: b.Now()}
	return b.Policies.Set(c.Tenant).VisibleOf(r, names), nil
}

// Open implements Door. Its order is the promise: decide, record, obtain.
func (b *Broker) Open(ctx context.Context, c *identity.Caller, a Act) (Lease, error) {
	// 1. Decide: policy, then what the person allowed.
	d, err := b.decide(c, a)
	r := b.record(c, a, d)
	if err == nil && !d.Allow {
		err = fault.New(fault.Denied, d.Reason, nil)
	}
	if err == nil && a.Kind != KindAPI {
		err = b.Calls.GoesOn(ctx, b.Log, a.Session)
	}
	if err == nil {
		err = b.ready(ctx, c, a)
	}
	if err != nil {
		return nil, b.refuse(ctx, a, r, err)
	}
	// 2. Record the intent. If it cannot be written, nothing happens.
	r.Kind = audit.KindIntent
	id, err := b.Log.Begin(ctx, r)
	if err != nil {
		return nil, fault.New(fault.Unavailable, "the audit log cannot be written, so nothing was done; try again later", err)
	}
	// 3. Obtain.
	l := &lease{broker: b, entry: &booking.Entry{Call: id, Session: a.Session, Acts: a.Kind == KindCall, Caller: c}, act: a, record: r, masks: d.Masks}
	if l.credential, err = b.obtain(ctx, c, a, id); err != nil {
		l.Close(ctx, failure(err))
		return nil, b.note(a, err)
	}
	if a.Kind != KindAPI {
		b.Calls.Add(l.entry)
	}
	return l, nil
}

func (b *Broker) decide(c *identity.Caller, a Act) (policy.Decision, error) {
	if c == nil || c.Principal() == "" || c.Tenant != a.Server.Tenant || !b.Access.Alive(c) {
		return policy.Decision{}, fault.New(fault.Unauthenticated, "access of this sign-in has ended; sign in again", nil)
	}
	set := b.Policies.Set(c.Tenant)
	q := policy.Request{Caller: c, Server: string(a.Server.Name), Method: a.Method, Tool: a.Name, Observe: a.Server.Observe, Now: b.Now()}
	switch a.Kind {
	case KindCall:
		q.Action = policy.ActionCall
		if names := set.Arguments(q.Server); len(names) > 0 && a.Arguments != nil {
			var err error
			if q.Arguments, err = a.Arguments(names); err != nil {
				return policy.Decision{Errors: []string{err.Error()}}, err
			}
		}
	case KindAPI:
		q.Action, q.Upstream, q.Host, q.Path, q.InSession = policy.ActionAPI, string(a.Upstream.Name), a.Host, a.Path, a.Holding.InSession()
		q.Content = a.Content.Read(set.Wants(q))
	case KindSession, KindStream, KindCatalogue, KindProcess:
		q.Action = policy.ActionList
		if set.Reaches(c, q.Server) && len(set.Forbids(q)) == 0 {
			return policy.Decision{Allow: true}, nil
		}
	default:
		return policy.Decision{}, fault.New(fault.Denied, "an act of unknown kind", nil)
	}
	return set.Decide(q), nil
}

// needs lists what an act uses: a call all that its tool needs, an API request the one upstream that it goes to.
func needs(a Act) []catalog.Need {
	switch {
	case a.Kind == KindAPI:
		return a.Server.Need(a.Upstream.Name)
	case a.Kind == KindCall || a.Server.Deliver == catalog.DeliverHeader:
		return a.Server.NeedsOf(a.Name)
	}
	return nil
}

// ready is everything that a person must do before the act, at once, so that he is asked once.
func (b *Broker) ready(ctx context.Context, c *identity.Caller, a Act) error {
	n := needs(a)
	if a.Kind == KindAPI && len(n) == 0 {
		return fault.New(fault.Denied, "server "+string(a.Server.Name)+" does not list upstream "+string(a.Upstream.Name)+" in its config", nil)
	}
	missing, err := b.People.Missing(ctx, c, a.Server, n)
	if err == nil && len(missing) > 0 {
		err = &catalog.Needed{Missing: missing}
	}
	return err
}

// obtain gets what the lease places: the upstream's credential for an API request, or for a server that is the
// upstream; a ticket for any other server.
func (b *Broker) obtain(ctx context.Context, c *identity.Caller, a Act, id audit.CallID) (*exchange.Credential, error) {
	n := needs(a)
	if a.Server.Deliver == catalog.DeliverHeader && len(n) == 0 || a.Hosted() { // a hosted server's process holds a keycard of its own
		return &exchange.Credential{Place: func(*http.Request) error { return nil }}, nil
	}
	if a.Kind == KindAPI || a.Server.Deliver == catalog.DeliverHeader {
		up := b.Catalog.Upstream(c.Tenant, n[0].Upstream)
		if up == nil {
			return nil, fault.New(fault.Unavailable, "the upstream is not configured any more; ask an operator", nil)
		}
		yes, err := b.People.Granted(ctx, c, a.Server, up, n[0].Wants(up))
		if err != nil {
			return nil, err
		}
		cred, err := b.Exchange.Obtain(ctx, c, up, n[0].Wants(up), yes.Connection)
		// What ready found may have been a method that asks nobody, and it serves no more: what a person connected needs his yes.
		if err == nil && cred.Method.Asks() && !yes.Given {
			return nil, &catalog.Needed{Missing: []catalog.Missing{yes.Missing(up, n[0].Wants(up))}}
		}
		return cred, err
	}
	return b.Exchange.Ticket(ctx, a.Server, exchange.TicketFor(c, a.Server, string(id), string(sessionOf(a, id)), b.Now()))
}

// refuse puts a no on record; where even that fails, the no stands.
func (b *Broker) refuse(ctx context.Context, a Act, r audit.Record, err error) error {
	o := failure(err)
	r.Kind, r.Result, r.Detail = audit.KindEvent, o.Result, o.Detail
	if werr := b.Log.Event(ctx, r); werr != nil {
		return errors.Join(fault.New(fault.Unavailable, "the audit log cannot be written, so nothing was done; try again later", werr), err)
	}
	b.Observe(a.Kind, o.Result, b.Now().Sub(r.Time))
	return b.note(a, err)
}
