"""How fetched records become steps: cut into runs, begun where the last one ended; and the check of the libraries."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import faust
import pytest
from aiokafka.consumer import fetcher
from aiokafka.consumer.fetcher import READ_COMMITTED, READ_UNCOMMITTED
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from faust.types import TP
from faust.types.tuples import Message

from chunks import ChunkSchema, UnsupportedLibrary, read_tolerantly
from chunks.check import SIGNATURES, VERSIONS, check_libraries
from chunks.chunk import Chunk
from chunks.errors import RecordGap
from chunks.fetch import _split_fetch_result
from chunks.partition_task import PartitionTask
from chunks.records import RecordRange
from chunks.store import Store

TP_0 = TP("orders", 0)
MOST = 5
LENGTHS = [0, 1, MOST - 1, MOST, MOST + 1, 2 * MOST - 1, 2 * MOST, 2 * MOST + 1, 7 * MOST]


# -- fetch: from a fetch result to runs


def batch(first: int, count: int, *, compression: int = 0, producer: int = -1, transactional: bool = False) -> bytes:
    """A record batch as it is on the wire; its records are named after their offsets."""
    builder = DefaultRecordBatchBuilder(
        2, compression, is_transactional=transactional, producer_id=producer, producer_epoch=0, base_sequence=0,
        batch_size=10**6,
    )  # fmt: skip
    for place in range(count):
        offset = b"%d" % (first + place)
        builder.append(place, 0, b"key " + offset, b"value " + offset, [])
    made = builder.build()
    made[:8] = first.to_bytes(8, "big")  # not part of the checksum
    return bytes(made)


class FetchResult:
    """What _runs asks of aiokafka's FetchResult; the position is noted instead of told to the subscription."""

    def __init__(self, data: bytes, fetch_offset: int = 0, *, aborted: tuple = (), isolation: int = READ_COMMITTED):
        read_tolerantly()
        self._partition_records = fetcher.PartitionRecords(
            TP_0, fetcher.MemoryRecords(data), list(aborted), fetch_offset, None, None, True, isolation
        )
        self.position = fetch_offset

    def _update_position(self) -> None:
        self.position = self._partition_records.next_fetch_offset


def named(first: int, end: int) -> list[tuple[int, bytes, bytes]]:
    return [(offset, b"key %d" % offset, b"value %d" % offset) for offset in range(first, end)]


def assert_contiguous(runs: list[RecordRange], first: int, end: int) -> None:
    assert runs[0].first == first
    assert runs[-1].next == end
    assert all(one.next == following.first for one, following in pairwise(runs))
    for run in runs:
        assert all(run.first <= offset < run.next for offset, *_ in run.records)


@pytest.mark.parametrize("count", LENGTHS[1:])
def test_records_are_cut_into_runs_without_a_hole(count):
    result = FetchResult(batch(100, count), 100)

    runs = list(_split_fetch_result(result, MOST))

    assert [one for run in runs for one in run.records] == named(100, 100 + count)
    assert_contiguous(runs, 100, 100 + count)
    assert [len(run.records) for run in runs[:-1]] == [MOST] * (len(runs) - 1)
    assert 1 <= len(runs[-1].records) <= MOST
    assert result.position == 100 + count
    assert result._partition_records is None


def test_no_records_are_one_empty_run():
    assert list(_split_fetch_result(FetchResult(b"", 7), MOST)) == [RecordRange(7, 7, [])]


@pytest.mark.parametrize("start", range(100, 100 + 2 * MOST))
def test_a_fetch_from_the_middle_of_a_batch_delivers_from_there_on(start):
    runs = list(_split_fetch_result(FetchResult(batch(100, 2 * MOST) + batch(100 + 2 * MOST, 1), start), MOST))

    assert [one for run in runs for one in run.records] == named(start, 101 + 2 * MOST)
    assert_contiguous(runs, start, 101 + 2 * MOST)


@pytest.mark.parametrize("after", [1, 4])
def test_offsets_that_compaction_took_away_belong_to_a_run_too(after):
    """Before the first record, between two batches and behind the last record nothing is left."""
    data = batch(10, 2) + batch(20, 3)

    runs = list(_split_fetch_result(FetchResult(data, 5), after))

    assert [one for run in runs for one in run.records] == named(10, 12) + named(20, 23)
    assert_contiguous(runs, 5, 23)


def test_records_of_aborted_transactions_are_skipped_and_their_offsets_are_not():
    # Producer 7 aborts what it began at 10; 8 and whoever has no transaction are not concerned.
    data = (
        batch(10, 2, producer=7, transactional=True)
        + batch(12, 2, producer=8, transactional=True)
        + batch(14, 2)
        + batch(16, 4, producer=7, transactional=True)
    )

    runs = list(_split_fetch_result(FetchResult(data, 10, aborted=((7, 10),)), MOST))

    assert [one for run in runs for one in run.records] == named(12, 16)
    assert_contiguous(runs, 10, 20)
    everything = list(_split_fetch_result(FetchResult(data, 10, isolation=READ_UNCOMMITTED), MOST))
    assert [one for run in everything for one in run.records] == named(10, 20)


def test_a_fetch_of_nothing_but_aborted_records_is_an_empty_run():
    data = batch(10, 3, producer=7, transactional=True)

    assert list(_split_fetch_result(FetchResult(data, 10, aborted=((7, 10),)), MOST)) == [RecordRange(10, 13, [])]


def test_a_damaged_batch_is_an_error_and_moves_no_position():
    data = bytearray(batch(10, 2) + batch(12, 2))
    data[-1] ^= 1
    result = FetchResult(bytes(data), 10)

    with pytest.raises(CorruptRecordException):
        list(_split_fetch_result(result, MOST))
    assert result.position == 10


