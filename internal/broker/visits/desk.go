package visits

import (
	"context"
	"crypto/rand"

	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/connect"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/vault"
)

// Flows are those that believe who the visitor is (connect.Desk, and exchange.Home for the last).
type Flows interface {
	Begin(ctx context.Context, v connect.Visitor, s connect.Start) (connect.Next, error)
	Complete(ctx context.Context, v connect.Visitor, a connect.Answer) (connect.Result, error)
	End(ctx context.Context, v connect.Visitor, id vault.ConnectionID) (connect.Ending, error)
	Renew(ctx context.Context, t identity.Tenant, u identity.UserID, idp string) error
}

// People is what a person has been asked, and what he has allowed (connect.Desk).
type People interface {
	Questions
	Grants
	Accounts
}

// Accounts are for choosing among several connections to one upstream (connect.Desk).
type Accounts interface {
	Prefer(ctx context.Context, v connect.Visitor, id vault.ConnectionID) error
	UseAccount(ctx context.Context, v connect.Visitor, g connect.Grant) error
}

// Questions are connect requests (connect.Desk).
type Questions interface {
	Request(ctx context.Context, v connect.Visitor, id connect.RequestID) (connect.Request, error)
	Pending(ctx context.Context, v connect.Visitor) ([]connect.Request, error)
	Refuse(ctx context.Context, v connect.Visitor, id connect.RequestID) error
	Device(ctx context.Context, v connect.Visitor, id string) (connect.Device, error)
}

// Grants are a person's yes (connect.Desk).
type Grants interface {
	Grants(ctx context.Context, v connect.Visitor) ([]connect.Grant, error)
	RevokeGrant(ctx context.Context, v connect.Visitor, g connect.Grant) error
	Consent(ctx context.Context, v connect.Visitor, client identity.ClientID, s *catalog.Server) error
	Door(ctx context.Context, v connect.Visitor, s *catalog.Server) ([]catalog.UpstreamName, error)
}

// Tools knows what somebody may call (broker.Broker).
type Tools interface {
	Visible(ctx context.Context, c *identity.Caller, s *catalog.Server, method string, names []string) ([]bool, error)
}

// Shelf is what is kept of a person (the store).
type Shelf interface {
	User(ctx context.Context, t identity.Tenant, id identity.UserID) (identity.User, error)
	Connections(ctx context.Context, t identity.Tenant, u identity.UserID, up catalog.UpstreamName) ([]vault.Connection, error)
	EndingsOf(ctx context.Context, t identity.Tenant, u identity.UserID) ([]vault.Ending, error)
	Rows(ctx context.Context, q audit.Query) ([]audit.Row, error)
}

// Begin implements broker.Flows. Who signs in has no visit yet.
func (d *Desk) Begin(ctx context.Context, v connect.Visitor, s connect.Start) (connect.Next, error) {
	if s.Kind != connect.FlowSignIn {
		if _, err := d.visit(ctx, v); err != nil {
			return connect.Next{}, err
		}
	}
	return d.Flows.Begin(ctx, v, s)
}

// Complete implements broker.Flows: a sign-in that ends well begins a visit. Whoever cannot prove his visit is a stranger, who can
// complete a sign-in and nothing else.
func (d *Desk) Complete(ctx context.Context, v connect.Visitor, a connect.Answer) (connect.Result, error) {
	if _, err := d.visit(ctx, v); err == errVisit {
		v.User = ""
	} else if err != nil {
		return connect.Result{}, err
	}
	r, err := d.Flows.Complete(ctx, v, a)
	r.Connection.Sealed = vault.Sealed{}
	if err != nil || r.Kind != connect.FlowSignIn {
		return r, err
	}
	s := &r.Session
	s.ID, s.Expires, s.Agents = rand.Text(), s.At.Add(Life), s.At.Add(Life)
	if s.HasHome {
		s.Agents = s.At.Add(AgentLife)
	}
	s.Proof, err = write(ctx, d.MAC, aVisit, visit{Tenant: v.Tenant, User: r.User.ID, ID: s.ID, IDP: s.IDP, SID: s.SID, Auth: identity.Authentication{ACR: s.ACR, AMR: s.AMR, Time: s.At},
		Started: s.At, Ends: s.Expires, Agents: s.Agents, Binding: v.Binding})
	return r, err
}

// End implements broker.Flows.
func (d *Desk) End(ctx context.Context, v connect.Visitor, id vault.ConnectionID) (connect.Ending, error) {
	if _, err := d.visit(ctx, v); err != nil {
		return "", err
	}
	return d.Flows.End(ctx, v, id)
}

// Renew implements broker.Flows. It shows nothing, and gives nothing that anybody could use.
func (d *Desk) Renew(ctx context.Context, t identity.Tenant, u identity.UserID, idp string) error {
	return d.Flows.Renew(ctx, t, u, idp)
}

// Request is the visitor's own; errors as of connect.Desk.
func (d *Desk) Request(ctx context.Context, v connect.Visitor, id connect.RequestID) (connect.Request, error) {
	if _, err := d.visit(ctx, v); err != nil {
		return connect.Request{}, err
	}
	return d.People.Request(ctx, v, id)
}

