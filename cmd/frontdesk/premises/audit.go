package premises

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"frontdesk.dev/frontdesk/cmd/frontdesk/config"
	"frontdesk.dev/frontdesk/cmd/frontdesk/console"
	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/conf"
	"frontdesk.dev/frontdesk/internal/store"
	"frontdesk.dev/frontdesk/internal/vault"
	"frontdesk.dev/frontdesk/internal/vault/keyring"
)

func auditCommand() *cobra.Command {
	c := &cobra.Command{Use: "audit", Short: "what was attempted, and what came of it"}
	var user, tenant, database string
	follow := false
	tail := &cobra.Command{Use: "tail", Short: "show the newest records of the running server", Args: cobra.NoArgs, RunE: func(c *cobra.Command, _ []string) error {
		since := time.Time{}
		for {
			q := url.Values{"tenant": {tenant}}
			if user != "" {
				q.Set("user", user)
			}
			if !since.IsZero() {
				q.Set("since", since.Format(time.RFC3339Nano))
			}
			var l []json.RawMessage
			if err := console.Ask(c, http.MethodGet, "/audit?"+q.Encode(), nil, &l); err != nil {
				return err
			}
			newest := since
			for i := len(l) - 1; i >= 0; i-- {
				var r audit.Record
				if err := json.Unmarshal(l[i], &r); err != nil {
					return err
				}
				if r.Time.After(since) { // what happened between a call's intent and its outcome comes after that
					fmt.Fprintln(c.OutOrStdout(), console.PrintableJSON(l[i]))
				}
				if r.Time.After(newest) {
					newest = r.Time
				}
			}
			since = newest
			if !follow {
				return nil
			}
			select {
			case <-c.Context().Done():
				return nil
			case <-time.After(time.Second):
			}
		}
	}}
	tail.Flags().StringVar(&user, "user", "", "of one person: id, subject, name or e-mail")
	tail.Flags().StringVar(&tenant, "tenant", string(identity.DefaultTenant), "tenant")
	tail.Flags().BoolVarP(&follow, "follow", "f", false, "go on as records come")
	export := &cobra.Command{Use: "export", Short: "write every record with its place and hash as JSON lines", Args: cobra.NoArgs, RunE: func(c *cobra.Command, _ []string) error {
		db, err := reader(c, database)
		if err != nil {
			return err
		}
		defer func() { _ = db.Close() }()
		return audit.Export(c.Context(), db, func(line []byte) error { _, err := c.OutOrStdout().Write(line); return err })
	}}
	c.PersistentFlags().StringVar(&database, "database", "", "PostgreSQL DSN as env:NAME or file:PATH; default: as the running server's config says, else SQLite in --data-dir")
	c.AddCommand(tail, export, verifyCommand(&database), auditKeyCommand(&database), acceptCommand())
	return c
}

func acceptCommand() *cobra.Command {
	yes := false
	c := &cobra.Command{Use: "accept", Short: "sign that it is known what a failover of the database has lost of the log", Args: cobra.NoArgs,
		Example: "  frontdesk audit verify || frontdesk audit accept --yes   # once you know that it was a failover",
		Long: `After a standby took over that had not got the last records, ` + "`audit verify`" + ` exits with 2 and says what is missing. Once you know that it was
a failover and nobody's doing, this signs so: verify exits with 0 then, and names the loss in a note. What is cut off later is found all the same.`,
		RunE: func(c *cobra.Command, _ []string) error {
			if !yes {
				return errors.New("this signs that what is missing of the log is known; look at `frontdesk audit verify` first, then add --yes")
			}
			var said struct {
				Checkpoint int64
				Time       time.Time
			}
			if err := console.Ask(c, http.MethodPost, "/audit/accept", nil, &said); err != nil {
				return err
			}
			_, err := fmt.Fprintf(c.OutOrStdout(), "checkpoint %d says that what was missing at %s is known\n", said.Checkpoint, said.Time.Format(time.RFC3339))
			return err
		}}
	c.Flags().BoolVar(&yes, "yes", false, "do it")
	return c
}

