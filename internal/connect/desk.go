package connect

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"time"

	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/connect/discovery"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/kit/oauth"
	"frontdesk.dev/frontdesk/internal/policy"
	"frontdesk.dev/frontdesk/internal/vault"
)

// Desk opens connect requests, sends browsers away and takes them back, and keeps the grants. All fields are required but Finder and KeyPage.
type Desk struct {
	Catalog  *catalog.Catalog
	Store    Store
	Vault    Vault
	Clients  *vault.Clients
	IdPs     *identity.IdPs
	Users    identity.Users
	Epochs   *identity.Epochs
	Events   Events
	Policies *policy.Policies
	OAuth    oauth.Client
	API      Sender // to vendors' APIs, for account labels and for testing pasted keys
	Ready    Readiness
	Finder   *discovery.Finder                                                     // of vendors' own MCP servers; nil finds none
	URL      func(t identity.Tenant, path string) string                           // public URL of a path of that tenant
	KeyPage  func(t identity.Tenant, up catalog.UpstreamName, state string) string // where keys are pasted; nil: at the portal
	Log      *slog.Logger
	Now      func() time.Time
	Ends

	grants grantCache
}

// Ends is how connections end. All fields are required.
type Ends struct {
	Endings     Endings
	Unused      Unused
	UnusedAfter func() time.Duration // 0: connections that nobody uses stay
}

// Endings ends credentials at their vendors (vault.Endings).
type Endings interface {
	End(ctx context.Context, up *catalog.Upstream, c vault.Connection, s vault.Secrets) (vault.Ended, error)
}

// Vault is what connect needs of the vault (vault.Vault).
type Vault interface {
	Connections(ctx context.Context, t identity.Tenant, u identity.UserID, up catalog.UpstreamName) ([]vault.Connection, error)
	Connection(ctx context.Context, t identity.Tenant, id vault.ConnectionID) (vault.Connection, error)
	// Update stores the status and reason of a living connection; fault.Conflict where it is not as it was read any more.
	Update(ctx context.Context, c vault.Connection) error
	Opener
}

// Opener seals and opens.
type Opener interface {
	// Connect stores a fresh credential, or replaces that of c.ID with the next generation.
	Connect(ctx context.Context, c vault.Connection, s vault.Secrets) (vault.Connection, error)
	Open(ctx context.Context, c vault.Connection) (vault.Secrets, error)
	// SealFlow and OpenFlow keep the secret of one flow, bound to tenant and state.
	SealFlow(ctx context.Context, t identity.Tenant, state string, plain []byte) ([]byte, error)
	OpenFlow(ctx context.Context, t identity.Tenant, state string, sealed []byte) ([]byte, error)
}

// Events records (audit.Log).
type Events interface {
	Event(ctx context.Context, r audit.Record) error
}

// Sender sends to what the config names (outbound.Client).
type Sender interface {
	Do(r *http.Request) (*http.Response, error)
}

const (
	requestLife = 15 * time.Minute
	flowLife    = 15 * time.Minute
	grantLife   = 90 * 24 * time.Hour
	maxOpen     = 20 // open requests of one user; more is a nuisance, or an attack on his attention
	maxOfClient = 5  // of those by one client, so that one agent cannot take the others' turn
)

// Ask opens a request for everything that a call lacks, or finds the open one that asks for the same.
func (d *Desk) Ask(ctx context.Context, c *identity.Caller, s *catalog.Server, tool, clientName string, missing []catalog.Missing) (Request, error) {
	if c.User == "" {
		return Request{}, fault.New(fault.Denied, "this caller is a service: there is no person who could connect "+string(missing[0].Upstream), nil)
	}
	open, err := d.Pending(ctx, Visitor{Tenant: c.Tenant, User: c.User})
	if err != nil {
		return Request{}, err
	}
	known, ofClient := false, 0
	for _, r := range open {
		if r.Client == c.Client {
			ofClient++
			known = known || r.Server == s.Name && sameAsked(r.Missing, missing)
		}
	}
	if !known && (len(open) >= maxOpen || ofClient >= maxOfClient) {
		return Request{}, fault.New(fault.RateLimited, "too many connect requests are open for this user; answer or refuse some at "+d.URL(c.Tenant, "/portal/"), nil)
	}
	id := make([]byte, 16)
	if _, err := io.ReadFull(rand.Reader, id); err != nil {
		return Request{}, err
	}
	now := d.Now()
	return d.Store.OpenRequest(ctx, Request{Tenant: c.Tenant, ID: RequestID(base64.RawURLEncoding.EncodeToString(id)), User: c.User, Client: c.Client, ClientName: clientName,
		Server: s.Name, Tool: tool, Missing: missing, State: Open, Created: now, Expires: now.Add(requestLife)})
}

