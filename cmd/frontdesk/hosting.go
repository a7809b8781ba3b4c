package main

import (
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/hosted"
	"frontdesk.dev/frontdesk/internal/hosted/sandbox"
	"frontdesk.dev/frontdesk/internal/identity"
)

const (
	defaultIdle      = 10 * time.Minute
	defaultMemory    = 512
	defaultProcesses = 128
	defaultHosted    = 200
	defaultPerUser   = 10
)

// whereItRuns is a URL, or a program of ours.
func (k *checker) whereItRuns(at string, s Server, out *catalog.Server) {
	switch {
	case len(s.Command) == 0 && s.URL == nil:
		k.wrong(at, "nothing says where this server is", "add  url: https://..., or  command: [...]  for one that Frontdesk runs itself")
		return
	case len(s.Command) > 0 && s.URL != nil:
		k.wrong(at+".url", "a server has a url or a command, not both", "")
	case s.URL != nil:
		out.URL = s.URL.URL
		if len(s.Env) > 0 || s.Idle != nil || len(s.Sandbox.Read)+len(s.Sandbox.Require) > 0 {
			k.wrong(at, "env, sandbox and idle are for servers with a command", "")
		}
		return
	}
	out.URL = &url.URL{Scheme: "http", Host: "hosted.invalid", Path: "/" + string(out.Name)} // never dialled: hosted answers
	p := &catalog.Program{Argv: s.Command, Env: s.Env, Memory: int64(orInt(s.Sandbox.Memory, defaultMemory)) << 20, Processes: orInt(s.Sandbox.Processes, defaultProcesses), Idle: defaultIdle}
	out.Program = p
	if s.Idle != nil {
		p.Idle = time.Duration(*s.Idle)
	}
	if s.Deliver != "" || s.Placeholder != "" || s.TokenHeader != "" {
		k.wrong(at, "a server with a command gets its keycard by env: deliver, placeholder and token_header do not apply", "env: {API_TOKEN: \"{keycard}\"}")
	}
	out.Deliver, out.Placeholder = catalog.DeliverEgress, identity.TicketCall
	k.sandbox(at+".sandbox", s, p)
	k.placeholders(at+".env", s)
}

func orInt(n, otherwise int) int {
	if n > 0 {
		return n
	}
	return otherwise
}

func (k *checker) sandbox(at string, s Server, p *catalog.Program) {
	for i, path := range s.Sandbox.Read {
		here := at + ".read[" + strconv.Itoa(i) + "]"
		if !filepath.IsAbs(path) {
			k.wrong(here, "a path in read must be absolute", "")
			continue
		}
		data, err := filepath.Abs(k.DataDir)
		if rel, rerr := filepath.Rel(path, data); err != nil || rerr == nil && !strings.HasPrefix(rel, "..") {
			k.wrong(here, "this would let the server read Frontdesk's own data", "name the directory of the program alone")
		}
		if slices.Contains(sandbox.Own, filepath.Clean(path)) {
			k.wrong(here, "the sandbox has a "+filepath.Clean(path)+" of its own", "name what the program needs of it alone")
		}
		p.Read = append(p.Read, filepath.Clean(path))
	}
	if arg := s.Command[0]; strings.Contains(arg, "/") && !filepath.IsAbs(arg) {
		k.wrong(at, "the program of command needs an absolute path, or a name that is found in "+sandbox.SearchPath, "")
	}
	for i, arg := range s.Command {
		if filepath.IsAbs(arg) && !sandbox.Readable(filepath.Clean(arg), p.Read) {
			k.wrong(strings.TrimSuffix(at, "sandbox")+"command["+strconv.Itoa(i)+"]", arg+" lies where the sandbox lets nothing be read", "sandbox: {read: ["+filepath.Dir(arg)+"]}")
		}
	}
	for i, m := range s.Sandbox.Require {
		if !sandbox.Known(sandbox.Measure(m)) {
			k.wrong(at+".require["+strconv.Itoa(i)+"]", fmt.Sprintf("there is no sandbox measure %q", m), "measures are "+measures(sandbox.Measures))
		}
	}
	p.Require = s.Sandbox.Require
	if p.Require == nil {
		for _, m := range sandbox.Required {
			p.Require = append(p.Require, string(m))
		}
	}
	for _, m := range sandbox.Required {
		if !slices.Contains(p.Require, string(m)) {
			k.warnings = append(k.warnings, fmt.Sprintf("%s.require leaves out %s: where that wall does not stand, the program runs all the same", at, m))
		}
	}
}

func measures(l []sandbox.Measure) string {
	var names []string
	for _, m := range l {
		names = append(names, string(m))
	}
	return strings.Join(names, ", ")
}

// placeholders finds {egress:NAME} of an upstream that the server does not list.
func (k *checker) placeholders(at string, s Server) {
	for _, name := range slices.Sorted(maps.Keys(s.Env)) {
		rest := s.Env[name]
		for {
			_, after, ok := strings.Cut(rest, "{egress:")
			if !ok {
				break
			}
			up, tail, closed := strings.Cut(after, "}")
			if !closed || !slices.ContainsFunc(s.Upstreams, func(n Need) bool { return n.Name == up }) {
				k.wrong(at+"."+name, fmt.Sprintf("{egress:%s} names no upstream of this server", up), "list it under upstreams")
			}
			rest = tail
		}
	}
}

