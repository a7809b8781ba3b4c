package pg_test

import (
	"net/url"
	"os"
	"path/filepath"
	"testing"

	"github.com/jackc/pgx/v5"

	"frontdesk.dev/frontdesk/test/pg"
)

func TestEachGetsADatabaseOfItsOwn(t *testing.T) {
	var dir string
	t.Run("while it runs", func(t *testing.T) {
		a, b := pg.Start(t), pg.Start(t)
		if a == b {
			t.Fatalf("both got %q", a)
		}
		u, err := url.Parse(a)
		if err != nil {
			t.Fatal(err)
		}
		dir = u.Query().Get("host")
		for _, dsn := range []string{a, b} {
			conn, err := pgx.Connect(t.Context(), dsn)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := conn.Exec(t.Context(), "CREATE TABLE mine (x int)"); err != nil {
				t.Error(err)
			}
			if err := conn.Close(t.Context()); err != nil {
				t.Error(err)
			}
		}
	})
	if dir == "" {
		return // skipped inside, with the reason
	}
	if left, err := os.Stat(filepath.Join(dir, "data")); err == nil {
		t.Errorf("the cluster left %s behind", left.Name())
	}
}
