package egress

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"

	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/internal/broker"
	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/exchange"
	"frontdesk.dev/frontdesk/internal/kit/fault"
)

const (
	maxOpening  = 64 << 10         // bytes of a WebSocket's first message
	openingTime = 15 * time.Second // until it is there
)

// await serves a WebSocket whose keycard comes in its first message, and not in its head. Nothing is decided before that message is
// there, and nothing is sent to the API: the handshake is answered here, with the first subprotocol that was offered.
func (p *Proxy) await(w http.ResponseWriter, r *http.Request, rt route) error {
	places := rt.messages()
	if len(places) == 0 {
		return errTicket
	}
	w.Header().Set("Connection", "close") // of a refusal of net/http's
	conn, buffered, hs, err := ws.HTTPUpgrader{Timeout: headerTimeout, Protocol: func(string) bool { return true }}.Upgrade(r, w)
	if err != nil {
		if conn != nil {
			_ = conn.Close() // it has been told
		}
		return nil
	}
	defer func() { _ = conn.Close() }()
	p.begin()
	if !p.in.hold(conn) {
		return nil
	}
	defer p.in.release(conn)
	if r.Header.Del("Sec-Websocket-Protocol"); hs.Protocol != "" {
		r.Header.Set("Sec-Websocket-Protocol", hs.Protocol)
	}
	near := &socket{Conn: conn, reader: buffered.Reader}
	if err := p.opened(near, r, rt, places); err != nil {
		n := p.refusal(r, err)
		near.hangUp(n)
	}
	return nil
}

// messages are the places in first messages that the route's upstreams have, for the host that is meant.
func (rt route) messages() (l []catalog.MessagePlace) {
	for _, up := range rt.upstreams {
		target, err := rt.target(up)
		if err != nil || !up.WebSocket {
			continue
		}
		for _, m := range up.Provider.Egress.TokenIn.Messages {
			if m.Host == "" || m.Host == target.Hostname() {
				l = append(l, m)
			}
		}
	}
	return l
}

// socket is the server's end of a WebSocket.
type socket struct {
	net.Conn
	reader *bufio.Reader
}

func (s *socket) Read(b []byte) (int, error) { return s.reader.Read(b) }

// hangUp ends it with a reason (RFC 6455 section 7.4.1).
func (s *socket) hangUp(n refusal) {
	code := ws.StatusPolicyViolation
	switch {
	case n.status == http.StatusTooManyRequests || n.status == http.StatusServiceUnavailable:
		code = 1013 // try again later
	case n.status >= http.StatusInternalServerError:
		code = ws.StatusInternalServerError
	}
	reason := n.code + ": " + n.msg
	if len(reason) > ws.MaxControlFramePayloadSize-2 {
		reason = strings.ToValidUTF8(reason[:ws.MaxControlFramePayloadSize-2], "")
	}
	_ = s.SetDeadline(time.Now().Add(drainTime))
	if ws.WriteFrame(s, ws.NewCloseFrame(ws.NewCloseFrameBody(code, reason))) == nil {
		_, _ = io.CopyN(io.Discard, s, maxDrain) // until it hangs up too, so that the reason arrives
	}
}

// opened serves it once its first message is there.
func (p *Proxy) opened(near *socket, r *http.Request, rt route, places []catalog.MessagePlace) error {
	if err := near.SetDeadline(time.Now().Add(openingTime)); err != nil {
		return err
	}
	said := slices.IndexFunc(places, func(m catalog.MessagePlace) bool { return m.Greeting != "" })
	if said >= 0 {
		if err := ws.WriteFrame(near, ws.NewTextFrame([]byte(places[said].Greeting))); err != nil {
			return nil // it went away
		}
	}
	text, err := near.first()
	if err != nil {
		return err
	}
	k, err := fromMessage(text, places)
	if err != nil || leaksTicket(r, &rt, k.text) {
		return errTicket
	}
	g, err := p.open(r, rt, k, func(t time.Time) { _ = near.SetDeadline(t) })
	if err != nil {
		return err
	}
	defer g.end()
	resp, err := g.send()
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusSwitchingProtocols {
		g.outcome = broker.Outcome{Result: audit.ResultFailed, Detail: "status " + strconv.Itoa(resp.StatusCode)}
		return &statusError{http.StatusBadGateway, "unavailable", g.up.Title + " refused the WebSocket with status " + strconv.Itoa(resp.StatusCode)}
	}
	far, err := upgraded(resp)
	if err != nil {
		g.outcome = broker.Outcome{Result: audit.ResultFailed, Detail: fault.Message(err)}
		return err
	}
	var greeting catalog.MessagePlace
	if said >= 0 {
		greeting = places[said]
	}
	g.outcome = p.converse(g.ctx, near, &greeted{ReadWriteCloser: far, place: greeting}, k.text)
	return nil
}

