"""The cost of partitions and workers: starts, pauses, memory, connections, and the group record.

`python -m bench.partition_cost` prints the sizes of the group record, without Kafka.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import time
import urllib.error
import urllib.request
import zlib
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from types import SimpleNamespace

from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.coordinator.assignors.abstract import AbstractPartitionAssignor
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata
from aiokafka.errors import KafkaError
from faust.assignor.partition_assignor import PartitionAssignor

from app.settings import Settings
from app.signing import SIGNATURE_CHARS
from app.topics import TABLES, Topics
from bench.data import DataSet
from bench.footprint_after import measure_start, stop_worker, worker_with_all_agents
from bench.measure import Bench
from bench.observer import Observer
from bench.report import table
from bench.sides import RunContext
from bench.usage import cpu_s, read_status
from chunks import LocalOffset
from chunks.assignor import Assignor
from local.process import LocalProcess, ServerFailed

IDLE_S = 5
JOIN_TIMEOUT_S = 120
#: A group whose record fits gets its partitions within these seconds.
FORM_TIMEOUT_S = 10
GROUP = "lately"
#: Kafka's default for `max.message.bytes`, also of `__consumer_offsets`.
MAX_RECORD_BYTES = 1_048_588


@dataclass
class PartitionCost:
    """The measurements with one number of partitions."""

    partitions: int
    start_s: float
    resident_mib: float
    files: int
    sockets: int
    threads: int
    idle: float
    broker_idle: float
    join_s: float
    pause_s: float
    record: int


def measure_partitions(bench: Bench, data: DataSet) -> PartitionCost:
    """Start a worker, measure it, and let a second worker join."""
    bench.prepare(data)
    context = bench.create_context(data)
    second_context = RunContext(context.kafka, data, context.group, name="second")
    worker, second_worker = worker_with_all_agents(context), worker_with_all_agents(second_context)
    with bench.running(context, worker):
        wait_until_read(bench, context)
        stop_worker(bench, worker, context)
        start_s = measure_start(worker, context)
        time.sleep(1)
        before = cpu_s(worker.pid), cpu_s(bench.broker.pid)
        time.sleep(IDLE_S)
        idle, broker_idle = (
            (cpu_s(pid) - was) / IDLE_S for pid, was in zip((worker.pid, bench.broker.pid), before, strict=True)
        )
        files = open_files(worker.pid)
        partition_cost = PartitionCost(
            data.partitions, start_s, read_status(worker.pid, "VmRSS") / 1024, len(files),
            sum(path.startswith("socket:") for path in files), read_status(worker.pid, "Threads"), idle, broker_idle,
            0.0, 0.0, 0,
        )  # fmt: skip
        try:
            partition_cost.join_s, partition_cost.pause_s = measure_join(worker, context, second_worker, second_context)
            partition_cost.record = asyncio.run(group_record_bytes(bench.kafka, context.group))
        finally:
            second_worker.kill()
            shutil.rmtree(second_context.folder / "state", ignore_errors=True)
    bench.log(
        f"capacity: {data.partitions} partitions: a join stops the first worker for {partition_cost.pause_s:.1f} s"
    )
    return partition_cost


def wait_until_read(bench: Bench, context: RunContext) -> None:
    """Wait until all agents have read everything."""
    observer, until = Observer(bench.kafka, context.data, context.group), time.monotonic() + bench.patience_s
    try:
        while (sample := observer.sample()).committed < context.data.orders or sample.lag:
            if time.monotonic() > until:
                raise ServerFailed(f"{context.data} were not read within {bench.patience_s:.0f} s")
            time.sleep(0.2)
    finally:
        observer.close()


def open_files(pid: int) -> list[str]:
    """Return the open files of a process."""
    files = []
    for name in os.listdir(f"/proc/{pid}/fd"):
        with suppress(FileNotFoundError):
            files.append(os.readlink(f"/proc/{pid}/fd/{name}"))
    return files


def measure_join(
    first: LocalProcess, context: RunContext, second: LocalProcess, second_context: RunContext
) -> tuple[float, float]:
    """Return the seconds until the second worker is ready, and the pause of the first one."""
    began = time.monotonic()
    second.start()
    since, longest, ready = None, 0.0, 0.0
    while not ready or since is not None:
        now = time.monotonic()
        if now - began > JOIN_TIMEOUT_S or not (first.is_running and second.is_running):
            raise RuntimeError(f"the second worker did not join:\n{second.tail()}")
        if is_ready(context):
            longest, since = max(longest, now - since) if since else longest, None
        else:
            since = since or now
        if not ready and is_ready(second_context):
            ready = now - began
        time.sleep(0.02)
    return ready, longest


def is_ready(context: RunContext) -> bool:
    """Return True if a worker is ready."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{context.port}/readyz", timeout=5) as answer:
            return answer.status == 200
    except (urllib.error.URLError, OSError):
        return False


