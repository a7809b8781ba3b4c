-- +goose Up
-- A person may connect several accounts at one upstream: a grant names the one that it is for, and the latest preferred one is what
-- new grants take.
ALTER TABLE connections ADD COLUMN preferred INTEGER NOT NULL DEFAULT 0;
UPDATE connections SET preferred = created;
DROP INDEX connections_living;
CREATE UNIQUE INDEX connections_living ON connections (tenant, user_id, upstream, account) WHERE status NOT IN ('revoking', 'revoked');

ALTER TABLE grants ADD COLUMN connection TEXT NOT NULL DEFAULT '';
UPDATE grants SET connection = COALESCE((SELECT c.id FROM connections c WHERE c.tenant = grants.tenant AND c.user_id = grants.user_id AND c.upstream = grants.upstream
    AND c.status NOT IN ('revoking', 'revoked')), '');

ALTER TABLE flows ADD COLUMN connection TEXT NOT NULL DEFAULT '';
