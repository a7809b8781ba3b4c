package store

import (
	"bytes"
	"cmp"
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
	"frontdesk.dev/frontdesk/internal/store/database"
)

var (
	_ audit.Store  = (*DB)(nil)
	_ audit.Sweeps = (*DB)(nil)

	_ audit.CheckpointStore = (*DB)(nil)
)

var auditTable = table[audit.Row]{
	name: "audit", none: "there is no such call",
	columns: auditColumns,
	fields: func(r *audit.Row) []any {
		return []any{&r.Writer, &r.Seq, &r.Tenant, &r.User, &r.Kind, &r.Call, (*when)(&r.Time), (*blob)(&r.Record), (*blob)(&r.Hash)}
	},
}

const auditColumns = "writer, seq, tenant, user_id, kind, call, at, record, hash"

// auditRow is a row with a user whom both databases can store: he is only there to be found, the record says who it was.
type auditRow audit.Row

// Append implements audit.Store. The usual way is one statement or transaction, without a look at what is there; only where a
// key is taken already is it looked at.
func (db *DB) Append(ctx context.Context, rows []audit.Row) error {
	if len(rows) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, database.Patience)
	defer cancel()
	clean := make([]auditRow, len(rows))
	for i, r := range rows {
		r.User = identity.UserID(strings.ReplaceAll(strings.ToValidUTF8(string(r.User), "\uFFFD"), "\x00", "\uFFFD"))
		clean[i] = auditRow(r)
		if len(r.Record) == 0 || len(r.Hash) == 0 || r.Kind == audit.KindOutcome && r.Call == "" || r.Kind == audit.KindLate {
			return fmt.Errorf("store: row %s.%x is none: it lacks its record, hash or call, or is late before it came", r.Writer, r.Seq)
		}
		if r.Seq == 1 {
			if err := db.enlist(ctx, r.Writer, r.Time); err != nil {
				return err
			}
		}
	}
	insert := insertRowsSQLite
	if db.base.Notify != "" {
		insert = insertRowsPostgres
	}
	err := database.Fault(insert(ctx, db, clean))
	for try := 0; fault.KindOf(err) == fault.Conflict && try < 5; try++ { // more than one where replicas race for an outcome
		err = db.base.Tx(ctx, func(ctx context.Context, tx *sql.Tx) error {
			if first := clean[0]; db.base.Notify != "" && first.Seq > 1 {
				if there, err := db.there(ctx, tx, first.Writer, first.Seq-1); err != nil || !there {
					return cmp.Or(err, audit.ErrCut)
				}
			}
			return appendAround(ctx, tx, clean)
		})
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

// insertRowsSQLite: a prepared statement a row is faster than one of many rows, and a statement that nobody can break off
// faster than one that is watched by a goroutine (docs/decisions/0007-the-log-in-sql.md). It waits for no network.
func insertRowsSQLite(ctx context.Context, db *DB, rows []auditRow) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	ctx = context.WithoutCancel(ctx)
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

// insertRowsPostgres is one statement, so one round trip, of the same text for any number of rows. It inserts none where the row
// is gone after which they come: then this is another server than the one that acknowledged it.
func insertRowsPostgres(ctx context.Context, db *DB, rows []auditRow) error {
	n := len(rows)
	writer, tenant, user, kind, call := make([]string, n), make([]string, n), make([]string, n), make([]string, n), make([]string, n)
	seq, at, record, hash := make([]int64, n), make([]int64, n), make([][]byte, n), make([][]byte, n)
	for i, r := range rows {
		writer[i], seq[i], tenant[i], user[i], kind[i] = r.Writer, r.Seq, string(r.Tenant), string(r.User), string(r.Kind)
		call[i], at[i], record[i], hash[i] = string(r.Call), micros(r.Time), r.Record, r.Hash
	}
	res, err := db.write.ExecContext(ctx, "INSERT INTO audit ("+auditColumns+") SELECT * FROM unnest($1::text[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bigint[], $8::bytea[], $9::bytea[])"+
		" WHERE $10::bigint = 1 OR EXISTS (SELECT 1 FROM audit WHERE writer = $11 AND seq = $10::bigint - 1)",
		writer, seq, tenant, user, kind, call, at, record, hash, rows[0].Seq, rows[0].Writer)
	if err != nil {
		return err
	}
	if done, err := res.RowsAffected(); err != nil || done == 0 {
		return cmp.Or(err, audit.ErrCut)
	}
	return nil
}

// appendAround inserts what is not there, and outcomes that came second as late.
func appendAround(ctx context.Context, tx *sql.Tx, rows []auditRow) error {
	for _, r := range rows {
		there, err := database.List(ctx, tx, func(h *blob) []any { return []any{h} }, "SELECT hash FROM audit WHERE writer = $1 AND seq = $2", r.Writer, r.Seq)
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
			first, err := database.List(ctx, tx, database.Value[int64], "SELECT seq FROM audit WHERE kind = 'outcome' AND call = $1", r.Call)
			if err != nil {
				return err
			}
			if len(first) > 0 {
				r.Kind = audit.KindLate
			}
		}
		if _, err := database.Exec(ctx, tx, insertAudit, r.args()...); err != nil {
			return err
		}
	}
	return nil
}

