package remote

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"

	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/internal/broker"
	"frontdesk.dev/frontdesk/internal/broker/booking"
	"frontdesk.dev/frontdesk/internal/broker/remote/frame"
	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/exchange"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/kit/secret"
	"frontdesk.dev/frontdesk/internal/policy"
)

// caller proves who is asking: his token, at the endpoint of a server. At egress it is the keycard.
type caller struct {
	Tenant  identity.Tenant    `json:"tenant"`
	Server  catalog.ServerName `json:"server,omitempty"`
	Token   string             `json:"token,omitempty"`
	Keycard string             `json:"keycard,omitempty"`
}

// act is a broker.Act on the wire. What is asked for only sometimes is asked for within the conversation.
type act struct {
	Kind     broker.Kind          `json:"kind"`
	Method   string               `json:"method"`
	Name     string               `json:"name"`
	Session  audit.CallID         `json:"session,omitempty"`
	Upstream catalog.UpstreamName `json:"upstream,omitempty"`
	Host     string               `json:"host,omitempty"`
	Path     string               `json:"path,omitempty"`
	Swap     *exchange.Swap       `json:"swap,omitempty"`
}

// The lines of the conversation in which an act is decided: the gateway begins, the broker's side may ask back, and ends.
type (
	beginning struct {
		Caller caller `json:"caller"`
		Act    act    `json:"act"`
	}
	question struct {
		Arguments []string      `json:"arguments,omitempty"` // policy reads these
		Content   *policy.Wants `json:"content,omitempty"`   // and this of an API request

		Lease    string            `json:"lease,omitempty"` // or it ends, with one of these
		Call     audit.CallID      `json:"call,omitempty"`
		Decision *policy.Decision  `json:"decision,omitempty"`
		Missing  []catalog.Missing `json:"missing,omitempty"`
		Trouble  *trouble          `json:"trouble,omitempty"`
	}
	reply struct {
		Arguments map[string][]byte `json:"arguments"`
		Content   *policy.Content   `json:"content"`
		Trouble   *trouble          `json:"trouble,omitempty"`
	}
)

func proofOf(c *identity.Caller, a broker.Act) caller {
	if a.Kind == broker.KindAPI {
		return caller{Tenant: a.Server.Tenant, Server: a.Server.Name, Keycard: a.Holding.Keycard.Expose()}
	}
	return caller{Tenant: a.Server.Tenant, Server: a.Server.Name, Token: c.Raw().Expose()}
}

// talk begins an act, answers what the broker's side asks back, and returns its last word, and whose it is.
func (c *Client) talk(ctx context.Context, op string, who *identity.Caller, a broker.Act) (question, http.RoundTripper, error) {
	begin := beginning{Caller: proofOf(who, a), Act: act{Kind: a.Kind, Method: a.Method, Name: a.Name, Session: a.Session, Host: a.Host, Path: a.Path, Swap: a.Swap}}
	if a.Upstream != nil {
		begin.Act.Upstream = a.Upstream.Name
	}
	first, err := json.Marshal(begin)
	if err != nil {
		return question{}, nil, err
	}
	ours, theirs := io.Pipe()
	// Closed with its end that is read, so that an answer before the first reply ends what waits for one.
	r, err := c.request(ctx, op, both{Reader: io.MultiReader(bytes.NewReader(first), ours), close: ours.Close})
	if err != nil {
		return question{}, nil, err
	}
	resp, from, err := c.send(r, nil)
	if err != nil {
		_ = theirs.Close()
		return question{}, nil, err
	}
	defer func() { // both ways end by themselves: a stream that is reset tells the other side that something is wrong
		_ = theirs.Close()
		_, _ = io.CopyN(io.Discard, resp.Body, frame.Max)
		_ = resp.Body.Close()
	}()
	in, out := json.NewDecoder(io.LimitReader(resp.Body, maxSaid)), json.NewEncoder(theirs)
	for {
		var q question
		if err := in.Decode(&q); err != nil {
			return question{}, nil, errBroken
		}
		var said reply
		switch {
		case q.Trouble != nil:
			return q, nil, q.Trouble.err()
		case len(q.Arguments) > 0:
			if said.Arguments, err = a.Arguments(q.Arguments); err != nil {
				said.Trouble = troubleOf(err)
			}
		case q.Content != nil:
			said.Content = a.Content.Read(*q.Content)
		default:
			return q, from, nil
		}
		if err := out.Encode(said); err != nil {
			return question{}, nil, errBroken
		}
	}
}

