// Package whole answers: what is in a whole database, and how is an empty one filled?
//
// It knows tables and columns as the database itself describes them, and no row but those with which a database is born: so a table
// that is new is in the next backup without a line here. It trusts no name and no value that comes from a file: only the tables and columns of the version
// at hand are filled, with values of their kinds.
package whole

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/store/database"
)

// ColumnKind is what a column holds, in the words that both databases have.
type ColumnKind string

const (
	Int  ColumnKind = "int"
	Bool ColumnKind = "bool" // SQLite keeps it as Int
	Text ColumnKind = "text"
	Blob ColumnKind = "blob"
)

// Column is one column of a table.
type Column struct {
	Name string     `json:"name"`
	Kind ColumnKind `json:"kind"`
}

// Table is one table, as the database itself describes it.
type Table struct {
	Name    string   `json:"name"`
	Columns []Column `json:"columns"`
}

// Snapshot is the whole database as it was at one moment. It is good inside Read alone.
type Snapshot struct {
	Version int64   // of the tables: the newest migration
	Tables  []Table // all but the migrations', by name
	tx      *sql.Tx
}

// Read calls f with the database as it is now, while servers go on. It holds up nobody.
func Read(ctx context.Context, db *database.DB, f func(*Snapshot) error) error {
	how := &sql.TxOptions{ReadOnly: true, Isolation: sql.LevelRepeatableRead}
	if db.Notify == "" {
		how = nil // SQLite's transactions see one moment by themselves, and have no other kind
	}
	tx, err := db.Read.BeginTx(ctx, how)
	if err != nil {
		return database.Fault(err)
	}
	defer func() { _ = tx.Rollback() }() // it has changed nothing
	s := Snapshot{tx: tx}
	if s.Version, s.Tables, err = shape(ctx, db, tx); err != nil {
		return err
	}
	return f(&s)
}

// Rows calls f with each row's values: int64, bool, string or []byte, by the columns' kinds. They are good until f returns.
func (s *Snapshot) Rows(ctx context.Context, t Table, f func(values []any) error) error {
	query := "SELECT " + quoted(t) + " FROM " + quote(t.Name)
	if t.Name == "chores" {
		query += " WHERE name <> '" + database.ChoreServer + "'" // which server this database has is no matter of another one's
	}
	rows, err := s.tx.QueryContext(ctx, query)
	if err != nil {
		return database.Fault(err)
	}
	defer func() { _ = rows.Close() }() // its error is that of Err
	values, places := make([]any, len(t.Columns)), make([]any, len(t.Columns))
	for i := range values {
		places[i] = &values[i]
	}
	for rows.Next() {
		if err := rows.Scan(places...); err != nil {
			return database.Fault(err)
		}
		for i, c := range t.Columns {
			if values[i], err = c.Kind.of(values[i]); err != nil {
				return fmt.Errorf("store: %s.%s: %w", t.Name, c.Name, err)
			}
		}
		if err := f(values); err != nil {
			return err
		}
	}
	return database.Fault(rows.Err())
}

// of is v as a column of this kind holds it.
func (k ColumnKind) of(v any) (any, error) {
	switch v := v.(type) {
	case int64:
		if k == Bool {
			return v != 0, nil
		}
		if k == Int {
			return v, nil
		}
	case bool:
		if k == Int {
			return map[bool]int64{true: 1}[v], nil
		}
		if k == Bool {
			return v, nil
		}
	case string:
		if k == Text {
			return v, nil
		}
	case []byte:
		if k == Blob && v == nil { // an empty one, as SQLite's driver gives it
			return []byte{}, nil
		}
		if k == Blob {
			return v, nil
		}
	}
	return nil, fmt.Errorf("it holds a %T, not %s", v, k)
}

// Filling is an empty database that is being filled, in one transaction. It is good inside Fill alone.
type Filling struct {
	Tx     *sql.Tx
	db     *database.DB
	tables []Table
}

// Fill calls f to fill a database in which nothing is; with an error of f, or of anything else, nothing is in it afterwards. A
// database that is not empty is fault.Conflict, and so is one whose tables are not those of version. Servers on it wait.
func Fill(ctx context.Context, db *database.DB, version int64, f func(*Filling) error) error {
	tx, err := db.Write.BeginTx(ctx, nil)
	if err != nil {
		return database.Fault(err)
	}
	defer func() { _ = tx.Rollback() }() // after a commit it does nothing
	at, tables, err := shape(ctx, db, tx)
	if err != nil {
		return err
	}
	if at != version {
		return fault.New(fault.Conflict, fmt.Sprintf("the database's tables are of version %d, the backup's of %d: restore into a new database", at, version), nil)
	}
	if err := empty(ctx, db, tx, tables); err != nil {
		return err
	}
	if err := f(&Filling{tx, db, tables}); err != nil {
		return err
	}
	return database.Fault(tx.Commit())
}

// empty makes sure that nobody was here, and that nobody comes.
func empty(ctx context.Context, db *database.DB, tx *sql.Tx, tables []Table) error {
	if db.Notify != "" { // a SQLite file has one server, and that is us
		var names []string
		for _, t := range tables {
			names = append(names, quote(t.Name))
		}
		if _, err := tx.ExecContext(ctx, "LOCK TABLE "+strings.Join(names, ", ")+" IN ACCESS EXCLUSIVE MODE"); err != nil {
			return database.Fault(err)
		}
	}
	// The rows with which it is born, and with which it is opened; an older version has no chores.
	born := []string{"DELETE FROM epoch_counter WHERE value = 0"}
	if has(tables, "chores") {
		born = append(born, "DELETE FROM chores WHERE name = '"+database.ChoreServer+"'")
	}
	for _, b := range born {
		if _, err := tx.ExecContext(ctx, b); err != nil {
			return database.Fault(err)
		}
	}
	for _, t := range tables {
		there, err := database.List(ctx, tx, database.Value[int64], "SELECT 1 FROM "+quote(t.Name)+" LIMIT 1")
		if err != nil {
			return err
		}
		if len(there) > 0 {
			return fault.New(fault.Conflict, "this database is in use: there are rows in its table "+t.Name+"; a backup is restored into a new one", nil)
		}
	}
	return nil
}

