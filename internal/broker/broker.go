// Package broker is the one pipeline that every call passes: decide, record, obtain, send.
//
// Nobody can go around it: what is above it never holds a credential, and what is below it releases none without a
// recorded intent. It is also the line along which the process can be cut in two (the interfaces Door, Flows and Notary).
// Rules go to policy, mechanics to exchange; this package stays under 300 lines.
package broker

import (
	"context"
	"net/http"
	"time"

	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/internal/broker/booking"
	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/connect"
	"frontdesk.dev/frontdesk/internal/exchange"
	"frontdesk.dev/frontdesk/internal/hosted"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/secret"
	"frontdesk.dev/frontdesk/internal/policy"
	"frontdesk.dev/frontdesk/internal/vault"
)

// Kind is what sort of act it is.
type Kind string

const (
	KindCall      Kind = "call"      // an MCP request that names or runs something
	KindSession   Kind = "session"   // a legacy MCP session, open until it ends
	KindStream    Kind = "stream"    // a GET or listen stream
	KindAPI       Kind = "api"       // an API request through egress
	KindProcess   Kind = "process"   // a process of a server that we run, open until it ends
	KindCatalogue Kind = "catalogue" // listing, ping and the like: nothing acts, no user's credential is needed
)

// Act is what a caller is about to do.
type Act struct {
	Kind   Kind
	Server *catalog.Server
	Method string // MCP method; of an API request the HTTP method
	Name   string // tool, prompt or resource; of an API request its operation, where the upstream's description names it
	// Arguments returns the raw JSON of the named arguments. It is asked only where a policy names some.
	Arguments func(names []string) (map[string][]byte, error)
	Session   audit.CallID // the MCP session's own act, where there is one

	Upstream *catalog.Upstream // KindAPI, from here on
	Host     string
	Path     string
	Content  policy.Reader // what policies read beyond that; nil: what they would read is not there, and they err
	Holding  *Holding
	Swap     *exchange.Swap // where the credential goes, if not to the upstream's usual place
}

// Hosted reports whether an act is a message to a server that we run ourselves.
func (a Act) Hosted() bool {
	return a.Server.Program != nil && a.Kind != KindAPI && a.Kind != KindProcess
}

// Door is what gateway and egress pass through.
type Door interface {
	// Ready decides and names what is missing, releasing and recording nothing.
	Ready(ctx context.Context, c *identity.Caller, a Act) (Answer, error)
	// Open decides, records the intent and obtains. Errors: fault.Denied; *catalog.Needed; fault.Conflict where the session's act has ended; fault.Unavailable where the
	// intent cannot be recorded or the credential's source is away. Every intent that it wrote has its outcome by then.
	Open(ctx context.Context, c *identity.Caller, a Act) (Lease, error)
	// Holder says who holds a transaction token, and for which open call or session: fault.Unauthenticated for anything
	// else than a ticket of ours whose call or session is still open and whose user's access has not ended. With tenant ""
	// it is the ticket that says the tenant.
	Holder(ctx context.Context, t identity.Tenant, ticket string) (*Holding, error)
	// Visible filters the names that this caller may call at the server, in one pass.
	Visible(ctx context.Context, c *identity.Caller, s *catalog.Server, method string, names []string) ([]bool, error)
}

// Answer is what Ready found.
type Answer struct {
	Decision policy.Decision
	Missing  []catalog.Missing
}

// Lease is leave for one act. It does not show the credential. Whoever opened it closes it, once.
type Lease interface {
	// Do places the credential (or the ticket), sends the request and takes the credential out of what comes back.
	// Many requests may be sent until Close, streaming both ways, upgrades included.
	Do(r *http.Request) (*http.Response, error)
	// Valid says whether the act may go on: the caller's access has not ended since. Long streams ask now and then.
	Valid(ctx context.Context) error
	// State tells what is known of the act so far.
	State() State
	// Close records the outcome. The first call counts.
	Close(ctx context.Context, o Outcome)
}

// State is what is known of an open act.
type State struct {
	Call audit.CallID
	booking.Report
}

// Outcome is how an act ended.
type Outcome struct {
	Result audit.Result
	Detail string
}

// Holding is what a transaction token stands for.
type Holding struct {
	Ticket identity.Ticket
	Caller *identity.Caller
	Server *catalog.Server
	Call   audit.CallID // the open call that a request is booked on; of a session with several or no open calls: the session's
	// Keycard is the token itself, for the far side of a process cut, which looks again what it stands for. Faces may not hold it.
	Keycard secret.Text
	Told    func(hint string) // where the act is open in another process

	book *booking.Book // nil where nothing is open here
	asks time.Time     // when it was asked for
}

// Tell notes on the open call what its agent can do about an API request that failed. The sentence is ours: nothing that an
// upstream said may stand in it.
func (h *Holding) Tell(hint string) {
	switch {
	case h.book != nil:
		h.book.Tell(h.booked(), hint)
	case h.Told != nil:
		h.Told(hint)
	}
}

