package backup

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/store"
	"frontdesk.dev/frontdesk/internal/store/whole"
	"frontdesk.dev/frontdesk/internal/vault/keyring"
)

// Restoring says what is restored, and how.
type Restoring struct {
	To       store.Config
	Wrap     keyring.Wrapper
	Moved    bool   // nothing has run on the old database since the backup was made: nothing is outdated
	Reason   string // that connections carry until they have proved themselves
	Now      func() time.Time
	Progress Progress
}

// Restored is what Restore did.
type Restored struct {
	Manifest
	Trailer
	Uncertain int64 // connections that are tried before they are trusted
}

// Restore fills an empty database from a backup, all of it or nothing, and says so in the log. The tables are those of the
// backup's version; opening the database brings them up to date. fault.Invalid for what is no whole backup of this
// deployment, fault.Conflict for a database that is not empty or that a server has open.
func (r Restoring) Restore(ctx context.Context, from io.Reader) (done Restored, err error) {
	b, err := Open(ctx, r.Wrap, from)
	if err != nil {
		return done, err
	}
	done.Manifest = b.Manifest
	db, err := store.OpenAt(ctx, r.To, b.Manifest.Schema)
	if err != nil {
		return done, err
	}
	err = db.Fill(ctx, b.Manifest.Schema, func(f *store.Filling) error { return r.fill(ctx, f, b, &done) })
	if cerr := db.Close(); err == nil {
		err = cerr
	}
	return done, err
}

func (r Restoring) fill(ctx context.Context, f *store.Filling, b *Reader, done *Restored) error {
	var put func([]any) error
	var heads heads
	trailer, err := b.Rows(func(t whole.Table, values []any) (err error) {
		if put == nil {
			if put, err = f.Table(ctx, t); err != nil {
				return err
			}
		}
		heads.see(t, values)
		err = put(values)
		if values == nil {
			put = nil
		}
		return err
	}, r.Progress)
	if err != nil {
		return err
	}
	done.Trailer = trailer
	now := r.Now()
	gap := audit.Record{Time: now, Tenant: identity.DefaultTenant, Action: "restored", Result: audit.ResultOK,
		Detail: fmt.Sprintf("from a backup of %s with %d records of this log, whose chains end at %s; what happened after that stands in no log here", b.Manifest.Made.UTC().Format(time.RFC3339), trailer.Rows["audit"], heads.digest())}
	if r.Moved {
		gap.Action, gap.Detail = "moved", fmt.Sprintf("from another database, stopped before %s, with %d records of this log, whose chains end at %s", b.Manifest.Made.UTC().Format(time.RFC3339), trailer.Rows["audit"], heads.digest())
	} else if done.Uncertain, err = f.Restored(ctx, r.Reason); err != nil {
		return err
	}
	row, err := audit.Gap(gap)
	if err != nil {
		return err
	}
	return f.Append(ctx, []audit.Row{row})
}

// heads digests the hashes at which the log's chains end: the one thing by which a copy of the log that is kept elsewhere can be
// laid beside what was restored.
type heads struct {
	last map[string]head
}

type head struct {
	seq  int64
	hash []byte
}

func (h *heads) see(t whole.Table, values []any) {
	if t.Name != "audit" || values == nil {
		return
	}
	var writer string
	var at head
	for i, c := range t.Columns {
		switch c.Name {
		case "writer":
			writer, _ = values[i].(string)
		case "seq":
			at.seq, _ = values[i].(int64)
		case "hash":
			at.hash, _ = values[i].([]byte)
		}
	}
	if h.last == nil {
		h.last = map[string]head{}
	}
	if at.seq > h.last[writer].seq {
		h.last[writer] = at
	}
}

// digest is that of writer ‖ hash of each chain, in the order of writers.
func (h *heads) digest() string {
	sum := sha256.New()
	for _, w := range slices.Sorted(maps.Keys(h.last)) {
		sum.Write([]byte(w)) // a hash has no errors
		sum.Write(h.last[w].hash)
	}
	return hex.EncodeToString(sum.Sum(nil)[:16])
}
