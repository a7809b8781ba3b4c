package store_test

import (
	"path/filepath"
	"testing"

	"frontdesk.dev/frontdesk/internal/store"
	"frontdesk.dev/frontdesk/internal/store/storetest"
	"frontdesk.dev/frontdesk/test/pg"
)

func open(t testing.TB, cfg store.Config) *store.DB {
	t.Helper()
	db, err := store.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

func TestSQLite(t *testing.T) {
	storetest.Run(t, func(t *testing.T) (a, b *store.DB) {
		db := open(t, store.Config{Path: filepath.Join(t.TempDir(), "frontdesk.db")})
		return db, db
	})
}

func TestPostgres(t *testing.T) {
	pg.Start(t) // so that all cases share one server
	storetest.Run(t, func(t *testing.T) (a, b *store.DB) {
		cfg := store.Config{DSN: pg.Start(t)}
		return open(t, cfg), open(t, cfg)
	})
}