// booked is what a request of the holder's is booked on. Of a session without a call here there may be one elsewhere.
func (h *Holding) booked() booking.Booked {
	on := booking.Booked{Call: h.Call, Caller: h.Caller}
	if h.Ticket.Kind == identity.TicketSession && h.InSession() {
		on.Since = h.asks.Add(-h.Server.CallLimit - time.Minute) // clocks differ
	}
	return on
}

// InSession reports that a request could not be booked on one call.
func (h *Holding) InSession() bool {
	return h.Ticket.Kind != identity.TicketCall && string(h.Call) == h.Ticket.Txn
}

// Flows is what issuer and portal use to send people away and take them back.
type Flows interface {
	Begin(ctx context.Context, v connect.Visitor, s connect.Start) (connect.Next, error)
	Complete(ctx context.Context, v connect.Visitor, a connect.Answer) (connect.Result, error)
	End(ctx context.Context, v connect.Visitor, id vault.ConnectionID) (connect.Ending, error)
	// Renew asks the company's IdP whether it still lets the person in, unless it was asked within the last minute, and reads
	// his groups again. fault.Unauthenticated: it does not, and his access has been ended everywhere. fault.NotFound
	// where the IdP gave no home credential: the sign-in's own end is all there is then.
	Renew(ctx context.Context, t identity.Tenant, u identity.UserID, idp string) error
}

// Notary signs and records for faces.
type Notary interface {
	// Admit puts a visitor's yes to a client on record, with the grants that come with it, and returns the standing by which that
	// client's tokens are signed. fault.Denied where the visit cannot be proved.
	Admit(ctx context.Context, v connect.Visitor, a Admission) (standing string, err error)
	// Sign returns an access token of the issuer with these claims. They have to be those of the standing, which must not have
	// ended: else fault.Unauthenticated. No face can make it sign what another party could take for something else.
	Sign(ctx context.Context, t identity.Tenant, standing string, c identity.AccessClaims) (string, error)
	// Record writes an event of the faces' own, durably.
	Record(ctx context.Context, r audit.Record) error
}

// Admission is a visitor's yes: this client may act for him at this server, by this family of tokens.
type Admission struct {
	Client identity.ClientID
	Server *catalog.Server
	Family string
}

// Broker is the pipeline in one process. All fields but Hosts are required.
type Broker struct {
	Policies *policy.Policies
	Log      Log
	Exchange Credentials
	People   People
	Access   Access
	Users    identity.Users
	Tickets  *identity.Tickets
	Catalog  *catalog.Catalog
	Out      Sender // to what the config names
	Sites    Sender // to the sites of connections: also public ones, within what the vendor's entry allows
	Now      func() time.Time
	Hosts    Hosts                                            // nil where no server is run here
	Observe  func(k Kind, r audit.Result, took time.Duration) // metrics; called once per act
	Leaked   func(r audit.Record, hits int)                   // metrics; called whenever an answer of this act held the credential
	Calls    booking.Book                                     // which acts are open; with a Post where there are several processes
}

// Log is the audit log (audit.Log).
type Log interface {
	// Begin returns once the intent is durable; if it errs, nothing may happen.
	Begin(ctx context.Context, r audit.Record) (audit.CallID, error)
	// End queues the outcome, which is written while the process lives; if it doesn't, a sweeper writes `unknown`.
	End(ctx context.Context, id audit.CallID, r audit.Record)
	Event(ctx context.Context, r audit.Record) error
	// Unfinished returns an intent that has no outcome yet, from whichever replica; else fault.NotFound.
	Unfinished(ctx context.Context, id audit.CallID) (audit.Record, error)
}

// Credentials is what obtains (exchange.Exchange).
type Credentials interface {
	// Obtain takes of what the person connected the named connection alone; "" is the account that new grants take.
	Obtain(ctx context.Context, c *identity.Caller, up *catalog.Upstream, scopes []string, of vault.ConnectionID) (*exchange.Credential, error)
	// Ticket returns a transaction token as a credential.
	Ticket(ctx context.Context, s *catalog.Server, t identity.Ticket) (*exchange.Credential, error)
}

// People knows what a person must do first (connect.Desk).
type People interface {
	Missing(ctx context.Context, c *identity.Caller, s *catalog.Server, needs []catalog.Need) ([]catalog.Missing, error)
	// Granted is his yes: which of his connections the caller uses through the server, and whether it may for these scopes.
	Granted(ctx context.Context, c *identity.Caller, s *catalog.Server, up *catalog.Upstream, scopes []string) (connect.Yes, error)
}

// Access knows whose access has ended (identity.Epochs).
type Access interface {
	Alive(c *identity.Caller) bool
}

// Sender is the door to what the config names (outbound.Client).
type Sender interface {
	RoundTrip(r *http.Request) (*http.Response, error)
}

// Hosts runs the servers that we run ourselves (hosted.Hosts).
type Hosts interface {
	RoundTrip(a hosted.Ask) (*http.Response, error)
}

// sender is the way out: to a server that we run, to the site of a connection, or, without one, to what the config names.
func (l *lease) sender() Sender {
	switch {
	case l.act.Hosted():
		return host{l}
	case l.credential.Site != "":
		return l.broker.Sites
	}
	return l.broker.Out
}
