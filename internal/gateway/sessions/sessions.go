// Package sessions answers: which legacy session does a message belong to?
//
// What is kept of one is a row, so that any replica serves its next message; for half a minute a copy of that in memory; and, where
// its server holds a keycard for the whole of it, its own act, open in this process. It trusts its caller to have verified who is
// asking. Ids are kept as digests: who reads the rows, or this memory, can take no session over.
package sessions

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"log/slog"
	"sync"
	"time"

	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
)

// Session is a legacy MCP session of one client of one user at one server. Any replica can serve its next message.
type Session struct {
	Tenant    identity.Tenant
	ID        []byte // SHA-256 of the Mcp-Session-Id that the client holds
	Principal string // identity.Caller.Principal of its owner
	Client    identity.ClientID
	Server    catalog.ServerName
	Version   string       // negotiated
	URLAsk    bool         // the client declared elicitation.url
	Declares  []string     // what else servers may ask of it (mcp.Message.Declared)
	Upstream  []byte       // the server's own session id, sealed with the faces' keys; empty where the server has none
	Act       audit.CallID // the session's own act
	Created   time.Time
	Seen      time.Time // to the minute
}

// Store keeps the rows.
type Store interface {
	// PutSession adds a new one. Where its principal, or its principal's client, has more than most then, those that were unused for
	// longest are dropped, and returned.
	PutSession(ctx context.Context, s Session, most Most) ([]Session, error)
	// Session also moves Seen, if at is more than a minute later.
	Session(ctx context.Context, t identity.Tenant, id []byte, at time.Time) (Session, error)
	DropSession(ctx context.Context, t identity.Tenant, id []byte) error
	// IdleSessions returns and removes those not seen since, at most limit.
	IdleSessions(ctx context.Context, since time.Time, limit int) ([]Session, error)
}

// Most is how many are kept of one client of a principal, and of the principal.
type Most struct{ Client, Principal int }

// Keys are the faces' own (web.Keys).
type Keys interface {
	Seal(purpose string, aad, plain []byte) string
	Open(purpose string, aad []byte, sealed string) ([]byte, error)
}

// Sessions are those of every tenant. All exported fields are required. Safe for concurrent use.
type Sessions struct {
	Store Store
	Keys  Keys
	Log   *slog.Logger
	Now   func() time.Time

	mu    sync.Mutex
	cache map[place]cached // guarded by mu, as is what follows
	held  map[owner]map[audit.CallID]held
}

type place struct {
	tenant identity.Tenant
	id     [sha256.Size]byte
}

type cached struct {
	Session
	until time.Time
}

type owner struct {
	tenant    identity.Tenant
	principal string
}

// held is a session whose own act is open, because its server holds a keycard for the whole of it.
type held struct {
	session Session
	end     func(context.Context)
}

const (
	cacheLife = 30 * time.Second
	maxCached = 50_000
	// maxHeld bounds such sessions of one caller: clients that are started anew each day never end the old ones.
	maxHeld = 100
	// idle is long: many clients never recover from a session that is gone.
	idle      = 7 * 24 * time.Hour
	maxIdle   = 1000 // dropped at once
	upstreams = "gateway/upstream-session"
)

// most bounds what one caller can have us keep, since clients that are started anew each day never end their old sessions, and hostile
// ones begin as many as they can. Of one client alone they are fewer, so that it cannot push out those of its person's others. What goes is
// what was unused for longest: whoever comes back to that is told to initialize again, as after seven days.
var most = Most{Client: 1000, Principal: 5000}

// Begin keeps a new session, and makes the id that its client will hold. Of s it sets the id, the server's own (upstream; "" where
// it has none), and the times.
func (s *Sessions) Begin(ctx context.Context, n Session, upstream string) (id string, begun Session, err error) {
	random := make([]byte, 24)
	if _, err := rand.Read(random); err != nil {
		return "", Session{}, err
	}
	id = base64.RawURLEncoding.EncodeToString(random)
	at := placeOf(n.Tenant, id)
	n.ID, n.Created = at.id[:], s.Now()
	n.Seen = n.Created
	if upstream != "" {
		n.Upstream = []byte(s.Keys.Seal(upstreams, n.ID, []byte(upstream)))
	}
	dropped, err := s.Store.PutSession(ctx, n, most)
	if err != nil {
		return "", Session{}, err
	}
	for _, d := range dropped {
		s.release(context.WithoutCancel(ctx), &d)
	}
	s.keep(at, n)
	return id, n, nil
}

