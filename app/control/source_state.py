"""What the source knows of itself, in the topic `source-state`: of each key the newest record counts.

It is kept in Kafka and not in the shop's database, because the watermark mode may only read there.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timezone
from typing import Final, TypedDict

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from app.kafka.consume import end_offset, open_consumer, read_until
from app.settings import Settings
from app.topics import Topics
from domain.values import microseconds

#: Keys of the topic: how the running source stands, how far a snapshot and the watermark are, what was verified, and
#: that workers lack rows which only the shop's database has; then, of `lately rescale`: what came before this
#: generation of the topics and what after it, and how much of the one before is copied.
STATUS: Final = "status"
SNAPSHOT: Final = "snapshot"
WATERMARK: Final = "watermark"
VERIFIED: Final = "verified"
WISH: Final = "snapshot-wanted"
LAYOUT: Final = "layout"
COPIED: Final = "copied"

#: What a source can promise: that every committed change is seen, only those of short transactions, or nothing.
PROVEN, TIMED, NONE = GUARANTEE_LEVELS = ("proven", "timed", "none")

#: A source writes down how it stands every second; after so much longer it is not running, or has no Kafka.
STATUS_TIMEOUT_S = 10

#: The horizon before the first snapshot has ended.
MAX_HORIZON = "9999-12-31 23:59:59.999999"


class LeaderStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How the running source stands. Times are microseconds since 1970, by the clock of the shop's database."""

    mode: str
    #: One of LEVELS, and why it is not more.
    guarantee: str
    reasons: tuple[str, ...] = ()
    #: Which changes this mode cannot see: of placed, changed, removed.
    unseen: tuple[str, ...] = ()
    #: All that was committed before this moment is in `orders` below `offsets`, by partition.
    as_of: int | None = None
    offsets: dict[int, int] = {}
    oldest_pending_s: float = 0.0
    #: When this was written, and by whom.
    at: int = 0
    leader: str = ""


class SnapshotState(msgspec.Struct, frozen=True, kw_only=True):
    """How far a snapshot of the shop's table is, or was when it ended."""

    table: str
    version: int
    #: Orders since then ("YYYY-MM-DD HH:MM:SS.ffffff" in UTC), None: all.
    since: str | None = None
    where: str | None = None
    #: The primary key of the last row that was published; None before the first.
    after: list | None = None
    rows: int = 0
    done: bool = False
    #: Rows ordered before then may be missing in Kafka when no later change made them known, None: none is.
    horizon: str | None = MAX_HORIZON
    #: The wish that there was when it began, and the newest one that was answered with all rows.
    wanted: int = 0
    granted: int = 0

    def __post_init__(self) -> None:
        """Take a horizon that is no time, as another version may have written it, for the one that promises least."""
        try:
            horizon_microseconds(self.horizon)
        except ValueError:
            msgspec.structs.force_setattr(self, "horizon", MAX_HORIZON)


class SnapshotRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A worker wants a snapshot of all rows, since `at` (microseconds since 1970, which only names it)."""

    at: int
    why: str = ""


def is_request_pending(wish: SnapshotRequest | None, taken: SnapshotState | None) -> bool:
    """Whether no snapshot of all rows has ended that was begun after this wish."""
    return wish is not None and (taken is None or taken.granted < wish.at)


def horizon_microseconds(horizon: str | None) -> int | None:
    """The horizon of a snapshot in microseconds since 1970."""
    return None if horizon is None else microseconds(datetime.fromisoformat(horizon).replace(tzinfo=timezone.utc))


class WatermarkState(msgspec.Struct, frozen=True, kw_only=True):
    """Every row with an id up to `low` is published or does not exist; versions up to `version` were given."""

    table: str
    low: int
    version: int


class VerifyResult(msgspec.Struct, frozen=True, kw_only=True):
    """What the last comparison with the shop's database has found. Times are microseconds since 1970."""

    #: When it began.
    at: int
    #: When the last one began that left no difference.
    clean_at: int | None = None
    #: Purchases that differ still, by kind.
    differences: dict[str, int] = {}


