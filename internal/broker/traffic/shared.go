package traffic

import (
	"context"
	"time"

	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/identity"
)

// Shared is what replicas share (store.DB).
type Shared interface {
	// Draw takes from a bucket that all replicas share, as it stands by the database's clock: what is owed in any case, and of what is
	// left as much as is wanted. got 0: there is nothing, and there will be something after wait.
	Draw(ctx context.Context, w Draw) (got int64, wait time.Duration, err error)
	// Say makes words known, all or none. Of words about the same the one with the later end counts, and of those with the same end the
	// greater number.
	Say(ctx context.Context, l []Word) error
	// Said returns the words since a number, in order; 0: all that still count.
	Said(ctx context.Context, since int64) ([]Word, error)
}

// Draw is a draw from a shared bucket. A bucket that nobody drew from is full.
type Draw struct {
	Tenant    identity.Tenant
	Name      string
	PerMinute int64 // what it holds, and what it fills by
	Want      int64
	Owed      int64 // was used already
}

// Word is what one replica says to the others of a vendor's quota.
type Word struct {
	Seq      int64 // given by the store
	Tenant   identity.Tenant
	Upstream catalog.UpstreamName
	Who      string // "" for everybody
	Part     string // of the API
	Replica  string // whose count it is; "": the vendor wants no more requests
	Used     int64  // requests of Who that Replica sent since the quota was renewed
	Until    time.Time
}

// tellEvery is how often replicas tell each other what has changed.
const tellEvery = 500 * time.Millisecond

// Run tells the other replicas and hears them, until ctx ends. Nothing to do where none share anything.
func (d *Door) Run(ctx context.Context) error {
	if d.Shared == nil {
		return nil
	}
	d.waiting.mu.Lock()
	d.waiting.news = map[window]bool{}
	d.waiting.mu.Unlock()
	tick := time.NewTicker(tellEvery)
	defer tick.Stop()
	var heard int64
	failing := false
	for {
		err := d.tell(ctx)
		if err == nil {
			heard, err = d.hear(ctx, heard)
		}
		if err != nil && !failing && ctx.Err() == nil {
			d.Log.Warn("what vendors say of their quotas cannot be shared between replicas; each goes by what it sees itself", "error", err)
		}
		failing = err != nil
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// tell says what is new here. What cannot be said is said later.
func (d *Door) tell(ctx context.Context) error {
	l, about := d.waiting.words(d.Replica, d.Now())
	if len(l) == 0 {
		return nil
	}
	err := d.Shared.Say(ctx, l)
	if err != nil {
		d.waiting.mu.Lock()
		defer d.waiting.mu.Unlock()
		for at := range about {
			d.waiting.told(at)
		}
	}
	return err
}

func (d *Door) hear(ctx context.Context, since int64) (int64, error) {
	l, err := d.Shared.Said(ctx, since)
	for _, w := range l {
		d.waiting.hear(w, d.Replica, d.Now())
		since = max(since, w.Seq)
	}
	return since, err
}

// words are the news, as others are told them, and what they are about.
func (w *waiting) words(replica string, now time.Time) (l []Word, about map[window]bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for at := range w.news {
		say := Word{Tenant: at.tenant, Upstream: at.up, Who: at.who, Part: at.part}
		if until, ok := w.closed[at]; ok && now.Before(until) {
			say.Until = until
			l = append(l, say)
		}
		if t := w.taken[at]; t != nil && now.Before(t.until) && t.here > 0 {
			say.Replica, say.Used, say.Until = replica, t.here, t.until
			l = append(l, say)
		}
	}
	about, w.news = w.news, map[window]bool{}
	return l, about
}

// hear takes another replica's word.
func (w *waiting) hear(say Word, own string, now time.Time) {
	if say.Replica == own || !now.Before(say.Until) {
		return
	}
	until := earlier(say.Until, now.Add(longest))
	at := window{say.Tenant, say.Upstream, say.Who, say.Part}
	w.mu.Lock()
	defer w.mu.Unlock()
	if say.Replica != "" {
		w.of(at, until, now).elsewhere[say.Replica] = say.Used
		return
	}
	if until.After(w.closed[at]) {
		w.closed = put(w.closed, at, until, func(t time.Time) bool { return !now.Before(t) })
	}
}
