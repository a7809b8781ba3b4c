// Package remote is the broker's side of a process that was cut in two, and the faces' side of it: broker.Door with its leases,
// broker.Flows and broker.Notary over mutual TLS.
//
// Client stands in the gateway's process in place of what it would call directly. Server stands in the broker's, before the same
// things. Both ends show pinned certificates (outbound.Pins); inside is HTTP/2, a path for each operation, JSON for what is said, and
// the requests and answers of a lease as they are, both ways at once.
//
// The server believes the gateway little. A caller is who his access token, verified here, says; at egress who the keycard says; at a
// browser who his visit says (package visits). What a request is about is read again from the very bytes that leave: an act that was
// decided is not another one when it is done. A lease can be used by the process that opened it and by no other, and ends when that
// process is not heard of for a while. A credential never goes over this wire: the server sends the upstream's request itself.
//
// What is left to the gateway: which of the calls that pass by it makes, with what else in headers and bodies than policy reads, what it
// says to servers that it runs itself, and how it says that calls ended. An intruder there gets tokens, keycards, visits and standings as they pass, for as long as each lives, and
// Releases bounds what he can do with them.
package remote

import (
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/kit/fault"
)

// The operations, by their paths.
const (
	root = "/v1/"

	opAlive   = "alive"
	opVerify  = "caller"
	opReady   = "ready"
	opOpen    = "open"
	opHolder  = "holder"
	opVisible = "visible"
	opTell    = "tell"
	opState   = "lease/state"
	opClose   = "lease/close"
	opDo      = "lease/do"
	opProcess = "lease/process" // servers that the gateway runs
	opJoin    = "lease/join"

	opBegin    = "begin"
	opComplete = "complete"
	opEnd      = "end"
	opRenew    = "renew"

	opAdmit  = "admit"
	opSign   = "sign"
	opRecord = "record"
	opEnds   = "ends"
	opJWKS   = "jwks"
	opLeaf   = "leaf"

	opAsk      = "ask"
	opAsked    = "asked"
	opRequest  = "request"
	opPending  = "pending"
	opRefuse   = "refuse"
	opDevice   = "device"
	opGrants   = "grants"
	opWithdraw = "withdraw"
	opConsent  = "consent"
	opPrefer   = "prefer"
	opUse      = "use"
	opDoor     = "door"
	opCallable = "callable"
	opHoldings = "holdings"
	opEndings  = "endings"
	opActivity = "activity"

	opHeard = "heard" // what the company's IdP and directory say, handed on unread
)

// headerProcess names the gateway's process: random, made at its start, and known to nobody else.
const headerProcess = "Frontdesk-Process"

// trouble is a fault on the wire. Of an internal one nothing is said: the log of the side where it happened has it.
type trouble struct {
	Kind   fault.Kind        `json:"kind"`
	Msg    string            `json:"message,omitempty"`
	After  time.Duration     `json:"after,omitempty"`
	Needed []catalog.Missing `json:"needed,omitempty"`
}

func troubleOf(err error) *trouble {
	t := &trouble{Kind: fault.KindOf(err), After: fault.RetryAfter(err)}
	if needed, ok := errors.AsType[*catalog.Needed](err); ok {
		t.Needed = needed.Missing
	}
	if t.Kind != fault.Internal {
		t.Msg = fault.Message(err)
	}
	return t
}

var errThere = errors.New("it failed in the broker's process, whose log has the details")

func (t *trouble) err() error {
	switch {
	case len(t.Needed) > 0:
		return &catalog.Needed{Missing: t.Needed}
	case t.Kind == fault.Internal:
		return errThere
	}
	return &fault.Error{Kind: t.Kind, Msg: t.Msg, RetryAfter: t.After}
}

// statusTrouble is the status of an answer that is a trouble.
const statusTrouble = http.StatusUnprocessableEntity

func writeTrouble(w http.ResponseWriter, err error) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(statusTrouble)
	_ = json.NewEncoder(w).Encode(troubleOf(err)) // the gateway went away if this fails
}

// maxSaid bounds what is said in JSON: a list of names, a page of the log, or a form.
const maxSaid = 16 << 20

var errAway = fault.New(fault.Unavailable, "the broker's process does not answer; try again later", nil)
