"""How often a client may ask."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from web.http.limits import Limiter


class Clock:
    """A time that a test sets."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def limiter(per_second: int, **more: int) -> tuple[Limiter, Clock]:
    clock = Clock()
    return Limiter(per_second, clock=clock, **more), clock


def test_as_many_as_in_a_second_may_come_at_once_and_then_one_at_a_time():
    ten, clock = limiter(10)
    assert [ten.take("ann") for _ in range(10)] == [0] * 10
    assert ten.take("ann") == pytest.approx(0.1)
    clock.now += 0.1
    assert ten.take("ann") == 0
    assert ten.take("ann") > 0
    clock.now += 60
    assert [ten.take("ann") > 0 for _ in range(11)] == [False] * 10 + [True]


def test_a_client_does_not_pay_for_another_or_for_what_was_refused():
    one, clock = limiter(1)
    assert (one.take("ann"), one.take("bob")) == (0, 0)
    assert all(one.take("ann") for _ in range(100))
    clock.now += 1
    assert one.take("ann") == 0


def test_the_client_that_was_silent_for_longest_is_forgotten():
    two, _ = limiter(1, clients=2)
    assert [two.take(name) for name in ("ann", "bob")] == [0, 0]
    assert two.take("ann") > 0
    assert two.take("eve") == 0
    assert two.take("ann") > 0
    assert two.take("bob") == 0


@given(st.integers(1, 1000), st.lists(st.floats(0, 2), max_size=200))
def test_no_second_lets_more_pass_than_twice_the_rate(per_second, pauses):
    some, clock = limiter(per_second)
    passed = []
    for pause in pauses:
        clock.now += pause
        if some.take("ann") == 0:
            passed.append(clock.now)
    for begin in passed:
        assert sum(begin <= at < begin + 1 for at in passed) <= 2 * per_second
