// Package identity answers: who is calling?
//
// It turns an inbound access token, ours or one that the company's IdP issued, into a Caller, and it knows which
// callers' access has ended since (epochs). It trusts the signature keys of the configured issuers and nothing that a
// request says about itself. It does not decide what a caller may do, and its tokens go no further than here.
package identity

import (
	"context"
	"time"

	"frontdesk.dev/frontdesk/internal/kit/secret"
)

// Tenant names an organisation. Everything that is stored carries it.
type Tenant string

// DefaultTenant is the one whose paths have no prefix.
const DefaultTenant Tenant = "default"

// UserID is the internal, random, never re-used id of a person: 32 lower-case hex digits.
type UserID string

// ClientID is the client (the agent) that a person uses: an OAuth client_id at our issuer or at the company's IdP.
type ClientID string

// User is a person as the company's IdP knows him, found by (IDP, Subject).
type User struct {
	Tenant  Tenant
	ID      UserID
	IDP     string // name of the IdP in the config
	Subject string // value of the IdP's subject claim
	Name    string // for display; never identifies
	Email   string // for display; never identifies
	Groups  []string
	Gone    Gone
}

// Gone says that the company has let somebody go: nothing lets him in, however fresh it is. The zero value is that he is here.
type Gone string

const (
	Disabled Gone = "disabled" // until the company takes it back
	Deleted  Gone = "deleted"
)

// Caller is who is asking, as proven by one inbound access token. Its zero value is nobody.
type Caller struct {
	Tenant  Tenant
	User    UserID // empty for a service
	Service string // subject of a workload that calls for itself; empty for a person
	Name    string // for display
	IDP     string
	Subject string
	Groups  []string
	Client  ClientID
	Actors  []string // RFC 8693 `act`, outermost first
	Scopes  []string
	Auth    Authentication
	Issued  time.Time
	Expires time.Time
	Local   bool   // the token is of our own issuer, so a step-up challenge can be met
	Family  string // of our own tokens: the sign-in of this client
	raw     secret.Text
	proof   string
}

// Authentication is how and when the person proved himself (OpenID Connect Core, section 2).
type Authentication struct {
	ACR  string
	AMR  []string
	Time time.Time
	SID  string `json:"-"` // the IdP's name of this sign-in, where it gives one (OpenID Connect Back-Channel Logout, section 2.1)
}

// Principal is the id under which a caller is found in policies and records: the user's id, or "service:" and its subject.
func (c *Caller) Principal() string {
	if c.User != "" {
		return string(c.User)
	}
	if c.Service != "" {
		return "service:" + c.Service
	}
	return ""
}

// Raw is the token that proved this caller, for the far side of a process cut, which verifies it again, and for
// federation methods whose subject token it is. Faces may not hold it.
func (c *Caller) Raw() secret.Text { return c.raw }

// Proof names the token that proved this caller: its digest, which opens nothing.
func (c *Caller) Proof() string { return c.proof }

// Users keeps the people. Implementations are safe for concurrent use by many replicas.
type Users interface {
	// EnsureUser finds the user by (Tenant, IDP, Subject), creating him with a new id, and brings up to date what u
	// says of name, email and groups; an empty name or email and nil groups say nothing. Two replicas that meet a new
	// person at once get the same id. Returned is the user as he stands now.
	EnsureUser(ctx context.Context, u User) (User, error)
	// User returns fault.NotFound for an id of another tenant as for an unknown one.
	User(ctx context.Context, t Tenant, id UserID) (User, error)
}

// EpochKind is what an epoch ends or refreshes.
type EpochKind string

const (
	EpochUser    EpochKind = "user"    // tokens and sessions of the user issued before NotBefore are dead
	EpochClient  EpochKind = "client"  // tokens of the client issued before NotBefore are dead
	EpochFamily  EpochKind = "family"  // one sign-in of one client (a refresh token family) ended
	EpochSession EpochKind = "session" // one browser's sign-in ended
	EpochAccess  EpochKind = "access"  // connections or grants of the user changed: forget what is cached, nothing dies
)

// Everybody, as the id of a user's epoch, is every principal of the tenant.
const Everybody = "*"

// Epoch is one revocation, or one reason to forget what is cached. Every replica sees it within a second.
type Epoch struct {
	Seq       int64
	Tenant    Tenant
	Kind      EpochKind
	ID        string
	NotBefore time.Time
}

// EpochStore keeps the epochs. Seq grows with every Advance, without two rows sharing one, and a row is visible
// to EpochsSince only after all with a lower Seq are.
type EpochStore interface {
	Advance(ctx context.Context, e Epoch) (Epoch, error)
	EpochsSince(ctx context.Context, seq int64) ([]Epoch, error)
}

// TicketKind says what a transaction token is good for.
type TicketKind string

const (
	TicketCall    TicketKind = "call"    // one call, until it ends
	TicketSession TicketKind = "session" // one MCP session of one user at one server
	TicketProcess TicketKind = "process" // one process of a server that we run, and nowhere but in its own sandbox
)

// Ticket is what a transaction token (the keycard) says. It names a call or a session, never a person: egress finds
// the caller in the record that the id names.
type Ticket struct {
	Tenant  Tenant
	Kind    TicketKind
	Txn     string // audit.CallID, or the id of the session or process
	Server  string
	Expires time.Time
}

// OpaqueTickets keeps tickets whose text says nothing, by the SHA-256 of their text, for all replicas.
type OpaqueTickets interface {
	// PutTicket stores a ticket. One that is there already keeps the later of both ends.
	PutTicket(ctx context.Context, hash [32]byte, t Ticket) error
	// OpaqueTicket returns the ticket, ended or not; fault.NotFound where there is none.
	OpaqueTicket(ctx context.Context, hash [32]byte) (Ticket, error)
}

// TicketMAC computes the MAC of transaction tokens; the key never leaves it.
type TicketMAC interface {
	// MAC returns HMAC-SHA256 of data under the key kid; kid "" means the current key, whose id is returned.
	MAC(ctx context.Context, kid string, data []byte) (mac []byte, usedKid string, err error)
}
