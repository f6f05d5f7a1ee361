"""Observation of a side from outside: the commits of its group, and the ends of its changelogs."""

from __future__ import annotations

import time
from dataclasses import dataclass

from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from bench.data import DataSet


@dataclass(frozen=True)
class OffsetSample:
    """Offsets at one time; `lag` counts unread records of topics that the group itself writes."""

    time: float
    committed: int
    changelog: int
    lag: int


class Observer:
    """Reads the offsets of a group without joining it, and the ends of its changelogs."""

    def __init__(self, kafka: str, data: DataSet, group: str) -> None:
        self.data = data
        self.group = group
        self.admin = AdminClient({"bootstrap.servers": kafka, "log_level": 0})
        # This consumer never subscribes, so that it is no member of the group.
        self.reader = Consumer({
            "bootstrap.servers": kafka, "group.id": group, "enable.auto.commit": False, "log_level": 0,
        })  # fmt: skip
        self.source = [TopicPartition(data.topic, number) for number in range(data.partitions)]
        self.sample_count = 0
        self.changelogs: list[TopicPartition] = []
        self.internal: list[TopicPartition] = []

    def close(self) -> None:
        self.reader.close()

    def sample(self) -> OffsetSample:
        """Take a sample; its time is that of the response with the committed offsets."""
        committed = sum(max(partition.offset, 0) for partition in self._committed(self.source))
        sampled_at = time.monotonic()
        # A side creates its topics one after the other, so the list is updated from time to time.
        if not self.changelogs or self.sample_count % 20 == 0:
            self._find_topics()
        self.sample_count += 1
        return OffsetSample(sampled_at, committed, sum(self._ends(self.changelogs)), self._internal_lag())

    def changelog_records(self) -> dict[str, int]:
        """Return topic -> end offsets of its partitions, summed, for each changelog."""
        self._find_topics()
        records: dict[str, int] = {}
        for tp, end in zip(self.changelogs, self._ends(self.changelogs), strict=True):
            records[tp.topic] = records.get(tp.topic, 0) + end
        return records

    def _find_topics(self) -> None:
        partitions = {name: topic.partitions for name, topic in self.admin.list_topics(timeout=10).topics.items()}
        ours = [name for name in partitions if name.startswith(self.data.prefix) or self.group in name]
        changelogs = [name for name in ours if "changelog" in name]
        internal = [
            name
            for name in ours
            if name not in (self.data.topic, *changelogs) and not name.endswith(("-dead", "-source-state"))
        ]
        self.changelogs = [TopicPartition(name, number) for name in changelogs for number in partitions[name]]
        self.internal = [TopicPartition(name, number) for name in internal for number in partitions[name]]

    def _internal_lag(self) -> int:
        """Return the lag on topics between the agents, for example Lately's partial totals."""
        if not self.internal:
            return 0
        lag = 0
        for tp, end in zip(self._committed(self.internal), self._ends(self.internal), strict=True):
            # The last offset of a transaction is the broker's marker, which a group need not
            # commit.
            lag += max(end - 1 - max(tp.offset, 0), 0)
        return lag

    def _committed(self, partitions: list[TopicPartition]) -> list[TopicPartition]:
        try:
            return self.reader.committed(partitions, 10)
        except KafkaException:
            return [TopicPartition(tp.topic, tp.partition, 0) for tp in partitions]

    def _ends(self, partitions: list[TopicPartition]) -> list[int]:
        if not partitions:
            return []
        futures = self.admin.list_offsets({tp: OffsetSpec.latest() for tp in partitions}, request_timeout=10)
        ends = {}
        for tp, future in futures.items():
            try:
                ends[tp.topic, tp.partition] = future.result().offset
            except KafkaException:  # created or deleted at this moment
                ends[tp.topic, tp.partition] = 0
        return [ends[tp.topic, tp.partition] for tp in partitions]


def delete_topics(kafka: str, keep: set[str]) -> None:
    """Delete the topics of a side: all but those in `keep` and Kafka's own."""
    admin = AdminClient({"bootstrap.servers": kafka, "log_level": 0})
    names = [name for name in admin.list_topics(timeout=10).topics if name not in keep and not name.startswith("__")]
    if not names:
        return
    for future in admin.delete_topics(names, request_timeout=30).values():
        future.result()
    while set(admin.list_topics(timeout=10).topics) & set(names):
        time.sleep(0.1)
