// Package premises is what a deployment has on its own ground, its database and its keys, and the commands that go there themselves
// rather than ask the running server.
package premises

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"frontdesk.dev/frontdesk/cmd/frontdesk/config"
	"frontdesk.dev/frontdesk/internal/kit/outbound"
	"frontdesk.dev/frontdesk/internal/store"
	"frontdesk.dev/frontdesk/internal/vault/keyring"
)

// Commands are backup and restore, and those about the log, the keys and the two processes. What they write carries the version.
func Commands(version string) []*cobra.Command {
	return []*cobra.Command{auditCommand(), keysCommand(), pairCommand(), databaseCommand(), backupCommand(version), restoreCommand()}
}

// premises are what backup and restore need of a deployment: its database and what wraps its keys.
type premises struct {
	cfg   *config.Config
	store store.Config
	wrap  keyring.Wrapper
}

func openPremises(c *cobra.Command) (premises, error) {
	path, err := c.Flags().GetString("config")
	if err != nil {
		return premises{}, err
	}
	dataDir := ""
	if f := c.Flags().Lookup("data-dir"); f.Changed {
		dataDir = f.Value.String()
	}
	p := premises{}
	if p.cfg, err = config.Read(path, dataDir); err != nil {
		return p, err
	}
	if err := Harden(); err != nil {
		return p, err
	}
	if p.store, err = Database(p.cfg); err != nil {
		return p, err
	}
	door, err := outbound.New(outbound.Config{Named: p.cfg.Origins(), Proxy: p.cfg.File.Outbound.Proxy, CAFile: p.cfg.File.Outbound.CAFile})
	if err != nil {
		return p, err
	}
	current, all, err := Wrappers(c.Context(), p.cfg, door, false, time.Now)
	p.wrap = both{current, all}
	return p, err
}

// both wraps with one provider and opens what it, or the one before it, wrapped.
type both struct{ current, all keyring.Wrapper }

func (b both) Wrap(ctx context.Context, plain, context []byte) ([]byte, error) {
	return b.current.Wrap(ctx, plain, context)
}

func (b both) Unwrap(ctx context.Context, wrapped, context []byte) ([]byte, error) {
	return b.all.Unwrap(ctx, wrapped, context)
}

// Database is the database that the config names.
func Database(c *config.Config) (store.Config, error) {
	s := store.Config{Path: filepath.Join(c.DataDir, "frontdesk.db"), Now: time.Now}
	if c.Database.IsZero() {
		return s, nil
	}
	dsn, err := c.Secret(c.Database)
	if err != nil {
		return s, fmt.Errorf("database: %w", err)
	}
	s.Path, s.DSN = "", dsn
	return s, nil
}

// GuestDatabase is the database as the gateway's own account sees it.
func GuestDatabase(cfg *config.Config) (store.Config, error) {
	dsn, err := cfg.Secret(cfg.Domains.Database)
	if err != nil {
		return store.Config{}, fmt.Errorf("domains.database: %w", err)
	}
	return store.Config{DSN: dsn, Guest: true}, nil
}

// MakeDataDir makes the directory of the database and the keys, its owner's alone. One that is there and empty, as a fresh volume
// of a container is, becomes so; what stands in others is whose they are.
func MakeDataDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("data_dir %s cannot be made: %w", dir, err)
	}
	inside, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("data_dir %s cannot be read: %w", dir, err)
	}
	if len(inside) == 0 {
		if err := os.Chmod(dir, 0o700); err != nil {
			return fmt.Errorf("data_dir %s is not this user's: %w", dir, err)
		}
	}
	return nil
}
