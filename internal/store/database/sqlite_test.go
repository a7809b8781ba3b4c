package database

import (
	"path/filepath"
	"runtime"
	"testing"
	"testing/fstest"

	"modernc.org/sqlite"

	"frontdesk.dev/frontdesk/internal/kit/fault"
)

// things are the tables of these tests: one.
var things = fstest.MapFS{"migrations/sqlite/00001_things.sql": {Data: []byte("-- +goose Up\nCREATE TABLE things (n INTEGER PRIMARY KEY, body BLOB NOT NULL);\n")}}

func openFile(t *testing.T, path string) *DB {
	t.Helper()
	db, err := Open(t.Context(), Config{Path: path}, things, Newest)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

func TestSQLitePragmas(t *testing.T) {
	db := openFile(t, filepath.Join(t.TempDir(), "a b?#%.db")) // a path is no URL
	for pragma, want := range map[string]string{"synchronous": "2", "journal_mode": "wal", "foreign_keys": "1"} {
		var got string
		if err := db.Write.QueryRow("PRAGMA " + pragma).Scan(&got); err != nil || got != want {
			t.Errorf("%s is %q (%v), want %q", pragma, got, err, want)
		}
	}
	if _, err := db.Read.Exec("DELETE FROM things"); err == nil {
		t.Error("a reader can write")
	}
	if runtime.GOOS == "linux" && !sqlite.FdatasyncEnabled() {
		t.Error("commits sync the file's times too")
	}
}

// TestSQLiteCheckpoint: what the chore wrote back need not be written back by a commit, and the log begins anew.
func TestSQLiteCheckpoint(t *testing.T) {
	db := openFile(t, filepath.Join(t.TempDir(), "x.db"))
	pages := func() (inLog, copied int) {
		t.Helper()
		var busy int
		if err := db.Read.QueryRow("PRAGMA wal_checkpoint(NOOP)").Scan(&busy, &inLog, &copied); err != nil {
			t.Fatal(err)
		}
		return inLog, copied
	}
	n := 0
	add := func(more int) {
		t.Helper()
		for range more {
			n++
			if _, err := Exec(t.Context(), db.Write, "INSERT INTO things VALUES ($1, $2)", n, make([]byte, 2000)); err != nil {
				t.Fatal(err)
			}
		}
	}
	for n < 3*checkpointPages {
		add(200)
	}
	if in, copied := pages(); in < 2*checkpointPages || copied != 0 {
		t.Fatalf("%d pages in the log, %d copied: commits write back", in, copied)
	}
	if err := db.checkpoint(t.Context()); err != nil {
		t.Fatal(err)
	}
	if in, copied := pages(); copied != in {
		t.Errorf("%d of %d pages copied", copied, in)
	}
	add(1)
	if in, _ := pages(); in > 100 {
		t.Errorf("the log went on, at %d pages", in)
	}
	if there, err := List(t.Context(), db.Read, Value[int], "SELECT count(*) FROM things"); err != nil || there[0] != n {
		t.Errorf("%v rows are there (%v), want %d", there, err, n)
	}
}

// TestAFullDisk: SQLite says it by its own limit as the system would.
func TestAFullDisk(t *testing.T) {
	db := openFile(t, filepath.Join(t.TempDir(), "x.db"))
	if _, err := db.Write.Exec("PRAGMA max_page_count = 1"); err != nil {
		t.Fatal(err)
	}
	var err error
	for i := 0; err == nil && i < 10_000; i++ {
		_, err = Exec(t.Context(), db.Write, "INSERT INTO things VALUES ($1, $2)", i, make([]byte, 100))
	}
	if fault.KindOf(err) != fault.Unavailable || fault.Message(err) != full {
		t.Errorf("got %v, want that the disk is full", err)
	}
	if err := db.Ping(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestMountType(t *testing.T) {
	const mounts = `22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 0:26 / /mnt rw - nfs4 server:/export rw,vers=4.2
31 30 0:27 / /mnt/with\040space rw master:1 - fuse.sshfs me@host:/ rw
32 22 0:28 / /over rw - cifs //host/share rw
33 22 0:29 / /over rw - tmpfs tmpfs rw
a line that is none
34 22 - short
`
	for dir, want := range map[string]string{"/": "ext4", "/home/x": "ext4", "/mnt": "nfs4", "/mnt/a/b": "nfs4", "/mntx": "ext4", "/mnt/with space/db": "fuse.sshfs", "/over/x": "tmpfs"} {
		if got := mountType(mounts, dir); got != want {
			t.Errorf("%s is on %q, want %q", dir, got, want)
		}
	}
	if got := mountType("", "/"); got != "" {
		t.Errorf("nothing gave %q", got)
	}
}

func FuzzMountType(f *testing.F) {
	f.Add("22 1 254:0 / / rw - ext4 /dev/vda rw\n", "/x")
	f.Add("22 1 254:0 / /a\\040b rw shared:1 - nfs x rw\n", "/a b/c")
	f.Fuzz(func(t *testing.T, mounts, dir string) {
		_ = mountType(mounts, dir)
	})
}
