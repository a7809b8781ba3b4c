package store

import (
	"context"

	"frontdesk.dev/frontdesk/internal/identity"
)

var _ identity.OpaqueTickets = (*DB)(nil)

// ticketRow is a ticket under the hash of its text.
type ticketRow struct {
	hash []byte
	identity.Ticket
}

var ticketTable = table[ticketRow]{
	name: "tickets", none: "there is no such ticket", columns: "hash, tenant, kind, txn, server, expires",
	fields: func(t *ticketRow) []any {
		return []any{(*blob)(&t.hash), &t.Tenant, &t.Kind, &t.Txn, &t.Server, (*when)(&t.Expires)}
	},
}

// PutTicket implements identity.OpaqueTickets.
func (db *DB) PutTicket(ctx context.Context, hash [32]byte, t identity.Ticket) error {
	return ticketTable.put(ctx, db.write, &ticketRow{hash[:], t}, " ON CONFLICT (hash) DO UPDATE SET expires = excluded.expires WHERE tickets.expires < excluded.expires")
}

// OpaqueTicket implements identity.OpaqueTickets.
func (db *DB) OpaqueTicket(ctx context.Context, hash [32]byte) (identity.Ticket, error) {
	row, err := ticketTable.one(ctx, db.read, "WHERE hash = $1", hash[:])
	return row.Ticket, err
}
