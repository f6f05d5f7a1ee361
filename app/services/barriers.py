"""Barriers that go through a pipeline of topics, to prove what its last reader has applied.

This module does no I/O. `app.services.list_freshness` uses it, and contains the argument.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

#: Partition -> an offset: a reader has processed all records before it, or a topic ends there.
Offsets = Mapping[int, int]

#: More barriers than this are thinned out: with a backlog they wait for as long as it lasts.
MAX_BARRIERS = 32


@dataclass
class Barrier:
    """The claim that everything before `start` in the first topic has passed the first topics.

    The claim reaches the next topic when the reader of topic number `stage` has reached `end`.
    """

    start: Offsets
    stage: int
    end: Offsets


class Barriers:
    """Barriers of one pipeline, from observations of its readers and topics.

    The topics are numbered in the order of the flow. Each has one reader; all readers but the last
    write to the next topic.
    """

    def __init__(self) -> None:
        #: Oldest first: an older barrier has an earlier start, and has come at least as far.
        self._barriers: list[Barrier] = []
        self._contained: Barrier | None = None
        self._positions: Sequence[Offsets] = ()
        self._ends: Sequence[Offsets] = ()
        #: Topic and partition where a position is not trusted -> the highest trustworthy position.
        self._limits: dict[tuple[int, int], int] = {}

    @property
    def count(self) -> int:
        """The number of barriers in flight."""
        return len(self._barriers)

    def observe(self, positions: Sequence[Offsets], ends: Sequence[Offsets]) -> None:
        """Start a barrier and move the others on.

        `positions` are those of the readers, by topic; a partition without a position is at 0.
        `ends` are the ends of all partitions of the topics, read after all positions.
        """
        is_consistent = self._check(positions, ends)
        self._positions, self._ends = positions, ends
        if not is_consistent:
            self._barriers.clear()
            self._contained = None
            return
        self._start(positions[0], ends[1])
        for barrier in self._barriers:
            # A reader at the present end of its topic lets a barrier pass several topics at once.
            while barrier.stage < len(ends) - 1 and reaches(positions[barrier.stage], barrier.end):
                barrier.stage += 1
                barrier.end = ends[barrier.stage]

    def contained(self, applied: Offsets) -> Offsets | None:
        """Return the offsets of the first topic before which the last reader contains everything.

        `applied` are its present offsets. None: unknown.
        """
        last = len(self._ends) - 1
        for number in reversed(range(len(self._barriers))):
            barrier = self._barriers[number]
            if barrier.stage == last and reaches(applied, barrier.end):
                self._contained = barrier
                del self._barriers[: number + 1]
                break
        # The last reader may have started again since.
        if self._contained is None or not reaches(applied, self._contained.end):
            return None
        return self._contained.start

    def _start(self, position: Offsets, end: Offsets) -> None:
        newest = self._barriers[-1] if self._barriers else self._contained
        if newest is not None and newest.start == position:
            return
        if len(self._barriers) >= MAX_BARRIERS:
            self._barriers = self._barriers[::2]
        self._barriers.append(Barrier(position, 1, end))

    def _check(self, positions: Sequence[Offsets], ends: Sequence[Offsets]) -> bool:
        """Return whether the offsets of this observation belong to the topics of the former one.

        Otherwise nothing that was observed before is valid:

        1. A topic that ends earlier than before has lost records, or was created again. 2. So was a
        topic that ends before the position of its reader. 3. The first reader went back: it may
        read records of another topic with this name, or its tables are in an earlier state. (The
        others do this at each change of owners, over offsets that contain no records.)

        After 1. and 2. the position may belong to the former topic, and is not used until the
        reader has been seen inside the new one.
        """
        is_consistent = True
        for number, (position, end) in enumerate(zip(positions, ends, strict=True)):
            former = self._ends[number] if self._ends else {}
            for partition, offset in end.items():
                current = position.get(partition, 0)
                key = (number, partition)
                if offset < former.get(partition, 0) or current > offset:
                    self._limits[key] = min(offset, self._limits.get(key, offset))
                    is_consistent = False
                if current <= self._limits.get(key, current):
                    self._limits.pop(key, None)
        went_back = bool(self._positions) and not reaches(positions[0], self._positions[0])
        return is_consistent and not went_back and not self._limits


def reaches(position: Offsets, end: Offsets) -> bool:
    """Return whether a reader has processed everything before `end`."""
    return all(position.get(partition, 0) >= offset for partition, offset in end.items())
