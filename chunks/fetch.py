"""The one place that touches what is private in aiokafka: records as plain tuples, straight from its fetch buffers.

`AIOKafkaConsumer.getmany` makes an object of eleven fields for each record; that costs more than decoding it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator

from aiokafka import AIOKafkaConsumer
from aiokafka.consumer.fetcher import READ_COMMITTED, FetchResult, PartitionRecords
from aiokafka.errors import ConsumerStoppedError, CorruptRecordException
from faust.types import TP

from chunks.records import RecordRange

#: How long the broker may hold back an answer while it has no records: partitions that are asked for together wait
#: for each other so long.
FETCH_MAX_WAIT_MS = 50


def tune_consumer(consumer: AIOKafkaConsumer) -> AIOKafkaConsumer:
    """Set what Faust fixes: a shorter wait, and no records of transactions that are open or aborted."""
    consumer._fetch_max_wait_ms = FETCH_MAX_WAIT_MS
    consumer._isolation_level = "read_committed"
    return consumer


async def fetch_ranges(
    consumer: AIOKafkaConsumer, partitions: Collection[TP], timeout_s: float, max_records: int
) -> dict[TP, list[RecordRange]]:
    """What has arrived for the partitions `wanted`, in runs of at most `most` records.

    Waits up to `timeout_s` for the first. A run may be empty: then its offsets hold nothing to read, such as markers of
    transactions. An assignment ends the wait. Raises what the fetch met: KafkaError.
    """
    fetcher = consumer._fetcher
    if consumer._closed or fetcher._closed:
        raise ConsumerStoppedError()
    with fetcher._subscriptions.fetch_context():
        if fetcher._subscriptions.reassignment_in_progress:
            # What is wanted then is another question.
            await fetcher._subscriptions.wait_for_assignment()
            return {}
        found = _take_fetched(fetcher, partitions, max_records)
        if not found and timeout_s:
            waiter = fetcher._create_fetch_waiter()
            # Whoever gets other partitions waits for the end of this.
            given_up = fetcher._subscriptions.subscription.assignment.unassign_future
            await asyncio.wait([waiter, given_up], timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            if fetcher._closed:
                return {}
            if not waiter.done():
                waiter.cancel()
                return {}
            waiter.result()
            found = _take_fetched(fetcher, partitions, max_records)
        return found


def high_watermark(consumer: AIOKafkaConsumer, tp: TP) -> int | None:
    """Where a partition ended when it was last fetched; None before that, and for one that is not assigned."""
    subscription = consumer._subscription.subscription
    assignment = None if subscription is None else subscription.assignment
    known = None if assignment is None else assignment.state_value(tp)
    return None if known is None else known.highwater


def _take_fetched(fetcher, wanted: Collection[TP], most: int) -> dict[TP, list[RecordRange]]:
    found = {}
    for tp in list(fetcher._records):
        result = fetcher._records[tp]
        if tp not in wanted:
            # What was fetched before the partition was paused would hold up the others of its broker.
            if not fetcher._subscriptions.is_assigned(tp) or _partition_state(fetcher, tp).paused:
                del fetcher._records[tp]
            continue
        if found and not isinstance(result, FetchResult):
            break  # deliver those first, then raise
        del fetcher._records[tp]
        fetcher._notify(fetcher._wait_consume_future)
        if not isinstance(result, FetchResult):
            result.check_raise()
        if result.check_assignment(tp) and result.has_more():
            found[TP(*tp)] = list(_split_fetch_result(result, most, _partition_state(fetcher, tp).highwater or 0))
    return found


def _partition_state(fetcher, tp: TP):
    """What aiokafka knows of an assigned partition."""
    return fetcher._subscriptions.subscription.assignment.state_value(tp)


def _split_fetch_result(result: FetchResult, most: int, end: int = 0) -> Iterator[RecordRange]:
    """Empty one fetch result of a partition that ends at `end`, and move the position behind it."""
    partition = result._partition_records
    first = partition.next_fetch_offset
    records = list(_iterate_records(partition))
    result._update_position()
    result._partition_records = None
    # A generator that was never started refers to its partition: a cycle that would keep the fetched bytes.
    partition._records_iterator = None
    for start in range(0, len(records) - most, most):
        part = records[start : start + most]
        yield RecordRange(first, part[-1][0] + 1, part, end)
        first = part[-1][0] + 1
    rest = records[(len(records) - 1) // most * most :] if records else []
    yield RecordRange(first, partition.next_fetch_offset, rest, end)


def _iterate_records(partition: PartitionRecords) -> Iterator[tuple[int, bytes | None, bytes | None]]:
    """Offset, key and value of each record that may be read, as `PartitionRecords._unpack_records` finds them."""
    batches = partition._records
    while batches.has_next():
        batch = batches.next_batch()
        if partition._check_crcs and not batch.validate_crc():
            raise CorruptRecordException(f"Invalid CRC - {partition._tp}")
        if not _is_skipped(partition, batch):
            start = partition.next_fetch_offset
            # A fetch begins with the whole batch that holds the offset asked for.
            yield from [(one.offset, one.key, one.value) for one in batch if one.offset >= start]
        partition.next_fetch_offset = batch.next_offset


def _is_skipped(partition: PartitionRecords, batch) -> bool:
    """Whether the batch is a marker of a transaction or belongs to an aborted one."""
    if partition._isolation_level == READ_COMMITTED and batch.producer_id is not None:
        partition._consume_aborted_up_to(batch.base_offset)
        if batch.is_control_batch:
            if partition._contains_abort_marker(batch):
                partition._aborted_producers.discard(batch.producer_id)
        elif batch.is_transactional and batch.producer_id in partition._aborted_producers:
            return True
    return batch.is_control_batch
