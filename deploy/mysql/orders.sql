-- The shop's table of the try-out in compose.yaml; a real shop has its own.
CREATE TABLE IF NOT EXISTS orders (
  order_id VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  product_name VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  user_id VARCHAR(128) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  price DECIMAL(12,2) NOT NULL,
  ordered_at DATETIME(6) NOT NULL,
  payment_method VARCHAR(64) NULL,
  category VARCHAR(64) NULL,
  PRIMARY KEY (order_id, product_name),
  KEY orders_by_user (user_id, ordered_at),
  KEY orders_by_time (ordered_at)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;
