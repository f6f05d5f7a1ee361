"""The formulas of docs/capacity.md: machines, disks, network and times from measured ratios.

`python -m bench.sizing` prints the table of that page; with `--users`, `--peak` and the other
options it prints the table of your own shop.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import dataclass, fields
from math import ceil
from typing import NamedTuple

from bench.report import table


class Ratios(NamedTuple):
    """The costs of one order: microseconds of processor, and bytes written to Kafka (one copy)."""

    worker_us: float
    broker_us: float
    orders_b: float
    #: Read once and deleted after a week: purchase-changes, co-purchases.
    week_b: float
    changelogs_b: float
    #: Changelog records, which a standby applies.
    records: float

    @property
    def written_b(self) -> float:
        """The sum of all bytes."""
        return self.orders_b + self.week_b + self.changelogs_b


# Measured, see bench/results.md. "An order on its way": transactions are small, as most of the
# time. Its users had some ten orders, and records were not counted: they are those of users with 20
# in "What orders leave behind".
CALM = Ratios(289, 306, 617, 370, 886, 5.6)
#: "What orders leave behind", 100 orders per user: transactions are as large as they get.
BUSY = Ratios(298, 66, 594, 368, 722, 19.5)
#: "Event source": with writers beside it; from a full outbox it is 18,400.
SOURCE_ROWS = 13_000
#: "Queries": one worker, without orders.
QUERIES = 11_200
#: "What orders leave behind": of one purchase in by_user and baskets, and of one pair of products
#: in similar.
PURCHASE_LOG_B, PURCHASE_DISK_B = 98, 57
PAIR_LOG_B, PAIR_DISK_B = 37, 15
#: Records of changelogs that a worker restores in a second.
RESTORED = 250_000
#: "Partitions and workers": of a worker that has next to nothing, and of each partition more.
WORKER_MIB, PARTITION_MIB = 89, 1.82
#: The seconds for which a join stops the other workers, with up to 64 partitions.
PAUSE_S = 1.5

# Settings, see docs/operations/settings.md and chunks/store.py.
SESSION_S, CACHES_MIB, TABLES, MEMTABLE_MIB = 8, 512, 5, 16

# Assumptions: the machines, and their maximum load.
CORES, PROCESSES, FULL = 4, 3, 0.7
BROKER_DISK_B, NETWORK_B = 8e12, 10e9 / 8
COPIES = 3
#: Kafka compacts when half of a changelog is obsolete; RocksDB needs space to compact.
CHANGELOG_FACTOR, COMPACTION_FACTOR = 2, 1.5
#: The changelog records of a purchase: at most one in by_user and one in baskets.
RECORDS = 2
DAY_S, MONTH_H = 86_400, 730


@dataclass(frozen=True)
class CapacityCase:
    """A shop: users, orders a second (peak, average), days, products, and queries a second."""

    users: int
    peak: int
    average: int
    days: int = 30
    products: int = 10_000
    queries: int = 1_000

    @property
    def orders(self) -> int:
        """The number of all orders; none is ever deleted."""
        return self.average * DAY_S * self.days

    @property
    def lines(self) -> int:
        """The number of databases of the shop, each with a source and a Lately of its own."""
        return ceil(self.peak / SOURCE_ROWS)

    def workers(self, ratios: Ratios) -> int:
        """Return the workers of a line: orders, standby and queries share one core per worker."""
        an_order_s = ratios.worker_us / 1e6 + ratios.records / RESTORED
        busy = self.peak / self.lines * an_order_s + self.queries / self.lines / QUERIES
        return max(3, ceil(busy / FULL))

    def partitions(self, ratios: Ratios) -> int:
        """Return the partitions of a line: four per worker, so that a takeover is distributed."""
        return 4 * self.workers(ratios)

    def machines(self, ratios: Ratios) -> int:
        """Return the machines for the workers of all lines."""
        return max(3, ceil(self.lines * self.workers(ratios) / PROCESSES))

    @property
    def pairs(self) -> int:
        """The maximum of pairs of products."""
        return self.products * (self.products - 1)

    @property
    def log_b(self) -> float:
        """The bytes of the topic `orders` on all brokers."""
        return self.orders * CALM.orders_b * COPIES

    @property
    def changelogs_b(self) -> float:
        """The bytes of the changelogs of one line, with obsolete records."""
        return (self.orders / self.lines * PURCHASE_LOG_B + self.pairs * PAIR_LOG_B) * CHANGELOG_FACTOR

    @property
    def records(self) -> float:
        """The records of the changelogs of one line, with obsolete records."""
        return (self.orders / self.lines * RECORDS + self.pairs) * CHANGELOG_FACTOR

    @property
    def other_topics_b(self) -> float:
        """The bytes of all topics except `orders` on all brokers."""
        return (self.average * min(self.days, 7) * DAY_S * BUSY.week_b + self.lines * self.changelogs_b) * COPIES

    def broker_input_b(self, ratios: Ratios) -> float:
        """Return the bytes a second into all brokers at the peak; nearly as many are read."""
        return self.peak * ratios.written_b * COPIES

    def brokers(self, ratios: Ratios) -> int:
        """Return the brokers by processor, network and disk; each copy counts like the first."""
        return max(
            COPIES,
            ceil(self.peak * ratios.broker_us * COPIES / 1e6 / (CORES * FULL)),
            ceil(self.broker_input_b(ratios) / (NETWORK_B * FULL)),
            ceil((self.log_b + self.other_topics_b) / (BROKER_DISK_B * FULL)),
        )

    def tables_b(self, ratios: Ratios) -> float:
        """Return the bytes of tables on the disk of a machine with workers, with one standby."""
        live = self.orders * PURCHASE_DISK_B + self.lines * self.pairs * PAIR_DISK_B
        return live * 2 * COMPACTION_FACTOR / self.machines(ratios)

    def memory_b(self, ratios: Ratios) -> float:
        """Return the maximum memory of a worker: caches, and unwritten data of RocksDB."""
        stores = 2 * self.partitions(ratios) / self.workers(ratios)
        return (WORKER_MIB + CACHES_MIB + stores * (PARTITION_MIB + TABLES * MEMTABLE_MIB)) * 2**20

    @property
    def takeover_s(self) -> float:
        """The seconds until a standby processes the partitions of a failed worker."""
        return SESSION_S + PAUSE_S

    def recovery_s(self, ratios: Ratios) -> float:
        """Return the seconds without standbys: each other worker restores one partition."""
        return self.takeover_s + self.records / self.partitions(ratios) / RESTORED

    def rebuild_s(self, ratios: Ratios) -> float:
        """Return the seconds until all workers are ready if all disks are empty."""
        return self.records / self.workers(ratios) / RESTORED

    def machine_hours(self, ratios: Ratios) -> int:
        """Return the machine-hours a month of workers, brokers and sources; a source has a core."""
        sources = max(2, ceil(2 * self.lines / CORES))
        return (self.machines(ratios) + self.brokers(ratios) + sources) * MONTH_H


CASES = (
    CapacityCase(1_000_000, 1_000, 100),
    CapacityCase(10_000_000, 10_000, 1_000),
    CapacityCase(10_000_000, 100_000, 10_000),
)
ROWS = {
    "orders in all": lambda case, _: f"{case.orders / 1e9:.2g} billion",
    "lines: a source, and a Lately": lambda case, _: f"{case.lines}",
    "workers, of all lines": lambda case, ratios: f"{case.lines * case.workers(ratios)}",
    "partitions of a line": lambda case, ratios: f"{case.partitions(ratios)}",
    "machines for workers": lambda case, ratios: f"{case.machines(ratios)}",
    "memory of a worker, at most": lambda case, ratios: format_size(case.memory_b(ratios)),
    "tables on such a machine": lambda case, ratios: format_size(case.tables_b(ratios)),
    "brokers": lambda case, ratios: f"{case.brokers(ratios)}",
    "`orders` on all of them": lambda case, _: format_size(case.log_b),
    "… more each day": lambda case, _: format_size(case.average * DAY_S * CALM.orders_b * COPIES),
    "all other topics": lambda case, _: format_size(case.other_topics_b),
    "a broker's disk, 70 % full": lambda case, ratios: format_size(
        (case.log_b + case.other_topics_b) / case.brokers(ratios) / FULL
    ),
    "into a broker in a second of the peak": lambda case, ratios: format_size(
        case.broker_input_b(ratios) / case.brokers(ratios)
    ),
    "a worker died: others read on, with standbys": lambda case, _: format_time(case.takeover_s),
    "… without": lambda case, ratios: format_time(case.recovery_s(ratios)),
    "all workers' disks empty: ready": lambda case, ratios: format_time(case.rebuild_s(ratios)),
    "machine-hours a month": lambda case, ratios: f"{case.machine_hours(ratios):,}",
}


def format_size(count: float) -> str:
    """Format a number of bytes."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.2g} {unit}" if count < 10 else f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.2g} TB" if count < 10 else f"{count:,.0f} TB"


def format_time(seconds: float) -> str:
    """Format a number of seconds."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5_400 else f"{seconds / 3_600:.1f} h"


def capacity_table(cases: Iterable[CapacityCase]) -> str:
    """Return the table: a column for each case, and two numbers if the ratios differ."""
    cases = list(cases)
    rows = []
    for name, value in ROWS.items():
        value_sets = [dict.fromkeys((value(case, BUSY), value(case, CALM))) for case in cases]
        rows.append([name, *(" or ".join(values) for values in value_sets)])
    head = [f"{case.users / 1e6:g} M users, {case.peak:,}/s, on average {case.average:,}/s" for case in cases]
    return table([f"after {' or '.join(dict.fromkeys(str(case.days) for case in cases))} days", *head], rows)


def main() -> None:
    """Print the table of the page, or of the case in the options."""
    parser = argparse.ArgumentParser(prog="python -m bench.sizing", description=__doc__.splitlines()[0])
    for field in fields(CapacityCase):
        parser.add_argument(f"--{field.name}", type=int, default=getattr(CASES[0], field.name))
    case = CapacityCase(**vars(parser.parse_args()))
    print(capacity_table(CASES if case == CASES[0] else [case]))  # noqa: T201


if __name__ == "__main__":
    main()
