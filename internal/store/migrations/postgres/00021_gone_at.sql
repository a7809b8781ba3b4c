-- +goose Up
-- When it happened, by whoever said it, that a person was let go or taken back: what is older changes nothing any more.
ALTER TABLE users ADD COLUMN gone_at BIGINT NOT NULL DEFAULT 0;