// Link is where the person answers a request.
func (d *Desk) Link(r Request) string { return d.URL(r.Tenant, "/connect/"+string(r.ID)) }

// Request returns the visitor's own request. fault.Denied: it is somebody else's (which is put on record);
// fault.NotFound: there is none.
func (d *Desk) Request(ctx context.Context, v Visitor, id RequestID) (Request, error) {
	r, err := d.Store.Request(ctx, v.Tenant, id)
	if err != nil {
		return Request{}, err
	}
	if v.User == "" || r.User != v.User {
		err := d.event(ctx, v, "connect.wrong_user", audit.Record{Server: string(r.Server), Result: audit.ResultDenied})
		return Request{}, errors.Join(fault.New(fault.Denied, "this link was made for somebody else", nil), err)
	}
	if r.State == Open && !d.Now().Before(r.Expires) {
		r.State = Expired
	}
	return r, nil
}

// State says where a request stands, for a call that waits for it.
func (d *Desk) State(ctx context.Context, t identity.Tenant, id RequestID) (State, error) {
	r, err := d.Store.Request(ctx, t, id)
	if err != nil {
		return "", err
	}
	if r.State == Open && !d.Now().Before(r.Expires) {
		return Expired, nil
	}
	return r.State, nil
}

// Pending lists the visitor's open requests.
func (d *Desk) Pending(ctx context.Context, v Visitor) ([]Request, error) {
	l, err := d.Store.Requests(ctx, v.Tenant, v.User, Open)
	return slices.DeleteFunc(l, func(r Request) bool { return !d.Now().Before(r.Expires) }), err
}

// Refuse closes the visitor's own request with a no.
func (d *Desk) Refuse(ctx context.Context, v Visitor, id RequestID) error {
	r, err := d.Request(ctx, v, id)
	if err != nil {
		return err
	}
	if err := answerable(r); err != nil {
		return err
	}
	r.State = Refused
	if err := d.Store.SetState(ctx, r); err != nil {
		return err
	}
	return d.event(ctx, v, "connect.refused", audit.Record{Client: r.Client, Server: string(r.Server), Result: audit.ResultOK})
}

// sameAsked reports whether two requests ask for the same upstreams, as far as is needed to count; the store decides.
func sameAsked(a, b []catalog.Missing) bool {
	return slices.EqualFunc(a, b, func(x, y catalog.Missing) bool { return x.Upstream == y.Upstream })
}

// stands returns the visitor's own request if it can still be answered with a yes.
func (d *Desk) stands(ctx context.Context, v Visitor, id RequestID) (Request, error) {
	r, err := d.Request(ctx, v, id)
	if err == nil {
		err = answerable(r)
	}
	if err == nil {
		err = d.mayStill(ctx, r)
	}
	return r, err
}

// mayStill decides again what was decided when the request was opened: the agent's access may have ended since, or the
// policy changed. What policy reads of a call that is not here (its arguments, how the person signed in at the agent) is no
// reason for a no; the call itself is decided in full.
func (d *Desk) mayStill(ctx context.Context, r Request) error {
	u, err := d.Users.User(ctx, r.Tenant, r.User)
	if err != nil {
		return err
	}
	c := &identity.Caller{Tenant: r.Tenant, User: u.ID, IDP: u.IDP, Subject: u.Subject, Name: u.Name, Groups: u.Groups, Client: r.Client, Issued: r.Created}
	if !d.Epochs.Alive(c) {
		return fault.New(fault.Denied, "this agent's access has ended since it asked; nothing was done", nil)
	}
	set := d.Policies.Set(r.Tenant)
	may := set.Reaches(c, string(r.Server))
	if may && r.Tool != "" {
		told := set.Decide(policy.Request{Caller: c, Action: policy.ActionCall, Server: string(r.Server), Tool: r.Tool, Method: "tools/call", Now: d.Now()})
		may = told.Allow || len(told.Errors) > 0
	}
	if !may {
		return fault.New(fault.Denied, "your organisation's policy does not let this agent do this any more; nothing was done", nil)
	}
	return nil
}

func answerable(r Request) error {
	if r.State == Open {
		return nil
	}
	return fault.New(fault.Conflict, "this request is "+string(r.State)+"; ask your agent again, and it gets a new link", nil)
}

// same compares the browser that came back with the one that left.
func same(a, b []byte) bool { return len(a) > 0 && subtle.ConstantTimeCompare(a, b) == 1 }

func (d *Desk) event(ctx context.Context, v Visitor, action string, r audit.Record) error {
	r.Kind, r.Time, r.Tenant, r.User, r.Action = audit.KindEvent, d.Now(), v.Tenant, v.User, action
	return d.Events.Event(ctx, r)
}
