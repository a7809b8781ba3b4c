// Package setup has the commands that come before a server runs: they read configs and the catalogue, and ask no server.
package setup

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"frontdesk.dev/frontdesk/cmd/frontdesk/config"
	"frontdesk.dev/frontdesk/cmd/frontdesk/console"
	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/hosted/image"
	"frontdesk.dev/frontdesk/internal/kit/conf"
	"frontdesk.dev/frontdesk/internal/kit/oauth"
	"frontdesk.dev/frontdesk/internal/kit/outbound"
	"frontdesk.dev/frontdesk/internal/policy/pack"
)

// Commands write a config to start from, check one, and show what the catalogue knows.
func Commands() []*cobra.Command {
	return []*cobra.Command{checkCommand(), initCommand(), schemaCommand(), providersCommand()}
}

func checkCommand() *cobra.Command {
	online := false
	c := &cobra.Command{Use: "check [FILE]", Short: "say what is wrong with a config, and what to register where, without starting", Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			cfg, err := config.Checked(console.File(args))
			if err != nil {
				return err
			}
			out := c.OutOrStdout()
			for _, l := range cfg.Summary() {
				fmt.Fprintln(out, l)
			}
			if online {
				if err := tryOnline(c.Context(), cfg, out); err != nil {
					return err
				}
			}
			fmt.Fprintf(out, "ok        %s, %s\n", console.Plural(len(cfg.File.Servers), "server", "servers"), console.Plural(len(cfg.File.Upstreams), "upstream", "upstreams"))
			return nil
		}}
	c.Flags().BoolVar(&online, "online", false, "try the IdP's discovery, the clocks and the servers too")
	return c
}

// tryOnline asks what stands outside. Every answer is shown; the first that is bad makes it an error.
func tryOnline(ctx context.Context, c *config.Config, out interface{ Write([]byte) (int, error) }) error {
	door, err := outbound.New(outbound.Config{Named: c.Origins(), Proxy: c.File.Outbound.Proxy, CAFile: c.File.Outbound.CAFile, FetchTimeout: 10 * time.Second})
	if err != nil {
		return err
	}
	defer door.Close()
	bad := 0
	say := func(what string, err error) {
		if err != nil {
			bad++
			fmt.Fprintf(out, "online    %s: %s\n", what, console.PrintableText(err.Error()))
			return
		}
		fmt.Fprintf(out, "online    %s: ok\n", what)
	}
	for t, org := range c.Organisations() {
		if org.IDP != nil {
			_, err := oauth.FetchMetadata(ctx, door.Found(), org.IDP.Issuer.String())
			if other, ok := errors.AsType[*oauth.OtherIssuer](err); ok {
				return conf.Problems{c.Problem(config.Place(t, "idp.issuer"), "the service at this address calls itself another issuer", fmt.Sprintf("write its name exactly, with or without the slash at its end: %.200q", other.Named))}
			}
			say("idp "+org.IDP.Issuer.String(), err)
			say("clock against "+org.IDP.Issuer.Host, clockSkew(ctx, door.Found(), org.IDP.Issuer.String()))
		}
		for _, n := range slices.Sorted(maps.Keys(org.Servers)) {
			if org.Servers[n].URL == nil {
				continue // runs here, when somebody calls
			}
			say("server "+n, answers(ctx, door.Named(), org.Servers[n].URL.String()))
		}
	}
	lookAtImages(ctx, c, door, say)
	if bad > 0 {
		return fmt.Errorf("%d of what stands outside did not answer well", bad)
	}
	return nil
}

// lookAtImages asks registries where references lead; that is shown, so that it can be written into the config.
func lookAtImages(ctx context.Context, c *config.Config, door *outbound.Door, say func(what string, err error)) {
	var problems conf.Problems // of secrets: a config that is checked has none
	set := c.Images(c.Noting(&problems))
	for _, ref := range slices.Compact(slices.Sorted(slices.Values(set.References))) {
		d, size, err := image.Look(ctx, door.Found(), ref, set)
		if err == nil {
			ref += fmt.Sprintf(" (%s, %d MiB)", d, (size+1<<19)>>20)
		}
		say("image "+ref, err)
	}
}

