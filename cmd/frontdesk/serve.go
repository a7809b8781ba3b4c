package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/pprof"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"frontdesk.dev/frontdesk/cmd/frontdesk/config"
	"frontdesk.dev/frontdesk/cmd/frontdesk/console"
	"frontdesk.dev/frontdesk/cmd/frontdesk/doctor"
	"frontdesk.dev/frontdesk/cmd/frontdesk/premises"
	"frontdesk.dev/frontdesk/internal/exchange/refresh"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/kit/outbound"
	"frontdesk.dev/frontdesk/internal/kit/web"
	"frontdesk.dev/frontdesk/internal/vault"
)

func serveCommand() *cobra.Command {
	restored, part := false, string(config.RoleAll)
	var forget []string
	cmd := &cobra.Command{Use: "serve [FILE]", Short: "run the server", Args: cobra.MaximumNArgs(1),
		Long: "Runs Frontdesk: in one process, or with --role as one of two. The gateway speaks with agents, browsers and MCP servers; the broker alone\n" +
			"has the vault's key, decides, and sends what carries a credential (docs/domains.md).", RunE: func(c *cobra.Command, args []string) error {
			as, err := roleOf(part)
			if err != nil {
				return err
			}
			path := console.File(args)
			dataDir := ""
			if f := c.Flags().Lookup("data-dir"); f.Changed {
				dataDir = f.Value.String()
			}
			cfg, err := config.Read(path, dataDir)
			if err != nil {
				return err
			}
			cfg.Forget = forget
			var level slog.Level
			if err := level.UnmarshalText([]byte(cmp.Or(cfg.Telemetry.LogLevel, "info"))); err != nil {
				return fmt.Errorf("telemetry.log_level: %w", err)
			}
			log := slog.New(slog.NewJSONHandler(console.Lines{To: c.ErrOrStderr()}, &slog.HandlerOptions{Level: level}))
			if err := premises.Harden(); err != nil {
				return err
			}
			d, err := newDesk(c.Context(), path, dataDir, cfg, as, log)
			if err != nil {
				return err
			}
			if os.Getenv("GOGC") == "" {
				// What lives is small and what a call leaves behind is not: at Go's default a tenth of the CPU goes into collecting
				// a few megabytes over and over. GOGC and GOMEMLIMIT of the environment stand above this.
				debug.SetGCPercent(300)
			}
			if restored && d.waist != nil {
				n, err := d.db.Restored(c.Context(), refresh.ReasonRestored)
				if err != nil {
					return err
				}
				log.Info("the database was restored from a backup: each connection is tried before it is trusted", "connections", n)
				d.checkpoints.Restored = true
			}
			return d.serve(c.Context(), c.OutOrStdout())
		}}
	cmd.Flags().StringVar(&part, "role", part, "all, or one of two processes: gateway or broker (docs/domains.md)")
	cmd.Flags().StringSliceVar(&forget, "forget-keys", nil, "ids of keys in the database that do not open and are lost for good: go on without them (docs/operate.md)")
	cmd.Flags().BoolVar(&restored, "restored", false, "the database comes from a backup: try each connection before it is trusted (docs/connections.md)")
	return cmd
}

const (
	drainTime     = 30 * time.Second
	pingTimeout   = 2 * time.Second
	headerTimeout = 10 * time.Second
	idleTimeout   = 2 * time.Minute
	maxHeader     = 64 << 10
)

// listening is a server, and where it listens.
type listening struct {
	net.Listener
	server
}

