package hosted

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/kit/mcp"
)

// RoundTrip answers a request as a streamable HTTP server would (the revision is the client's).
func (h *Hosts) RoundTrip(a Ask) (*http.Response, error) {
	if a.Server.Program == nil {
		return nil, fault.New(fault.Internal, "", nil)
	}
	switch a.Request.Method {
	case http.MethodPost:
		return h.post(a)
	case http.MethodGet:
		return h.listen(a)
	case http.MethodDelete:
		return h.leave(a)
	}
	return answer(a.Request, http.StatusMethodNotAllowed, "", http.NoBody), nil
}

// dialect is what a client said at its beginning, by which it is spoken for.
type dialect struct {
	modern bool   // it speaks without a handshake
	params []byte // of initialize; for a modern client those that a legacy server is greeted with
}

// askedBack are the capabilities by which a server may ask its client something.
var askedBack = []string{"sampling", "elicitation", "roots"}

// backTalk reports whether a server may send this client requests.
func (d dialect) backTalk() bool {
	return !d.modern && slices.ContainsFunc(askedBack, func(c string) bool { return len(mcp.Lookup(d.params, "capabilities", c)) > 0 })
}

const (
	sessionPrefix = "h1."
	maxDialect    = 8 << 10 // of what initialize says; it travels in the session's id
)

// newSession names a session so that any replica, and any later process, knows how to speak for it: the id holds what the
// client said. It is no secret and opens nothing: whose process answers is decided by the caller alone.
func newSession(params []byte) (string, error) {
	random := make([]byte, 18)
	if _, err := rand.Read(random); err != nil {
		return "", err
	}
	e := base64.RawURLEncoding
	return sessionPrefix + e.EncodeToString(random) + "." + e.EncodeToString(params), nil
}

func readSession(id string) (dialect, bool) {
	rest, ok := strings.CutPrefix(id, sessionPrefix)
	random, coded, ok2 := strings.Cut(rest, ".")
	params, err := base64.RawURLEncoding.Strict().DecodeString(coded)
	if !ok || !ok2 || len(random) != 24 || err != nil || len(params) > maxDialect || len(params) < 2 {
		return dialect{}, false
	}
	// What is sent to a server was scanned before it came here; an id that somebody made up is scanned now.
	if _, err := mcp.Scan(initialize(params)); err != nil {
		return dialect{}, false
	}
	return dialect{params: params}, true
}

func keyOf(a Ask, d dialect, session string) key {
	k := key{owner: owner{a.Caller.Tenant, a.Caller.Principal(), a.Caller.Client, a.Server.Name}, dialect: sha256.Sum256(d.params)}
	if d.modern {
		k.dialect[0] ^= 1 // never the same as a legacy client's, whatever it says
	}
	if d.backTalk() {
		k.session = session
	}
	return k
}

func (h *Hosts) post(a Ask) (*http.Response, error) {
	r := a.Request
	body, err := io.ReadAll(io.LimitReader(r.Body, maxMessage+1))
	_ = r.Body.Close() // read to its end, or useless
	if err != nil || len(body) > maxMessage {
		return nil, fault.New(fault.Invalid, "the message is too large, or was broken off", err)
	}
	m, err := mcp.Scan(body)
	if err != nil {
		return reply(r, http.StatusBadRequest, mcp.ErrorMessage([]byte("null"), mcp.CodeParse, "not a message", nil)), nil
	}
	d, session := dialect{}, r.Header.Get(mcp.HeaderSession)
	switch {
	case m.Modern():
		d, session = dialect{modern: true, params: modernGreeting(&m)}, ""
	case m.Method == "initialize":
		if d.params = bytes.Clone(m.Of(m.Params)); len(d.params) > maxDialect || len(d.params) == 0 {
			return reply(r, http.StatusOK, mcp.ErrorMessage(m.IDBytes(), mcp.CodeParams, "initialize says nothing, or more than 8 KiB", nil)), nil
		}
		if session, err = newSession(d.params); err != nil {
			return nil, err
		}
	default:
		var ok bool
		if d, ok = readSession(session); !ok {
			return answer(r, http.StatusNotFound, "", http.NoBody), nil
		}
	}
	if m.Kind != mcp.Request {
		return h.tell(a, keyOf(a, d, session), session, &m)
	}
	return h.request(a, d, session, &m)
}

// request sends a message that wants an answer, to a process that is started if there is none.
func (h *Hosts) request(a Ask, d dialect, session string, m *mcp.Message) (*http.Response, error) {
	p, err := h.joined(a, keyOf(a, d, session), d)
	if err != nil {
		return nil, err
	}
	p.knows(session)
	if own := p.own(m); own != nil { // its handshake has said this already
		p.release()
		resp := reply(a.Request, http.StatusOK, own)
		if session != "" {
			resp.Header.Set(mcp.HeaderSession, session)
		}
		return resp, nil
	}
	c := p.open(m, session)
	if err := p.send(p.outgoing(m, c)); err != nil {
		p.abandon(c)
		return nil, err
	}
	return p.response(a.Request, c)
}

