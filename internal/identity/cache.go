package identity

import (
	"sync"
	"time"
)

type cacheKey struct {
	tenant   Tenant
	resource string
	hash     [32]byte // SHA-256 of the token: the token itself is not a key of anything
}

type cached struct {
	caller *Caller
	until  time.Time
}

// cache remembers verified tokens in two generations: when the younger is full, the older is forgotten whole. So it is
// bounded, and what is used stays.
type cache struct {
	mu         sync.RWMutex
	young, old map[cacheKey]cached
}

// cacheSize bounds one generation; an entry is some 500 bytes.
const cacheSize = 20_000

func (c *cache) get(k cacheKey, now time.Time) *Caller {
	c.mu.RLock()
	e, ok := c.young[k]
	if !ok {
		if e, ok = c.old[k]; ok {
			defer c.put(k, e.caller, e.until) // runs after the read lock is given back
		}
	}
	c.mu.RUnlock()
	if !ok || !now.Before(e.until) {
		return nil
	}
	return e.caller
}

func (c *cache) put(k cacheKey, caller *Caller, until time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.young == nil || len(c.young) >= cacheSize {
		c.young, c.old = make(map[cacheKey]cached), c.young
	}
	c.young[k] = cached{caller, until}
}

func (c *cache) clear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.young, c.old = nil, nil
}
