"""`lately users erase --proof`: search every place that may contain data of a user."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import NamedTuple

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.structs import ConsumerRecord

from app.control import state_topic
from app.control.generation import read_neighbor_generations
from app.kafka import dead_letter_topic
from app.kafka.consume import open_consumer, partitions_of, read_until
from app.kafka.topic_metadata import count_partitions
from app.settings import Settings
from app.topics import Topics
from commands.users.erase import is_record_of_user
from commands.worker_client import WorkerClient, open_worker_client
from domain.co_purchases import decode_changes
from domain.partitioning import partition_of
from domain.purchases import all_purchases, erased_version
from source import user_rows
from source.outbox_table import displayed_outbox, with_outbox


class ErasureFinding(NamedTuple):
    """Number of entries of the user in one place; `is_left` if they should be erased."""

    place: str
    #: None: the place was not searched.
    entries: int | None
    is_left: bool
    note: str

    def to_dict(self) -> dict[str, object]:
        """Return the fields for JSON."""
        return {"name": self.place, "found": self.entries, "left": self.is_left, "says": self.note}


async def prove_erasure(settings: Settings, user: str, worker: str | None) -> list[ErasureFinding]:
    """Search all places, one after the other. Raises ServerAway, BadSource."""
    findings = await _search_database(settings, user)
    async with open_worker_client(settings, worker) as worker_client:
        table_findings, newer = await _search_tables(worker_client, user)
        findings += table_findings
    async with open_consumer(settings) as consumer:
        findings += await _search_topics(_TopicReader(settings, consumer, user), newer)
        for other in await read_neighbor_generations(settings):
            note = (
                "see its topics below; `lately rescale --cleanup` deletes a former one, `--abandon` an unfinished one"
            )
            findings.append(ErasureFinding(f"generation {other.generation} of the topics", None, False, note))
            findings += await _search_topics(_TopicReader(other, consumer, user), newer)
    findings.append(await _search_open_letters(settings, user))
    findings.append(await _search_source_state(settings, user))
    return [*findings, *_unsearched_places(settings)]


async def _search_database(settings: Settings, user: str) -> list[ErasureFinding]:
    settings = await asyncio.to_thread(with_outbox, settings)
    rows, unpublished = await asyncio.to_thread(user_rows.count_remaining, settings, user)
    return [
        ErasureFinding(
            f"MySQL table {settings.source_table}", rows, rows > 0, "rows; the shop deletes or anonymises them"
        ),
        ErasureFinding(
            f"MySQL table {displayed_outbox(settings)}",
            unpublished,
            unpublished > 0,
            "changes that `lately source` publishes",
        ),
    ]


async def _search_tables(worker_client: WorkerClient, user: str) -> tuple[list[ErasureFinding], int]:
    """Search the workers' tables.

    Return also the number of live purchases that are newer than the erasure.
    """
    purchases = (await worker_client.read_purchases([user]))[user]
    version = worker_client.erasure_versions.get(user, -1)
    older = [purchase for purchase in purchases if purchase.version <= version or version < 0]
    newer = sum(purchase.live for purchase in purchases if purchase not in older)
    suffix = f"; {newer} purchases are newer than the erasure" if newer else ""
    returned, baskets = await worker_client.count_shown(user), await worker_client.read_keys("baskets", user)
    marker = "no erasure is stored" if version < 0 else f"only the erasure up to version {version} is stored"
    findings = [
        ErasureFinding("API answer", returned, returned > newer, f"purchases that a worker returns{suffix}"),
        ErasureFinding("table by_user", len(older), bool(older), f"purchases, also removed ones; {marker}"),
        ErasureFinding("table baskets", len(baskets), bool(baskets) and not newer, f"keys{suffix}"),
    ]
    return findings, newer


async def _search_topics(reader: _TopicReader, newer: int) -> list[ErasureFinding]:
    topics, user = reader.topics, reader.user
    findings = [
        await _search_by_user_changelog(reader),
        await _search_baskets_changelog(reader, newer),
    ]
    events = [record async for record in reader.read_user_partition(topics.orders.name) if record.key == user.encode()]
    findings.append(
        ErasureFinding(
            f"topic {topics.orders.name}", len(events), False,
            "events, which have no effect any more: the log is permanent, and Kafka cannot delete a single record. "
            "To remove them, create a new log from MySQL: docs/operations/commands.md, Erasing a user",
        )
    )  # fmt: skip
    changes = 0
    async for record in reader.read_user_partition(topics.purchase_changes.name):
        changes += sum(change[0] == user for change in decode_changes(record.value))
    findings.append(
        ErasureFinding(
            f"topic {topics.purchase_changes.name}", changes, False, "changes; Kafka deletes each after 7 days"
        )
    )
    letters = [
        record
        async for record in reader.read_all(topics.orders_dead.name)
        if is_record_of_user(user, record.key, record.value)
    ]
    findings.append(
        ErasureFinding(
            f"topic {topics.orders_dead.name}", len(letters), False,
            "settled records after an open dead letter: settle that one, and erase again",
        )
    )  # fmt: skip
    return findings


async def _search_by_user_changelog(reader: _TopicReader) -> ErasureFinding:
    topic = reader.topics.changelog("by_user")
    newest, obsolete = await _read_user_changelog(reader, topic)
    user = reader.user.encode()
    value = newest.get(user)
    version = erased_version(value)
    overflow = [content for key, content in newest.items() if content is not None and key != user]
    older = [purchase for purchase in all_purchases(value, overflow) if purchase.version <= version or version < 0]
    return ErasureFinding(f"topic {topic}", len(older), bool(older), _changelog_note(obsolete))


async def _search_baskets_changelog(reader: _TopicReader, newer: int) -> ErasureFinding:
    topic = reader.topics.changelog("baskets")
    newest, obsolete = await _read_user_changelog(reader, topic)
    keys = [key for key, value in newest.items() if value is not None]
    return ErasureFinding(f"topic {topic}", len(keys), bool(keys) and not newer, _changelog_note(obsolete))


async def _read_user_changelog(reader: _TopicReader, topic: str) -> tuple[dict[bytes, bytes | None], int]:
    """Return the newest value of each key of the user, and the number of obsolete values."""
    newest: dict[bytes, bytes | None] = {}
    records = 0
    async for record in reader.read_user_partition(topic):
        if record.key is not None and record.key.partition(b"\x00")[0] == reader.user.encode():
            newest[record.key] = record.value
            records += 1
    return newest, records - len(newest)


def _changelog_note(obsolete: int) -> str:
    return (
        f"newest values that are not tombstones; {obsolete} older values, which the topic's next compaction removes "
        "(by default when half of it is old)"
    )


async def _search_open_letters(settings: Settings, user: str) -> ErasureFinding:
    letters = await dead_letter_topic.find_letters(
        settings, lambda letter: is_record_of_user(user, letter.key, letter.value)
    )
    return ErasureFinding("open dead letters", len(letters), bool(letters), "`lately dlq drop` drops them")


async def _search_source_state(settings: Settings, user: str) -> ErasureFinding:
    snapshot = (await state_topic.read(settings)).snapshot
    key = [] if snapshot is None else snapshot.last_key or []
    return ErasureFinding(
        f"topic {Topics(settings).source_state.name}", key.count(user), user in key,
        "the key of the last row of a snapshot; the next snapshot replaces it",
    )  # fmt: skip


def _unsearched_places(settings: Settings) -> Iterable[ErasureFinding]:
    yield ErasureFinding(
        "tables product_partials, by_product, similar, and the topics that feed them", None, False,
        "totals and counts, which contain no user",
    )  # fmt: skip
    yield ErasureFinding("disks of workers", None, False, "as the changelogs, after RocksDB's next compaction")
    yield ErasureFinding("logs", None, False, "Lately logs no user ids and no requests; your proxy may")
    folders = f"dumps and reports, {settings.folder}-report, and -verify and -replay of interrupted commands"
    yield ErasureFinding("files", None, False, f"{folders}: yours to delete; a restored dump applies the erasure again")


class _TopicReader:
    """Reads topics from their beginning to their present end."""

    def __init__(self, settings: Settings, consumer: AIOKafkaConsumer, user: str) -> None:
        self.topics, self.user = Topics(settings), user
        self._settings, self._consumer = settings, consumer

    def read_user_partition(self, topic: str) -> AsyncIterator[ConsumerRecord]:
        """Yield the records of the partition that contains the user."""
        partition = partition_of(self.user.encode(), self._settings.partitions)
        return self._read([TopicPartition(topic, partition)])

    def read_all(self, topic: str) -> AsyncIterator[ConsumerRecord]:
        """Yield all records of a topic."""
        return self._read(partitions_of(topic, self._settings.partitions))

    async def _read(self, tps: list[TopicPartition]) -> AsyncIterator[ConsumerRecord]:
        if not await count_partitions(self._consumer, [tps[0].topic]):
            return  # Some topics of another generation may be deleted already.
        self._consumer.assign(tps)
        await self._consumer.seek_to_beginning(*tps)
        async for record in read_until(self._consumer, await self._consumer.end_offsets(tps)):
            yield record
