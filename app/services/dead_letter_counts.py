"""The dead letters that are open, neither retried nor dropped: how many of each reason, and since when."""

from __future__ import annotations

from typing import NamedTuple

from aiokafka.structs import ConsumerRecord

from app.core import app, settings
from app.kafka import dead_letter_topic
from app.kafka.tail import Follower
from app.topics import Topics

#: So many reasons are told apart, however many anybody writes.
REASONS = 50
#: More than so many are counted by the first ones only: each takes some 200 bytes.
MOST = 100_000


class Open(NamedTuple):
    """The open dead letters of one reason; the oldest came at `since` (seconds since 1970)."""

    reason: str
    records: int
    since: float


class OpenLetters(Follower):
    """Follows `orders-dead` as long as the worker runs; what settles a letter is a record behind it."""

    def __init__(self, **kwargs: object) -> None:
        super().__init__(Topics(settings).orders_dead, **kwargs)
        self._open: dict[tuple[int, int], tuple[str, float]] = {}
        self._reasons: set[str] = set()
        #: None: it has to be summed up again.
        self._summed: list[Open] | None = []
        #: Whether there were more than MOST at once, so that some are not counted.
        self.more = False

    def forget(self) -> None:
        """Count anew."""
        self._open, self._summed, self.more = {}, None, False

    def learn(self, record: ConsumerRecord) -> None:
        """Take one record of orders-dead over."""
        settled = dead_letter_topic.settles(record)
        if settled is not None:
            self._open.pop((record.partition, settled), None)
        elif len(self._open) < MOST:
            reason = dead_letter_topic.letter_of(record).reason
            if reason not in self._reasons and len(self._reasons) >= REASONS:
                reason = "other"
            self._reasons.add(reason)
            self._open[record.partition, record.offset] = (reason, record.timestamp / 1000)
        else:
            self.more = True
        self._summed = None

    @property
    def by_reason(self) -> list[Open]:
        """All reasons met since the start, also those of which no letter is open any more; `since` is infinite then."""
        if self._summed is None:
            found = {reason: (0, float("inf")) for reason in self._reasons}
            for reason, at in self._open.values():
                records, since = found[reason]
                found[reason] = (records + 1, min(since, at))
            self._summed = [Open(reason, *found[reason]) for reason in sorted(found)]
        return self._summed


open_letters = OpenLetters()
app.service(open_letters)
