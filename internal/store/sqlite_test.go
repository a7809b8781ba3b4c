package store

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"modernc.org/sqlite"

	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
)

func openFile(t *testing.T, path string) *DB {
	t.Helper()
	db, err := Open(t.Context(), Config{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() }) // some tests close it themselves
	return db
}

func TestSQLitePragmas(t *testing.T) {
	db := openFile(t, filepath.Join(t.TempDir(), "a b?#%.db")) // a path is no URL
	for pragma, want := range map[string]string{"synchronous": "2", "journal_mode": "wal", "foreign_keys": "1"} {
		var got string
		if err := db.write.QueryRow("PRAGMA " + pragma).Scan(&got); err != nil || got != want {
			t.Errorf("%s is %q (%v), want %q", pragma, got, err, want)
		}
	}
	if _, err := db.read.Exec("DELETE FROM users"); err == nil {
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
		if err := db.read.QueryRow("PRAGMA wal_checkpoint(NOOP)").Scan(&busy, &inLog, &copied); err != nil {
			t.Fatal(err)
		}
		return inLog, copied
	}
	seq := int64(0)
	add := func(n int) {
		t.Helper()
		rows := make([]audit.Row, n)
		for i := range rows {
			seq++
			rows[i] = audit.Row{Writer: "00000000000000aa", Seq: seq, Tenant: "default", Kind: audit.KindEvent, Time: time.UnixMicro(seq), Record: make([]byte, 2000), Hash: make([]byte, 32)}
		}
		if err := db.Append(t.Context(), rows); err != nil {
			t.Fatal(err)
		}
	}
	for seq < 3*checkpointPages {
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
	n := int64(0)
	if err := db.Chain(t.Context(), nil, func(r audit.Row) error { n = r.Seq; return nil }); err != nil || n != seq {
		t.Errorf("the chain ends at %d (%v), want %d", n, err, seq)
	}
}

func TestSQLiteFileIsOurs(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0))
	dir := t.TempDir()
	old := filepath.Join(dir, "old.db")
	if err := os.WriteFile(old, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{old, filepath.Join(dir, "new.db")} {
		db := openFile(t, path)
		if _, err := db.EnsureUser(t.Context(), identity.User{Tenant: "default", IDP: "corp", Subject: "a"}); err != nil {
			t.Fatal(err)
		}
	}
	files := 0
	if err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		files++
		info, err := d.Info()
		if err == nil && info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", d.Name(), info.Mode())
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if files < 4 {
		t.Errorf("only %d files were looked at", files)
	}
}

func TestSQLiteOneServer(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.db")
	db := openFile(t, path)
	if _, err := Open(t.Context(), Config{Path: path}); fault.KindOf(err) != fault.Conflict {
		t.Errorf("a second one got %v", err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	openFile(t, path)
}

func TestSQLiteReader(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.db")
	if _, err := OpenReader(t.Context(), Config{Path: path}); fault.KindOf(err) != fault.NotFound {
		t.Errorf("a reader of nothing got %v", err)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("a reader made a database")
	}
	db := openFile(t, path)
	u, err := db.EnsureUser(t.Context(), identity.User{Tenant: "default", IDP: "corp", Subject: "a"})
	if err != nil {
		t.Fatal(err)
	}
	for _, when := range []string{"beside a server", "without one"} {
		r, err := OpenReader(t.Context(), Config{Path: path})
		if err != nil {
			t.Fatalf("%s: %v", when, err)
		}
		if _, err := r.User(t.Context(), "default", u.ID); err != nil {
			t.Errorf("%s: %v", when, err)
		}
		if _, err := r.EnsureUser(t.Context(), identity.User{Tenant: "default", IDP: "corp", Subject: "b"}); err == nil {
			t.Errorf("%s: it writes", when)
		}
		for _, c := range []*DB{r, db} {
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}

func TestAFutureDatabaseIsLeftAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.db")
	db := openFile(t, path)
	if _, err := db.write.Exec("INSERT INTO goose_db_version (version_id, is_applied) VALUES (99, 1)"); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	openFile(t, path)
}

func TestOneOfPathAndDSN(t *testing.T) {
	for _, cfg := range []Config{{}, {Path: "x", DSN: "postgres://"}, {DSN: "mysql://x"}, {DSN: "postgres://[::1"}, {Path: filepath.Join(t.TempDir(), "no such folder", "x")}} {
		if _, err := Open(t.Context(), cfg); fault.KindOf(err) != fault.Invalid {
			t.Errorf("%+v gave %v, want invalid", cfg, err)
		}
	}
}

// TestAFullDisk: SQLite says it by its own limit as the system would.
func TestAFullDisk(t *testing.T) {
	db := openFile(t, filepath.Join(t.TempDir(), "x.db"))
	if _, err := db.write.Exec("PRAGMA max_page_count = 1"); err != nil {
		t.Fatal(err)
	}
	var err error
	for i := 0; err == nil && i < 10_000; i++ {
		_, err = db.NameID(t.Context(), "default", "user", fmt.Sprintf("%d%0100d", i, i))
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
