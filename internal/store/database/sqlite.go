package database

import (
	"context"
	"database/sql"
	"errors"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/pressly/goose/v3"
	"modernc.org/sqlite"

	"frontdesk.dev/frontdesk/internal/kit/fault"
)

var sqliteDialect = Dialect{
	Now: "CAST(unixepoch('subsec') * 1000000 AS INTEGER)",
}

// openSQLite makes one writing connection, since SQLite has one writer, and a pool of readers beside it.
func (db *DB) openSQLite(ctx context.Context, migrations fs.FS, readOnly bool) (*goose.Provider, error) {
	path, err := filepath.Abs(db.cfg.Path)
	if err != nil {
		return nil, err
	}
	if err := refuseNetwork(filepath.Dir(path)); err != nil {
		return nil, err
	}
	db.Dialect = sqliteDialect
	if readOnly {
		if _, err := os.Stat(path); err != nil {
			return nil, fault.New(fault.NotFound, "there is no database at "+path, err)
		}
		db.Read, err = sqlitePool(path, readPragmas, "rw", 1)
		if err != nil {
			return nil, err
		}
		db.Write = db.Read
		return provider(goose.DialectSQLite3, db.Read, migrations, "sqlite")
	}
	if err := db.lockFile(ctx, path); err != nil {
		return nil, err
	}
	// SQLite's own choice on Linux, which the driver leaves to us: it keeps all that reading back needs, the size of the file
	// included, and spares the file system's journal the times. Where there is none it stays fsync.
	_, _ = sqlite.Fdatasync(true)
	if err := private(path); err != nil {
		return nil, err
	}
	if db.Write, err = sqlitePool(path, writePragmas, "rw", 1); err != nil {
		return nil, err
	}
	if db.Read, err = sqlitePool(path, readPragmas, "rw", max(4, runtime.GOMAXPROCS(0))); err != nil {
		return nil, err
	}
	return provider(goose.DialectSQLite3, db.Write, migrations, "sqlite")
}

// The order matters: without a busy_timeout first, switching to WAL fails where two open the file at once. An immediate
// transaction waits for the writer; a deferred one that reads before it writes fails.
var (
	writePragmas = url.Values{"_txlock": {"immediate"},
		"_pragma": {"busy_timeout(5000)", "journal_mode(WAL)", "foreign_keys(1)", "synchronous(FULL)", "journal_size_limit(67108864)", "wal_autocheckpoint(16384)"}}
	readPragmas = url.Values{"_pragma": {"busy_timeout(5000)", "query_only(1)"}}
)

func sqlitePool(path string, options url.Values, mode string, size int) (*sql.DB, error) {
	u := url.URL{Scheme: "file", OmitHost: true, Path: path, RawQuery: options.Encode() + "&mode=" + mode}
	pool, err := sql.Open("sqlite", u.String())
	if err != nil {
		return nil, err
	}
	pool.SetMaxOpenConns(size)
	pool.SetMaxIdleConns(size)
	return pool, nil
}

// checkpoint copies what the write-ahead log holds into the database file, so that no commit has to: SQLite's own way stops
// whoever waits for one, several times a second at full work. Most is copied beside the writer. What came meanwhile is copied
// while the writer holds still, so that the next commit begins the log anew. Where this chore does not run, or does not keep up,
// a commit does it after all (wal_autocheckpoint).
func (db *DB) checkpoint(ctx context.Context) error {
	for _, pool := range []*sql.DB{db.Read, db.Write} {
		var busy, pages, copied int64
		if err := pool.QueryRowContext(ctx, "PRAGMA wal_checkpoint(PASSIVE)").Scan(&busy, &pages, &copied); err != nil {
			return Fault(err)
		}
		if pages < checkpointPages {
			return nil
		}
	}
	return nil
}

// private makes the file if there is none, and closes it to everybody but us. What SQLite puts beside it gets its mode.
func private(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err == nil {
		return f.Close()
	}
	if errors.Is(err, fs.ErrExist) {
		err = os.Chmod(path, 0o600)
	}
	if err != nil {
		return fault.New(fault.Invalid, "the database file "+path+" cannot be used: "+reason(err), err)
	}
	return nil
}

func reason(err error) string {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return e.Err.Error()
	}
	return "see the log"
}

// lockFile holds the lock that keeps a second server from the database, until Close or the end of the process, however it
// ends. It is SQLite's own lock, on an empty database beside the real one, so it holds wherever SQLite's locks do.
func (db *DB) lockFile(ctx context.Context, path string) error {
	path += ".lock"
	if err := private(path); err != nil {
		return err
	}
	pool, err := sqlitePool(path, url.Values{"_txlock": {"exclusive"}, "_pragma": {"busy_timeout(1000)"}}, "rw", 1)
	if err != nil {
		return err
	}
	db.held = append(db.held, pool.Close)
	tx, err := pool.BeginTx(context.WithoutCancel(ctx), nil)
	if e, ok := errors.AsType[*sqlite.Error](err); ok && e.Code()&0xff == liteBusy {
		return fault.New(fault.Conflict, "another Frontdesk has this database open: stop it first, or use PostgreSQL for more than one replica", err)
	}
	if err != nil {
		return Fault(err)
	}
	db.held = append(db.held, tx.Rollback)
	return nil
}

// networkTypes are file systems on which SQLite's locks and shared memory cannot be trusted (sqlite.org/howtocorrupt.html,
// section 2.1), as Linux names them.
var networkTypes = []string{"nfs", "nfs4", "cifs", "smb3", "smbfs", "ncpfs", "afs", "ceph", "lustre", "glusterfs", "beegfs", "davfs",
	"fuse.sshfs", "fuse.glusterfs", "fuse.ceph-fuse", "fuse.s3fs", "fuse.rclone", "fuse.davfs2", "fuse.gcsfuse"}

// refuseNetwork refuses a folder on a network file system, where Linux tells us. Elsewhere it knows nothing, and says nothing.
func refuseNetwork(dir string) error {
	if real, err := filepath.EvalSymlinks(dir); err == nil {
		dir = real
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil
	}
	kind := mountType(string(mounts), dir)
	for _, n := range networkTypes {
		if kind == n {
			return fault.New(fault.Invalid, "the database's folder is on a network file system ("+kind+"), where SQLite loses data: use a local disk, or PostgreSQL", nil)
		}
	}
	return nil
}

var mountEscapes = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)

// mountType finds the type of the file system that holds dir in the text of mountinfo (proc_pid_mountinfo(5)); "" if none.
// Of mounts at the same place the last one hides the others.
func mountType(mountinfo, dir string) string {
	kind, longest := "", -1
	for line := range strings.Lines(mountinfo) {
		before, after, ok := strings.Cut(line, " - ")
		left, right := strings.Fields(before), strings.Fields(after)
		if !ok || len(left) < 5 || len(right) < 1 {
			continue
		}
		point := mountEscapes.Replace(left[4])
		under := point == "/" || dir == point || strings.HasPrefix(dir, point+"/")
		if under && len(point) >= longest {
			kind, longest = right[0], len(point)
		}
	}
	return kind
}
