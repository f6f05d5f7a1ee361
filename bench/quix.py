"""The peer "Quix Streams": each user's last 20 purchases in RocksDB; runs in a separate venv."""

import os

from quixstreams import Application, State

KEEP = 20


def add_order(event: dict, state: State) -> None:
    """Add an order to the list of its user; the state belongs to the key of the record."""
    order = event["data"]
    recent = state.get("recent", [])
    recent.append(
        [order["order_id"], order["product_name"], order["price"], order["ordered_at"], order["payment_method"]]
    )
    state.set("recent", recent[-KEEP:])


def main() -> None:
    """Read until the process is killed."""
    app = Application(
        os.environ["BENCH_KAFKA"],
        consumer_group=os.environ["BENCH_GROUP"],
        auto_offset_reset="earliest",
        commit_interval=0.5,
        state_dir=os.environ["BENCH_FOLDER"],
        use_changelog_topics=True,
    )
    orders = app.topic(os.environ["BENCH_TOPIC"], key_deserializer="bytes", value_deserializer="json")
    app.dataframe(orders).update(add_order, stateful=True)
    app.run()


if __name__ == "__main__":
    main()
