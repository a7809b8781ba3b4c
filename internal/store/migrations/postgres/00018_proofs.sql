-- +goose Up
-- The sealed key to which a connection's tokens are bound (RFC 9449); empty where they are bound to none.
ALTER TABLE connections ADD COLUMN proof BYTEA NOT NULL DEFAULT '';
