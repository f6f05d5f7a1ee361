"""Record batches as bytes, as clients write them."""

from __future__ import annotations

import struct
from collections.abc import Iterable

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import for_code
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.util import calc_crc32c

from chunks.record_batch import HEADER

NONE, GZIP, SNAPPY, LZ4, ZSTD = CODECS = (0, 1, 2, 3, 4)
CRC_AT, ATTRIBUTES_AT = struct.calcsize(">qiib"), struct.calcsize(">qiibI")
#: A header name as long as BAD_NAME, which replaces it.
PLAIN_NAME, BAD_NAME = "bad", b"\xff\xfe\x80"

Part = bytes | None
Headers = list[tuple[str, bytes | None]]


def build(records: Iterable[tuple[Part, Part, Headers]], codec: int = NONE, base: int = 0, timestamp: int = 1) -> bytes:
    """A batch of records (key, value, headers) with the first offset `base`."""
    builder = DefaultRecordBatchBuilder(
        magic=2, compression_type=codec, is_transactional=False,
        producer_id=-1, producer_epoch=-1, base_sequence=-1, batch_size=2**30,
    )  # fmt: skip
    for number, (key, value, headers) in enumerate(records):
        builder.append(number, timestamp, key, value, headers)
    return struct.pack(">q", base) + bytes(builder.build())[8:]


def sealed(data: bytes) -> bytes:
    """The batch with the length and the checksum of its bytes."""
    batch = bytearray(data)
    struct.pack_into(">i", batch, 8, len(batch) - 12)
    struct.pack_into(">I", batch, CRC_AT, calc_crc32c(bytes(batch[ATTRIBUTES_AT:])))
    return bytes(batch)


def with_bad_names(data: bytes) -> bytes:
    """An uncompressed batch whose headers PLAIN_NAME have a name that is not UTF-8."""
    return sealed(data.replace(PLAIN_NAME.encode(), BAD_NAME))


def with_content(data: bytes, content: bytes) -> bytes:
    """The batch with other bytes after its header."""
    return sealed(data[: HEADER.size] + content)


async def write_raw(kafka: str, topic: str, data: bytes, partition: int = 0) -> None:
    """Write a batch to a topic as it is; raises the broker's error."""
    producer = AIOKafkaProducer(bootstrap_servers=kafka)
    await producer.start()
    try:
        client = producer.client
        await producer.partitions_for(topic)
        node = client.cluster.leader_for_partition(TopicPartition(topic, partition))
        response = await client.send(node, ProduceRequest(None, -1, 10_000, [(topic, [(partition, data)])]))
        [(_, [(_, code, *_)])] = response.topics
        if code:
            raise for_code(code)()
    finally:
        await producer.stop()
