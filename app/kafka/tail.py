"""Following a topic for as long as the worker runs: what it says is known from its first record on."""

from __future__ import annotations

import asyncio
from abc import abstractmethod

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError
from aiokafka.structs import ConsumerRecord
from mode import Service

from app.core import settings
from app.kafka.client import client, obstacle
from app.topics import Topic

AT_ONCE = 500
AGAIN_AFTER_S = 1.0


class Follower(Service):
    """Learns every record of a topic; when Kafka fails, all of them again."""

    def __init__(self, topic: Topic, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self._topic = topic
        #: Whether all that was there at the start is read.
        self.complete = False

    def forget(self) -> None:
        """Do nothing; who counts begins anew, as the topic is read from its beginning."""

    @abstractmethod
    def learn(self, record: ConsumerRecord) -> None:
        """Take one record over."""

    @Service.task
    async def _follow(self) -> None:
        while not self.should_stop:
            try:
                await self._read_for_ever()
            except (KafkaError, OSError) as exc:
                why = await obstacle(settings, exc) or exc
                self.log.warning("%s cannot be read (%s); trying again", self._topic.name, why)
                await self.sleep(AGAIN_AFTER_S)

    async def _read_for_ever(self) -> None:
        consumer = AIOKafkaConsumer(
            **client(settings), enable_auto_commit=False, auto_offset_reset="earliest",
            isolation_level="read_committed",
        )  # fmt: skip
        self.complete = False
        self.forget()
        try:
            await consumer.start()
            numbers = range(self._topic.partitions or settings.partitions)
            tps = [TopicPartition(self._topic.name, number) for number in numbers]
            consumer.assign(tps)
            ends = await consumer.end_offsets(tps)
            while not self.should_stop:
                for records in (await consumer.getmany(timeout_ms=500, max_records=AT_ONCE)).values():
                    for record in records:
                        self.learn(record)
                if not self.complete:
                    self.complete = all([await consumer.position(tp) >= ends[tp] for tp in tps])
        finally:
            await asyncio.shield(consumer.stop())