// joined is a process that the call is booked on. One whose act has ended meanwhile is replaced, once.
func (h *Hosts) joined(a Ask, k key, d dialect) (*process, error) {
	for again := false; ; again = true {
		p, err := h.acquire(a.Request.Context(), a, k, d)
		if err != nil {
			return nil, err
		}
		if err = a.Join(p.card.Act); err == nil {
			return p, nil
		}
		p.release()
		if again || p.card.Valid() {
			return nil, err
		}
	}
}

// response is the answer where it comes alone, else a stream that begins with what came first.
func (p *process) response(r *http.Request, c *call) (*http.Response, error) {
	first, err := c.queue.next(r.Context())
	if err != nil {
		p.abandon(c)
		return nil, fault.New(fault.Unavailable, p.server.Title+" did not answer in time", err)
	}
	if c.queue.done() {
		p.abandon(c)
		status := http.StatusOK
		if c.modern {
			status = mcp.Status(true, code(first))
		}
		return reply(r, status, first), nil
	}
	return answer(r, http.StatusOK, "text/event-stream", &stream{ctx: r.Context(), queue: c.queue, rest: mcp.EventOf(first), done: func() { p.abandon(c) }}), nil
}

func reply(r *http.Request, status int, msg []byte) *http.Response {
	resp := answer(r, status, "application/json", io.NopCloser(bytes.NewReader(msg)))
	resp.ContentLength = int64(len(msg))
	return resp
}

// tell passes on what wants no answer. It starts no process: there would be nobody who knows what it is about.
func (h *Hosts) tell(a Ask, k key, session string, m *mcp.Message) (*http.Response, error) {
	h.mu.Lock()
	p := h.procs[k]
	h.mu.Unlock()
	if p != nil && p.isReady() && !p.over.Load() && m.Method != "notifications/initialized" { // we have said that ourselves
		if msg := p.translate(m, session); msg != nil {
			if err := p.send(msg); err != nil {
				return nil, err
			}
		}
	}
	return answer(a.Request, http.StatusAccepted, "", http.NoBody), nil
}

// listen is the standalone stream of a session: what its server says to no call.
func (h *Hosts) listen(a Ask) (*http.Response, error) {
	id := a.Request.Header.Get(mcp.HeaderSession)
	if _, ok := readSession(id); !ok {
		return answer(a.Request, http.StatusNotFound, "", http.NoBody), nil
	}
	o := h.outbox(a.Caller.Principal() + " " + id)
	ctx, cancel := context.WithCancel(a.Request.Context())
	o.attach(cancel)
	return answer(a.Request, http.StatusOK, "text/event-stream", &stream{ctx: ctx, queue: o.queue, done: func() { cancel(); o.detach(h.Now()) }}), nil
}

// leave ends a session, and the process that was for it alone.
func (h *Hosts) leave(a Ask) (*http.Response, error) {
	id := a.Request.Header.Get(mcp.HeaderSession)
	d, ok := readSession(id)
	if !ok {
		return answer(a.Request, http.StatusNotFound, "", http.NoBody), nil
	}
	k := keyOf(a, d, id)
	h.mu.Lock()
	if p := h.procs[k]; p != nil && k.session != "" {
		h.retire(p, "its session ended")
	}
	delete(h.streams, a.Caller.Principal()+" "+id)
	h.mu.Unlock()
	return answer(a.Request, http.StatusNoContent, "", http.NoBody), nil
}

// outbox is what waits for a session's stream. It outlives processes.
type outbox struct {
	queue *queue

	mu      sync.Mutex
	cancel  context.CancelFunc // of the newest stream that reads; nil before the first
	streams int
	seen    time.Time // when the last one ended
}

const (
	outboxBytes = 1 << 20
	outboxLife  = time.Hour // without a stream
)

func (h *Hosts) outbox(name string) *outbox {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.streams == nil {
		h.streams = map[string]*outbox{}
	}
	o := h.streams[name]
	if o == nil {
		o = &outbox{queue: newQueue(outboxBytes), seen: h.Now()}
		h.streams[name] = o
	}
	return o
}

// attach makes a stream the one that reads; one before it ends.
func (o *outbox) attach(cancel context.CancelFunc) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.cancel != nil {
		o.cancel()
	}
	o.cancel = cancel
	o.streams++
}

func (o *outbox) detach(now time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.streams--
	o.seen = now
}

func (o *outbox) forgotten(now time.Time) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.streams == 0 && now.Sub(o.seen) > outboxLife
}
