"""The limit of a Python worker with aiokafka: fetch, decode, group by user; no state, no output."""

import asyncio
import json
import os
import time

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition

from domain.events import OrderEvent


async def main() -> None:
    """Read the topic to its end, then print orders and seconds since the first records arrived."""
    topic, partitions = os.environ["BENCH_TOPIC"], int(os.environ["BENCH_PARTITIONS"])
    consumer = AIOKafkaConsumer(bootstrap_servers=os.environ["BENCH_KAFKA"], auto_offset_reset="earliest")
    await consumer.start()
    assigned = [TopicPartition(topic, number) for number in range(partitions)]
    consumer.assign(assigned)
    remaining = sum((await consumer.end_offsets(assigned)).values())
    decode = msgspec.json.Decoder(OrderEvent).decode
    began, orders = None, 0
    while remaining > 0:
        chunks = await consumer.getmany(timeout_ms=1000)
        if began is None and chunks:
            began = time.monotonic()
        for chunk in chunks.values():
            by_user: dict[bytes, list] = {}
            for record in chunk:
                by_user.setdefault(record.key, []).append(decode(record.value).data)
            orders += len(chunk)
            remaining -= len(chunk)
    seconds = time.monotonic() - began
    # The clock starts when the first response contains its records, so all records count.
    print(json.dumps({"orders": orders, "seconds": seconds}), flush=True)  # noqa: T201
    await consumer.stop()


if __name__ == "__main__":
    asyncio.run(main())
