//go:build linux

package image

import (
	"context"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	theirs "github.com/google/go-containerregistry/pkg/registry"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/kit/outbound"
	"frontdesk.dev/frontdesk/internal/kit/secret"
	"frontdesk.dev/frontdesk/test/world/oci"
)

// place is a registry over HTTPS whose answers a test may change, with what stands beside it.
type place struct {
	http.Handler // the registry itself, which somebody else wrote
	*httptest.Server
	asked atomic.Int32
	front atomic.Value // func(w, r) bool: it has answered
}

func newPlace(t *testing.T) *place {
	t.Helper()
	p := &place{Handler: theirs.New(theirs.Logger(log.New(io.Discard, "", 0)))}
	p.answer(func(http.ResponseWriter, *http.Request) bool { return false })
	p.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.asked.Add(1)
		if f := p.front.Load().(func(http.ResponseWriter, *http.Request) bool); !f(w, r) {
			p.Handler.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(p.Close)
	return p
}

func (p *place) answer(f func(http.ResponseWriter, *http.Request) bool) { p.front.Store(f) }

func (p *place) host() string { return p.Listener.Addr().String() }

// reach gives a store the guarded door, and trust in the places' certificates; those that are named stand in the config.
func (p *place) reach(t *testing.T, s *Store, named ...*place) *Store {
	t.Helper()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	c := outbound.Config{CAFile: ca}
	for _, n := range append(named, p) {
		c.Named = append(c.Named, n.URL)
	}
	door, err := outbound.New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(door.Close)
	s.HTTP = door.Found()
	return s
}

func anImage(user string) *oci.Image {
	return oci.New(v1.ImageConfig{User: user, Entrypoint: []string{"/run"}}, nil, oci.Tar(oci.File("a", "1")), oci.Tar(oci.File("b", strings.Repeat("2", 100_000))).Gzip())
}

// TestRegistry: by tag and by digest, from a registry that others wrote.
func TestRegistry(t *testing.T) {
	p := newPlace(t)
	i := anImage("1")
	i.Push(p.Handler, "mcp/github", "v1")
	list := oci.Index([]v1.Descriptor{i.Descriptor("s390x"), i.Descriptor("")}, i)
	list.Push(p.Handler, "mcp/github", "list")
	s := p.reach(t, newStore(t))
	for ref, want := range map[string]digest.Digest{"v1": i.Digest(), "list": list.Digest()} {
		for _, ref := range []string{p.host() + "/mcp/github:" + ref, p.host() + "/mcp/github@" + string(want)} {
			if got := open(t, s, ref); got.Digest != want || got.Config.UID != 1 {
				t.Errorf("%s: got %s %v", ref, got.Digest, got.Config)
			}
		}
	}
	before := p.asked.Load()
	open(t, s, p.host()+"/mcp/github:v1").Close()
	if p.asked.Load() != before {
		t.Error("what is here was asked for again")
	}
}

// TestLies: a registry that lies, stalls or is away is a clear sentence, and leaves nothing.
func TestLies(t *testing.T) {
	i, other := anImage("1"), anImage("2")
	layer := digest.FromBytes(i.Layers[1].Packed)
	is := func(r *http.Request, what string) bool { return strings.Contains(r.URL.Path, what) }
	for name, c := range map[string]struct {
		answer func(w http.ResponseWriter, r *http.Request) bool
		why    string
	}{
		"another manifest for the digest": {func(w http.ResponseWriter, r *http.Request) bool {
			_, err := w.Write(other.Manifest)
			return err == nil
		}, "not those that its digest names"},
		"the same files in other bytes": {func(w http.ResponseWriter, r *http.Request) bool {
			b := append([]byte{}, i.Layers[1].Packed...)
			b[9] ^= 1 // the system that it was made on, which no reader of gzip looks at
			if is(r, string(layer)) {
				_, _ = w.Write(b)
			}
			return is(r, string(layer))
		}, "its layer 2: its bytes are not those that its digest names"},
		"a longer layer": {func(w http.ResponseWriter, r *http.Request) bool {
			if is(r, string(layer)) {
				w.(http.Flusher).Flush()
				_, _ = w.Write(append(append([]byte{}, i.Layers[1].Packed...), make([]byte, 10<<20)...))
			}
			return is(r, string(layer))
		}, "not those that its digest names"},
		"breaks off": {func(w http.ResponseWriter, r *http.Request) bool {
			if is(r, string(layer)) {
				w.Header().Set("Content-Length", fmt.Sprint(len(i.Layers[1].Packed)))
				_, _ = w.Write(i.Layers[1].Packed[:100])
			}
			return is(r, string(layer))
		}, "its layer 2: "},
		"says nothing": {func(w http.ResponseWriter, r *http.Request) bool { <-r.Context().Done(); return true }, "sends nothing for"},
		"says nothing in the middle": {func(w http.ResponseWriter, r *http.Request) bool {
			if is(r, string(layer)) {
				w.Header().Set("Content-Length", fmt.Sprint(len(i.Layers[1].Packed)))
				_, _ = w.Write(i.Layers[1].Packed[:100])
				w.(http.Flusher).Flush()
				<-r.Context().Done()
			}
			return is(r, string(layer))
		}, "sends nothing for"},
		"an endless manifest": {func(w http.ResponseWriter, r *http.Request) bool {
			for n := 0; n < 6<<20; n += 4096 {
				if _, err := w.Write(make([]byte, 4096)); err != nil {
					break
				}
			}
			return true
		}, "larger than 4 MiB"},
		"not there": {func(w http.ResponseWriter, r *http.Request) bool { http.NotFound(w, r); return true }, "shows it to nobody"},
		"a layer is gone": {func(w http.ResponseWriter, r *http.Request) bool {
			n := is(r, string(layer))
			if n {
				http.NotFound(w, r)
			}
			return n
		}, "does not have sha256:"},
		"is broken": {func(w http.ResponseWriter, r *http.Request) bool {
			http.Error(w, "secret words of theirs", http.StatusServiceUnavailable)
			return true
		}, "answers with status 503"},
		"too many requests": {func(w http.ResponseWriter, r *http.Request) bool {
			http.Error(w, "", http.StatusTooManyRequests)
			return true
		}, "wants fewer requests"},
		"sends us in a circle": {func(w http.ResponseWriter, r *http.Request) bool {
			http.Redirect(w, r, r.URL.Path, http.StatusTemporaryRedirect)
			return true
		}, "from one place to another"},
		"sends us somewhere strange": {func(w http.ResponseWriter, r *http.Request) bool {
			http.Redirect(w, r, "https://ev%e2%80%aeil.example/", http.StatusTemporaryRedirect)
			return true
		}, "from one place to another"},
		"sends us inside": {func(w http.ResponseWriter, r *http.Request) bool {
			http.Redirect(w, r, "https://169.254.169.254/latest/meta-data?X-Signature=s3cret", http.StatusTemporaryRedirect)
			return true
		}, "keeps it at 169.254.169.254"},
		"sends us to a neighbour": {func(w http.ResponseWriter, r *http.Request) bool {
			http.Redirect(w, r, "http://localhost:6379/", http.StatusTemporaryRedirect)
			return true
		}, "keeps it at localhost"},
		"wants a token from inside": {func(w http.ResponseWriter, r *http.Request) bool {
			w.Header().Set("WWW-Authenticate", `Bearer realm="http://10.0.0.1/token",service="x"`)
			w.WriteHeader(401)
			return true
		}, "keeps its tokens at 10.0.0.1"},
		"wants what nobody has": {func(w http.ResponseWriter, r *http.Request) bool {
			w.Header().Set("WWW-Authenticate", `Negotiate`)
			w.WriteHeader(401)
			return true
		}, "does not let us read"},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlace(t)
			i.Push(p.Handler, "x", "v1")
			s := p.reach(t, newStore(t))
			if strings.HasPrefix(name, "says nothing") {
				s.Stall = 200 * time.Millisecond
			}
			p.answer(c.answer)
			why := refused(t, s, p.host()+"/x@"+string(i.Digest()))
			if !strings.Contains(why, c.why) || strings.Contains(why, "secret") || strings.Contains(why, "s3cret") {
				t.Errorf("said %q, want %q", why, c.why)
			}
			// It is asked again when it is time, and then all is well.
			p.answer(func(http.ResponseWriter, *http.Request) bool { return false })
			later := time.Now().Add(time.Hour)
			s.Now = func() time.Time { return later }
			open(t, s, p.host()+"/x@"+string(i.Digest()))
		})
	}
	p := newPlace(t)
	s := p.reach(t, newStore(t))
	host := p.host()
	p.Close()
	if why := refused(t, s, host+"/x:1"); !strings.Contains(why, host) {
		t.Errorf("away: said %q", why)
	}
	if why := refused(t, s, "127.0.0.1:1/x:1"); !strings.Contains(why, "127.0.0.1") {
		t.Errorf("not named: said %q", why)
	}
}

