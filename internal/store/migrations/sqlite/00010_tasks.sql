-- +goose Up
-- Who began which task at which server: nobody else may follow it.
CREATE TABLE tasks (
    tenant    TEXT NOT NULL,
    server    TEXT NOT NULL,
    id        BLOB NOT NULL,
    principal TEXT NOT NULL,
    client    TEXT NOT NULL,
    tool      TEXT NOT NULL,
    created   INTEGER NOT NULL,
    expires   INTEGER NOT NULL,
    PRIMARY KEY (tenant, server, id)
) STRICT;
CREATE INDEX tasks_expires ON tasks (expires);