// Ready implements broker.Door.
func (c *Client) Ready(ctx context.Context, who *identity.Caller, a broker.Act) (broker.Answer, error) {
	q, _, err := c.talk(ctx, opReady, who, a)
	if err != nil || q.Decision == nil {
		return broker.Answer{}, err
	}
	return broker.Answer{Decision: *q.Decision, Missing: q.Missing}, nil
}

// Open implements broker.Door.
func (c *Client) Open(ctx context.Context, who *identity.Caller, a broker.Act) (broker.Lease, error) {
	q, from, err := c.talk(ctx, opOpen, who, a)
	if err != nil {
		return nil, err
	}
	l := &lease{client: c, to: from, id: q.Lease, call: q.Call, caller: who}
	if a.Hosted() {
		l.hosted = a.Server
	}
	return l, nil
}

// holder is what a keycard stands for, on the wire.
type holder struct {
	Ticket identity.Ticket    `json:"ticket"`
	Caller *identity.Caller   `json:"caller"`
	Server catalog.ServerName `json:"server"`
	Call   audit.CallID       `json:"call"`
}

// Holder implements broker.Door.
func (c *Client) Holder(ctx context.Context, t identity.Tenant, ticket string) (*broker.Holding, error) {
	h, err := say[holder](ctx, c, opHolder, caller{Tenant: t, Keycard: ticket})
	if err != nil {
		return nil, err
	}
	s := c.catalog.Server(h.Ticket.Tenant, h.Server)
	if s == nil || h.Caller == nil {
		return nil, fault.New(fault.Unavailable, "gateway and broker have different configs; reload both", nil)
	}
	return &broker.Holding{Ticket: h.Ticket, Caller: h.Caller, Server: s, Call: h.Call, Keycard: secret.New(ticket), Told: func(hint string) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), shortTime)
		defer cancel()
		if err := c.do(ctx, opTell, telling{caller{Tenant: t, Keycard: ticket}, hint}); err != nil {
			c.log.Warn("what an agent can do about a failed API request could not be told to the broker's process", "error", err)
		}
	}}, nil
}

// telling is a hint for whoever's call the keycard stands for.
type telling struct {
	Caller caller `json:"caller"`
	Hint   string `json:"hint"`
}

// list is which of these names a caller may see.
type list struct {
	Caller caller   `json:"caller"`
	Method string   `json:"method"`
	Names  []string `json:"names"`
}

// Visible implements broker.Door.
func (c *Client) Visible(ctx context.Context, who *identity.Caller, s *catalog.Server, method string, names []string) ([]bool, error) {
	see, err := say[[]bool](ctx, c, opVisible, list{caller{Tenant: s.Tenant, Server: s.Name, Token: who.Raw().Expose()}, method, names})
	if err == nil && len(see) != len(names) {
		err = errBroken
	}
	return see, err
}

// lease is one that the broker's process holds.
type lease struct {
	client *Client
	to     http.RoundTripper // the process that has it
	id     string
	call   audit.CallID
	caller *identity.Caller
	hosted *catalog.Server // nil where it is none that we run
	once   sync.Once
}