async def group_record_bytes(kafka: str, group: str) -> int:
    """Return the bytes of the group record: metadata and assignments of its members.

    The metadata of a worker grows with the rebalance after the one in which it joined.
    """
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    try:
        (group_description,) = await admin.describe_consumer_groups([group])
        return sum(
            len(metadata) + len(assignment)
            for group in group_description.groups
            for *_, metadata, assignment in group[5]
        )
    finally:
        await admin.close()


# -- the record of a group, simulated with the assignor


def simulate_group_bytes(partitions: int, workers: int, assignor_type: type[PartitionAssignor] = Assignor) -> int:
    """Simulate the bytes of the group record for workers with all agents, after two rebalances."""
    topics = Topics(Settings(id=GROUP, partitions=partitions))
    changelogs = {topics.changelog(name) for name in TABLES}
    read = {*topics.source_topics.values(), *changelogs}
    cluster = SimpleNamespace(partitions_for_topic=lambda _: set(range(partitions)))
    members = {f"faust-{number:036d}": _member(assignor_type, number, changelogs) for number in range(workers)}
    for _ in range(3):
        metadata = {name: member.metadata(read) for name, member in members.items()}
        leader = next(iter(members.values()))
        assignments = leader._perform_assignment(cluster, metadata)  # noqa: SLF001 - `assign` needs the complete app
        for name, member in members.items():
            member.on_assignment(assignments[name])
            _read_all(member)
    return sum(len(metadata[name].encode()) + len(assignments[name].encode()) for name in members)


def _member(assignor_type: type[PartitionAssignor], number: int, changelogs: set[str]) -> PartitionAssignor:
    tables = SimpleNamespace(
        changelog_topics=changelogs,
        data={},
        local_offsets={},
        changelog_ends={},
        sign_address=lambda url: sha256(url.encode()).hexdigest()[:SIGNATURE_CHARS],
        is_trusted_address=lambda url, signature: True,
    )
    address = f"http://lately-workers-{number}.lately:6066/"
    conf = SimpleNamespace(canonical_url=address, consumer_group_instance_id=None)
    return assignor_type(SimpleNamespace(tables=tables, tracer=None, conf=conf), replicas=0)


def _read_all(member: PartitionAssignor) -> None:
    """Give the worker local offsets as if it had restored ten million records of each partition."""
    tables, now = member.app.tables, time.time()
    for tp in member.assigned_actives() | member.assigned_standbys():
        if tp.topic in tables.changelog_topics:
            offset = 10_000_000 + zlib.crc32(f"{tp.topic}-{tp.partition}".encode()) % 10_000_000
            tables.local_offsets.setdefault(tp.topic, {})[tp.partition] = LocalOffset(offset, now)
            tables.changelog_ends.setdefault(tp.topic, {})[tp.partition] = offset


