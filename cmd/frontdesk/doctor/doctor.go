// Package doctor looks at a running server and its files, and says what is not as it should be. The server's words that it reads
// are declared here too.
package doctor

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"frontdesk.dev/frontdesk/cmd/frontdesk/config"
	"frontdesk.dev/frontdesk/cmd/frontdesk/console"
	"frontdesk.dev/frontdesk/internal/catalog/live"
	"frontdesk.dev/frontdesk/internal/kit/conf"
)

// finding is one thing that doctor looked at.
type finding struct {
	Verdict string `json:"verdict"` // ok, note, bad
	What    string `json:"what"`
	Help    string `json:"help,omitempty"`
}

// Command is `frontdesk doctor`.
func Command() *cobra.Command {
	blast := false
	cmd := &cobra.Command{Use: "doctor", Short: "look at the running server and its files, and say what is not as it should be",
		Long: "Looks at the files in --data-dir, asks the running server how it is, and reads its config as `check` does.\nExits with 1 if anything is not as it should be.",
		Args: cobra.NoArgs, RunE: func(c *cobra.Command, _ []string) error {
			dir, err := c.Flags().GetString("data-dir")
			if err != nil {
				return err
			}
			found := append(files(dir), running(c)...)
			if blast {
				found = radius(c)
			}
			bad := 0
			for _, f := range found {
				if f.Verdict == "bad" {
					bad++
				}
			}
			if done, err := console.JSON(c, found); err != nil {
				return err
			} else if !done {
				for _, f := range found {
					fmt.Fprintf(c.OutOrStdout(), "%-5s %s\n", f.Verdict, console.PrintableText(f.What))
					if f.Help != "" {
						fmt.Fprintf(c.OutOrStdout(), "        help: %s\n", f.Help)
					}
				}
			}
			if bad > 0 {
				return errors.New(console.Plural(bad, "thing is", "things are") + " not as they should be")
			}
			return nil
		}}
	cmd.Flags().BoolVar(&blast, "blast-radius", false, "say what an intruder gets of each part of this deployment; the gateway's database account is tried")
	return cmd
}

// files looks at who can read what holds secrets.
func files(dir string) []finding {
	if _, err := os.Stat(dir); err != nil {
		return []finding{{"bad", "data_dir " + dir + " does not exist", "start `frontdesk serve`, or name its data_dir with --data-dir"}}
	}
	var l []finding
	for _, name := range []string{".", "vault.key", "faces.key", "frontdesk.db", console.Socket} {
		path := filepath.Join(dir, name)
		info, err := os.Stat(path)
		switch {
		case errors.Is(err, os.ErrNotExist) && name != console.Socket: // kept elsewhere: keys by the config, rows by PostgreSQL
		case err != nil && name == console.Socket: // told with the server
		case err != nil:
			l = append(l, finding{"bad", path + " cannot be looked at", "run this as the user that runs the server"})
		case info.Mode().Perm()&0o077 != 0:
			l = append(l, finding{"bad", fmt.Sprintf("%s can be read by others (mode %04o)", path, info.Mode().Perm()), "chmod go= " + path})
		default:
			l = append(l, finding{"ok", path + " is its owner's alone", ""})
		}
	}
	return l
}

// running asks the server.
func running(c *cobra.Command) []finding {
	var s map[string]string
	if err := console.Ask(c, http.MethodGet, "/status", nil, &s); err != nil {
		return []finding{{"bad", err.Error(), ""}}
	}
	l := []finding{{"ok", "the server runs for " + s["public_url"] + " (" + s["version"] + ")", ""}}
	if s["database"] == "answers" {
		l = append(l, finding{"ok", "the database answers", ""})
	} else {
		l = append(l, finding{"bad", "the database " + s["database"], "calls are refused until it answers; the server goes on by itself then"})
	}
	if s["lagging_standbys"] != "" {
		l = append(l, finding{"note", "PostgreSQL has " + s["lagging_standbys"] + " and waits for none (synchronous_standby_names is empty): what was stored last is gone where one is promoted", "name a standby there, better two; docs/operate.md says what is lost otherwise, and what is done about it"})
	}
	if s["keys"] != "" {
		l = append(l, finding{"bad", "keys: " + s["keys"], "docs/operate.md#keys says what goes on meanwhile"})
	}
	if s["needs_reconnect"] != "" && s["needs_reconnect"] != "0" {
		l = append(l, finding{"note", s["needs_reconnect"] + " connections wait for their users to connect again", "`frontdesk connections list --user USER` says why"})
	}
	if config.Role(s["role"]) != config.RoleGateway {
		l = append(l, unlike(c)...)
	}
	if s["checkpoints_outside"] != "" {
		l = append(l, finding{"bad", "checkpoints of the audit log are not kept outside: " + s["checkpoints_outside"], "they are sent as soon as the place takes them"})
	}
	l = append(l, brokers(s)...)
	if s["releases_refused"] != "" {
		l = append(l, finding{"bad", "domains.releases has refused credentials since this broker was started: " + s["releases_refused"], "`frontdesk audit tail` says whose (releases.bounded); where it is no busy agent, somebody else steers a gateway"})
	}
	for _, key := range slices.Sorted(maps.Keys(s)) {
		if host, ok := strings.CutPrefix(key, "down "); ok {
			l = append(l, finding{"note", host + ": " + s[key], "requests to it are answered with 503 until then; other replicas find out by themselves"})
		}
	}
	l = append(l, finding{"note", "exposure: " + s["exposure"], "docs/security.md says what an attacker gets of each part"})
	cfg, err := configOf(s)
	if problems, ok := errors.AsType[conf.Problems](err); ok {
		return append(l, finding{"bad", "the config on disk would be refused at the next start: " + console.Plural(len(problems), "problem", "problems"), "frontdesk check " + s["config"]})
	} else if err != nil {
		return append(l, finding{"bad", err.Error(), ""})
	}
	if config.Role(s["role"]) != config.RoleAll {
		l = append(l, pairing(cfg, s, time.Now())...)
	}
	for _, w := range cfg.Warnings {
		l = append(l, finding{"note", w, ""})
	}
	if len(cfg.Audit.Checkpoints) == 0 {
		l = append(l, finding{"note", "checkpoints of the audit log are in its database alone: who can put that back to an earlier state is not found out", "name a place for them: audit: {checkpoints: [{file: PATH}]}"})
	}
	if config.Role(s["role"]) != config.RoleBroker { // nothing foreign runs there
		l = append(append(l, walls(cfg, s)...), images(s)...)
	}
	if cfg.Digest != s["config_digest"] {
		return append(l, finding{"note", "the config on disk is not the one that runs", "frontdesk reload"})
	}
	return append(l, finding{"ok", "the config on disk is the one that runs", ""})
}

// unlike names vendors that are not as their entries say.
func unlike(c *cobra.Command) []finding {
	var facts []live.Fact
	if err := console.Ask(c, http.MethodGet, "/sightings", nil, &facts); err != nil {
		return []finding{{"bad", "what vendors have shown of themselves cannot be asked: " + err.Error(), ""}}
	}
	var l []finding
	for _, f := range facts {
		if f.Verdict == live.Differs {
			l = append(l, finding{"note", fmt.Sprintf("upstream %s is not as its entry says, where that was unproven (%s): %s", f.Upstream, f.Fact, f.Said), "correct the entry under `providers:` of the config, with `like`; `frontdesk providers seen` lists all"})
		}
	}
	return l
}
