//go:build conformance

// Package conformance_test runs the protocol's own conformance suites: against a server of the official Go SDK directly, and
// against the same server behind Frontdesk. What differs is listed in differences.txt, each with its reason; a difference
// that is not listed fails, and so does a listed one that is gone.
package conformance_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"frontdesk.dev/frontdesk/test/stage"
	"frontdesk.dev/frontdesk/test/world"
)

const (
	suite = "../tools/node_modules/@modelcontextprotocol/conformance/dist/index.js"
	node  = "../tools/node_modules/.bin/node"
	// everything is the reference server of the Go SDK, at the version that go.mod pins.
	everything = "github.com/modelcontextprotocol/go-sdk/conformance/everything-server"
)

// revisions are the sets that are run: what each revision requires, and how the reference server must run for it.
var revisions = []struct{ name, server, stateless string }{
	{"2025-11-25", "everything-legacy", "false"},
	{"2026-07-28", "everything-modern", "true"},
}

var runs = flag.Int("runs", 1, "how often the suites run through Frontdesk: many, to look for hangs")

func TestMain(m *testing.M) {
	slog.SetDefault(slog.New(slog.DiscardHandler)) // the world's parties talk to themselves
	os.Exit(m.Run())
}

func free(t *testing.T) string {
	t.Helper()
	at, err := world.Port()
	if err != nil {
		t.Fatal(err)
	}
	return at
}

// reference starts the reference server and returns its address.
func reference(t *testing.T, binary, stateless string) string {
	t.Helper()
	addr := free(t)
	c := exec.Command(binary, "-http", addr, "-stateless="+stateless)
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Process.Kill(); _ = c.Wait() })
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
		if err == nil {
			_ = conn.Close()
			return addr
		}
		select {
		case <-ctx.Done():
			t.Fatal("the reference server does not listen")
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// scene is Frontdesk before both reference servers, and a person who is signed in.
type scene struct {
	*stage.Stage
	direct map[string]string       // address of the reference server, by revision
	agents map[string]*world.Agent // who signed in to it at Frontdesk, by revision
}

func setUp(t *testing.T) *scene {
	t.Helper()
	for _, f := range []string{suite, node} {
		if _, err := os.Stat(f); err != nil {
			t.Fatal("the conformance suite is not installed: run `make tools`")
		}
	}
	binary := filepath.Join(t.TempDir(), "everything-server")
	if out, err := exec.Command("go", "build", "-o", binary, everything).CombinedOutput(); err != nil {
		t.Fatalf("the reference server does not build: %v\n%s", err, out)
	}
	s := &scene{direct: map[string]string{}, agents: map[string]*world.Agent{}}
	servers := ""
	for _, r := range revisions {
		s.direct[r.name] = reference(t, binary, r.stateless)
		servers += fmt.Sprintf("  %s: {url: \"http://%s/\", allow: [group:engineering]}\n", r.server, s.direct[r.name])
	}
	s.Stage = stage.Start(t, stage.Options{Servers: servers})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for _, r := range revisions {
		a, err := world.NewAgent(world.AgentConfig{URL: s.Desk().MCP(r.server), Name: "suite", Era: r.name, Browser: s.Person("alice")})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = a.Close() })
		if _, err := a.Tools(ctx); err != nil {
			t.Fatal(err)
		}
		s.agents[r.name] = a
	}
	return s
}

// results is what came of a run: the worst status of each check, by "scenario check", and how many of them passed and failed,
// counted as the suite does.
type results struct {
	worst          map[string]string
	passed, failed int
}

var severity = map[string]int{"INFO": 0, "SKIPPED": 1, "SUCCESS": 2, "WARNING": 3, "FAILURE": 4}

var scenarioDir = regexp.MustCompile(`^(?:server-)?(.+)-\d{4}-\d\d-\d\dT[-\dZ]+$`)

// token is a fresh one: a run takes less time than it lives.
func (s *scene) token(t *testing.T, revision string) string {
	t.Helper()
	a := s.agents[revision]
	a.ExpireToken()
	if _, err := a.Tools(t.Context()); err != nil {
		t.Fatal(err)
	}
	return a.AccessToken()
}

// run runs a requirement set and reads the result of each check. An empty token adds none.
func run(t *testing.T, address, revision, token string) (results, string) {
	t.Helper()
	dir := t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	c := exec.CommandContext(ctx, node, suite, "server", "--url", address, "--requirements", revision, "-o", dir)
	if token != "" {
		inside, err := filepath.Abs("token.mjs")
		if err != nil {
			t.Fatal(err)
		}
		c.Env = append(os.Environ(), "NODE_OPTIONS=--import="+inside, "SUITE_TOKEN="+token)
	}
	out, err := c.CombinedOutput()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return read(t, dir, out), string(out)
}

