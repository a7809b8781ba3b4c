package remote

import (
	"context"
	"net/http"

	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/internal/broker"
	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/connect"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/vault"
)

// people are the operations of broker.Flows, broker.Notary and of what pages ask: visits.Desk looks who the visitor is.
func (s *Server) people(mux *http.ServeMux) {
	d := s.Desk
	on(s, mux, opBegin, func(ctx context.Context, _ peer, in visited) (connect.Next, error) {
		if in.Start == nil {
			return connect.Next{}, errSaid
		}
		return d.Begin(ctx, in.Visitor, *in.Start)
	})
	on(s, mux, opComplete, func(ctx context.Context, _ peer, in visited) (connect.Result, error) {
		if in.Answer == nil {
			return connect.Result{}, errSaid
		}
		return d.Complete(ctx, in.Visitor, *in.Answer)
	})
	on(s, mux, opEnd, func(ctx context.Context, _ peer, in visited) (connect.Ending, error) {
		return d.End(ctx, in.Visitor, in.Connection)
	})
	on(s, mux, opRenew, func(ctx context.Context, _ peer, in renewal) (struct{}, error) {
		return struct{}{}, d.Renew(ctx, in.Tenant, in.User, in.IDP)
	})
	on(s, mux, opSign, func(ctx context.Context, _ peer, in signing) (string, error) {
		return d.Sign(ctx, in.Tenant, in.Standing, in.Claims)
	})
	on(s, mux, opRecord, func(ctx context.Context, _ peer, in audit.Record) (struct{}, error) {
		return struct{}{}, d.Record(ctx, in)
	})
	on(s, mux, opJWKS, func(ctx context.Context, _ peer, t identity.Tenant) ([]byte, error) { return s.Keys.JWKS(ctx, t) })
	on(s, mux, opLeaf, func(_ context.Context, _ peer, in certified) ([]byte, error) { return s.Keys.Certify(in.Name, in.Key) })
	on(s, mux, opEnds, s.ends)
	on(s, mux, opAsk, func(ctx context.Context, _ peer, in asking) (connect.Request, error) {
		c, srv, err := s.caller(ctx, in.Caller)
		if err != nil {
			return connect.Request{}, err
		}
		if len(in.Missing) == 0 {
			return connect.Request{}, errSaid
		}
		return s.Asks.Ask(ctx, c, srv, in.Tool, in.Client, in.Missing)
	})
	on(s, mux, opAsked, func(ctx context.Context, _ peer, in asked) (connect.State, error) {
		return s.Asks.State(ctx, in.Tenant, in.ID)
	})
	s.pages(mux)
}

// pages are what a visitor sees and says on pages, beside the flows.
func (s *Server) pages(mux *http.ServeMux) {
	d := s.Desk
	on(s, mux, opAdmit, func(ctx context.Context, _ peer, in visited) (string, error) {
		srv, err := s.server(in)
		if err != nil {
			return "", err
		}
		return d.Admit(ctx, in.Visitor, broker.Admission{Client: in.Client, Server: srv, Family: in.Family})
	})
	on(s, mux, opConsent, func(ctx context.Context, _ peer, in visited) (struct{}, error) {
		srv, err := s.server(in)
		if err != nil {
			return struct{}{}, err
		}
		return struct{}{}, d.Consent(ctx, in.Visitor, in.Client, srv)
	})
	on(s, mux, opDoor, func(ctx context.Context, _ peer, in visited) ([]catalog.UpstreamName, error) {
		srv, err := s.server(in)
		if err != nil {
			return nil, err
		}
		return d.Door(ctx, in.Visitor, srv)
	})
	on(s, mux, opCallable, func(ctx context.Context, _ peer, in visited) ([]bool, error) {
		srv, err := s.server(in)
		if err != nil {
			return nil, err
		}
		return d.Callable(ctx, in.Visitor, in.Client, srv, in.Names)
	})
	on(s, mux, opRequest, func(ctx context.Context, _ peer, in visited) (connect.Request, error) {
		return d.Request(ctx, in.Visitor, in.Request)
	})
	on(s, mux, opPending, func(ctx context.Context, _ peer, in visited) ([]connect.Request, error) {
		return d.Pending(ctx, in.Visitor)
	})
	on(s, mux, opRefuse, func(ctx context.Context, _ peer, in visited) (struct{}, error) {
		return struct{}{}, d.Refuse(ctx, in.Visitor, in.Request)
	})
	on(s, mux, opDevice, func(ctx context.Context, _ peer, in visited) (connect.Device, error) {
		return d.Device(ctx, in.Visitor, in.Device)
	})
	on(s, mux, opGrants, func(ctx context.Context, _ peer, in visited) ([]connect.Grant, error) {
		return d.Grants(ctx, in.Visitor)
	})
	on(s, mux, opWithdraw, func(ctx context.Context, _ peer, in visited) (struct{}, error) {
		if in.Grant == nil {
			return struct{}{}, errSaid
		}
		return struct{}{}, d.RevokeGrant(ctx, in.Visitor, *in.Grant)
	})
	on(s, mux, opUse, func(ctx context.Context, _ peer, in visited) (struct{}, error) {
		if in.Grant == nil {
			return struct{}{}, errSaid
		}
		return struct{}{}, d.UseAccount(ctx, in.Visitor, *in.Grant)
	})
	on(s, mux, opPrefer, func(ctx context.Context, _ peer, in visited) (struct{}, error) {
		return struct{}{}, d.Prefer(ctx, in.Visitor, in.Connection)
	})
	on(s, mux, opHoldings, func(ctx context.Context, _ peer, in visited) ([]vault.Connection, error) {
		return d.Connections(ctx, in.Visitor, in.Upstream)
	})
	on(s, mux, opEndings, func(ctx context.Context, _ peer, in visited) ([]vault.Ending, error) {
		return d.Endings(ctx, in.Visitor)
	})
	on(s, mux, opActivity, func(ctx context.Context, _ peer, in visited) ([]audit.Row, error) {
		return d.Activity(ctx, in.Visitor, in.Before, in.Limit)
	})
}

var errSaid = fault.New(fault.Invalid, "what the gateway said lacks something", nil)

// server is the one that a visitor means.
func (s *Server) server(in visited) (*catalog.Server, error) {
	if srv := s.Catalog.Server(in.Visitor.Tenant, in.Server); srv != nil {
		return srv, nil
	}
	return nil, fault.New(fault.NotFound, "there is no such server; gateway and broker may have different configs", nil)
}

// ends is what faces may end: a browser's session, and one sign-in of a client, now. Nothing that has ended begins again.
func (s *Server) ends(ctx context.Context, _ peer, e identity.Epoch) (identity.Epoch, error) {
	if e.Kind != identity.EpochSession && e.Kind != identity.EpochFamily || e.ID == "" {
		return identity.Epoch{}, fault.New(fault.Denied, "faces do not end this", nil)
	}
	e.Seq, e.NotBefore = 0, s.Now()
	return e, s.Epochs.EndAt(ctx, e.Tenant, e.Kind, e.ID, e.NotBefore)
}
