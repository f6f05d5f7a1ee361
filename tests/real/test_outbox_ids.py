"""Rows that no trigger wrote, and ids far ahead of the time: the source, `check` and `setup`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime

import mysql.connector
import pytest

from app.errors import BadSource
from app.settings import Settings
from app.topics import Topics
from source import events, outbox_ids, triggers
from source.check import check_source
from source.mysql import connect
from source.outbox import Outbox
from source.outbox_ids import LARGEST_ID
from source.setup import setup
from tests.kit.stack import Stack

pytestmark = pytest.mark.both_databases

AT = datetime(2026, 1, 31, 12, 0, 0)
PAYLOAD = (
    '{"user_id": "eve", "order_id": "x", "product_name": "Phone", "price": "1", "ordered_at": "2026-01-31T00:00:00Z"}'
)


@pytest.fixture
def connection(shop: Stack, settings: Settings) -> Iterator:
    with closing(connect(settings)) as one:
        yield one


def quiet(_: str) -> None:
    """Where the setup reports."""


def place(shop: Stack, order: str) -> None:
    """Let the shop place an order."""
    shop.insert((order, "Phone", "ann", "19.90", AT, "card"))


def put_row(shop: Stack, row_id: int, kind: str = "order.placed", payload: str = PAYLOAD, **columns: object) -> None:
    """Write a row to the outbox as no trigger does."""
    values = {"id": row_id, "event_id": "0", "type": kind, "payload": payload, **columns}
    shop.execute(
        f"INSERT INTO {shop.outbox()} ({', '.join(values)}) VALUES ({', '.join(['%s'] * len(values))})",
        tuple(values.values()),
    )


def publish(connection, settings: Settings) -> list[tuple[str, int]]:
    """What a source does with the next rows: (order or problem, version) of each, in their order."""
    outbox, published = Outbox(connection, settings), []
    for row in (rows := outbox.read_rows()):
        record = events.build_record(row, "/mysql/s/db/orders", Topics(settings), settings)
        if record.topic == Topics(settings).orders.name:
            data = json.loads(record.value)["data"]
            published.append((data["order_id"], data["version"]))
        else:
            published.append((dict(record.headers)["__lately.errors.exception"].decode(), -1))
    outbox.mark_published(rows)
    return published


def find_next_id(settings: Settings) -> list[str]:
    return [finding.detail for finding in check_source(settings) if finding.name == "next id"]


def test_after_the_largest_id_setup_makes_the_shop_work_again(shop, connection, settings):
    place(shop, "before")
    ((_, before),) = publish(connection, settings)
    put_row(shop, LARGEST_ID)
    with pytest.raises(mysql.connector.Error):
        place(shop, "fails")
    assert "every INSERT of the shop fails" in find_next_id(settings)[0]

    lines: list[str] = []
    setup(settings, "1d", lines.append)

    assert f"the row with the id {LARGEST_ID} is removed" in lines[1]
    assert lines[-1].endswith("was set up before")
    letters = shop.records("orders-dead")
    assert [dict(letter.headers())["__lately.errors.offset"] for letter in letters] == [str(LARGEST_ID).encode()]
    assert find_next_id(settings) == []
    place(shop, "after")
    ((order, after),) = publish(connection, settings)
    assert order == "after"
    assert before < after <= triggers.now_microseconds() + 10


def test_changes_after_a_row_ahead_of_the_time_are_published_in_order_with_ordinary_versions(
    shop, connection, settings
):
    place(shop, "first")
    put_row(shop, 2**62, payload="{}")
    place(shop, "second")
    shop.execute("UPDATE orders SET price = 2 WHERE order_id = 'second'")
    assert "get ids far ahead" in find_next_id(settings)[0]

    published = publish(connection, settings)
    assert [order for order, _ in published] == ["first", "broken-rule", "second", "second"]
    place(shop, "third")
    published += publish(connection, settings)
    place(shop, "fourth")
    setup(settings, "1d", quiet)
    assert find_next_id(settings) == []
    place(shop, "fifth")
    published += publish(connection, settings)

    assert [order for order, _ in published[4:]] == ["third", "fourth", "fifth"]
    versions = [version for _, version in published if version > 0]
    assert versions == sorted(set(versions)), "each is above all earlier ones"
    assert versions[-1] < triggers.now_microseconds() + outbox_ids.MAX_AHEAD
    assert shop.count_outbox() == 0


@pytest.mark.parametrize(
    ("row_id", "kind", "payload", "columns"),
    [
        (5, "order.placed", PAYLOAD, {}),
        (-5, "order.placed", PAYLOAD, {}),
        (2**62, "order.placed", PAYLOAD, {}),
        (2**62, "order.placed", PAYLOAD, {"event_id": "e9c8a1a0-0000-11ee-8000-000000000000"}),
        (10**16, "order.placed", "no JSON", {}),
        (10**16, "order.placed", "[]", {}),
        (10**16, "order.placed", '{"user_id": "\\ud800", "order_id": 1e999}', {}),
        (10**16, "order.placed", f'{{"user_id": "eve", "order_id": {"9" * 5000}}}', {}),
        (10**16, "order.placed", "{" * 5000, {}),
        (10**16, "order.placed", PAYLOAD, {"version": 2**62}),
    ],
)
def test_rows_of_others_become_dead_letters_and_stop_nothing(
    shop, connection, settings, row_id, kind, payload, columns
):
    put_row(shop, row_id, kind, payload, **columns)
    place(shop, "order")
    published = [*publish(connection, settings), *publish(connection, settings)]
    assert len(published) == 2
    assert sum(version == -1 for _, version in published) == 1, published
    assert shop.count_outbox() == 0


def test_a_new_outbox_refuses_unknown_types_and_versions_ahead_of_the_time(shop):
    for kind, columns in (("order.exploded", {}), ("user.erased", {}), ("order.placed", {"version": 2**62 + 1})):
        with pytest.raises(mysql.connector.Error, match=r"(?i)constraint"):
            put_row(shop, 10**16, kind, **columns)


def test_an_unknown_type_in_an_outbox_of_an_earlier_version_becomes_a_dead_letter(shop, connection, settings):
    for (name,) in shop.select(
        "SELECT constraint_name FROM information_schema.table_constraints"
        " WHERE table_schema = %s AND table_name = 'purchase_outbox' AND constraint_type = 'CHECK'",
        (f"{shop.name}_lately",),
    ):
        shop.execute(f"ALTER TABLE {shop.outbox()} DROP CONSTRAINT `{name}`")
    put_row(shop, triggers.now_microseconds(), "order.exploded")
    assert publish(connection, settings) == [("unknown-type", -1)]


def test_no_version_far_ahead_is_reserved_for_an_erasure(shop, connection, settings):
    put_row(shop, 2**62)
    with pytest.raises(BadSource, match="far ahead of the time: run `lately source setup`"):
        triggers.reserve_version(connection, settings)
