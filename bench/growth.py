"""Speed and memory of a worker by the number of users and of partitions."""

from __future__ import annotations

from bench.data import DataSet
from bench.measure import Bench, RunResult
from bench.report import describe_run, median, rounded, store_raw_numbers, table
from bench.sides import BY_BOTH, BY_USER, find_side, has_setting

HEADING = "Growth"
EXPLANATION = """\
The rate falls with few users, because each has many purchases (40 here for 10,000 users): each
order rewrites a value of up to 32 purchases and finally moves older ones to the overflow, which
costs a third. More users need more memory only up to the limits of the caches, which are settings.
More partitions mean more and smaller transactions."""


def data_sets(quick: bool) -> list[DataSet]:
    """Return the data sets; with a million users each user must order at least once."""
    if quick:
        return [DataSet(50_000, 5_000), DataSet(50_000, 50_000), DataSet(50_000, 5_000, 1)]
    by_users = [DataSet(400_000, 10_000), DataSet(400_000, 100_000), DataSet(1_000_000, 1_000_000)]
    return [*by_users, DataSet(400_000, 100_000, 1), DataSet(400_000, 100_000, 16)]


def growth(bench: Bench, rounds: int, quick: bool) -> str:
    """Measure the data sets in turns, and return the text of the section."""
    ours = find_side(BY_USER if has_setting("by_product") else BY_BOTH)
    results: dict[DataSet, list[RunResult]] = {data: [] for data in data_sets(quick)}
    for number in range(rounds):
        for data, runs in results.items():
            bench.log(f"growth, round {number + 1} of {rounds}: {data}")
            runs.append(bench.run(ours, data))
    store_raw_numbers("growth", {str(data): runs for data, runs in results.items()})
    rows = [
        [
            f"{data.orders:,}",
            f"{data.users:,}",
            str(data.partitions),
            f"**{rounded(median(run.rate for run in runs))}**",
            ", ".join(rounded(run.rate) for run in runs),
            f"{median(run.peak_mib for run in runs):,.0f}",
        ]
        for data, runs in results.items()
    ]
    rows_text = table(["orders", "users", "partitions", "orders/s", "each round", "peak MiB"], rows)
    return f"One worker, {ours.name}; measured as above, medians.\n\n{rows_text}\n\n{EXPLANATION}\n\n{describe_run()}"
