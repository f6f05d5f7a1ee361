"""A chunk: the records of one partition that one agent step handles."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from faust.types import TP

if TYPE_CHECKING:
    from chunks.partition_task import Ledger
    from chunks.table import Table
    from chunks.view import View

T = TypeVar("T")
Headers = list[tuple[str, bytes]]

#: Records of one agent step. Few enough for a step of some milliseconds: the web views answer between two of them.
CHUNK_RECORDS = 500


class Run(NamedTuple):
    """Consecutive records of one partition: all that exist from offset `first` up to, not including, `next`.

    `end` is where the partition ended when they were fetched.
    """

    first: int
    next: int
    records: list[tuple[int, bytes | None, bytes | None]]
    end: int = 0


class Chunk:
    """What an agent gets for one step: records, the tables as they stand, and a place for what follows from them.

    Everything assigned and sent in a step takes effect at once or not at all, together with the source position.
    """

    __slots__ = ("_ledger", "_views", "end", "first", "latest", "next", "outputs", "records", "told", "tp")

    def __init__(self, tp: TP, run: Run, ledger: Ledger) -> None:
        self.tp = tp
        self.first, self.next, self.records, self.end = run
        self.outputs: list[tuple[TP, bytes | None, bytes | None, Headers]] = []
        self.latest: dict[tuple[TP, bytes], bytes] = {}
        self.told: list[Callable[[], None]] = []
        self._ledger = ledger
        self._views: dict[str, View] = {}

    def view(self, table: Table) -> View:
        """`table` as it stands for this chunk's partition; what is assigned to it is written with the chunk."""
        view = self._views.get(table.name)
        if view is None:
            view = self._views[table.name] = self._ledger.view(table)
        return view

    def send(
        self, topic: str, partition: int, key: bytes | None, value: bytes | None, headers: Headers | None = None
    ) -> None:
        """Send a record when the chunk is committed."""
        self.outputs.append((TP(topic, partition), key, value, headers or []))

    def send_latest(self, topic: str, partition: int, key: bytes, value: bytes) -> None:
        """The same for a topic of which only the newest value of each key counts: older ones may be left out."""
        self.latest[TP(topic, partition), key] = value

    def when_shown(self, tell: Callable[[], None]) -> None:
        """Call `tell` once what the chunk has changed is durable and can be read; never where it is not."""
        self.told.append(tell)

    def collect(self, make: Callable[[], T], write: Callable[[Chunk, T], None]) -> T:
        """Something to collect in, made once for all chunks of a transaction.

        At the end of the transaction `write` is called with it and a chunk without records, to assign and send what
        follows from all of them.
        """
        return self._ledger.collect(make, write)

    @property
    def views(self) -> Iterable[View]:
        """What was looked at so far."""
        return self._views.values()
