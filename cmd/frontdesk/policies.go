package main

import (
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/conf"
	"frontdesk.dev/frontdesk/internal/policy"
)

// policySets compiles every tenant's allow lists and files. A server that nobody can call is a warning.
func (c *Config) policySets() (map[identity.Tenant]*policy.Set, conf.Problems) {
	sets := map[identity.Tenant]*policy.Set{}
	var problems conf.Problems
	sum := sha256.New()
	sum.Write(c.text)
	c.warnings = nil
	orgs := c.tenants()
	for _, t := range slices.Sorted(maps.Keys(orgs)) {
		org := orgs[t]
		var allows []policy.Allow
		var sources []policy.Source
		var readOnly []policy.ReadOnly
		for name, s := range org.Servers {
			for i, who := range s.Allow {
				allows = append(allows, policy.Allow{Server: name, Who: who, From: place(t, "servers."+name+".allow["+strconv.Itoa(i)+"]")})
			}
			if s.ReadOnly {
				readOnly = append(readOnly, policy.ReadOnly{Server: name, From: place(t, "servers."+name+".read_only")})
			}
			if s.Observe {
				c.warnings = append(c.warnings, name+" is only observed: what policy refuses to those whom it is open to passes, and is recorded as would_deny")
			}
			if len(s.Allow) == 0 && len(org.Policies) == 0 {
				c.warnings = append(c.warnings, "nobody can call "+name+": add  allow: [group:NAME]  to "+place(t, "servers."+name)+", or a policy file")
			}
		}
		slices.SortFunc(allows, func(a, b policy.Allow) int { return compare(a.From, b.From) })
		for i, pattern := range org.Policies {
			files, err := filepath.Glob(inDir(c.dir, pattern))
			if err != nil || len(files) == 0 {
				problems = append(problems, c.doc.Problem(place(t, "policies")+"["+strconv.Itoa(i)+"]", "there is no policy file "+pattern, "paths are beside the config file"))
			}
			for _, f := range files {
				text, err := os.ReadFile(f)
				if err != nil {
					problems = append(problems, c.doc.Problem(place(t, "policies")+"["+strconv.Itoa(i)+"]", "the policy file "+pattern+" cannot be read", ""))
					continue
				}
				sum.Write(text)
				sources = append(sources, policy.Source{Name: filepath.Base(f), Text: text})
			}
		}
		set, wrong := policy.Compile(policy.Input{Sources: sources, Allows: allows, ReadOnly: readOnly})
		for _, p := range wrong {
			if p.Line == 0 {
				problems = append(problems, c.doc.Problem(p.File, p.Message, p.Help))
				continue
			}
			problems = append(problems, conf.Problem{File: p.File, Line: p.Line, Column: p.Column, Message: p.Message, Help: p.Help})
		}
		sets[t] = set
	}
	c.digest = hex.EncodeToString(sum.Sum(nil))
	slices.Sort(c.warnings)
	return sets, problems
}

func compare(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

func inDir(dir, path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(dir, path)
}
