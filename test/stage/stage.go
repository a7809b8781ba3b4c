// Package stage puts Frontdesk into the world: the binary in a process of its own, with a config as an operator would write
// it, between the parties of package world. Tests and the demo use the same stage.
package stage

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"frontdesk.dev/frontdesk/test/world"
)

// Options change the stage. The zero value is one Frontdesk on SQLite.
type Options struct {
	Binary   string   // of frontdesk; built where empty
	Config   string   // YAML beside what the stage writes itself
	Servers  string   // YAML of further servers, indented by two
	Allow    string   // of every server; [group:engineering] where empty
	Upstream string   // YAML beside the tracker's own entry, indented by four; or of further upstreams, by two
	Methods  string   // of the tracker; [authorization_code, api_key] where empty
	Database string   // PostgreSQL DSN; SQLite where empty
	Keys     string   // YAML of a key service, as service: {…}; key files where empty
	Replicas int      // processes over one database; 1 where 0
	Domains  *Domains // gateway and broker as two processes; one where nil
	Tracker  world.TrackerConfig
	Egress   string   // YAML beside its listen address, after a comma
	Callback []string // names of further upstreams that the tracker's client may come back to
	Refresh  string   // YAML of the tracker's refresh rules; those of a strict vendor where empty

	IdP       func(public string) string  // YAML of another sign-in service than the stage's own, given Frontdesk's public URL
	Files     map[string]string           // beside the config, by name
	Providers func(tracker string) string // YAML of further providers, indented by two, given the tracker's URL
}

// Stage is everybody.
type Stage struct {
	Dir      string
	Database string // PostgreSQL DSN; "" is SQLite
	IdP      *world.IdP
	Tracker  *world.Tracker
	Legacy   *world.IssuesServer // behind /mcp/issues
	Modern   *world.IssuesServer // behind /mcp/modern
	Vendor   *world.VendorMCP    // behind /mcp/tracker, deliver: header
	Desks    []*Desk

	balance *balancer
	brokers []string // where they listen for gateways, one for each of Desks
	closers []io.Closer
}

// balancer stands before several replicas, which answer for one public URL.
type balancer struct {
	server *httptest.Server
	mu     sync.Mutex
	to     []string
	next   int
	pinned int // -1: in turn
}

func (b *balancer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b.mu.Lock()
	i := b.next % len(b.to)
	if b.next++; b.pinned >= 0 {
		i = b.pinned
	}
	to := b.to[i]
	b.mu.Unlock()
	p := &httputil.ReverseProxy{FlushInterval: -1, Rewrite: func(q *httputil.ProxyRequest) {
		q.Out.URL.Scheme, q.Out.URL.Host, q.Out.Host = "http", to, q.In.Host
	}}
	p.ServeHTTP(w, r)
}

// Pin sends everything to one replica, or in turn to all (-1).
func (s *Stage) Pin(replica int) {
	s.balance.mu.Lock()
	defer s.balance.mu.Unlock()
	s.balance.pinned = replica
}

// Desk is one Frontdesk process.
type Desk struct {
	Public, Egress, Ops string // base URLs
	Dir                 string // data_dir
	ConfigPath          string
	Binary              string
	Args                []string // of serve, beside what the stage gives

	Broker *Desk // the other process, where there are two; nil where there is one

	role   string
	listen string
	env    []string
	cmd    *exec.Cmd
	exited chan struct{} // closed when the process has ended
	log    *logBuffer
}

// logBuffer keeps what a process printed.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// Build builds frontdesk into dir; where FRONTDESK_BINARY names one that was built for a whole run of tests, it is that one.
func Build(ctx context.Context, dir string) (string, error) {
	if built := os.Getenv("FRONTDESK_BINARY"); built != "" {
		return built, nil
	}
	root, err := moduleRoot()
	if err != nil {
		return "", err
	}
	out := filepath.Join(dir, "frontdesk")
	c := exec.CommandContext(ctx, "go", "build", "-o", out, "./cmd/frontdesk")
	c.Dir = root
	if said, err := c.CombinedOutput(); err != nil {
		return "", fmt.Errorf("frontdesk does not build: %w\n%s", err, said)
	}
	return out, nil
}

