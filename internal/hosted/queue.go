package hosted

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"

	"frontdesk.dev/frontdesk/internal/kit/mcp"
)

// queue holds messages on their way up. A reader that is slow holds nobody else up; one that is too slow loses the oldest,
// or the whole, as its owner says.
type queue struct {
	mu    sync.Mutex
	items [][]byte
	size  int
	limit int // bytes
	wake  chan struct{}
	over  bool // nothing more will come
}

func newQueue(limit int) *queue { return &queue{limit: limit, wake: make(chan struct{}, 1)} }

var errBehind = errors.New("the reader is too far behind")

// put adds a message. With dropOld it makes room; else it errs where there is none.
func (q *queue) put(msg []byte, dropOld bool) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.add(msg, dropOld)
}

// finish adds the last message; where there is no room for it, the other one.
func (q *queue) finish(msg, otherwise []byte) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.add(msg, false) != nil {
		_ = q.add(otherwise, true) // a queue that is over has no reader
	}
	q.over = true
}

func (q *queue) add(msg []byte, dropOld bool) error {
	if q.over {
		return io.ErrClosedPipe
	}
	for q.size+len(msg) > q.limit && len(q.items) > 0 {
		if !dropOld {
			return errBehind
		}
		q.size -= len(q.items[0])
		q.items = q.items[1:]
	}
	q.items, q.size = append(q.items, msg), q.size+len(msg)
	q.signal()
	return nil
}

func (q *queue) signal() {
	select {
	case q.wake <- struct{}{}:
	default: // somebody has been told already
	}
}

// end lets the reader take what is there, and then no more.
func (q *queue) end() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.over = true
	q.signal()
}

// next returns io.EOF at the end, or the context's error. One reader at a time.
func (q *queue) next(ctx context.Context) ([]byte, error) {
	for {
		q.mu.Lock()
		if len(q.items) > 0 {
			msg := q.items[0]
			q.items, q.size = q.items[1:], q.size-len(msg)
			q.mu.Unlock()
			return msg, nil
		}
		over := q.over
		q.mu.Unlock()
		if over {
			return nil, io.EOF
		}
		select {
		case <-q.wake:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// stream is the body of an answer that is a stream of events.
type stream struct {
	ctx   context.Context
	queue *queue
	rest  []byte
	done  func() // called once at Close
	once  sync.Once
}

func (s *stream) Read(p []byte) (int, error) {
	if len(s.rest) == 0 {
		msg, err := s.queue.next(s.ctx)
		if err != nil {
			return 0, err
		}
		s.rest = mcp.EventOf(msg)
	}
	n := copy(p, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}

func (s *stream) Close() error {
	s.once.Do(s.done)
	return nil
}

// answer is an HTTP answer that never was on a wire.
func answer(r *http.Request, status int, kind string, body io.ReadCloser) *http.Response {
	h := http.Header{}
	if kind != "" {
		h.Set("Content-Type", kind)
	}
	return &http.Response{Status: http.StatusText(status), StatusCode: status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: h, Body: body, ContentLength: -1, Request: r}
}

// done reports that everything was taken and nothing more will come.
func (q *queue) done() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.over && len(q.items) == 0
}
