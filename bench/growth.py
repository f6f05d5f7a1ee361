"""How our worker's speed and memory change with the number of users and of partitions."""

from __future__ import annotations

from bench.data import DataSet
from bench.measure import Bench, Result
from bench.report import circumstances, keep_raw, median, rounded, table
from bench.sides import BY_BOTH, BY_USER, can_leave_out, side

HEADING = "Growth"
BENDS = """\
What bends: with few users each has many purchases (40 here for 10,000 users), so each order rewrites a value of up to
32 purchases and, in the end, sets older ones aside; that costs a third. More users cost memory only up to the limits
of the caches, which are settings. More partitions mean more and smaller transactions."""


def data_sets(quick: bool) -> list[DataSet]:
    """What is measured; with a million users everyone has to order at least once."""
    if quick:
        return [DataSet(50_000, 5_000), DataSet(50_000, 50_000), DataSet(50_000, 5_000, 1)]
    by_users = [DataSet(400_000, 10_000), DataSet(400_000, 100_000), DataSet(1_000_000, 1_000_000)]
    return [*by_users, DataSet(400_000, 100_000, 1), DataSet(400_000, 100_000, 16)]


def growth(bench: Bench, rounds: int, quick: bool) -> str:
    """Measure every data set in turns and return the text of the section."""
    ours = side(BY_USER if can_leave_out("by_product") else BY_BOTH)
    results: dict[DataSet, list[Result]] = {data: [] for data in data_sets(quick)}
    for number in range(rounds):
        for data, runs in results.items():
            bench.say(f"growth, round {number + 1} of {rounds}: {data}")
            runs.append(bench.run(ours, data))
    keep_raw("growth", {str(data): runs for data, runs in results.items()})
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
    shown = table(["orders", "users", "partitions", "orders/s", "each round", "peak MiB"], rows)
    return f"One worker, {ours.name}; measured as above, medians.\n\n{shown}\n\n{BENDS}\n\n{circumstances()}"
