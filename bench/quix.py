"""The peer "Quix Streams": the last 20 purchases of each user in its RocksDB state; runs in a venv of its own."""

import os

from quixstreams import Application, State

KEEP = 20


def remember(event: dict, state: State) -> None:
    """Add one order to the list of its user: the state is that of the record's key."""
    order = event["data"]
    recent = state.get("recent", [])
    recent.append(
        [order["order_id"], order["product_name"], order["price"], order["ordered_at"], order["payment_method"]]
    )
    state.set("recent", recent[-KEEP:])


def main() -> None:
    """Read until killed."""
    app = Application(
        os.environ["BENCH_KAFKA"],
        consumer_group=os.environ["BENCH_GROUP"],
        auto_offset_reset="earliest",
        commit_interval=0.5,
        state_dir=os.environ["BENCH_FOLDER"],
        use_changelog_topics=True,
    )
    orders = app.topic(os.environ["BENCH_TOPIC"], key_deserializer="bytes", value_deserializer="json")
    app.dataframe(orders).update(remember, stateful=True)
    app.run()


if __name__ == "__main__":
    main()
