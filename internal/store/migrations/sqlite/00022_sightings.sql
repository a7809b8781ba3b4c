-- +goose Up
-- What the first answers of a vendor have shown of the facts of its entry that were not seen in a source: the newest that fits,
-- and the newest that differs.
CREATE TABLE sightings (
    tenant   TEXT    NOT NULL,
    upstream TEXT    NOT NULL,
    fact     TEXT    NOT NULL,
    fits     INTEGER NOT NULL,
    said     TEXT    NOT NULL,
    at       INTEGER NOT NULL,
    PRIMARY KEY (tenant, upstream, fact, fits)
) STRICT;
