// Command party runs one party of the test world in a process of its own.
//
//	party idp        --redirect URL...
//	party tracker    --redirect URL... --rotation strict --access-lifetime 5m
//	party issues     --api URL [--stateless]
//	party vendor-mcp --tracker URL [--stateless]
//	party agent      --mcp URL [--token TOKEN] [--era 2025-11-25] [--elicit]
//
// When it answers, it prints one line of JSON with its URL and that of its controls, and an agent one more for each
// link that a person should open. It ends on SIGTERM or SIGINT.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"frontdesk.dev/frontdesk/test/world"
	"frontdesk.dev/frontdesk/test/world/authserver"
)

// party is what every kind has.
type party interface {
	URL() string
	Commands() map[string]world.Command
	Close() error
}

// starter makes a party of its flags.
type starter func(name string, args []string) (party, error)

var kinds = map[string]starter{
	"idp": startIdP, "tracker": startTracker, "issues": startIssues, "vendor-mcp": startVendorMCP, "agent": startAgent,
}

func main() {
	slog.SetDefault(slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError})))
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "party:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) == 0 || kinds[args[0]] == nil {
		return errors.New("say which: idp, tracker, issues, vendor-mcp or agent")
	}
	p, err := kinds[args[0]](args[0], args[1:])
	if err != nil {
		return err
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return errors.Join(fmt.Errorf("listen for the controls: %w", err), p.Close())
	}
	control := &http.Server{Handler: world.Control(p.Commands()), ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = control.Serve(ln) }()
	say(world.Ready{Kind: args[0], URL: p.URL(), Control: "http://" + ln.Addr().String()})
	<-ctx.Done()
	return errors.Join(control.Close(), p.Close())
}

func say(v any) {
	line, err := json.Marshal(v)
	if err != nil {
		panic(err) // strings only
	}
	fmt.Println(string(line))
}

// list is a flag that may be given several times.
type list []string

func (l *list) String() string     { return strings.Join(*l, ",") }
func (l *list) Set(v string) error { *l = append(*l, v); return nil }

func flags(name string) (*flag.FlagSet, *string) {
	f := flag.NewFlagSet("party "+name, flag.ExitOnError)
	return f, f.String("listen", "", "address; any free loopback port where absent")
}

func startIdP(name string, args []string) (party, error) {
	f, listen := flags(name)
	var redirects, audiences list
	f.Var(&redirects, "redirect", "redirect URI of the client `frontdesk`; may be repeated")
	f.Var(&audiences, "audience", "what the client `workload` may get access tokens for; may be repeated")
	secret := f.String("secret", "", "of the client frontdesk")
	life := f.Duration("access-lifetime", 0, "of access and ID tokens")
	_ = f.Parse(args) // ExitOnError
	return world.NewIdP(world.IdPConfig{
		Listen: *listen, RedirectURIs: redirects, Secret: *secret, WorkloadAudiences: audiences, AccessLifetime: *life,
	})
}

func startTracker(name string, args []string) (party, error) {
	f, listen := flags(name)
	var redirects list
	f.Var(&redirects, "redirect", "redirect URI of the client `frontdesk`; may be repeated")
	secret := f.String("secret", "", "of the client frontdesk")
	rotation := f.String("rotation", "", "of refresh tokens: none, grace or strict (default)")
	grace := f.Duration("grace", 0, "with --rotation grace")
	dies := f.Bool("old-access-dies", false, "a refresh ends the access token it replaces")
	life := f.Duration("access-lifetime", 0, "of access tokens")
	_ = f.Parse(args)
	return world.NewTracker(world.TrackerConfig{
		Listen: *listen, RedirectURIs: redirects, Secret: *secret,
		Rotation: authserver.Rotation(*rotation), Grace: *grace, OldAccessDies: *dies, AccessLifetime: *life,
	})
}

func startIssues(name string, args []string) (party, error) {
	f, listen := flags(name)
	api := f.String("api", "", "base URL of the tracker's API")
	stateless := f.Bool("stateless", false, "serve the modern era, without sessions")
	header := f.String("token-header", "", "where its token is; Authorization where absent")
	atStart := f.Bool("token-at-start", false, "read the token once a session")
	_ = f.Parse(args)
	return world.NewIssuesServer(world.IssuesConfig{
		Listen: *listen, API: *api, Stateless: *stateless, TokenHeader: *header, TokenAtStart: *atStart,
	})
}

func startVendorMCP(name string, args []string) (party, error) {
	f, listen := flags(name)
	tracker := f.String("tracker", "", "base URL of the tracker")
	stateless := f.Bool("stateless", false, "serve the modern era, without sessions")
	_ = f.Parse(args)
	return world.NewVendorMCP(world.VendorMCPConfig{Listen: *listen, Tracker: *tracker, Stateless: *stateless})
}

func startAgent(name string, args []string) (party, error) {
	f, listen := flags(name)
	cfg := world.AgentConfig{}
	f.StringVar(&cfg.URL, "mcp", "", "MCP endpoint")
	f.StringVar(&cfg.Name, "name", "", "how the agent calls itself")
	f.StringVar(&cfg.Era, "era", "", "protocol revision; the newest where absent")
	f.StringVar(&cfg.Token, "token", "", "a fixed access token")
	f.StringVar(&cfg.ClientID, "client-id", "", "registered before; else the agent registers itself")
	f.BoolVar(&cfg.Progress, "progress", false, "ask for progress")
	f.BoolVar(&cfg.Watch, "watch", false, "listen for changes of the lists")
	elicit := f.Bool("elicit", false, "declare URL elicitation")
	_ = f.Parse(args)
	cfg.Listen = *listen
	show := world.OpenerFunc(func(_ context.Context, address string) error { say(world.Link{Open: address}); return nil })
	cfg.Browser = show
	if *elicit {
		cfg.Elicit = show
	}
	return world.NewAgent(cfg)
}
