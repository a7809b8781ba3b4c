-- +goose Up
-- Signed statements of where the audit log's chains stood. They prove themselves by their signatures; edge is from where the
-- Merkle tree of them goes on, and is proved by their roots.
CREATE TABLE checkpoints (
    number INTEGER NOT NULL PRIMARY KEY,
    at     INTEGER NOT NULL,
    signed BLOB NOT NULL,
    edge   BLOB NOT NULL
) STRICT;
