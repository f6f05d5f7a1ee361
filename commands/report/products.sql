-- The first $1 products of each bucket by revenue or, with $2, by purchases.
WITH customers AS (
    SELECT bucket, product_name, user_id, count(*) AS purchases, sum(price) AS revenue
    FROM picked GROUP BY bucket, product_name, user_id
), products AS (
    SELECT bucket, product_name, count(*) AS customers, sum(purchases)::BIGINT AS purchases, sum(revenue) AS revenue
    FROM customers GROUP BY bucket, product_name
)
SELECT bucket, product_name, customers, purchases, revenue
FROM products
QUALIFY row_number() OVER (
    PARTITION BY bucket ORDER BY CASE WHEN $2 THEN purchases ELSE 0 END DESC, revenue DESC, purchases DESC, product_name
) <= $1
ORDER BY bucket, CASE WHEN $2 THEN purchases ELSE 0 END DESC, revenue DESC, purchases DESC, product_name;
