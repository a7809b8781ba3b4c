-- +goose Up
-- What is left of limits that all replicas share, in millionths of a call or byte, as it was at that moment.
CREATE TABLE allowances (
    tenant  TEXT NOT NULL,
    name    TEXT NOT NULL,
    remains INTEGER NOT NULL,
    at      INTEGER NOT NULL,
    PRIMARY KEY (tenant, name)
) STRICT;

-- What replicas tell each other of vendors' quotas: until when somebody has to wait (replica ''), or what he has used of one.
CREATE TABLE vendor_words (
    tenant   TEXT NOT NULL,
    upstream TEXT NOT NULL,
    who      TEXT NOT NULL,
    part     TEXT NOT NULL,
    replica  TEXT NOT NULL,
    used     INTEGER NOT NULL,
    until    INTEGER NOT NULL,
    seq      INTEGER NOT NULL,
    PRIMARY KEY (tenant, upstream, who, part, replica)
) STRICT;
CREATE INDEX vendor_words_seq ON vendor_words (seq);
