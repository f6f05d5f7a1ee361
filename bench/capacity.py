"""The ratios that docs/capacity.md counts with: what an order and a user take, and what a partition and a worker."""

from __future__ import annotations

import shutil

from bench.data import DataSet
from bench.elastic import BATCH, ORDERS_PER_S, PRODUCTS, USERS
from bench.footprint_after import bytes_table, kept, two_workers, work_table
from bench.measure import Bench
from bench.partition_cost import LARGEST_RECORD, group_table, sizes_that_form, spread, spread_table
from bench.path_cost import compressed, flow, flow_table
from bench.report import circumstances, keep_raw, rounded, table
from bench.sides import FOLDER, ROOT
from local.artifacts import resolve
from local.mariadb import start_mariadb

FLOW_HEADING = "An order on its way"
KEPT_HEADING = "What orders leave behind"
SPREAD_HEADING = "Partitions and workers"
CODEC = "zstd"
#: The share of a million orders, and how many of them are of the same user.
PARTS = ((4, 5), (10, 20), (20, 100))
FLOW = f"""\
A shop commits {ORDERS_PER_S:,} orders a second, {BATCH} in a transaction, of {USERS:,} users and {PRODUCTS} products; a
source and a worker with all agents, 4 partitions, no queries. Counted while all of them run, without the first seconds:
how much the logs of the topics grew on the broker's disk (one copy, as written, not compacted), what went over the
connections to Kafka, and user and system time. "{CODEC}": the same with the broker's `compression.type={CODEC}`; Lately
itself compresses nothing. Then the source is stopped, {{rows:,}} rows are inserted, and it is started: rows/s from its
first word to an empty outbox."""
KEPT = """\
One worker with all agents reads a topic that is there already, 1,000 products. "orders/s" ends when all agents are
through. Topics: bytes of their logs on the broker, one copy, not compressed; "compacted": after the broker has
compacted all of it. Tables: the files of RocksDB after SIGTERM, not compacted by hand. Then it is started again, with
its disk and without, before the changelogs are compacted. Two workers that share the second data set, on the same two
cores: {rate} orders/s, and {us:.0f} µs of processor for an order, both together and without their starts."""
SPREAD = """\
One worker with all agents that has read {orders:,} orders, stopped and started again; nothing to do. Then a second one
joins, without standbys; it is ready when it may answer. "A core when idle": the share of one core that the process
takes while there are no orders. "Was not ready": the longest time in which the first one's /readyz was no 200. Record
of the group: see below, as the broker has it."""
GROUP = """\
### The record of the group

Kafka keeps what all members of a group say of themselves and are given in one record of `__consumer_offsets`. Whether a
group comes about whose members say so many bytes each, asked of this broker:

{formed}

The sizes by the assignor, run without Kafka: all agents, no standbys, `LATELY_ID=lately`, addresses like
`http://lately-workers-7.lately:6066/`, in the third rebalance, with ten million records in each changelog partition.
The last column: with how many workers it would still fit {limit:,} bytes, Kafka's default, by the assignor that Faust
brings, which Lately does not use."""


def on_the_way(bench: Bench, quick: bool) -> str:
    """What an order takes on its way; the text of the section."""
    seconds, rows = (5, 4_000) if quick else (20, 50_000)
    folder = FOLDER / "run" / "database"
    seen = {}
    with start_mariadb(resolve(ROOT / ".lately", bench.say), folder) as server:
        seen["not compressed"] = flow(bench, server, seconds, rows)
        with compressed(bench.kafka, CODEC):
            seen[CODEC] = flow(bench, server, seconds, rows)
    for used in (folder, *(FOLDER / "run").glob("*/*/state")):
        shutil.rmtree(used, ignore_errors=True)
    keep_raw("flow", seen)
    return f"{FLOW.format(rows=rows)}\n\n{flow_table(seen)}\n\n{circumstances()}"


def left_behind(bench: Bench, quick: bool) -> str:
    """What orders leave behind; the text of the section."""
    many = 20_000 if quick else 1_000_000
    # One, five, twenty and a hundred orders of each user: the more, the more goes together with each of them.
    data = [DataSet(many, many), *(DataSet(many // part, many // part // each) for part, each in PARTS)]
    seen = []
    for one in data:
        seen.append(kept(bench, one))
        keep_raw("kept", seen)
    rate, us = two_workers(bench, data[1], seen[1].start_cpu_s)
    return "\n\n".join([
        KEPT.format(rate=rounded(rate), us=us), bytes_table(seen), work_table(seen), circumstances(),
    ])  # fmt: skip


def partitions(bench: Bench, quick: bool) -> str:
    """What more partitions cost, and how many workers a group can have; the text of the section."""
    data = [DataSet(20_000, 10_000, number) for number in ((4, 8) if quick else (4, 16, 64, 256))]
    seen = [spread(bench, one) for one in data]
    formed = sizes_that_form(bench.kafka, data[0].topic)
    keep_raw("spread", {"spread": seen, "formed": formed})
    groups = table(["members", "bytes of each", "comes about"], formed)
    return "\n\n".join([
        SPREAD.format(orders=data[0].orders), spread_table(seen),
        GROUP.format(limit=LARGEST_RECORD, formed=groups), group_table(), circumstances(),
    ])  # fmt: skip
