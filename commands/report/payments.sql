-- The first $1 payment methods of each bucket by revenue or, with $2, by purchases.
WITH orders AS (
    SELECT bucket, payment_method, user_id, order_id, count(*) AS purchases, sum(price) AS revenue
    FROM picked GROUP BY bucket, payment_method, user_id, order_id
), methods AS (
    SELECT bucket, payment_method, count(*) AS orders, sum(purchases)::BIGINT AS purchases, sum(revenue) AS revenue
    FROM orders GROUP BY bucket, payment_method
)
SELECT bucket, payment_method, orders, purchases, revenue
FROM methods
QUALIFY row_number() OVER (
    PARTITION BY bucket
    ORDER BY CASE WHEN $2 THEN purchases ELSE 0 END DESC, revenue DESC, purchases DESC, payment_method NULLS LAST
) <= $1
ORDER BY bucket, CASE WHEN $2 THEN purchases ELSE 0 END DESC, revenue DESC, purchases DESC, payment_method NULLS LAST;
