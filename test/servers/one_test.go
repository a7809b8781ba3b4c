//go:build linux && !servers

package servers_test

import (
	"slices"
	"testing"
)

// TestOneOfNpm is the one that every run tries; `make servers` tries all.
func TestOneOfNpm(t *testing.T) {
	i := slices.IndexFunc(servers, func(s server) bool { return s.name == "gitlab2" })
	serve(t, servers[i:i+1])
}