// first reads the first message, and answers what control frames come before it.
func (s *socket) first() ([]byte, error) {
	control := wsutil.ControlFrameHandler(s, ws.StateServerSide)
	in := &wsutil.Reader{Source: s, State: ws.StateServerSide, CheckUTF8: true, MaxFrameSize: maxOpening, MaxMessageSize: maxOpening, OnIntermediate: control}
	for {
		h, err := in.NextFrame()
		if err == nil && h.OpCode.IsControl() {
			if err = control(h, in); err == nil {
				continue
			}
		}
		if err == nil && h.OpCode != ws.OpText {
			err = errors.New("the first message is not text")
		}
		if err != nil {
			return nil, errNoOpening
		}
		text, err := io.ReadAll(in)
		if err != nil {
			return nil, errNoOpening
		}
		return text, nil
	}
}

var errNoOpening = fault.New(fault.Unauthenticated, "send the keycard in the first message, which is text, within 15 seconds", nil)

// fromMessage finds the one keycard in a first message.
func fromMessage(text []byte, places []catalog.MessagePlace) (k keycard, err error) {
	for _, m := range places {
		value, end := lookUp(text, m.Token)
		var s string
		if len(value) == 0 || value.Kind() != '"' || unquote(value, &s) != nil {
			continue
		}
		for _, card := range credentialOf(s) {
			at := bytes.Index(value, []byte(card))
			if len(card) < minTicket || at < 0 {
				continue
			}
			begin := end - len(value) + at
			k = keycard{card, &exchange.Swap{Message: true, Before: string(text[:begin]), After: string(text[begin+len(card):])}}
			// Once: a second one would leave with what is around the first.
			if around := k.swap.Before + " " + k.swap.After; guard(card).String(around) != around {
				return keycard{}, errTicket
			}
			return k, nil
		}
	}
	return k, errTicket
}

func unquote(v jsontext.Value, s *string) error {
	b, err := jsontext.AppendUnquote(nil, v)
	*s = string(b)
	return err
}

// lookUp takes the value at a place of a JSON text as it is written there, and says where it ends. It is nil where there is none, or
// where the text can be read in more than one way.
func lookUp(text []byte, pointer string) (jsontext.Value, int) {
	if !jsontext.Value(text).IsValid() {
		return nil, 0
	}
	d := jsontext.NewDecoder(bytes.NewReader(text))
	for step := range jsontext.Pointer(pointer).Tokens() {
		if !enter(d, step) {
			return nil, 0
		}
	}
	v, err := d.ReadValue()
	if err != nil {
		return nil, 0
	}
	return v.Clone(), int(d.InputOffset())
}

// enter goes to a member or element of the object or array that comes next.
func enter(d *jsontext.Decoder, step string) bool {
	open, err := d.ReadToken()
	if err != nil || open.Kind() != '{' && open.Kind() != '[' {
		return false
	}
	kind := open.Kind()
	for i := 0; d.PeekKind() != kind+2; i++ { // the closing one, in ASCII
		name := strconv.Itoa(i)
		if kind == '{' {
			t, err := d.ReadToken()
			if err != nil {
				return false
			}
			name = t.String()
		}
		if name == step {
			return true
		}
		if d.SkipValue() != nil {
			return false
		}
	}
	return false
}

// greeted is the API's end, whose greeting has been said already: where its first message is one, it is dropped.
type greeted struct {
	io.ReadWriteCloser
	place catalog.MessagePlace
	heard bool
	ready bytes.Buffer
}

func (g *greeted) Read(b []byte) (int, error) {
	if !g.heard {
		g.heard = true
		if g.place.Greeting != "" {
			if err := g.hear(); err != nil {
				return 0, err
			}
		}
	}
	if g.ready.Len() > 0 {
		return g.ready.Read(b)
	}
	return g.ReadWriteCloser.Read(b)
}

// hear reads up to the first message. What is no greeting waits to be read.
func (g *greeted) hear() error {
	for {
		h, err := ws.ReadHeader(g.ReadWriteCloser)
		if err != nil {
			return err
		}
		whole := h.OpCode == ws.OpText && h.Fin && h.Length <= maxOpening
		frame := ws.Frame{Header: h}
		if whole || h.OpCode.IsControl() {
			frame.Payload = make([]byte, h.Length)
			if _, err := io.ReadFull(g.ReadWriteCloser, frame.Payload); err != nil {
				return err
			}
		}
		if whole && greets(g.place, frame.Payload) {
			return nil
		}
		if err := ws.WriteHeader(&g.ready, h); err != nil {
			return err
		}
		g.ready.Write(frame.Payload)
		if !h.OpCode.IsControl() {
			return nil
		}
	}
}

// greets reports whether a message is the API's greeting.
func greets(place catalog.MessagePlace, text []byte) bool {
	want, _ := lookUp([]byte(place.Greeting), place.GreetingAt)
	got, _ := lookUp(text, place.GreetingAt)
	return got != nil && got.Canonicalize() == nil && want.Canonicalize() == nil && bytes.Equal(got, want)
}
