"""All sides over the same topic, in turns; the medians, and what they are to each other."""

from __future__ import annotations

from bench.data import DataSet
from bench.measure import Bench, Result
from bench.report import circumstances, keep_raw, median, rounded, table
from bench.sides import ALL, BY_USER, SIDES, STREAMS, Side, can_leave_out, side
from local.process import ServerFailed

HEADING = "Side by side"
ONE_THREAD = f"{STREAMS}, 1 thread"
HOW = """\
The work: read the topic `orders` from its beginning, decode the JSON, group by user, keep each user's last purchases
in a RocksDB table with a changelog in Kafka, commit every 500 ms (Lately at its own pace). The peers keep a plain
list of 20. Lately does more on top: it checks every rule of an event, sorts, keeps 20 + 12 with their versions so
that repeats and removals come out right, and answers over HTTP. The bare loop does less: no state, no output.

How it was measured: the same from outside for all. Each run has a new consumer group, an empty disk and a fresh
changelog; one side runs at a time; in every round each side runs once, and every round begins with another side. An
observer asks the broker every 50 ms for the group's committed offsets and the changelog's end. The clock starts at the
first growth of either, so that the start of a process does not count, and ends when the group has committed the end of
the topic (with totals by product and similar products: and of the topics in between). orders/s = orders committed
between the two / seconds between the two; the medians of all rounds. "Orders alone" ends when the group has committed
the end of `orders`, whatever is left to read of the topics in between: the pace of the purchases by user. "Second
half" is the same from the commit of the middle on, where that is more than 2 s: without what is slow at the beginning,
above all the JVM, which has yet to compile. The bare loop commits nothing and tells its time itself. Stock Faust is
stopped after its first 60,000 orders; "(first n)" marks a side that was stopped for being slow. Memory is the peak RSS
of the process and its children (VmHWM); CPU is their user and system time from their start, per million orders read.
"Elsewhere" is the share of the machine that others than the side, the broker and the benchmark had, in the round where
it was most: where it is large, run again."""


def compare(bench: Bench, data: DataSet, rounds: int, only: list[str] | None = None) -> str:
    """Run the sides in turns and return the text of the section."""
    sides = [one for one in SIDES if not only or any(word.lower() in one.name.lower() for word in only)]
    for name, setting in ((BY_USER, "by_product"), (ALL, "similar")):
        if not can_leave_out(setting):
            bench.say(f"{name}: left out, this version of Lately does not know LATELY_{setting.upper()}")
            sides = [one for one in sides if one.name != name]
    results: dict[str, list[Result]] = {one.name: [] for one in sides}
    for number in range(rounds):
        bench.say(f"round {number + 1} of {rounds}")
        for one in turned(sides, number):
            try:
                results[one.name].append(bench.run(one, data))
            except ServerFailed as exc:
                # One broken side must not cost the numbers of all others; its row says so.
                bench.say(f"{one.name}: failed: {exc}")
            keep_raw("compare", results)
    return f"{data}.\n\n{shown(results)}\n\n{HOW}\n\n{circumstances()}"


def turned(sides: list[Side], by: int) -> list[Side]:
    """The same order, begun at another place: no side always comes after the same rest."""
    by %= len(sides) or 1
    return sides[by:] + sides[:by]


def shown(results: dict[str, list[Result]]) -> str:
    """The table."""
    rates = {name: median(result.rate for result in runs) for name, runs in results.items() if runs}
    compared = [name for name in (BY_USER, ONE_THREAD) if name in rates]
    head = ["side", "orders/s", *(f"x {name}" for name in compared)]
    head += ["orders alone", "second half", "each round", "peak MiB", "CPU s per million", "elsewhere"]
    rows = []
    for name, runs in results.items():
        if not runs:
            rows.append([f"{name}: failed", *["-"] * (len(head) - 1)])
            continue
        later = [result.later for result in runs if result.later]
        read = max(result.orders for result in runs)
        cut = "" if side(name).bound is None and all(result.whole for result in runs) else f" (first {read:,})"
        rows.append([
            f"{name}{cut}",
            f"**{rounded(rates[name])}**",
            *(f"{rates[name] / rates[other]:.2f}" for other in compared),
            rounded(median(result.alone for result in runs)),
            rounded(median(later)) if later else "-",
            ", ".join(rounded(result.rate) for result in runs),
            f"{median(result.peak_mib for result in runs):,.0f}",
            f"{median(result.cpu_s / result.orders for result in runs) * 1e6:,.1f}",
            f"{max(result.elsewhere for result in runs):.0%}",
        ])  # fmt: skip
    return table(head, rows)
