package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"frontdesk.dev/frontdesk/cmd/frontdesk/config"
	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/conf"
	"frontdesk.dev/frontdesk/internal/store"
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
			if err := ask(c, http.MethodGet, "/audit?"+q.Encode(), nil, &l); err != nil {
				return err
			}
			for i := len(l) - 1; i >= 0; i-- {
				var r audit.Record
				if err := json.Unmarshal(l[i], &r); err != nil {
					return err
				}
				if r.Time.After(since) {
					fmt.Fprintln(c.OutOrStdout(), string(l[i]))
					since = r.Time
				}
			}
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
	verify := &cobra.Command{Use: "verify", Short: "recompute every chain, and name the first broken record; needs no running server",
		Long: "Exits with 0 whole, 1 altered, 3 forked, 4 an intent without outcome or the reverse, 5 could not be read.\nA chain whose newest records were cut off verifies all the same, until checkpoints are kept elsewhere.",
		Args: cobra.NoArgs, RunE: func(c *cobra.Command, _ []string) error {
			db, err := reader(c, database)
			if err != nil {
				fmt.Fprintln(c.ErrOrStderr(), "error:", err)
				return verdictError(audit.Unchecked)
			}
			report := audit.Verify(c.Context(), db, time.Now())
			_ = db.Close() // nothing was written
			if done, err := asJSON(c, report); err != nil || done {
				return errors.Join(err, verdict(report))
			}
			if report.Verdict == audit.Whole {
				fmt.Fprintf(c.OutOrStdout(), "whole: %d records in %d chains, %d still open\nnote: %s\n", report.Rows, report.Writers, report.Open, report.Reminder)
			} else {
				fmt.Fprintf(c.OutOrStdout(), "NOT WHOLE at %s: %s\n", report.Where, report.What)
			}
			return verdict(report)
		}}
	c.PersistentFlags().StringVar(&database, "database", "", "PostgreSQL DSN as env:NAME or file:PATH; default: as the running server's config says, else SQLite in --data-dir")
	c.AddCommand(tail, export, verify)
	return c
}

// verdictError carries what verify found to the exit code; it was told already.
type verdictError audit.Verdict

func (verdictError) Error() string { return "the log is not whole" }

func verdict(r audit.Report) error {
	if r.Verdict == audit.Whole {
		return nil
	}
	return verdictError(r.Verdict)
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
	if err := ask(c, http.MethodGet, "/status", nil, &status); err != nil {
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
