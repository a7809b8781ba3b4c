package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/sync/errgroup"

	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
)

// StoredCheckpoint is a checkpoint as it is stored, with the edge of its tree, from which the next one goes on.
type StoredCheckpoint struct {
	Number int64
	Time   time.Time
	Signed []byte
	Edge   []byte
}

// CheckpointStore keeps checkpoints beside the log. It is not trusted: what comes out of it is verified.
type CheckpointStore interface {
	// AddCheckpoint is durable when it returns nil; fault.Conflict where one of that number is there, of this replica or another.
	AddCheckpoint(ctx context.Context, c StoredCheckpoint) error
	// LastCheckpoint returns the one with the highest number, fault.NotFound if there is none.
	LastCheckpoint(ctx context.Context) (StoredCheckpoint, error)
	// Checkpoints calls f for those beyond a number, in order, until f errs.
	Checkpoints(ctx context.Context, beyond int64, f func(StoredCheckpoint) error) error
}

// CheckpointKey signs checkpoints. Public is its verifier key, which names the log.
type CheckpointKey struct {
	note.Signer
	Public string
}

// CheckpointKeys gives the keys (keyring.Signer).
type CheckpointKeys interface {
	// CheckpointKeys returns all keys, oldest first, at least one.
	CheckpointKeys(ctx context.Context) ([]CheckpointKey, error)
}

// Outside is a place where checkpoints are kept that whoever can write to the database cannot change.
type Outside interface {
	// Keep adds a checkpoint. An error means that it may not be there, and it is given again.
	Keep(ctx context.Context, c Checkpoint) error
	// Last returns the newest that is there, nil where there is none or the place cannot tell.
	Last(ctx context.Context) ([]byte, error)
	// String names the place for operators.
	String() string
}

// Checkpoints signs where the chains of this process stand, and keeps it beside the log and outside. It names what this process
// wrote as it remembers it, never what the database says of it. All fields but Outside, Restored and Lost are required.
type Checkpoints struct {
	Log      *Log
	Store    CheckpointStore
	Keys     CheckpointKeys
	Outside  []Outside
	Restored bool                        // the operator says that the database comes from a backup
	Lost     func(context.Context) error // called at the start where a place outside has seen more than the database holds
	Slog     *slog.Logger
	Now      func() time.Time

	series

	accepts atomic.Bool // an operator says that he knows what is missing; the next one signs it

	mu      sync.Mutex
	trouble []string // guarded by mu: by place outside, why the newest checkpoint is not there
	stands  Checkpoint
}

// series is how far the checkpoints are. It is owned by Checkpoints.Run.
type series struct {
	moved  map[string]Head // heads that no checkpoint names yet
	named  map[string]Head // the newest of each chain of this process that one of its checkpoints names
	lost   int64           // the highest number of those that the database has lost, until one says so
	last   Checkpoint
	edge   edge
	unsent [][]Checkpoint // by place outside
}

const (
	checkpointEvery = 10 * time.Second
	checkpointRows  = 1000
	checkpointPause = time.Second // between two, however busy the log is: each is one more commit
	keepTimeout     = 10 * time.Second
	endPause        = 200 * time.Millisecond
	maxUnsent       = 1000
	maxBehind       = 10_000 // checkpoints of other replicas that are followed one by one
)

// Run signs at the start, every ten seconds in which a row came or after a thousand rows, and when the log has been closed.
func (k *Checkpoints) Run(ctx context.Context) error {
	k.moved, k.named, k.unsent = map[string]Head{}, map[string]Head{}, make([][]Checkpoint, len(k.Outside))
	k.mu.Lock()
	k.trouble = make([]string, len(k.Outside))
	k.mu.Unlock()
	tick := time.NewTicker(checkpointEvery)
	defer tick.Stop()
	begun := false
	for {
		err := k.round(ctx, !begun)
		begun = begun || err == nil
		if err != nil && ctx.Err() == nil {
			k.Slog.Error("no checkpoint of the audit log could be signed; it is tried again", "error", err)
		}
		select {
		case <-ctx.Done():
			select { // what the log still writes belongs to the last one
			case <-k.Log.done:
			case <-time.After(drainTime + time.Second):
			}
			return k.end(context.WithoutCancel(ctx))
		case <-tick.C:
		case <-k.Log.many:
			select {
			case <-ctx.Done():
			case <-time.After(checkpointPause):
			}
		}
	}
}

// end signs what came last, and gives places outside a few seconds more to take it.
func (k *Checkpoints) end(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, keepTimeout)
	defer cancel()
	if err := k.round(ctx, false); err != nil {
		return err
	}
	for range 10 {
		if _, trouble := k.Stands(); len(trouble) == 0 {
			break
		}
		time.Sleep(endPause)
		k.deliver(ctx)
	}
	return nil
}

