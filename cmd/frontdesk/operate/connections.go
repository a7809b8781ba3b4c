package operate

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"frontdesk.dev/frontdesk/cmd/frontdesk/console"
	"frontdesk.dev/frontdesk/internal/admin"
	"frontdesk.dev/frontdesk/internal/identity"
)

func connectionsCommand() *cobra.Command {
	c := &cobra.Command{Use: "connections", Short: "list, import and revoke people's connections"}
	var user, tenant string
	list := &cobra.Command{Use: "list --user USER", Short: "list a person's connections", Args: cobra.NoArgs, RunE: func(c *cobra.Command, _ []string) error {
		var l []admin.Connection
		if err := console.Ask(c, http.MethodGet, "/connections?"+url.Values{"user": {user}, "tenant": {tenant}}.Encode(), nil, &l); err != nil {
			return err
		}
		if done, err := console.JSON(c, l); done || err != nil {
			return err
		}
		w := tabwriter.NewWriter(c.OutOrStdout(), 0, 4, 2, ' ', 0)
		fmt.Fprintln(w, "ID\tUPSTREAM\tACCOUNT\tSTATUS\tSCOPES\tEXPIRES")
		for _, k := range l {
			expires := "-"
			if !k.Expires.IsZero() {
				expires = k.Expires.Format(time.RFC3339)
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", k.ID, k.Upstream, console.Printable(k.Account), console.Printable(strings.TrimSpace(string(k.Status)+" "+k.Reason)), strings.Join(k.Scopes, " "), expires)
		}
		return w.Flush()
	}}
	list.Flags().StringVar(&user, "user", "", "id, subject, name or e-mail")
	if err := list.MarkFlagRequired("user"); err != nil {
		panic(err) // a flag that does not exist: a slip in the line above
	}
	c.PersistentFlags().StringVar(&tenant, "tenant", string(identity.DefaultTenant), "tenant")
	c.AddCommand(list, revokeCommand(&tenant), endingsCommand(&tenant), importCommand(&tenant))
	return c
}