// answers sends an empty message to an MCP endpoint. A refusal is an answer: it may want a token, or a better message.
func answers(ctx context.Context, d oauth.Doer, address string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, address, strings.NewReader(`{}`))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Accept", "application/json, text/event-stream")
	resp, err := d.Do(r)
	if inner, ok := errors.AsType[*url.Error](err); ok {
		err = inner.Err
	}
	if err != nil {
		return fmt.Errorf("%s does not answer: %w", address, err)
	}
	_ = resp.Body.Close() // its status says all
	switch {
	case resp.StatusCode == http.StatusNotFound:
		return fmt.Errorf("%s answers with status 404: is the path right?", address)
	case resp.StatusCode >= 500:
		return fmt.Errorf("%s answers with status %d", address, resp.StatusCode)
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
		b, err := conf.Schema(config.File{}, "Frontdesk config")
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
	inputs, l := "", []string(nil)
	for n, in := range needed(p) {
		l = append(l, n+": "+cmp.Or(in.Default, config.FillIn))
	}
	slices.Sort(l)
	if len(l) > 0 {
		inputs = ", inputs: {" + strings.Join(l, ", ") + "}"
	}
	if p.Sites != nil {
		inputs = ", site: connection" + inputs
	}
	switch {
	case p.OAuth != nil:
		fmt.Fprintf(&b, "  %s: {provider: %s, client_id: %s, client_secret: env:%s%s}\n", p.ID, p.ID, config.FillIn, secretVariable(p), inputs)
	case slices.Contains(p.Federation, catalog.AWSWebIdentity):
		fmt.Fprintf(&b, "  %s: {provider: %s%s, methods: [aws_web_identity: {role_arn: %s}]}\n", p.ID, p.ID, inputs, config.FillIn)
	case slices.Contains(p.Federation, catalog.GitHubApp):
		fmt.Fprintf(&b, "  %s: {provider: %s, accept_risk: %s, methods: [github_app: {app_id: %s, installation_id: %q, private_key: env:%s}]}   # one credential for everybody\n",
			p.ID, p.ID, config.FillIn, config.FillIn, config.FillIn, secretVariable(p))
	default:
		fmt.Fprintf(&b, "  %s: {provider: %s%s}   # people paste a key\n", p.ID, p.ID, inputs)
	}
	// The name of the upstream is the server's too where it leaves room for no more.
	fmt.Fprintf(&b, "servers:\n  %s: {url: http://localhost:3000/mcp, upstreams: [%s], allow: [group:engineering]}\n", serverName(p), p.ID)
	return b.String()
}

// needed are the inputs that a starter gives: what may stay empty does, and where each account's site is learned, nobody writes it.
func needed(p *catalog.Provider) map[string]catalog.Input {
	m := maps.Clone(p.Inputs)
	maps.DeleteFunc(m, func(n string, in catalog.Input) bool {
		return in.Optional || p.Sites != nil && slices.Contains(p.Sites.Instead, n)
	})
	return m
}

func serverName(p *catalog.Provider) string {
	if n := p.ID + "-tools"; config.ValidName(n) {
		return n
	}
	return p.ID
}

func secretVariable(p *catalog.Provider) string {
	return strings.ToUpper(strings.ReplaceAll(p.ID, "-", "_")) + "_SECRET"
}

// next is what the operator does with a starter.
func next(p *catalog.Provider) string {
	var b strings.Builder
	fmt.Fprintf(&b, "\nNext, with https://desk.example.com replaced by the address that people will use:\n")
	fmt.Fprintf(&b, "  1. At your IdP register a web application with the callback https://desk.example.com/callback/idp:login; put its secret into idp.secret (chmod 600).\n")
	switch {
	case p.OAuth == nil && p.APIKey == nil:
		fmt.Fprintf(&b, "  2. At %s (%s) set up what %s needs, and put it into the file; docs/config.md has its settings.\n", p.Name, cmp.Or(p.Console, p.Docs), p.Federation[0])
	case p.OAuth != nil:
		fmt.Fprintf(&b, "  2. At %s register an OAuth app (%s) with the callback https://desk.example.com/callback/%s;\n     put its id into the file (client_id) and its secret into the environment variable %s.\n", p.Name, cmp.Or(p.Console, p.Docs), p.ID, secretVariable(p))
	default:
		fmt.Fprintf(&b, "  2. At %s nothing is registered: each person pastes a key of his own, made at %s.\n", p.Name, cmp.Or(p.APIKey.URL, p.APIKey.Where))
	}
	if p.OAuth != nil && len(p.OAuth.Beside) > 0 {
		fmt.Fprintf(&b, "     Beside what the upstream's scopes name, allow it %s there, by which Frontdesk learns whose account it is.\n", strings.Join(p.OAuth.Beside, " and "))
	}
	step := 3
	if slices.ContainsFunc(slices.Collect(maps.Values(needed(p))), func(in catalog.Input) bool { return in.Default == "" }) {
		fmt.Fprintf(&b, "  %d. Fill in what still reads %s: the names of your own site at %s.\n", step, config.FillIn, p.Name)
		step++
	}
	fmt.Fprintf(&b, "  %d. frontdesk check frontdesk.yaml --online\n", step)
	if len(p.LowTrust) > 0 {
		fmt.Fprintf(&b, "Facts of this vendor that were not seen in its documentation (`frontdesk providers seen` says what live answers show of them): %s\n", strings.Join(p.LowTrust, ", "))
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