// listen opens the doors of this process.
func (d *desk) listen(cfg *config.Config) (all []listening, err error) {
	defer func() {
		if err != nil {
			for _, l := range all {
				_ = l.Listener.Close() // nothing came in yet
			}
		}
	}()
	open := func(key, address string, serve func(net.Listener) server) {
		if err != nil {
			return
		}
		l, lerr := net.Listen("tcp", address)
		if errors.Is(lerr, syscall.EADDRINUSE) {
			err = fmt.Errorf("%s: address already in use: another program listens on %s: stop it (`ss -ltnp` names it), or write another address there", key, address)
			return
		}
		if lerr != nil {
			err = fmt.Errorf("%s: %w", key, lerr)
			return
		}
		all = append(all, listening{l, serve(l)})
	}
	if d.faces != nil {
		certs, err := certificates(cfg, cfg.TLS)
		if err != nil {
			return nil, err
		}
		open("listen", cfg.Listen, func(l net.Listener) server {
			front := d.server(l, d.tracer.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { (*d.public.Load()).ServeHTTP(w, r) })))
			front.TLSConfig = certs
			return front
		})
		open("egress.listen", cfg.Egress.Listen, func(net.Listener) server { return d.egress })
	}
	if d.role == config.RoleBroker {
		open("domains.listen", cfg.Domains.Listen, func(l net.Listener) server {
			s := d.server(l, d.pins.Guard(d.tracer.Continues(d.far.Handler())))
			s.TLSConfig, s.HTTP2, s.Protocols = d.pins.Listening(), outbound.PinnedHTTP2(), new(http.Protocols)
			s.Protocols.SetHTTP2(true)
			return s
		})
	}
	if d.role == config.RoleBroker && cfg.Domains.Keys != nil {
		certs, err := certificates(cfg, cfg.Domains.Keys.TLS)
		if err != nil {
			return nil, fmt.Errorf("domains.keys.%w", err)
		}
		open("domains.keys.listen", cfg.Domains.Keys.Listen, func(l net.Listener) server {
			s := d.server(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { (*d.pasting.Load()).ServeHTTP(w, r) }))
			s.TLSConfig, s.ReadTimeout = certs, headerTimeout
			return s
		})
	}
	open("ops.listen", d.opsAddress(cfg), func(l net.Listener) server { return d.server(l, web.Prompt(web.BodyTime, d.opsHandler())) })
	return all, err
}

// opsAddress is where this process is watched.
func (d *desk) opsAddress(cfg *config.Config) string {
	switch d.role {
	case config.RoleGateway:
		return cmp.Or(cfg.Domains.Gateway.Ops, cfg.Ops.Listen)
	case config.RoleBroker:
		return cmp.Or(cfg.Domains.Broker.Ops, cfg.Ops.Listen)
	}
	return cfg.Ops.Listen
}

// chores are what runs beside the listeners.
func (d *desk) chores() []func(context.Context) error {
	all := []func(context.Context) error{d.db.Run, d.onHangup, d.images.Run, d.hosts.Run, d.finder().Run, func(ctx context.Context) error { return d.epochs.Run(ctx, d.db.Watch(ctx)) }}
	if d.waist != nil {
		all = append(all, d.idps.Greet, d.audit.Run, d.tellLost, d.checkpoints.Run, d.connect.Run, d.connect.RunDevices, d.refresh.Run, d.endings.Run, d.office.Run, d.rotation.Run, d.listening.Run,
			(&vault.Sample{Rows: d.db, Log: d.db, Events: d.audit, Tenants: d.tenants, Slog: d.log, Now: d.now}).Run,
			func(ctx context.Context) error { return d.broker.Calls.Run(ctx, d.db.Watch(ctx)) })
	}
	if d.role == config.RoleBroker {
		all = append(all, d.far.Run)
	}
	if d.pins != nil {
		all = append(all, d.watchPairing)
	}
	if d.faces != nil {
		all = append(all, d.registry.Run, d.gateway.Run)
	}
	if d.role == config.RoleGateway {
		all = append(all, d.behind.away.Run)
	}
	return all
}

// serve listens until ctx ends, then lets calls finish.
func (d *desk) serve(ctx context.Context, out io.Writer) error {
	cfg := d.config.Load()
	doors, err := d.listen(cfg)
	if err != nil {
		return err
	}
	socket := filepath.Join(cfg.DataDir, console.Socket)
	admin, err := listenUnix(socket)
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(socket) }() // a socket left behind refuses nobody
	if d.waist != nil {
		if err := d.refresh.Start(ctx); err != nil { // the socket is ours, so whoever ran here before is gone
			return err
		}
	}
	doors = append(doors, listening{admin, d.server(admin, d.admin)})
	d.announce(out, cfg)

	// Rooms outlive the listeners: what is open is finished, then its outcomes are written.
	rooms, stopRooms := context.WithCancel(context.WithoutCancel(ctx))
	defer stopRooms()
	all := d.chores()
	failed := make(chan error, len(doors)+len(all))
	var chores errgroup.Group
	for _, run := range all {
		chores.Go(func() error {
			err := run(rooms)
			if err != nil {
				failed <- err // a room that cannot go on ends the process: half of Frontdesk is no Frontdesk
			}
			return err
		})
	}
	for _, l := range doors {
		go func() { failed <- serveOn(l.server, l.Listener) }()
	}
	select {
	case <-ctx.Done():
		err = nil
	case err = <-failed:
	}
	d.stopping.Store(true)
	d.log.Info("stopping: calls that run are finished first", "at_most", drainTime.String())
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTime)
	defer cancel()
	if d.faces != nil {
		d.gateway.Drain()
	}
	if d.waist != nil && d.far != nil {
		running, enough := context.WithTimeout(drain, drainTime-5*time.Second)
		d.far.Drain(running)
		enough()
	}
	for _, l := range doors {
		if serr := l.Shutdown(drain); serr != nil {
			err = errors.Join(err, serr, l.server.Close())
		}
	}
	if d.waist != nil {
		d.refresh.Wait(drain) // whoever asked for a renewal may be gone; its answer must not be
	}
	d.hosts.Stop() // before the log, which writes how they ended
	stopRooms()
	return errors.Join(ignoreClosed(err), chores.Wait(), d.tracer.Stop(drain), d.db.Close())
}

