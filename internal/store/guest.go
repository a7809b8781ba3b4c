package store

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"frontdesk.dev/frontdesk/internal/store/database"
)

// guestRights are those of the gateway's own account, where gateway and broker are two processes: what it keeps for its clients, and
// whose access has ended. Every table that holds something sealed, or a digest that opens something, is the broker's alone; so are
// people, grants and the log, which the gateway reads through it.
var guestRights = map[string]string{
	"goose_db_version": "SELECT",
	"epochs":           "SELECT",
	"found":            "SELECT",
	"sessions":         "SELECT, INSERT, UPDATE, DELETE",
	"tasks":            "SELECT, INSERT, UPDATE, DELETE",
	"clients":          "SELECT, INSERT, UPDATE, DELETE",
	"codes":            "SELECT, INSERT, UPDATE, DELETE",
	"families":         "SELECT, INSERT, UPDATE, DELETE",
	"consents":         "SELECT, INSERT, UPDATE, DELETE",
}

// GuestGrants is the SQL that gives an account these rights, and takes all others from it.
func GuestGrants(account string) string {
	to := pgx.Identifier{account}.Sanitize()
	var b strings.Builder
	fmt.Fprintf(&b, "-- The rights of Frontdesk's gateway, for the owner of the tables to give. No table with anything sealed is among them.\n")
	fmt.Fprintf(&b, "BEGIN;\nREVOKE ALL ON ALL TABLES IN SCHEMA public FROM PUBLIC, %s;\nGRANT USAGE ON SCHEMA public TO %s;\n", to, to)
	for _, table := range slices.Sorted(maps.Keys(guestRights)) {
		fmt.Fprintf(&b, "GRANT %s ON %s TO %s;\n", guestRights[table], table, to)
	}
	b.WriteString("COMMIT;\n")
	return b.String()
}

// right is one thing that the account may do, or not.
type right struct {
	table, what string
	has         bool
}

// GuestRights compares what this account may do with what it should: what it lacks, and what is too much.
func (db *DB) GuestRights(ctx context.Context) (lacks, over []string, err error) {
	l, err := database.List(ctx, db.read, func(r *right) []any { return []any{&r.table, &r.what, &r.has} }, `
		SELECT c.relname, p.what, CASE WHEN p.what = 'DELETE' THEN has_table_privilege(c.oid, p.what) ELSE has_any_column_privilege(c.oid, p.what) END
		FROM pg_class c CROSS JOIN unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS p(what)
		WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm') ORDER BY c.relname, p.what`)
	if err != nil {
		return nil, nil, err
	}
	seen := map[string]bool{}
	for _, r := range l {
		seen[r.table] = true
		switch should := strings.Contains(guestRights[r.table], r.what); {
		case should && !r.has:
			lacks = append(lacks, r.what+" on "+r.table)
		case !should && r.has:
			over = append(over, r.what+" on "+r.table)
		}
	}
	for _, table := range slices.Sorted(maps.Keys(guestRights)) {
		if !seen[table] {
			lacks = append(lacks, "the table "+table)
		}
	}
	return lacks, over, nil
}
