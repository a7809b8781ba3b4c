package store

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"frontdesk.dev/frontdesk/internal/broker/booking"
	"frontdesk.dev/frontdesk/internal/broker/traffic"
	"frontdesk.dev/frontdesk/internal/store/database"
)

var _ traffic.Shared = (*DB)(nil)

// million is in what allowances are kept: a bucket fills by less than a call between two looks.
const million = 1_000_000

// Draw implements traffic.Shared.
func (db *DB) Draw(ctx context.Context, w traffic.Draw) (got int64, wait time.Duration, err error) {
	err = db.base.Tx(ctx, func(ctx context.Context, tx *sql.Tx) error {
		if db.base.Lock != "" {
			if _, err := database.Exec(ctx, tx, db.base.Lock, "allowance/"+string(w.Tenant)+"/"+w.Name); err != nil {
				return err
			}
		}
		// One row: the database's clock, and what was left when; nothing where nobody drew yet.
		type row struct{ now, remains, at int64 }
		rows, err := database.List(ctx, tx, func(r *row) []any { return []any{&r.now, &r.remains, &r.at} },
			"SELECT "+db.base.Now+", coalesce(max(remains), -1), coalesce(max(at), -1) FROM allowances WHERE tenant = $1 AND name = $2", w.Tenant, w.Name)
		if err == nil && len(rows) != 1 {
			err = fmt.Errorf("store: a count has %d rows", len(rows))
		}
		if err != nil {
			return err
		}
		r, full := rows[0], w.PerMinute*million
		left := full
		if r.at >= 0 {
			passed := min(max(r.now-r.at, 0), time.Minute.Microseconds())
			left = min(full, r.remains+passed*w.PerMinute/60) // a minute has 60 million microseconds
		}
		left -= w.Owed * million
		got = min(max(left/million, 0), w.Want)
		left -= got * million
		if got == 0 && w.PerMinute > 0 {
			wait = time.Duration(float64(million-left) * 60 / float64(w.PerMinute) * float64(time.Microsecond))
		}
		_, err = database.Exec(ctx, tx, "INSERT INTO allowances (tenant, name, remains, at) VALUES ($1, $2, $3, $4) ON CONFLICT (tenant, name) DO UPDATE SET remains = excluded.remains, at = excluded.at",
			w.Tenant, w.Name, left, r.now)
		return err
	})
	if err != nil {
		return 0, 0, err
	}
	return got, wait, nil
}

var wordTable = table[traffic.Word]{
	name: "vendor_words", none: "there is no such word",
	columns: "seq, tenant, upstream, who, part, replica, used, until",
	fields: func(w *traffic.Word) []any {
		return []any{&w.Seq, &w.Tenant, &w.Upstream, &w.Who, &w.Part, &w.Replica, &w.Used, (*when)(&w.Until)}
	},
}

// Say implements traffic.Shared. Words take their number from the counter of epochs, whose row is locked until the commit.
func (db *DB) Say(ctx context.Context, l []traffic.Word) error {
	return db.base.Tx(ctx, func(ctx context.Context, tx *sql.Tx) error {
		seq, err := nextEpoch(ctx, tx)
		for i := range l {
			if err != nil {
				return err
			}
			w := l[i]
			w.Seq = seq
			err = wordTable.put(ctx, tx, &w, ` ON CONFLICT (tenant, upstream, who, part, replica) DO UPDATE SET used = excluded.used, until = excluded.until, seq = excluded.seq
				WHERE excluded.until > vendor_words.until OR excluded.until = vendor_words.until AND excluded.used > vendor_words.used`)
		}
		return err
	})
}

// Said implements traffic.Shared.
func (db *DB) Said(ctx context.Context, since int64) ([]traffic.Word, error) {
	return wordTable.all(ctx, db.read, "WHERE seq > $1 AND until > "+db.base.Now+" ORDER BY seq, tenant, upstream, who, part, replica", since)
}

var _ booking.Notes = (*DB)(nil)

var noteTable = table[booking.Note]{
	name: "call_notes", none: "there is no such note",
	columns: "id, writer, call, missing, hint, sent",
	fields: func(n *booking.Note) []any {
		return []any{&n.ID, &n.Writer, &n.Call, &record{&n.Missing}, &n.Hint, (*when)(&n.Sent)}
	},
}

// PutNote implements booking.Notes.
func (db *DB) PutNote(ctx context.Context, n booking.Note) error {
	err := db.base.Tx(ctx, func(ctx context.Context, tx *sql.Tx) error {
		if err := noteTable.put(ctx, tx, &n, ""); err != nil {
			return err
		}
		return db.base.NotifyOthers(ctx, tx)
	})
	if err == nil {
		db.base.Wake()
	}
	return err
}

// NotesFor implements booking.Notes.
func (db *DB) NotesFor(ctx context.Context, writer string) ([]booking.Note, error) {
	return noteTable.all(ctx, db.read, "WHERE writer = $1 ORDER BY sent, id", writer)
}

// DropNote implements booking.Notes; one that is gone is no error.
func (db *DB) DropNote(ctx context.Context, id string) error {
	_, err := database.Exec(ctx, db.write, "DELETE FROM call_notes WHERE id = $1", id)
	return err
}

// NoteWaits implements booking.Notes.
func (db *DB) NoteWaits(ctx context.Context, id string) (bool, error) {
	l, err := database.List(ctx, db.read, database.Value[string], "SELECT id FROM call_notes WHERE id = $1", id)
	return len(l) > 0, err
}
