CREATE TABLE customer (                     -- not derived from the log; its keys are tokens
    customer            TEXT PRIMARY KEY,
    name                TEXT    NOT NULL,
    created_ms          INTEGER NOT NULL,
    requests_per_minute INTEGER NOT NULL,   -- 0 is what the settings say
    spend_limit_wei     TEXT    NOT NULL    -- most that may be owed; '' is no limit
) STRICT, WITHOUT ROWID;
