"""The ratios for docs/capacity.md: the costs of an order, a user, a partition and a worker."""

from __future__ import annotations

import shutil

from bench.data import DataSet
from bench.elastic import ORDERS
from bench.fleet import BATCH, USERS
from bench.footprint_after import bytes_table, measure_footprint, measure_two_workers, work_table
from bench.measure import Bench
from bench.partition_cost import MAX_RECORD_BYTES, group_table, measure_partitions, partition_table, try_group_sizes
from bench.path_cost import broker_compression, measure_path_cost, path_cost_table
from bench.report import describe_run, rounded, store_raw_numbers, table
from bench.sides import FOLDER, ROOT
from local.artifacts import resolve
from local.database import start_database

PATH_COST_HEADING = "An order on its way"
FOOTPRINT_HEADING = "What orders leave behind"
PARTITION_COST_HEADING = "Partitions and workers"
CODEC = "zstd"
#: The share of a million orders, and the number of orders per user.
PARTS = ((4, 5), (10, 20), (20, 100))
PATH_COST = f"""\
A shop commits {ORDERS.orders_per_s:,} orders a second, {BATCH} in a transaction, of {USERS:,} users and
{ORDERS.products} products, with a source and a worker with all agents, 4 partitions and no queries. The
measurement excludes the first seconds. It contains the growth of the topics' logs on the broker's
disk (one copy, as written, not compacted), the bytes on the connections to Kafka, and user and
system time. "{CODEC}": with the broker's `compression.type={CODEC}`; Lately itself compresses
nothing. Then the source is stopped, {{rows:,}} rows are inserted, and the source is started: rows/s
from its first log line to an empty outbox."""
FOOTPRINT = """\
One worker with all agents reads a topic that exists already, with 1,000 products. "orders/s" stops
when all agents have read everything. Topics: bytes of their logs on the broker, one copy, not
compressed; "compacted": after the broker has compacted the complete log. Tables: the files of
RocksDB after SIGTERM, without a manual compaction. Then the worker is started again, with its disk
and without, before the changelogs are compacted. Two workers that share the second data set, on
the same two cores: {rate} orders/s, and {us:.0f} µs of processor time for an order, both together
and without their starts."""
PARTITION_COST = """\
One worker with all agents that has read {orders:,} orders, stopped and started again, without load.
Then a second worker joins, without standbys; it is ready at the first 200 of /readyz. "A core when
idle": the share of one core that the process uses while there are no orders. "Was not ready": the
longest time in which /readyz of the first worker was no 200. "Record of the group": see below, as
the broker stores it."""
GROUP = """\
### The record of the group

Kafka stores the metadata and the assignments of all members of a group in one record of
`__consumer_offsets`. This table lists whether this broker accepts a group whose members have
metadata of this size:

{formed}

These are the sizes with the assignor, run without Kafka: all agents, no standbys,
`LATELY_ID=lately`, addresses like `http://lately-workers-7.lately:6066/`, in the third rebalance,
with ten million records in each changelog partition. The last column is the greatest number of
workers whose record fits into {limit:,} bytes, Kafka's default, with Faust's assignor, which Lately
does not use."""


def path_cost_section(bench: Bench, quick: bool) -> str:
    """Measure the cost of the path of an order, and return the text of the section."""
    seconds, rows = (5, 4_000) if quick else (20, 50_000)
    folder = FOLDER / "run" / "database"
    path_costs = {}
    with start_database(resolve(ROOT / ".lately", bench.log), folder) as server:
        path_costs["not compressed"] = measure_path_cost(bench, server, seconds, rows)
        with broker_compression(bench.kafka, CODEC):
            path_costs[CODEC] = measure_path_cost(bench, server, seconds, rows)
    for used in (folder, *(FOLDER / "run").glob("*/*/state")):
        shutil.rmtree(used, ignore_errors=True)
    store_raw_numbers("flow", path_costs)
    return f"{PATH_COST.format(rows=rows)}\n\n{path_cost_table(path_costs)}\n\n{describe_run()}"


def footprint_section(bench: Bench, quick: bool) -> str:
    """Measure the footprint of orders, and return the text of the section."""
    orders = 20_000 if quick else 1_000_000
    # One, five, twenty and a hundred orders per user: with more orders each one has more pairs of
    # products.
    data_sets = [DataSet(orders, orders), *(DataSet(orders // part, orders // part // each) for part, each in PARTS)]
    footprints = []
    for data_set in data_sets:
        footprints.append(measure_footprint(bench, data_set))
        store_raw_numbers("kept", footprints)
    rate, us = measure_two_workers(bench, data_sets[1], footprints[1].start_cpu_s)
    return "\n\n".join([
        FOOTPRINT.format(rate=rounded(rate), us=us), bytes_table(footprints), work_table(footprints), describe_run(),
    ])  # fmt: skip


def partition_cost_section(bench: Bench, quick: bool) -> str:
    """Measure the cost of partitions and of groups, and return the text of the section."""
    data = [DataSet(20_000, 10_000, number) for number in ((4, 8) if quick else (4, 16, 64, 256))]
    costs = [measure_partitions(bench, data_set) for data_set in data]
    group_sizes = try_group_sizes(bench.kafka, data[0].topic)
    store_raw_numbers("spread", {"spread": costs, "formed": group_sizes})
    groups = table(["members", "bytes of each", "comes about"], group_sizes)
    return "\n\n".join([
        PARTITION_COST.format(orders=data[0].orders), partition_table(costs),
        GROUP.format(limit=MAX_RECORD_BYTES, formed=groups), group_table(), describe_run(),
    ])  # fmt: skip
