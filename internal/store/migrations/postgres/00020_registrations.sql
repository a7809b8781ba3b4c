-- +goose Up
-- Through which registration of ours a vendor gave something, where vendors may forget ours: then there is another one for whoever comes
-- next, and what the first was given stays its own.
ALTER TABLE connections ADD COLUMN client TEXT NOT NULL DEFAULT '';
ALTER TABLE flows ADD COLUMN client TEXT NOT NULL DEFAULT '';
ALTER TABLE devices ADD COLUMN client TEXT NOT NULL DEFAULT '';
