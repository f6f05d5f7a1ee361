-- Orders, purchases, revenue and customers of each bucket; new customers never bought before it, repeating customers
-- placed two orders or more in it.
WITH first AS (
    SELECT user_id, min(ordered_at) AS ordered_at FROM scratch.purchases GROUP BY user_id
), orders AS (
    SELECT bucket, user_id, order_id, count(*) AS purchases, sum(price) AS revenue
    FROM picked GROUP BY bucket, user_id, order_id
), customers AS (
    SELECT bucket, user_id, count(*) AS orders, sum(purchases) AS purchases, sum(revenue) AS revenue
    FROM orders GROUP BY bucket, user_id
)
SELECT
    number AS bucket,
    coalesce(sum(orders), 0)::BIGINT AS orders,
    coalesce(sum(purchases), 0)::BIGINT AS purchases,
    coalesce(sum(revenue), 0)::DECIMAL(38, 10) AS revenue,
    count(user_id) AS customers,
    count(user_id) FILTER (first.ordered_at >= since) AS new,
    count(user_id) FILTER (first.ordered_at < since) AS returning,
    count(user_id) FILTER (orders > 1) AS repeating
FROM buckets LEFT JOIN customers ON bucket = number LEFT JOIN first USING (user_id)
GROUP BY number, since
ORDER BY number;
