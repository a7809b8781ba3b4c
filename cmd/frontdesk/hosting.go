package main

import (
	"cmp"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"frontdesk.dev/frontdesk/cmd/frontdesk/config"
	"frontdesk.dev/frontdesk/internal/hosted"
	"frontdesk.dev/frontdesk/internal/hosted/image"
	"frontdesk.dev/frontdesk/internal/hosted/sandbox"
	"frontdesk.dev/frontdesk/internal/identity"
)

func serversCommand() *cobra.Command {
	c := &cobra.Command{Use: "servers", Short: "look at the servers that Frontdesk runs itself"}
	var user, tenant string
	c.PersistentFlags().StringVar(&tenant, "tenant", string(identity.DefaultTenant), "tenant")
	list := &cobra.Command{Use: "list", Short: "list their processes", Args: cobra.NoArgs, RunE: func(c *cobra.Command, _ []string) error {
		var l []hosted.State
		if err := ask(c, http.MethodGet, "/servers?"+url.Values{"tenant": {tenant}}.Encode(), nil, &l); err != nil {
			return err
		}
		if done, err := asJSON(c, l); done || err != nil {
			return err
		}
		w := tabwriter.NewWriter(c.OutOrStdout(), 0, 4, 2, ' ', 0)
		fmt.Fprintln(w, "SERVER\tUSER\tCLIENT\tPID\tSTARTED\tTOOK\tCALLS\tIMAGE\tLACKS")
		for _, s := range l {
			fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s\t%d ms\t%d\t%s\t%s\n", s.Server, s.User, printable(string(s.Client)), s.Pid, s.Started.Format(time.RFC3339), s.Took.Milliseconds(), s.Calls, cmp.Or(s.Image[:min(len(s.Image), 19)], "-"), strings.Join(slices.Sorted(maps.Keys(s.Missing)), " "))
		}
		return w.Flush()
	}}
	logs := &cobra.Command{Use: "logs NAME", Short: "print what a server's processes wrote last, and why one does not run", Args: cobra.ExactArgs(1), RunE: func(c *cobra.Command, args []string) error {
		var l []hosted.Log
		if err := ask(c, http.MethodGet, "/servers/"+url.PathEscape(args[0])+"/logs?"+url.Values{"user": {user}, "tenant": {tenant}}.Encode(), nil, &l); err != nil {
			return err
		}
		if done, err := asJSON(c, l); done || err != nil {
			return err
		}
		for _, g := range l {
			fmt.Fprintf(c.OutOrStdout(), "user %s, client %s\n", g.User, printable(string(g.Client)))
			for _, line := range g.Lines {
				fmt.Fprintf(c.OutOrStdout(), "  %s\n", printable(line))
			}
			if g.Failing != "" {
				fmt.Fprintf(c.OutOrStdout(), "  not running: %s\n", printable(g.Failing))
			}
		}
		return nil
	}}
	logs.Flags().StringVar(&user, "user", "", "id, subject, name or e-mail of a person; default: everybody")
	c.AddCommand(list, logs, imagesCommand(&tenant), pullCommand(&tenant))
	return c
}

// imagesCommand and pullCommand are about what servers with an image run in.
func imagesCommand(tenant *string) *cobra.Command {
	return &cobra.Command{Use: "images", Short: "list the images of servers, and which of them are here", Args: cobra.NoArgs, RunE: func(c *cobra.Command, _ []string) error {
		var l []hosted.ImageState
		if err := ask(c, http.MethodGet, "/images?"+url.Values{"tenant": {*tenant}}.Encode(), nil, &l); err != nil {
			return err
		}
		if done, err := asJSON(c, l); done || err != nil {
			return err
		}
		w := tabwriter.NewWriter(c.OutOrStdout(), 0, 4, 2, ' ', 0)
		fmt.Fprintln(w, "SERVER\tIMAGE\tSTATE")
		for _, i := range l {
			fmt.Fprintf(w, "%s\t%s\t%s\n", i.Server, i.Reference, printable(imageWords(i.State)))
		}
		return w.Flush()
	}}
}

