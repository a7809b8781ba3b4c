-- +goose Up
-- What vendors never confirmed stays for a month, without its token, for operators to look at.
ALTER TABLE endings ADD COLUMN given_up INTEGER NOT NULL DEFAULT 0;
ALTER TABLE endings ADD COLUMN why TEXT NOT NULL DEFAULT '';
CREATE INDEX connections_revoking ON connections (created) WHERE status = 'revoking';

-- People whom the company has let go: '' is here, else disabled or deleted.
ALTER TABLE users ADD COLUMN gone TEXT NOT NULL DEFAULT '';

-- The IdP's own name of the sign-in: what its logout names.
ALTER TABLE families ADD COLUMN sid TEXT NOT NULL DEFAULT '';
ALTER TABLE codes ADD COLUMN sid TEXT NOT NULL DEFAULT '';
CREATE INDEX families_sid ON families (tenant, sid) WHERE sid <> '';

-- Messages about ends that were acted on, by the hash of who sent which: none counts twice.
CREATE TABLE messages (
    tenant  TEXT NOT NULL,
    hash    BLOB NOT NULL,
    expires INTEGER NOT NULL,
    PRIMARY KEY (tenant, hash)
) STRICT;
CREATE INDEX messages_expires ON messages (expires);
