// Package hosted answers: which process serves this caller, at a server that we run ourselves?
//
// Most MCP servers are programs that take one token from their environment and speak on their standard input and output.
// Here each caller gets a process of his own, in a sandbox (package sandbox), with a keycard where the token would be and
// egress as its only way out. The program is one of this machine, or of an image (package image). Upward a hosted server looks like any other: it answers HTTP requests, with JSON or a stream
// of events, and has sessions. Downward it is a pipe, with one message a line.
//
// One process serves one user, through one client, at one server, because a grant is given for just that; it is never
// shared between users. Sessions share a process where nothing can go to the wrong one: where a client declares that it can
// be asked back (sampling, elicitation, roots), each session has a process of its own.
//
// It trusts a program with nothing: what it prints is read as foreign bytes, and the keycard is taken out of all of it. It
// decides nothing and opens no act; whoever sends a message brings the means to (Ask.Open).
package hosted

import (
	"context"
	"crypto/sha256"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/hosted/image"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/secret"
)

// Ask is one HTTP-shaped request to a hosted server.
type Ask struct {
	Caller  *identity.Caller
	Server  *catalog.Server
	Request *http.Request
	// Open opens the act under which a new process runs. It is called where none runs that can serve.
	Open func(ctx context.Context) (*Card, error)
	// Join is told which process serves, before the message is sent to it. Where it fails and the process's card is not valid any
	// more, another process takes its place.
	Join func(process audit.CallID) error
}

// Card is what a process runs on: its own act, and the keycard for as long as that is open.
type Card struct {
	Act     audit.CallID
	Keycard secret.Text
	Expires time.Time
	Valid   func() bool // false once the user's access, or the act, has ended
	Close   func(r audit.Result, detail string)
}

// Hosts runs the hosted servers of one replica. Exported fields are required, but for CA. Safe for concurrent use.
type Hosts struct {
	Catalog *catalog.Catalog
	// Serve lets egress answer on a process's own listener, to the keycard of that act. It returns when the listener is closed.
	Serve func(l net.Listener, act audit.CallID)
	// ServeDirect is the same, for the listener to which the names of its API's hosts lead: programs come there that ask no proxy.
	ServeDirect func(l net.Listener, act audit.CallID)
	// CA is the PEM of the authority that opens HTTPS at egress; nil or empty where there is none, and then a server finds
	// its API by a base URL alone.
	CA func() []byte
	// Images has what servers with an image run in. It is needed only where there is one.
	Images Images
	Bounds
	Log *slog.Logger
	Now func() time.Time

	mu       sync.Mutex
	procs    map[key]*process // guarded by mu, as is what follows
	streams  map[string]*outbox
	failures map[owner]*failure
	logs     map[owner]*ring
	uids     map[int]bool
	closed   bool
}

// Bounds are how many processes there may be, and how slow.
type Bounds struct {
	Max int // in all
	Per int // of one user
	// Patience is how long a server may take from its start to the answer to its handshake; 0 = 30 s.
	Patience time.Duration
}

// Images keeps images on this disk (image.Store).
type Images interface {
	// Open returns an image, fetched if it is not there; it waits for that until ctx ends. Whoever opened it closes it. Errors
	// are fault.Unavailable, with a sentence for callers, and a cause for the operator.
	Open(ctx context.Context, reference string) (*image.Image, error)
	// States says of each image of the config how far it is, by its reference.
	States() map[string]image.State
	// Refresh looks anew where a reference leads, and waits until that is here, or ctx ends.
	Refresh(ctx context.Context, reference string) (image.State, error)
}

// owner is whose processes are alike.
type owner struct {
	tenant    identity.Tenant
	principal string
	client    identity.ClientID
	server    catalog.ServerName
}

// key is what a process serves.
type key struct {
	owner
	dialect [sha256.Size]byte // of what the client said at its beginning: a server is told the truth
	session string            // where it can be asked back
}

// failure counts ends that nobody wanted.
type failure struct {
	times int
	until time.Time // no new process before
	why   string
}

const (
	patience   = 30 * time.Second
	tick       = time.Second     // how often processes are looked at
	stopLimit  = 2 * time.Second // for a process whose input has ended
	firstWait  = time.Second     // after the first failure in a row; doubled for each further one
	longest    = time.Minute
	settled    = 30 * time.Second // who runs that long has not failed to start
	firstUID   = 70_000
	lastUID    = 79_999
	maxLogs    = 1_000 // owners whose last lines are kept
	maxMessage = 16 << 20
	openFiles  = 1024
)

// State is one process, as operators see it.
type State struct {
	Tenant  identity.Tenant    `json:"tenant"`
	Server  catalog.ServerName `json:"server"`
	User    string             `json:"user"`
	Client  identity.ClientID  `json:"client"`
	Pid     int                `json:"pid"`
	Act     audit.CallID       `json:"act"`
	Started time.Time          `json:"started"`
	Took    time.Duration      `json:"took"` // from there to the answer to its handshake
	Used    time.Time          `json:"used"`
	Calls   int                `json:"calls"` // open now
	Missing map[string]string  `json:"missing,omitempty"`
	Image   string             `json:"image,omitempty"` // the digest of the one that it runs in
	// Failing says why none runs, where the last one did not start or ended by itself. It is tried again at the first call after Until.
	Failing string    `json:"failing,omitempty"`
	Until   time.Time `json:"until,omitzero"`
}

// ImageState is the image of a server, as operators see it.
type ImageState struct {
	Server catalog.ServerName `json:"server"`
	image.State
}

// Log is what one user's processes of a server printed last.
type Log struct {
	User    string            `json:"user"`
	Client  identity.ClientID `json:"client"`
	Failing string            `json:"failing,omitempty"` // why it is not started again yet
	Lines   []string          `json:"lines"`
}
