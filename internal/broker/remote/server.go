package remote

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/internal/broker"
	"frontdesk.dev/frontdesk/internal/broker/booking"
	"frontdesk.dev/frontdesk/internal/broker/visits"
	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/connect"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/kit/web"
)

// Server is the broker's process as gateways reach it. All exported fields are required. Safe for concurrent use.
type Server struct {
	Acts
	Desk     *visits.Desk
	Asks     Asks
	Verifier *identity.Verifier
	Epochs   *identity.Epochs
	Keys     Keys
	Catalog  *catalog.Catalog
	Heard    http.Handler // what the IdP and the directory say
	URL      func(t identity.Tenant, path string) string
	Releases *Releases
	Version  string // of this program
	Log      *slog.Logger
	Now      func() time.Time

	rounds web.Rounds // whose access has ended
	table  table
}

// Acts are what is done, and what of it is on record.
type Acts struct {
	Door      broker.Door
	Processes Processes
	Calls     *booking.Book // the door's
	Intents   booking.Intents
}

// Asks are connect requests of callers (connect.Desk).
type Asks interface {
	Ask(ctx context.Context, c *identity.Caller, s *catalog.Server, tool, clientName string, missing []catalog.Missing) (connect.Request, error)
	State(ctx context.Context, t identity.Tenant, id connect.RequestID) (connect.State, error)
}

// Keys show what is public of them (keyring.Signer, and keyring.Authority as PEM), and certify a public key for a name of the config.
type Keys interface {
	JWKS(ctx context.Context, t identity.Tenant) ([]byte, error)
	PEM() []byte
	Certify(name string, public []byte) ([]byte, error)
}

// peer is a gateway's process, by the name that it gave itself and told nobody but brokers. Its certificate is none of it: that may be
// changed while the process runs.
type peer string

// Handler serves gateways. The listener in front of it demands pinned certificates (outbound.Pins.Listening).
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+root+opReady, s.as(s.ready))
	mux.HandleFunc("POST "+root+opOpen, s.as(s.open))
	mux.HandleFunc("POST "+root+opDo, s.as(s.carry))
	s.doors(mux)
	s.processes(mux)
	s.people(mux)
	mux.Handle(root+opHeard+"/", s.heard())
	return mux
}

// as serves one gateway's process, which has to say which one it is.
func (s *Server) as(h func(w http.ResponseWriter, r *http.Request, p peer)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		name := r.Header.Get(headerProcess)
		if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 || len(name) < 32 || len(name) > 128 {
			writeTrouble(w, fault.New(fault.Denied, "this is no gateway", nil))
			return
		}
		p := peer(name)
		s.table.heard(p, s.Now())
		h(w, r, p)
	}
}

// on serves an operation that is said in JSON.
func on[In, Out any](s *Server, mux *http.ServeMux, op string, f func(ctx context.Context, p peer, in In) (Out, error)) {
	mux.HandleFunc("POST "+root+op, s.as(func(w http.ResponseWriter, r *http.Request, p peer) {
		var in In
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxSaid)).Decode(&in); err != nil {
			writeTrouble(w, fault.New(fault.Invalid, "what the gateway said cannot be read", err))
			return
		}
		out, err := f(r.Context(), p, in)
		if err != nil {
			s.tell(op, err)
			writeTrouble(w, err)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(out) // the gateway went away if this fails
	}))
}

// tell is for the operator: of a fault inside nothing crosses the wire.
func (s *Server) tell(op string, err error) {
	if t := troubleOf(err); t.Kind == fault.Internal && len(t.Needed) == 0 {
		s.Log.Error("broker", "operation", op, "error", err)
	}
}

// presence is what a gateway's process says of itself, and standing what a broker's answers.
type (
	presence struct {
		Others bool `json:"others"` // it knows other brokers
	}
	standing struct {
		Version  string `json:"version"`
		Stopping bool   `json:"stopping,omitempty"`
	}
)

