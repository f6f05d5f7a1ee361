"""`lately dlq`: the records that could not be read, and what becomes of them.

Kafka takes no single record out of a topic. That a dead letter was retried or dropped is a record of its own, behind it
in the same partition of `orders-dead`, which names its offset.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import NamedTuple

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.errors import ProducerFenced
from aiokafka.structs import ConsumerRecord

from app.control.generation import counting
from app.errors import Unknown
from app.kafka.client import client, reachable
from app.kafka.consume import PATIENCE_S, consuming, upto
from app.settings import Settings
from app.topics import MAX_REQUEST_BYTES, Topics
from domain.dead_letters import MAX_BYTES, PREFIX
from domain.errors import LatelyError

#: Header of a record that settles another: its offset, and what was done.
SETTLED, DONE = "lately.settled", "lately.done"
RETRIED, DROPPED = "retried", "dropped"

#: The largest offset has so many.
OFFSET_DIGITS = 19
#: Dead letters that are settled in one transaction.
AT_ONCE = 500


class Letter(NamedTuple):
    """A dead letter: its place among them, why it is one, and the record as it was."""

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
        """Where it was read."""
        return f"{self.topic}[{self.partition}]@{self.offset}"

    def shown(self) -> dict[str, object]:
        """The same for people and programs, bytes as text."""
        return {**self._asdict(), "key": text(self.key), "value": text(self.value)}


def text(part: bytes | None) -> str | None:
    """Bytes as text; what is not UTF-8 as backslash and number."""
    return None if part is None else part.decode(errors="backslashreplace")


def settles(record: ConsumerRecord) -> int | None:
    """The offset of the dead letter that this record of orders-dead settles; None: it is a dead letter itself.

    Anyone can write headers: -1 is what is no offset, and settles nothing.
    """
    said = dict(record.headers).get(SETTLED)
    if said is None:
        return None
    return int(said) if said.isdigit() and len(said) <= OFFSET_DIGITS else -1


def letter_of(record: ConsumerRecord) -> Letter:
    """A record of orders-dead as a dead letter, whatever its headers say."""
    said = {
        name.removeprefix(PREFIX): (value or b"").decode(errors="replace")
        for name, value in record.headers
        if name.startswith(PREFIX)
    }
    return Letter(
        f"{record.partition}@{record.offset}", said.get("exception") or "unknown", said.get("message", ""),
        said.get("topic", ""), said.get("partition", ""), said.get("offset", ""), said.get("first_failed_at", ""),
        record.key, record.value,
    )  # fmt: skip


async def find(settings: Settings, wanted: Callable[[Letter], bool], newest: int | None = None) -> list[Letter]:
    """The dead letters that are wanted and not settled, in the order of their places. Raises ServerAway.

    With `newest` only among so many at the end of each partition.
    """
    return [letter_of(record) for record in await records(settings, wanted, newest)]


async def records(
    settings: Settings, wanted: Callable[[Letter], bool], newest: int | None = None
) -> list[ConsumerRecord]:
    """The same as they lie in the topic."""
    found: dict[tuple[int, int], ConsumerRecord] = {}
    async with consuming(settings) as consumer:
        async for record in _all(consumer, Topics(settings).orders_dead.name, settings.partitions, newest):
            settled = settles(record)
            if settled is not None:
                found.pop((record.partition, settled), None)
            elif wanted(letter_of(record)):
                found[record.partition, record.offset] = record
    return [found[place] for place in sorted(found)]


async def settle(
    settings: Settings, wanted: Callable[[Letter], bool], done: str, dry_run: bool = False
) -> tuple[list[Letter], dict[Letter, str]]:
    """Retry or drop what is wanted; which letters that was, and why others cannot be retried. To repeat it is harmless.

    1. Become the only one who settles: whoever is at it can commit no more. 2. Read what is not settled. 3. In one
    transaction, write each record as it was to where it came from, and behind each dead letter that it is settled.

    Raises ServerAway, LatelyError when somebody else has begun meanwhile.
    """
    producer = AIOKafkaProducer(
        **client(settings),
        transactional_id=f"{settings.group}-dlq",
        max_request_size=MAX_REQUEST_BYTES,
    )
    async with counting(settings), reachable(settings):
        try:
            # 1.
            await asyncio.wait_for(producer.start(), PATIENCE_S)
            # 2.
            letters = await find(settings, wanted)
            orders = Topics(settings).orders.name
            kept = {}
            if done == RETRIED:
                obstacles = {one: obstacle(one, orders, settings.partitions) for one in letters}
                kept = {one: why for one, why in obstacles.items() if why is not None}
            fit = [one for one in letters if one not in kept]
            for start in range(0, 0 if dry_run else len(fit), AT_ONCE):
                # 3.
                async with producer.transaction():
                    await _write(producer, settings, fit[start : start + AT_ONCE], done)
        except ProducerFenced:
            raise LatelyError(
                "another `lately dlq` has begun meanwhile, nothing more is changed: run it again"
            ) from None
        finally:
            await producer.stop()
    return fit, kept


async def delete_settled(settings: Settings) -> dict[int, int]:
    """Delete what lies before the first dead letter that is not settled, if any; partition -> the offset it ends at.

    Raises ServerAway.
    """
    topic = Topics(settings).orders_dead.name
    admin = AIOKafkaAdminClient(**client(settings), request_timeout_ms=10_000)
    async with consuming(settings) as consumer:
        try:
            await asyncio.wait_for(admin.start(), PATIENCE_S)
            tps = [TopicPartition(topic, number) for number in range(settings.partitions)]
            # The ends first: what comes later is not looked at.
            firsts, ends = await consumer.beginning_offsets(tps), await consumer.end_offsets(tps)
            for partition, offset in (map(int, one.id.split("@")) for one in await find(settings, lambda one: True)):
                tp = TopicPartition(topic, partition)
                ends[tp] = min(ends[tp], offset)
            wanted = {tp: RecordsToDelete(end) for tp, end in ends.items() if end > firsts[tp]}
            if wanted:
                await admin.delete_records(wanted)
            return {tp.partition: one.before_offset for tp, one in wanted.items()}
        finally:
            await admin.close()


def obstacle(letter: Letter, orders: str, partitions: int) -> str | None:
    """Why a dead letter cannot be retried, and what to do instead; None where it can."""
    if letter.topic != orders:
        return "it was a row of the shop: correct the row in the shop's table, which publishes it anew, then drop this"
    if letter.partition not in map(str, range(partitions)):
        return f"{orders} has no partition {letter.partition!r}, which its header names: drop this"
    if MAX_BYTES in (len(letter.key or b""), len(letter.value or b"")):
        return "it was too large to be kept as it was"
    return None


def among(places: Sequence[str], reason: str | None) -> Callable[[Letter], bool]:
    """What takes the letters at these places, or all, that have this reason, or any."""
    return lambda one: (not places or one.id in places) and reason in (None, one.reason)


def require_all(places: Iterable[str], found: Iterable[Letter]) -> None:
    """Raise Unknown for a place where there is no dead letter."""
    missing = sorted(set(places) - {one.id for one in found})
    if missing:
        raise Unknown(f"there is no dead letter {', '.join(missing)}: `lately dlq list` shows those that there are")


async def _write(producer: AIOKafkaProducer, settings: Settings, letters: list[Letter], done: str) -> None:
    topics, sent = Topics(settings), []
    for one in letters:
        partition, _, offset = one.id.partition("@")
        headers = [(SETTLED, offset.encode()), (DONE, done.encode())]
        sent.append(
            await producer.send(topics.orders_dead.name, b"", key=one.key, partition=int(partition), headers=headers)
        )
        if done == RETRIED:
            sent.append(await producer.send(one.topic, one.value, key=one.key, partition=int(one.partition)))
    await asyncio.gather(*sent)


async def _all(
    consumer: AIOKafkaConsumer, topic: str, partitions: int, newest: int | None
) -> AsyncIterator[ConsumerRecord]:
    """All records of a topic up to its end as of now, or the newest of each partition; none before it was created."""
    if topic not in await consumer.topics():
        return
    tps = [TopicPartition(topic, number) for number in range(partitions)]
    consumer.assign(tps)
    ends = await consumer.end_offsets(tps)
    if newest is not None:
        for tp, first in (await consumer.beginning_offsets(tps)).items():
            consumer.seek(tp, max(first, ends[tp] - newest))
    async for record in upto(consumer, ends):
        yield record