def max_workers(partitions: int, limit: int, assignor_type: type[PartitionAssignor] = Assignor) -> int:
    """Return the greatest number of workers whose group record fits into the limit."""
    fits, too_many = 1, 2
    while simulate_group_bytes(partitions, too_many, assignor_type) <= limit:
        fits, too_many = too_many, too_many * 2
    while too_many - fits > 1:
        middle = (fits + too_many) // 2
        if simulate_group_bytes(partitions, middle, assignor_type) <= limit:
            fits = middle
        else:
            too_many = middle
    return fits


# -- the limit of the broker


def padded_assignor(size: int) -> type[AbstractPartitionAssignor]:
    """Return an assignor whose members have metadata of this size."""

    class PaddedAssignor(AbstractPartitionAssignor):
        name = "padded"
        version = 0

        @classmethod
        def assign(cls, cluster, members):
            return {name: ConsumerProtocolMemberAssignment(0, [], b"") for name in members}

        @classmethod
        def metadata(cls, topics):
            return ConsumerProtocolMemberMetadata(0, list(topics), bytes(size))

        @classmethod
        def on_assignment(cls, assignment):
            """Nothing is assigned."""

    return PaddedAssignor


async def try_form_group(kafka: str, topic: str, members: int, size: int) -> bool:
    """Return True if a group forms whose members have metadata of this size."""
    group = f"padded-{members}-{size}"
    consumers = [
        AIOKafkaConsumer(
            topic, bootstrap_servers=kafka, group_id=group, partition_assignment_strategy=(padded_assignor(size),)
        )
        for _ in range(members)
    ]
    try:
        await asyncio.wait_for(asyncio.gather(*(consumer.start() for consumer in consumers)), FORM_TIMEOUT_S)
        admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
        await admin.start()
        try:
            until = time.monotonic() + FORM_TIMEOUT_S
            while time.monotonic() < until:
                (group_description,) = await admin.describe_consumer_groups([group])
                if [(group[2], len(group[5])) for group in group_description.groups] == [("Stable", members)]:
                    return True
                await asyncio.sleep(0.2)
        finally:
            await admin.close()
    except (KafkaError, asyncio.TimeoutError):
        pass
    finally:
        await asyncio.gather(*(consumer.stop() for consumer in consumers), return_exceptions=True)
    return False


def partition_table(costs: list[PartitionCost]) -> str:
    """Return a table with a row for each number of partitions."""
    head = ["partitions", "ready after a start, s", "memory, MiB", "open files", "of them sockets", "threads",
            "a core when idle", "the broker's", "a second is ready after, s", "the first was not ready for, s",
            "record of the group, bytes"]  # fmt: skip
    rows = [
        [str(cost.partitions), f"{cost.start_s:.1f}", f"{cost.resident_mib:,.0f}", f"{cost.files:,}",
         f"{cost.sockets:,}", f"{cost.threads}", f"{cost.idle:.0%}", f"{cost.broker_idle:.0%}",
         f"{cost.join_s:.1f}", f"{cost.pause_s:.1f}", f"{cost.record:,}"]
        for cost in costs
    ]  # fmt: skip
    return table(head, rows)


def group_table() -> str:
    """Return a table of the record sizes, and of the limit of workers with Faust's assignor."""
    workers = (4, 16, 64, 128)
    rows = []
    for partitions in (16, 64, 256):
        sizes = [f"{simulate_group_bytes(partitions, count) / 1024:,.0f}" for count in workers]
        rows.append([str(partitions), *sizes, str(max_workers(partitions, MAX_RECORD_BYTES, PartitionAssignor))])
    return table(["partitions", *(f"KiB with {count} workers" for count in workers), "most by Faust's own"], rows)


def try_group_sizes(kafka: str, topic: str) -> list[list[str]]:
    """Try groups around the limit; return rows of members, bytes of each, and the result."""
    rows = []
    for members, size in ((1, 900_000), (2, 450_000), (2, 600_000), (1, 1_200_000)):
        is_formed = asyncio.run(try_form_group(kafka, topic, members, size))
        rows.append([str(members), f"{size:,}", "yes" if is_formed else "no"])
    return rows


if __name__ == "__main__":
    print(group_table())  # noqa: T201
