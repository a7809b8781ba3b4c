package store

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
)

var (
	_ audit.Store  = (*DB)(nil)
	_ audit.Sweeps = (*DB)(nil)
)

const auditColumns = "writer, seq, tenant, user_id, kind, call, at, record, hash"

// auditRow is a row with a user whom both databases can store: he is only there to be found, the record says who it was.
type auditRow audit.Row

func auditFields(r *audit.Row) []any {
	return []any{&r.Writer, &r.Seq, &r.Tenant, &r.User, &r.Kind, &r.Call, (*when)(&r.Time), (*blob)(&r.Record), (*blob)(&r.Hash)}
}

// Append implements audit.Store. The usual way is one statement or transaction, without a look at what is there; only where a
// key is taken already is it looked at.
func (db *DB) Append(ctx context.Context, rows []audit.Row) error {
	if len(rows) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	clean := make([]auditRow, len(rows))
	for i, r := range rows {
		r.User = identity.UserID(strings.ReplaceAll(strings.ToValidUTF8(string(r.User), "\uFFFD"), "\x00", "\uFFFD"))
		clean[i] = auditRow(r)
		if r.Kind == audit.KindOutcome && r.Call == "" || r.Kind == audit.KindLate {
			return fmt.Errorf("store: row %s.%x is no row: an outcome without its call, or late before it came", r.Writer, r.Seq)
		}
		if r.Seq == 1 {
			if err := db.enlist(ctx, r.Writer, r.Time); err != nil {
				return err
			}
		}
	}
	err := asFault(db.insertRows(ctx, db, clean))
	for try := 0; fault.KindOf(err) == fault.Conflict && try < 5; try++ { // more than one where replicas race for an outcome
		err = db.tx(ctx, func(ctx context.Context, tx *sql.Tx) error { return appendAround(ctx, tx, clean) })
		if err == errForeign {
			break
		}
	}
	return err
}

var errForeign = fault.New(fault.Conflict, "the log has other rows in the place of these: two processes write as one, or the log was changed", nil)

const insertAudit = "INSERT INTO audit (" + auditColumns + ") VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)"

func (r *auditRow) args() []any {
	return []any{r.Writer, r.Seq, string(r.Tenant), string(r.User), string(r.Kind), string(r.Call), micros(r.Time), r.Record, r.Hash}
}

// insertRowsSQLite: a prepared statement a row is faster than one of many rows (docs/decisions/0007-the-log-in-sql.md).
func insertRowsSQLite(ctx context.Context, db *DB, rows []auditRow) error {
	if len(rows) == 1 {
		_, err := db.insertAudit.ExecContext(ctx, rows[0].args()...)
		return err
	}
	tx, err := db.write.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // after a commit it does nothing
	insert := tx.StmtContext(ctx, db.insertAudit)
	for i := range rows {
		if _, err := insert.ExecContext(ctx, rows[i].args()...); err != nil {
			return err
		}
	}
	return tx.Commit()
}

// insertRowsPostgres is one statement, so one round trip, of the same text for any number of rows.
func insertRowsPostgres(ctx context.Context, db *DB, rows []auditRow) error {
	n := len(rows)
	writer, tenant, user, kind, call := make([]string, n), make([]string, n), make([]string, n), make([]string, n), make([]string, n)
	seq, at, record, hash := make([]int64, n), make([]int64, n), make([][]byte, n), make([][]byte, n)
	for i, r := range rows {
		writer[i], seq[i], tenant[i], user[i], kind[i] = r.Writer, r.Seq, string(r.Tenant), string(r.User), string(r.Kind)
		call[i], at[i], record[i], hash[i] = string(r.Call), micros(r.Time), r.Record, r.Hash
	}
	_, err := db.write.ExecContext(ctx, "INSERT INTO audit ("+auditColumns+") SELECT * FROM unnest($1::text[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bigint[], $8::bytea[], $9::bytea[])",
		writer, seq, tenant, user, kind, call, at, record, hash)
	return err
}

// appendAround inserts what is not there, and outcomes that came second as late.
func appendAround(ctx context.Context, tx *sql.Tx, rows []auditRow) error {
	for _, r := range rows {
		there, err := list(ctx, tx, func(h *blob) []any { return []any{h} }, "SELECT hash FROM audit WHERE writer = $1 AND seq = $2", r.Writer, r.Seq)
		if err != nil {
			return err
		}
		if len(there) > 0 {
			if !bytes.Equal(there[0], r.Hash) {
				return errForeign
			}
			continue
		}
		if r.Kind == audit.KindOutcome {
			first, err := list(ctx, tx, value[int64], "SELECT seq FROM audit WHERE kind = 'outcome' AND call = $1", r.Call)
			if err != nil {
				return err
			}
			if len(first) > 0 {
				r.Kind = audit.KindLate
			}
		}
		if _, err := exec(ctx, tx, insertAudit, r.args()...); err != nil {
			return err
		}
	}
	return nil
}

