// Package streams answers: who listens here, and what is he told?
//
// Streams that no call ends stay until their client, its token or this process does: a legacy session's GET stream, or a modern
// client's subscription. What the server says on them passes elsewhere; here it is known whose they are, so that word of
// Frontdesk's own gets onto them (lists have changed, a person has answered), and so that they end when the process stops.
package streams

import (
	"context"
	"fmt"
	"maps"
	"sync"

	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/mcp"
)

// Stream is one that is open. Whoever opens it sets the exported fields.
type Stream struct {
	Caller *identity.Caller
	Server *catalog.Server
	Ctx    context.Context // while it is open
	End    func()          // makes it end, soon

	out     *mcp.Stream // nil until it has begun; guarded by the mu of its Streams, as is what follows
	notices [][]byte    // say that its lists have changed
	gone    chan struct{}
}

// Streams are those that are open here. The zero Streams are none. Safe for concurrent use.
type Streams struct {
	mu       sync.Mutex
	open     map[string]*Stream // by name; guarded by mu, as is what follows
	draining bool
}

// Enter makes n the stream of this name, or, where name is "", one that nobody looks for. The one before is ended, and nothing is
// left of it when Enter returns: servers refuse a second one. It reports false where the process is stopping. Leave must be called
// when nothing of the stream is left, here and toward the server.
func (s *Streams) Enter(name string, n *Stream) (leave func(), ok bool) {
	if name == "" {
		name = fmt.Sprintf("\x00%p", n)
	}
	s.mu.Lock()
	if s.draining {
		s.mu.Unlock()
		return nil, false
	}
	if s.open == nil {
		s.open = map[string]*Stream{}
	}
	old := s.open[name]
	s.open[name], n.gone = n, make(chan struct{})
	s.mu.Unlock()
	if old != nil {
		old.End()
		select {
		case <-old.gone:
		case <-n.Ctx.Done():
		}
	}
	return func() { s.leave(name, n) }, true
}

func (s *Streams) leave(name string, n *Stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open[name] == n {
		delete(s.open, name)
	}
	close(n.gone)
}

// Begun tells that something can be written to the stream.
func (s *Streams) Begun(n *Stream, out *mcp.Stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n.out = out
}

// Tell sets what is written to the stream when its lists have changed.
func (s *Streams) Tell(n *Stream, notices [][]byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n.notices = notices
}

// find is the stream of that name; out is nil where none has begun here.
func (s *Streams) find(name string) (n *Stream, out *mcp.Stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n = s.open[name]; n == nil {
		return nil, nil
	}
	return n, n.out
}

// Later writes to the stream of that name what message returns, which is called with the stream's context and may take its time; nil
// is nothing. It reports false where no such stream has begun here.
func (s *Streams) Later(name string, message func(context.Context) []byte) bool {
	n, out := s.find(name)
	if out == nil {
		return false
	}
	go func() {
		if msg := message(n.Ctx); msg != nil {
			_ = out.Message(msg) // a stream that is gone has nobody to tell
		}
	}()
	return true
}

// Len is how many are open.
func (s *Streams) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.open)
}

// Changed tells every stream that its lists may have changed: policies or servers have.
func (s *Streams) Changed() { s.announce(func(*Stream) bool { return true }) }

// Connected tells those whose lists may have changed with their user's connections: a vendor's own server lists nothing before.
func (s *Streams) Connected(e identity.Epoch) {
	s.announce(func(n *Stream) bool {
		return n.Server.Deliver == catalog.DeliverHeader && n.Caller.Tenant == e.Tenant && (string(n.Caller.User) == e.ID || e.ID == identity.Everybody)
	})
}

// announce never blocks: a slow client is written to on the side.
func (s *Streams) announce(whom func(*Stream) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range s.open {
		if n.out == nil || !whom(n) {
			continue
		}
		go func(out *mcp.Stream, notices [][]byte) {
			for _, notice := range notices {
				_ = out.Message(notice) // a stream that is gone has nobody to tell
			}
		}(n.out, n.notices)
	}
}

// Drain ends all, and lets none in any more.
func (s *Streams) Drain() {
	s.mu.Lock()
	s.draining = true
	all := maps.Clone(s.open)
	s.mu.Unlock()
	for _, n := range all {
		n.End()
	}
}

// kinds are the lists that a client can be told of.
var kinds = []string{"tools", "prompts", "resources"}

// Notices are those of a legacy session's stream.
func Notices() (notices [][]byte) {
	for _, kind := range kinds {
		notices = append(notices, []byte(`{"jsonrpc":"2.0","method":"notifications/`+kind+`/list_changed"}`))
	}
	return notices
}

// Promised are those of a modern client's subscription, as its server promised to tell them in the acknowledgement m. Word of ours goes on the
// same stream, under the id of the request that opened it.
func Promised(m *mcp.Message, id []byte) (notices [][]byte) {
	for _, kind := range kinds {
		if string(mcp.Lookup(m.Of(m.Params), "notifications", kind+"ListChanged")) == "true" {
			notices = append(notices, []byte(`{"jsonrpc":"2.0","method":"notifications/`+kind+`/list_changed","params":{"_meta":{"io.modelcontextprotocol/subscriptionId":`+string(id)+`}}}`))
		}
	}
	return notices
}
