-- The outbox of Lately is in a schema of its own, which `lately source setup` creates.
GRANT ALL ON `shop_lately`.* TO lately;
-- With it, `lately source` proves that the server is not a replica.
GRANT REPLICATION CLIENT ON *.* TO lately;
