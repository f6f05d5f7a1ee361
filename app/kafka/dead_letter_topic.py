"""The topic `orders-dead`: find, retry and drop dead letters (the work of `lately dlq`).

Kafka cannot delete a single record of a topic. So a retried or dropped dead letter is marked by a
later record in the same partition whose header contains the offset of the dead letter: the dead
letter is settled.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import NamedTuple

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import RecordsToDelete
from aiokafka.errors import ProducerFenced
from aiokafka.structs import ConsumerRecord

from app.control.generation import require_active_generation
from app.errors import UnknownTarget
from app.kafka.admin import admin_client
from app.kafka.client import client_options, explain_errors
from app.kafka.consume import START_TIMEOUT_S, open_consumer, partitions_of, read_until
from app.kafka.topic_metadata import count_partitions
from app.settings import Settings
from app.topics import MAX_REQUEST_BYTES, Topics
from domain.dead_letters import DAMAGED, HEADER_PREFIX, MAX_PART_BYTES
from domain.errors import LatelyError

#: Headers of a record that settles a dead letter: the offset of the dead letter, and the action.
SETTLED_HEADER, ACTION_HEADER = "lately.settled", "lately.done"
RETRIED, DROPPED = "retried", "dropped"

#: Number of digits of the largest offset.
OFFSET_DIGITS = 19
#: Maximum number of dead letters that one transaction settles.
SETTLE_BATCH = 500


class DeadLetter(NamedTuple):
    """A dead letter: the reason, and the origin and content of the unreadable record.

    `id` is its own position in `orders-dead`, as "partition@offset".
    """

    id: str
    reason: str
    message: str
    topic: str
    partition: str
    offset: str
    failed_at: str
    key: bytes | None
    value: bytes | None

    @property
    def origin(self) -> str:
        """Topic, partition and offset of the unreadable record."""
        return f"{self.topic}[{self.partition}]@{self.offset}"

    def as_dict(self) -> dict[str, object]:
        """Return the fields for JSON, key and value as text."""
        return {**self._asdict(), "key": to_text(self.key), "value": to_text(self.value)}


def to_text(part: bytes | None) -> str | None:
    """Decode a key or value; bytes that are not UTF-8 become backslash escapes."""
    return None if part is None else part.decode(errors="backslashreplace")


def settled_offset(record: ConsumerRecord) -> int | None:
    """Return the offset of the dead letter that a record of orders-dead settles.

    Return None for a dead letter. Any producer can write the header: return -1, which settles
    nothing, if its value is not an offset.
    """
    value: bytes | None = dict(record.headers).get(SETTLED_HEADER)
    if value is None:
        return None
    return int(value) if value.isdigit() and len(value) <= OFFSET_DIGITS else -1


def parse_letter(record: ConsumerRecord) -> DeadLetter:
    """Convert a record of orders-dead to a dead letter.

    Missing headers become "unknown" or empty.
    """
    headers = {
        name.removeprefix(HEADER_PREFIX): (value or b"").decode(errors="replace")
        for name, value in record.headers
        if name.startswith(HEADER_PREFIX)
    }
    return DeadLetter(
        f"{record.partition}@{record.offset}",
        headers.get("exception") or "unknown",
        headers.get("message", ""),
        headers.get("topic", ""),
        headers.get("partition", ""),
        headers.get("offset", ""),
        headers.get("first_failed_at", ""),
        record.key,
        record.value,
    )


async def find_letters(
    settings: Settings, matches: Callable[[DeadLetter], bool], newest: int | None = None
) -> list[DeadLetter]:
    """Return the open dead letters that match, ordered by partition and offset. Raises ServerAway.

    With `newest` read only so many offsets at the end of each partition.
    """
    return [parse_letter(record) for record in await find_records(settings, matches, newest)]


async def find_records(
    settings: Settings, matches: Callable[[DeadLetter], bool], newest: int | None = None
) -> list[ConsumerRecord]:
    """Return the records of the open dead letters that match, as `find_letters` does."""
    open_records: dict[tuple[int, int], ConsumerRecord] = {}
    async with open_consumer(settings) as consumer:
        async for record in _read_topic(consumer, Topics(settings).orders_dead.name, settings.partitions, newest):
            offset = settled_offset(record)
            if offset is not None:
                open_records.pop((record.partition, offset), None)
            elif matches(parse_letter(record)):
                open_records[record.partition, record.offset] = record
    return [open_records[position] for position in sorted(open_records)]


async def settle_letters(
    settings: Settings, matches: Callable[[DeadLetter], bool], action: str, dry_run: bool = False
) -> tuple[list[DeadLetter], dict[DeadLetter, str]]:
    """Retry or drop the open dead letters that match.

    Return the settled letters, and the reasons why others cannot be retried.

    1. Start the transactional producer: it fences any other one, which can no longer commit.
    2. Read the open dead letters. 3. In one transaction publish each original record to its topic
    again (RETRIED only), and write the record that settles the dead letter. Repeating is harmless.

    Raises ServerAway, LatelyError if another `lately dlq` has fenced this one.
    """
    producer = AIOKafkaProducer(
        **client_options(settings),
        transactional_id=f"{settings.group}-dlq",
        max_request_size=MAX_REQUEST_BYTES,
    )
    async with require_active_generation(settings), explain_errors(settings):
        try:
            # 1.
            await asyncio.wait_for(producer.start(), START_TIMEOUT_S)
            # 2.
            letters = await find_letters(settings, matches)
            refused = _refused_letters(settings, letters) if action == RETRIED else {}
            accepted = [letter for letter in letters if letter not in refused]
            for start in range(0, 0 if dry_run else len(accepted), SETTLE_BATCH):
                # 3.
                async with producer.transaction():
                    await _write(producer, settings, accepted[start : start + SETTLE_BATCH], action)
        except ProducerFenced:
            raise LatelyError(
                "another `lately dlq` has started meanwhile, this one changes nothing more: run it again"
            ) from None
        finally:
            await producer.stop()
    return accepted, refused


async def delete_settled(settings: Settings) -> dict[int, int]:
    """Delete all records before the first open dead letter; return partition -> new first offset.

    Raises ServerAway.
    """
    tps = partitions_of(Topics(settings).orders_dead.name, settings.partitions)
    async with open_consumer(settings) as consumer, admin_client(settings) as admin:
        # Read the ends before the letters: a letter that arrives later must not be deleted.
        firsts, ends = await consumer.beginning_offsets(tps), await consumer.end_offsets(tps)
        for letter in await find_letters(settings, lambda letter: True):
            partition, offset = map(int, letter.id.split("@"))
            tp = TopicPartition(tps[0].topic, partition)
            ends[tp] = min(ends[tp], offset)
        deletions = {tp: RecordsToDelete(end) for tp, end in ends.items() if end > firsts[tp]}
        if deletions:
            await admin.delete_records(deletions)
        return {tp.partition: deletion.before_offset for tp, deletion in deletions.items()}


def retry_obstacle(letter: DeadLetter, orders: str, partitions: int) -> str | None:
    """Return why a dead letter cannot be retried, and the next step; None if it can."""
    if letter.topic != orders:
        return "it was a row of the shop: correct the row in the shop's table, which publishes it anew, then drop this"
    if letter.reason == DAMAGED:
        return "it has no key and no value that could be read: drop this"
    if letter.partition not in map(str, range(partitions)):
        return f"{orders} has no partition {letter.partition!r}, which its header names: drop this"
    if MAX_PART_BYTES in (len(letter.key or b""), len(letter.value or b"")):
        return "it was too large to be stored completely: drop this"
    return None


def letter_filter(ids: Sequence[str], reason: str | None) -> Callable[[DeadLetter], bool]:
    """Return a predicate: the letter has one of `ids` (empty: any) and this reason (None: any)."""
    return lambda letter: (not ids or letter.id in ids) and reason in (None, letter.reason)


def require_letters(ids: Iterable[str], letters: Iterable[DeadLetter]) -> None:
    """Raise UnknownTarget if one of `ids` is not the id of a letter."""
    missing = sorted(set(ids) - {letter.id for letter in letters})
    if missing:
        raise UnknownTarget(
            f"there is no dead letter {', '.join(missing)}: `lately dlq list` shows the open dead letters"
        )


def _refused_letters(settings: Settings, letters: Iterable[DeadLetter]) -> dict[DeadLetter, str]:
    orders = Topics(settings).orders.name
    obstacles = {letter: retry_obstacle(letter, orders, settings.partitions) for letter in letters}
    return {letter: obstacle for letter, obstacle in obstacles.items() if obstacle is not None}


async def _write(producer: AIOKafkaProducer, settings: Settings, letters: list[DeadLetter], action: str) -> None:
    topics, futures = Topics(settings), []
    for letter in letters:
        partition, _, offset = letter.id.partition("@")
        headers = [(SETTLED_HEADER, offset.encode()), (ACTION_HEADER, action.encode())]
        futures.append(
            await producer.send(topics.orders_dead.name, b"", key=letter.key, partition=int(partition), headers=headers)
        )
        if action == RETRIED:
            futures.append(
                await producer.send(letter.topic, letter.value, key=letter.key, partition=int(letter.partition))
            )
    await asyncio.gather(*futures)


async def _read_topic(
    consumer: AIOKafkaConsumer, topic: str, partitions: int, newest: int | None
) -> AsyncIterator[ConsumerRecord]:
    """Yield all records up to the present end, or the newest of each partition.

    Yield no record before the topic exists.
    """
    if not await count_partitions(consumer, [topic]):
        return
    tps = partitions_of(topic, partitions)
    consumer.assign(tps)
    ends = await consumer.end_offsets(tps)
    if newest is not None:
        for tp, first in (await consumer.beginning_offsets(tps)).items():
            consumer.seek(tp, max(first, ends[tp] - newest))
    async for record in read_until(consumer, ends):
        yield record
