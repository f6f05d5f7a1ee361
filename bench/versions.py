"""Comparison of this version with another checkout: speed, processor time, starts and memory."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

from bench.compare import rotate
from bench.data import DataSet
from bench.footprint_after import measure_start, stop_worker
from bench.measure import Bench, RunResult
from bench.report import describe_run, median, rounded, store_raw_numbers, table
from bench.sides import ALL, BY_USER, ROOT, lately
from bench.usage import read_status

HEADING = "This version and another one"
BEFORE, AFTER = "before", "after"
#: The seconds between the first answer of a worker and the measurement of its memory.
SETTLE_S = 3
HOW = """\
The same orders, with the code of two checkouts that take turns; each round starts with the other
one. "orders/s", its time and memory as in "Side by side". Then the worker is stopped and started
again with its disk: seconds until the first 200 of /readyz, and the resident memory {settle} s
later. The numbers are medians, and all rounds in brackets."""


@dataclass
class VersionResult:
    """The results of one version with one configuration."""

    runs: list[RunResult] = field(default_factory=list)
    start_s: list[float] = field(default_factory=list)
    resident_mib: list[float] = field(default_factory=list)


def versions(bench: Bench, data: DataSet, rounds: int, before: Path) -> str:
    """Measure the checkout in the folder `before` and this one in turns; return the text of the section."""
    bench.prepare(data)
    roots = {BEFORE: before.resolve(), AFTER: ROOT}
    results = {(side, version): VersionResult() for side in (BY_USER, ALL) for version in roots}
    for number in range(rounds):
        for side in (BY_USER, ALL):
            for version in rotate([BEFORE, AFTER], number):
                measure_version(bench, data, side, roots[version], results[side, version])
                last = results[side, version]
                bench.log(
                    f"{side}, {version}: {last.runs[-1].rate:,.0f} orders/s, "
                    f"{last.runs[-1].cpu_s / data.orders * 1e6:.1f} us, ready after {last.start_s[-1]:.1f} s, "
                    f"{last.resident_mib[-1]:.0f} MiB, other processes "
                    f"used {last.runs[-1].foreign_share:.0%} of the machine"
                )
    store_raw_numbers("versions", {f"{side}, {version}": result for (side, version), result in results.items()})
    rows = [version_row(f"{side}, {version}", result) for (side, version), result in results.items()]
    head = ["version", "orders/s", "CPU µs per order", "peak MiB", "ready after, s", "MiB then", "elsewhere"]
    return f"{data}.\n\n{table(head, rows)}\n\n{HOW.format(settle=SETTLE_S)}\n\n{describe_run()}"


def measure_version(bench: Bench, data: DataSet, side: str, root: Path, result: VersionResult) -> None:
    """Let a worker read the orders, start it again, and add the measurements to `result`."""
    context = bench.create_context(data)
    worker = lately(context, by_product=side == ALL, similar=side == ALL, root=root)
    with bench.running(context, worker):
        result.runs.append(bench.ingest(worker, context))
        stop_worker(bench, worker, context)
        result.start_s.append(measure_start(worker, context))
        time.sleep(SETTLE_S)
        result.resident_mib.append(read_status(worker.pid, "VmRSS") / 1024)


def version_row(name: str, result: VersionResult) -> list[str]:
    """Return a row of the table."""
    micros = [run.cpu_s / run.orders * 1e6 for run in result.runs]
    return [
        name,
        f"**{rounded(median(run.rate for run in result.runs))}** "
        f"({', '.join(rounded(run.rate) for run in result.runs)})",
        f"{median(micros):.1f} ({', '.join(f'{number:.1f}' for number in micros)})",
        f"{median(run.peak_mib for run in result.runs):.0f}",
        f"{median(result.start_s):.2f} ({', '.join(f'{seconds:.2f}' for seconds in result.start_s)})",
        f"{median(result.resident_mib):.0f} ({', '.join(f'{mib:.0f}' for mib in result.resident_mib)})",
        f"{max(run.foreign_share for run in result.runs):.0%}",
    ]