// Accept lets the next checkpoint say that an operator knows what is missing before it, and returns that one. Run has to run.
func (k *Checkpoints) Accept(ctx context.Context) (Checkpoint, error) {
	k.accepts.Store(true)
	before, _ := k.Stands()
	for {
		select {
		case k.Log.many <- struct{}{}:
		default:
		}
		if c, _ := k.Stands(); c.Restored && c.Number > before.Number {
			return c, nil
		}
		select {
		case <-ctx.Done():
			return Checkpoint{}, fault.New(fault.Unavailable, "no checkpoint could be signed in time; the log of the server says why", ctx.Err())
		case <-time.After(endPause):
		}
	}
}

// Stands is the newest checkpoint of this process, and what keeps it from a place outside.
func (k *Checkpoints) Stands() (c Checkpoint, trouble []string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, t := range k.trouble {
		if t != "" {
			trouble = append(trouble, t)
		}
	}
	return k.stands, trouble
}

// round signs what has moved; the first one of a process also where nothing has.
func (k *Checkpoints) round(ctx context.Context, first bool) error {
	for _, h := range k.Log.take() {
		k.moved[h.Writer] = h
	}
	k.Restored = k.accepts.Swap(false) || k.Restored
	if len(k.moved) == 0 && !first && !k.Restored {
		k.deliver(ctx)
		return nil
	}
	keys, err := k.Keys.CheckpointKeys(ctx)
	if err != nil {
		return err
	}
	for range 20 { // replicas that come at once take turns
		if err := k.follow(ctx, keys); err != nil {
			return err
		}
		if first {
			if err := k.outsideFirst(ctx, keys); err != nil {
				return err
			}
			first = false
		}
		c, e, err := k.next(keys)
		if err != nil {
			return err
		}
		err = k.Store.AddCheckpoint(ctx, StoredCheckpoint{Number: c.Number, Time: c.Time, Signed: c.Signed, Edge: e.bytes()})
		if fault.KindOf(err) == fault.Conflict {
			continue
		}
		if err != nil {
			return err
		}
		k.last, k.edge, k.Restored, k.lost = c, e, false, 0
		maps.Copy(k.named, k.moved)
		clear(k.moved)
		k.mu.Lock()
		k.stands = c
		k.mu.Unlock()
		for i := range k.unsent {
			k.unsent[i] = append(k.unsent[i], c)
		}
		k.deliver(ctx)
		return nil
	}
	return fault.New(fault.Unavailable, "other replicas were always first", nil)
}

// next makes the checkpoint after the last one.
func (k *Checkpoints) next(keys []CheckpointKey) (Checkpoint, edge, error) {
	e := edge{k.edge.size, slices.Clone(k.edge.hashes)}
	c := Checkpoint{Number: k.last.Number + 1, Time: k.Now().UTC().Truncate(time.Second), Restored: k.Restored, Lost: k.lost}
	for _, h := range k.moved {
		c.Heads = append(c.Heads, h)
	}
	slices.SortFunc(c.Heads, func(a, b Head) int { return bytes.Compare([]byte(a.Writer), []byte(b.Writer)) })
	e.add(c.Heads)
	c.Size, c.Root = e.size, e.root()
	by := keys[0]
	if k.last.Number > 0 {
		c.Previous = k.last.digest()
		i := slices.IndexFunc(keys, func(key CheckpointKey) bool { return signs(key, &k.last) })
		if i < 0 {
			return c, e, fault.New(fault.Unavailable, "the key that has to sign the next checkpoint is not there", nil)
		}
		by = keys[i]
	}
	if newest := keys[len(keys)-1]; newest.Public != by.Public {
		c.Next = newest.Public
	}
	c.Origin = by.Name()
	return c, e, c.sign(by)
}

// signs reports whether key signs what comes after c: the one that c announces, else the one that signed c.
func signs(key CheckpointKey, c *Checkpoint) bool {
	if c.Next != "" {
		return key.Public == c.Next
	}
	return signedBy(c.Signed, key.Public)
}

func signedBy(signed []byte, public string) bool {
	v, err := note.NewVerifier(public)
	if err != nil {
		return false
	}
	_, err = note.Open(signed, note.VerifierList(v))
	return err == nil
}

func verifiers(keys []CheckpointKey) note.Verifiers {
	var l []note.Verifier
	for _, k := range keys {
		if v, err := note.NewVerifier(k.Public); err == nil {
			l = append(l, v)
		}
	}
	return note.VerifierList(l...)
}

