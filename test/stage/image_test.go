package stage_test

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	theirs "github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"frontdesk.dev/frontdesk/test/stage"
	"frontdesk.dev/frontdesk/test/world"
	"frontdesk.dev/frontdesk/test/world/oci"
)

// imageRegistry is a private registry: it wants a token, which it gives for a name and a password. While it is closed it does
// not answer.
type imageRegistry struct {
	*httptest.Server
	theirs http.Handler
	closed atomic.Bool
}

func newImageRegistry(t *testing.T) *imageRegistry {
	t.Helper()
	r := &imageRegistry{theirs: theirs.New(theirs.Logger(log.New(io.Discard, "", 0)))}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		user, password, _ := req.BasicAuth()
		switch {
		case r.closed.Load():
			http.Error(w, "", http.StatusServiceUnavailable)
		case req.URL.Path == "/token" && user == "desk" && password == "pass":
			_, _ = io.WriteString(w, `{"token":"good"}`)
		case req.URL.Path == "/token" || req.Header.Get("Authorization") != "Bearer good":
			w.Header().Set("WWW-Authenticate", `Bearer realm="`+r.URL+`/token",service="mine"`)
			w.WriteHeader(http.StatusUnauthorized)
		default:
			r.theirs.ServeHTTP(w, req)
		}
	}))
	t.Cleanup(r.Close)
	return r
}

// trackerImage is the world's stdio server in an image, which says in its environment which version it is.
func trackerImage(t *testing.T, version string) *oci.Image {
	t.Helper()
	_, path := program(t, "stdio")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return oci.New(v1.ImageConfig{Entrypoint: []string{"/stdio"}, Cmd: []string{"-early"}, User: "65532", Env: []string{"VERSION=" + version}}, nil, oci.Tar(oci.Program("stdio", b)).Gzip())
}

// TestImage: servers in images of a private registry serve two people at once, each as himself, and no credential is anywhere in
// there; what is not there yet says so, and others go on; a tag is followed when an operator says so.
func TestImage(t *testing.T) {
	reg := newImageRegistry(t)
	first, second := trackerImage(t, "1"), trackerImage(t, "2")
	first.Push(reg.theirs, "mcp/own", "stable")
	entry := `  %s: {image: "%s", env: {TRACKER_URL: "{egress:tracker}", TRACKER_TOKEN: "{keycard}"}, upstreams: [tracker], allow: [group:engineering]}
`
	s := start(t, stage.Options{Files: map[string]string{"registry.password": "pass\n"}, Config: fmt.Sprintf("hosting: {registries: {registry.example: {url: %q, username: desk, password: file:registry.password}}}\n", reg.URL),
		Servers: fmt.Sprintf(entry, "own", "registry.example/mcp/own:stable") + fmt.Sprintf(entry, "gone", "registry.example/mcp/gone:stable")})
	alice, bob := connected(t, s, "alice", "own"), connected(t, s, "bob", "own")
	var all sync.WaitGroup
	for who, a := range map[string]*world.Agent{"alice": alice, "bob": bob} {
		all.Go(func() {
			for range 3 {
				if text := world.Text(call(t, a, "whoami", nil)); !strings.Contains(text, "octo-"+who) {
					t.Errorf("%s is told: %s", who, text)
				}
			}
		})
	}
	all.Wait()
	env := world.Text(call(t, alice, "env", nil))
	for _, want := range []string{"TRACKER_TOKEN=***", "TRACKER_URL=http://127.0.0.1:3128/egress/tracker", "VERSION=1", "HOME=/run/server"} {
		if !strings.Contains(env, want) {
			t.Errorf("its environment lacks %s: %s", want, env)
		}
	}
	if got := text(t, alice, "escape", "list /"); got != "got: dev etc proc run stdio tmp" {
		t.Errorf("it sees %s", got)
	}
	l := running(t, s)
	if len(l) != 2 || l[0].Pid == l[1].Pid || l[0].Image != string(first.Digest()) {
		t.Fatalf("running are %+v, want two of %s", l, first.Digest())
	}
	a := agent(t, world.AgentConfig{URL: s.Desk().MCP("gone"), Name: "agent", Browser: s.Person("alice", "Later: a tool that needs it will ask then")})
	if _, err := a.Call(t.Context(), "whoami", nil); err == nil || !strings.Contains(err.Error(), "its image is not here") {
		t.Errorf("where there is no image the agent is told %v", err)
	}
	said := run(t, s, "servers", "images")
	for _, want := range []string{"registry.example/mcp/own:stable   ready " + string(first.Digest()), "registry.example/mcp/gone:stable  missing: registry.example has no registry.example/mcp/gone:stable"} {
		if !strings.Contains(said, want) {
			t.Errorf("operators are told\n%s\nwant %s", said, want)
		}
	}
	if said, err := s.Desk().Run("doctor"); err == nil || !strings.Contains(said, "image registry.example/mcp/gone:stable: missing") || !strings.Contains(said, "ok    image registry.example/mcp/own:stable: ready") {
		t.Errorf("doctor: %v %s", err, said)
	}
	moves(t, s, reg, second)
}

// moves puts another image under the tag: it counts when an operator says so, and processes follow.
func moves(t *testing.T, s *stage.Stage, reg *imageRegistry, to *oci.Image) {
	t.Helper()
	to.Push(reg.theirs, "mcp/own", "stable")
	reg.closed.Store(true)
	if said, err := s.Desk().Run("servers", "pull", "own"); err == nil || !strings.Contains(err.Error()+said, "registry.example answers with status 503") {
		t.Errorf("a registry that is broken: %v %s", err, said)
	}
	if !strings.Contains(run(t, s, "servers", "images"), "ready") {
		t.Error("what was here is not any more")
	}
	reg.closed.Store(false)
	if said := run(t, s, "servers", "pull", "own"); !strings.Contains(said, "registry.example/mcp/own:stable: ready "+string(to.Digest())) {
		t.Errorf("pull says %s", said)
	}
	deadline := time.Now().Add(20 * time.Second)
	for len(running(t, s)) > 0 {
		if time.Now().After(deadline) {
			t.Fatalf("the old ones run on: %v", running(t, s))
		}
		time.Sleep(50 * time.Millisecond)
	}
	alice := connected(t, s, "alice", "own")
	if env := world.Text(call(t, alice, "env", nil)); !strings.Contains(env, "VERSION=2") {
		t.Errorf("it is served by %s", env)
	}
}

func run(t *testing.T, s *stage.Stage, args ...string) string {
	t.Helper()
	out, err := s.Desk().Run(args...)
	if err != nil {
		t.Fatalf("%v: %v %s", args, err, out)
	}
	return out
}
