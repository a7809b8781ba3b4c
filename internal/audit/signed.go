package audit

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"golang.org/x/mod/sumdb/note"
)

// signed is what the checkpoints say, in the database and outside of it.
type signed struct {
	against Against
	report  *Report

	key     string // that has to sign the next one; "" before the pinned key has signed any
	last    Checkpoint
	edge    edge
	gaps    []Checkpoint          // those that say that something is gone: the log came from a backup, or the database has lost it
	since   map[[32]byte]int      // by digest, how many of those it is or comes after
	from    map[string]Head       // where reading begins: as the last checkpoint before Since says
	heads   map[string][]expected // by chain, rising
	named   map[string][]expected // by chain: the same, of the database alone
	short   []shortfall
	trusted []note.Verifier
	later   []func() // findings that say less than what the rows themselves show
}

// expected is a head that a checkpoint names. The row there must have this hash.
type expected struct {
	seq    int64
	hash   [32]byte
	number int64 // of the checkpoint
}

// shortfall is what a checkpoint has seen beyond the end of a chain.
type shortfall struct {
	writer      string
	from, until int64
	number      int64 // of the checkpoint
}

// read goes through the checkpoints of the database, and then through those that were kept elsewhere.
func (s *signed) read(ctx context.Context) error {
	pinned := s.against.Key
	if pinned == "" && len(s.against.Keys) > 0 {
		pinned = s.against.Keys[0]
		s.report.Reminders = append(s.report.Reminders, "the key of the checkpoints was taken from the database itself: pin it with --pubkey")
	}
	outside, err := s.parseOutside()
	if err != nil {
		return err
	}
	err = s.against.Checkpoints.Checkpoints(ctx, 0, func(c StoredCheckpoint) error { return s.one(c, pinned, outside) })
	if err != nil && err != errBroken {
		return err
	}
	s.report.Checkpoints = s.last.Number
	switch {
	case err == errBroken:
	case s.last.Number > 0 && s.key == "":
		s.report.Add(Altered, "checkpoint 1", "no checkpoint in the database is signed by the pinned key")
	case s.last.Number == 0 && s.against.Since.IsZero():
		s.report.Reminders = append(s.report.Reminders, "the database holds no checkpoint: a chain whose newest records were cut off verifies all the same")
	}
	s.kept(outside, pinned)
	return nil
}

// one takes the next checkpoint of the database. What is wrong with it is in the report, and none after it counts.
func (s *signed) one(stored StoredCheckpoint, pinned string, outside map[int64][]Checkpoint) error {
	where := fmt.Sprintf("checkpoint %d", stored.Number)
	wrong := func(v Verdict, what string) error {
		s.report.Add(v, where, what)
		return errBroken
	}
	c, err := ParseCheckpoint(stored.Signed)
	switch {
	case err != nil:
		return wrong(Altered, err.Error())
	case c.Number != stored.Number || !c.Time.Equal(stored.Time):
		return wrong(Altered, "what stands beside it says something else than it says itself")
	case c.Number != s.last.Number+1:
		return wrong(Shorter, fmt.Sprintf("the checkpoints %d to %d are missing", s.last.Number+1, c.Number-1))
	case s.last.Number > 0 && c.Previous != s.last.digest():
		return wrong(Forked, "it names another checkpoint before it")
	}
	if s.key == "" && signedBy(c.Signed, pinned) { // those before it are vouched for by its Previous
		s.trust(pinned)
	}
	if s.key != "" && !signedBy(c.Signed, s.key) {
		return wrong(Altered, "it is not signed by the key that has to sign it")
	}
	s.edge.add(c.Heads)
	if s.edge.size != c.Size || s.edge.root() != c.Root {
		return wrong(Altered, "its root is not that of the heads that it and those before it name")
	}
	if c.Next != "" && s.key != "" {
		s.trust(c.Next)
	}
	if c.Restored || c.Lost > 0 {
		s.gaps = append(s.gaps, c)
	}
	s.since[c.digest()] = len(s.gaps)
	s.report.Outside += len(outside[c.Number])
	outside[c.Number] = slices.DeleteFunc(outside[c.Number], func(o Checkpoint) bool { return bytes.Equal(o.Signed, c.Signed) })
	s.report.Outside -= len(outside[c.Number])
	s.expect(c)
	s.last = c
	return nil
}

func (s *signed) trust(key string) {
	if v, err := note.NewVerifier(key); err == nil {
		s.key = key
		s.trusted = append(s.trusted, v)
	}
}

func (s *signed) expect(c Checkpoint) {
	skip := !s.against.Since.IsZero() && !c.Time.After(s.against.Since)
	for _, h := range c.Heads {
		if skip {
			s.from[h.Writer] = h
			continue
		}
		s.heads[h.Writer] = append(s.heads[h.Writer], expected{h.Seq, h.Hash, c.Number})
		s.named[h.Writer] = append(s.named[h.Writer], expected{h.Seq, h.Hash, c.Number})
	}
}

// knows reports whether an operator has signed, at or after a checkpoint that vouches for this record, that he knows what is missing.
func (s *signed) knows(writer string, seq int64) bool {
	accepted := int64(0)
	for _, gap := range s.gaps {
		if gap.Restored {
			accepted = gap.Number
		}
	}
	return slices.ContainsFunc(s.named[writer], func(e expected) bool { return e.seq >= seq && e.number <= accepted })
}

