package operate

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"frontdesk.dev/frontdesk/cmd/frontdesk/console"
	"frontdesk.dev/frontdesk/internal/admin"
	"frontdesk.dev/frontdesk/internal/ending"
	"frontdesk.dev/frontdesk/internal/identity"
)

// orderFlags are those that say whose.
func orderFlags(c *cobra.Command, o *admin.Order, connections bool) {
	f := c.Flags()
	names := []string{"user", "client", "all"}
	f.StringVar(&o.User, "user", "", "of a person: id, subject, name or e-mail")
	f.StringVar(&o.Client, "client", "", "of an agent, by its client_id")
	f.BoolVar(&o.All, "all", false, "of everybody of the tenant")
	if connections {
		f.StringVar(&o.Server, "server", "", "of everybody who let this MCP server use them")
		f.StringVar(&o.Upstream, "upstream", "", "at this upstream")
		names = append(names, "server", "upstream")
	}
	c.MarkFlagsMutuallyExclusive(names...)
}

func post(c *cobra.Command, path, tenant string, o admin.Order, into any) error {
	body, err := json.Marshal(o)
	if err != nil {
		return err
	}
	return console.Ask(c, http.MethodPost, path+"?tenant="+url.QueryEscape(tenant), bytes.NewReader(body), into)
}

func revokeCommand(tenant *string) *cobra.Command {
	var o admin.Order
	wait := false
	c := &cobra.Command{Use: "revoke [ID]", Short: "end a connection, or all of somebody, here at once, and at the vendors where they let us", Args: cobra.MaximumNArgs(1),
		Example: "  frontdesk connections revoke 0123456789abcdef0123456789abcdef\n  frontdesk connections revoke --upstream github --wait",
		RunE: func(c *cobra.Command, args []string) error {
			if (len(args) == 1) == (o != admin.Order{}) {
				return errors.New("say which: the id of one connection, or whose with --user, --client, --server, --upstream or --all")
			}
			if len(args) == 1 {
				return revokeOne(c, args[0], *tenant)
			}
			var said admin.Ended
			if err := post(c, "/connections/revoke", *tenant, o, &said); err != nil {
				return err
			}
			if done, err := console.JSON(c, said); done || err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "%s ended here; vendors: %s\n", console.Plural(said.Connections, "connection", "connections"), progress(said.Progress))
			if !wait {
				return nil
			}
			return follow(c, *tenant, said.Progress)
		}}
	orderFlags(c, &o, true)
	c.Flags().BoolVar(&wait, "wait", false, "wait until vendors have confirmed, or the rest waits for a later try")
	return c
}

func revokeOne(c *cobra.Command, id, tenant string) error {
	var said map[string]string
	if err := console.Ask(c, http.MethodPost, "/connections/"+url.PathEscape(id)+"/revoke?tenant="+url.QueryEscape(tenant), nil, &said); err != nil {
		return err
	}
	sentence := map[string]string{"confirmed": "ended here, and the vendor confirmed", "here": "ended here; the vendor offers no way, end it there by hand",
		"trying": "ended here; the vendor has not answered yet and is asked again"}[said["ended"]]
	_, err := fmt.Fprintln(c.OutOrStdout(), sentence)
	return err
}

func progress(p ending.Progress) string {
	if p == (ending.Progress{}) {
		return "all confirmed"
	}
	return fmt.Sprintf("%d to be told, %d not confirmed yet, %d to be ended by hand (frontdesk connections endings)", p.Marked, p.Waiting, p.GivenUp)
}

// follow prints how far it is, until nothing changes any more that a person would wait for.
func follow(c *cobra.Command, tenant string, last ending.Progress) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for still := 0; last.Marked+last.Waiting > 0 && still < 20; still++ {
		select {
		case <-c.Context().Done():
			return c.Context().Err()
		case <-tick.C:
		}
		var now admin.Unconfirmed
		if err := console.Ask(c, http.MethodGet, "/endings?tenant="+url.QueryEscape(tenant), nil, &now); err != nil {
			return err
		}
		if now.Progress != last {
			last, still = now.Progress, 0
			fmt.Fprintf(c.OutOrStdout(), "vendors: %s\n", progress(last))
		}
	}
	return nil
}

func endingsCommand(tenant *string) *cobra.Command {
	return &cobra.Command{Use: "endings", Short: "list what vendors have not confirmed to have ended", Args: cobra.NoArgs, RunE: func(c *cobra.Command, _ []string) error {
		var l admin.Unconfirmed
		if err := console.Ask(c, http.MethodGet, "/endings?tenant="+url.QueryEscape(*tenant), nil, &l); err != nil {
			return err
		}
		if done, err := console.JSON(c, l); done || err != nil {
			return err
		}
		fmt.Fprintf(c.OutOrStdout(), "vendors: %s\n", progress(l.Progress))
		if len(l.Endings) == 0 {
			return nil
		}
		w := tabwriter.NewWriter(c.OutOrStdout(), 0, 4, 2, ' ', 0)
		fmt.Fprintln(w, "CONNECTION\tUSER\tUPSTREAM\tENDED HERE\tTRIES\tNEXT\tWHY")
		for _, e := range l.Endings {
			next := e.Next.Format(time.RFC3339)
			if !e.GivenUp.IsZero() {
				next = "given up"
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%s\t%s\n", e.Connection, e.User, e.Upstream, e.Since.Format(time.RFC3339), e.Tries, next, console.Printable(e.Why))
		}
		return w.Flush()
	}}
}

func accessCommand() *cobra.Command {
	c := &cobra.Command{Use: "access", Short: "end the access of a person, of an agent, or of everybody"}
	var tenant string
	var o admin.Order
	end := &cobra.Command{Use: "end --user USER | --client ID | --all", Short: "end tokens, sessions, streams, hosted processes and grants; connections stay (connections revoke)", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if (o == admin.Order{}) {
				return console.UsageError{Err: errors.New("say whose: --user, --client or --all")}
			}
			var said map[string]string
			if err := post(c, "/access/end", tenant, o, &said); err != nil {
				return err
			}
			_, err := fmt.Fprintf(c.OutOrStdout(), "access %s has ended; what runs ends within 5 seconds, on every replica\n", console.Printable(said["ended"]))
			return err
		}}
	orderFlags(end, &o, false)
	c.PersistentFlags().StringVar(&tenant, "tenant", string(identity.DefaultTenant), "tenant")
	c.AddCommand(end)
	return c
}
