-- +goose Up
-- What people said yes to, as it was then: the page that asks again says what has changed. It is not a yes by itself.
CREATE TABLE consents (
    tenant        TEXT NOT NULL,
    user_id       TEXT NOT NULL,
    client        TEXT NOT NULL,
    resource      TEXT NOT NULL,
    name          TEXT NOT NULL,
    redirect_host TEXT NOT NULL,
    redirect_uris TEXT NOT NULL,
    scopes        TEXT NOT NULL,
    given         INTEGER NOT NULL,
    PRIMARY KEY (tenant, user_id, client, resource)
) STRICT;
