// Package exchange answers: with which credential?
//
// It turns a caller and an upstream into a credential by the first of the upstream's methods that can serve this
// caller, one file a method, and keeps stored credentials fresh (the refresh machine, refresh.go). It shows a
// credential to nobody: what it hands out places itself on a request. It does not decide whether the caller may.
package exchange

import (
	"context"
	"net/http"
	"time"

	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/vault"
)

// Request is what a method is asked.
type Request struct {
	Caller   *identity.Caller
	Upstream *catalog.Upstream
	Method   catalog.Method
	Scopes   []string // all that this call needs
}

// Credential opens one upstream for one caller. It is good until Expires, or until the caller's access epoch moves.
type Credential struct {
	// Place puts the credential on the request; it may set a header or sign the whole request.
	Place func(*http.Request) error
	// Marks are the byte strings that must never be seen in an answer.
	Marks      [][]byte
	Expires    time.Time // zero: it doesn't expire
	Method     catalog.MethodKind
	Connection vault.ConnectionID // "" where the method stores nothing
}

// Method is one way to obtain a credential. Implementations are safe for concurrent use and keep no secret beyond a call,
// but in caches keyed by everything that the credential depends on.
type Method interface {
	// Ready reports whether Obtain would serve this caller, releasing nothing: nil; *catalog.Needed where a person must
	// act; a fault.NotFound whose message says why this method cannot serve him at all (the next one is tried).
	Ready(ctx context.Context, r Request) error
	// Obtain returns the credential, or the errors of Ready, or fault.Unavailable where the other side is away.
	Obtain(ctx context.Context, r Request) (*Credential, error)
}

// Verdict is what one configured method says of a caller, for `frontdesk explain`.
type Verdict struct {
	Method catalog.MethodKind `json:"method"`
	Used   bool               `json:"used"`
	Why    string             `json:"why"`
}

// Machine keeps what the refresh machine changes. Every method is one compare-and-swap, durable before it returns;
// the bool is false where another process was first, which is no error: read again. Times are the database's.
type Machine interface {
	// Claim takes the lease if it is free or over, of exactly this generation and version: phase becomes claimed,
	// lease_epoch grows by one. The row as it stands after it is returned.
	Claim(ctx context.Context, c vault.Connection, attempt, owner string, lease time.Duration) (vault.Connection, bool, error)
	// Sent marks that the request may leave from now on; only the holder of the lease may.
	Sent(ctx context.Context, c vault.Connection) (bool, error)
	// Settle stores a new credential: c.Sealed, Expires, Scopes, Status, with version fromVersion+1, phase idle and no
	// lease, if and only if generation and version are still c.Generation and fromVersion. The lease does not matter.
	Settle(ctx context.Context, c vault.Connection, fromVersion int64) (bool, error)
	// Fail gives the lease back with status, reason, failures, not_before and recoveries as in c, version unchanged;
	// only the holder of the lease may.
	Fail(ctx context.Context, c vault.Connection) (bool, error)
}
