"""What partitions cost, and workers that share them: starts, pauses, memory, connections, the record of the group.

`python -m bench.partition_cost` prints how large that record gets, without Kafka.
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
from types import SimpleNamespace

from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.coordinator.assignors.abstract import AbstractPartitionAssignor
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata
from aiokafka.errors import KafkaError
from faust.assignor.partition_assignor import PartitionAssignor

from app.settings import Settings
from app.topics import TABLES, Topics
from bench.data import DataSet
from bench.footprint_after import all_agents, ready_after, stop
from bench.measure import Bench
from bench.observer import Observer
from bench.report import table
from bench.sides import Place
from bench.usage import cpu_s, status
from chunks import LocalOffset
from chunks.assignor import Assignor
from local.process import LocalProcess, ServerFailed

IDLE_S = 5
SECONDS_TO_JOIN = 120
#: A group whose record fits has its partitions within this.
SECONDS_TO_FORM = 10
GROUP = "lately"
#: Kafka's default for `max.message.bytes`, also of `__consumer_offsets`.
LARGEST_RECORD = 1_048_588


@dataclass
class Spread:
    """What was seen with so many partitions."""

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


def spread(bench: Bench, data: DataSet) -> Spread:
    """Start a worker, look at it, and let a second one join."""
    bench.prepare(data)
    place = bench.place(data)
    second = Place(place.kafka, data, place.group, name="second")
    worker, other = all_agents(place), all_agents(second)
    with bench.running(place, worker):
        read(bench, place)
        stop(bench, worker, place)
        start_s = ready_after(worker, place)
        time.sleep(1)
        before = cpu_s(worker.pid), cpu_s(bench.broker.pid)
        time.sleep(IDLE_S)
        idle, broker_idle = (
            (cpu_s(pid) - was) / IDLE_S for pid, was in zip((worker.pid, bench.broker.pid), before, strict=True)
        )
        opened = links(worker.pid)
        seen = Spread(
            data.partitions, start_s, status(worker.pid, "VmRSS") / 1024, len(opened),
            sum(one.startswith("socket:") for one in opened), status(worker.pid, "Threads"), idle, broker_idle,
            0.0, 0.0, 0,
        )  # fmt: skip
        try:
            seen.join_s, seen.pause_s = joined(worker, place, other, second)
            seen.record = asyncio.run(record_of(bench.kafka, place.group))
        finally:
            other.kill()
            shutil.rmtree(second.folder / "state", ignore_errors=True)
    bench.say(f"capacity: {data.partitions} partitions: a join stops the first worker for {seen.pause_s:.1f} s")
    return seen


def read(bench: Bench, place: Place) -> None:
    """Wait until all agents are through."""
    observer, until = Observer(bench.kafka, place.data, place.group), time.monotonic() + bench.patience_s
    try:
        while (look := observer.look()).committed < place.data.orders or look.behind:
            if time.monotonic() > until:
                raise ServerFailed(f"{place.data} were not read within {bench.patience_s:.0f} s")
            time.sleep(0.2)
    finally:
        observer.close()


def links(pid: int) -> list[str]:
    """What a process has open."""
    found = []
    for name in os.listdir(f"/proc/{pid}/fd"):
        with suppress(FileNotFoundError):
            found.append(os.readlink(f"/proc/{pid}/fd/{name}"))
    return found


def joined(first: LocalProcess, place: Place, second: LocalProcess, its_place: Place) -> tuple[float, float]:
    """Seconds until a second worker is ready, and how long the first one was not meanwhile."""
    began = time.monotonic()
    second.start()
    since, longest, ready = None, 0.0, 0.0
    while not ready or since is not None:
        now = time.monotonic()
        if now - began > SECONDS_TO_JOIN or not (first.is_running and second.is_running):
            raise RuntimeError(f"the second worker did not join:\n{second.tail()}")
        if is_ready(place):
            longest, since = max(longest, now - since) if since else longest, None
        else:
            since = since or now
        if not ready and is_ready(its_place):
            ready = now - began
        time.sleep(0.02)
    return ready, longest


def is_ready(place: Place) -> bool:
    """Whether a worker may answer."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{place.port}/readyz", timeout=5) as answer:
            return answer.status == 200
    except (urllib.error.URLError, OSError):
        return False


async def record_of(kafka: str, group: str) -> int:
    """Bytes that the members of a group have the coordinator keep: what they said of themselves, and what they were
    given. A worker that said it before the last rebalance says more at the next one.
    """
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    try:
        (answer,) = await admin.describe_consumer_groups([group])
        return sum(len(said) + len(given) for one in answer.groups for *_, said, given in one[5])
    finally:
        await admin.close()


# -- the record of a group, as the assignor makes it


