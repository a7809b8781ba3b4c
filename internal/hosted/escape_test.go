//go:build linux

package hosted

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"frontdesk.dev/frontdesk/internal/identity"
)

// TestEscapes: a hostile server tries everything that it must not reach, while another user's runs beside it. It happens in a
// network of the test's own, in which there is a metadata service as clouds have one.
func TestEscapes(t *testing.T) {
	for _, in := range []string{"command", "image"} {
		t.Run(in, func(t *testing.T) { escapes(t, in) })
	}
}

func escapes(t *testing.T, in string) {
	c := exec.Command("/proc/self/exe", "-test.run=^TestEscapesInside$", "-test.v")
	c.Env = append(os.Environ(), "HOSTED_ESCAPES="+in)
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET, Pdeathsig: unix.SIGKILL}
	if os.Geteuid() != 0 {
		c.SysProcAttr.Cloneflags |= unix.CLONE_NEWUSER
		c.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
		c.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	}
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("%s", out)
}

const metadata = "169.254.169.254"

func TestEscapesInside(t *testing.T) {
	in := os.Getenv("HOSTED_ESCAPES")
	if in == "" {
		return // it is the other test's second process
	}
	dir := around(t)
	d := newDesk(t, nil)
	if in == "image" {
		d = newImageDesk(t, serverImage(t), nil)
		d.CA = nil // so that it asks for addresses itself, not egress for them
	}
	mallory, bob := d.begin("mallory", nothing), d.begin("bob", nothing)
	if got, _ := d.say("bob", bob, tools("1", "echo", "here")); !strings.Contains(got, "here") {
		t.Fatal(got)
	}
	var pid string
	for _, s := range d.States(identity.DefaultTenant, "") {
		if s.User == "bob" {
			pid = strconv.Itoa(s.Pid)
		}
	}
	us := strconv.Itoa(os.Getpid())
	tries := []string{
		// Files: Frontdesk's, the machine's, other processes', and what could become any of these.
		"read " + dir + "/vault.key", "read /etc/shadow", "read /root/.ssh/id_rsa", "read /etc/hostname", "read /etc/machine-id", "read /proc/" + us + "/environ", "read /proc/" + pid + "/environ",
		"read /proc/" + us + "/cmdline", "read /proc/kcore", "read /proc/1/root/" + dir + "/vault.key", "read /proc/self/root/" + dir + "/vault.key", "read /sys/class/net/eth0/address", "read /dev/mem", "read /dev/sda", "read /dev/vda",
		"list " + dir, "list /root", "list /home", "list /var/lib", "list /proc/" + pid + "/root", "list /sys", "read ../../../../../../" + dir + "/vault.key",
		"write " + dir + "/planted", "write " + program, "write /dev/planted", "write /run/planted", "write /run/frontdesk/ca.pem", "write /proc/sys/kernel/core_pattern", "write /proc/self/oom_score_adj", "write /proc/sysrq-trigger",
		// The network: what listens beside us, clouds' metadata, anybody.
		"http http://" + metadata + "/latest/meta-data/", "tcp " + metadata + ":80", "tcp 127.0.0.1:7777", "tcp [::1]:7777", "tcp 0.0.0.0:7777", "tcp 10.0.0.1:443", "tcp 192.168.0.1:22", "udp " + metadata + ":53", "udp 10.0.0.1:53",
		"unix " + dir + "/admin.sock", "unix /proc/1/root/" + dir + "/admin.sock", "unix @frontdesk-test", "unix /run/docker.sock", "unix /var/run/dbus/system_bus_socket",
		"socket " + strconv.Itoa(unix.AF_VSOCK), "socket " + strconv.Itoa(unix.AF_PACKET), "socket " + strconv.Itoa(unix.AF_BLUETOOTH), "socket " + strconv.Itoa(unix.AF_ALG), "socket " + strconv.Itoa(unix.AF_KEY),
		// Processes and privileges.
		"kill " + us, "kill " + pid, "kill " + strconv.Itoa(os.Getppid()), "kill -" + us, "mount /run/server", "mount /tmp", "unshare", "namespace", "setuid", "ptrace",
	}
	layer := []string{"/usr/bin/planted", "/etc/planted", "/planted", "/etc/passwd"} // of an image: in its own copy
	if in == "command" {
		for _, path := range layer {
			tries = append(tries, "write "+path)
		}
	} else {
		staysItsOwn(t, d, mallory, bob, layer)
	}
	refused := 0
	for _, try := range tries {
		got, _ := d.say("mallory", mallory, tools("1", "escape", try))
		if !strings.Contains(got, `"text":"refused: `) {
			t.Errorf("%s: %s", try, got)
			continue
		}
		refused++
	}
	got, _ := d.say("mallory", mallory, tools("1", "escape", "list /proc"))
	if strings.Contains(got, " "+us+" ") || strings.Contains(got, " "+pid+" ") {
		t.Errorf("it sees processes of others: %s", got)
	}
	fmt.Printf("%d tries, %d refused\n", len(tries), refused)
	if _, err := os.Stat(filepath.Join(dir, "planted")); err == nil {
		t.Error("it wrote into Frontdesk's directory")
	}
	if got, _ := d.say("bob", bob, tools("1", "echo", "still here")); !strings.Contains(got, "still here") {
		t.Errorf("bob's server suffered: %s", got)
	}
}

