package vault

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/internal/kit/fault"
)

// Fingerprint is what the log says of a stored credential: "<generation>.<version> <SHA-256 of what is sealed>". A sealed field
// says nothing without its key, so neither does its hash. The replaced refresh token is left out: it is forgotten by itself.
func Fingerprint(c Connection) string {
	d := digest(c)
	return place(c) + base64.StdEncoding.EncodeToString(d[:])
}

// FingerprintGone is what the log says when a connection's credential has left the vault.
func FingerprintGone(c Connection) string { return place(c) + "-" }

func place(c Connection) string { return fmt.Sprintf("%d.%d ", c.Generation, c.Version) }

func digest(c Connection) [32]byte {
	h := sha256.New()
	fields := [][]byte{c.Access, c.Sealed.Refresh, c.Identity}
	if len(c.Proof) > 0 {
		fields = append(fields, c.Proof)
	}
	for _, field := range fields {
		sum := sha256.Sum256(field)
		h.Write(sum[:]) // a hash has no errors
	}
	return [32]byte(h.Sum(nil))
}

// Ledger is what the log says of all stored credentials. It is not safe for concurrent use.
type Ledger struct{ entries map[[16]byte]*entry }

// entry is the newest that was stored of one connection. A credential that was sealed anew has several digests.
type entry struct {
	generation, version int64
	digests             [][32]byte
	gone, seen          bool
}

// Read takes in a record, in any order.
func (l *Ledger) Read(r *audit.Record) {
	if r.Sealed == "" {
		return
	}
	id, ok := idOf(ConnectionID(r.Connection))
	at, sum, cut := strings.Cut(r.Sealed, " ")
	g, v, dot := strings.Cut(at, ".")
	generation, gerr := strconv.ParseInt(g, 10, 64)
	version, verr := strconv.ParseInt(v, 10, 64)
	if !ok || !cut || !dot || gerr != nil || verr != nil {
		return
	}
	if l.entries == nil {
		l.entries = map[[16]byte]*entry{}
	}
	e := l.entries[id]
	if e == nil {
		e = &entry{}
		l.entries[id] = e
	}
	switch newer := compare(generation, version, e); {
	case newer < 0:
		return
	case newer > 0:
		*e = entry{generation: generation, version: version, seen: e.seen}
	}
	if sum == "-" {
		e.gone = true
		return
	}
	if b, err := base64.StdEncoding.DecodeString(sum); err == nil && len(b) == 32 {
		e.digests = append(e.digests, [32]byte(b))
	}
}

func idOf(id ConnectionID) (b [16]byte, ok bool) {
	n, err := hex.Decode(b[:], []byte(id))
	return b, err == nil && n == len(b) && len(id) == 32
}

func compare(generation, version int64, e *entry) int {
	if generation != e.generation {
		return sign(generation - e.generation)
	}
	return sign(version - e.version)
}

func sign(n int64) int {
	switch {
	case n < 0:
		return -1
	case n > 0:
		return 1
	}
	return 0
}

// Standing is how a row compares with the log.
type Standing string

const (
	Same       Standing = ""
	Ahead      Standing = "the log does not know of it yet"
	Unrecorded Standing = "the log does not know of it: it was stored before such records were written"
	RolledBack Standing = "an older credential was put back in the place of a newer one"
	Changed    Standing = "it is not what was stored"
	Back       Standing = "it had ended, and was put back"
	Vanished   Standing = "its row is gone"
)

// Fine reports whether nothing is wrong with such a row. What is ahead, or not recorded, can still not be forged: it opens for
// its place and version alone.
func (s Standing) Fine() bool { return s == Same || s == Ahead || s == Unrecorded }

// Compare holds a row against the log.
func (l *Ledger) Compare(c Connection) Standing {
	id, ok := idOf(c.ID)
	e := l.entries[id]
	if !ok || e == nil {
		return Unrecorded
	}
	e.seen = true
	living := c.Status != Revoked && c.Status != Revoking
	if !living && len(c.Access) == 0 && len(c.Sealed.Refresh) == 0 {
		return Same // nothing is left that could be used
	}
	switch newer := compare(c.Generation, c.Version, e); {
	case newer > 0:
		return Ahead
	case newer < 0:
		return RolledBack
	case e.gone && living:
		return Back
	case e.gone:
		return Same
	}
	sum := digest(c)
	for _, d := range e.digests {
		if d == sum {
			return Same
		}
	}
	return Changed
}

