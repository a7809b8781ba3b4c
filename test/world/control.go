package world

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"frontdesk.dev/frontdesk/test/world/authserver"
	"frontdesk.dev/frontdesk/test/world/capture"
)

// A party in a process of its own is steered over a second socket: POST /<command> with form arguments, JSON back.

// Command is one thing that can be asked of a party.
type Command func(ctx context.Context, args url.Values) (any, error)

// Control serves commands.
func Control(commands map[string]Command) http.Handler {
	mux := http.NewServeMux()
	for name, run := range commands {
		mux.HandleFunc("POST /"+name, func(w http.ResponseWriter, r *http.Request) {
			if err := r.ParseForm(); err != nil {
				answer(w, http.StatusBadRequest, map[string]any{"error": err.Error()})
				return
			}
			out, err := run(r.Context(), r.Form)
			if err != nil {
				answer(w, http.StatusUnprocessableEntity, map[string]any{"error": err.Error()})
				return
			}
			answer(w, http.StatusOK, out)
		})
	}
	return mux
}

// tell makes a command of a question that takes no arguments and cannot fail.
func tell[T any](f func() T) Command {
	return func(context.Context, url.Values) (any, error) { return f(), nil }
}

// forUser makes a command of something that is done to a user.
func forUser(f func(user string) error) Command {
	return func(_ context.Context, args url.Values) (any, error) { return nil, f(args.Get("user")) }
}

func serverCommands(s *authserver.Server, p *party) map[string]Command {
	return map[string]Command{
		"requests":          tell(p.Requests),
		"tokens":            tell(s.Tokens),
		"redemptions":       tell(s.Redemptions),
		"dismiss":           forUser(s.Dismiss),
		"reinstate":         forUser(s.Reinstate),
		"sign-out":          forUser(s.SignOut),
		"expire-access":     forUser(s.ExpireAccess),
		"withdraw":          forUser(s.Withdraw),
		"fail-next-refresh": forUser(s.FailNextRefresh),
		"rotate-key":        func(context.Context, url.Values) (any, error) { return nil, s.RotateKey() },
		"forget-old-keys":   func(context.Context, url.Values) (any, error) { s.ForgetOldKeys(); return nil, nil },
		"set-groups": func(_ context.Context, a url.Values) (any, error) {
			return nil, s.SetGroups(a.Get("user"), a["group"]...)
		},
		"faults": func(_ context.Context, a url.Values) (any, error) {
			var f authserver.Faults
			if err := json.Unmarshal([]byte(a.Get("faults")), &f); err != nil {
				return nil, fmt.Errorf("faults: %w", err)
			}
			s.SetFaults(f)
			return nil, nil
		},
	}
}

// Commands are those of a process that runs this party.
func (i *IdP) Commands() map[string]Command {
	c := serverCommands(i.Server, i.party)
	c["register"] = func(_ context.Context, a url.Values) (any, error) { i.Register(a["redirect"]...); return nil, nil }
	c["mint"] = func(_ context.Context, a url.Values) (any, error) {
		return i.MintAccessToken(a.Get("user"), a.Get("audience"), nil)
	}
	return c
}

// Commands are those of a process that runs this party.
func (t *Tracker) Commands() map[string]Command {
	c := serverCommands(t.Server, t.party)
	c["register"] = func(_ context.Context, a url.Values) (any, error) { t.Register(a["redirect"]...); return nil, nil }
	c["calls"] = tell(t.Calls)
	c["issues"] = func(_ context.Context, a url.Values) (any, error) { return t.Issues(a.Get("user")), nil }
	c["api-key"] = func(_ context.Context, a url.Values) (any, error) {
		return t.NewAPIKey(a.Get("user"), a["scope"]...), nil
	}
	c["end-api-key"] = func(_ context.Context, a url.Values) (any, error) { t.EndAPIKey(a.Get("key")); return nil, nil }
	return c
}

// Commands are those of a process that runs this party.
func (s *IssuesServer) Commands() map[string]Command {
	return map[string]Command{
		"requests": tell(s.Requests),
		"captures": tell(s.Recorder.Entries),
		"add-tool": func(_ context.Context, a url.Values) (any, error) { return nil, s.AddTool(a.Get("name")) },
	}
}

// Commands are those of a process that runs this party.
func (v *VendorMCP) Commands() map[string]Command {
	return map[string]Command{"requests": tell(v.Requests), "captures": tell(v.Recorder.Entries)}
}

