package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5/pgconn"
	"modernc.org/sqlite"

	"frontdesk.dev/frontdesk/internal/kit/fault"
)

// patience bounds one operation whose caller set no earlier deadline, so that a database that hangs is away, not silent.
const patience = 15 * time.Second

// querier is a pool or a transaction.
type querier interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// exec returns how many rows changed.
func exec(ctx context.Context, q querier, query string, args ...any) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	args, err := plain(args)
	if err != nil {
		return 0, err
	}
	res, err := q.ExecContext(ctx, query, args...)
	if err != nil {
		return 0, asFault(err)
	}
	n, err := res.RowsAffected()
	return n, asFault(err)
}

// list reads all rows; fields gives the places of one row's columns, in their order.
func list[T any](ctx context.Context, q querier, fields func(*T) []any, query string, args ...any) ([]T, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	args, err := plain(args)
	if err != nil {
		return nil, err
	}
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, asFault(err)
	}
	defer func() { _ = rows.Close() }() // its error is that of Err
	var all []T
	for rows.Next() {
		var v T
		if err := rows.Scan(fields(&v)...); err != nil {
			return nil, asFault(err)
		}
		all = append(all, v)
	}
	return all, asFault(rows.Err())
}

// one reads the one row that there is; fault.NotFound, with the sentence, where there is none.
func one[T any](ctx context.Context, q querier, fields func(*T) []any, missing, query string, args ...any) (T, error) {
	var zero T
	l, err := list(ctx, q, fields, query, args...)
	if err == nil && len(l) == 0 {
		err = fault.New(fault.NotFound, missing, nil)
	}
	if err != nil {
		return zero, err
	}
	return l[0], nil
}

// value is the field of a query with one column.
func value[T any](v *T) []any { return []any{v} }

// tx runs f in a transaction: all of it, or nothing.
func (db *DB) tx(ctx context.Context, f func(context.Context, *sql.Tx) error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tx, err := db.write.BeginTx(ctx, nil)
	if err != nil {
		return asFault(err)
	}
	defer func() { _ = tx.Rollback() }() // after a commit it does nothing
	if err := f(ctx, tx); err != nil {
		return err
	}
	return asFault(tx.Commit())
}

// insert is the statement that inserts into all the named columns.
func insert(table, columns string) string {
	return "INSERT INTO " + table + " (" + columns + ") VALUES (" + holes(1, strings.Count(columns, ",")+1) + ")"
}

// holes are n placeholders, from $first on.
func holes(first, n int) string {
	var b strings.Builder
	for i := range n {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, "$%d", first+i)
	}
	return b.String()
}

// plain makes of arguments what both drivers take: no named types, no pointers. PostgreSQL keeps no NUL in a text, and no
// broken UTF-8; neither shall SQLite.
func plain(args []any) ([]any, error) {
	out := make([]any, len(args))
	for i, a := range args {
		v, err := driver.DefaultParameterConverter.ConvertValue(a)
		if err != nil {
			return nil, err
		}
		if s, ok := v.(string); ok && (strings.IndexByte(s, 0) >= 0 || !utf8.ValidString(s)) {
			return nil, fault.New(fault.Invalid, "a value holds characters that are no text", nil)
		}
		out[i] = v
	}
	return out, nil
}

// when is a time as it is stored: microseconds since 1970, 0 for none.
type when time.Time

func micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

// Value implements driver.Valuer.
func (w *when) Value() (driver.Value, error) { return micros(time.Time(*w)), nil }

// Scan implements sql.Scanner.
func (w *when) Scan(src any) error {
	n, ok := src.(int64)
	if !ok {
		return fmt.Errorf("a stored time is a %T", src)
	}
	*w = when{}
	if n != 0 {
		*w = when(time.UnixMicro(n).UTC())
	}
	return nil
}

// texts is a list as it is stored: a JSON array.
type texts []string

// Value implements driver.Valuer.
func (l *texts) Value() (driver.Value, error) {
	if len(*l) == 0 {
		return "[]", nil
	}
	b, err := json.Marshal(*l)
	return string(b), err
}