// Comparison is what a look at all rows found.
type Comparison struct {
	Rows       int          `json:"rows"`
	Ahead      int          `json:"ahead"`
	Unrecorded int          `json:"unrecorded"`
	Wrong      int          `json:"wrong"`
	Connection ConnectionID `json:"connection,omitempty"` // the first that is wrong
	What       Standing     `json:"what,omitempty"`
}

// All are the rows of the vault.
type All interface {
	// EachConnection calls f for each connection of every tenant, ended ones too, until f errs.
	EachConnection(ctx context.Context, f func(Connection) error) error
	Store
}

// CompareAll holds every row against the log. What seems wrong is looked at once more after again has read what the log says
// since: a server may run meanwhile.
func (l *Ledger) CompareAll(ctx context.Context, rows All, again func() error) (c Comparison, err error) {
	var doubtful []Connection
	err = rows.EachConnection(ctx, func(row Connection) error {
		c.Rows++
		switch s := l.Compare(row); s {
		case Ahead:
			c.Ahead++
		case Unrecorded:
			c.Unrecorded++
		default:
			if !s.Fine() {
				doubtful = append(doubtful, row)
			}
		}
		return nil
	})
	if err != nil {
		return c, err
	}
	var vanished [][16]byte // of what the log knew before the rows were read: what is stored meanwhile has its row
	for id, e := range l.entries {
		if !e.seen && !e.gone {
			vanished = append(vanished, id)
		}
	}
	if len(doubtful)+len(vanished) > 0 {
		if err := again(); err != nil {
			return c, err
		}
	}
	for _, row := range doubtful {
		now, err := rows.Connection(ctx, row.Tenant, row.ID)
		if err != nil && fault.KindOf(err) != fault.NotFound {
			return c, err
		}
		s := Vanished
		if err == nil {
			s = l.Compare(now)
		}
		c.wrong(row.ID, s)
	}
	for _, id := range vanished {
		if !l.entries[id].gone {
			c.wrong(ConnectionID(hex.EncodeToString(id[:])), Vanished)
		}
	}
	return c, nil
}

func (c *Comparison) wrong(id ConnectionID, s Standing) {
	if s.Fine() {
		return
	}
	if c.Wrong++; c.Wrong == 1 {
		c.Connection, c.What = id, s
	}
}

// Guard holds each credential against the log before it is opened (`paranoid: true`). It keeps a digest of each connection in
// memory. Safe for concurrent use.
type Guard struct {
	Log audit.Store
	Now func() time.Time

	mu     sync.Mutex
	ledger Ledger           // guarded by mu, as what follows
	ends   map[string]int64 // how far the log was read, by writer
	read   time.Time
}

// lookAgain is how often the log is asked about a credential of which it may never say anything.
const lookAgain = time.Second

// Load reads the whole log, and refuses one that is not whole.
func (g *Guard) Load(ctx context.Context, against audit.Against) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.ledger, against.Seen = Ledger{}, g.ledger.Read
	r := audit.Verify(ctx, g.Log, against)
	if r.Verdict != audit.Whole && r.Verdict != audit.Unmatched {
		return fault.New(fault.Unavailable, "the audit log is not whole, and with paranoid nothing is opened by it: "+r.Where+": "+r.What+"; `frontdesk audit verify` says more", nil)
	}
	g.ends, g.read = r.Ends, g.Now()
	return nil
}

func (g *Guard) catchUp(ctx context.Context) error {
	err := audit.Read(ctx, g.Log, g.ends, g.ledger.Read)
	if err == nil {
		g.read = g.Now()
	}
	return err
}

// check errs where the row is not what the log says, or the log cannot be read.
func (g *Guard) check(ctx context.Context, c Connection) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := g.ledger.Compare(c)
	if s == Changed || s != Same && s.Fine() && g.Now().Sub(g.read) > lookAgain {
		if err := g.catchUp(ctx); err != nil {
			return err
		}
		s = g.ledger.Compare(c)
	}
	if s.Fine() {
		return nil
	}
	return fault.New(fault.Unavailable, "a stored credential is not the one that was stored last: "+string(s)+"; connecting again mends it", ErrSealed)
}
