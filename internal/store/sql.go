package store

import (
	"context"
	"database/sql/driver"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/store/database"
)

// table is how one kind of thing is stored.
type table[T any] struct {
	name    string
	none    string // what is said where there is no such row
	columns string
	fields  func(*T) []any // places of the columns' values, in their order, to read into and to write from
}

// all reads the rows that the rest of the SELECT asks for.
func (t *table[T]) all(ctx context.Context, q database.Querier, rest string, args ...any) ([]T, error) {
	return database.List(ctx, q, t.fields, "SELECT "+t.columns+" FROM "+t.name+" "+rest, args...)
}

// one reads the one row that there is, else fault.NotFound.
func (t *table[T]) one(ctx context.Context, q database.Querier, rest string, args ...any) (T, error) {
	return t.only(t.all(ctx, q, rest, args...))
}

// change runs a statement and gives the rows that it changed, as they stand afterwards, or stood where they are gone.
func (t *table[T]) change(ctx context.Context, q database.Querier, statement string, args ...any) ([]T, error) {
	return database.List(ctx, q, t.fields, statement+" RETURNING "+t.columns, args...)
}

// put inserts the row; the rest says what to do where there is one already, which else is fault.Conflict.
func (t *table[T]) put(ctx context.Context, q database.Querier, v *T, rest string) error {
	_, err := database.Exec(ctx, q, t.insert()+rest, t.fields(v)...)
	return err
}

func (t *table[T]) insert() string {
	return "INSERT INTO " + t.name + " (" + t.columns + ") VALUES (" + database.Holes(1, strings.Count(t.columns, ",")+1) + ")"
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
func (t *table[T]) conflict(ctx context.Context, q database.Querier, where string, args ...any) error {
	if _, err := t.one(ctx, q, where, args...); err != nil {
		return err
	}
	return fault.New(fault.Conflict, database.Taken, nil)
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
