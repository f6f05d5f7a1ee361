"""The pause of processing while workers join, fail and are restarted: Lately and stock Faust."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from confluent_kafka import ConsumerGroupState
from confluent_kafka.admin import AdminClient

from bench.background_load import CHANGELOG_POLL_S, ChangelogFollower, OrderLoad, UsageSampler, longest_gap
from bench.data import DataSet, Feed
from bench.measure import POLL_INTERVAL_S, Bench
from bench.observer import Observer
from bench.report import describe_run, median, store_raw_numbers, table
from bench.sides import BY_USER, STOCK, RunContext, lately, stock_faust
from bench.usage import Usage
from domain.purchases import decode_recent
from local.process import LocalProcess

HEADING = "The pause of a rebalance"
ORDERS_PER_S, PARTITIONS = 2_000, 4
#: So many users that no user gets more orders than the 20 that stock Faust stores.
USERS = 100_000
#: The seconds before the first step, so that the start does not count as a pause.
WARM_UP_S = 3
SESSION_S, HEARTBEAT_S = 8, 1
#: A partition without a new record for this time is still paused.
MAX_IDLE_S = 1.0
STOP_TIMEOUT_S = 40
FILL_TIMEOUT_S = 240
#: A longer step is reported as not finished, and ends the run of its side.
STEP_TIMEOUT_S = 60
CATCH_UP_TIMEOUT_S = 30
HOW = """\
Both sides store the purchases by user in RocksDB, with a standby of each partition on another
worker (`LATELY_STANDBY_REPLICAS=1`; Faust's `table_standby_replicas=1`), a session timeout of
{session} s and a heartbeat every {heartbeat} s. These are the defaults of Lately; those of Faust
are 60 and 3 s. Lately runs without totals by product and similar products (`LATELY_BY_PRODUCT=0
LATELY_SIMILAR=0`), which the other side does not have. First one worker reads {fill:,} orders of
{users:,} users. Then {rate:,} orders a second are written to the topic `orders`, equally to its
{partitions} partitions, independently of the workers. The measurement is from outside and equal
for both: a consumer that reads only committed records polls the changelog of the table every
{look:.0f} ms. Each order creates a record there, so a partition is paused while no record arrives.
A step starts with the start, the kill or the SIGTERM of a worker. It ends when it is at least
{pause:g} s old, the group is stable with all its members, and each partition had a new record in
the last second; or after {bound} s, and then the remaining steps are skipped. "Longest" is the
partition with the longest pause, "median" the median of all partitions. "Orders behind": orders
that the group had not committed at the end of the step (stock Faust commits every 0.5 s).
"Elsewhere": the share of the machine that other processes used; if it is large, repeat the
measurement. When no more orders are written and all are read, or after {catch_up} s, the newest
values of the changelog are compared with the orders that were written. Stock Faust's lists are
plain lists, in which an order that is read again counts twice; Lately detects it by its version."""


@dataclass(frozen=True)
class PauseSide:
    """A side: its table, its worker, and a function that reads order ids from a changelog value."""

    name: str
    table: str
    create_process: Callable[[RunContext], LocalProcess]
    env: dict[str, str]
    orders: Callable[[bytes], Iterable[object]]


PAUSE_SIDES = (
    PauseSide(
        BY_USER,
        "by_user",
        lambda context: lately(context, by_product=False),
        {"LATELY_STANDBY_REPLICAS": "1", "LATELY_SESSION_TIMEOUT_S": str(SESSION_S)},
        lambda value: (purchase.order_id for purchase in decode_recent(value).purchases),
    ),
    PauseSide(
        STOCK,
        "recent",
        stock_faust,
        {"BENCH_SESSION_S": str(SESSION_S), "BENCH_HEARTBEAT_S": str(HEARTBEAT_S)},
        lambda value: (order[0] for order in json.loads(value)),
    ),
)


@dataclass(frozen=True)
class StepResult:
    """The result of one step: the longest gap of each partition, the lag, and remarks."""

    step: str
    gaps: list[float]
    lag: int
    foreign_share: float
    remarks: list[str]
    is_over: bool


class Group:
    """The workers of one side, in one consumer group."""

    def __init__(self, side: PauseSide, context: RunContext) -> None:
        self._side, self._context = side, context
        self._admin = AdminClient({"bootstrap.servers": context.kafka, "log_level": 0})
        self.running: dict[str, LocalProcess] = {}
        #: The ids of all processes that were started.
        self.pids: set[int] = set()
        self._workers: dict[str, LocalProcess] = {}

    def start(self, name: str) -> None:
        """Start a worker; a restarted worker has its disk and port of before."""
        if name not in self._workers:
            # Each context has a port of its own.
            worker_context = RunContext(self._context.kafka, self._context.data, self._context.group, name=name)
            self._workers[name] = self._side.create_process(worker_context)
            self._workers[name].env |= self._side.env
        self.running[name] = self._workers[name]
        self.running[name].start()
        self.pids.add(self.running[name].pid)

    def kill(self, name: str) -> None:
        """Kill a worker with SIGKILL."""
        self.running.pop(name, None)
        self._workers[name].kill()

    def restart(self, name: str) -> None:
        """Stop a worker with SIGTERM, and start it again."""
        self._workers[name].stop(STOP_TIMEOUT_S)
        self.start(name)

    def remove_ended(self) -> list[str]:
        """Remove the workers that ended by themselves, and return a remark about each."""
        ended = [name for name, process in self.running.items() if not process.is_running]
        return [f"worker {name} ended with {self.running.pop(name).child.returncode}" for name in ended]

    def is_complete(self) -> bool:
        """Return True if the group is stable and has exactly the running workers as members."""
        description = self._admin.describe_consumer_groups([self._context.group])[self._context.group].result()
        return description.state == ConsumerGroupState.STABLE and len(description.members) == len(self.running)

    def stop(self) -> None:
        """Kill all workers and remove their disks; their logs remain."""
        for process in self._workers.values():
            process.kill()
            shutil.rmtree(process.folder / "state", ignore_errors=True)


#: The steps: of three workers the second is killed, and the first is restarted.
STEPS: tuple[tuple[str, Callable[[Group], None]], ...] = (
    ("one worker, nothing happens", lambda group: None),
    ("a second joins", lambda group: group.start("b")),
    ("a third joins", lambda group: group.start("c")),
    ("one is killed (kill -9)", lambda group: group.kill("b")),
    ("one is restarted (SIGTERM)", lambda group: group.restart("a")),
)


def wait_until(seconds: float, check: Callable[[], bool]) -> bool:
    """Wait until `check()` is true; return False if it is not true within `seconds`."""
    until = time.monotonic() + seconds
    while not check():
        if time.monotonic() > until:
            return False
        time.sleep(POLL_INTERVAL_S)
    return True


class Trial:
    """One run of all steps for one side."""

    def __init__(self, bench: Bench, side: PauseSide, fill: int, pause_s: float) -> None:
        # More orders than a run can write before its timeouts.
        self._data = DataSet(fill + 10 * ORDERS_PER_S * STEP_TIMEOUT_S, USERS, PARTITIONS)
        self._bench, self._side, self._fill, self._pause_s = bench, side, fill, pause_s
        self._context = bench.create_context(self._data)
        self._group = Group(side, self._context)
        self._feed = Feed(bench.kafka, self._data)
        self._observer = Observer(bench.kafka, self._data, self._context.group)
        self.results: list[StepResult] = []
        self.end: dict[str, int] = {}

    def run(self) -> Trial:
        """Run the steps, and remove the side at the end."""
        try:
            self._feed.write(self._fill)
            self._feed.flush()
            began = time.monotonic()
            self._group.start("a")
            if wait_until(FILL_TIMEOUT_S, lambda: self._lag() == 0):
                self._bench.log(f"pause: {self._side.name} read the first in {time.monotonic() - began:.0f} s")
                self._run_steps()
            else:
                remarks = [f"{self._lag():,} of the first orders were not read within {FILL_TIMEOUT_S} s"]
                self.results.append(StepResult("the first orders", [], self._lag(), 0.0, remarks, is_over=False))
        finally:
            self._group.stop()
            self._observer.close()
            self._bench.clear(self._context)
        return self

    def _run_steps(self) -> None:
        changelog = f"{self._context.group}-{self._side.table}-changelog"
        with ChangelogFollower(self._bench.kafka, changelog, PARTITIONS) as follower:
            wait_until(STEP_TIMEOUT_S, lambda: min(follower.idle_s()) > MAX_IDLE_S)
            with OrderLoad(self._feed, ORDERS_PER_S):
                time.sleep(WARM_UP_S)
                for name, act in STEPS:
                    if not self.results or self.results[-1].is_over:
                        self.results.append(self._run_step(name, act, follower))
            self._feed.flush()
            if wait_until(CATCH_UP_TIMEOUT_S, lambda: self._lag() == 0):
                wait_until(CATCH_UP_TIMEOUT_S, lambda: min(follower.idle_s()) > MAX_IDLE_S)
            lag = self._lag()
        orders = [order for value in follower.newest.values() for order in self._side.orders(value)]
        distinct = len(set(orders))
        self.end = {
            "orders written": self._feed.written, "not read at the end": lag,
            # A lower bound: a side may have read more than it has committed.
            "read and missing": max(0, self._feed.written - lag - distinct),
            "counted twice": len(orders) - distinct,
        }  # fmt: skip

    def _run_step(self, name: str, act: Callable[[Group], None], follower: ChangelogFollower) -> StepResult:
        usage, remarks = Usage(self._bench.broker.pid, self._group.pids), []

        def over() -> bool:
            remarks.extend(self._group.remove_ended())
            aged = time.monotonic() > begins + self._pause_s
            return aged and max(follower.idle_s()) < MAX_IDLE_S and self._group.is_complete()

        with UsageSampler(usage):
            begins = time.monotonic()
            act(self._group)
            is_over = wait_until(begins + STEP_TIMEOUT_S - time.monotonic(), over)
            ends = time.monotonic()
        if not is_over:
            idle_partitions = [str(number) for number, idle_s in enumerate(follower.idle_s()) if idle_s > MAX_IDLE_S]
            problem = (
                f"partitions {', '.join(idle_partitions)} are paused"
                if idle_partitions
                else "the group is not complete"
            )
            remarks.append(f"{problem} after {STEP_TIMEOUT_S} s")
        gaps = [longest_gap(times, begins, ends) for times in follower.activity]
        self._bench.log(f"pause: {self._side.name}, {name}: {max(gaps):.2f} s")
        return StepResult(name, gaps, self._lag(), usage.foreign_share, remarks, is_over)

    def _lag(self) -> int:
        return self._feed.written - self._observer.sample().committed


def pause(bench: Bench, fill: int, pause_s: float, only: list[str] | None = None) -> str:
    """Run all steps for each side, and return the text of the section.

    `fill` is the number of orders before the first step, `pause_s` the minimum seconds of a step.
    """
    sides = [side for side in PAUSE_SIDES if not only or any(word.lower() in side.name.lower() for word in only)]
    trials = {side.name: Trial(bench, side, fill, pause_s).run() for side in sides}
    store_raw_numbers("pause", {name: {"steps": trial.results, "end": trial.end} for name, trial in trials.items()})
    explanation = HOW.format(
        session=SESSION_S, heartbeat=HEARTBEAT_S, fill=fill, users=USERS, rate=ORDERS_PER_S, partitions=PARTITIONS,
        look=CHANGELOG_POLL_S * 1000, pause=pause_s, bound=STEP_TIMEOUT_S, catch_up=CATCH_UP_TIMEOUT_S,
    )  # fmt: skip
    return f"{results_tables(trials)}\n\n{explanation}\n\n{describe_run()}"


def results_tables(trials: dict[str, Trial]) -> str:
    """Return two tables: the steps of all sides, and the orders at the end."""
    head = ["side", "step", "longest s", "median s", "each partition s", "orders behind", "elsewhere", "remarks"]
    rows = [step_row(name, result) for name, trial in trials.items() for result in trial.results]
    for name, trial in trials.items():
        reached = {result.step for result in trial.results}
        rows += [[name, step, *["-"] * (len(head) - 3), "not tried"] for step, _ in STEPS if step not in reached]
    ends = [[name, *(f"{count:,}" for count in trial.end.values())] for name, trial in trials.items() if trial.end]
    counted = next((list(trial.end) for trial in trials.values() if trial.end), [])
    return f"{table(head, rows)}\n\n{table(['side', *counted], ends)}"


def step_row(name: str, result: StepResult) -> list[str]:
    """Return a row of the first table."""
    cells = [f"**{max(result.gaps):.2f}**", f"{median(result.gaps):.2f}"] if result.gaps else ["-", "-"]
    each = ", ".join(f"{gap_s:.2f}" for gap_s in sorted(result.gaps)) or "-"
    return [
        name,
        result.step,
        *cells,
        each,
        f"{result.lag:,}",
        f"{result.foreign_share:.0%}",
        "; ".join(result.remarks) or "-",
    ]
