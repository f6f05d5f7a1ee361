"""What Kafka says of the groups of other processes, also while and after it is away."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer

from app.services import group_directory
from app.services.group_directory import GroupDirectory
from app.settings import Settings
from local.artifacts import Artifacts
from local.kafka import start_kafka
from tests.kit.assignments import assignor_of
from tests.kit.broker import new_topic
from tests.kit.eventually import eventually

AGENTS = {"by_user": "orders", "by_product": "partials"}
CHANGELOGS = {"by_user": "app-by_user-changelog", "by_product": "app-by_product-changelog"}
WRITERS = {table: table for table in CHANGELOGS}
URL = "http://127.0.0.1:6067/"


@pytest.mark.cost(20)
def test_owners_are_read_from_kafka_remain_while_it_is_away_and_end_with_their_group(
    artifacts: Artifacts, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(group_directory, "INTERVAL_S", 0.3)
    caplog.set_level(logging.WARNING, "app.services.group_directory")

    async def wait(check: Callable[[], bool]) -> None:
        await asyncio.to_thread(eventually, check, 40)

    async def follow(kafka: str) -> None:
        directory = GroupDirectory(Settings(kafka=kafka, id="app"), "app", ["by_product"], AGENTS, CHANGELOGS, WRITERS)
        await directory.start()
        try:
            await wait(lambda: not directory.may_run("by_product"))
            workers = {URL: {CHANGELOGS["by_product"]: [0, 1]}}, {URL: {CHANGELOGS["by_product"]: [2]}}
            async with AIOKafkaConsumer(
                new_topic(kafka), bootstrap_servers=kafka, group_id="app+by_product", session_timeout_ms=6000,
                heartbeat_interval_ms=500, partition_assignment_strategy=(assignor_of(*workers),),
            ):  # fmt: skip
                await wait(lambda: directory.find_owner("by_product", 1) == URL)
                assert directory.find_standbys("by_product", 2) == [URL]
                assert directory.find_owner("by_user", 1) is None
                broker.kill()
                await wait(lambda: "the groups of other processes cannot be read" in caplog.text)
                assert directory.find_owner("by_product", 1) == URL
                broker.start()
            await wait(lambda: not directory.may_run("by_product"))
            assert directory.find_owner("by_product", 1) is None
        finally:
            await directory.stop()

    with start_kafka(artifacts, tmp_path) as broker:
        asyncio.run(follow(broker.address))
    lines = [record.getMessage() for record in caplog.records if record.name == "app.services.group_directory"]
    assert sum("cannot be read" in line for line in lines) == 1, lines
