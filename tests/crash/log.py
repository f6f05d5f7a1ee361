"""Reading a topic to its end, as whoever trusts only what is committed does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition

WAITS = 300
WAIT_S = 0.1


def reader(kafka: str, group: str = "crash") -> Consumer:
    """A consumer that commits nothing."""
    return Consumer({
        "bootstrap.servers": kafka, "group.id": group, "enable.auto.commit": False, "enable.partition.eof": True,
        "isolation.level": "read_committed", "auto.offset.reset": "error", "fetch.wait.max.ms": 10,
    })  # fmt: skip


def records(kafka: str, topic: str, partition: int) -> Iterator[tuple[int, bytes, bytes | None]]:
    """Offset, key and value of all committed records of one partition."""
    with closing(reader(kafka)) as consumer:
        consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING)])
        for _ in range(WAITS):
            for message in consumer.consume(10_000, WAIT_S):
                if message.error() is None:
                    yield message.offset(), message.key(), message.value()
                elif message.error().code() == KafkaError._PARTITION_EOF:
                    return
                else:
                    raise KafkaException(message.error())
    raise AssertionError(f"{topic}[{partition}] did not end within {WAITS * WAIT_S:g} s")


def ends(kafka: str, topic: str, partitions: int) -> list[int]:
    """The offset after the last record of each partition."""
    with closing(reader(kafka)) as consumer:
        return [consumer.get_watermark_offsets(TopicPartition(topic, one), 10)[1] for one in range(partitions)]


def committed(kafka: str, group: str, topic: str, partitions: int) -> list[int]:
    """The offset that the group has committed in each partition."""
    with closing(reader(kafka, group)) as consumer:
        asked = [TopicPartition(topic, one) for one in range(partitions)]
        try:
            return [one.offset for one in consumer.committed(asked, 10)]
        except KafkaException as exc:
            # A broker that has just started does not know its groups yet; whoever waits asks again.
            raise AssertionError(str(exc)) from exc
