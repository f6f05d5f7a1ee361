"""Lists of products while workers join, fail and are restarted one by one."""

from __future__ import annotations

import json
import random
import shutil
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from typing import NamedTuple
from urllib.parse import quote

import aiohttp

from bench.background_load import UsageSampler
from bench.data import user_id
from bench.elastic import ReadSample, read_purchases
from bench.fleet import (
    BATCH,
    PARTITIONS,
    USERS,
    Fleet,
    OrderStream,
    Reader,
    Steps,
    Writer,
    get_from_any,
    longest_failure,
)
from bench.measure import Bench
from bench.queries import quantile
from bench.report import describe_run, store_raw_numbers, table
from bench.sides import FOLDER, ROOT
from bench.source import BenchShop
from bench.usage import Usage
from domain.partitioning import partition_of
from local.artifacts import resolve
from local.database import start_database

HEADING = "Lists of products while workers come and go"
ORDERS_PER_S, READS_PER_S, PURCHASES_PER_S = 500, 200, 10
#: The orders before the first request are committed as fast as this.
FILL_PER_S = 4_000
PRODUCTS = 1_000
#: All orders are of the last week, even after an hour, so that the time windows contain them.
FIRST_AT_AGO, STEP = timedelta(days=1), timedelta(milliseconds=40)
#: After a kill the group notices it after 8 s, and then rebalances.
KILL_PAUSE_S = 15
CATCH_UP_TIMEOUT_S = 120
ROUTES = ("popular", "recommendations", "similar")
WINDOWS = ("1h", "24h", "7d")
HOW = """\
Three workers run all agents, with a standby of each partition (`LATELY_STANDBY_REPLICAS=1`) and a
session timeout of 8 s. A shop has committed {fill:,} orders of {users:,} users and {products:,}
products, and commits {orders} orders a second, {batch} in a transaction. A client sends {reads}
requests a second, like those of "Workers that come and go": equally many for `/v1/products/popular`
with a random window, for `/v1/users/<user>/recommendations`, and for
`/v1/products/<product>/similar`. "p99 by route": in this sequence. "Failed": responses other than
200, by problem code. "Longest failure": the longest time in which all responses of a route about
the users or products of a partition failed. "Last failure after": the longest time from a change (a
kill, a SIGTERM, the start of a process) to a failed response before the next change.
"Not complete": lists with `meta.complete` false; "standby": lists with neighbours from a copy;
"oldest list": the greatest `meta.lag_ms`. The second table shows how busy the machine was: the
times of {control} further requests a second for the purchases of a user, and the share of the
machine that processes other than the workers, the source, the broker, the database and the
benchmark used."""


class ListSample(NamedTuple):
    """One response: time of the request (s), route, partition, duration, and fields of the response."""

    time: float
    route: str
    partition: int
    took_ms: float
    status: int
    code: str | None
    is_complete: bool
    role: str | None
    lag_ms: int | None
    rows: int


async def read_list(session: aiohttp.ClientSession, dice: random.Random, ports: list[int]) -> ListSample:
    """Request one of the lists."""
    route, partition = dice.choice(ROUTES), 0
    if route == "popular":
        path = f"/v1/products/popular?window={dice.choice(WINDOWS)}"
    elif route == "similar":
        name = f"Product {dice.randrange(PRODUCTS)}"
        path, partition = f"/v1/products/{quote(name)}/similar", partition_of(name.encode(), PARTITIONS)
    else:
        name = user_id(dice.randrange(USERS))
        path, partition = f"/v1/users/{name}/recommendations", partition_of(name.encode(), PARTITIONS)
    began, took_ms, status, body = await get_from_any(session, ports, path)
    meta = body.get("meta", {})
    rows = next((len(value) for value in body.values() if isinstance(value, list)), 0)
    code = None if status == 200 else body.get("code", "no answer")
    return ListSample(
        began, route, partition, took_ms, status, code,
        meta.get("complete", False), meta.get("role"), meta.get("lag_ms"), rows,
    )  # fmt: skip


def elastic_lists(bench: Bench, pause_s: float, fill: int) -> str:
    """Run all steps with pauses of `pause_s` after `fill` orders, and return the text of the section."""
    folder = FOLDER / "run" / "database"
    with start_database(resolve(ROOT / ".lately", bench.log), folder) as server:
        shop = BenchShop(server, bench.kafka)
        shop.env["LATELY_PARTITIONS"] = str(PARTITIONS)
        run = run_steps(bench, shop, pause_s, fill)
    for used in (folder, *(FOLDER / "run" / shop.name).glob("*/state")):
        shutil.rmtree(used, ignore_errors=True)
    store_raw_numbers("lists", run._asdict() | {"steps": run.steps.done})
    rows = [step_row(name, during, run.changes) for name, during in run.steps.samples(run.lists)]
    head = ["step", "requests", "p50 ms", "p99 ms", "p99 by route", "max ms", "failed", "longest failure s",
            "last failure after, s", "not complete", "standby", "oldest list s", "rows"]  # fmt: skip
    how = HOW.format(
        fill=fill, users=USERS, products=PRODUCTS, orders=ORDERS_PER_S, batch=BATCH, reads=READS_PER_S,
        control=PURCHASES_PER_S,
    )  # fmt: skip
    return f"{run.wrote}.\n\n{table(head, rows)}\n\n{machine_table(run)}\n\n{how}\n\n{describe_run()}"


class ListsRun(NamedTuple):
    """The steps, the responses, the orders, the times of the changes, and shares of the machine."""

    steps: Steps
    lists: list[ListSample]
    purchases: list[ReadSample]
    wrote: str
    changes: list[float]
    #: For each step the share of the machine that other processes used.
    foreign_shares: list[float]


