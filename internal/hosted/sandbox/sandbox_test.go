//go:build linux

package sandbox

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == Command {
		Init()
	}
	os.Exit(m.Run())
}

// run runs a shell script in a cell and returns what it printed.
func run(t *testing.T, s Setup, script string) (string, *Cell) {
	t.Helper()
	c, err := Build(s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Kill)
	if err := c.Run([]string{"/bin/sh", "-c", script}, []string{"PATH=" + SearchPath, "HOME=" + c.Home, "SECRET=s3cret"}); err != nil {
		t.Fatal(err)
	}
	out, err := io.ReadAll(c.Stdout)
	if err != nil {
		t.Fatal(err)
	}
	said, err := io.ReadAll(c.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Wait(); err != nil {
		t.Logf("ended: %v\n%s", err, said)
	}
	return string(out), c
}

const someUID = 70321

// bounds are set wide: what they do is a test of its own.
func bounds() Setup {
	return Setup{UID: someUID, Memory: 256 << 20, Processes: 64, Files: 256, Require: Required}
}

func TestWhatStandsHere(t *testing.T) {
	_, c := run(t, bounds(), "exit 0")
	for _, m := range Measures {
		t.Logf("%-13s %v %s", m, c.Report.Held(m), c.Report[m])
	}
	if err := c.Report.Missing([]Measure{UID, Network, Files, Processes, IPC, NoNewPrivs, Seccomp, Limits}); os.Geteuid() == 0 && err != nil {
		t.Error(err)
	}
}

// TestTheInsideIsBare: a file tree, a process list and an environment in which there is nothing of ours.
func TestTheInsideIsBare(t *testing.T) {
	t.Setenv("FRONTDESK_LEAK", "leaked")
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("of the desk"), 0o644); err != nil {
		t.Fatal(err)
	}
	out, _ := run(t, bounds(), `echo "root: $(ls /)"; echo "etc: $(ls /etc)"; echo "procs: $(ls /proc | grep -c '^[0-9]')"; echo "id: $(id -u) $(id -G)"; env; cat `+secret+` 2>&1
		echo pwd $(pwd); touch here && echo wrote; touch /x 2>&1; touch /usr/x 2>&1; ls -l /proc/self/fd | grep -c ' -> '; grep -E 'CapEff|CapPrm|CapAmb|NoNewPrivs|Seccomp:' /proc/self/status; cat /proc/net/dev; hostname`)
	t.Log(out)
	for _, bad := range []string{"FRONTDESK_LEAK", "of the desk", "shadow", "eth0", " data", "home "} {
		if strings.Contains(out, bad) {
			t.Errorf("the inside shows %q", bad)
		}
	}
	for _, want := range []string{"wrote", "pwd /run/server", "CapEff:\t0000000000000000", "CapPrm:\t0000000000000000", "CapAmb:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2", "id: 1000 1000\n", "Read-only"} {
		if !strings.Contains(out, want) {
			t.Errorf("the inside lacks %q", want)
		}
	}
}

// TestItsOwnDirectory: what it may write is bounded, and files move within it from one directory to another, as package managers and git
// move theirs.
func TestItsOwnDirectory(t *testing.T) {
	s := bounds()
	s.Scratch = 2 << 20
	out, _ := run(t, s, `mkdir a b && echo x >a/f && ln a/f b/g && echo linked; head -c 1500000 /dev/zero >b/big && echo fits; head -c 1500000 /dev/zero >b/more || echo full
		for i in $(seq 3000); do true >b/$i || { echo no more files; break; }; done 2>/dev/null`)
	if out != "linked\nfits\nfull\nno more files\n" {
		t.Errorf("it says %q", out)
	}
}

// TestTheOnlyWayOut are the listeners that came along: egress as a proxy, and behind the names of the API's hosts.
func TestTheOnlyWayOut(t *testing.T) {
	s := bounds()
	s.Names = []string{"api.example.com"}
	c, err := Build(s)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Kill()
	host, port, err := net.SplitHostPort(c.Address)
	if err != nil {
		t.Fatal(err)
	}
	script := fmt.Sprintf(`exec 3<>/dev/tcp/%s/%s; echo hello >&3; head -n1 <&3; exec 5<>/dev/tcp/api.example.com/443; echo by name >&5; head -n1 <&5; for there in api.example.org/443 127.0.0.1/22 10.0.0.1/80 169.254.169.254/80; do (exec 4<>/dev/tcp/$there) 2>/dev/null && echo "reached $there"; done; echo done`, host, port)
	if err := c.Run([]string{"/bin/bash", "-c", script}, nil); err != nil {
		t.Fatal(err)
	}
	conn, err := c.Listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil || line != "hello\n" {
		t.Fatalf("egress heard %q, %v", line, err)
	}
	if _, err := io.WriteString(conn, "welcome\n"); err != nil {
		t.Fatal(err)
	}
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	byName, err := c.Direct.Accept()
	if err != nil {
		t.Fatal(err)
	}
	line, err = bufio.NewReader(byName).ReadString('\n')
	if err != nil || line != "by name\n" {
		t.Fatalf("behind the name was heard %q, %v", line, err)
	}
	if _, err := io.WriteString(byName, "here\n"); err != nil {
		t.Fatal(err)
	}
	if err := byName.Close(); err != nil {
		t.Fatal(err)
	}
	out, err := io.ReadAll(c.Stdout)
	if err != nil || string(out) != "welcome\nhere\ndone\n" {
		t.Errorf("the program said %q, %v", out, err)
	}
}

