package remote

import (
	"context"
	"time"

	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/internal/broker"
	"frontdesk.dev/frontdesk/internal/kit/fault"
)

var errStopping = fault.Later("the broker's process is stopping; try again in a moment", 5*time.Second, nil)

// Drain lets what runs end before the listener is closed: gateways that know other brokers go there, then no call begins any more, and those
// that run get their API requests and their outcome. When none is open, or ctx ends, it ends what would never end by itself.
func (s *Server) Drain(ctx context.Context) {
	defer s.leave(ctx)
	var told <-chan time.Time = time.After(0)
	if s.table.stop() {
		told = time.After(aliveEvery + time.Second) // each has asked by then
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-told:
			s.table.fill()
			told = nil
		case <-tick.C:
		}
		if told == nil && len(s.table.open(false)) == 0 {
			return
		}
	}
}

// leave ends sessions, streams and processes.
func (s *Server) leave(ctx context.Context) {
	for _, h := range s.table.open(true) {
		s.close(ctx, h, broker.Outcome{Result: audit.ResultOK, Detail: "Frontdesk was stopped"})
	}
}

// present notes whether a gateway's process knows other brokers, and says whether it is to go there.
func (t *table) present(p peer, others bool) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.roams[p] = others
	return t.stops
}

// stop sends gateways elsewhere; it reports whether there is one that can go.
func (t *table) stop() (some bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.stops = true
	for _, others := range t.roams {
		some = some || others
	}
	return some
}

func (t *table) fill() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.full = true
}

// begins reports whether an act may begin. API requests of calls that run may.
func (t *table) begins(k broker.Kind) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return !t.full || k == broker.KindAPI
}

// open are the leases that are, or are not, of acts without an end.
func (t *table) open(without bool) (l []*held) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, h := range t.leases {
		if endless(h.act.Kind) == without {
			l = append(l, h)
		}
	}
	return l
}

// endless reports that an act lasts until somebody ends it.
func endless(k broker.Kind) bool {
	return k == broker.KindSession || k == broker.KindStream || k == broker.KindProcess
}
