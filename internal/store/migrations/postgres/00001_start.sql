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
);

-- One row, whose lock orders the epochs: a sequence hands out numbers before their rows are visible.
CREATE TABLE epoch_counter (
    value BIGINT NOT NULL
);
INSERT INTO epoch_counter (value) VALUES (0);

CREATE TABLE epochs (
    seq        BIGINT NOT NULL PRIMARY KEY,
    tenant     TEXT NOT NULL,
    kind       TEXT NOT NULL,
    id         TEXT NOT NULL,
    not_before BIGINT NOT NULL
);

-- docs/decisions/0007-the-log-in-sql.md says why it has these indexes and no others.
CREATE TABLE audit (
    writer  TEXT COLLATE "C" NOT NULL,
    seq     BIGINT NOT NULL,
    tenant  TEXT NOT NULL,
    user_id TEXT NOT NULL,
    kind    TEXT NOT NULL,
    call    TEXT NOT NULL,
    at      BIGINT NOT NULL,
    record  BYTEA NOT NULL,
    hash    BYTEA NOT NULL,
    PRIMARY KEY (writer, seq)
);
CREATE UNIQUE INDEX audit_outcome ON audit (call) WHERE kind = 'outcome';

-- seen: up to it, intents and events are in audit_acts. swept: intents up to it have an outcome.
CREATE TABLE audit_writers (
    id     TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    beat   BIGINT NOT NULL,
    seen   BIGINT NOT NULL DEFAULT 0,
    swept  BIGINT NOT NULL DEFAULT 0
);

-- Where the intents and events of a person are, a row for many: seqs of the writer, the newest at that time, the last one seq.
-- The person '*' is everybody.
CREATE TABLE audit_acts (
    tenant  TEXT NOT NULL,
    user_id TEXT NOT NULL,
    newest  BIGINT NOT NULL,
    writer  TEXT COLLATE "C" NOT NULL,
    seq     BIGINT NOT NULL,
    seqs    TEXT NOT NULL,
    PRIMARY KEY (tenant, user_id, newest, writer, seq)
);

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
    created     BIGINT NOT NULL,
    last_used   BIGINT NOT NULL,
    expires     BIGINT NOT NULL,
    refreshes   BOOLEAN NOT NULL,
    renewed     BIGINT NOT NULL,
    generation  BIGINT NOT NULL,
    version     BIGINT NOT NULL,
    phase       TEXT NOT NULL,
    attempt     TEXT NOT NULL,
    lease_owner TEXT NOT NULL,
    lease_until BIGINT NOT NULL,
    lease_epoch BIGINT NOT NULL,
    not_before  BIGINT NOT NULL,
    failures    BIGINT NOT NULL,
    recoveries  BIGINT NOT NULL,
    access      BYTEA NOT NULL,
    refresh     BYTEA NOT NULL,
    previous    BYTEA NOT NULL,
    PRIMARY KEY (tenant, id)
);
CREATE INDEX connections_user ON connections (tenant, user_id, upstream);
CREATE UNIQUE INDEX connections_living ON connections (tenant, user_id, upstream) WHERE status NOT IN ('revoking', 'revoked');

CREATE TABLE keys (
    tenant     TEXT NOT NULL,
    purpose    TEXT NOT NULL,
    generation BIGINT NOT NULL,
    id         TEXT NOT NULL,
    created    BIGINT NOT NULL,
    not_before BIGINT NOT NULL,
    not_after  BIGINT NOT NULL,
    sealed     BYTEA NOT NULL,
    public     BYTEA NOT NULL,
    PRIMARY KEY (tenant, purpose, generation)
);

CREATE TABLE names (
    tenant TEXT NOT NULL,
    kind   TEXT NOT NULL,
    name   TEXT NOT NULL,
    id     BYTEA NOT NULL,
    PRIMARY KEY (tenant, kind, name)
);

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
    created     BIGINT NOT NULL,
    expires     BIGINT NOT NULL,
    PRIMARY KEY (tenant, id)
);
CREATE INDEX connect_requests_user ON connect_requests (tenant, user_id, state);
CREATE INDEX connect_requests_expires ON connect_requests (expires);

CREATE TABLE flows (
    tenant    TEXT NOT NULL,
    state     TEXT NOT NULL,
    kind      TEXT NOT NULL,
    binding   BYTEA NOT NULL,
    user_id   TEXT NOT NULL,
    upstream  TEXT NOT NULL,
    method    TEXT NOT NULL,
    request   TEXT NOT NULL,
    scopes    TEXT NOT NULL,
    issuer    TEXT NOT NULL,
    nonce     TEXT NOT NULL,
    verifier  BYTEA NOT NULL,
    return_to TEXT NOT NULL,
    expires   BIGINT NOT NULL,
    PRIMARY KEY (tenant, state)
);
CREATE INDEX flows_expires ON flows (expires);

CREATE TABLE grants (
    tenant    TEXT NOT NULL,
    user_id   TEXT NOT NULL,
    client    TEXT NOT NULL,
    server    TEXT NOT NULL,
    upstream  TEXT NOT NULL,
    scopes    TEXT NOT NULL,
    created   BIGINT NOT NULL,
    expires   BIGINT NOT NULL,
    last_used BIGINT NOT NULL,
    PRIMARY KEY (tenant, user_id, client, server, upstream)
);
CREATE INDEX grants_expires ON grants (expires);

CREATE TABLE clients (
    tenant        TEXT NOT NULL,
    id            TEXT NOT NULL,
    name          TEXT NOT NULL,
    uri           TEXT NOT NULL,
    redirect_uris TEXT NOT NULL,
    how           TEXT NOT NULL,
    secret_hash   BYTEA NOT NULL,
    created       BIGINT NOT NULL,
    last_used     BIGINT NOT NULL,
    PRIMARY KEY (tenant, id)
);
CREATE INDEX clients_unused ON clients (created) WHERE how = 'dynamic' AND last_used = 0;

CREATE TABLE codes (
    tenant    TEXT NOT NULL,
    hash      BYTEA NOT NULL,
    family    TEXT NOT NULL,
    client    TEXT NOT NULL,
    user_id   TEXT NOT NULL,
    redirect  TEXT NOT NULL,
    challenge TEXT NOT NULL,
    resource  TEXT NOT NULL,
    scopes    TEXT NOT NULL,
    auth      TEXT NOT NULL,
    idp       TEXT NOT NULL,
    expires   BIGINT NOT NULL,
    ends      BIGINT NOT NULL,
    used      BIGINT NOT NULL,
    PRIMARY KEY (tenant, hash)
);
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
    created  BIGINT NOT NULL,
    ends     BIGINT NOT NULL,
    rotated  BIGINT NOT NULL,
    current  BYTEA NOT NULL,
    previous BYTEA NOT NULL,
    next     BYTEA NOT NULL,
    home_at  BIGINT NOT NULL,
    PRIMARY KEY (tenant, id)
);
CREATE INDEX families_user ON families (tenant, user_id, client);
CREATE INDEX families_ends ON families (ends);

CREATE TABLE sessions (
    tenant     TEXT NOT NULL,
    id         BYTEA NOT NULL,
    principal  TEXT NOT NULL,
    client     TEXT NOT NULL,
    server     TEXT NOT NULL,
    version    TEXT NOT NULL,
    url_ask    BOOLEAN NOT NULL,
    upstream   BYTEA NOT NULL,
    act        TEXT NOT NULL,
    created    BIGINT NOT NULL,
    seen       BIGINT NOT NULL,
    PRIMARY KEY (tenant, id)
);
CREATE INDEX sessions_seen ON sessions (seen);
