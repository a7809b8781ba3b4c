// Command demo plays Frontdesk's story: by hand in a browser, or with -auto by itself, checking every step.
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"frontdesk.dev/frontdesk/test/stage"
)

func main() {
	auto := flag.Bool("auto", false, "play the story without a person, and check every step")
	flag.Parse()
	slog.SetDefault(slog.New(slog.DiscardHandler)) // the world's parties talk to themselves
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *auto); err != nil {
		fmt.Fprintln(os.Stderr, "\ndemo:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, auto bool) error {
	dir, err := os.MkdirTemp("", "frontdesk-demo-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }() // a temporary directory: what stays is the system's to clean
	fmt.Println("building and starting everything …")
	begin, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	s, err := stage.New(begin, dir, stage.Options{})
	if err != nil {
		return err
	}
	defer func() { _ = s.Close() }() // the story is over
	fmt.Printf(`
  the company's sign-in   %s   (alice, bob, carol; password let-me-in)
  the tracker, a vendor   %s   (octo-alice, octo-bob; password let-me-in)
  an MCP server           %s   (unmodified: knows a base URL and the token in the request)
  Frontdesk               %s

`, s.IdP.URL(), s.Tracker.URL(), s.Legacy.MCP(), s.Desk().Public)
	if auto {
		return story(ctx, s)
	}
	return byHand(ctx, s)
}