// Do implements broker.Lease: the broker's process sends the request, but for what is said to a server that runs here.
func (l *lease) Do(r *http.Request) (*http.Response, error) {
	if l.hosted != nil {
		return l.host(r)
	}
	head, err := frame.Write(requestHead{Lease: l.id, Method: r.Method, URL: r.URL.String(), Header: r.Header, Length: lengthOf(r), Upgrade: r.Header.Get("Upgrade") != "", Trailer: frame.Names(r.Trailer)})
	if err != nil {
		return nil, err
	}
	body := r.Body
	if body == nil {
		body = http.NoBody
	}
	var up *io.PipeWriter
	if r.Header.Get("Upgrade") != "" { // what is sent once the connection has switched
		_ = body.Close()
		body, up = io.Pipe()
	}
	if len(r.Trailer) > 0 {
		body = &frame.Pieces{ReadCloser: body, Trailer: func() http.Header { return r.Trailer }}
	}
	out := &leaving{head: bytes.NewReader(head), body: body}
	q, err := l.client.request(r.Context(), opDo, out)
	if err != nil {
		return nil, err
	}
	q.ContentLength = -1
	resp, _, err := l.client.send(q, l.to)
	if err == nil {
		return l.answer(r, resp, up)
	}
	if up != nil {
		_ = up.Close()
	}
	if why := out.why(); why != nil {
		return nil, why // what is wrong with the request's own body
	}
	return nil, err
}

// lengthOf is the length of a request's body, -1 where only its end shows it.
func lengthOf(r *http.Request) int64 {
	switch {
	case r.Body == nil || r.Body == http.NoBody:
		return 0
	case r.ContentLength == 0:
		return -1
	}
	return r.ContentLength
}

// answer is the inner answer of an outer one.
func (l *lease) answer(r *http.Request, outer *http.Response, up *io.PipeWriter) (*http.Response, error) {
	var h answerHead
	if err := frame.Read(outer.Body, &h); err != nil {
		_ = outer.Body.Close()
		return nil, errors.Join(errBroken, err)
	}
	resp := &http.Response{Status: strconv.Itoa(h.Status) + " " + http.StatusText(h.Status), StatusCode: h.Status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: h.Header, ContentLength: h.Length, Uncompressed: h.Uncompressed, Request: r, Trailer: frame.Announced(h.Trailer)}
	if resp.Header == nil {
		resp.Header = http.Header{}
	}
	in := &arriving{ReadCloser: outer.Body, outer: outer, trailer: resp.Trailer}
	resp.Body = in
	if up == nil {
		return resp, nil
	}
	if h.Status != http.StatusSwitchingProtocols {
		_ = up.Close()
		return resp, nil
	}
	resp.Body = both{in, up, func() error { return errors.Join(up.Close(), outer.Body.Close()) }}
	return resp, nil
}

// Valid implements broker.Lease. The broker's side ends what runs by itself as well.
func (l *lease) Valid(context.Context) error {
	if !l.client.alive(l.caller) {
		return fault.New(fault.Unauthenticated, "access of this sign-in has ended; sign in again", nil)
	}
	return nil
}

// closing ends a lease.
type closing struct {
	Lease  string       `json:"lease"`
	Result audit.Result `json:"result"`
	Detail string       `json:"detail"`
}

// shortTime is for what nobody waits for long.
const shortTime = 5 * time.Second

// State implements broker.Lease. What the broker's process does not say is not known.
func (l *lease) State() broker.State {
	ctx, cancel := context.WithTimeout(context.Background(), shortTime)
	defer cancel()
	s, err := sayTo[booking.Report](ctx, l.client, l.to, opState, closing{Lease: l.id})
	if err != nil {
		l.client.log.Warn("what became of a call's API requests is not known here", "call", l.call, "error", err)
	}
	return broker.State{Call: l.call, Report: s}
}

// Close implements broker.Lease. Where the broker's process does not hear it, it ends the lease when it hears nothing else either.
func (l *lease) Close(ctx context.Context, o broker.Outcome) {
	l.once.Do(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), sayTime)
		defer cancel()
		if _, err := sayTo[struct{}](ctx, l.client, l.to, opClose, closing{l.id, o.Result, o.Detail}); err != nil {
			l.client.log.Warn("the outcome of a call could not be told to the broker's process, which will write that it is unknown", "call", l.call, "error", err)
		}
	})
}

var _ broker.Door = (*Client)(nil)
