package stage_test

import (
	"bufio"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"frontdesk.dev/frontdesk/test/stage"
)

// leaky is an API that says its caller's credential back, in the way that the path says.
func leaky(t *testing.T) *httptest.Server {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		credential := r.Header.Get("Authorization")
		switch r.URL.Path {
		case "/clean":
			_, _ = io.WriteString(w, "nothing in here")
		case "/head":
			w.Header().Set("X-Echo", credential)
			_, _ = io.WriteString(w, "behind the leak")
		case "/body":
			_, _ = io.WriteString(w, "before the leak")
			_ = http.NewResponseController(w).Flush()
			_, _ = io.WriteString(w, credential+" behind the leak")
		case "/coded":
			w.Header().Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(w)
			_, _ = io.WriteString(z, credential+" behind the leak")
			_ = z.Close()
		case "/trailer":
			w.Header().Set("Trailer", "X-Echo")
			_, _ = io.WriteString(w, "before the leak")
			w.Header().Set("X-Echo", credential)
		}
	}))
	t.Cleanup(s.Close)
	return s
}

// TestLeaksOnTheWire: `on_leak: cut` ends an answer where the credential stands in it, and both ways of the switch put the leak on
// record, once a request, and count it.
func TestLeaksOnTheWire(t *testing.T) {
	binary, err := stage.Build(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, on := range []string{"cut", "clean"} {
		t.Run(on, func(t *testing.T) {
			api := leaky(t)
			s := ownWith(t, stage.Options{Binary: binary, Upstream: fmt.Sprintf("    on_leak: %s\n    hosts: [%q]\n", on, api.URL)})
			a := connected(t, s, "alice", "own")
			get := func(path string) string {
				return text(t, a, "fetch", "/@"+strings.TrimPrefix(api.URL, "http://")+path)
			}
			if got := get("/clean"); got != "200 nothing in here" {
				t.Fatal(got)
			}
			for _, path := range []string{"/head", "/body", "/coded", "/trailer"} {
				got := get(path)
				whole := strings.HasPrefix(got, "200 ")
				if whole != (on == "clean") || on == "cut" && strings.Contains(got, "behind") || strings.Contains(got, "trk_") {
					t.Errorf("%s: the server got %q", path, got)
				}
			}
			for _, token := range s.Tracker.Tokens() {
				if strings.Contains(s.Desk().Log(), token.Value) || len(a.Recorder.Search(token.Value)) > 0 {
					t.Error("the credential came out")
				}
			}
			checkLeaks(t, s, on)
		})
	}
}

// checkLeaks looks for four leaks in the log and in the metrics.
func checkLeaks(t *testing.T, s *stage.Stage, on string) {
	t.Helper()
	var out string
	for end := time.Now().Add(20 * time.Second); strings.Count(out, `/trailer"`) < 3; { // intent, leak and outcome, which is written last
		var err error
		if out, err = s.Desk().Run("audit", "export"); err != nil || time.Now().After(end) {
			t.Fatalf("the log is not whole: %v\n%s", err, out)
		}
	}
	leaks, ends := 0, map[string]int{}
	for line := range strings.Lines(out) {
		var r struct {
			Record struct {
				Kind, Action, Result, HTTP, Upstream string
			}
		}
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		switch c := r.Record; {
		case c.Action == "leak":
			leaks++
		case c.Action == "api" && c.Kind == "outcome":
			ends[c.HTTP[strings.LastIndexByte(c.HTTP, '/'):]+" "+c.Result]++
		}
	}
	if leaks != 4 {
		t.Errorf("%d leaks stand in the log, want 4\n%s", leaks, out)
	}
	want := map[string][]string{"cut": {"/head failed", "/body unknown", "/coded failed", "/trailer unknown"}, "clean": {"/head ok", "/body ok", "/coded ok", "/trailer ok"}}
	for _, w := range want[on] {
		if ends[w] != 1 {
			t.Errorf("the log holds %d outcomes %q: %v", ends[w], w, ends)
		}
	}
	if out, err := s.Desk().Run("audit", "verify"); err != nil {
		t.Error(err, out)
	}
	resp, err := http.Get(s.Desk().Ops + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if b, err := io.ReadAll(resp.Body); err != nil || !strings.Contains(string(b), `frontdesk_leaks_total{upstream="tracker"} 4`+"\n") {
		t.Errorf("the metric does not say 4: %v %v", err, s.Desk().LogLines("leak"))
	}
}

// TestTunnelOnTheWire: with `others: tunnel` bytes to a public address on port 443 pass as they are, and to nowhere else. It happens
// in a network of the test's own, in which one such address is there.
func TestTunnelOnTheWire(t *testing.T) {
	c := exec.Command("/proc/self/exe", "-test.run=^TestTunnelInside$", "-test.v")
	c.Env = append(os.Environ(), "STAGE_TUNNEL=1")
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET, Pdeathsig: unix.SIGKILL}
	if os.Geteuid() != 0 {
		c.SysProcAttr.Cloneflags |= unix.CLONE_NEWUSER
		c.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
		c.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	}
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

const public = "9.9.9.9" // in the test's own network

func TestTunnelInside(t *testing.T) {
	if os.Getenv("STAGE_TUNNEL") == "" {
		return // it is the other test's second process
	}
	address(t, public)
	far := listenAt(t, public+":443")
	others := []*heardBy{listenAt(t, public+":80"), listenAt(t, "127.0.0.1:443")}
	s := start(t, stage.Options{Egress: ", others: tunnel"})
	say := func(to, text string) string {
		c, err := net.Dial("tcp", strings.TrimPrefix(s.Desk().Egress, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
			t.Fatal(err)
		}
		early, late := text[:3], text[3:] // some clients do not wait for the answer to CONNECT
		if _, err := fmt.Fprintf(c, "CONNECT %s HTTP/1.1\r\nHost: %[1]s\r\nProxy-Authorization: Bearer secret-of-nobody\r\n\r\n%s", to, early); err != nil {
			t.Fatal(err)
		}
		in := bufio.NewReader(c)
		head, err := in.ReadString('\n')
		if err != nil {
			t.Fatal(to, err)
		}
		if strings.Contains(head, " 200 ") {
			if _, err := io.WriteString(c, late); err != nil {
				t.Fatal(err)
			}
			if err := c.(*net.TCPConn).CloseWrite(); err != nil {
				t.Fatal(err)
			}
		}
		b, err := io.ReadAll(in)
		if err != nil {
			t.Errorf("%s: %v", to, err)
		}
		return head + string(b)
	}
	const opaque = "\x16\x03\x01 bytes that are nobody's business \x00\xff"
	if got := say(public+":443", opaque); got != "HTTP/1.1 200 Connection established\r\n\r\nheard "+opaque {
		t.Errorf("the tunnel: %q", got)
	}
	if got := far.all(); len(got) != 1 || got[0] != opaque {
		t.Errorf("the far end heard %q", got)
	}
	if l := s.Desk().LogLines("not looked into"); len(l) != 1 || strings.Contains(l[0], "secret-of-nobody") {
		t.Errorf("the operator is told: %q", l)
	}
	for _, to := range []string{public + ":80", "127.0.0.1:443", "localhost:443", "[::1]:443", "[::ffff:127.0.0.1]:443", "10.0.0.1:443", "169.254.169.254:443", "0.0.0.0:443", "2130706433:443"} {
		if got := say(to, opaque); !strings.HasPrefix(got, "HTTP/1.1 4") && !strings.HasPrefix(got, "HTTP/1.1 5") || strings.Count(got, "HTTP/1.1") != 1 {
			t.Errorf("%s: %q", to, got)
		}
	}
	for _, o := range others {
		if got := o.all(); len(got) > 0 {
			t.Errorf("somebody who should not be reached heard %q", got)
		}
	}
	// A host that an upstream lists is not tunnelled, whatever the switch says: it is answered by egress.
	if got := say(strings.TrimPrefix(s.Tracker.URL(), "http://"), "GET /api/user HTTP/1.1\r\nHost: "+strings.TrimPrefix(s.Tracker.URL(), "http://")+"\r\n\r\n"); !strings.Contains(got, `"from":"frontdesk"`) {
		t.Errorf("a listed host: %q", got)
	}
}

// heardBy is a server that says back what it heard when the other side is done.
type heardBy struct {
	mu sync.Mutex
	l  []string
}

func (h *heardBy) all() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.l
}

func listenAt(t *testing.T, at string) *heardBy {
	t.Helper()
	h := &heardBy{}
	l, err := net.Listen("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = c.Close() }()
				b, _ := io.ReadAll(c)
				h.mu.Lock()
				h.l = append(h.l, string(b))
				h.mu.Unlock()
				_, _ = io.WriteString(c, "heard "+string(b))
			}()
		}
	}()
	return h
}

// address raises lo in the test's network, and gives it one address more.
func address(t *testing.T, ip string) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(fd) }()
	up, err := unix.NewIfreq("lo")
	if err != nil {
		t.Fatal(err)
	}
	alias, err := unix.NewIfreq("lo:1")
	if err != nil {
		t.Fatal(err)
	}
	up.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := alias.SetInet4Addr(net.ParseIP(ip).To4()); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		what uint
		with *unix.Ifreq
	}{{unix.SIOCSIFFLAGS, up}, {unix.SIOCSIFADDR, alias}} {
		if err := unix.IoctlIfreq(fd, step.what, step.with); err != nil {
			t.Fatal(err)
		}
	}
}
