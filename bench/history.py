"""What looking back costs: a trace in a long topic, and a report beside the queries of a worker."""

from __future__ import annotations

import json
import shutil
import time
import urllib.request
from contextlib import closing
from pathlib import Path

from bench.data import DataSet
from bench.measure import SECONDS_BETWEEN_LOOKS, Bench
from bench.queries import ask, part, told
from bench.recovery import serves
from bench.report import circumstances, keep_raw, rounded, table
from bench.sides import BY_USER, FOLDER, ROOT, Place, side
from bench.source import INSERT, Shop, row
from bench.usage import Usage
from local.artifacts import resolve
from local.mariadb import start_mariadb
from local.process import wait_ready

HEADING = "Looking back"
TRACES = 50
RATE = 200
HOW = """\
Trace: {traces} orders are placed in MySQL while the source and a worker run and the topic has all these events already;
then `GET /v1/orders/<order>/trace` of each, with the milliseconds and the number of records that its answer names, and
one whole process `lately trace`. Report: `lately report sales --by day` over all events: the first time, when all of
them are read, and again, when they are folded anew, both from a session of its own, as another terminal or service
has it; and again with `--idle` in the session of the worker. Meanwhile {rate}
queries a second for random users at fixed times, as in "Queries", and the same without a report for as long as the
first one took. Every {every:.0f} ms the report's memory is looked at; it is the peak of the whole process."""


def history(bench: Bench, data: DataSet) -> str:
    """Trace, then report, and return the text of the section."""
    bench.prepare(data)
    folder = FOLDER / "run" / "history"
    with start_mariadb(resolve(ROOT / ".lately", bench.say), folder) as server:
        place = bench.place(data)
        worker = side(BY_USER).make(place)
        worker.own_session = False
        shop = Shop(server, bench.kafka)
        shop.env |= {name: value for name, value in worker.env.items() if name.startswith("LATELY_")}
        worker.env |= shop.env
        shop.run("source", "setup")
        with bench.running(place, worker):
            wait_ready(worker, lambda: serves(worker, place), 90, "answer")
            ingested = bench.ingest(worker, place)
            bench.say(f"history: read {data} at {rounded(ingested.rate)} orders/s")
            traced, command_s = traces(shop, place)
            bench.say("history: traced")
            reports = [report(bench, shop, place) for _ in range(2)]
            reports.append(report(bench, shop, place, "--idle"))
            alone = told(ask(place, RATE, max(5.0, reports[0]["seconds"])))
            kept = Path(f"{place.folder / 'state'}-report")
            size = sum(one.stat().st_size for one in kept.iterdir())
    for used in (folder, kept):
        shutil.rmtree(used, ignore_errors=True)
    keep_raw("history", {"traces": traced, "reports": reports, "alone": alone})
    return text(data, traced, command_s, reports, alone, size)


def traces(shop: Shop, place: Place) -> tuple[list[dict], float]:
    """What the traces of orders placed now say of themselves, and the seconds of a whole command."""
    with shop.publishing(), closing(shop.connect()) as connection, closing(connection.cursor()) as cursor:
        for number in range(TRACES):
            cursor.execute(INSERT, row(number))
            connection.commit()
        for number in range(TRACES):
            order, _, user, *_ = row(number)
            get(place, f"/v1/users/{user}/purchases?after_order={order}&wait_ms=5000")
        found = [get(place, f"/v1/orders/{row(number)[0]}/trace") for number in range(TRACES)]
        if any(one["outcome"] != "visible" for one in found):
            raise RuntimeError(f"not all orders are visible: {found}")
        return [one["meta"] for one in found], shop.run("trace", row(0)[0])


def get(place: Place, path: str) -> dict:
    """The JSON that the worker answers."""
    with urllib.request.urlopen(f"http://127.0.0.1:{place.port}{path}", timeout=10) as answer:
        return json.load(answer)


def report(bench: Bench, shop: Shop, place: Place, *idle: str) -> dict:
    """Seconds and peak MiB of a report, and how queries were answered meanwhile.

    With `--idle` it is in the session of the worker and of the queries, which is also that of this process.
    """
    process = shop.lately("report", "sales", "--from", "2026-01-01", "--to", "2026-12-31", "--no-check", *idle)
    process.own_session = not idle
    asking = ask(place, RATE, 0)
    try:
        time.sleep(1)
        process.start()
        usage, began = None if idle else Usage(process.pid, (bench.broker.pid,)), time.monotonic()
        while process.child.poll() is None:
            if usage is not None:
                usage.look()
            time.sleep(SECONDS_BETWEEN_LOOKS)
        spent = time.monotonic() - began
        if process.child.returncode != 0:
            raise RuntimeError(f"the report failed:\n{process.tail()}")
        bench.say(f"history: a report took {spent:.1f} s")
        peak = None if usage is None else usage.peak_mib
        return {"seconds": spent, "peak MiB": peak, "answers": told(asking)["answers"]}
    finally:
        asking.kill()
        asking.wait()


def text(data: DataSet, traced: list[dict], command_s: float, reports: list[dict], alone: dict, size: int) -> str:
    """The section."""
    took = sorted(one["took_ms"] for one in traced)
    fetched = [one["records_fetched"] for one in traced]
    rows = [
        ["trace, p50 ms", f"{part(took, 0.5):.1f}"],
        ["trace, most ms", f"{took[-1]:.1f}"],
        ["records fetched for it, fewest and most", f"{min(fetched):,} and {max(fetched):,}"],
        ["`lately trace`, the whole process, s", f"{command_s:.2f}"],
    ]
    quiet = _times(alone)
    rows.append(
        [f"{RATE} queries/s without a report, p50 and p99 ms", f"{part(quiet, 0.5):.2f} and {part(quiet, 0.99):.2f}"]
    )
    names = ("the first report", "the same report again", "the same with `--idle`, in the session of the worker")
    for name, one in zip(names, reports, strict=True):
        times = _times(one)
        rows.append([f"{name}, s", f"{one['seconds']:.1f}"])
        if one["peak MiB"] is not None:
            rows.append(["its peak memory, MiB", f"{one['peak MiB']:.0f}"])
        rows.append(
            [f"{RATE} queries/s meanwhile, p50 and p99 ms", f"{part(times, 0.5):.2f} and {part(times, 0.99):.2f}"]
        )
    rows.append(["its file of all events, MiB", f"{size / 2**20:.0f}"])
    how = HOW.format(traces=TRACES, rate=RATE, every=SECONDS_BETWEEN_LOOKS * 1000)
    return f"One worker, {BY_USER}; {data}.\n\n{table(['what', 'measured'], rows)}\n\n{how}\n\n{circumstances()}"


def _times(asked: dict) -> list[float]:
    bad = [status for _, status in asked["answers"] if status != 200]
    if bad:
        raise RuntimeError(f"queries were answered with {sorted(set(bad))}")
    return sorted(time for time, _ in asked["answers"])
