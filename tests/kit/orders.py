"""Shops that place, change and remove orders, and records that no version can read."""

from __future__ import annotations

import random
import threading
from contextlib import closing
from datetime import datetime, timedelta, timezone

import msgspec
from confluent_kafka import KafkaException

from tests.kit.makers import event
from tests.kit.stack import Stack, Worker

#: The time of orders that recommendations count.
NOW = datetime.now(timezone.utc).replace(tzinfo=None, microsecond=0)
#: Some names need escaping in URLs.
MANY_USERS = [f"user-{number}" for number in range(497)] + ["a/b", "ünïcode 😀", "50%"]
#: The users and the time of `place_orders`.
CUSTOMERS = [f"user-{number}" for number in range(60)]
OPENING = datetime(2026, 1, 31, 12)

UNREADABLE_RECORDS = [
    (b"user-1", b"{"),
    (b"user-1", b'"text"'),
    (b"user-1", b'{"specversion":"1.0","type":"order.lost"}'),
    (b"user-2", b'{"dataschema":"urn:lately:schema:order:2","type":"order.placed","data":{"any":"shape"}}'),
    (None, b"\xff\xfe"),
]


def start_shop(stack: Stack, **env: str) -> Worker:
    """A worker behind a source that follows a shop."""
    stack.create_orders()
    stack.setup()
    stack.source()
    return stack.worker(**env).start().wait_ready()


def place_orders(stack: Stack, orders: int, first: int = 0, stopping: threading.Event | None = None) -> None:
    """Orders of all customers, one transaction each; with `stopping` some 200 a second until it is set."""
    with closing(stack.connect()) as connection, closing(connection.cursor()) as cursor:
        for number in range(first, first + orders):
            cursor.execute(
                "INSERT INTO orders (order_id, product_name, user_id, price, ordered_at, payment_method)"
                " VALUES (%s, %s, %s, %s, %s, 'card')",
                (f"o{number:05}", f"Phone {number % 7}", CUSTOMERS[number % len(CUSTOMERS)], number % 100,
                 OPENING + timedelta(seconds=number // 3)),
            )  # fmt: skip
            connection.commit()
            if stopping is not None and stopping.wait(0.005):
                return


def buy(stack: Stack, *purchases: tuple[str, str], category: str | None = None, at: datetime = NOW) -> None:
    """Each user buys a product, in one transaction of the shop."""
    with closing(stack.connect()) as connection, closing(connection.cursor()) as cursor:
        cursor.executemany(
            "INSERT INTO orders (order_id, product_name, user_id, price, ordered_at, payment_method, category)"
            " VALUES (%s, %s, %s, 1, %s, 'card', %s)",
            [(f"{user}-{number}-{at}", name, user, at, category) for number, (user, name) in enumerate(purchases)],
        )
        connection.commit()


def cancel(stack: Stack, user: str, product: str) -> None:
    """Remove a user's purchases of a product."""
    stack.execute("DELETE FROM orders WHERE user_id = %s AND product_name = %s", (user, product))


def change_or_remove(cursor, dice: random.Random, placed: list[tuple]) -> None:
    """Change the price, the time or the user (to any of MANY_USERS) of one of the placed lines, or remove it."""
    line = dice.choice(placed)
    where = " WHERE order_id = %s AND product_name = %s"
    kind = dice.randrange(4)
    if kind == 0:
        cursor.execute("UPDATE orders SET price = price + 1" + where, line)
    elif kind == 1:
        cursor.execute("UPDATE orders SET user_id = %s" + where, (dice.choice(MANY_USERS), *line))
    elif kind == 2:
        cursor.execute(
            "UPDATE orders SET ordered_at = ordered_at + INTERVAL 1 HOUR, payment_method = 'invoice'" + where, line
        )
    else:
        cursor.execute("DELETE FROM orders" + where, line)
        placed.remove(line)


def publish_events(stack: Stack, stopping: threading.Event) -> None:
    """Events in bursts until `stopping` is set, at most 200,000."""
    for number in range(200):
        events = [event(user_id=f"user-{user % 500}", order_id=f"o{number}-{user}") for user in range(1_000)]
        stack.publish("orders", *((one.data.user_id, msgspec.json.encode(one)) for one in events))
        if stopping.wait(0.01):
            return


def count_published(stack: Stack, topic: str = "orders") -> int:
    """How many records a topic holds; 0 before it exists."""
    try:
        return stack.high_watermark(topic)
    except (KeyError, KafkaException):
        return 0
