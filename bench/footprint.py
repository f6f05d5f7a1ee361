"""What Lately leaves on disks and sends over the network, as the files and the kernel have it."""

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
#: Every record but the last few is in a segment that may be compacted, and any share of old ones is worth it.
COMPACTING = {"segment.ms": "100", "min.cleanable.dirty.ratio": "0.0001"}
#: A deletion of what never was: a segment only ends where something is written behind it.
NOTHING = b"\xffnothing"


def topic_bytes() -> Counter[str]:
    """Topic -> bytes of its log on the broker's disk, without indexes."""
    found: Counter[str] = Counter()
    for path in LOGS.glob("*/*.log"):
        found[path.parent.name.rpartition("-")[0]] += size(path)
    return found


def table_bytes(state: Path) -> Counter[str]:
    """Table -> bytes of all its partitions under a worker's folder."""
    found: Counter[str] = Counter()
    for path in state.rglob("*.db/*"):
        found[path.parent.name.rpartition("-")[0]] += size(path)
    return found


def size(path: Path) -> int:
    """Bytes of a file; 0 when it has just been removed."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def traffic(port: int) -> dict[int, Counter[str]]:
    """Process -> bytes "sent" and "received" on its open connections to a port here, as `ss` knows them."""
    if shutil.which("ss") is None:
        return {}
    asked = ["ss", "--tcp", "--info", "--numeric", "--processes", "--no-header", "dport", "=", f":{port}"]
    return counted(subprocess.run(asked, capture_output=True, text=True, check=True).stdout)


def counted(listed: str) -> dict[int, Counter[str]]:
    """The same from what `ss` prints: two lines for each connection, the second one indented."""
    found: dict[int, Counter[str]] = {}
    for line in listed.replace("\n\t", " ").splitlines():
        owner = re.search(r"pid=(\d+)", line)
        if owner:
            sums = found.setdefault(int(owner.group(1)), Counter())
            sums.update({way: int(count) for way, count in re.findall(r"bytes_(sent|received):(\d+)", line)})
    return found


def configure(kafka: str, kind: ResourceType, names: Collection[str], settings: dict[str, str] | None) -> None:
    """Set what topics or brokers have of their own; None takes `compression.type` back."""
    admin = AdminClient({"bootstrap.servers": kafka, "log_level": 0})
    if settings is None:
        entries = [ConfigEntry("compression.type", None, incremental_operation=AlterConfigOpType.DELETE)]
    else:
        entries = [ConfigEntry(*one, incremental_operation=AlterConfigOpType.SET) for one in settings.items()]
    resources = [ConfigResource(kind, name, incremental_configs=entries) for name in names]
    for answer in admin.incremental_alter_configs(resources).values():
        answer.result()


def compact(kafka: str, topics: Collection[str]) -> None:
    """Let the broker compact topics to the last record that is there now."""
    admin = AdminClient({"bootstrap.servers": kafka, "log_level": 0})
    known = admin.list_topics(timeout=10).topics
    ends = {(name, number): 0 for name in topics for number in known[name].partitions}
    asked = admin.list_offsets({TopicPartition(*one): OffsetSpec.latest() for one in ends})
    for tp, answer in asked.items():
        ends[tp.topic, tp.partition] = answer.result().offset
    configure(kafka, ResourceType.BROKER, ["1"], {"log.cleaner.backoff.ms": "500"})
    configure(kafka, ResourceType.TOPIC, topics, COMPACTING)
    time.sleep(0.2)  # the last segment is old enough now
    producer = Producer({"bootstrap.servers": kafka, "log_level": 0})
    for name, number in ends:
        producer.produce(name, None, NOTHING, partition=number)
    producer.flush(30)
    until = time.monotonic() + SECONDS_TO_COMPACT
    while any(offset < ends[one] for one, offset in compacted(ends).items()):
        if time.monotonic() > until:
            raise RuntimeError(f"the broker did not compact {', '.join(topics)} within {SECONDS_TO_COMPACT} s")
        time.sleep(0.5)


def compacted(wanted: Collection[tuple[str, int]]) -> dict[tuple[str, int], int]:
    """Up to which offset each of the partitions is compacted, as the broker notes it."""
    found = dict.fromkeys(wanted, 0)
    noted = LOGS / "cleaner-offset-checkpoint"
    for line in noted.read_text().splitlines()[2:] if noted.exists() else ():
        topic, partition, offset = line.split()
        if (topic, int(partition)) in found:
            found[topic, int(partition)] = int(offset)
    return found
