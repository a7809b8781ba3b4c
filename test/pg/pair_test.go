package pg_test

import (
	"errors"
	"testing"

	"github.com/jackc/pgx/v5"

	"frontdesk.dev/frontdesk/test/pg"
)

// TestPair: what was committed is there after a promotion if the standby is synchronous, and not if it is not and lagged.
func TestPair(t *testing.T) {
	for _, synchronous := range []bool{true, false} {
		p := pg.StartPair(t, synchronous)
		exec := func(statement string) {
			t.Helper()
			conn, err := pgx.Connect(t.Context(), p.DSN)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close(t.Context()) }()
			if _, err := conn.Exec(t.Context(), statement); err != nil {
				t.Fatal(err)
			}
		}
		exec("CREATE TABLE mine (x int)")
		exec("INSERT INTO mine VALUES (1)")
		if !synchronous {
			if err := errors.Join(p.CaughtUp(t.Context()), p.Lag(t.Context())); err != nil {
				t.Fatal(err)
			}
			exec("INSERT INTO mine VALUES (2)")
		}
		if err := p.Promote(t.Context()); err != nil {
			t.Fatal(err)
		}
		conn, err := pgx.Connect(t.Context(), p.DSN)
		if err != nil {
			t.Fatal(err)
		}
		var rows int
		if err := conn.QueryRow(t.Context(), "SELECT count(*) FROM mine").Scan(&rows); err != nil || rows != 1 {
			t.Errorf("synchronous %v: %d rows, %v", synchronous, rows, err)
		}
		_ = conn.Close(t.Context())
		if err := p.Follow(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}
