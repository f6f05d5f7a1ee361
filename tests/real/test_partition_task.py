"""Values, position and outputs of a chunk happen together or not at all, and only for the owner of the partition."""

from __future__ import annotations

import asyncio
import uuid
from pathlib import Path
from types import SimpleNamespace

import pytest
from faust.types import TP

import chunks.partition_task
from chunks.chunk import Chunk
from chunks.errors import Fenced, RecordRefused
from chunks.keys import BEGINNING_KEY
from chunks.lost import EMPTIED, Loss, RebuildPlan
from chunks.partition_task import MAX_REQUEST_BYTES, PartitionTask
from chunks.rebuild import Rebuild
from chunks.records import RecordRange
from chunks.restore import RestoreProgress
from chunks.store import Store
from tests.kit.broker import messages, records
from tests.kit.partition_owner import (
    LIMIT_S,
    POSITION,
    SOURCE,
    TABLES,
    Owner,
    Partition,
    Producer,
    seen,
    still_waits,
    within_limit,
)


@pytest.fixture
def partition(kafka: str, tmp_path: Path) -> Partition:
    return Partition(kafka, tmp_path)


def test_a_chunk_is_committed_with_its_position_and_all_that_follows_from_it(partition):
    async def work() -> None:
        async with partition.owner() as owner:
            chunk = owner.begin(3, by_user={b"ann": b"1", b"bob": b"2"}, totals={b"tea": b"3"})
            chunk.send(partition.other, 0, None, b"dead", [("reason", b"broken-rule")])
            chunk.send(partition.other, 0, b"k", b"dead too")
            chunk.send_latest(partition.other, 1, b"tea", b"old")
            chunk.send_latest(partition.other, 1, b"tea", b"new")
            await owner.task.end_step(chunk)
            assert await owner.settled()

            assert (owner.task.position, owner.task.durable) == (3, 3)
            for name, values in (("by_user", [(b"ann", b"1"), (b"bob", b"2")]), ("totals", [(b"tea", b"3")])):
                store = owner.stores[name]
                assert list(store.scan()) == values
                assert store.position("orders") == 3
                # The marker of the transaction comes after the records and holds nothing.
                assert store.offset == len(values) + 1
                assert await seen(partition.changelog, name) == [*values, (POSITION, b"3")]
                # Who wrote them is said once.
                written = await seen(messages, partition.kafka, partition.changelogs[name])
                assert [one.headers() for one in written] == [None] * len(values) + [[("worker", b"first")]]
            dead = await seen(messages, partition.kafka, partition.other, 0)
            assert [(one.key(), one.value(), one.headers()) for one in dead] == [
                (None, b"dead", [("reason", b"broken-rule")]),
                (b"k", b"dead too", None),
            ]
            assert await seen(records, partition.kafka, partition.other, 1) == [(b"tea", b"new")]
            assert owner.producer.commits == 1
            assert owner.failures == []

    within_limit(work)


def test_whoever_watches_a_key_is_told_when_its_value_is_committed_and_not_before(partition):
    async def work() -> None:
        async with partition.owner() as owner:
            store = owner.stores["by_user"]
            with store.watches.watch(b"ann") as ann, store.watches.watch(b"bob") as bob:
                owner.producer.hold()
                await owner.step(by_user={b"ann": b"1"})
                await owner.producer.reached.wait()
                assert not await ann.wait(0.01)
                owner.producer.go_on.set()
                assert await ann.wait(LIMIT_S)
                assert store.get(b"ann") == b"1"
                assert not await bob.wait(0.01)

    within_limit(work)


def test_what_arrives_soon_after_a_transaction_goes_into_the_next_one_together(partition, monkeypatch):
    monkeypatch.setattr(chunks.partition_task, "MIN_INTERVAL_S", 2.0)

    async def work() -> None:
        async with partition.owner() as owner:
            await owner.step(by_user={b"ann": b"0"})
            assert await owner.settled()
            for number in range(1, 4):
                await owner.step(by_user={b"ann": b"%d" % number})
                assert await still_waits(owner.task._commit_loop)
            assert await owner.settled()

            assert owner.producer.commits == 2
            assert await seen(partition.changelog, "by_user") == [
                (b"ann", b"0"), (POSITION, b"1"), (b"ann", b"3"), (POSITION, b"4")
            ]  # fmt: skip

    within_limit(work)


