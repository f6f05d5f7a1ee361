"""Reading a topic from its first record on, for as long as the worker runs."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from aiokafka.structs import ConsumerRecord
from mode import Service

from app.kafka.consume import LONG_LIVED, open_consumer, partitions_of
from app.settings import Settings
from app.topics import Topic
from domain.errors import LatelyError

MAX_RECORDS = 500
FETCH_TIMEOUT_MS = 500
RETRY_AFTER_S = 1.0


class TopicTail(Service):
    """Applies every record of a topic; after an error of Kafka it starts again."""

    def __init__(self, settings: Settings, topic: Topic, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._settings = settings
        self._topic = topic
        #: Whether all records are applied that the topic contained when reading began.
        self.is_complete = False

    def reset(self) -> None:
        """Forget the applied records, because the topic is read again; the default does nothing."""

    @abstractmethod
    def apply(self, record: ConsumerRecord) -> None:
        """Apply one record."""

    def _apply_any(self, record: ConsumerRecord) -> None:
        """Apply a record; any client may have written it, so no record may end the worker."""
        try:
            self.apply(record)
        except Exception as exc:  # any bytes, so any error
            self.log.warning(
                "%s[%s]@%s cannot be read and is skipped: %r", record.topic, record.partition, record.offset, exc
            )

    @Service.task
    async def _tail(self) -> None:
        while not self.should_stop:
            try:
                await self._read_until_stopped()
            except LatelyError as exc:
                self.log.warning("%s cannot be read (%s); trying again", self._topic.name, exc)
                await self.sleep(RETRY_AFTER_S)

    async def _read_until_stopped(self) -> None:
        self.is_complete = False
        self.reset()
        async with open_consumer(self._settings, **LONG_LIVED) as consumer:
            tps = partitions_of(self._topic.name, self._topic.partitions or self._settings.partitions)
            consumer.assign(tps)
            ends = await consumer.end_offsets(tps)
            while not self.should_stop:
                fetched = await consumer.getmany(timeout_ms=FETCH_TIMEOUT_MS, max_records=MAX_RECORDS)
                for records in fetched.values():
                    for record in records:
                        self._apply_any(record)
                if not self.is_complete:
                    self.is_complete = all([await consumer.position(tp) >= ends[tp] for tp in tps])