const enlist = "INSERT INTO audit_writers (id, beat) VALUES ($1, $2) ON CONFLICT (id) DO NOTHING"

// enlist makes the writer known, so that its rows are found by what goes from writer to writer.
func (db *DB) enlist(ctx context.Context, writer string, at time.Time) error {
	_, err := database.Exec(ctx, db.write, enlist, writer, micros(at))
	return err
}

// place is where the id says that the row is.
func place(id audit.CallID) (writer string, seq int64, err error) {
	writer, hex, _ := strings.Cut(string(id), ".")
	seq, perr := strconv.ParseInt(hex, 16, 64)
	if perr != nil || fmt.Sprintf("%s.%x", writer, seq) != string(id) { // one spelling a row
		return "", 0, fault.New(fault.NotFound, auditTable.none, nil)
	}
	return writer, seq, nil
}

// Intent implements audit.Store.
func (db *DB) Intent(ctx context.Context, id audit.CallID) (audit.Row, error) {
	writer, seq, err := place(id)
	if err != nil {
		return audit.Row{}, err
	}
	return auditTable.one(ctx, db.read, "WHERE writer = $1 AND seq = $2 AND kind = 'intent'", writer, seq)
}

// Chain implements audit.Store. It reads in pages, so that a long look holds nothing up, and the next one while f works.
func (db *DB) Chain(ctx context.Context, after map[string]int64, f func(audit.Row) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	pages, failed := make(chan []audit.Row, 2), make(chan error, 1)
	go func() {
		defer close(pages)
		failed <- db.pages(ctx, after, pages)
	}()
	for page := range pages {
		for _, r := range page {
			if err := f(r); err != nil {
				return err
			}
		}
	}
	return <-failed
}

