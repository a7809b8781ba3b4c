package audit

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
)

// Log writes the log of this process. Make it with New, and let Run run.
type Log struct {
	Store  Store
	Sweeps Sweeps
	Now    func() time.Time
	Slog   *slog.Logger

	in chan *entry

	mu      sync.Mutex
	writers []string // guarded by mu: the chains that this process has written; the last is the current one
	queued  int      // guarded by mu: outcomes that are not durable yet
	closed  bool     // guarded by mu
	losses           // guarded by mu
	done    chan struct{}

	news // guarded by mu

	chain   chain    // owned by the writer goroutine, as is what follows
	backlog []*entry // outcomes whose append failed
}

// losses are what a database may have lost, or have kept against what it said.
type losses struct {
	open   map[CallID]struct{} // intents that were begun here and have no outcome yet
	cuts   []string            // chains of which the database has lost the end
	doubts []CallID            // the newest records that were acknowledged of chains that were left
	unsure []*entry            // intents of which it is not known whether they are on the disk; nothing was done about them
}

// news is what no checkpoint names yet.
type news struct {
	heads map[string]Head // of the chains that moved since take
	rows  int             // that came since take
	many  chan struct{}   // gets a value when rows are so many that a checkpoint is due
}

// chain is where one writer's rows go on.
type chain struct {
	writer string
	seq    int64
	prev   [32]byte
}

// entry is a record on its way to the disk. Whoever waits reads done once.
type entry struct {
	record Record
	id     CallID // set by the writer for intents and events
	done   chan error
}

const (
	maxBatch  = 256
	maxQueued = 1 << 16 // outcomes; beyond it nothing new begins
	maxUnsure = 4096
	linger    = 2 * time.Millisecond
	bearable  = 5 * time.Second // for one append; who comes while one fails waits for two, and hears of it before clients give up

	drainTime  = 5 * time.Second
	beatEvery  = 5 * time.Second
	deadAfter  = 30 * time.Second
	sweepBatch = 500
)

// New returns a log with a chain of its own. Nothing is written before Run runs.
func New(store Store, sweeps Sweeps, now func() time.Time, log *slog.Logger) (*Log, error) {
	l := &Log{Store: store, Sweeps: sweeps, Now: now, Slog: log, in: make(chan *entry, 4*maxBatch), done: make(chan struct{}),
		losses: losses{open: map[CallID]struct{}{}}, news: news{heads: map[string]Head{}, many: make(chan struct{}, 1)}}
	return l, l.newChain()
}

func (l *Log) newChain() error {
	id := make([]byte, 8)
	if _, err := rand.Read(id); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.chain = chain{writer: hex.EncodeToString(id)}
	l.writers = append(l.writers, l.chain.writer)
	return nil
}

// Begin writes an intent and returns once it is durable. If it errs, nothing may happen.
func (l *Log) Begin(ctx context.Context, r Record) (CallID, error) {
	r.Kind = KindIntent
	return l.write(ctx, r)
}

// Event writes something that needs no outcome, durably.
func (l *Log) Event(ctx context.Context, r Record) error {
	r.Kind = KindEvent
	_, err := l.write(ctx, r)
	return err
}

var errClosed = fault.New(fault.Unavailable, "the audit log is closed or full", nil)

func (l *Log) write(ctx context.Context, r Record) (CallID, error) {
	e := &entry{record: r, done: make(chan error, 1)}
	l.mu.Lock()
	open := !l.closed && l.queued < maxQueued
	l.mu.Unlock()
	if !open {
		return "", errClosed
	}
	select {
	case l.in <- e:
	case <-ctx.Done():
		return "", fault.New(fault.Unavailable, "the audit log is too slow", ctx.Err())
	case <-l.done:
		return "", errClosed
	}
	// From here on the entry may become durable, so its fate is waited for whatever the caller's context says: an intent
	// whose caller went away would have no outcome.
	select {
	case err := <-e.done:
		return l.opened(e), err
	case <-l.done:
		select {
		case err := <-e.done:
			return l.opened(e), err
		default:
			return "", errClosed
		}
	}
}

// opened notes what is open here: what came of the others of its chain was lost, where the chain is.
func (l *Log) opened(e *entry) CallID {
	if e.record.Kind == KindIntent {
		l.mu.Lock()
		l.open[e.id] = struct{}{}
		l.mu.Unlock()
	}
	return e.id
}