func read(t *testing.T, dir string, said []byte) results {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) == 0 {
		t.Fatalf("the suite wrote no results: %v\n%s", err, said)
	}
	all := results{worst: map[string]string{}}
	for _, e := range entries {
		name := scenarioDir.FindStringSubmatch(e.Name())
		if name == nil {
			t.Fatalf("a result of an unknown name: %s", e.Name())
		}
		raw, err := os.ReadFile(filepath.Join(dir, e.Name(), "checks.json"))
		if err != nil {
			t.Fatal(err)
		}
		var l []struct{ ID, Status, ErrorMessage string }
		if err := json.Unmarshal(raw, &l); err != nil {
			t.Fatal(err)
		}
		for _, k := range l {
			key := name[1] + " " + k.ID
			if old, ok := all.worst[key]; !ok || severity[k.Status] > severity[old] {
				all.worst[key] = k.Status
			}
			switch k.Status {
			case "SUCCESS":
				all.passed++
			case "FAILURE":
				all.failed++
			}
		}
	}
	return all
}

// listed are the differences that are known, by "revision scenario check direct through".
func listed(t *testing.T) map[string]string {
	t.Helper()
	f, err := os.Open("differences.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	out := map[string]string{}
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		what, reason, ok := strings.Cut(line, "|")
		if what = strings.Join(strings.Fields(what), " "); !ok || strings.TrimSpace(reason) == "" || strings.Count(what, " ") != 4 {
			t.Errorf("differences.txt: no `revision scenario check direct through | reason`: %s", line)
		}
		out[what] = strings.TrimSpace(reason)
	}
	return out
}

// differences are the checks that came out differently.
func differences(revision string, direct, through results) []string {
	or := func(r results, k string) string {
		if s, ok := r.worst[k]; ok {
			return s
		}
		return "ABSENT"
	}
	keys := maps.Clone(direct.worst)
	maps.Copy(keys, through.worst)
	var out []string
	for _, k := range slices.Sorted(maps.Keys(keys)) {
		if a, b := or(direct, k), or(through, k); a != b {
			out = append(out, revision+" "+k+" "+a+" "+b)
		}
	}
	return out
}

// TestServerSuites compares what the suites say of the reference server with what they say of it behind Frontdesk.
func TestServerSuites(t *testing.T) {
	s, known, seen := setUp(t), listed(t), map[string]bool{}
	for _, r := range revisions {
		direct, _ := run(t, "http://"+s.direct[r.name]+"/", r.name, "")
		for i := range *runs {
			through, said := run(t, s.Desk().MCP(r.server), r.name, s.token(t, r.name))
			all := differences(r.name, direct, through)
			unlisted := 0
			for _, d := range all {
				seen[d] = true
				if known[d] == "" {
					t.Errorf("a difference that is not listed: %s", d)
					unlisted++
				}
			}
			if unlisted > 0 {
				t.Logf("run %d: %s", i, said)
			}
			fmt.Printf("counts: %s: direct %d passed, %d failed; through Frontdesk %d passed, %d failed; %d differences, %d of them not listed\n",
				r.name, direct.passed, direct.failed, through.passed, through.failed, len(all), unlisted)
		}
	}
	for d := range known {
		if !seen[d] {
			t.Errorf("listed in differences.txt, but gone: %s", d)
		}
	}
}

// TestAuthorizationServerSuite lets the suite's own client register, sign in and redeem its code at our issuer.
func TestAuthorizationServerSuite(t *testing.T) {
	s, dir := setUp(t), t.TempDir()
	port := strings.TrimPrefix(free(t), "127.0.0.1:")
	client := register(t, s.Desk().Public, "http://127.0.0.1:"+port+"/callback")
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	c := exec.CommandContext(ctx, node, suite, "authorization", "--url", s.Desk().Public, "--client-id", client, "--port", port,
		"--resource", s.Desk().MCP(revisions[0].server), "-o", dir)
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	c.Stderr = c.Stdout
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	lines := bufio.NewScanner(io.TeeReader(out, &said))
	link := regexp.MustCompile(regexp.QuoteMeta(s.Desk().Public) + `/authorize\S+`)
	for lines.Scan() {
		if l := link.FindString(lines.Text()); l != "" {
			if err := s.Person("alice").Open(ctx, l); err != nil {
				t.Errorf("the sign-in: %v", err)
			}
		}
	}
	exit := c.Wait()
	all := read(t, dir, said.Bytes())
	fmt.Printf("counts: authorization server: %d passed, %d failed\n", all.passed, all.failed)
	if exit != nil || all.failed > 0 || all.passed == 0 {
		t.Errorf("%v\n%v\n%s", exit, all.worst, said.String())
	}
}

func register(t *testing.T, issuer, redirect string) string {
	t.Helper()
	body := fmt.Sprintf(`{"client_name":"conformance suite","redirect_uris":[%q],"token_endpoint_auth_method":"none"}`, redirect)
	resp, err := http.Post(issuer+"/register", "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	var c struct {
		ID string `json:"client_id"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&c); err != nil || c.ID == "" {
		t.Fatalf("the client could not register: %s %v", resp.Status, err)
	}
	return c.ID
}
