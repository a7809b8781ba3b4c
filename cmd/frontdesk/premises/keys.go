package premises

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

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
			if err := openKeys(args[0]); err != nil {
				return err
			}
			_, err := fmt.Fprintf(c.OutOrStdout(), "%s and %s are in %s. With the database, the first opens every credential: keep a copy, and keep it apart from the database's.\n", vaultKey, facesKey, args[0])
			return err
		}},
		&cobra.Command{Use: "copy FROM TO", Short: "copy the files of a mounted secret to where they are the process's alone (mode 0600)", Args: cobra.ExactArgs(2),
			Long: "Copies the files of a mounted secret, which others can often read, to a directory of the process's own. One of vault.key and faces.key\nmust be among them: of two processes each has its own.",
			RunE: func(_ *cobra.Command, args []string) error { return copyKeys(args[0], args[1]) }})
	l := dataKeyCommands()
	c.AddCommand(l...)
	c.RunE, c.Args = l[0].RunE, cobra.NoArgs // by itself it lists
	return c
}

// copyKeys copies what is in a secret, and proves that the key files of it can be used.
func copyKeys(from, to string) error {
	files, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	keys := 0
	for _, f := range files {
		if strings.HasPrefix(f.Name(), ".") { // Kubernetes keeps the versions of a secret there, and the names lead to one
			continue
		}
		text, err := os.ReadFile(filepath.Join(from, f.Name()))
		if err != nil {
			return err
		}
		path := filepath.Join(to, f.Name())
		if err := os.WriteFile(path, text, 0o600); err != nil {
			return err
		}
		switch f.Name() {
		case vaultKey:
			_, err = kms.OpenKeyFile(path, false)
			keys++
		case facesKey:
			_, err = web.OpenKeys(path)
			keys++
		}
		if err != nil {
			return err
		}
	}
	if keys == 0 {
		return fmt.Errorf("%s holds neither %s nor %s: `frontdesk keys make` makes both", from, vaultKey, facesKey)
	}
	return nil
}

// openKeys makes both where they are not there yet, and proves that they can be used.
func openKeys(dir string) error {
	if _, err := kms.OpenKeyFile(filepath.Join(dir, vaultKey), true); err != nil {
		return err
	}
	_, err := web.OpenKeys(filepath.Join(dir, facesKey))
	return err
}
