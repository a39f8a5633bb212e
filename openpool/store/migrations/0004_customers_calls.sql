CREATE TABLE customer_calls (               -- what a customer's calls came to, over all time
    customer TEXT PRIMARY KEY,
    calls    INTEGER NOT NULL,
    failed   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO customer_calls
    SELECT data ->> 'customer',
           sum(type = 'call-completed' AND data ->> 'checked'),
           sum(type = 'call-failed')
    FROM event
    WHERE (type = 'call-completed' AND data ->> 'checked'
           OR type = 'call-failed' AND data ->> 'code' <> 'cancelled')
      AND data ->> 'customer' <> ''
    GROUP BY 1;

CREATE TABLE open_call (                    -- received, and not ended in the log
    job TEXT PRIMARY KEY,
    seq INTEGER NOT NULL                    -- of its call-received
) STRICT, WITHOUT ROWID;
INSERT INTO open_call
    SELECT job, seq FROM event AS received
    WHERE type = 'call-received'
      AND seq > (SELECT coalesce(max(seq), 0) FROM event WHERE type = 'pool-started')
      AND NOT EXISTS (
          SELECT 1 FROM event
          WHERE job = received.job AND job <> '' AND type IN ('call-completed', 'call-failed'));
