//go:build crash

package crash_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"frontdesk.dev/frontdesk/internal/hosted"
	"frontdesk.dev/frontdesk/test/stage"
	"frontdesk.dev/frontdesk/test/world"
)

// slowAPI answers and takes bodies piece by piece, and stands still in the middle.
type slowAPI struct {
	*httptest.Server
	begun chan struct{} // something of a transfer is here
	ended chan error    // how an upload ended
}

func newSlowAPI(t *testing.T) *slowAPI {
	a := &slowAPI{begun: make(chan struct{}, 9), ended: make(chan error, 9)}
	a.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/sized":
			w.Header().Set("Content-Length", "1000000")
			fallthrough
		case "/down":
			_, _ = io.WriteString(w, "the first part")
			_ = http.NewResponseController(w).Flush()
			a.begun <- struct{}{}
			<-r.Context().Done()
		case "/up":
			_, err := io.ReadFull(r.Body, make([]byte, 5))
			a.begun <- struct{}{}
			if err == nil {
				_, err = io.Copy(io.Discard, r.Body)
			}
			a.ended <- err
		default:
			_, _ = io.WriteString(w, "all of it")
		}
	}))
	t.Cleanup(a.Close)
	return a
}

// setting is a stage with the slow API behind it, and with a server that Frontdesk runs.
func setting(t *testing.T, dir string) (*stage.Stage, *slowAPI) {
	t.Helper()
	slog.SetDefault(slog.New(slog.DiscardHandler))
	binary, err := stage.Build(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	at, program, err := stage.Program(t.Context(), "stdio")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(at) })
	api := newSlowAPI(t)
	s, err := stage.New(t.Context(), dir, stage.Options{Binary: binary, Allow: "[everyone]", Upstream: fmt.Sprintf("    hosts: [%q]\n", api.URL),
		Servers: fmt.Sprintf("  own: {command: [%s], env: {TRACKER_URL: \"{egress:tracker}\", TRACKER_TOKEN: \"{keycard}\"}, sandbox: {read: [%s]}, upstreams: [tracker], allow: [everyone]}\n", program, at)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s, api
}

// signedIn is an agent of alice's, who has connected the tracker.
func signedIn(t *testing.T, s *stage.Stage, server string) *world.Agent {
	t.Helper()
	a, err := world.NewAgent(world.AgentConfig{URL: s.Desk().MCP(server), Name: "agent at " + server, Browser: s.Person("alice", "Connect Tracker", "Done")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Close() })
	if answer, err := a.Call(t.Context(), "whoami", nil); err != nil || answer.IsError {
		t.Fatal(world.Text(answer), err)
	}
	return a
}

// keycard is that of a call which lasts until the test ends.
func keycard(t *testing.T, s *stage.Stage, a *world.Agent) string {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	over := make(chan struct{})
	go func() { defer close(over); _, _ = a.Call(ctx, "slow", map[string]any{"steps": 600, "every_ms": 1000}) }()
	t.Cleanup(func() { stop(); <-over })
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		for _, e := range s.Modern.Recorder.Entries() {
			if e.Way == "received" && strings.Contains(string(e.Body), `"slow"`) {
				return e.Header.Get("Authorization")
			}
		}
	}
	t.Fatal("the call did not arrive")
	return ""
}

// record is a line of the log.
type record struct{ Kind, Call, HTTP, Result string }

// settledLog waits until no intent is open, and gives what the log holds, which verifies.
func settledLog(t *testing.T, s *stage.Stage) (l []record) {
	t.Helper()
	var report struct{ Open int }
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(time.Second) {
		out, err := s.Desk().Run("audit", "verify", "--json")
		if err != nil || json.Unmarshal([]byte(out), &report) != nil {
			t.Fatalf("the log does not verify: %v %s", err, out)
		}
		if report.Open == 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%d intents have no outcome", report.Open)
		}
	}
	out, err := s.Desk().Run("audit", "tail", "--json")
	if err != nil {
		t.Fatal(err, out)
	}
	for line := range strings.Lines(out) {
		var r record
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		l = append(l, r)
	}
	return l
}

