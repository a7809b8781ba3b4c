package sandbox

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// kernel is what a Cell holds of this system.
type kernel struct {
	cmd     *exec.Cmd
	control *net.UnixConn
	group   *cgroup
	home    string // made on this side, where there is no file tree of its own
	exited  chan error
	ended   chan struct{}
	err     error // how it ended, once it has
}

// buildTime bounds how long the walls may take; they take milliseconds.
const buildTime = 10 * time.Second

// namespaces are all that an unprivileged process may make once it has a user namespace.
const namespaces = unix.CLONE_NEWUSER | unix.CLONE_NEWNET | unix.CLONE_NEWPID | unix.CLONE_NEWIPC | unix.CLONE_NEWNS | unix.CLONE_NEWUTS

// Build puts up the walls and returns once they stand, with the program still to come. It fails where one that is required
// does not stand, or where a path is not there.
func Build(s Setup) (*Cell, error) {
	c, err := start(s, !s.Plain)
	if err != nil && !s.Plain && noNamespaces(err) {
		c, err = start(s, false)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errStart, err)
	}
	err = c.handshake(s)
	go c.clean()
	if err != nil {
		c.Kill()
		_ = c.Wait() // it was killed
		return nil, fmt.Errorf("%w: %w", errStart, err)
	}
	return c, nil
}

// noNamespaces reports that the kernel, or what stands around us, lets nobody make namespaces.
func noNamespaces(err error) bool {
	return errors.Is(err, unix.EPERM) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EACCES)
}

// ownerInside is who owns an image's files in there.
const ownerInside = 65_533

func start(s Setup, apart bool) (*Cell, error) {
	ours, theirs, err := socketpair()
	if err != nil {
		return nil, err
	}
	defer func() { _ = theirs.Close() }() // the child has its own by then
	if !apart && s.Root != "" {
		return nil, errors.Join(errNoTree, ours.Close())
	}
	c := &Cell{kernel: kernel{control: ours, exited: make(chan error, 1), ended: make(chan struct{})}}
	c.cmd = exec.Command("/proc/self/exe")
	c.cmd.Args = []string{"frontdesk", Command}
	c.cmd.Env = []string{} // nothing of ours
	c.cmd.ExtraFiles = []*os.File{theirs}
	attr := &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL, Setpgid: true}
	root := os.Geteuid() == 0 && s.UID != 0
	switch {
	case apart:
		uid, gid := os.Geteuid(), os.Getegid()
		if root {
			uid, gid = s.UID, s.UID
		}
		inside := cmp.Or(s.Inside, Nobody)
		attr.Cloneflags = namespaces
		attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: inside, HostID: uid, Size: 1}}
		attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: inside, HostID: gid, Size: 1}}
		attr.Credential = &syscall.Credential{Uid: uint32(inside), Gid: uint32(inside), NoSetGroups: !root}
		attr.AmbientCaps = []uintptr{unix.CAP_NET_ADMIN, unix.CAP_NET_BIND_SERVICE, unix.CAP_SYS_ADMIN}
		if s.Root != "" { // with these a changed copy of a file is made, whose ever it is
			attr.AmbientCaps = append(attr.AmbientCaps, unix.CAP_CHOWN, unix.CAP_FOWNER, unix.CAP_DAC_OVERRIDE, unix.CAP_FSETID)
		}
		if root {
			attr.GidMappingsEnableSetgroups = true // so that the groups of root are left behind
			if s.Owner != 0 {
				owner := syscall.SysProcIDMap{ContainerID: ownerInside - inside/ownerInside, HostID: s.Owner, Size: 1} // another than inside
				attr.UidMappings, attr.GidMappings = append(attr.UidMappings, owner), append(attr.GidMappings, owner)
			}
		}
	case root:
		attr.Credential = &syscall.Credential{Uid: uint32(s.UID), Gid: uint32(s.UID)}
	}
	c.cmd.SysProcAttr = attr
	if !apart {
		err = c.furnish(s, root)
	}
	if err == nil {
		err = c.pipes()
	}
	if err == nil {
		err = spawn(c.cmd, s.Root)
	}
	if err != nil {
		if c.kernel.home != "" {
			err = errors.Join(err, os.RemoveAll(c.kernel.home))
		}
		return nil, errors.Join(err, ours.Close())
	}
	go c.reap()
	return c, nil
}

