"""Pure functions that say in one sentence where a purchase is, and why it is not shown where it is not."""

from __future__ import annotations

from dataclasses import dataclass

from domain.events import PLACED, REMOVED, SNAPSHOT
from domain.purchases import Purchase
from domain.values import rfc3339

#: What a diagnosis comes to.
VISIBLE, CANCELLED, DIFFERENT, UNKNOWN = "visible", "cancelled", "different", "unknown"


@dataclass(frozen=True)
class ShopRow:
    """What the shop's table says of a purchase: its register, or which rule the row breaks."""

    user_id: str
    product_name: str
    purchase: Purchase | None
    broken_rule: str | None = None


@dataclass(frozen=True)
class PendingChange:
    """A change in the outbox that is not published yet, and for how many seconds it has waited."""

    user_id: str
    product_name: str
    event_type: str
    age_s: float


@dataclass(frozen=True)
class DeadLetterSummary:
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
    row: ShopRow | None = None
    pending: PendingChange | None = None
    dead_letter: DeadLetterSummary | None = None
    purchase: Purchase | None = None
    event_type: str | None = None
    applied_at: int | None = None
    lag: int = 0
    #: None: nobody asked.
    is_source_running: bool | None = None
    horizon: int | None = None


def diagnose(evidence: Evidence) -> tuple[str, str]:
    """What it comes to, and the sentence."""
    known = evidence.purchase if evidence.purchase is not None and evidence.purchase.live else None
    mine = evidence.row if evidence.row is not None and evidence.row.user_id == evidence.user_id else None
    if known is not None and mine is not None and _same(mine.purchase, known):
        return VISIBLE, _visible(evidence, known)
    if evidence.pending is not None:
        return DIFFERENT, _in_outbox(evidence, known)
    if evidence.lag and (mine is not None or known is not None):
        return DIFFERENT, f"in Kafka, lag {evidence.lag}: the worker has so many records of the partition still to read"
    if evidence.dead_letter is not None and (mine is None or mine.purchase is None or known is None):
        return (
            DIFFERENT,
            f"in DLQ: {evidence.dead_letter.reason} ({evidence.dead_letter.message}); "
            f"`lately dlq show {evidence.dead_letter.id}` has it whole",
        )
    if mine is not None:
        return DIFFERENT, _not_shown(evidence, mine, known)
    if evidence.row is not None:
        moved = f"moved to another user, {evidence.row.user_id}"
        if known is None:
            return CANCELLED, moved
        return DIFFERENT, f"{moved}, and still shown here: `lately verify --repair` mends it"
    if known is not None:
        return DIFFERENT, "visible, but not in MySQL: no trigger saw its end; `lately verify --repair` mends it"
    if evidence.purchase is not None:
        return CANCELLED, f"cancelled: removed by version {evidence.purchase.version}{_since(evidence)}"
    return UNKNOWN, "not in MySQL, and neither in the outbox nor among the dead letters nor in the table"


def _same(row: Purchase | None, known: Purchase) -> bool:
    fields = ("price", "ordered_at", "payment_method", "category")
    return row is not None and all(getattr(row, name) == getattr(known, name) for name in fields)


def _since(one: Evidence) -> str:
    return "" if one.applied_at is None else f" at {rfc3339(one.applied_at)}"


def _visible(one: Evidence, known: Purchase) -> str:
    said = "visible" if one.applied_at is None else f"visible since {rfc3339(one.applied_at)}"
    if one.event_type not in (None, PLACED, SNAPSHOT):
        said += f"; what was applied before is superseded by version {known.version} ({one.event_type})"
    return said


def _in_outbox(one: Evidence, known: Purchase | None) -> str:
    what = "" if known is None else "its removal is " if one.pending.event_type == REMOVED else "a newer change is "
    said = f"{what}in outbox for {one.pending.age_s:.1f} s"
    if one.is_source_running is False:
        return f"{said}: no source is running, start `lately source`"
    return f"{said}: the source is about to publish it, `lately source status` says how it stands"


def _not_shown(one: Evidence, mine: ShopRow, known: Purchase | None) -> str:
    if mine.broken_rule is not None:
        return f"not visible, because its row breaks a rule: {mine.broken_rule}; correct the row"
    if known is not None:
        return f"applied as version {known.version}, but MySQL says otherwise: `lately verify --repair` mends it"
    if one.purchase is None and one.horizon is not None and mine.purchase.ordered_at < one.horizon:
        return "older than the first snapshot: `lately source snapshot --all` takes it over"
    if one.is_source_running is False:
        return "in MySQL and nowhere else, and no source is running: `lately source check` says what is missing"
    if one.purchase is not None:
        return (
            f"applied, superseded by version {one.purchase.version}, which removed it: "
            "MySQL has it again, and `lately verify --repair` mends it"
        )
    return "in MySQL, but no trigger saw it: `lately verify --repair` mends it"


def summarize(purchases: list[tuple[str | None, str, str]]) -> tuple[str, str]:
    """Outcome and sentence of an order of these purchases: (product, outcome, sentence). What is wrong counts first."""
    ranked = sorted(purchases, key=lambda one: (DIFFERENT, VISIBLE, CANCELLED, UNKNOWN).index(one[1]))
    product, outcome, said = ranked[0]
    if len({outcome for _, outcome, _ in purchases}) > 1:
        number = sum(one == outcome for _, one, _ in purchases)
        return outcome, f"{number} of {len(purchases)} purchases {outcome}: {product}: {said}"
    return outcome, said
