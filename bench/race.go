package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"text/tabwriter"
	"time"
)

// way is one of the ways that a call can take in a race.
type way struct {
	name      string
	tool      string
	addr      string
	dial      func() (net.Conn, error) // in place of addr, where a connection needs more than that
	exchanges []exchange
	gateway   []int // processes in between, whose CPU and memory are counted
	server    []int // and those behind
	desk      *desk // where it is Frontdesk that is in between
}

// figures are of one way in one round.
type figures struct {
	rate             float64
	p50, p99         time.Duration
	gateway, backend time.Duration // CPU a call
	whole            time.Duration // with the load's own
	others           float64       // cores that nobody of ours used, and that were not idle
	resident         int64
}

// race runs the ways in turn, round after round, each for so long. figures[way][round].
func (b *bench) race(ways []way, conns, rounds int, length time.Duration) ([][]figures, error) {
	all := make([][]figures, len(ways))
	for round := range rounds {
		for k := range ways {
			i := (k + round) % len(ways) // nobody always comes after the same one
			f, err := b.lap(ways[i], conns, length)
			if err != nil {
				return nil, fmt.Errorf("%s, %d connections: %w", ways[i].name, conns, err)
			}
			all[i] = append(all[i], f)
		}
	}
	return all, nil
}

// reading is what the clocks of the processes said at one moment.
type reading struct {
	gateway, backend, self, machine time.Duration
}

func (w way) read() (r reading, err error) {
	if r.gateway, err = sumOf(w.gateway, cpu); err != nil {
		return r, err
	}
	if r.backend, err = sumOf(w.server, cpu); err != nil {
		return r, err
	}
	r.machine, r.self, err = spent()
	return r, err
}

func (b *bench) lap(w way, conns int, length time.Duration) (figures, error) {
	var from, to reading
	var err, err2 error
	l := load{addr: w.addr, dial: w.dial, exchanges: w.exchanges, conns: conns, warm: length / 4, length: length}
	r, lerr := l.drive(b.ctx, func() { from, err = w.read() }, func() { to, err2 = w.read() })
	if w.desk != nil {
		w.desk.sent(r.all, w.tool)
	}
	if err := errors.Join(lerr, err, err2); err != nil {
		return figures{}, err
	}
	f := figures{rate: r.rate(), p50: r.percentile(0.5), p99: r.percentile(0.99)}
	gateway, backend, self := to.gateway-from.gateway, to.backend-from.backend, to.self-from.self
	if calls := time.Duration(r.calls); calls > 0 {
		f.gateway, f.backend, f.whole = gateway/calls, backend/calls, (gateway+backend+self)/calls
	}
	f.others = max(0, (to.machine-from.machine-gateway-backend-self).Seconds()/r.took.Seconds())
	f.resident, err = sumOf(w.gateway, resident)
	return f, err
}

// median of the rounds, of one figure.
func median[T float64 | time.Duration | int64](rounds []figures, of func(figures) T) T {
	l := make([]T, len(rounds))
	for i, f := range rounds {
		l[i] = of(f)
	}
	slices.Sort(l)
	return l[len(l)/2]
}

// ratio is the median of the paired rounds' quotients: each round's two were neighbours in time.
func ratio[T float64 | time.Duration](of, by []figures, what func(figures) T) float64 {
	l := make([]float64, len(of))
	for i := range of {
		l[i] = float64(what(of[i])) / float64(what(by[i]))
	}
	slices.Sort(l)
	return l[len(l)/2]
}

func rate(f figures) float64             { return f.rate }
func whole(f figures) time.Duration      { return f.whole }
func gatewayCPU(f figures) time.Duration { return f.gateway }

// table prints what was raced; bare is the way that the others are measured by.
func table(conns int, ways []way, all [][]figures, bare int) {
	t := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(t, "%d conn.\tcalls/s\tof %s\tp50 ms\tp99 ms\tCPU µs a call\tof %s\tserver µs\tresident MB\t\n", conns, ways[bare].name, ways[bare].name)
	for i, w := range ways {
		f := all[i]
		fmt.Fprintf(t, "%s\t%.0f\t%.2f\t%s\t%s\t%s\t%s\t%s\t%s\t\n", w.name, median(f, rate), ratio(f, all[bare], rate),
			ms(median(f, func(f figures) time.Duration { return f.p50 })), ms(median(f, func(f figures) time.Duration { return f.p99 })),
			us(median(f, gatewayCPU)), of(ratio(f, all[bare], gatewayCPU)), us(median(f, func(f figures) time.Duration { return f.backend })), mb(median(f, func(f figures) int64 { return f.resident })))
	}
	_ = t.Flush()
	var others []figures
	for _, f := range all {
		others = append(others, f...)
	}
	if busy := median(others, func(f figures) float64 { return f.others }); busy > 0.1 {
		fmt.Printf("(others kept %.1f of the cores busy meanwhile, and whoever waits for a disk waits for them too: read CPU)\n", busy)
	}
}

func ms(d time.Duration) string { return fmt.Sprintf("%.2f", float64(d)/1e6) }

func us(d time.Duration) string {
	if d == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f", float64(d)/1e3)
}

func of(r float64) string {
	if r == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f", r)
}

func mb(n int64) string {
	if n == 0 {
		return "-"
	}
	return fmt.Sprintf("%.0f", float64(n)/(1<<20))
}