// follow goes on from the newest checkpoint, whichever replica made it. Where the database has lost what this process has signed,
// that is told, on record, and signed with the next one.
func (k *Checkpoints) follow(ctx context.Context, keys []CheckpointKey) error {
	stored, err := k.Store.LastCheckpoint(ctx)
	if fault.KindOf(err) == fault.NotFound {
		err, stored = nil, StoredCheckpoint{}
	}
	if err != nil || stored.Number == k.last.Number && bytes.Equal(stored.Signed, k.last.Signed) {
		return err
	}
	var c Checkpoint
	var e edge
	if stored.Number > 0 {
		if c, e, err = adopt(stored, verifiers(keys)); err != nil && k.last.Number > 0 {
			k.Slog.Error("the newest checkpoint in the database is none of this deployment's: it was changed; what this process remembers is gone on from", "number", stored.Number, "error", err)
			return nil
		}
	}
	if err == nil && k.last.Number > 0 {
		if err = k.continues(ctx, c); errors.Is(err, errOther) {
			err = errors.Join(k.shorter(ctx, c, keys), k.again(ctx))
		}
	}
	if err != nil {
		return err
	}
	k.last, k.edge = c, e
	return nil
}

// shorter tells that the database lacks what this process had signed: a standby took over that had not got it, or somebody put the
// database back. Which of the two it was, an operator has to know. Another replica may have said so first.
func (k *Checkpoints) shorter(ctx context.Context, c Checkpoint, keys []CheckpointKey) error {
	if said, err := k.saidLost(ctx, keys); err != nil || said {
		return err
	}
	k.lost = max(k.lost, k.last.Number)
	k.Slog.Error("the database lacks checkpoints of the audit log that this process has signed: a standby took over that had not got them, or it was put back to an older state; `frontdesk audit verify` says what is missing, and `frontdesk audit accept` signs that it is known",
		"newest", c.Number, "signed", k.last.Number)
	return k.Log.Event(ctx, Record{Time: k.Now(), Tenant: identity.DefaultTenant, Action: actionShorter, Result: ResultFailed,
		Detail: "checkpoint " + strconv.FormatInt(k.last.Number, 10) + ", signed at " + k.last.Time.Format(time.RFC3339) + ", is not in this database any more"})
}

// again has heads named once more that the lost checkpoints named, of rows that are there still: of a chain that this process has left, which
// moves no more, nothing would be signed else, and nobody could sign that he knows what it says to be lost.
func (k *Checkpoints) again(ctx context.Context) error {
	for w, h := range k.named {
		if _, newer := k.moved[w]; newer {
			continue
		}
		there, err := k.Log.Sweeps.There(ctx, callID(w, h.Seq))
		if err != nil {
			return err
		}
		if there {
			k.moved[w] = h
		}
	}
	return nil
}

// saidLost reports whether a checkpoint in the database says that the last one of this process was lost: another replica has noticed it
// first.
func (k *Checkpoints) saidLost(ctx context.Context, keys []CheckpointKey) (said bool, err error) {
	err = k.Store.Checkpoints(ctx, max(0, k.last.Number-maxBehind), func(s StoredCheckpoint) error {
		c, err := ParseCheckpoint(s.Signed)
		if err == nil && c.lacks(&k.last) && c.Time.After(k.last.Time) { // an earlier one speaks of an earlier loss
			_, err = note.Open(s.Signed, verifiers(keys))
			said = said || err == nil
		}
		return err
	})
	return said, err
}

// adopt reads a stored checkpoint that one of the keys has signed.
func adopt(s StoredCheckpoint, known note.Verifiers) (Checkpoint, edge, error) {
	if _, err := note.Open(s.Signed, known); err != nil {
		return Checkpoint{}, edge{}, fmt.Errorf("checkpoint %d in the database is signed by none of the keys: %w", s.Number, err)
	}
	c, err := ParseCheckpoint(s.Signed)
	if err != nil {
		return c, edge{}, err
	}
	e := edgeOf(c.Size, s.Edge)
	if c.Number != s.Number || e.root() != c.Root {
		return c, e, fmt.Errorf("checkpoint %d in the database was moved, or what stands beside it was altered", s.Number)
	}
	return c, e, nil
}

var errOther = errors.New("it does not go on from the last one of this process")

// continues makes sure that c comes after the last one of this process: errOther if not.
func (k *Checkpoints) continues(ctx context.Context, c Checkpoint) error {
	if c.Number <= k.last.Number {
		return errOther
	}
	if c.Number-k.last.Number > maxBehind {
		return nil
	}
	before := k.last.digest()
	return k.Store.Checkpoints(ctx, k.last.Number, func(s StoredCheckpoint) error {
		next, err := ParseCheckpoint(s.Signed)
		if err != nil || next.Previous != before {
			return errOther
		}
		before = next.digest()
		return nil
	})
}