// verifyFlags say what the log is held against.
type verifyFlags struct {
	pubkey     string
	checkpoint []string
	since      string
	vault      bool
}

func verifyCommand(database *string) *cobra.Command {
	var f verifyFlags
	c := &cobra.Command{Use: "verify", Short: "recompute every chain, hold it against its checkpoints, and name the first broken record; needs no running server",
		Long: `Exits with 0 whole, 1 altered, 2 shorter than a checkpoint says, 3 forked, 4 an intent without outcome or the reverse, 5 could not be read.

Whoever can write to the database can put all of it back to an earlier state. Only a checkpoint that is kept elsewhere shows that
(--checkpoint), and only a key that was pinned proves who signed it (--pubkey): ` + "`frontdesk audit key`" + ` prints it.`,
		Args: cobra.NoArgs, RunE: func(c *cobra.Command, _ []string) error {
			report, compared, err := f.verify(c, *database)
			if err != nil {
				fmt.Fprintln(c.ErrOrStderr(), "error:", console.PrintableText(err.Error()))
				return VerdictError(audit.Unchecked)
			}
			if done, err := console.JSON(c, struct {
				audit.Report
				Vault *vault.Comparison `json:"vault,omitempty"`
			}{report, compared}); err != nil || done {
				return errors.Join(err, verdict(report))
			}
			out := c.OutOrStdout()
			if report.Verdict == audit.Whole {
				fmt.Fprintf(out, "whole: %s in %s, %d still open, %s\n", console.Plural(report.Rows, "record", "records"), console.Plural(report.Writers, "chain", "chains"), report.Open, console.Plural(int(report.Checkpoints), "checkpoint", "checkpoints"))
			} else {
				fmt.Fprintf(out, "NOT WHOLE at %s: %s\n", console.Printable(report.Where), console.Printable(report.What)) // whoever altered it wrote that
			}
			if report.Outside > 0 {
				fmt.Fprintf(out, "kept elsewhere: %s, all of them here\n", console.Plural(report.Outside, "checkpoint", "checkpoints"))
			}
			if compared != nil {
				fmt.Fprintf(out, "vault: %s, %d of which the log does not know yet, %d from before it did\n", console.Plural(compared.Rows, "connection", "connections"), compared.Ahead, compared.Unrecorded)
			}
			for _, r := range report.Reminders {
				fmt.Fprintln(out, "note:", console.Printable(r))
			}
			return verdict(report)
		}}
	c.Flags().StringVar(&f.pubkey, "pubkey", "", "file with the public key of the checkpoints, as `frontdesk audit key` printed it at the start")
	c.Flags().StringArrayVar(&f.checkpoint, "checkpoint", nil, "file with checkpoints that were kept elsewhere; may be given more than once")
	c.Flags().StringVar(&f.since, "since", "", "begin at the last checkpoint before this time, as 2026-03-14 or 2026-03-14T15:00:00Z")
	c.Flags().BoolVar(&f.vault, "vault", false, "hold every stored credential against what the log says was stored")
	return c
}

func (f *verifyFlags) verify(c *cobra.Command, database string) (report audit.Report, compared *vault.Comparison, err error) {
	db, err := reader(c, database)
	if err != nil {
		return report, nil, err
	}
	defer func() { _ = db.Close() }() // nothing was written
	against, err := f.against(c.Context(), db)
	if err != nil {
		return report, nil, err
	}
	var ledger vault.Ledger
	if f.vault {
		if f.since != "" {
			return report, nil, errors.New("--vault needs the log from its beginning: leave --since out")
		}
		against.Seen = ledger.Read
	}
	report = audit.Verify(c.Context(), db, against)
	if !f.vault || report.Verdict == audit.Unchecked || report.Verdict == audit.Altered {
		return report, nil, nil
	}
	v, err := ledger.CompareAll(c.Context(), db, func() error { return audit.Read(c.Context(), db, report.Ends, ledger.Read) })
	if err != nil {
		return report, nil, err
	}
	if v.Wrong > 0 {
		report.Add(audit.Altered, "connection "+string(v.Connection), fmt.Sprintf("%s (%s)", v.What, console.Plural(v.Wrong, "connection", "connections")))
	}
	return report, &v, nil
}

