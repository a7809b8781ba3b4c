package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"frontdesk.dev/frontdesk/internal/hosted"
	"frontdesk.dev/frontdesk/test/world"
)

// hostedRow is what servers cost that Frontdesk runs itself: the start of one, as its user sees it (from his call to the answer,
// sandbox, program and handshake in between), and 1,000 that are idle.
func hostedRow(b *bench) error {
	opened := len(b.closers)
	program, err := b.small()
	if err != nil {
		return err
	}
	egress, err := world.Port()
	if err != nil {
		return err
	}
	api, err := b.start("api")
	if err != nil {
		return err
	}
	n := b.times(1000, 2000)
	d, err := b.open(setting{stored: n, egress: egress, api: "http://" + api.addr, program: program, max: n})
	if err != nil {
		return err
	}
	before, err := resident(d.Pid())
	if err != nil {
		return err
	}
	addr := strings.TrimPrefix(d.Public, "http://")
	x, err := exchanges(addr, "/mcp/tools", "echo", n, b.idp.token)
	if err != nil {
		return err
	}
	from, err := cpu(d.Pid())
	if err != nil {
		return err
	}
	starts, warm := make([]time.Duration, 0, n), make([]time.Duration, 0, n)
	for i := range x {
		first, second, err := d.twice(addr, x[i])
		if err != nil {
			return fmt.Errorf("user %d: %w", i, err)
		}
		starts, warm = append(starts, first), append(warm, second)
	}
	to, err := cpu(d.Pid())
	if err != nil {
		return err
	}
	after, err := resident(d.Pid())
	if err != nil {
		return err
	}
	states, err := d.processes()
	if err != nil {
		return err
	}
	var own int64
	for _, s := range states {
		kb, err := share(s.Pid)
		if err != nil {
			return err
		}
		own += kb << 10
	}
	if len(states) != n {
		return fmt.Errorf("%d servers run, want %d", len(states), n)
	}
	slices.Sort(starts)
	slices.Sort(warm)
	at := func(l []time.Duration, p float64) string { return ms(l[int(p*float64(len(l)-1))]) }
	fmt.Printf("%d starts, from the call to its answer: p50 %s ms, p99 %s ms; the next call: p50 %s ms, p99 %s ms; CPU of Frontdesk for both: %s ms\n",
		n, at(starts, 0.5), at(starts, 0.99), at(warm, 0.5), at(warm, 0.99), ms((to-from)/time.Duration(n)))
	fmt.Printf("%d idle servers: %s MB in all, %.0f KB each (shared pages divided among those that share them); Frontdesk itself grew from %s to %s MB, %.0f KB each\n",
		n, mb(own), float64(own)/1024/float64(n), mb(before), mb(after), float64(after-before)/1024/float64(n))
	if err := d.settle(b.ctx); err != nil {
		return err
	}
	for _, s := range states {
		if _, err := os.Stat(fmt.Sprintf("/proc/%d", s.Pid)); err == nil {
			return fmt.Errorf("process %d lives on", s.Pid)
		}
	}
	return b.closeDownTo(opened)
}

// twice makes the call twice on one connection: the first starts the server.
func (d *desk) twice(addr string, x exchange) (first, second time.Duration, err error) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return 0, 0, err
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(time.Minute)) // a connection that takes no deadline fails at once
	a := answerReader{in: bufio.NewReader(conn)}
	for _, took := range []*time.Duration{&first, &second} {
		began := time.Now()
		if _, err := conn.Write(x.request); err != nil {
			return 0, 0, err
		}
		status, body, err := a.next()
		if err == nil && (status != 200 || !strings.Contains(string(body), "All work and no play")) {
			err = fmt.Errorf("status %d: %.300s", status, body)
		}
		if err != nil {
			return 0, 0, err
		}
		*took = time.Since(began)
		d.calls++
	}
	return first, second, nil
}

// small builds the program, where a sandbox may read it.
func (b *bench) small() (path string, err error) {
	dir, err := os.MkdirTemp("/var/tmp", "frontdesk-bench-")
	if err != nil {
		return "", err
	}
	b.onClose(func() error { return os.RemoveAll(dir) })
	path = filepath.Join(dir, "small")
	c := exec.CommandContext(b.ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", path, "frontdesk.dev/frontdesk/bench/small")
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	if said, err := c.CombinedOutput(); err != nil {
		return "", fmt.Errorf("the small server does not build: %w\n%s", err, said)
	}
	return path, os.Chmod(dir, 0o755)
}

// processes are the hosted servers that run.
func (d *desk) processes() (l []hosted.State, err error) {
	said, err := d.Run("servers", "list", "--json")
	if err != nil {
		return nil, fmt.Errorf("%w: %s", err, said)
	}
	return l, json.Unmarshal([]byte(said), &l)
}

// share is a process's proportional share of memory, in KiB; where that may not be read, what is resident.
func share(pid int) (kb int64, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if errors.Is(err, os.ErrPermission) {
		n, err := resident(pid)
		return n >> 10, err
	}
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if _, err := fmt.Sscanf(line, "Pss: %d kB", &kb); err == nil {
			return kb, nil
		}
	}
	return 0, fmt.Errorf("process %d has no Pss", pid)
}
