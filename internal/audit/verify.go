package audit

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"
)

// Verdict is what Verify found, and the exit code of `frontdesk audit verify`.
type Verdict int

const (
	Whole     Verdict = 0
	Altered   Verdict = 1 // a record, a hash, a column or a checkpoint differs, or a position within a chain is missing
	Shorter   Verdict = 2 // a checkpoint says that there was more
	Forked    Verdict = 3 // one position holds two records, or other ones than a checkpoint says
	Unmatched Verdict = 4 // an intent without outcome beyond the grace, or an outcome without intent
	Unchecked Verdict = 5 // the log could not be read
)

// Report is what Verify says.
type Report struct {
	Verdict     Verdict  `json:"verdict"`
	Writers     int      `json:"writers"`
	Rows        int      `json:"rows"`
	Open        int      `json:"open"`                  // intents that may still be running
	Checkpoints int64    `json:"checkpoints,omitempty"` // in the database
	Outside     int      `json:"outside,omitempty"`     // kept elsewhere, and found here
	Where       string   `json:"where,omitempty"`       // the first broken record
	What        string   `json:"what,omitempty"`        // what is wrong with it
	Reminders   []string `json:"reminders,omitempty"`   // what this check cannot see

	Ends map[string]int64 `json:"-"` // how far each chain was read
}

// Add takes in what another check of the same database found: the graver verdict stands.
func (r *Report) Add(v Verdict, where, what string) {
	if r.Verdict == Whole || gravity[v] < gravity[r.Verdict] {
		r.Verdict, r.Where, r.What = v, where, what
	}
}

// gravity orders verdicts, the one that explains most first.
var gravity = map[Verdict]int{Unchecked: 0, Altered: 1, Shorter: 2, Forked: 3, Unmatched: 4, Whole: 5}

// Against is what a log is held against. Its zero value, with Now, is the log alone.
type Against struct {
	Now         time.Time
	Since       time.Time       // begin at the last checkpoint before; zero: at the beginning
	Checkpoints CheckpointStore // nil: there are none
	Key         string          // the verifier key that was pinned; "": the first of Keys, which proves nothing about who signed
	Keys        []string        // as the database holds them
	Outside     [][]byte        // checkpoints that were kept elsewhere
	Seen        func(*Record)   // called with each record
}

// grace is longer than any call may last: an intent without outcome that is older is a fault.
const grace = 2 * time.Hour

// Verify recomputes every chain, holds it against the checkpoints, and matches intents with outcomes. It needs no running server.
func Verify(ctx context.Context, s Store, o Against) Report {
	v := verification{report: Report{Ends: map[string]int64{}}, now: o.Now, since: map[string]int64{}, open: map[CallID]time.Time{}, early: map[CallID]bool{}, lost: map[string]int64{}, seen: o.Seen}
	if o.Checkpoints != nil {
		v.signed = &signed{against: o, report: &v.report, heads: map[string][]expected{}, named: map[string][]expected{}, from: map[string]Head{}, since: map[[32]byte]int{}}
		if err := v.signed.read(ctx); err != nil {
			v.report.Add(Unchecked, "", "the checkpoints could not be read: "+err.Error())
			return v.report
		}
		for w, h := range v.signed.from {
			v.since[w] = h.Seq
		}
	} else {
		v.report.Reminders = append(v.report.Reminders, "no checkpoint was looked at: a chain whose newest records were cut off verifies all the same")
	}
	switch err := s.Chain(ctx, v.since, v.row); {
	case err == errBroken: // it is in the report
	case err != nil:
		v.report.Add(Unchecked, "", "the log could not be read: "+err.Error())
	default:
		v.chainEnds()
		v.admitted()
		if v.signed != nil {
			v.signed.missing(v.lost)
		}
		v.matched()
	}
	return v.report
}

type verification struct {
	report Report
	now    time.Time
	since  map[string]int64 // by writer: rows up to it are taken for read
	at     chain
	open   map[CallID]time.Time // intents without outcome so far
	early  map[CallID]bool      // outcomes whose intent stands in a chain that comes later
	lost   map[string]int64     // by chain: the newest record that was lost, as is known
	cuts   []cut
	signed *signed // nil where no checkpoints are looked at
	seen   func(*Record)
}

