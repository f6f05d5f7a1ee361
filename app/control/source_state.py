"""States that the source, workers and `lately rescale` share through the topic `source-state`.

Each kind of state has a key; of each key the newest record is valid. The state is in Kafka and not
in the shop's database, because in watermark mode the source may only read there. Whoever may write
to the topic can write any bytes, so each field has bounds; app.control.state_topic reads the topic.
"""

from __future__ import annotations

import dataclasses
from datetime import datetime, timezone
from typing import Annotated, NamedTuple

import msgspec
from msgspec import Meta

from domain.codec import UNDECODABLE
from domain.values import microseconds

#: Levels of the guarantee that a source gives: it sees every committed change, only the changes of
#: short transactions, or it guarantees nothing.
PROVEN, TIMED, NONE = GUARANTEE_LEVELS = ("proven", "timed", "none")

#: A source writes its status every second. Without a new status for this long, it is not running or
#: cannot reach Kafka.
STATUS_TIMEOUT_S = 10

#: The horizon before the first snapshot has finished: rows of every date may be missing.
MAX_HORIZON = "9999-12-31 23:59:59.999999"


#: Microseconds since 1970, up to the end of the year 9999.
Time = Annotated[int, Meta(ge=0, le=253_402_300_799_999_999)]
Count = Annotated[int, Meta(ge=0, lt=2**62)]
Partition = Annotated[int, Meta(ge=0, lt=2**31)]
Text = Annotated[str, Meta(max_length=10_000)]


class BinaryKey(msgspec.Struct, frozen=True):
    """A value of a primary key in a column of bytes."""

    hex: Annotated[str, Meta(pattern=r"^(?:[0-9a-f]{2})*\Z", max_length=8_192)]


#: A value of a primary key; one that is neither a number nor bytes is text.
KeyValue = int | Text | BinaryKey


class SourceProblem(msgspec.Struct, frozen=True):
    """A problem of the capture: its kind, and a message with cause, consequence and next step."""

    kind: Text
    message: Text


class LeaderStatus(msgspec.Struct, frozen=True, kw_only=True, rename={"unseen_changes": "unseen", "written_at": "at"}):
    """Status of the leading source.

    Times are microseconds since 1970, by the clock of the shop's database.
    """

    mode: Text
    #: One of GUARANTEE_LEVELS, and the reasons why it is not a higher level.
    guarantee: Annotated[str, Meta(pattern=r"^(?:proven|timed|none)\Z")]
    reasons: tuple[Text, ...] = ()
    #: The kinds of changes that this source cannot see: of changed, removed, cascade.
    unseen_changes: tuple[Text, ...] = ()
    #: All changes committed before this time are in `orders` below `offsets` (partition -> offset).
    as_of: Time | None = None
    offsets: dict[Partition, Count] = {}
    oldest_pending_s: Annotated[float, Meta(ge=0)] = 0.0
    #: Problems of the shop's table, the triggers and the outbox.
    problems: tuple[SourceProblem, ...] = ()
    #: The highest version of all published changes; 0: unknown.
    highest_version: Count = 0
    #: The time of this status, and the name of the source that wrote it.
    written_at: Time = 0
    leader: Text = ""


