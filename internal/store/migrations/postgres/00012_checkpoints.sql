-- +goose Up
-- Signed statements of where the audit log's chains stood. They prove themselves by their signatures; edge is from where the
-- Merkle tree of them goes on, and is proved by their roots.
CREATE TABLE checkpoints (
    number BIGINT NOT NULL PRIMARY KEY,
    at     BIGINT NOT NULL,
    signed BYTEA NOT NULL,
    edge   BYTEA NOT NULL
);
