//go:build linux

package main

import (
	"testing"

	"golang.org/x/sys/unix"
)

// TestA171_A173_harden breaks when harden leaves out either of its calls.
func TestA171_A173_harden(t *testing.T) {
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{Cur: 1 << 20, Max: unix.RLIM_INFINITY}); err != nil {
		t.Log("core files are off already: ", err)
	}
	if err := harden(); err != nil {
		t.Fatal(err)
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_CORE, &limit); err != nil || limit.Cur != 0 || limit.Max != 0 {
		t.Errorf("a core may be left: %+v %v", limit, err)
	}
	if dumpable, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0); err != nil || dumpable != 0 {
		t.Errorf("the process can be dumped: %d %v", dumpable, err)
	}
}