// End queues the outcome of an intent. It is written while the process lives; if the process dies first, a sweeper writes
// `unknown`. The first outcome of an intent counts.
func (l *Log) End(_ context.Context, id CallID, r Record) {
	r.Kind, r.Call = KindOutcome, id
	l.mu.Lock()
	l.queued++
	delete(l.open, id)
	l.mu.Unlock()
	select {
	case l.in <- &entry{record: r}:
	case <-l.done:
		l.Slog.Error("an outcome came after the audit log was closed; it will be recorded as unknown", "call", id)
	}
}

// Queued is how many outcomes are not durable yet.
func (l *Log) Queued() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.queued
}

// Writers are the chains that this process has written.
func (l *Log) Writers() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.writers)
}

// Unfinished returns an intent of another process that has no outcome yet; else fault.NotFound. Of this process's own intents
// it knows nothing: whoever began them knows whether they are open, and their outcomes reach the disk a moment later.
func (l *Log) Unfinished(ctx context.Context, id CallID) (Record, error) {
	writer, _, err := id.parse()
	if err != nil || slices.Contains(l.Writers(), writer) {
		return Record{}, fault.New(fault.NotFound, "there is no such call", err)
	}
	row, err := l.Store.Intent(ctx, id)
	if err != nil {
		return Record{}, err
	}
	ended, err := l.Sweeps.Ended(ctx, id)
	if err != nil {
		return Record{}, err
	}
	if ended {
		return Record{}, fault.New(fault.NotFound, "the call has ended", nil)
	}
	var r Record
	err = json.Unmarshal(row.Record, &r)
	return r, err
}

// parse splits an id into writer and position.
func (id CallID) parse() (writer string, seq int64, err error) {
	writer, n, ok := strings.Cut(string(id), ".")
	if !ok || len(writer) != 16 {
		return "", 0, fmt.Errorf("not a call id")
	}
	if seq, err = strconv.ParseInt(n, 16, 64); err != nil || seq < 1 {
		return "", 0, fmt.Errorf("not a call id")
	}
	return writer, seq, nil
}

func callID(writer string, seq int64) CallID {
	return CallID(writer + "." + strconv.FormatInt(seq, 16))
}

// Run writes until ctx ends, then what is queued, at most a few seconds. It keeps this process's chains alive, and closes
// as unknown what dead ones left open.
func (l *Log) Run(ctx context.Context) error {
	defer close(l.done)
	sweeping, stop := context.WithCancel(ctx)
	defer stop()
	var chores sync.WaitGroup
	chores.Go(func() { l.sweep(sweeping) })
	defer chores.Wait()
	for {
		select {
		case <-ctx.Done():
			l.mu.Lock()
			l.closed = true
			l.mu.Unlock()
			return l.drain(context.WithoutCancel(ctx))
		case e := <-l.in:
			l.append(context.WithoutCancel(ctx), l.gather(e))
		case <-l.retry():
			l.append(context.WithoutCancel(ctx), nil)
		}
	}
}

// retry fires a while after an append failed, so that outcomes are written even if nothing else happens.
func (l *Log) retry() <-chan time.Time {
	if len(l.backlog) == 0 {
		return nil
	}
	return time.After(250 * time.Millisecond)
}

// gather takes everything that waits already. Where somebody waits for it to be durable, it does not wait for more, which would
// only slow down a single caller. Outcomes, for which nobody waits, are held for a moment, so that the next intent does not have
// to wait for a sync of theirs: they share its own.
func (l *Log) gather(first *entry) []*entry {
	runtime.Gosched() // those who are about to ask come first, which costs nothing where there are none
	batch, waited := append(make([]*entry, 0, 32), first), first.done != nil
	var over <-chan time.Time
	for len(batch) < maxBatch {
		select {
		case e := <-l.in:
			batch, waited = append(batch, e), waited || e.done != nil
			continue
		default:
		}
		if waited {
			break
		}
		if over == nil {
			over = time.After(linger)
		}
		select {
		case e := <-l.in:
			batch, waited = append(batch, e), waited || e.done != nil
		case <-over:
			return batch
		}
	}
	return batch
}

// drain writes what is queued when the process stops.
func (l *Log) drain(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, drainTime)
	defer cancel()
	for ctx.Err() == nil {
		select {
		case e := <-l.in:
			l.append(ctx, l.gather(e))
		default:
			if len(l.backlog) == 0 {
				return nil
			}
			l.append(ctx, nil)
		}
	}
	return fmt.Errorf("%d outcomes could not be written at stop; they will be recorded as unknown", len(l.backlog))
}

