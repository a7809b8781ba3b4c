// Package policy answers: may they?
//
// It is pure: no I/O, no clock; the same request against the same policies gives the same decision. The answer is no
// unless a policy says yes, and any error in any policy that was looked at is a no: Cedar itself skips a forbid that
// errs, so an Allow counts only without errors. It explains itself: every decision names the policies that made it.
package policy

import (
	"time"

	"frontdesk.dev/frontdesk/internal/identity"
)

// Action is what kind of act is asked about; Cedar's action id.
type Action string

const (
	ActionCall Action = "call" // tools/call, and every other MCP method that names a thing or runs something
	ActionList Action = "list" // to see the server at all: initialize, lists, ping, notifications
	ActionAPI  Action = "api"  // an API request through egress
)

// Request is one question.
type Request struct {
	Caller    *identity.Caller
	Action    Action
	Server    string
	Tool      string            // ActionCall: the tool, prompt or resource; ActionAPI: the operation, as "github/issues.create", "" for none
	Method    string            // MCP method, or HTTP method for ActionAPI
	Upstream  string            // ActionAPI
	Host      string            // ActionAPI: lower case, with the port where it is not the default
	Path      string            // ActionAPI: as it will be sent, after normalisation
	Arguments map[string][]byte // raw JSON of those arguments that Arguments() names; absent ones are left out
	InSession bool              // ActionAPI: booked on the session because no single call was open
	Content   *Content          // ActionAPI: what Wants asked for; nil where it asked for nothing, or nobody could look
	Observe   bool              // a no is said and not done, for whoever the server is open to (Reaches)
	Now       time.Time
}

// Decision is the answer. The zero Decision is no.
type Decision struct {
	Allow     bool
	Policies  []string // ids of the policies that decided: those that permit, or those that forbid
	Errors    []string // policies that erred, with what they said; any makes the answer no
	Reason    string   // for the caller: a sentence, of the forbid's @reason where it has one
	Masks     []string // of a yes: JSON pointers to what may not be seen in the answer (@mask of the permits that decided)
	WouldDeny bool     // it is a no that is only said (Request.Observe); Allow is set
}

// Word is the decision as the log spells it.
func (d Decision) Word() string {
	switch {
	case d.WouldDeny:
		return "would_deny"
	case d.Allow:
		return "allow"
	}
	return "deny"
}

// Source is one policy file.
type Source struct {
	Name string // file name for messages and ids
	Text []byte
}

// Input is all that a tenant's set is made of.
type Input struct {
	Sources    []Source
	Allows     []Allow
	ReadOnly   []ReadOnly
	Operations map[string]map[string]bool // upstream -> the operations that its description names, whole ("github/issues.create"); absent: there is none
}

// ReadOnly is a server whose API requests may change nothing.
type ReadOnly struct {
	Server string
	From   string // where it stands in the config
}

// Allow is one entry of a server's `allow` list, compiled to Cedar beside the operator's files.
type Allow struct {
	Server string
	Who    string // group:NAME, user:EMAIL-or-id, service:SUBJECT, client:ID, everyone
	From   string // where it stands in the config, for ids: servers.issues.allow[0]
}
