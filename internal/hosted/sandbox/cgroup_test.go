//go:build linux

package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// v2 is a cgroup v2 tree as the kernel documents it (Documentation/admin-guide/cgroup-v2.rst), where there is none: which files a group has,
// what may be written to them, and the rule of no internal processes.
type v2 struct {
	groups map[string]*group
	ours   string // groups at and below it may be written, as systemd's Delegate= gives them
	noSwap bool
}

type group struct {
	given, on []string // controllers
	procs     []string
	set       map[string]string
	real      bool // it is the root of the machine's tree
}

func (v *v2) at(path string) (*group, string, error) {
	dir, file := filepath.Split(path)
	g := v.groups[filepath.Clean(dir)]
	if g == nil {
		return nil, "", fs.ErrNotExist
	}
	has := []string{"cgroup.controllers", "cgroup.subtree_control", "cgroup.procs", "cgroup.kill"}
	if !g.real && slices.Contains(g.given, "memory") {
		has = append(has, "memory.max", "memory.oom.group", "memory.events")
		if !v.noSwap {
			has = append(has, "memory.swap.max")
		}
	}
	if !g.real && slices.Contains(g.given, "pids") {
		has = append(has, "pids.max")
	}
	if !g.real && slices.Contains(g.given, "cpu") {
		has = append(has, "cpu.max")
	}
	if !slices.Contains(has, file) {
		return nil, "", fs.ErrNotExist
	}
	return g, file, nil
}

func (v *v2) read(path string) (string, error) {
	g, file, err := v.at(path)
	if err != nil {
		return "", err
	}
	switch file {
	case "cgroup.controllers":
		return strings.Join(g.given, " ") + "\n", nil
	case "cgroup.subtree_control":
		return strings.Join(g.on, " ") + "\n", nil
	case "cgroup.procs":
		return strings.Join(g.procs, "\n"), nil
	}
	return g.set[file], nil
}

func (v *v2) write(path, text string) error {
	g, file, err := v.at(path)
	if err != nil {
		return err
	}
	if !strings.HasPrefix(path, v.ours+"/") {
		return unix.EACCES
	}
	switch file {
	case "cgroup.subtree_control":
		if len(g.procs) > 0 && !g.real {
			return unix.EBUSY
		}
		for word := range strings.FieldsSeq(text) {
			c := strings.TrimPrefix(word, "+")
			if !slices.Contains(g.given, c) {
				return unix.ENOENT
			}
			if !slices.Contains(g.on, c) {
				g.on = append(g.on, c)
			}
		}
		for p, child := range v.groups {
			if filepath.Dir(p) == filepath.Dir(path) && p != "/" {
				child.given = g.on
			}
		}
	case "cgroup.procs":
		if len(g.on) > 0 && !g.real {
			return unix.EBUSY
		}
		for _, other := range v.groups {
			other.procs = slices.DeleteFunc(other.procs, func(p string) bool { return p == text })
		}
		if text == "404" { // it has ended since it was listed
			return unix.ESRCH
		}
		g.procs = append(g.procs, text)
	case "cgroup.kill":
		if text != "1" {
			return unix.EINVAL
		}
		g.procs = nil
	case "cgroup.controllers", "memory.events":
		return unix.EACCES
	default:
		first, _, two := strings.Cut(text, " ")
		if _, err := strconv.ParseInt(first, 10, 64); err != nil && text != "max" || two != (file == "cpu.max") {
			return unix.EINVAL
		}
		g.set[file] = text
	}
	return nil
}

func (v *v2) mkdir(path string) error {
	up := v.groups[filepath.Dir(path)]
	switch {
	case up == nil:
		return fs.ErrNotExist
	case !strings.HasPrefix(path, v.ours+"/"):
		return unix.EACCES
	case v.groups[path] != nil:
		return fs.ErrExist
	}
	v.groups[path] = &group{given: up.on, set: map[string]string{}}
	return nil
}

func (v *v2) rmdir(path string) error {
	g := v.groups[path]
	if g == nil {
		return fs.ErrNotExist
	}
	if len(g.procs) > 0 {
		return unix.EBUSY
	}
	delete(v.groups, path)
	return nil
}

