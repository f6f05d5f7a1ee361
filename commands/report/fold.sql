-- The purchases at one position: what domain/purchases.py makes of the same events.

-- Of each partition the first offset that does not count.
CREATE TEMP TABLE upto (partition INTEGER, place BIGINT);

-- Of each purchase the newest version counts. Of equal versions a repair replaces what was before it, and of the others
-- the greater content counts: a removal first, then each field as text, where there is one; the category would be the
-- last of them, but no report has it. As in the tables, a purchase is known within its partition.
CREATE TEMP VIEW erased AS
SELECT partition, user_id, max(version) AS version
FROM erasures JOIN upto USING (partition)
WHERE erasures.place < upto.place
GROUP BY partition, user_id;

CREATE TEMP VIEW folded AS
SELECT partition, user_id, order_id, product_name, ordered_at, price::DECIMAL(28, 10) AS price, payment_method
FROM (
    SELECT *, row_number() OVER (
        PARTITION BY partition, user_id, order_id, product_name
        ORDER BY version DESC, live, ordered_at::VARCHAR DESC, price DESC, payment_method DESC NULLS LAST
    ) AS rank
    FROM (
        SELECT events.*, max(events.place) FILTER (repaired) OVER (
            PARTITION BY events.partition, user_id, order_id, product_name, version
        ) AS mended
        FROM events JOIN upto USING (partition)
        WHERE events.place < upto.place
    )
    WHERE mended IS NULL OR place >= mended
) AS newest
WHERE rank = 1 AND live AND version > coalesce(
    (SELECT erased.version FROM erased WHERE erased.partition = newest.partition AND erased.user_id = newest.user_id), -1
);

-- On disk, in a file that lives as long as the command: a temporary table would take most of the memory.
CREATE TABLE scratch.purchases (
    partition INTEGER, user_id VARCHAR, order_id VARCHAR, product_name VARCHAR, ordered_at BIGINT,
    price DECIMAL(28, 10), payment_method VARCHAR
);

-- What a report is about: from `since` until before `until`.
CREATE TEMP TABLE buckets (number INTEGER, since BIGINT, until BIGINT);

CREATE TEMP VIEW picked AS
SELECT purchases.*, buckets.number AS bucket
FROM scratch.purchases ASOF JOIN buckets ON purchases.ordered_at >= buckets.since
WHERE purchases.ordered_at < (SELECT max(until) FROM buckets);
