// Command bench answers: what does a call cost through Frontdesk, beside the same call made directly and through a bare reverse
// proxy?
//
// All parties are processes of their own on this machine, Frontdesk the real binary with everything on, and every answer is
// compared with the one that is right. Ways are raced in turn, a few seconds each, because a machine that others use too is never
// the same twice: read ratios of neighbours, and CPU a call. docs/benchmarks.md says how to read the rest.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

// row is one table of the report. A new one is a file of its own and a line in rows.
type row struct {
	name  string
	title string
	long  bool // runs only with -long, or where it is asked for by name
	asked bool // runs only where it is asked for by name
	run   func(b *bench) error
}

var rows = []row{
	{name: "call", title: "one tool call, no API call", run: callRow},
	{name: "api", title: "one tool call with one API call: through egress, beside a bare proxy", run: apiRow},
	{name: "egress", title: "one API request alone, by both doors of egress, beside a bare reverse proxy and a bare proxy that opens TLS", run: egressRow},
	{name: "session", title: "one tool call in a session of the legacy era", run: sessionRow},
	{name: "stored", title: "10 stored users beside 100,000", run: storedRow},
	{name: "vault", title: "a credential, by where it comes from, among 100 stored connections and among very many", run: vaultRow},
	{name: "idle", title: "idle streams", run: idleRow},
	{name: "redaction", title: "taking a credential out of answers of 10 MB", run: redactionRow},
	{name: "hosted", title: "servers that Frontdesk runs: 1,000 starts, and what they cost idle", run: hostedRow},
	{name: "against", title: "two builds of Frontdesk (-against)", asked: true, run: againstRow},
}

// bench is what rows share.
type bench struct {
	ctx    context.Context
	dir    string // for everything that is written, removed at the end
	binary string // frontdesk
	long   bool
	ratio  float64 // the last line: calls/s through Frontdesk, of the bare proxy's, at 32 connections

	against, tool, conns string // of the row against

	idp     *issuer
	closers []func() error
}

func main() {
	if len(os.Args) > 2 && os.Args[1] == "-role" {
		if err := play(os.Args[2], os.Args[3:]); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
		return
	}
	var b bench
	flag.BoolVar(&b.long, "long", false, "take longer: more rounds, and the rows that are left out otherwise")
	only := flag.String("rows", "", "names of the rows to run, with commas; all where empty")
	flag.StringVar(&b.binary, "frontdesk", "", "the binary to race; built from this tree where empty")
	flag.StringVar(&b.against, "against", "", "row against: another build of frontdesk")
	flag.StringVar(&b.tool, "tool", "echo", "row against: echo, or fetch for one with an API call")
	flag.StringVar(&b.conns, "conns", "32", "row against: numbers of connections, with commas")
	list := flag.Bool("list", false, "list the rows")
	flag.Parse()
	if *list {
		for _, r := range rows {
			fmt.Printf("%-10s %s\n", r.name, r.title)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := b.run(ctx, *only); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func (b *bench) run(ctx context.Context, only string) (err error) {
	chosen, err := choose(only, b.long)
	if err != nil {
		return err
	}
	b.ctx = ctx
	if b.dir, err = os.MkdirTemp("", "frontdesk-bench"); err != nil {
		return err
	}
	b.onClose(func() error { return os.RemoveAll(b.dir) })
	defer func() { err = errors.Join(err, b.close()) }()
	if err := b.prepare(); err != nil {
		return err
	}
	begun := time.Now()
	describeMachine()
	for _, r := range chosen {
		fmt.Printf("\n%s: %s\n", r.name, r.title)
		if err := r.run(b); err != nil {
			return fmt.Errorf("row %s: %w", r.name, err)
		}
	}
	fmt.Printf("\n%d rows in %s\n", len(chosen), time.Since(begun).Round(time.Second))
	if b.ratio > 0 {
		fmt.Printf("ratio_vs_bare_proxy=%.2f\n", b.ratio)
	}
	return nil
}

func choose(only string, long bool) ([]row, error) {
	var chosen []row
	names := strings.FieldsFunc(only, func(r rune) bool { return r == ',' })
	for _, r := range rows {
		if slices.Contains(names, r.name) || len(names) == 0 && !r.asked && (long || !r.long) {
			chosen = append(chosen, r)
		}
	}
	for _, n := range names {
		if !slices.ContainsFunc(rows, func(r row) bool { return r.name == n }) {
			return nil, fmt.Errorf("there is no row %q: -list names them", n)
		}
	}
	return chosen, nil
}

func (b *bench) onClose(f func() error) { b.closers = append(b.closers, f) }

func (b *bench) close() error { return b.closeDownTo(0) }

// closeDownTo ends what was started since there were n things to close; a row ends its own parties with it.
func (b *bench) closeDownTo(n int) error {
	var errs []error
	for len(b.closers) > n {
		last := len(b.closers) - 1
		errs = append(errs, b.closers[last]())
		b.closers = b.closers[:last]
	}
	return errors.Join(errs...)
}

// times returns the longer of two counts with -long.
func (b *bench) times(usual, long int) int {
	if b.long {
		return long
	}
	return usual
}
