"""One source partition while this worker owns it: what was folded, what is being committed, what is durable."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from aiokafka import AIOKafkaProducer
from aiokafka.errors import IllegalOperation, InvalidProducerEpoch, InvalidTimestampError, KafkaError, ProducerFenced
from faust.types import TP

from chunks.chunk import Chunk
from chunks.errors import Fenced, RecordGap, RecordRefused
from chunks.records import CHUNK_RECORDS, Headers, RecordRange
from chunks.store import COMMIT_MARKERS, Store, in_store_thread, position_key
from chunks.view import TableState, TableView, ValueCache, Values

if TYPE_CHECKING:
    from chunks.table import Table

#: The future of a record batch that was sent, and how many records it holds.
_Batch = tuple[asyncio.Future, int]
_Message = tuple[bytes | None, bytes | None, Headers]

#: Kafka's default limit of a record batch (max.message.bytes) is 1 MiB and a few bytes.
BATCH_BYTES = 900_000
#: Room for one record that is larger than that, where the topic allows it; the broker has the last word.
MAX_REQUEST_BYTES = 5 * 2**20
#: What may wait for the transaction under way to end before the agent waits too.
MAX_WAITING_BYTES = 16 * 2**20
#: While there is a backlog a transaction waits for so many records, but not longer than so many seconds.
FULL_RECORDS = 20_000
PATIENCE_S = 0.5
#: So long after a transaction the next one begins at the earliest. At once Kafka would refuse it, as it still writes
#: the markers of the last (42 % of back-to-back transactions of 4 producers on a busy machine of 2 cores, after 8 ms
#: 2 %), and aiokafka try again after 20 ms, while what arrives has to wait for the transaction after that.
BETWEEN_S = 0.02
#: A background topic's transactions always wait for more records, but not longer than so many seconds.
BACKGROUND_PATIENCE_S = 0.2
TRANSACTION_TIMEOUT_MS = 60_000
#: What a task of a rebuild is called, and may remember.
REBUILD = "rebuild"
REBUILD_CACHE_BYTES = 16 * 2**20

T = TypeVar("T")


class Transaction:
    """The effects of some chunks: values by table, records for other topics, and the source offset after them."""

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

    Where several chunks were folded while a transaction was under way, the next one takes all of them: under load
    transactions grow, at rest each chunk is committed at once.
    """

    def __init__(
        self, tp: TP, stores: dict[str, tuple[TP, Store]], producer: AIOKafkaProducer, cache_bytes: int,
        on_failure: Callable[[BaseException], Awaitable[None]], is_background: bool = False,
        position_headers: Headers | None = None,
    ) -> None:  # fmt: skip
        self.tp = tp
        self._producer = producer
        self._changelogs = {name: changelog for name, (changelog, _) in stores.items()}
        self._cache = ValueCache(cache_bytes)
        self._states = {name: TableState(name, store, self._cache) for name, (_, store) in stores.items()}
        self._on_failure = on_failure
        #: Whether its transactions wait for more also when there is no backlog, so that there are fewer.
        self._is_background = is_background
        #: Headers of each position that is written.
        self._position_headers = position_headers or []
        self._pending = Transaction(0)
        self._in_flight: Transaction | None = None
        self._step: Chunk | None = None
        self._changed = asyncio.Condition()
        self._commit_loop: asyncio.Task | None = None
        self._has_failed = False
        self._has_backlog = False
        self._is_settling = False
        #: When the last transaction was committed, by the clock of the loop.
        self._committed_at = float("-inf")
        #: The next offset to fold, and the next offset whose effects are not durable yet.
        self.position = 0
        self.durable = 0

    def open(self, position: int) -> None:
        """Begin at `position`, once the tables are complete up to it."""
        self.position = self.durable = position
        self._pending = self._new_transaction(position)
        self._commit_loop = asyncio.create_task(self._commit_continuously(), name=f"commit {self.tp}")

    async def start(self) -> None:
        """Become the only one who can write: this ends what former owners have open, and shuts them out."""
        await self._producer.start()

    async def close(self) -> None:
        """Let the transaction under way end, begin no other, and give up the producer."""
        await self.stop_commits()
        await self._producer.stop()

    async def release(self) -> AIOKafkaProducer | None:
        """Close, but leave the producer to whoever is next, if all that it has begun has ended well."""
        await self.stop_commits()
        if self._has_failed or self._in_flight is not None:
            await self._producer.stop()
            return None
        return self._producer

    async def stop_commits(self) -> None:
        """Let the transaction under way end, and begin no other."""
        if self._commit_loop is not None:
            self._commit_loop.cancel()
            await asyncio.wait([self._commit_loop])

    # -- before it is open: tables that begin, or begin anew

    async def write(self, changes: Mapping[str, Values]) -> dict[str, int]:
        """Write values of some tables in a transaction of their own; the offset of the first one of each."""
        return await shield_until_done(self._write(changes, {}, self.durable))

    def for_rebuild(self, name: str, on_failure: Callable[[BaseException], Awaitable[None]]) -> PartitionTask:
        """A task for one table, to be used instead of this one before it is open: of a source called `rebuild`."""
        states = {name: (self._changelogs[name], self._states[name].store)}
        return PartitionTask(TP(REBUILD, self.tp.partition), states, self._producer, REBUILD_CACHE_BYTES, on_failure)

    # -- what the stream asks for

    def begin_step(self, run: RecordRange) -> Chunk | None:
        """Open the step for `run`; None when all of it was folded before. Raises Gap when records are missing."""
        if run.next <= self.position:
            return None
        if run.first > self.position:
            raise RecordGap(
                f"{self.tp.topic}[{self.tp.partition}]: records {self.position} to {run.first - 1} were not delivered; "
                "start the worker again, it reads on from its last committed position"
            )
        if run.first < self.position:
            run = run._replace(first=self.position, records=[one for one in run.records if one[0] >= self.position])
        self._step = Chunk(self.tp, run, self)
        return self._step

    async def end_step(self, chunk: Chunk) -> None:
        """Take over what the step assigned and sent; waits while too much is not committed yet."""
        self._merge_chunk(chunk)
        self._pending.records += len(chunk.records)
        self._pending.position = self.position = chunk.next
        self._has_backlog = chunk.end - chunk.next >= CHUNK_RECORDS
        self._step = None
        async with self._changed:
            self._changed.notify_all()
            await self._changed.wait_for(lambda: self._pending.bytes < MAX_WAITING_BYTES or self._has_failed)

    async def settle(self) -> bool:
        """Wait until the step that is open has ended and all that was folded is durable; False when it cannot be."""
        async with self._changed:
            self._is_settling = True
            self._changed.notify_all()
            await self._changed.wait_for(
                lambda: self._has_failed or (self._step is None and self.durable == self.position)
            )
            self._is_settling = False
        return not self._has_failed

    def accumulate(self, make: Callable[[], Any], write: Callable[[Chunk, Any], None]) -> Any:
        """What is collected for `write` over all chunks of the transaction."""
        collected = self._pending.accumulators
        if write not in collected:
            collected[write] = make()
        return collected[write]

    def view(self, table: Table) -> TableView:
        """`table` as the open step sees it."""
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
            under_way = self._in_flight.changes[name] if self._in_flight else {}
            state.uncommitted = [transaction.changes[name], under_way]
        return transaction

    async def _commit_continuously(self) -> None:
        try:
            while True:
                await self._wait_for_commit()
                self._flush_accumulators()
                self._in_flight = self._pending
                self._pending = self._new_transaction(self._in_flight.position)
                await shield_until_done(self._commit(self._in_flight))
                self.durable = self._in_flight.position
                for tell in self._in_flight.commit_callbacks:
                    tell()
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
        # Not while the condition is held: what is folded meanwhile belongs to this transaction.
        await asyncio.sleep(self._committed_at + BETWEEN_S - asyncio.get_running_loop().time())
        async with self._changed:
            patience_s = PATIENCE_S if self._has_backlog else BACKGROUND_PATIENCE_S
            try:
                await asyncio.wait_for(self._changed.wait_for(self._is_due), patience_s)
            except asyncio.TimeoutError:
                pass
            # Between two steps: what a step collects belongs to the transaction that it ends in.
            await self._changed.wait_for(lambda: self._step is None)

    def _flush_accumulators(self) -> None:
        """Write what was collected over the chunks of the transaction."""
        transaction = self._pending
        for write, collected in transaction.accumulators.items():
            last = Chunk(self.tp, RecordRange(transaction.position, transaction.position, []), self)
            write(last, collected)
            self._merge_chunk(last)

    def _is_due(self) -> bool:
        """Whether the next transaction is large enough, or nothing more is likely to come soon."""
        waiting = self._pending
        quiet = self._is_settling or not (self._has_backlog or self._is_background)
        return quiet or waiting.records >= FULL_RECORDS or waiting.bytes > MAX_WAITING_BYTES // 2

    async def _commit(self, transaction: Transaction) -> None:
        if not transaction.records:
            return  # offsets without records, such as the markers of transactions: nothing is lost with them
        written = [name for name, changes in transaction.changes.items() if changes] or [next(iter(self._states))]
        for name in written:
            transaction.changes[name][position_key(self.tp.topic)] = b"%d" % transaction.position
        changes = {name: transaction.changes[name] for name in written}
        await self._write(changes, self._group_outputs(transaction), self.durable)

    async def _write(
        self, changes: Mapping[str, Values], outputs: Mapping[TP, list[_Message]], since: int
    ) -> dict[str, int]:
        """Make a transaction durable; the changelog offset of the first value of each table.

        1. Everything goes to Kafka in one transaction: values and position to the changelogs, records to other topics.
        2. All of it is acknowledged. 3. The transaction is committed; now it has happened. 4. Values, position and
        changelog offset are written to the local stores, one batch each, and whoever watches them is told.
        """
        at = position_key(self.tp.topic)
        sent: dict[TP, list[_Batch]] = {}
        try:
            await self._producer.begin_transaction()
            # 1.
            for tp, messages in outputs.items():
                await self._send(tp, messages, sent)
            for name, values in changes.items():
                stamped = ((key, value, self._position_headers if key == at else []) for key, value in values.items())
                await self._send(self._changelogs[name], stamped, sent)
            # 2.
            await _acknowledged(sent)
            batches = {name: sent[self._changelogs[name]] for name in changes}
            # 3.
            await self._producer.commit_transaction()
            self._committed_at = asyncio.get_running_loop().time()
        except (ProducerFenced, InvalidProducerEpoch):
            raise Fenced(
                f"another worker has taken over {self.tp.topic}[{self.tp.partition}] while this one was silent; "
                "what it had not committed is discarded: start this worker again"
            ) from None
        except InvalidTimestampError as exc:
            raise RecordRefused(
                "Kafka refused records for their time: set the clock of this machine, or the broker's, then start the "
                f"worker again; nothing of {self.tp.topic}[{self.tp.partition}] from offset {since} on is committed"
            ) from exc
        except (KafkaError, IllegalOperation) as exc:
            raise RecordRefused(
                f"Kafka refused a record that follows from {self.tp.topic}[{self.tp.partition}], or did not answer "
                f"({exc!r}); nothing from offset {since} on is committed"
            ) from exc
        # 4.
        for name, values in changes.items():
            store = self._states[name].store
            await in_store_thread(store.apply, values.items(), _after_last(batches[name]), COMMIT_MARKERS)
            store.watches.notify(values)
        return {name: batches[name][0][0].result().offset for name in changes}

    def _group_outputs(self, transaction: Transaction) -> dict[TP, list[_Message]]:
        by_partition: dict[TP, list[_Message]] = {}
        for tp, *message in transaction.outputs:
            by_partition.setdefault(tp, []).append(tuple(message))
        for (tp, key), value in transaction.latest.items():
            by_partition.setdefault(tp, []).append((key, value, []))
        return by_partition

    async def _send(self, tp: TP, messages: Iterable[_Message], sent: dict[TP, list[_Batch]]) -> None:
        """Send messages in as few record batches as possible, and note them in `sent`."""

        async def submit() -> None:
            try:
                future = await self._producer.send_batch(batch, tp.topic, partition=tp.partition)
            except IllegalOperation:
                # The transaction has failed already: what was sent before knows why.
                await _acknowledged(sent)
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
    """Await `work`, which must not be left half done: whoever is cancelled meanwhile waits for its end."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.gather(task, return_exceptions=True)
        raise


async def _acknowledged(sent: dict[TP, list[_Batch]]) -> None:
    """Wait for all batches; raises what the first of them that was refused met."""
    futures = [future for batches in sent.values() for future, _ in batches]
    for answer in await asyncio.gather(*futures, return_exceptions=True):
        if isinstance(answer, BaseException):
            raise answer


def _after_last(batches: list[_Batch]) -> int:
    """The changelog offset after the last of these batches, which are acknowledged."""
    return max(future.result().offset + count for future, count in batches)
