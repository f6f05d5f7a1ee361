"""Diagnosis of a purchase: one sentence about where it is, and about why it is not visible."""

from __future__ import annotations

from dataclasses import dataclass

from domain.differences import is_same_content
from domain.events import PLACED, REMOVED, SNAPSHOT
from domain.purchases import Purchase
from domain.values import rfc3339

#: The outcomes of a diagnosis.
VISIBLE, CANCELLED, DIFFERENT, UNKNOWN = "visible", "cancelled", "different", "unknown"


@dataclass(frozen=True)
class ShopRow:
    """A row of the shop's table: its purchase, or None and the rule that the row breaks."""

    user_id: str
    product_name: str
    purchase: Purchase | None
    broken_rule: str | None = None


@dataclass(frozen=True)
class PendingChange:
    """A change in the outbox that is not published yet, and its age in seconds."""

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
    """All facts about one purchase of one user. Times are microseconds since 1970.

    `purchase` is the purchase in the table, `event_type` the type of the event that it is from,
    and `applied_at` the time when the worker committed that event. `lag` is the number of committed
    records of the user's partition that the table has not applied yet. Rows that were ordered before
    `horizon` were not part of a snapshot.
    """

    user_id: str | None
    row: ShopRow | None = None
    pending: PendingChange | None = None
    dead_letter: DeadLetterSummary | None = None
    purchase: Purchase | None = None
    event_type: str | None = None
    applied_at: int | None = None
    lag: int = 0
    #: The first offset of an open transaction in the user's partition; None: none is open.
    open_transaction: int | None = None
    #: None: unknown.
    is_source_running: bool | None = None
    horizon: int | None = None


def diagnose(evidence: Evidence) -> tuple[str, str]:
    """Return the outcome and the sentence for one purchase."""
    visible = evidence.purchase if evidence.purchase is not None and evidence.purchase.live else None
    row = evidence.row if evidence.row is not None and evidence.row.user_id == evidence.user_id else None
    if visible is not None and row is not None and row.purchase and is_same_content(visible, row.purchase):
        return VISIBLE, _visible_sentence(evidence, visible)
    if evidence.pending is not None:
        return DIFFERENT, _pending_sentence(evidence, evidence.pending, visible)
    if evidence.lag and (row is not None or visible is not None):
        return (
            DIFFERENT,
            f"in Kafka, lag {evidence.lag}: the worker has this number of records of the partition to read",
        )
    is_expected = visible is not None or (row is not None and row.purchase is not None)
    if evidence.open_transaction is not None and is_expected:
        return DIFFERENT, _open_transaction_sentence(evidence.open_transaction)
    letter = evidence.dead_letter
    if row is not None and row.purchase is None and (evidence.purchase is not None or letter is None):
        return DIFFERENT, _broken_sentence(evidence, row, visible)
    if row is None and visible is None and evidence.row is None and evidence.purchase is not None:
        return CANCELLED, f"cancelled: removed by version {evidence.purchase.version}{_applied_suffix(evidence)}"
    if letter is not None and (row is None or visible is None):
        return DIFFERENT, f"in DLQ: {letter.reason} ({letter.message}); {_show_letter(letter)}"
    if row is not None:
        return DIFFERENT, _not_visible_sentence(evidence, row, visible)
    if evidence.row is not None:
        moved = f"moved to another user, {evidence.row.user_id}"
        if visible is None:
            return CANCELLED, moved
        return DIFFERENT, f"{moved}, but still visible here: `lately verify --repair` repairs it"
    if visible is not None:
        return (
            DIFFERENT,
            "visible, but not in MySQL: no trigger captured its removal; `lately verify --repair` repairs it",
        )
    return UNKNOWN, "not in MySQL, not in the outbox, not in the dead letters, and not in the table"


def _applied_suffix(evidence: Evidence) -> str:
    return "" if evidence.applied_at is None else f" at {rfc3339(evidence.applied_at)}"


def _visible_sentence(evidence: Evidence, purchase: Purchase) -> str:
    sentence = "visible" if evidence.applied_at is None else f"visible since {rfc3339(evidence.applied_at)}"
    if evidence.event_type not in (None, PLACED, SNAPSHOT):
        sentence += f"; the version before is superseded by version {purchase.version} ({evidence.event_type})"
    return sentence


def _pending_sentence(evidence: Evidence, pending: PendingChange, visible: Purchase | None) -> str:
    subject = "" if visible is None else "its removal is " if pending.event_type == REMOVED else "a newer change is "
    sentence = f"{subject}in outbox for {pending.age_s:.1f} s"
    if evidence.is_source_running is False:
        return f"{sentence}: no source is running, start `lately source`"
    return f"{sentence}: the source publishes it next, `lately source status` prints the progress"


def _open_transaction_sentence(offset: int) -> str:
    return (
        f"in Kafka, behind an open transaction since offset {offset}: no worker reads further before its producer "
        f"ends it, or `kafka-transactions.sh abort --start-offset {offset}`"
    )


def _broken_sentence(evidence: Evidence, row: ShopRow, visible: Purchase | None) -> str:
    sentence = f"breaks a rule: {row.broken_rule}"
    if visible is not None:
        return f"its row {sentence}, but its former values are visible: `lately verify --repair` takes them back"
    if evidence.purchase is not None:
        sentence += f", taken back by version {evidence.purchase.version}{_applied_suffix(evidence)}"
    letter = "" if evidence.dead_letter is None else f"; {_show_letter(evidence.dead_letter)}"
    return f"not visible, because its row {sentence}; correct the row{letter}"


def _show_letter(letter: DeadLetterSummary) -> str:
    return f"`lately dlq show {letter.id}` prints the record"


def _not_visible_sentence(evidence: Evidence, row: ShopRow, visible: Purchase | None) -> str:
    assert row.purchase is not None, "a row that breaks a rule has a sentence of its own"
    if visible is not None:
        return f"applied as version {visible.version}, but MySQL has other values: `lately verify --repair` repairs it"
    if evidence.purchase is None and evidence.horizon is not None and row.purchase.ordered_at < evidence.horizon:
        return "older than the first snapshot: `lately source snapshot --all` publishes it"
    if evidence.is_source_running is False:
        return "in MySQL and nowhere else, and no source is running: `lately source check` prints the cause"
    if evidence.purchase is not None:
        return (
            f"applied, superseded by version {evidence.purchase.version}, which removed it: "
            "MySQL contains it again, and `lately verify --repair` repairs it"
        )
    return "in MySQL, but no trigger captured it: `lately verify --repair` repairs it"


def summarize(purchases: list[tuple[str | None, str, str]]) -> tuple[str, str]:
    """Return outcome and sentence of an order from its purchases (product, outcome, sentence).

    The outcome that needs attention most counts: different, visible, cancelled, unknown.
    """
    severity = (DIFFERENT, VISIBLE, CANCELLED, UNKNOWN)
    ranked = sorted(purchases, key=lambda purchase: severity.index(purchase[1]))
    product, outcome, sentence = ranked[0]
    if len({outcome for _, outcome, _ in purchases}) > 1:
        number = sum(other == outcome for _, other, _ in purchases)
        return outcome, f"{number} of {len(purchases)} purchases {outcome}: {product}: {sentence}"
    return outcome, sentence
