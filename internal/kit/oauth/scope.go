package oauth

import (
	"cmp"
	"slices"
	"strings"
)

// ParseScopes splits a scope parameter (RFC 6749 s3.3) at sep, " " if empty. Empty entries and repetitions are
// dropped, the order of first appearance is kept. ok is false if an entry is not a scope token.
func ParseScopes(s, sep string) (scopes []string, ok bool) {
	for entry := range strings.SplitSeq(s, cmp.Or(sep, " ")) {
		if entry = strings.Trim(entry, " "); entry == "" || slices.Contains(scopes, entry) {
			continue
		}
		if !isScope(entry) || len(scopes) == maxScopes {
			return nil, false
		}
		scopes = append(scopes, entry)
	}
	return scopes, true
}

const (
	maxScopes   = 500
	maxScopeLen = 512
)

// isScope: 1*( %x21 / %x23-5B / %x5D-7E ), and short.
func isScope(s string) bool { return visible(s, maxScopeLen) && !strings.ContainsAny(s, `"\`) }

// JoinScopes is the inverse of ParseScopes.
func JoinScopes(scopes []string, sep string) string { return strings.Join(scopes, cmp.Or(sep, " ")) }

// HasScopes reports whether all of want are among have. No hierarchy is assumed: only the vendor knows whether
// "repo" holds "repo:status".
func HasScopes(have []string, want ...string) bool { return len(MissingScopes(have, want)) == 0 }

// MissingScopes returns those of want that are not in have, in the order of want, each once.
func MissingScopes(have, want []string) []string {
	var missing []string
	for _, w := range want {
		if !slices.Contains(have, w) && !slices.Contains(missing, w) {
			missing = append(missing, w)
		}
	}
	return missing
}

// UnionScopes returns a followed by what b adds, each once: the order is stable, so that the same question gives the
// same URL and the same audit record.
func UnionScopes(a, b []string) []string {
	union := MissingScopes(nil, a)
	return append(union, MissingScopes(union, b)...)
}
