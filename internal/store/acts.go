package store

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"slices"
	"time"

	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/store/database"
)

// acts says where some of one person's intents and events are. A row for each, kept as they come, would halve the rate of
// Append (docs/decisions/0007-the-log-in-sql.md): so they are gathered in the background, many in a row.
type acts struct {
	tenant identity.Tenant
	user   identity.UserID
	newest int64
	writer string
	last   int64   // of seqs
	seqs   []int64 // ascending
}

var actsTable = table[acts]{
	name: "audit_acts", none: "there are no such acts",
	columns: "tenant, user_id, newest, writer, seq, seqs",
	fields: func(a *acts) []any {
		return []any{&a.tenant, &a.user, &a.newest, &a.writer, &a.last, &record{&a.seqs}}
	},
}

const (
	everybody = identity.UserID("*")

	mostSeqs = 500       // in one row
	mostSpan = time.Hour // between the oldest and the newest in one row, so that a page far back need not look at all that is newer
)

// IndexActs puts new intents and events where Rows finds them by person. Two that do it at once, or one that is broken off,
// say some things twice, which Rows bears.
func (db *DB) IndexActs(ctx context.Context) error {
	const window = 100_000 // rows of a chain that are gathered at once
	behind, err := db.writers(ctx, "top > seen")
	if err != nil {
		return err
	}
	for _, w := range behind {
		for from := w.seen; from < w.top; from += window {
			if err := db.indexWindow(ctx, w.id, from, min(from+window, w.top)); err != nil {
				return err
			}
		}
	}
	return nil
}

