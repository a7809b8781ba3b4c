package sandbox

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/landlock-lsm/go-landlock/landlock"
	"golang.org/x/sys/unix"
)

// plan is what the first process is told.
type plan struct {
	Setup Setup
	Apart bool   // it has namespaces of its own
	Home  string // where it has no file tree of its own
}

// controlFD is where the first process finds its side of the socket.
const controlFD = 3

// Init is what the hidden subcommand runs: it puts up the walls around itself, says so, and becomes the program. It returns
// only to a process that was not started by Build.
func Init() {
	runtime.LockOSThread() // what a thread gives up here, the program must not find again in another
	unix.CloseOnExec(controlFD)
	f := os.NewFile(controlFD, "control")
	conn, err := net.FileConn(f)
	if err != nil {
		return
	}
	_ = f.Close() // FileConn has made its own
	control, ok := conn.(*net.UnixConn)
	if !ok {
		return
	}
	d := json.NewDecoder(control)
	var p plan
	if err := d.Decode(&p); err != nil {
		os.Exit(1) // whoever wanted us is gone
	}
	b := &builder{plan: p, report: Report{}}
	l, err := b.build()
	if err := b.say(control, err, l); err != nil || b.failed {
		os.Exit(1)
	}
	var o order
	if err := d.Decode(&o); err != nil {
		os.Exit(1)
	}
	err = become(o, p.Setup.Root != "")
	_ = b.say(control, err, nil) // a parent that is gone has ended us by now
	os.Exit(127)
}

// become replaces this process by the program. Capabilities that were needed for the walls do not survive it.
func become(o order, image bool) error {
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return fmt.Errorf("capabilities cannot be given up: %w", err)
	}
	path, err := lookPath(o.Argv[0], o.Env)
	if err == nil {
		err = unix.Exec(path, o.Argv, o.Env)
	}
	if image {
		return fmt.Errorf("%s of the image cannot be run (%w): it must be a program for this kind of machine, with the loader that it names, and what holds data_dir must not be mounted noexec", o.Argv[0], err)
	}
	return fmt.Errorf("%s cannot be run in the sandbox (%w): the program must be one of the system's, or lie where `sandbox: {read: [...]}` lets it, readable for everybody", o.Argv[0], err)
}

// lookPath finds a program where its own environment says that programs are.
func lookPath(name string, env []string) (string, error) {
	if strings.Contains(name, "/") {
		return name, nil
	}
	search := SearchPath
	for _, v := range env {
		if path, ok := strings.CutPrefix(v, "PATH="); ok {
			search = path
		}
	}
	for _, dir := range filepath.SplitList(search) {
		path := filepath.Join(dir, name)
		if unix.Access(path, unix.X_OK) == nil {
			return path, nil
		}
	}
	return "", unix.ENOENT
}

type builder struct {
	plan
	report   Report
	home     string
	layered  bool   // what it changes in its tree is a layer of its own
	readOnly string // why it is not, of an image
	failed   bool
}

// say sends one answer, with the listeners' descriptors where there are some.
func (b *builder) say(control *net.UnixConn, err error, l []*net.TCPListener) error {
	a := answer{Report: b.report, Home: b.home, ReadOnly: b.readOnly}
	if err != nil {
		a.Error, b.failed = err.Error(), true
	}
	var oob []byte
	var fds []int
	for _, l := range l {
		f, err := l.File()
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }() // sent, or of no use any more
		fds = append(fds, int(f.Fd()))
	}
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	text, err := json.Marshal(a)
	if err != nil {
		return err
	}
	_, _, err = control.WriteMsgUnix(append(text, '\n'), oob, nil)
	return err
}

