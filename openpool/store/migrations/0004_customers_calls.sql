CREATE TABLE customer_calls (               -- what a customer's calls came to, over all time
    customer TEXT PRIMARY KEY,
    calls    INTEGER NOT NULL,
    failed   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO customer_calls
    SELECT customer, sum(calls), sum(failed)
    FROM (
        SELECT data ->> 'customer' AS customer, 1 AS calls, 0 AS failed FROM event
        WHERE type = 'call-completed' AND data ->> 'checked'
        UNION ALL
        SELECT data ->> 'customer', 0, 1 FROM event
        WHERE type = 'call-failed' AND data ->> 'code' <> 'cancelled'
        UNION ALL                           -- segments of video
        SELECT substr(data ->> 'orchestrator', 10), 1, 0 FROM event
        WHERE type = 'fee-credited' AND data ->> 'orchestrator' LIKE 'customer:%'
          AND coalesce(data ->> 'pipeline', '') = '')
    WHERE customer <> ''
    GROUP BY customer;

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