def run_steps(bench: Bench, shop: BenchShop, pause_s: float, fill: int) -> ListsRun:
    """Run the steps."""
    shop.run("source", "setup")
    fleet = Fleet(shop)
    fleet.pids.add(shop.server.process.pid)
    steps, foreign_shares = Steps(pause_s, lambda name: bench.log(f"lists: {name}")), []

    @contextmanager
    def step(name: str, min_s: float = 0.0) -> Iterator[None]:
        usage = Usage(bench.broker.pid, fleet.pids)
        with UsageSampler(usage), steps.step(name, max(pause_s, min_s)):
            yield
        foreign_shares.append(usage.foreign_share)

    first_at = datetime.now(timezone.utc).replace(tzinfo=None) - FIRST_AT_AGO
    # The client and the writer share the lock of this process, which Python passes on every 5 ms.
    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(0.0005)
    try:
        for name in ("a", "b", "c"):
            fleet.start(name)
        with shop.publishing() as source:
            fleet.pids.add(source.pid)
            with Writer(shop, OrderStream(FILL_PER_S, PRODUCTS, first_at, STEP)) as filler:
                while filler.committed < fill:
                    time.sleep(0.05)
            wait_until_read(fleet)
            bench.log(f"lists: {filler.committed:,} orders are read")
            stream = OrderStream(ORDERS_PER_S, PRODUCTS, first_at, STEP)
            with (
                Writer(shop, stream, filler.committed) as writer,
                Reader(fleet, READS_PER_S, read_list) as reader,
                Reader(fleet, PURCHASES_PER_S, read_purchases) as purchase_reader,
            ):
                with step("three workers"):
                    pass
                with step("one is killed (kill -9)", KILL_PAUSE_S):
                    fleet.kill("b")
                with step("another one joins"):
                    fleet.start("d")
                with step("all are restarted, one by one"):
                    for name in ("a", "c", "d"):
                        fleet.restart(name)
                with step("three workers again"):
                    pass
    finally:
        fleet.stop()
        sys.setswitchinterval(interval_s)
    return ListsRun(steps, reader.samples, purchase_reader.samples, str(writer), fleet.changes, foreign_shares)


def wait_until_read(fleet: Fleet) -> None:
    """Wait until the lists of all workers contain all orders that were committed until now."""
    began = time.monotonic()
    while time.monotonic() < began + CATCH_UP_TIMEOUT_S:
        lags = [read_lag_s(port) for port in fleet.ports.values()]
        if all(lag_s is not None and lag_s < time.monotonic() - began for lag_s in lags):
            return
        time.sleep(0.5)
    raise RuntimeError(f"the first orders were not read within {CATCH_UP_TIMEOUT_S} s")


def read_lag_s(port: int) -> float | None:
    """Return the age of the lists of a worker; None if it is unknown, or they are not complete."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/products/popular", timeout=5) as answer:
            meta = json.load(answer)["meta"]
    except urllib.error.HTTPError:
        return None
    return meta["lag_ms"] / 1000 if meta["complete"] and meta["lag_ms"] is not None else None


def step_row(name: str, samples: list[ListSample], changes: list[float]) -> list[str]:
    """Return a row of the table."""
    successes = [sample for sample in samples if sample.status == 200]
    failures = Counter(sample.code for sample in samples if sample.status != 200)
    times = sorted(sample.took_ms for sample in successes)
    lags = [sample.lag_ms for sample in successes if sample.lag_ms is not None]
    by_route = {route: sorted(sample.took_ms for sample in successes if sample.route == route) for route in ROUTES}
    after = last_failure_after(samples, changes)
    return [
        name,
        f"{len(samples):,}",
        f"{quantile(times or [0.0], 0.5):.1f}",
        f"{quantile(times or [0.0], 0.99):.1f}",
        " / ".join(f"{quantile(took or [0.0], 0.99):.1f}" for took in by_route.values()),
        f"{max(times, default=0.0):.0f}",
        ", ".join(f"{count} {code}" for code, count in failures.items()) or "0",
        f"{longest_failure_of_keys(samples):.2f}",
        "-" if after is None else f"{after:.2f}",
        f"{sum(not sample.is_complete for sample in successes):,}",
        f"{sum(sample.role == 'standby' for sample in successes):,}",
        f"{max(lags, default=0) / 1000:.1f}",
        f"{sum(sample.rows for sample in successes) / max(len(successes), 1):.1f}",
    ]


def machine_table(run: ListsRun) -> str:
    """Return the table of the load of the machine."""
    rows = []
    for (name, samples), share in zip(run.steps.samples(run.purchases), run.foreign_shares, strict=True):
        times = sorted(sample.took_ms for sample in samples if sample.status == 200) or [0.0]
        rows.append([name, f"{quantile(times, 0.5):.1f}", f"{quantile(times, 0.99):.1f}", f"{share:.0%}"])
    return table(["step", "purchases, p50 ms", "p99 ms", "elsewhere"], rows)


def longest_failure_of_keys(samples: list[ListSample]) -> float:
    """Return the longest time (s) in which all responses of a route and a partition failed."""
    by_key: dict[tuple[str, int], list[ListSample]] = {}
    for sample in samples:
        by_key.setdefault((sample.route, sample.partition), []).append(sample)
    return max(map(longest_failure, by_key.values()), default=0.0)


def last_failure_after(samples: list[ListSample], changes: list[float]) -> float | None:
    """Return the longest time (s) from a change to a failed response before the next change."""
    failed = [sample.time for sample in samples if sample.status != 200]
    return max((failed_at - max(at for at in changes if at <= failed_at) for failed_at in failed), default=None)