// TestNobodyStaysBehind: what the program started ends with it, however it ends.
func TestNobodyStaysBehind(t *testing.T) {
	for name, end := range map[string]func(*Cell){"killed": (*Cell).Kill, "input ended": (*Cell).Terminate} {
		t.Run(name, func(t *testing.T) {
			c, err := Build(bounds())
			if err != nil {
				t.Fatal(err)
			}
			if err := c.Run([]string{"/bin/sh", "-c", "(trap '' HUP TERM; exec sleep 600) & echo up; read x"}, []string{"PATH=" + SearchPath}); err != nil {
				t.Fatal(err)
			}
			r := bufio.NewReader(c.Stdout)
			if _, err := r.ReadString('\n'); err != nil {
				t.Fatal(err)
			}
			end(c)
			_ = c.Wait() // killed, or not: that is the case
			if _, err := r.ReadString('\n'); err != io.EOF {
				t.Errorf("somebody still holds the program's output: %v", err)
			}
		})
	}
}

func TestWhatIsRequired(t *testing.T) {
	s := bounds()
	s.Plain = true
	c, err := Build(s)
	if err == nil {
		c.Kill()
		t.Fatal("a server was started without the walls that it must have")
	}
	if !strings.Contains(err.Error(), "network") {
		t.Errorf("the error does not say what is missing: %v", err)
	}
	s.Require = []Measure{NoNewPrivs}
	out, c := run(t, s, "echo up; cat /etc/hostname 2>&1; touch here && echo wrote")
	if !strings.Contains(out, "up\n") || !strings.Contains(out, "wrote") || c.Report.Held(Network) {
		t.Errorf("without namespaces the program said %q; network held: %v", out, c.Report.Held(Network))
	}
	if c.Report.Held(Landlock) && !strings.Contains(out, "Permission denied") {
		t.Errorf("Landlock is said to stand, but does not: %q", out)
	}
}

// TestClosedMemory: a process whose memory is closed to others builds sandboxes all the same, and is closed again after that.
func TestClosedMemory(t *testing.T) {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0) }()
	if out, c := run(t, bounds(), "echo up"); out != "up\n" || !c.Report.Held(Network) {
		t.Errorf("got %q %v", out, c.Report)
	}
	if v, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0); err != nil || v != 0 {
		t.Errorf("memory stays open: %d %v", v, err)
	}
}

func TestAProgramThatIsNotThere(t *testing.T) {
	c, err := Build(bounds())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Kill()
	if err := c.Run([]string{"/opt/nobody/has/this"}, nil); err == nil || !strings.Contains(err.Error(), "sandbox: {read:") {
		t.Errorf("said %v", err)
	}
	s := bounds()
	s.Read = []string{"/opt/nobody/has/this"}
	if c, err := Build(s); err == nil {
		c.Kill()
		t.Error("a path that is not there was made readable")
	}
}

// TestARootThatIsNone: a tree of another's needs a place for ours, and namespaces.
func TestARootThatIsNone(t *testing.T) {
	s := bounds()
	s.Root = t.TempDir()
	for plain, why := range map[bool]string{false: "has no directory /dev", true: "an image needs a file tree of its own"} {
		s.Plain = plain
		if c, err := Build(s); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("said %v, want %q", err, why)
			if c != nil {
				c.Kill()
			}
		}
	}
	s.Plain, s.Root = false, "/opt/nobody/has/this"
	if _, err := Build(s); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("said %v", err)
	}
}