def test_a_deletion_is_a_record_without_a_value(partition):
    async def work() -> None:
        async with partition.owner() as owner:
            await owner.step(by_user={b"ann": b"1"})
            assert await owner.settled()
            await owner.step(by_user={b"ann": None})
            assert await owner.settled()

            assert list(owner.stores["by_user"].scan()) == []
            assert (await seen(partition.changelog, "by_user"))[2:] == [(b"ann", None), (POSITION, b"2")]

    within_limit(work)


def test_a_chunk_that_changes_nothing_still_moves_the_position(partition):
    async def work() -> None:
        async with partition.owner() as owner:
            await owner.step(5)
            assert await owner.settled()

            assert [one.position("orders") for one in owner.stores.values()] == [5, None]
            assert await seen(partition.changelog, "by_user") == [(POSITION, b"5")]
            assert await seen(partition.changelog, "totals") == []

    within_limit(work)


def test_offsets_that_hold_no_records_need_no_transaction(partition):
    async def work() -> None:
        async with partition.owner() as owner:
            await owner.task.end_step(owner.task.begin_step(RecordRange(0, 7, [])))
            assert await owner.settled()

            assert (owner.task.durable, owner.producer.commits) == (7, 0)
            await owner.step(by_user={b"ann": b"1"})
            assert await owner.settled()
            assert owner.stores["by_user"].position("orders") == 8

    within_limit(work)


def test_chunks_that_come_while_a_transaction_is_under_way_go_into_the_next_one_together(partition):
    async def work() -> None:
        async with partition.owner() as owner:
            owner.producer.hold()
            await owner.step(by_user={b"ann": b"1", b"bob": b"1"})
            await owner.producer.reached.wait()
            for number in range(2, 12):
                await owner.step(by_user={b"ann": b"%d" % number, b"new": b"%d" % number})
            view = owner.begin().view(SimpleNamespace(name="by_user"))
            assert view.get_many([b"ann", b"bob", b"new"]) == {b"ann": b"11", b"bob": b"1", b"new": b"11"}
            assert dict(view.scan(b"a")) == {b"ann": b"11"}
            assert (owner.task.position, owner.task.durable) == (11, 0)
            assert list(owner.stores["by_user"].scan()) == []
            await owner.step()

            owner.producer.go_on.set()
            assert await owner.settled()

            assert owner.producer.commits == 2
            assert await seen(partition.changelog, "by_user") == [
                (b"ann", b"1"), (b"bob", b"1"), (POSITION, b"1"), (b"ann", b"11"), (b"new", b"11"), (POSITION, b"12"),
            ]  # fmt: skip
            # One marker lies between the two.
            assert owner.stores["by_user"].offset == 3 + 1 + 3
            assert owner.stores["by_user"].position("orders") == 12

    within_limit(work)


def test_changes_of_many_record_batches_are_one_transaction(partition):
    values = {b"%04d" % number: b"%04d" % number * 1_000 for number in range(1_000)}

    async def work() -> None:
        async with partition.owner() as owner:
            await owner.step(by_user=values)
            assert await owner.settled()

            assert owner.producer.commits == 1
            assert await seen(partition.changelog, "by_user") == [*values.items(), (POSITION, b"1")]
            assert dict(owner.stores["by_user"].scan()) == values
            assert owner.stores["by_user"].offset == 1_001

    within_limit(work)


