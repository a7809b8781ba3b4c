package config

import (
	"fmt"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/hosted/image"
	"frontdesk.dev/frontdesk/internal/hosted/sandbox"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/conf"
	"frontdesk.dev/frontdesk/internal/kit/secret"
)

const (
	defaultIdle      = 10 * time.Minute
	defaultMemory    = 512
	defaultScratch   = 64
	defaultProcesses = 128
	defaultHosted    = 200
	defaultPerUser   = 10
	defaultImage     = 4_096
	defaultImages    = 20_480
	maxFiles         = 400_000 // of an image; the largest of today have 150,000
	maxLayers        = 127     // as in Docker
)

// whereItRuns is a URL, or a program of ours.
func (k *checker) whereItRuns(at string, s Server, out *catalog.Server) {
	switch {
	case len(s.Command) == 0 && s.Image == "" && s.URL == nil:
		k.wrong(at, "nothing says where this server is", "add  url: https://..., or  command: [...]  or  image: ...  for one that Frontdesk runs itself")
		return
	case len(s.Command) > 0 && s.URL != nil:
		k.wrong(at+".url", "a server has a url or a command, not both", "")
	case s.Image != "" && s.URL != nil:
		k.wrong(at+".url", "a server has a url or an image, not both", "")
	case s.URL != nil:
		out.URL = s.URL.URL
		if len(s.Env)+len(s.Args) > 0 || s.Idle != nil || len(s.Sandbox.Read)+len(s.Sandbox.Require) > 0 {
			k.wrong(at, "args, env, sandbox and idle are for servers with a command or an image", "")
		}
		return
	}
	out.URL = &url.URL{Scheme: "http", Host: "hosted.invalid", Path: "/" + string(out.Name)} // never dialled: hosted answers
	if len(s.Args) > 0 && s.Image == "" {
		k.wrong(at+".args", "args are of a program in an image", "write them into  command: [...]")
	}
	p := &catalog.Program{Argv: s.Command, Args: s.Args, Env: s.Env, CPU: s.Sandbox.CPU, Scratch: int64(orInt(s.Sandbox.Scratch, defaultScratch)) << 20, Memory: int64(orInt(s.Sandbox.Memory, defaultMemory)) << 20, Processes: orInt(s.Sandbox.Processes, defaultProcesses), Idle: defaultIdle}
	out.Program = p
	if s.Idle != nil {
		p.Idle = time.Duration(*s.Idle)
	}
	if s.Deliver != "" || s.Placeholder != "" || s.TokenHeader != "" {
		k.wrong(at, "a server that Frontdesk runs gets its keycard by env: deliver, placeholder and token_header do not apply", "env: {API_TOKEN: \"{keycard}\"}")
	}
	out.Deliver, out.Placeholder = catalog.DeliverEgress, identity.TicketCall
	if s.Image != "" {
		k.image(at, s, p)
	}
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
	if s.Image == "" {
		k.command(at, s, p)
	} else if len(s.Sandbox.Read) > 0 {
		k.wrong(at+".read", "an image brings its own files, and sees none of this machine's", "put what the program needs into the image")
	}
	if p.Scratch > p.Memory {
		k.wrong(at, "what it may write is in its memory, and scratch_mb is more than memory_mb", "make memory_mb larger")
	}
	if p.CPU < 0 {
		k.wrong(at+".cpu_percent", "a bound is above 0", "")
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
			k.noted = append(k.noted, fmt.Sprintf("%s.require leaves out %s: where that wall does not stand, the program runs all the same", at, m))
		}
	}
}

// command finds what of a program of this machine could not be read.
func (k *checker) command(at string, s Server, p *catalog.Program) {
	if arg := s.Command[0]; strings.Contains(arg, "/") && !filepath.IsAbs(arg) {
		k.wrong(at, "the program of command needs an absolute path, or a name that is found in "+sandbox.SearchPath, "")
	}
	if !installed(s.Command[0]) {
		k.noted = append(k.noted, fmt.Sprintf("%s: there is no program %s on this machine: where Frontdesk runs it has to be installed", strings.TrimSuffix(at, ".sandbox")+".command", s.Command[0]))
	}
	for i, arg := range s.Command {
		if filepath.IsAbs(arg) && !sandbox.Readable(filepath.Clean(arg), p.Read) {
			k.wrong(strings.TrimSuffix(at, "sandbox")+"command["+strconv.Itoa(i)+"]", arg+" lies where the sandbox lets nothing be read", "sandbox: {read: ["+filepath.Dir(arg)+"]}")
		}
	}
}