// TestReadThroughLinks: a path is readable where it is named, and where its links lead.
func TestReadThroughLinks(t *testing.T) {
	base, err := os.MkdirTemp("/var/tmp", "frontdesk-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(base) })
	for _, err := range []error{os.Chmod(base, 0o755), os.MkdirAll(filepath.Join(base, "real", "in"), 0o755), os.WriteFile(filepath.Join(base, "real", "in", "f"), []byte("found\n"), 0o644),
		os.Symlink(filepath.Join(base, "real"), filepath.Join(base, "abs")), os.Symlink("abs/in", filepath.Join(base, "rel"))} {
		if err != nil {
			t.Fatal(err)
		}
	}
	s := bounds()
	s.Read = []string{filepath.Join(base, "rel")}
	out, _ := run(t, s, "cat "+base+"/rel/f; cat "+base+"/real/in/f; ls "+base+"/real")
	if out != "found\nfound\nin\n" {
		t.Errorf("got %q", out)
	}
	// A directory is whole, though something in it was named before it.
	s.Read = []string{filepath.Join(base, "real", "in", "f"), filepath.Join(base, "rel"), filepath.Join(base, "real")}
	out, _ = run(t, s, "cat "+base+"/real/in/f; readlink "+base+"/rel; ls "+base)
	if out != "found\nabs/in\nabs\nreal\nrel\n" {
		t.Errorf("got %q", out)
	}
	if err := os.WriteFile(filepath.Join(base, "real", "beside"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if out, _ = run(t, s, "ls "+base+"/real"); out != "beside\nin\n" {
		t.Errorf("got %q", out)
	}
	s.Read = []string{filepath.Join(base, "abs", "in", "f"), filepath.Join(base, "real")} // also where a link leads into it, whatever their order
	if out, _ = run(t, s, "cat "+base+"/abs/in/f; ls "+base+"/real; touch "+base+"/real/x 2>&1 | grep -o Read-only"); out != "found\nbeside\nin\nRead-only\n" {
		t.Errorf("got %q", out)
	}
}

// TestBounds: memory is bounded where the report says so.
func TestBounds(t *testing.T) {
	s := bounds()
	s.Memory, s.Processes = 32<<20, 20
	_, c := run(t, s, "x=$(head -c 200000000 /dev/zero | tr '\\0' a); echo $x | wc -c")
	if err := c.Wait(); c.Report.Held(Memory) && (err == nil || !strings.Contains(err.Error(), "memory_mb")) {
		t.Errorf("200 MB in 32: %v", err)
	}
	s.CPU = 20
	if _, c = run(t, s, "exit 0"); c.Report.Held(Memory) {
		held := 0
		p := exec.Command("/bin/sleep", "600")
		if err := p.Start(); err != nil {
			t.Fatal(err)
		}
		hold, err := kernelGroups.hold(p.Process.Pid, s)
		if err != nil {
			t.Fatal(err)
		}
		for _, dir := range hold.dirs {
			for _, file := range []string{"cpu.max", "cpu.cfs_quota_us"} {
				if text, err := os.ReadFile(filepath.Join(dir, file)); err == nil && strings.HasPrefix(string(text), "20000") {
					held++
				}
			}
		}
		if held != 1 {
			t.Errorf("processor time is not bounded in %v", hold.dirs)
		}
		if err := p.Process.Kill(); err != nil {
			t.Error(err)
		}
		_ = p.Wait() // it was killed
		hold.remove()
	}
	s.CPU = 0
	out, _ := run(t, s, "for i in $(seq 100); do sleep 5 & done 2>&1; echo end; kill $(jobs -p) 2>/dev/null")
	if !strings.Contains(out, "fork") && !strings.Contains(out, "Cannot") {
		t.Errorf("a hundred processes where twenty may be: %q", out)
	}
}

// TestChildrenEndToo: what a program has started ends with it, where there are no namespaces too.
func TestChildrenEndToo(t *testing.T) {
	for _, plain := range []bool{false, true} {
		s := bounds()
		if s.Plain = plain; plain {
			s.Require = nil
		}
		c, err := Build(s)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Kill()
		if err := c.Run([]string{"/bin/sh", "-c", "sleep 600 & echo started; exit 3"}, []string{"PATH=" + SearchPath}); err != nil {
			t.Fatal(err)
		}
		said, err := io.ReadAll(c.Stdout) // until nobody holds it any more
		if err != nil || string(said) != "started\n" || c.Wait() == nil {
			t.Errorf("without namespaces %v: %q %v", plain, said, err)
		}
	}
}

// TestKilledParent: when we are killed, programs end too.
func TestKilledParent(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p, err := os.StartProcess("/proc/self/exe", []string{"test", "-test.run=TestKilledParentInner"}, &os.ProcAttr{Env: append(os.Environ(), "SANDBOX_INNER=1"), Files: []*os.File{nil, w, os.Stderr},
		Sys: &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(r)
	var pid int
	for pid == 0 {
		line, err := lines.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		_, _ = fmt.Sscanf(line, "program %d", &pid)
	}
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
	_, _ = p.Wait()
	deadline := time.Now().Add(5 * time.Second)
	for syscall.Kill(pid, 0) == nil {
		if time.Now().After(deadline) {
			t.Fatal("the program lives on")
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func TestKilledParentInner(t *testing.T) {
	if os.Getenv("SANDBOX_INNER") == "" {
		return // it is the other test's second process
	}
	c, err := Build(bounds())
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Run([]string{"/bin/sleep", "600"}, nil); err != nil {
		t.Fatal(err)
	}
	fmt.Printf("program %d\n", c.Pid())
	select {}
}