// TestUmask: a service's umask takes nothing from the user that programs have inside.
func TestUmask(t *testing.T) {
	old := syscall.Umask(0o077)
	defer syscall.Umask(old)
	i := open(t, newStore(t), inFile(t, oci.New(v1.ImageConfig{User: "7", WorkingDir: "/made/here"}, nil, layers()...).Layout()))
	for line := range strings.Lines(listing(t, i.Root)) {
		if f := strings.Fields(line); f[1] != "->" && f[1] != "755" && f[1] != "644" {
			t.Error(line)
		}
	}
}

// TestCredentials go to the registry's own site, or where the config says; and no token goes along to where blobs are.
func TestCredentials(t *testing.T) {
	i := anImage("1")
	p, tokens, blobs := newPlace(t), newPlace(t), newPlace(t)
	for _, at := range []*place{p, blobs} {
		i.Push(at.Handler, "x", "v1")
	}
	var seen sync.Map
	note := func(where string, r *http.Request) { seen.Store(where+" "+r.Header.Get("Authorization"), true) }
	realm := tokens.URL + "/token"
	p.answer(func(w http.ResponseWriter, r *http.Request) bool {
		note("registry", r)
		if r.Header.Get("Authorization") != "Bearer t0ken" {
			w.Header().Set("WWW-Authenticate", `Bearer realm="`+realm+`",service="reg",scope="repository:other:pull,push"`)
			w.WriteHeader(http.StatusUnauthorized)
			return true
		}
		if strings.Contains(r.URL.Path, "/blobs/") {
			http.Redirect(w, r, blobs.URL+r.URL.Path, http.StatusTemporaryRedirect)
			return true
		}
		return false
	})
	tokens.answer(func(w http.ResponseWriter, r *http.Request) bool {
		note("tokens", r)
		if u, pw, _ := r.BasicAuth(); u != "me" || pw != "pw" || r.URL.Query().Get("scope") != "repository:x:pull" || r.URL.Query().Get("service") != "reg" {
			http.Error(w, "", http.StatusUnauthorized)
			return true
		}
		_, err := io.WriteString(w, `{"token":"t0ken"}`)
		return err == nil
	})
	blobs.answer(func(_ http.ResponseWriter, r *http.Request) bool { note("blobs", r); return false })
	with := func(password string, r Registry) *Store {
		s := p.reach(t, newStore(t), tokens, blobs)
		r.Username, r.Password = "me", secret.New(password)
		s.Use(Settings{Registries: map[string]Registry{p.host(): r}, Limits: limits, Total: 64 << 20})
		return s
	}
	if got := open(t, with("pw", Registry{}), p.host()+"/x:v1"); got.Digest != i.Digest() { // one host, another port: its own site
		t.Errorf("got %s", got.Digest)
	}
	for _, bad := range []string{"blobs Bearer t0ken", "blobs Basic bWU6cHc=", "registry Basic bWU6cHc=", "tokens "} {
		if _, ok := seen.Load(bad); ok {
			t.Errorf("seen: %s", bad)
		}
	}
	if _, ok := seen.Load("blobs "); !ok {
		t.Error("no blob was fetched from elsewhere")
	}
	if why := refused(t, with("wrong", Registry{}), p.host()+"/x:v1"); !strings.Contains(why, "gives no token") || strings.Contains(why, "wrong") {
		t.Errorf("a wrong password: %q", why)
	}
	if why := refused(t, p.reach(t, newStore(t), tokens, blobs), p.host()+"/x:v1"); !strings.Contains(why, "hosting: {registries:") {
		t.Errorf("none: %q", why)
	}
	// A realm of another site gets no password, unless the config names it.
	realm = strings.Replace(tokens.URL, "127.0.0.1", "localhost", 1) + "/token"
	if why := refused(t, with("pw", Registry{}), p.host()+"/x:v1"); !strings.Contains(why, "wants its password sent to localhost:") || !strings.Contains(why, "realm: https://localhost:") {
		t.Errorf("a foreign realm: %q", why)
	}
	named, err := url.Parse(realm)
	if err != nil {
		t.Fatal(err)
	}
	if why := refused(t, with("pw", Registry{Realm: named}), p.host()+"/x:v1"); !strings.Contains(why, "keeps its tokens at localhost") { // as far as the test's certificate goes
		t.Errorf("a realm that the config names: %q", why)
	}
	// And a registry that takes a password itself.
	p.answer(func(w http.ResponseWriter, r *http.Request) bool {
		if u, pw, _ := r.BasicAuth(); u != "me" || pw != "pw" {
			w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
			w.WriteHeader(http.StatusUnauthorized)
			return true
		}
		return false
	})
	open(t, with("pw", Registry{}), p.host()+"/x:v1")
}