// installed reports whether a program is there, as the sandbox would look for it.
func installed(name string) bool {
	places := []string{""}
	if !strings.Contains(name, "/") {
		places = filepath.SplitList(sandbox.SearchPath)
	}
	return slices.ContainsFunc(places, func(dir string) bool {
		info, err := os.Stat(filepath.Join(dir, name))
		return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
	})
}

// image reads a reference. A relative path is one beside the config file.
func (k *checker) image(at string, s Server, p *catalog.Program) {
	text := s.Image
	if path, ok := strings.CutPrefix(text, "file:"); ok {
		if !filepath.IsAbs(path) {
			path = filepath.Join(k.dir, path)
		}
		whole, err := filepath.Abs(path)
		if err == nil {
			_, err = os.Stat(whole)
		}
		if err != nil {
			k.wrong(at+".image", "the file of the image cannot be read", "write it there:  docker save IMAGE -o "+filepath.Base(path)+"  or  skopeo copy docker://IMAGE oci-archive:"+filepath.Base(path))
			return
		}
		text = "file:" + whole
	}
	r, err := image.Parse(text)
	if err != nil {
		k.wrong(at+".image", err.Error(), "write it whole, as docker.io/mcp/github:1.2 or ghcr.io/github/github-mcp-server@sha256:…")
		return
	}
	if r.Tag != "" {
		k.noted = append(k.noted, fmt.Sprintf("%s.image is a tag: what it leads to is asked once by each replica, and kept until `frontdesk servers pull %s`; a digest says it for good (`frontdesk check --online` shows it)", at, at[strings.LastIndexByte(at, '.')+1:]))
	}
	p.Image = r.String()
}

// registries looks at what is said of places that images come from.
func (k *checker) registries() {
	for _, host := range slices.Sorted(maps.Keys(k.Hosting.Registries)) {
		at, r := "hosting.registries."+host, k.Hosting.Registries[host]
		if _, err := image.Parse(host + "/x:1"); err != nil {
			k.wrong(at, "this is no registry as references begin with one", "write it as ghcr.io, docker.io or registry.corp.example:5000")
		}
		if (r.Username == "") != r.Password.IsZero() {
			k.wrong(at, "username and password belong together", "")
		}
		for key, u := range map[string]*conf.URL{"url": r.URL, "realm": r.Realm} {
			if u == nil {
				continue
			}
			if h := u.Hostname(); u.Scheme == "http" && !r.Password.IsZero() && h != "localhost" && h != "127.0.0.1" && h != "::1" {
				k.wrong(at+"."+key, "a password would travel in the open", "use https")
			}
		}
	}
}

// Images are what the config says of images, but for passwords, which read gives.
func (c *Config) Images(read func(at string, s conf.Secret) string) image.Settings {
	mb := func(n, otherwise int) int64 { return int64(orInt(n, otherwise)) << 20 }
	s := image.Settings{Registries: map[string]image.Registry{}, Limits: image.Bounds{Bytes: mb(c.Hosting.ImageMB, defaultImage), Files: maxFiles, Layers: maxLayers}, Total: mb(c.Hosting.ImagesMB, defaultImages)}
	for host, r := range c.Hosting.Registries {
		out := image.Registry{Username: r.Username, Password: secret.New(read("hosting.registries."+host+".password", r.Password))}
		if r.URL != nil {
			out.URL = r.URL.URL
		}
		if r.Realm != nil {
			out.Realm = r.Realm.URL
		}
		s.Registries[host] = out
	}
	for _, servers := range c.Snapshot.Servers {
		for _, srv := range servers {
			if srv.Program != nil && srv.Program.Image != "" {
				s.References = append(s.References, srv.Program.Image)
			}
		}
	}
	return s
}

// registryOrigins are where the config's images come from.
func (c *Config) registryOrigins() (l []string) {
	set := c.Images(func(string, conf.Secret) string { return "" })
	for _, text := range set.References {
		r, err := image.Parse(text)
		if err != nil || r.File != "" {
			continue
		}
		at := set.Registries[r.Registry]
		if at.URL == nil {
			at.URL = image.Origin(r.Registry)
		}
		if l = append(l, at.URL.String()); at.Realm != nil {
			l = append(l, at.Realm.String())
		}
	}
	return l
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
