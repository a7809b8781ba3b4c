package console

import (
	"strings"

	"github.com/spf13/cobra"
)

// Examples are shown by --help, by command; those that need room of their own stand with their command.
var Examples = map[string]string{
	"serve":               "frontdesk serve frontdesk.yaml",
	"check":               "frontdesk check frontdesk.yaml --online",
	"init":                "frontdesk init github > frontdesk.yaml",
	"schema":              "frontdesk schema > frontdesk.schema.json",
	"reload":              "frontdesk reload --data-dir /var/lib/frontdesk",
	"doctor":              "frontdesk doctor --data-dir /var/lib/frontdesk",
	"version":             "frontdesk version",
	"backup":              "frontdesk backup desk-0412.backup --config /etc/frontdesk/frontdesk.yaml",
	"restore":             "frontdesk restore --check desk-0412.backup\n  frontdesk restore desk-0412.backup",
	"keys list":           "frontdesk keys list",
	"keys copy":           "frontdesk keys copy /run/secrets/frontdesk /var/lib/frontdesk",
	"keys rotate":         "frontdesk keys rotate",
	"keys retire":         "frontdesk keys retire",
	"keys shred":          "frontdesk keys shred --tenant acme --yes",
	"connections list":    "frontdesk connections list --user alice",
	"connections import":  "frontdesk connections import old.csv",
	"connections endings": "frontdesk connections endings",
	"access end":          "frontdesk access end --user alice",
	"audit tail":          "frontdesk audit tail -f --user alice",
	"audit export":        "frontdesk audit export > audit.jsonl",
	"audit verify":        "frontdesk audit verify --pubkey log.key --checkpoint frontdesk.checkpoints --vault",
	"audit key":           "frontdesk audit key > log.key",
	"servers list":        "frontdesk servers list",
	"servers images":      "frontdesk servers images",
	"servers logs":        "frontdesk servers logs issues",
	"servers pull":        "frontdesk servers pull issues",
	"providers list":      "frontdesk providers list",
	"providers show":      "frontdesk providers show github",
	"providers seen":      "frontdesk providers seen",
	"providers test":      "frontdesk providers test github slack",
}

const exitCodes = `
Exit codes:
  0  done
  1  it did not work; the sentence says why
  2  the config, or the command line, is wrong
`

// verdicts are those of audit verify, which says with its code what it found.
const verdicts = `
Exit codes:
  0  whole
  1  something is not what was written; the first is named
  2  there was more: what a checkpoint has seen is missing
  3  two records in one place, or others than a checkpoint has seen
  4  an intent without outcome, or an outcome without intent
  5  the log could not be read
`

// Helpful gives every command below c its example and its exit codes, and calls ran when one begins: what is wrong before is the command line.
func Helpful(c *cobra.Command, name string, ran func()) {
	for _, sub := range c.Commands() {
		Helpful(sub, strings.TrimSpace(name+" "+sub.Name()), ran)
	}
	if e := Examples[name]; e != "" && c.Example == "" {
		c.Example = "  " + e
	}
	codes := exitCodes
	if name == "audit verify" {
		codes = verdicts
	}
	c.SetUsageTemplate(c.Root().UsageTemplate() + codes)
	if run := c.RunE; run != nil {
		c.RunE = func(c *cobra.Command, args []string) error { ran(); return run(c, args) }
	}
}
