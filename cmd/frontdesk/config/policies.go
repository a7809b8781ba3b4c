package config

import (
	"crypto/sha256"
	"encoding/hex"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/catalog/openapi"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/conf"
	"frontdesk.dev/frontdesk/internal/policy"
)

// PolicySets compiles every tenant's allow lists and files. A server that nobody can call is a warning.
func (c *Config) PolicySets() (map[identity.Tenant]*policy.Set, conf.Problems) {
	sets := map[identity.Tenant]*policy.Set{}
	var problems conf.Problems
	sum := sha256.New()
	sum.Write(c.text)
	c.Warnings = slices.Clone(c.noted)
	orgs := c.Organisations()
	for _, t := range slices.Sorted(maps.Keys(orgs)) {
		org := orgs[t]
		var allows []policy.Allow
		var sources []policy.Source
		var readOnly []policy.ReadOnly
		for name, s := range org.Servers {
			for i, who := range s.Allow {
				allows = append(allows, policy.Allow{Server: name, Who: who, From: Place(t, "servers."+name+".allow["+strconv.Itoa(i)+"]")})
			}
			if s.ReadOnly {
				readOnly = append(readOnly, policy.ReadOnly{Server: name, From: Place(t, "servers."+name+".read_only")})
			}
			if s.Observe {
				c.Warnings = append(c.Warnings, name+" is only observed: what policy refuses to those whom it is open to passes, and is recorded as would_deny")
			}
			if len(s.Allow) == 0 && len(org.Policies) == 0 {
				c.Warnings = append(c.Warnings, "nobody can call "+name+": add  allow: [group:NAME]  to "+Place(t, "servers."+name)+", or a policy file")
			}
		}
		slices.SortFunc(allows, func(a, b policy.Allow) int { return strings.Compare(a.From, b.From) })
		for i, pattern := range org.Policies {
			files, err := filepath.Glob(inDir(c.dir, pattern))
			if err != nil || len(files) == 0 {
				problems = append(problems, c.doc.Problem(Place(t, "policies")+"["+strconv.Itoa(i)+"]", "there is no policy file "+pattern, "paths are beside the config file"))
			}
			for _, f := range files {
				text, err := os.ReadFile(f)
				if err != nil {
					problems = append(problems, c.doc.Problem(Place(t, "policies")+"["+strconv.Itoa(i)+"]", "the policy file "+pattern+" cannot be read", ""))
					continue
				}
				sum.Write(text)
				sources = append(sources, policy.Source{Name: filepath.Base(f), Text: text})
			}
		}
		set, wrong := policy.Compile(policy.Input{Sources: sources, Allows: allows, ReadOnly: readOnly, Operations: c.operations(t, sum)})
		for _, p := range wrong {
			if p.Line == 0 {
				problems = append(problems, c.doc.Problem(p.File, p.Message, p.Help))
				continue
			}
			problems = append(problems, conf.Problem{File: p.File, Line: p.Line, Column: p.Column, Message: p.Message, Help: p.Help})
		}
		sets[t] = set
	}
	c.Digest = hex.EncodeToString(sum.Sum(nil))
	slices.Sort(c.Warnings)
	return sets, problems
}

// operations are those that the descriptions of a tenant's upstreams name; the files' digests are written to sum.
func (c *Config) operations(t identity.Tenant, sum io.Writer) map[string]map[string]bool {
	all := map[string]map[string]bool{}
	ups := c.Snapshot.Upstreams[t]
	for _, n := range slices.Sorted(maps.Keys(ups)) {
		d := ups[n].Described
		if d == nil {
			continue
		}
		_, _ = sum.Write(d.Sum[:]) // a hash never fails
		all[string(n)] = map[string]bool{}
		for _, id := range d.IDs() {
			all[string(n)][string(n)+"/"+id] = true
		}
	}
	return all
}

// described reads the description of an upstream's API.
func (k *checker) described(at, file string, up *catalog.Upstream) {
	if file == "" {
		return
	}
	path := inDir(k.dir, file)
	info, err := os.Stat(path)
	if err != nil || !info.Mode().IsRegular() || info.Size() > openapi.MaxBytes {
		k.wrong(at, "there is no file "+file+", or it is larger than 32 MiB", "paths are beside the config file")
		return
	}
	text, err := os.ReadFile(path)
	if err != nil {
		k.wrong(at, "the description "+file+" cannot be read", "")
		return
	}
	if up.Described, err = openapi.Read(text); err != nil {
		k.wrong(at, file+": "+err.Error(), "OpenAPI 3.0 or 3.1, in one file")
	}
}

func inDir(dir, path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(dir, path)
}
