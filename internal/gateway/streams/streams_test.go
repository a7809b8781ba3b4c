package streams_test

import (
	"context"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/gateway/streams"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/mcp"
)

// listener is a stream with a client that hears everything. All of its use is within a synctest bubble: to wait is exact there.
type listener struct {
	*streams.Stream
	heard *httptest.ResponseRecorder
	out   *mcp.Stream
	leave func()
	ended int
}

func listen(t *testing.T, s *streams.Streams, name string, c *identity.Caller, deliver catalog.Delivery) *listener {
	t.Helper()
	l := &listener{heard: httptest.NewRecorder()}
	ctx, cancel := context.WithCancel(t.Context())
	l.Stream = &streams.Stream{Caller: c, Server: &catalog.Server{Deliver: deliver}, Ctx: ctx, End: func() { l.ended++; cancel() }}
	leave, ok := s.Enter(name, l.Stream)
	if !ok {
		t.Fatal("not let in")
	}
	l.leave = leave
	return l
}

func (l *listener) begin(s *streams.Streams) *listener {
	l.out = mcp.StartStream(l.heard, 200)
	s.Begun(l.Stream, l.out)
	return l
}

// lists are which lists it was told of, in order.
func (l *listener) lists() string {
	synctest.Wait()
	var told []string
	for line := range strings.Lines(l.heard.Body.String()) {
		if data, ok := strings.CutPrefix(line, "data: "); ok {
			told = append(told, mcp.Text(mcp.Lookup([]byte(data), "method")))
		}
	}
	l.heard.Body.Reset()
	return strings.Join(told, " ")
}

const everyList = "notifications/tools/list_changed notifications/prompts/list_changed notifications/resources/list_changed"

var alice = &identity.Caller{Tenant: "default", User: "u-alice"}

// TestReplaced: a second stream of a session ends the first, waits until nothing of it is left, and is not taken away by its leaving.
func TestReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s streams.Streams
		first := listen(t, &s, "one", alice, "")
		entered := make(chan *listener)
		go func() { entered <- listen(t, &s, "one", alice, "") }()
		synctest.Wait()
		select {
		case <-entered:
			t.Fatal("the second is there while something of the first is left")
		default:
		}
		if first.ended != 1 {
			t.Errorf("the first was ended %d times", first.ended)
		}
		first.leave()
		second := <-entered
		second.begin(&s)
		s.Tell(second.Stream, streams.Notices())
		s.Changed()
		if told := second.lists(); told != everyList || s.Len() != 1 {
			t.Errorf("told %q, %d are open", told, s.Len())
		}
		second.leave()
		if s.Len() != 0 {
			t.Errorf("%d are open", s.Len())
		}
	})
}

// TestReplacedByOneThatGivesUp: a client that goes away does not wait for what its stream replaces.
func TestReplacedByOneThatGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s streams.Streams
		listen(t, &s, "one", alice, "") // and never leaves
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		leave, ok := s.Enter("one", &streams.Stream{Ctx: ctx, End: cancel})
		if !ok || ctx.Err() == nil {
			t.Fatalf("let in %v, before its time was over", ok)
		}
		leave()
	})
}

