"""The cost of traces in a long topic, and of a report while a worker serves queries."""

from __future__ import annotations

import json
import shutil
import time
import urllib.request
from contextlib import closing
from pathlib import Path

from bench.data import DataSet
from bench.measure import POLL_INTERVAL_S, Bench
from bench.queries import finish_query_client, quantile, start_query_client
from bench.recovery import is_worker_ready
from bench.report import describe_run, rounded, store_raw_numbers, table
from bench.sides import BY_USER, FOLDER, ROOT, RunContext, find_side
from bench.source import INSERT, BenchShop, order_row
from bench.usage import Usage
from local.artifacts import resolve
from local.database import start_database
from local.process import wait_ready

HEADING = "Looking back"
TRACES = 50
RATE = 200
HOW = """\
Trace: {traces} orders are inserted into MySQL while the source and a worker run and the topic
already contains all these events. Then `GET /v1/orders/<order>/trace` is called for each order; the
response contains the milliseconds and the number of records. `lately trace` is measured as one
process. Report: `lately report sales --by day` over all events: first when all events are read, and
again when they are aggregated once more, both in a session of its own, like another terminal or
service; and again with `--idle` in the session of the worker. Meanwhile {rate} queries a second for
random users run at fixed times, as in "Queries"; the baseline is the same load without a report,
for the duration of the first report. The memory of the report is sampled every {every:.0f} ms; the
result is the peak of the process."""


def history(bench: Bench, data: DataSet) -> str:
    """Measure traces and reports, and return the text of the section."""
    bench.prepare(data)
    folder = FOLDER / "run" / "history"
    with start_database(resolve(ROOT / ".lately", bench.log), folder) as server:
        context = bench.create_context(data)
        worker = find_side(BY_USER).create_process(context)
        worker.own_session = False
        shop = BenchShop(server, bench.kafka)
        shop.env |= {name: value for name, value in worker.env.items() if name.startswith("LATELY_")}
        worker.env |= shop.env
        shop.run("source", "setup")
        with bench.running(context, worker):
            wait_ready(worker, lambda: is_worker_ready(worker, context), 90, "answer")
            ingested = bench.ingest(worker, context)
            bench.log(f"history: read {data} at {rounded(ingested.rate)} orders/s")
            trace_metas, command_s = measure_traces(shop, context)
            bench.log("history: traced")
            reports = [measure_report(bench, shop, context) for _ in range(2)]
            reports.append(measure_report(bench, shop, context, "--idle"))
            baseline = finish_query_client(start_query_client(context, RATE, max(5.0, reports[0]["seconds"])))
            report_folder = Path(f"{context.folder / 'state'}-report")
            size = sum(path.stat().st_size for path in report_folder.iterdir())
    for used in (folder, report_folder):
        shutil.rmtree(used, ignore_errors=True)
    store_raw_numbers("history", {"traces": trace_metas, "reports": reports, "alone": baseline})
    return section_text(data, trace_metas, command_s, reports, baseline, size)


def measure_traces(shop: BenchShop, context: RunContext) -> tuple[list[dict], float]:
    """Trace new orders; return the `meta` of the responses, and the seconds of a `lately trace`."""
    with shop.publishing(), closing(shop.connect()) as connection, closing(connection.cursor()) as cursor:
        for number in range(TRACES):
            cursor.execute(INSERT, order_row(number))
            connection.commit()
        for number in range(TRACES):
            order, _, user, *_ = order_row(number)
            get_json(context, f"/v1/users/{user}/purchases?after_order={order}&wait_ms=5000")
        order_traces = [get_json(context, f"/v1/orders/{order_row(number)[0]}/trace") for number in range(TRACES)]
        if any(trace["outcome"] != "visible" for trace in order_traces):
            raise RuntimeError(f"not all orders are visible: {order_traces}")
        return [trace["meta"] for trace in order_traces], shop.run("trace", order_row(0)[0])


def get_json(context: RunContext, path: str) -> dict:
    """Return the JSON response of the worker."""
    with urllib.request.urlopen(f"http://127.0.0.1:{context.port}{path}", timeout=10) as answer:
        return json.load(answer)


def measure_report(bench: Bench, shop: BenchShop, context: RunContext, *idle: str) -> dict:
    """Return seconds and peak MiB of a report, and the responses to queries meanwhile.

    With `--idle` the report runs in the session of the worker and of the query client, which is
    also that of this process.
    """
    process = shop.lately_process("report", "sales", "--from", "2026-01-01", "--to", "2026-12-31", "--no-check", *idle)
    process.own_session = not idle
    client = start_query_client(context, RATE, 0)
    try:
        time.sleep(1)
        process.start()
        usage, began = None if idle else Usage(process.pid, (bench.broker.pid,)), time.monotonic()
        while process.child.poll() is None:
            if usage is not None:
                usage.sample()
            time.sleep(POLL_INTERVAL_S)
        spent = time.monotonic() - began
        if process.child.returncode != 0:
            raise RuntimeError(f"the report failed:\n{process.tail()}")
        bench.log(f"history: a report took {spent:.1f} s")
        peak = None if usage is None else usage.peak_mib
        return {"seconds": spent, "peak MiB": peak, "answers": finish_query_client(client)["answers"]}
    finally:
        client.kill()
        client.wait()


def section_text(
    data: DataSet, trace_metas: list[dict], command_s: float, reports: list[dict], baseline: dict, size: int
) -> str:
    """Return the text of the section."""
    took = sorted(trace_meta["took_ms"] for trace_meta in trace_metas)
    fetched = [trace_meta["records_fetched"] for trace_meta in trace_metas]
    rows = [
        ["trace, p50 ms", f"{quantile(took, 0.5):.1f}"],
        ["trace, most ms", f"{took[-1]:.1f}"],
        ["records fetched for it, fewest and most", f"{min(fetched):,} and {max(fetched):,}"],
        ["`lately trace`, the whole process, s", f"{command_s:.2f}"],
    ]
    quiet = _times(baseline)
    rows.append(
        [
            f"{RATE} queries/s without a report, p50 and p99 ms",
            f"{quantile(quiet, 0.5):.2f} and {quantile(quiet, 0.99):.2f}",
        ]
    )
    names = ("the first report", "the same report again", "the same with `--idle`, in the session of the worker")
    for name, result in zip(names, reports, strict=True):
        times = _times(result)
        rows.append([f"{name}, s", f"{result['seconds']:.1f}"])
        if result["peak MiB"] is not None:
            rows.append(["its peak memory, MiB", f"{result['peak MiB']:.0f}"])
        rows.append(
            [
                f"{RATE} queries/s meanwhile, p50 and p99 ms",
                f"{quantile(times, 0.5):.2f} and {quantile(times, 0.99):.2f}",
            ]
        )
    rows.append(["its file of all events, MiB", f"{size / 2**20:.0f}"])
    how = HOW.format(traces=TRACES, rate=RATE, every=POLL_INTERVAL_S * 1000)
    return f"One worker, {BY_USER}; {data}.\n\n{table(['what', 'measured'], rows)}\n\n{how}\n\n{describe_run()}"


def _times(result: dict) -> list[float]:
    failures = [status for _, status in result["answers"] if status != 200]
    if failures:
        raise RuntimeError(f"queries were answered with {sorted(set(failures))}")
    return sorted(time for time, _ in result["answers"])
