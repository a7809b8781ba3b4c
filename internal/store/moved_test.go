package store_test

import (
	"path/filepath"
	"testing"

	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/store"
	"frontdesk.dev/frontdesk/internal/vault"
	"frontdesk.dev/frontdesk/test/pg"
)

// TestSettleMoves: a new credential is stored with the site that it opens for, and with the account's name there, unless another living
// connection of the person's has it.
func TestSettleMoves(t *testing.T) {
	for name, db := range map[string]*store.DB{"sqlite": open(t, store.Config{Path: filepath.Join(t.TempDir(), "frontdesk.db")}), "postgres": open(t, store.Config{DSN: pg.Start(t)})} {
		t.Run(name, func(t *testing.T) {
			ctx := t.Context()
			for id, account := range map[vault.ConnectionID]string{"c1": "7@old", "c2": "7@taken"} {
				c := vault.Connection{Tenant: identity.DefaultTenant, ID: id, User: "alice", Upstream: "crm", Method: catalog.AuthorizationCode, Account: account, Label: "x (old)", Site: catalog.Site{Value: "old", Label: "old"},
					Status: vault.Active, Machine: vault.Machine{Generation: 1, Version: 1, Phase: vault.Idle}}
				if err := db.Connect(ctx, c, 0); err != nil {
					t.Fatal(err)
				}
			}
			row := func() vault.Connection {
				t.Helper()
				c, err := db.Connection(ctx, identity.DefaultTenant, "c1")
				if err != nil {
					t.Fatal(err)
				}
				return c
			}
			settles := func(next vault.Connection, account, label string) {
				t.Helper()
				next.Version++
				if won, err := db.Settle(ctx, next, next.Version-1); err != nil || !won {
					t.Fatalf("it was not stored: %v", err)
				}
				if now := row(); now.Site != next.Site || now.Account != account || now.Label != label {
					t.Errorf("%+v of %q, %q", now.Site, now.Account, now.Label)
				}
			}
			to := func(site string) vault.Connection {
				c := row()
				c.Account, c.Label, c.Site = "7@"+site, "x ("+site+")", catalog.Site{Value: site, Label: site}
				return c
			}
			settles(to("new"), "7@new", "x (new)")
			settles(to("taken"), "7@new", "x (new)")
			late := row() // at the same place a renewal takes no name that was given meanwhile
			renamed := late
			renamed.Label = "renamed"
			if err := db.Update(ctx, renamed); err != nil {
				t.Fatal(err)
			}
			settles(late, "7@new", "renamed")
		})
	}
}
