"""`lately users erase --proof`: every place where a user can be, what was found there, and what becomes of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import NamedTuple

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.structs import ConsumerRecord

from app.control import generation, source_state
from app.kafka import dead_letter_topic
from app.kafka.consume import open_consumer, read_until
from app.settings import Settings
from app.topics import Topics
from commands.users.erase import is_of
from commands.worker_client import WorkerClient, open_worker_client
from domain import co_purchases, purchases
from domain.partitioning import partition_of
from source import user_rows


class ErasureFinding(NamedTuple):
    """A place: how much of the user was `found` there (None: it was not looked at), and whether it should not be."""

    name: str
    found: int | None
    left: bool
    says: str


async def prove_erasure(settings: Settings, user: str, worker: str | None) -> list[ErasureFinding]:
    """Look everywhere, at one place after the other. Raises ServerAway, BadSource."""
    rows, waiting = await asyncio.to_thread(user_rows.count_remaining, settings, user)
    places = [
        ErasureFinding(
            f"MySQL table {settings.source_table}", rows, rows > 0, "rows; the shop deletes or anonymises them"
        ),
        ErasureFinding(
            f"MySQL table {settings.source_outbox}", waiting, waiting > 0, "changes that `lately source` publishes"
        ),
    ]
    async with open_worker_client(settings, worker) as tables:
        newer = await _tables(tables, user, places)
    async with open_consumer(settings) as consumer:
        await _topics(_Reader(settings, consumer, user), newer, places)
        for one in await generation.read_neighbor_generations(settings):
            says = "its topics follow; `lately rescale --cleanup` deletes a former one, `--abandon` one being filled"
            places.append(ErasureFinding(f"generation {one.generation} of the topics", None, False, says))
            await _topics(_Reader(one, consumer, user), newer, places)
    open_letters = await dead_letter_topic.find_letters(settings, lambda one: is_of(user, one.key, one.value))
    places.append(
        ErasureFinding("open dead letters", len(open_letters), bool(open_letters), "`lately dlq drop` drops them")
    )
    taken = (await source_state.read(settings)).snapshot
    after = [] if taken is None else taken.last_key or []
    places.append(
        ErasureFinding(
            f"topic {Topics(settings).source_state.name}", after.count(user), user in after,
            "the key of the last row of a snapshot; the next one replaces it",
        )
    )  # fmt: skip
    return [*places, *_not_looked_at(settings)]


async def _tables(tables: WorkerClient, user: str, places: list[ErasureFinding]) -> int:
    """What the workers have; how many live purchases are newer than the erasure."""
    registers = (await tables.read_purchases([user]))[user]
    version = tables.erasure_versions.get(user, -1)
    older = [one for one in registers if one.version <= version or version < 0]
    newer = sum(one.live for one in registers if one not in older)
    again = f"; {newer} purchases are newer than the erasure" if newer else ""
    shown, baskets = await tables.count_shown(user), await tables.read_keys("baskets", user)
    marker = "no erasure is known" if version < 0 else f"only that all up to version {version} is forgotten"
    places += [
        ErasureFinding("API answer", shown, shown > newer, f"purchases that a worker shows{again}"),
        ErasureFinding("table by_user", len(older), bool(older), f"purchases, removed ones too; {marker}"),
        ErasureFinding("table baskets", len(baskets), bool(baskets) and not newer, f"keys{again}"),
    ]
    return newer


async def _topics(reader: _Reader, newer: int, places: list[ErasureFinding]) -> None:
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
            known = purchases.erased_version(newest.get(user))
            others = [newest[key] for key in kept if key != user]
            kept = [
                one for one in purchases.all_purchases(newest.get(user), others) if one.version <= known or known < 0
            ]
        places.append(
            ErasureFinding(
                f"topic {topics.changelog(table)}", len(kept), bool(kept) and not (newer and table == "baskets"),
                f"newest values that are not tombstones; {records - len(newest)} {vanish}",
            )
        )  # fmt: skip
    events = [one async for one in reader.home(topics.orders.name) if one.key == user]
    places.append(
        ErasureFinding(
            f"topic {topics.orders.name}", len(events), False,
            "events: the log is kept for ever, and Kafka deletes no single record; none of them takes effect any more. "
            "To be rid of them, make the topic anew from MySQL: docs/operations.md, Erasing a user",
        )
    )  # fmt: skip
    told = 0
    async for record in reader.home(topics.purchase_changes.name):
        told += sum(change[0] == reader.user for change in co_purchases.decode_changes(record.value))
    places.append(
        ErasureFinding(f"topic {topics.purchase_changes.name}", told, False, "changes; gone 7 days after each")
    )
    dead = [one async for one in reader.all(topics.orders_dead.name) if is_of(reader.user, one.key, one.value)]
    places.append(
        ErasureFinding(
            f"topic {topics.orders_dead.name}", len(dead), False,
            "settled records behind a dead letter that is open: settle that one, and erase again",
        )
    )  # fmt: skip


def _not_looked_at(settings: Settings) -> Iterable[ErasureFinding]:
    shop = "totals and counts, which name no user"
    yield ErasureFinding(
        "tables product_partials, by_product, similar, and the topics that feed them", None, False, shop
    )
    yield ErasureFinding("disks of workers", None, False, "as the changelogs, after RocksDB's next compaction")
    yield ErasureFinding("logs", None, False, "Lately logs no user ids and no requests; your proxy may")
    copies = f"dumps and reports, {settings.folder}-report, and -verify and -replay of what was interrupted"
    yield ErasureFinding("files", None, False, f"{copies}: yours to delete; a dump that is restored is erased again")


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
        async for record in read_until(self._consumer, await self._consumer.end_offsets(tps)):
            yield record
