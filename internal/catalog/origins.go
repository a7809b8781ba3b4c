package catalog

import (
	"net"
	"net/url"
	"slices"
	"strings"
	"sync"

	"frontdesk.dev/frontdesk/internal/kit/outbound"
)

// origins finds upstreams by the origin that a request names, made once for a snapshot.
type origins struct {
	once sync.Once
	of   map[string][]*Upstream
}

// At returns the upstreams, of all tenants, that list an origin: `https://api.example.com:443`, lower case, with its port.
func (s *Snapshot) At(origin string) []*Upstream {
	s.origins.once.Do(func() {
		s.origins.of = map[string][]*Upstream{}
		for _, ups := range s.Upstreams {
			for _, up := range ups {
				seen := map[string]bool{}
				for _, o := range up.addresses() {
					if key := Canonical(o); key != "" && !seen[key] {
						s.origins.of[key], seen[key] = append(s.origins.of[key], up), true
					}
				}
			}
		}
	})
	return s.origins.of[origin]
}

// Hosts are the hosts, without ports, that any upstream of any tenant lists.
func (s *Snapshot) Hosts() []string {
	var l []string
	seen := map[string]bool{}
	for _, ups := range s.Upstreams {
		for _, up := range ups {
			for _, o := range up.addresses() {
				if h := strings.ToLower(o.Hostname()); !seen[h] {
					l, seen[h] = append(l, h), true
				}
			}
		}
	}
	return l
}

// addresses are all under which servers call the API.
func (u *Upstream) addresses() []*url.URL {
	l := slices.Clone(u.Origins)
	for _, a := range u.Aliases {
		l = append(l, a.From)
	}
	return l
}

// Names are the hosts of a server's upstreams that its program can mean by a name alone: by https, at the port that belongs to it.
func (s *Snapshot) Names(srv *Server) (l []string) {
	for _, need := range srv.Needs {
		up := s.Upstreams[srv.Tenant][need.Upstream]
		if up == nil {
			continue
		}
		for _, o := range up.addresses() {
			h := strings.ToLower(o.Hostname())
			if strings.HasSuffix(Canonical(o), ":443") && o.Scheme == "https" && net.ParseIP(h) == nil && h != "localhost" && !slices.Contains(l, h) {
				l = append(l, h)
			}
		}
	}
	return l
}

// Canonical is the one spelling of a URL's origin: lower case, always with a port. "" for what no request can be sent to.
func Canonical(u *url.URL) string {
	o, err := outbound.Origin(u.Scheme + "://" + u.Host)
	if err != nil {
		return ""
	}
	return o
}
