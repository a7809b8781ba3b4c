package remote

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"time"

	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/internal/broker"
	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/exchange"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/kit/mcp"
	"frontdesk.dev/frontdesk/internal/policy"
	"frontdesk.dev/frontdesk/internal/policy/content"
)

// decided is an act, with what was said of it when it was decided: it is looked for again in what leaves.
type decided struct {
	broker.Act
	caller    *identity.Caller
	arguments map[string][]byte // by the names that policy reads; nil: it read none
	read      []string
	wants     policy.Wants
	content   *policy.Content // nil: nothing was wanted
	target    *url.URL        // of an API request
	reads     bool
}

// conversation is the broker's half of one.
type conversation struct {
	in  *json.Decoder
	out *json.Encoder
	to  *http.ResponseController
}

func (c conversation) say(q question) error {
	if err := c.out.Encode(q); err != nil {
		return err
	}
	return c.to.Flush()
}

func (c conversation) ask(q question) (reply, error) {
	var r reply
	if err := c.say(q); err != nil {
		return r, err
	}
	if err := c.in.Decode(&r); err != nil {
		return r, errBroken
	}
	if r.Trouble != nil {
		return r, r.Trouble.err()
	}
	return r, nil
}

// begin reads the first line, and starts the answer.
func (s *Server) begin(w http.ResponseWriter, r *http.Request) (beginning, conversation, bool) {
	t := conversation{json.NewDecoder(io.LimitReader(r.Body, maxSaid)), json.NewEncoder(w), http.NewResponseController(w)}
	var b beginning
	if err := t.in.Decode(&b); err != nil {
		writeTrouble(w, fault.New(fault.Invalid, "what the gateway said cannot be read", err))
		return b, t, false
	}
	w.Header().Set("Content-Type", "application/json")
	return b, t, true
}

func (s *Server) ready(w http.ResponseWriter, r *http.Request, p peer) {
	b, t, ok := s.begin(w, r)
	if !ok {
		return
	}
	q := question{}
	a, err := s.act(r.Context(), p, b, t)
	if err == nil {
		var answer broker.Answer
		answer, err = s.Door.Ready(r.Context(), a.caller, a.Act)
		q.Decision, q.Missing = &answer.Decision, answer.Missing
	}
	if err != nil {
		s.tell(opReady, err)
		q = question{Trouble: troubleOf(err)}
	}
	_ = t.say(q) // the gateway went away if this fails
}

func (s *Server) open(w http.ResponseWriter, r *http.Request, p peer) {
	b, t, ok := s.begin(w, r)
	if !ok {
		return
	}
	h, err := s.opened(r.Context(), p, b, t)
	if err != nil {
		s.tell(opOpen, err)
		_ = t.say(question{Trouble: troubleOf(err)}) // the gateway went away if this fails
		return
	}
	if err := t.say(question{Lease: h.id, Call: h.lease.State().Call}); err != nil {
		s.close(context.WithoutCancel(r.Context()), h, broker.Outcome{Result: audit.ResultUnknown, Detail: "the gateway's process went away"})
	}
}

func (s *Server) opened(ctx context.Context, p peer, b beginning, t conversation) (*held, error) {
	if !s.table.begins(b.Act.Kind) {
		return nil, errStopping
	}
	a, err := s.act(ctx, p, b, t)
	if err != nil {
		return nil, err
	}
	if a.Kind == broker.KindAPI || a.Server.Deliver == catalog.DeliverHeader {
		if err := s.release(ctx, a); err != nil {
			return nil, err
		}
	}
	l, err := s.Door.Open(ctx, a.caller, a.Act)
	if err != nil {
		return nil, err
	}
	return s.register(p, l, *a, s.until(a))
}

// until is when nobody can need a lease any more.
func (s *Server) until(a *decided) time.Time {
	switch {
	case a.Kind == broker.KindAPI:
		return a.Holding.Ticket.Expires.Add(grace)
	case a.Kind == broker.KindStream:
		return a.caller.Expires.Add(grace)
	case a.Kind == broker.KindSession && a.Server.Placeholder == identity.TicketSession:
		return s.Now().Add(exchange.SessionLife)
	}
	return s.Now().Add(a.Server.CallLimit + grace)
}

