package egress

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

const (
	maxBlind    = 256              // tunnels that are passed on blindly, at a time
	blindIdle   = 10 * time.Minute // without a byte in either direction
	established = "HTTP/1.1 200 Connection established\r\n\r\n"
)

// connect opens a tunnel (RFC 9110 section 9.3.6). To a host that an upstream lists it ends here: what is said in it is
// served like any other request, for that host alone. Some clients tunnel plain http too; a tunnel's first byte tells.
func (p *Proxy) connect(w http.ResponseWriter, r *http.Request) error {
	if doorOf(r).authority != "" || r.ProtoMajor != 1 {
		return badRequest("there are no tunnels within tunnels")
	}
	origin, err := originOf("https", r.RequestURI)
	if err != nil {
		return err
	}
	authority := strings.TrimPrefix(origin, "https://")
	if !strings.Contains(r.RequestURI[strings.LastIndexByte(r.RequestURI, ']')+1:], ":") {
		return badRequest("CONNECT needs a port")
	}
	s := p.Catalog.Snapshot()
	if len(s.At(origin)) > 0 || len(s.At("http://"+authority)) > 0 {
		c, err := hijack(w)
		if err != nil {
			return err
		}
		c.door = &door{Addr: c.Conn.LocalAddr(), authority: authority, process: doorOf(r).process}
		go p.meet(c)
		return nil
	}
	if p.Tunnel == nil {
		return notListed(authority)
	}
	return p.passOn(w, r, authority)
}

// hijack takes the connection from the HTTP server and says that the tunnel stands.
func hijack(w http.ResponseWriter) (*doored, error) {
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return nil, err
	}
	early := make([]byte, buffered.Reader.Buffered())
	_, err = io.ReadFull(buffered.Reader, early)
	if err == nil {
		err = conn.SetDeadline(time.Time{})
	}
	if err == nil {
		_, err = io.WriteString(conn, established)
	}
	if err != nil {
		_ = conn.Close()
		return nil, errBroken
	}
	return &doored{Conn: conn, early: early}, nil
}

// passOn connects two ends and looks at nothing. No credential is ever on this way; what a server sends there is its own.
func (p *Proxy) passOn(w http.ResponseWriter, r *http.Request, authority string) error {
	select {
	case p.blind <- struct{}{}:
	default:
		return &statusError{http.StatusServiceUnavailable, "busy", "too many tunnels are open to hosts that no upstream lists"}
	}
	defer func() { <-p.blind }()
	far, err := p.Tunnel(r.Context(), authority)
	if err != nil {
		return err
	}
	defer func() { _ = far.Close() }()
	near, err := hijack(w)
	if err != nil {
		return err
	}
	defer func() { _ = near.Close() }()
	if !p.in.hold(near.Conn) {
		return nil
	}
	defer p.in.release(near.Conn)
	p.Log.Info("egress: a tunnel that is not looked into", "to", authority)
	join(near, far, blindIdle)
	return nil
}

// join copies both ways until both ends are done, one breaks, or neither has said anything for a while.
func join(a, b net.Conn, idle time.Duration) {
	ctx, stop := context.WithCancel(context.Background())
	quiet := time.AfterFunc(idle, stop)
	defer quiet.Stop()
	done := make(chan error, 2)
	for _, way := range [][2]net.Conn{{a, b}, {b, a}} {
		go func() {
			_, err := io.Copy(way[0], &watched{way[1], func() { quiet.Reset(idle) }})
			if err == nil {
				err = closeWrite(way[0])
			}
			done <- err
		}()
	}
	for range 2 {
		select {
		case err := <-done:
			if err != nil {
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

type watched struct {
	io.Reader
	seen func()
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.Reader.Read(p)
	w.seen()
	return n, err
}
