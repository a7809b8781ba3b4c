package operate

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

	"frontdesk.dev/frontdesk/cmd/frontdesk/console"
	"frontdesk.dev/frontdesk/internal/hosted"
	"frontdesk.dev/frontdesk/internal/identity"
)

func serversCommand() *cobra.Command {
	c := &cobra.Command{Use: "servers", Short: "look at the servers that Frontdesk runs itself"}
	var user, tenant string
	c.PersistentFlags().StringVar(&tenant, "tenant", string(identity.DefaultTenant), "tenant")
	list := &cobra.Command{Use: "list", Short: "list their processes, and whose last one failed", Args: cobra.NoArgs, RunE: func(c *cobra.Command, _ []string) error {
		var l []hosted.State
		if err := console.Ask(c, http.MethodGet, "/servers?"+url.Values{"tenant": {tenant}}.Encode(), nil, &l); err != nil {
			return err
		}
		if done, err := console.JSON(c, l); done || err != nil {
			return err
		}
		w := tabwriter.NewWriter(c.OutOrStdout(), 0, 4, 2, ' ', 0)
		fmt.Fprintln(w, "SERVER\tUSER\tCLIENT\tPID\tSTARTED\tTOOK\tCALLS\tIMAGE\tLACKS")
		for _, s := range l {
			if s.Failing != "" {
				fmt.Fprintf(w, "%s\t%s\t%s\t-\t-\t-\t-\t-\tdoes not run: %s\n", s.Server, s.User, console.Printable(string(s.Client)), console.Printable(s.Failing))
				continue
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s\t%d ms\t%d\t%s\t%s\n", s.Server, s.User, console.Printable(string(s.Client)), s.Pid, s.Started.Format(time.RFC3339), s.Took.Milliseconds(), s.Calls, cmp.Or(s.Image[:min(len(s.Image), 19)], "-"), console.Printable(strings.Join(slices.Sorted(maps.Keys(s.Missing)), " ")))
		}
		return w.Flush()
	}}
	logs := &cobra.Command{Use: "logs NAME", Short: "print what a server's processes wrote last, and why one does not run", Args: cobra.ExactArgs(1), RunE: func(c *cobra.Command, args []string) error {
		var l []hosted.Log
		if err := console.Ask(c, http.MethodGet, "/servers/"+url.PathEscape(args[0])+"/logs?"+url.Values{"user": {user}, "tenant": {tenant}}.Encode(), nil, &l); err != nil {
			return err
		}
		if done, err := console.JSON(c, l); done || err != nil {
			return err
		}
		for _, g := range l {
			fmt.Fprintf(c.OutOrStdout(), "user %s, client %s\n", g.User, console.Printable(string(g.Client)))
			for _, line := range g.Lines {
				fmt.Fprintf(c.OutOrStdout(), "  %s\n", console.Printable(line))
			}
			if g.Failing != "" {
				fmt.Fprintf(c.OutOrStdout(), "  not running: %s\n", console.Printable(g.Failing))
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
		if err := console.Ask(c, http.MethodGet, "/images?"+url.Values{"tenant": {*tenant}}.Encode(), nil, &l); err != nil {
			return err
		}
		if done, err := console.JSON(c, l); done || err != nil {
			return err
		}
		w := tabwriter.NewWriter(c.OutOrStdout(), 0, 4, 2, ' ', 0)
		fmt.Fprintln(w, "SERVER\tIMAGE\tSTATE")
		for _, i := range l {
			fmt.Fprintf(w, "%s\t%s\t%s\n", i.Server, i.Reference, console.Printable(i.State.String()))
		}
		return w.Flush()
	}}
}

func pullCommand(tenant *string) *cobra.Command {
	return &cobra.Command{Use: "pull NAME", Short: "look anew where the tag or file of a server's image leads, and fetch that; processes that run follow when they are idle",
		Args: cobra.ExactArgs(1), RunE: func(c *cobra.Command, args []string) error {
			var i hosted.ImageState
			if err := console.Ask(c, http.MethodPost, "/servers/"+url.PathEscape(args[0])+"/pull?"+url.Values{"tenant": {*tenant}}.Encode(), nil, &i); err != nil {
				return err
			}
			if done, err := console.JSON(c, i); done || err != nil {
				return err
			}
			_, err := fmt.Fprintf(c.OutOrStdout(), "%s: %s\n", i.Reference, console.Printable(i.State.String()))
			return err
		}}
}
