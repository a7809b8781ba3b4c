package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/spf13/cobra"

	"frontdesk.dev/frontdesk/cmd/frontdesk/config"
	"frontdesk.dev/frontdesk/cmd/frontdesk/console"
	"frontdesk.dev/frontdesk/cmd/frontdesk/doctor"
	"frontdesk.dev/frontdesk/cmd/frontdesk/operate"
	"frontdesk.dev/frontdesk/cmd/frontdesk/premises"
	"frontdesk.dev/frontdesk/cmd/frontdesk/setup"
	"frontdesk.dev/frontdesk/internal/kit/conf"
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
	c.AddCommand(serveCommand(), sandboxCommand(), versionCommand(), doctor.Command())
	c.AddCommand(setup.Commands()...)
	c.AddCommand(operate.Commands()...)
	c.AddCommand(premises.Commands(version)...)
	c.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return console.UsageError{Err: err} })
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	cobra.OnFinalize(stop)
	c.SetContext(ctx)
	return c
}

// execute runs what the command line says. What is found wrong before a command begins is the command line.
func execute() error {
	c, began := root(), false
	console.Helpful(c, "", func() { began = true })
	err := c.Execute()
	if err != nil && !began {
		return console.UsageError{Err: err}
	}
	return err
}

// complain says what is wrong, in the form that operators and editors read, and returns the exit code.
func complain(w io.Writer, err error) int {
	if verdict, ok := errors.AsType[premises.VerdictError](err); ok {
		return int(verdict)
	}
	if problems, ok := errors.AsType[conf.Problems](err); ok {
		fmt.Fprintln(w, problems)
		fmt.Fprintf(w, "\n%s\n", console.Plural(len(problems), "problem", "problems"))
		return console.ExitInvalid
	}
	fmt.Fprintln(w, "error:", console.PrintableText(err.Error()))
	_, usage := errors.AsType[console.UsageError](err)
	if _, unreadable := errors.AsType[*config.Unreadable](err); usage || unreadable {
		return console.ExitInvalid
	}
	return console.ExitFailed
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
