package operate

import (
	"fmt"
	"net/http"

	"github.com/spf13/cobra"

	"frontdesk.dev/frontdesk/cmd/frontdesk/console"
)

func caCommand() *cobra.Command {
	c := &cobra.Command{Use: "ca", Short: "egress's certification authority, which MCP servers trust that use it as HTTPS_PROXY"}
	c.AddCommand(&cobra.Command{Use: "print", Short: "print its certificate in PEM; it is bound to the hosts of the config, and changes with them",
		Example: "  frontdesk ca print > frontdesk-ca.pem   # then NODE_EXTRA_CA_CERTS=frontdesk-ca.pem, or SSL_CERT_FILE", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			var said map[string]string
			if err := console.Ask(c, http.MethodGet, "/ca", nil, &said); err != nil {
				return err
			}
			_, err := fmt.Fprint(c.OutOrStdout(), said["pem"])
			return err
		}})
	return c
}
