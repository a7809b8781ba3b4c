package premises

import (
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"frontdesk.dev/frontdesk/internal/kit/outbound"
	"frontdesk.dev/frontdesk/internal/store"
)

func pairCommand() *cobra.Command {
	return &cobra.Command{Use: "pair DIR", Short: "make the two certificates by which gateway and broker know each other", Args: cobra.ExactArgs(1),
		Long:    "Makes gateway.crt, gateway.key, broker.crt and broker.key in DIR; what is there already stays. Each side needs its own pair, and the\nother's certificate; no key has to leave the host that uses it (docs/domains.md).",
		Example: "  frontdesk pair ./pair",
		RunE: func(c *cobra.Command, args []string) error {
			if err := os.MkdirAll(args[0], 0o700); err != nil {
				return err
			}
			for _, name := range []string{"gateway", "broker"} {
				if err := outbound.MakePin(args[0], name, time.Now()); err != nil {
					return err
				}
			}
			_, err := fmt.Fprintf(c.OutOrStdout(), "gateway.crt, gateway.key, broker.crt and broker.key are in %s. In the config:\n\n  domains:\n    address: BROKER-HOST:8443\n    gateway: {cert: file:%[1]s/gateway.crt, key: file:%[1]s/gateway.key}\n    broker: {cert: file:%[1]s/broker.crt, key: file:%[1]s/broker.key}\n    database: env:GATEWAY_DATABASE_URL\n", args[0])
			return err
		}}
}

func databaseCommand() *cobra.Command {
	c := &cobra.Command{Use: "database", Short: "what the database needs where gateway and broker are two processes"}
	c.AddCommand(&cobra.Command{Use: "grants ACCOUNT", Short: "print the SQL that gives the gateway's own account its rights, and no others", Args: cobra.ExactArgs(1),
		Long:    "Prints SQL for the owner of the tables to run, after the broker has made them, and again after an upgrade. The account has to exist:\n\n  CREATE ROLE frontdesk_gateway LOGIN PASSWORD '...';",
		Example: `  frontdesk database grants frontdesk_gateway | psql "$DATABASE_URL"`,
		RunE: func(c *cobra.Command, args []string) error {
			_, err := fmt.Fprint(c.OutOrStdout(), store.GuestGrants(args[0]))
			return err
		}})
	return c
}
