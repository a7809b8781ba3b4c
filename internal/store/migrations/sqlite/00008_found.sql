-- +goose Up
-- What was found of vendors' own MCP servers: their authorization servers, and our registrations there. Nothing of it is secret.
CREATE TABLE found (
    tenant   TEXT NOT NULL,
    upstream TEXT NOT NULL,
    issuer   TEXT NOT NULL,
    created  INTEGER NOT NULL,
    facts    BLOB NOT NULL,
    PRIMARY KEY (tenant, upstream, issuer)
) STRICT;
