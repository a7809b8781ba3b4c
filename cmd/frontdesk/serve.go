package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"frontdesk.dev/frontdesk/internal/kit/outbound"
)

func serveCommand() *cobra.Command {
	return &cobra.Command{Use: "serve [FILE]", Short: "run the server", Args: cobra.MaximumNArgs(1), RunE: func(c *cobra.Command, args []string) error {
		path := "frontdesk.yaml"
		if len(args) == 1 {
			path = args[0]
		}
		cfg, err := readConfig(path)
		if err != nil {
			return err
		}
		if f := c.Flags().Lookup("data-dir"); f.Changed {
			cfg.DataDir = f.Value.String()
		}
		level := new(slog.LevelVar)
		if err := level.UnmarshalText([]byte(cmpOr(cfg.Telemetry.LogLevel, "info"))); err != nil {
			return fmt.Errorf("telemetry.log_level: %w", err)
		}
		log := slog.New(slog.NewJSONHandler(c.ErrOrStderr(), &slog.HandlerOptions{Level: level}))
		d, err := newDesk(c.Context(), path, cfg, log)
		if err != nil {
			return err
		}
		return d.serve(c.Context(), c.OutOrStdout())
	}}
}

const (
	drainTime     = 30 * time.Second
	headerTimeout = 10 * time.Second
	idleTimeout   = 2 * time.Minute
	maxHeader     = 64 << 10
)

// serve listens until ctx ends, then lets calls finish.
func (d *desk) serve(ctx context.Context, out io.Writer) error {
	cfg := d.config.Load()
	public, err := listen(cfg.Listen, cfg)
	if err != nil {
		return err
	}
	egress, err := net.Listen("tcp", cfg.Egress.Listen)
	if err != nil {
		return fmt.Errorf("egress.listen: %w", err)
	}
	ops, err := net.Listen("tcp", cfg.Ops.Listen)
	if err != nil {
		return fmt.Errorf("ops.listen: %w", err)
	}
	socket := filepath.Join(cfg.DataDir, socketName)
	admin, err := listenUnix(socket)
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(socket) }() // a socket left behind refuses nobody
	servers := []server{
		d.server(public, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { (*d.public.Load()).ServeHTTP(w, r) })),
		d.egress, d.server(ops, d.opsHandler()), d.server(admin, d.admin),
	}
	d.announce(out, cfg)

	// Rooms outlive the listeners: what is open is finished, then its outcomes are written.
	rooms, stopRooms := context.WithCancel(context.WithoutCancel(ctx))
	defer stopRooms()
	failed := make(chan error, len(servers)+8)
	var chores errgroup.Group
	for _, run := range []func(context.Context) error{d.audit.Run, d.db.Run, d.connect.Run, d.registry.Run, d.gateway.Run, d.onHangup,
		func(ctx context.Context) error { return d.epochs.Run(ctx, d.db.Watch(ctx)) }} {
		chores.Go(func() error {
			err := run(rooms)
			if err != nil {
				failed <- err // a room that cannot go on ends the process: half of Frontdesk is no Frontdesk
			}
			return err
		})
	}
	for i, l := range []net.Listener{public, egress, ops, admin} {
		go func() { failed <- servers[i].Serve(l) }()
	}
	select {
	case <-ctx.Done():
		err = nil
	case err = <-failed:
	}
	d.log.Info("stopping: calls that run are finished first", "at_most", drainTime.String())
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTime)
	defer cancel()
	d.gateway.Drain()
	for _, s := range servers {
		if serr := s.Shutdown(drain); serr != nil {
			err = errors.Join(err, serr, s.Close())
		}
	}
	stopRooms()
	return errors.Join(ignoreClosed(err), chores.Wait(), d.db.Close())
}

// server is what serves one of the listeners.
type server interface {
	Serve(l net.Listener) error
	Shutdown(ctx context.Context) error
	Close() error
}

func ignoreClosed(err error) error {
	if errors.Is(err, http.ErrServerClosed) || errors.Is(err, context.DeadlineExceeded) {
		return nil
	}
	return err
}

func (d *desk) server(l net.Listener, h http.Handler) *http.Server {
	return &http.Server{Addr: l.Addr().String(), Handler: h, ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader,
		ErrorLog: slog.NewLogLogger(d.log.Handler(), slog.LevelDebug)}
}

