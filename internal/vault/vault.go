// Package vault keeps credentials, sealed.
//
// A sealed field opens only for its own tenant, user, upstream, connection, generation and version: moved to another
// row it is garbage. It trusts its key provider and nothing in the database. An attacker with the database and
// without the key gets account labels, scopes and times, and can delete; he gets no credential.
package vault

import (
	"context"
	"time"

	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/secret"
)

// ConnectionID is random and never re-used: 32 lower-case hex digits.
type ConnectionID string

// Status is the health of a connection, as people see it.
type Status string

const (
	Active         Status = "active"
	Suspect        Status = "suspect"         // one witness says that it is dead; it is being looked at
	Uncertain      Status = "uncertain"       // a refresh was interrupted and is being recovered
	NeedsReconnect Status = "needs_reconnect" // only its user can mend it; Reason says why
	Revoking       Status = "revoking"        // ended here, the vendor has not confirmed yet
	Revoked        Status = "revoked"
)

// Phase is where the refresh machine is.
type Phase string

const (
	Idle    Phase = "idle"
	Claimed Phase = "claimed" // somebody holds the lease, nothing has been sent
	Sent    Phase = "sent"    // the request may have left
)

// Connection is one user's (or service's) credential at one upstream, without its secret part.
type Connection struct {
	Tenant    identity.Tenant
	ID        ConnectionID
	User      identity.UserID // for a service: "service:" and its subject
	Upstream  catalog.UpstreamName
	Method    catalog.MethodKind
	Account   string       // the vendor's id of the account
	Label     string       // the name that the person knows
	Site      catalog.Site // where the account is at, where each connection has a site of its own; sealed fields open for it alone
	Client    string       // the registration of ours that it was given to, where vendors may forget ours; "": the current one
	Scopes    []string
	Status    Status
	Reason    string // why the status is not Active, for people
	Created   time.Time
	LastUsed  time.Time // to the minute
	Expires   time.Time // of the access token; zero: it doesn't expire or nobody knows
	Refreshes bool      // there is a refresh token
	Renewed   time.Time // when the access token was obtained: with Expires it gives its life
	Preferred time.Time // when it became the account that new grants take; the latest one is. Zero: never
	Machine
	Sealed
}

// Machine holds the columns of the refresh machine (docs/connections.md).
type Machine struct {
	Generation int64 // counts connects of this account
	Version    int64 // counts stored credentials within a generation
	Phase      Phase
	Attempt    string // id of the running refresh
	LeaseOwner string
	LeaseUntil time.Time // database time
	LeaseEpoch int64
	NotBefore  time.Time // no refresh earlier than this
	Failures   int
	Recoveries int // of the interrupted refresh at hand
}

// Sealed holds the sealed fields.
type Sealed struct {
	Access   []byte
	Refresh  []byte
	Previous []byte // the refresh token before, until the new one has proved itself
	Identity []byte // the ID token, of home credentials alone
	Proof    []byte // the key that the tokens are bound to (RFC 9449), if any
}

// Secrets is the plaintext of a connection.
type Secrets struct {
	Access   secret.Text
	Refresh  secret.Text
	Previous secret.Text
	Identity secret.Text
	Proof    secret.Text // dpop.Key's
}

// Store keeps connections. Every statement names its tenant; another tenant's row is fault.NotFound.
type Store interface {
	// Connections lists a user's connections that are neither Revoking nor Revoked, of one upstream or all (""); at each upstream
	// the one that new grants take first, then the oldest.
	Connections(ctx context.Context, t identity.Tenant, u identity.UserID, up catalog.UpstreamName) ([]Connection, error)
	Connection(ctx context.Context, t identity.Tenant, id ConnectionID) (Connection, error)
	// Connect stores a fresh connection. With prior set, it replaces that one in the same transaction (ID and Generation
	// are the caller's: same id, generation+1); fault.Conflict if prior's generation has moved, or if the user has another
	// connection of this account at this upstream that is neither Revoking nor Revoked.
	Connect(ctx context.Context, c Connection, prior int64) error
	// Update changes status, reason, label, scopes, last use; guarded by generation and version, so that a late mark never
	// hits a newer credential: 0 rows is fault.Conflict.
	Update(ctx context.Context, c Connection) error
}