@pytest.mark.parametrize("size", [1_100_000, MAX_REQUEST_BYTES + 1])
def test_a_value_that_kafka_refuses_stops_the_partition_task_and_nothing_of_it_happens(partition, size):
    async def work() -> None:
        async with partition.owner() as owner:
            await owner.step(by_user={b"ann": b"1"}, totals={b"tea": b"1"})
            assert await owner.settled()

            chunk = owner.begin(by_user={b"bob": b"2", b"huge": b"x" * size}, totals={b"tea": b"2"})
            chunk.send(partition.other, 0, b"k", b"v")
            await owner.task.end_step(chunk)
            await owner.failed.wait()

            [failure] = owner.failures
            assert type(failure) is RecordRefused
            assert "nothing from offset 1 on is committed" in str(failure)
            assert (await owner.settled(), owner.task.durable, owner.producer.commits) == (False, 1, 1)
            assert [dict(store.scan()) for store in owner.stores.values()] == [{b"ann": b"1"}, {b"tea": b"1"}]
            assert [store.position("orders") for store in owner.stores.values()] == [1, 1]
            # An agent that goes on is not held up: the worker is about to end.
            await owner.step(by_user={b"eve": b"3"})
        # Whoever has the partition next can read on.
        async with partition.owner("next", 1):
            pass
        assert await seen(partition.changelog, "by_user") == [(b"ann", b"1"), (POSITION, b"1")]
        assert await seen(partition.changelog, "totals") == [(b"tea", b"1"), (POSITION, b"1")]
        assert await seen(records, partition.kafka, partition.other, 0) == []

    within_limit(work)


#: What a silent owner had still to say, in one batch, in many, and in several partitions.
LATE = {
    "one batch": {"by_user": {b"ann": b"late"}},
    "many batches": {"by_user": {b"%04d" % number: b"late" * 1_000 for number in range(1_000)}},
    "two tables": {"by_user": {b"ann": b"late"}, "totals": {b"tea": b"late"}},
}


async def assert_goes_on(partition: Partition, second: Owner) -> None:
    """The new owner commits, and the log holds what it and the first one did before, and nothing else."""
    await second.step(by_user={b"ann": b"2"})
    assert await second.settled()
    assert second.failures == []
    assert await seen(partition.changelog, "by_user") == [
        (b"ann", b"1"), (POSITION, b"1"), (b"ann", b"2"), (POSITION, b"2"),
    ]  # fmt: skip
    assert await seen(partition.changelog, "totals") == []
    assert await seen(records, partition.kafka, partition.other, 0) == []


@pytest.mark.parametrize("late", LATE.values(), ids=LATE)
def test_a_former_owner_is_fenced_and_leaves_no_trace(partition, late):
    async def work() -> None:
        async with partition.owner("first") as first:
            await first.step(by_user={b"ann": b"1"})
            assert await first.settled()
            async with partition.owner("second", 1) as second:
                chunk = first.begin(**late)
                chunk.send(partition.other, 0, b"k", b"late")
                await first.task.end_step(chunk)
                await first.failed.wait()

                assert [type(one) for one in first.failures] == [Fenced], first.failures
                assert "another worker has taken over orders[0]" in str(first.failures[0])
                assert (await first.settled(), first.task.durable) == (False, 1)
                assert dict(first.stores["by_user"].scan()) == {b"ann": b"1"}
                await assert_goes_on(partition, second)

    within_limit(work)


def test_an_owner_that_freezes_between_sending_and_committing_is_fenced_too(partition):
    async def work() -> None:
        async with partition.owner("first") as first:
            await first.stops_before_committing_its_second_step()
            assert (b"ann", b"late") in await seen(partition.changelog, "by_user", "read_uncommitted")
            async with partition.owner("second", 1) as second:
                first.producer.go_on.set()
                await first.failed.wait()

                assert [type(one) for one in first.failures] == [Fenced], first.failures
                assert dict(first.stores["by_user"].scan()) == {b"ann": b"1"}
                assert first.task.durable == 1
                await assert_goes_on(partition, second)

    within_limit(work)


def test_what_a_dead_owner_left_open_is_aborted_when_the_next_one_starts(partition):
    async def work() -> None:
        async with partition.owner("first") as first:
            await first.stops_before_committing_its_second_step()
            # From here on the first one is silent for ever.
            async with partition.owner("second", 1) as second:
                # Readers of committed records would stand still before an open transaction.
                await assert_goes_on(partition, second)

    within_limit(work)