# -- the task: where a step begins


@pytest.fixture
def task(tmp_path: Path) -> PartitionTask:
    """A task that stands at offset 10; nothing is committed here, so it has no producer."""
    store = Store(tmp_path / "by_user-0.db").open()
    one = PartitionTask(TP_0, {"by_user": (TP("by_user-changelog", 0), store)}, None, 10**6, None)
    one.position = one.durable = 10
    yield one
    store.close()


def begun(task: PartitionTask, first: int, end: int, *offsets: int) -> Chunk | None:
    return task.begin_step(RecordRange(first, end, [(offset, b"k", b"v") for offset in offsets]))


def test_a_step_begins_where_the_last_one_ended(task):
    chunk = begun(task, 10, 13, 10, 11, 12)

    assert (chunk.tp, chunk.first, chunk.next) == (TP_0, 10, 13)
    assert [offset for offset, *_ in chunk.records] == [10, 11, 12]


@pytest.mark.parametrize(("first", "end"), [(0, 5), (5, 10), (9, 10), (10, 10)])
def test_what_was_folded_before_is_dropped(task, first, end):
    assert begun(task, first, end, *range(first, end)) is None
    assert task.position == 10


def test_of_an_overlap_only_what_is_new_is_folded(task):
    chunk = begun(task, 8, 12, 8, 9, 10, 11)

    assert (chunk.first, chunk.next) == (10, 12)
    assert [offset for offset, *_ in chunk.records] == [10, 11]


def test_an_overlap_may_have_nothing_new_but_offsets(task):
    chunk = begun(task, 8, 12, 8, 9)

    assert (chunk.first, chunk.next, chunk.records) == (10, 12, [])


def test_missing_records_are_named(task):
    with pytest.raises(RecordGap, match=r"orders\[0\]: records 10 to 11 were not delivered; start the worker again"):
        begun(task, 12, 14, 12, 13)


def test_a_step_has_one_view_of_each_table_and_keeps_what_it_sends(task):
    chunk = begun(task, 10, 11, 10)
    table = SimpleNamespace(name="by_user")

    assert chunk.view(table) is chunk.view(table)
    assert list(chunk.views) == [chunk.view(table)]
    chunk.send("dead", 1, None, b"1")
    chunk.send("dead", 1, b"k", None, [("reason", b"x")])
    chunk.send_latest("partials", 2, b"tea", b"old")
    chunk.send_latest("partials", 2, b"tea", b"new")
    assert chunk.outputs == [(TP("dead", 1), None, b"1", []), (TP("dead", 1), b"k", None, [("reason", b"x")])]
    assert chunk.latest == {(TP("partials", 2), b"tea"): b"new"}


def test_what_a_step_does_counts_only_when_it_has_ended(task):
    async def steps() -> None:
        task._pending = task._new_transaction(10)
        table = SimpleNamespace(name="by_user")
        first = begun(task, 10, 12, 10, 11)
        first.view(table)[b"ann"] = b"1"
        abandoned = begun(task, 10, 12, 10, 11)
        assert abandoned.view(table).get(b"ann") is None
        assert task.position == 10

        abandoned.view(table)[b"ann"] = b"2"
        await task.end_step(abandoned)
        assert task.position == 12
        assert begun(task, 12, 13, 12).view(table).get(b"ann") == b"2"
        assert task._states["by_user"].store.get(b"ann") is None
        assert task.durable == 10

    asyncio.run(steps())


# -- the check of the libraries


def test_the_installed_libraries_are_the_tested_ones():
    check_libraries()


def test_all_that_is_wrong_is_named_at_once_with_the_next_step():
    versions = {**VERSIONS, "aiokafka": "0.1.2", "no-such-distribution": "9"}
    new_offset = "faust.transport.consumer:Consumer._new_offset"
    gone = "faust.transport.consumer:Consumer.no_such_method"
    away = "faust.no_such_module:Consumer"
    signatures = {**SIGNATURES, new_offset: "self, tp, more", gone: "self", away: ""}

    with pytest.raises(UnsupportedLibrary) as caught:
        check_libraries(versions, signatures)

    said = str(caught.value)
    assert f"aiokafka is {VERSIONS['aiokafka']}, tested is 0.1.2" in said
    assert "no-such-distribution is missing, tested is 9" in said
    assert f"{new_offset} takes (self, tp), tested is (self, tp, more)" in said
    assert f"{gone} does not exist" in said
    assert f"{away} does not exist" in said
    assert "pip install" in said
    assert said.count(";") == 4


@pytest.mark.parametrize("path", SIGNATURES)
def test_each_signature_is_really_compared(path):
    with pytest.raises(UnsupportedLibrary) as caught:
        check_libraries({}, {path: "nothing, like, it"})
    assert path in str(caught.value)


# -- the schema


def test_a_chunk_reaches_the_stream_as_it_was_delivered():
    app = faust.App("test-chunks", store="memory://", autodiscover=False)
    run = RecordRange(3, 5, [(3, None, b"not JSON"), (4, b"\xff", None)])
    message = Message("orders", 0, 4, None, None, [], None, run, None, tp=TP_0, generation_id=8)

    async def decoded() -> faust.types.EventT:
        decode = ChunkSchema().compile(app, on_key_decode_error=None, on_value_decode_error=None)
        return await decode(message, propagate=True)

    event = asyncio.run(decoded())
    assert event.value is run
    assert event.message is message
    assert event.key is None
