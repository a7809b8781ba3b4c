-- +goose Up
-- Who began which task at which server: nobody else may follow it.
CREATE TABLE tasks (
    tenant    TEXT NOT NULL,
    server    TEXT NOT NULL,
    id        BYTEA NOT NULL,
    principal TEXT NOT NULL,
    client    TEXT NOT NULL,
    tool      TEXT NOT NULL,
    created   BIGINT NOT NULL,
    expires   BIGINT NOT NULL,
    PRIMARY KEY (tenant, server, id)
);
CREATE INDEX tasks_expires ON tasks (expires);
