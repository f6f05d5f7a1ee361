"""`lately tables restore`: the changelogs get the values of a dump, as if all since then had not happened yet.

What was published after the dump is still in `orders`, and is read again by the workers. What followed from it in the
topics between two tables is passed over, because it will be sent again
(docs/decisions/011-a-dump-is-one-moment.md).
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from faust.types import TP

from app.control.generation import require_startable_generation
from app.errors import BadDump
from app.kafka.admin import ensure_topics, missing_topics
from app.settings import Settings
from app.topics import Topics
from chunks.store import BEGINNING_KEY, RESTORING_KEY, position_key
from commands.changelogs import Changelogs, changelogs
from commands.tables.dump import folder, grouped
from commands.tables.dump_file import Head, Pair, Pairs, Part, Records, frames, verify
from commands.tables.exclusive_writer import Message, Write, demand_no_worker, writing
from domain.codec import encode
from domain.partitioning import partition_of
from domain.totals import decode_totals, partial

Change = tuple[bytes, bytes | None]


class Outcome(NamedTuple):
    """What was written, or would be: values and tombstones of tables, and records between two tables."""

    head: Head
    values: int
    tombstones: int
    records: int


async def run(
    settings: Settings, path: Path, dry_run: bool = False, progress: Callable[[int, int], None] = lambda *_: None
) -> Outcome:
    """Write a dump to the changelogs; stopped in the middle, it is repeated, and no worker starts before its end.

    1. Read the whole file; then whether it fits. 2. See that no worker runs. 3. Become the only one who can write, as
    a new owner of all partitions does. 4. Mark every changelog as half restored. 5. Write the values that differ,
    and tombstones for keys that the dump does not have. 6. Send again what was on its way between two tables.
    7. For each source partition, in one transaction, write the positions and take the mark away.

    Raises BadDump, StillRunning, ServerAway; nothing is written then, or the mark stays.
    """
    # 1.
    head = verify(path)
    if head.partitions != settings.partitions:
        raise BadDump(
            f"{path} is of {head.partitions} partitions, LATELY_PARTITIONS is {settings.partitions}: "
            "a dump can only be restored to as many"
        )
    if dry_run and await missing_topics(settings):
        return Outcome(head, head.keys, 0, 0)
    await require_startable_generation(settings)
    await ensure_topics(settings)
    async with changelogs(settings) as logs:
        await _demand_orders(settings, logs, head)
        # 2.
        await demand_no_worker(settings)
        # 3.
        async with writing(settings, dry_run) as write:
            restoring = _Restoring(settings, logs, head, write)
            # 4.
            await restoring.mark()
            # 5.
            await restoring.fill(path, progress)
            # 6.
            await restoring.send_again(path)
            # 7.
            await restoring.end()
    return Outcome(head, restoring.values, restoring.tombstones, restoring.records)


class _Restoring:
    def __init__(self, settings: Settings, logs: Changelogs, head: Head, write: Write) -> None:
        self._settings, self._logs, self._head, self._write = settings, logs, head, write
        self._topics = Topics(settings)
        self._ends: dict[TP, int] = {}
        self.values = self.tombstones = self.records = 0

    async def mark(self) -> None:
        """Mark every changelog, and remember where the topics that feed the tables end."""
        for source, tables in self._sources():
            await self._write(source, [(self._logs.tp(one, source.partition), RESTORING_KEY, b"1", []) for one in tables])
            self._ends[source] = await self._logs.end(source)

    async def fill(self, path: Path, progress: Callable[[int, int], None]) -> None:
        """Make the changelogs hold what the dump holds."""
        pairs = (frame for frame in frames(path) if isinstance(frame, Pairs))
        parts = groupby(pairs, lambda frame: (frame.table, frame.partition))
        done = 0
        with folder(self._settings) as stores:
            for part in self._head.parts:
                wanted = (pair for frame in next(parts)[1] for pair in frame.pairs) if part.keys else iter(())
                with closing(stores.make(part.table, part.partition)) as store:
                    await self._logs.copy(part.table, part.partition, store)
                    if store.get(BEGINNING_KEY) is None:
                        await self._begin(part)
                    await self._replace(part, changes(wanted, store.scan()))
                done += part.keys
                progress(done, max(1, self._head.keys))

    async def _begin(self, part: Part) -> None:
        """A changelog that was never written, or was emptied, counts only from a beginning on; the mark lies before."""
        source, changelog = self._source(part.table, part.partition), self._logs.tp(part.table, part.partition)
        beginning = uuid.uuid4().hex.encode()
        await self._write(source, [(changelog, BEGINNING_KEY, beginning, []), (changelog, RESTORING_KEY, b"1", [])])

    async def _replace(self, part: Part, differing: Iterator[Change]) -> None:
        source, changelog = self._source(part.table, part.partition), self._logs.tp(part.table, part.partition)
        for some in grouped(differing):
            await self._write(source, [(changelog, key, value, []) for key, value in some])
            self.tombstones += sum(value is None for _, value in some)
            self.values += sum(value is not None for _, value in some)

    async def send_again(self, path: Path) -> None:
        """Send what was on its way between two tables: all totals by product, and the records of the dump."""
        for frame in frames(path):
            if isinstance(frame, Records):
                tp = TP(getattr(self._topics, frame.topic).name, frame.partition)
                await self._write(tp, [(tp, *record) for record in frame.records])
                self.records += len(frame.records)
            elif isinstance(frame, Pairs) and frame.table == "product_partials":
                await self._write(self._source(frame.table, frame.partition), list(self._partials(frame)))

    def _partials(self, frame: Pairs) -> Iterator[Message]:
        # Of the records of this topic the one with the greatest position counts: sending too many changes nothing.
        topic, position = self._topics.product_partials.name, self._head.positions(frame.table)[frame.partition]
        for product, value in frame.pairs:
            tp = TP(topic, partition_of(product, self._settings.partitions))
            key = encode((product, frame.partition))
            totals = decode_totals(value)
            yield tp, key, partial(product.decode(), frame.partition, position, totals), []

    async def end(self) -> None:
        """Write the positions and take the marks away, together for the tables of each source partition."""
        for source, tables in self._sources():
            written: list[Message] = []
            for table in tables:
                # What lies in a topic between two tables follows from orders that will be read again.
                between = source.topic != self._topics.orders.name
                position = self._ends[source] if between else self._head.positions(table)[source.partition]
                changelog = self._logs.tp(table, source.partition)
                written.append((changelog, RESTORING_KEY, None, []))
                written.append((changelog, position_key(source.topic), b"%d" % position, []))
            await self._write(source, written)

    def _source(self, table: str, partition: int) -> TP:
        return TP(self._topics.feeding[table], partition)

    def _sources(self) -> Iterator[tuple[TP, list[str]]]:
        """Each partition that feeds tables, and which."""
        for topic in dict.fromkeys(self._topics.feeding.values()):
            tables = [table for table, feeding in self._topics.feeding.items() if feeding == topic]
            for partition in range(self._settings.partitions):
                yield TP(topic, partition), tables


def changes(wanted: Iterable[Pair], found: Iterable[Pair]) -> Iterator[Change]:
    """What makes `found` to `wanted`, both in the order of their keys; None deletes a key."""
    found = iter(found)
    other = next(found, None)
    for key, value in wanted:
        while other is not None and other[0] < key:
            yield other[0], None
            other = next(found, None)
        if other is None or other[0] != key:
            yield key, value
            continue
        if other[1] != value:
            yield key, value
        other = next(found, None)
    while other is not None:
        yield other[0], None
        other = next(found, None)


async def _demand_orders(settings: Settings, logs: Changelogs, head: Head) -> None:
    topic = Topics(settings).orders.name
    for partition, position in head.positions("by_user").items():
        end = await logs.end(TP(topic, partition))
        if position > end:
            raise BadDump(
                f"the dump contains what lay in {topic}[{partition}] below {position}, but that ends at {end}: "
                "it is of another topic, or the topic was made anew; build the tables from orders instead"
            )
