package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"time"
)

// Verdict is what Verify found, and the exit code of `frontdesk audit verify`.
type Verdict int

const (
	Whole     Verdict = 0
	Altered   Verdict = 1 // a record, a hash or a column differs, or a position is missing
	Forked    Verdict = 3 // one position holds two records
	Unmatched Verdict = 4 // an intent without outcome beyond the grace, or an outcome without intent
	Unchecked Verdict = 5 // the log could not be read
)

// Report is what Verify says.
type Report struct {
	Verdict  Verdict `json:"verdict"`
	Writers  int     `json:"writers"`
	Rows     int     `json:"rows"`
	Open     int     `json:"open"`               // intents that may still be running
	Where    string  `json:"where,omitempty"`    // the first broken record
	What     string  `json:"what,omitempty"`     // what is wrong with it
	Reminder string  `json:"reminder,omitempty"` // what this check cannot see
}

// grace is longer than any call may last: an intent without outcome that is older is a fault.
const grace = 2 * time.Hour

// Verify recomputes every chain and matches intents with outcomes. It needs no running server.
func Verify(ctx context.Context, s Store, now time.Time) Report {
	v := verification{now: now, open: map[CallID]time.Time{}, early: map[CallID]bool{}}
	v.report.Reminder = "a chain whose newest records were cut off verifies all the same, until checkpoints are kept elsewhere"
	err := s.Chain(ctx, v.row)
	switch {
	case v.report.Verdict != Whole:
	case err != nil:
		v.report.Verdict, v.report.What = Unchecked, "the log could not be read: "+err.Error()
	default:
		v.matched()
	}
	return v.report
}

type verification struct {
	report Report
	now    time.Time
	at     chain
	open   map[CallID]time.Time // intents without outcome so far
	early  map[CallID]bool      // outcomes whose intent stands in a chain that comes later
}

var errBroken = fmt.Errorf("broken")

func (v *verification) broken(verdict Verdict, row Row, what string) error {
	v.report.Verdict, v.report.Where, v.report.What = verdict, fmt.Sprintf("%s.%x", row.Writer, row.Seq), what
	return errBroken
}

func (v *verification) row(row Row) error {
	if row.Writer != v.at.writer {
		v.at = chain{writer: row.Writer}
		v.report.Writers++
	}
	v.report.Rows++
	switch {
	case row.Seq == v.at.seq:
		return v.broken(Forked, row, "the position is taken twice")
	case row.Seq != v.at.seq+1:
		return v.broken(Altered, row, fmt.Sprintf("%d records before it are missing", row.Seq-v.at.seq-1))
	}
	want := link(row.Writer, row.Seq, v.at.prev, row.Record)
	if !bytes.Equal(want[:], row.Hash) {
		return v.broken(Altered, row, fmt.Sprintf("the record, or one before it, was altered: its hash is %x, should be %x", row.Hash, want))
	}
	v.at.seq, v.at.prev = row.Seq, want
	var r Record
	if err := json.Unmarshal(row.Record, &r); err != nil {
		return v.broken(Altered, row, "the record is not JSON")
	}
	kind := row.Kind
	if kind == KindLate { // it counts for nothing: match passes it by
		kind = KindOutcome
	}
	if r.Kind != kind || r.Tenant != row.Tenant || r.User != row.User || r.Call != row.Call || !r.Time.Equal(row.Time) {
		return v.broken(Altered, row, "the columns say something else than the record")
	}
	v.match(row, r)
	return nil
}

func (v *verification) match(row Row, r Record) {
	switch row.Kind {
	case KindIntent:
		if v.early[row.Call] {
			delete(v.early, row.Call)
			return
		}
		v.open[row.Call] = row.Time
		if r.Action == "session" { // a session lives for days
			v.open[row.Call] = v.now
		}
	case KindOutcome:
		if _, ok := v.open[row.Call]; ok {
			delete(v.open, row.Call)
		} else if w, seq, err := row.Call.parse(); err != nil || w > row.Writer || w == row.Writer && seq > row.Seq {
			v.early[row.Call] = true
		}
	}
}

func (v *verification) matched() {
	for id := range v.early {
		v.report.Verdict, v.report.Where, v.report.What = Unmatched, string(id), "an outcome without intent"
	}
	for id, at := range v.open {
		v.report.Open++
		if v.now.Sub(at) > grace {
			v.report.Verdict, v.report.Where, v.report.What = Unmatched, string(id), "an intent without outcome, older than any call may last"
		}
	}
}

// Export writes every row as a line of JSON: its place, its hash, and the record as it was written.
func Export(ctx context.Context, s Store, write func(line []byte) error) error {
	return s.Chain(ctx, func(r Row) error {
		b := fmt.Appendf(nil, `{"writer":"%s","seq":%d,"hash":"%x","record":`, r.Writer, r.Seq, r.Hash)
		return write(append(append(b, r.Record...), "}\n"...))
	})
}
