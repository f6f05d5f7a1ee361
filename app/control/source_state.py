"""State that the source, workers and `lately rescale` share through the topic `source-state`.

Each kind of state has a key; of each key the newest record is valid. The state is in Kafka and not
in the shop's database, because in watermark mode the source may only read there.
"""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timezone
from typing import NamedTuple

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from app.kafka.consume import LONG_LIVED, end_offset, open_consumer, read_until
from app.kafka.topic_metadata import count_partitions
from app.settings import Settings
from app.topics import Topics
from domain.values import microseconds

#: Levels of the guarantee that a source gives: it sees every committed change, only the changes of
#: short transactions, or it guarantees nothing.
PROVEN, TIMED, NONE = GUARANTEE_LEVELS = ("proven", "timed", "none")

#: A source writes its status every second. Without a new status for this long, it is not running or
#: cannot reach Kafka.
STATUS_TIMEOUT_S = 10

#: The horizon before the first snapshot has finished: rows of every date may be missing.
MAX_HORIZON = "9999-12-31 23:59:59.999999"


class SourceProblem(msgspec.Struct, frozen=True):
    """A problem of the capture: its kind, and a message with cause, consequence and next step."""

    kind: str
    message: str


class LeaderStatus(msgspec.Struct, frozen=True, kw_only=True, rename={"unseen_changes": "unseen", "written_at": "at"}):
    """Status of the leading source.

    Times are microseconds since 1970, by the clock of the shop's database.
    """

    mode: str
    #: One of GUARANTEE_LEVELS, and the reasons why it is not a higher level.
    guarantee: str
    reasons: tuple[str, ...] = ()
    #: The kinds of changes that this source cannot see: of changed, removed, cascade.
    unseen_changes: tuple[str, ...] = ()
    #: All changes committed before this time are in `orders` below `offsets` (partition -> offset).
    as_of: int | None = None
    offsets: dict[int, int] = {}
    oldest_pending_s: float = 0.0
    #: Problems of the shop's table, the triggers and the outbox.
    problems: tuple[SourceProblem, ...] = ()
    #: The highest version of all published changes; 0: unknown.
    highest_version: int = 0
    #: The time of this status, and the name of the source that wrote it.
    written_at: int = 0
    leader: str = ""


class SnapshotState(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    rename={"last_key": "after", "is_done": "done", "request_at": "wanted", "fulfilled_at": "granted"},
):
    """Progress or result of a snapshot of the shop's table."""

    table: str
    version: int
    #: Only orders since this time ("YYYY-MM-DD HH:MM:SS.ffffff" in UTC); None: all orders.
    since: str | None = None
    #: Only rows for which this SQL condition is true; None: all rows.
    where: str | None = None
    #: Primary key of the last row that was published; None before the first row.
    last_key: list[object] | None = None
    rows: int = 0
    is_done: bool = False
    #: Rows ordered before this time may be missing in Kafka unless they changed later; None: no row
    #: is missing.
    horizon: str | None = MAX_HORIZON
    #: `requested_at` of the request that existed when this snapshot started, and of the newest
    #: request that a snapshot of all rows has fulfilled.
    request_at: int = 0
    fulfilled_at: int = 0

    def __post_init__(self) -> None:
        """Replace a horizon that is not a time (of another version of Lately) by the maximum."""
        try:
            horizon_microseconds(self.horizon)
        except ValueError:
            msgspec.structs.force_setattr(self, "horizon", MAX_HORIZON)


class SnapshotRequest(msgspec.Struct, frozen=True, kw_only=True, rename={"requested_at": "at", "reason": "why"}):
    """A worker's request for a snapshot of all rows.

    `requested_at` (microseconds since 1970) identifies the request.
    """

    requested_at: int
    reason: str = ""


def is_request_pending(request: SnapshotRequest | None, snapshot: SnapshotState | None) -> bool:
    """Return whether no snapshot of all rows that started after this request has finished."""
    return request is not None and (snapshot is None or snapshot.fulfilled_at < request.requested_at)


def horizon_microseconds(horizon: str | None) -> int | None:
    """Convert the horizon of a snapshot to microseconds since 1970. Raises ValueError."""
    return None if horizon is None else microseconds(datetime.fromisoformat(horizon).replace(tzinfo=timezone.utc))


class WatermarkState(msgspec.Struct, frozen=True, kw_only=True):
    """Position of the watermark: rows with ids up to `low` are published or will never exist.

    `version` is the highest event version used so far.
    """

    table: str
    low: int
    version: int


class CaptureState(msgspec.Struct, frozen=True, kw_only=True):
    """The triggers for which the source was set up, and what happened to them since.

    Times are microseconds since 1970, by the clock of the shop's database.
    """

    table: str
    #: Name of the database server, as `read_server_name` returns it.
    server: str = ""
    first_version: int = 0
    #: Event (insert, update, delete) -> the time at which its trigger was created, as text.
    created: dict[str, str] = {}
    #: Changes committed in this time may be missing in `orders`; no end: they still may.
    missed_since: int | None = None
    missed_until: int | None = None
    #: When the source found that the database was older than the published changes.
    restored_at: int | None = None
    #: The highest version that another generation of the topics has published.
    highest_version: int = 0