// cut is a record that says that the database had lost others.
type cut struct {
	writer string
	seq    int64
	lost   CallID // the newest of them, where they were of one chain
	detail string
}

// said takes in a record that says that something was lost.
func (v *verification) said(row Row, r *Record) {
	if r.Kind == KindEvent && r.Action == actionShorter {
		v.cuts = append(v.cuts, cut{row.Writer, row.Seq, r.Call, r.Detail})
	}
}

// admitted reports what the log says to have lost, where no operator has signed that he knows of it. Who cannot sign can write such a
// record, but not before what was signed.
func (v *verification) admitted() {
	known := 0
	for _, c := range v.cuts {
		if v.signed == nil || !v.signed.knows(c.writer, c.seq) {
			v.report.Add(Shorter, string(callID(c.writer, c.seq)), c.detail)
			continue
		}
		known++
		if w, seq, err := c.lost.parse(); err == nil {
			v.lost[w] = max(v.lost[w], seq)
		}
	}
	if known > 0 {
		v.report.Reminders = append(v.report.Reminders, fmt.Sprintf("records were lost with a failover or a restore, as %s and was signed to be known (%s)",
			map[bool]string{true: "a record says", false: strconv.Itoa(known) + " records say"}[known == 1], v.signed.accepted().Format(time.RFC3339)))
	}
}

var errBroken = fmt.Errorf("broken")

func (v *verification) broken(verdict Verdict, row Row, what string) error {
	v.report.Add(verdict, string(callID(row.Writer, row.Seq)), what)
	return errBroken
}

func (v *verification) row(row Row) error {
	if row.Writer != v.at.writer {
		v.chainEnds()
		v.at = chain{writer: row.Writer}
		if v.signed != nil {
			if h, ok := v.signed.from[row.Writer]; ok {
				v.at.seq, v.at.prev = h.Seq, h.Hash
			}
		}
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
	if v.signed != nil {
		if err := v.signed.passes(v.at); err != nil {
			return v.broken(Forked, row, err.Error())
		}
	}
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
	if v.seen != nil {
		v.seen(&r)
	}
	v.said(row, &r)
	v.match(row, r)
	return nil
}

// chainEnds looks whether a checkpoint knows of more in the chain that was read last.
func (v *verification) chainEnds() {
	v.report.Ends[v.at.writer] = v.at.seq
	if v.signed != nil && v.at.writer != "" {
		v.signed.ended(v.at)
	}
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
			return
		}
		w, seq, err := row.Call.parse()
		if from, ok := v.since[w]; ok && err == nil && seq <= from {
			return
		}
		if err != nil || w > row.Writer || w == row.Writer && seq > row.Seq {
			v.early[row.Call] = true
		}
	}
}

func (v *verification) matched() {
	for id := range maps.Keys(v.early) {
		if w, seq, err := id.parse(); err == nil && seq <= v.lost[w] && seq > v.report.Ends[w] {
			continue // its intent was lost
		}
		v.report.Add(Unmatched, string(id), "an outcome without intent")
	}
	for id, at := range v.open {
		v.report.Open++
		if v.now.Sub(at) > grace {
			v.report.Add(Unmatched, string(id), "an intent without outcome, older than any call may last")
		}
	}
}

// Export writes every row as a line of JSON: its place, its hash, and the record as it was written.
func Export(ctx context.Context, s Store, write func(line []byte) error) error {
	return s.Chain(ctx, nil, func(r Row) error {
		b := fmt.Appendf(nil, `{"writer":"%s","seq":%d,"hash":"%x","record":`, r.Writer, r.Seq, r.Hash)
		return write(append(append(b, r.Record...), "}\n"...))
	})
}

// Read calls f with each record beyond those that ends names, and moves ends on. It verifies nothing.
func Read(ctx context.Context, s Store, ends map[string]int64, f func(*Record)) error {
	return s.Chain(ctx, ends, func(row Row) error {
		var r Record
		if err := json.Unmarshal(row.Record, &r); err != nil {
			return err
		}
		ends[row.Writer] = row.Seq
		f(&r)
		return nil
	})
}