func (f *verifyFlags) against(ctx context.Context, db *store.DB) (a audit.Against, err error) {
	a = audit.Against{Now: time.Now(), Checkpoints: db}
	if f.since != "" {
		if a.Since, err = time.Parse(time.RFC3339, f.since); err != nil {
			if a.Since, err = time.Parse(time.DateOnly, f.since); err != nil {
				return a, errors.New("--since is no time: write it as 2026-03-14 or 2026-03-14T15:00:00Z")
			}
		}
	}
	if f.pubkey != "" {
		text, err := os.ReadFile(f.pubkey)
		if err != nil {
			return a, err
		}
		a.Key = strings.TrimSpace(string(text))
		if !audit.IsKey(a.Key) {
			return a, fmt.Errorf("%s holds no key as `frontdesk audit key` prints it", f.pubkey)
		}
	}
	for _, path := range f.checkpoint {
		text, err := os.ReadFile(path)
		if err != nil {
			return a, err
		}
		l := audit.Split(text)
		if len(l) == 0 {
			return a, fmt.Errorf("there is no checkpoint in %s", path)
		}
		a.Outside = append(a.Outside, l...)
	}
	a.Keys, err = keyring.CheckpointPublic(ctx, db)
	return a, err
}

func auditKeyCommand(database *string) *cobra.Command {
	return &cobra.Command{Use: "key", Short: "print the public key with which checkpoints are verified, to be kept elsewhere",
		Long: "Prints the first key. A later one is believed because the one before has announced it.", Args: cobra.NoArgs, RunE: func(c *cobra.Command, _ []string) error {
			db, err := reader(c, *database)
			if err != nil {
				return err
			}
			defer func() { _ = db.Close() }() // nothing was written
			keys, err := keyring.CheckpointPublic(c.Context(), db)
			if err != nil {
				return err
			}
			if len(keys) == 0 {
				return errors.New("there is no key yet: the server makes one when it starts")
			}
			_, err = fmt.Fprintln(c.OutOrStdout(), keys[0])
			return err
		}}
}

// VerdictError carries what verify found to the exit code; it was told already.
type VerdictError audit.Verdict

func (VerdictError) Error() string { return "the log is not whole" }

func verdict(r audit.Report) error {
	if r.Verdict == audit.Whole {
		return nil
	}
	return VerdictError(r.Verdict)
}

// reader opens the database for reading alone, beside a server that may run on it.
func reader(c *cobra.Command, ref string) (*store.DB, error) {
	dir, err := c.Flags().GetString("data-dir")
	if err != nil {
		return nil, err
	}
	s := store.Config{Path: filepath.Join(dir, "frontdesk.db"), Now: time.Now}
	if s.DSN, err = logDSN(c, ref); err != nil {
		return nil, err
	}
	if s.DSN != "" {
		s.Path = ""
	}
	return store.OpenReader(context.WithoutCancel(c.Context()), s)
}

// logDSN is where the log is kept: what was said, else what the config of the running server says; "" is SQLite in data_dir.
func logDSN(c *cobra.Command, ref string) (string, error) {
	if ref != "" {
		var sec conf.Secret
		if err := sec.UnmarshalConf(ref); err != nil {
			return "", err
		}
		return sec.Resolve(".")
	}
	var status map[string]string
	if err := console.Ask(c, http.MethodGet, "/status", nil, &status); err != nil {
		return "", nil // no server runs: a SQLite file can be read all the same
	}
	cfg, err := config.Read(status["config"], "")
	if err != nil && cfg == nil {
		return "", fmt.Errorf("%w; say where the log is kept with --database", err)
	}
	if cfg.Database.IsZero() { // also of a config on disk that is wrong elsewhere
		return "", nil
	}
	dsn, err := cfg.Secret(cfg.Database)
	if err != nil {
		return "", fmt.Errorf("the running server keeps its log in PostgreSQL: %w; set it here too, or say --database", err)
	}
	return dsn, nil
}