class SnapshotState(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    rename={"last_key": "after", "is_done": "done", "request_at": "wanted", "fulfilled_at": "granted"},
):
    """Progress or result of a snapshot of the shop's table."""

    table: Text
    version: Count
    #: Only orders since this time ("YYYY-MM-DD HH:MM:SS.ffffff" in UTC); None: all orders.
    since: Annotated[str, Meta(pattern=r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6}\Z")] | None = None
    #: Only rows for which this SQL condition is true; None: all rows.
    where: str | None = None
    #: Primary key of the last row that was published; None before the first row.
    last_key: Annotated[list[KeyValue], Meta(min_length=1, max_length=64)] | None = None
    rows: Count = 0
    is_done: bool = False
    #: Rows ordered before this time may be missing in Kafka unless they changed later; None: no row
    #: is missing.
    horizon: str | None = MAX_HORIZON
    #: `requested_at` of the request that existed when this snapshot started, and of the newest
    #: request that a snapshot of all rows has fulfilled.
    request_at: Time = 0
    fulfilled_at: Time = 0

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

    requested_at: Time
    reason: Text = ""


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

    table: Text
    low: int
    version: Count


class CaptureState(msgspec.Struct, frozen=True, kw_only=True):
    """The triggers for which the source was set up, and what happened to them since.

    Times are microseconds since 1970, by the clock of the shop's database.
    """

    table: Text
    #: Name of the database server, as `read_server_name` returns it.
    server: Text = ""
    first_version: Count = 0
    #: Event (insert, update, delete) -> the time at which its trigger was created, as text.
    created: dict[Text, Text] = {}
    #: Changes committed in this time may be missing in `orders`; no end: they still may.
    missed_since: Time | None = None
    missed_until: Time | None = None
    #: When the source found that the database was older than the published changes.
    restored_at: Time | None = None
    #: The highest version that another generation of the topics has published.
    highest_version: Count = 0


class ShopIdentity(msgspec.Struct, frozen=True, kw_only=True):
    """The shop whose orders the topics contain, see source.outbox_owner."""

    server: Text
    #: Database and table.
    table: Text
    #: The token of the outbox; "": in watermark mode.
    outbox: Text = ""


class VerifyResult(msgspec.Struct, frozen=True, kw_only=True, rename={"began_at": "at"}):
    """Result of the last comparison with the shop's database. Times are microseconds since 1970."""

    began_at: Time
    #: Start of the last comparison that left no difference.
    clean_at: Time | None = None
    #: Number of purchases that still differ, by kind of difference.
    differences: dict[Text, Count] = {}


class Generation(NamedTuple):
    """A generation of the topics: its number, and its number of partitions."""

    number: Partition
    partitions: Partition


class TopicLayout(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    rename={"predecessor": "before", "active_since": "since", "successor": "after", "is_abandoned": "given_up"},
):
    """Relation of a generation of the topics to the previous and the next generation."""

    partitions: Partition
    #: The generation that this one is copied from, until that one is deleted.
    predecessor: Generation | None = None
    #: Since when the source publishes to this generation (microseconds since 1970); None: it is
    #: still being filled.
    active_since: Time | None = None
    #: The generation that the source publishes to instead of this one.
    successor: Generation | None = None
    #: The generation is being deleted and was never active.
    is_abandoned: bool = False


class CopyProgress(msgspec.Struct, frozen=True, kw_only=True, rename={"has_dead_letters": "letters"}):
    """Progress of the copy of the previous generation."""

    #: Partition of `orders` -> the next offset to copy.
    offsets: dict[Partition, Count] = {}
    #: Number of events copied, and whether the open dead letters are copied too.
    events: Count = 0
    has_dead_letters: bool = False


class AppIdentity(msgspec.Struct, frozen=True, kw_only=True):
    """What the consumer group and the tables of an app belong to, in the topic `identity`."""

    #: Id of the Kafka cluster, and name of the topic of events.
    cluster: Text
    orders: Text
    #: Format of tables and topics; a higher one cannot be read by this version.
    format: Partition = 1
    #: Whether `lately identity --adopt` replaced the identity before.
    is_adopted: bool = False


State = (
    LeaderStatus
    | SnapshotState
    | WatermarkState
    | CaptureState
    | VerifyResult
    | SnapshotRequest
    | TopicLayout
    | CopyProgress
    | AppIdentity
    | ShopIdentity
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
    shop: ShopIdentity | None = None

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
            case ShopIdentity():
                self.shop = state
            case AppIdentity():
                pass  # belongs to another topic


#: Key in the topic -> type of its value.
_TYPES: dict[bytes, type[State]] = {
    b"status": LeaderStatus, b"snapshot": SnapshotState, b"watermark": WatermarkState,
    b"capture": CaptureState, b"verified": VerifyResult,
    b"snapshot-wanted": SnapshotRequest, b"layout": TopicLayout, b"copied": CopyProgress,
    b"identity": AppIdentity, b"shop": ShopIdentity,
}  # fmt: skip
_KEYS = {state_type: key for key, state_type in _TYPES.items()}
_encode = msgspec.json.Encoder().encode


def encode(state: State) -> tuple[bytes, bytes]:
    """Return key and value of the state's record."""
    return _KEYS[type(state)], _encode(state)


def decode(key: bytes | None, value: bytes | None) -> State | None:
    """Decode a record of the topic; None for a record that no Lately, or another version, wrote."""
    state_type = _TYPES.get(key or b"")
    if state_type is None or value is None:
        return None
    try:
        return msgspec.json.decode(value, type=state_type)
    except UNDECODABLE:
        return None