// Program builds a command of package world where a sandbox may read it. Remove dir when it is used no more.
func Program(ctx context.Context, name string) (dir, path string, err error) {
	root, err := moduleRoot()
	if err != nil {
		return "", "", err
	}
	if dir, err = os.MkdirTemp("/var/tmp", "frontdesk-test-"); err != nil {
		return "", "", err
	}
	path = filepath.Join(dir, name)
	c := exec.CommandContext(ctx, "go", "build", "-o", path, "./test/world/cmd/"+name)
	c.Dir, c.Env = root, append(os.Environ(), "CGO_ENABLED=0")
	said, err := c.CombinedOutput()
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		return "", "", errors.Join(fmt.Errorf("%s does not build: %w\n%s", name, err, said), os.RemoveAll(dir))
	}
	return dir, path, nil
}

func moduleRoot() (string, error) {
	out, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		return "", err
	}
	return filepath.Dir(strings.TrimSpace(string(out))), nil
}

// New starts everybody, with what they write in dir.
func New(ctx context.Context, dir string, o Options) (s *Stage, err error) {
	s = &Stage{Dir: dir, Database: o.Database}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	if o.Binary == "" {
		if o.Binary, err = Build(ctx, dir); err != nil {
			return s, err
		}
	}
	if o.Replicas > 1 {
		s.balance = &balancer{pinned: -1}
		s.balance.server = httptest.NewServer(s.balance)
	}
	for range max(o.Replicas, 1) {
		d := &Desk{Binary: o.Binary}
		for _, at := range []*string{&d.Public, &d.Egress, &d.Ops} {
			if *at, err = world.Port(); err != nil {
				return s, err
			}
			*at = "http://" + *at
		}
		d.listen = strings.TrimPrefix(d.Public, "http://")
		if s.balance != nil {
			s.balance.to = append(s.balance.to, d.listen)
			d.Public = s.balance.server.URL
		}
		s.Desks = append(s.Desks, d)
	}
	if err := s.parties(o); err != nil {
		return s, err
	}
	for i, d := range s.Desks {
		if err := s.configure(d, i, o); err != nil {
			return s, err
		}
		if o.Domains != nil {
			if err := s.divide(ctx, d, o); err != nil {
				return s, err
			}
		}
		if err := d.Start(ctx); err != nil {
			return s, err
		}
	}
	return s, nil
}

// Desk is the first replica.
func (s *Stage) Desk() *Desk { return s.Desks[0] }

func (s *Stage) parties(o Options) error {
	var err error
	var callbacks, connects []string
	for _, d := range s.Desks {
		callbacks = append(callbacks, d.Public+"/callback/idp:login")
		for _, up := range append([]string{"tracker"}, o.Callback...) {
			connects = append(connects, d.Public+"/callback/"+up)
		}
	}
	if s.IdP, err = world.NewIdP(world.IdPConfig{RedirectURIs: callbacks, WorkloadAudiences: []string{"api://frontdesk"}}); err != nil {
		return err
	}
	s.closers = append(s.closers, s.IdP)
	o.Tracker.RedirectURIs = connects
	if s.Tracker, err = world.NewTracker(o.Tracker); err != nil {
		return err
	}
	s.closers = append(s.closers, s.Tracker)
	api := s.Desk().Egress + "/egress/tracker"
	if s.Legacy, err = world.NewIssuesServer(world.IssuesConfig{API: api}); err != nil {
		return err
	}
	s.closers = append(s.closers, s.Legacy)
	if s.Modern, err = world.NewIssuesServer(world.IssuesConfig{API: api, Stateless: true}); err != nil {
		return err
	}
	s.closers = append(s.closers, s.Modern)
	if s.Vendor, err = world.NewVendorMCP(world.VendorMCPConfig{Tracker: s.Tracker.URL()}); err != nil {
		return err
	}
	s.closers = append(s.closers, s.Vendor)
	return nil
}

