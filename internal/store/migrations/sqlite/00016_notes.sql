-- +goose Up
-- What one replica found out about an API request of a call that is open at another, until that one has taken it.
CREATE TABLE call_notes (
    id      TEXT PRIMARY KEY,
    writer  TEXT NOT NULL,
    call    TEXT NOT NULL,
    missing TEXT NOT NULL,
    hint    TEXT NOT NULL,
    sent    INTEGER NOT NULL
) STRICT;
CREATE INDEX call_notes_writer ON call_notes (writer, sent);
