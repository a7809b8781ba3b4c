-- +goose Up
-- Transaction tokens whose text says nothing, by the hash of it.
CREATE TABLE tickets (
    hash    BLOB NOT NULL PRIMARY KEY,
    tenant  TEXT NOT NULL,
    kind    TEXT NOT NULL,
    txn     TEXT NOT NULL,
    server  TEXT NOT NULL,
    expires INTEGER NOT NULL
) STRICT;
CREATE INDEX tickets_expires ON tickets (expires);
