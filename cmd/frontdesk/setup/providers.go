package setup

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"frontdesk.dev/frontdesk/cmd/frontdesk/config"
	"frontdesk.dev/frontdesk/cmd/frontdesk/console"
	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/catalog/live"
	"frontdesk.dev/frontdesk/internal/catalog/rehearsal"
	"frontdesk.dev/frontdesk/internal/identity"
)

func providersCommand() *cobra.Command {
	c := &cobra.Command{Use: "providers", Short: "the catalogue: what Frontdesk knows of vendors, and whether it gets along with what they document"}
	file := ""
	c.PersistentFlags().StringVar(&file, "config", "", "a config whose providers and inputs count too")
	c.AddCommand(
		&cobra.Command{Use: "list", Short: "every vendor, how a credential is obtained there, and how much of it is unproven", Args: cobra.NoArgs, RunE: func(c *cobra.Command, _ []string) error {
			return listProviders(c, file)
		}},
		&cobra.Command{Use: "show NAME", Short: "a vendor's entry, with what was not seen in its documentation marked", Args: cobra.ExactArgs(1), RunE: func(c *cobra.Command, args []string) error {
			return showProvider(c, file, args[0])
		}},
		&cobra.Command{Use: "test [NAME...]", Short: "play entries against what their vendors document, faults included; nothing leaves this machine", RunE: func(c *cobra.Command, args []string) error {
			return testProviders(c, file, args)
		}},
		seenCommand())
	return c
}

// seenCommand asks the running server how unproven facts have stood up so far.
func seenCommand() *cobra.Command {
	tenant := ""
	cmd := &cobra.Command{Use: "seen", Short: "what the running server has seen of the unproven facts of its upstreams",
		Long: "Each time somebody connects, a credential is renewed or ended, or an API refuses one, the running server holds the answer against what the vendor's entry says without proof.\n" +
			"differs: an answer in the last 30 days was not as the entry says: correct it under `providers:` of the config, with `like`.\nnot seen: nothing that would show it has come yet.  by hand: no answer shows it by itself; look at it yourself.",
		Args: cobra.NoArgs, RunE: func(c *cobra.Command, _ []string) error {
			var l []live.Fact
			if err := console.Ask(c, http.MethodGet, "/sightings?"+url.Values{"tenant": {tenant}}.Encode(), nil, &l); err != nil {
				return err
			}
			if done, err := console.JSON(c, l); done || err != nil {
				return err
			}
			if len(l) == 0 {
				fmt.Fprintln(c.OutOrStdout(), "All that the catalogue says of the configured upstreams was seen in a source.")
				return nil
			}
			w := tabwriter.NewWriter(c.OutOrStdout(), 0, 4, 2, ' ', 0)
			fmt.Fprintln(w, "UPSTREAM\tFACT\tVERDICT\tNOTED\tSEEN")
			for _, f := range l {
				at := "-"
				if !f.At.IsZero() {
					at = f.At.Format(time.DateOnly)
				}
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", f.Upstream, console.Printable(f.Fact), f.Verdict, at, console.Printable(cmp.Or(f.Said, "-")))
			}
			return w.Flush()
		}}
	cmd.Flags().StringVar(&tenant, "tenant", string(identity.DefaultTenant), "tenant")
	return cmd
}

// catalogueOf is the built-in catalogue, with a config's entries before it.
func catalogueOf(file string) (map[string]*catalog.Provider, *config.Config, error) {
	all, err := catalog.Providers()
	if err != nil || file == "" {
		return all, nil, err
	}
	cfg, err := config.Read(file, "")
	if err != nil {
		return nil, nil, err
	}
	return cfg.Vendors, cfg, nil
}

// listed is a line of the list.
type listed struct {
	ID       string   `json:"id"`
	Name     string   `json:"name"`
	Methods  []string `json:"methods"`
	Unproven []string `json:"unproven"`
}