// Find is the session of that id of this caller at this server. Somebody else's is fault.NotFound, like one that is gone.
func (s *Sessions) Find(ctx context.Context, c *identity.Caller, at catalog.ServerName, id string) (Session, error) {
	f, err := s.load(ctx, placeOf(c.Tenant, id))
	if err == nil && (f.Principal != c.Principal() || f.Client != c.Client || f.Server != at) {
		return Session{}, fault.New(fault.NotFound, "there is no such session", nil)
	}
	return f, err
}

func (s *Sessions) load(ctx context.Context, at place) (Session, error) {
	now := s.Now()
	s.mu.Lock()
	k, ok := s.cache[at]
	s.mu.Unlock()
	if ok && now.Before(k.until) {
		return k.Session, nil
	}
	f, err := s.Store.Session(ctx, at.tenant, at.id[:], now)
	if err != nil {
		return f, err
	}
	s.keep(at, f)
	return f, nil
}

func (s *Sessions) keep(at place, f Session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cache == nil || len(s.cache) >= maxCached {
		s.cache = map[place]cached{}
	}
	s.cache[at] = cached{f, s.Now().Add(cacheLife)}
}

// Upstream is the server's own session id, "" where it has none. The client never sees it.
func (s *Sessions) Upstream(f *Session) string {
	if len(f.Upstream) == 0 {
		return ""
	}
	plain, err := s.Keys.Open(upstreams, f.ID, string(f.Upstream))
	if err != nil {
		return ""
	}
	return string(plain)
}

// Hold keeps the session's own act open for as long as its ticket must work: end is called once, when that is over. Where its caller
// has too many, the oldest one is forgotten: who still uses that is told to initialize again.
func (s *Sessions) Hold(ctx context.Context, f *Session, end func(context.Context)) {
	of := owner{f.Tenant, f.Principal}
	s.mu.Lock()
	if s.held == nil {
		s.held = map[owner]map[audit.CallID]held{}
	}
	if s.held[of] == nil {
		s.held[of] = map[audit.CallID]held{}
	}
	var old held
	if len(s.held[of]) >= maxHeld {
		old = oldest(s.held[of])
		delete(s.held[of], old.session.Act)
	}
	s.held[of][f.Act] = held{*f, end}
	s.mu.Unlock()
	if old.end != nil {
		ctx = context.WithoutCancel(ctx)
		s.drop(ctx, &old.session)
		old.end(ctx)
	}
}

func oldest(l map[audit.CallID]held) (old held) {
	for _, h := range l {
		if old.end == nil || h.session.Created.Before(old.session.Created) {
			old = h
		}
	}
	return old
}

// Forget drops a session that has ended, and ends its act where that is open here.
func (s *Sessions) Forget(ctx context.Context, f *Session) {
	s.drop(ctx, f)
	s.release(ctx, f)
}

func (s *Sessions) drop(ctx context.Context, f *Session) {
	s.mu.Lock()
	delete(s.cache, place{f.Tenant, [sha256.Size]byte(f.ID)})
	s.mu.Unlock()
	if err := s.Store.DropSession(ctx, f.Tenant, f.ID); err != nil {
		s.Log.Warn("a session could not be dropped", "error", err)
	}
}

func (s *Sessions) release(ctx context.Context, f *Session) {
	of := owner{f.Tenant, f.Principal}
	s.mu.Lock()
	h, ok := s.held[of][f.Act]
	delete(s.held[of], f.Act)
	if len(s.held[of]) == 0 {
		delete(s.held, of)
	}
	s.mu.Unlock()
	if ok {
		h.end(ctx)
	}
}

// DropIdle drops sessions that nobody uses any more, and ends the acts here of those that were dropped through another replica.
func (s *Sessions) DropIdle(ctx context.Context) error {
	l, err := s.Store.IdleSessions(ctx, s.Now().Add(-idle), maxIdle)
	if err != nil {
		return err
	}
	var open []Session
	s.mu.Lock()
	for _, of := range s.held {
		for _, h := range of {
			open = append(open, h.session)
		}
	}
	s.mu.Unlock()
	for _, f := range open {
		if _, err := s.Store.Session(ctx, f.Tenant, f.ID, time.Time{}); fault.KindOf(err) == fault.NotFound {
			l = append(l, f)
		}
	}
	for _, f := range l {
		s.release(ctx, &f)
	}
	return nil
}

// Drain ends the acts that are open here. The sessions stay: another process tells their clients to begin anew.
func (s *Sessions) Drain() {
	s.mu.Lock()
	all := s.held
	s.held = nil
	s.mu.Unlock()
	for _, l := range all {
		for _, h := range l {
			h.end(context.Background())
		}
	}
}

func placeOf(t identity.Tenant, id string) place { return place{t, sha256.Sum256([]byte(id))} }
