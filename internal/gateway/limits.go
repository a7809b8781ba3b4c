package gateway

import (
	"net/http"
	"sync"
)

// What one caller may hold open here at once, of requests, of streams and of calls that wait for their end, and what may wait for
// people in this process. More is refused, or answered in the form that does not wait.
const (
	maxOpen    = 1000
	maxStreams = 100
	maxWaiting = 5000
)

// crowds are what is open here, by caller.
type crowds struct{ open, listening, late, lasting crowd }

// crowd counts what is open by its owner. The zero crowd is empty.
type crowd struct {
	mu sync.Mutex
	n  map[string]int // guarded by mu
}

// enter counts one more; leave must be called where ok.
func (c *crowd) enter(who string, most int) (leave func(), ok bool) {
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

// room lets a request in, or answers that its caller has too many open.
func (c *call) room() (leave func(), ok bool) {
	crowd, most := &c.g.open, maxOpen
	if c.r.Method == http.MethodGet {
		crowd, most = &c.g.listening, maxStreams
	}
	leave, ok = crowd.enter(string(c.tenant)+"\x00"+c.caller.Principal(), most)
	if !ok {
		c.w.Header().Set("Retry-After", "1")
		http.Error(c.w, "too many requests of this caller are open; end some first", http.StatusTooManyRequests)
	}
	return leave, ok
}
