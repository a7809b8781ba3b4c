package web

import (
	"cmp"
	"sync"
	"time"
)

// Rounds asks of everything that is open, now and then, whether it may go on. One timer serves all: a timer each would wake the
// process as often as there are streams. The zero Rounds is ready; no goroutine stays where nothing is open.
type Rounds struct {
	Every time.Duration // 0 is 2 s

	mu      sync.Mutex
	open    []*visit // guarded by mu, as is what follows
	walking bool
}

type visit struct {
	valid func() bool
	end   func()
	at    int // in open; -1 where it is over
}

// Visit calls end, once, at most Every after valid has become false. After stop has returned end is not called any more; valid may
// be, in a round that has begun.
func (r *Rounds) Visit(valid func() bool, end func()) (stop func()) {
	v := &visit{valid: valid, end: end}
	r.mu.Lock()
	defer r.mu.Unlock()
	v.at = len(r.open)
	r.open = append(r.open, v)
	if !r.walking {
		r.walking = true
		go r.walk()
	}
	return func() { r.drop(v) }
}

// drop reports whether it was there.
func (r *Rounds) drop(v *visit) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if v.at < 0 {
		return false
	}
	last := len(r.open) - 1
	r.open[v.at] = r.open[last]
	r.open[v.at].at = v.at
	r.open[last] = nil
	r.open, v.at = r.open[:last], -1
	return true
}

func (r *Rounds) walk() {
	tick := time.NewTicker(cmp.Or(r.Every, 2*time.Second))
	defer tick.Stop()
	var round []*visit
	for range tick.C {
		r.mu.Lock()
		if len(r.open) == 0 {
			r.walking = false
			r.mu.Unlock()
			return
		}
		round = append(round[:0], r.open...)
		r.mu.Unlock()
		for i, v := range round {
			if !v.valid() && r.drop(v) {
				v.end()
			}
			round[i] = nil
		}
	}
}
