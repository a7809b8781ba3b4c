package pg

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// Pair is a server and a standby that follows it by streaming replication, of which either may be in front. What differs from a
// Start is that a commit waits for the disk.
type Pair struct {
	DSN string // of both: whichever takes writes is the one

	bin         string
	synchronous bool
	nodes       [2]*node
	front       int
}

type node struct {
	dir string
	cmd *exec.Cmd
}

// StartPair starts both. With synchronous, a commit waits for the standby, and the standby for nobody.
func StartPair(t testing.TB, synchronous bool) *Pair {
	t.Helper()
	bin := needed(t)
	p := &Pair{bin: bin, synchronous: synchronous}
	t.Cleanup(p.close)
	var hosts []string
	for i := range p.nodes {
		dir, err := os.MkdirTemp("", "frontdesk-pg")
		if err != nil {
			t.Fatal(err)
		}
		p.nodes[i] = &node{dir: dir}
		hosts = append(hosts, dir)
		if os.Geteuid() == 0 {
			if out, err := exec.Command("chown", "postgres", dir).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
		}
	}
	p.DSN = "postgres:///postgres?user=postgres&target_session_attrs=read-write&host=" + url.QueryEscape(strings.Join(hosts, ","))
	if err := p.run(t.Context(), "initdb", "-D", p.data(0), "-U", "postgres", "--auth=trust", "--no-sync", "-E", "UTF8", "--locale=C"); err != nil {
		t.Fatal(err)
	}
	if err := p.serve(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	if err := p.Follow(t.Context()); err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *Pair) data(i int) string { return filepath.Join(p.nodes[i].dir, "data") }

// command is a program of PostgreSQL's, as the user that it runs as, which ends with the test binary.
func (p *Pair) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	full := append([]string{filepath.Join(p.bin, name)}, args...)
	if os.Geteuid() == 0 {
		full = append([]string{"setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", "--pdeathsig=KILL"}, full...)
	}
	c := exec.CommandContext(ctx, full[0], full[1:]...)
	c.Dir = os.TempDir()
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	return c
}

func (p *Pair) run(ctx context.Context, name string, args ...string) error {
	if out, err := p.command(ctx, name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", name, err, out)
	}
	return nil
}

func (p *Pair) dsn(i int) string {
	return "postgres:///postgres?user=postgres&host=" + url.QueryEscape(p.nodes[i].dir)
}

// serve starts a node, and waits until it answers.
func (p *Pair) serve(ctx context.Context, i int) error {
	n := p.nodes[i]
	names := ""
	if p.synchronous {
		names = "*"
	}
	n.cmd = p.command(context.WithoutCancel(ctx), "postgres", "-D", p.data(i), "-k", n.dir, "-c", "listen_addresses=", "-c", "max_connections=100", "-c", "fsync=off",
		"-c", "wal_sender_timeout=5s", "-c", "wal_receiver_timeout=5s", "-c", "synchronous_standby_names="+names)
	var said bytes.Buffer
	n.cmd.Stdout, n.cmd.Stderr = &said, &said
	if err := n.cmd.Start(); err != nil {
		return err
	}
	return p.until(ctx, i, "SELECT 'answers'", "answers")
}

// until asks a node until it gives this answer.
func (p *Pair) until(ctx context.Context, i int, question, want string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		got, err := p.ask(ctx, i, question)
		if err == nil && got == want {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("PostgreSQL answers %q to %q, want %q", got, question, want), err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (p *Pair) ask(ctx context.Context, i int, question string) (answer string, err error) {
	conn, err := pgx.Connect(ctx, p.dsn(i))
	if err != nil {
		return "", err
	}
	defer func() { _ = conn.Close(ctx) }()
	err = conn.QueryRow(ctx, question).Scan(&answer)
	return answer, err
}

// Follow makes the node that is not in front a standby of the one that is, from a copy, and waits until it keeps up.
func (p *Pair) Follow(ctx context.Context) error {
	back := 1 - p.front
	if err := os.RemoveAll(p.data(back)); err != nil {
		return err
	}
	if err := p.run(ctx, "pg_basebackup", "-D", p.data(back), "-d", p.dsn(p.front), "-R", "-X", "stream", "-c", "fast", "--no-sync"); err != nil {
		return err
	}
	if err := p.serve(ctx, back); err != nil {
		return err
	}
	state := "async"
	if p.synchronous {
		state = "sync"
	}
	return p.until(ctx, p.front, "SELECT COALESCE(string_agg(sync_state, ' '), '') FROM pg_stat_replication WHERE state = 'streaming'", state)
}

// CaughtUp waits until the standby has all that was committed.
func (p *Pair) CaughtUp(ctx context.Context) error {
	return p.until(ctx, p.front, "SELECT COALESCE(bool_and(flush_lsn >= pg_current_wal_lsn()), false)::text FROM pg_stat_replication", "true")
}

// Lag stops what the server in front sends to its standby, as a network does that carries nothing any more.
func (p *Pair) Lag(ctx context.Context) error {
	sender, err := p.ask(ctx, p.front, "SELECT pid::text FROM pg_stat_replication")
	if err != nil {
		return err
	}
	pid, err := strconv.Atoi(sender)
	if err != nil {
		return err
	}
	return syscall.Kill(pid, syscall.SIGSTOP)
}

// Promote kills the server in front, as a power loss does, and puts its standby in its place, which a moment later takes writes.
func (p *Pair) Promote(ctx context.Context) error {
	if err := p.nodes[p.front].kill(); err != nil {
		return err
	}
	p.front = 1 - p.front
	if _, err := p.ask(ctx, p.front, "SELECT pg_promote()::text"); err != nil {
		return err
	}
	return p.until(ctx, p.front, "SELECT pg_is_in_recovery()::text", "false")
}

// kill ends a node with all its processes: none of them lives on and holds a file.
func (n *node) kill() error {
	if n == nil || n.cmd == nil || n.cmd.Process == nil {
		return nil
	}
	for _, pid := range append(children(n.cmd.Process.Pid), n.cmd.Process.Pid) {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			return err
		}
	}
	_ = n.cmd.Wait() // it was killed, so it says so
	n.cmd = nil
	return nil
}

func children(of int) (l []int) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/task/%d/children", of, of))
	if err != nil {
		return nil
	}
	defer func() { _ = f.Close() }() // it was only read
	words := bufio.NewScanner(f)
	words.Split(bufio.ScanWords)
	for words.Scan() {
		if pid, err := strconv.Atoi(words.Text()); err == nil {
			l = append(l, pid)
		}
	}
	return l
}

func (p *Pair) close() {
	for _, n := range p.nodes {
		if n == nil {
			continue
		}
		_ = n.kill()
		_ = os.RemoveAll(n.dir)
	}
}