// furnish makes the program's directory on this side.
func (c *Cell) furnish(s Setup, root bool) (err error) {
	if c.kernel.home, err = os.MkdirTemp("", "frontdesk-server-"); err != nil {
		return err
	}
	for name, text := range s.Write {
		if err := errors.Join(os.MkdirAll(filepath.Dir(c.Path(name)), 0o755), os.WriteFile(c.Path(name), []byte(text), 0o444)); err != nil {
			return err
		}
	}
	if root {
		return os.Chown(c.kernel.home, s.UID, s.UID)
	}
	return nil
}

func (c *Cell) pipes() (err error) {
	if c.Stdin, err = c.cmd.StdinPipe(); err != nil {
		return err
	}
	if c.Stdout, err = c.cmd.StdoutPipe(); err != nil {
		return err
	}
	c.Stderr, err = c.cmd.StderrPipe()
	return err
}

// errNoTree reports that an image cannot be the file tree of a program that has none of its own.
var errNoTree = errors.New("an image needs a file tree of its own, and no namespaces may be made here")

// spawner is the thread that starts processes: a child gets its death signal when the thread that started it ends, so that
// thread must live as long as we do. It has a working directory of its own.
var spawner = sync.OnceValue(func() chan<- func() {
	work := make(chan func())
	go func() {
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			panic(err) // it asks for no privilege
		}
		for f := range work {
			f()
		}
	}()
	return work
})

// spawn starts a process that stands in dir. A directory that we may open and it may not (data_dir is closed to others) can be
// handed down only so: where a process stands when its namespaces are made is where it stands in them.
func spawn(c *exec.Cmd, dir string) error {
	done := make(chan error, 1)
	spawner() <- func() {
		if err := unix.Chdir(cmp.Or(dir, "/")); err != nil {
			done <- &os.PathError{Op: "chdir", Path: dir, Err: err}
			return
		}
		done <- dumpable(c.Start)
	}
	return <-done
}

// dumpable runs f while others of our account could look into our memory: a child shares it until its exec, and the users of
// its namespace can only be mapped in that state. It is milliseconds, and the state before comes back.
func dumpable(f func() error) error {
	if v, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0); err != nil || v == 1 {
		return f()
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0); err != nil {
		return err
	}
	return errors.Join(f(), unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0))
}