func listProviders(c *cobra.Command, file string) error {
	all, _, err := catalogueOf(file)
	if err != nil {
		return err
	}
	var l []listed
	for _, id := range slices.Sorted(maps.Keys(all)) {
		p := all[id]
		e := listed{ID: id, Name: p.Name, Unproven: p.LowTrust}
		if p.OAuth != nil {
			e.Methods = append(e.Methods, string(catalog.AuthorizationCode))
		}
		if p.OAuth != nil && p.OAuth.Device.Authorization != "" {
			e.Methods = append(e.Methods, string(catalog.DeviceCode))
		}
		if p.APIKey != nil {
			e.Methods = append(e.Methods, string(catalog.APIKey))
		}
		for _, m := range p.Federation {
			e.Methods = append(e.Methods, string(m))
		}
		l = append(l, e)
	}
	if done, err := console.JSON(c, l); done || err != nil {
		return err
	}
	w := tabwriter.NewWriter(c.OutOrStdout(), 0, 0, 2, ' ', 0)
	for _, e := range l {
		fmt.Fprintf(w, "%s\t%s\t%s\t%d unproven\n", e.ID, e.Name, strings.Join(e.Methods, ", "), len(e.Unproven))
	}
	return w.Flush()
}

func unknownProvider(id string, all map[string]*catalog.Provider) error {
	help := "`frontdesk providers list` names them; one of a config is there with --config FILE"
	if near := config.Meant(id, all); near != "" {
		help = "did you mean " + near + "?"
	}
	return fmt.Errorf("there is no provider %q: %s", id, help)
}

// covers says which lines of an entry an unproven fact is about, where its name alone does not.
var covers = []struct{ fact, line *regexp.Regexp }{
	{regexp.MustCompile(`^(insufficient_scope|revoked_token|errors)`), regexp.MustCompile(`^signals:|^    expired:`)},
	{regexp.MustCompile(`^(refresh|lifetimes|PKCE refresh)`), regexp.MustCompile(`^  refresh:`)},
	{regexp.MustCompile(`lifetime`), regexp.MustCompile(`^    (idle|lifetime)_days:`)},
	{regexp.MustCompile(`grace`), regexp.MustCompile(`^    grace_seconds:`)},
	{regexp.MustCompile(`^revocation`), regexp.MustCompile(`^  revocation(_endpoint)?:`)},
	{regexp.MustCompile(`^pkce`), regexp.MustCompile(`^  no_pkce:`)},
	{regexp.MustCompile(`^account`), regexp.MustCompile(`^account:`)},
	{regexp.MustCompile(`(?i)endpoints?$`), regexp.MustCompile(`^  (authorization|token)_endpoint:`)},
	{regexp.MustCompile(`^federation`), regexp.MustCompile(`^federation:`)},
	{regexp.MustCompile(`^api_key`), regexp.MustCompile(`^api_key:`)},
	{regexp.MustCompile(`^injection`), regexp.MustCompile(`^injection:|^  injection:`)},
	{regexp.MustCompile(`^token_shapes`), regexp.MustCompile(`^token_shapes:`)},
	{regexp.MustCompile(`^hints`), regexp.MustCompile(`^hints:`)},
	{regexp.MustCompile(`^quotas`), regexp.MustCompile(`^quotas:`)},
	{regexp.MustCompile(`^retries`), regexp.MustCompile(`^retries:`)},
	{regexp.MustCompile(`^docs`), regexp.MustCompile(`^docs:`)},
	{regexp.MustCompile(`^all `), regexp.MustCompile(`^(oauth|api_key|account|injection|signals):`)},
}

func showProvider(c *cobra.Command, file, id string) error {
	all, cfg, err := catalogueOf(file)
	if err != nil {
		return err
	}
	p := all[id]
	if p == nil {
		return unknownProvider(id, all)
	}
	doc, err := p.JSON()
	if err != nil {
		return err
	}
	if done, err := console.JSON(c, doc); done || err != nil {
		return err
	}
	out, text := c.OutOrStdout(), catalog.Source(id)
	if cfg != nil {
		if _, own := cfg.Providers[id]; own {
			if text, err = p.Text(); err != nil {
				return err
			}
			text = "# As " + file + " says it" + likeWhom(p) + ".\n" + strings.ReplaceAll(text, "\nlike: "+p.Like+"\n", "\n")
		}
	}
	body := unprovenList.ReplaceAllString(text, "")
	for line := range strings.Lines(body + "\n") {
		if line = strings.TrimSuffix(line, "\n"); line == "" {
			continue
		}
		if unproven(line, p.LowTrust) {
			line += "   # UNPROVEN"
		}
		fmt.Fprintln(out, line)
	}
	if len(p.LowTrust) > 0 {
		fmt.Fprintf(out, "\nNot seen in the vendor's documentation: %s\nWhat live answers show of them, once somebody has connected: `frontdesk providers seen`\n", strings.Join(p.LowTrust, ", "))
	}
	return nil
}

