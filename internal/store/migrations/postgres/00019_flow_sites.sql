-- +goose Up
-- At which site of a vendor the account is that a person is about to connect, where he says so before.
ALTER TABLE flows ADD COLUMN site TEXT NOT NULL DEFAULT '';
ALTER TABLE devices ADD COLUMN site TEXT NOT NULL DEFAULT '';
