package kms

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"log/slog"
	"slices"
	"sync"
	"time"

	"frontdesk.dev/frontdesk/internal/kit/fault"
)

// Cached remembers what a provider unwrapped, so that what is read every minute is asked for every five. A provider that is away
// is forgiven for as long again, and while that lasts nobody waits for it: it is asked beside what goes on, every few seconds. One
// that says no is believed at once. Safe for concurrent use.
type Cached struct {
	Wrapper
	Now func() time.Time

	mu      sync.Mutex
	log     *slog.Logger // guarded by mu, as is what follows; nil: nobody watches yet
	known   map[digest]unwrapped
	asking  map[digest]*asked
	refused map[digest]no // keys that it said no to, the last time
	away    error         // the last answer of a provider that was away since then; nil while it answers
	since   time.Time
	again   time.Time // not asked before
}

type digest [sha256.Size]byte

type unwrapped struct {
	plain []byte
	at    time.Time
}

type no struct {
	err error
	at  time.Time
}

// asked is a question under way: whoever needs the same key waits for the same answer.
type asked struct {
	done  chan struct{}
	plain []byte // read once done is closed, as is err
	err   error
}

const (
	cacheFresh = 5 * time.Minute
	cacheStale = 10 * time.Minute
	maxCached  = 10_000

	patience  = time.Second            // for an answer that one can do without
	doubt     = 100 * time.Millisecond // for one that is not to be expected: enough for a provider that is back
	awayPause = 5 * time.Second        // between questions to a provider that is away
)

// Unwrap implements Wrapper.
func (c *Cached) Unwrap(ctx context.Context, wrapped, context []byte) ([]byte, error) {
	key := digest(sha256.Sum256(slices.Concat(binary.BigEndian.AppendUint32(nil, uint32(len(wrapped))), wrapped, context)))
	c.mu.Lock()
	k, away, a := c.known[key], c.away, c.asking[key]
	now := c.Now()
	age := now.Sub(k.at)
	if k.plain != nil && age >= cacheStale {
		c.forget(key)
		k.plain = nil
	}
	old := slices.Clone(k.plain) // before anybody clears it
	if old != nil && age < cacheFresh {
		c.mu.Unlock()
		return old, nil
	}
	if a == nil && (away == nil || !now.Before(c.again)) {
		a = c.ask(ctx, key, wrapped, context)
	}
	c.mu.Unlock()
	if a == nil {
		return or(old, away)
	}
	wait := callTimeout + patience // its own limit comes first, and names who does not answer
	switch {
	case old != nil && away != nil:
		return old, nil
	case old != nil:
		wait = patience
	case away != nil:
		wait = doubt
	}
	limit := time.NewTimer(wait)
	defer limit.Stop()
	select {
	case <-a.done:
		if fault.KindOf(a.err) == fault.Unavailable {
			return or(old, a.err)
		}
		return slices.Clone(a.plain), a.err
	case <-limit.C:
		if away == nil {
			away = fault.New(fault.Unavailable, "the key service does not answer; try again later", nil)
		}
		return or(old, away)
	case <-ctx.Done():
		return or(old, fault.New(fault.Unavailable, "the key service has not answered in time; try again later", ctx.Err()))
	}
}

// or is what was known, else why nothing is.
func or(old []byte, err error) ([]byte, error) {
	if old != nil {
		return old, nil
	}
	return nil, err
}

// ask asks the provider, whoever goes away meanwhile. It is called with c.mu held.
func (c *Cached) ask(ctx context.Context, key digest, wrapped, bound []byte) *asked {
	a := &asked{done: make(chan struct{})}
	if c.asking == nil {
		c.asking = map[digest]*asked{}
	}
	c.asking[key] = a
	c.again = c.Now().Add(awayPause) // one question at a time tells whether it is back
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
	go func() {
		defer cancel()
		a.plain, a.err = c.Wrapper.Unwrap(ctx, wrapped, bound)
		c.settle(key, slices.Clone(a.plain), a.err)
		close(a.done)
	}()
	return a
}

// settle remembers an answer.
func (c *Cached) settle(key digest, plain []byte, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.asking, key)
	now := c.Now()
	if fault.KindOf(err) == fault.Unavailable {
		if c.away == nil {
			c.since = now
			c.tell(slog.LevelWarn, "the key service does not answer: what was opened goes on for some ten minutes, other keys cannot be opened; it is asked again by itself", err)
		}
		c.away, c.again = err, now.Add(awayPause)
		return
	}
	if c.away != nil {
		c.tell(slog.LevelInfo, "the key service answers again", nil)
	}
	c.away = nil
	if err == nil {
		if c.known == nil || len(c.known) >= maxCached {
			c.known = map[digest]unwrapped{}
		}
		c.known[key] = unwrapped{plain, now}
		delete(c.refused, key)
		return
	}
	c.forget(key)
	if c.refused == nil || len(c.refused) >= maxCached {
		c.refused = map[digest]no{}
	}
	if c.refused[key].err == nil {
		c.tell(slog.LevelError, "the key service refuses a key of the database: what it seals does not open", err)
	}
	c.refused[key] = no{err, now}
}

// forget is called with c.mu held.
func (c *Cached) forget(key digest) {
	clear(c.known[key].plain)
	delete(c.known, key)
}

// tell is called with c.mu held.
func (c *Cached) tell(level slog.Level, what string, err error) {
	switch {
	case c.log == nil:
	case err != nil:
		c.log.Log(context.Background(), level, what, "error", err)
	default:
		c.log.Log(context.Background(), level, what)
	}
}

// Watch says from now on in a log when the provider goes, comes back or says no. What it said no to before was a search.
func (c *Cached) Watch(log *slog.Logger) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.log, c.refused = log, nil
}

// Standing is how the provider stands, as far as it was asked lately: nil while it answers; else why not, and since when it is away.
// The time is zero where it answers and says no.
func (c *Cached) Standing() (since time.Time, trouble error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.away != nil {
		return c.since, c.away
	}
	for _, n := range c.refused {
		if c.Now().Sub(n.at) < cacheFresh {
			trouble = n.err
		}
	}
	return time.Time{}, trouble
}
