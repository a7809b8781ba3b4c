// Package fault is the one error vocabulary: few kinds, each with a sentence that is safe to show.
//
// Rooms return a fault where they know the kind, and wrap with %w where they don't. Each face has one switch
// from kinds to its wire; an error without a kind is Internal, and its text never leaves the process.
package fault

import (
	"errors"
	"time"
)

// Kind says who has to act on an error. The list is append-only.
type Kind uint8

const (
	Internal        Kind = iota // zero value: assume the worst, tell the caller nothing
	Invalid                     // the request is malformed or contradicts itself; the sender has to change it
	Unauthenticated             // we don't know who is asking; sign in again
	Denied                      // we know who is asking, and the answer is no
	NotFound                    // no such thing, or nothing that this caller may see
	Conflict                    // somebody else changed it first; read again
	Unavailable                 // a part that we need is away; the same request may work later
	RateLimited                 // too much, too fast; RetryAfter says when
)

var names = [...]string{"internal", "invalid", "unauthenticated", "denied", "not_found", "conflict", "unavailable", "rate_limited"}

// String gives the kind as it stands in logs, metrics and audit records.
func (k Kind) String() string {
	if int(k) >= len(names) {
		return names[Internal]
	}
	return names[k]
}

// Error is an error whose Msg may be shown to the caller. Err is for the operator's log alone.
type Error struct {
	Kind       Kind
	Msg        string        // lower case, what was attempted and what to do next; never holds a secret
	Err        error         // the cause, may be nil
	RetryAfter time.Duration // for Unavailable and RateLimited: the earliest useful retry; 0 = unknown
}

func (e *Error) Error() string {
	if e.Err == nil {
		return e.Msg
	}
	return e.Msg + ": " + e.Err.Error()
}

func (e *Error) Unwrap() error { return e.Err }

// New returns an error of the given kind. The cause may be nil.
func New(k Kind, msg string, cause error) error { return &Error{Kind: k, Msg: msg, Err: cause} }

// Later is an Unavailable error that names the earliest useful retry.
func Later(msg string, after time.Duration, cause error) error {
	return &Error{Kind: Unavailable, Msg: msg, Err: cause, RetryAfter: after}
}

// KindOf returns the kind of the outermost fault in err's chain, Internal if there is none.
func KindOf(err error) Kind {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Kind
	}
	return Internal
}

// Message returns the sentence that may be shown to whoever sent the request.
func Message(err error) string {
	if e, ok := errors.AsType[*Error](err); ok && e.Kind != Internal {
		return e.Msg
	}
	return "something went wrong inside Frontdesk; its log has the details"
}

// RetryAfter returns the earliest useful retry, 0 if unknown.
func RetryAfter(err error) time.Duration {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.RetryAfter
	}
	return 0
}
