package web_test

import (
	"sync"
	"sync/atomic"
	"testing"

	"frontdesk.dev/frontdesk/internal/kit/web"
)

// TestCrowd: never more of one party than it may be, nobody stands in another's way, and who leaves makes room.
func TestCrowd(t *testing.T) {
	var c web.Crowd
	var inside, most, refused atomic.Int64
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			leave, ok := c.Enter("a", 3)
			if !ok {
				refused.Add(1)
				return
			}
			defer leave()
			for n := inside.Add(1); ; {
				if m := most.Load(); n <= m || most.CompareAndSwap(m, n) {
					break
				}
			}
			inside.Add(-1)
		})
	}
	all.Wait()
	if most.Load() > 3 {
		t.Errorf("%d were inside at once", most.Load())
	}
	var leave []func()
	for range 3 {
		l, ok := c.Enter("a", 3)
		if !ok {
			t.Fatalf("no room, though all have left (%d were refused)", refused.Load())
		}
		leave = append(leave, l)
	}
	if _, ok := c.Enter("a", 3); ok {
		t.Error("a fourth")
	}
	if _, ok := c.Enter("b", 1); !ok {
		t.Error("another party is refused")
	}
	leave[0]()
	if _, ok := c.Enter("a", 3); !ok {
		t.Error("who left has made no room")
	}
}