// Secrets of the stage's config; a search for them must find nothing where they do not belong.
const idpSecretFile, trackerSecretFile = "idp.secret", "tracker.secret"

func (s *Stage) configure(d *Desk, i int, o Options) error {
	home := filepath.Join(s.Dir, fmt.Sprintf("desk%d", i))
	d.Dir, d.ConfigPath = filepath.Join(home, "data"), filepath.Join(home, "frontdesk.yaml")
	if err := os.MkdirAll(home, 0o700); err != nil {
		return err
	}
	for _, name := range []string{idpSecretFile, trackerSecretFile} {
		if err := os.WriteFile(filepath.Join(home, name), []byte(world.FrontdeskSecret+"\n"), 0o600); err != nil {
			return err
		}
	}
	for name, text := range o.Files {
		if err := os.WriteFile(filepath.Join(home, name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	if o.Database != "" {
		d.env = append(d.env, "FRONTDESK_TEST_DATABASE="+o.Database)
	}
	return os.WriteFile(d.ConfigPath, []byte(s.Config(d, o)), 0o600)
}

// Config is what an operator would write.
func (s *Stage) Config(d *Desk, o Options) string {
	allow, methods := o.Allow, o.Methods
	if allow == "" {
		allow = "[group:engineering]"
	}
	if methods == "" {
		methods = "[authorization_code, api_key]"
	}
	refresh := o.Refresh
	if refresh == "" {
		refresh = "{rotation: strict, scope_needed: offline_access}"
	}
	idp := fmt.Sprintf(`{issuer: %s, client_id: frontdesk, client_secret: file:idp.secret, audiences: ["api://frontdesk"]}`, s.IdP.URL())
	if o.IdP != nil {
		idp = o.IdP(d.Public)
	}
	database := ""
	if o.Database != "" { // replicas share the keys with the database
		database = "database: env:FRONTDESK_TEST_DATABASE\nkeys: {vault: " + filepath.Join(s.Dir, "vault.key") + ", faces: " + filepath.Join(s.Dir, "faces.key") + "}\n"
	}
	if o.Keys != "" {
		database, _, _ = strings.Cut(database, "keys:")
		database += "keys: {" + o.Keys + ", faces: " + filepath.Join(s.Dir, "faces.key") + "}\n"
	}
	host := strings.TrimPrefix
	return fmt.Sprintf(`public_url: %s
listen: "%s"
egress: {listen: "%s"%s}
ops: {listen: "%s"}
data_dir: %s
%sidp: %s
providers:
  tracker:
    name: Tracker
    hosts: ["%s"]
    oauth:
      issuer: %s
      iss_promised: true
      authorization_endpoint: %s/authorize
      token_endpoint: %s/oauth/token
      revocation_endpoint: %s/revoke
      token_auth: basic
      refresh: %s
    api_key: {where: "your settings at the tracker", url: "%s/settings/keys"}
    account: {url: /user, pointer: /login, id_pointer: /id}
    token_shapes: ['\btrk_[0-9A-Za-z]{16,}\b']
    scopes: {"issues:read": "read your issues", "issues:write": "create and change issues", offline_access: "stay connected while you are away"}
%supstreams:
  tracker:
    provider: tracker
    url: %s
    client_id: frontdesk
    client_secret: file:tracker.secret
    scopes: ["issues:read", "issues:write"]
    methods: %s
%sservers:
  issues: {url: %s, upstreams: [tracker], allow: %s}
  modern: {url: %s, upstreams: [tracker], allow: %s}
  tracker: {url: %s, upstreams: [tracker], deliver: header, allow: %s}
%s%s`, d.Public, d.listen, host(d.Egress, "http://"), o.Egress, host(d.Ops, "http://"), d.Dir, database, idp, s.Tracker.URL(), s.Tracker.URL(), s.Tracker.URL(), s.Tracker.URL(), s.Tracker.URL(),
		refresh, s.Tracker.URL(), o.providers(s.Tracker.URL()), s.Tracker.API(), methods, o.Upstream, s.Legacy.MCP(), allow, s.Modern.MCP(), allow, s.Vendor.MCP(), allow, o.Servers, o.Config)
}

func (o *Options) providers(tracker string) string {
	if o.Providers == nil {
		return ""
	}
	return o.Providers(tracker)
}

// Start runs the process and waits until it is ready.
func (d *Desk) Start(ctx context.Context) error {
	d.log = &logBuffer{}
	args := []string{"serve", d.ConfigPath}
	if d.role != "" {
		args = append(args, "--role", d.role)
	}
	d.cmd = exec.Command(d.Binary, append(args, d.Args...)...)
	d.cmd.Env = append(os.Environ(), d.env...)
	d.cmd.Stdout, d.cmd.Stderr = d.log, d.log
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := d.cmd.Start(); err != nil {
		return err
	}
	cmd, exited := d.cmd, make(chan struct{})
	d.exited = exited
	go func() { _ = cmd.Wait(); close(exited) }()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		resp, err := http.Get(d.Ops + "/readyz")
		if err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-exited:
			return fmt.Errorf("frontdesk did not start:\n%s", d.log)
		case <-ctx.Done():
			return fmt.Errorf("frontdesk is not ready: %w\n%s", ctx.Err(), d.log)
		case <-tick.C:
		}
	}
}

// Stop asks the process to end and waits; Kill does not ask.
func (d *Desk) Stop() error { return d.end(syscall.SIGTERM) }

// Kill ends the process as a power cut would.
func (d *Desk) Kill() error { return d.end(syscall.SIGKILL) }

// Strike kills, and does not wait.
func (d *Desk) Strike() error { return d.cmd.Process.Kill() }

func (d *Desk) end(sig syscall.Signal) error {
	if d.cmd == nil || d.cmd.Process == nil {
		return nil
	}
	if err := d.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-d.exited:
		return nil
	case <-time.After(40 * time.Second):
		return errors.Join(errors.New("frontdesk does not end"), d.cmd.Process.Kill())
	}
}