def group_bytes(partitions: int, workers: int, kind: type[PartitionAssignor] = Assignor) -> int:
    """Bytes of the same for so many workers with all agents, after they have been together for two rebalances."""
    topics = Topics(Settings(id=GROUP, partitions=partitions))
    changelogs = {topics.changelog(name) for name in TABLES}
    read = {*topics.source_topics.values(), *changelogs}
    cluster = SimpleNamespace(partitions_for_topic=lambda _: set(range(partitions)))
    members = {f"faust-{number:036d}": _member(kind, number, changelogs) for number in range(workers)}
    for _ in range(3):
        said = {name: one.metadata(read) for name, one in members.items()}
        leader = next(iter(members.values()))
        given = leader._perform_assignment(cluster, said)  # noqa: SLF001 - `assign` wants the whole app
        for name, one in members.items():
            one.on_assignment(given[name])
            _read_all(one)
    return sum(len(said[name].encode()) + len(given[name].encode()) for name in members)


def _member(kind: type[PartitionAssignor], number: int, changelogs: set[str]) -> PartitionAssignor:
    tables = SimpleNamespace(changelog_topics=changelogs, data={}, local_offsets={}, changelog_ends={})
    address = f"http://lately-workers-{number}.lately:6066/"
    conf = SimpleNamespace(canonical_url=address, consumer_group_instance_id=None)
    return kind(SimpleNamespace(tables=tables, tracer=None, conf=conf), replicas=0)


def _read_all(member: PartitionAssignor) -> None:
    """The worker has what it was given on its disk, some ten million records of each."""
    tables, now = member.app.tables, time.time()
    for tp in member.assigned_actives() | member.assigned_standbys():
        if tp.topic in tables.changelog_topics:
            offset = 10_000_000 + zlib.crc32(f"{tp.topic}-{tp.partition}".encode()) % 10_000_000
            tables.local_offsets.setdefault(tp.topic, {})[tp.partition] = LocalOffset(offset, now)
            tables.changelog_ends.setdefault(tp.topic, {})[tp.partition] = offset


def most_workers(partitions: int, limit: int, kind: type[PartitionAssignor] = Assignor) -> int:
    """With how many workers the record still fits the limit."""
    fits, too_many = 1, 2
    while group_bytes(partitions, too_many, kind) <= limit:
        fits, too_many = too_many, too_many * 2
    while too_many - fits > 1:
        middle = (fits + too_many) // 2
        if group_bytes(partitions, middle, kind) <= limit:
            fits = middle
        else:
            too_many = middle
    return fits


# -- what the broker takes


def talkative(size: int) -> type[AbstractPartitionAssignor]:
    """An assignor whose members say so many bytes of themselves."""

    class Talkative(AbstractPartitionAssignor):
        name = "talkative"
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

    return Talkative


async def forms(kafka: str, topic: str, members: int, size: int) -> bool:
    """Whether a group comes about whose members say so many bytes each."""
    group = f"talkative-{members}-{size}"
    consumers = [
        AIOKafkaConsumer(
            topic, bootstrap_servers=kafka, group_id=group, partition_assignment_strategy=(talkative(size),)
        )
        for _ in range(members)
    ]
    try:
        await asyncio.wait_for(asyncio.gather(*(one.start() for one in consumers)), SECONDS_TO_FORM)
        admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
        await admin.start()
        try:
            until = time.monotonic() + SECONDS_TO_FORM
            while time.monotonic() < until:
                (answer,) = await admin.describe_consumer_groups([group])
                if [(one[2], len(one[5])) for one in answer.groups] == [("Stable", members)]:
                    return True
                await asyncio.sleep(0.2)
        finally:
            await admin.close()
    except (KafkaError, asyncio.TimeoutError):
        pass
    finally:
        await asyncio.gather(*(one.stop() for one in consumers), return_exceptions=True)
    return False


def spread_table(seen: list[Spread]) -> str:
    """A row for each number of partitions."""
    head = ["partitions", "ready after a start, s", "memory, MiB", "open files", "of them sockets", "threads",
            "a core when idle", "the broker's", "a second is ready after, s", "the first was not ready for, s",
            "record of the group, bytes"]  # fmt: skip
    rows = [
        [str(one.partitions), f"{one.start_s:.1f}", f"{one.resident_mib:,.0f}", f"{one.files:,}", f"{one.sockets:,}",
         f"{one.threads}", f"{one.idle:.0%}", f"{one.broker_idle:.0%}", f"{one.join_s:.1f}", f"{one.pause_s:.1f}",
         f"{one.record:,}"]
        for one in seen
    ]  # fmt: skip
    return table(head, rows)


def group_table() -> str:
    """How large the record gets, and with how many workers Faust's own assignor would reach the limit."""
    workers = (4, 16, 64, 128)
    rows = []
    for partitions in (16, 64, 256):
        sizes = [f"{group_bytes(partitions, one) / 1024:,.0f}" for one in workers]
        rows.append([str(partitions), *sizes, str(most_workers(partitions, LARGEST_RECORD, PartitionAssignor))])
    return table(["partitions", *(f"KiB with {one} workers" for one in workers), "most by Faust's own"], rows)


def sizes_that_form(kafka: str, topic: str) -> list[list[str]]:
    """Groups around the limit: members, bytes of each, and whether they came about."""
    found = []
    for members, size in ((1, 900_000), (2, 450_000), (2, 600_000), (1, 1_200_000)):
        formed = asyncio.run(forms(kafka, topic, members, size))
        found.append([str(members), f"{size:,}", "yes" if formed else "no"])
    return found


if __name__ == "__main__":
    print(group_table())  # noqa: T201
