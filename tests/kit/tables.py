"""The tables of a worker on disk, filled by the steps of the real agents, without Kafka."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from faust.types import TP

from app.core import co_purchases, orders, product_partials, purchase_changes
from app.settings import Settings
from chunks import Chunk, Store, StoreReader, Table, position_key
from chunks.chunk import NamedTable
from chunks.records import RecordRange
from chunks.view import TableState, TableView, ValueCache, Values
from chunks.watch import KeyWatches
from domain.co_purchases import DeltaAccumulator
from domain.events import read_events
from domain.partitioning import partition_of
from tables import baskets, by_product, by_user, product_sales, similar
from tables import product_partials as partials_table
from tables.product_sales import SalesCopy

T = TypeVar("T")

TABLES: tuple[Table, ...] = (
    by_user.by_user,
    partials_table.product_partials,
    by_product.by_product,
    baskets.baskets,
    similar.similar,
    product_sales.product_sales,
)


def _apply_events(chunk: Chunk) -> None:
    changes = baskets.pending_changes(chunk)
    price_changes = by_user.apply_events(chunk, list(read_events(chunk.records)), changes)
    partials_table.add_price_changes(chunk, price_changes)


def _apply_purchase_changes(chunk: Chunk) -> None:
    deltas = DeltaAccumulator()
    for record in chunk.records:
        baskets.apply_record(chunk, record, deltas)
    baskets.send_deltas(chunk, deltas)


def _apply_co_purchases(chunk: Chunk) -> None:
    for record in chunk.records:
        product_sales.write_later(chunk, record[1], similar.apply_record(chunk, record))


#: Topic -> the step of its agent.
STEPS: dict[str, Callable[[Chunk], None]] = {
    orders.get_topic_name(): _apply_events,
    product_partials.get_topic_name(): by_product.apply_partials,
    purchase_changes.get_topic_name(): _apply_purchase_changes,
    co_purchases.get_topic_name(): _apply_co_purchases,
}


class StoreTask:
    """Implements chunks.chunk.ChunkTask: commits each step of a source partition to the stores."""

    def __init__(self, tp: TP, states: dict[str, TableState], sales: SalesCopy) -> None:
        self._tp, self._states, self._sales = tp, states, sales
        self._next_offset = 0
        self._accumulators: dict[Callable[[Chunk, Any], None], Any] = {}

    def view(self, table: NamedTable) -> TableView:
        """Return a view of a table."""
        return TableView(self._states[table.name])

    def accumulate(self, create: Callable[[], T], flush: Callable[[Chunk, T], None]) -> T:
        """Return the accumulator of `flush` for this step."""
        accumulator: T = self._accumulators.setdefault(flush, create())
        return accumulator

    def run(self, records: list[tuple[bytes | None, bytes | None]]) -> list[tuple[TP, bytes | None, bytes | None]]:
        """Run the agent's step for some records, commit it, and return the records that it sends."""
        first = self._next_offset
        self._next_offset += len(records)
        numbered = [(first + number, key, value) for number, (key, value) in enumerate(records)]
        chunk = Chunk(self._tp, RecordRange(first, self._next_offset, numbered), self)
        STEPS[self._tp.topic](chunk)
        sent = self._commit(chunk)
        for flush, accumulator in self._accumulators.items():
            last = Chunk(self._tp, RecordRange(self._next_offset, self._next_offset, []), self)
            flush(last, accumulator)
            sent += self._commit(last)
        self._accumulators.clear()
        return sent

    def _commit(self, chunk: Chunk) -> list[tuple[TP, bytes | None, bytes | None]]:
        for view in chunk.views:
            store = self._states[view.name].store
            values: Values = {**view.changes, position_key(self._tp.topic): b"%d" % self._next_offset}
            store.apply(values.items(), store.offset + len(values))
            store.watches.notify(values)
            if view.name == product_sales.product_sales.name:
                self._sales.apply(self._tp.partition, list(view.changes.items()))
        outputs = [(tp, key, value) for tp, key, value, _headers in chunk.outputs]
        return outputs + [(tp, key, value) for (tp, key), value in chunk.latest.items()]


class FilledTables:
    """All tables of a worker; `publish` applies records of `orders` to all of them."""

    def __init__(self, folder: Path, settings: Settings, sales: SalesCopy) -> None:
        self._partitions, self.sales = settings.partitions, sales
        self.readers: dict[str, StoreReader] = {}
        states: dict[int, dict[str, TableState]] = {number: {} for number in range(settings.partitions)}
        for table in TABLES:
            stores: dict[int, Store] = {}
            for number in range(settings.partitions):
                watches = KeyWatches(table.watch_key)
                stores[number] = Store(folder / f"{table.name}-{number}.db", watches=watches).open()
                states[number][table.name] = TableState(table.name, stores[number], ValueCache(0))
            self.readers[table.name] = StoreReader(table.name, table.source_topic, stores)
        self._tasks = {
            TP(topic, number): StoreTask(TP(topic, number), states[number], self.sales)
            for topic in STEPS
            for number in range(settings.partitions)
        }

    def publish(self, records: Iterable[tuple[bytes, bytes]]) -> None:
        """Apply records (key, value) of `orders`, and all records that follow from them."""
        topic = orders.get_topic_name()
        pending: dict[TP, list[tuple[bytes | None, bytes | None]]] = {}
        for key, value in records:
            pending.setdefault(TP(topic, partition_of(key, self._partitions)), []).append((key, value))
        while pending:
            # The order of the records of a partition remains.
            tp = next(iter(pending))
            for target, target_key, target_value in self._tasks[tp].run(pending.pop(tp)):
                pending.setdefault(target, []).append((target_key, target_value))

    def close(self) -> None:
        """Close all stores."""
        for reader in self.readers.values():
            for store in reader.stores.values():
                store.close()
            reader.stores.clear()