// enlist makes the writer known, so that its rows are found by what goes from writer to writer.
func (db *DB) enlist(ctx context.Context, writer string, at time.Time) error {
	_, err := exec(ctx, db.write, "INSERT INTO audit_writers (id, beat) VALUES ($1, $2) ON CONFLICT (id) DO NOTHING", writer, micros(at))
	return err
}

const noIntent = "there is no such call"

// place is where the id says that the row is.
func place(id audit.CallID) (writer string, seq int64, err error) {
	writer, hex, _ := strings.Cut(string(id), ".")
	seq, perr := strconv.ParseInt(hex, 16, 64)
	if perr != nil || fmt.Sprintf("%s.%x", writer, seq) != string(id) { // one spelling a row
		return "", 0, fault.New(fault.NotFound, noIntent, nil)
	}
	return writer, seq, nil
}

// Intent implements audit.Store.
func (db *DB) Intent(ctx context.Context, id audit.CallID) (audit.Row, error) {
	writer, seq, err := place(id)
	if err != nil {
		return audit.Row{}, err
	}
	return one(ctx, db.read, auditFields, noIntent, "SELECT "+auditColumns+" FROM audit WHERE writer = $1 AND seq = $2 AND kind = 'intent'", writer, seq)
}

// act is a row's place in the order of people: by time, and where that is the same by position.
type act struct {
	at     int64
	writer string
	seq    int64
}

// Rows implements audit.Store. What is not in audit_acts yet is the end of a chain, and is looked at row by row.
func (db *DB) Rows(ctx context.Context, q audit.Query) ([]audit.Row, error) {
	before := act{math.MaxInt64, "", 0}
	if q.Before != "" {
		writer, seq, err := place(q.Before)
		if err != nil {
			return nil, err
		}
		if before, err = one(ctx, db.read, func(a *act) []any { return []any{&a.at, &a.writer, &a.seq} }, noIntent,
			"SELECT at, writer, seq FROM audit WHERE writer = $1 AND seq = $2 AND tenant = $3", writer, seq, q.Tenant); err != nil {
			return nil, err
		}
	}
	limit := min(q.Limit, 1000)
	if limit <= 0 {
		limit = 100
	}
	user := "$2 = ''" // all; as a condition of its own, so that an index serves either
	if q.User != "" {
		user = "user_id = $2"
	}
	match := "tenant = $1 AND " + user + " AND at >= $3 AND (at, writer, seq) < ($4, $5, $6) ORDER BY at DESC, writer DESC, seq DESC LIMIT $7"
	rows, err := list(ctx, db.read, auditFields, `SELECT a.`+strings.ReplaceAll(auditColumns, ", ", ", a.")+` FROM (
			SELECT * FROM (SELECT at, writer, seq FROM audit_acts WHERE `+match+`) AS indexed
			UNION ALL
			SELECT * FROM (SELECT at, writer, seq FROM audit_writers JOIN audit ON writer = id AND seq > seen WHERE kind IN ('intent', 'event') AND `+match+`) AS tail
		) AS acts JOIN audit a ON a.writer = acts.writer AND a.seq = acts.seq ORDER BY a.at DESC, a.writer DESC, a.seq DESC LIMIT $7`,
		q.Tenant, q.User, micros(q.Since), before.at, before.writer, before.seq, limit)
	if err != nil || len(rows) == 0 {
		return nil, err
	}
	return db.withOutcomes(ctx, rows)
}

// withOutcomes puts behind each intent the outcome that counts.
func (db *DB) withOutcomes(ctx context.Context, acts []audit.Row) ([]audit.Row, error) {
	var calls []any
	for _, r := range acts {
		if r.Kind == audit.KindIntent {
			calls = append(calls, r.Call)
		}
	}
	if len(calls) == 0 {
		return acts, nil
	}
	found, err := list(ctx, db.read, auditFields, "SELECT "+auditColumns+" FROM audit WHERE kind = 'outcome' AND call IN ("+holes(1, len(calls))+")", calls...)
	if err != nil {
		return nil, err
	}
	outcome := map[audit.CallID]audit.Row{}
	for _, r := range found {
		outcome[r.Call] = r
	}
	rows := make([]audit.Row, 0, len(acts)+len(found))
	for _, r := range acts {
		rows = append(rows, r)
		if o, ok := outcome[r.Call]; ok && r.Kind == audit.KindIntent {
			rows = append(rows, o)
		}
	}
	return rows, nil
}

