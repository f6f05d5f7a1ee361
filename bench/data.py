"""The orders that all sides read: generated, equal in every run, written before the measurement."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from itertools import islice

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from domain.events import PLACED, SCHEMA

SOURCE = "/mysql/3e11fa47-71ca-11e1-9e33-c80aa9429562/shop/orders"
HEADERS = [("content-type", b"application/cloudevents+json")]
KINDS = ("Phone", "Laptop", "Tablet", "Watch", "Camera", "Monitor", "Printer", "Router", "Drone", "Speaker",
         "Keyboard", "Mouse", "Headset", "Charger", "Cable", "Case", "Lamp", "Clock", "Scale", "Desk")  # fmt: skip
PAYMENTS = ("card", "paypal", "invoice", "transfer")
MODELS = 50
BEGIN = datetime(2026, 1, 1, tzinfo=timezone.utc)
WEEKS = timedelta(weeks=4)
#: An order may be older than this number of orders before it, as if several shops wrote at once.
DISORDER = 20
FIRST_VERSION = 1_767_225_600_000_000


@dataclass(frozen=True)
class DataSet:
    """The size of a data set: orders, users, and partitions of its topic."""

    orders: int
    users: int
    partitions: int = 4

    @property
    def prefix(self) -> str:
        """The value of LATELY_TOPIC_PREFIX for this data."""
        return f"d{self.orders}-u{self.users}-p{self.partitions}-"

    @property
    def topic(self) -> str:
        return f"{self.prefix}orders"

    def __str__(self) -> str:
        return f"{self.orders:,} orders of {self.users:,} users in {self.partitions} partitions"


def user_id(number: int) -> str:
    """Return the id of the user with this number, from 0."""
    return f"user-{number:07d}"


def generate_records(data: DataSet) -> Iterator[tuple[bytes, bytes]]:
    """Yield all records (key, value), oldest first.

    Each user orders once, in a random sequence, before a user orders again. So N orders of N users
    contain every user, and no side profits from a few users that are always in its cache.
    """
    dice = random.Random(20260101)  # noqa: S311 - a benchmark needs repeatable numbers
    names = [f"{kind} {model}" for model in range(1, MODELS + 1) for kind in KINDS]
    prices = [f"{dice.lognormvariate(4.5, 1.0):.2f}" for _ in names]
    # The product of rank n sells 1/n as often as the first product.
    popularity = [1 / rank for rank in range(1, len(names) + 1)]
    step = WEEKS / data.orders
    users = list(range(data.users))
    for begin in range(0, data.orders, data.users):
        dice.shuffle(users)
        size = min(data.users, data.orders - begin)
        bought = dice.choices(range(len(names)), popularity, k=size)
        paid = dice.choices(PAYMENTS, (6, 3, 2, 1), k=size)
        for number, user, product, payment in zip(range(begin, begin + size), users, bought, paid, strict=False):
            at = BEGIN + number * step - step * (DISORDER * dice.random())
            yield encode_order(number, user_id(user), names[product], prices[product], payment, at)


def encode_order(
    number: int, user: str, product: str, price: str, payment: str, ordered_at: datetime
) -> tuple[bytes, bytes]:
    """Return the record (key, value) of order number `number`, from 0; the time is in UTC."""
    stamp = f"{ordered_at.isoformat(timespec='microseconds')[:-6]}Z"
    value = (
        f'{{"specversion":"1.0","id":"6ccd780c-baba-1026-9564-{number:012d}","source":"{SOURCE}",'
        f'"type":"{PLACED}","time":"{stamp}","subject":"o{number + 1:07d}","partitionkey":"{user}",'
        f'"datacontenttype":"application/json","dataschema":"{SCHEMA}",'
        f'"data":{{"user_id":"{user}","order_id":"o{number + 1:07d}","product_name":"{product}",'
        f'"price":"{price}","ordered_at":"{stamp}","payment_method":"{payment}",'
        f'"category":null,"version":{FIRST_VERSION + number}}}}}'
    )
    return user.encode(), value.encode()


class Feed:
    """Creates the topic of a data set, and writes its orders into it step by step."""

    def __init__(self, kafka: str, data: DataSet, records: Iterator[tuple[bytes, bytes]] | None = None) -> None:
        """Create the topic; `records` are the orders if they are not those of `generate_records`."""
        self.data = data
        self.written = 0
        self._records = generate_records(data) if records is None else records
        self._failures: list[object] = []
        admin = AdminClient({"bootstrap.servers": kafka})
        config = {"cleanup.policy": "delete", "retention.ms": "-1"}
        admin.create_topics([NewTopic(data.topic, data.partitions, 1, config=config)])[data.topic].result()
        # Murmur2, like every writer of this topic; batches of the size that a busy source sends.
        self._producer = Producer({
            "bootstrap.servers": kafka, "partitioner": "murmur2_random", "linger.ms": 20, "batch.size": 262_144,
            "queue.buffering.max.messages": 1_000_000, "enable.idempotence": True,
            "log_level": 3,
        })  # fmt: skip

    def write(self, count: int) -> None:
        """Send the next `count` orders."""
        for key, value in islice(self._records, count):
            while True:
                try:
                    self._producer.produce(self.data.topic, value, key, headers=HEADERS, on_delivery=self._on_delivery)
                    break
                except BufferError:
                    self._producer.poll(0.1)
            self.written += 1
            if self.written % 1000 == 0:
                self._producer.poll(0)

    def flush(self) -> None:
        """Return when Kafka has acknowledged all orders. Raises RuntimeError if it rejected one."""
        if self._producer.flush(120) or self._failures:
            raise RuntimeError(f"Kafka did not accept all orders of {self.data.topic}: {self._failures[:1]}")

    def _on_delivery(self, error: object, _message: object) -> None:
        if error is not None:
            self._failures.append(error)


def ensure_written(kafka: str, data: DataSet) -> None:
    """Create the topic of `data` and fill it, unless it exists already."""
    if data.topic in AdminClient({"bootstrap.servers": kafka}).list_topics(timeout=10).topics:
        return
    feed = Feed(kafka, data)
    feed.write(data.orders)
    feed.flush()
