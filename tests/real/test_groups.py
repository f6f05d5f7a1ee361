"""What is asked about consumer groups is answered also by a broker that has just started."""

from __future__ import annotations

import asyncio
from pathlib import Path

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.structs import OffsetAndMetadata

from app.kafka.admin import admin_client
from app.kafka.groups import committed_offsets, list_groups, workers_of_group
from app.settings import Settings
from local.artifacts import Artifacts
from local.kafka import start_kafka
from tests.kit.broker import new_topic


def test_a_broker_that_has_yet_to_make_or_read_what_it_knows_of_groups_is_waited_for(
    artifacts: Artifacts, tmp_path: Path
):
    async def ask(kafka: str) -> tuple:
        async with admin_client(Settings(kafka=kafka)) as admin:
            asked = (workers_of_group(admin, "shop"), list_groups(admin), committed_offsets(admin, "shop"))
            return tuple(await asyncio.gather(*asked))

    async def commit(kafka: str, at: TopicPartition) -> None:
        async with AIOKafkaConsumer(bootstrap_servers=kafka, group_id="shop", enable_auto_commit=False) as consumer:
            consumer.assign([at])
            await consumer.commit({at: 7})

    with start_kafka(artifacts, tmp_path) as broker:
        # Nobody has asked it before: it makes the topic in which it keeps them now.
        assert asyncio.run(ask(broker.address)) == ([], [], {})
        at = TopicPartition(new_topic(broker.address), 0)
        asyncio.run(commit(broker.address, at))
        broker.kill()
        broker.start()
        assert asyncio.run(ask(broker.address)) == ([], ["shop"], {at: OffsetAndMetadata(7, "")})