// TestWhoIsTold: changes of what everybody may see are told to all that have begun; those of one person's connections to his own
// streams at vendors' own servers.
func TestWhoIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s streams.Streams
		all := map[string]*listener{
			"hers":            listen(t, &s, "hers", alice, catalog.DeliverHeader),
			"hers, elsewhere": listen(t, &s, "", alice, ""),
			"his":             listen(t, &s, "", &identity.Caller{Tenant: "default", User: "u-bob"}, catalog.DeliverHeader),
			"theirs":          listen(t, &s, "", &identity.Caller{Tenant: "globex", User: "u-alice"}, catalog.DeliverHeader),
			"a service's":     listen(t, &s, "", &identity.Caller{Tenant: "default", Service: "u-alice"}, catalog.DeliverHeader),
		}
		for _, l := range all {
			s.Tell(l.begin(&s).Stream, streams.Notices())
		}
		unbegun := listen(t, &s, "unbegun", alice, catalog.DeliverHeader)
		s.Tell(unbegun.Stream, streams.Notices())
		silent := listen(t, &s, "", alice, catalog.DeliverHeader).begin(&s) // its server promised nothing
		if s.Len() != 7 {
			t.Errorf("%d are open", s.Len())
		}
		for _, c := range []struct {
			what string
			tell func()
			told []string
		}{
			{"all", s.Changed, []string{"hers", "hers, elsewhere", "his", "theirs", "a service's"}},
			{"one person's", func() { s.Connected(identity.Epoch{Tenant: "default", ID: "u-alice"}) }, []string{"hers"}},
			{"everybody's", func() { s.Connected(identity.Epoch{Tenant: "default", ID: identity.Everybody}) }, []string{"hers", "his", "a service's"}},
			{"nobody's", func() { s.Connected(identity.Epoch{Tenant: "default", ID: "u-eve"}) }, nil},
		} {
			c.tell()
			want := map[string]string{}
			for _, name := range c.told {
				want[name] = everyList
			}
			for name, l := range all {
				if got := l.lists(); got != want[name] {
					t.Errorf("%s: %s were told %q", c.what, name, got)
				}
			}
			if unbegun.lists() != "" || silent.lists() != "" {
				t.Errorf("%s: something was told where nothing may be", c.what)
			}
		}
	})
}

// TestLater: word for one session gets onto its stream, by the name that it has; not where none has begun, and nothing for nothing.
func TestLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s streams.Streams
		note := func(context.Context) []byte { return []byte(`{"jsonrpc":"2.0","method":"done"}`) }
		if s.Later("one", note) {
			t.Error("promised on no stream")
		}
		l := listen(t, &s, "one", alice, "")
		if s.Later("one", note) {
			t.Error("promised on one that has not begun")
		}
		l.begin(&s)
		if !s.Later("one", note) || l.lists() != "done" {
			t.Error("not told")
		}
		if !s.Later("one", func(ctx context.Context) []byte { <-ctx.Done(); return nil }) {
			t.Error("not promised")
		}
		l.End()
		if told := l.lists(); told != "" {
			t.Errorf("told %q", told)
		}
		if s.Later("", note) {
			t.Error("promised on a stream without a name")
		}
	})
}

// TestDrain: all end, none comes after.
func TestDrain(t *testing.T) {
	var s streams.Streams
	l := []*listener{listen(t, &s, "one", alice, ""), listen(t, &s, "", alice, ""), listen(t, &s, "", alice, "")}
	s.Drain()
	for i := range l {
		if l[i].ended != 1 {
			t.Errorf("%d was ended %d times", i, l[i].ended)
		}
		l[i].leave()
	}
	if _, ok := s.Enter("two", &streams.Stream{Ctx: t.Context()}); ok || s.Len() != 0 {
		t.Errorf("let in %v, %d are open", ok, s.Len())
	}
}

// TestPromised: of a subscription those lists count that its server said it would tell, true and nothing like it.
func TestPromised(t *testing.T) {
	const id = `"s-1"`
	for promise, want := range map[string]int{
		`{"toolsListChanged":true,"promptsListChanged":true,"resourcesListChanged":true}`: 3,
		`{"toolsListChanged":true}`:                      1,
		`{"toolsListChanged":false}`:                     0,
		`{"toolsListChanged":"true"}`:                    0,
		`{"toolsListChanged":1,"filesListChanged":true}`: 0,
		`{}`:   0,
		`[]`:   0,
		`null`: 0,
	} {
		m, err := mcp.Scan([]byte(`{"jsonrpc":"2.0","method":"notifications/subscriptions/acknowledged","params":{"notifications":` + promise + `}}`))
		if err != nil {
			t.Fatal(err)
		}
		l := streams.Promised(&m, []byte(id))
		if len(l) != want {
			t.Errorf("%s: %d notices, want %d", promise, len(l), want)
		}
		for _, n := range l {
			if got := string(mcp.Lookup(n, "params", "_meta", "io.modelcontextprotocol/subscriptionId")); got != id {
				t.Errorf("%s: of subscription %s", promise, got)
			}
		}
	}
}
