package main

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/kit/conf"
)

//go:generate go test . -run TestConfigManual -update

const manualHead = `# The config

One YAML file, ` + "`frontdesk.yaml`" + `. What is not understood is refused, with its line and what to write; ` + "`frontdesk check FILE`" + ` says all of it
before anything starts. Secrets stand elsewhere: ` + "`env:NAME`" + ` or ` + "`file:PATH`" + ` (a path is one beside the config file). ` + "`frontdesk schema`" + ` prints the
JSON Schema for editors: put ` + "`# yaml-language-server: $schema=frontdesk.schema.json`" + ` into the first line.

This page is made from the program's own types (` + "`make docs`" + `); a test fails when it is stale.

A whole one that works:

`

// TestConfigManual: docs/config.md says what the program reads.
func TestConfigManual(t *testing.T) {
	const path = "../../docs/config.md"
	want := manualHead + "```yaml\n" + readmeConfig(t) + "```\n" + conf.Manual(File{})
	if *update {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("docs/config.md is stale: run `make docs`\n%s", diff)
	}
	for line := range strings.Lines(want) {
		if cells := strings.Split(line, " | "); strings.HasPrefix(line, "| `") && strings.Trim(cells[2], " |\n") == "" {
			t.Errorf("a key without a word on what it is: %s", line)
		}
	}
}

// readmeConfig is the config that the README shows.
func readmeConfig(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile("(?s)```yaml\n(public_url.*?)```").FindSubmatch(text)
	if m == nil {
		t.Fatal("the README shows no config")
	}
	return string(m[1])
}

// TestInitStartsEveryProvider: what init writes for any vendor is a config that check accepts once it is filled in, and none
// before where something is to be filled in.
func TestInitStartsEveryProvider(t *testing.T) {
	all, err := catalog.Providers()
	if err != nil {
		t.Fatal(err)
	}
	// Inputs are hosts mostly; where a vendor's pattern wants more than a name, that.
	fill := map[string]string{"databricks": "acme.cloud.databricks.com", "workday": "acme.workday.com", "mailchimp": "us19", "quickbooks": `"1234567890"`,
		"trello": "0123456789abcdef0123456789abcdef", "twilio": "AC0123456789abcdef0123456789abcdef"}
	for id, p := range all {
		dir := t.TempDir()
		t.Chdir(dir)
		t.Setenv(secretVariable(p), "s")
		text := starter(p)
		for name, body := range map[string]string{"idp.secret": "s", "empty.yaml": text,
			"filled.yaml": strings.ReplaceAll(strings.NewReplacer("client_id: "+fillIn, "client_id: x", "tenant: "+fillIn, "tenant: acme", "cloud_id: "+fillIn, "cloud_id: 11223344-a1b2-4c3d-9e8f-001122334455", "region: "+fillIn, "region: eu-central-1",
				"role_arn: "+fillIn, "role_arn: arn:aws:iam::123456789012:role/agents", "installation_id: \""+fillIn, "installation_id: \"42").Replace(text), fillIn, cmpOr(fill[id], "acme"))} {
			if err := os.WriteFile(name, []byte(body), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := checked([]string{"filled.yaml"}); err != nil {
			t.Errorf("%s, filled in:\n%v", id, err)
		}
		if _, err := checked([]string{"empty.yaml"}); strings.Contains(text, fillIn) == (err == nil) {
			t.Errorf("%s, not filled in: %v", id, err)
		}
		if said := next(p); !strings.Contains(said, p.Name) || p.OAuth != nil && !strings.Contains(said, "/callback/"+id) {
			t.Errorf("%s: init says\n%s", id, said)
		}
	}
}
