package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// cgroup bounds a process from outside: one directory in the v2 tree, or one in each v1 controller's.
type cgroup struct {
	tree *cgroups
	dirs []string
}

// cgroups makes groups below where we are.
type cgroups struct {
	files files
	root  string // where the tree is mounted
	own   func() (string, error)

	swept sync.Once

	mu   sync.Mutex
	base string   // guarded by mu, as is what follows: below it groups are made, in a v2 tree; "" until it is known
	busy []string // groups that could not be removed yet
}

// files is how a cgroup tree is reached. A test has one of its own, which keeps the kernel's rules.
type files interface {
	read(path string) (string, error)
	write(path, text string) error // of a file that is there: where this is no cgroup after all, one that is made would bound nothing
	mkdir(path string) error
	rmdir(path string) error
}

type kernelFiles struct{}

func (kernelFiles) read(path string) (string, error) {
	b, err := os.ReadFile(path)
	return string(b), err
}

func (kernelFiles) write(path, text string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

func (kernelFiles) mkdir(path string) error { return os.Mkdir(path, 0o755) }

func (kernelFiles) rmdir(path string) error { return unix.Rmdir(path) }

const cgroupRoot = "/sys/fs/cgroup"

// kernelGroups are those of this process.
var kernelGroups = &cgroups{files: kernelFiles{}, root: cgroupRoot, own: ownGroup}

var groups atomic.Int64

// controllers are those that bounds need.
var controllers = []string{"memory", "pids"}

// hold puts a process, which must not have done anything yet, under its bounds. Without bounds there is no group.
func (t *cgroups) hold(pid int, s Setup) (*cgroup, error) {
	if s.Memory == 0 && s.Processes == 0 && s.CPU == 0 {
		return nil, errors.New("no bounds are set")
	}
	g := &cgroup{tree: t}
	name := fmt.Sprintf(groupName, os.Getpid(), groups.Add(1))
	defer t.swept.Do(t.sweep)
	t.drop()
	err := g.v2(name, s)
	if err != nil {
		g.remove()
		if v1 := g.v1(name, s); v1 != nil {
			g.remove()
			return nil, fmt.Errorf("no cgroup may be made here: v2: %w; v1: %w", err, v1)
		}
	}
	for _, dir := range g.dirs {
		if err := t.files.write(dir+"/cgroup.procs", strconv.Itoa(pid)); err != nil {
			g.remove()
			return nil, fmt.Errorf("a process cannot be put under its bounds: %w", err)
		}
	}
	return g, nil
}

const groupName = "frontdesk-%d-%d" // of whose making, and which

// sweep removes the groups of those of us that were killed: their programs were, too.
func (t *cgroups) sweep() {
	t.mu.Lock()
	base := t.base
	t.mu.Unlock()
	for _, dir := range []string{base, filepath.Join(t.root, "memory"), filepath.Join(t.root, "pids"), filepath.Join(t.root, "cpu")} {
		found, _ := filepath.Glob(filepath.Join(dir, "frontdesk-*-*")) // the pattern is well formed
		for _, at := range found {
			var pid, n int
			if _, err := fmt.Sscanf(filepath.Base(at), groupName, &pid, &n); err == nil && dir != "" && errors.Is(unix.Kill(pid, 0), unix.ESRCH) {
				_ = t.files.rmdir(at) // one that holds something stays
			}
		}
	}
}

func (g *cgroup) v2(name string, s Setup) error {
	base, err := g.tree.below()
	if err != nil {
		return err
	}
	dir := filepath.Join(base, name)
	if err := g.tree.files.mkdir(dir); err != nil {
		return err
	}
	g.dirs = append(g.dirs, dir)
	// Of swap there may be nothing to say. Where one process of it is killed for memory, all are: half a program answers nobody.
	for file, text := range map[string]string{"memory.swap.max": "0", "memory.oom.group": "1"} {
		if err := g.tree.files.write(filepath.Join(dir, file), text); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if s.CPU > 0 {
		if err := g.tree.files.write(filepath.Join(dir, "cpu.max"), fmt.Sprintf("%d %d", s.CPU*period/100, period)); err != nil {
			return fmt.Errorf("processor time cannot be bounded: %w", err)
		}
	}
	return errors.Join(g.bound(dir, "memory.max", s.Memory), g.bound(dir, "pids.max", int64(s.Processes)))
}

// period is that in which processor time is counted, in microseconds: the kernel's default.
const period = 100_000

// below is the group below which those of programs are made: our own, if it was handed to us. Its processes have to leave it first, for a
// group that holds some cannot have children with bounds (cgroup v2, no internal processes). If nothing may be made there, it is the one
// above, where that has children with bounds already.
func (t *cgroups) below() (string, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.base != "" {
		return t.base, nil
	}
	own, err := t.own()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(t.root, own)
	if err = t.open(dir); err == nil {
		_ = t.files.write(filepath.Join(dir, "cgroup.subtree_control"), "+cpu") // whoever wants a bound of that misses it later, if there is none
		t.base = dir
		return dir, nil
	}
	if above := filepath.Dir(dir); own != "/" && t.lacks(above, "cgroup.subtree_control") == nil {
		t.base = above
		return above, nil
	}
	return "", err
}

// lacks names controllers that a list of a group has not.
func (t *cgroups) lacks(dir, list string) error {
	text, err := t.files.read(filepath.Join(dir, list))
	if err != nil {
		return err
	}
	for _, c := range controllers {
		if !slices.Contains(strings.Fields(text), c) {
			return fmt.Errorf("%s has no %s (systemd: Delegate=yes; a container: a cgroup namespace of its own, and a tree that it may write)", filepath.Join(dir, list), c)
		}
	}
	return nil
}

// leaf is where the processes of a group go that has children with bounds.
const leaf = "frontdesk"

// open lets a group have children with bounds.
func (t *cgroups) open(dir string) error {
	if t.lacks(dir, "cgroup.subtree_control") == nil {
		return nil
	}
	if err := t.lacks(dir, "cgroup.controllers"); err != nil {
		return err
	}
	in := filepath.Join(dir, leaf)
	for range 10 { // some may be started meanwhile
		err := t.files.write(filepath.Join(dir, "cgroup.subtree_control"), "+"+strings.Join(controllers, " +"))
		if !errors.Is(err, unix.EBUSY) {
			return err
		}
		if err := t.files.mkdir(in); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		text, err := t.files.read(filepath.Join(dir, "cgroup.procs"))
		if err != nil {
			return err
		}
		for pid := range strings.FieldsSeq(text) {
			if err := t.files.write(filepath.Join(in, "cgroup.procs"), pid); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("process %s cannot leave %s: %w", pid, dir, err)
			}
		}
	}
	return fmt.Errorf("%s holds processes that cannot be moved", dir)
}

func (g *cgroup) v1(name string, s Setup) error {
	set := map[string]func(dir string) error{
		"memory": func(dir string) error { return g.bound(dir, "memory.limit_in_bytes", s.Memory) },
		"pids":   func(dir string) error { return g.bound(dir, "pids.max", int64(s.Processes)) },
	}
	if s.CPU > 0 {
		set["cpu"] = func(dir string) error { return g.bound(dir, "cpu.cfs_quota_us", int64(s.CPU*period/100)) }
	}
	for controller, set := range set {
		dir := filepath.Join(g.tree.root, controller, name)
		if err := g.tree.files.mkdir(dir); err != nil {
			return err
		}
		g.dirs = append(g.dirs, dir)
		if err := set(dir); err != nil {
			return err
		}
	}
	return nil
}

// ownGroup is our group in the v2 tree.
func ownGroup() (string, error) {
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(text)) {
		if path, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
			return path, nil
		}
	}
	return "", errors.New("there is no cgroup v2 tree")
}