// Hangup lets the process read its config again.
func (d *Desk) Hangup() error { return d.cmd.Process.Signal(syscall.SIGHUP) }

// Pid of the process.
func (d *Desk) Pid() int { return d.cmd.Process.Pid }

// Log is what the process printed.
func (d *Desk) Log() string { return d.log.String() }

// Run runs a command of the binary against this desk's data.
func (d *Desk) Run(args ...string) (string, error) {
	c := exec.Command(d.Binary, append([]string{"--data-dir", d.Dir}, args...)...)
	c.Env = append(os.Environ(), d.env...)
	out, err := c.CombinedOutput()
	return string(out), err
}

// MCP is the endpoint of a server.
func (d *Desk) MCP(server string) string { return d.Public + "/mcp/" + server }

// LogLines are the lines of the log that hold a word.
func (d *Desk) LogLines(word string) []string {
	var l []string
	lines := bufio.NewScanner(strings.NewReader(d.Log()))
	for lines.Scan() {
		if strings.Contains(lines.Text(), word) {
			l = append(l, lines.Text())
		}
	}
	return l
}

// Person is somebody with accounts at the company and at the tracker, who says yes where asked.
func (s *Stage) Person(name string, yes ...string) *world.Person {
	p := world.NewPerson(append(yes, "Allow", "Authorize", "Go on")...)
	p.HasAccount(s.IdP.URL(), name)
	p.HasAccount(s.Tracker.URL(), "octo-"+name)
	return p
}

// Close ends everybody.
func (s *Stage) Close() error {
	var errs []error
	for _, d := range s.Desks {
		errs = append(errs, d.Stop())
		if d.Broker != nil {
			errs = append(errs, d.Broker.Stop())
		}
	}
	if s.balance != nil {
		s.balance.server.Close()
	}
	for i := len(s.closers) - 1; i >= 0; i-- {
		errs = append(errs, s.closers[i].Close())
	}
	return errors.Join(errs...)
}
