-- +goose Up
-- Times are microseconds since 1970 (0: none), lists and small records JSON text, absent blobs empty.

CREATE TABLE users (
    tenant  TEXT NOT NULL,
    id      TEXT NOT NULL,
    idp     TEXT NOT NULL,
    subject TEXT NOT NULL,
    name    TEXT NOT NULL,
    email   TEXT NOT NULL,
    groups  TEXT NOT NULL,
    PRIMARY KEY (tenant, id),
    UNIQUE (tenant, idp, subject)
) STRICT;

-- One row, whose lock orders the epochs: a sequence hands out numbers before their rows are visible.
CREATE TABLE epoch_counter (
    value INTEGER NOT NULL
) STRICT;
INSERT INTO epoch_counter (value) VALUES (0);

CREATE TABLE epochs (
    seq        INTEGER NOT NULL PRIMARY KEY,
    tenant     TEXT NOT NULL,
    kind       TEXT NOT NULL,
    id         TEXT NOT NULL,
    not_before INTEGER NOT NULL
) STRICT;

-- docs/decisions/0007-the-log-in-sql.md says why it has these indexes and no others.
CREATE TABLE audit (
    writer  TEXT NOT NULL,
    seq     INTEGER NOT NULL,
    tenant  TEXT NOT NULL,
    user_id TEXT NOT NULL,
    kind    TEXT NOT NULL,
    call    TEXT NOT NULL,
    at      INTEGER NOT NULL,
    record  BLOB NOT NULL,
    hash    BLOB NOT NULL,
    PRIMARY KEY (writer, seq)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX audit_outcome ON audit (call) WHERE kind = 'outcome';

-- seen: up to it, intents and events are in audit_acts. swept: intents up to it have an outcome.
CREATE TABLE audit_writers (
    id     TEXT NOT NULL PRIMARY KEY,
    beat   INTEGER NOT NULL,
    seen   INTEGER NOT NULL DEFAULT 0,
    swept  INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;

-- Where the intents and events of a person are, a row for many: seqs of the writer, the newest at that time, the last one seq.
-- The person '*' is everybody.
CREATE TABLE audit_acts (
    tenant  TEXT NOT NULL,
    user_id TEXT NOT NULL,
    newest  INTEGER NOT NULL,
    writer  TEXT NOT NULL,
    seq     INTEGER NOT NULL,
    seqs    TEXT NOT NULL,
    PRIMARY KEY (tenant, user_id, newest, writer, seq)
) STRICT, WITHOUT ROWID;

CREATE TABLE connections (
    tenant      TEXT NOT NULL,
    id          TEXT NOT NULL,
    user_id     TEXT NOT NULL,
    upstream    TEXT NOT NULL,
    method      TEXT NOT NULL,
    account     TEXT NOT NULL,
    label       TEXT NOT NULL,
    scopes      TEXT NOT NULL,
    status      TEXT NOT NULL,
    reason      TEXT NOT NULL,
    created     INTEGER NOT NULL,
    last_used   INTEGER NOT NULL,
    expires     INTEGER NOT NULL,
    refreshes   INTEGER NOT NULL,
    renewed     INTEGER NOT NULL,
    generation  INTEGER NOT NULL,
    version     INTEGER NOT NULL,
    phase       TEXT NOT NULL,
    attempt     TEXT NOT NULL,
    lease_owner TEXT NOT NULL,
    lease_until INTEGER NOT NULL,
    lease_epoch INTEGER NOT NULL,
    not_before  INTEGER NOT NULL,
    failures    INTEGER NOT NULL,
    recoveries  INTEGER NOT NULL,
    access      BLOB NOT NULL,
    refresh     BLOB NOT NULL,
    previous    BLOB NOT NULL,
    PRIMARY KEY (tenant, id)
) STRICT;
CREATE INDEX connections_user ON connections (tenant, user_id, upstream);
CREATE UNIQUE INDEX connections_living ON connections (tenant, user_id, upstream) WHERE status NOT IN ('revoking', 'revoked');

CREATE TABLE keys (
    tenant     TEXT NOT NULL,
    purpose    TEXT NOT NULL,
    generation INTEGER NOT NULL,
    id         TEXT NOT NULL,
    created    INTEGER NOT NULL,
    not_before INTEGER NOT NULL,
    not_after  INTEGER NOT NULL,
    sealed     BLOB NOT NULL,
    public     BLOB NOT NULL,
    PRIMARY KEY (tenant, purpose, generation)
) STRICT;

CREATE TABLE names (
    tenant TEXT NOT NULL,
    kind   TEXT NOT NULL,
    name   TEXT NOT NULL,
    id     BLOB NOT NULL,
    PRIMARY KEY (tenant, kind, name)
) STRICT;

CREATE TABLE connect_requests (
    tenant      TEXT NOT NULL,
    id          TEXT NOT NULL,
    user_id     TEXT NOT NULL,
    client      TEXT NOT NULL,
    client_name TEXT NOT NULL,
    server      TEXT NOT NULL,
    tool        TEXT NOT NULL,
    missing     TEXT NOT NULL,
    state       TEXT NOT NULL,
    created     INTEGER NOT NULL,
    expires     INTEGER NOT NULL,
    PRIMARY KEY (tenant, id)
) STRICT;
CREATE INDEX connect_requests_user ON connect_requests (tenant, user_id, state);
CREATE INDEX connect_requests_expires ON connect_requests (expires);

CREATE TABLE flows (
    tenant    TEXT NOT NULL,
    state     TEXT NOT NULL,
    kind      TEXT NOT NULL,
    binding   BLOB NOT NULL,
    user_id   TEXT NOT NULL,
    upstream  TEXT NOT NULL,
    method    TEXT NOT NULL,
    request   TEXT NOT NULL,
    scopes    TEXT NOT NULL,
    issuer    TEXT NOT NULL,
    nonce     TEXT NOT NULL,
    verifier  BLOB NOT NULL,
    return_to TEXT NOT NULL,
    expires   INTEGER NOT NULL,
    PRIMARY KEY (tenant, state)
) STRICT;
CREATE INDEX flows_expires ON flows (expires);

CREATE TABLE grants (
    tenant    TEXT NOT NULL,
    user_id   TEXT NOT NULL,
    client    TEXT NOT NULL,
    server    TEXT NOT NULL,
    upstream  TEXT NOT NULL,
    scopes    TEXT NOT NULL,
    created   INTEGER NOT NULL,
    expires   INTEGER NOT NULL,
    last_used INTEGER NOT NULL,
    PRIMARY KEY (tenant, user_id, client, server, upstream)
) STRICT;
CREATE INDEX grants_expires ON grants (expires);

CREATE TABLE clients (
    tenant        TEXT NOT NULL,
    id            TEXT NOT NULL,
    name          TEXT NOT NULL,
    uri           TEXT NOT NULL,
    redirect_uris TEXT NOT NULL,
    how           TEXT NOT NULL,
    secret_hash   BLOB NOT NULL,
    created       INTEGER NOT NULL,
    last_used     INTEGER NOT NULL,
    PRIMARY KEY (tenant, id)
) STRICT;
CREATE INDEX clients_unused ON clients (created) WHERE how = 'dynamic' AND last_used = 0;

CREATE TABLE codes (
    tenant    TEXT NOT NULL,
    hash      BLOB NOT NULL,
    family    TEXT NOT NULL,
    client    TEXT NOT NULL,
    user_id   TEXT NOT NULL,
    redirect  TEXT NOT NULL,
    challenge TEXT NOT NULL,
    resource  TEXT NOT NULL,
    scopes    TEXT NOT NULL,
    auth      TEXT NOT NULL,
    idp       TEXT NOT NULL,
    expires   INTEGER NOT NULL,
    ends      INTEGER NOT NULL,
    used      INTEGER NOT NULL,
    PRIMARY KEY (tenant, hash)
) STRICT;
CREATE INDEX codes_expires ON codes (expires);

CREATE TABLE families (
    tenant   TEXT NOT NULL,
    id       TEXT NOT NULL,
    client   TEXT NOT NULL,
    user_id  TEXT NOT NULL,
    resource TEXT NOT NULL,
    scopes   TEXT NOT NULL,
    auth     TEXT NOT NULL,
    idp      TEXT NOT NULL,
    created  INTEGER NOT NULL,
    ends     INTEGER NOT NULL,
    rotated  INTEGER NOT NULL,
    current  BLOB NOT NULL,
    previous BLOB NOT NULL,
    next     BLOB NOT NULL,
    home_at  INTEGER NOT NULL,
    PRIMARY KEY (tenant, id)
) STRICT;
CREATE INDEX families_user ON families (tenant, user_id, client);
CREATE INDEX families_ends ON families (ends);

CREATE TABLE sessions (
    tenant     TEXT NOT NULL,
    id         BLOB NOT NULL,
    principal  TEXT NOT NULL,
    client     TEXT NOT NULL,
    server     TEXT NOT NULL,
    version    TEXT NOT NULL,
    url_ask    INTEGER NOT NULL,
    upstream   BLOB NOT NULL,
    act        TEXT NOT NULL,
    created    INTEGER NOT NULL,
    seen       INTEGER NOT NULL,
    PRIMARY KEY (tenant, id)
) STRICT;
CREATE INDEX sessions_seen ON sessions (seen);