// TestATagIsAskedOnce: what it led to is kept, over a restart too, until an operator asks for what is there now.
func TestATagIsAskedOnce(t *testing.T) {
	p := newPlace(t)
	first, second := anImage("1"), anImage("2")
	first.Push(p.Handler, "x", "v1")
	ref := p.host() + "/x:v1"
	s := p.reach(t, newStore(t))
	s.Use(Settings{References: []string{ref}, Limits: limits, Total: 64 << 20})
	old := open(t, s, ref)
	second.Push(p.Handler, "x", "v1")
	again := p.reach(t, newStore(t))
	again.Dir = s.Dir
	again.Use(Settings{References: []string{ref}, Limits: limits, Total: 64 << 20})
	if got := open(t, again, ref); got.Digest != first.Digest() || !got.Current() {
		t.Errorf("got %s after a restart", got.Digest)
	}
	if err := os.RemoveAll(again.path(first.Digest())); err != nil { // also where the image itself is lost
		t.Fatal(err)
	}
	third := p.reach(t, newStore(t))
	third.Dir = s.Dir
	third.Use(Settings{References: []string{ref}, Limits: limits, Total: 64 << 20})
	if got := open(t, third, ref); got.Digest != first.Digest() {
		t.Errorf("got %s, after the image was lost", got.Digest)
	}
	st, err := s.Refresh(t.Context(), ref)
	if err != nil || st.Digest != string(second.Digest()) || st.Phase != Ready || old.Current() {
		t.Errorf("%+v %v", st, err)
	}
	if got := open(t, s, ref); got.Config.UID != 2 {
		t.Errorf("got %v", got.Config)
	}
	if _, err := os.Stat(filepath.Join(old.Root, "a")); err != nil {
		t.Errorf("what a process has open is gone: %v", err)
	}
	p.Close()
	if _, err := s.Refresh(t.Context(), ref); fault.KindOf(err) != fault.Unavailable {
		t.Errorf("the registry is away: %v", err)
	}
	if got := open(t, s, ref); got.Config.UID != 2 {
		t.Error("what was here is not, because the registry is away")
	}
	if st := s.States()[ref]; st.Phase != Ready || st.Why == "" {
		t.Errorf("operators see %+v", st)
	}
}

