package store_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/store"
	"frontdesk.dev/frontdesk/internal/vault"
	"frontdesk.dev/frontdesk/test/pg"
)

func databases(b *testing.B, f func(b *testing.B, db *store.DB)) {
	b.Run("sqlite", func(b *testing.B) { f(b, open(b, store.Config{Path: filepath.Join(b.TempDir(), "x.db")})) })
	b.Run("postgres", func(b *testing.B) { f(b, open(b, store.Config{DSN: pg.Start(b)})) })
}

// BenchmarkAppend is the log's write path: what a group commit of so many rows costs. PostgreSQL runs without fsync here.
func BenchmarkAppend(b *testing.B) {
	databases(b, func(b *testing.B, db *store.DB) {
		for _, waiting := range []int{1, 32, 256} {
			b.Run(fmt.Sprint(waiting), func(b *testing.B) {
				next := entries(fmt.Sprintf("%016x", time.Now().UnixNano()))
				for b.Loop() {
					if err := db.Append(b.Context(), next(waiting)); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(waiting*b.N)/b.Elapsed().Seconds(), "rows/s")
			})
		}
	})
}

// entries gives intents and outcomes in turn, of 1000 users.
func entries(writer string) func(n int) []audit.Row {
	body := []byte(`{"x":"` + strings.Repeat("x", 392) + `"}`)
	seq := int64(0)
	return func(n int) []audit.Row {
		rows := make([]audit.Row, n)
		for i := range rows {
			kind, call := audit.KindIntent, seq+1
			if seq++; seq%2 == 0 {
				kind, call = audit.KindOutcome, seq-1
			}
			rows[i] = audit.Row{Writer: writer, Seq: seq, Tenant: "default", User: identity.UserID(fmt.Sprintf("%032x", call*7919%1000)), Kind: kind,
				Call: audit.CallID(fmt.Sprintf("%s.%x", writer, call)), Time: time.UnixMicro(1e15 + seq), Record: body, Hash: body[:32]}
		}
		return rows
	}
}

// BenchmarkIndexActs is what the rows of one second at full work (11,000 calls) cost later, in the background.
func BenchmarkIndexActs(b *testing.B) {
	databases(b, func(b *testing.B, db *store.DB) {
		next := entries("00000000000000aa")
		for b.Loop() {
			b.StopTimer()
			for range 88 {
				if err := db.Append(b.Context(), next(250)); err != nil {
					b.Fatal(err)
				}
			}
			b.StartTimer()
			if err := db.IndexActs(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkRead is one point read each; what it costs must not depend on how many users there are.
func BenchmarkRead(b *testing.B) {
	for _, users := range []int{10, 100_000} {
		b.Run(fmt.Sprint(users), func(b *testing.B) {
			databases(b, func(b *testing.B, db *store.DB) {
				ids, log := populate(b, db, users), entries("00000000000000bb")
				for range max(1, users/50) {
					if err := db.Append(b.Context(), log(100)); err != nil {
						b.Fatal(err)
					}
				}
				if err := db.IndexActs(b.Context()); err != nil {
					b.Fatal(err)
				}
				for name, read := range map[string]func(identity.UserID) error{
					"user": func(u identity.UserID) error { _, err := db.User(b.Context(), "default", u); return err },
					"connections": func(u identity.UserID) error {
						_, err := db.Connections(b.Context(), "default", u, "tracker")
						return err
					},
					"intent": func(identity.UserID) error { _, err := db.Intent(b.Context(), "00000000000000bb.1"); return err },
					"history": func(identity.UserID) error {
						_, err := db.Rows(b.Context(), audit.Query{Tenant: "default", User: identity.UserID(fmt.Sprintf("%032x", 7919%1000)), Limit: 1})
						return err
					},
				} {
					b.Run(name, func(b *testing.B) {
						for i := 0; b.Loop(); i++ {
							if err := read(ids[i*7919%len(ids)]); err != nil {
								b.Fatal(err)
							}
						}
					})
				}
			})
		})
	}
}

func populate(b *testing.B, db *store.DB, users int) []identity.UserID {
	b.Helper()
	ids := make([]identity.UserID, users)
	for i := range ids {
		u, err := db.EnsureUser(b.Context(), identity.User{Tenant: "default", IDP: "corp", Subject: fmt.Sprint(i), Groups: []string{"eng"}})
		if err != nil {
			b.Fatal(err)
		}
		ids[i] = u.ID
		c := vault.Connection{Tenant: "default", ID: vault.ConnectionID(u.ID), User: u.ID, Upstream: "tracker", Status: vault.Active, Sealed: vault.Sealed{Access: make([]byte, 300)},
			Machine: vault.Machine{Generation: 1, Version: 1, Phase: vault.Idle}}
		if err := db.Connect(b.Context(), c, 0); err != nil {
			b.Fatal(err)
		}
	}
	return ids
}