// append writes one batch. If that fails, nobody knows whether it is on the disk: those who wait are told no, outcomes are
// kept, and the chain goes on under a new writer, so that no position can be written twice.
func (l *Log) append(ctx context.Context, batch []*entry) {
	all := append(l.backlog, batch...)
	ctx, cancel := context.WithTimeout(ctx, bearable)
	defer cancel()
	rows, next, err := l.store(ctx, all)
	if errors.Is(err, ErrCut) { // nothing was written, so all of it can go on elsewhere
		all = append([]*entry{l.cut(callID(l.chain.writer, l.chain.seq))}, all...)
		if err = l.newChain(); err == nil {
			rows, next, err = l.store(ctx, all)
		}
	}
	if err == nil {
		l.chain, l.backlog = next, nil
		l.moved(len(rows))
	} else {
		l.Slog.Error("the audit log could not be written", "rows", len(rows), "error", err)
		l.doubt()
		if cerr := l.newChain(); cerr != nil {
			err = errors.Join(err, cerr)
		}
		l.backlog = nil
	}
	outcomes := 0
	for _, e := range all {
		switch {
		case e.done != nil:
			if err != nil && e.record.Kind == KindIntent {
				l.mu.Lock()
				if len(l.unsure) < maxUnsure { // those that come later find no connection
					l.unsure = append(l.unsure, e)
				}
				l.mu.Unlock()
			}
			e.done <- err
		case err == nil:
			outcomes++
		default:
			l.backlog = append(l.backlog, e)
		}
	}
	if outcomes > 0 {
		l.mu.Lock()
		l.queued -= outcomes
		l.mu.Unlock()
	}
}

// store appends entries to the current chain, and returns where it stands then.
func (l *Log) store(ctx context.Context, all []*entry) ([]Row, chain, error) {
	rows, next := make([]Row, len(all)), l.chain
	for i, e := range all {
		rows[i] = next.row(e)
	}
	return rows, next, l.Store.Append(ctx, rows)
}

// doubt notes how far the current chain was acknowledged, as it is left: what follows it would show whether that is still there.
func (l *Log) doubt() {
	if l.chain.seq == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.doubts = append(l.doubts, callID(l.chain.writer, l.chain.seq))
}

// settleUnsure gives an outcome to intents that are on the disk after all, though whoever began them was told that they are not.
func (l *Log) settleUnsure(ctx context.Context) error {
	l.mu.Lock()
	unsure := l.unsure
	l.unsure = nil
	l.mu.Unlock()
	for i, e := range unsure {
		there, err := l.Sweeps.There(ctx, e.id)
		if err != nil {
			l.mu.Lock()
			l.unsure = append(unsure[i:], l.unsure...)
			l.mu.Unlock()
			return err
		}
		if there {
			r := e.record
			r.Time, r.Result, r.Detail = l.Now(), ResultFailed, "nothing was done: that this was recorded was not known in time"
			l.End(ctx, e.id, r)
		}
	}
	return nil
}