// Scan implements sql.Scanner; an empty list is nil.
func (l *texts) Scan(src any) error {
	*l = nil
	if s, ok := src.(string); ok && (s == "[]" || s == "") {
		return nil
	}
	return (&record{l}).Scan(src)
}

// record is a small value as it is stored: JSON. It points to the value.
type record struct{ v any }

// Value implements driver.Valuer.
func (r *record) Value() (driver.Value, error) {
	b, err := json.Marshal(r.v)
	return string(b), err
}

// Scan implements sql.Scanner.
func (r *record) Scan(src any) error {
	s, ok := src.(string)
	if !ok {
		return fmt.Errorf("a stored record is a %T", src)
	}
	return json.Unmarshal([]byte(s), r.v)
}

// blob is bytes as they are stored: none are empty, not NULL.
type blob []byte

// Value implements driver.Valuer.
func (b *blob) Value() (driver.Value, error) { return append([]byte{}, *b...), nil }

// Scan implements sql.Scanner; no bytes are nil.
func (b *blob) Scan(src any) error {
	v, ok := src.([]byte)
	if !ok && src != nil {
		return fmt.Errorf("stored bytes are a %T", src)
	}
	*b = append(blob(nil), v...)
	return nil
}

// Result codes of SQLite (sqlite.org/rescode.html) and classes of PostgreSQL's (its manual, appendix A).
const (
	liteReadOnly, liteBusy, liteLocked, liteIO, liteFull, liteCantOpen, liteInterrupt = 8, 5, 6, 10, 13, 14, 9
	litePrimaryKey, liteUnique                                                        = 1555, 2067

	pgUnique, pgDiskFull, pgReadOnly = "23505", "53100", "25006"
)

var pgAway = map[string]bool{"08": true, "40": true, "53": true, "55": true, "57": true, "58": true}

// asFault gives a database's error its kind. What is no fault of anybody's, but of this program, stays without one.
func asFault(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*fault.Error](err); ok {
		return err
	}
	if e, ok := errors.AsType[*sqlite.Error](err); ok {
		switch code := e.Code(); {
		case code == litePrimaryKey || code == liteUnique:
			return fault.New(fault.Conflict, taken, err)
		case code&0xff == liteFull:
			return fault.New(fault.Unavailable, full, err)
		case code&0xff == liteBusy || code&0xff == liteLocked || code&0xff == liteIO || code&0xff == liteCantOpen || code&0xff == liteReadOnly || code&0xff == liteInterrupt:
			return fault.New(fault.Unavailable, away, err)
		}
		return fmt.Errorf("sqlite: %w", err)
	}
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		switch {
		case e.Code == pgUnique:
			return fault.New(fault.Conflict, taken, err)
		case e.Code == pgDiskFull:
			return fault.New(fault.Unavailable, full, err)
		case e.Code == pgReadOnly || len(e.Code) == 5 && pgAway[e.Code[:2]]:
			return fault.New(fault.Unavailable, away, err)
		}
		return fmt.Errorf("postgres: %w", err)
	}
	if gone(err) {
		return fault.New(fault.Unavailable, away, err)
	}
	return fmt.Errorf("store: %w", err)
}

const (
	taken = "somebody else was first; read again"
	away  = "the database does not answer; try again in a moment"
	full  = "the database's disk is full; an operator has to make room; try again later"
)

// gone reports whether the connection failed, rather than the statement.
func gone(err error) bool {
	_, network := errors.AsType[net.Error](err)
	_, connect := errors.AsType[*pgconn.ConnectError](err)
	for _, is := range []error{context.DeadlineExceeded, context.Canceled, driver.ErrBadConn, sql.ErrConnDone, io.EOF, io.ErrUnexpectedEOF, net.ErrClosed} {
		if errors.Is(err, is) {
			return true
		}
	}
	return network || connect || pgconn.SafeToRetry(err)
}

// changed tells why nothing was: fault.Conflict if the query finds the row, which is not as it was expected any more;
// fault.NotFound, with the sentence, if it does not.
func changed(ctx context.Context, q querier, missing, query string, args ...any) error {
	if _, err := one(ctx, q, value[int64], missing, query, args...); err != nil {
		return err
	}
	return fault.New(fault.Conflict, taken, nil)
}