// unprovenList is told in words instead.
var unprovenList = regexp.MustCompile(`(?m)^unproven:\n(-.*\n?|  -.*\n?)*`)

func likeWhom(p *catalog.Provider) string {
	if p.Like == "" {
		return ""
	}
	return ", and for the rest the built-in entry " + p.Like
}

func unproven(line string, facts []string) bool {
	for _, k := range covers {
		if k.line.MatchString(line) && slices.ContainsFunc(facts, k.fact.MatchString) {
			return true
		}
	}
	return false
}

// played is what became of one vendor's rehearsal.
type played struct {
	ID    string `json:"id"`
	Steps []step `json:"steps"`
}

type step struct {
	Name  string `json:"name"`
	Wrong string `json:"wrong,omitempty"`
}

func (p played) wrong() int {
	n := 0
	for _, s := range p.Steps {
		if s.Wrong != "" {
			n++
		}
	}
	return n
}

func testProviders(c *cobra.Command, file string, ids []string) error {
	all, cfg, err := catalogueOf(file)
	if err != nil {
		return err
	}
	vendors, err := rehearsal.Documented()
	if err != nil {
		return err
	}
	named := len(ids) > 0
	if !named {
		ids = slices.Sorted(maps.Keys(vendors))
	}
	of := func(id string) rehearsal.Vendor { // an entry that is like another one is played against that one's vendor
		if v, ok := vendors[id]; ok {
			return v
		}
		return vendors[all[id].Like]
	}
	for _, id := range ids { // before anything is played
		switch {
		case all[id] == nil:
			return unknownProvider(id, all)
		case of(id).ID == "":
			return fmt.Errorf("what %s documents of itself is not built in, so that there is nothing to play its entry against", all[id].Name)
		}
	}
	var l []played
	bad := 0
	for _, id := range ids {
		one := played{ID: id}
		for _, s := range rehearsal.Play(c.Context(), all[id], of(id), inputsOf(all[id], cfg)) {
			k := step{Name: s.Name}
			if s.Err != nil {
				k.Wrong = s.Err.Error()
			}
			one.Steps = append(one.Steps, k)
		}
		bad += one.wrong()
		l = append(l, one)
	}
	done, err := console.JSON(c, l)
	if err != nil {
		return err
	}
	if !done {
		tellPlayed(c.OutOrStdout(), l, named)
	}
	if bad > 0 {
		return errors.New("the catalogue and the vendors' documentation disagree in " + console.Plural(bad, "step", "steps"))
	}
	return nil
}

// tellPlayed lists vendors, with every step where they were asked for by name, else with what is wrong.
func tellPlayed(w io.Writer, l []played, named bool) {
	for _, one := range l {
		said := "as documented"
		if n := one.wrong(); n > 0 {
			said = fmt.Sprintf("%d wrong", n)
		}
		fmt.Fprintf(w, "%-20s %s, %s\n", one.ID, console.Plural(len(one.Steps), "step", "steps"), said)
		for _, s := range one.Steps {
			switch {
			case s.Wrong != "":
				fmt.Fprintf(w, "  WRONG %s: %s\n", s.Name, strings.ReplaceAll(s.Wrong, "\n", "; "))
			case named:
				fmt.Fprintf(w, "  ok    %s\n", s.Name)
			}
		}
	}
}

// inputsOf are the config's inputs of a vendor's first upstream, else values that its patterns let through.
func inputsOf(p *catalog.Provider, cfg *config.Config) map[string]string {
	values := map[string]string{}
	for name, in := range p.Inputs {
		values[name] = in.Default
		for _, v := range []string{"acme", "acme.example.com", "acme.workday.com", "acme.cloud.databricks.com", "eu-central-1", "us19", "1234567890", strings.Repeat("0123456789abcdef", 2),
			"AC" + strings.Repeat("0123456789abcdef", 2)} {
			if ok, err := regexp.MatchString(in.Pattern, v); values[name] == "" && ok && err == nil {
				values[name] = v
			}
		}
	}
	if cfg == nil {
		return values
	}
	for _, n := range slices.Sorted(maps.Keys(cfg.File.Upstreams)) {
		if u := cfg.File.Upstreams[n]; u.Provider == p.ID {
			maps.Copy(values, u.Inputs)
			break
		}
	}
	return values
}
