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

// switchOver joins both ends of a WebSocket. What comes from the upstream has been cleaned by the lease; what the server
// sends may hold anything but its keycard.
func (p *Proxy) switchOver(ctx context.Context, w http.ResponseWriter, resp *http.Response, ticket string) (broker.Outcome, error) {
	far, ok := resp.Body.(io.ReadWriteCloser)
	if !ok || !strings.EqualFold(resp.Header.Get("Upgrade"), "websocket") {
		return broker.Outcome{Result: audit.ResultFailed, Detail: "the upstream switched to another protocol"}, fault.New(fault.Unavailable, "the upstream switched to another protocol than it was asked to", nil)
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
	stop := context.AfterFunc(ctx, func() { _, _ = conn.Close(), far.Close() }) // access has ended
	defer stop()
	h := resp.Header.Clone()
	dropHopByHop(h)
	h.Del("Set-Cookie")
	var head bytes.Buffer
	head.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n")
	_ = h.Write(&head) // into memory
	head.WriteString("\r\n")
	_ = conn.SetDeadline(time.Time{}) // if it fails, the first write does too
	if _, err := conn.Write(head.Bytes()); err != nil {
		return broker.Outcome{Result: audit.ResultUnknown, Detail: cut(&writeError{err})}, nil
	}
	ended := make(chan error, 2)
	var ways sync.WaitGroup
	ways.Go(func() { _, err := io.Copy(far, guard(ticket).Frames(buffered)); ended <- err })
	ways.Go(func() { _, err := io.Copy(conn, far); ended <- err })
	err = <-ended
	_, _ = conn.Close(), far.Close()
	ways.Wait()
	if ctx.Err() != nil {
		return broker.Outcome{Result: audit.ResultUnknown, Detail: "access ended, and the connection with it"}, nil
	}
	if err != nil && fault.KindOf(err) == fault.Unauthenticated {
		return broker.Outcome{Result: audit.ResultDenied, Detail: "the server sent its keycard along"}, nil
	}
	return broker.Outcome{Result: audit.ResultOK}, nil
}
