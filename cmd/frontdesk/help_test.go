package main

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"frontdesk.dev/frontdesk/cmd/frontdesk/console"
)

// TestEveryCommandHelps: what it does, an example that is a command line of it, and its exit codes.
func TestEveryCommandHelps(t *testing.T) {
	c := root()
	console.Helpful(c, "", func() {})
	known := map[string]bool{}
	var look func(*cobra.Command)
	look = func(c *cobra.Command) {
		for _, sub := range c.Commands() {
			look(sub)
		}
		name := strings.TrimPrefix(c.CommandPath(), "frontdesk ")
		known[name] = true
		if c.Hidden || c.RunE == nil || c.HasParent() && c.Parent().Name() == "completion" {
			return
		}
		var out bytes.Buffer
		c.SetOut(&out)
		if err := c.Help(); err != nil {
			t.Fatal(err)
		}
		own := out.String()
		if c.Short == "" || !strings.Contains(own, "Exit codes:\n  0  ") {
			t.Errorf("%s --help says not what it does, or not what its exit codes mean:\n%s", c.CommandPath(), own)
		}
		if !c.HasSubCommands() && !strings.Contains(c.Example, c.CommandPath()) {
			t.Errorf("%s --help has no example of it", c.CommandPath())
		}
	}
	look(c)
	for name := range console.Examples {
		if !known[name] {
			t.Errorf("there is an example of %s, and no such command", name)
		}
	}
}

// TestCheckNamesTheOtherIssuer: a slash too few is the mistake that everybody makes once.
func TestCheckNamesTheOtherIssuer(t *testing.T) {
	idp := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		at := "http://" + r.Host + "/"
		_, _ = fmt.Fprintf(w, `{"issuer":%q,"authorization_endpoint":%q,"token_endpoint":%q,"jwks_uri":%q}`, at, at+"a", at+"t", at+"j")
	}))
	defer idp.Close()
	dir := t.TempDir()
	file := filepath.Join(dir, "frontdesk.yaml")
	text := "public_url: http://127.0.0.1:8080\nidp: {issuer: " + idp.URL + ", client_id: a, client_secret: file:s}\nservers:\n  one: {url: \"http://127.0.0.1:1/mcp\", allow: [everyone]}\n"
	for name, text := range map[string]string{file: text, filepath.Join(dir, "s"): "secret"} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c := root()
	c.SetOut(new(bytes.Buffer))
	c.SetArgs([]string{"check", "--online", file})
	err := c.Execute()
	var said bytes.Buffer
	if code := complain(&said, err); err == nil || code != console.ExitInvalid || !strings.Contains(said.String(), "frontdesk.yaml:2:15: the service at this address calls itself another issuer") || !strings.Contains(said.String(), `"`+idp.URL+`/"`) {
		t.Errorf("got %d %s", code, said.String())
	}
}
