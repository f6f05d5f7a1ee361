"""The number of requests that a client may send."""

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


def limiter(per_second: int, **options: int) -> tuple[Limiter, Clock]:
    clock = Clock()
    return Limiter(per_second, clock=clock, **options), clock


def test_a_client_may_send_a_second_of_requests_at_once_and_then_at_the_rate():
    ten, clock = limiter(10)
    assert [ten.take("ann") for _ in range(10)] == [0] * 10
    assert ten.take("ann") == pytest.approx(0.1)
    clock.now += 0.1
    assert ten.take("ann") == 0
    assert ten.take("ann") > 0
    clock.now += 60
    assert [ten.take("ann") > 0 for _ in range(11)] == [False] * 10 + [True]


def test_neither_other_clients_nor_refused_requests_count():
    single, clock = limiter(1)
    assert (single.take("ann"), single.take("bob")) == (0, 0)
    assert all(single.take("ann") for _ in range(100))
    clock.now += 1
    assert single.take("ann") == 0


def test_the_least_recently_seen_client_is_forgotten():
    two, _ = limiter(1, clients=2)
    assert [two.take(name) for name in ("ann", "bob")] == [0, 0]
    assert two.take("ann") > 0
    assert two.take("eve") == 0
    assert two.take("ann") > 0
    assert two.take("bob") == 0


@given(st.integers(1, 1000), st.lists(st.floats(0, 2), max_size=200))
def test_no_second_lets_more_pass_than_twice_the_rate(per_second, pauses):
    limited, clock = limiter(per_second)
    passed = []
    for pause in pauses:
        clock.now += pause
        if limited.take("ann") == 0:
            passed.append(clock.now)
    for begin in passed:
        assert sum(begin <= at < begin + 1 for at in passed) <= 2 * per_second
