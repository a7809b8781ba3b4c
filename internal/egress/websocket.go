package egress

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/internal/broker"
	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/kit/fault"
)

func isUpgrade(r *http.Request) bool { return r.Header.Get("Upgrade") != "" }

// checkUpgrade lets a WebSocket's opening handshake through (RFC 6455 section 4.1), and no other: h2c above all would let
// requests pass that nobody looks at.
func checkUpgrade(r *http.Request) error {
	if len(r.Header["Upgrade"]) == 0 && len(r.Header["Http2-Settings"]) == 0 {
		return nil
	}
	if len(r.Header["Upgrade"]) != 1 || !strings.EqualFold(r.Header.Get("Upgrade"), "websocket") || r.Method != http.MethodGet || r.ProtoMajor != 1 ||
		r.Header.Get("Sec-Websocket-Version") != "13" || len(r.Header["Sec-Websocket-Key"]) != 1 || r.ContentLength != 0 {
		return errUpgrade
	}
	return nil
}

var errUpgrade = &statusError{http.StatusNotImplemented, "upgrade_refused", "this connection cannot be upgraded through egress; WebSockets can, where the upstream's entry says websocket: true"}

// mayUpgrade says whether the upstream has WebSockets.
func mayUpgrade(r *http.Request, up *catalog.Upstream) error {
	if isUpgrade(r) && !up.WebSocket {
		return errUpgrade
	}
	return nil
}

// switchOver joins both ends of a WebSocket.
func (p *Proxy) switchOver(ctx context.Context, w http.ResponseWriter, resp *http.Response, ticket string) (broker.Outcome, error) {
	far, err := upgraded(resp)
	if err != nil {
		return broker.Outcome{Result: audit.ResultFailed, Detail: fault.Message(err)}, err
	}
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return broker.Outcome{Result: audit.ResultFailed, Detail: "the connection could not be switched"}, err
	}
	defer func() { _ = conn.Close() }()
	p.begin()
	if !p.in.hold(conn) {
		return broker.Outcome{Result: audit.ResultUnknown, Detail: "Frontdesk was stopped"}, nil
	}
	defer p.in.release(conn)
	h := resp.Header.Clone()
	dropHopByHop(h)
	h.Del("Set-Cookie")
	var head bytes.Buffer
	head.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n")
	_ = h.Write(&head) // into memory
	head.WriteString("\r\n")
	if _, err := conn.Write(head.Bytes()); err != nil {
		return broker.Outcome{Result: audit.ResultUnknown, Detail: cut(&writeError{err})}, nil
	}
	return p.converse(ctx, &socket{Conn: conn, reader: buffered.Reader}, far, ticket), nil
}

// upgraded is the API's end.
func upgraded(resp *http.Response) (io.ReadWriteCloser, error) {
	far, ok := resp.Body.(io.ReadWriteCloser)
	if !ok || !strings.EqualFold(resp.Header.Get("Upgrade"), "websocket") {
		return nil, fault.New(fault.Unavailable, "the upstream switched to another protocol than it was asked to", nil)
	}
	return far, nil
}

// converse passes frames on until one end is done or access ends. What comes from the upstream has been cleaned by the lease; what
// the server sends may hold anything but its keycard.
func (p *Proxy) converse(ctx context.Context, near *socket, far io.ReadWriteCloser, ticket string) broker.Outcome {
	stop := context.AfterFunc(ctx, func() { _, _ = near.Close(), far.Close() }) // access has ended
	defer stop()
	_ = near.SetDeadline(time.Time{}) // if it fails, the first write does too
	ended := make(chan error, 2)
	var ways sync.WaitGroup
	ways.Go(func() { _, err := io.Copy(far, guard(ticket).Frames(near)); ended <- err })
	ways.Go(func() { _, err := io.Copy(near.Conn, far); ended <- err })
	err := <-ended
	sent := err != nil && fault.KindOf(err) == fault.Unauthenticated
	_ = far.Close()
	if sent { // it is told why; nothing else is written to it by now
		_ = near.SetDeadline(time.Now().Add(drainTime))
		ways.Wait()
		near.hangUp(refusal{status: http.StatusUnauthorized, code: "invalid_token", msg: "the keycard may stand in no later message"})
		p.refused("invalid_token")
	}
	_ = near.Close()
	ways.Wait()
	if ctx.Err() != nil {
		return broker.Outcome{Result: audit.ResultUnknown, Detail: "access ended, and the connection with it"}
	}
	if sent {
		return broker.Outcome{Result: audit.ResultDenied, Detail: "the server sent its keycard along"}
	}
	return broker.Outcome{Result: audit.ResultOK}
}
