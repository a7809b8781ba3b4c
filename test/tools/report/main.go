// Command report reads the output of `go test -json` and prints what a person wants to know: failures whole, skips by
// name, and the sums. With CI=true a skip is a failure.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
)

type event struct {
	Action, Package, Test, Output string
	Elapsed                       float64
}

func main() {
	f, err := os.Open(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	defer func() { _ = f.Close() }()
	output := map[string]*strings.Builder{}
	var passed, failed int
	var skips, failures, counts []string
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var e event
		if json.Unmarshal(lines.Bytes(), &e) != nil {
			fmt.Println(lines.Text())
			continue
		}
		name := e.Package + " " + e.Test
		switch e.Action {
		case "output", "build-output":
			if output[name] == nil {
				output[name] = &strings.Builder{}
			}
			output[name].WriteString(e.Output)
			if said, ok := strings.CutPrefix(e.Output, "counts: "); ok {
				counts = append(counts, said)
			}
		case "pass":
			if e.Test != "" {
				passed++
			} else {
				fmt.Printf("ok    %s %.1fs\n", e.Package, e.Elapsed)
			}
		case "fail", "build-fail":
			failures = append(failures, name)
			if e.Test != "" {
				failed++
			}
		case "skip":
			if e.Test != "" {
				skips = append(skips, name+": "+reason(output[name]))
			}
		}
	}
	slices.Sort(failures)
	for _, n := range failures {
		fmt.Printf("--- FAIL %s\n", n)
		if output[n] != nil {
			fmt.Print(output[n])
		}
	}
	for _, s := range skips {
		fmt.Printf("SKIP  %s\n", s)
	}
	for _, c := range counts { // what a suite that is not ours counted
		fmt.Print(c)
	}
	fmt.Printf("%d passed, %d failed, %d skipped\n", passed, failed+boolInt(failed == 0 && len(failures) > 0), len(skips))
	if len(failures) > 0 || (len(skips) > 0 && os.Getenv("CI") == "true") || passed == 0 {
		os.Exit(1)
	}
}

// reason is the last line that a skipped test said.
func reason(b *strings.Builder) string {
	if b == nil {
		return ""
	}
	said := ""
	for line := range strings.Lines(b.String()) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "===") && !strings.HasPrefix(line, "---") {
			said = line
		}
	}
	return said
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}