// TestTogether: however many ask at once, an image is fetched once; one that stalls keeps nobody else waiting.
func TestTogether(t *testing.T) {
	p := newPlace(t)
	i := anImage("1")
	i.Push(p.Handler, "x", "v1")
	i.Push(p.Handler, "stalls", "v1")
	end := make(chan struct{})
	t.Cleanup(func() { close(end) })
	p.answer(func(_ http.ResponseWriter, r *http.Request) bool {
		if strings.Contains(r.URL.Path, "/stalls/") {
			<-end
			return true
		}
		return false
	})
	s := p.reach(t, newStore(t))
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := s.Open(ctx, p.host()+"/stalls:v1"); fault.KindOf(err) != fault.Unavailable || !strings.Contains(err.Error(), "still being fetched") {
		t.Errorf("who cannot wait is told %v", err)
	}
	before := p.asked.Load()
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() { open(t, s, p.host()+"/x:v1") })
	}
	all.Wait()
	if n := p.asked.Load() - before; n != 4 { // manifest, config, two layers
		t.Errorf("%d requests", n)
	}
}

// TestRoom: images that nobody needs go, the oldest first where room is needed; what is needed stays.
func TestRoom(t *testing.T) {
	s := newStore(t)
	now := time.Now()
	s.Now = func() time.Time { return now }
	ref := map[string]string{}
	for _, name := range []string{"named", "open", "older", "newer", "next"} {
		ref[name] = inFile(t, anImage(fmt.Sprint(len(ref)+1)).Layout())
	}
	only := func(total int64) {
		s.Use(Settings{References: []string{ref["named"]}, Limits: limits, Total: total})
	}
	only(450_000)
	open(t, s, ref["named"]).Close()
	open(t, s, ref["open"])
	for _, name := range []string{"older", "newer"} {
		now = now.Add(time.Second)
		open(t, s, ref[name]).Close()
	}
	open(t, s, ref["next"]).Close()
	here := func(name string) bool { return s.leadsTo(ref[name]) != "" && s.images[s.leadsTo(ref[name])] != nil }
	if here("older") || !here("newer") || !here("named") || !here("open") || !here("next") {
		t.Errorf("here are: %v", s.images)
	}
	only(1_000)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if _, err := s.Open(ctx, ref["older"]); err == nil || !strings.Contains(err.Error(), "no room for it") {
		t.Errorf("where there is no room: %v", err)
	}
	now = now.Add(2 * keep)
	s.look()
	if here("newer") || here("next") || !here("named") || !here("open") {
		t.Errorf("after two days are here: %v", s.images)
	}
	if left, err := filepath.Glob(filepath.Join(s.Dir, "*")); err != nil || len(left) != 3 { // two images, and where tags lead
		t.Errorf("on disk: %v %v", left, err)
	}
}

