-- +goose Up
ALTER TABLE sessions ADD COLUMN declares TEXT NOT NULL DEFAULT '[]';