// serveOn answers with HTTP/2 too where TLS ends here: an agent's streams then share one connection.
func serveOn(s server, l net.Listener) error {
	if h, ok := s.(*http.Server); ok && h.TLSConfig != nil {
		return h.ServeTLS(l, "", "")
	}
	return s.Serve(l)
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

// certificates is nil where TLS ends elsewhere. A certificate is read again when its file changes.
func certificates(cfg *config.Config, t *config.TLS) (*tls.Config, error) {
	if t == nil {
		return nil, nil
	}
	certs := &certificate{cert: cfg.Path(t.Cert), key: cfg.Path(t.Key)}
	if _, err := certs.get(nil); err != nil {
		return nil, fmt.Errorf("tls: %w", err)
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: certs.get}, nil
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
	mux.Handle("GET /metrics", promhttp.HandlerFor(d.metrics.registry, promhttp.HandlerOpts{}))
	for path, h := range map[string]http.HandlerFunc{"": pprof.Index, "profile": pprof.Profile, "symbol": pprof.Symbol, "trace": pprof.Trace} {
		mux.HandleFunc("GET /debug/pprof/"+path, h) // no cmdline: what stands there is nobody's business
	}
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok\n") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), pingTimeout)
		defer cancel()
		switch err := d.db.Ping(ctx); {
		case d.stopping.Load():
			http.Error(w, "stopping: what runs is finished, nothing new begins", http.StatusServiceUnavailable)
			return
		case err != nil:
			http.Error(w, "the database does not answer", http.StatusServiceUnavailable)
			return
		case d.faces != nil && d.behind.away != nil && d.behind.away.Ping(ctx) != nil:
			http.Error(w, "the broker's process does not answer", http.StatusServiceUnavailable)
			return
		case !d.epochs.Fresh(15 * time.Second):
			http.Error(w, "whose access has ended could not be read for 15 seconds", http.StatusServiceUnavailable)
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
			_, _ = d.reload(ctx) // it says in the log what it did, or why not
		}
	}
}

// reload reads the file again and applies it. Calls and streams go on with what they had. With an error nothing has changed.
func (d *desk) reload(ctx context.Context) (string, error) {
	said, err := d.reread(ctx)
	if err != nil {
		d.metrics.reloads.WithLabelValues("refused").Inc()
		d.log.Error("the new config was refused, and the old one goes on", "problems", err.Error())
		return "", err
	}
	d.metrics.reloads.WithLabelValues("applied").Inc()
	d.log.Info("config reloaded", "said", said)
	return said, nil
}

func (d *desk) reread(ctx context.Context) (string, error) {
	cfg, err := config.Read(d.path, d.dataDir)
	if err != nil {
		return "", err
	}
	if fixed := d.config.Load().Fixed(cfg); len(fixed) > 0 {
		return "", fmt.Errorf("%s: %s only at a restart", filepath.Base(d.path), strings.Join(fixed, ", ")+map[bool]string{true: " changes", false: " change"}[len(fixed) == 1])
	}
	if err := d.apply(ctx, cfg); err != nil {
		return "", err
	}
	said := fmt.Sprintf("%s applied: %s, %s", filepath.Base(d.path), console.Plural(len(cfg.File.Servers), "server", "servers"), console.Plural(len(cfg.File.Upstreams), "upstream", "upstreams"))
	for _, w := range cfg.Warnings {
		said += "\nwarning: " + w
	}
	return said, nil
}

