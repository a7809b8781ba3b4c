-- +goose Up
ALTER TABLE connections ADD COLUMN identity BLOB NOT NULL DEFAULT x'';
