package store_test

import (
	"context"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/internal/store"
)

// BenchmarkVerify is what `frontdesk audit verify` does, over as many records as b.N says: -benchtime 1000000x.
func BenchmarkVerify(b *testing.B) {
	db, err := store.Open(b.Context(), store.Config{Path: filepath.Join(b.TempDir(), "x.db")})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = db.Close() })
	l, err := audit.New(db, db, time.Now, slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	ended := make(chan error, 1)
	go func() { ended <- l.Run(ctx) }()
	b.SetParallelism(256)
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			r := audit.Record{Time: time.Now(), Tenant: "default", User: "3b9d4376c1ea5cf37c0e969c3debd13e", Client: "dyn-0RJsj-pNj9k7sGWQKB3DoQ", SignIn: "FLTaGwKtV1BbMtDY5vmMse", Action: "call", Server: "modern", Method: "tools/call", Tool: "create_issue", Decision: "allow", Policies: []string{"servers.modern.allow[0]"}}
			id, err := l.Begin(b.Context(), r)
			if err != nil {
				b.Error(err)
				return
			}
			r.Result, r.Obtained = audit.ResultOK, "ticket"
			l.End(b.Context(), id, r)
		}
	})
	cancel()
	if err := <-ended; err != nil {
		b.Fatal(err)
	}
	b.ResetTimer()
	r := audit.Verify(b.Context(), db, audit.Against{Now: time.Now(), Checkpoints: db})
	b.StopTimer()
	if r.Verdict != audit.Whole || r.Rows != 2*b.N {
		b.Errorf("%+v, want %d rows", r, 2*b.N)
	}
	b.ReportMetric(float64(r.Rows)/b.Elapsed().Seconds(), "rows/s")
}
