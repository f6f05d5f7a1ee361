"""The crash matrix: `make crash`. Its name keeps it out of `make test`, whose share of it is test_short.py."""

from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from local.kafka import Kafka, start_kafka
from tests.crash import scenarios
from tests.crash.conftest import Shop, open_shop
from tests.crash.run import Run
from tests.crash.verdict import verify

seeds = pytest.mark.parametrize("seed", range(101, 104))
two_seeds = pytest.mark.parametrize("seed", range(101, 103))


@seeds
@pytest.mark.parametrize("disk", ["kept", "lost"])
def test_a_worker_killed_again_and_again_ends_up_exact(run: Run, disk: str, seed: int):
    scenarios.killed(run, Random(seed), *[disk] * 3)
    verify(run)


@seeds
def test_workers_that_join_leave_and_die_end_up_exact(shared: Run, seed: int):
    scenarios.joined_left_and_died(shared, Random(seed))
    verify(shared, copies=2)


@seeds
def test_two_workers_that_start_at_once_over_a_backlog_end_up_exact_though_one_dies(shared: Run, seed: int):
    scenarios.two_at_once(shared, Random(seed))
    verify(shared, copies=2)


@two_seeds
@pytest.mark.parametrize("guarded", [True, False], ids=["guarded", "unguarded"])
def test_a_frozen_worker_cannot_harm_the_new_owner(shared: Run, guarded: bool, seed: int):
    scenarios.frozen(shared, Random(seed), guarded)
    verify(shared, copies=2)


def test_what_a_frozen_worker_left_behind_survives_compaction_and_the_loss_of_all_disks(shared: Run):
    scenarios.frozen(shared, Random(104), guarded=False, compacting=True)
    scenarios.compacted(shared)
    verify(shared, copies=2)


@two_seeds
def test_a_worker_whose_record_is_refused_ends_and_the_next_one_goes_on(run: Run, seed: int):
    scenarios.refused(run, Random(seed))
    verify(run)


@two_seeds
def test_a_worker_whose_agent_raises_ends_and_the_next_one_goes_on(run: Run, seed: int):
    scenarios.raised(run, Random(seed))
    verify(run)


@pytest.fixture(scope="module")
def broker(artifacts, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    """A broker that may be restarted."""
    with start_kafka(artifacts, tmp_path_factory.mktemp("broker")) as one:
        yield one


@pytest.fixture(scope="module")
def fragile_shop(broker: Kafka) -> Shop:
    """The orders on that broker."""
    return open_shop(broker.address)


@two_seeds
@pytest.mark.parametrize("end", ["stopped", "killed"])
def test_workers_outlive_their_broker_and_end_up_exact(
    fragile_shop: Shop, broker: Kafka, tmp_path: Path, end: str, seed: int
):
    shop = fragile_shop
    with Run(shop.kafka, shop.prefix, shop.truth, tmp_path, LATELY_STANDBY_REPLICAS="1") as run:
        scenarios.broker_restarted(run, Random(seed), broker, crash=end == "killed")
        verify(run, copies=2)