// pages goes from writer to writer by their rows: a list of them could be shorter.
func (db *DB) pages(ctx context.Context, after map[string]int64, out chan<- []audit.Row) error {
	const size = 2000
	for writer := ""; ; {
		next, err := database.List(ctx, db.read, database.Value[string], "SELECT writer FROM audit WHERE writer > $1 ORDER BY writer LIMIT 1", writer)
		if err != nil || len(next) == 0 {
			return err
		}
		writer = next[0]
		at, ok := after[writer]
		if !ok {
			at = math.MinInt64 // a position that no row may have is found too
		}
		for full := true; full; {
			rows, err := auditTable.all(ctx, db.read, "WHERE writer = $1 AND seq > $2 ORDER BY seq LIMIT "+strconv.Itoa(size), writer, at)
			if err != nil {
				return err
			}
			if full = len(rows) == size; len(rows) == 0 {
				break
			}
			at = rows[len(rows)-1].Seq
			select {
			case out <- rows:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
}

var checkpointTable = table[audit.StoredCheckpoint]{
	name: "checkpoints", none: "there is no checkpoint",
	columns: "number, at, signed, edge",
	fields: func(c *audit.StoredCheckpoint) []any {
		return []any{&c.Number, (*when)(&c.Time), (*blob)(&c.Signed), (*blob)(&c.Edge)}
	},
}

// AddCheckpoint implements audit.CheckpointStore.
func (db *DB) AddCheckpoint(ctx context.Context, c audit.StoredCheckpoint) error {
	return checkpointTable.put(ctx, db.write, &c, "")
}

// LastCheckpoint implements audit.CheckpointStore.
func (db *DB) LastCheckpoint(ctx context.Context) (audit.StoredCheckpoint, error) {
	return checkpointTable.one(ctx, db.read, "ORDER BY number DESC LIMIT 1")
}

// Checkpoints implements audit.CheckpointStore.
func (db *DB) Checkpoints(ctx context.Context, beyond int64, f func(audit.StoredCheckpoint) error) error {
	const size = 2000
	for {
		l, err := checkpointTable.all(ctx, db.read, "WHERE number > $1 ORDER BY number LIMIT "+strconv.Itoa(size), beyond)
		if err != nil {
			return err
		}
		for _, c := range l {
			if err := f(c); err != nil {
				return err
			}
			beyond = c.Number
		}
		if len(l) < size {
			return nil
		}
	}
}

// writerState is how far the chores have come with one chain.
type writerState struct {
	id               string
	seen, swept, top int64
}

func (db *DB) writers(ctx context.Context, where string, args ...any) ([]writerState, error) {
	return database.List(ctx, db.read, func(w *writerState) []any { return []any{&w.id, &w.seen, &w.swept, &w.top} },
		"SELECT id, seen, swept, top FROM (SELECT id, beat, seen, swept, COALESCE((SELECT max(seq) FROM audit WHERE writer = id), 0) AS top FROM audit_writers) AS w WHERE "+where, args...)
}

// Beat implements audit.Sweeps.
func (db *DB) Beat(ctx context.Context, writer string, now time.Time) error {
	_, err := database.Exec(ctx, db.write, "INSERT INTO audit_writers (id, beat) VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET beat = excluded.beat", writer, micros(now))
	return err
}

// Ended implements audit.Sweeps.
func (db *DB) Ended(ctx context.Context, id audit.CallID) (bool, error) {
	l, err := database.List(ctx, db.read, database.Value[int64], "SELECT seq FROM audit WHERE kind = 'outcome' AND call = $1", id)
	return len(l) > 0, err
}

// There implements audit.Sweeps.
func (db *DB) There(ctx context.Context, id audit.CallID) (bool, error) {
	writer, seq, err := place(id)
	if err != nil {
		return false, err
	}
	return db.there(ctx, db.read, writer, seq)
}

func (db *DB) there(ctx context.Context, q database.Querier, writer string, seq int64) (bool, error) {
	l, err := database.List(ctx, q, database.Value[int64], "SELECT seq FROM audit WHERE writer = $1 AND seq = $2", writer, seq)
	return len(l) > 0, err
}

// Unfinished implements audit.Sweeps. What a dead writer left open is nearly always near the end of its chain, so there it is
// looked for at once; the rest is gone through a piece a call, and never again.
func (db *DB) Unfinished(ctx context.Context, deadBefore time.Time, among []string, limit int) ([]audit.Row, error) {
	const piece = 50_000
	where, args := "beat < $1", []any{micros(deadBefore)}
	if len(among) > 0 {
		where += " OR id IN (" + database.Holes(2, len(among)) + ")"
	}
	for _, w := range among {
		args = append(args, w)
	}
	dead, err := db.writers(ctx, "("+where+") AND top > swept", args...)
	if err != nil {
		return nil, err
	}
	var open []audit.Row
	for _, w := range dead {
		edge := min(w.swept+piece, w.top)
		rows, err := auditTable.all(ctx, db.read, `WHERE writer = $1 AND seq > $2 AND (seq <= $3 OR seq > $4) AND seq <= $5 AND kind = 'intent'
			AND (SELECT o.seq FROM audit AS o WHERE o.kind = 'outcome' AND o.call = audit.call) IS NULL ORDER BY seq LIMIT $6`, w.id, w.swept, edge, w.top-piece, w.top, limit-len(open))
		if err != nil {
			return nil, err
		}
		open = append(open, rows...)
		if len(rows) == 0 || rows[0].Seq > edge {
			if _, err := database.Exec(ctx, db.write, "UPDATE audit_writers SET swept = $1 WHERE id = $2 AND swept < $1", edge, w.id); err != nil {
				return nil, err
			}
		}
		if len(open) >= limit {
			break
		}
	}
	return open, nil
}
