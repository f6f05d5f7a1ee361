"""Comparison of all sides over the same topic: medians of several rounds, and their ratios."""

from __future__ import annotations

from bench.data import DataSet
from bench.measure import Bench, RunResult
from bench.report import describe_run, median, rounded, store_raw_numbers, table
from bench.sides import ALL, BY_USER, SIDES, STREAMS, Side, find_side, has_setting
from local.process import ServerFailed

HEADING = "Side by side"
ONE_THREAD = f"{STREAMS}, 1 thread"
HOW = """\
The work: read the topic `orders` from its beginning, decode the JSON, group by user, store each
user's last purchases in a RocksDB table with a changelog in Kafka, and commit every 500 ms (Lately
at its own pace). The peers store a plain list of 20 purchases. Lately does more: it checks every
rule of an event, sorts, stores 20 + 12 purchases with their versions, so that repeated and removed
orders are handled correctly, and serves HTTP. The bare loop does less: no state, no output.

The method is the same for all sides, and measures from outside. Each run has a new consumer group,
an empty disk and a new changelog. One side runs at a time. Each side runs once per round, and each
round starts with another side. An observer reads the committed offsets of the group and the end of
the changelog every 50 ms. The clock starts when one of them grows for the first time, so that the
start of the process does not count. It stops when the group has committed the end of the topic
(with totals by product and similar products: also the end of the topics between the agents).
orders/s = orders committed between the two times / seconds between them; the result is the median
of all rounds. "Orders alone" stops when the group has committed the end of `orders`, without the
topics between the agents: the pace of the purchases by user. "Second half" starts at the commit of
the middle, if the rest takes more than 2 s: it excludes what is slow at the start, above all the
JVM, which still compiles. The bare loop commits nothing and measures its own time. Stock Faust is
stopped after its first 60,000 orders; "(first n)" marks a side that was stopped because it was
slow. Memory is the peak RSS of the process and its children (VmHWM). CPU is their user and system
time from their start, per million orders. "Elsewhere" is the share of the machine that processes
other than the side, the broker and the benchmark used, in the round with the greatest share. If it
is large, repeat the measurement."""


def compare(bench: Bench, data: DataSet, rounds: int, only: list[str] | None = None) -> str:
    """Run the sides in turns, and return the text of the section."""
    sides = [side for side in SIDES if not only or any(word.lower() in side.name.lower() for word in only)]
    for name, setting in ((BY_USER, "by_product"), (ALL, "similar")):
        if not has_setting(setting):
            bench.log(f"{name}: skipped, this version of Lately has no LATELY_{setting.upper()}")
            sides = [side for side in sides if side.name != name]
    results: dict[str, list[RunResult]] = {side.name: [] for side in sides}
    for number in range(rounds):
        bench.log(f"round {number + 1} of {rounds}")
        for side in rotate(sides, number):
            try:
                results[side.name].append(bench.run(side, data))
            except ServerFailed as exc:
                # The failure of one side must not stop the others; its row reports it.
                bench.log(f"{side.name}: failed: {exc}")
            store_raw_numbers("compare", results)
    return f"{data}.\n\n{results_table(results)}\n\n{HOW}\n\n{describe_run()}"


def rotate(sides: list[Side], by: int) -> list[Side]:
    """Rotate the sides, so that a side does not always run after the same other side."""
    by %= len(sides) or 1
    return sides[by:] + sides[:by]


def results_table(results: dict[str, list[RunResult]]) -> str:
    """Return the table of the results."""
    rates = {name: median(result.rate for result in runs) for name, runs in results.items() if runs}
    compared = [name for name in (BY_USER, ONE_THREAD) if name in rates]
    head = ["side", "orders/s", *(f"x {name}" for name in compared)]
    head += ["orders alone", "second half", "each round", "peak MiB", "CPU s per million", "elsewhere"]
    rows = []
    for name, runs in results.items():
        if not runs:
            rows.append([f"{name}: failed", *["-"] * (len(head) - 1)])
            continue
        second_half_rates = [result.second_half_rate for result in runs if result.second_half_rate]
        max_read = max(result.orders for result in runs)
        suffix = (
            ""
            if find_side(name).max_orders is None and all(result.is_complete for result in runs)
            else f" (first {max_read:,})"
        )
        rows.append([
            f"{name}{suffix}",
            f"**{rounded(rates[name])}**",
            *(f"{rates[name] / rates[other]:.2f}" for other in compared),
            rounded(median(result.orders_only_rate for result in runs)),
            rounded(median(second_half_rates)) if second_half_rates else "-",
            ", ".join(rounded(result.rate) for result in runs),
            f"{median(result.peak_mib for result in runs):,.0f}",
            f"{median(result.cpu_s / result.orders for result in runs) * 1e6:,.1f}",
            f"{max(result.foreign_share for result in runs):.0%}",
        ])  # fmt: skip
    return table(head, rows)
