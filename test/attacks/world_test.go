// Package attacks_test tries the attack catalogue on the real binary, over sockets. A test's name begins with the attack's
// number; open.md lists those that wait for later work.
package attacks_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"frontdesk.dev/frontdesk/test/stage"
	"frontdesk.dev/frontdesk/test/world"
)

// scene is one stage for all attacks: alice, of engineering, is connected.
type scene struct {
	*stage.Stage
	alice *world.Agent
	token string
}

var (
	once  sync.Once
	shown *scene
	dir   string
	begun error

	closing []func() // what else is on stage when the tests have run
)

func TestMain(m *testing.M) {
	slog.SetDefault(slog.New(slog.DiscardHandler)) // the world's parties talk to themselves
	code := m.Run()
	for _, c := range closing {
		c()
	}
	if shown != nil {
		_ = shown.Close()
	}
	closeHostile()
	if dir != "" {
		_ = os.RemoveAll(dir)
	}
	os.Exit(code)
}

// built is the binary, made once for all stages.
var built = sync.OnceValues(func() (string, error) {
	d, err := os.MkdirTemp("", "frontdesk-binary-")
	if err != nil {
		return "", err
	}
	closing = append(closing, func() { _ = os.RemoveAll(d) })
	return stage.Build(context.Background(), d)
})

func play(t *testing.T) *scene {
	t.Helper()
	once.Do(func() { shown, begun = begin() })
	if begun != nil {
		t.Fatal(begun)
	}
	return shown
}

func begin() (*scene, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
	defer cancel()
	var err error
	if dir, err = os.MkdirTemp("", "frontdesk-attacks-"); err != nil {
		return nil, err
	}
	binary, err := built()
	if err != nil {
		return nil, err
	}
	s, err := stage.New(ctx, dir, stage.Options{Binary: binary})
	if err != nil {
		return nil, err
	}
	a, err := world.NewAgent(world.AgentConfig{URL: s.Desk().MCP("modern"), Name: "good-agent", Era: world.Era2026July, Browser: s.Person("alice", "Connect Tracker", "Done")})
	if err != nil {
		return nil, err
	}
	if r, err := a.Call(ctx, "whoami", nil); err != nil || r.IsError {
		return nil, fmt.Errorf("alice is not connected: %v, %w", r, err)
	}
	return &scene{s, a, a.AccessToken()}, nil
}

type answer struct {
	Status int
	Header http.Header
	Body   string
}

// send makes a request that no library would make more polite.
func send(t *testing.T, method, url, body string, headers ...string) answer {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	c := http.Client{Timeout: 20 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, string(b)}
}

const meta = `"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}`

func callBody(tool, args string) string {
	return `{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"` + tool + `","arguments":` + args + `,` + meta + `}}`
}

// noLeak checks that nothing of the tracker's tokens is where it does not belong (oracle O1).
func (s *scene) noLeak(t *testing.T) {
	t.Helper()
	for _, token := range s.Tracker.Tokens() {
		if len(s.Modern.Recorder.Search(token.Value)) > 0 || len(s.Legacy.Recorder.Search(token.Value)) > 0 || len(s.alice.Recorder.Search(token.Value)) > 0 {
			t.Errorf("a token of the tracker reached an agent or an MCP server")
		}
		if strings.Contains(s.Desk().Log(), token.Value) {
			t.Error("a token of the tracker stands in the log")
		}
	}
}

// calls counts what the tracker's API saw.
func (s *scene) calls() int { return len(s.Tracker.Calls()) }
