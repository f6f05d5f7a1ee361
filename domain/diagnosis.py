"""Pure functions that say in one sentence where a purchase is, and why it is not shown where it is not."""

from __future__ import annotations

from dataclasses import dataclass

from domain.events import PLACED, REMOVED, SNAPSHOT
from domain.purchases import Register
from domain.values import rfc3339

#: What a diagnosis comes to.
VISIBLE, CANCELLED, DIFFERENT, UNKNOWN = "visible", "cancelled", "different", "unknown"


@dataclass(frozen=True)
class Row:
    """What the shop's table says of a purchase: its register, or which rule the row breaks."""

    user_id: str
    product_name: str
    register: Register | None
    broken: str | None = None


@dataclass(frozen=True)
class Waiting:
    """A change in the outbox that is not published yet, and for how many seconds it has waited."""

    user_id: str
    product_name: str
    type: str
    seconds: float


@dataclass(frozen=True)
class Dead:
    """A dead letter about a purchase."""

    id: str
    reason: str
    message: str


@dataclass(frozen=True)
class Evidence:
    """All that was found out about one purchase of one user. Times are microseconds since 1970.

    `lag` is how many records of the user's partition the table has not applied yet. `type` is that of the event that
    the table has, `applied_at` when that was committed. Rows ordered before `horizon` were never taken over.
    """

    user_id: str | None
    row: Row | None = None
    waiting: Waiting | None = None
    dead: Dead | None = None
    register: Register | None = None
    type: str | None = None
    applied_at: int | None = None
    lag: int = 0
    #: None: nobody asked.
    source_runs: bool | None = None
    horizon: int | None = None


def diagnose(one: Evidence) -> tuple[str, str]:
    """What it comes to, and the sentence."""
    known = one.register if one.register is not None and one.register.live else None
    mine = one.row if one.row is not None and one.row.user_id == one.user_id else None
    if known is not None and mine is not None and _same(mine.register, known):
        return VISIBLE, _visible(one, known)
    if one.waiting is not None:
        return DIFFERENT, _in_outbox(one, known)
    if one.lag and (mine is not None or known is not None):
        return DIFFERENT, f"in Kafka, lag {one.lag}: the worker has so many records of the partition still to read"
    if one.dead is not None and (mine is None or mine.register is None or known is None):
        return (
            DIFFERENT,
            f"in DLQ: {one.dead.reason} ({one.dead.message}); `lately dlq show {one.dead.id}` has it whole",
        )
    if mine is not None:
        return DIFFERENT, _not_shown(one, mine, known)
    if one.row is not None:
        moved = f"moved to another user, {one.row.user_id}"
        if known is None:
            return CANCELLED, moved
        return DIFFERENT, f"{moved}, and still shown here: `lately verify --repair` mends it"
    if known is not None:
        return DIFFERENT, "visible, but not in MySQL: no trigger saw its end; `lately verify --repair` mends it"
    if one.register is not None:
        return CANCELLED, f"cancelled: removed by version {one.register.version}{_since(one)}"
    return UNKNOWN, "not in MySQL, and neither in the outbox nor among the dead letters nor in the table"


def _same(row: Register | None, known: Register) -> bool:
    fields = ("price", "ordered_at", "payment_method", "category")
    return row is not None and all(getattr(row, name) == getattr(known, name) for name in fields)


def _since(one: Evidence) -> str:
    return "" if one.applied_at is None else f" at {rfc3339(one.applied_at)}"


def _visible(one: Evidence, known: Register) -> str:
    said = "visible" if one.applied_at is None else f"visible since {rfc3339(one.applied_at)}"
    if one.type not in (None, PLACED, SNAPSHOT):
        said += f"; what was applied before is superseded by version {known.version} ({one.type})"
    return said


def _in_outbox(one: Evidence, known: Register | None) -> str:
    what = "" if known is None else "its removal is " if one.waiting.type == REMOVED else "a newer change is "
    said = f"{what}in outbox for {one.waiting.seconds:.1f} s"
    if one.source_runs is False:
        return f"{said}: no source is running, start `lately source`"
    return f"{said}: the source is about to publish it, `lately source status` says how it stands"


def _not_shown(one: Evidence, mine: Row, known: Register | None) -> str:
    if mine.broken is not None:
        return f"not visible, because its row breaks a rule: {mine.broken}; correct the row"
    if known is not None:
        return f"applied as version {known.version}, but MySQL says otherwise: `lately verify --repair` mends it"
    if one.register is None and one.horizon is not None and mine.register.ordered_at < one.horizon:
        return "older than the first snapshot: `lately source snapshot --all` takes it over"
    if one.source_runs is False:
        return "in MySQL and nowhere else, and no source is running: `lately source check` says what is missing"
    if one.register is not None:
        return (
            f"applied, superseded by version {one.register.version}, which removed it: "
            "MySQL has it again, and `lately verify --repair` mends it"
        )
    return "in MySQL, but no trigger saw it: `lately verify --repair` mends it"


def sum_up(purchases: list[tuple[str | None, str, str]]) -> tuple[str, str]:
    """Outcome and sentence of an order of these purchases: (product, outcome, sentence). What is wrong counts first."""
    ranked = sorted(purchases, key=lambda one: (DIFFERENT, VISIBLE, CANCELLED, UNKNOWN).index(one[1]))
    product, outcome, said = ranked[0]
    if len({outcome for _, outcome, _ in purchases}) > 1:
        number = sum(one == outcome for _, one, _ in purchases)
        return outcome, f"{number} of {len(purchases)} purchases {outcome}: {product}: {said}"
    return outcome, said