def test_a_fenced_owner_can_be_closed_while_its_transaction_fails(partition):
    async def work() -> None:
        async with partition.owner("first") as first:
            first.producer.hold()
            await first.step(by_user={b"ann": b"late"})
            await first.producer.reached.wait()
            async with partition.owner("second"):
                closing = asyncio.create_task(first.task.close())
                assert await still_waits(closing)
                first.producer.go_on.set()
                await closing
            assert dict(first.stores["by_user"].scan()) == {}

    within_limit(work)


@pytest.mark.parametrize("how", ["fenced", "fenced while closing", "refused"])
def test_a_failed_commit_leaves_no_exception_behind_that_nobody_has_looked_at(partition, how):
    """Python writes each of them to the log with a traceback, whenever it happens to collect them."""

    async def work() -> None:
        async with partition.owner("first") as first:
            if how == "refused":
                await first.step(by_user={b"huge": b"x" * 1_100_000, b"more": b"x"}, totals={b"tea": b"1"})
                await first.failed.wait()
                return
            first.producer.hold()
            await first.step(by_user={b"ann": b"late"})
            await first.producer.reached.wait()
            async with partition.owner("second"):
                if how == "fenced":
                    first.producer.go_on.set()
                    await first.failed.wait()

    assert within_limit(work) == []


def test_settling_waits_for_the_open_step_and_for_all_that_is_not_durable(partition):
    async def work() -> None:
        async with partition.owner() as owner:
            assert await owner.settled(), "there is nothing to wait for"
            owner.producer.hold()
            chunk = owner.begin(by_user={b"ann": b"1"})
            settling = asyncio.create_task(owner.task.settle())
            assert await still_waits(settling)
            await owner.task.end_step(chunk)
            await owner.producer.reached.wait()
            assert await still_waits(settling)

            owner.producer.go_on.set()
            assert await settling is True
            assert owner.stores["by_user"].get(b"ann") == b"1"

    within_limit(work)


def test_closing_waits_for_the_transaction_under_way_and_begins_no_other(partition):
    async def work() -> None:
        async with partition.owner() as owner:
            owner.producer.hold()
            await owner.step(by_user={b"ann": b"1"})
            await owner.producer.reached.wait()
            await owner.step(by_user={b"ann": b"2"})
            closing = asyncio.create_task(owner.task.close())
            assert await still_waits(closing)

            owner.producer.go_on.set()
            await closing
            assert owner.stores["by_user"].get(b"ann") == b"1"
            assert owner.stores["by_user"].position("orders") == 1
            assert await seen(partition.changelog, "by_user") == [(b"ann", b"1"), (POSITION, b"1")]
            assert owner.failures == []

    within_limit(work)


def test_a_partition_task_that_was_never_opened_can_be_closed(partition):
    async def work() -> None:
        async with partition.owner() as owner:
            producer = Producer(bootstrap_servers=partition.kafka, transactional_id=uuid.uuid4().hex)
            await producer.start()
            places = {"by_user": (TP(partition.changelogs["by_user"], 0), owner.stores["by_user"])}
            await PartitionTask(SOURCE, places, producer, 10**6, owner.on_failure).close()

    within_limit(work)


def test_an_agent_waits_while_too_much_is_not_committed_yet(partition, monkeypatch):
    monkeypatch.setattr(chunks.partition_task, "MAX_PENDING_BYTES", 100)

    async def work() -> None:
        async with partition.owner() as owner:
            owner.producer.hold()
            await owner.step(by_user={b"a": b"x" * 98})
            await owner.producer.reached.wait()
            await owner.step(by_user={b"b": b"x" * 98})
            ending = asyncio.create_task(owner.step(by_user={b"c": b"x"}))
            assert await still_waits(ending)

            owner.producer.go_on.set()
            await ending
            assert await owner.settled()
            assert set(dict(owner.stores["by_user"].scan())) == {b"a", b"b", b"c"}
            assert owner.producer.commits == 2

    within_limit(work)


