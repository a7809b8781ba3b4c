package vault

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"log/slog"
	"time"

	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
)

// Sample holds some connections against the log, once, as a process begins: whoever put rows back to an older state while nothing
// ran is found without `audit verify`, if he put back many. It reads what is needed of the log and not more, and it holds up nobody.
// All fields are required.
type Sample struct {
	Rows    Sampled
	Log     audit.Store
	Events  Events
	Tenants func() []identity.Tenant
	Slog    *slog.Logger
	Now     func() time.Time
}

// Sampled are the rows of the vault.
type Sampled interface {
	// ConnectionsFrom lists a tenant's connections from an id on, ended ones too, by id.
	ConnectionsFrom(ctx context.Context, t identity.Tenant, from ConnectionID, limit int) ([]Connection, error)
	Connection(ctx context.Context, t identity.Tenant, id ConnectionID) (Connection, error)
}

const (
	samplePlaces = 10 // of a tenant, at random
	sampleOfEach = 10
	samplePages  = 10 // of a person's acts that are looked through, the newest first
	samplePage   = 1000
)

// Run looks once.
func (s *Sample) Run(ctx context.Context) error {
	seen, unknown, wrong := 0, 0, 0
	for _, t := range s.Tenants() {
		for range samplePlaces {
			l, err := s.pick(ctx, t)
			for _, c := range l {
				var standing Standing
				if standing, err = s.compare(ctx, c); err != nil {
					break
				}
				seen++
				switch {
				case standing == Unrecorded:
					unknown++
				case !standing.Fine():
					wrong++
					err = s.tell(ctx, c, standing)
				}
			}
			if err != nil {
				if ctx.Err() == nil {
					s.Slog.Warn("stored credentials could not be held against the audit log; `frontdesk audit verify --vault` does so for all", "error", err)
				}
				return nil
			}
		}
	}
	s.Slog.Info("stored credentials were held against the audit log", "looked_at", seen, "wrong", wrong, "stored_too_long_ago_to_tell", unknown)
	return nil
}

// pick are some connections of a tenant from a random place on. After the last one comes the first: otherwise the first few would be
// looked at less than the others, and of a small vault some not at all.
func (s *Sample) pick(ctx context.Context, t identity.Tenant) ([]Connection, error) {
	random := make([]byte, 16)
	_, _ = rand.Read(random) // never fails (crypto/rand)
	from := ConnectionID(hex.EncodeToString(random))
	l, err := s.Rows.ConnectionsFrom(ctx, t, from, sampleOfEach)
	if err != nil || len(l) == sampleOfEach {
		return l, err
	}
	first, err := s.Rows.ConnectionsFrom(ctx, t, "", sampleOfEach-len(l))
	for _, c := range first {
		if c.ID < from {
			l = append(l, c)
		}
	}
	return l, err
}

// compare holds one row against what the log says last of it. A server runs meanwhile: what seems wrong is looked at again.
func (s *Sample) compare(ctx context.Context, c Connection) (Standing, error) {
	for try := 0; ; try++ {
		l, err := s.ledger(ctx, c)
		if err != nil {
			return Same, err
		}
		standing := l.Compare(c)
		if standing.Fine() || try > 0 {
			return standing, nil
		}
		now, err := s.Rows.Connection(ctx, c.Tenant, c.ID)
		if fault.KindOf(err) == fault.NotFound {
			return Same, nil // it went meanwhile
		}
		if err != nil {
			return Same, err
		}
		c = now
	}
}

// ledger reads a person's newest acts until one says what was stored of the connection.
func (s *Sample) ledger(ctx context.Context, c Connection) (*Ledger, error) {
	var l Ledger
	q := audit.Query{Tenant: c.Tenant, User: c.User, Limit: samplePage}
	id, ok := idOf(c.ID)
	for range samplePages {
		rows, err := s.Log.Rows(ctx, q)
		if err != nil || len(rows) == 0 || !ok {
			return &l, err
		}
		for _, row := range rows {
			var r audit.Record
			if err := json.Unmarshal(row.Record, &r); err != nil {
				return &l, err
			}
			l.Read(&r)
		}
		if l.entries[id] != nil {
			return &l, nil
		}
		if q.Before = rows[len(rows)-1].ID(); len(rows) < samplePage {
			return &l, nil
		}
	}
	return &l, nil
}

func (s *Sample) tell(ctx context.Context, c Connection, standing Standing) error {
	s.Slog.Error("a stored credential is not what the audit log says was stored: somebody has written to the database; `frontdesk audit verify --vault` looks at all of them",
		"connection", c.ID, "upstream", c.Upstream, "what", string(standing))
	return s.Events.Event(ctx, audit.Record{Time: s.Now(), Tenant: c.Tenant, User: c.User, Upstream: string(c.Upstream), Connection: string(c.ID), Action: "vault.differs",
		Result: audit.ResultFailed, Detail: string(standing)})
}