// Commands are those of a process that runs this party. `call` takes a tool and its arguments as JSON, and gives the
// result as the protocol has it.
func (a *Agent) Commands() map[string]Command {
	return map[string]Command{
		"call": func(ctx context.Context, args url.Values) (any, error) {
			var in map[string]any
			if text := args.Get("args"); text != "" {
				if err := json.Unmarshal([]byte(text), &in); err != nil {
					return nil, fmt.Errorf("args: %w", err)
				}
			}
			return a.Call(ctx, args.Get("tool"), in)
		},
		"tools":        func(ctx context.Context, _ url.Values) (any, error) { return a.Tools(ctx) },
		"captures":     tell(a.Recorder.Entries),
		"notices":      tell(a.Notices),
		"access-token": tell(a.AccessToken),
		"refreshes":    tell(a.Refreshes),
		"expire-token": func(context.Context, url.Values) (any, error) { a.ExpireToken(); return nil, nil },
		"disconnect":   func(context.Context, url.Values) (any, error) { return nil, a.Disconnect() },
	}
}

// Ready is the line that a party prints when it answers.
type Ready struct {
	Kind    string `json:"kind"`
	URL     string `json:"url"`
	Control string `json:"control"`
}

// Link is the line that an agent's process prints when a person should open something.
type Link struct {
	Open string `json:"open"`
}

// Process is a party in a process of its own.
type Process struct {
	Ready
	cmd   *exec.Cmd
	links chan string

	end  sync.Once
	done chan struct{} // closed when the process is gone
	err  error         // why; readable then
}

// BuildParty builds cmd/party into a directory and gives the path of the program. It needs the Go command and runs
// inside the module.
func BuildParty(ctx context.Context, dir string) (string, error) {
	out := filepath.Join(dir, "party")
	cmd := exec.CommandContext(ctx, "go", "build", "-o", out, "frontdesk.dev/frontdesk/test/world/cmd/party")
	if text, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the party program: %w\n%s", err, text)
	}
	return out, nil
}

// startPatience is how long a party may take until it answers.
const startPatience = 30 * time.Second

// Spawn runs a program that prints a Ready line: the party program with a kind and flags, or any other that keeps to
// it. What it writes to standard error goes to ours.
func Spawn(ctx context.Context, program string, args ...string) (*Process, error) {
	p := &Process{cmd: exec.Command(program, args...), links: make(chan string, 64), done: make(chan struct{})}
	p.cmd.Stderr = os.Stderr
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start a party: %w", err)
	}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start a party: %w", err)
	}
	ready := make(chan error, 1)
	go p.read(out, ready)
	select {
	case err = <-ready:
	case <-time.After(startPatience):
		err = fmt.Errorf("%s did not answer within %s", filepath.Base(program), startPatience)
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start a party: %w", err), p.Close())
	}
	return p, nil
}

// read takes the Ready line, then links, and reaps the process.
func (p *Process) read(out io.Reader, ready chan<- error) {
	defer close(p.done)
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	if lines.Scan() {
		ready <- json.Unmarshal(lines.Bytes(), &p.Ready)
	} else {
		ready <- errors.New("it ended without a word")
	}
	for lines.Scan() {
		var l Link
		if json.Unmarshal(lines.Bytes(), &l) == nil && l.Open != "" {
			select {
			case p.links <- l.Open:
			default: // nobody looks; the link is in the party's captures all the same
			}
		}
	}
	p.err = p.cmd.Wait()
}

// URL is the party's.
func (p *Process) URL() string { return p.Ready.URL }

// Links are what an agent wants opened.
func (p *Process) Links() <-chan string { return p.links }

// Pid is the process's id, for those who want to kill it harder than Close does.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Do runs a command and reads its answer into out, which may be nil.
func (p *Process) Do(ctx context.Context, command string, args url.Values, out any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.Control+"/"+command, strings.NewReader(args.Encode()))
	if err != nil {
		return fmt.Errorf("%s %s: %w", p.Kind, command, err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("%s %s: %w", p.Kind, command, err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<16))
		return fmt.Errorf("%s %s: %d %s", p.Kind, command, resp.StatusCode, strings.TrimSpace(string(text)))
	}
	if out == nil {
		return nil
	}
	if err := json.NewDecoder(resp.Body).Decode(out); err != nil {
		return fmt.Errorf("%s %s: %w", p.Kind, command, err)
	}
	return nil
}

// Captures is what the party received, sent and wrote down.
func (p *Process) Captures(ctx context.Context) ([]capture.Entry, error) {
	var out []capture.Entry
	err := p.Do(ctx, "captures", nil, &out)
	return out, err
}

// Close asks the process to end, waits, and kills it if it does not.
func (p *Process) Close() error {
	p.end.Do(func() { _ = p.cmd.Process.Signal(syscall.SIGTERM) })
	select {
	case <-p.done:
	case <-time.After(5 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.done
	}
	var exit *exec.ExitError
	if errors.As(p.err, &exit) { // however it went
		return nil
	}
	return p.err
}
