"""The orders that all runs read: made up, the same at every run, and as disorderly as a topic can be."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from random import Random

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

PARTITIONS = 4
PRODUCTS = [f"{kind} {model}" for kind in ("Phone", "Café-Mühle", "Lamp", "Drone", "Desk") for model in range(100)]
PAYMENTS = ('"card"', '"paypal"', "null")
BEGIN = datetime(2026, 1, 1)
#: Purchases are made in so many slots of ten seconds, so there are fewer moments than purchases.
SLOTS = 4 * 7 * 24 * 360

#: Of all events so many change an earlier purchase, remove one, come late, come again.
CHANGED, REMOVED, LATE, REPEATED = 0.10, 0.04, 0.05, 0.05
#: A late event is overtaken by up to so many others; a repeated one is one of so many kept for that.
LATENESS, KEPT = 20_000, 10_000

Record = tuple[bytes, bytes]


@dataclass
class Line:
    """One purchase as it stands in the shop."""

    user: str
    order: str
    product: str
    price: str
    at: str

    def event(self, kind: str, version: int, payment: str) -> Record:
        """Say what happened to it; each version has one content."""
        value = (
            f'{{"specversion":"1.0","id":"e{version}","source":"/shop","type":"order.{kind}","time":"{self.at}",'
            f'"dataschema":"urn:lately:schema:order:1","data":{{"user_id":"{self.user}","order_id":"{self.order}",'
            f'"product_name":"{self.product}","price":"{self.price}","ordered_at":"{self.at}","version":{version},'
            f'"payment_method":{payment},"category":null}}}}'
        )
        return self.user.encode(), value.encode()


def user(number: int) -> str:
    """The id of a user; some have letters outside ASCII."""
    return f"käufer {number}" if number % 97 == 0 else f"user-{number}"


def records(orders: int, users: int, seed: int = 1) -> Iterator[Record]:
    """All records of the topic: `orders` purchases of `users` users, changed and removed, in disorder and repeated."""
    dice = Random(seed)
    return disordered(changes(orders, users, dice), dice)


def changes(orders: int, users: int, dice: Random) -> Iterator[Record]:
    """What happened in the shop, in its order. Some users buy thousands of things, and everybody something."""
    lines: list[Line] = []
    newcomers = dice.sample(range(users), users)
    random, version = dice.random, 1_000_000
    while len(lines) < orders:
        version += 1
        roll, now = random(), len(lines) * SLOTS // orders
        if lines and roll < CHANGED + REMOVED:
            line = lines[int(len(lines) * random() ** 0.3)]
            if roll < CHANGED:
                line.price, line.at = price(dice), moment(now + dice.randrange(-SLOTS // 4, SLOTS // 4), dice)
            yield line.event("changed" if roll < CHANGED else "removed", version, dice.choice(PAYMENTS))
            continue
        number = newcomers.pop() if newcomers and random() < 0.5 else int(users * random() ** 3)
        order, at = f"o{len(lines)}", moment(now - dice.randrange(50), dice)
        for product in dice.sample(PRODUCTS, 3 if random() < 0.1 else 1)[: orders - len(lines)]:
            version += 1
            lines.append(Line(user(number), order, product, price(dice), at))
            yield lines[-1].event("placed", version, dice.choice(PAYMENTS))


def price(dice: Random) -> str:
    """A price with two decimals."""
    return f"{int(dice.random() * 500)}.{int(dice.random() * 100):02}"


def moment(slot: int, dice: Random) -> str:
    """A moment within a slot, mostly its beginning, as RFC 3339 text."""
    micros = 0 if dice.random() < 0.9 else int(dice.random() * 1e6)
    return f"{(BEGIN + timedelta(seconds=10 * slot, microseconds=micros)).isoformat(timespec='microseconds')}Z"


def disordered(events: Iterable[Record], dice: Random) -> Iterator[Record]:
    """The same events, some after later ones, some more than once."""
    late: list[tuple[int, int, Record]] = []
    kept: list[Record] = []
    for number, event in enumerate(events):
        if dice.random() < LATE:
            heapq.heappush(late, (number + dice.randrange(1, LATENESS), number, event))
        else:
            yield event
        while late and late[0][0] <= number:
            yield heapq.heappop(late)[2]
        if len(kept) < KEPT:
            kept.append(event)
        else:
            kept[dice.randrange(KEPT)] = event
        if dice.random() < REPEATED:
            yield kept[dice.randrange(len(kept))]
    yield from (event for _, _, event in sorted(late))


def fill(kafka: str, topic: str, orders: int, users: int) -> None:
    """Make the topic and write all records to it."""
    config = {"cleanup.policy": "delete", "retention.ms": "-1"}
    admin = AdminClient({"bootstrap.servers": kafka})
    admin.create_topics([NewTopic(topic, PARTITIONS, 1, config=config)])[topic].result()
    producer = Producer({
        "bootstrap.servers": kafka, "partitioner": "murmur2_random", "enable.idempotence": True, "linger.ms": 20,
        "queue.buffering.max.messages": 2_000_000, "queue.buffering.max.kbytes": 2_000_000,
    })  # fmt: skip
    for number, (key, value) in enumerate(records(orders, users)):
        producer.produce(topic, value, key)
        if number % 1000 == 0:
            producer.poll(0)
    assert producer.flush(120) == 0
