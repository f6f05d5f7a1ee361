"""How long processing stands still when workers join, die and are restarted: Lately, and stock Faust beside."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from confluent_kafka import ConsumerGroupState
from confluent_kafka.admin import AdminClient

from bench.background_load import SECONDS_A_LOOK, Follower, Load, Machine, longest
from bench.data import DataSet, Feed
from bench.measure import SECONDS_BETWEEN_LOOKS, Bench
from bench.observer import Observer
from bench.report import circumstances, keep_raw, median, table
from bench.sides import BY_USER, STOCK, Place, lately, stock_faust
from bench.usage import Usage
from domain.purchases import decode_recent
from local.process import LocalProcess

HEADING = "The pause of a rebalance"
ORDERS_PER_S, PARTITIONS = 2_000, 4
#: So many that nobody gets more orders than the 20 that stock Faust keeps.
USERS = 100_000
#: Before the first step: what wakes up is no standstill.
SECONDS_TO_WARM_UP = 3
SESSION_S, HEARTBEAT_S = 8, 1
#: A partition that had nothing new for so long is not yet over the step.
SECONDS_STILL = 1.0
SECONDS_TO_STOP = 40
SECONDS_TO_FILL = 240
#: A step that is not over by then is a result, too, and ends the run of that side.
SECONDS_TO_GO_ON = 60
SECONDS_TO_CATCH_UP = 30
HOW = """\
Both sides keep the purchases by user in RocksDB, with a standby of each partition on another worker
(`LATELY_STANDBY_REPLICAS=1`; Faust's `table_standby_replicas=1`), a session timeout of {session} s and a heartbeat
every {heartbeat} s: those are Lately's, the defaults of Faust are 60 and 3 s. Lately runs without totals by product
and similar products (`LATELY_BY_PRODUCT=0 LATELY_SIMILAR=0`), which the other side does not have. One worker reads
{fill:,} orders of {users:,} users first; then {rate:,} orders a second are written straight to the topic `orders`,
of {partitions} partitions with equal shares, whatever becomes of them. The measure is taken from outside and is the
same for both: a consumer that sees only what is committed reads the changelog of the table and looks every
{look:.0f} ms. Each order makes a record there, so a partition stands still while none arrives. A step begins with
the start, the kill or the SIGTERM of a worker. It ends when it is {pause:g} s old, the group is stable with all its
members, and each partition had something new in the last second; or after {bound} s, and then the other steps are
not tried. "Longest" is the partition that stood longest, "median" the median of all. "Orders behind": what the group
had yet to commit at the end of the step (stock Faust commits every 0.5 s). "Elsewhere": the share of the machine
that others had; where it is large, run again. When no more orders are written and all are read, or after {catch_up}
s, the newest values of the changelog are compared with what was written. Stock Faust's lists are plain ones, where
an order that is read again counts twice; Lately knows it by its version."""


@dataclass(frozen=True)
class Contender:
    """One side: its table, how a worker is made, and the ids of the orders in a value of the changelog."""

    name: str
    table: str
    make: Callable[[Place], LocalProcess]
    env: dict[str, str]
    orders: Callable[[bytes], Iterable[object]]


CONTENDERS = (
    Contender(
        BY_USER,
        "by_user",
        lambda place: lately(place, by_product=False),
        {"LATELY_STANDBY_REPLICAS": "1", "LATELY_SESSION_TIMEOUT_S": str(SESSION_S)},
        lambda value: (one.order_id for one in decode_recent(value).purchases),
    ),
    Contender(
        STOCK,
        "recent",
        stock_faust,
        {"BENCH_SESSION_S": str(SESSION_S), "BENCH_HEARTBEAT_S": str(HEARTBEAT_S)},
        lambda value: (one[0] for one in json.loads(value)),
    ),
)


@dataclass(frozen=True)
class Seen:
    """What was seen of one step: how long each partition stood still, what was wrong, and whether it came to an end."""

    step: str
    still: list[float]
    behind: int
    elsewhere: float
    remarks: list[str]
    over: bool


class Group:
    """The workers of one side, all in one consumer group."""

    def __init__(self, side: Contender, place: Place) -> None:
        self._side, self._place = side, place
        self._admin = AdminClient({"bootstrap.servers": place.kafka, "log_level": 0})
        self.running: dict[str, LocalProcess] = {}
        #: Of all that were ever started.
        self.pids: set[int] = set()
        self._made: dict[str, LocalProcess] = {}

    def start(self, name: str) -> None:
        """Start a worker; a restarted one has the disk and the port that it had."""
        if name not in self._made:
            # A place gives its worker a port of its own.
            place = Place(self._place.kafka, self._place.data, self._place.group, name=name)
            self._made[name] = self._side.make(place)
            self._made[name].env |= self._side.env
        self.running[name] = self._made[name]
        self.running[name].start()
        self.pids.add(self.running[name].pid)

    def kill(self, name: str) -> None:
        """Kill -9."""
        self.running.pop(name, None)
        self._made[name].kill()

    def restart(self, name: str) -> None:
        """SIGTERM, and start again."""
        self._made[name].stop(SECONDS_TO_STOP)
        self.start(name)

    def bury(self) -> list[str]:
        """Which workers ended by themselves since this was asked last."""
        dead = [name for name, process in self.running.items() if not process.is_running]
        return [f"worker {name} ended with {self.running.pop(name).child.returncode}" for name in dead]

    def complete(self) -> bool:
        """Whether the group has all that run, and no other, and is stable."""
        told = self._admin.describe_consumer_groups([self._place.group])[self._place.group].result()
        return told.state == ConsumerGroupState.STABLE and len(told.members) == len(self.running)

    def stop(self) -> None:
        """Kill all and remove their disks; their logs stay."""
        for process in self._made.values():
            process.kill()
            shutil.rmtree(process.folder / "state", ignore_errors=True)


#: In this order; of three workers the one that came second is killed, and the oldest restarted.
STEPS: tuple[tuple[str, Callable[[Group], None]], ...] = (
    ("one worker, nothing happens", lambda group: None),
    ("a second joins", lambda group: group.start("b")),
    ("a third joins", lambda group: group.start("c")),
    ("one is killed (kill -9)", lambda group: group.kill("b")),
    ("one is restarted (SIGTERM)", lambda group: group.restart("a")),
)


def within(seconds: float, check: Callable[[], bool]) -> bool:
    """Wait until `check()`, but not for longer; whether it came true."""
    until = time.monotonic() + seconds
    while not check():
        if time.monotonic() > until:
            return False
        time.sleep(SECONDS_BETWEEN_LOOKS)
    return True


class Trial:
    """One side, taken through the steps once."""

    def __init__(self, bench: Bench, side: Contender, fill: int, pause_s: float) -> None:
        # More orders than are ever written: a side that hangs is given up.
        self._data = DataSet(fill + 10 * ORDERS_PER_S * SECONDS_TO_GO_ON, USERS, PARTITIONS)
        self._bench, self._side, self._fill, self._pause_s = bench, side, fill, pause_s
        self._place = bench.place(self._data)
        self._group = Group(side, self._place)
        self._feed = Feed(bench.kafka, self._data)
        self._observer = Observer(bench.kafka, self._data, self._place.group)
        self.seen: list[Seen] = []
        self.end: dict[str, int] = {}

    def run(self) -> Trial:
        """All of it; at the end nothing is left of the side."""
        try:
            self._feed.write(self._fill)
            self._feed.flush()
            began = time.monotonic()
            self._group.start("a")
            if within(SECONDS_TO_FILL, lambda: self._behind() == 0):
                self._bench.say(f"pause: {self._side.name} read the first in {time.monotonic() - began:.0f} s")
                self._flow()
            else:
                remarks = [f"{self._behind():,} of the first orders were not read within {SECONDS_TO_FILL} s"]
                self.seen.append(Seen("the first orders", [], self._behind(), 0.0, remarks, over=False))
        finally:
            self._group.stop()
            self._observer.close()
            self._bench.clear(self._place)
        return self

    def _flow(self) -> None:
        changelog = f"{self._place.group}-{self._side.table}-changelog"
        with Follower(self._bench.kafka, changelog, PARTITIONS) as follower:
            within(SECONDS_TO_GO_ON, lambda: min(follower.idle_s()) > SECONDS_STILL)
            with Load(self._feed, ORDERS_PER_S):
                time.sleep(SECONDS_TO_WARM_UP)
                for name, act in STEPS:
                    if not self.seen or self.seen[-1].over:
                        self.seen.append(self._step(name, act, follower))
            self._feed.flush()
            if within(SECONDS_TO_CATCH_UP, lambda: self._behind() == 0):
                within(SECONDS_TO_CATCH_UP, lambda: min(follower.idle_s()) > SECONDS_STILL)
            behind = self._behind()
        orders = [order for value in follower.newest.values() for order in self._side.orders(value)]
        different = len(set(orders))
        self.end = {
            "orders written": self._feed.written, "not read at the end": behind,
            # At least: a side may have read more than it has committed.
            "read and missing": max(0, self._feed.written - behind - different),
            "counted twice": len(orders) - different,
        }  # fmt: skip

    def _step(self, name: str, act: Callable[[Group], None], follower: Follower) -> Seen:
        usage, remarks = Usage(self._bench.broker.pid, self._group.pids), []

        def over() -> bool:
            remarks.extend(self._group.bury())
            aged = time.monotonic() > begins + self._pause_s
            return aged and max(follower.idle_s()) < SECONDS_STILL and self._group.complete()

        with Machine(usage):
            begins = time.monotonic()
            act(self._group)
            went_on = within(begins + SECONDS_TO_GO_ON - time.monotonic(), over)
            ends = time.monotonic()
        if not went_on:
            standing = [str(number) for number, idle_s in enumerate(follower.idle_s()) if idle_s > SECONDS_STILL]
            what = f"partitions {', '.join(standing)} stand" if standing else "the group is not complete"
            remarks.append(f"{what} after {SECONDS_TO_GO_ON} s")
        still = [longest(times, begins, ends) for times in follower.moved]
        self._bench.say(f"pause: {self._side.name}, {name}: {max(still):.2f} s")
        return Seen(name, still, self._behind(), usage.elsewhere, remarks, went_on)

    def _behind(self) -> int:
        return self._feed.written - self._observer.look().committed


def pause(bench: Bench, fill: int, pause_s: float, only: list[str] | None = None) -> str:
    """Take the sides through the steps after so many orders, with so many seconds for each; the text of the section."""
    sides = [one for one in CONTENDERS if not only or any(word.lower() in one.name.lower() for word in only)]
    trials = {side.name: Trial(bench, side, fill, pause_s).run() for side in sides}
    keep_raw("pause", {name: {"steps": trial.seen, "end": trial.end} for name, trial in trials.items()})
    how = HOW.format(
        session=SESSION_S, heartbeat=HEARTBEAT_S, fill=fill, users=USERS, rate=ORDERS_PER_S, partitions=PARTITIONS,
        look=SECONDS_A_LOOK * 1000, pause=pause_s, bound=SECONDS_TO_GO_ON, catch_up=SECONDS_TO_CATCH_UP,
    )  # fmt: skip
    return f"{shown(trials)}\n\n{how}\n\n{circumstances()}"


def shown(trials: dict[str, Trial]) -> str:
    """The two tables: the steps of all sides, and what became of the orders."""
    head = ["side", "step", "longest s", "median s", "each partition s", "orders behind", "elsewhere", "remarks"]
    rows = [row(name, seen) for name, trial in trials.items() for seen in trial.seen]
    for name, trial in trials.items():
        reached = {seen.step for seen in trial.seen}
        rows += [[name, step, *["-"] * (len(head) - 3), "not tried"] for step, _ in STEPS if step not in reached]
    ends = [[name, *(f"{count:,}" for count in trial.end.values())] for name, trial in trials.items() if trial.end]
    counted = next((list(trial.end) for trial in trials.values() if trial.end), [])
    return f"{table(head, rows)}\n\n{table(['side', *counted], ends)}"


def row(name: str, seen: Seen) -> list[str]:
    """One line of the first table."""
    told = [f"**{max(seen.still):.2f}**", f"{median(seen.still):.2f}"] if seen.still else ["-", "-"]
    each = ", ".join(f"{one:.2f}" for one in sorted(seen.still)) or "-"
    return [name, seen.step, *told, each, f"{seen.behind:,}", f"{seen.elsewhere:.0%}", "; ".join(seen.remarks) or "-"]
