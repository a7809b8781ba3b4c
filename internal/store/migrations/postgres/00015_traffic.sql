-- +goose Up
-- What is left of limits that all replicas share, in millionths of a call or byte, as it was at that moment.
CREATE TABLE allowances (
    tenant  TEXT NOT NULL,
    name    TEXT NOT NULL,
    remains BIGINT NOT NULL,
    at      BIGINT NOT NULL,
    PRIMARY KEY (tenant, name)
);

-- What replicas tell each other of vendors' quotas: until when somebody has to wait (replica ''), or what he has used of one.
CREATE TABLE vendor_words (
    tenant   TEXT NOT NULL,
    upstream TEXT NOT NULL,
    who      TEXT NOT NULL,
    part     TEXT NOT NULL,
    replica  TEXT NOT NULL,
    used     BIGINT NOT NULL,
    until    BIGINT NOT NULL,
    seq      BIGINT NOT NULL,
    PRIMARY KEY (tenant, upstream, who, part, replica)
);
CREATE INDEX vendor_words_seq ON vendor_words (seq);
