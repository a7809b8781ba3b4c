package premises

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"frontdesk.dev/frontdesk/internal/kit/web"
	"frontdesk.dev/frontdesk/internal/vault/kms"
)

// The two key files, as they are called in data_dir.
const (
	vaultKey = "vault.key"
	facesKey = "faces.key"
)

func keysCommand() *cobra.Command {
	c := &cobra.Command{Use: "keys", Short: "make key files, and rotate what they wrap"}
	c.AddCommand(&cobra.Command{Use: "make DIR", Short: "make vault.key and faces.key in DIR; what is there already stays", Args: cobra.ExactArgs(1),
		Example: "  frontdesk keys make . && kubectl create secret generic frontdesk-keys --from-file=vault.key --from-file=faces.key",
		RunE: func(c *cobra.Command, args []string) error {
			if err := os.MkdirAll(args[0], 0o700); err != nil {
				return err
			}
			if err := openKeys(args[0], true); err != nil {
				return err
			}
			_, err := fmt.Fprintf(c.OutOrStdout(), "%s and %s are in %s. With the database, the first opens every credential: keep a copy, and keep it apart from the database's.\n", vaultKey, facesKey, args[0])
			return err
		}},
		&cobra.Command{Use: "copy FROM TO", Short: "copy the key files from a mounted secret to where they are the process's alone (mode 0600)", Args: cobra.ExactArgs(2),
			RunE: func(_ *cobra.Command, args []string) error {
				for _, name := range []string{vaultKey, facesKey} {
					text, err := os.ReadFile(filepath.Join(args[0], name))
					if err != nil {
						return fmt.Errorf("%s holds no %s: `frontdesk keys make` makes one", args[0], name)
					}
					if err := os.WriteFile(filepath.Join(args[1], name), text, 0o600); err != nil {
						return err
					}
				}
				return openKeys(args[1], false)
			}})
	l := dataKeyCommands()
	c.AddCommand(l...)
	c.RunE, c.Args = l[0].RunE, cobra.NoArgs // by itself it lists
	return c
}

// openKeys proves that both can be used.
func openKeys(dir string, create bool) error {
	if _, err := kms.OpenKeyFile(filepath.Join(dir, vaultKey), create); err != nil {
		return err
	}
	_, err := web.OpenKeys(filepath.Join(dir, facesKey))
	return err
}
