"""`python -m pytest bench`: a standstill is the longest time without anything new, also at both ends of a step."""

import pytest

from bench.background_load import longest
from bench.pause import Seen, row


@pytest.mark.parametrize(
    ("moved", "expected"),
    [
        ([9.9, 10.1, 12.0, 12.1, 14.9, 15.1], 2.8),  # between two records
        ([10.1, 10.2, 14.9, 20.0], 4.7),
        ([5.0, 13.0, 14.9], 3.0),  # it stood already when the step began
        ([10.1, 11.0], 4.0),  # and still does when it ends
        ([5.0, 20.0], 5.0),
        ([], 5.0),
    ],
)
def test_the_longest_standstill_of_a_step_from_10_to_15(moved, expected):
    assert longest(moved, 10.0, 15.0) == pytest.approx(expected)


def test_a_row_tells_the_longest_and_the_median_partition_and_each():
    seen = Seen("a second joins", [0.1, 4.0, 0.2, 0.4], 1_234, 0.05, ["worker a ended with 1"], over=True)
    told = [
        "us",
        "a second joins",
        "**4.00**",
        "0.30",
        "0.10, 0.20, 0.40, 4.00",
        "1,234",
        "5%",
        "worker a ended with 1",
    ]
    assert row("us", seen) == told
