//go:build linux

package hosted

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/hosted/sandbox"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/kit/mcp"
	"frontdesk.dev/frontdesk/internal/kit/secret"
)

var program string // the world's stdio server, where a sandbox may read it

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == sandbox.Command {
		sandbox.Init()
	}
	dir, err := os.MkdirTemp("/var/tmp", "frontdesk-test-")
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		panic(err)
	}
	program = filepath.Join(dir, "stdio")
	c := exec.Command("go", "build", "-o", program, "frontdesk.dev/frontdesk/test/world/cmd/stdio")
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := c.CombinedOutput(); err != nil {
		panic(string(out))
	}
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// desk is what stands around Hosts: a catalogue, an egress that says who asks it, and acts that can be ended.
type desk struct {
	*Hosts
	t       testing.TB
	clock   atomic.Int64 // seconds ahead
	opened  atomic.Int32
	invalid sync.Map // acts whose user's access has ended
	closed  sync.Map // act -> how it ended
	server  *catalog.Server
}

func newDesk(t testing.TB, change func(*catalog.Program), args ...string) *desk {
	t.Helper()
	d := &desk{t: t, server: &catalog.Server{Tenant: identity.DefaultTenant, Name: "own", Title: "Own", CallLimit: 20 * time.Second, Needs: []catalog.Need{{Upstream: "tracker"}},
		Program: &catalog.Program{Argv: append([]string{program}, args...), Env: map[string]string{"TRACKER_TOKEN": "{keycard}", "TRACKER_URL": "{egress:tracker}"}, Read: []string{program},
			Memory: 256 << 20, Processes: 64, Idle: time.Minute}}}
	for _, m := range sandbox.Required {
		d.server.Program.Require = append(d.server.Program.Require, string(m))
	}
	if change != nil {
		change(d.server.Program)
	}
	cat := &catalog.Catalog{}
	cat.Set(&catalog.Snapshot{Servers: map[identity.Tenant]map[catalog.ServerName]*catalog.Server{identity.DefaultTenant: {"own": d.server}}})
	api := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s asks %s", r.Header.Get("Authorization"), r.URL.Path)
	})
	d.Hosts = &Hosts{Catalog: cat, Serve: func(l net.Listener, _ audit.CallID) { _ = http.Serve(l, api) }, ServeDirect: func(l net.Listener, _ audit.CallID) { _ = l.Close() }, Bounds: Bounds{Max: 20, Per: 10, Patience: 10 * time.Second}, Log: slog.New(slog.DiscardHandler),
		Now: func() time.Time { return time.Now().Add(time.Duration(d.clock.Load()) * time.Second) }}
	t.Cleanup(d.Stop)
	return d
}

func (d *desk) open(who string) func(context.Context) (*Card, error) {
	return func(context.Context) (*Card, error) {
		act := audit.CallID(fmt.Sprintf("act-%d", d.opened.Add(1)))
		return &Card{Act: act, Keycard: secret.New("keycard-of-" + who + "-" + string(act)), Expires: d.Now().Add(12 * time.Hour),
			Valid: func() bool { _, gone := d.invalid.Load(act); return !gone },
			Close: func(r audit.Result, why string) { d.closed.Store(act, string(r)+": "+why) }}, nil
	}
}

// ask sends a body as who's agent would.
func (d *desk) ask(ctx context.Context, who, method, session, body string) (*http.Response, error) {
	r := &http.Request{Method: method, URL: &url.URL{Scheme: "http", Host: "own"}, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body))}
	if session != "" {
		r.Header.Set(mcp.HeaderSession, session)
	}
	return d.RoundTrip(Ask{Caller: &identity.Caller{Tenant: identity.DefaultTenant, User: identity.UserID(who), Client: "agent"}, Server: d.server, Request: r.WithContext(ctx), Open: d.open(who), Join: func(audit.CallID) error { return nil }})
}

