package broker

import (
	"context"
	"errors"
	"net/http"
	"sync"

	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/internal/broker/booking"
	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/exchange"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/kit/redact"
	"frontdesk.dev/frontdesk/internal/policy"
)

// lease is leave for one act, in this process.
type lease struct {
	broker     *Broker
	entry      *booking.Entry
	act        Act
	record     audit.Record
	credential *exchange.Credential
	masks      []string
	once, leak sync.Once
	leakErr    error // of recording it; set in leak
}

// Do implements Lease.
func (l *lease) Do(r *http.Request) (*http.Response, error) {
	if err := l.Valid(r.Context()); err != nil {
		return nil, err
	}
	if len(l.masks) > 0 && r.Header.Get("Upgrade") != "" {
		return nil, fault.New(fault.Denied, "policy keeps values of this API's answers back, and cannot in a WebSocket; ask for them another way", nil)
	}
	resp, marks, err := l.credential.At(l.act.Swap).Send(l.sender(), r)
	if err != nil {
		return nil, l.broker.note(l.act, err)
	}
	if err := redact.New(marks).Telling(l.leaked).Masking(l.masks).Response(resp); err != nil {
		return nil, fault.New(fault.Unavailable, "the answer was refused: it is partial, or in a coding that is not known here, or what policy keeps back cannot be taken out, or it held a credential and may not pass", err)
	}
	if l.act.Kind == KindAPI && resp.StatusCode < http.StatusBadRequest {
		l.broker.Calls.Succeeded(l.act.Holding.Call)
	}
	return resp, nil
}

// leaked puts it on record, once an act, that the upstream said the credential back. It has been taken out; whether the rest
// may pass is for the upstream's entry in the config to say.
func (l *lease) leaked(hits int) error {
	l.broker.Leaked(l.record, hits)
	l.leak.Do(func() {
		l.leakErr = l.broker.Log.Event(context.Background(), l.record.Leak(l.entry.Call, l.broker.Now()))
	})
	return l.act.Upstream.Leaked(l.leakErr)
}

// Valid implements Lease.
func (l *lease) Valid(context.Context) error {
	if !l.broker.Access.Alive(l.entry.Caller) {
		return fault.New(fault.Unauthenticated, "access of this sign-in has ended; sign in again", nil)
	}
	return nil
}

// State implements Lease.
func (l *lease) State() State { return State{l.entry.Call, l.entry.Report()} }

// Close implements Lease.
func (l *lease) Close(ctx context.Context, o Outcome) {
	l.once.Do(func() {
		l.broker.Calls.Remove(l.entry)
		r := l.record
		r.Kind, r.Call, r.Time, r.Result, r.Detail = audit.KindOutcome, l.entry.Call, l.broker.Now(), o.Result, o.Detail
		if l.credential != nil {
			r.Obtained, r.Connection, r.Site = string(l.credential.Method), string(l.credential.Connection), l.credential.Site
		}
		l.broker.Log.End(context.WithoutCancel(ctx), l.entry.Call, r)
		l.broker.Observe(l.act.Kind, o.Result, r.Time.Sub(l.record.Time))
	})
}

// note tells the call, for which an API request was refused, what a person must do.
func (b *Broker) note(a Act, err error) error {
	if needed, ok := errors.AsType[*catalog.Needed](err); ok && a.Kind == KindAPI {
		b.Calls.Refused(a.Holding.booked(), needed.Missing)
	}
	return err
}

func (b *Broker) record(c *identity.Caller, a Act, d policy.Decision) audit.Record {
	r := audit.Record{Time: b.Now(), Tenant: a.Server.Tenant, Action: string(a.Kind), Server: string(a.Server.Name), Method: a.Method, Tool: a.Name,
		Session: string(a.Session), Decision: d.Word(), Policies: append(d.Policies, d.Errors...)}
	r.By(c)
	if a.Kind == KindAPI {
		r.Upstream, r.Parent, r.HTTP, r.Method = string(a.Upstream.Name), a.Holding.Call, a.Method+" "+a.Host+a.Path, ""
	}
	return r
}

// failure is how an act ended that could not be done. Causes stay out of the record: only a fault's own sentence goes in.
func failure(err error) Outcome {
	if needed, ok := errors.AsType[*catalog.Needed](err); ok {
		return Outcome{audit.ResultNeeds, needed.Error()}
	}
	if k := fault.KindOf(err); k == fault.Denied || k == fault.Unauthenticated {
		return Outcome{audit.ResultDenied, fault.Message(err)}
	}
	return Outcome{audit.ResultFailed, fault.Message(err)}
}

// sessionOf is the session that a ticket names: the act's own for the one that opens it, none where tickets are for one call.
func sessionOf(a Act, id audit.CallID) audit.CallID {
	if a.Kind == KindProcess || a.Kind == KindSession && a.Server.Placeholder == identity.TicketSession {
		return id
	}
	return a.Session
}
