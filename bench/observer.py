"""Looks at a side from outside, the same way for all: what has its group committed, what is in its changelog."""

from __future__ import annotations

import time
from dataclasses import dataclass

from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from bench.data import DataSet


@dataclass(frozen=True)
class Look:
    """What was seen at one moment; `behind` counts what the group has yet to read of topics it wrote itself."""

    at: float
    committed: int
    changelog: int
    behind: int


class Observer:
    """Reads the offsets of one group without joining it, and the ends of the changelogs named after it."""

    def __init__(self, kafka: str, data: DataSet, group: str) -> None:
        self.data = data
        self.group = group
        self.admin = AdminClient({"bootstrap.servers": kafka, "log_level": 0})
        # Never subscribed, so it is no member: it only asks the group's coordinator.
        self.reader = Consumer({
            "bootstrap.servers": kafka, "group.id": group, "enable.auto.commit": False, "log_level": 0,
        })  # fmt: skip
        self.source = [TopicPartition(data.topic, number) for number in range(data.partitions)]
        self.looks = 0
        self.changelogs: list[TopicPartition] = []
        self.inner: list[TopicPartition] = []

    def close(self) -> None:
        self.reader.close()

    def look(self) -> Look:
        """Ask the broker once; the time is that of the answer about what was committed."""
        committed = sum(max(one.offset, 0) for one in self._committed(self.source))
        at = time.monotonic()
        # A side makes its topics one after the other, so they are looked for again from time to time.
        if not self.changelogs or self.looks % 20 == 0:
            self._find_topics()
        self.looks += 1
        return Look(at, committed, sum(self._ends(self.changelogs)), self._behind())

    def changelog_records(self) -> dict[str, int]:
        """How many offsets each changelog has, by topic."""
        self._find_topics()
        found: dict[str, int] = {}
        for tp, end in zip(self.changelogs, self._ends(self.changelogs), strict=True):
            found[tp.topic] = found.get(tp.topic, 0) + end
        return found

    def _find_topics(self) -> None:
        found = {name: topic.partitions for name, topic in self.admin.list_topics(timeout=10).topics.items()}
        ours = [name for name in found if name.startswith(self.data.prefix) or self.group in name]
        changelogs = [name for name in ours if "changelog" in name]
        inner = [
            name
            for name in ours
            if name not in (self.data.topic, *changelogs) and not name.endswith(("-dead", "-source-state"))
        ]
        self.changelogs = [TopicPartition(name, number) for name in changelogs for number in found[name]]
        self.inner = [TopicPartition(name, number) for name in inner for number in found[name]]

    def _behind(self) -> int:
        """How far the group is behind on the topics between its own agents, as Lately's totals by product."""
        if not self.inner:
            return 0
        behind = 0
        for tp, end in zip(self._committed(self.inner), self._ends(self.inner), strict=True):
            # The last offset of a transaction is the broker's mark, which a group need not commit.
            behind += max(end - 1 - max(tp.offset, 0), 0)
        return behind

    def _committed(self, partitions: list[TopicPartition]) -> list[TopicPartition]:
        try:
            return self.reader.committed(partitions, 10)
        except KafkaException:
            return [TopicPartition(tp.topic, tp.partition, 0) for tp in partitions]

    def _ends(self, partitions: list[TopicPartition]) -> list[int]:
        if not partitions:
            return []
        asked = self.admin.list_offsets({tp: OffsetSpec.latest() for tp in partitions}, request_timeout=10)
        ends = {}
        for tp, answer in asked.items():
            try:
                ends[tp.topic, tp.partition] = answer.result().offset
            except KafkaException:  # created or deleted at this moment
                ends[tp.topic, tp.partition] = 0
        return [ends[tp.topic, tp.partition] for tp in partitions]


def delete_topics(kafka: str, keep: set[str]) -> None:
    """Delete every topic but those in `keep` and Kafka's own, so that a side cannot burden the next one."""
    admin = AdminClient({"bootstrap.servers": kafka, "log_level": 0})
    names = [name for name in admin.list_topics(timeout=10).topics if name not in keep and not name.startswith("__")]
    if not names:
        return
    for answer in admin.delete_topics(names, request_timeout=30).values():
        answer.result()
    while set(admin.list_topics(timeout=10).topics) & set(names):
        time.sleep(0.1)
