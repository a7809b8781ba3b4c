package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
)

// cgroup bounds a process from outside: one directory in the v2 tree, or one in each v1 controller's.
type cgroup struct{ dirs []string }

const cgroupRoot = "/sys/fs/cgroup"

var groups atomic.Int64

// newCgroup puts a process, which must not have done anything yet, under its bounds. Without bounds there is no group.
func newCgroup(pid int, s Setup) (*cgroup, error) {
	if s.Memory == 0 && s.Processes == 0 {
		return nil, errors.New("no bounds are set")
	}
	g := &cgroup{}
	name := fmt.Sprintf("frontdesk-%d-%d", os.Getpid(), groups.Add(1))
	err := g.v2(name, s)
	if err != nil {
		g.remove()
		if v1 := g.v1(name, s); v1 != nil {
			g.remove()
			return nil, fmt.Errorf("no cgroup may be made here: %w", errors.Join(err, v1))
		}
	}
	for _, dir := range g.dirs {
		if err := write(dir, "cgroup.procs", pid); err != nil {
			g.remove()
			return nil, fmt.Errorf("a process cannot be put under its bounds: %w", err)
		}
	}
	return g, nil
}

// v2 makes a group beside our own: a group that holds processes cannot have bounded children (cgroup v2, no internal processes).
func (g *cgroup) v2(name string, s Setup) error {
	own, err := ownGroup("0::")
	if err != nil {
		return err
	}
	dir := filepath.Join(cgroupRoot, filepath.Dir(own), name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	g.dirs = append(g.dirs, dir)
	return errors.Join(write(dir, "memory.max", s.Memory), write(dir, "memory.swap.max", 0), write(dir, "pids.max", s.Processes))
}

func (g *cgroup) v1(name string, s Setup) error {
	for controller, set := range map[string]func(dir string) error{
		"memory": func(dir string) error { return write(dir, "memory.limit_in_bytes", s.Memory) },
		"pids":   func(dir string) error { return write(dir, "pids.max", s.Processes) },
	} {
		dir := filepath.Join(cgroupRoot, controller, name)
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
		g.dirs = append(g.dirs, dir)
		if err := set(dir); err != nil {
			return err
		}
	}
	return nil
}

func ownGroup(prefix string) (string, error) {
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(text)) {
		if path, ok := strings.CutPrefix(strings.TrimSpace(line), prefix); ok {
			return path, nil
		}
	}
	return "", errors.New("there is no cgroup v2 tree")
}

// write sets a bound; 0 means none, but for what is forbidden altogether.
func write[N int | int64](dir, file string, v N) error {
	if v == 0 && file != "memory.swap.max" {
		return nil
	}
	// Never created: where this is no cgroup after all, a file of that name would bound nothing.
	f, err := os.OpenFile(filepath.Join(dir, file), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(strconv.FormatInt(int64(v), 10))
	return errors.Join(err, f.Close())
}

// starved reports whether the kernel has killed something in the group for want of memory.
func (g *cgroup) starved() bool {
	if g == nil {
		return false
	}
	for _, dir := range g.dirs {
		for _, file := range []string{"memory.events", "memory.oom_control"} { // of v2, of v1
			text, _ := os.ReadFile(filepath.Join(dir, file)) // of the other one there is none
			for line := range strings.Lines(string(text)) {
				if n, ok := strings.CutPrefix(strings.TrimSpace(line), "oom_kill "); ok && n != "0" {
					return true
				}
			}
		}
	}
	return false
}

// remove takes the group away; its process must have ended.
func (g *cgroup) remove() {
	if g == nil {
		return
	}
	for _, dir := range g.dirs {
		_ = os.Remove(dir) // an empty group that stays costs nothing
	}
	g.dirs = nil
}
