"""`python -m pytest bench`: a pause is the longest time without a record, also at both ends."""

import pytest

from bench.background_load import longest_gap
from bench.pause import StepResult, step_row


@pytest.mark.parametrize(
    ("moved", "expected"),
    [
        ([9.9, 10.1, 12.0, 12.1, 14.9, 15.1], 2.8),  # between two records
        ([10.1, 10.2, 14.9, 20.0], 4.7),
        ([5.0, 13.0, 14.9], 3.0),  # the pause began before the step
        ([10.1, 11.0], 4.0),  # the pause ends after the step
        ([5.0, 20.0], 5.0),
        ([], 5.0),
    ],
)
def test_the_longest_standstill_of_a_step_from_10_to_15(moved, expected):
    assert longest_gap(moved, 10.0, 15.0) == pytest.approx(expected)


def test_a_row_tells_the_longest_and_the_median_partition_and_each():
    result = StepResult("a second joins", [0.1, 4.0, 0.2, 0.4], 1_234, 0.05, ["worker a ended with 1"], is_over=True)
    expected = [
        "us",
        "a second joins",
        "**4.00**",
        "0.30",
        "0.10, 0.20, 0.40, 4.00",
        "1,234",
        "5%",
        "worker a ended with 1",
    ]
    assert step_row("us", result) == expected
