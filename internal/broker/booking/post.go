package booking

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"iter"
	"log/slog"
	"slices"
	"strings"
	"time"

	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/identity"
)

// Post carries, between processes over one database, what one finds out about an API request of a call that is open in another. All
// fields are required.
type Post struct {
	Notes Notes
	Acts  Acts
	Own   func() []string // the chains of this process's log (audit.Log.Writers): an act of another one is open elsewhere
	Log   *slog.Logger
}

// Note is for the process whose chain the call's id names.
type Note struct {
	ID      string
	Writer  string
	Call    audit.CallID
	Missing []catalog.Missing
	Hint    string
	Sent    time.Time
}

// Notes keeps notes until they are taken (store.DB).
type Notes interface {
	// PutNote keeps a note, and wakes other processes.
	PutNote(ctx context.Context, n Note) error
	// NotesFor are those for a chain, oldest first.
	NotesFor(ctx context.Context, writer string) ([]Note, error)
	// DropNote removes one that was taken.
	DropNote(ctx context.Context, id string) error
	// NoteWaits reports whether it was not taken yet.
	NoteWaits(ctx context.Context, id string) (bool, error)
}

// Acts looks into the log (audit.Store).
type Acts interface {
	Rows(ctx context.Context, q audit.Query) ([]audit.Row, error)
}

const (
	lookEvery = 500 * time.Millisecond // where nothing wakes us
	takenIn   = 1500 * time.Millisecond
	logTime   = 5 * time.Second
)

// Run takes what other processes found out, until ctx ends. A wake makes it look at once.
func (b *Book) Run(ctx context.Context, wake <-chan struct{}) error {
	if b.Post == nil {
		return nil
	}
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	failing := false
	for {
		err := b.take(ctx)
		if err != nil && !failing && ctx.Err() == nil {
			b.Post.Log.Warn("what API requests of open calls were refused for at other replicas cannot be read; it waits in the portal", "error", err)
		}
		failing = err != nil
		select {
		case <-ctx.Done():
			return nil
		case <-wake:
		case <-tick.C:
		}
	}
}

// take books each note before it drops it: that it is gone tells its sender that it counts.
func (b *Book) take(ctx context.Context) error {
	for _, w := range b.Post.Own() {
		l, err := b.Post.Notes.NotesFor(ctx, w)
		if err != nil {
			return err
		}
		for _, n := range l {
			if e := b.Get(n.Call); e != nil {
				e.note(n.Missing, n.Hint)
			}
			if err := b.Post.Notes.DropNote(ctx, n.ID); err != nil {
				return err
			}
		}
	}
	return nil
}

// send tells the process where the call is open, and waits until it knows: the server may answer its call as soon as its own request
// is answered. If that process does not take it in time, it is gone, or the question waits in the portal.
func (p *Post) send(call audit.CallID, missing []catalog.Missing, hint string) {
	writer, _, ok := strings.Cut(string(call), ".")
	if p == nil || !ok || slices.Contains(p.Own(), writer) { // of ours, and over
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), takenIn)
	defer cancel()
	n := Note{ID: rand.Text(), Writer: writer, Call: call, Missing: missing, Hint: hint, Sent: time.Now()}
	if err := p.Notes.PutNote(ctx, n); err != nil {
		p.Log.Warn("another replica could not be told of a refused API request; it waits in the portal", "error", err)
		return
	}
	for pause := 2 * time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		if waits, err := p.Notes.NoteWaits(ctx, n.ID); err != nil || !waits {
			return
		}
	}
}

// onlyCall is the call of a session that is open, at whichever replica, by the log; "" where there is none, or several. What ended a moment ago
// looks open until its outcome is in the log, so it is looked for again.
func (p *Post) onlyCall(on Booked) (call audit.CallID) {
	if on.Caller.User == "" {
		return ""
	}
	p.look(on.Caller, on.Since, "which call an API request belongs to", func(rows []audit.Row) bool {
		var open []audit.CallID
		for r, o := range intents(rows) {
			if o == nil && r.Action == actionCall && r.Session == string(on.Call) {
				open = append(open, r.Call)
			}
		}
		if call = ""; len(open) == 1 {
			call = open[0]
		}
		return len(open) < 2
	})
	return call
}

// actionCall is what an intent is of, as the broker writes it, that answers somebody who can be asked.
const actionCall = "call"

// succeeded reports whether an API request of the act succeeded at another replica, by the log. Those that are booked on its session count
// where they came since it began, by the clocks of both replicas. What cannot be found out counts as a success: then the server's own answer passes.
func (p *Post) succeeded(e *Entry, session audit.CallID) bool {
	if e.Caller.User == "" {
		return false // who is no person is served by one replica alone (Elsewhere)
	}
	yes, own := false, p.Own()
	known := p.look(e.Caller, e.begun.Add(-time.Minute), "whether an API request succeeded at another replica", func(rows []audit.Row) bool {
		open := false
		for r, o := range intents(rows) {
			of := r.Parent == e.Call || session != "" && r.Parent == session && !r.Time.Before(e.begun)
			if writer, _, _ := strings.Cut(string(r.Call), "."); !of || slices.Contains(own, writer) {
				continue // those of ours were counted
			}
			open = open || o == nil
			yes = yes || o != nil && o.Result == audit.ResultOK
		}
		return yes || !open
	})
	return yes || !known
}

// look reads what a person did since, until f has found what it looks for: an outcome reaches the log a moment after its answer has reached
// the server. False: it could not be read, or f found nothing.
func (p *Post) look(c *identity.Caller, since time.Time, what string, f func([]audit.Row) bool) bool {
	ctx, cancel := context.WithTimeout(context.Background(), logTime)
	defer cancel()
	for range 5 {
		rows, err := p.Acts.Rows(ctx, audit.Query{Tenant: c.Tenant, User: c.User, Since: since, Limit: 1000})
		if err != nil {
			p.Log.Warn(what+" cannot be read", "error", err)
			return false
		}
		if f(rows) {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(40 * time.Millisecond):
		}
	}
	return false
}

// intents are those among rows, each with the outcome that it has.
func intents(rows []audit.Row) iter.Seq2[*audit.Record, *audit.Record] {
	return func(yield func(r, o *audit.Record) bool) {
		for i, row := range rows {
			r, o := &audit.Record{}, &audit.Record{}
			if row.Kind != audit.KindIntent || json.Unmarshal(row.Record, r) != nil {
				continue
			}
			if i+1 == len(rows) || rows[i+1].Kind != audit.KindOutcome || json.Unmarshal(rows[i+1].Record, o) != nil {
				o = nil
			}
			if !yield(r, o) {
				return
			}
		}
	}
}