var errAct = fault.New(fault.Denied, "this is no act that a gateway begins", nil)

// act makes of what the gateway said the act that it is, for the caller that he proves to be.
func (s *Server) act(ctx context.Context, p peer, b beginning, t conversation) (*decided, error) {
	if b.Act.Kind == broker.KindAPI {
		return s.apiAct(ctx, b, t)
	}
	c, srv, err := s.caller(ctx, b.Caller)
	if err != nil {
		return nil, err
	}
	a := &decided{Act: broker.Act{Kind: b.Act.Kind, Server: srv, Method: b.Act.Method}, caller: c}
	switch a.Kind {
	case broker.KindCall:
		a.Name = b.Act.Name
		a.Arguments = func(names []string) (map[string][]byte, error) {
			said, err := t.ask(question{Arguments: names})
			a.read, a.arguments = names, said.Arguments
			return said.Arguments, err
		}
	case broker.KindSession, broker.KindStream, broker.KindCatalogue:
		if !quiet(a.Method) && a.Method != methodStream {
			return nil, errAct
		}
	default:
		return nil, errAct
	}
	if b.Act.Session != "" {
		if err := s.ownSession(ctx, c, srv, b.Act.Session); err != nil {
			return nil, err
		}
		a.Session = b.Act.Session
	}
	return a, nil
}

// Methods of acts that no message has, or that stand for a session.
const (
	methodInitialize = "initialize"
	methodStream     = "stream" // a GET
)

// quiet reports whether a method may pass without a decision about what it names: it lists, it begins a session, or it is about a
// task, whose call was decided when it began.
func quiet(method string) bool {
	return !mcp.Acts(method) || method == methodInitialize || strings.HasPrefix(method, "tasks/")
}

// ownSession makes sure that a call is booked on a session of its own caller: the keycard of a session stands for whoever began it.
func (s *Server) ownSession(ctx context.Context, c *identity.Caller, srv *catalog.Server, session audit.CallID) error {
	errForeign := fault.New(fault.Denied, "this is no open session of this caller", nil)
	if h := s.table.session(session); h != nil {
		if h.act.caller.Principal() == c.Principal() && h.act.caller.Client == c.Client && h.act.Server.Name == srv.Name && h.act.caller.Tenant == c.Tenant {
			return nil
		}
		return errForeign
	}
	r, err := s.Intents.Unfinished(ctx, session)
	if fault.KindOf(err) == fault.NotFound {
		return fault.New(fault.Conflict, "this session has ended; begin a new one", nil)
	}
	if err != nil {
		return err
	}
	if r.Tenant != c.Tenant || r.User != c.User || r.Service != c.Service || r.Client != c.Client || r.Server != string(srv.Name) || r.Action != string(broker.KindSession) {
		return errForeign
	}
	return nil
}

// apiAct is an API request. Who asks is who holds the keycard; where it goes, and which operation it is, is read here.
func (s *Server) apiAct(ctx context.Context, b beginning, t conversation) (*decided, error) {
	h, err := s.Door.Holder(ctx, b.Caller.Tenant, b.Caller.Keycard)
	if err != nil {
		return nil, err
	}
	up := s.Catalog.Upstream(h.Ticket.Tenant, b.Act.Upstream)
	if up == nil {
		return nil, fault.New(fault.Denied, "there is no such upstream for this server", nil)
	}
	target, err := up.Target(b.Act.Host, b.Act.Path)
	if err != nil {
		return nil, err
	}
	if b.Act.Method == "" || strings.ContainsFunc(b.Act.Method, func(r rune) bool { return r < 'A' || r > 'Z' }) {
		return nil, errAct
	}
	a := &decided{caller: h.Caller, target: target}
	a.Act = broker.Act{Kind: broker.KindAPI, Server: h.Server, Method: b.Act.Method, Upstream: up, Host: target.Host, Path: target.EscapedPath(), Holding: h, Swap: b.Act.Swap}
	a.Name, a.reads = up.Operation(a.Method, target)
	if h.Ticket.Kind != identity.TicketCall {
		a.Session = audit.CallID(h.Ticket.Txn)
	}
	a.Content = func(w policy.Wants) *policy.Content {
		said, err := t.ask(question{Content: &w})
		if err != nil {
			return nil // what policy would read is not there, and it errs
		}
		a.wants, a.content = w, said.Content
		return said.Content
	}
	return a, nil
}

