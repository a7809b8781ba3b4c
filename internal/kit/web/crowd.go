package web

import "sync"

// Crowd counts what is open by its owner. The zero Crowd is empty.
type Crowd struct {
	mu sync.Mutex
	n  map[string]int // guarded by mu
}

// Enter counts one more; leave must be called where ok.
func (c *Crowd) Enter(who string, most int) (leave func(), ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n == nil {
		c.n = map[string]int{}
	}
	if c.n[who] >= most {
		return nil, false
	}
	c.n[who]++
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.n[who]--; c.n[who] == 0 {
			delete(c.n, who)
		}
	}, true
}
