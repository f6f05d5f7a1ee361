"""The freshness of lists: the oldest over all partitions of orders, at the offsets that the copy contains."""

from __future__ import annotations

import pytest
from aiokafka.structs import ConsumerRecord

from app.control import source_state
from app.services.list_freshness import ListFreshness
from app.services.source_status import SourceStatus
from app.settings import Settings
from app.topics import Topics

SETTINGS = Settings(partitions=2)


class Lists:
    """A worker's copy that has applied 40 offsets in both partitions, and the status of the source."""

    def __init__(self) -> None:
        self.applied = {0: 40, 1: 40}
        topics = Topics(SETTINGS)
        self.source_status = SourceStatus(SETTINGS, topics)
        self.freshness = ListFreshness(
            SETTINGS, topics, self.source_status, lambda: self.applied, topics.changelog("similar")
        )

    def report(self, as_of: int | None, *offsets: int) -> None:
        """The source reports that all changes until `as_of` are below these offsets of orders."""
        state = source_state.LeaderStatus(
            mode="outbox", guarantee=source_state.PROVEN, as_of=as_of, offsets=dict(enumerate(offsets))
        )
        self.source_status.apply(ConsumerRecord("", 0, 0, 0, 0, *source_state.encode(state), None, 0, 0, ()))

    def process(self, *positions: int) -> None:
        """All agents have processed orders up to these positions, and are idle."""
        orders, other = dict(enumerate(positions)), {0: 40, 1: 40}
        self.freshness._barriers.observe([orders, other, other, other], [orders, other, other, other])


@pytest.fixture
def lists() -> Lists:
    return Lists()


def test_without_a_proof_or_without_a_source_it_is_unknown(lists):
    assert lists.freshness.as_of() is None
    lists.process(10, 10)
    assert lists.freshness.as_of() is None
    assert lists.freshness.freshness()[:4] == (None, None, source_state.NONE, None)
    lists.report(None, 10, 10)
    assert lists.freshness.as_of() is None


def test_the_partition_of_orders_that_is_behind_determines_the_time(lists):
    for number in range(1, 6):
        lists.report(number, 10 * number, 20 * number)
    lists.process(35, 59)
    assert lists.freshness.as_of() == 2
    lists.process(35, 60)
    assert lists.freshness.as_of() == 3


def test_while_no_orders_come_every_status_of_the_source_makes_the_lists_fresher(lists):
    lists.process(10, 10)
    lists.report(1, 10, 10)
    assert lists.freshness.as_of() == 1
    lists.report(2, 10, 10)
    assert lists.freshness.as_of() == 2
    lists.report(3, 11, 10)
    assert lists.freshness.as_of() == 2


def test_while_the_copy_is_read_again_it_is_unknown(lists):
    lists.process(10, 10)
    lists.report(1, 10, 10)
    lists.applied = {0: 40, 1: 39}
    assert lists.freshness.as_of() is None
    lists.applied = {0: 40, 1: 40}
    assert lists.freshness.as_of() == 1


def test_everything_but_the_time_is_that_of_the_source(lists):
    lists.process(10, 10)
    lists.report(1_000_000, 10, 10)
    fresh, of_partition = lists.freshness.freshness(), lists.source_status.freshness(0, 10)
    assert fresh._replace(lag_ms=0) == of_partition._replace(lag_ms=0)
    assert fresh.lag_ms > 0
