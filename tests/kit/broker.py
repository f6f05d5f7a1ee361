"""Topics of a test's own on the real broker, and a reader that shares no code with ours."""

from __future__ import annotations

import uuid
from contextlib import closing

from confluent_kafka import Consumer, IsolationLevel, KafkaError, Message, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec

from tests.kit.eventually import eventually


def new_topic(kafka: str, partitions: int = 1, **config: str) -> str:
    """Create a topic with a name of its own; in the names of settings `_` stands for the point."""
    name = f"t{uuid.uuid4().hex}"
    admin = AdminClient({"bootstrap.servers": kafka})
    settings = {key.replace("_", "."): value for key, value in config.items()}
    admin.create_topics([NewTopic(name, partitions, 1, config=settings)])[name].result()
    return name


def end_of(
    kafka: str, topic: str, partition: int = 0, isolation: IsolationLevel = IsolationLevel.READ_UNCOMMITTED
) -> int:
    """The offset after the last record or marker, or (READ_COMMITTED) of the first that no marker decides yet."""
    place = TopicPartition(topic, partition)
    admin = AdminClient({"bootstrap.servers": kafka})
    return admin.list_offsets({place: OffsetSpec.latest()}, isolation_level=isolation)[place].result(30).offset


def messages(kafka: str, topic: str, partition: int = 0, isolation: str = "read_committed") -> list[Message]:
    """All records that a reader gets to see; none of their transactions may be open when committed ones are asked for.

    A broker answers a commit before its markers are in the log: this waits for them.
    """
    if isolation == "read_committed":
        at = (kafka, topic, partition)
        eventually(lambda: end_of(*at) == end_of(*at, IsolationLevel.READ_COMMITTED))
    settings = {
        "bootstrap.servers": kafka,
        "group.id": "nobody",
        "enable.auto.commit": False,
        "enable.partition.eof": True,
        "fetch.wait.max.ms": 10,
        "isolation.level": isolation,
    }
    found = []
    with closing(Consumer(settings)) as reader:
        reader.assign([TopicPartition(topic, partition, 0)])
        while True:
            message = reader.poll(30)
            assert message is not None, "the broker does not answer"
            if message.error() is None:
                found.append(message)
            elif message.error().code() == KafkaError._PARTITION_EOF:
                return found


def records(kafka: str, topic: str, partition: int = 0, isolation: str = "read_committed") -> list[tuple]:
    """The same as (key, value)."""
    return [(one.key(), one.value()) for one in messages(kafka, topic, partition, isolation)]