// outsideFirst looks, at the start, whether a place outside has seen more than the database holds.
func (k *Checkpoints) outsideFirst(ctx context.Context, keys []CheckpointKey) error {
	for _, place := range k.Outside {
		signed, err := place.Last(ctx)
		if err != nil {
			k.Slog.Warn("what was kept of the audit log outside could not be read", "place", place.String(), "error", err)
		}
		if len(signed) == 0 {
			continue
		}
		if _, err := note.Open(signed, verifiers(keys)); err != nil {
			k.Slog.Error("the newest checkpoint that is kept outside is signed by none of this deployment's keys", "place", place.String())
			continue
		}
		c, err := ParseCheckpoint(signed)
		if err != nil {
			return err
		}
		there, err := k.stored(ctx, c)
		if err != nil || there || k.Restored {
			return err
		}
		k.Slog.Error("the database is older than a checkpoint that is kept outside: records of the audit log are missing; where it was restored from a backup, say so with `serve --restored`",
			"place", place.String(), "kept", c.Number, "of", c.Time, "newest", k.last.Number)
		if err := k.Log.Event(ctx, Record{Time: k.Now(), Tenant: identity.DefaultTenant, Action: actionShorter, Result: ResultFailed,
			Detail: "a checkpoint of " + c.Time.Format(time.RFC3339) + " that is kept outside, number " + strconv.FormatInt(c.Number, 10) + ", is not in this database"}); err != nil {
			return err
		}
		if k.Lost != nil {
			return k.Lost(ctx)
		}
		return nil
	}
	return nil
}

var errFound = errors.New("found")

// stored reports whether the database holds exactly this checkpoint, or says that it was lost with a restore.
func (k *Checkpoints) stored(ctx context.Context, c Checkpoint) (bool, error) {
	there := false
	err := k.Store.Checkpoints(ctx, c.Number-1, func(s StoredCheckpoint) error {
		there = s.Number == c.Number && bytes.Equal(s.Signed, c.Signed)
		return errFound
	})
	if there {
		return true, nil
	}
	if err != nil && !errors.Is(err, errFound) {
		return false, err
	}
	err = k.Store.Checkpoints(ctx, 0, func(s StoredCheckpoint) error {
		r, err := ParseCheckpoint(s.Signed)
		there = there || err == nil && r.explains(&c)
		return err
	})
	return there, err
}

// deliver gives the places outside what they do not have yet. None waits for another.
func (k *Checkpoints) deliver(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, keepTimeout)
	defer cancel()
	var g errgroup.Group
	for i, place := range k.Outside {
		g.Go(func() error {
			err := k.deliverTo(ctx, place, &k.unsent[i])
			k.mu.Lock()
			defer k.mu.Unlock()
			if was := k.trouble[i]; err == nil {
				if k.trouble[i] = ""; was != "" {
					k.Slog.Info("checkpoints of the audit log are kept outside again", "place", place.String())
				}
				return nil
			}
			if k.trouble[i] == "" && !errors.Is(ctx.Err(), context.Canceled) { // a stop is no trouble of the place: it is tried again
				k.Slog.Error("a checkpoint of the audit log could not be kept outside; it is tried again", "place", place.String(), "error", err)
			}
			k.trouble[i] = place.String() + ": " + err.Error()
			return nil
		})
	}
	_ = g.Wait() // what failed is told, and tried again
}

func (k *Checkpoints) deliverTo(ctx context.Context, place Outside, unsent *[]Checkpoint) error {
	if n := len(*unsent) - maxUnsent; n > 0 { // the database has them, and later ones vouch for them
		*unsent = slices.Delete(*unsent, 0, n)
	}
	for len(*unsent) > 0 {
		if err := place.Keep(ctx, (*unsent)[0]); err != nil {
			return err
		}
		*unsent = (*unsent)[1:]
	}
	return nil
}

// SignRestored signs, without a server, that the log in a database comes from a backup: what was signed after that is gone.
func SignRestored(ctx context.Context, s CheckpointStore, k CheckpointKeys, now time.Time) error {
	keys, err := k.CheckpointKeys(ctx)
	if err != nil {
		return err
	}
	c := &Checkpoints{Store: s, Restored: true, Slog: slog.New(slog.DiscardHandler), Now: func() time.Time { return now }}
	if err := c.follow(ctx, keys); err != nil {
		return err
	}
	next, e, err := c.next(keys)
	if err != nil {
		return err
	}
	return s.AddCheckpoint(ctx, StoredCheckpoint{Number: next.Number, Time: next.Time, Signed: next.Signed, Edge: e.bytes()})
}
