-- +goose Up
-- By what the tokens of a sign-in are signed, sealed under a key that only the code, or the current refresh token, gives. Empty for
-- sign-ins that were begun before.
ALTER TABLE codes ADD COLUMN standing BYTEA NOT NULL DEFAULT '';
ALTER TABLE families ADD COLUMN standing BYTEA NOT NULL DEFAULT '';