func (d *desk) status(ctx context.Context) map[string]string {
	cfg := d.config.Load()
	s := map[string]string{"database": "answers", "config": d.path, "config_digest": cfg.Digest, "public_url": cfg.PublicURL.String(), "version": version, "role": string(d.role), "exposure": cfg.Exposure()}
	if d.role == config.RoleGateway {
		s["exposure"] = "no key and no stored credential is here: who takes over this process acts as those who come by, while they do, on record at the broker"
	}
	ctx, cancel := context.WithTimeout(ctx, pingTimeout)
	defer cancel()
	if d.faces != nil && d.behind.away != nil {
		for address, b := range d.behind.away.Standing(ctx) {
			switch {
			case b.Err != nil:
				s[doctor.BrokerPrefix+address] = "does not answer"
			case b.Version != version:
				s[doctor.BrokerPrefix+address] = "answers, as version " + b.Version
			default:
				s[doctor.BrokerPrefix+address] = doctor.Answering
			}
		}
	}
	if d.pins != nil {
		if err := d.pins.Trouble(); err != nil {
			s["pairing"] = fault.Message(err)
		}
	}
	if err := d.db.Ping(ctx); err != nil {
		s["database"] = "does not answer"
		return s
	}
	if n, err := d.db.Lagging(ctx); err == nil && n > 0 {
		s["lagging_standbys"] = console.Plural(n, "standby", "standbys")
	}
	if d.faces != nil {
		maps.Copy(s, standing())
	}
	for ref, st := range d.images.States() {
		s[doctor.ImagePrefix+ref] = st.String()
	}
	if d.waist == nil {
		return s
	}
	if d.far != nil {
		if n, last := d.far.Releases.Refused(); n > 0 {
			s["releases_refused"] = fmt.Sprintf("%d, the last at %s", n, last.UTC().Format(time.RFC3339))
		}
	}
	s["keys"] = d.keysStand(ctx)
	s["audit_queue"] = strconv.Itoa(d.audit.Queued())
	if n := d.needReconnect(); n >= 0 {
		s["needs_reconnect"] = strconv.Itoa(int(n))
	}
	for _, a := range d.refresh.Ailing() {
		s["upstream "+string(a.Upstream)] = string(a.Trouble) + " since " + a.Since.UTC().Format(time.RFC3339)
	}
	c, trouble := d.checkpoints.Stands()
	s["checkpoint"] = fmt.Sprintf("%d of %s", c.Number, c.Time.Format(time.RFC3339))
	s["checkpoints_outside"] = strings.Join(trouble, "; ")
	for _, down := range d.traffic.Circuits.Down() {
		of := "upstream " + string(down.Upstream)
		if down.Tenant != identity.DefaultTenant {
			of += " of tenant " + string(down.Tenant)
		}
		s["down "+down.Host] = of + " is failing, and is tried again at " + down.Until.UTC().Format(time.RFC3339)
	}
	return s
}

// announce says what runs, and what is to be registered where.
func (d *desk) announce(out io.Writer, cfg *config.Config) {
	ends := "plain http on this machine alone"
	switch {
	case cfg.TLS != nil:
		ends = "TLS ends here"
	case len(cfg.TrustedProxies) > 0:
		ends = "TLS ends at a proxy in front"
	}
	fmt.Fprintf(out, "frontdesk %s\n", version)
	if d.role == config.RoleBroker {
		fmt.Fprintf(out, "  broker    for gateways, listening on %s\n  ops       %s\n  data      %s, key %s\n", cfg.Domains.Listen, d.opsAddress(cfg), cfg.DataDir, cfg.KeyPlace())
		return
	}
	fmt.Fprintf(out, "  public    %s  (listening on %s; %s)\n", cfg.PublicURL, cfg.Listen, ends)
	for _, t := range slices.Sorted(maps.Keys(cfg.Organisations())) {
		fmt.Fprintf(out, "  issuer    %s\n", cfg.Issuer(t))
	}
	if d.role == config.RoleGateway {
		fmt.Fprintf(out, "  egress    %s\n  ops       %s\n  data      %s\n  broker    %s: keys and credentials are there\n", cfg.Egress.Listen, d.opsAddress(cfg), cfg.DataDir, cfg.Domains.Address)
		return
	}
	fmt.Fprintf(out, "  egress    %s\n  ops       %s\n  data      %s, key %s\n", cfg.Egress.Listen, cfg.Ops.Listen, cfg.DataDir, cfg.KeyPlace())
	fmt.Fprintf(out, "  exposure  %s  (docs/security.md)\n", cfg.Exposure())
	for _, line := range cfg.Summary() {
		fmt.Fprintf(out, "  %s\n", line)
	}
}
