"""A short crash matrix for every day; tests/crash/matrix.py is the long one."""

from random import Random

import pytest

from tests.crash import scenarios
from tests.crash.run import Run
from tests.crash.verdict import verify


@pytest.mark.cost(30)
@pytest.mark.parametrize("seed", [1, pytest.param(1, id="of all orders", marks=pytest.mark.slow)])
def test_a_worker_killed_again_and_again_with_and_without_its_disk_ends_up_exact(run: Run, seed: int):
    scenarios.killed(run, Random(seed), "kept", "lost")
    verify(run)


@pytest.mark.slow
@pytest.mark.cost(40)
def test_two_workers_that_start_at_once_over_a_backlog_end_up_exact_though_one_dies(shared: Run):
    scenarios.two_at_once(shared, Random(3))
    verify(shared, copies=2)


@pytest.mark.slow  # it waits for more than a session
@pytest.mark.cost(60)
def test_a_frozen_worker_that_does_not_notice_it_cannot_harm_the_new_owner(shared: Run):
    scenarios.frozen(shared, Random(4), guarded=False)
    verify(shared, copies=2)