// reap waits for the process alone: the pipes are their readers' to end, or Wait would cut off the last lines.
func (c *Cell) reap() {
	if c.cmd.SysProcAttr.Cloneflags == 0 { // what it has started ends with it all the same, as far as that is in its group
		_ = unix.Waitid(unix.P_PID, c.cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		_ = unix.Kill(-c.cmd.Process.Pid, unix.SIGKILL)
	}
	state, err := c.cmd.Process.Wait()
	if err == nil && !state.Success() {
		err = errors.New(state.String())
	}
	c.exited <- err
}

// clean takes away what was made for the process, once that has ended.
func (c *Cell) clean() {
	if c.err = <-c.exited; c.err != nil && c.group.starved() {
		c.err = errors.New("it took more memory than it may (sandbox: {memory_mb: ...}), and was killed")
	}
	c.group.remove()
	if c.kernel.home != "" {
		_ = os.RemoveAll(c.kernel.home) // a temporary directory; what cannot be removed holds nothing of ours
	}
	for _, l := range []net.Listener{c.Listener, c.Direct} {
		if l != nil {
			_ = l.Close()
		}
	}
	close(c.ended)
}

// handshake sends the plan, takes back the report and the listener, and holds both against what is required.
func (c *Cell) handshake(s Setup) error {
	apart := c.cmd.SysProcAttr.Cloneflags != 0
	report := Report{}
	var err error
	if c.group, err = kernelGroups.hold(c.cmd.Process.Pid, s); err != nil {
		report[Memory] = err.Error()
	}
	if c.cmd.SysProcAttr.Credential == nil || os.Geteuid() != 0 || s.UID == 0 {
		report[UID] = "Frontdesk does not run as root, so servers have its user id, though nothing to use it on"
	}
	if err := c.control.SetDeadline(time.Now().Add(buildTime)); err != nil {
		return err
	}
	if err := json.NewEncoder(c.control).Encode(plan{Setup: s, Apart: apart, Home: c.kernel.home}); err != nil {
		return fmt.Errorf("its first process ended at once: %w", err)
	}
	a, fds, err := receive(c.control)
	if err != nil {
		return err
	}
	for m, why := range a.Report {
		report[m] = why
	}
	c.Report, c.Home, c.ReadOnly, c.Address = report, a.Home, a.ReadOnly, address
	switch {
	case len(fds) > 0:
		for i, l := range []*net.Listener{&c.Listener, &c.Direct}[:len(fds)] {
			var lerr error
			*l, lerr = net.FileListener(fds[i])
			err = errors.Join(err, lerr, fds[i].Close()) // FileListener has made its own
		}
	case a.Error == "":
		if c.Listener, err = net.Listen("tcp", "127.0.0.1:0"); err == nil {
			c.Address = c.Listener.Addr().String()
		}
	}
	if a.Error != "" {
		return errors.New(a.Error)
	}
	if err != nil {
		return err
	}
	return report.Missing(s.Require)
}

// Run makes the cell's process become the program. It fails where that cannot be executed.
func (c *Cell) Run(argv, env []string) error {
	if err := json.NewEncoder(c.control).Encode(order{Argv: argv, Env: env}); err != nil {
		return fmt.Errorf("%w: %w", errStart, err)
	}
	a, _, err := receive(c.control)
	_ = c.control.Close() // both have said their last word
	if err == nil && a.Error != "" {
		return errors.New(a.Error)
	}
	return nil // the socket was closed by exec: the program runs
}

// Terminate asks the program to end: an MCP server ends at the end of its input.
func (c *Cell) Terminate() {
	_ = c.Stdin.Close() // closed already where it ended by itself
}

// Kill ends the program and everything that it started.
func (c *Cell) Kill() {
	select {
	case <-c.ended:
		return // its number may be another's by now
	default:
	}
	_ = c.Stdin.Close()
	_ = unix.Kill(-c.cmd.Process.Pid, unix.SIGKILL) // its group, where there is no namespace that ends with it
	_ = c.cmd.Process.Kill()                        // gone already, where it ended by itself
}

// Done is closed when the program has ended.
func (c *Cell) Done() <-chan struct{} { return c.ended }

// Wait returns how the program ended, nil for status 0.
func (c *Cell) Wait() error {
	<-c.ended
	return c.err
}

// Path is where the program finds a file of Setup.Write.
func (c *Cell) Path(name string) string {
	if c.kernel.home == "" {
		return name
	}
	return filepath.Join(c.kernel.home, name)
}

// Pid of the program on this machine.
func (c *Cell) Pid() int { return c.cmd.Process.Pid }

func socketpair() (*net.UnixConn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "control"), os.NewFile(uintptr(fds[1]), "control")
	conn, err := net.FileConn(ours)
	_ = ours.Close() // FileConn has made its own
	if err != nil {
		return nil, nil, errors.Join(err, theirs.Close())
	}
	return conn.(*net.UnixConn), theirs, nil
}

// maxAnswer bounds what the first process may say; it is ours, but the program could in theory keep its descriptor.
const maxAnswer = 64 << 10

// receive reads one answer, which is one line, and the descriptors that came with it, two at most.
func receive(conn *net.UnixConn) (a answer, fds []*os.File, err error) {
	var text []byte
	buf, oob := make([]byte, maxAnswer), make([]byte, unix.CmsgSpace(2*4))
	for {
		n, oobn, _, _, err := conn.ReadMsgUnix(buf, oob)
		fds = append(fds, descriptors(oob[:oobn])...)
		text = append(text, buf[:n]...)
		if n > 0 && text[len(text)-1] == '\n' {
			return a, fds, json.Unmarshal(text, &a)
		}
		if err == nil && (n == 0 || len(text) > maxAnswer) {
			err = errors.New("its first process ended before it said that the walls stand")
		}
		if err != nil {
			return a, fds, err
		}
	}
}

func descriptors(oob []byte) (l []*os.File) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil || len(messages) == 0 {
		return nil
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		return nil
	}
	for _, fd := range fds {
		unix.CloseOnExec(fd)
		l = append(l, os.NewFile(uintptr(fd), "listener"))
	}
	return l
}
