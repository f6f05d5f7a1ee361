"""The highest published version is known after a kill of the source, from its last status and the events behind it."""

from __future__ import annotations

import asyncio
import json

from app.control.source_state import CaptureState, LeaderStatus, SourceStates
from app.kafka.admin import ensure_topics
from app.settings import Settings
from app.topics import Topics
from source.published_versions import read_highest
from source.versions import MAX_VERSION
from tests.kit.stack import Stack


def event(version: int, type: str = "order.changed") -> tuple[str, str]:
    """Key and value of an event, as far as its version is concerned."""
    return "ann", json.dumps({"type": type, "data": {"user_id": "ann", "version": version}})


def test_changes_behind_the_last_status_count_and_other_events_do_not(stack: Stack):
    settings = Settings.from_env(stack.env)
    topics = Topics(settings)
    asyncio.run(ensure_topics(settings))
    stack.publish("orders", event(900))
    behind = stack.high_watermark("orders")
    partition = next(record.partition() for record in stack.records("orders"))

    def highest(offset: int | None, **states: object) -> int:
        offsets = {} if offset is None else {partition: offset}
        status = LeaderStatus(mode="outbox", guarantee="proven", offsets=offsets, highest_version=100)
        return asyncio.run(read_highest(settings, topics, SourceStates(status=status, **states)))

    assert highest(behind) == 100
    stack.publish(
        "orders", event(200), event(150), event(500, "order.snapshot"), event(MAX_VERSION), ("ann", "no JSON")
    )
    assert highest(behind) == 200
    assert highest(behind, capture=CaptureState(table="shop.orders", highest_version=300)) == 300
    assert highest(None) == 100, "this leader had published nothing there"
    assert highest(0) == 900
    assert asyncio.run(read_highest(settings, topics, SourceStates())) == 0