// doors are the operations of broker.Door and its leases that are said in JSON.
func (s *Server) doors(mux *http.ServeMux) {
	on(s, mux, opAlive, func(_ context.Context, p peer, in presence) (standing, error) {
		return standing{s.Version, s.table.present(p, in.Others)}, nil
	})
	on(s, mux, opVerify, func(ctx context.Context, _ peer, in presented) (*identity.Caller, error) {
		return s.Verifier.Verify(ctx, in.Tenant, in.Resource, in.Token)
	})
	on(s, mux, opHolder, func(ctx context.Context, _ peer, in caller) (holder, error) {
		h, err := s.Door.Holder(ctx, in.Tenant, in.Keycard)
		if err != nil {
			return holder{}, err
		}
		return holder{h.Ticket, h.Caller, h.Server.Name, h.Call}, nil
	})
	on(s, mux, opVisible, func(ctx context.Context, _ peer, in list) ([]bool, error) {
		c, srv, err := s.caller(ctx, in.Caller)
		if err != nil {
			return nil, err
		}
		return s.Door.Visible(ctx, c, srv, in.Method, in.Names)
	})
	on(s, mux, opState, func(_ context.Context, p peer, in closing) (booking.Report, error) {
		h, err := s.table.of(p, in.Lease)
		if err != nil {
			return booking.Report{}, err
		}
		return h.lease.State().Report, nil
	})
	on(s, mux, opTell, func(ctx context.Context, _ peer, in telling) (struct{}, error) {
		h, err := s.Door.Holder(ctx, in.Caller.Tenant, in.Caller.Keycard)
		if err == nil && len(in.Hint) <= maxHint {
			h.Tell(in.Hint)
		}
		return struct{}{}, err
	})
	on(s, mux, opClose, func(ctx context.Context, p peer, in closing) (struct{}, error) {
		h, err := s.table.of(p, in.Lease)
		if err != nil {
			return struct{}{}, err
		}
		s.close(ctx, h, broker.Outcome{Result: in.Result, Detail: in.Detail})
		return struct{}{}, nil
	})
}

// caller verifies who asks, at the endpoint of the server that he names.
func (s *Server) caller(ctx context.Context, in caller) (*identity.Caller, *catalog.Server, error) {
	c, err := s.Verifier.Verify(ctx, in.Tenant, s.URL(in.Tenant, "/mcp/"+string(in.Server)), in.Token)
	if err != nil {
		return nil, nil, err
	}
	srv := s.Catalog.Server(in.Tenant, in.Server)
	if srv == nil {
		return nil, nil, fault.New(fault.NotFound, "there is no such server; gateway and broker may have different configs", nil)
	}
	return c, srv, nil
}

// maxHint bounds a sentence for an agent.
const maxHint = 1024

// held is a lease that a gateway's process has.
type held struct {
	id    string
	peer  peer
	lease broker.Lease
	act   decided
	until time.Time // after which nobody can need it any more
	ctx   context.Context
	end   context.CancelFunc
	used  atomic.Bool // what stands on record was sent
	once  sync.Once
}

// table holds the open leases. The zero table is empty.
type table struct {
	mu     sync.Mutex
	leases map[string]*held       // guarded by mu, as is what follows
	calls  map[audit.CallID]*held // those of MCP sessions, by the session's own act
	seen   map[peer]time.Time     // when each process was last heard of
	roams  map[peer]bool          // those that know other brokers
	stops  bool                   // gateways are to go elsewhere
	full   bool                   // no call begins any more
}

// maxLeases bounds the table: a gateway bounds what its callers hold open, an intruder in one would not.
const maxLeases = 200_000

var errNoLease = fault.New(fault.NotFound, "there is no such lease of this gateway, or it has ended", nil)

func (t *table) heard(p peer, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.seen == nil {
		t.seen, t.leases, t.calls, t.roams = map[peer]time.Time{}, map[string]*held{}, map[audit.CallID]*held{}, map[peer]bool{}
	}
	t.seen[p] = now
}

