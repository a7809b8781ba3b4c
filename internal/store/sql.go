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

// value is the field of a query with one column.
func value[T any](v *T) []any { return []any{v} }

// table is how one kind of thing is stored.
type table[T any] struct {
	name    string
	none    string // what is said where there is no such row
	columns string
	fields  func(*T) []any // places of the columns' values, in their order, to read into and to write from
}

// all reads the rows that the rest of the SELECT asks for.
func (t *table[T]) all(ctx context.Context, q querier, rest string, args ...any) ([]T, error) {
	return list(ctx, q, t.fields, "SELECT "+t.columns+" FROM "+t.name+" "+rest, args...)
}

// one reads the one row that there is, else fault.NotFound.
func (t *table[T]) one(ctx context.Context, q querier, rest string, args ...any) (T, error) {
	return t.only(t.all(ctx, q, rest, args...))
}

// change runs a statement and gives the rows that it changed, as they stand afterwards, or stood where they are gone.
func (t *table[T]) change(ctx context.Context, q querier, statement string, args ...any) ([]T, error) {
	return list(ctx, q, t.fields, statement+" RETURNING "+t.columns, args...)
}

// put inserts the row; the rest says what to do where there is one already, which else is fault.Conflict.
func (t *table[T]) put(ctx context.Context, q querier, v *T, rest string) error {
	_, err := exec(ctx, q, t.insert()+rest, t.fields(v)...)
	return err
}

func (t *table[T]) insert() string {
	return "INSERT INTO " + t.name + " (" + t.columns + ") VALUES (" + holes(1, strings.Count(t.columns, ",")+1) + ")"
}

func (t *table[T]) only(l []T, err error) (T, error) {
	var zero T
	if err == nil && len(l) == 0 {
		err = fault.New(fault.NotFound, t.none, nil)
	}
	if err != nil {
		return zero, err
	}
	return l[0], nil
}

// conflict tells why a change changed nothing: fault.Conflict if the row is there, but not as it was expected any more;
// fault.NotFound if it is not.
func (t *table[T]) conflict(ctx context.Context, q querier, where string, args ...any) error {
	if _, err := t.one(ctx, q, where, args...); err != nil {
		return err
	}
	return fault.New(fault.Conflict, taken, nil)
}

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
