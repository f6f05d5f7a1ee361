-- One row that describes the file. `began` and `after` belong to a table that is read in chunks of its primary key.
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
    price VARCHAR NOT NULL,         -- original text: among equal versions the greater text is valid
    payment_method VARCHAR
);

-- Events of a user that are not newer than the version are erased, whether read before or after.
CREATE TABLE erasures (partition INTEGER NOT NULL, place BIGINT NOT NULL, user_id VARCHAR NOT NULL, version BIGINT NOT NULL);

CREATE TABLE unreadable (partition INTEGER NOT NULL, place BIGINT NOT NULL);