// settleDoubts looks whether chains that were left still reach as far as was acknowledged.
func (l *Log) settleDoubts(ctx context.Context) error {
	if err := l.settleUnsure(ctx); err != nil {
		return err
	}
	l.mu.Lock()
	doubts := l.doubts
	l.doubts = nil
	l.mu.Unlock()
	for i, id := range doubts {
		there, err := l.Sweeps.There(ctx, id)
		if err != nil {
			l.mu.Lock()
			l.doubts = append(doubts[i:], l.doubts...)
			l.mu.Unlock()
			return err
		}
		if there {
			continue
		}
		select {
		case l.in <- l.cut(id):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// cut is what the log says where the database has lost the end of a chain that this process wrote. It is an entry like
// others: where it cannot be written it is tried again.
func (l *Log) cut(lost CallID) *entry {
	l.Slog.Error("the database has lost records of the audit log that it had acknowledged: a standby took over that had not got them; `frontdesk audit verify` says which, and `frontdesk audit accept` signs that it is known", "newest", lost)
	writer, _, _ := strings.Cut(string(lost), ".")
	l.mu.Lock()
	l.queued++
	l.cuts = append(l.cuts, writer)
	l.mu.Unlock()
	return &entry{record: Record{Kind: KindEvent, Time: l.Now(), Tenant: identity.DefaultTenant, Action: actionShorter, Call: lost, Result: ResultFailed,
		Detail: "the database lost what it had acknowledged of this chain, up to this record: a standby took over that had not got it"}}
}

// moved notes where the current chain stands, for checkpoints.
func (l *Log) moved(rows int) {
	if rows == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.heads[l.chain.writer] = Head{l.chain.writer, l.chain.seq, l.chain.prev}
	if l.rows += rows; l.rows >= checkpointRows {
		select {
		case l.many <- struct{}{}:
		default:
		}
	}
}

// take returns the heads of the chains that moved since it was called last.
func (l *Log) take() []Head {
	l.mu.Lock()
	defer l.mu.Unlock()
	moved := slices.Collect(maps.Values(l.heads))
	clear(l.heads)
	l.rows = 0
	return moved
}

// row takes the next position of the chain.
func (c *chain) row(e *entry) Row {
	c.seq++
	r := e.record
	if r.Kind != KindOutcome {
		e.id = callID(c.writer, c.seq)
	}
	if r.Kind == KindIntent {
		r.Call = e.id
	}
	r.Time = r.Time.UTC().Truncate(time.Microsecond)
	row := Row{Writer: c.writer, Seq: c.seq, Tenant: r.Tenant, User: r.User, Kind: r.Kind, Call: r.Call, Time: r.Time, Record: r.appendJSON(make([]byte, 0, 640))}
	c.prev = link(c.writer, c.seq, c.prev, row.Record)
	row.Hash = slices.Clone(c.prev[:])
	return row
}

// sweep beats for this process's chains, and ends what dead ones left.
func (l *Log) sweep(ctx context.Context) {
	tick := time.NewTicker(beatEvery)
	defer tick.Stop()
	for {
		if err := l.sweepOnce(ctx); err != nil && ctx.Err() == nil {
			l.Slog.Warn("calls that a dead process left open could not be closed; trying again", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (l *Log) sweepOnce(ctx context.Context) error {
	l.mu.Lock()
	own := slices.Clone(l.writers)
	l.mu.Unlock()
	now := l.Now()
	for _, w := range own {
		if err := l.Sweeps.Beat(ctx, w, now); err != nil {
			return err
		}
	}
	if err := l.settleDoubts(ctx); err != nil {
		return err
	}
	for {
		l.mu.Lock()
		cuts := slices.Clone(l.cuts)
		l.mu.Unlock()
		rows, err := l.Sweeps.Unfinished(ctx, now.Add(-deadAfter), cuts, sweepBatch)
		if err != nil || len(rows) == 0 {
			return err
		}
		full := len(rows) == sweepBatch
		if rows = slices.DeleteFunc(rows, func(r Row) bool { return l.alive(r, own, cuts) }); len(rows) == 0 {
			return nil
		}
		if err := l.closeUnknown(ctx, rows, cuts); err != nil || !full {
			return err
		}
	}
}

// alive reports whether this process will still say what came of an intent.
func (l *Log) alive(r Row, own, cuts []string) bool {
	l.mu.Lock()
	_, open := l.open[r.Call]
	l.mu.Unlock()
	return open || slices.Contains(own, r.Writer) && !slices.Contains(cuts, r.Writer)
}

// closeUnknown closes intents of which nobody will say any more what came of them. It waits until they are durable, so that the same
// are not found again.
func (l *Log) closeUnknown(ctx context.Context, rows []Row, cuts []string) error {
	last := len(rows) - 1
	for i, row := range rows {
		var r Record
		if err := json.Unmarshal(row.Record, &r); err != nil {
			return err
		}
		r.Kind, r.Call, r.Time, r.Result, r.Detail = KindOutcome, row.Call, l.Now(), ResultUnknown, "the process that did this ended before it could say what came of it"
		if slices.Contains(cuts, row.Writer) {
			r.Detail = "the database has lost what was recorded of it"
		}
		e := &entry{record: r}
		if i == last {
			e.done = make(chan error, 1)
		} else {
			l.mu.Lock()
			l.queued++
			l.mu.Unlock()
		}
		select {
		case l.in <- e:
		case <-ctx.Done():
			return ctx.Err()
		}
		if e.done == nil {
			continue
		}
		select {
		case err := <-e.done:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// Gap is a chain of one event, for a log that goes on elsewhere than it was written: what happened in between is not in it.
func Gap(r Record) (Row, error) {
	id := make([]byte, 8)
	if _, err := rand.Read(id); err != nil {
		return Row{}, err
	}
	r.Kind = KindEvent
	return (&chain{writer: hex.EncodeToString(id)}).row(&entry{record: r}), nil
}
