// Package sandbox starts a program behind the walls that this machine's kernel gives, and says which of them stand.
//
// The program is a stranger's. It gets a file tree of its own with nothing in it but what it needs to read, a network
// whose only other end is a listener that we serve, and no sight of any other process. The walls are put up by this very
// binary, run again as the program's first process, which then becomes the program. Nothing here needs root; where the
// caller is root, each program gets a user id of its own beside that.
//
// It trusts the kernel, and the paths that the operator lets it read. It does not hide the machine's load and time, and it
// is no defence against a hole in the kernel: for that, run Frontdesk on a machine of its own.
package sandbox

import (
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
)

// Measure is one wall.
type Measure string

const (
	UID        Measure = "uid"          // a user id that nothing else on the machine has; needs root
	Network    Measure = "network"      // a network of its own, in which there is egress and nothing else
	Files      Measure = "files"        // a file tree of its own
	Processes  Measure = "processes"    // it sees no process but its own, and all of them end together
	IPC        Measure = "ipc"          // no shared memory or message queue of others
	NoNewPrivs Measure = "no_new_privs" // no program that it starts can gain a privilege
	Landlock   Measure = "landlock"     // files, TCP ports, signals and abstract sockets, fenced a second time
	Seccomp    Measure = "seccomp"      // no system call of those that programs do not need and attackers do
	Limits     Measure = "limits"       // open files, processes, no core dumps
	Memory     Measure = "memory"       // memory, processes and processor time bounded by a cgroup
)

// Measures are all, in the order in which they are shown.
var Measures = []Measure{UID, Network, Files, Processes, IPC, NoNewPrivs, Landlock, Seccomp, Limits, Memory}

// Required is what must stand where the config says nothing.
var Required = []Measure{Network, Files, Processes, NoNewPrivs, Seccomp}

// Command is the hidden subcommand under which the binary runs itself again.
const Command = "sandbox-init"

// Setup says what is to be built around a program. The zero Setup has no limits and lets nothing be read but the system's
// own programs and libraries.
type Setup struct {
	Read      []string          // absolute paths that it may read, beside the system's; none with a Root
	Names     []string          // hosts that lead to the cell's Direct, by https
	Write     map[string]string // files that it finds, below /run: path -> content
	Root      string            // the directory that is its whole file tree, instead of the machine's programs; "" = those
	Dir       string            // in that tree, where it begins; "" = its own directory
	Inside    int               // the user and group id that it has in there; 0 = 1000
	Owner     int               // the user whose files Root holds, where the caller is root, who can change them there; 0 = the caller
	Scratch   int64             // bytes that it may write, its own directory and changes to Root together; 0 = 64 MiB
	UID       int               // of this machine's users, where the caller is root; 0 = the caller's own
	Memory    int64             // bytes; 0 = unbounded
	Processes int               // threads counted; 0 = unbounded
	CPU       int               // percent of one processor's time; 0 = unbounded
	Files     int               // open files; 0 = the caller's own limit
	Require   []Measure
	Plain     bool // without namespaces, as on a machine that has none
}

// Report says of each measure that does not stand why not.
type Report map[Measure]string

// Held reports whether the measure stands.
func (r Report) Held(m Measure) bool { _, missing := r[m]; return !missing }

// Missing is the error that names what is required and does not stand; nil where all stands.
func (r Report) Missing(required []Measure) error {
	var l []string
	for _, m := range required {
		if why, missing := r[m]; missing {
			l = append(l, string(m)+" ("+why+")")
		}
	}
	if len(l) == 0 {
		return nil
	}
	return fmt.Errorf("this machine lacks what `sandbox: {require: ...}` asks for: %s", strings.Join(l, ", "))
}

// Readable reports whether a program may read a path: one of the system's, or one at or below what is let.
func Readable(path string, read []string) bool {
	return slices.ContainsFunc(slices.Concat(System, read), func(dir string) bool {
		return path == dir || strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")
	})
}

// System is what programs need of the machine, and may always read: programs, libraries, certificates, time zones. Whatever
// else lies under /etc stays outside.
var System = []string{"/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc/alternatives", "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d",
	"/etc/localtime", "/etc/mime.types", "/etc/ssl/openssl.cnf", "/etc/ssl/certs", "/etc/ca-certificates", "/etc/pki"}

// Own are the directories that the sandbox fills itself. They cannot be made readable whole.
var Own = []string{"/dev", "/etc", "/proc"}

// Mounts are the directories of a Setup.Root in whose place the sandbox puts its own. They must be there, and no links.
var Mounts = []string{"/dev", "/proc", "/run"}

// SearchPath is where programs without a path are looked for.
const SearchPath = "/usr/local/bin:/usr/bin:/bin"

// Known reports whether there is such a measure.
func Known(m Measure) bool { return slices.Contains(Measures, m) }

// Cell is a built sandbox, in which a program can be run once. Whoever made it ends it with Kill.
type Cell struct {
	Report   Report
	Listener net.Listener // in the program's network: what it connects to at Address arrives here
	Address  string       // of the listener, as the program must spell it
	Direct   net.Listener // what it connects to at port 443 of one of the Names; nil without a network of its own
	Home     string       // the directory that is the program's own, gone with it
	ReadOnly string       // why it may write nowhere else, where it has a Root; "" = it may, and that is gone with it, too

	Stdin  io.WriteCloser
	Stdout io.ReadCloser
	Stderr io.ReadCloser

	kernel
}

// Nobody is the user and group id that a program has inside, where nothing else is said. There is no other there, and on the
// machine it stands for another.
const Nobody = 1000

// order is the last word to the process that has put up the walls: become this.
type order struct {
	Argv []string
	Env  []string
}

// answer is what that process says when they stand.
type answer struct {
	Report   Report
	Error    string
	Home     string
	ReadOnly string
}

var errStart = errors.New("the sandbox could not be built")

// address is where the program finds egress, in a network of its own.
const address = "127.0.0.1:3128"

// direct is where it finds its API's hosts by their names, if it asks no proxy.
const direct = "127.0.0.1:443"

// Scratch is the program's own directory, in a file tree of its own.
const Scratch = "/run/server"
