// Package pg gives tests a real PostgreSQL: a throwaway cluster for the test binary, a database for each who asks.
//
// It needs the server's programs (initdb, postgres) in PATH or where Debian puts them. Where they are missing a test is
// skipped with a word, and fails where CI=true or FRONTDESK_REQUIRE=all say that everything has to run.
package pg

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// needed is where PostgreSQL's programs are. Without them the test fails in CI, and elsewhere says what is missing.
func needed(t testing.TB) string {
	t.Helper()
	bin, err := programs()
	if err != nil {
		if os.Getenv("CI") == "true" || os.Getenv("FRONTDESK_REQUIRE") == "all" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	return bin
}

// Start returns the DSN of an empty database that lives as long as t. Clusters are shared by the tests that run at the
// same time, and end with the last of them.
func Start(t testing.TB) string {
	t.Helper()
	bin := needed(t)
	c, err := acquire(bin)
	if err != nil {
		t.Fatalf("starting PostgreSQL: %v", err)
	}
	t.Cleanup(c.release)
	dsn, err := c.database(t.Context())
	if err != nil {
		t.Fatalf("making a database: %v", err)
	}
	return dsn
}

func programs() (string, error) {
	if p, err := exec.LookPath("initdb"); err == nil {
		if real, err := filepath.EvalSymlinks(p); err == nil { // beside it are the others
			p = real
		}
		return filepath.Dir(p), nil
	}
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if err != nil || len(found) == 0 {
		return "", errors.New("PostgreSQL is not installed, so what is true on it was not tried: apt-get install postgresql, or put initdb into PATH")
	}
	return filepath.Dir(found[len(found)-1]), nil
}

// cluster is a running server. The shell that started it stops it and clears its folder when its standard input ends: with
// the last test, or with the test binary, however that ends.
type cluster struct {
	dir   string
	shell *exec.Cmd
	stdin interface{ Close() error }
	users int
	bases int
}

var (
	mu      sync.Mutex
	running *cluster // guarded by mu, with its counts
)

func acquire(bin string) (*cluster, error) {
	mu.Lock()
	defer mu.Unlock()
	if running == nil {
		c, err := start(bin)
		if err != nil {
			return nil, err
		}
		running = c
	}
	running.users++
	return running, nil
}

func (c *cluster) release() {
	mu.Lock()
	defer mu.Unlock()
	if c.users--; c.users > 0 {
		return
	}
	running = nil
	_ = c.stdin.Close()
	_ = c.shell.Wait() // it was killed, so it says so
}

const script = `
set -eu
bin=$1 dir=$2; shift 2
"$@" "$bin/initdb" -D "$dir/data" -U postgres --auth=trust --no-sync -E UTF8 --locale=C >"$dir/log" 2>&1
"$@" "$bin/postgres" -D "$dir/data" -k "$dir" -c listen_addresses= -c fsync=off -c max_connections=200 >>"$dir/log" 2>&1 &
trap 'kill -QUIT $! 2>/dev/null; wait $! || true; rm -rf "$dir"' EXIT
cat >/dev/null`

func start(bin string) (*cluster, error) {
	dir, err := os.MkdirTemp("", "frontdesk-pg")
	if err != nil {
		return nil, err
	}
	args := []string{"-c", script, "sh", bin, dir}
	if os.Geteuid() == 0 { // the server refuses to run as root
		if out, err := exec.Command("chown", "postgres", dir).CombinedOutput(); err != nil {
			return nil, fmt.Errorf("%w: %s", err, out)
		}
		args = append(args, "setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups")
	}
	c := &cluster{dir: dir, shell: exec.Command("sh", args...)}
	if c.stdin, err = c.shell.StdinPipe(); err != nil {
		return nil, err
	}
	var said bytes.Buffer
	c.shell.Stderr = &said
	if err := c.shell.Start(); err != nil {
		return nil, err
	}
	if err := c.await(); err != nil {
		log, _ := os.ReadFile(filepath.Join(dir, "log"))
		_ = c.stdin.Close()
		_ = c.shell.Wait()
		return nil, fmt.Errorf("%w\n%s%s", err, said.Bytes(), log)
	}
	return c, nil
}

// await asks until the server answers.
func (c *cluster) await() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := c.exec(ctx, "SELECT 1")
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-tick.C:
		}
	}
}

func (c *cluster) dsn(database string) string {
	return "postgres:///" + database + "?user=postgres&host=" + url.QueryEscape(c.dir)
}

func (c *cluster) database(ctx context.Context) (string, error) {
	mu.Lock()
	c.bases++
	name := fmt.Sprintf("test%d", c.bases)
	mu.Unlock()
	return c.dsn(name), c.exec(ctx, "CREATE DATABASE "+name)
}

func (c *cluster) exec(ctx context.Context, statement string) error {
	conn, err := pgx.Connect(ctx, c.dsn("postgres"))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	_, err = conn.Exec(ctx, statement)
	return err
}
