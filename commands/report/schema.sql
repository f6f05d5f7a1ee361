-- One row: what the file is. `began` and `after` are those of a table that is read in chunks of its primary key.
CREATE TABLE about (format INTEGER, source VARCHAR, began DOUBLE, after VARCHAR, done BOOLEAN);

CREATE TABLE positions (
    partition INTEGER PRIMARY KEY, next_place BIGINT NOT NULL, last_place BIGINT, last_digest BIGINT
);

CREATE TABLE events (
    partition INTEGER NOT NULL,
    place BIGINT NOT NULL,          -- the offset
    user_id VARCHAR NOT NULL,
    order_id VARCHAR NOT NULL,      -- i7 is the integer 7, s7 the text
    product_name VARCHAR NOT NULL,
    version BIGINT NOT NULL,
    live BOOLEAN NOT NULL,
    repaired BOOLEAN NOT NULL,
    ordered_at BIGINT NOT NULL,     -- microseconds since 1970 UTC
    price VARCHAR NOT NULL,         -- as it was written: of equal versions the greater text counts
    payment_method VARCHAR
);

-- All of a user that is not newer than the version is forgotten, be it read before or after.
CREATE TABLE erasures (partition INTEGER NOT NULL, place BIGINT NOT NULL, user_id VARCHAR NOT NULL, version BIGINT NOT NULL);

CREATE TABLE unreadable (partition INTEGER NOT NULL, place BIGINT NOT NULL);
