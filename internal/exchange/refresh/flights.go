package refresh

import (
	"context"
	"errors"
	"sync"

	"frontdesk.dev/frontdesk/internal/vault"
)

// flights are the refreshes under way in this process, by what they are for. One belongs to none of those who wait for it: a
// caller who leaves does not end it, and a stop can wait for all, which x/sync/singleflight does not offer.
type flights struct {
	mu sync.Mutex
	of map[string]*flight // guarded by mu
}

// flight is one refresh. What it came to may be read when over is closed.
type flight struct {
	over chan struct{}
	c    vault.Connection
	err  error
}

var errGone = errors.New("the refresh ended without a result")

// begin starts do, or joins the one that is under way for the same key.
func (l *flights) begin(ctx context.Context, key string, do func(context.Context) (vault.Connection, error)) *flight {
	l.mu.Lock()
	defer l.mu.Unlock()
	if f := l.of[key]; f != nil {
		return f
	}
	f := &flight{over: make(chan struct{}), err: errGone}
	if l.of == nil {
		l.of = map[string]*flight{}
	}
	l.of[key] = f
	go func() {
		own, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
		defer cancel()
		defer func() {
			l.mu.Lock()
			defer l.mu.Unlock()
			delete(l.of, key)
			close(f.over)
		}()
		f.c, f.err = do(own)
	}()
	return f
}

// wait returns when none is under way, or ctx has ended.
func (l *flights) wait(ctx context.Context) {
	for {
		l.mu.Lock()
		var next *flight
		for _, next = range l.of {
			break
		}
		l.mu.Unlock()
		if next == nil {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-next.over:
		}
	}
}
