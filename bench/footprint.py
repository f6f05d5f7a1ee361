"""Disk space and network traffic of Lately, from the files and the kernel."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Collection
from pathlib import Path

from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, OffsetSpec, ResourceType

from bench.sides import FOLDER

LOGS = FOLDER / "broker" / "kafka"
SECONDS_TO_COMPACT = 120
#: Settings with which the broker compacts all but the last records at once.
COMPACTING = {"segment.ms": "100", "min.cleanable.dirty.ratio": "0.0001"}
#: The key of a tombstone without effect: a segment ends only when another record follows.
PROBE_KEY = b"\xffnothing"


def topic_bytes() -> Counter[str]:
    """Return topic -> bytes of its log on the disk of the broker, without indexes."""
    counts: Counter[str] = Counter()
    for path in LOGS.glob("*/*.log"):
        counts[path.parent.name.rpartition("-")[0]] += file_size(path)
    return counts


def table_bytes(state: Path) -> Counter[str]:
    """Return table -> bytes of all its partitions in the folder of a worker."""
    counts: Counter[str] = Counter()
    for path in state.rglob("*.db/*"):
        counts[path.parent.name.rpartition("-")[0]] += file_size(path)
    return counts


def file_size(path: Path) -> int:
    """Return the size of a file; 0 if it was removed meanwhile."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def read_traffic(port: int) -> dict[int, Counter[str]]:
    """Return process -> bytes "sent" and "received" on its connections to a local port."""
    if shutil.which("ss") is None:
        return {}
    command = ["ss", "--tcp", "--info", "--numeric", "--processes", "--no-header", "dport", "=", f":{port}"]
    return parse_traffic(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def parse_traffic(output: str) -> dict[int, Counter[str]]:
    """Parse the output of `ss`: two lines for each connection, the second one indented."""
    traffic: dict[int, Counter[str]] = {}
    for line in output.replace("\n\t", " ").splitlines():
        owner = re.search(r"pid=(\d+)", line)
        if owner:
            sums = traffic.setdefault(int(owner.group(1)), Counter())
            sums.update(
                {direction: int(count) for direction, count in re.findall(r"bytes_(sent|received):(\d+)", line)}
            )
    return traffic


def alter_configs(kafka: str, kind: ResourceType, names: Collection[str], settings: dict[str, str] | None) -> None:
    """Set the configuration of topics or brokers; None removes `compression.type`."""
    admin = AdminClient({"bootstrap.servers": kafka, "log_level": 0})
    if settings is None:
        entries = [ConfigEntry("compression.type", None, incremental_operation=AlterConfigOpType.DELETE)]
    else:
        entries = [ConfigEntry(*setting, incremental_operation=AlterConfigOpType.SET) for setting in settings.items()]
    resources = [ConfigResource(kind, name, incremental_configs=entries) for name in names]
    for future in admin.incremental_alter_configs(resources).values():
        future.result()


def compact(kafka: str, topics: Collection[str]) -> None:
    """Let the broker compact topics up to their current last record."""
    admin = AdminClient({"bootstrap.servers": kafka, "log_level": 0})
    topics_metadata = admin.list_topics(timeout=10).topics
    ends = {(name, number): 0 for name in topics for number in topics_metadata[name].partitions}
    futures = admin.list_offsets({TopicPartition(*partition): OffsetSpec.latest() for partition in ends})
    for tp, future in futures.items():
        ends[tp.topic, tp.partition] = future.result().offset
    alter_configs(kafka, ResourceType.BROKER, ["1"], {"log.cleaner.backoff.ms": "500"})
    alter_configs(kafka, ResourceType.TOPIC, topics, COMPACTING)
    time.sleep(0.2)  # the last segment is old enough now
    producer = Producer({"bootstrap.servers": kafka, "log_level": 0})
    for name, number in ends:
        producer.produce(name, None, PROBE_KEY, partition=number)
    producer.flush(30)
    until = time.monotonic() + SECONDS_TO_COMPACT
    while any(offset < ends[partition] for partition, offset in compacted_offsets(ends).items()):
        if time.monotonic() > until:
            raise RuntimeError(f"the broker did not compact {', '.join(topics)} within {SECONDS_TO_COMPACT} s")
        time.sleep(0.5)


def compacted_offsets(partitions: Collection[tuple[str, int]]) -> dict[tuple[str, int], int]:
    """Return partition -> offset up to which the broker has compacted it."""
    offsets = dict.fromkeys(partitions, 0)
    checkpoint = LOGS / "cleaner-offset-checkpoint"
    for line in checkpoint.read_text().splitlines()[2:] if checkpoint.exists() else ():
        topic, partition, offset = line.split()
        if (topic, int(partition)) in offsets:
            offsets[topic, int(partition)] = int(offset)
    return offsets