func (db *DB) indexWindow(ctx context.Context, writer string, from, to int64) error {
	rows, err := database.List(ctx, db.read, func(r *audit.Row) []any { return []any{&r.Tenant, &r.User, (*when)(&r.Time), &r.Seq} },
		"SELECT tenant, user_id, at, seq FROM audit WHERE writer = $1 AND seq > $2 AND seq <= $3 AND kind IN ('intent', 'event') ORDER BY seq", writer, from, to)
	if err != nil {
		return err
	}
	const some = 500 // in one transaction, which Appends wait for
	for part := range slices.Chunk(gather(writer, rows), some) {
		err := db.base.Tx(ctx, func(ctx context.Context, tx *sql.Tx) error {
			for _, a := range part {
				if err := actsTable.put(ctx, tx, a, " ON CONFLICT DO NOTHING"); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	_, err = database.Exec(ctx, db.write, "UPDATE audit_writers SET seen = $1 WHERE id = $2 AND seen < $1", to, writer)
	return err
}

// gather gives the acts of each person, and of everybody, in the order of their key.
func gather(writer string, rows []audit.Row) []*acts {
	type person struct {
		tenant identity.Tenant
		user   identity.UserID
	}
	var all []*acts
	open, oldest := map[person]*acts{}, map[*acts]int64{}
	for _, r := range rows {
		at := micros(r.Time)
		for _, u := range []identity.UserID{r.User, everybody} {
			p := person{r.Tenant, u}
			a := open[p]
			if a == nil || len(a.seqs) >= mostSeqs || max(a.newest, at)-min(oldest[a], at) > mostSpan.Microseconds() {
				a = &acts{tenant: r.Tenant, user: u, writer: writer, newest: at}
				all, open[p], oldest[a] = append(all, a), a, at
			}
			a.newest, oldest[a], a.last, a.seqs = max(a.newest, at), min(oldest[a], at), r.Seq, append(a.seqs, r.Seq)
		}
	}
	slices.SortFunc(all, func(x, y *acts) int {
		return cmp.Or(cmp.Compare(x.tenant, y.tenant), cmp.Compare(x.user, y.user), cmp.Compare(x.newest, y.newest))
	})
	return all
}

var endOfTime = time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)

// page is what of a person's acts is asked for: those in [since, before), newest first.
type page struct {
	tenant identity.Tenant
	user   identity.UserID // "" = all
	since  int64
	before audit.Row // its Time, Writer and Seq
	limit  int
}

func newestFirst(x, y audit.Row) int {
	return cmp.Or(y.Time.Compare(x.Time), cmp.Compare(y.Writer, x.Writer), cmp.Compare(y.Seq, x.Seq))
}

// add puts more rows into their places among those there are.
func (p *page) add(rows, more []audit.Row) []audit.Row {
	for _, r := range more {
		if micros(r.Time) >= p.since && newestFirst(p.before, r) < 0 {
			rows = append(rows, r)
		}
	}
	slices.SortFunc(rows, newestFirst)
	rows = slices.CompactFunc(rows, func(x, y audit.Row) bool { return newestFirst(x, y) == 0 })
	return rows[:min(p.limit, len(rows))]
}

// Rows implements audit.Store. Ends of chains that are not indexed yet are looked at row by row, and first: what is indexed
// meanwhile is found twice then, rather than never.
func (db *DB) Rows(ctx context.Context, q audit.Query) ([]audit.Row, error) {
	p := page{tenant: q.Tenant, user: q.User, since: micros(q.Since), before: audit.Row{Time: endOfTime}, limit: q.Limit}
	if p.limit <= 0 {
		p.limit = 100
	}
	p.limit = min(p.limit, 1000)
	if q.Before != "" {
		var err error
		if p.before, err = db.placed(ctx, q.Tenant, q.Before); err != nil {
			return nil, err
		}
	}
	rows, err := db.tails(ctx, &p)
	if err != nil {
		return nil, err
	}
	if rows, err = db.indexed(ctx, &p, rows); err != nil {
		return nil, err
	}
	return db.withOutcomes(ctx, rows)
}

// placed is the intent or event that stands at the id, or whose outcome does.
func (db *DB) placed(ctx context.Context, t identity.Tenant, id audit.CallID) (audit.Row, error) {
	writer, seq, err := place(id)
	if err != nil {
		return audit.Row{}, err
	}
	r, err := auditTable.one(ctx, db.read, "WHERE writer = $1 AND seq = $2 AND tenant = $3", writer, seq, t)
	if err != nil || r.Kind == audit.KindIntent || r.Kind == audit.KindEvent {
		return r, err
	}
	return db.Intent(ctx, r.Call)
}

// tails gives the newest of the page among what is not indexed.
func (db *DB) tails(ctx context.Context, p *page) ([]audit.Row, error) {
	behind, err := db.writers(ctx, "top > seen")
	if err != nil {
		return nil, err
	}
	var rows []audit.Row
	for _, w := range behind {
		more, err := auditTable.all(ctx, db.read, fmt.Sprintf(`WHERE writer = $1 AND seq > $2 AND kind IN ('intent', 'event')
			AND tenant = $3 AND ($4 = '' OR user_id = $4) AND at >= $5 AND (at, writer, seq) < ($6, $7, $8) ORDER BY at DESC, seq DESC LIMIT %d`, p.limit),
			w.id, w.seen, p.tenant, p.user, p.since, micros(p.before.Time), p.before.Writer, p.before.Seq)
		if err != nil {
			return nil, err
		}
		rows = p.add(rows, more)
	}
	return rows, nil
}

// indexed adds to rows what the index has for the page. It stops where nothing newer can come.
func (db *DB) indexed(ctx context.Context, p *page, rows []audit.Row) ([]audit.Row, error) {
	user := p.user
	if user == "" {
		user = everybody
	}
	until := micros(p.before.Time.Add(mostSpan))
	const some = 64
	for offset := 0; ; offset += some {
		found, err := actsTable.all(ctx, db.read, fmt.Sprintf(`WHERE tenant = $1 AND user_id = $2 AND newest >= $3 AND newest <= $4
			ORDER BY newest DESC, writer DESC, seq DESC LIMIT %d OFFSET $5`, some), p.tenant, user, p.since, until, offset)
		if err != nil {
			return nil, err
		}
		wanted, n := map[string][]any{}, 0
		for i, a := range found {
			if n == 0 && len(rows) == p.limit && micros(rows[p.limit-1].Time) > a.newest {
				return rows, nil
			}
			for _, seq := range a.seqs {
				wanted[a.writer] = append(wanted[a.writer], seq)
			}
			if n += len(a.seqs); n < p.limit && i < len(found)-1 {
				continue
			}
			for writer, seqs := range wanted {
				more, err := db.rowsOf(ctx, "writer = $1 AND seq", []any{writer}, seqs)
				if err != nil {
					return nil, err
				}
				rows = p.add(rows, more)
			}
			wanted, n = map[string][]any{}, 0
		}
		if len(found) < some {
			return rows, nil
		}
	}
}

// rowsOf reads the rows whose column, the last one in the condition, is one of the values.
func (db *DB) rowsOf(ctx context.Context, condition string, args, values []any) ([]audit.Row, error) {
	var rows []audit.Row
	for some := range slices.Chunk(values, 512) {
		n := 1
		for n < len(some) { // few different statements, so that they are prepared already
			n *= 2
		}
		all := slices.Concat(args, some, slices.Repeat(some[:1], n-len(some)))
		more, err := auditTable.all(ctx, db.read, "WHERE "+condition+" IN ("+database.Holes(len(args)+1, n)+")", all...)
		if err != nil {
			return nil, err
		}
		rows = append(rows, more...)
	}
	return rows, nil
}

// withOutcomes puts behind each intent the outcome that counts.
func (db *DB) withOutcomes(ctx context.Context, rows []audit.Row) ([]audit.Row, error) {
	var calls []any
	for _, r := range rows {
		if r.Kind == audit.KindIntent {
			calls = append(calls, r.Call)
		}
	}
	found, err := db.rowsOf(ctx, "kind = 'outcome' AND call", nil, calls)
	if err != nil {
		return nil, err
	}
	outcome := map[audit.CallID]audit.Row{}
	for _, r := range found {
		outcome[r.Call] = r
	}
	all := make([]audit.Row, 0, len(rows)+len(found))
	for _, r := range rows {
		all = append(all, r)
		if o, ok := outcome[r.Call]; ok && r.Kind == audit.KindIntent {
			all = append(all, o)
		}
	}
	return all, nil
}
