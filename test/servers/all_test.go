//go:build linux && servers

package servers_test

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
)

const about = `# MCP servers of other people, through Frontdesk

` + "`make servers`" + ` runs each as npm or PyPI has it, unmodified, hosted by Frontdesk, for two users at once, against a fake of the vendor's API that
knows whose credential it sees. It writes this table.

`

// TestServers tries all, and prints what an operator has to know.
func TestServers(t *testing.T) {
	rows := serve(t, asCommand, servers)
	var b strings.Builder
	fmt.Fprintln(&b, "| server | version | door | what is set | result, two users at once |")
	fmt.Fprintln(&b, "|---|---|---|---|---|")
	for _, r := range rows {
		var set []string
		for _, k := range slices.Sorted(maps.Keys(r.env)) {
			set = append(set, "`"+k+"="+r.env[k]+"`")
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", r.pkg, r.version, r.door, strings.Join(set, "<br>"), r.result)
	}
	fmt.Print(b.String())
	fmt.Println(rows[len(rows)-1].start)
	if path := os.Getenv("SERVERS_DOC"); path != "" && !t.Failed() {
		if err := os.WriteFile(path, []byte(about+b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
