package main

import (
	"fmt"
	"time"
)

// storedRow is what a big organisation costs: the same ten people call, of 10 and of 100,000 who are stored.
func storedRow(b *bench) error {
	opened := len(b.closers)
	api, err := b.start("api")
	if err != nil {
		return err
	}
	var ways []way
	for _, stored := range []int{10, 100_000} {
		_, w, err := b.deskWay("fetch", "http://"+api.addr, stored, 10)
		if err != nil {
			return err
		}
		w.name = fmt.Sprintf("%d users", stored)
		ways = append(ways, w)
	}
	all, err := b.race(ways, 32, b.times(5, 11), 2*time.Second)
	if err != nil {
		return err
	}
	table(32, ways, all, 0)
	for _, w := range ways {
		if err := w.desk.settle(b.ctx); err != nil {
			return err
		}
	}
	if r := ratio(all[1], all[0], gatewayCPU); r > mayDiffer {
		return fmt.Errorf("with 100,000 stored users a call costs %.2f times the CPU that it costs with 10", r)
	}
	return b.closeDownTo(opened)
}

// mayDiffer is more than noise between two processes that do the same: what grows with the number of users grows by thousands.
const mayDiffer = 1.15