// outcomes are how the requests to a path ended.
func outcomes(l []record, path string) (results []string) {
	for _, r := range l {
		if r.Kind == "outcome" && strings.HasSuffix(r.HTTP, path) {
			results = append(results, r.Result)
		}
	}
	return results
}

// TestKilledInATransfer: whoever was sending or reading sees that it broke off, in either direction; and the log says of each, once,
// that nobody knows.
func TestKilledInATransfer(t *testing.T) {
	s, api := setting(t, t.TempDir())
	card := keycard(t, s, signedIn(t, s, "modern"))
	base := s.Desk().Egress + "/egress/tracker/@" + strings.TrimPrefix(api.URL, "http://")
	send := func(method, path string, body io.Reader) (*http.Response, error) {
		r, err := http.NewRequestWithContext(t.Context(), method, base+path, body)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", card)
		return http.DefaultClient.Do(r)
	}
	var reading []*http.Response
	for _, path := range []string{"/down", "/sized"} {
		resp, err := send(http.MethodGet, path, nil)
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Fatal(resp, err)
		}
		defer func() { _ = resp.Body.Close() }()
		if _, err := io.ReadFull(resp.Body, make([]byte, len("the first part"))); err != nil {
			t.Fatal(err)
		}
		reading = append(reading, resp)
		<-api.begun
	}
	in, out := io.Pipe()
	defer func() { _ = out.Close() }()
	sent := make(chan error, 1)
	go func() {
		resp, err := send(http.MethodPost, "/up", in)
		if err == nil {
			err = fmt.Errorf("it was answered: %s", resp.Status)
			_ = resp.Body.Close()
			sent <- err
			return
		}
		sent <- nil
	}()
	if _, err := io.WriteString(out, "hello"); err != nil {
		t.Fatal(err)
	}
	<-api.begun
	if err := s.Desk().Kill(); err != nil {
		t.Fatal(err)
	}
	go func() { // who sends notices when he goes on
		for err := error(nil); err == nil; {
			_, err = out.Write(make([]byte, 4<<10))
		}
	}()
	for _, resp := range reading {
		if b, err := io.ReadAll(resp.Body); err == nil {
			t.Errorf("%s: an answer that was cut off looks whole: %q", resp.Request.URL.Path, b)
		}
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
	if err := <-api.ended; err == nil {
		t.Error("the API takes a body that was cut off for a whole one")
	}
	if err := s.Desk().Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	l := settledLog(t, s)
	for _, path := range []string{"/down", "/sized", "/up"} {
		if got := outcomes(l, path); !slices.Equal(got, []string{"unknown"}) {
			t.Errorf("%s: the log says %q", path, got)
		}
	}
}

