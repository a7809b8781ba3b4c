package config

import (
	"cmp"
	"fmt"
	"maps"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"frontdesk.dev/frontdesk/internal/catalog"
)

// Fixed names what differs of that which only a restart can change.
func (c *Config) Fixed(next *Config) []string {
	var l []string
	for _, f := range []struct {
		name     string
		old, new any
	}{{"public_url", c.PublicURL.String(), next.PublicURL.String()}, {"listen", c.Listen, next.Listen}, {"tls", c.TLS, next.TLS}, {"egress.listen", c.Egress.Listen, next.Egress.Listen}, {"egress.others", c.Egress.Others, next.Egress.Others}, {"ops", c.Ops, next.Ops},
		{"data_dir", c.DataDir, next.DataDir}, {"database", c.Database, next.Database}, {"keys", c.Keys, next.Keys}, {"outbound", c.File.Outbound, next.File.Outbound},
		{"telemetry", c.Telemetry, next.Telemetry}, {"audit", c.File.Audit, next.File.Audit}, {"domains", c.Domains, next.Domains}, {"clients.dynamic", c.File.Clients.Dynamic, next.File.Clients.Dynamic}} {
		if !reflect.DeepEqual(f.old, f.new) {
			l = append(l, f.name)
		}
	}
	return l
}

// Summary is what check and serve say of a config that is right: what to register, what is served, what to think of.
func (c *Config) Summary() []string {
	var l []string
	for _, line := range c.callbacks() {
		l = append(l, "callback  "+line)
	}
	for _, t := range slices.Sorted(maps.Keys(c.Organisations())) {
		for _, n := range slices.Sorted(maps.Keys(c.Snapshot.Upstreams[t])) {
			up := c.Snapshot.Upstreams[t][n]
			var methods []string
			for _, m := range up.Methods {
				methods = append(methods, string(m.Kind))
			}
			line := "upstream  " + string(n) + "  (" + up.Provider.Name + ": " + strings.Join(methods, ", then ") + ")"
			if up.Risk != "" {
				line += "  accepted risk: " + up.Risk
			}
			l = append(l, line)
		}
		for _, n := range slices.Sorted(maps.Keys(c.Snapshot.Servers[t])) {
			s := c.Snapshot.Servers[t][n]
			holds := "holds a keycard"
			if s.Deliver == catalog.DeliverHeader {
				holds = "is the vendor's own, and gets the credential"
			}
			if s.Program != nil && s.Program.Image != "" {
				holds += "; image " + s.Program.Image
			}
			l = append(l, "server    "+c.Issuer(t)+"/mcp/"+string(n)+"  ("+holds+")")
		}
	}
	for _, w := range c.Warnings {
		l = append(l, "warning   "+w)
	}
	return l
}

// callbacks are the addresses to register at the IdP and at vendors.
func (c *Config) callbacks() []string {
	var l []string
	for t, org := range c.Organisations() {
		if org.IDP != nil {
			l = append(l, fmt.Sprintf("%s/callback/idp:%s  (register at %s)", c.Issuer(t), cmp.Or(org.IDP.Name, "login"), org.IDP.Issuer.Host))
			l = append(l, org.IDP.heard(c.Issuer(t))...)
		}
		for n, u := range org.Upstreams {
			if len(u.Methods) > 0 && !slices.ContainsFunc(u.Methods, func(m Method) bool { return m.Kind == catalog.AuthorizationCode }) {
				continue // nobody comes back
			}
			if u.ClientID != "" && u.Provider == "" {
				l = append(l, fmt.Sprintf("%s/callback/%s  (register at the authorization server of %s, for %s)", c.Issuer(t), n, u.URL.Host, u.ClientID))
			} else if u.ClientID != "" {
				l = append(l, fmt.Sprintf("%s/callback/%s  (register at %s, for the OAuth app %s)", c.Issuer(t), n, c.Vendors[u.Provider].Name, u.ClientID))
			}
		}
	}
	slices.Sort(l)
	return l
}

// Exposure says in a line which part of a deployment holds what: a row of the table in docs/security.md.
func (c *Config) Exposure() string {
	switch {
	case c.Keys.Service != nil:
		return "the database opens nothing without " + c.KeyPlace() + "; who takes over this process may ask it, on record there, until its right is taken away"
	case c.Database.IsZero() && strings.HasPrefix(c.Keys.Vault, filepath.Clean(c.DataDir)+string(filepath.Separator)):
		return "key file and database lie together in " + c.DataDir + ": who reads both opens every credential; keep them apart in backups"
	case c.Database.IsZero():
		return "key file and database lie on this machine, apart: who becomes root here opens every credential"
	}
	return "the database is elsewhere and opens nothing without the key file " + c.Keys.Vault
}