// bound sets one; 0 means none.
func (g *cgroup) bound(dir, file string, v int64) error {
	if v == 0 {
		return nil
	}
	return g.tree.files.write(filepath.Join(dir, file), strconv.FormatInt(v, 10))
}

// starved reports whether the kernel has killed something in the group for want of memory.
func (g *cgroup) starved() bool {
	if g == nil {
		return false
	}
	for _, dir := range g.dirs {
		for _, file := range []string{"memory.events", "memory.oom_control"} { // of v2, of v1
			text, _ := g.tree.files.read(filepath.Join(dir, file)) // of the other one there is none
			for line := range strings.Lines(text) {
				if n, ok := strings.CutPrefix(strings.TrimSpace(line), "oom_kill "); ok && n != "0" {
					return true
				}
			}
		}
	}
	return false
}

// remove takes the group away; its process must have ended. What it has left behind ends here, where the kernel can do that.
func (g *cgroup) remove() {
	if g == nil {
		return
	}
	for _, dir := range g.dirs {
		_ = g.tree.files.write(filepath.Join(dir, "cgroup.kill"), "1") // Linux 5.14, v2
	}
	g.tree.drop(g.dirs...)
	g.dirs = nil
}

// drop removes groups, and those that could not be removed before. Who was killed is not quite gone for a moment: a group that is busy
// with him goes when the next one is made or removed here, and until then, empty, it costs nothing.
func (t *cgroups) drop(dirs ...string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := append(t.busy, dirs...)
	t.busy = nil
	for _, dir := range all {
		if err := t.files.rmdir(dir); errors.Is(err, unix.EBUSY) {
			t.busy = append(t.busy, dir)
		}
	}
}
