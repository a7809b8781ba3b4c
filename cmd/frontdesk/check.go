package main

import (
	"context"
	_ "embed"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/kit/conf"
	"frontdesk.dev/frontdesk/internal/kit/oauth"
	"frontdesk.dev/frontdesk/internal/kit/outbound"
	"frontdesk.dev/frontdesk/internal/policy/pack"
)

func checkCommand() *cobra.Command {
	online := false
	c := &cobra.Command{Use: "check FILE", Short: "say what is wrong with a config, and what to register where, without starting", Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			cfg, err := checked(args)
			if err != nil {
				return err
			}
			out := c.OutOrStdout()
			for _, l := range cfg.callbacks() {
				fmt.Fprintf(out, "callback  %s\n", l)
			}
			for _, w := range cfg.warnings {
				fmt.Fprintf(out, "warning   %s\n", w)
			}
			if online {
				if err := cfg.online(c.Context(), out); err != nil {
					return err
				}
			}
			fmt.Fprintf(out, "ok        %d servers, %d upstreams\n", len(cfg.File.Servers), len(cfg.File.Upstreams))
			return nil
		}}
	c.Flags().BoolVar(&online, "online", false, "try the IdP's discovery, the clocks and the servers too")
	return c
}

// checked reads a config whole: form, references, policies and secrets.
func checked(args []string) (*Config, error) {
	path := "frontdesk.yaml"
	if len(args) == 1 {
		path = args[0]
	}
	cfg, err := readConfig(path)
	if err != nil {
		return nil, err
	}
	_, problems := cfg.policySets()
	problems = append(problems, cfg.secretProblems()...)
	if len(problems) > 0 {
		return nil, problems
	}
	return cfg, nil
}

// secretProblems tries every reference.
func (c *Config) secretProblems() conf.Problems {
	var l conf.Problems
	try := func(at string, s conf.Secret) {
		if s.IsZero() {
			return
		}
		if _, err := s.Resolve(c.dir); err != nil {
			l = append(l, c.doc.Problem(at, err.Error(), "put the secret there, then check again"))
		}
	}
	for t, org := range c.tenants() {
		if org.IDP != nil {
			try(place(t, "idp.client_secret"), org.IDP.ClientSecret)
		}
		for n, u := range org.Upstreams {
			try(place(t, "upstreams."+n+".client_secret"), u.ClientSecret)
		}
	}
	try("database", c.Database)
	if c.TLS != nil {
		try("tls.cert", c.TLS.Cert)
		try("tls.key", c.TLS.Key)
	}
	slices.SortFunc(l, func(a, b conf.Problem) int { return a.Line - b.Line })
	return l
}

// online asks what stands outside. Every answer is shown; the first that is bad makes it an error.
func (c *Config) online(ctx context.Context, out interface{ Write([]byte) (int, error) }) error {
	door, err := outbound.New(outbound.Config{Named: c.origins(), Proxy: c.File.Outbound.Proxy, CAFile: c.File.Outbound.CAFile, FetchTimeout: 10 * time.Second})
	if err != nil {
		return err
	}
	defer door.Close()
	bad := 0
	say := func(what string, err error) {
		if err != nil {
			bad++
			fmt.Fprintf(out, "online    %s: %v\n", what, err)
			return
		}
		fmt.Fprintf(out, "online    %s: ok\n", what)
	}
	for _, org := range c.tenants() {
		if org.IDP != nil {
			_, err := oauth.FetchMetadata(ctx, door.Found(), org.IDP.Issuer.String())
			say("idp "+org.IDP.Issuer.String(), err)
			say("clock against "+org.IDP.Issuer.Host, clockSkew(ctx, door.Found(), org.IDP.Issuer.String()))
		}
		for _, n := range slices.Sorted(maps.Keys(org.Servers)) {
			r, err := http.NewRequestWithContext(ctx, http.MethodPost, org.Servers[n].URL.String(), strings.NewReader(`{}`))
			if err == nil {
				var resp *http.Response
				if resp, err = door.Named().Do(r); err == nil {
					err = resp.Body.Close()
				}
			}
			say("server "+n, err)
		}
	}
	if bad > 0 {
		return fmt.Errorf("%d of what stands outside did not answer well", bad)
	}
	return nil
}

const maxSkew = time.Minute

// clockSkew compares our clock with the Date of an answer: tokens live minutes.
func clockSkew(ctx context.Context, d oauth.Doer, url string) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := d.Do(r)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	there, err := http.ParseTime(resp.Header.Get("Date"))
	if err != nil {
		return nil // it says no time: nothing to compare
	}
	if off := time.Since(there).Abs(); off > maxSkew {
		return fmt.Errorf("the clocks differ by %s: set this machine's by NTP", off.Round(time.Second))
	}
	return nil
}

