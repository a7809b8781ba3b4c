package operate

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"

	"github.com/spf13/cobra"

	"frontdesk.dev/frontdesk/cmd/frontdesk/config"
	"frontdesk.dev/frontdesk/cmd/frontdesk/console"
	"frontdesk.dev/frontdesk/internal/connect/intake"
)

func importCommand(tenant *string) *cobra.Command {
	var o intake.Order
	c := &cobra.Command{Use: "import FILE", Short: "take over connections that people made elsewhere",
		Long: `Takes connections from a CSV file with a header, or a JSON array of objects; - is standard input. The columns, or members, are

  subject        of the person, at the company's IdP (what idp.subject_claim says)
  email          instead, of somebody who has signed in once
  upstream       its name in the config
  access_token, refresh_token, or api_key
  expires        of the access token or the key: 2027-01-31T15:00:00Z, 2027-01-31, or seconds since 1970
  scopes         that were granted, with spaces between; without, the upstream's own are taken for granted
  account, label the vendor's id and name of the account, where the vendor cannot be asked
  tenant         where it is another than --tenant

All problems are said at once, with their lines, and then nothing is stored (but see --partial). Each credential is tried at its vendor;
one that cannot be tried is renewed before it is used, and its connection is uncertain until then. Whoever renewed these tokens
until now must stop first: many vendors give out each refresh token for one use.

No agent may use an imported connection before its person has allowed it, or policy does. The file is not changed: destroy it.`,
		Args: cobra.ExactArgs(1), RunE: func(c *cobra.Command, args []string) error {
			file, err := secretFile(c, args[0])
			if err != nil {
				return err
			}
			defer func() { _ = file.Close() }() // it was only read
			var s map[string]string
			if err := console.Ask(c, http.MethodGet, "/status", nil, &s); err != nil {
				return err
			}
			if s["role"] == string(config.RoleGateway) { // it must not read the file, not even to say no
				return errors.New("this is the gateway's process: ask the broker's, by its --data-dir")
			}
			q := url.Values{"tenant": {*tenant}}
			for name, on := range map[string]bool{"dry_run": o.Dry, "partial": o.Partial, "new_people": o.NewPeople, "replace": o.Replace} {
				q.Set(name, strconv.FormatBool(on))
			}
			var r intake.Report
			if err := console.Ask(c, http.MethodPost, "/connections/import?"+q.Encode(), file, &r); err != nil {
				return err
			}
			if done, err := console.JSON(c, r); err != nil {
				return err
			} else if !done {
				importReport(c.OutOrStdout(), args[0], r)
			}
			if len(r.Problems) > 0 {
				return errors.New(console.Plural(len(r.Problems), "line was", "lines were") + " not imported")
			}
			return nil
		}}
	f := c.Flags()
	f.BoolVar(&o.Dry, "dry-run", false, "look at the file and try the credentials, and store nothing")
	f.BoolVar(&o.Partial, "partial", false, "store what is right, though other lines are wrong")
	f.BoolVar(&o.NewPeople, "new-people", false, "also for people who have never signed in, by their subject")
	f.BoolVar(&o.Replace, "replace", false, "also where the person has a working connection of that account here")
	return c
}

// secretFile opens a file that nobody else may read.
func secretFile(c *cobra.Command, path string) (io.ReadCloser, error) {
	if path == "-" {
		return io.NopCloser(c.InOrStdin()), nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o077 != 0 {
		err = fmt.Errorf("%s can be read by others (mode %04o), and is full of credentials: chmod 600, and think about who has read it", path, info.Mode().Perm())
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func importReport(w io.Writer, path string, r intake.Report) {
	for _, p := range r.Problems {
		fmt.Fprintf(w, "%s:%d: %s\n", path, p.Line, console.Printable(p.Message))
	}
	verb := "stored"
	if r.Dry {
		verb = "would be stored"
	}
	fmt.Fprintf(w, "%s: %d %s, %d there already", console.Plural(r.Lines, "connection", "connections"), r.Stored, verb, r.There)
	if r.Uncertain > 0 {
		fmt.Fprintf(w, "; %d to be renewed before they are used", r.Uncertain)
	}
	if r.Untested > 0 {
		fmt.Fprintf(w, "; %d could not be tried at their vendor", r.Untested)
	}
	fmt.Fprintln(w)
}