func serversCommand() *cobra.Command {
	c := &cobra.Command{Use: "servers", Short: "look at the servers that Frontdesk runs itself"}
	var user, tenant string
	c.PersistentFlags().StringVar(&tenant, "tenant", string(identity.DefaultTenant), "tenant")
	list := &cobra.Command{Use: "list", Short: "list their processes", Args: cobra.NoArgs, RunE: func(c *cobra.Command, _ []string) error {
		var l []hosted.State
		if err := ask(c, http.MethodGet, "/servers?"+url.Values{"tenant": {tenant}}.Encode(), nil, &l); err != nil {
			return err
		}
		if done, err := asJSON(c, l); done || err != nil {
			return err
		}
		w := tabwriter.NewWriter(c.OutOrStdout(), 0, 4, 2, ' ', 0)
		fmt.Fprintln(w, "SERVER\tUSER\tCLIENT\tPID\tSTARTED\tTOOK\tCALLS\tLACKS")
		for _, s := range l {
			fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s\t%d ms\t%d\t%s\n", s.Server, s.User, printable(string(s.Client)), s.Pid, s.Started.Format(time.RFC3339), s.Took.Milliseconds(), s.Calls, strings.Join(slices.Sorted(maps.Keys(s.Missing)), " "))
		}
		return w.Flush()
	}}
	logs := &cobra.Command{Use: "logs NAME", Short: "print what a server's processes wrote last, and why one does not run", Args: cobra.ExactArgs(1), RunE: func(c *cobra.Command, args []string) error {
		var l []hosted.Log
		if err := ask(c, http.MethodGet, "/servers/"+url.PathEscape(args[0])+"/logs?"+url.Values{"user": {user}, "tenant": {tenant}}.Encode(), nil, &l); err != nil {
			return err
		}
		if done, err := asJSON(c, l); done || err != nil {
			return err
		}
		for _, g := range l {
			fmt.Fprintf(c.OutOrStdout(), "user %s, client %s\n", g.User, printable(string(g.Client)))
			for _, line := range g.Lines {
				fmt.Fprintf(c.OutOrStdout(), "  %s\n", printable(line))
			}
			if g.Failing != "" {
				fmt.Fprintf(c.OutOrStdout(), "  not running: %s\n", printable(g.Failing))
			}
		}
		return nil
	}}
	logs.Flags().StringVar(&user, "user", "", "id, subject, name or e-mail of a person; default: everybody")
	c.AddCommand(list, logs)
	return c
}

// sandboxCommand is how the binary runs itself as the first process of a sandbox. It is for nobody's hands.
func sandboxCommand() *cobra.Command {
	return &cobra.Command{Use: sandbox.Command, Hidden: true, Args: cobra.NoArgs, RunE: func(*cobra.Command, []string) error {
		sandbox.Init()
		return fmt.Errorf("this is not for hands: `frontdesk serve` runs it")
	}}
}

// standing says which walls stand here, and why the others do not: one sandbox is built, by the process that would build the
// servers', and taken down again.
func standing() map[string]string {
	report := sandbox.Report{}
	c, err := sandbox.Build(sandbox.Setup{UID: 79_999, Memory: 64 << 20, Processes: 16, Files: 64})
	if err == nil {
		defer c.Kill()
		report = c.Report
	}
	found := map[string]string{}
	for _, m := range sandbox.Measures {
		switch {
		case err != nil:
			found[wallPrefix+string(m)] = err.Error()
		case !report.Held(m):
			found[wallPrefix+string(m)] = report[m]
		default:
			found[wallPrefix+string(m)] = stands
		}
	}
	return found
}

const (
	wallPrefix = "sandbox."
	stands     = "stands"
)

// walls are doctor's words on the sandbox: what stands, and what some server would not be started without.
func (c *Config) walls(status map[string]string) (l []finding) {
	var up []string
	for _, m := range sandbox.Measures {
		why := status[wallPrefix+string(m)]
		if why == stands {
			up = append(up, string(m))
			continue
		}
		if names := c.requiring(string(m)); len(names) > 0 {
			l = append(l, finding{"bad", fmt.Sprintf("sandbox: %s does not stand here (%s), so %s will not be started", m, why, strings.Join(names, ", ")), "docs/hosting.md says what it needs; `sandbox: {require: [...]}` says which must stand"})
		} else {
			l = append(l, finding{"note", fmt.Sprintf("sandbox: %s does not stand here: %s", m, why), ""})
		}
	}
	if len(up) == 0 {
		return l
	}
	return append([]finding{{"ok", "sandbox of hosted servers: these walls stand here: " + strings.Join(up, ", "), ""}}, l...)
}

// requiring are the servers that are not started without a measure.
func (c *Config) requiring(measure string) (names []string) {
	for _, servers := range c.snapshot.Servers {
		for n, s := range servers {
			if s.Program != nil && slices.Contains(s.Program.Require, measure) {
				names = append(names, string(n))
			}
		}
	}
	slices.Sort(names)
	return names
}
