package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"frontdesk.dev/frontdesk/cmd/frontdesk/config"
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
	want := manualHead + "```yaml\n" + readmeConfig(t) + "```\n" + conf.Manual(config.File{})
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

// pages are all that is written for people, by their path from here.
func pages(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, root := range []string{"../../README.md", "../../docs", "../../deploy", "../../internal/policy/pack", "../../test"} {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.Name() == "node_modules" {
				return filepath.SkipDir
			}
			if err != nil || filepath.Ext(path) != ".md" {
				return err
			}
			text, err := os.ReadFile(path)
			all[path] = string(text)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if len(all) < 20 {
		t.Fatalf("only %d pages", len(all))
	}
	return all
}

// anchors are the headings of a page, as GitHub names them.
func anchors(text string) map[string]bool {
	l := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^#+ (.+)$`).FindAllStringSubmatch(text, -1) {
		words := strings.ToLower(regexp.MustCompile(`[^\p{L}\p{N} _-]`).ReplaceAllString(m[1], ""))
		l[strings.ReplaceAll(words, " ", "-")] = true
		l[strings.ReplaceAll(strings.ToLower(m[1]), " ", "-")] = true
	}
	return l
}

// TestLinksOfTheDocs: each leads to a file that is there, and to a heading that it has; what is named as code is there too.
func TestLinksOfTheDocs(t *testing.T) {
	all := pages(t)
	for path, text := range all {
		for _, m := range regexp.MustCompile(`\]\(([^)\s]+)\)`).FindAllStringSubmatch(text, -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			file, anchor, _ := strings.Cut(m[1], "#")
			to := path
			if file != "" {
				to = filepath.Join(filepath.Dir(path), file)
			}
			if _, err := os.Stat(to); err != nil {
				t.Errorf("%s: %s leads nowhere", path, m[1])
			} else if anchor != "" && !anchors(all[to])[anchor] {
				t.Errorf("%s: %s has no heading %q", path, to, anchor)
			}
		}
		for _, m := range regexp.MustCompile("`((?:internal|test|cmd|deploy|docs|bench)/[\\w./-]+)`").FindAllStringSubmatch(text, -1) {
			if _, err := os.Stat(filepath.Join("../..", m[1])); err != nil {
				t.Errorf("%s: there is no %s", path, m[1])
			}
		}
	}
}

// TestTestsOfTheDocs: a test that a page names is there.
func TestTestsOfTheDocs(t *testing.T) {
	there := map[string]bool{}
	for _, root := range []string{"../../cmd", "../../internal", "../../test", "../../bench"} {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.Name() == "node_modules" {
				return filepath.SkipDir
			}
			if err != nil || !strings.HasSuffix(path, ".go") {
				return err
			}
			text, err := os.ReadFile(path)
			for _, m := range regexp.MustCompile(`(?m)^func ((?:Test|Fuzz|Benchmark)\w+)\(`).FindAllStringSubmatch(string(text), -1) {
				there[m[1]] = true
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for path, text := range pages(t) {
		for _, m := range regexp.MustCompile("`((?:Test|Fuzz|Benchmark)[A-Z]\\w*)").FindAllStringSubmatch(text, -1) {
			if !there[m[1]] {
				t.Errorf("%s: there is no %s", path, m[1])
			}
		}
	}
}

// TestCommandsOfTheDocs: a command that a page names is there, with its flags; and so is each target of make.
func TestCommandsOfTheDocs(t *testing.T) {
	makefile, err := os.ReadFile("../../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	for path, text := range pages(t) {
		for _, m := range regexp.MustCompile("(?m)(?:^ {4}|`)(?:\\$ )?frontdesk((?: [^`\n#|&>]+)?)").FindAllStringSubmatch(text, -1) {
			words := strings.Fields(m[1])
			if len(words) == 0 || words[0] == "-h" {
				continue
			}
			c, rest, err := root().Find(words)
			if err != nil || c == c.Root() && words[0] != "completion" && words[0] != "help" && !strings.HasPrefix(words[0], "-") {
				t.Errorf("%s: there is no command %q", path, "frontdesk"+m[1])
				continue
			}
			for _, w := range rest {
				name, _, _ := strings.Cut(strings.TrimLeft(w, "-"), "=")
				if strings.HasPrefix(w, "--") && c.Flag(name) == nil && c.InheritedFlags().Lookup(name) == nil {
					t.Errorf("%s: %q has no flag %s", path, c.CommandPath(), w)
				}
			}
		}
		for _, m := range regexp.MustCompile("(?m)(?:^ {4}|`)make ([a-z]+)").FindAllStringSubmatch(text, -1) {
			if !strings.Contains(string(makefile), "\n"+m[1]+":") {
				t.Errorf("%s: there is no target %s", path, m[1])
			}
		}
	}
}

// TestDecisionsAreNumbered: each number once, and each says why.
func TestDecisionsAreNumbered(t *testing.T) {
	l, err := filepath.Glob("../../docs/decisions/*.md")
	if err != nil || len(l) == 0 {
		t.Fatal(l, err)
	}
	seen := map[string]string{}
	for _, path := range l {
		number, _, _ := strings.Cut(filepath.Base(path), "-")
		if seen[number] != "" || len(number) != 4 {
			t.Errorf("%s and %s have one number", seen[number], path)
		}
		seen[number] = path
	}
}

// TestArchitectureNamesEveryRoom: a package that the floor plan does not name is one that nobody finds.
func TestArchitectureNamesEveryRoom(t *testing.T) {
	plan, err := os.ReadFile("../../docs/architecture.md")
	if err != nil {
		t.Fatal(err)
	}
	err = filepath.WalkDir("../../internal", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		if files, _ := filepath.Glob(filepath.Join(path, "*.go")); len(files) == 0 || path == "../../internal" {
			return nil
		}
		room, err := filepath.Rel("../../internal", path)
		short := filepath.Base(room)
		if !strings.Contains(string(plan), "`"+room+"`") && !strings.Contains(string(plan), "`"+short+"`") {
			t.Errorf("docs/architecture.md does not name %s", room)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