// build puts up the walls from the outermost to the innermost; each says for itself whether it stands.
func (b *builder) build() (l []*net.TCPListener, err error) {
	b.home = b.Home
	if !b.Apart {
		for _, m := range []Measure{Network, Files, Processes, IPC} {
			b.report[m] = "no namespaces may be made here"
		}
	} else {
		var err error
		if b.Setup.Root != "" {
			err = b.image()
		} else {
			err = b.tree()
		}
		if err != nil {
			return nil, fmt.Errorf("a file tree of its own cannot be made: %w", err)
		}
		b.home = Scratch
		if l, err = listen(); err != nil {
			return nil, fmt.Errorf("its network cannot be made: %w", err)
		}
		if err = unix.Sethostname([]byte("server")); err != nil {
			return nil, err
		}
	}
	b.note(Limits, b.limits())
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return nil, err
	}
	b.note(Landlock, b.fence())
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		b.report[NoNewPrivs] = err.Error()
	}
	b.note(Seccomp, filterCalls())
	if err := os.Chdir(cmp.Or(b.Setup.Dir, b.home)); err != nil {
		return nil, fmt.Errorf("its working directory: %w", err)
	}
	return l, nil
}

func (b *builder) note(m Measure, err error) {
	if err != nil {
		b.report[m] = err.Error()
	}
}

// listen raises loopback, which is all that this network has, and waits there for the program, at address and at direct.
func listen() (l []*net.TCPListener, err error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = unix.Close(fd) }() // only asked a question
	r, err := unix.NewIfreq("lo")
	if err != nil {
		return nil, err
	}
	r.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, r); err != nil {
		return nil, err
	}
	for _, at := range []string{address, direct} {
		addr, err := net.ResolveTCPAddr("tcp4", at)
		if err != nil {
			return nil, err
		}
		one, err := net.ListenTCP("tcp4", addr)
		if err != nil {
			return nil, err
		}
		l = append(l, one)
	}
	return l, nil
}

func (b *builder) limits() error {
	set := func(what int, n int) error {
		if n == 0 {
			return nil
		}
		return unix.Setrlimit(what, &unix.Rlimit{Cur: uint64(n), Max: uint64(n)})
	}
	return errors.Join(unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}), set(unix.RLIMIT_NOFILE, b.Setup.Files), set(unix.RLIMIT_NPROC, b.Setup.Processes))
}

// fence is Landlock: a second wall behind the first for files, and the only one where there are no namespaces.
func (b *builder) fence() error {
	version, err := abi()
	if err != nil {
		return err
	}
	own := func(dir string) landlock.Rule {
		if version < 2 { // it knows no moving from one directory to another, and then nothing of it would hold
			return landlock.RWDirs(dir)
		}
		return landlock.RWDirs(dir).WithRefer()
	}
	rules := []landlock.Rule{own(b.home), landlock.RWFiles("/dev/null", "/dev/zero", "/dev/full").IgnoreIfMissing()}
	switch {
	case b.layered: // what may not be written is mounted so
		rules = append(rules, own("/"), landlock.ConnectTCP(port), landlock.ConnectTCP(directPort))
	case b.Apart: // everything that is left is there to be read
		rules = append(rules, landlock.RODirs("/"), landlock.ConnectTCP(port), landlock.ConnectTCP(directPort))
	default:
		rules = append(rules, landlock.ROFiles("/dev/random", "/dev/urandom").IgnoreIfMissing(), landlock.RODirs("/proc").IgnoreIfMissing())
		for _, path := range slices.Concat(System, b.Setup.Read) {
			if info, err := os.Stat(path); err == nil && info.IsDir() {
				rules = append(rules, landlock.RODirs(path))
			} else if err == nil {
				rules = append(rules, landlock.ROFiles(path))
			}
		}
	}
	cfg := landlock.V6.BestEffort()
	if !b.Apart { // egress is a port that is not known yet, and no wall that names ports alone is one for hosts
		if err := cfg.RestrictPaths(rules...); err != nil {
			return err
		}
		return cfg.RestrictScoped()
	}
	if err := cfg.Restrict(rules...); err != nil {
		return err
	}
	if version < 6 {
		return fmt.Errorf("the kernel's Landlock is of version %d: sockets and signals are not fenced", version)
	}
	return nil
}

// abi is the version of the kernel's Landlock.
func abi() (int, error) {
	v, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 {
		return 0, errors.New("the kernel has no Landlock, or it is switched off")
	}
	return int(v), nil
}
