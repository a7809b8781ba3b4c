package console_test

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"strings"
	"testing"

	"frontdesk.dev/frontdesk/cmd/frontdesk/console"
)

// TestPrintable: nothing that a stranger wrote moves the cursor or turns lines about, as text, as JSON and in the log; and JSON stays the
// value that it was.
func TestPrintable(t *testing.T) {
	const foreign = "a\x1b[31m\u009b2J\x7f\u202e\u2066\n\t\"\\é€𝄞"
	const plays = "\x1b\u009b\x7f\u202e\u2066"
	if got := console.Printable(foreign); got != "a?[31m?2J?????\"\\é€𝄞" {
		t.Errorf("as text: %q", got)
	}
	if got := console.PrintableText(foreign); got != "a?[31m?2J???\n\t\"\\é€𝄞" {
		t.Errorf("as lines: %q", got)
	}
	b, err := json.MarshalIndent(map[string]string{foreign: foreign}, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	var v map[string]string
	if got := console.PrintableJSON(b); strings.ContainsAny(got, plays) || json.Unmarshal([]byte(got), &v) != nil || v[foreign] != foreign {
		t.Errorf("as JSON: %q is %q", got, v)
	}
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(console.Lines{To: &log}, nil)).Info(foreign, "said", foreign)
	var line map[string]string
	if got := log.String(); strings.ContainsAny(got, plays) || strings.Count(got, "\n") != 1 || json.Unmarshal(log.Bytes(), &line) != nil || line["said"] != foreign || line["msg"] != foreign {
		t.Errorf("in the log: %q", got)
	}
}
