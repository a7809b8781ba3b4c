-- +goose Up
ALTER TABLE connections ADD COLUMN identity BYTEA NOT NULL DEFAULT '';