func pullCommand(tenant *string) *cobra.Command {
	return &cobra.Command{Use: "pull NAME", Short: "look anew where the tag or file of a server's image leads, and fetch that; processes that run follow when they are idle",
		Args: cobra.ExactArgs(1), RunE: func(c *cobra.Command, args []string) error {
			var i hosted.ImageState
			if err := ask(c, http.MethodPost, "/servers/"+url.PathEscape(args[0])+"/pull?"+url.Values{"tenant": {*tenant}}.Encode(), nil, &i); err != nil {
				return err
			}
			if done, err := asJSON(c, i); done || err != nil {
				return err
			}
			_, err := fmt.Fprintf(c.OutOrStdout(), "%s: %s\n", i.Reference, printable(imageWords(i.State)))
			return err
		}}
}

// imageWords is a state in a line.
func imageWords(i image.State) string {
	words := string(i.Phase)
	if i.Digest != "" {
		words += " " + i.Digest
	}
	if i.Bytes > 0 {
		words += fmt.Sprintf(" (%d MiB)", (i.Bytes+1<<19)>>20)
	}
	if i.Why != "" {
		words += ": " + i.Why
	}
	return words
}

const imagePrefix = "image "

// images are doctor's words on them.
func images(status map[string]string) (l []finding) {
	for _, key := range slices.Sorted(maps.Keys(status)) {
		ref, ok := strings.CutPrefix(key, imagePrefix)
		state, _, _ := strings.Cut(status[key], " ")
		switch {
		case !ok:
		case state == string(image.Ready):
			l = append(l, finding{"ok", "image " + ref + ": " + status[key], ""})
		case state == string(image.Fetching):
			l = append(l, finding{"note", "image " + ref + ": " + status[key], "its servers answer when it is here"})
		default:
			l = append(l, finding{"bad", "image " + ref + ": " + status[key], "it is tried again every minute; `frontdesk servers pull NAME` does it now"})
		}
	}
	return l
}

// sandboxCommand is how the binary runs itself as the first process of a sandbox. It is for nobody's hands.
func sandboxCommand() *cobra.Command {
	return &cobra.Command{Use: sandbox.Command, Hidden: true, Args: cobra.NoArgs, RunE: func(*cobra.Command, []string) error {
		sandbox.Init()
		return fmt.Errorf("this is not for hands: `frontdesk serve` runs it")
	}}
}

// standing says which walls stand here, and why the others do not: one sandbox is built, by the process that would build the
// servers', and taken down again.
func standing() map[string]string {
	report := sandbox.Report{}
	c, err := sandbox.Build(sandbox.Setup{UID: 79_999, Memory: 64 << 20, Processes: 16, Files: 64})
	if err == nil {
		defer c.Kill()
		report = c.Report
	}
	found := map[string]string{}
	for _, m := range sandbox.Measures {
		switch {
		case err != nil:
			found[wallPrefix+string(m)] = err.Error()
		case !report.Held(m):
			found[wallPrefix+string(m)] = report[m]
		default:
			found[wallPrefix+string(m)] = stands
		}
	}
	return found
}

const (
	wallPrefix = "sandbox."
	stands     = "stands"
)

// walls are doctor's words on the sandbox: what stands, and what some server would not be started without.
func walls(c *config.Config, status map[string]string) (l []finding) {
	var up []string
	for _, m := range sandbox.Measures {
		why := status[wallPrefix+string(m)]
		if why == stands {
			up = append(up, string(m))
			continue
		}
		if names := c.Requiring(string(m)); len(names) > 0 {
			l = append(l, finding{"bad", fmt.Sprintf("sandbox: %s does not stand here (%s), so %s will not be started", m, why, strings.Join(names, ", ")), "docs/hosting.md says what it needs; `sandbox: {require: [...]}` says which must stand"})
		} else {
			l = append(l, finding{"note", fmt.Sprintf("sandbox: %s does not stand here: %s", m, why), ""})
		}
	}
	if len(up) == 0 {
		return l
	}
	return append([]finding{{"ok", "sandbox of hosted servers: these walls stand here: " + strings.Join(up, ", "), ""}}, l...)
}
