package catalog

import (
	"net/url"
	"slices"
	"strings"
)

// Endpoint says whether an address takes GraphQL.
type Endpoint int

const (
	NotGraphQL       Endpoint = iota
	LooksLikeGraphQL          // by a spelling that some servers fold
	SpeaksGraphQL
)

// usualGraphQL are the paths at which GraphQL is spoken where the provider's facts name none.
var usualGraphQL = []string{"/graphql", "/api/graphql"}

// GraphQL says whether a target of this upstream takes GraphQL, by its path behind that of its origin.
func (u *Upstream) GraphQL(target *url.URL) Endpoint {
	paths := u.Provider.Egress.GraphQL
	if len(paths) == 0 {
		paths = usualGraphQL
	}
	path := target.EscapedPath()
	for _, o := range u.Origins {
		if base := strings.TrimSuffix(o.EscapedPath(), "/"); o.Host == target.Host && strings.HasPrefix(path, base+"/") {
			path = path[len(base):]
			break
		}
	}
	if slices.Contains(paths, path) {
		return SpeaksGraphQL
	}
	folded, _, _ := strings.Cut(strings.ToLower(path), ";")
	folded = strings.TrimRight(folded, "/")
	if slices.ContainsFunc(paths, func(p string) bool { return strings.ToLower(strings.TrimRight(p, "/")) == folded }) {
		return LooksLikeGraphQL
	}
	return NotGraphQL
}

// Operation names what a request to a target is, as "github/issues.create", by the upstream's description; "" where that does not
// say, or there is none. Parameters of its path do not count. reads: it is marked as changing nothing.
func (u *Upstream) Operation(method string, target *url.URL) (name string, reads bool) {
	if u.Described == nil || len(u.Origins) == 0 {
		return "", false
	}
	first, base := u.Origins[0], ""
	if first.Host == target.Host {
		base = strings.TrimSuffix(first.EscapedPath(), "/")
	}
	id, reads := u.Described.Find(method, target.Host, first.Host == target.Host, base, WithoutParameters(target.EscapedPath()))
	if id == "" {
		return "", false
	}
	return string(u.Name) + "/" + id, reads
}
