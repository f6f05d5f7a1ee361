"""A chunk: the records of one partition that one agent step handles."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol, TypeVar

from faust.types import TP

from chunks.records import Headers, RecordRange
from chunks.view import TableView

T = TypeVar("T")


class NamedTable(Protocol):
    """A table, as far as a chunk uses it."""

    @property
    def name(self) -> str:
        """The name of the table."""


class ChunkTask(Protocol):
    """The partition task of a chunk, as far as the chunk uses it."""

    def view(self, table: NamedTable) -> TableView:
        """Return a view of a table that includes uncommitted values."""

    def accumulate(self, create: Callable[[], T], flush: Callable[[Chunk, T], None]) -> T:
        """Return the accumulator of `flush` for the open transaction."""


class Chunk:
    """Input and output of one agent step: records, views of tables, and the records to send.

    All values assigned and all records sent in a step take effect together with the source
    position, or not at all.
    """

    __slots__ = ("_task", "_views", "commit_callbacks", "end", "first", "latest", "next", "outputs", "records", "tp")

    def __init__(self, tp: TP, record_range: RecordRange, task: ChunkTask) -> None:
        self.tp = tp
        self.first, self.next, self.records, self.end = record_range
        self.outputs: list[tuple[TP, bytes | None, bytes | None, Headers]] = []
        self.latest: dict[tuple[TP, bytes], bytes] = {}
        self.commit_callbacks: list[Callable[[], None]] = []
        self._task = task
        self._views: dict[str, TableView] = {}

    def view(self, table: NamedTable) -> TableView:
        """Return `table` in the chunk's partition. Assigned values are committed with the chunk."""
        view = self._views.get(table.name)
        if view is None:
            view = self._views[table.name] = self._task.view(table)
        return view

    def send(
        self, topic: str, partition: int, key: bytes | None, value: bytes | None, headers: Headers | None = None
    ) -> None:
        """Send a record when the chunk is committed."""
        self.outputs.append((TP(topic, partition), key, value, headers or []))

    def send_latest(self, topic: str, partition: int, key: bytes, value: bytes) -> None:
        """Send a record to a compacted topic: the last value of each key in the transaction."""
        self.latest[TP(topic, partition), key] = value

    def after_commit(self, callback: Callable[[], None]) -> None:
        """Call `callback` once the chunk is committed and its values can be read.

        It is not called if the commit fails.
        """
        self.commit_callbacks.append(callback)

    def accumulate(self, create: Callable[[], T], flush: Callable[[Chunk, T], None]) -> T:
        """Return an accumulator that all chunks of a transaction share.

        `create` makes it once per transaction.

        At the end of the transaction, `flush` is called with a chunk without records and the
        accumulator, to assign and send the results.
        """
        return self._task.accumulate(create, flush)

    @property
    def views(self) -> Iterable[TableView]:
        """The views of the tables that the step has used so far."""
        return self._views.values()
