package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"syscall"

	"github.com/spf13/cobra"

	"frontdesk.dev/frontdesk/internal/admin"
	"frontdesk.dev/frontdesk/internal/kit/conf"
	"frontdesk.dev/frontdesk/internal/kit/outbound"
)

// version is set by the release build.
var version = "dev"

func root() *cobra.Command {
	c := &cobra.Command{
		Use:   "frontdesk",
		Short: "Let AI agents act for people, without anyone handing over a credential",
		Long: `Frontdesk stands between AI agents, MCP servers and APIs: it knows who is asking, decides if they may, obtains the one
credential that opens this API for this person, and puts it on the outgoing request and nowhere else.

Start with:  frontdesk init github > frontdesk.yaml
             frontdesk check frontdesk.yaml
             frontdesk serve frontdesk.yaml`,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	c.PersistentFlags().String("data-dir", "./frontdesk-data", "where the running server's admin socket is")
	c.PersistentFlags().Bool("json", false, "print JSON for scripts")
	c.AddCommand(serveCommand(), checkCommand(), initCommand(), schemaCommand(), reloadCommand(), doctorCommand(), explainCommand(),
		connectionsCommand(), accessCommand(), auditCommand(), caCommand(), serversCommand(), providersCommand(), sandboxCommand(), keysCommand(), pairCommand(), databaseCommand(), versionCommand())
	c.AddCommand(backupCommand(), restoreCommand())
	c.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	cobra.OnFinalize(stop)
	c.SetContext(ctx)
	return c
}

// Exit codes. `audit verify` has its own (audit.Verdict).
const (
	exitFailed  = 1 // what was asked for did not work
	exitInvalid = 2 // the config, or the command line, is wrong
)

// complain says what is wrong, in the form that operators and editors read, and returns the exit code.
func complain(w io.Writer, err error) int {
	if verdict, ok := errors.AsType[verdictError](err); ok {
		return int(verdict)
	}
	if problems, ok := errors.AsType[conf.Problems](err); ok {
		fmt.Fprintln(w, problems)
		fmt.Fprintf(w, "\n%s\n", plural(len(problems), "problem", "problems"))
		return exitInvalid
	}
	fmt.Fprintln(w, "error:", err)
	if _, ok := errors.AsType[usageError](err); ok {
		return exitInvalid
	}
	return exitFailed
}

// usageError is a command line that cannot be read.
type usageError struct{ error }

func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return strconv.Itoa(n) + " " + many
}

// fileOf is the config that a command is about.
func fileOf(args []string) string {
	if len(args) > 0 {
		return args[0]
	}
	return "frontdesk.yaml"
}

func versionCommand() *cobra.Command {
	return &cobra.Command{Use: "version", Short: "print the version", Args: cobra.NoArgs, RunE: func(c *cobra.Command, _ []string) error {
		commit := ""
		if info, ok := debug.ReadBuildInfo(); ok {
			for _, s := range info.Settings {
				if s.Key == "vcs.revision" {
					commit = " " + s.Value
				}
			}
			_, err := fmt.Fprintf(c.OutOrStdout(), "frontdesk %s%s %s\n", version, commit, info.GoVersion)
			return err
		}
		_, err := fmt.Fprintln(c.OutOrStdout(), "frontdesk", version)
		return err
	}}
}

// socketName is the admin socket's, within data_dir.
const socketName = "admin.sock"

// ask sends a request to the running server's admin socket.
func ask(c *cobra.Command, method, path string, body io.Reader, into any) error {
	dir, err := c.Flags().GetString("data-dir")
	if err != nil {
		return err
	}
	socket := filepath.Join(dir, socketName)
	if _, err := os.Stat(socket); err != nil {
		return fmt.Errorf("no server runs on %s: start `frontdesk serve`, or name its data_dir with --data-dir", dir)
	}
	r, err := http.NewRequestWithContext(c.Context(), method, "http://admin"+path, body)
	if err != nil {
		return err
	}
	resp, err := outbound.Unix(socket).RoundTrip(r)
	if err != nil {
		return fmt.Errorf("the server on %s does not answer: %w", dir, err)
	}
	return admin.Decode(resp, into)
}

// asJSON reports whether --json was given, and prints v if so.
func asJSON(c *cobra.Command, v any) (bool, error) {
	if on, err := c.Flags().GetBool("json"); err != nil || !on {
		return false, err
	}
	e := json.NewEncoder(c.OutOrStdout())
	e.SetIndent("", "  ")
	return true, e.Encode(v)
}