// errOther ends a request that is not the one that was decided.
var errOther = fault.New(fault.Denied, "the gateway sends something else than was decided", nil)

// maxMessage bounds an MCP message: those of clients, with what the gateway puts in.
const maxMessage = 8 << 20

// outgoing is the request that a lease is asked to send, made of what was decided; of the rest it takes what a gateway may say. acts: it
// is what stands on record for this lease, and not something beside it.
func (a *decided) outgoing(ctx context.Context, h requestHead, body io.ReadCloser, trailer http.Header) (r *http.Request, acts bool, err error) {
	u, err := url.Parse(h.URL)
	if err != nil {
		return nil, false, errOther
	}
	r = (&http.Request{Method: h.Method, Header: h.Header, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Body: body, ContentLength: h.Length, Trailer: trailer}).WithContext(ctx)
	if r.Header == nil {
		r.Header = http.Header{}
	}
	if len(h.Trailer) == 0 {
		r.Trailer = nil
	}
	if h.Length == 0 {
		r.Body = http.NoBody
	}
	if a.Kind == broker.KindAPI {
		return r, true, a.request(r, u)
	}
	r.URL, r.Host, r.Trailer = a.Server.URL, a.Server.URL.Host, nil
	acts, err = a.message(r)
	return r, acts, err
}

// request checks an API request against what was decided, and what policy read of it against what is there.
func (a *decided) request(r *http.Request, u *url.URL) error {
	if r.Method != a.Method || u.Scheme != a.target.Scheme || u.Host != a.target.Host || u.EscapedPath() != a.Path || u.User != nil || u.Fragment != "" {
		return errOther
	}
	r.URL, r.Host = u, u.Host
	if a.content == nil {
		return nil
	}
	if again := content.Of(r, u, a.Upstream, a.reads)(a.wants); !reflect.DeepEqual(again, a.content) {
		return errOther
	}
	return nil
}

// message checks an MCP message against the act: a request is the one that was decided, to its name and the arguments that policy read.
// acts: it is a request.
func (a *decided) message(r *http.Request) (acts bool, err error) {
	switch r.Method {
	case http.MethodGet, http.MethodDelete:
		r.Body, r.ContentLength = http.NoBody, 0
		if r.Method == http.MethodGet && a.Kind != broker.KindStream {
			return false, errOther
		}
		return false, nil
	case http.MethodPost:
	default:
		return false, errOther
	}
	b, err := io.ReadAll(io.LimitReader(r.Body, maxMessage+1))
	if err != nil {
		return false, err
	}
	m, err := mcp.Scan(b)
	if err != nil || len(b) > maxMessage {
		return false, errOther
	}
	r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(b)), int64(len(b))
	r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil }
	if m.Kind != mcp.Request {
		return false, nil // an answer, or a notice: neither does anything at a server that did not ask
	}
	if m.Method != a.Method || a.Kind == broker.KindCall && m.Target != a.Name || a.Kind != broker.KindCall && !quiet(m.Method) {
		return true, errOther
	}
	if m.Modern() { // what stands in headers as well is taken from the message
		r.Header[http.CanonicalHeaderKey(mcp.HeaderVersion)] = []string{m.Version}
		r.Header[http.CanonicalHeaderKey(mcp.HeaderMethod)] = []string{m.Method}
		r.Header.Del(mcp.HeaderName)
		if m.Target != "" && m.Method != "completion/complete" {
			r.Header.Set(mcp.HeaderName, mcp.EncodeHeader(m.Target))
		}
	}
	if len(a.read) == 0 {
		return true, nil
	}
	again, err := m.ArgumentValues(a.read)
	if err != nil || !equal(again, a.arguments) {
		return true, errors.Join(errOther, err)
	}
	return true, nil
}

func equal(a, b map[string][]byte) bool {
	if len(a) != len(b) {
		return false
	}
	for name, v := range a {
		if w, ok := b[name]; !ok || !slices.Equal(v, w) {
			return false
		}
	}
	return true
}
