//go:build linux

package main

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// harden keeps what is in memory there: no core files, and no reading of /proc/<pid>/environ or mem by other processes of the
// same account. Where Frontdesk runs servers itself, the second is left out: what cannot be dumped cannot map the users of the
// namespaces that it makes. Their walls are the sandbox's.
func harden(hosts bool) error {
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("core files could not be turned off: %w", err)
	}
	if hosts {
		return nil
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("the process's memory could not be closed to others: %w", err)
	}
	return nil
}
