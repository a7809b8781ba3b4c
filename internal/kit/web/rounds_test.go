package web_test

import (
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"frontdesk.dev/frontdesk/internal/kit/web"
)

// TestRounds: what may not go on is ended once, and nothing else is; what has stopped is not asked any more.
func TestRounds(t *testing.T) {
	rounds := web.Rounds{Every: time.Millisecond}
	const n = 300
	var asked, ended [n]atomic.Int64
	var valid [n]atomic.Bool
	var stops [n]func()
	var over sync.WaitGroup
	for i := range n {
		valid[i].Store(true)
		if i%3 == 0 {
			over.Add(1)
		}
		stops[i] = rounds.Visit(func() bool { asked[i].Add(1); return valid[i].Load() }, func() {
			ended[i].Add(1)
			over.Done()
		})
	}
	for i := range n {
		until(t, func() bool { return asked[i].Load() > 0 })
	}
	for i := range n {
		switch i % 3 {
		case 0:
			valid[i].Store(false)
		case 1:
			stops[i]()
		}
	}
	over.Wait()
	// Whoever goes on is asked two more times: by then a round is over that began after all this.
	last := asked[2].Load()
	before := asked[1].Load()
	until(t, func() bool { return asked[2].Load() >= last+3 })
	for i := range n {
		want := int64(0)
		if i%3 == 0 {
			want = 1
		}
		if ended[i].Load() != want {
			t.Errorf("%d was ended %d times, want %d", i, ended[i].Load(), want)
		}
		stops[i]()
		stops[i]() // for those that have ended, and twice, it is nothing
	}
	if asked[1].Load() > before+1 {
		t.Error("one that had stopped was asked")
	}
}

// TestRoundsBeginAgain: after nothing was open, what comes is asked again.
func TestRoundsBeginAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var rounds web.Rounds
		for range 3 {
			ended := make(chan struct{})
			rounds.Visit(func() bool { return false }, func() { close(ended) })
			<-ended
			time.Sleep(time.Minute) // within the bubble that is long enough for the goroutine to leave
		}
	})
}

// until waits for what goes on elsewhere.
func until(t *testing.T, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it does not come to that")
		}
	}
}
