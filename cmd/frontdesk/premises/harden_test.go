//go:build linux

package premises

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestA171_A173_harden breaks when harden leaves out either of its calls.
func TestA171_A173_harden(t *testing.T) {
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{Cur: 1 << 20, Max: unix.RLIM_INFINITY}); err != nil {
		t.Log("core files are off already: ", err)
	}
	if err := Harden(); err != nil {
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

// TestDataDirIsItsOwnersAlone: also where somebody made it for us, as a container's volume is.
func TestDataDirIsItsOwnersAlone(t *testing.T) {
	for name, c := range map[string]struct {
		before os.FileMode // 0: it is not there
		file   bool
		want   os.FileMode
	}{"not there": {0, false, 0o700}, "a fresh volume": {0o755, false, 0o700}, "in use": {0o755, true, 0o755}} {
		dir := filepath.Join(t.TempDir(), "data")
		if c.before != 0 {
			if err := os.Mkdir(dir, c.before); err != nil {
				t.Fatal(err)
			}
		}
		if c.file {
			if err := os.WriteFile(filepath.Join(dir, "somebody's"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := MakeDataDir(dir); err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != c.want {
			t.Errorf("%s: mode %v, want %v: %v", name, info.Mode(), c.want, err)
		}
	}
}