// TestAServerKilledInACall: its caller is told once, its request to the API has one outcome, and the next call is served.
func TestAServerKilledInACall(t *testing.T) {
	s, api := setting(t, t.TempDir())
	a := signedIn(t, s, "own")
	running := func() (l []hosted.State) {
		out, err := s.Desk().Run("servers", "list", "--json")
		if err != nil || json.Unmarshal([]byte(out), &l) != nil {
			t.Fatal(err, out)
		}
		return l
	}
	before := running()
	if len(before) != 1 {
		t.Fatalf("%+v", before)
	}
	type end struct {
		text string
		err  error
	}
	ended := make(chan end, 1)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	go func() {
		answer, err := a.Call(ctx, "fetch", map[string]any{"text": "/@" + strings.TrimPrefix(api.URL, "http://") + "/down"})
		if err == nil && !answer.IsError {
			err = errors.New("it was answered: " + world.Text(answer))
			ended <- end{err: err}
			return
		}
		got := end{text: fmt.Sprint(err)}
		if answer != nil {
			got.text = world.Text(answer)
		}
		ended <- got
	}()
	<-api.begun
	if err := syscall.Kill(before[0].Pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if got := <-ended; got.err != nil || ctx.Err() != nil || strings.Contains(got.text, "trk_") {
		t.Errorf("%+v %v", got, ctx.Err())
	} else {
		t.Logf("the agent is told: %s", got.text)
	}
	next := ""
	for end := time.Now().Add(20 * time.Second); !strings.Contains(next, "octo-alice") && time.Now().Before(end); time.Sleep(200 * time.Millisecond) { // it is not started again at once
		if answer, err := a.Call(t.Context(), "whoami", nil); err == nil {
			next = world.Text(answer)
		}
	}
	if !strings.Contains(next, "octo-alice") {
		t.Errorf("the next call: %s", next)
	}
	if after := running(); len(after) != 1 || after[0].Pid == before[0].Pid || syscall.Kill(before[0].Pid, 0) == nil {
		t.Errorf("%+v, before %+v", after, before)
	}
	if err := a.Disconnect(); err != nil {
		t.Log(err) // its session may have gone with the process
	}
	if err := s.Desk().Stop(); err != nil { // the new process is an act that is open
		t.Fatal(err)
	}
	if err := s.Desk().Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := outcomes(settledLog(t, s), "/down"); len(got) != 1 || got[0] == "ok" {
		t.Errorf("the log says %q", got)
	}
}

// TestDiskFull: where an intent cannot be written nothing happens, and it says so; when there is room again it goes on by itself, and
// the log is whole. It needs root, to mount a small disk.
func TestDiskFull(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=48m"); err != nil {
		t.Fatalf("a small disk cannot be mounted; run this as root: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	s, api := setting(t, dir)
	card := keycard(t, s, signedIn(t, s, "modern"))
	base := s.Desk().Egress + "/egress/tracker/@" + strings.TrimPrefix(api.URL, "http://")
	var heard int
	api.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		heard++
		_, _ = io.WriteString(w, "all of it")
	})
	ask := func(path string) (int, string) {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, base+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", card)
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(b)
	}
	if status, b := ask("/before"); status != http.StatusOK || heard != 1 {
		t.Fatal(status, b)
	}
	fill(t, filepath.Join(dir, "fill"))
	// What the database's files have room for is still used up; from then on every answer is a no.
	refused, last := 0, heard
	for i := 0; refused < 20; i++ {
		status, b := ask(fmt.Sprintf("/full/%d", i))
		switch {
		case status == http.StatusOK && refused == 0 && i < 20_000:
			last = heard
		case status == http.StatusOK:
			t.Fatalf("after %d: %s, though the disk is full", i, b)
		default:
			if refused++; heard != last || status != http.StatusServiceUnavailable && status != http.StatusBadGateway || !strings.Contains(b, "audit log cannot be written") {
				t.Fatalf("%d %s, %d requests at the API of %d", status, b, heard, last)
			}
		}
	}
	if err := os.Remove(filepath.Join(dir, "fill")); err != nil {
		t.Fatal(err)
	}
	status, b := ask("/after")
	for end := time.Now().Add(30 * time.Second); status != http.StatusOK && time.Now().Before(end); status, b = ask("/after") {
		time.Sleep(50 * time.Millisecond)
	}
	if status != http.StatusOK {
		t.Fatalf("there is room again, and it says %d %s", status, b)
	}
	if err := s.Desk().Kill(); err != nil { // what is open ends
		t.Fatal(err)
	}
	if err := s.Desk().Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	l := settledLog(t, s)
	if got := outcomes(l, "/after"); len(got) == 0 { // refusals among them
		t.Error("the log does not hold what came after")
	}
	ended := map[string]bool{}
	for _, r := range l {
		if r.Kind != "outcome" {
			continue
		}
		if ended[r.Call] {
			t.Errorf("%s has two outcomes", r.Call)
		}
		ended[r.Call] = true
	}
}

// fill writes a file until nothing more fits.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	for size := 1 << 20; size > 0; size /= 2 {
		for err = nil; err == nil; {
			_, err = f.Write(make([]byte, size))
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
}
