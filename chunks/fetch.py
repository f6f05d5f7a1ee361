"""Fetching of records as plain tuples from aiokafka's fetch buffers.

Other modules, except `chunks.batches`, leave aiokafka's fetcher and its private attributes alone.

`AIOKafkaConsumer.getmany` creates an object of eleven fields for each record, which costs more than
decoding it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator

from aiokafka import AIOKafkaConsumer
from aiokafka.consumer.fetcher import Fetcher, FetchResult, PartitionRecords
from aiokafka.consumer.subscription_state import TopicPartitionState
from aiokafka.errors import ConsumerStoppedError
from faust.types import TP

from chunks.batches import next_batches, read_tolerantly
from chunks.records import FETCH_MAX_WAIT_MS, FetchedRecord, RecordRange


def tune_consumer(consumer: AIOKafkaConsumer, max_wait_ms: int = FETCH_MAX_WAIT_MS) -> AIOKafkaConsumer:
    """Set options that Faust does not offer: a short broker wait, and committed records only.

    The broker waits up to `max_wait_ms` for the first record. Unreadable records raise no error.
    Returns `consumer`.
    """
    read_tolerantly()
    consumer._fetch_max_wait_ms = max_wait_ms
    consumer._isolation_level = "read_committed"
    return consumer


async def fetch_ranges(
    consumer: AIOKafkaConsumer, partitions: Collection[TP], timeout_s: float, max_records: int
) -> dict[TP, list[RecordRange]]:
    """Return the fetched records of `partitions`, in ranges of at most `max_records` records.

    Waits up to `timeout_s` for the first record; a new assignment ends the wait. A range without
    records covers offsets that contain none, such as transaction markers. Raises KafkaError.
    """
    fetcher = consumer._fetcher
    if consumer._closed or fetcher._closed:
        raise ConsumerStoppedError()
    with fetcher._subscriptions.fetch_context():
        if fetcher._subscriptions.reassignment_in_progress:
            # The caller's partitions may not be assigned any more.
            await fetcher._subscriptions.wait_for_assignment()
            return {}
        ranges = _take_fetched(fetcher, partitions, max_records)
        if not ranges and timeout_s:
            waiter = fetcher._create_fetch_waiter()
            # A rebalance waits for the end of this fetch.
            unassigned = fetcher._subscriptions.subscription.assignment.unassign_future
            await asyncio.wait([waiter, unassigned], timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            if fetcher._closed:
                return {}
            if not waiter.done():
                waiter.cancel()
                return {}
            waiter.result()
            ranges = _take_fetched(fetcher, partitions, max_records)
        return ranges


def high_watermark(consumer: AIOKafkaConsumer, tp: TP) -> int | None:
    """Return the end offset of a partition at its last fetch; None if it was not fetched."""
    subscription = consumer._subscription.subscription
    assignment = None if subscription is None else subscription.assignment
    state = None if assignment is None else assignment.state_value(tp)
    return None if state is None else state.highwater


def _take_fetched(fetcher: Fetcher, partitions: Collection[TP], max_records: int) -> dict[TP, list[RecordRange]]:
    ranges: dict[TP, list[RecordRange]] = {}
    for tp in list(fetcher._records):
        result = fetcher._records[tp]
        if tp not in partitions:
            # Records fetched before a partition was paused would block the other partitions of its
            # broker.
            if not fetcher._subscriptions.is_assigned(tp) or _partition_state(fetcher, tp).paused:
                del fetcher._records[tp]
            continue
        if ranges and not isinstance(result, FetchResult):
            break  # deliver the records first, raise the error at the next call
        del fetcher._records[tp]
        fetcher._notify(fetcher._wait_consume_future)
        if not isinstance(result, FetchResult):
            result.check_raise()
        if result.check_assignment(tp) and result.has_more():
            end = _partition_state(fetcher, tp).highwater or 0
            ranges[TP(*tp)] = list(_split_fetch_result(result, max_records, end))
    return ranges


def _partition_state(fetcher: Fetcher, tp: TP) -> TopicPartitionState:
    """Return aiokafka's state of an assigned partition."""
    return fetcher._subscriptions.subscription.assignment.state_value(tp)


def _split_fetch_result(result: FetchResult, max_records: int, end: int = 0) -> Iterator[RecordRange]:
    """Take all records of a fetch result and advance the consumer's position.

    `end` is the end offset of the partition.
    """
    partition = result._partition_records
    first = partition.next_fetch_offset
    records = list(_iterate_records(partition))
    result._update_position()
    result._partition_records = None
    # A generator that was never started refers to its partition: the cycle would keep the fetched
    # bytes in memory.
    partition._records_iterator = None
    for start in range(0, len(records) - max_records, max_records):
        part = records[start : start + max_records]
        yield RecordRange(first, part[-1][0] + 1, part, end)
        first = part[-1][0] + 1
    remaining = records[(len(records) - 1) // max_records * max_records :] if records else []
    yield RecordRange(first, partition.next_fetch_offset, remaining, end)


def _iterate_records(partition: PartitionRecords) -> Iterator[FetchedRecord]:
    """Yield offset, key and value of each committed record.

    Replaces `PartitionRecords._unpack_records`.
    """
    for batch in next_batches(partition):
        # A fetch returns whole batches: the first one may begin before the requested offset.
        yield from partition._records.tuples(batch, partition._tp, partition.next_fetch_offset)
