//go:build linux

package premises

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Harden keeps what is in memory there: no core files, and no reading of /proc/<pid>/environ or mem by other processes of the
// same account (but for the milliseconds in which a hosted server is started: package sandbox).
func Harden() error {
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("core files could not be turned off: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("the process's memory could not be closed to others: %w", err)
	}
	return nil
}
