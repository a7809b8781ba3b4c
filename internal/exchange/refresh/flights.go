package refresh

import (
	"context"
	"errors"
	"sync"
	"time"

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

// orphans are attempts of this process whose lease may stand in the database though nobody goes on with them: the answer to a step
// before anything was sent is lost. Without this, everybody waits until the lease is over.
type orphans struct {
	mu sync.Mutex
	of map[string]time.Time // guarded by mu: by attempt, since when
}

func (o *orphans) add(attempt string, now time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.of == nil {
		o.of = map[string]time.Time{}
	}
	for a, at := range o.of {
		if now.Sub(at).Abs() > 2*leaseTime { // its lease is over
			delete(o.of, a)
		}
	}
	o.of[attempt] = now
}

// take reports whether an attempt is one, once.
func (o *orphans) take(attempt string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	_, ok := o.of[attempt]
	delete(o.of, attempt)
	return ok
}
