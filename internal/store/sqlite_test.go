package store

import (
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

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
