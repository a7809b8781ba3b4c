-- +goose Up
-- At which site of its vendor an account is, where each connection has its own. Its sealed fields open for that site alone.
ALTER TABLE connections ADD COLUMN site TEXT NOT NULL DEFAULT '{}';