// Pending lists the visitor's open requests.
func (d *Desk) Pending(ctx context.Context, v connect.Visitor) ([]connect.Request, error) {
	if _, err := d.visit(ctx, v); err != nil {
		return nil, err
	}
	return d.People.Pending(ctx, v)
}

// Refuse closes the visitor's own request with a no.
func (d *Desk) Refuse(ctx context.Context, v connect.Visitor, id connect.RequestID) error {
	if _, err := d.visit(ctx, v); err != nil {
		return err
	}
	return d.People.Refuse(ctx, v, id)
}

// Device is a code that the visitor asked for in this browser, without what is sealed.
func (d *Desk) Device(ctx context.Context, v connect.Visitor, id string) (connect.Device, error) {
	if _, err := d.visit(ctx, v); err != nil {
		return connect.Device{}, err
	}
	x, err := d.People.Device(ctx, v, id)
	x.Verifier = nil
	return x, err
}

// Grants lists the visitor's.
func (d *Desk) Grants(ctx context.Context, v connect.Visitor) ([]connect.Grant, error) {
	if _, err := d.visit(ctx, v); err != nil {
		return nil, err
	}
	return d.People.Grants(ctx, v)
}

// RevokeGrant ends a yes of the visitor's.
func (d *Desk) RevokeGrant(ctx context.Context, v connect.Visitor, g connect.Grant) error {
	if _, err := d.visit(ctx, v); err != nil {
		return err
	}
	return d.People.RevokeGrant(ctx, v, g)
}

// Prefer makes one of the visitor's accounts the one that new grants take.
func (d *Desk) Prefer(ctx context.Context, v connect.Visitor, id vault.ConnectionID) error {
	if _, err := d.visit(ctx, v); err != nil {
		return err
	}
	return d.People.Prefer(ctx, v, id)
}

// UseAccount makes a client at a server use another account of the visitor's.
func (d *Desk) UseAccount(ctx context.Context, v connect.Visitor, g connect.Grant) error {
	if _, err := d.visit(ctx, v); err != nil {
		return err
	}
	return d.People.UseAccount(ctx, v, g)
}

// Consent gives grants to a client that the visitor has let in, for what is connected.
func (d *Desk) Consent(ctx context.Context, v connect.Visitor, client identity.ClientID, s *catalog.Server) error {
	if _, err := d.visit(ctx, v); err != nil {
		return err
	}
	return d.People.Consent(ctx, v, client, s)
}

// Door lists the upstreams of a server that the visitor could connect now.
func (d *Desk) Door(ctx context.Context, v connect.Visitor, s *catalog.Server) ([]catalog.UpstreamName, error) {
	if _, err := d.visit(ctx, v); err != nil {
		return nil, err
	}
	return d.People.Door(ctx, v, s)
}

// Callable says which of these tools of a server the visitor could call through a client, if he let it in.
func (d *Desk) Callable(ctx context.Context, v connect.Visitor, client identity.ClientID, s *catalog.Server, names []string) ([]bool, error) {
	k, err := d.visit(ctx, v)
	if err != nil {
		return nil, err
	}
	u, err := d.Shelf.User(ctx, k.Tenant, k.User)
	if err != nil {
		return nil, err
	}
	who := &identity.Caller{Tenant: u.Tenant, User: u.ID, IDP: u.IDP, Subject: u.Subject, Name: u.Name, Groups: u.Groups, Client: client, Issued: d.Now(), Expires: k.Ends}
	return d.Tools.Visible(ctx, who, s, "tools/call", names)
}

// Connections lists the visitor's, of one upstream or of all (""), without what is sealed.
func (d *Desk) Connections(ctx context.Context, v connect.Visitor, up catalog.UpstreamName) ([]vault.Connection, error) {
	if _, err := d.visit(ctx, v); err != nil {
		return nil, err
	}
	l, err := d.Shelf.Connections(ctx, v.Tenant, v.User, up)
	for i := range l {
		l[i].Sealed = vault.Sealed{}
	}
	return l, err
}

// Endings lists what ended for the visitor here, and not yet at the vendor, without what is sealed.
func (d *Desk) Endings(ctx context.Context, v connect.Visitor) ([]vault.Ending, error) {
	if _, err := d.visit(ctx, v); err != nil {
		return nil, err
	}
	l, err := d.Shelf.EndingsOf(ctx, v.Tenant, v.User)
	for i := range l {
		l[i].Sealed = nil
	}
	return l, err
}

// Activity reads the visitor's part of the log, as audit.Store.Rows does.
func (d *Desk) Activity(ctx context.Context, v connect.Visitor, before audit.CallID, limit int) ([]audit.Row, error) {
	if _, err := d.visit(ctx, v); err != nil {
		return nil, err
	}
	return d.Shelf.Rows(ctx, audit.Query{Tenant: v.Tenant, User: v.User, Before: before, Limit: limit})
}
