"""The arithmetic of docs/capacity.md: from the measured ratios to machines, disks, network and times.

`python -m bench.sizing` prints the table of that page; with `--users`, `--peak` and so on that of your own shop.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import dataclass, fields
from math import ceil
from typing import NamedTuple

from bench.report import table


class Ratios(NamedTuple):
    """Of one order: microseconds of processor, and bytes that are written to Kafka, one copy."""

    worker_us: float
    broker_us: float
    orders_b: float
    #: Read once and deleted after a week: purchase-changes, co-purchases.
    week_b: float
    changelogs_b: float
    #: Records of changelogs, which a standby applies.
    records: float

    @property
    def written_b(self) -> float:
        """All of these bytes."""
        return self.orders_b + self.week_b + self.changelogs_b


# Measured, see bench/results.md. "An order on its way": transactions are small, as most of the time. Its users had some
# ten orders, and records were not counted: they are those of users with 20 in "What orders leave behind".
CALM = Ratios(289, 306, 617, 370, 886, 5.6)
#: "What orders leave behind", 100 orders per user: transactions are as large as they get.
BUSY = Ratios(298, 66, 594, 368, 722, 19.5)
#: "Event source": with writers beside it; from a full outbox it is 18,400.
SOURCE_ROWS = 13_000
#: "Queries": one worker, without orders.
QUERIES = 11_200
#: "What orders leave behind": of one purchase in by_user and baskets, and of one pair of products in similar.
PURCHASE_LOG_B, PURCHASE_DISK_B = 98, 57
PAIR_LOG_B, PAIR_DISK_B = 37, 15
#: Records of changelogs that a worker restores in a second.
RESTORED = 250_000
#: "Partitions and workers": of a worker that has next to nothing, and of each partition more.
WORKER_MIB, PARTITION_MIB = 89, 1.82
#: How long a join stops the others, with up to 64 partitions.
PAUSE_S = 1.5

# Set, see docs/operations.md and chunks/store.py.
SESSION_S, CACHES_MIB, TABLES, MEMTABLE_MIB = 8, 512, 5, 16

# Assumed: the machines, and how full they may be.
CORES, PROCESSES, FULL = 4, 3, 0.7
BROKER_DISK_B, NETWORK_B = 8e12, 10e9 / 8
COPIES = 3
#: Kafka compacts when half of a changelog is old; RocksDB needs room to compact.
OLD, SPARE = 2, 1.5
#: A purchase has at most one in by_user and one in baskets.
RECORDS = 2
DAY_S, MONTH_H = 86_400, 730


@dataclass(frozen=True)
class Case:
    """A shop: users, orders a second at the peak and on average, for how many days; products, and queries a second."""

    users: int
    peak: int
    average: int
    days: int = 30
    products: int = 10_000
    queries: int = 1_000

    @property
    def orders(self) -> int:
        """All that were made; none is forgotten."""
        return self.average * DAY_S * self.days

    @property
    def lines(self) -> int:
        """Databases of the shop, each with a source and a Lately of its own: a source is one process."""
        return ceil(self.peak / SOURCE_ROWS)

    def workers(self, ratios: Ratios) -> int:
        """Processes of one line: orders, one standby and queries share the one core that Python has."""
        an_order_s = ratios.worker_us / 1e6 + ratios.records / RESTORED
        busy = self.peak / self.lines * an_order_s + self.queries / self.lines / QUERIES
        return max(3, ceil(busy / FULL))

    def partitions(self, ratios: Ratios) -> int:
        """Of one line: four for each worker, so that those of one that died can be spread."""
        return 4 * self.workers(ratios)

    def machines(self, ratios: Ratios) -> int:
        """For the workers of all lines."""
        return max(3, ceil(self.lines * self.workers(ratios) / PROCESSES))

    @property
    def pairs(self) -> int:
        """Pairs of products at most."""
        return self.products * (self.products - 1)

    @property
    def log_b(self) -> float:
        """The topic `orders` on all brokers."""
        return self.orders * CALM.orders_b * COPIES

    @property
    def changelogs_b(self) -> float:
        """The changelogs of one line, compacted as Kafka does."""
        return (self.orders / self.lines * PURCHASE_LOG_B + self.pairs * PAIR_LOG_B) * OLD

    @property
    def records(self) -> float:
        """How many records these changelogs have."""
        return (self.orders / self.lines * RECORDS + self.pairs) * OLD

    @property
    def rest_b(self) -> float:
        """All topics but `orders` on all brokers."""
        return (self.average * min(self.days, 7) * DAY_S * BUSY.week_b + self.lines * self.changelogs_b) * COPIES

    def through(self, ratios: Ratios) -> float:
        """Bytes into all brokers in a second of the peak, and nearly as many out: copies, agents, one standby."""
        return self.peak * ratios.written_b * COPIES

    def brokers(self, ratios: Ratios) -> int:
        """By processor (every copy as much work as the first), by network and by disk; at least as many as copies."""
        return max(
            COPIES,
            ceil(self.peak * ratios.broker_us * COPIES / 1e6 / (CORES * FULL)),
            ceil(self.through(ratios) / (NETWORK_B * FULL)),
            ceil((self.log_b + self.rest_b) / (BROKER_DISK_B * FULL)),
        )

    def tables_b(self, ratios: Ratios) -> float:
        """On the disk of one machine of workers, with a standby of everything."""
        live = self.orders * PURCHASE_DISK_B + self.lines * self.pairs * PAIR_DISK_B
        return live * 2 * SPARE / self.machines(ratios)

    def memory_b(self, ratios: Ratios) -> float:
        """Of one worker with as many standbys, at most: caches, and what RocksDB has not written of any table."""
        stores = 2 * self.partitions(ratios) / self.workers(ratios)
        return (WORKER_MIB + CACHES_MIB + stores * (PARTITION_MIB + TABLES * MEMTABLE_MIB)) * 2**20

    @property
    def takeover_s(self) -> float:
        """Until the partitions of a worker that died are read on, with a standby of each."""
        return SESSION_S + PAUSE_S

    def recovery_s(self, ratios: Ratios) -> float:
        """The same without: each of the others gets one of them, and reads its changelogs."""
        return self.takeover_s + self.records / self.partitions(ratios) / RESTORED

    def anew_s(self, ratios: Ratios) -> float:
        """Until workers are ready whose disks are all empty."""
        return self.records / self.workers(ratios) / RESTORED

    def machine_hours(self, ratios: Ratios) -> int:
        """A month; beside workers and brokers two machines for the sources, or a core for each."""
        sources = max(2, ceil(2 * self.lines / CORES))
        return (self.machines(ratios) + self.brokers(ratios) + sources) * MONTH_H


CASES = (Case(1_000_000, 1_000, 100), Case(10_000_000, 10_000, 1_000), Case(10_000_000, 100_000, 10_000))
ROWS = {
    "orders in all": lambda one, _: f"{one.orders / 1e9:.2g} billion",
    "lines: a source, and a Lately": lambda one, _: f"{one.lines}",
    "workers, of all lines": lambda one, ratios: f"{one.lines * one.workers(ratios)}",
    "partitions of a line": lambda one, ratios: f"{one.partitions(ratios)}",
    "machines for workers": lambda one, ratios: f"{one.machines(ratios)}",
    "memory of a worker, at most": lambda one, ratios: size(one.memory_b(ratios)),
    "tables on such a machine": lambda one, ratios: size(one.tables_b(ratios)),
    "brokers": lambda one, ratios: f"{one.brokers(ratios)}",
    "`orders` on all of them": lambda one, _: size(one.log_b),
    "… more each day": lambda one, _: size(one.average * DAY_S * CALM.orders_b * COPIES),
    "all other topics": lambda one, _: size(one.rest_b),
    "a broker's disk, 70 % full": lambda one, ratios: size((one.log_b + one.rest_b) / one.brokers(ratios) / FULL),
    "into a broker in a second of the peak": lambda one, ratios: size(one.through(ratios) / one.brokers(ratios)),
    "a worker died: others read on, with standbys": lambda one, _: time(one.takeover_s),
    "… without": lambda one, ratios: time(one.recovery_s(ratios)),
    "all workers' disks empty: ready": lambda one, ratios: time(one.anew_s(ratios)),
    "machine-hours a month": lambda one, ratios: f"{one.machine_hours(ratios):,}",
}


def size(count: float) -> str:
    """Bytes for people."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.2g} {unit}" if count < 10 else f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.2g} TB" if count < 10 else f"{count:,.0f} TB"


def time(seconds: float) -> str:
    """Seconds for people."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5_400 else f"{seconds / 3_600:.1f} h"


def shown(cases: Iterable[Case]) -> str:
    """The table: a column for each case, two numbers where the ratios make a difference."""
    cases = list(cases)
    rows = []
    for name, value in ROWS.items():
        both = [dict.fromkeys((value(one, BUSY), value(one, CALM))) for one in cases]
        rows.append([name, *(" or ".join(found) for found in both)])
    head = [f"{one.users / 1e6:g} M users, {one.peak:,}/s, on average {one.average:,}/s" for one in cases]
    return table([f"after {' or '.join(dict.fromkeys(str(one.days) for one in cases))} days", *head], rows)


def main() -> None:
    """Print the table of the page, or of the case that is given."""
    parser = argparse.ArgumentParser(prog="python -m bench.sizing", description=__doc__.splitlines()[0])
    for one in fields(Case):
        parser.add_argument(f"--{one.name}", type=int, default=getattr(CASES[0], one.name))
    asked = Case(**vars(parser.parse_args()))
    print(shown(CASES if asked == CASES[0] else [asked]))  # noqa: T201


if __name__ == "__main__":
    main()
