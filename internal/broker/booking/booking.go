// Package booking knows which calls and sessions are open in this process, for whom, and what became of the API requests
// that were made for them. It is memory alone: what is open elsewhere is found in the log, where its intent stands, and what is found out
// here about calls that are open elsewhere goes there by Post.
package booking

import (
	"slices"
	"sync"
	"time"

	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/identity"
)

// Entry is one open act.
type Entry struct {
	Call    audit.CallID
	Session audit.CallID // the MCP session that it belongs to, if any
	Acts    bool         // a call, rather than the session itself, a stream or a list
	Caller  *identity.Caller

	book  *Book
	begun time.Time // here

	mu sync.Mutex
	so Report // guarded by mu
}

// Booked is what an API request is booked on.
type Booked struct {
	Call   audit.CallID
	Caller *identity.Caller
	// Since is given where Call is a session whose keycard the request came with, and that has no call open here: none that is open
	// elsewhere began before.
	Since time.Time
}

// Report is what became of an act's API requests.
type Report struct {
	Successes int
	Missing   []catalog.Missing // what requests were refused for
	Hints     []string          // what an agent can do about those that failed, each once
	Failing   bool              // since the last hint none succeeded
}

// maxHints is for how many failures of one act there are hints: what is told more is not read.
const maxHints = 3

// Report returns what is known so far. Where requests were refused and none succeeded here, the log is asked whether any did at another
// replica.
func (e *Entry) Report() Report {
	e.mu.Lock()
	r := e.so
	r.Missing, r.Hints = slices.Clone(r.Missing), slices.Clone(r.Hints)
	e.mu.Unlock()
	if len(r.Missing) > 0 && r.Successes == 0 && e.book.Post != nil && e.book.Post.succeeded(e, e.book.sessionOf(e)) {
		r.Successes++
	}
	return r
}

// Book holds the open acts. The zero Book is empty and ready.
type Book struct {
	Post *Post // nil where there is one process

	mu       sync.RWMutex
	open     map[audit.CallID]*Entry
	sessions map[audit.CallID][]audit.CallID // open calls of a session
}

// Add opens an act.
func (b *Book) Add(e *Entry) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.open == nil {
		b.open, b.sessions = map[audit.CallID]*Entry{}, map[audit.CallID][]audit.CallID{}
	}
	e.book, e.begun = b, time.Now()
	b.open[e.Call] = e
	if e.Acts && e.Session != "" {
		b.sessions[e.Session] = append(b.sessions[e.Session], e.Call)
	}
}

// Join books an open call on a hosted server's process: what the process asks for is asked for by its only open call. The
// caller, who is the one that the process runs for, is from now on known by his newest token.
func (b *Book) Join(call, process audit.CallID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	e := b.open[call]
	if e == nil || b.open[process] == nil {
		return
	}
	b.open[process] = &Entry{Call: process, Caller: e.Caller, book: b}
	if e.Acts && e.Session != process {
		e.Session = process
		b.sessions[process] = append(b.sessions[process], e.Call)
	}
}

// Remove ends an act; one that is not there is no error.
func (b *Book) Remove(e *Entry) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.open, e.Call)
	calls, ok := b.sessions[e.Session]
	if !ok {
		return
	}
	if calls = slices.DeleteFunc(calls, func(id audit.CallID) bool { return id == e.Call }); len(calls) == 0 {
		delete(b.sessions, e.Session)
	} else {
		b.sessions[e.Session] = calls
	}
}

// Get returns nil for what is not open here.
func (b *Book) Get(id audit.CallID) *Entry {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.open[id]
}

// Holds reports whether an act is open here for a caller whose access has not ended.
func (b *Book) Holds(id audit.CallID, alive func(*identity.Caller) bool) bool {
	e := b.Get(id)
	return e != nil && alive(e.Caller)
}

// InSession is the call that a session's request belongs to: the only open one, else the session itself.
func (b *Book) InSession(session audit.CallID) audit.CallID {
	b.mu.RLock()
	defer b.mu.RUnlock()
	if calls := b.sessions[session]; len(calls) == 1 {
		return calls[0]
	}
	return session
}

// sessionOf is read here, for a call may be booked on a process later than it begins.
func (b *Book) sessionOf(e *Entry) audit.CallID {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return e.Session
}

func (b *Book) severalIn(session audit.CallID) bool {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return len(b.sessions[session]) > 1
}

// Succeeded counts an API request of the call that the upstream answered with success.
func (b *Book) Succeeded(id audit.CallID) {
	if e := b.Get(id); e != nil {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.so.Successes++
		e.so.Failing = false
	}
}

// Refused notes what an API request was refused for at its call, wherever that is open.
func (b *Book) Refused(on Booked, missing []catalog.Missing) { b.note(on, missing, "") }

// Tell notes what an agent can do about an API request that failed at its call, wherever that is open.
func (b *Book) Tell(on Booked, hint string) { b.note(on, nil, hint) }

func (b *Book) note(on Booked, missing []catalog.Missing, hint string) {
	id := on.Call
	if b.Post != nil && !on.Since.IsZero() {
		if b.severalIn(on.Call) {
			return // nobody knows whose it is
		}
		if id = b.Post.onlyCall(on); id == "" {
			return
		}
	}
	if e := b.Get(id); e != nil {
		e.note(missing, hint)
		return
	}
	b.Post.send(id, missing, hint)
}

func (e *Entry) note(missing []catalog.Missing, hint string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.so.Missing = append(e.so.Missing, missing...)
	if hint == "" {
		return
	}
	if e.so.Failing = true; !slices.Contains(e.so.Hints, hint) && len(e.so.Hints) < maxHints {
		e.so.Hints = append(e.so.Hints, hint)
	}
}
