-- +goose Up
-- Which replica does a chore that one does at a time, and until when it is the only one.
CREATE TABLE chores (
    name  TEXT NOT NULL PRIMARY KEY,
    owner TEXT NOT NULL,
    until BIGINT NOT NULL
);