func (s *signed) parseOutside() (map[int64][]Checkpoint, error) {
	by := map[int64][]Checkpoint{}
	for i, text := range s.against.Outside {
		c, err := ParseCheckpoint(text)
		if err != nil {
			return nil, fmt.Errorf("of what was kept elsewhere the %d. cannot be read: %w", i+1, err)
		}
		by[c.Number] = append(by[c.Number], c)
	}
	return by, nil
}

// kept holds what was kept elsewhere, and is not in the database, against it. What an operator has said to be lost with a
// restore is told, and no fault.
func (s *signed) kept(outside map[int64][]Checkpoint, pinned string) {
	if len(s.trusted) == 0 { // the database holds none that the pinned key has signed
		s.trust(pinned)
	}
	lost := 0
	for _, number := range slices.Sorted(maps.Keys(outside)) {
		for _, c := range outside[number] {
			if _, err := note.Open(c.Signed, note.VerifierList(s.trusted...)); err != nil {
				s.report.Add(Unchecked, fmt.Sprintf("checkpoint %d", c.Number), "what was kept elsewhere under this number is signed by no key of this log")
				continue
			}
			if c.Next != "" {
				s.trust(c.Next)
			}
			went := s.since[c.Previous] // the log went on to it after so many gaps
			s.since[c.digest()] = went
			switch known, accepted := s.gone(&c, went); {
			case accepted:
				lost++
			case known:
				s.absent(c, Shorter)
			default:
				s.absent(c, Forked)
			}
		}
	}
	for _, l := range s.heads {
		slices.SortStableFunc(l, func(a, b expected) int { return int(a.seq - b.seq) })
	}
	if lost > 0 {
		s.report.Reminders = append(s.report.Reminders, fmt.Sprintf("%d checkpoints that were kept elsewhere are of what was lost with a restore or a failover, as was signed (%s)", lost, s.accepted().Format(time.RFC3339)))
	}
	if len(s.against.Outside) == 0 {
		s.report.Reminders = append(s.report.Reminders, "nothing that is kept elsewhere was looked at (--checkpoint): a database that was put back as a whole verifies all the same")
	}
}

// gone reports whether a gap after the first so many says that c was lost, and whether an operator has signed that this is known.
func (s *signed) gone(c *Checkpoint, after int) (known, accepted bool) {
	for _, gap := range s.gaps[min(after, len(s.gaps)):] {
		known = known || gap.lacks(c)
		accepted = accepted || gap.explains(c) || known && gap.Restored
	}
	return known, accepted
}

// accepted is when an operator signed last that what is missing is known; zero if none has.
func (s *signed) accepted() (at time.Time) {
	for _, gap := range s.gaps {
		if gap.Restored {
			at = gap.Time
		}
	}
	return at
}

// absent is a checkpoint that was kept elsewhere and is not in the database. What it has seen is looked for in the log.
func (s *signed) absent(c Checkpoint, replaced Verdict) {
	s.later = append(s.later, func() {
		where := fmt.Sprintf("checkpoint %d", c.Number)
		switch {
		case c.Number <= s.last.Number && replaced == Shorter:
			s.report.Add(Shorter, where, fmt.Sprintf("it was signed at %s and kept elsewhere; the database has lost it, and goes on with another one", c.Time.Format(time.RFC3339)))
		case c.Number > s.last.Number:
			s.report.Add(Shorter, where, fmt.Sprintf("it was signed at %s and kept elsewhere; the database holds %d", c.Time.Format(time.RFC3339), s.last.Number))
		default:
			s.report.Add(Forked, where, "the one that was kept elsewhere under this number is another one")
		}
	})
	for _, h := range c.Heads {
		s.heads[h.Writer] = append(s.heads[h.Writer], expected{h.Seq, h.Hash, c.Number})
	}
}

// passes compares a row with what checkpoints say of its place.
func (s *signed) passes(at chain) error {
	l := s.heads[at.writer]
	for len(l) > 0 && l[0].seq <= at.seq {
		if l[0].seq == at.seq && l[0].hash != at.prev {
			return fmt.Errorf("checkpoint %d says that another record stood here: the chain was written anew", l[0].number)
		}
		l = l[1:]
	}
	s.heads[at.writer] = l
	return nil
}

// ended looks for heads beyond the end of a chain.
func (s *signed) ended(at chain) {
	l := s.heads[at.writer]
	if len(l) > 0 {
		last := l[len(l)-1]
		s.short = append(s.short, shortfall{at.writer, at.seq + 1, last.seq, last.number})
	}
	delete(s.heads, at.writer)
}

// missing are ends of chains, and chains that are not there at all. What is known to be lost, by chain up to a record, is none.
func (s *signed) missing(lost map[string]int64) {
	for w, l := range s.heads {
		if len(l) > 0 {
			s.ended(chain{writer: w, seq: s.from[w].Seq})
		}
	}
	for _, f := range s.short {
		if f.until > lost[f.writer] {
			s.report.Add(Shorter, string(callID(f.writer, f.from)), fmt.Sprintf("the records from here to %s are missing, which checkpoint %d has seen", callID(f.writer, f.until), f.number))
		}
	}
	for _, add := range s.later {
		add()
	}
}
