// Package console is what commands share: how they ask the running server through its admin socket, and how they speak with who typed them.
package console

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"frontdesk.dev/frontdesk/internal/admin"
	"frontdesk.dev/frontdesk/internal/kit/outbound"
)

// Exit codes. `audit verify` has its own (audit.Verdict).
const (
	ExitFailed  = 1 // what was asked for did not work
	ExitInvalid = 2 // the config, or the command line, is wrong
)

// UsageError is a command line that cannot be read.
type UsageError struct{ Err error }

// Error says what is wrong with it.
func (e UsageError) Error() string { return e.Err.Error() }

// Unwrap is what the flags' parser said.
func (e UsageError) Unwrap() error { return e.Err }

// Plural is a number with its noun.
func Plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return strconv.Itoa(n) + " " + many
}

// File is the config that a command is about.
func File(args []string) string {
	if len(args) > 0 {
		return args[0]
	}
	return "frontdesk.yaml"
}

// Socket is the admin socket's name in data_dir.
const Socket = "admin.sock"

// Ask sends a request to the running server's admin socket.
func Ask(c *cobra.Command, method, path string, body io.Reader, into any) error {
	dir, err := c.Flags().GetString("data-dir")
	if err != nil {
		return err
	}
	socket := filepath.Join(dir, Socket)
	if _, err := os.Stat(socket); err != nil {
		return fmt.Errorf("no server runs on %s: start `frontdesk serve`, or name its data_dir with --data-dir", dir)
	}
	r, err := http.NewRequestWithContext(c.Context(), method, "http://admin"+path, body)
	if err != nil {
		return err
	}
	resp, err := outbound.Unix(socket).RoundTrip(r)
	if err != nil {
		return fmt.Errorf("the server on %s does not answer: %w", dir, err)
	}
	return admin.Decode(resp, into)
}

// JSON reports whether --json was given, and prints v if so.
func JSON(c *cobra.Command, v any) (bool, error) {
	if on, err := c.Flags().GetBool("json"); err != nil || !on {
		return false, err
	}
	b, err := json.MarshalIndent(v, "", "  ")
	if err == nil {
		_, err = fmt.Fprintln(c.OutOrStdout(), PrintableJSON(b))
	}
	return true, err
}

// plays reports whether a character moves a terminal's cursor, colours it, or turns its lines about.
func plays(r rune) bool {
	return r < 0x20 || r >= 0x7f && r < 0xa0 || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069
}

// Printable keeps a foreign string from playing with the terminal.
func Printable(s string) string {
	return strings.Map(func(r rune) rune {
		if plays(r) {
			return '?'
		}
		return r
	}, s)
}

// PrintableText is Printable for a text of several lines.
func PrintableText(s string) string {
	return strings.Map(func(r rune) rune {
		if plays(r) && r != '\n' && r != '\t' {
			return '?'
		}
		return r
	}, s)
}

// PrintableJSON does so for JSON, in which it stays the same value: such characters stand in strings alone, but for those below a
// space, which are escaped there already.
func PrintableJSON(b []byte) string {
	var to strings.Builder
	for _, r := range string(b) {
		if r >= 0x7f && plays(r) {
			fmt.Fprintf(&to, "\\u%04x", r)
			continue
		}
		to.WriteRune(r)
	}
	return to.String()
}

// Lines passes JSON on as PrintableJSON has it: whole lines, as a log's handler writes them.
type Lines struct{ To io.Writer }

// Write implements io.Writer.
func (l Lines) Write(p []byte) (int, error) {
	if _, err := io.WriteString(l.To, PrintableJSON(p)); err != nil {
		return 0, err
	}
	return len(p), nil
}
