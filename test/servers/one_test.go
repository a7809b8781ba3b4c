//go:build linux && !servers

package servers_test

import (
	"slices"
	"testing"
)

// TestOneOfNpm is the one that every run tries, as a command and in an image; `make servers` tries all.
func TestOneOfNpm(t *testing.T) {
	i := slices.IndexFunc(servers, func(s server) bool { return s.name == "gitlab2" })
	for name, how := range map[string]way{"command": asCommand, "image": inImage} {
		t.Run(name, func(t *testing.T) { t.Log(serve(t, how, servers[i:i+1])) })
		t.Run(name+", which asks no proxy", func(t *testing.T) { t.Log(serve(t, how, []server{servers[i].alone()})) })
	}
}
