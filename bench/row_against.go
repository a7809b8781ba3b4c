package main

import (
	"errors"
	"strconv"
	"strings"
	"time"
)

// againstRow races two builds of Frontdesk, so that a change is known by what it gains and not by what it should:
//
//	bench -rows against -against old/frontdesk [-tool fetch] [-conns 1,32]
func againstRow(b *bench) error {
	if b.against == "" {
		return errors.New("say which build with -against")
	}
	opened := len(b.closers)
	api, err := b.start("api")
	if err != nil {
		return err
	}
	var ways []way
	for _, build := range []struct{ name, binary string }{{"the other", b.against}, {"this", b.binary}} {
		mine := *b
		mine.binary = build.binary
		_, w, err := mine.deskWay(b.tool, "http://"+api.addr, callers, callers)
		b.closers = mine.closers
		if err != nil {
			return err
		}
		w.name = build.name
		ways = append(ways, w)
	}
	for n := range strings.SplitSeq(b.conns, ",") {
		conns, err := strconv.Atoi(n)
		if err != nil {
			return err
		}
		all, err := b.race(ways, conns, b.times(7, 21), 1500*time.Millisecond)
		if err != nil {
			return err
		}
		table(conns, ways, all, 0)
	}
	for _, w := range ways {
		if err := w.desk.settle(b.ctx); err != nil {
			return err
		}
	}
	return b.closeDownTo(opened)
}
