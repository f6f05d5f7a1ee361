"""The peer "stock Faust": each user's last 20 purchases in a table, one table write per order."""

import os

import faust
import msgspec

KEEP = 20

app = faust.App(
    os.environ["BENCH_GROUP"],
    broker=f"kafka://{os.environ['BENCH_KAFKA']}",
    store="rocksdb://",
    datadir=os.environ["BENCH_FOLDER"],
    topic_partitions=int(os.environ["BENCH_PARTITIONS"]),
    topic_replication_factor=1,
    table_standby_replicas=1,  # its default
    broker_session_timeout=float(os.environ.get("BENCH_SESSION_S", 60)),
    broker_heartbeat_interval=float(os.environ.get("BENCH_HEARTBEAT_S", 3)),
    consumer_auto_offset_reset="earliest",
    broker_commit_interval=0.5,
    web_enabled=False,
)
orders = app.topic(os.environ["BENCH_TOPIC"], key_type=bytes, value_type=bytes, value_serializer="raw")
recent = app.Table("recent", default=list, key_type=bytes, options={"driver": "rocksdict"})
decode = msgspec.json.Decoder(dict).decode


@app.agent(orders)
async def add_order(stream):
    """Add each order to its user's list."""
    async for user, value in stream.items():
        order = decode(value)["data"]
        purchase = [
            order["order_id"],
            order["product_name"],
            order["price"],
            order["ordered_at"],
            order["payment_method"],
        ]
        recent[user] = [*recent[user], purchase][-KEEP:]
