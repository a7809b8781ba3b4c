-- +goose Up
-- Finds what is too much of one client's, or one person's, sessions.
CREATE INDEX sessions_of ON sessions (tenant, principal, client, seen);
