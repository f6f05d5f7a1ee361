"""The freshness of a table, from the status that the source reports."""

from __future__ import annotations

import pytest
from aiokafka.structs import ConsumerRecord

from app.control import source_state
from app.services.source_status import SourceStatus
from app.settings import Settings
from app.topics import Topics


def record(key: bytes | None, value: bytes | None) -> ConsumerRecord:
    return ConsumerRecord("source-state", 0, 0, 0, 0, key, value, None, 0, 0, ())


def view(*states) -> SourceStatus:
    """A status after `states`, oldest first."""
    source_status = SourceStatus(Settings(), Topics(Settings()))
    for state in states:
        source_status.apply(record(*source_state.encode(state)))
    return source_status


def status(as_of: int | None, **offsets: int) -> source_state.LeaderStatus:
    """The source says: all up to `as_of` lies below these offsets."""
    by_partition = {int(name[1:]): offset for name, offset in offsets.items()}
    return source_state.LeaderStatus(mode="outbox", guarantee=source_state.PROVEN, as_of=as_of, offsets=by_partition)


def test_a_worker_that_never_heard_of_a_source_promises_nothing():
    fresh = view().freshness(0, 5)
    assert (fresh.as_of, fresh.lag_ms, fresh.guarantee, fresh.horizon) == (None, None, source_state.NONE, None)


@pytest.mark.parametrize(("position", "as_of"), [(None, None), (9, None), (10, 1), (19, 1), (20, 2), (21, 2), (30, 3)])
def test_a_table_is_as_fresh_as_the_newest_word_whose_offset_it_has_reached(position, as_of):
    status_ = view(status(1, p0=10, p1=99), status(2, p0=20, p1=99), status(3, p0=30, p1=99))
    assert status_.freshness(0, position).as_of == as_of


def test_a_partition_without_events_is_as_fresh_as_the_newest_word():
    assert view(status(1, p0=10), status(2, p0=20)).freshness(3, None).as_of == 2


def test_a_source_that_is_still_behind_says_nothing_of_the_moment():
    assert view(status(None, p0=10)).freshness(0, 10).as_of is None


def test_what_another_version_wrote_is_passed_over():
    status_ = view(status(1, p0=10))
    for key, value in ((b"status", b"{}"), (b"later", b"1"), (None, None), (b"status", None)):
        status_.apply(record(key, value))
    fresh = status_.freshness(0, 10)
    assert (fresh.as_of, fresh.horizon) == (1, None)


@pytest.mark.parametrize("horizon", ["yesterday", "", "0000-00-00 00:00:00"])
def test_a_horizon_that_is_no_time_promises_nothing(horizon):
    status_ = view()
    status_.apply(record(b"snapshot", b'{"table":"shop.orders","version":1,"horizon":"%b"}' % horizon.encode()))
    assert status_.freshness(0, None).horizon == source_state.horizon_microseconds(source_state.MAX_HORIZON)


def test_rows_from_before_the_snapshot_may_be_missing():
    partial = source_state.SnapshotState(
        table="shop.orders", version=1, is_done=True, horizon="1970-01-02 00:00:00.000001"
    )
    assert view(partial).freshness(0, None).horizon == 86_400_000_001
    complete = source_state.SnapshotState(table="shop.orders", version=1, is_done=True, horizon=None)
    assert view(partial, complete).freshness(0, None).horizon is None


def test_while_a_worker_wishes_for_all_rows_any_may_be_missing():
    complete = source_state.SnapshotState(table="shop.orders", version=1, is_done=True, horizon=None)
    request, granted = (
        source_state.SnapshotRequest(requested_at=5),
        source_state.SnapshotState(table="", version=1, is_done=True, horizon=None, fulfilled_at=5),
    )
    assert view(complete, request).freshness(0, None).horizon == source_state.horizon_microseconds(
        source_state.MAX_HORIZON
    )
    assert view(complete, request, granted).freshness(0, None).horizon is None
    assert view(granted, request, source_state.SnapshotRequest(requested_at=6)).freshness(
        0, None
    ).horizon == source_state.horizon_microseconds(source_state.MAX_HORIZON)
