"""An outbox belongs to the topics of one app, and the topics to one shop."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable

import pytest

from app.control import state_topic
from app.errors import WrongIdentity
from app.settings import Settings
from source import snapshot
from source.setup import setup
from tests.kit.eventually import eventually
from tests.kit.stack import Stack

pytestmark = pytest.mark.both_databases


def quiet(_: str) -> None:
    """Where the setup reports."""


@pytest.fixture
def staging(settings: Settings) -> Settings:
    """Another app with the same database."""
    return dataclasses.replace(settings, id=f"{settings.id}-staging", topic_prefix=f"{settings.topic_prefix}staging-")


def test_another_app_cannot_take_the_outbox_of_a_shop(shop: Stack, staging: Settings):
    for begin in (lambda: setup(staging, None, quiet), lambda: asyncio.run(snapshot.run(staging))):
        with pytest.raises(WrongIdentity, match=rf"belongs to the topic {shop.topic('orders')} on .*--take-over"):
            begin()
    source = shop.source(LATELY_ID=staging.id, LATELY_TOPIC_PREFIX=staging.topic_prefix)
    source.child.wait(60)
    assert source.child.returncode == 2
    assert "--take-over" in source.tail()


def test_an_outbox_is_handed_over_by_command_only(shop: Stack, settings: Settings, staging: Settings):
    setup(staging, None, quiet, take_over=True)
    setup(staging, None, quiet)
    with pytest.raises(WrongIdentity, match="staging-orders"):
        setup(settings, None, quiet)
    setup(settings, None, quiet, take_over=True)
    setup(settings, None, quiet)


def test_a_running_source_stops_for_the_new_owner(shop: Stack, staging: Settings):
    source = shop.source()
    eventually(lambda: "publishing" in source.tail(), within=30)
    setup(staging, None, quiet, take_over=True)
    eventually(lambda: "belongs to the topic" in source.tail(), within=30)


def test_the_topics_of_a_shop_take_no_orders_of_another_one(shop: Stack, settings: Settings):
    other = dataclasses.replace(settings, mysql_database=f"{shop.name}_other")
    shop.execute(f"CREATE DATABASE `{other.mysql_database}`")
    try:
        shop.execute(f"CREATE TABLE `{other.mysql_database}`.orders LIKE `{shop.name}`.orders")
        with pytest.raises(WrongIdentity, match=rf"contains the orders of {shop.name}\.orders"):
            setup(other, None, quiet)
        assert shop.select(
            "SELECT COUNT(*) FROM information_schema.triggers WHERE trigger_schema = %s", (other.mysql_database,)
        ) == [(0,)]
    finally:
        shop.execute(f"DROP DATABASE `{other.mysql_database}`")


def test_a_shop_that_was_taken_down_can_be_set_up_again(shop: Stack, settings: Settings):
    assert shop.lately("source", "teardown", "--force").child.returncode == 0
    setup(settings, None, quiet)
    setup(settings, None, quiet)


def test_the_first_source_of_this_version_records_the_owner(shop: Stack, settings: Settings):
    shop.execute(f"DELETE FROM {shop.outbox('_locks')} WHERE name = 'owner'")
    source = shop.source()
    eventually(lambda: "publishing" in source.tail(), within=30)
    ((owner,),) = shop.select(f"SELECT holder FROM {shop.outbox('_locks')} WHERE name = 'owner'")
    cluster, orders, token = owner.split("/")
    assert orders == shop.topic("orders")
    assert cluster
    recorded: Callable = lambda: asyncio.run(state_topic.read(settings)).shop  # noqa: E731 - read again each time
    eventually(lambda: recorded().outbox == token)
