"""`lately users erase --proof`: every place where a user can be, what was found there, and what becomes of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import NamedTuple

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.structs import ConsumerRecord

from app.control import generation, source_state
from app.kafka import dead_letter_topic
from app.kafka.consume import consuming, upto
from app.settings import Settings
from app.topics import Topics
from commands.users.erase import is_of
from commands.worker_client import Workers, workers
from domain import co_purchases, purchases
from domain.partitioning import partition_of
from source import user_rows


class Place(NamedTuple):
    """A place: how much of the user was `found` there (None: it was not looked at), and whether it should not be."""

    name: str
    found: int | None
    left: bool
    says: str


async def run(settings: Settings, user: str, worker: str | None) -> list[Place]:
    """Look everywhere, at one place after the other. Raises ServerAway, BadSource."""
    rows, waiting = await asyncio.to_thread(user_rows.left_of, settings, user)
    places = [
        Place(f"MySQL table {settings.source_table}", rows, rows > 0, "rows; the shop deletes or anonymises them"),
        Place(f"MySQL table {settings.source_outbox}", waiting, waiting > 0, "changes that `lately source` publishes"),
    ]
    async with workers(settings, worker) as tables:
        newer = await _tables(tables, user, places)
    async with consuming(settings) as consumer:
        await _topics(_Reader(settings, consumer, user), newer, places)
        for one in await generation.beside(settings):
            says = "its topics follow; `lately rescale --cleanup` deletes a former one, `--abandon` one being filled"
            places.append(Place(f"generation {one.generation} of the topics", None, False, says))
            await _topics(_Reader(one, consumer, user), newer, places)
    open_letters = await dead_letter_topic.find(settings, lambda one: is_of(user, one.key, one.value))
    places.append(Place("open dead letters", len(open_letters), bool(open_letters), "`lately dlq drop` drops them"))
    taken = (await source_state.read(settings)).get(source_state.SNAPSHOT)
    after = [] if taken is None else taken.after or []
    places.append(
        Place(
            f"topic {Topics(settings).source_state.name}", after.count(user), user in after,
            "the key of the last row of a snapshot; the next one replaces it",
        )
    )  # fmt: skip
    return [*places, *_not_looked_at(settings)]


async def _tables(tables: Workers, user: str, places: list[Place]) -> int:
    """What the workers have; how many live purchases are newer than the erasure."""
    registers = (await tables.registers([user]))[user]
    version = tables.erased.get(user, -1)
    older = [one for one in registers if one.version <= version or version < 0]
    newer = sum(one.live for one in registers if one not in older)
    again = f"; {newer} purchases are newer than the erasure" if newer else ""
    shown, baskets = await tables.shown(user), await tables.keys("baskets", user)
    marker = "no erasure is known" if version < 0 else f"only that all up to version {version} is forgotten"
    places += [
        Place("API answer", shown, shown > newer, f"purchases that a worker shows{again}"),
        Place("table by_user", len(older), bool(older), f"purchases, removed ones too; {marker}"),
        Place("table baskets", len(baskets), bool(baskets) and not newer, f"keys{again}"),
    ]
    return newer


async def _topics(reader: _Reader, newer: int, places: list[Place]) -> None:
    topics, user = reader.topics, reader.user.encode()
    vanish = "older values, gone with the topic's next compaction (by default when half of it is old)"
    for table in ("by_user", "baskets"):
        newest: dict[bytes, bytes | None] = {}
        records = 0
        async for record in reader.home(topics.changelog(table)):
            if record.key is not None and record.key.partition(b"\x00")[0] == user:
                newest[record.key] = record.value
                records += 1
        kept = [key for key, value in newest.items() if value is not None]
        if table == "by_user":
            known = purchases.erased(newest.get(user))
            others = [newest[key] for key in kept if key != user]
            kept = [one for one in purchases.registers(newest.get(user), others) if one.version <= known or known < 0]
        places.append(
            Place(
                f"topic {topics.changelog(table)}", len(kept), bool(kept) and not (newer and table == "baskets"),
                f"newest values that are not tombstones; {records - len(newest)} {vanish}",
            )
        )  # fmt: skip
    events = [one async for one in reader.home(topics.orders.name) if one.key == user]
    places.append(
        Place(
            f"topic {topics.orders.name}", len(events), False,
            "events: the log is kept for ever, and Kafka deletes no single record; none of them takes effect any more. "
            "To be rid of them, make the topic anew from MySQL: docs/operations.md, Erasing a user",
        )
    )  # fmt: skip
    told = 0
    async for record in reader.home(topics.purchase_changes.name):
        told += sum(change[0] == reader.user for change in co_purchases.decode_changes(record.value))
    places.append(Place(f"topic {topics.purchase_changes.name}", told, False, "changes; gone 7 days after each"))
    dead = [one async for one in reader.all(topics.orders_dead.name) if is_of(reader.user, one.key, one.value)]
    places.append(
        Place(
            f"topic {topics.orders_dead.name}", len(dead), False,
            "settled records behind a dead letter that is open: settle that one, and erase again",
        )
    )  # fmt: skip


def _not_looked_at(settings: Settings) -> Iterable[Place]:
    shop = "totals and counts, which name no user"
    yield Place("tables product_partials, by_product, similar, and the topics that feed them", None, False, shop)
    yield Place("disks of workers", None, False, "as the changelogs, after RocksDB's next compaction")
    yield Place("logs", None, False, "Lately logs no user ids and no requests; your proxy may")
    copies = f"dumps and reports, {settings.folder}-report, and -verify and -replay of what was interrupted"
    yield Place("files", None, False, f"{copies}: yours to delete; a dump that is restored is erased again")


class _Reader:
    """Reads topics from their beginning to their end as of now."""

    def __init__(self, settings: Settings, consumer: AIOKafkaConsumer, user: str) -> None:
        self.topics, self.user = Topics(settings), user
        self._settings, self._consumer = settings, consumer

    def home(self, topic: str) -> AsyncIterator[ConsumerRecord]:
        """The records of the partition where the user's lie."""
        partition = partition_of(self.user.encode(), self._settings.partitions)
        return self._read([TopicPartition(topic, partition)])

    def all(self, topic: str) -> AsyncIterator[ConsumerRecord]:
        """All records of a topic."""
        return self._read([TopicPartition(topic, number) for number in range(self._settings.partitions)])

    async def _read(self, tps: list[TopicPartition]) -> AsyncIterator[ConsumerRecord]:
        if tps[0].topic not in await self._consumer.topics():
            return  # of another generation, of which some are deleted already
        self._consumer.assign(tps)
        await self._consumer.seek_to_beginning(*tps)
        async for record in upto(self._consumer, await self._consumer.end_offsets(tps)):
            yield record
