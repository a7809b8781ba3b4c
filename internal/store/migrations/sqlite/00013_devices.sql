-- +goose Up
-- People who were given a code to enter at a vendor; any replica asks the vendor whether they have.
CREATE TABLE devices (
    tenant     TEXT NOT NULL,
    state      TEXT NOT NULL,
    kind       TEXT NOT NULL,
    binding    BLOB NOT NULL,
    user_id    TEXT NOT NULL,
    upstream   TEXT NOT NULL,
    method     TEXT NOT NULL,
    request    TEXT NOT NULL,
    scopes     TEXT NOT NULL,
    connection TEXT NOT NULL,
    issuer     TEXT NOT NULL,
    nonce      TEXT NOT NULL,
    verifier   BLOB NOT NULL,
    return_to  TEXT NOT NULL,
    expires    INTEGER NOT NULL,
    code       TEXT NOT NULL,
    next       INTEGER NOT NULL,
    tries      INTEGER NOT NULL,
    status     TEXT NOT NULL,
    outcome    TEXT NOT NULL,
    PRIMARY KEY (tenant, state)
) STRICT;
CREATE INDEX devices_due ON devices (next) WHERE status = 'open';
CREATE INDEX devices_user ON devices (tenant, user_id, upstream) WHERE status = 'open';
CREATE INDEX devices_expires ON devices (expires);
