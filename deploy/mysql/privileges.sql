-- The outbox of Lately is in a schema of its own, which `lately source setup` creates.
GRANT ALL ON `shop_lately`.* TO lately;
