"""What stands still is judged by what waits, what moves and how long."""

from __future__ import annotations

import pytest

from app.errors import BadSetting
from app.services.stall_detector import (
    KAFKA_AWAY,
    NO_PROGRESS,
    RECOVERY_STALLED,
    SOURCE_SILENT,
    Stall,
    StallDetector,
    StallLimits,
    WorkState,
)
from app.settings import Settings

WORKER_LIMITS, OTHER_LIMITS = StallLimits(60, 180), StallLimits(300, 0)


def observe_all(detector: StallDetector, *observations: tuple[float, WorkState]) -> list[list[Stall]]:
    """Return the stalls of one work at each time."""
    return [detector.observe(now, {"orders[0]": work}) for now, work in observations]


def partition(token: int, is_pending: bool = True, reason: str = NO_PROGRESS, grace_s: float = 0.0) -> WorkState:
    return WorkState(token, is_pending, reason, "orders[0] stands at 5", grace_s)


def test_work_that_does_not_move_is_stuck_at_the_first_limit_and_overdue_at_the_second():
    results = observe_all(
        StallDetector(WORKER_LIMITS, OTHER_LIMITS), *((now, partition(5)) for now in (1000, 1059, 1060, 1179, 1180))
    )
    assert [[stall.is_overdue for stall in stalls] for stalls in results] == [[], [], [False], [False], [True]]
    assert str(results[2][0]) == "orders[0] stands at 5 for 60 s"


def test_work_that_moves_however_slowly_is_never_stuck():
    results = observe_all(
        StallDetector(WORKER_LIMITS, OTHER_LIMITS), *((now, partition(now // 50)) for now in range(0, 3_600, 5))
    )
    assert not any(results)


def test_nothing_to_do_is_not_stuck_and_does_not_count():
    results = observe_all(
        StallDetector(WORKER_LIMITS, OTHER_LIMITS),
        (0, partition(5, is_pending=False)),
        (3_600, partition(5)),
        (3_659, partition(5)),
    )
    assert not any(results)


def test_what_moves_again_is_not_stuck_any_more():
    results = observe_all(
        StallDetector(WORKER_LIMITS, OTHER_LIMITS),
        (0, partition(5)),
        (100, partition(5)),
        (101, partition(6)),
        (160, partition(6)),
    )
    assert [bool(stalls) for stalls in results] == [False, True, False, False]


def test_what_was_not_looked_at_meanwhile_begins_anew():
    detector = StallDetector(WORKER_LIMITS, OTHER_LIMITS)
    detector.observe(0, {"orders[0]": partition(5)})
    detector.observe(50, {})
    assert detector.observe(100, {"orders[0]": partition(5)}) == []
    assert detector.observe(160, {"orders[0]": partition(5)})


def test_patience_is_added_to_both_limits():
    group = partition(1, reason=RECOVERY_STALLED, grace_s=70)
    results = observe_all(
        StallDetector(WORKER_LIMITS, OTHER_LIMITS), *((now, group) for now in (0, 129, 130, 249, 250))
    )
    assert [[stall.is_overdue for stall in stalls] for stalls in results] == [[], [], [False], [False], [True]]


@pytest.mark.parametrize("reason", [KAFKA_AWAY, SOURCE_SILENT])
def test_what_others_are_to_blame_for_has_limits_of_its_own(reason: str):
    away = partition(1, reason=reason)
    results = observe_all(StallDetector(WORKER_LIMITS, OTHER_LIMITS), *((now, away) for now in (0, 299, 300, 86_400)))
    assert [[stall.is_overdue for stall in stalls] for stalls in results] == [[], [], [False], [False]]
    results = observe_all(
        StallDetector(WORKER_LIMITS, StallLimits(0, 3_600)), *((now, away) for now in (0, 3_599, 3_600))
    )
    assert [[stall.is_overdue for stall in stalls] for stalls in results] == [[], [], [True]]


def test_no_limit_is_no_limit():
    results = observe_all(StallDetector(StallLimits(0, 0), StallLimits(0, 0)), (0, partition(5)), (1e9, partition(5)))
    assert not any(results)


def test_of_more_than_one_the_workers_own_is_named_first():
    detector, works = (
        StallDetector(WORKER_LIMITS, StallLimits(60, 0)),
        {"source": partition(1, reason=SOURCE_SILENT), "x": partition(1)},
    )
    detector.observe(0, works)
    assert [stall.reason for stall in detector.observe(60, works)] == [NO_PROGRESS, SOURCE_SILENT]


@pytest.mark.parametrize("kind", ["STUCK", "AWAY"])
def test_a_worker_is_not_ready_for_a_while_before_it_ends(kind: str):
    with pytest.raises(BadSetting, match=f"LATELY_{kind}_EXIT_S: 30 must be more than LATELY_{kind}_S, which is 30"):
        Settings.from_env({f"LATELY_{kind}_S": "30", f"LATELY_{kind}_EXIT_S": "30"})
    for not_ready, ends in (("0", "30"), ("30", "0"), ("30", "31")):
        Settings.from_env({f"LATELY_{kind}_S": not_ready, f"LATELY_{kind}_EXIT_S": ends})