// Chain implements audit.Store. It reads in pages, so that a long look holds nothing up.
func (db *DB) Chain(ctx context.Context, f func(audit.Row) error) error {
	const page = 2000
	var last audit.Row
	for {
		rows, err := list(ctx, db.read, auditFields, "SELECT "+auditColumns+" FROM audit WHERE (writer, seq) > ($1, $2) ORDER BY writer, seq LIMIT $3", last.Writer, last.Seq, page)
		if err != nil {
			return err
		}
		for _, r := range rows {
			if err := f(r); err != nil {
				return err
			}
		}
		if len(rows) < page {
			return nil
		}
		last = rows[page-1]
	}
}

// writerState is how far the chores have come with one chain.
type writerState struct {
	id               string
	seen, swept, top int64
}

func (db *DB) writers(ctx context.Context, where string, args ...any) ([]writerState, error) {
	return list(ctx, db.read, func(w *writerState) []any { return []any{&w.id, &w.seen, &w.swept, &w.top} },
		"SELECT id, seen, swept, top FROM (SELECT id, beat, seen, swept, COALESCE((SELECT max(seq) FROM audit WHERE writer = id), 0) AS top FROM audit_writers) AS w WHERE "+where, args...)
}

// IndexActs moves new acts to where Rows finds them by person and time. Done as they come, it would halve the rate of Append
// (docs/decisions/0007-the-log-in-sql.md). Run does it every few seconds.
func (db *DB) IndexActs(ctx context.Context) error {
	const step = 4000 // rows in one transaction, which Appends wait for
	behind, err := db.writers(ctx, "top > seen")
	if err != nil {
		return err
	}
	for _, w := range behind {
		for from := w.seen; from < w.top && err == nil; from += step {
			err = db.indexSome(ctx, w.id, from, min(from+step, w.top))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (db *DB) indexSome(ctx context.Context, writer string, from, to int64) error {
	return db.tx(ctx, func(ctx context.Context, tx *sql.Tx) error {
		n, err := exec(ctx, tx, "UPDATE audit_writers SET seen = $1 WHERE id = $2 AND seen = $3", to, writer, from)
		if err != nil || n == 0 { // another replica did it
			return err
		}
		_, err = exec(ctx, tx, `INSERT INTO audit_acts (tenant, user_id, at, writer, seq) SELECT tenant, user_id, at, writer, seq FROM audit
			WHERE writer = $1 AND seq > $2 AND seq <= $3 AND kind IN ('intent', 'event') ORDER BY tenant, user_id, at`, writer, from, to)
		return err
	})
}

// Beat implements audit.Sweeps.
func (db *DB) Beat(ctx context.Context, writer string, now time.Time) error {
	_, err := exec(ctx, db.write, "INSERT INTO audit_writers (id, beat) VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET beat = excluded.beat", writer, micros(now))
	return err
}

// Ended implements audit.Sweeps.
func (db *DB) Ended(ctx context.Context, id audit.CallID) (bool, error) {
	l, err := list(ctx, db.read, value[int64], "SELECT seq FROM audit WHERE kind = 'outcome' AND call = $1", id)
	return len(l) > 0, err
}

// Unfinished implements audit.Sweeps. What a dead writer left open is nearly always near the end of its chain, so there it is
// looked for at once; the rest is gone through a piece a call, and never again.
func (db *DB) Unfinished(ctx context.Context, deadBefore time.Time, limit int) ([]audit.Row, error) {
	const piece = 50_000
	dead, err := db.writers(ctx, "beat < $1 AND top > swept", micros(deadBefore))
	if err != nil {
		return nil, err
	}
	var open []audit.Row
	for _, w := range dead {
		edge := min(w.swept+piece, w.top)
		rows, err := list(ctx, db.read, auditFields, "SELECT "+auditColumns+` FROM audit AS i WHERE writer = $1 AND seq > $2 AND (seq <= $3 OR seq > $4) AND seq <= $5 AND kind = 'intent'
			AND NOT EXISTS (SELECT 1 FROM audit AS o WHERE o.kind = 'outcome' AND o.call = i.call) ORDER BY seq LIMIT $6`, w.id, w.swept, edge, w.top-piece, w.top, limit-len(open))
		if err != nil {
			return nil, err
		}
		open = append(open, rows...)
		if len(rows) == 0 || rows[0].Seq > edge {
			if _, err := exec(ctx, db.write, "UPDATE audit_writers SET swept = $1 WHERE id = $2 AND swept < $1", edge, w.id); err != nil {
				return nil, err
			}
		}
		if len(open) >= limit {
			break
		}
	}
	return open, nil
}
