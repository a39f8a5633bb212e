CREATE TABLE checkpoint (                   -- of each open call that has one
    job TEXT PRIMARY KEY,
    seq INTEGER NOT NULL                    -- of its newest call-checkpointed
) STRICT, WITHOUT ROWID;
