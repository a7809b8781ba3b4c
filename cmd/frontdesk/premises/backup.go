package premises

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"frontdesk.dev/frontdesk/cmd/frontdesk/config"
	"frontdesk.dev/frontdesk/cmd/frontdesk/console"
	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/internal/exchange/refresh"
	"frontdesk.dev/frontdesk/internal/store"
	"frontdesk.dev/frontdesk/internal/store/backup"
	"frontdesk.dev/frontdesk/internal/store/whole"
	"frontdesk.dev/frontdesk/internal/vault/keyring"
)

func backupCommand(version string) *cobra.Command {
	c := &cobra.Command{Use: "backup FILE", Short: "write the whole database into one sealed file, while the server runs or not",
		Long: `Writes the database as it is at one moment into FILE (- is standard output), sealed under a key that the deployment's key
provider wraps. The file says nothing without that provider, and does not hold its key: keep vault.key, or the right to use the
key service, apart from it.`,
		Args: cobra.ExactArgs(1), RunE: func(c *cobra.Command, args []string) error {
			p, err := openPremises(c)
			if err != nil {
				return err
			}
			db, err := store.OpenReader(c.Context(), p.store)
			if err != nil {
				return err
			}
			defer func() { _ = db.Close() }() // nothing was written to it
			m := backup.Manifest{Made: time.Now().UTC(), By: version, Database: "sqlite"}
			if p.store.DSN != "" {
				m.Database = "postgres"
			}
			var t backup.Trailer
			tell, end := telling(c)
			size, err := intoFile(c, args[0], func(w io.Writer) (err error) {
				t, err = backup.Write(c.Context(), db, p.wrap, w, m, tell)
				return err
			})
			end()
			if err != nil || args[0] == "-" {
				return err
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "%s: %s of %s, %d bytes, as of %s\nIt opens only with %s, which is not in it.\n", args[0], console.Plural(int(t.Total()), "row", "rows"),
				console.Plural(len(t.Rows), "table", "tables"), size, m.Made.Format(time.RFC3339), p.cfg.KeyPlace())
			return err
		}}
	c.Flags().String("config", "frontdesk.yaml", "config file of the deployment")
	return c
}

func restoreCommand() *cobra.Command {
	var moved, check bool
	c := &cobra.Command{Use: "restore FILE", Short: "fill an empty database from a backup, all of it or nothing",
		Long: `Fills the empty database that the config names, SQLite or PostgreSQL, from a backup of either (- is standard input). The
deployment's key provider must be the one under which the backup was made: put vault.key in its place first.

Every connection that can be renewed is then tried before it is trusted, since its vendor may have given out newer tokens; everybody
signs in again; and the audit log goes on with a record of the gap.`,
		Args: cobra.ExactArgs(1), RunE: func(c *cobra.Command, args []string) error {
			p, err := openPremises(c)
			if err != nil {
				return err
			}
			from := c.InOrStdin()
			if args[0] != "-" {
				f, err := os.Open(args[0])
				if err != nil {
					return err
				}
				defer func() { _ = f.Close() }() // it was only read
				from = f
			}
			if check {
				return checkBackup(c, p, from)
			}
			if err := os.MkdirAll(p.cfg.DataDir, 0o700); err != nil {
				return err
			}
			tell, end := telling(c)
			done, err := backup.Restoring{To: p.store, Wrap: p.wrap, Moved: moved, Reason: refresh.ReasonRestored, Now: time.Now, Progress: tell}.Restore(c.Context(), from)
			end()
			if err != nil {
				return err
			}
			db, err := store.Open(c.Context(), p.store) // brings older tables up to date
			if err != nil {
				return err
			}
			if !moved {
				err = signRestored(c.Context(), p, db)
			}
			if err := errors.Join(err, db.Close()); err != nil {
				return err
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "%s restored, as of %s (Frontdesk %s, %s)\n%s tried before they are trusted\n",
				console.Plural(int(done.Total()), "row", "rows"), done.Made.Format(time.RFC3339), done.By, done.Database, console.Plural(int(done.Uncertain), "connection is", "connections are"))
			return err
		}}
	c.Flags().String("config", "frontdesk.yaml", "config file of the deployment")
	c.Flags().BoolVar(&moved, "moved", false, "nothing has run on the old database since the backup was made: sign-ins stay, and nothing is tried anew")
	c.Flags().BoolVar(&check, "check", false, "read the whole backup and touch no database")
	return c
}

func checkBackup(c *cobra.Command, p premises, from io.Reader) error {
	b, err := backup.Open(c.Context(), p.wrap, from)
	if err != nil {
		return err
	}
	tell, end := telling(c)
	t, err := b.Rows(func(whole.Table, []any) error { return nil }, tell)
	end()
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(c.OutOrStdout(), "whole: %s of %s, as of %s (Frontdesk %s, %s)\n", console.Plural(int(t.Total()), "row", "rows"), console.Plural(len(t.Rows), "table", "tables"),
		b.Manifest.Made.Format(time.RFC3339), b.Manifest.By, b.Manifest.Database)
	return err
}

// telling is progress on a terminal, on one line that end clears; nowhere else.
func telling(c *cobra.Command) (tell backup.Progress, end func()) {
	f, ok := c.ErrOrStderr().(*os.File)
	if !ok {
		return nil, func() {}
	}
	if info, err := f.Stat(); err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return nil, func() {}
	}
	const clear = "\r\033[K"
	return func(table string, rows int64) { fmt.Fprintf(f, clear+"%s: %d rows", table, rows) }, func() { fmt.Fprint(f, clear) }
}

// intoFile writes a file that is there whole or not at all, for its owner alone, and never over another one.
func intoFile(c *cobra.Command, path string, write func(io.Writer) error) (int64, error) {
	if path == "-" {
		return 0, write(c.OutOrStdout())
	}
	if _, err := os.Lstat(path); err == nil {
		return 0, fmt.Errorf("%s is there already: name a new file, or remove it", path)
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".backup-*") // mode 0600
	if err != nil {
		return 0, err
	}
	defer func() { _ = os.Remove(f.Name()) }()
	if err := write(f); err != nil {
		return 0, errors.Join(err, f.Close())
	}
	info, err := f.Stat()
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return 0, err
	}
	if err := os.Link(f.Name(), path); errors.Is(err, fs.ErrExist) {
		return 0, fmt.Errorf("%s is there already: name a new file, or remove it", path)
	} else if err != nil {
		return 0, err
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return 0, err
	}
	return info.Size(), errors.Join(d.Sync(), d.Close())
}

// LogName is the origin of the checkpoints of a deployment that has no key for them yet.
func LogName(cfg *config.Config) string { return cfg.PublicURL.Host + "/audit" }

// signRestored signs that the log comes from a backup: what was signed after that is gone, and not cut off by anybody.
func signRestored(ctx context.Context, p premises, db checkpointed) error {
	signer := &keyring.Signer{Keys: db, Wrap: p.wrap, Now: time.Now}
	return audit.SignRestored(ctx, db, keyring.CheckpointKeys{Signer: signer, Log: LogName(p.cfg)}, time.Now())
}

// checkpointed is a database, as signRestored needs it.
type checkpointed interface {
	audit.CheckpointStore
	keyring.Store
}
