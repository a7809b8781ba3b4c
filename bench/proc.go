package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// cpu is how long a process has run on cores, of all its threads, to the nanosecond where the kernel tells.
func cpu(pid int) (time.Duration, error) {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil || len(threads) == 0 {
		return 0, fmt.Errorf("process %d is gone, or this is no Linux", pid)
	}
	var sum time.Duration
	for _, t := range threads {
		b, err := os.ReadFile(t)
		if err != nil {
			continue // a thread that ended meanwhile; the runtime keeps nearly all of its own
		}
		first, _, _ := strings.Cut(string(b), " ")
		n, err := strconv.ParseInt(first, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", t, err)
		}
		sum += time.Duration(n)
	}
	return sum, nil
}

// resident is the memory of a process that is in RAM, in bytes.
func resident(pid int) (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kb, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(v), " kB"), 10, 64)
			return kb << 10, err
		}
	}
	return 0, fmt.Errorf("process %d has no VmRSS", pid)
}

// sumOf adds what is known of several processes.
func sumOf[T int64 | time.Duration](pids []int, of func(int) (T, error)) (T, error) {
	var sum T
	for _, pid := range pids {
		v, err := of(pid)
		if err != nil {
			return 0, err
		}
		sum += v
	}
	return sum, nil
}

// spent is all CPU time of this machine that was not idle, by its clock ticks, and what this process took of it.
func spent() (machine, self time.Duration, err error) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, 0, err
	}
	first, _, _ := strings.Cut(string(b), "\n")
	for i, f := range strings.Fields(first) {
		n, perr := strconv.ParseInt(f, 10, 64)
		if i == 0 || i == 4 || i == 5 || i > 8 || perr != nil { // the name, idle, iowait, and guests, who stand in user already
			continue
		}
		machine += time.Duration(n) * 10 * time.Millisecond // USER_HZ is 100 on every Linux that Go runs on
	}
	self, err = cpu(os.Getpid())
	return machine, self, err
}
