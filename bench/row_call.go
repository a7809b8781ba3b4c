package main

import (
	"fmt"
	"time"
)

// callRow is the call that all is about: the server acts by itself, so what is measured is the way in.
func callRow(b *bench) error {
	r, err := b.raceTool("echo", map[int]int{1: b.times(3, 7), 32: b.times(5, 11), 256: b.times(3, 7)})
	b.ratio = r
	return err
}

// raceTool races one tool at each number of connections for so many rounds; the ratio of calls/s at 32 is returned.
func (b *bench) raceTool(tool string, rounds map[int]int) (float64, error) {
	opened := len(b.closers)
	w, err := b.ways(tool, callers, callers)
	if err != nil {
		return 0, err
	}
	ways := []way{w.direct, w.bare, w.through}
	var at32 float64
	for _, conns := range []int{1, 32, 256} {
		if rounds[conns] == 0 {
			continue
		}
		all, err := b.race(ways, conns, rounds[conns], 2*time.Second)
		if err != nil {
			return 0, err
		}
		table(conns, ways, all, 1)
		if conns == 32 {
			at32 = ratio(all[2], all[1], rate)
			fmt.Printf("by CPU alone, with server and load: %.2f of the bare proxy's calls\n", ratio(all[1], all[2], whole))
		}
	}
	if err := w.desk.settle(b.ctx); err != nil {
		return 0, err
	}
	return at32, b.closeDownTo(opened)
}
