"""Count the open dead letters, neither retried nor dropped, by reason."""

from __future__ import annotations

from typing import Any, NamedTuple

from aiokafka.structs import ConsumerRecord

from app.kafka import dead_letter_topic
from app.kafka.tail import TopicTail
from app.settings import Settings
from app.topics import Topics

#: Limit of distinct reasons; headers may contain any text. Letters of further reasons count as
#: "other".
MAX_REASONS = 50
#: Limit of a reason, which is a label of a metric.
MAX_REASON_CHARS = 64
#: Limit of open letters counted at once; each takes some 200 bytes of memory.
MAX_OPEN_LETTERS = 100_000


class ReasonCount(NamedTuple):
    """The open dead letters of one reason; the oldest arrived at `since` (seconds since 1970)."""

    reason: str
    records: int
    since: float


class DeadLetterCounts(TopicTail):
    """The counts of open letters in `orders-dead`.

    A letter is settled by a later record of the topic.
    """

    def __init__(self, settings: Settings, topics: Topics, **kwargs: Any) -> None:
        super().__init__(settings, topics.orders_dead, **kwargs)
        self._open: dict[tuple[int, int], tuple[str, float]] = {}
        self._reasons: set[str] = set()
        #: The counts, until the next record; None: to be computed.
        self._counts: list[ReasonCount] | None = []
        #: Whether letters beyond MAX_OPEN_LETTERS were not counted.
        self.is_truncated = False

    def reset(self) -> None:
        """Count again from zero."""
        self._open, self._counts, self.is_truncated = {}, None, False

    def apply(self, record: ConsumerRecord) -> None:
        """Apply one record of `orders-dead`: a dead letter, or a record that settles a letter."""
        settled = dead_letter_topic.settled_offset(record)
        if settled is not None:
            self._open.pop((record.partition, settled), None)
        elif len(self._open) < MAX_OPEN_LETTERS:
            reason = dead_letter_topic.parse_letter(record).reason[:MAX_REASON_CHARS]
            if reason not in self._reasons and len(self._reasons) >= MAX_REASONS:
                reason = "other"
            self._reasons.add(reason)
            self._open[record.partition, record.offset] = (reason, record.timestamp / 1000)
        else:
            self.is_truncated = True
        self._counts = None

    @property
    def by_reason(self) -> list[ReasonCount]:
        """The counts of all reasons met since the start, by reason.

        A reason without open letters has zero records, and an infinite `since`.
        """
        if self._counts is None:
            counts = {reason: (0, float("inf")) for reason in self._reasons}
            for reason, arrived_at in self._open.values():
                records, since = counts[reason]
                counts[reason] = (records + 1, min(since, arrived_at))
            self._counts = [ReasonCount(reason, *counts[reason]) for reason in sorted(counts)]
        return self._counts