// staysItsOwn lets mallory change his image's files, and looks for that in the image and at bob.
func staysItsOwn(t *testing.T, d *desk, mallory, bob string, paths []string) {
	t.Helper()
	i, err := d.Images.Open(t.Context(), d.server.Program.Image)
	if err != nil {
		t.Fatal(err)
	}
	defer i.Close()
	for _, path := range paths {
		before, _ := os.ReadFile(i.Root + path)
		if got, _ := d.say("mallory", mallory, tools("1", "escape", "write "+path)); !strings.Contains(got, `"text":"got: written"`) {
			t.Errorf("his own copy of %s: %s", path, got)
		}
		if after, _ := os.ReadFile(i.Root + path); !bytes.Equal(before, after) {
			t.Errorf("%s is changed in the image", path)
		}
		if got, _ := d.say("bob", bob, tools("1", "escape", "read "+path)); before == nil && !strings.Contains(got, `"text":"refused: `) {
			t.Errorf("bob sees %s: %s", path, got)
		}
	}
}

// around makes what a hostile server would like to reach, open to everybody, and reaches all of it once, so that a refusal
// means something.
func around(t *testing.T) (dir string) {
	t.Helper()
	dir, err := os.MkdirTemp("/var/tmp", "frontdesk-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	loopback(t)
	page := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("the machine's own credential")) })
	for _, l := range []struct{ network, at string }{{"tcp", metadata + ":80"}, {"tcp", "127.0.0.1:7777"}, {"unix", filepath.Join(dir, "admin.sock")}, {"unix", "@frontdesk-test"}} {
		lis, err := net.Listen(l.network, l.at)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = lis.Close() })
		go func() { _ = http.Serve(lis, page) }()
		c, err := net.Dial(l.network, l.at)
		if err != nil {
			t.Fatalf("the test itself does not reach %s: %v", l.at, err)
		}
		_ = c.Close()
	}
	for _, err := range []error{os.WriteFile(filepath.Join(dir, "vault.key"), []byte("key"), 0o666), os.Chmod(dir, 0o777), os.Chmod(filepath.Join(dir, "vault.key"), 0o666), os.Chmod(filepath.Join(dir, "admin.sock"), 0o777)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// loopback raises lo in the test's network, and gives it the address of clouds' metadata services.
func loopback(t *testing.T) {
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
	up.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	alias, err := unix.NewIfreq("lo:1")
	if err != nil {
		t.Fatal(err)
	}
	if err := alias.SetInet4Addr(net.ParseIP(metadata).To4()); err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, up); err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFADDR, alias); err != nil {
		t.Fatal(err)
	}
}
