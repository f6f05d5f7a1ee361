"""Reading and writing of the topic `source-state`.

With LATELY_SIGNING_KEY each record has a signature, and a record without a valid one is ignored.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.structs import ConsumerRecord

from app.control import source_state
from app.control.source_state import SourceStates, State
from app.kafka.consume import LONG_LIVED, end_offset, open_consumer, read_until
from app.kafka.produce import durable_producer
from app.kafka.topic_metadata import count_partitions
from app.settings import Settings
from app.signing import Signer, state_signer
from app.topics import Topic, Topics

log = logging.getLogger(__name__)

SIGNATURE_HEADER = "lately.signature"
_PURPOSE = "state"


class StateCodec:
    """Converts the records of source-state to states, and states to records."""

    def __init__(self, topic: str, signer: Signer) -> None:
        self.topic, self._signer = topic, signer
        #: The keys of ignored records that the log names already.
        self._unsigned: set[bytes] = set()

    @property
    def has_keys(self) -> bool:
        """Whether records are signed."""
        return self._signer.has_keys

    def encode(self, state: State) -> tuple[bytes, bytes, list[tuple[str, bytes]]]:
        """Return key, value and headers of the state's record."""
        key, value = source_state.encode(state)
        signature = self._signer.sign(_PURPOSE, self.topic.encode(), key, value)
        return key, value, [(SIGNATURE_HEADER, signature.encode())] if signature else []

    def decode(self, record: ConsumerRecord) -> State | None:
        """Return the state of a record; None if it is not signed, or another version of Lately wrote it."""
        state = source_state.decode(record.key, record.value)
        if state is None or self.is_signed(record):
            return state
        if record.key not in self._unsigned:
            self._unsigned.add(record.key)
            log.warning(
                "the record %s@%d (%s) has no signature of LATELY_SIGNING_KEY: it is ignored; if a process wrote it "
                "before the key was set, `lately source sign` signs it",
                record.topic, record.offset, record.key.decode(errors="backslashreplace"),
            )  # fmt: skip
        return None

    def is_signed(self, record: ConsumerRecord, *, by_newest_key: bool = False) -> bool:
        """Return whether a record has a valid signature, or none is needed."""
        signature = dict(record.headers).get(SIGNATURE_HEADER) or b""
        check = self._signer.is_newest if by_newest_key else self._signer.is_valid
        parts = (self.topic.encode(), record.key or b"", record.value or b"")
        return check(signature.decode(errors="replace"), _PURPOSE, *parts)


def create_codec(settings: Settings, topic: Topic | None = None) -> StateCodec:
    """Return the codec of a topic of states; the default is source-state."""
    return StateCodec((topic or Topics(settings).source_state).name, state_signer(settings))


async def write(producer: AIOKafkaProducer, settings: Settings, *states: State) -> None:
    """Write `states` to the topic source-state, and wait until Kafka has acknowledged them.

    Raises KafkaError.
    """
    codec = create_codec(settings)
    for state in states:
        await send(producer, codec, state)


async def send(producer: AIOKafkaProducer, codec: StateCodec, state: State) -> None:
    """Write a state to the topic of `codec`, and wait until Kafka has acknowledged it. Raises KafkaError."""
    key, value, headers = codec.encode(state)
    await producer.send_and_wait(codec.topic, value, key, partition=0, headers=headers)


async def read(settings: Settings) -> SourceStates:
    """Read the newest state of each kind; all are None before the topic exists.

    Raises ServerAway.
    """
    async with open_reader(settings) as reader:
        return reader.states


async def sign_again(settings: Settings, *, accept_unsigned: bool = False, dry_run: bool = False) -> list[str]:
    """Sign the newest state of each kind with the newest key, and return their keys and values.

    These are the states that a previous key has signed, and with `accept_unsigned` also those
    without a valid signature. Raises ServerAway, KafkaError.
    """
    codec = create_codec(settings)
    if not codec.has_keys:
        return []
    newest: dict[bytes, ConsumerRecord] = {}
    async with open_reader(settings, is_caught_up=False) as reader:
        async for record in reader.read_records():
            if source_state.decode(record.key, record.value) and (accept_unsigned or codec.is_signed(record)):
                newest[record.key] = record
    old = [record for record in newest.values() if not codec.is_signed(record, by_newest_key=True)]
    states = [state for record in old if (state := source_state.decode(record.key, record.value)) is not None]
    if states and not dry_run:
        async with durable_producer(settings) as producer:
            await write(producer, settings, *states)
    return [f"{record.key.decode()}: {record.value.decode()}" for record in old]


class SourceStateReader:
    """Reads the topic source-state; `states` contains the newest state of each kind read so far."""

    def __init__(self, consumer: AIOKafkaConsumer, tp: TopicPartition, codec: StateCodec) -> None:
        self.states = SourceStates()
        self.consumer, self.codec = consumer, codec
        self._tp = tp

    async def catch_up(self) -> None:
        """Read the records written since the last call, up to the present end of the topic."""
        async for record in self.read_records():
            state = self.codec.decode(record)
            if state is not None:
                self.states.update(state)

    async def read_records(self) -> AsyncIterator[ConsumerRecord]:
        """Yield the records written since the last call, up to the present end of the topic."""
        if self._tp not in self.consumer.assignment():
            return  # the topic does not exist
        end = await end_offset(self.consumer, self._tp)
        async for record in read_until(self.consumer, {self._tp: end}):
            yield record


@asynccontextmanager
async def open_reader(
    settings: Settings, topic: Topic | None = None, *, is_caught_up: bool = True
) -> AsyncIterator[SourceStateReader]:
    """Open a reader of a topic of states that has caught up, or has read nothing yet; the default is source-state.

    The topic may not exist. Raises ServerAway.
    """
    codec = create_codec(settings, topic)
    tp = TopicPartition(codec.topic, 0)
    # The source keeps its reader for as long as it runs.
    async with open_consumer(settings, **LONG_LIVED) as consumer:
        reader = SourceStateReader(consumer, tp, codec)
        if await count_partitions(consumer, [tp.topic]):
            consumer.assign([tp])
            if is_caught_up:
                await reader.catch_up()
        yield reader