// say is ask for what must be answered with status 200; it returns the whole body.
func (d *desk) say(who, session, body string) (string, http.Header) {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(d.t.Context(), 20*time.Second)
	defer cancel()
	resp, err := d.ask(ctx, who, http.MethodPost, session, body)
	if err != nil {
		d.t.Fatalf("%s: %v", body, err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		d.t.Fatalf("%s: %v", body, err)
	}
	return string(b), resp.Header
}

const nothing = `{}`

// begin begins a session of a client with these capabilities.
func (d *desk) begin(who, capabilities string) string {
	d.t.Helper()
	_, h := d.say(who, "", `{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":`+capabilities+`,"clientInfo":{"name":"t","version":"1"}}}`)
	s := h.Get(mcp.HeaderSession)
	if s == "" {
		d.t.Fatal("there is no session")
	}
	return s
}

func tools(id, name, text string) string {
	arguments, err := json.Marshal(map[string]string{"text": text})
	if err != nil {
		panic(err)
	}
	return fmt.Sprintf(`{"jsonrpc":"2.0","id":%s,"method":"tools/call","params":{"name":%q,"arguments":%s}}`, id, name, arguments)
}

func (d *desk) wantSaid(got string, want ...string) {
	d.t.Helper()
	for _, w := range want {
		if !strings.Contains(got, w) {
			d.t.Errorf("want %q in %s", w, got)
		}
	}
}

// until waits for a condition that another goroutine brings about.
func (d *desk) until(what string, f func() bool) {
	d.t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for !f() {
		if time.Now().After(deadline) {
			d.t.Fatalf("%s: not within 10 s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func (d *desk) logs() string {
	var b strings.Builder
	for _, l := range d.Logs(identity.DefaultTenant, "own", "") {
		b.WriteString(strings.Join(l.Lines, "\n") + "\n" + l.Failing)
	}
	return b.String()
}

// TestIDsComeBackAsTheyWere: many sessions share one pipe with the same ids, of every spelling, and each gets its own answer.
func TestIDsComeBackAsTheyWere(t *testing.T) {
	d := newDesk(t, nil)
	one, two := d.begin("alice", nothing), d.begin("alice", nothing)
	var all sync.WaitGroup
	for i, id := range []string{`1`, `"1"`, `9007199254740993`, `"a b\u00e9"`, `-3`} {
		for who, session := range map[string]string{"one": one, "two": two} {
			all.Go(func() {
				want := fmt.Sprintf("%s-%d", who, i)
				got, _ := d.say("alice", session, tools(id, "echo", want))
				d.wantSaid(got, `"id":`+id, want)
			})
		}
	}
	all.Wait()
	if n := d.opened.Load(); n != 1 {
		t.Errorf("%d processes for sessions that may share one", n)
	}
}

// TestWhoIsServedByWhat: users never share a process; sessions do not where the server can ask back.
func TestWhoIsServedByWhat(t *testing.T) {
	d := newDesk(t, nil)
	alice, bob := d.begin("alice", nothing), d.begin("bob", nothing)
	a, b := d.begin("alice", `{"elicitation":{}}`), d.begin("alice", `{"elicitation":{}}`)
	for range 2 {
		for _, c := range []struct{ who, session string }{{"alice", alice}, {"bob", bob}, {"alice", a}, {"alice", b}} {
			got, _ := d.say(c.who, c.session, tools("1", "count", ""))
			t.Log(got)
		}
	}
	if n := d.opened.Load(); n != 4 {
		t.Errorf("%d processes, want 4", n)
	}
	for _, s := range []string{alice, bob, a, b} {
		who := map[bool]string{true: "bob", false: "alice"}[s == bob]
		got, _ := d.say(who, s, tools("1", "count", ""))
		d.wantSaid(got, `"text":"3"`)
	}
	// A session id opens nothing: bob with alice's gets his own process.
	got, _ := d.say("bob", alice, tools("1", "whoami", ""))
	d.wantSaid(got, "asks /egress/tracker/user")
	if strings.Contains(got, "alice") {
		t.Errorf("bob was served by alice's process: %s", got)
	}
}

// TestTheKeycardStaysInside: the program holds it and sends it to egress; neither client nor operator ever sees it.
func TestTheKeycardStaysInside(t *testing.T) {
	t.Setenv("FRONTDESK_SECRET", "of the desk")
	d := newDesk(t, nil)
	s := d.begin("alice", nothing)
	got, _ := d.say("alice", s, tools("1", "whoami", ""))
	d.wantSaid(got, "200 Bearer ", " asks /egress/tracker/user")
	env, _ := d.say("alice", s, tools("1", "env", ""))
	d.wantSaid(env, "TRACKER_URL=http://127.0.0.1:3128/egress/tracker", "TRACKER_TOKEN=***", "HOME=/run/server")
	d.until("its first line", func() bool { return strings.Contains(d.logs(), "starting with token") })
	for what, text := range map[string]string{"answer": got, "environment": env, "log": d.logs()} {
		if strings.Contains(text, "keycard-of") || strings.Contains(text, "of the desk") {
			t.Errorf("the %s shows %s", what, text)
		}
	}
}

// TestProgress goes to the call that asked for it, with the token that it gave, and the answer ends its stream.
func TestProgress(t *testing.T) {
	d := newDesk(t, nil)
	s := d.begin("alice", nothing)
	var all sync.WaitGroup
	for _, token := range []string{`"tok"`, `7`} {
		all.Go(func() {
			got, h := d.say("alice", s, `{"jsonrpc":"2.0","id":5,"method":"tools/call","params":{"_meta":{"progressToken":`+token+`},"name":"slow","arguments":{"text":"60ms"}}}`)
			d.wantSaid(got, `"progressToken":`+token, `"id":5`, "done")
			if h.Get("Content-Type") != "text/event-stream" || strings.Count(got, "event: message") != 4 {
				t.Errorf("want three notices and an answer: %s", got)
			}
		})
	}
	all.Wait()
}

// TestWhoGoesAwayCancels: what nobody waits for is cancelled at the server, by its own id.
func TestWhoGoesAwayCancels(t *testing.T) {
	d := newDesk(t, nil)
	s := d.begin("alice", nothing)
	ctx, cancel := context.WithCancel(t.Context())
	gone := make(chan error, 1)
	go func() {
		_, err := d.ask(ctx, "alice", http.MethodPost, s, tools("1", "slow", "60s"))
		gone <- err
	}()
	d.until("the call", func() bool { return strings.Count(d.logs(), "begun") == 1 })
	cancel()
	if err := <-gone; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	d.until("the cancel", func() bool { return strings.Contains(d.logs(), "cancelled") })
	// And by a notification of the session that sent it; not by one of another session with the same id.
	other := d.begin("alice", nothing)
	go func() {
		_, err := d.ask(t.Context(), "alice", http.MethodPost, s, tools("2", "slow", "60s"))
		gone <- err
	}()
	d.until("the second call", func() bool { return strings.Count(d.logs(), "begun") == 2 })
	tell := func(session string) {
		resp, err := d.ask(t.Context(), "alice", http.MethodPost, session, `{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":2}}`)
		if err != nil || resp.StatusCode != http.StatusAccepted {
			t.Fatalf("%v %v", resp, err)
		}
	}
	if tell(other); strings.Count(d.logs(), "cancelled") > 1 {
		t.Error("a session cancelled another's call")
	}
	tell(s)
	d.until("the second cancel", func() bool { return strings.Count(d.logs(), "cancelled") == 2 })
}

// TestAskedBack: a question of the server goes to the session whose call it is, and only that session's answer counts.
func TestAskedBack(t *testing.T) {
	d := newDesk(t, nil)
	s := d.begin("alice", `{"elicitation":{}}`)
	resp, err := d.ask(t.Context(), "alice", http.MethodPost, s, tools("1", "ask", "Sure?"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	events := mcp.NewEvents(resp.Body)
	e, err := events.Next()
	if err != nil {
		t.Fatal(err)
	}
	m, err := mcp.Scan(e.Data)
	if err != nil || m.Method != "elicitation/create" {
		t.Fatalf("%s %v", e.Data, err)
	}
	reply := `{"jsonrpc":"2.0","id":` + string(m.IDBytes()) + `,"result":{"action":"decline"}}`
	for _, c := range []struct{ session, body string }{{d.begin("alice", `{"elicitation":{}}`), strings.Replace(reply, "decline", "accept", 1)}, {s, reply}, {s, strings.Replace(reply, "decline", "cancel", 1)}} {
		r, err := d.ask(t.Context(), "alice", http.MethodPost, c.session, c.body)
		if err != nil || r.StatusCode != http.StatusAccepted {
			t.Fatalf("%v %v", r, err)
		}
	}
	if e, err = events.Next(); err != nil {
		t.Fatal(err)
	}
	d.wantSaid(string(e.Data), `"text":"decline"`, `"id":1`)
	// Who cannot be asked is not.
	got, _ := d.say("alice", d.begin("alice", nothing), tools("1", "ask", "Sure?"))
	d.wantSaid(got, "could not ask")
}

const modernMeta = `"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{"name":"t","version":"1"},"io.modelcontextprotocol/clientCapabilities":{}}`

// TestModernClients are served by servers of either era.
func TestModernClients(t *testing.T) {
	for name, args := range map[string][]string{"modern server": nil, "legacy server": {"-legacy"}} {
		t.Run(name, func(t *testing.T) {
			d := newDesk(t, nil, args...)
			got, _ := d.say("alice", "", `{"jsonrpc":"2.0","id":"d","method":"server/discover","params":{`+modernMeta+`}}`)
			d.wantSaid(got, `"id":"d"`, `"2026-07-28"`, `"tools"`, "Try to get out", `"name":"stdio"`, `"resultType":"complete"`)
			got, _ = d.say("alice", "", `{"jsonrpc":"2.0","id":"l","method":"tools/list","params":{`+modernMeta+`}}`)
			d.wantSaid(got, `"name":"whoami"`, `"resultType":"complete"`, `"cacheScope"`, `"ttlMs"`)
			got, _ = d.say("alice", "", `{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{`+modernMeta+`,"name":"echo","arguments":{"text":"hi"}}}`)
			d.wantSaid(got, `"id":7`, `"text":"hi"`, `"resultType":"complete"`)
			if n := d.opened.Load(); n != 1 {
				t.Errorf("%d processes for one stateless client", n)
			}
			resp, err := d.ask(t.Context(), "alice", http.MethodPost, "", `{"jsonrpc":"2.0","id":7,"method":"no/such","params":{`+modernMeta+`}}`)
			if err != nil || resp.StatusCode != http.StatusNotFound {
				t.Errorf("an unknown method: %v %v", resp, err)
			}
		})
	}
}

// TestACrash is one clear error for who was served; others start the server again, not at once and not for ever.
func TestACrash(t *testing.T) {
	d := newDesk(t, nil)
	s := d.begin("alice", nothing)
	got, _ := d.say("alice", s, tools("1", "crash", ""))
	d.wantSaid(got, `"id":1`, "ended while it worked on this")
	d.until("the end", func() bool { return len(d.runs()) == 0 })
	how, _ := d.closed.Load(audit.CallID("act-1"))
	d.wantSaid(fmt.Sprint(how), "failed: it ended by itself: exit status 7")
	d.wantSaid(d.logs(), "crashing as told", "it ended by itself")
	_, err := d.ask(t.Context(), "alice", http.MethodPost, s, tools("2", "echo", "x"))
	if fault.KindOf(err) != fault.Unavailable || fault.RetryAfter(err) <= 0 || !strings.Contains(fault.Message(err), "tried again in") {
		t.Errorf("while it waits: %v", err)
	}
	if got, _ := d.say("bob", d.begin("bob", nothing), tools("1", "echo", "other")); !strings.Contains(got, "other") {
		t.Errorf("bob's was not to wait: %s", got)
	}
	d.clock.Add(2)
	got, _ = d.say("alice", s, tools("3", "echo", "again")) // the same session, another process
	d.wantSaid(got, "again")
	var waits []time.Duration
	for range 3 {
		_, _ = d.say("alice", s, tools("1", "crash", ""))
		d.until("the end", func() bool { return len(d.runs()) == 1 })
		_, err := d.ask(t.Context(), "alice", http.MethodPost, s, tools("2", "echo", "x"))
		waits = append(waits, fault.RetryAfter(err).Round(time.Second))
		d.clock.Add(int64(fault.RetryAfter(err)/time.Second) + 1)
	}
	if waits[0] >= waits[1] || waits[1] >= waits[2] {
		t.Errorf("waits do not grow: %v", waits)
	}
}

// runs are the processes that run, of all.
func (d *desk) runs() (l []State) {
	return slices.DeleteFunc(d.States(identity.DefaultTenant, ""), func(s State) bool { return s.Failing != "" })
}

// TestWhoDoesNotStart: callers are told no more than that; the operator why, where he looks first, and what it said last.
func TestWhoDoesNotStart(t *testing.T) {
	shell := func(script string) func(*catalog.Program) {
		return func(p *catalog.Program) { p.Argv = []string{"/bin/sh", "-c", script} }
	}
	for name, c := range map[string]struct {
		args   []string
		change func(*catalog.Program)
		why    string
		log    string // where there is more
	}{
		"ends at once":   {[]string{"-fail", "no config in sight"}, nil, "it was started, but it ended before it had answered initialize: exit status 3", "no config in sight"},
		"ends well":      {nil, shell("echo nothing to do >&2"), "it was started, but it ended", "nothing to do"},
		"says nothing":   {[]string{"-mute"}, nil, "it was started, but it did not answer initialize", ""},
		"babbles only":   {[]string{"-mute", "-babble", "300"}, nil, "it was started, but it printed more than 200 lines on stdout that are no messages", "stdout, no message: hello"},
		"one long line":  {nil, shell("head -c 20000000 /dev/zero; exec sleep 60"), "it was started, but a message on its stdout is longer than 16 MiB", ""},
		"refuses":        {nil, shell(`read x; echo '{"jsonrpc":"2.0","id":1,"error":{"code":-32602,"message":"give me a key"}}'; exec sleep 60`), "it was started, but it refused the handshake", "give me a key"},
		"is not there":   {nil, func(p *catalog.Program) { p.Argv = []string{"/opt/no/such"} }, "it cannot be started: /opt/no/such cannot be run in the sandbox (no such file or directory)", ""},
		"is not let in":  {nil, func(p *catalog.Program) { p.Read = nil }, "cannot be run in the sandbox", ""},
		"cannot be read": {nil, func(p *catalog.Program) { p.Read = []string{"/root/no/such"} }, "/root/no/such cannot be made readable", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDesk(t, c.change, c.args...)
			d.Patience = 2 * time.Second
			_, err := d.ask(t.Context(), "alice", http.MethodPost, "", `{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"t","version":"1"}}}`)
			if fault.KindOf(err) != fault.Unavailable || !strings.Contains(fault.Message(err), "does not run") || strings.Contains(fault.Message(err), c.why) {
				t.Errorf("the caller is told %v", err)
			}
			d.wantSaid(d.logs(), c.why, c.log)
			l := d.States(identity.DefaultTenant, "")
			if len(l) != 1 || l[0].Pid != 0 || l[0].User != "alice" || !l[0].Until.After(d.Now().Add(-time.Minute)) || !strings.Contains(l[0].Failing, c.why) {
				t.Errorf("operators see %+v", l)
			}
			how, _ := d.closed.Load(audit.CallID("act-1"))
			d.wantSaid(fmt.Sprint(how), "failed: ")
		})
	}
}

// TestWhoSaysTooMuch: a program that floods its stderr, with lines or without an end of one, is served as any other; what could not be kept is
// counted.
func TestWhoSaysTooMuch(t *testing.T) {
	for name, flood := range map[string]string{"no line": "head -c 50000000 /dev/zero", "lines": "yes this is one of very many lines | head -c 50000000"} {
		t.Run(name, func(t *testing.T) {
			d := newDesk(t, func(p *catalog.Program) {
				p.Argv = []string{"/bin/sh", "-c", flood + " >&2; echo $TRACKER_TOKEN >&2; exec " + program}
			})
			session := d.begin("alice", nothing)
			got, _ := d.say("alice", session, tools("1", "echo", "served"))
			d.wantSaid(got, "served")
			d.clock.Add(1)
			_, _ = d.say("alice", session, tools("2", "crash", ""))
			d.until("its end", func() bool { return len(d.runs()) == 0 })
			d.wantSaid(d.logs(), "bytes before this were left out", "crashing as told")
			if log := d.logs(); len(log) > 2*ringBytes || strings.Contains(log, "keycard-of-alice") {
				t.Errorf("%d bytes are kept: %.200s", len(log), log)
			}
		})
	}
}

// TestNonsense on stdout is for the operator; messages beside it count.
func TestNonsense(t *testing.T) {
	d := newDesk(t, nil, "-babble", "50")
	s := d.begin("alice", nothing)
	for _, line := range []string{"not json", `{"jsonrpc":"2.0"}`, `[1,2]`, `{"jsonrpc":"2.0","id":99,"result":{}}`, `{"jsonrpc":"2.0","id":"1","result":{"stolen":true}}`, `{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":4}}`, "\x00\xff", strings.Repeat("x", 1<<20)} {
		got, _ := d.say("alice", s, tools("1", "print", line))
		d.wantSaid(got, "printed")
		if strings.Contains(got, "stolen") {
			t.Errorf("an answer to nothing was passed on: %s", got)
		}
	}
	d.wantSaid(d.logs(), "hello, this is no message", "not json")
}

// TestCaps: nobody runs more than his share; an idle process makes room.
func TestCaps(t *testing.T) {
	d := newDesk(t, nil)
	d.Per, d.Max = 2, 3
	a, b := d.begin("alice", `{"roots":{}}`), d.begin("alice", `{"roots":{}}`)
	busy := func(who, session string) {
		go func() { _, _ = d.ask(d.t.Context(), who, http.MethodPost, session, tools("1", "slow", "60s")) }() // ends with the test
	}
	busy("alice", a)
	d.until("the call", func() bool { return d.States(identity.DefaultTenant, "")[0].Calls == 1 })
	c := d.begin("alice", `{"roots":{}}`) // b's was idle
	if n := len(d.States(identity.DefaultTenant, "")); n != 2 {
		t.Errorf("%d processes, want 2", n)
	}
	busy("alice", c)
	d.until("both calls", func() bool { l := d.States(identity.DefaultTenant, ""); return l[0].Calls+l[1].Calls == 2 })
	if _, err := d.ask(t.Context(), "alice", http.MethodPost, b, tools("1", "echo", "x")); fault.KindOf(err) != fault.RateLimited {
		t.Errorf("a third: %v", err)
	}
	busy("bob", d.begin("bob", nothing))
	d.until("all calls", func() bool {
		return len(d.States(identity.DefaultTenant, "")) == 3 && d.States(identity.DefaultTenant, "")[2].Calls == 1
	})
	if _, err := d.ask(t.Context(), "carol", http.MethodPost, a, tools("1", "echo", "x")); fault.KindOf(err) != fault.Unavailable {
		t.Errorf("a fourth in all: %v", err)
	}
}

// TestWhatEndsAProcess: the end of its user's access at once, idleness and a changed config when its calls are done.
func TestWhatEndsAProcess(t *testing.T) {
	for name, c := range map[string]struct {
		do  func(*desk)
		how string
	}{
		"access ended":  {func(d *desk) { d.invalid.Store(audit.CallID("act-1"), true) }, "ok: the user's access has ended"},
		"idle":          {func(d *desk) { d.clock.Add(90) }, "ok: idle"},
		"keycard":       {func(d *desk) { d.clock.Add(12*3600 - 10) }, "ok: the config has changed, or its keycard is about to expire"},
		"left config":   {func(d *desk) { d.Catalog.Set(&catalog.Snapshot{}) }, "ok: the config has changed, or its keycard is about to expire"},
		"we are ending": {func(d *desk) { go d.Stop() }, "ok: Frontdesk is stopping"},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDesk(t, nil)
			s := d.begin("alice", nothing)
			d.look()
			if l := d.States(identity.DefaultTenant, ""); len(l) != 1 {
				t.Fatalf("it ended before its time: %v", l)
			}
			c.do(d)
			d.look()
			d.until("the end of its act", func() bool { how, ok := d.closed.Load(audit.CallID("act-1")); return ok && how == c.how })
			if name == "access ended" {
				got, _ := d.say("alice", s, tools("1", "whoami", ""))
				d.wantSaid(got, "200 Bearer *") // signed in again: another process, another keycard
				if d.opened.Load() != 2 {
					t.Error("it was not opened anew")
				}
			}
		})
	}
}

// TestSessions that are made up, or of another form, are gone; streams hear what is said to nobody.
func TestSessions(t *testing.T) {
	d := newDesk(t, nil)
	for _, id := range []string{"x", "h1..", "h1.AAAAAAAAAAAAAAAAAAAAAAAA.", "h1.AAAAAAAAAAAAAAAAAAAAAAAA.e30K!", "h1.AAAAAAAAAAAAAAAAAAAAAAAA.e30sIng"} {
		for _, method := range []string{http.MethodPost, http.MethodGet, http.MethodDelete} {
			resp, err := d.ask(t.Context(), "alice", method, id, tools("1", "echo", "x"))
			if err != nil || resp.StatusCode != http.StatusNotFound {
				t.Errorf("%s %q: %v %v", method, id, resp, err)
			}
		}
	}
	s := d.begin("alice", `{"roots":{}}`)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	resp, err := d.ask(ctx, "alice", http.MethodGet, s, "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.ask(ctx, "alice", http.MethodPost, s, tools("1", "print", `{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}`)); err != nil {
		t.Fatal(err)
	}
	e, err := mcp.NewEvents(resp.Body).Next()
	if err != nil || !bytes.Contains(e.Data, []byte("list_changed")) {
		t.Errorf("the stream says %s, %v", e.Data, err)
	}
	d.clock.Add(2 * 3600) // a session whose stream is open is not forgotten, however long nothing is said
	d.look()
	if len(d.streams) != 1 {
		t.Errorf("%d streams, want the open one", len(d.streams))
	}
	if resp, err := d.ask(ctx, "alice", http.MethodDelete, s, ""); err != nil || resp.StatusCode != http.StatusNoContent {
		t.Errorf("%v %v", resp, err)
	}
	d.until("the end of the process that was for it alone", func() bool { return len(d.States(identity.DefaultTenant, "")) == 0 })
}

func FuzzReadSession(f *testing.F) {
	f.Add("h1.AAAAAAAAAAAAAAAAAAAAAAAA.e30")
	f.Fuzz(func(t *testing.T, id string) {
		if d, ok := readSession(id); ok {
			if _, err := mcp.Scan(initialize(d.params)); err != nil {
				t.Errorf("%q greets a server with what is no message", id)
			}
		}
	})
}