class VerifyResult(msgspec.Struct, frozen=True, kw_only=True, rename={"began_at": "at"}):
    """Result of the last comparison with the shop's database. Times are microseconds since 1970."""

    began_at: int
    #: Start of the last comparison that left no difference.
    clean_at: int | None = None
    #: Number of purchases that still differ, by kind of difference.
    differences: dict[str, int] = {}


class Generation(NamedTuple):
    """A generation of the topics: its number, and its number of partitions."""

    number: int
    partitions: int


class TopicLayout(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    rename={"predecessor": "before", "active_since": "since", "successor": "after", "is_abandoned": "given_up"},
):
    """Relation of a generation of the topics to the previous and the next generation."""

    partitions: int
    #: The generation that this one is copied from, until that one is deleted.
    predecessor: Generation | None = None
    #: Since when the source publishes to this generation (microseconds since 1970); None: it is
    #: still being filled.
    active_since: int | None = None
    #: The generation that the source publishes to instead of this one.
    successor: Generation | None = None
    #: The generation is being deleted and was never active.
    is_abandoned: bool = False


class CopyProgress(msgspec.Struct, frozen=True, kw_only=True, rename={"has_dead_letters": "letters"}):
    """Progress of the copy of the previous generation."""

    #: Partition of `orders` -> the next offset to copy.
    offsets: dict[int, int] = {}
    #: Number of events copied, and whether the open dead letters are copied too.
    events: int = 0
    has_dead_letters: bool = False


State = (
    LeaderStatus
    | SnapshotState
    | WatermarkState
    | CaptureState
    | VerifyResult
    | SnapshotRequest
    | TopicLayout
    | CopyProgress
)


@dataclasses.dataclass
class SourceStates:
    """The newest state of each kind; None: the topic does not contain this kind."""

    status: LeaderStatus | None = None
    snapshot: SnapshotState | None = None
    watermark: WatermarkState | None = None
    capture: CaptureState | None = None
    verified: VerifyResult | None = None
    request: SnapshotRequest | None = None
    layout: TopicLayout | None = None
    copy_progress: CopyProgress | None = None

    @property
    def highest_version(self) -> int:
        """The highest version of published changes that the states contain; 0: unknown."""
        return max((state.highest_version for state in (self.status, self.capture) if state is not None), default=0)

    def update(self, state: State) -> None:
        """Replace the state of the same kind."""
        match state:
            case LeaderStatus():
                self.status = state
            case SnapshotState():
                self.snapshot = state
            case WatermarkState():
                self.watermark = state
            case CaptureState():
                self.capture = state
            case VerifyResult():
                self.verified = state
            case SnapshotRequest():
                self.request = state
            case TopicLayout():
                self.layout = state
            case CopyProgress():
                self.copy_progress = state


#: Key in the topic -> type of its value.
_TYPES: dict[bytes, type[State]] = {
    b"status": LeaderStatus, b"snapshot": SnapshotState, b"watermark": WatermarkState,
    b"capture": CaptureState, b"verified": VerifyResult,
    b"snapshot-wanted": SnapshotRequest, b"layout": TopicLayout, b"copied": CopyProgress,
}  # fmt: skip
_KEYS = {state_type: key for key, state_type in _TYPES.items()}
_encode = msgspec.json.Encoder().encode


def encode(state: State) -> tuple[bytes, bytes]:
    """Return key and value of the state's record."""
    return _KEYS[type(state)], _encode(state)


def decode(key: bytes | None, value: bytes | None) -> State | None:
    """Decode a record of the topic; None for a record that another version of Lately wrote."""
    state_type = _TYPES.get(key or b"")
    if state_type is None or value is None:
        return None
    try:
        return msgspec.json.decode(value, type=state_type)
    except msgspec.DecodeError:
        return None


async def write(producer: AIOKafkaProducer, topics: Topics, *states: State) -> None:
    """Write `states` to the topic source-state, and wait until Kafka has acknowledged them.

    Raises KafkaError.
    """
    for state in states:
        key, value = encode(state)
        await producer.send_and_wait(topics.source_state.name, value, key, partition=0)


async def read(settings: Settings) -> SourceStates:
    """Read the newest state of each kind; all are None before the topic exists.

    Raises ServerAway.
    """
    async with open_reader(settings) as reader:
        return reader.states


class SourceStateReader:
    """Reads the topic source-state; `states` contains the newest state of each kind read so far."""

    def __init__(self, consumer: AIOKafkaConsumer, tp: TopicPartition) -> None:
        self.states = SourceStates()
        self._consumer, self._tp = consumer, tp

    async def catch_up(self) -> None:
        """Read the records written since the last call, up to the present end of the topic."""
        end = await end_offset(self._consumer, self._tp)
        async for record in read_until(self._consumer, {self._tp: end}):
            state = decode(record.key, record.value)
            if state is not None:
                self.states.update(state)


@asynccontextmanager
async def open_reader(settings: Settings) -> AsyncIterator[SourceStateReader]:
    """Open a reader that has caught up; it is empty before the topic exists. Raises ServerAway."""
    tp = TopicPartition(Topics(settings).source_state.name, 0)
    # The source keeps its reader for as long as it runs.
    async with open_consumer(settings, **LONG_LIVED) as consumer:
        reader = SourceStateReader(consumer, tp)
        if await count_partitions(consumer, [tp.topic]):
            consumer.assign([tp])
            await reader.catch_up()
        yield reader