// TestRun fetches what the config names without being asked for it, and goes on with the others where one cannot be had.
func TestRun(t *testing.T) {
	s := newStore(t)
	good, bad := inFile(t, anImage("1").Layout()), inFile(t, []byte("no image"))
	s.Use(Settings{References: []string{good, bad}, Limits: limits, Total: 64 << 20})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	deadline := time.Now().Add(10 * time.Second)
	for st := s.States(); st[good].Phase != Ready || st[bad].Why == ""; st = s.States() {
		if time.Now().After(deadline) {
			t.Fatalf("got %+v", st)
		}
		time.Sleep(5 * time.Millisecond)
	}
	if err := os.WriteFile(strings.TrimPrefix(bad, "file:"), anImage("2").Layout(), 0o600); err != nil {
		t.Fatal(err)
	}
	s.Use(Settings{References: []string{good, bad}, Limits: limits, Total: 64 << 20}) // as after a reload
	for s.States()[bad].Phase != Ready {
		if time.Now().After(deadline) {
			t.Fatal("what was mended is not looked at")
		}
		time.Sleep(5 * time.Millisecond)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// TestKilledInTheMiddle: whenever we are killed while an image is laid out, nothing half is used later.
func TestKilledInTheMiddle(t *testing.T) {
	p := newPlace(t)
	i := anImage("1")
	i.Push(p.Handler, "x", "v1")
	half := make(chan struct{}, 1)
	p.answer(func(w http.ResponseWriter, r *http.Request) bool {
		if b := i.Layers[1].Packed; strings.Contains(r.URL.Path, string(digest.FromBytes(b))) {
			w.Header().Set("Content-Length", fmt.Sprint(len(b)))
			_, _ = w.Write(b[:len(b)/2])
			w.(http.Flusher).Flush()
			half <- struct{}{}
			<-r.Context().Done()
			return true
		}
		return false
	})
	s := p.reach(t, newStore(t))
	c := exec.Command("/proc/self/exe", "-test.run=^TestKilledInTheMiddleInner$")
	c.Env = append(os.Environ(), "IMAGE_INNER="+s.Dir, "IMAGE_HOST="+p.host())
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-half:
	case <-time.After(20 * time.Second):
		t.Error("it did not come so far")
	}
	if err := c.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = c.Wait() // it was killed
	left, err := filepath.Glob(filepath.Join(s.Dir, tmpPrefix+"*", rootName, "a"))
	if err != nil || len(left) != 1 {
		t.Fatalf("it left %v, %v: nothing was half done", left, err)
	}
	// What a crash between two steps of an older form could leave.
	if err := os.MkdirAll(filepath.Join(s.path(i.Digest()), rootName), 0o755); err != nil {
		t.Fatal(err)
	}
	p.answer(func(http.ResponseWriter, *http.Request) bool { return false })
	got := open(t, s, p.host()+"/x:v1")
	if text, err := os.ReadFile(filepath.Join(got.Root, "b")); err != nil || len(text) != 100_000 {
		t.Errorf("%d bytes, %v", len(text), err)
	}
	if left, err := filepath.Glob(filepath.Join(s.Dir, tmpPrefix+"*")); err != nil || len(left) > 0 {
		t.Errorf("left is %v %v", left, err)
	}
}

func TestKilledInTheMiddleInner(t *testing.T) {
	dir := os.Getenv("IMAGE_INNER")
	if dir == "" {
		return // it is the other test's second process
	}
	s := newStore(t)
	s.Dir = dir
	insecure := httptest.NewTLSServer(nil) // only for a client that trusts the test's certificate, which all such servers have
	defer insecure.Close()
	s.HTTP = insecure.Client().Transport
	_, err := s.Open(t.Context(), os.Getenv("IMAGE_HOST")+"/x:v1")
	t.Errorf("it was to be killed: %v", err)
}
