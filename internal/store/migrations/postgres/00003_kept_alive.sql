-- +goose Up
-- What the upkeep of connections looks for: interrupted refreshes, and those that nobody has renewed for long.
CREATE INDEX connections_interrupted ON connections (tenant, upstream, renewed) WHERE phase <> 'idle' OR status = 'uncertain';
CREATE INDEX connections_renewed ON connections (tenant, upstream, renewed);

-- Credentials that their vendors have yet to end.
CREATE TABLE endings (
    tenant     TEXT NOT NULL,
    id         TEXT NOT NULL,
    user_id    TEXT NOT NULL,
    upstream   TEXT NOT NULL,
    method     TEXT NOT NULL,
    connection TEXT NOT NULL,
    created    BIGINT NOT NULL,
    next       BIGINT NOT NULL,
    tries      BIGINT NOT NULL,
    sealed     BYTEA NOT NULL,
    PRIMARY KEY (tenant, id)
);
CREATE INDEX endings_next ON endings (next);