// of is the process's own lease. Somebody else's is answered like one that never was.
func (t *table) of(p peer, id string) (*held, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	h := t.leases[id]
	if h == nil || h.peer != p {
		return nil, errNoLease
	}
	return h, nil
}

func (t *table) add(h *held) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.leases) >= maxLeases {
		return fault.Later("too much is open here; try again later", time.Second, nil)
	}
	t.leases[h.id] = h
	if h.act.Kind == broker.KindSession {
		t.calls[h.lease.State().Call] = h
	}
	return nil
}

func (t *table) drop(h *held) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.leases, h.id)
	if call := h.lease.State().Call; t.calls[call] == h {
		delete(t.calls, call)
	}
}

// session is the open session of an MCP session's id, if this process's table has it.
func (t *table) session(call audit.CallID) *held {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.calls[call]
}

// stale are leases that nobody will end: their process is gone, or their time is.
func (t *table) stale(now time.Time) []*held {
	t.mu.Lock()
	defer t.mu.Unlock()
	var l []*held
	for _, h := range t.leases {
		if now.Sub(t.seen[h.peer]) > goneAfter || now.After(h.until) {
			l = append(l, h)
		}
	}
	maps.DeleteFunc(t.seen, func(p peer, at time.Time) bool {
		if old := now.Sub(at) > time.Hour; old {
			delete(t.roams, p)
			return true
		}
		return false
	})
	return l
}

const (
	goneAfter = 30 * time.Second // without a word, a gateway's process is gone
	lookEvery = 5 * time.Second
	grace     = time.Minute // beyond the time that a call may take
)

// register makes a lease one of the process's.
func (s *Server) register(p peer, l broker.Lease, a decided, until time.Time) (*held, error) {
	h := &held{id: rand.Text(), peer: p, lease: l, act: a, until: until}
	h.ctx, h.end = context.WithCancel(context.Background())
	if err := s.table.add(h); err != nil {
		s.close(h.ctx, h, broker.Outcome{Result: audit.ResultFailed, Detail: fault.Message(err)})
		return nil, err
	}
	return h, nil
}

func (s *Server) close(ctx context.Context, h *held, o broker.Outcome) {
	s.table.drop(h)
	h.once.Do(func() {
		h.end()
		h.lease.Close(ctx, o)
	})
}

// Run ends what gateways that are gone have left open, until ctx ends; then everything.
func (s *Server) Run(ctx context.Context) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			s.table.mu.Lock()
			all := slices.Collect(maps.Values(s.table.leases))
			s.table.mu.Unlock()
			for _, h := range all {
				s.close(context.WithoutCancel(ctx), h, broker.Outcome{Result: audit.ResultUnknown, Detail: "Frontdesk was stopped"})
			}
			return nil
		case <-tick.C:
		}
		for _, h := range s.table.stale(s.Now()) {
			s.Log.Warn("a gateway's process has left an act open; its outcome is written as unknown", "kind", h.act.Kind, "server", h.act.Server.Name)
			s.close(ctx, h, broker.Outcome{Result: audit.ResultUnknown, Detail: "the gateway's process went away"})
		}
	}
}

// heard serves what gateways hand on.
func (s *Server) heard() http.Handler {
	return s.as(func(w http.ResponseWriter, r *http.Request, _ peer) {
		in := r.Clone(r.Context())
		in.RemoteAddr = r.Header.Get(headerFrom)
		for _, name := range []string{headerFrom, headerProcess} {
			in.Header.Del(name)
		}
		http.StripPrefix(root+opHeard, s.Heard).ServeHTTP(w, in)
	})
}

// copyAnswer passes on a short answer as it is.
func copyAnswer(w http.ResponseWriter, resp *http.Response) {
	maps.Copy(w.Header(), resp.Header)
	w.WriteHeader(resp.StatusCode)
	_, _ = io.Copy(w, io.LimitReader(resp.Body, maxSaid)) // whoever asked went away if this fails
}