def test_a_failure_lets_an_agent_go_that_waits_for_room(partition, monkeypatch):
    monkeypatch.setattr(chunks.partition_task, "MAX_PENDING_BYTES", 100)

    async def work() -> None:
        async with partition.owner("first") as first:
            first.producer.hold()
            await first.step(by_user={b"a": b"x" * 98})
            await first.producer.reached.wait()
            ending = asyncio.create_task(first.step(by_user={b"b": b"x" * 100}))
            assert await still_waits(ending)
            async with partition.owner("second"):
                first.producer.go_on.set()
                await ending
                await first.failed.wait()
                assert [type(one) for one in first.failures] == [Fenced]

    within_limit(work)


def test_what_steps_collect_is_written_once_with_the_transaction_that_they_end_in(partition):
    written = []

    def write(chunk: Chunk, collected: list) -> None:
        written.append((chunk.next, list(collected), chunk.records))
        chunk.view(SimpleNamespace(name="by_user"))[b"sum"] = b"%d" % sum(collected)
        chunk.send_latest(partition.other, 1, b"sum", b"%d" % sum(collected))

    async def step(owner: Owner, number: int) -> None:
        chunk = owner.begin()
        chunk.accumulate(list, write).append(number)
        await owner.task.end_step(chunk)

    async def work() -> None:
        async with partition.owner() as owner:
            owner.producer.hold()
            await step(owner, 1)
            await owner.producer.reached.wait()
            for number in (2, 3, 4):
                await step(owner, number)
            owner.producer.go_on.set()
            assert await owner.settled()
            assert written == [(1, [1], []), (4, [2, 3, 4], [])]
            assert dict(owner.stores["by_user"].scan()) == {b"sum": b"9"}

    within_limit(work)


def test_in_a_backlog_a_transaction_waits_for_more_and_settling_ends_the_wait(partition, monkeypatch):
    monkeypatch.setattr(chunks.partition_task, "BACKLOG_WAIT_S", 3_600)

    async def work() -> None:
        async with partition.owner() as owner:
            for first in range(3):
                await owner.task.end_step(
                    owner.task.begin_step(RecordRange(first, first + 1, [(first, b"k", b"v")], 10**6))
                )
            assert owner.producer.commits == 0
            assert await owner.settled()
            assert (owner.producer.commits, owner.task.durable) == (1, 3)

    within_limit(work)


class Tables(dict):
    """As much of a table manager as a rebuild needs."""

    def __init__(self, stores: dict[str, Store]) -> None:
        super().__init__(
            (name, SimpleNamespace(stores={0: one}, derived_from=None, derived_prefix=None))
            for name, one in stores.items()
        )

    async def on_loss(self, loss: Loss) -> bool:
        return False


@pytest.mark.parametrize("life", ["first", "next"])
def test_a_table_that_begins_while_partitions_are_given_out_anew_has_begun_whole(partition, life):
    async def work() -> None:
        async with partition.owner() as owner:
            tables = Tables(owner.stores)
            if life == "first":
                verdict = RebuildPlan(0, 0, TABLES, ())
            else:
                await owner.step(by_user={b"ann": b"1"})
                assert await owner.settled()
                verdict = RebuildPlan(1, 1, (), (Loss("by_user", 0, EMPTIED, False),))
            owner.producer.hold()
            beginning = asyncio.create_task(Rebuild(tables, owner.task, None, verdict, RestoreProgress()).run())
            await owner.producer.reached.wait()
            beginning.cancel()
            owner.producer.go_on.set()
            await asyncio.wait([beginning])

            assert beginning.cancelled()
            for name in TABLES if life == "first" else TABLES[:1]:
                log = await seen(messages, partition.kafka, partition.changelogs[name])
                begun = [(one.value(), one.offset()) for one in log if one.key() == BEGINNING_KEY]
                assert owner.stores[name].beginning == begun[-1]
                assert list(owner.stores[name].scan()) == []

    assert within_limit(work) == []