// TestVersionTwo is every place in which a Frontdesk finds itself in a tree of version 2.
func TestVersionTwo(t *testing.T) {
	all := []string{"cpu", "memory", "pids"}
	service := func(given []string, procs ...string) map[string]*group {
		return map[string]*group{"/cg": {given: all, on: all, real: true}, "/cg/system.slice": {given: all, on: given}, "/cg/system.slice/frontdesk.service": {given: given, procs: procs}}
	}
	for name, c := range map[string]struct {
		tree v2
		own  string
		base string // below which groups are made; "" = none are
		why  string
		left []string // in our own group
	}{
		"systemd, delegated":        {tree: v2{groups: service(all, "7"), ours: "/cg/system.slice/frontdesk.service"}, own: "/system.slice/frontdesk.service", base: "/cg/system.slice/frontdesk.service"},
		"one of whose is just gone": {tree: v2{groups: service(all, "7", "404"), ours: "/cg/system.slice/frontdesk.service"}, own: "/system.slice/frontdesk.service", base: "/cg/system.slice/frontdesk.service"},
		"without swap":              {tree: v2{groups: service(all, "7"), ours: "/cg/system.slice/frontdesk.service", noSwap: true}, own: "/system.slice/frontdesk.service", base: "/cg/system.slice/frontdesk.service"},
		"systemd, not delegated":    {tree: v2{groups: service(all, "7"), ours: "/nothing"}, own: "/system.slice/frontdesk.service", why: "permission denied", left: []string{"7"}},
		"no controllers":            {tree: v2{groups: service([]string{"cpu"}, "7"), ours: "/cg/system.slice/frontdesk.service"}, own: "/system.slice/frontdesk.service", why: "cgroup.controllers has no memory (systemd: Delegate=yes;", left: []string{"7"}},
		"a container's own root":    {tree: v2{groups: map[string]*group{"/cg": {given: all, procs: []string{"1", "7"}}}, ours: "/cg"}, own: "/", base: "/cg"},
		"a container's, read-only":  {tree: v2{groups: map[string]*group{"/cg": {given: all, procs: []string{"1", "7"}}}, ours: "/nothing"}, own: "/", why: "permission denied", left: []string{"1", "7"}},
		"the machine's root":        {tree: v2{groups: map[string]*group{"/cg": {given: all, procs: []string{"1", "7"}, real: true}}, ours: "/cg"}, own: "/", base: "/cg", left: []string{"1", "7"}},
		"prepared by somebody":      {tree: v2{groups: map[string]*group{"/cg": {given: all, on: all}, "/cg/app": {given: all, procs: []string{"7"}}}, ours: "/cg"}, own: "/app", base: "/cg/app"},
		"beside us":                 {tree: v2{groups: map[string]*group{"/cg": {given: all, on: all}, "/cg/app": {given: nil, procs: []string{"7"}}}, ours: "/cg"}, own: "/app", base: "/cg", left: []string{"7"}},
		"without cpu":               {tree: v2{groups: service([]string{"memory", "pids"}, "7"), ours: "/cg/system.slice/frontdesk.service"}, own: "/system.slice/frontdesk.service", why: "processor time cannot be bounded"},
		"version one":               {tree: v2{groups: map[string]*group{"/else": {}}, ours: "/else"}, own: "/", why: "v1: "},
	} {
		t.Run(name, func(t *testing.T) {
			for _, g := range c.tree.groups {
				g.set = map[string]string{}
			}
			here := &cgroups{files: &c.tree, root: "/cg", own: func() (string, error) { return c.own, nil }}
			var held []*cgroup
			for _, pid := range []int{100, 101} {
				g, err := here.hold(pid, Setup{Memory: 1 << 20, Processes: 9, CPU: 50})
				if c.base == "" {
					if err == nil || !strings.Contains(err.Error(), c.why) {
						t.Errorf("got %v", err)
					}
					continue
				}
				if err != nil {
					t.Fatal(err)
				}
				held = append(held, g)
				made := c.tree.groups[g.dirs[0]]
				want := map[string]string{"memory.max": "1048576", "memory.oom.group": "1", "pids.max": "9", "cpu.max": "50000 100000"}
				if !c.tree.noSwap {
					want["memory.swap.max"] = "0"
				}
				if filepath.Dir(g.dirs[0]) != c.base || !slices.Equal(made.procs, []string{strconv.Itoa(pid)}) || len(made.set) != len(want) {
					t.Errorf("%s holds %v with %v", g.dirs[0], made.procs, made.set)
				}
				for file, text := range want {
					if made.set[file] != text {
						t.Errorf("%s is %q", file, made.set[file])
					}
				}
			}
			if own := c.tree.groups[filepath.Join("/cg", c.own)]; own != nil && !slices.Equal(own.procs, c.left) && len(own.procs)+len(c.left) > 0 {
				t.Errorf("our own group holds %v, want %v", own.procs, c.left)
			}
			if in := c.tree.groups[filepath.Join(c.base, leaf)]; c.left == nil && c.base != "" && (in == nil || !slices.Contains(in.procs, "7")) {
				t.Errorf("we are nowhere: %+v", in)
			}
			for i, g := range held {
				dir := g.dirs[0]
				c.tree.groups[dir].set["memory.events"] = "low 0\noom 1\noom_kill " + strconv.Itoa(i) + "\noom_group_kill 0\n"
				if g.starved() != (i == 1) {
					t.Errorf("starved: %v", g.starved())
				}
				if g.remove(); c.tree.groups[dir] != nil {
					t.Errorf("%s stays", dir)
				}
			}
		})
	}
}