// Has reports whether there is such a table in this version.
func (f *Filling) Has(table string) bool { return has(f.tables, table) }

func has(tables []Table, name string) bool {
	return slices.ContainsFunc(tables, func(t Table) bool { return t.Name == name })
}

// Table begins a table. The function that it returns takes one row's values, and with nil those that it has kept back.
func (f *Filling) Table(ctx context.Context, t Table) (func(values []any) error, error) {
	i := slices.IndexFunc(f.tables, func(own Table) bool { return own.Name == t.Name })
	if i < 0 {
		return nil, fault.New(fault.Invalid, "the backup holds a table that its version does not have; nothing was restored", nil)
	}
	kinds := make([]ColumnKind, len(t.Columns))
	for n, c := range t.Columns {
		j := slices.IndexFunc(f.tables[i].Columns, func(own Column) bool { return own.Name == c.Name })
		if j < 0 {
			return nil, fault.New(fault.Invalid, "the backup's table "+t.Name+" has a column that its version does not have; nothing was restored", nil)
		}
		kinds[n] = f.tables[i].Columns[j].Kind
	}
	most := 1 // SQLite is fastest with a prepared statement a row (docs/decisions/0007-the-log-in-sql.md)
	if f.db.Notify != "" {
		most = 200
	}
	head := "INSERT INTO " + quote(t.Name) + " (" + quoted(t) + ") VALUES "
	full, err := f.Tx.PrepareContext(ctx, head+tuples(most, len(kinds)))
	if err != nil {
		return nil, database.Fault(err)
	}
	var kept []any
	flush := func() error {
		var err error
		switch n := len(kept) / len(kinds); n {
		case 0:
		case most:
			_, err = full.ExecContext(ctx, kept...)
		default:
			_, err = f.Tx.ExecContext(ctx, head+tuples(n, len(kinds)), kept...)
		}
		kept = kept[:0]
		return database.Fault(err)
	}
	return func(values []any) error {
		if values == nil {
			return flush()
		}
		for n, v := range values {
			v, err := kinds[n].of(v)
			if err != nil {
				return fmt.Errorf("store: %s.%s: %w", t.Name, t.Columns[n].Name, err)
			}
			if s, ok := v.(string); ok && f.db.Notify != "" && (strings.IndexByte(s, 0) >= 0 || !utf8.ValidString(s)) {
				return fault.New(fault.Invalid, "a text in the table "+t.Name+" holds characters that PostgreSQL does not keep; nothing was restored", nil)
			}
			kept = append(kept, v)
		}
		if len(kept) == most*len(kinds) {
			return flush()
		}
		return nil
	}, nil
}

// shape asks the database what it is.
func shape(ctx context.Context, db *database.DB, q database.Querier) (version int64, tables []Table, err error) {
	query := `SELECT m.name, c.name, c.type FROM sqlite_master AS m, pragma_table_info(m.name) AS c WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite%' ORDER BY m.name, c.cid`
	if db.Notify != "" {
		query = `SELECT c.table_name, c.column_name, c.data_type FROM information_schema.columns AS c JOIN information_schema.tables AS t USING (table_schema, table_name)
			WHERE c.table_schema = current_schema() AND t.table_type = 'BASE TABLE' ORDER BY c.table_name COLLATE "C", c.ordinal_position`
	}
	type column struct{ table, name, kind string }
	columns, err := database.List(ctx, q, func(c *column) []any { return []any{&c.table, &c.name, &c.kind} }, query)
	if err != nil {
		return 0, nil, err
	}
	kinds := map[string]ColumnKind{"integer": Int, "bigint": Int, "boolean": Bool, "text": Text, "blob": Blob, "bytea": Blob}
	for _, c := range columns {
		if c.table == migrationsTable {
			continue
		}
		kind, ok := kinds[strings.ToLower(c.kind)]
		if !ok {
			return 0, nil, fmt.Errorf("store: %s.%s is a %s, which a backup does not know", c.table, c.name, c.kind)
		}
		if n := len(tables); n == 0 || tables[n-1].Name != c.table {
			tables = append(tables, Table{Name: c.table})
		}
		last := &tables[len(tables)-1]
		last.Columns = append(last.Columns, Column{c.name, kind})
	}
	at, err := database.List(ctx, q, database.Value[int64], "SELECT max(version_id) FROM "+migrationsTable)
	if err == nil && len(at) == 1 {
		version = at[0]
	}
	return version, tables, err
}

const migrationsTable = "goose_db_version"

func quote(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

func quoted(t Table) string {
	names := make([]string, len(t.Columns))
	for i, c := range t.Columns {
		names[i] = quote(c.Name)
	}
	return strings.Join(names, ", ")
}

// tuples are the placeholders of n rows of as many columns.
func tuples(n, columns int) string {
	rows := make([]string, n)
	for i := range rows {
		rows[i] = "(" + database.Holes(1+i*columns, columns) + ")"
	}
	return strings.Join(rows, ", ")
}
