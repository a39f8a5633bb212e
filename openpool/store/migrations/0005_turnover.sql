CREATE TABLE turnover (                     -- what all transfers of a kind moved, over all time
    kind       TEXT PRIMARY KEY,            -- of LPT behind lpt/
    amount_wei TEXT NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO turnover                        -- wei_sum adds up exactly: store.database has it
    SELECT CASE WHEN debit LIKE 'lpt/%' THEN 'lpt/' || kind ELSE kind END, wei_sum(amount_wei)
    FROM transfer
    GROUP BY 1;
