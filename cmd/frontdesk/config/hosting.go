package config

import (
	"fmt"
	"maps"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"frontdesk.dev/frontdesk/internal/catalog"
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
			k.Warnings = append(k.Warnings, fmt.Sprintf("%s.require leaves out %s: where that wall does not stand, the program runs all the same", at, m))
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

// Requiring are the servers that are not started without a measure.
func (c *Config) Requiring(measure string) (names []string) {
	for _, servers := range c.Snapshot.Servers {
		for n, s := range servers {
			if s.Program != nil && slices.Contains(s.Program.Require, measure) {
				names = append(names, string(n))
			}
		}
	}
	slices.Sort(names)
	return names
}
