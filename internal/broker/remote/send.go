package remote

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"

	"frontdesk.dev/frontdesk/internal/broker/remote/frame"
	"frontdesk.dev/frontdesk/internal/kit/fault"
)

// carry sends the request that a gateway's body holds through its lease, and streams the answer back.
func (s *Server) carry(w http.ResponseWriter, r *http.Request, p peer) {
	var head requestHead
	if err := frame.Read(r.Body, &head); err != nil {
		writeTrouble(w, fault.New(fault.Invalid, "what the gateway said cannot be read", err))
		return
	}
	h, err := s.table.of(p, head.Lease)
	if err != nil {
		writeTrouble(w, err)
		return
	}
	if h.act.Hosted() { // the server runs at the gateway
		writeTrouble(w, errAct)
		return
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(h.ctx, cancel)()
	defer s.rounds.Visit(func() bool { return h.lease.Valid(ctx) == nil }, cancel)()
	resp, err := s.sent(ctx, h, head, r)
	if err != nil {
		s.tell(opDo, err)
		writeTrouble(w, err)
		return
	}
	defer func() { _ = resp.Body.Close() }()
	first, err := frame.Write(answerHead{Status: resp.StatusCode, Header: resp.Header, Length: resp.ContentLength, Uncompressed: resp.Uncompressed, Trailer: frame.Names(resp.Trailer)})
	if err != nil {
		writeTrouble(w, err)
		return
	}
	w.Header().Set("Trailer", headerEnd)
	if _, err := w.Write(first); err != nil {
		return
	}
	e := end{}
	if err := s.flow(ctx, w, r, resp); err != nil {
		s.tell(opDo, err)
		e.Trouble = troubleOf(err)
	}
	e.Trailer = resp.Trailer
	w.Header().Set(headerEnd, e.text())
}

// errTwice keeps one record for each request that acts.
var errTwice = fault.New(fault.Denied, "what stands on record was sent already; each request has an act of its own", nil)

// sent makes the request of what was decided, and sends it.
func (s *Server) sent(ctx context.Context, h *held, head requestHead, r *http.Request) (*http.Response, error) {
	body := r.Body
	trailer := frame.Announced(head.Trailer)
	if len(head.Trailer) > 0 {
		body = &frame.Whole{ReadCloser: r.Body, Trailer: trailer}
	}
	if head.Upgrade { // what follows is sent when the other side has switched
		head.Length, body = 0, http.NoBody
	}
	out, acts, err := h.act.outgoing(ctx, head, body, trailer)
	if err == nil && acts && h.used.Swap(true) {
		err = errTwice
	}
	if err != nil {
		return nil, err
	}
	return h.lease.Do(out)
}

var buffers = sync.Pool{New: func() any { b := make([]byte, 32<<10); return &b }}

// flow copies the answer, and what is sent the other way after a switch of protocols. It flushes after each read: an event must not
// wait for the next one.
func (s *Server) flow(ctx context.Context, w http.ResponseWriter, r *http.Request, resp *http.Response) error {
	to := http.NewResponseController(w)
	if err := to.Flush(); err != nil {
		return err
	}
	if far, ok := resp.Body.(io.ReadWriteCloser); ok && resp.StatusCode == http.StatusSwitchingProtocols {
		var ways sync.WaitGroup
		defer ways.Wait()
		defer func() { _, _ = far.Close(), r.Body.Close() }()
		ways.Go(func() {
			_, _ = io.Copy(far, r.Body) // whichever end breaks off, the other one is closed
			_ = far.Close()
		})
		defer context.AfterFunc(ctx, func() { _ = far.Close() })()
	}
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	for {
		n, err := resp.Body.Read(*buf)
		if n > 0 {
			if _, werr := w.Write((*buf)[:n]); werr != nil {
				return werr
			}
			if ferr := to.Flush(); ferr != nil {
				return ferr
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