func schemaCommand() *cobra.Command {
	return &cobra.Command{Use: "schema", Short: "print the JSON Schema of the config, for editors", Args: cobra.NoArgs, RunE: func(c *cobra.Command, _ []string) error {
		b, err := conf.Schema(File{}, "Frontdesk config")
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(c.OutOrStdout(), string(b))
		return err
	}}
}

func initCommand() *cobra.Command {
	policies := ""
	c := &cobra.Command{Use: "init [PROVIDER]", Short: "print a config to start from, and say what to paste where", Args: cobra.MaximumNArgs(1), RunE: func(c *cobra.Command, args []string) error {
		all, err := catalog.Providers()
		if err != nil {
			return err
		}
		id := "github"
		if len(args) == 1 {
			id = args[0]
		}
		p, ok := all[id]
		if !ok {
			help := "known are " + strings.Join(slices.Sorted(maps.Keys(all)), ", ")
			if near := conf.Nearest(id, slices.Sorted(maps.Keys(all))); near != "" {
				help = "did you mean " + near + "?"
			}
			return fmt.Errorf("there is no provider %q: %s", id, help)
		}
		if policies != "" {
			if err := writePack(policies); err != nil {
				return err
			}
		}
		fmt.Fprint(c.OutOrStdout(), starter(p))
		fmt.Fprint(c.ErrOrStderr(), next(p))
		return nil
	}}
	c.Flags().StringVar(&policies, "policies", "", "write the commented policy files for common cases into this directory")
	return c
}

func starter(p *catalog.Provider) string {
	var b strings.Builder
	fmt.Fprintf(&b, "public_url: https://desk.example.com\ntrusted_proxies: [10.0.0.0/8]   # TLS ends there; or tls: {cert: file:tls.crt, key: file:tls.key}\n")
	fmt.Fprintf(&b, "egress: {listen: \":8081\"}       # so that servers on other hosts reach it\n")
	fmt.Fprintf(&b, "idp: {issuer: https://login.example.com, client_id: frontdesk, client_secret: file:idp.secret}\nupstreams:\n")
	inputs := ""
	if len(p.Inputs) > 0 {
		var l []string
		for _, n := range slices.Sorted(maps.Keys(p.Inputs)) {
			l = append(l, n+": "+cmpOr(p.Inputs[n].Default, "FILL-IN"))
		}
		inputs = ", inputs: {" + strings.Join(l, ", ") + "}"
	}
	if p.OAuth != nil {
		fmt.Fprintf(&b, "  %s: {provider: %s, client_id: FILL-IN, client_secret: env:%s_SECRET%s}\n", p.ID, p.ID, strings.ToUpper(strings.ReplaceAll(p.ID, "-", "_")), inputs)
	} else {
		fmt.Fprintf(&b, "  %s: {provider: %s%s}   # people paste a key\n", p.ID, p.ID, inputs)
	}
	fmt.Fprintf(&b, "servers:\n  %s-tools: {url: http://localhost:3000/mcp, upstreams: [%s], allow: [group:engineering]}\n", p.ID, p.ID)
	return b.String()
}

func next(p *catalog.Provider) string {
	var b strings.Builder
	fmt.Fprintf(&b, "\nNext:\n  1. At your IdP register a web application with the callback <public_url>/callback/idp:login; put its secret into idp.secret (chmod 600).\n")
	if p.OAuth != nil {
		fmt.Fprintf(&b, "  2. At %s register an OAuth app (%s) with the callback <public_url>/callback/%s; put its id into the file and its secret into the environment.\n", p.Name, p.Docs, p.ID)
	}
	fmt.Fprintf(&b, "  3. frontdesk check frontdesk.yaml --online\n")
	if len(p.LowTrust) > 0 {
		fmt.Fprintf(&b, "Not seen in a source yet, check at the first connection: %s\n", strings.Join(p.LowTrust, ", "))
	}
	return b.String()
}

func writePack(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	files, err := pack.Files.ReadDir(".")
	if err != nil {
		return err
	}
	for _, f := range files {
		text, err := pack.Files.ReadFile(f.Name())
		if err != nil {
			return err
		}
		path := filepath.Join(dir, f.Name())
		if _, err := os.Stat(path); err == nil {
			return fmt.Errorf("%s is there already; nothing is overwritten", path)
		}
		if err := os.WriteFile(path, text, 0o644); err != nil {
			return err
		}
	}
	return nil
}
