"""The exactly-once bookkeeping of one source partition: steps, transactions and offsets."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from typing import Any, TypeVar

from aiokafka import AIOKafkaProducer
from aiokafka.errors import (
    IllegalOperation,
    InvalidProducerEpoch,
    InvalidTimestampError,
    KafkaError,
    MessageSizeTooLargeError,
    ProducerFenced,
    RecordListTooLargeError,
)
from aiokafka.structs import RecordMetadata
from faust.types import TP

from chunks.chunk import Chunk, NamedTable
from chunks.errors import Fenced, RecordGap, RecordRefused
from chunks.keys import position_key
from chunks.records import CHUNK_RECORDS, Headers, RecordRange
from chunks.store import COMMIT_MARKERS, Store, in_store_thread
from chunks.view import TableState, TableView, ValueCache, Values

#: The future of a record batch that was sent, and the number of its records.
_Batch = tuple["asyncio.Future[RecordMetadata]", int]
#: Key, value and headers of a record to send.
_Message = tuple[bytes | None, bytes | None, Headers]

#: Maximum size of a record batch. Kafka's default limit (max.message.bytes) is 1 MiB and a few
#: bytes.
BATCH_BYTES = 900_000
#: Maximum size of a request. A record larger than BATCH_BYTES is sent alone, and the broker accepts
#: or refuses it.
MAX_REQUEST_BYTES = 5 * 2**20
#: Size of the pending transaction at which the agent waits for the end of the transaction in
#: flight.
MAX_PENDING_BYTES = 16 * 2**20
#: While there is a backlog, a transaction waits for this number of records, but not longer than
#: BACKLOG_WAIT_S.
FULL_RECORDS = 20_000
BACKLOG_WAIT_S = 0.5
#: Minimum time between two transactions. Kafka still writes the markers of the last transaction and
#: refuses a new one that starts at once (42 % of back-to-back transactions of 4 producers on a busy
#: 2-core machine; 2 % after 8 ms). aiokafka then retries after 20 ms, and records that arrive
#: meanwhile wait for the transaction after that.
MIN_INTERVAL_S = 0.02
#: Transactions of a background topic always wait for more records, but not longer than this.
BACKGROUND_WAIT_S = 0.2
TRANSACTION_TIMEOUT_MS = 60_000
#: Source topic name and cache size of the temporary task that rebuilds a table.
REBUILD = "rebuild"
REBUILD_CACHE_BYTES = 16 * 2**20

T = TypeVar("T")


class Transaction:
    """Effects of some chunks: values by table, records for other topics, next source offset."""

    def __init__(self, position: int) -> None:
        self.position = position
        self.changes: dict[str, Values] = {}
        self.outputs: list[tuple[TP, bytes | None, bytes | None, Headers]] = []
        self.latest: dict[tuple[TP, bytes], bytes] = {}
        self.commit_callbacks: list[Callable[[], None]] = []
        self.accumulators: dict[Callable[[Chunk, Any], None], Any] = {}
        self.records = 0
        self.bytes = 0


class PartitionTask:
    """The exactly-once bookkeeping of one source partition.

    Chunks folded while a transaction is in flight all belong to the next one. So transactions grow
    under load, and an idle worker commits each chunk at once.
    """

    def __init__(
        self, tp: TP, stores: dict[str, tuple[TP, Store]], producer: AIOKafkaProducer, cache_bytes: int,
        on_failure: Callable[[BaseException], Awaitable[None]], is_background: bool = False,
        position_headers: Headers | None = None,
    ) -> None:  # fmt: skip
        """Create the task of `tp`.

        `stores` maps a table's name to its changelog partition and its store.

        `on_failure` is called once when a transaction fails. `position_headers` are the headers of
        each position record.
        """
        self.tp = tp
        self._producer = producer
        self._changelogs = {name: changelog for name, (changelog, _) in stores.items()}
        self._cache = ValueCache(cache_bytes)
        self._states = {name: TableState(name, store, self._cache) for name, (_, store) in stores.items()}
        self._on_failure = on_failure
        #: A background task waits for more records even without a backlog, so that it commits less
        #: often.
        self._is_background = is_background
        self._position_headers = position_headers or []
        self._pending = Transaction(0)
        self._in_flight: Transaction | None = None
        self._step: Chunk | None = None
        self._changed = asyncio.Condition()
        self._commit_loop: asyncio.Task[None] | None = None
        self._has_failed = False
        self._has_backlog = False
        self._is_settling = False
        #: Time of the last commit, by the event loop's clock.
        self._committed_at = float("-inf")
        #: The next offset to fold, and the next offset whose effects are not durable yet.
        self.position = 0
        self.durable = 0

    def open(self, position: int) -> None:
        """Start to commit at `position`, when the tables are complete up to it."""
        self.position = self.durable = position
        self._pending = self._new_transaction(position)
        self._commit_loop = asyncio.create_task(self._commit_continuously(), name=f"commit {self.tp}")

    async def start(self) -> None:
        """Become the only writer: Kafka aborts transactions of former owners and fences them."""
        await self._producer.start()

    async def close(self) -> None:
        """Finish the transaction in flight, start no other, and stop the producer."""
        await self.stop_commits()
        await self._producer.stop()

    async def release(self) -> AIOKafkaProducer | None:
        """Close, but return the producer for reuse if all its transactions were committed.

        Otherwise the producer is stopped, and the result is None.
        """
        await self.stop_commits()
        if self._has_failed or self._in_flight is not None:
            await self._producer.stop()
            return None
        return self._producer

    async def stop_commits(self) -> None:
        """Finish the transaction in flight and start no other."""
        if self._commit_loop is not None:
            self._commit_loop.cancel()
            await asyncio.wait([self._commit_loop])

    # -- before `open`: tables that are new or rebuilt

    async def write(self, changes: Mapping[str, Mapping[bytes, bytes | None]]) -> dict[str, int]:
        """Write values of some tables in a transaction of their own.

        Returns the changelog offset of the first value of each table.
        """
        return await shield_until_done(self._write(changes, {}, self.durable))

    def for_rebuild(self, name: str, on_failure: Callable[[BaseException], Awaitable[None]]) -> PartitionTask:
        """Return a task for one table, to use instead of this one before `open`.

        Its source topic is REBUILD.
        """
        stores = {name: (self._changelogs[name], self._states[name].store)}
        return PartitionTask(TP(REBUILD, self.tp.partition), stores, self._producer, REBUILD_CACHE_BYTES, on_failure)

    # -- called by the stream and by chunks

    def begin_step(self, record_range: RecordRange) -> Chunk | None:
        """Open the step for a record range; None if all of it is folded already.

        Raises RecordGap.
        """
        if record_range.next <= self.position:
            return None
        if record_range.first > self.position:
            raise RecordGap(
                f"{self.tp.topic}[{self.tp.partition}]: records {self.position} to {record_range.first - 1} were not "
                "delivered; start the worker again, it continues at its last committed position"
            )
        if record_range.first < self.position:
            records = [record for record in record_range.records if record[0] >= self.position]
            record_range = record_range._replace(first=self.position, records=records)
        self._step = Chunk(self.tp, record_range, self)
        return self._step

    async def end_step(self, chunk: Chunk) -> None:
        """Add the results of the step to the pending transaction; waits while that is too large."""
        self._merge_chunk(chunk)
        self._pending.records += len(chunk.records)
        self._pending.position = self.position = chunk.next
        self._has_backlog = chunk.end - chunk.next >= CHUNK_RECORDS
        self._step = None
        async with self._changed:
            self._changed.notify_all()
            await self._changed.wait_for(lambda: self._pending.bytes < MAX_PENDING_BYTES or self._has_failed)

    async def settle(self) -> bool:
        """Wait until no step is open and everything is durable; False if a transaction failed."""
        async with self._changed:
            self._is_settling = True
            self._changed.notify_all()
            await self._changed.wait_for(
                lambda: self._has_failed or (self._step is None and self.durable == self.position)
            )
            self._is_settling = False
        return not self._has_failed

    def accumulate(self, create: Callable[[], T], flush: Callable[[Chunk, T], None]) -> T:
        """Return the accumulator of `flush` in the pending transaction; create it on first use."""
        accumulators = self._pending.accumulators
        if flush not in accumulators:
            accumulators[flush] = create()
        accumulator: T = accumulators[flush]
        return accumulator

    def view(self, table: NamedTable) -> TableView:
        """Return `table` as the open step sees it."""
        return TableView(self._states[table.name])

    def _merge_chunk(self, chunk: Chunk) -> None:
        transaction = self._pending
        for view in chunk.views:
            changes = view.changes
            if changes:
                self._cache.update(view.name, changes)
                transaction.changes[view.name].update(changes)
                transaction.bytes += sum(map(len, changes)) + sum(map(len, filter(None, changes.values())))
        transaction.outputs += chunk.outputs
        transaction.bytes += sum(len(value or b"") for _, _, value, _ in chunk.outputs)
        transaction.latest.update(chunk.latest)
        transaction.commit_callbacks += chunk.commit_callbacks

    # -- committing

    def _new_transaction(self, position: int) -> Transaction:
        transaction = Transaction(position)
        for name, state in self._states.items():
            transaction.changes[name] = {}
            in_flight = self._in_flight.changes[name] if self._in_flight else {}
            state.uncommitted = [transaction.changes[name], in_flight]
        return transaction

    async def _commit_continuously(self) -> None:
        """Commit transaction after transaction.

        1. Wait until the pending transaction is due; then no step is open. 2. Flush the
        accumulators into it. 3. Put it in flight; steps from now on belong to a new pending one. 4.
        Commit it: Kafka first, then the local stores. 5. Only now move the durable offset, and run
        the callbacks: the values can be read. 6. Views need the values in flight no longer.
        """
        try:
            while True:
                # 1.
                await self._wait_for_commit()
                # 2.
                self._flush_accumulators()
                # 3.
                transaction = self._in_flight = self._pending
                self._pending = self._new_transaction(transaction.position)
                # 4.
                await shield_until_done(self._commit(transaction))
                # 5.
                self.durable = transaction.position
                for callback in transaction.commit_callbacks:
                    callback()
                # 6.
                self._in_flight = None
                for name, state in self._states.items():
                    state.uncommitted = [self._pending.changes[name]]
                async with self._changed:
                    self._changed.notify_all()
        except Exception as exc:
            self._has_failed = True
            async with self._changed:
                self._changed.notify_all()
            await self._on_failure(exc)

    async def _wait_for_commit(self) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: self._pending.position > self.durable)
        # The condition is not held during this pause: steps that end meanwhile belong to this
        # transaction.
        await asyncio.sleep(self._committed_at + MIN_INTERVAL_S - asyncio.get_running_loop().time())
        async with self._changed:
            wait_s = BACKLOG_WAIT_S if self._has_backlog else BACKGROUND_WAIT_S
            try:
                await asyncio.wait_for(self._changed.wait_for(self._is_due), wait_s)
            except asyncio.TimeoutError:
                pass
            # A transaction is cut between two steps: what a step accumulates belongs to the
            # transaction of its end.
            await self._changed.wait_for(lambda: self._step is None)

    def _flush_accumulators(self) -> None:
        transaction = self._pending
        for flush, accumulator in transaction.accumulators.items():
            chunk = Chunk(self.tp, RecordRange(transaction.position, transaction.position, []), self)
            flush(chunk, accumulator)
            self._merge_chunk(chunk)

    def _is_due(self) -> bool:
        """Return whether the pending transaction is large, or no more records are expected."""
        pending = self._pending
        is_idle = self._is_settling or not (self._has_backlog or self._is_background)
        return is_idle or pending.records >= FULL_RECORDS or pending.bytes > MAX_PENDING_BYTES // 2

    async def _commit(self, transaction: Transaction) -> None:
        if not transaction.records:
            return  # offsets without records, such as transaction markers: they need not be stored
        names = [name for name, changes in transaction.changes.items() if changes] or [next(iter(self._states))]
        for name in names:
            transaction.changes[name][position_key(self.tp.topic)] = b"%d" % transaction.position
        changes = {name: transaction.changes[name] for name in names}
        await self._write(changes, self._group_outputs(transaction), self.durable)

    async def _write(
        self, changes: Mapping[str, Mapping[bytes, bytes | None]], outputs: Mapping[TP, list[_Message]], since: int
    ) -> dict[str, int]:
        """Make a transaction durable; return the changelog offset of the first value of each table.

        1. Send everything in one Kafka transaction: values and position to the changelogs, records
        to other topics. 2. Wait until the broker has acknowledged all of it. 3. Commit the
        transaction: from now on it counts. 4. Write values, position and changelog offset to each
        local store in one batch, then wake the watches of the keys.
        """
        source_position_key = position_key(self.tp.topic)
        sent: dict[TP, list[_Batch]] = {}
        try:
            await self._producer.begin_transaction()
            # 1.
            for tp, messages in outputs.items():
                await self._send(tp, messages, sent)
            for name, values in changes.items():
                with_headers = (
                    (key, value, self._position_headers if key == source_position_key else [])
                    for key, value in values.items()
                )
                await self._send(self._changelogs[name], with_headers, sent)
            # 2.
            await _wait_for_acknowledgement(sent)
            batches = {name: sent[self._changelogs[name]] for name in changes}
            # 3.
            await self._producer.commit_transaction()
            self._committed_at = asyncio.get_running_loop().time()
        except (ProducerFenced, InvalidProducerEpoch):
            raise Fenced(
                f"another worker has taken over {self.tp.topic}[{self.tp.partition}] because this one did not respond; "
                "its uncommitted work is discarded: start this worker again"
            ) from None
        except InvalidTimestampError as exc:
            raise RecordRefused(
                "Kafka refused records because of their timestamps: correct the clock of this machine or of the "
                f"broker, then start the worker again; nothing of {self.tp.topic}[{self.tp.partition}] from offset "
                f"{since} on is committed"
            ) from exc
        except (MessageSizeTooLargeError, RecordListTooLargeError) as exc:
            raise RecordRefused(
                f"Kafka refused a batch of records derived from {self.tp.topic}[{self.tp.partition}] because of its "
                f"size: set max.message.bytes of {', '.join(sorted({tp.topic for tp in sent}))} to at least "
                f"{2**20 + 12}, or to the size of its largest record; nothing from offset {since} on is committed"
            ) from exc
        except (KafkaError, IllegalOperation) as exc:
            raise RecordRefused(
                f"Kafka refused a record derived from {self.tp.topic}[{self.tp.partition}], or did not answer "
                f"({exc!r}); nothing from offset {since} on is committed"
            ) from exc
        # 4.
        for name, values in changes.items():
            store = self._states[name].store
            await in_store_thread(store.apply, values.items(), _offset_after(batches[name]), COMMIT_MARKERS)
            store.watches.notify(values)
        return {name: batches[name][0][0].result().offset for name in changes}

    def _group_outputs(self, transaction: Transaction) -> dict[TP, list[_Message]]:
        by_partition: dict[TP, list[_Message]] = {}
        for tp, key, value, headers in transaction.outputs:
            by_partition.setdefault(tp, []).append((key, value, headers))
        for (tp, key), value in transaction.latest.items():
            by_partition.setdefault(tp, []).append((key, value, []))
        return by_partition

    async def _send(self, tp: TP, messages: Iterable[_Message], sent: dict[TP, list[_Batch]]) -> None:
        """Send messages in as few record batches as possible, and add the batches to `sent`."""

        async def submit() -> None:
            try:
                future = await self._producer.send_batch(batch, tp.topic, partition=tp.partition)
            except IllegalOperation:
                # The transaction has failed already: the futures of the earlier batches hold the
                # cause.
                await _wait_for_acknowledgement(sent)
                raise
            sent.setdefault(tp, []).append((future, batch.record_count()))

        batch = self._producer.create_batch()
        for key, value, headers in messages:
            if batch.append(timestamp=None, key=key, value=value, headers=headers) is None:
                await submit()
                await asyncio.sleep(0)
                batch = self._producer.create_batch()
                batch.append(timestamp=None, key=key, value=value, headers=headers)
        await submit()


async def shield_until_done(work: Coroutine[Any, Any, T]) -> T:
    """Await `work`, which must not be interrupted: a cancelled caller waits for its end."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.gather(task, return_exceptions=True)
        raise


async def _wait_for_acknowledgement(sent: dict[TP, list[_Batch]]) -> None:
    """Wait until the broker has acknowledged all batches; raise the first error."""
    futures = [future for batches in sent.values() for future, _ in batches]
    for result in await asyncio.gather(*futures, return_exceptions=True):
        if isinstance(result, BaseException):
            raise result


def _offset_after(batches: list[_Batch]) -> int:
    """Return the changelog offset after the last of these batches, which are acknowledged."""
    return max(int(future.result().offset) + count for future, count in batches)
