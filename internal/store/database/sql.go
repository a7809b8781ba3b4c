package database

import (
	"context"
	"database/sql"
	"database/sql/driver"
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

// Patience bounds one operation whose caller set no earlier deadline, so that a database that hangs is away, not silent.
const Patience = 15 * time.Second

// Querier is a pool or a transaction.
type Querier interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// Exec returns how many rows changed.
func Exec(ctx context.Context, q Querier, query string, args ...any) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, Patience)
	defer cancel()
	args, err := plain(args)
	if err != nil {
		return 0, err
	}
	res, err := q.ExecContext(ctx, query, args...)
	if err != nil {
		return 0, Fault(err)
	}
	n, err := res.RowsAffected()
	return n, Fault(err)
}

// List reads all rows; fields gives the places of one row's columns, in their order.
func List[T any](ctx context.Context, q Querier, fields func(*T) []any, query string, args ...any) ([]T, error) {
	ctx, cancel := context.WithTimeout(ctx, Patience)
	defer cancel()
	args, err := plain(args)
	if err != nil {
		return nil, err
	}
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, Fault(err)
	}
	defer func() { _ = rows.Close() }() // its error is that of Err
	var all []T
	for rows.Next() {
		var v T
		if err := rows.Scan(fields(&v)...); err != nil {
			return nil, Fault(err)
		}
		all = append(all, v)
	}
	return all, Fault(rows.Err())
}

// Value is the field of a query with one column.
func Value[T any](v *T) []any { return []any{v} }

// Tx runs f in a transaction: all of it, or nothing.
func (db *DB) Tx(ctx context.Context, f func(context.Context, *sql.Tx) error) error {
	ctx, cancel := context.WithTimeout(ctx, Patience)
	defer cancel()
	tx, err := db.Write.BeginTx(ctx, nil)
	if err != nil {
		return Fault(err)
	}
	defer func() { _ = tx.Rollback() }() // after a commit it does nothing
	if err := f(ctx, tx); err != nil {
		return err
	}
	return Fault(tx.Commit())
}

// Holes are n placeholders, from $first on.
func Holes(first, n int) string {
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

// Result codes of SQLite (sqlite.org/rescode.html) and classes of PostgreSQL's (its manual, appendix A).
const (
	liteReadOnly, liteBusy, liteLocked, liteIO, liteFull, liteCantOpen, liteInterrupt = 8, 5, 6, 10, 13, 14, 9
	litePrimaryKey, liteUnique                                                        = 1555, 2067

	pgUnique, pgDiskFull, pgReadOnly = "23505", "53100", "25006"
)

var pgAway = map[string]bool{"08": true, "40": true, "53": true, "55": true, "57": true, "58": true}

// Fault gives a database's error its kind. What is no fault of anybody's, but of this program, stays without one.
func Fault(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*fault.Error](err); ok {
		return err
	}
	if e, ok := errors.AsType[*sqlite.Error](err); ok {
		switch code := e.Code(); {
		case code == litePrimaryKey || code == liteUnique:
			return fault.New(fault.Conflict, Taken, err)
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
			return fault.New(fault.Conflict, Taken, err)
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
	Taken = "somebody else was first; read again"
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
