package exchange

import (
	"errors"
	"io"
	"net/http"
	"strings"

	"github.com/gobwas/ws"

	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/kit/secret"
)

// Swap is a text of a WebSocket in which the keycard stood, without it. The credential goes there, and not to the vendor's usual place.
type Swap struct {
	Message       bool // the first message, which is JSON; else the header Sec-WebSocket-Protocol
	Before, After string
}

// At returns the credential for one request on which it goes to another place; nil is its own. Such a request is sent once: what a
// vendor says of a token that has ended, it says in messages, which pass.
func (c *Credential) At(s *Swap) *Credential {
	if s == nil {
		return c
	}
	if c.again != nil {
		if next := c.again.next.Load(); next != nil {
			c = next
		}
	}
	at := &Credential{Marks: c.Marks, Expires: c.Expires, Method: c.Method, Connection: c.Connection, Site: c.Site, onto: c.onto, reads: c.reads}
	var text string
	err := errors.New("a request is signed with it, or with the key that it is bound to")
	if c.Fill != nil {
		text, err = c.Fill(s.Before, s.After, s.Message)
	}
	if err == nil && !s.Message && strings.ContainsFunc(text, func(c rune) bool { return c < ' ' || c > '~' }) {
		err = errors.New("it holds characters that a header cannot")
	}
	if s.Message {
		at.says = secret.New(text)
	}
	at.Place = func(r *http.Request) error {
		if err != nil {
			return fault.New(fault.Denied, "the credential cannot stand where the keycard stood; send the keycard in a header", err)
		}
		if !s.Message {
			r.Header.Set("Sec-Websocket-Protocol", text)
		}
		return nil
	}
	return at
}

// speak sends the first message of a WebSocket, if there is one. Its sender has been told already which subprotocol it speaks.
func (c *Credential) speak(r *http.Request, resp *http.Response) error {
	if c.says.IsZero() || resp.StatusCode != http.StatusSwitchingProtocols {
		return nil
	}
	if resp.Header.Get("Sec-Websocket-Protocol") != r.Header.Get("Sec-Websocket-Protocol") {
		return errors.Join(fault.New(fault.Unavailable, "the upstream speaks another subprotocol than the first that was offered; offer that one alone", nil), resp.Body.Close())
	}
	conn, ok := resp.Body.(io.Writer)
	if !ok {
		return errors.Join(errors.New("the upstream switched protocols, and cannot be written to"), resp.Body.Close())
	}
	if err := ws.WriteFrame(conn, ws.MaskFrameInPlace(ws.NewTextFrame([]byte(c.says.Expose())))); err != nil {
		return errors.Join(err, resp.Body.Close())
	}
	return nil
}