class TopicLayout(msgspec.Struct, frozen=True, kw_only=True):
    """Where a generation of the topics stands among the others, which are named by generation and partitions."""

    partitions: int
    #: The one that it is copied from, until that is deleted.
    before: tuple[int, int] | None = None
    #: Since when the source publishes to it (microseconds since 1970); None: it is still being filled.
    since: int | None = None
    #: The one that the source publishes to instead.
    after: tuple[int, int] | None = None
    #: It is being deleted, without having counted.
    given_up: bool = False


class CopyProgress(msgspec.Struct, frozen=True, kw_only=True):
    """How much of the generation before is in this one: partition of `orders` -> the next offset to copy."""

    offsets: dict[int, int] = {}
    #: Events, and whether the open dead letters are there, too.
    events: int = 0
    letters: bool = False


State = LeaderStatus | SnapshotState | WatermarkState | VerifyResult | SnapshotRequest | TopicLayout | CopyProgress

#: The newest state of every key that the topic contains.
States = TypedDict(
    "States",
    {
        "status": LeaderStatus, "snapshot": SnapshotState, "watermark": WatermarkState, "verified": VerifyResult,
        "snapshot-wanted": SnapshotRequest, "layout": TopicLayout, "copied": CopyProgress,
    },
    total=False,
)  # fmt: skip
_TYPES: dict[str, type[State]] = {
    STATUS: LeaderStatus, SNAPSHOT: SnapshotState, WATERMARK: WatermarkState, VERIFIED: VerifyResult,
    WISH: SnapshotRequest, LAYOUT: TopicLayout, COPIED: CopyProgress,
}  # fmt: skip
_encode = msgspec.json.Encoder().encode


def encode(state: State) -> tuple[bytes, bytes]:
    """Key and value of its record."""
    key = next(key for key, kind in _TYPES.items() if isinstance(state, kind))
    return key.encode(), _encode(state)


def decode(key: bytes | None, value: bytes | None) -> tuple[str, State] | None:
    """The record's key and state; None for what another version of Lately wrote."""
    name = (key or b"").decode(errors="replace")
    if name not in _TYPES or value is None:
        return None
    try:
        return name, msgspec.json.decode(value, type=_TYPES[name])
    except msgspec.DecodeError:
        return None


async def write(producer: AIOKafkaProducer, topics: Topics, *states: State) -> None:
    """Write `states` to the topic source-state, and wait until Kafka has acknowledged them. Raises KafkaError."""
    for state in states:
        key, value = encode(state)
        await producer.send_and_wait(topics.source_state.name, value, key, partition=0)


async def read(settings: Settings) -> States:
    """Read the newest state of every key; empty before the topic was created. Raises ServerAway."""
    async with open_reader(settings) as reader:
        return reader.states


class SourceStateReader:
    """Reads the topic source-state; `states` contains the newest state of every key read so far."""

    def __init__(self, consumer: AIOKafkaConsumer, tp: TopicPartition) -> None:
        self.states: States = {}
        self._consumer, self._tp = consumer, tp

    async def catch_up(self) -> None:
        """Read on to the present end of the topic."""
        end = await end_offset(self._consumer, self._tp)
        async for record in read_until(self._consumer, {self._tp: end}):
            entry = decode(record.key, record.value)
            if entry is not None:
                key, state = entry
                self.states[key] = state  # type: ignore[literal-required]  # `decode` pairs each key with its type


@asynccontextmanager
async def open_reader(settings: Settings) -> AsyncIterator[SourceStateReader]:
    """Open a reader that has caught up; it is empty before the topic was created. Raises ServerAway."""
    tp = TopicPartition(Topics(settings).source_state.name, 0)
    async with open_consumer(settings) as consumer:
        reader = SourceStateReader(consumer, tp)
        if tp.topic in await consumer.topics():
            consumer.assign([tp])
            await reader.catch_up()
        yield reader
