-- The purchases at one position: the same rule as domain/purchases.py.

-- First offset of each partition that is not counted.
CREATE TEMP TABLE upto (partition INTEGER, place BIGINT);

-- The newest version of a purchase is valid. Among equal versions a repair replaces earlier events, and otherwise the
-- greater content is valid: first a removal, then each field as text (the category would be the last one, but no report
-- contains it). As in the tables, a purchase belongs to one partition.
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

-- In a file that exists as long as the command: a temporary table would take most of the memory.
CREATE TABLE scratch.purchases (
    partition INTEGER, user_id VARCHAR, order_id VARCHAR, product_name VARCHAR, ordered_at BIGINT,
    price DECIMAL(28, 10), payment_method VARCHAR
);

-- The spans of a report: from `since` until before `until`.
CREATE TEMP TABLE buckets (number INTEGER, since BIGINT, until BIGINT);

CREATE TEMP VIEW picked AS
SELECT purchases.*, buckets.number AS bucket
FROM scratch.purchases ASOF JOIN buckets ON purchases.ordered_at >= buckets.since
WHERE purchases.ordered_at < (SELECT max(until) FROM buckets);