// TestGroupsOfTheDead: what a Frontdesk that was killed has left goes away, and of others nothing.
func TestGroupsOfTheDead(t *testing.T) {
	p := exec.Command("/bin/true")
	if err := p.Run(); err != nil {
		t.Fatal(err)
	}
	here := &cgroups{files: kernelFiles{}, root: t.TempDir(), own: func() (string, error) { return "", errors.New("none") }}
	names := []string{fmt.Sprintf(groupName, p.Process.Pid, 3), fmt.Sprintf(groupName, os.Getpid(), 3), "frontdesk-x-1", "other"}
	for _, name := range names {
		if err := os.MkdirAll(filepath.Join(here.root, "pids", name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	here.sweep()
	left, err := os.ReadDir(filepath.Join(here.root, "pids"))
	if err != nil || len(left) != 3 || left[0].Name() == names[0] || left[1].Name() == names[0] {
		t.Errorf("left is %v, %v", left, err)
	}
}

// TestBusyGroups: a group that is busy with who was killed a moment ago goes with the next one, and nobody waits for it.
func TestBusyGroups(t *testing.T) {
	tree := &v2{groups: map[string]*group{"/cg/first": {procs: []string{"7"}}, "/cg/second": {}, "/cg/third": {procs: []string{"8"}}}}
	here := &cgroups{files: tree}
	here.drop("/cg/first")
	if tree.groups["/cg/first"] == nil {
		t.Error("a group went with what it held")
	}
	tree.groups["/cg/first"].procs = nil
	here.drop("/cg/third", "/cg/second", "/cg/gone")
	if len(tree.groups) != 1 || !slices.Equal(here.busy, []string{"/cg/third"}) {
		t.Errorf("there are %d groups, and busy are %v; want the third alone", len(tree.groups), here.busy)
	}
	tree.groups["/cg/third"].procs = nil
	if here.drop(); len(tree.groups) != 0 || len(here.busy) != 0 {
		t.Errorf("there are %d groups, and busy are %v", len(tree.groups), here.busy)
	}
}

// TestVersionTwoOfThisKernel tries the moves on the kernel's own tree, with a controller that a machine of version 1 leaves to version 2.
func TestVersionTwoOfThisKernel(t *testing.T) {
	root, given := "", []string(nil)
	for _, dir := range []string{cgroupRoot, cgroupRoot + "/unified"} {
		if text, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers")); err == nil {
			root, given = dir, strings.Fields(string(text))
		}
	}
	place := filepath.Join(root, "frontdesk-test-"+strconv.Itoa(os.Getpid()))
	if len(given) == 0 || os.Mkdir(place, 0o755) != nil {
		t.Log("not tried: there is no tree of version 2 here that has a controller and may be written")
		return
	}
	had := controllers
	controllers = given[:1]
	defer func() { controllers = had }()
	here := &cgroups{files: kernelFiles{}, root: place, own: func() (string, error) { return "/", nil }}
	_ = here.files.write(filepath.Join(root, "cgroup.subtree_control"), "+"+given[0]) // it may be so already
	p := exec.Command("/bin/sleep", "600")
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = p.Process.Kill() }() // killed already, where all is well
	if err := here.files.write(filepath.Join(place, "cgroup.procs"), strconv.Itoa(p.Process.Pid)); err != nil {
		t.Fatal(err)
	}
	if err := here.open(place); err != nil {
		t.Error(err)
	}
	if text, err := here.files.read(filepath.Join(place, leaf, "cgroup.procs")); err != nil || strings.TrimSpace(text) != strconv.Itoa(p.Process.Pid) {
		t.Errorf("the process is not where it was to go: %q %v", text, err)
	}
	if err := here.files.write(filepath.Join(place, "cgroup.procs"), strconv.Itoa(p.Process.Pid)); !errors.Is(err, unix.EBUSY) {
		t.Errorf("the kernel lets it back: %v", err)
	}
	(&cgroup{tree: here, dirs: []string{filepath.Join(place, leaf), place}}).remove()
	if err := p.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("the process ended: %v", err)
	}
	for end := time.Now().Add(10 * time.Second); len(here.busy) > 0 && time.Now().Before(end); time.Sleep(time.Millisecond) {
		here.drop()
	}
	if _, err := os.Stat(place); err == nil {
		t.Error("the group stays")
	}
}
