// Package audit answers: what was attempted, and what came of it?
//
// It is append-only and chained: every record carries the hash of the one before it in its writer's chain. An intent
// is durable before the act that it announces, and gets exactly one outcome. Records hold no secret and no argument.
// Where the chains stand is signed every few seconds, and kept outside of the database too where the operator names a
// place (Checkpoints). An attacker who can write the database is found by Verify whatever he changes; where no checkpoint is
// kept outside, he can put all of it back to an earlier state unseen.
package audit

import (
	"context"
	"time"

	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
)

// CallID names one intent: the writer that wrote it and its position, "<writer>.<seq>" in lower-case hex. It is the
// `txn` of a transaction token, so its characters are [0-9a-f.].
type CallID string

// Kind is what a record is.
type Kind string

const (
	KindIntent  Kind = "intent"
	KindOutcome Kind = "outcome"
	KindEvent   Kind = "event" // something that happened and needs no outcome: sign-in, connect, revoke, reload
	// KindLate is a Row's kind alone, never a Record's: an outcome that came second. It keeps its place in its writer's
	// chain, and counts for nothing.
	KindLate Kind = "late"
)

// Result is what came of an intent or event.
type Result string

const (
	ResultOK      Result = "ok"
	ResultDenied  Result = "denied"  // policy, or no grant
	ResultNeeds   Result = "needs"   // a person must connect first
	ResultFailed  Result = "failed"  // the other side failed or refused
	ResultUnknown Result = "unknown" // the process died in between, or the answer was lost
)

// Record is one line of the log. Empty fields are left out.
type Record struct {
	Kind   Kind            `json:"kind"`
	Time   time.Time       `json:"time"`
	Tenant identity.Tenant `json:"tenant"`
	Call   CallID          `json:"call,omitzero"`   // of an outcome: the intent's id
	Parent CallID          `json:"parent,omitzero"` // of an API request: the call that it was made for

	User    identity.UserID   `json:"user,omitzero"`
	Service string            `json:"service,omitzero"`
	Client  identity.ClientID `json:"client,omitzero"`
	Actors  []string          `json:"actors,omitzero"`
	SignIn  string            `json:"sign_in,omitzero"` // of this client, whose end ends the act on every replica
	Session string            `json:"session,omitzero"` // digest of the MCP session, where there is one

	Action   string `json:"action"` // call, session, stream, api, catalogue; of an event its name, as "connection.revoked"
	Server   string `json:"server,omitzero"`
	Method   string `json:"method,omitzero"` // MCP method
	Tool     string `json:"tool,omitzero"`   // tool, prompt or resource; of an API request its operation
	Upstream string `json:"upstream,omitzero"`
	HTTP     string `json:"http,omitzero"` // method, host and path of an API request, without its query

	Decision   string   `json:"decision,omitzero"` // allow, deny or would_deny (observe: policy refused, and it passed)
	Policies   []string `json:"policies,omitzero"` // ids of those that made the decision
	Connection string   `json:"connection,omitzero"`
	Site       string   `json:"site,omitzero"`     // to which an API request went, where that is the connection's own
	Obtained   string   `json:"obtained,omitzero"` // the credential method
	Sealed     string   `json:"sealed,omitzero"`   // which credential of it was stored: vault.Fingerprint
	Result     Result   `json:"result,omitzero"`
	Detail     string   `json:"detail,omitzero"` // a sentence; at most 512 bytes
}

// Row is a record as it is stored.
type Row struct {
	Writer string // 16 hex digits, one per process start
	Seq    int64  // from 1, without gaps within a writer
	Tenant identity.Tenant
	User   identity.UserID
	Kind   Kind
	Call   CallID // of an intent its own id
	Time   time.Time
	Record []byte // canonical JSON
	Hash   []byte // SHA-256(0x00 ‖ writer ‖ seq ‖ previous hash ‖ SHA-256(Record))
}

// ID names the row.
func (r Row) ID() CallID { return callID(r.Writer, r.Seq) }

// Query selects rows for people.
type Query struct {
	Tenant identity.Tenant
	User   identity.UserID // "" = all
	Since  time.Time
	Before CallID // page on: what is older than the act at this "<writer>.<seq>", or than the one whose outcome is there
	Limit  int    // of intents and events; 0 = 100, at most 1000
}

// ErrCut says that the database has lost rows that it had acknowledged.
var ErrCut = fault.New(fault.Unavailable, "the database has lost the newest records of the audit log", nil)

// actionShorter is an event's that says what was lost: everything of a chain up to its Call, as far as it is not there.
const actionShorter = "log.shorter"

// Store keeps rows. Rows are never changed or removed through it.
type Store interface {
	// Append writes all rows or none, durably: when it returns nil they survive a power loss. One writer's calls come one
	// after the other, in the order of Seq. ErrCut, and nothing is written, where the row before the first is gone: a standby
	// was promoted that had not got it. (A SQLite file is nobody else's while it is open: there it is not looked for.) The first outcome of a call counts, also across replicas; a second one is kept
	// as KindLate, in silence, so that chains have no gaps. Rows that are there already, to the byte, are no error, so an
	// Append whose answer was lost can be repeated; other rows in their place are fault.Conflict.
	Append(ctx context.Context, rows []Row) error
	// Intent returns the intent's row, fault.NotFound if there is none.
	Intent(ctx context.Context, id CallID) (Row, error)
	// Rows lists intents and events, newest first, each intent followed by the outcome that counts, where there is one.
	// fault.NotFound for a Before that the tenant does not have.
	Rows(ctx context.Context, q Query) ([]Row, error)
	// Chain calls f for each row of every writer, ordered by (Writer, Seq), until f errs; of a writer that after names, for what
	// is beyond that position.
	Chain(ctx context.Context, after map[string]int64, f func(Row) error) error
}

// Sweeps finds intents that nobody will end any more.
type Sweeps interface {
	// Beat says that the writer lives.
	Beat(ctx context.Context, writer string, now time.Time) error
	// Unfinished returns intents without outcome of writers whose last beat is before deadBefore, or that are among these, at most limit.
	Unfinished(ctx context.Context, deadBefore time.Time, among []string, limit int) ([]Row, error)
	// Ended reports whether an intent has an outcome.
	Ended(ctx context.Context, id CallID) (bool, error)
	// There reports whether a record is there, whatever its kind.
	There(ctx context.Context, id CallID) (bool, error)
}
