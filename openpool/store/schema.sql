-- What all migrations add up to, for reading; tests keep it so. The store runs migrations/.

CREATE TABLE event (
    seq     INTEGER PRIMARY KEY,            -- 1, 2, 3 … without a gap
    id      TEXT    NOT NULL UNIQUE,        -- a second event with the same id is dropped
    type    TEXT    NOT NULL,
    v       INTEGER NOT NULL,
    time_ms INTEGER NOT NULL,
    job     TEXT    NOT NULL,
    worker  TEXT    NOT NULL,
    data    TEXT    NOT NULL,               -- the payload's JSON, byte for byte what is hashed
    leaf    BLOB    NOT NULL,
    chain   BLOB    NOT NULL
) STRICT;
CREATE INDEX event_type   ON event (type);
CREATE INDEX event_job    ON event (job)    WHERE job <> '';
CREATE INDEX event_worker ON event (worker) WHERE worker <> '';

CREATE TABLE transfer (
    n          INTEGER PRIMARY KEY,
    id         TEXT    NOT NULL UNIQUE,     -- idempotency key
    event_seq  INTEGER NOT NULL,
    debit      TEXT    NOT NULL,
    credit     TEXT    NOT NULL,
    amount_wei TEXT    NOT NULL,            -- wei are decimal text: SQLite has no exact big numbers
    kind       TEXT    NOT NULL
) STRICT;
CREATE INDEX transfer_debit  ON transfer (debit);
CREATE INDEX transfer_credit ON transfer (credit);

CREATE TABLE balance (
    account    TEXT PRIMARY KEY,
    amount_wei TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE carry (
    worker      TEXT NOT NULL,
    denominator TEXT NOT NULL,
    numerator   TEXT NOT NULL,
    PRIMARY KEY (worker, denominator)
) STRICT, WITHOUT ROWID;

CREATE TABLE rollup (                       -- one minute of one worker; worker '' is the whole pool
    worker     TEXT    NOT NULL,
    start_ms   INTEGER NOT NULL,
    segments   INTEGER NOT NULL,
    failed     INTEGER NOT NULL,
    refused    INTEGER NOT NULL,
    hedged     INTEGER NOT NULL,
    media_ms   INTEGER NOT NULL,
    busy_ms    INTEGER NOT NULL,
    latency_ms INTEGER NOT NULL,
    pixels     INTEGER NOT NULL,
    fee_wei    TEXT    NOT NULL,
    worker_wei TEXT    NOT NULL,
    calls           INTEGER NOT NULL,       -- what follows is about calls only
    calls_failed    INTEGER NOT NULL,
    call_ms         INTEGER NOT NULL,
    call_fee_wei    TEXT    NOT NULL,
    call_worker_wei TEXT    NOT NULL,
    PRIMARY KEY (worker, start_ms)
) STRICT, WITHOUT ROWID;

CREATE TABLE worker (
    worker               TEXT PRIMARY KEY,
    address              TEXT    NOT NULL,
    name                 TEXT    NOT NULL,
    "group"              TEXT    NOT NULL,
    state                TEXT    NOT NULL,
    enrolled_ms          INTEGER NOT NULL,
    last_connected_ms    INTEGER NOT NULL,
    last_disconnected_ms INTEGER NOT NULL,
    segments             INTEGER NOT NULL,
    failed               INTEGER NOT NULL,
    refused              INTEGER NOT NULL,
    credited_wei         TEXT    NOT NULL,
    calls                INTEGER NOT NULL,
    calls_failed         INTEGER NOT NULL,
    call_worker_wei      TEXT    NOT NULL   -- the part of credited_wei that calls earned
) STRICT, WITHOUT ROWID;

CREATE TABLE app (                          -- a model that answered a call, over all time
    pipeline      TEXT    NOT NULL,
    model         TEXT    NOT NULL,
    calls         INTEGER NOT NULL,
    failed        INTEGER NOT NULL,
    took_ms       INTEGER NOT NULL,
    first_byte_ms INTEGER NOT NULL,
    fee_wei       TEXT    NOT NULL,
    PRIMARY KEY (pipeline, model)
) STRICT, WITHOUT ROWID;

CREATE TABLE customer_calls (               -- what a customer's calls came to, over all time
    customer TEXT PRIMARY KEY,
    calls    INTEGER NOT NULL,
    failed   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE event_count (
    type   TEXT PRIMARY KEY,
    events INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE turnover (                     -- what all transfers of a kind moved, over all time
    kind       TEXT PRIMARY KEY,            -- of LPT behind lpt/
    amount_wei TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE open_job (                     -- received, neither delivered nor failed
    job         TEXT PRIMARY KEY,
    seq         INTEGER NOT NULL,           -- of its job-received
    deadline_ms INTEGER NOT NULL,
    busy_ms     INTEGER NOT NULL,           -- of its verified result, as is the next
    pixels      INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE open_call (                    -- received, and not ended in the log
    job TEXT PRIMARY KEY,
    seq INTEGER NOT NULL                    -- of its call-received
) STRICT, WITHOUT ROWID;

CREATE TABLE checkpoint (                   -- of each open call that has one
    job TEXT PRIMARY KEY,
    seq INTEGER NOT NULL                    -- of its newest call-checkpointed
) STRICT, WITHOUT ROWID;

-- From here on: not derived from the log.

CREATE TABLE token (
    token        TEXT PRIMARY KEY,          -- public id
    worker       TEXT    NOT NULL,
    secret_hash  BLOB    NOT NULL UNIQUE,   -- never the secret
    created_ms   INTEGER NOT NULL,
    last_used_ms INTEGER NOT NULL,
    expires_ms   INTEGER NOT NULL,
    revoked_ms   INTEGER NOT NULL,
    label        TEXT    NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX token_worker ON token (worker);

CREATE TABLE invite (
    secret_hash BLOB PRIMARY KEY,
    "group"     TEXT    NOT NULL,
    label       TEXT    NOT NULL,
    created_ms  INTEGER NOT NULL,
    expires_ms  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE setting (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL                     -- JSON
) STRICT, WITHOUT ROWID;

CREATE TABLE customer (                     -- not derived from the log; its keys are tokens
    customer            TEXT PRIMARY KEY,
    name                TEXT    NOT NULL,
    created_ms          INTEGER NOT NULL,
    requests_per_minute INTEGER NOT NULL,   -- 0 is what the settings say
    spend_limit_wei     TEXT    NOT NULL    -- most that may be owed; '' is no limit
) STRICT, WITHOUT ROWID;
