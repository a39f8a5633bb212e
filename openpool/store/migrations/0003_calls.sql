ALTER TABLE rollup RENAME TO rollup_before;
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
INSERT INTO rollup SELECT *, 0, 0, 0, '0', '0' FROM rollup_before;
DROP TABLE rollup_before;

ALTER TABLE worker RENAME TO worker_before;
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
INSERT INTO worker SELECT *, 0, 0, '0' FROM worker_before;
DROP TABLE worker_before;

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
