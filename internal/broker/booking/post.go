package booking

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"log/slog"
	"slices"
	"strings"
	"time"

	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/internal/catalog"
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
			if e := b.Get(b.InSession(n.Call)); e != nil {
				e.note(n.Missing, n.Hint, true)
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

// succeeded reports whether an API request of the act succeeded at any replica, by the log. What cannot be found out counts as a success:
// then the server's own answer passes.
func (p *Post) succeeded(e *Entry) bool {
	ctx, cancel := context.WithTimeout(context.Background(), logTime)
	defer cancel()
	for range 5 {
		rows, err := p.Acts.Rows(ctx, audit.Query{Tenant: e.Caller.Tenant, User: e.Caller.User, Since: e.begun.Add(-time.Minute), Limit: 1000})
		if err != nil {
			p.Log.Warn("whether an API request succeeded at another replica cannot be read", "error", err)
			return true
		}
		yes, open := outcomes(rows, e.Call)
		if yes || !open {
			return yes
		}
		select { // an outcome reaches the log a moment after its answer has reached the server
		case <-ctx.Done():
			return true
		case <-time.After(40 * time.Millisecond):
		}
	}
	return true
}

// outcomes reads what came of a call's API requests: whether one succeeded, and whether one has no outcome yet.
func outcomes(rows []audit.Row, call audit.CallID) (yes, open bool) {
	for i, row := range rows {
		var r, o audit.Record
		if json.Unmarshal(row.Record, &r) != nil || r.Parent != call || row.Kind != audit.KindIntent {
			continue
		}
		if i+1 == len(rows) || rows[i+1].Kind != audit.KindOutcome || json.Unmarshal(rows[i+1].Record, &o) != nil {
			open = true
			continue
		}
		yes = yes || o.Result == audit.ResultOK
	}
	return yes, open
}
