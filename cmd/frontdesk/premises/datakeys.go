package premises

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"frontdesk.dev/frontdesk/cmd/frontdesk/console"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/vault"
)

// dataKeyCommands list and change the data keys of a running server's tenant.
func dataKeyCommands() []*cobra.Command {
	var tenant string
	at := func(path string) string { return path + "?tenant=" + url.QueryEscape(tenant) }
	list := &cobra.Command{Use: "list", Short: "list data keys, and how many connections each has sealed", Args: cobra.NoArgs, RunE: func(c *cobra.Command, _ []string) error {
		var l []vault.KeyState
		if err := console.Ask(c, http.MethodGet, at("/keys"), nil, &l); err != nil {
			return err
		}
		if done, err := console.JSON(c, l); done || err != nil {
			return err
		}
		w := tabwriter.NewWriter(c.OutOrStdout(), 0, 4, 2, ' ', 0)
		fmt.Fprintln(w, "ID\tCREATED\tSTATE\tCONNECTIONS")
		for _, k := range l {
			state := "opens"
			switch {
			case k.Broken:
				state = "does not open"
			case k.Seals:
				state = "seals"
			case time.Now().Before(k.From):
				state = "seals from " + k.From.Format(time.RFC3339)
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%d\n", k.ID, k.Created.Format(time.RFC3339), state, k.Rows)
		}
		if err := w.Flush(); err != nil {
			return err
		}
		if done, all := resealed(l); done < all {
			_, err := fmt.Fprintf(c.OutOrStdout(), "%d of %d connections are sealed with the key that seals now (%d%%); the others follow, one replica at a time\n", done, all, 100*done/all)
			return err
		}
		return nil
	}}
	act := func(use, short, long, done string) *cobra.Command {
		verb, _, _ := strings.Cut(use, " ")
		return &cobra.Command{Use: use, Short: short, Long: long, Args: cobra.NoArgs, RunE: func(c *cobra.Command, _ []string) error {
			if yes := c.Flags().Lookup("yes"); yes != nil && yes.Value.String() != "true" {
				return errors.New("this cannot be undone; add --yes")
			}
			var said map[string]any
			if err := console.Ask(c, http.MethodPost, at("/keys/"+verb), nil, &said); err != nil {
				return err
			}
			_, err := fmt.Fprintf(c.OutOrStdout(), done+"\n", said["keys"])
			return err
		}}
	}
	rotate := act("rotate", "add a new data key",
		"The new key is read by every replica within minutes, then seals; what the old one sealed is sealed anew while calls go on. `frontdesk keys list` shows how far it is.",
		"a new data key is on its way (%v there now); `frontdesk keys list` shows when it seals, and what is still sealed with the old one")
	retire := act("retire", "drop data keys with which nothing is sealed any more", "What an older backup holds cannot be opened afterwards.", "%v data keys dropped")
	shred := act("shred", "drop all data keys of a tenant: nothing of it opens again", "Every connection of the tenant has to be made anew. Backups that were made before hold the wrapped keys: destroy them too.",
		"%v data keys dropped; nothing that they sealed opens again")
	shred.Flags().Bool("yes", false, "do it")
	l := []*cobra.Command{list, rotate, retire, shred}
	for _, c := range l {
		c.Flags().StringVar(&tenant, "tenant", string(identity.DefaultTenant), "tenant")
	}
	return l
}

// resealed counts the connections that the current key has sealed, and all.
func resealed(l []vault.KeyState) (done, all int) {
	for _, k := range l {
		if all += k.Rows; k.Seals {
			done = k.Rows
		}
	}
	return done, all
}