// listen opens the public listener, with TLS where it ends here. The certificate is read again when its file changes.
func listen(addr string, cfg *Config) (net.Listener, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	if cfg.TLS == nil {
		return l, nil
	}
	certs := &certificate{cert: cfg.TLS.Cert.Path(cfg.dir), key: cfg.TLS.Key.Path(cfg.dir)}
	if _, err := certs.get(nil); err != nil {
		return nil, fmt.Errorf("tls: %w", err)
	}
	return tls.NewListener(l, &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: certs.get, NextProtos: []string{"http/1.1"}}), nil
}

func listenUnix(path string) (net.Listener, error) {
	if _, err := os.Stat(path); err == nil {
		if outbound.Answers(path) {
			return nil, fmt.Errorf("another server runs on %s", filepath.Dir(path))
		}
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	old := syscall.Umask(0o177) // so that the socket is never open to others, not even for a moment
	defer syscall.Umask(old)
	return net.Listen("unix", path)
}

// opsHandler serves what watches: never on the public listener.
func (d *desk) opsHandler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(d.metrics, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok\n") })
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), 2*time.Second)
		defer cancel()
		if err := d.db.Ping(ctx); err != nil || !d.epochs.Fresh(15*time.Second) {
			http.Error(w, "the database does not answer", http.StatusServiceUnavailable)
			return
		}
		_, _ = io.WriteString(w, "ready\n")
	})
	return mux
}

// onHangup reloads the config at SIGHUP.
func (d *desk) onHangup(ctx context.Context) error {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-hup:
			if _, err := d.reload(ctx); err != nil {
				d.log.Error("the new config was refused, and the old one goes on", "problems", err.Error())
			}
		}
	}
}

// reload reads the file again and applies it. Calls and streams go on with what they had.
func (d *desk) reload(ctx context.Context) (string, error) {
	cfg, err := readConfig(d.path)
	if err != nil {
		return "", err
	}
	old := d.config.Load()
	cfg.DataDir, cfg.Keys = old.DataDir, old.Keys
	if cfg.PublicURL.String() != old.PublicURL.String() || cfg.Listen != old.Listen || cfg.Egress.Listen != old.Egress.Listen || cfg.Egress.Others != old.Egress.Others || cfg.Ops != old.Ops || cfg.Database != old.Database {
		return "", errors.New("public_url, listen, egress's listen and others, ops and database change only at a restart")
	}
	if err := d.apply(ctx, cfg); err != nil {
		return "", err
	}
	said := fmt.Sprintf("%s applied: %d servers, %d upstreams", filepath.Base(d.path), len(cfg.File.Servers), len(cfg.File.Upstreams))
	d.log.Info("config reloaded", "said", said)
	return said, nil
}

func (d *desk) status(ctx context.Context) map[string]string {
	s := map[string]string{"database": "answers", "config": d.path, "public_url": d.config.Load().PublicURL.String()}
	if err := d.db.Ping(ctx); err != nil {
		s["database"] = "does not answer"
	}
	return s
}

// announce says what runs.
func (d *desk) announce(out io.Writer, cfg *Config) {
	fmt.Fprintf(out, "frontdesk %s\n", version)
	fmt.Fprintf(out, "  public    %s (listening on %s)\n", cfg.PublicURL, cfg.Listen)
	fmt.Fprintf(out, "  egress    %s\n  ops       %s\n  data      %s, key %s\n", cfg.Egress.Listen, cfg.Ops.Listen, cfg.DataDir, cfg.Keys.Vault)
	for _, line := range cfg.callbacks() {
		fmt.Fprintf(out, "  callback  %s\n", line)
	}
	var servers []string
	for t := range cfg.tenants() {
		for n := range cfg.snapshot.Servers[t] {
			servers = append(servers, cfg.at(t)+"/mcp/"+string(n))
		}
	}
	slices.Sort(servers)
	for _, s := range servers {
		fmt.Fprintf(out, "  server    %s\n", s)
	}
	for _, w := range cfg.warnings {
		fmt.Fprintf(out, "  warning   %s\n", w)
	}
}

// callbacks are the addresses to register at the IdP and at vendors.
func (c *Config) callbacks() []string {
	var l []string
	for t, org := range c.tenants() {
		if org.IDP != nil {
			l = append(l, fmt.Sprintf("%s/callback/idp:%s  (register at %s)", c.at(t), cmpOr(org.IDP.Name, "login"), org.IDP.Issuer.Host))
		}
		for n, u := range org.Upstreams {
			if u.ClientID != "" {
				l = append(l, fmt.Sprintf("%s/callback/%s  (register at %s, for the OAuth app %s)", c.at(t), n, c.providers[u.Provider].Name, u.ClientID))
			}
		}
	}
	slices.Sort(l)
	return l
}
